/*
 * The KVM engine: the virtual machine, its memory slots and its vCPUs' set-up.
 *
 * Only processor and memory are KVM's. Interrupt controllers and timers are our own devices, as in
 * every other mode, so KVM runs without an in-kernel irqchip: interrupts go in one at a time when
 * the guest can take them, and HLT comes out to us. An MSR filter sends all MSR accesses to
 * src/cpu/msr.c but the few that the processor needs for itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm/internal.h"
#include "util/error.h"

#define DEVICE           "/dev/kvm"
/* Pages that VT-x without "unrestricted guest" needs for itself; they lie in the PCI hole. */
#define IDENTITY_MAP_GPA UINT64_C(0xfffbc000)
#define TSS_GPA          UINT64_C(0xfffbd000)

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
    int result;
    do {
        result = ioctl(fd, request, arg);
    } while (result < 0 && errno == EINTR);
    return result;
}

static int open_failed(struct tv_error *err, int error)
{
    switch (error) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return tv_fail(err, "no " DEVICE ": the processor's virtualization is off, its module "
                            "(kvm_intel, kvm_amd) is not loaded, or a container was started "
                            "without the device");
    case EACCES:
        return tv_fail(err, "no permission for " DEVICE ": add the user to the group that owns it "
                            "(usually kvm)");
    case EPERM:
        return tv_fail(err, "opening " DEVICE " is forbidden: the container's device rules or "
                            "seccomp filter must allow it");
    case EBUSY:
        return tv_fail(err, DEVICE " is busy: another hypervisor uses the processor's "
                                   "virtualization");
    default:
        return tv_fail_errno(err, error, "cannot open " DEVICE);
    }
}

int kvm_open(struct tv_error *err)
{
    static const struct {
        int cap;
        const char *name;
    } needed[] = {
        {KVM_CAP_USER_MEMORY, "user memory regions"},
        {KVM_CAP_EXT_CPUID, "KVM_SET_CPUID2"},
        {KVM_CAP_SET_TSS_ADDR, "KVM_SET_TSS_ADDR"},
        {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
        {KVM_CAP_VCPU_EVENTS, "vCPU events"},
        {KVM_CAP_DEBUGREGS, "debug registers"},
        {KVM_CAP_XSAVE, "XSAVE state"},
        {KVM_CAP_XCRS, "XCRs"},
        {KVM_CAP_USER_NMI, "NMIs"},
        {KVM_CAP_SET_GUEST_DEBUG, "guest debugging"},
        {KVM_CAP_X86_USER_SPACE_MSR, "MSR exits"},
        {KVM_CAP_X86_MSR_FILTER, "MSR filters"},
    };
    int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return open_failed(err, errno);
    int version = ioctl(fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        int error = errno;
        close(fd);
        if (version < 0)
            return tv_fail_errno(err, error,
                                 DEVICE " opens but does not answer (a seccomp filter must allow "
                                        "ioctl on it)");
        return tv_fail(err, DEVICE " has API version %d, want %d", version, KVM_API_VERSION);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
        if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].cap) > 0)
            continue;
        close(fd);
        return tv_fail(err, DEVICE " lacks %s: a host kernel of 5.10 or later has it",
                       needed[i].name);
    }
    return fd;
}

/* ---- Virtual machine ---- */

/* Bits of `first` .. `first + 31` that the processor handles itself. */
struct native_range {
    uint32_t first, bits;
};

/* Everything not allowed here comes to us, except the x2APIC registers, which no filter covers:
 * KVM has no APIC, finds them invalid, and that comes to us too. */
static int set_msr_filter(struct kvm_vm *vm, struct tv_error *err)
{
    static const struct native_range native[] = {
        {0x174, 7},                                             /* SYSENTER_CS, ESP, EIP */
        {MSR_PAT, 1},                                           /* PAT */
        {MSR_SPEC_CTRL, 3},                                     /* SPEC_CTRL, PRED_CMD */
        {MSR_EFER, BIT(0) | BIT(1) | BIT(2) | BIT(3) | BIT(4)}, /* and STAR .. SFMASK */
        {MSR_FS_BASE, BIT(0) | BIT(1) | BIT(2) | BIT(3)},       /* to TSC_AUX */
    };
    uint32_t bitmaps[ARRAY_SIZE(native)];
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    for (unsigned i = 0; i < ARRAY_SIZE(native); i++) {
        bitmaps[i] = native[i].bits;
        filter.ranges[i] =
            (struct kvm_msr_filter_range){.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                                          .nmsrs = 32,
                                          .base = native[i].first,
                                          .bitmap = (void *)&bitmaps[i]};
    }
    struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                 .args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
                                          KVM_MSR_EXIT_REASON_FILTER}};
    if (kvm_ioctl(vm->vm_fd, KVM_ENABLE_CAP, &cap) < 0 ||
        kvm_ioctl(vm->vm_fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
        return tv_fail_errno(err, errno, "KVM does not hand over MSR accesses");
    return 0;
}

/* Of the MSRs that struct vcpu holds and the processor uses, those that this KVM gives. (Its list
 * of MSRs is of no use: some KVMs leave out what they have.) */
static void find_msrs(struct kvm_vm *vm, int vcpu_fd)
{
    static const uint32_t wanted[] = {
        MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,   MSR_PAT,     MSR_STAR,     MSR_LSTAR,
        MSR_CSTAR,       MSR_SFMASK,       MSR_KERNEL_GS_BASE, MSR_TSC_AUX, MSR_SPEC_CTRL};
    vm->msr_count = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
        struct {
            struct kvm_msrs head;
            struct kvm_msr_entry entry;
        } image = {.head.nmsrs = 1, .entry.index = wanted[i]};
        if (kvm_ioctl(vcpu_fd, KVM_GET_MSRS, &image) == 1)
            vm->msrs[vm->msr_count++] = wanted[i];
    }
}

