/*
 * struct vcpu: the architectural state of one x86 processor, as the manuals define it. Every engine
 * takes it at an instruction boundary and gives it back at one, so engines can be mixed and
 * compared. It belongs to its vCPU's thread; another thread may touch only what is marked "any
 * thread", or anything while the vCPU is parked.
 */
#ifndef TRIVISOR_CPU_CPU_H
#define TRIVISOR_CPU_CPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cpu/x86.h"

struct machine;
struct lapic;
struct interp;
struct bt;
struct kvm_vcpu;

struct segment {
    uint16_t selector;
    uint32_t attr;  /* SEG_* */
    uint32_t limit; /* in bytes, granularity applied */
    uint64_t base;
};

struct table_register {
    uint64_t base;
    uint16_t limit;
};

/* The FXSAVE image (SDM vol. 1, 10.5.1), 64-bit form. Its xmm area is unused: struct fpu has zmm.
 */
struct fxsave {
    uint16_t fcw, fsw;
    uint8_t ftw, reserved1; /* ftw abridged: bit n set = physical register n not empty */
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16]; /* ST(0) first */
    uint8_t xmm[16][16];
    uint8_t available[96];
};
_Static_assert(sizeof(struct fxsave) == 512, "FXSAVE image");

struct fpu {
    _Alignas(64) struct fxsave fx;    /* x87 registers and MXCSR */
    _Alignas(64) uint8_t zmm[32][64]; /* xmm and ymm registers are their low parts */
    uint64_t k[8];
    uint32_t pkru;
    uint16_t fcs, fds; /* selectors that go with fx.fip and fx.fdp where those are 32 bits wide */
};

/* Why the vCPU's thread must leave guest code and look around: bits of vcpu.attention. */
enum attention {
    ATT_INTR = 1 << 0, /* an interrupt may be deliverable: ask the local APIC again */
    ATT_NMI = 1 << 1,
    ATT_INIT = 1 << 2,
    ATT_SIPI = 1 << 3, /* vcpu.sipi_vector holds its vector */
    ATT_STOP = 1 << 4, /* the machine wants this thread: pause, reset, end, debugger */
    ATT_SMI = 1 << 5,
    ATT_DEBUG = 1 << 6,  /* breakpoints or watchpoints changed: drop what was cached */
    ATT_CODE = 1 << 7,   /* somebody else wrote to a page that code was translated from */
    ATT_MEMORY = 1 << 8, /* the guest-physical map changed: drop translations and code */
};
/* Caches to be dropped before the next instruction: no reason to leave guest code for good, nor for
 * a halted processor to wake. */
#define ATT_CACHES ((uint32_t)(ATT_DEBUG | ATT_CODE | ATT_MEMORY))

/* SDM vol. 3, 25.4.2 calls it activity state. */
enum activity { ACTIVITY_RUNNING, ACTIVITY_HALTED, ACTIVITY_WAIT_SIPI, ACTIVITY_SHUTDOWN };

/* An exception or interrupt on its way into the guest. */
struct pending_event {
    bool valid;
    bool has_error;
    uint8_t vector;
    uint32_t error;
};

struct vcpu {
    uint64_t gpr[16];
    /* Always zero: the interpreter addresses it as register 16, where an operand has no base or
     * index; RIP right after it is register 17. */
    uint64_t zero;
    uint64_t rip;
    /* RFLAGS is split: `cc` has CF PF AF ZF SF OF at their architectural places, `rflags` the rest
     * (bit 1 always set, arithmetic bits always zero). Use cpu_rflags()/cpu_set_rflags(). */
    uint32_t cc;
    uint32_t rflags;
    /* Any thread sets bits (vcpu_notify); the vCPU's thread clears them. */
    _Atomic uint32_t attention;
    /* Level, any thread: the local APIC or the 8259 has an interrupt that is not masked by
     * priority. When IF goes from 0 to 1, code sets ATT_INTR if this is set, so nobody polls while
     * interrupts are off. */
    _Atomic bool intr_asserted;

    struct segment seg[SREGS];
    struct segment ldtr, tr;
    struct table_register gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4; /* CR8 is the local APIC's TPR */
    uint64_t dr[8];              /* dr[4] and dr[5] unused */
    uint64_t efer;
    uint64_t xcr0, xss;
    uint8_t cpl;

