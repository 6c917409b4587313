/* struct vcpu to KVM and back, all of it, at an instruction boundary. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cpu/xstate.h"
#include "dev/lapic.h"
#include "kvm/internal.h"
#include "util/error.h"

/* KVM orders the general registers by name, not by number. */
#define GPRS(each)                                                                                 \
    each(rax, RAX) each(rbx, RBX) each(rcx, RCX) each(rdx, RDX) each(rsi, RSI) each(rdi, RDI)      \
        each(rsp, RSP) each(rbp, RBP) each(r8, R8) each(r9, R9) each(r10, R10) each(r11, R11)      \
            each(r12, R12) each(r13, R13) each(r14, R14) each(r15, R15)
#define SEGMENTS(each)                                                                             \
    each(es, seg[ES]) each(cs, seg[CS]) each(ss, seg[SS]) each(ds, seg[DS]) each(fs, seg[FS])      \
        each(gs, seg[GS]) each(ldt, ldtr) each(tr, tr)
#define CONTROLS(each) each(cr0) each(cr2) each(cr3) each(cr4) each(efer)

static int failed(struct tv_error *err, const struct vcpu *cpu, const char *what, bool load)
{
    return tv_fail_errno(err, errno, "KVM does not %s vCPU %u's %s", load ? "take" : "give",
                         cpu->index, what);
}

/* ---- Segments ---- */

static struct kvm_segment to_kvm_segment(const struct segment *s)
{
    bool unusable = s->attr & SEG_UNUSABLE;
    return (struct kvm_segment){.base = s->base,
                                .limit = s->limit,
                                .selector = s->selector,
                                .type = s->attr & SEG_TYPE,
                                .s = (s->attr & SEG_S) != 0,
                                .dpl = s->attr >> SEG_DPL_SHIFT & 3,
                                .present = (s->attr & SEG_P) && !unusable,
                                .avl = (s->attr & SEG_AVL) != 0,
                                .l = (s->attr & SEG_L) != 0,
                                .db = (s->attr & SEG_DB) != 0,
                                .g = (s->attr & SEG_G) != 0,
                                .unusable = unusable};
}

static struct segment from_kvm_segment(const struct kvm_segment *k)
{
    uint32_t attr = (k->type & SEG_TYPE) | (k->s ? SEG_S : 0) |
                    (uint32_t)(k->dpl & 3) << SEG_DPL_SHIFT | (k->present ? SEG_P : 0) |
                    (k->avl ? SEG_AVL : 0) | (k->l ? SEG_L : 0) | (k->db ? SEG_DB : 0) |
                    (k->g ? SEG_G : 0) | (k->unusable ? SEG_UNUSABLE : 0);
    return (struct segment){
        .selector = k->selector, .attr = attr, .limit = k->limit, .base = k->base};
}

/* ---- General and system registers ---- */

static int load_regs(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_regs r = {.rip = cpu->rip, .rflags = cpu_rflags(cpu)};
#define GPR(name, number) r.name = cpu->gpr[number];
    GPRS(GPR)
#undef GPR
    return kvm_ioctl(cpu->kvm->fd, KVM_SET_REGS, &r) < 0 ? failed(err, cpu, "registers", true) : 0;
}

static int store_regs(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_regs r;
    if (kvm_ioctl(cpu->kvm->fd, KVM_GET_REGS, &r) < 0)
        return failed(err, cpu, "registers", false);
#define GPR(name, number) cpu->gpr[number] = r.name;
    GPRS(GPR)
#undef GPR
    cpu->rip = r.rip;
    cpu_set_rflags(cpu, (uint32_t)r.rflags);
    return 0;
}

static bool pae_paging(const struct vcpu *cpu)
{
    return (cpu->cr0 & CR0_PG) && (cpu->cr4 & CR4_PAE) && !(cpu->efer & EFER_LMA);
}

static uint64_t apic_base(const struct vcpu *cpu)
{
    return cpu->lapic ? lapic_base(cpu->lapic) : cpu->apic_base;
}

/* Both forms of the system registers have the same fields; only the second has the PDPTEs. */
#define FILL_SREGS(s)                                                                              \
    do {                                                                                           \
        SEGMENTS(SEGMENT)                                                                          \
        CONTROLS(CONTROL)                                                                          \
        (s).gdt = (struct kvm_dtable){.base = cpu->gdtr.base, .limit = cpu->gdtr.limit};           \
        (s).idt = (struct kvm_dtable){.base = cpu->idtr.base, .limit = cpu->idtr.limit};           \
        (s).cr8 = cpu->lapic ? lapic_cr8(cpu->lapic) : 0;                                          \
        (s).apic_base = apic_base(cpu);                                                            \
    } while (0)
