/* What the system instructions share: descriptors, segment loads, control transfers. */
#ifndef TRIVISOR_INTERP_SYSTEM_H
#define TRIVISOR_INTERP_SYSTEM_H

#include "interp/core.h"

/* A descriptor's eight bytes (SDM vol. 3, 3.4.5), and its parts. */
typedef uint64_t descriptor;

static inline unsigned desc_type(descriptor d)
{
    return d >> 40 & 15;
}
static inline bool desc_s(descriptor d)
{
    return d >> 44 & 1;
}
static inline unsigned desc_dpl(descriptor d)
{
    return d >> 45 & 3;
}
static inline bool desc_present(descriptor d)
{
    return d >> 47 & 1;
}
static inline bool desc_is_code(descriptor d)
{
    return desc_s(d) && (desc_type(d) & 8);
}
static inline bool desc_conforming(descriptor d)
{
    return desc_type(d) & 4;
}
static inline bool desc_l(descriptor d)
{
    return d >> 53 & 1;
}
static inline bool desc_db(descriptor d)
{
    return d >> 54 & 1;
}
static inline bool selector_null(uint16_t selector)
{
    return (selector & ~3u) == 0;
}

/* segment.c */

/* The descriptor that `selector` names, and where it is. False: beyond its table, or no LDT. May
 * raise #PF. */
bool descriptor_fetch(struct vcpu *cpu, const struct op *op, uint16_t selector, descriptor *d,
                      uint64_t *address);
/* As above; raises `vector`(selector | ext) where there is none. */
descriptor descriptor_need(struct vcpu *cpu, const struct op *op, uint16_t selector,
                           enum vector vector, unsigned ext, uint64_t *address);
/* Set the accessed bit in memory and in *d. */
void descriptor_mark_accessed(struct vcpu *cpu, const struct op *op, uint64_t address,
                              descriptor *d);
struct segment segment_of(uint16_t selector, descriptor d);
/* Real and virtual-8086 mode: base is 16 times the selector. */
void segment_load_real(struct vcpu *cpu, unsigned seg, uint16_t selector);
/* Load DS, ES, FS, GS or SS with all checks of the current mode. Does not call
 * interp_mode_changed(). */
void segment_load(struct vcpu *cpu, const struct op *op, unsigned seg, uint16_t selector);
/* Check a stack segment for privilege `cpl`; the error goes to `vector` (#TS for inner stacks, #GP
 * for IRET). */
struct segment segment_check_stack(struct vcpu *cpu, const struct op *op, uint16_t selector,
                                   unsigned cpl, enum vector vector, unsigned ext);
/* After a return to an outer ring: data segments that it may not use become null. */
void segment_drop_inner(struct vcpu *cpu);
/* Set CS and CPL; RIP is the caller's. */
void segment_set_cs(struct vcpu *cpu, uint16_t selector, descriptor d, unsigned cpl);

/* A stack under construction: pushes go to memory, nothing else changes until it is taken over. */
struct stack {
    struct vcpu *cpu;
    const struct op *op;
    uint64_t base, sp, mask;
    uint32_t limit, attr;
    bool flat64;        /* 64-bit mode: no base, no limit */
    bool system;        /* accesses have supervisor privilege (inner stacks) */
    enum vector vector; /* what an overrun raises, with `error` */
    uint32_t error;
};
struct stack stack_current(struct vcpu *cpu, const struct op *op);
struct stack stack_of(struct vcpu *cpu, const struct op *op, const struct segment *ss, uint64_t sp,
                      unsigned cpl, uint32_t error);
void stack_push(struct stack *s, unsigned size, uint64_t value);
uint64_t stack_pop(struct stack *s, unsigned size);
/* Make it RSP (SS is the caller's). */
void stack_commit(const struct stack *s);

/* SS:ESP or RSP of privilege `cpl` from the TSS; #TS where the TSS is too short. */
void tss_inner_stack(struct vcpu *cpu, const struct op *op, unsigned cpl, unsigned ext,
                     uint16_t *ss, uint64_t *sp);

/* exception.c */
/* INT n in virtual-8086 mode with CR4.VME: through the program's own vector table where the TSS
 * says so. */
bool interp_deliver_v86(struct vcpu *cpu, const struct op *op, uint8_t vector, uint64_t return_rip);

/* task.c */
enum task_switch { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE };
/* Switch to the task of the TSS `selector`. `return_rip` is saved in the old TSS; an error code is
 * pushed if has_error. */
void task_switch(struct vcpu *cpu, const struct op *op, uint16_t selector, enum task_switch kind,
                 uint64_t return_rip, bool has_error, uint32_t error, unsigned ext);

/* flags.c */
/* Replace the flags in `mask` by those of `value`; tells the engine where IF or AC changed. */
void flags_write(struct vcpu *cpu, uint32_t value, uint32_t mask);

/* control.c */
bool control_set_cr0(struct vcpu *cpu, uint64_t value);
bool control_set_cr3(struct vcpu *cpu, uint64_t value);
bool control_set_cr4(struct vcpu *cpu, uint64_t value);

/* Operand helpers: `op->aux2` bit 0 says that the operand is in memory, else it is register
 * op->dst. */
#define OPERAND_MEMORY 1
uint64_t system_read_rm(struct vcpu *cpu, const struct op *op, unsigned size);
void system_write_rm(struct vcpu *cpu, const struct op *op, unsigned size, uint64_t value);

bind_fn bind_segment, bind_far, bind_control, bind_flags, bind_io;
/* Fill dst/aux2 from operand `index`. */
void bind_rm(const struct decode *d, struct op *op, unsigned index);
/* #GP(0) unless CPL is 0. */
static inline void need_cpl0(struct vcpu *cpu, const struct op *op)
{
    if (cpu->cpl != 0)
        interp_raise_error(cpu, op, VEC_GP, 0);
}

#endif
