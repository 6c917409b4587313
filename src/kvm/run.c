/*
 * The run loop of a vCPU under KVM.
 *
 * How a kick meets the guest. A waker sets its bit in vcpu.attention and then reads `running`; the
 * vCPU's thread sets `running` and then reads attention, and enters the guest only if that is zero.
 * Both orders are sequentially consistent, so either the thread sees the bit or the waker sees
 * `running` and sends the signal, which is blocked outside KVM_RUN and therefore waits for it. One
 * that comes too late costs one futile entry.
 *
 * Who owns the state. Inside run() it is KVM's; struct vcpu has it when run() returns, and KVM's
 * copy stays good until somebody says state_changed().
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cpu/msr.h"
#include "cpu/register_port.h"
#include "dev/lapic.h"
#include "kvm/internal.h"
#include "util/error.h"

#define HANDLED_HERE ((uint32_t)(ATT_INTR | ATT_NMI | ATT_DEBUG))

void kvm_kick(struct vcpu *cpu)
{
    struct kvm_vcpu *k = cpu->kvm;
    if (k && atomic_load(&k->running))
        syscall(SYS_tgkill, getpid(), k->tid, KICK_SIGNAL);
}

static void eat_kicks(void)
{
    sigset_t set;
    const struct timespec now = {0, 0};
    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    while (sigtimedwait(&set, NULL, &now) > 0)
        ;
}

/* ---- Exits ---- */

/* An IN that changes other registers than EAX. */
static bool register_port(struct vcpu *cpu, uint8_t *data)
{
    struct kvm_run *run = cpu->kvm->run;
    struct kvm_regs r;
    if (run->io.direction != KVM_EXIT_IO_IN || run->io.port != REGISTER_PORT ||
        run->io.count != 1 || kvm_ioctl(cpu->kvm->fd, KVM_GET_REGS, &r) < 0)
        return false;
    uint64_t gpr[16] = {
        [RAX] = r.rax, [RBX] = r.rbx, [RCX] = r.rcx, [RDX] = r.rdx, [RSI] = r.rsi, [RDI] = r.rdi};
    if (!register_port_in(cpu->machine, run->io.port, run->io.size, gpr))
        return false;
    memcpy(data, &gpr[RAX], 4);
    r.rax = gpr[RAX];
    r.rbx = gpr[RBX];
    r.rcx = gpr[RCX];
    r.rdx = gpr[RDX];
    r.rsi = gpr[RSI];
    r.rdi = gpr[RDI];
    kvm_ioctl(cpu->kvm->fd, KVM_SET_REGS, &r);
    return true;
}

static void port_io(struct vcpu *cpu)
{
    struct kvm_run *run = cpu->kvm->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned size = run->io.size;
    if (register_port(cpu, data))
        return;
    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        uint32_t value = 0;
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, size);
            machine_out(cpu->machine, run->io.port, size, value);
        } else {
            value = machine_in(cpu->machine, run->io.port, size);
            memcpy(data, &value, size);
        }
    }
}

static uint64_t mmio_read(struct vcpu *cpu, uint64_t gpa, unsigned size)
{
    if (!cpu->lapic || (gpa & PAGE_MASK) != lapic_mmio_address(cpu->lapic))
        return machine_mmio_read(cpu->machine, gpa, size);
    uint32_t offset = (uint32_t)(gpa & ~PAGE_MASK);
    if (size <= 4)
        return lapic_mmio_read(cpu->lapic, offset, size);
    return lapic_mmio_read(cpu->lapic, offset, 4) |
           (uint64_t)lapic_mmio_read(cpu->lapic, offset + 4, 4) << 32;
}

static void mmio_write(struct vcpu *cpu, uint64_t gpa, unsigned size, uint64_t value)
{
    if (!cpu->lapic || (gpa & PAGE_MASK) != lapic_mmio_address(cpu->lapic)) {
        machine_mmio_write(cpu->machine, gpa, size, value);
        return;
    }
    uint32_t offset = (uint32_t)(gpa & ~PAGE_MASK);
    lapic_mmio_write(cpu->lapic, offset, MIN(size, 4u), (uint32_t)value);
    if (size > 4)
        lapic_mmio_write(cpu->lapic, offset + 4, 4, (uint32_t)(value >> 32));
}

/* KVM cuts an access at page borders, so any length up to 8 can come. */
static void mmio(struct vcpu *cpu)
{
    struct kvm_run *run = cpu->kvm->run;
    uint64_t gpa = run->mmio.phys_addr;
    for (unsigned at = 0, left = run->mmio.len; left;) {
        unsigned size = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        uint64_t value = 0;
        if (run->mmio.is_write) {
            memcpy(&value, run->mmio.data + at, size);
            mmio_write(cpu, gpa + at, size, value);
        } else {
            value = mmio_read(cpu, gpa + at, size);
            memcpy(run->mmio.data + at, &value, size);
        }
        at += size;
        left -= size;
    }
}

