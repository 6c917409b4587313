/* Native execution of one instruction: what its two files share, and the thunks' arena. */
#ifndef TRIVISOR_INTERP_NATIVE_H
#define TRIVISOR_INTERP_NATIVE_H

#include "interp/op.h"

enum native_unit { UNIT_X87, UNIT_MMX, UNIT_SSE, UNIT_AVX, UNIT_AVX512 };

/* #UD or #NM where the unit cannot be used now. */
void native_check_unit(struct vcpu *cpu, const struct op *op, enum native_unit unit);

bind_fn bind_vector_special; /* vector_special.c */

/* The arena belongs to the vCPU and dies with its decoded blocks. NULL is allowed. */
struct native;
void native_reset(struct native *arena);
void native_destroy(struct native *arena);

#endif
