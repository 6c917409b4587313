/* Stack accesses at the current privilege, for PUSH, POP, CALL and RET in any mode. */
#ifndef TRIVISOR_INTERP_STACK_H
#define TRIVISOR_INTERP_STACK_H

#include "interp/core.h"

/* Linear address of `size` bytes at rSP + delta, checked. */
static inline uint64_t stack_linear(struct vcpu *cpu, const struct op *op, int64_t delta,
                                    unsigned size, bool write)
{
    struct interp *in = cpu->interp;
    uint64_t offset = (cpu->gpr[RSP] + (uint64_t)delta) & in->stack_mask;
    if (LIKELY(in->stack_flat))
        return offset;
    return interp_linear(cpu, op, SS, offset, size, write);
}

static inline void stack_adjust(struct vcpu *cpu, uint64_t delta)
{
    uint64_t mask = cpu->interp->stack_mask;
    uint64_t sp = (cpu->gpr[RSP] + delta) & mask;
    /* A 16-bit stack keeps the upper part of ESP; a 32-bit one has no upper part. */
    cpu->gpr[RSP] = mask == 0xffff ? (cpu->gpr[RSP] & ~mask) | sp : sp;
}

static inline uint64_t stack_peek(struct vcpu *cpu, const struct op *op, unsigned size,
                                  int64_t delta)
{
    if (cpu->interp->mode.bits == 64 && UNLIKELY(!is_canonical(cpu->gpr[RSP] + (uint64_t)delta)))
        interp_raise_error(cpu, op, VEC_SS, 0);
    return interp_load(cpu, op, stack_linear(cpu, op, delta, size, false), size);
}

/* Faults of the stack itself are #SS, also where op->seg is that of another memory operand. */
static inline void stack_check(struct vcpu *cpu, const struct op *op, uint64_t sp, unsigned size)
{
    bool bad = cpu->interp->mode.bits == 64 ? !is_canonical(sp)
                                            : cpu->interp->stack_mask == UINT32_MAX &&
                                                  (uint32_t)sp > UINT32_MAX - (size - 1);
    if (UNLIKELY(bad))
        interp_raise_error(cpu, op, VEC_SS, 0);
}

/* Would a push of `size` bytes fault? */
static inline void stack_probe(struct vcpu *cpu, const struct op *op, unsigned size)
{
    stack_check(cpu, op, cpu->gpr[RSP] - size, size);
    interp_probe_write(cpu, op, stack_linear(cpu, op, -(int64_t)size, size, true), size);
}

static inline void stack_push(struct vcpu *cpu, const struct op *op, unsigned size, uint64_t value)
{
    stack_check(cpu, op, cpu->gpr[RSP] - size, size);
    interp_store(cpu, op, stack_linear(cpu, op, -(int64_t)size, size, true), size, value);
    stack_adjust(cpu, -(uint64_t)size);
}

/* In 64-bit mode. */
static inline __attribute__((always_inline)) void push64(struct vcpu *cpu, const struct op *op,
                                                         uint64_t value)
{
    uint64_t sp = cpu->gpr[RSP] - 8;
    mem_store(cpu, op, sp, 8, value);
    cpu->gpr[RSP] = sp;
}

#endif