/* The processor's own MSRs come here only where KVM found the access illegal. */
static bool is_native(uint32_t index)
{
    switch (index) {
    case MSR_SYSENTER_CS:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
    case MSR_PAT:
    case MSR_SPEC_CTRL:
    case MSR_EFER:
    case MSR_STAR:
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_SFMASK:
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_KERNEL_GS_BASE:
    case MSR_TSC_AUX:
        return true;
    default:
        return false;
    }
}

static void rdmsr(struct vcpu *cpu)
{
    struct kvm_run *run = cpu->kvm->run;
    uint64_t value = 0;
    run->msr.error = is_native(run->msr.index) || !msr_read(cpu, run->msr.index, &value);
    run->msr.data = value;
}

static void wrmsr(struct vcpu *cpu)
{
    struct kvm_run *run = cpu->kvm->run;
    uint32_t index = run->msr.index;
    run->msr.error = is_native(index) || !msr_write(cpu, index, run->msr.data);
    if (run->msr.error)
        return;
    if (index == MSR_TSC || index == MSR_TSC_ADJUST)
        kvm_state_set_tsc(cpu);
    else if (index == MSR_APICBASE) /* CPUID's APIC bit follows it */
        kvm_state_set_msr(cpu, index, run->msr.data);
}

static int internal_error(struct vcpu *cpu, struct tv_error *err)
{
    const struct kvm_run *run = cpu->kvm->run;
    struct tv_error ignored;
    kvm_state_store(cpu, &ignored);
    static const char *const names[] = {
        [KVM_INTERNAL_ERROR_EMULATION] = "it cannot emulate the instruction",
        [KVM_INTERNAL_ERROR_SIMUL_EX] = "an exception came while another was being delivered",
        [KVM_INTERNAL_ERROR_DELIVERY_EV] = "an event's delivery met what it cannot handle",
        [KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "the processor left the guest unexpectedly",
    };
    uint32_t sub = run->internal.suberror;
    const char *name = sub < ARRAY_SIZE(names) && names[sub] ? names[sub] : "an unknown reason";
    char bytes[3 * 16] = "";
    if (sub == KVM_INTERNAL_ERROR_EMULATION && run->emulation_failure.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
        for (unsigned i = 0; i < MIN(run->emulation_failure.insn_size, 15); i++)
            snprintf(bytes + 3 * i, sizeof bytes - 3 * i, " %02x",
                     run->emulation_failure.insn_bytes[i]);
    return tv_fail(
        err, "KVM gives up on vCPU %u at cs:rip %04x:%016" PRIx64 ": %s%s%s; --mode interp runs it",
        cpu->index, cpu->seg[CS].selector, cpu->rip, name, bytes[0] ? ":" : "", bytes);
}

/* Handle what KVM_RUN came back with. True with `*exit` set: leave run(). */
static bool handle_exit(struct vcpu *cpu, enum vcpu_exit *exit, struct tv_error *err)
{
    struct kvm_vcpu *k = cpu->kvm;
    struct kvm_run *run = k->run;
    k->exits[MIN(run->exit_reason, ARRAY_SIZE(k->exits) - 1)]++;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        port_io(cpu);
        k->unfinished = true;
        return false;
    case KVM_EXIT_MMIO:
        mmio(cpu);
        k->unfinished = true;
        return false;
    case KVM_EXIT_X86_RDMSR:
        rdmsr(cpu);
        k->unfinished = true;
        return false;
    case KVM_EXIT_X86_WRMSR:
        wrmsr(cpu);
        k->unfinished = true;
        return false;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
    case KVM_EXIT_INTR:
        return false;
    case KVM_EXIT_HLT:
        cpu->activity = ACTIVITY_HALTED;
        *exit = VCPU_EXIT_HALT;
        return true;
    case KVM_EXIT_SHUTDOWN:
        *exit = VCPU_EXIT_SHUTDOWN;
        return true;
    case KVM_EXIT_DEBUG:
        if (!kvm_debug_hit(cpu))
            return false;
        *exit = VCPU_EXIT_DEBUG;
        return true;
    case KVM_EXIT_FAIL_ENTRY:
        tv_fail(err,
                "the processor refuses to enter the guest on vCPU %u (reason %#" PRIx64
                "); --mode interp runs it",
                cpu->index, (uint64_t)run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        internal_error(cpu, err);
        break;
    default:
        tv_fail(err, "KVM leaves vCPU %u for a reason unknown to Trivisor (%u)", cpu->index,
                run->exit_reason);
        break;
    }
    *exit = VCPU_EXIT_ERROR;
    return true;
}

/* ---- Entry ---- */

/* Give the guest what is due, or ask for the moment at which it can take it. */
static void inject(struct vcpu *cpu, uint32_t attention)
{
    struct kvm_vcpu *k = cpu->kvm;
    if (attention & ATT_NMI) {
        atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_NMI);
        kvm_ioctl(k->fd, KVM_NMI, NULL);
    }
    if (attention & ATT_INTR)
        atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_INTR);
    k->run->request_interrupt_window = 0;
    if (!cpu->lapic || !atomic_load(&cpu->intr_asserted))
        return;
    if (k->ready) {
        int vector = lapic_ack(cpu->lapic);
        if (vector >= 0) {
            struct kvm_interrupt irq = {.irq = (uint32_t)vector};
            kvm_ioctl(k->fd, KVM_INTERRUPT, &irq);
            k->ready = false;
        }
    }
    k->run->request_interrupt_window = atomic_load(&cpu->intr_asserted);
}

