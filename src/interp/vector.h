/* What the vector families share. */
#ifndef TRIVISOR_INTERP_VECTOR_H
#define TRIVISOR_INTERP_VECTOR_H

#include "interp/core.h"

bind_fn bind_xsave;  /* xsave.c: state, control words */
bind_fn bind_native; /* native.c: everything that computes */

/* #NM where x87 is emulated or not this task's. */
void vector_check_x87(struct vcpu *cpu, const struct op *op);
/* #MF where an earlier x87 instruction left an unmasked exception. */
void vector_check_x87_pending(struct vcpu *cpu, const struct op *op);
/* #UD or #NM where SSE cannot be used. */
void vector_check_sse(struct vcpu *cpu, const struct op *op);
/* #AC for a misaligned access by a program that asked for it (EFLAGS.AC). */
static inline void vector_check_alignment(struct vcpu *cpu, const struct op *op, uint64_t linear,
                                          unsigned alignment)
{
    if (UNLIKELY(cpu->interp->align_check) && is_canonical(linear) && (linear & (alignment - 1)))
        interp_raise_error(cpu, op, VEC_AC, 0);
}
/* A new TOP. The registers stay where they are, so the image, which has ST(0) first, turns. */
void vector_set_top(struct vcpu *cpu, unsigned top);
/* What every MMX instruction does: TOP becomes 0 and all registers valid. MMn is the physical
 * register n. */
void vector_enter_mmx(struct vcpu *cpu);
/* Recompute ES and B of the status word from flags and masks. */
void vector_normalize_fsw(struct vcpu *cpu);

#endif
