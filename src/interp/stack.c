/* PUSH, POP, PUSHA, POPA, ENTER, LEAVE. Segment registers and flags belong to the system family. */
#include "interp/stack.h"

static void push_r8(struct vcpu *cpu, const struct op *op)
{
    push64(cpu, op, cpu->gpr[op->dst]);
    NEXT(cpu, op);
}

static void push_i8(struct vcpu *cpu, const struct op *op)
{
    push64(cpu, op, op->imm);
    NEXT(cpu, op);
}

static void pop_r8(struct vcpu *cpu, const struct op *op)
{
    uint64_t value = mem_load(cpu, op, cpu->gpr[RSP], 8);
    cpu->gpr[RSP] += 8;
    cpu->gpr[op->dst] = value; /* POP RSP: the value wins */
    NEXT(cpu, op);
}

static void push_r(struct vcpu *cpu, const struct op *op)
{
    stack_push(cpu, op, op->size, cpu->gpr[op->dst]);
    NEXT(cpu, op);
}

static void push_i(struct vcpu *cpu, const struct op *op)
{
    stack_push(cpu, op, op->size, op->imm);
    NEXT(cpu, op);
}

static void push_m(struct vcpu *cpu, const struct op *op)
{
    uint64_t value = interp_load(cpu, op, addr_any(cpu, op, op->size, false), op->size);
    stack_push(cpu, op, op->size, value);
    NEXT(cpu, op);
}

static void pop_r(struct vcpu *cpu, const struct op *op)
{
    uint64_t value = stack_peek(cpu, op, op->size, 0);
    stack_adjust(cpu, op->size);
    if (op->size == 2)
        reg_set(cpu, op->dst, 0, 2, value);
    else
        cpu->gpr[op->dst] = value;
    NEXT(cpu, op);
}

/* The address of POP's memory operand is computed with the incremented stack pointer. */
static void pop_m(struct vcpu *cpu, const struct op *op)
{
    uint64_t value = stack_peek(cpu, op, op->size, 0);
    uint64_t old = cpu->gpr[RSP];
    stack_adjust(cpu, op->size);
    uint64_t offset = addr_offset(cpu, op);
    uint64_t incremented = cpu->gpr[RSP];
    cpu->gpr[RSP] = old; /* until nothing can fault any more */
    uint64_t linear = interp_linear(cpu, op, op->seg, offset, op->size, true);
    interp_store(cpu, op, linear, op->size, value);
    cpu->gpr[RSP] = incremented;
    NEXT(cpu, op);
}

static const uint8_t all_registers[8] = {RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI};

/* Stores that come before one that faults have happened, as on the processor; RSP has not moved. */
static void pusha(struct vcpu *cpu, const struct op *op)
{
    uint64_t sp = cpu->gpr[RSP];
    for (int i = 0; i < 8; i++) {
        uint64_t value = all_registers[i] == RSP ? sp : cpu->gpr[all_registers[i]];
        interp_store(cpu, op, stack_linear(cpu, op, -(i + 1) * (int)op->size, op->size, true),
                     op->size, value);
    }
    stack_adjust(cpu, -(uint64_t)(8 * op->size));
    NEXT(cpu, op);
}

static void popa(struct vcpu *cpu, const struct op *op)
{
    uint64_t values[8];
    for (int i = 0; i < 8; i++)
        values[i] = stack_peek(cpu, op, op->size, i * (int)op->size);
    for (int i = 0; i < 8; i++) {
        unsigned reg = all_registers[7 - i];
        if (reg == RSP)
            continue;
        if (op->size == 2)
            reg_set(cpu, reg, 0, 2, values[i]);
        else
            reg_set(cpu, reg, 0, 4, values[i]);
    }
    stack_adjust(cpu, 8 * op->size);
    NEXT(cpu, op);
}

static uint64_t frame_linear(struct vcpu *cpu, const struct op *op, uint64_t offset)
{
    if (cpu->interp->stack_flat)
        return offset;
    return interp_linear(cpu, op, SS, offset, op->size, false);
}

/*
 * imm: bytes of locals; aux: nesting level (0..31). The display is copied entry by entry, so one
 * that overlaps the new frame smears as it does on the processor.
 */