/* One KVM_RUN. 0: an exit to handle; 1: none (a kick, or the access was finished); -1: error. */
static int enter(struct vcpu *cpu, bool only_finish, struct tv_error *err)
{
    struct kvm_vcpu *k = cpu->kvm;
    struct kvm_run *run = k->run;
    uint8_t cr8 = cpu->lapic ? lapic_cr8(cpu->lapic) : 0;
    run->cr8 = cr8;
    run->immediate_exit = only_finish;
    atomic_store(&k->running, true);
    if (!only_finish && atomic_load(&cpu->attention)) {
        atomic_store(&k->running, false);
        return 1;
    }
    k->runs++;
    int result = ioctl(k->fd, KVM_RUN, 0);
    int error = errno;
    atomic_store(&k->running, false);
    run->immediate_exit = 0;
    k->unfinished = false;
    k->ready = run->ready_for_interrupt_injection;
    if (cpu->lapic && run->cr8 != cr8)
        lapic_set_cr8(cpu->lapic, (uint8_t)run->cr8);
    if (result == 0)
        return 0;
    if (error == EINTR || error == EAGAIN) {
        if (!only_finish) {
            k->exits[KVM_EXIT_INTR]++;
            eat_kicks();
        }
        return 1;
    }
    /* A host page behind guest RAM cannot be had. */
    if (error == EFAULT)
        return tv_fail(err, "KVM cannot reach guest memory of vCPU %u (is the host out of memory?)",
                       cpu->index);
    return tv_fail_errno(err, error, "KVM does not run vCPU %u", cpu->index);
}

static enum vcpu_exit loop(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_vcpu *k = cpu->kvm;
    enum vcpu_exit exit = VCPU_EXIT_ATTENTION;
    for (;;) {
        uint32_t attention = atomic_load(&cpu->attention);
        bool leave = attention & ~HANDLED_HERE;
        /* An access is finished before an interrupt goes in: it may yet raise an exception, and KVM
         * would forget the interrupt for it. */
        bool finish = k->unfinished && (leave || atomic_load(&cpu->intr_asserted));
        if (leave && !finish)
            return VCPU_EXIT_ATTENTION;
        if (!finish) {
            if (attention & ATT_DEBUG) {
                atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_DEBUG);
                if (kvm_debug_update(cpu, err) < 0)
                    return VCPU_EXIT_ERROR;
            }
            inject(cpu, attention);
        }
        int result = enter(cpu, finish, err);
        if (result < 0)
            return VCPU_EXIT_ERROR;
        if (result == 0 && handle_exit(cpu, &exit, err))
            return exit;
    }
}

enum vcpu_exit kvm_run(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_vcpu *k = cpu->kvm;
    if (cpu->activity == ACTIVITY_SHUTDOWN)
        return VCPU_EXIT_SHUTDOWN;
    if (k->dirty && kvm_state_load(cpu, err) < 0)
        return VCPU_EXIT_ERROR;
    cpu->pending.valid = false; /* KVM has it */
    kvm_state_set_tsc(cpu);
    if (kvm_debug_update(cpu, err) < 0)
        return VCPU_EXIT_ERROR;
    enum vcpu_exit exit = loop(cpu, err);
    if (exit == VCPU_EXIT_ERROR)
        return exit;
    return kvm_state_store(cpu, err) < 0 ? VCPU_EXIT_ERROR : exit;
}