#define TAKE_SREGS(s)                                                                              \
    do {                                                                                           \
        SEGMENTS(SEGMENT)                                                                          \
        CONTROLS(CONTROL)                                                                          \
        cpu->gdtr = (struct table_register){(s).gdt.base, (s).gdt.limit};                          \
        cpu->idtr = (struct table_register){(s).idt.base, (s).idt.limit};                          \
    } while (0)

static int load_sregs(struct vcpu *cpu, struct tv_error *err)
{
    int result;
#define SEGMENT(name, field) s.name = to_kvm_segment(&cpu->field);
#define CONTROL(name)        s.name = cpu->name;
    if (cpu->kvm->vm->has_sregs2) {
        struct kvm_sregs2 s = {0};
        FILL_SREGS(s);
        if (pae_paging(cpu)) {
            memcpy(s.pdptrs, cpu->pdpte, sizeof s.pdptrs);
            s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        }
        result = kvm_ioctl(cpu->kvm->fd, KVM_SET_SREGS2, &s);
    } else {
        struct kvm_sregs s = {0};
        FILL_SREGS(s);
        result = kvm_ioctl(cpu->kvm->fd, KVM_SET_SREGS, &s);
    }
#undef SEGMENT
#undef CONTROL
    return result < 0 ? failed(err, cpu, "system registers", true) : 0;
}

static int store_sregs(struct vcpu *cpu, struct tv_error *err)
{
#define SEGMENT(name, field) cpu->field = from_kvm_segment(&s.name);
#define CONTROL(name)        cpu->name = s.name;
    if (cpu->kvm->vm->has_sregs2) {
        struct kvm_sregs2 s = {0};
        if (kvm_ioctl(cpu->kvm->fd, KVM_GET_SREGS2, &s) < 0)
            return failed(err, cpu, "system registers", false);
        TAKE_SREGS(s);
        if (s.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
            memcpy(cpu->pdpte, s.pdptrs, sizeof s.pdptrs);
    } else {
        struct kvm_sregs s = {0};
        if (kvm_ioctl(cpu->kvm->fd, KVM_GET_SREGS, &s) < 0)
            return failed(err, cpu, "system registers", false);
        TAKE_SREGS(s);
        if (pae_paging(cpu))
            physmem_read(cpu->machine->mem, cpu->cr3 & 0xffffffe0, cpu->pdpte, sizeof cpu->pdpte);
    }
#undef SEGMENT
#undef CONTROL
    return 0;
}

/* ---- Floating point, vectors, XCR0 ---- */

static bool guest_has_xsave(const struct vcpu *cpu)
{
    return CPUID_HAS(&cpu->machine->cpuid, 1, 0, ecx, 26);
}

static int load_fpu(struct vcpu *cpu, struct tv_error *err)
{
    /* KVM takes components that the host has, whatever the guest's XCR0 says. */
    uint64_t mask = (xstate_host_mask() & cpu->machine->cpuid.xcr0_supported) | BIT64(XSTATE_X87) |
                    BIT64(XSTATE_SSE);
    struct kvm_xsave image = {0};
    if (xstate_size(mask) > sizeof image.region)
        return tv_fail(err, "the processor's vector state is larger than KVM's image");
    xstate_save(cpu, image.region, mask);
    if (kvm_ioctl(cpu->kvm->fd, KVM_SET_XSAVE, &image) < 0)
        return failed(err, cpu, "vector state", true);
    if (!guest_has_xsave(cpu))
        return 0;
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = cpu->xcr0}};
    if (kvm_ioctl(cpu->kvm->fd, KVM_SET_XCRS, &xcrs) < 0)
        return failed(err, cpu, "XCR0", true);
    return 0;
}

static int store_fpu(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_xsave image;
    if (kvm_ioctl(cpu->kvm->fd, KVM_GET_XSAVE, &image) < 0 ||
        xstate_load(cpu, image.region, sizeof image.region) < 0)
        return failed(err, cpu, "vector state", false);
    if (!guest_has_xsave(cpu))
        return 0;
    struct kvm_xcrs xcrs = {0};
    if (kvm_ioctl(cpu->kvm->fd, KVM_GET_XCRS, &xcrs) < 0)
        return failed(err, cpu, "XCR0", false);
    for (unsigned i = 0; i < xcrs.nr_xcrs && i < ARRAY_SIZE(xcrs.xcrs); i++)
        if (xcrs.xcrs[i].xcr == 0)
            cpu->xcr0 = xcrs.xcrs[i].value;
    return 0;
}

/* ---- Debug registers ---- */