static void enter(struct vcpu *cpu, const struct op *op)
{
    unsigned size = op->size, level = op->aux;
    uint64_t mask = cpu->interp->stack_mask;
    /* Where the old rBP goes; with a 16-bit stack it has the upper part of ESP. */
    uint64_t frame = (cpu->gpr[RSP] - size) & mask;
    if (mask == 0xffff)
        frame |= (uint32_t)cpu->gpr[RSP] & ~mask;
    unsigned slots = level ? level + 1 : 1;
    uint64_t drop = slots * size + op->imm;
    for (unsigned i = 0; i < slots; i++) {
        uint64_t value;
        if (i == 0)
            value = cpu->gpr[RBP];
        else if (i == level)
            value = frame;
        else
            value = interp_load(
                cpu, op, frame_linear(cpu, op, (cpu->gpr[RBP] - (uint64_t)i * size) & mask), size);
        interp_store(cpu, op, stack_linear(cpu, op, -(int64_t)((i + 1) * size), size, true), size,
                     value);
    }
    /* The new stack top must be writable too; as on the processor, the frame has been stored by
     * then. */
    interp_probe_write(cpu, op, stack_linear(cpu, op, -(int64_t)drop, size, true), size);
    stack_adjust(cpu, -drop);
    if (size == 2)
        reg_set(cpu, RBP, 0, 2, frame);
    else
        cpu->gpr[RBP] = size == 4 ? (uint32_t)frame : frame;
    NEXT(cpu, op);
}

static void leave8(struct vcpu *cpu, const struct op *op)
{
    uint64_t bp = cpu->gpr[RBP];
    uint64_t value = mem_load(cpu, op, bp, 8);
    cpu->gpr[RSP] = bp + 8;
    cpu->gpr[RBP] = value;
    NEXT(cpu, op);
}

static void leave_any(struct vcpu *cpu, const struct op *op)
{
    uint64_t mask = cpu->interp->stack_mask;
    uint64_t offset = cpu->gpr[RBP] & mask;
    uint64_t linear =
        cpu->interp->stack_flat ? offset : interp_linear(cpu, op, SS, offset, op->size, false);
    uint64_t value = interp_load(cpu, op, linear, op->size);
    uint64_t sp = (offset + op->size) & mask;
    cpu->gpr[RSP] = mask == 0xffff ? (cpu->gpr[RSP] & ~mask) | sp : sp;
    if (op->size == 2)
        reg_set(cpu, RBP, 0, 2, value);
    else
        cpu->gpr[RBP] = value;
    NEXT(cpu, op);
}

static bool bind_push(struct decode *d, struct op *op)
{
    const ZydisDecodedOperand *o = &d->operands[0];
    unsigned size = d->insn->operand_width / 8;
    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        op->imm = (uint64_t)o->imm.value.s;
        op->fn = size == 8 ? push_i8 : push_i;
    } else if (bind_one(d, op) == FORM_RR) {
        op->fn = size == 8 ? push_r8 : push_r;
    } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        op->fn = push_m;
    } else {
        return false; /* a segment register */
    }
    op->size = (uint8_t)size;
    if (op->fn != push_m)
        op->seg = SS;
    return true;
}

static bool bind_pop(struct decode *d, struct op *op)
{
    unsigned size = d->insn->operand_width / 8;
    switch (bind_one(d, op)) {
    case FORM_RR:
        op->fn = size == 8 ? pop_r8 : pop_r;
        op->seg = SS;
        break;
    case FORM_MR:
        op->fn = pop_m;
        break;
    default:
        return false;
    }
    op->size = (uint8_t)size;
    return true;
}

bool bind_stack(struct decode *d, struct op *op)
{
    switch (d->insn->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return bind_push(d, op);
    case ZYDIS_MNEMONIC_POP:
        return bind_pop(d, op);
    case ZYDIS_MNEMONIC_PUSHA:
    case ZYDIS_MNEMONIC_PUSHAD:
        op->size = d->insn->mnemonic == ZYDIS_MNEMONIC_PUSHA ? 2 : 4;
        op->fn = pusha;
        break;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        op->size = d->insn->mnemonic == ZYDIS_MNEMONIC_POPA ? 2 : 4;
        op->fn = popa;
        break;
    case ZYDIS_MNEMONIC_ENTER:
        op->size = d->insn->operand_width / 8;
        op->imm = d->operands[0].imm.value.u & 0xffff;
        op->aux = d->operands[1].imm.value.u & 31;
        op->fn = enter;
        break;
    case ZYDIS_MNEMONIC_LEAVE:
        op->size = d->insn->operand_width / 8;
        op->fn = op->size == 8 && d->mode.bits == 64 ? leave8 : leave_any;
        break;
    default:
        return false;
    }
    op->seg = SS;
    return true;
}
