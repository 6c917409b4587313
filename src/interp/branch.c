/* Near jumps, calls and returns, LOOP and JCXZ. Far ones belong to the system family. */
#include "interp/condition.h"
#include "interp/core.h"
#include "interp/stack.h"

/*
 * op->imm is the target of a relative branch, counted from the block's start, so that it holds
 * wherever the block is mapped; op->size the operand size, which cuts the target.
 */
static inline uint64_t relative_target(const struct vcpu *cpu, const struct op *op)
{
    return cpu->rip + op->imm;
}

/* A target outside the segment or not canonical: #GP at the branch. */
static inline void check_target(struct vcpu *cpu, const struct op *op, uint64_t target)
{
    if (cpu->interp->mode.bits == 64 ? !is_canonical(target) : target > cpu->seg[CS].limit)
        interp_raise_error(cpu, op, VEC_GP, 0);
}

#define JCC(n)                                                                                     \
    static void jcc_##n(struct vcpu *cpu, const struct op *op)                                     \
    {                                                                                              \
        if (condition(cpu->cc, n)) {                                                               \
            uint64_t target = relative_target(cpu, op);                                            \
            if (UNLIKELY(!is_canonical(target)))                                                   \
                interp_raise_error(cpu, op, VEC_GP, 0);                                            \
            cpu->rip = target;                                                                     \
            return interp_chain(cpu);                                                              \
        }                                                                                          \
        cpu->rip += (uint64_t)op->offset + op->length;                                             \
        return interp_chain(cpu);                                                                  \
    }
FOR_CONDITIONS(JCC)
#define JCC_ENTRY(n) jcc_##n,
static op_fn *const jcc_ops[16] = {FOR_CONDITIONS(JCC_ENTRY)};

static void go(struct vcpu *cpu, const struct op *op, bool taken)
{
    if (taken) {
        uint64_t target = relative_target(cpu, op) & bytes_mask(op->size);
        check_target(cpu, op, target);
        cpu->rip = target;
    } else {
        cpu->rip = next_rip(cpu, op);
    }
}

static void jcc_any(struct vcpu *cpu, const struct op *op)
{
    go(cpu, op, condition(cpu->cc, op->aux));
    return interp_chain(cpu);
}

static void jmp_relative64(struct vcpu *cpu, const struct op *op)
{
    uint64_t target = relative_target(cpu, op);
    if (UNLIKELY(!is_canonical(target)))
        interp_raise_error(cpu, op, VEC_GP, 0);
    cpu->rip = target;
    return interp_chain(cpu);
}

static void jmp_relative(struct vcpu *cpu, const struct op *op)
{
    go(cpu, op, true);
    return interp_chain(cpu);
}

static uint64_t indirect_target(struct vcpu *cpu, const struct op *op)
{
    return op->flags & OP_REP /* memory */
               ? interp_load(cpu, op, addr_any(cpu, op, op->size, false), op->size)
               : cpu->gpr[op->dst] & bytes_mask(op->size);
}

static void jmp_indirect(struct vcpu *cpu, const struct op *op)
{
    uint64_t target = indirect_target(cpu, op);
    check_target(cpu, op, target);
    cpu->rip = target;
    return interp_chain(cpu);
}

static void call_relative64(struct vcpu *cpu, const struct op *op)
{
    uint64_t target = relative_target(cpu, op);
    if (UNLIKELY(!is_canonical(target)))
        interp_raise_error(cpu, op, VEC_GP, 0);
    uint64_t next = cpu->rip + op->offset + op->length;
    push64(cpu, op, next);
    cpu->rip = target;
    return interp_chain(cpu);
}

static void call_relative(struct vcpu *cpu, const struct op *op)
{
    uint64_t target = relative_target(cpu, op) & bytes_mask(op->size);
    check_target(cpu, op, target);
    stack_push(cpu, op, op->size, next_rip(cpu, op));
    cpu->rip = target;
    return interp_chain(cpu);
}

static void call_indirect(struct vcpu *cpu, const struct op *op)
{
    uint64_t target = indirect_target(cpu, op);
    stack_probe(cpu, op, op->size); /* before the target is looked at */
    check_target(cpu, op, target);
    stack_push(cpu, op, op->size, next_rip(cpu, op));
    cpu->rip = target;
    return interp_chain(cpu);
}

static void ret64(struct vcpu *cpu, const struct op *op)
{
    uint64_t target = mem_load(cpu, op, cpu->gpr[RSP], 8);
    if (UNLIKELY(!is_canonical(target)))
        interp_raise_error(cpu, op, VEC_GP, 0);
    cpu->gpr[RSP] += 8 + op->imm;
    cpu->rip = target;
    return interp_chain(cpu);
}