static int load_debugregs(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_debugregs d = {.dr6 = (uint32_t)cpu->dr[6], .dr7 = (uint32_t)cpu->dr[7]};
    memcpy(d.db, cpu->dr, sizeof d.db);
    return kvm_ioctl(cpu->kvm->fd, KVM_SET_DEBUGREGS, &d) < 0
               ? failed(err, cpu, "debug registers", true)
               : 0;
}

static int store_debugregs(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_debugregs d;
    if (kvm_ioctl(cpu->kvm->fd, KVM_GET_DEBUGREGS, &d) < 0)
        return failed(err, cpu, "debug registers", false);
    memcpy(cpu->dr, d.db, sizeof d.db);
    cpu->dr[6] = d.dr6;
    cpu->dr[7] = d.dr7;
    return 0;
}

/* ---- MSRs ---- */

static uint64_t *msr_field(struct vcpu *cpu, uint32_t index)
{
    switch (index) {
    case MSR_SYSENTER_CS:
        return &cpu->sysenter_cs;
    case MSR_SYSENTER_ESP:
        return &cpu->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &cpu->sysenter_eip;
    case MSR_PAT:
        return &cpu->pat;
    case MSR_STAR:
        return &cpu->star;
    case MSR_LSTAR:
        return &cpu->lstar;
    case MSR_CSTAR:
        return &cpu->cstar;
    case MSR_SFMASK:
        return &cpu->sfmask;
    case MSR_KERNEL_GS_BASE:
        return &cpu->kernel_gs_base;
    case MSR_TSC_AUX:
        return &cpu->tsc_aux;
    case MSR_SPEC_CTRL:
        return &cpu->spec_ctrl;
    default:
        return NULL;
    }
}

struct msr_image {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[KVM_MSRS_MAX];
};

static int load_msrs(struct vcpu *cpu, struct tv_error *err)
{
    /* One at a time: an MSR that this CPUID model lacks is refused, and KVM stops at the first
     * refusal. Then its field has never been anything but zero. */
    for (unsigned i = 0; i < cpu->kvm->vm->msr_count; i++) {
        uint32_t index = cpu->kvm->vm->msrs[i];
        uint64_t value = *msr_field(cpu, index);
        if (kvm_state_set_msr(cpu, index, value) < 0 && value != 0)
            return tv_fail(err, "KVM does not take %#" PRIx64 " in MSR %#x of vCPU %u", value,
                           index, cpu->index);
    }
    return 0;
}

static void store_msrs(struct vcpu *cpu)
{
    const struct kvm_vm *vm = cpu->kvm->vm;
    struct msr_image image = {0};
    unsigned done = 0;
    while (done < vm->msr_count) {
        image.head.nmsrs = vm->msr_count - done;
        for (unsigned i = done; i < vm->msr_count; i++)
            image.entries[i - done].index = vm->msrs[i];
        int got = kvm_ioctl(cpu->kvm->fd, KVM_GET_MSRS, &image);
        for (int i = 0; i < got; i++)
            *msr_field(cpu, image.entries[i].index) = image.entries[i].data;
        done += (unsigned)MAX(got, 0) + 1; /* past the one that the guest does not have */
    }
}

int kvm_state_set_msr(struct vcpu *cpu, uint32_t index, uint64_t value)
{
    struct msr_image image = {.head.nmsrs = 1, .entries[0] = {.index = index, .data = value}};
    return kvm_ioctl(cpu->kvm->fd, KVM_SET_MSRS, &image) == 1 ? 0 : -1;
}

/* KVM's offset of the guest's TSC, set and read back: some KVMs take it and do nothing. */
static bool set_tsc_offset(struct kvm_vcpu *k, uint64_t offset)
{
    uint64_t is = ~offset;
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};
    if (!k->vm->has_tsc_offset || kvm_ioctl(k->fd, KVM_SET_DEVICE_ATTR, &attr) < 0)
        return false;
    attr.addr = (uintptr_t)&is;
    return kvm_ioctl(k->fd, KVM_GET_DEVICE_ATTR, &attr) == 0 && is == offset;
}

/* The same through the TSC itself, for KVMs without that attribute: right to some microseconds. */
static bool set_tsc_value(struct vcpu *cpu)
{
    struct msr_image image = {.head.nmsrs = 1, .entries[0] = {.index = MSR_TSC}};
    uint64_t near = cpu->machine->clock.tsc_hz / 1000;
    if (kvm_state_set_msr(cpu, MSR_TSC, cpu_read_tsc(cpu)) < 0 ||
        kvm_ioctl(cpu->kvm->fd, KVM_GET_MSRS, &image) != 1)
        return false;
    return cpu_read_tsc(cpu) - image.entries[0].data + near < 2 * near;
}