/* One of the MSRs that KVM answers for the processor as a whole; 0 where it does not know it. */
static uint64_t feature_msr(struct kvm_vm *vm, uint32_t index)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } image = {.head.nmsrs = 1, .entry.index = index};
    return kvm_ioctl(vm->dev_fd, KVM_GET_MSRS, &image) == 1 ? image.entry.data : 0;
}

/* Take out of the CPUID model what this KVM cannot do. */
static int limit_cpuid(struct machine *m, struct kvm_vm *vm, struct tv_error *err)
{
    enum { ROOM = 256 };
    struct kvm_cpuid2 *can = calloc(1, sizeof *can + ROOM * sizeof can->entries[0]);
    struct cpuid_leaf *leaves = calloc(ROOM, sizeof *leaves);
    int result;
    if (!can || !leaves) {
        result = tv_fail(err, "out of memory");
        goto out;
    }
    can->nent = ROOM;
    if (kvm_ioctl(vm->dev_fd, KVM_GET_SUPPORTED_CPUID, can) < 0) {
        result = tv_fail_errno(err, errno, "KVM does not tell what it supports");
        goto out;
    }
    for (unsigned i = 0; i < can->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &can->entries[i];
        leaves[i] = (struct cpuid_leaf){e->function, e->index, e->eax, e->ebx, e->ecx, e->edx};
    }
    result = cpuid_limit(&m->cpuid, leaves, can->nent, feature_msr(vm, MSR_ARCH_CAPABILITIES), err);
out:
    free(can);
    free(leaves);
    return result;
}

static int build_vm(struct machine *m, struct kvm_vm *vm, struct tv_error *err)
{
    vm->dev_fd = kvm_open(err);
    if (vm->dev_fd < 0)
        return -1;
    vm->vm_fd = kvm_ioctl(vm->dev_fd, KVM_CREATE_VM, NULL);
    if (vm->vm_fd < 0)
        return tv_fail_errno(err, errno, "KVM does not create a virtual machine");
    fcntl(vm->vm_fd, F_SETFD, FD_CLOEXEC);
    int most = ioctl(vm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (most > 0 && m->vcpu_count > (unsigned)most)
        return tv_fail(err, "%u CPUs: KVM on this host can do %d", m->vcpu_count, most);
    vm->has_sregs2 = ioctl(vm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0;
    vm->has_tsc_offset = ioctl(vm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_VCPU_ATTRIBUTES) > 0;
    vm->run_size = (size_t)ioctl(vm->dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

    uint64_t identity = IDENTITY_MAP_GPA;
    if (kvm_ioctl(vm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
        ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA) < 0)
        return tv_fail_errno(err, errno, "KVM does not reserve its pages");
    vm->mem = m->mem;
    if (kvm_memory_update(vm, m->mem, err) < 0)
        return -1;
    m->mem->hooks = (struct physmem_hooks){.opaque = vm, .sync_log = kvm_memory_sync_log};
    return set_msr_filter(vm, err) < 0 ? -1 : limit_cpuid(m, vm, err);
}

static void kvm_memory_changed(struct machine *m)
{
    struct tv_error err;
    if (kvm_memory_update(m->vcpus[0]->kvm->vm, m->mem, &err) < 0)
        log_write(&m->log, LOG_MMIO, "%s", err.message);
}

static void kvm_machine_fini(struct machine *m)
{
    struct kvm_vm *vm = NULL;
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        struct kvm_vcpu *k = m->vcpus[i]->kvm;
        if (!k)
            continue;
        vm = k->vm;
        if (k->run)
            munmap(k->run, vm->run_size);
        if (k->fd >= 0)
            close(k->fd);
        free(k);
        m->vcpus[i]->kvm = NULL;
    }
    if (!vm)
        return;
    if (vm->vm_fd >= 0)
        close(vm->vm_fd);
    if (vm->dev_fd >= 0)
        close(vm->dev_fd);
    free(vm);
}

/* ---- vCPUs ---- */

/* The model's CPUID with this vCPU's APIC ID. KVM itself keeps up what follows CR4 and XCR0. */
static int set_cpuid(struct vcpu *cpu, struct tv_error *err)
{
    const struct cpuid_table *t = &cpu->machine->cpuid;
    struct kvm_cpuid2 *set = calloc(1, sizeof *set + t->count * sizeof set->entries[0]);
    if (!set)
        return tv_fail(err, "out of memory");
    for (unsigned i = 0; i < t->count; i++) {
        const struct cpuid_leaf *l = &t->leaves[i];
        struct cpuid_leaf value = cpuid_query(cpu, l->leaf, l->subleaf);
        bool by_subleaf = l->leaf == 4 || l->leaf == 7 || l->leaf == 0xb || l->leaf == 0xd;
        set->entries[set->nent++] =
            (struct kvm_cpuid_entry2){.function = l->leaf,
                                      .index = l->subleaf,
                                      .flags = by_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                                      .eax = value.eax,
                                      .ebx = value.ebx,
                                      .ecx = value.ecx,
                                      .edx = value.edx};
    }
    int result = kvm_ioctl(cpu->kvm->fd, KVM_SET_CPUID2, set);
    int error = errno;
    free(set);
    return result < 0 ? tv_fail_errno(err, error, "KVM does not take the CPUID model") : 0;
}

static int create_vcpu(struct vcpu *cpu, struct kvm_vm *vm, struct tv_error *err)
{
    struct kvm_vcpu *k = cpu->kvm;
    k->fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, cpu->index);
    if (k->fd < 0)
        return tv_fail_errno(err, errno, "KVM does not create vCPU %u", cpu->index);
    fcntl(k->fd, F_SETFD, FD_CLOEXEC);
    void *run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
    if (run == MAP_FAILED)
        return tv_fail_errno(err, errno, "cannot map vCPU %u", cpu->index);
    k->run = run;
    if (set_cpuid(cpu, err) < 0)
        return -1;
    if (cpu->index == 0)
        find_msrs(vm, k->fd);
    return 0;
}

static int kvm_machine_init(struct machine *m, struct tv_error *err)
{
    struct kvm_vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return tv_fail(err, "out of memory");
    vm->dev_fd = vm->vm_fd = -1;
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        struct kvm_vcpu *k = m->vcpus[i]->kvm = calloc(1, sizeof *k);
        if (!k) {
            if (i == 0)
                free(vm);
            kvm_machine_fini(m);
            return tv_fail(err, "out of memory");
        }
        k->vm = vm;
        k->fd = -1;
        k->dirty = true;
    }
    int result = build_vm(m, vm, err);
    for (unsigned i = 0; result == 0 && i < m->vcpu_count; i++)
        result = create_vcpu(m->vcpus[i], vm, err);
    if (result < 0)
        kvm_machine_fini(m);
    return result;
}