static void ret_any(struct vcpu *cpu, const struct op *op)
{
    uint64_t target = stack_peek(cpu, op, op->size, 0);
    check_target(cpu, op, target);
    stack_adjust(cpu, op->size + op->imm);
    cpu->rip = target;
    return interp_chain(cpu);
}

/* LOOP, LOOPE, LOOPNE count in CX, ECX or RCX by the address size; op->aux tells which ZF is
 * wanted: 0, 1, or 2 for either; 3 is JCXZ. */
static void loop_any(struct vcpu *cpu, const struct op *op)
{
    uint64_t mask = bytes_mask(op->addr_size);
    uint64_t count = cpu->gpr[RCX] & mask;
    bool zf = cpu->cc & FLAG_ZF, taken;
    if (op->aux == 3) {
        taken = !count;
    } else {
        count = (count - 1) & mask;
        taken = count && (op->aux == 2 || zf == op->aux);
    }
    if (taken)
        check_target(cpu, op, relative_target(cpu, op) & bytes_mask(op->size));
    if (op->aux != 3)
        cpu->gpr[RCX] = op->addr_size == 2 ? (cpu->gpr[RCX] & ~mask) | count : count;
    go(cpu, op, taken);
    return interp_chain(cpu);
}

/* Operand size of a near branch. In 64-bit mode it is 64 bits; AMD's processors heed a 66 prefix
 * all the same. */
static uint8_t near_size(const struct decode *d)
{
    if (d->mode.bits != 64)
        return d->insn->operand_width / 8;
    bool narrow = (d->insn->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE) && !d->insn->raw.rex.W &&
                  d->cpu->machine->cpuid.vendor == VENDOR_AMD;
    return narrow ? 2 : 8;
}

static bool bind_relative(struct decode *d, struct op *op, op_fn *fn64, op_fn *any)
{
    const ZydisDecodedInstruction *insn = d->insn;
    op->imm = op->offset + insn->length + (uint64_t)d->operands[0].imm.value.s;
    op->size = near_size(d);
    op->fn = op->size == 8 ? fn64 : any;
    d->ends_block = true;
    return true;
}

static bool bind_indirect(struct decode *d, struct op *op, op_fn *fn)
{
    if (d->insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return false;
    if (d->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return bind_relative(d, op, fn == jmp_indirect ? jmp_relative64 : call_relative64,
                             fn == jmp_indirect ? jmp_relative : call_relative);
    enum form form = bind_one(d, op);
    op->flags &= (uint8_t)~OP_REP;
    if (form == FORM_MR)
        op->flags |= OP_REP;
    op->size = near_size(d);
    op->fn = fn;
    d->ends_block = true;
    return form == FORM_RR || form == FORM_MR;
}

static bool bind_loop(struct decode *d, struct op *op, unsigned kind)
{
    /* In 64-bit mode the target has 64 bits, except where AMD takes an operand-size prefix. */
    /* On AMD's processors a REP prefix decides which LOOPE and LOOPNE it is. */
    if (kind < 2 && d->cpu->machine->cpuid.vendor == VENDOR_AMD)
        for (unsigned i = 0; i < d->insn->raw.prefix_count; i++)
            if (d->insn->raw.prefixes[i].value == 0xf2 || d->insn->raw.prefixes[i].value == 0xf3)
                kind = d->insn->raw.prefixes[i].value & 1;
    op->aux = (uint8_t)kind;
    op->addr_size = d->insn->address_width / 8;
    return bind_relative(d, op, loop_any, loop_any);
}

bool bind_branch(struct decode *d, struct op *op)
{
    int n = condition_of_jump(d->insn->mnemonic);
    if (n >= 0) {
        op->aux = (uint8_t)n;
        return bind_relative(d, op, jcc_ops[n], jcc_any);
    }
    switch (d->insn->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        return bind_indirect(d, op, jmp_indirect);
    case ZYDIS_MNEMONIC_CALL:
        return bind_indirect(d, op, call_indirect);
    case ZYDIS_MNEMONIC_RET:
        if (d->insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            return false;
        op->imm = d->insn->operand_count_visible ? d->operands[0].imm.value.u & 0xffff : 0;
        op->size = near_size(d);
        op->fn = op->size == 8 ? ret64 : ret_any;
        op->seg = SS;
        d->ends_block = true;
        return true;
    case ZYDIS_MNEMONIC_LOOP:
        return bind_loop(d, op, 2);
    case ZYDIS_MNEMONIC_LOOPE:
        return bind_loop(d, op, 1);
    case ZYDIS_MNEMONIC_LOOPNE:
        return bind_loop(d, op, 0);
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        return bind_loop(d, op, 3);
    default:
        return false;
    }
}