/* The time base counts the host's TSC, so the guest's runs at the same rate and differs by a
 * constant, which pauses and the guest's own writes change. Where KVM cannot make it differ, the
 * guest has the host's TSC, and the local APIC's deadlines are told so. */
void kvm_state_set_tsc(struct vcpu *cpu)
{
    struct kvm_vcpu *k = cpu->kvm;
    uint64_t offset = cpu->tsc_offset - cpu->machine->clock.host_base;
    if (k->tsc_known && k->tsc_offset == offset)
        return;
    if (!set_tsc_offset(k, offset) && !set_tsc_value(cpu)) {
        cpu->tsc_offset = cpu->machine->clock.host_base;
        if (cpu->lapic)
            lapic_set_tsc_offset(cpu->lapic, (int64_t)cpu->tsc_offset);
        offset = 0;
    }
    k->tsc_offset = offset;
    k->tsc_known = true;
}

/* ---- Events on their way into the guest ---- */

static int load_events(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_vcpu_events e = {.flags =
                                    KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW};
    const struct pending_event *p = &cpu->pending;
    if (p->valid && p->vector == VEC_NMI) {
        e.nmi.injected = 1;
    } else if (p->valid && p->vector < 32) {
        e.exception.injected = 1;
        e.exception.nr = p->vector;
        e.exception.has_error_code = p->has_error;
        e.exception.error_code = p->error;
    } else if (p->valid) {
        e.interrupt.injected = 1;
        e.interrupt.nr = p->vector;
    } else if (cpu->pending_db) {
        e.exception.injected = 1;
        e.exception.nr = VEC_DB;
    }
    e.nmi.masked = cpu->nmi_blocked;
    e.interrupt.shadow = cpu->int_shadow == 2   ? KVM_X86_SHADOW_INT_MOV_SS
                         : cpu->int_shadow == 1 ? KVM_X86_SHADOW_INT_STI
                                                : 0;
    if (kvm_ioctl(cpu->kvm->fd, KVM_SET_VCPU_EVENTS, &e) < 0)
        return failed(err, cpu, "events", true);
    cpu->pending.valid = false;
    cpu->pending_db = 0;
    return 0;
}

static int store_events(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_vcpu_events e;
    if (kvm_ioctl(cpu->kvm->fd, KVM_GET_VCPU_EVENTS, &e) < 0)
        return failed(err, cpu, "events", false);
    cpu->pending = (struct pending_event){0};
    if (e.exception.injected)
        cpu->pending = (struct pending_event){.valid = true,
                                              .has_error = e.exception.has_error_code,
                                              .vector = e.exception.nr,
                                              .error = e.exception.error_code};
    else if (e.nmi.injected)
        cpu->pending = (struct pending_event){.valid = true, .vector = VEC_NMI};
    else if (e.interrupt.injected)
        cpu->pending = (struct pending_event){.valid = true, .vector = e.interrupt.nr};
    if (e.nmi.pending) /* not delivered yet: it is ours again */
        atomic_fetch_or(&cpu->attention, ATT_NMI);
    cpu->nmi_blocked = e.nmi.masked;
    /* SVM has one bit for both kinds and KVM then reports both. */
    cpu->int_shadow = e.interrupt.shadow & KVM_X86_SHADOW_INT_STI      ? 1
                      : e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? 2
                                                                       : 0;
    /* What was taken out must not stay in there as well. */
    if (cpu->pending.valid || e.nmi.pending)
        cpu->kvm->dirty = true;
    return 0;
}

/* ---- All of it ---- */

int kvm_state_load(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_vcpu *k = cpu->kvm;
    /* System registers first: what the others may hold depends on them. The #DB that is due needs
     * its bits in DR6. */
    cpu->dr[6] |= cpu->pending_db;
    if (load_sregs(cpu, err) < 0 || load_regs(cpu, err) < 0 || load_fpu(cpu, err) < 0 ||
        load_debugregs(cpu, err) < 0 || load_msrs(cpu, err) < 0)
        return -1;
    k->ready =
        (cpu->rflags & FLAG_IF) && !cpu->int_shadow && !cpu->pending.valid && !cpu->pending_db;
    if (load_events(cpu, err) < 0)
        return -1;
    k->dirty = false;
    return 0;
}

int kvm_state_store(struct vcpu *cpu, struct tv_error *err)
{
    if (store_regs(cpu, err) < 0 || store_sregs(cpu, err) < 0 || store_fpu(cpu, err) < 0 ||
        store_debugregs(cpu, err) < 0 || store_events(cpu, err) < 0)
        return -1;
    store_msrs(cpu);
    cpu->apic_base = apic_base(cpu);
    cpu_state_changed(cpu);
    return 0;
}