    /* Model-specific registers with state of their own; FS and GS bases are in seg[]. */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, misc_enable, tsc_adjust, tsc_offset, spec_ctrl, apic_base;
    uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_phys[16];
    uint64_t mcg_status, mce_bank[4 * 10];

    /* PAE paging: the four PDPTEs are registers, loaded by MOV CR3 (SDM vol. 3, 4.4.1). */
    uint64_t pdpte[4];

    struct fpu fpu;

    enum activity activity;
    uint8_t int_shadow; /* 1: after STI, 2: after MOV SS / POP SS: no interrupt before the next
                           instruction */
    bool nmi_blocked;   /* between an NMI's delivery and the next IRET */
    _Atomic uint8_t sipi_vector;
    struct pending_event
        pending; /* taken from or given to an engine: injected before the next instruction */
    uint64_t pending_db; /* DR6 bits of a #DB trap due after the current instruction */
    bool in_single_step; /* TF was set when the current instruction began */

    unsigned index; /* also its local APIC ID */
    struct machine *machine;
    struct lapic *lapic;
    struct interp *interp; /* the interpreter's private part */
    struct bt *bt;         /* the translator's */
    struct kvm_vcpu *kvm;  /* the KVM engine's */
    uint64_t instructions; /* guest instructions executed; translated ones only if machine.count */
    void (*wake)(
        struct vcpu *cpu); /* set by the VM: make the thread look at `attention` (any thread) */
};

static inline uint32_t cpu_rflags(const struct vcpu *cpu)
{
    return cpu->rflags | cpu->cc;
}

static inline void cpu_set_rflags(struct vcpu *cpu, uint32_t value)
{
    cpu->cc = value & FLAGS_ARITH;
    cpu->rflags = (value & ~(FLAGS_ARITH | BIT(3) | BIT(5) | BIT(15) | 0xffc00000u)) | FLAG_ONE;
}

static inline bool cpu_long_mode(const struct vcpu *cpu)
{
    return cpu->efer & EFER_LMA;
}
/* 64-bit mode proper, not compatibility mode. */
static inline bool cpu_64bit(const struct vcpu *cpu)
{
    return (cpu->efer & EFER_LMA) && (cpu->seg[CS].attr & SEG_L);
}
static inline bool cpu_real_mode(const struct vcpu *cpu)
{
    return !(cpu->cr0 & CR0_PE);
}
static inline bool cpu_v86(const struct vcpu *cpu)
{
    return cpu->rflags & FLAG_VM;
}
/* Protected mode with segments from descriptors: not real mode and not virtual-8086 mode. */
static inline bool cpu_protected(const struct vcpu *cpu)
{
    return (cpu->cr0 & CR0_PE) && !(cpu->rflags & FLAG_VM);
}

/* Is `address` canonical for 48-bit linear addresses? */
static inline bool is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* Set attention bits and make the vCPU's thread see them soon. Any thread. */
static inline void vcpu_notify(struct vcpu *cpu, uint32_t bits)
{
    uint32_t old = atomic_fetch_or(&cpu->attention, bits);
    if ((old & bits) != bits && cpu->wake)
        cpu->wake(cpu);
}

/* A zeroed vCPU in pages of its own: the translator maps its tables near it. NULL: out of memory.
 */
struct vcpu *vcpu_create(struct machine *m, unsigned index);
void vcpu_destroy(struct vcpu *cpu);

/*
 * Put the processor into its state after power-up or RESET (SDM vol. 3, table 9-1), or after INIT
 * where `init` is set (FPU, MTRRs, TSC and most MSRs then keep their values). The local APIC is
 * reset by the VM. The bootstrap processor runs, the others wait for SIPI.
 */
void cpu_reset(struct vcpu *cpu, bool init);

/* Recompute cpl and whatever is derived after an engine or a debugger replaced the whole state. */
void cpu_state_changed(struct vcpu *cpu);

/* Print all registers as a debugger shows them (for --log cpu and error reports). */
void cpu_print(const struct vcpu *cpu, char *buf, unsigned long size);

#endif