/* The kick signal is blocked in this thread and open inside KVM_RUN. */
static int kvm_vcpu_init(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_vcpu *k = cpu->kvm;
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, KICK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);

    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    sigdelset(&now, KICK_SIGNAL);
    struct {
        struct kvm_signal_mask mask;
        uint8_t set[8]; /* the kernel's sigset: 64 signals */
    } arg = {.mask.len = 8};
    memcpy(arg.mask.sigset, &now, 8);
    if (kvm_ioctl(k->fd, KVM_SET_SIGNAL_MASK, &arg) < 0)
        return tv_fail_errno(err, errno, "KVM does not take a signal mask");
    k->tid = (pid_t)syscall(SYS_gettid);
    return 0;
}

static void kvm_vcpu_fini(struct vcpu *cpu)
{
    (void)cpu; /* kvm_machine_fini() takes all down: vCPUs were made before their threads */
}

static void kvm_state_changed(struct vcpu *cpu)
{
    if (cpu->kvm)
        cpu->kvm->dirty = true;
}

static void kvm_print_stats(struct machine *m, FILE *out)
{
    static const char *const names[64] = {
        [KVM_EXIT_IO] = "port",
        [KVM_EXIT_MMIO] = "MMIO",
        [KVM_EXIT_HLT] = "HLT",
        [KVM_EXIT_INTR] = "signal",
        [KVM_EXIT_DEBUG] = "debug",
        [KVM_EXIT_SET_TPR] = "TPR",
        [KVM_EXIT_IRQ_WINDOW_OPEN] = "interrupt window",
        [KVM_EXIT_X86_RDMSR] = "RDMSR",
        [KVM_EXIT_X86_WRMSR] = "WRMSR",
    };
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        const struct kvm_vcpu *k = m->vcpus[i]->kvm;
        if (!k)
            continue;
        fprintf(out, "vcpu %u: %" PRIu64 " entries; exits:", i, k->runs);
        for (unsigned reason = 0; reason < ARRAY_SIZE(names); reason++)
            if (k->exits[reason] && names[reason])
                fprintf(out, " %" PRIu64 " %s", k->exits[reason], names[reason]);
        fputc('\n', out);
    }
}

const struct engine kvm_engine = {
    .name = "hw",
    .machine_init = kvm_machine_init,
    .machine_fini = kvm_machine_fini,
    .vcpu_init = kvm_vcpu_init,
    .vcpu_fini = kvm_vcpu_fini,
    .run = kvm_run,
    .kick = kvm_kick,
    .state_changed = kvm_state_changed,
    .memory_changed = kvm_memory_changed,
    .print_stats = kvm_print_stats,
};
