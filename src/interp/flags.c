/* The flags register: PUSHF, POPF, CLI, STI, and the rules for who may change what. */
#include "interp/system.h"

void flags_write(struct vcpu *cpu, uint32_t value, uint32_t mask)
{
    uint32_t old = cpu_rflags(cpu);
    uint32_t new = (old & ~mask) | (value & mask);
    cpu_set_rflags(cpu, new);
    if ((new & ~old &FLAG_IF) && atomic_load(&cpu->intr_asserted))
        atomic_fetch_or(&cpu->attention, ATT_INTR);
    if ((new ^ old) & (FLAG_AC | FLAG_VM))
        interp_mode_changed(cpu);
}

static unsigned iopl(const struct vcpu *cpu)
{
    return cpu->rflags >> FLAG_IOPL_SHIFT & 3;
}

static void op_pushf(struct vcpu *cpu, const struct op *op)
{
    uint32_t flags = cpu_rflags(cpu) & ~(FLAG_VM | FLAG_RF);
    if (cpu_v86(cpu) && iopl(cpu) < 3) {
        if (!(cpu->cr4 & CR4_VME) || op->size != 2)
            interp_raise_error(cpu, op, VEC_GP, 0);
        flags = (flags & ~FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
    }
    struct stack s = stack_current(cpu, op);
    stack_push(&s, op->size, flags);
    stack_commit(&s);
    NEXT(cpu, op);
}

/* POPF ends its block: TF and IF take effect at the next instruction's boundary. */
static void op_popf(struct vcpu *cpu, const struct op *op)
{
    struct stack s = stack_current(cpu, op);
    uint32_t value = (uint32_t)stack_pop(&s, op->size);
    uint32_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;
    if (op->size > 2)
        mask |= FLAG_AC | FLAG_ID;
    if (cpu_v86(cpu)) {
        if (iopl(cpu) == 3) {
            mask |= FLAG_IF;
        } else {
            if (!(cpu->cr4 & CR4_VME) || op->size != 2 || (value & FLAG_TF) ||
                ((value & FLAG_IF) && (cpu->rflags & FLAG_VIP)))
                interp_raise_error(cpu, op, VEC_GP, 0);
            value = (value & ~FLAG_VIF) | (value & FLAG_IF ? FLAG_VIF : 0);
            mask |= FLAG_VIF;
        }
    } else {
        if (cpu->cpl <= iopl(cpu))
            mask |= FLAG_IF;
        if (cpu->cpl == 0)
            mask |= FLAG_IOPL;
    }
    stack_commit(&s);
    cpu->rip = interp_next_rip(cpu, op);
    flags_write(cpu, value, mask);
    END_BLOCK(cpu, op);
}

/* CLI and STI where IOPL does not allow them: virtual interrupt flag, or #GP. True: VIF is meant.
 */
static bool virtual_if(struct vcpu *cpu, const struct op *op)
{
    if (cpu_real_mode(cpu) || iopl(cpu) >= cpu->cpl)
        return false;
    bool vme = cpu_v86(cpu) ? cpu->cr4 & CR4_VME : (cpu->cr4 & CR4_PVI) && cpu->cpl == 3;
    if (!vme)
        interp_raise_error(cpu, op, VEC_GP, 0);
    return true;
}

static void op_cli(struct vcpu *cpu, const struct op *op)
{
    if (virtual_if(cpu, op))
        cpu->rflags &= ~FLAG_VIF;
    else
        cpu->rflags &= ~FLAG_IF;
    NEXT(cpu, op);
}

static void op_sti(struct vcpu *cpu, const struct op *op)
{
    if (virtual_if(cpu, op)) {
        if (cpu->rflags & FLAG_VIP)
            interp_raise_error(cpu, op, VEC_GP, 0);
        cpu->rflags |= FLAG_VIF;
    } else if (!(cpu->rflags & FLAG_IF)) {
        flags_write(cpu, FLAG_IF, FLAG_IF);
        cpu->int_shadow = 1;
    }
    cpu->rip = interp_next_rip(cpu, op);
    END_BLOCK(cpu, op);
}

#define SIMPLE(name, statement)                                                                    \
    static void name(struct vcpu *cpu, const struct op *op)                                        \
    {                                                                                              \
        statement;                                                                                 \
        NEXT(cpu, op);                                                                             \
    }
SIMPLE(op_clc, cpu->cc &= ~FLAG_CF)
SIMPLE(op_stc, cpu->cc |= FLAG_CF)
SIMPLE(op_cmc, cpu->cc ^= FLAG_CF)
SIMPLE(op_cld, cpu->rflags &= ~FLAG_DF)
SIMPLE(op_std, cpu->rflags |= FLAG_DF)

static void set_ac(struct vcpu *cpu, const struct op *op, uint32_t value)
{
    if (cpu->cpl != 0)
        interp_raise(cpu, op, VEC_UD);
    flags_write(cpu, value, FLAG_AC);
}

static void op_clac(struct vcpu *cpu, const struct op *op)
{
    set_ac(cpu, op, 0);
    NEXT(cpu, op);
}

static void op_stac(struct vcpu *cpu, const struct op *op)
{
    set_ac(cpu, op, FLAG_AC);
    NEXT(cpu, op);
}

bool bind_flags(struct decode *d, struct op *op)
{
    static const struct {
        ZydisMnemonic mnemonic;
        op_fn *fn;
        uint8_t size;
        bool ends;
    } table[] = {
        {ZYDIS_MNEMONIC_PUSHF, op_pushf, 2, false},  {ZYDIS_MNEMONIC_PUSHFD, op_pushf, 4, false},
        {ZYDIS_MNEMONIC_PUSHFQ, op_pushf, 8, false}, {ZYDIS_MNEMONIC_POPF, op_popf, 2, true},
        {ZYDIS_MNEMONIC_POPFD, op_popf, 4, true},    {ZYDIS_MNEMONIC_POPFQ, op_popf, 8, true},
        {ZYDIS_MNEMONIC_CLI, op_cli, 0, false},      {ZYDIS_MNEMONIC_STI, op_sti, 0, true},
        {ZYDIS_MNEMONIC_CLC, op_clc, 0, false},      {ZYDIS_MNEMONIC_STC, op_stc, 0, false},
        {ZYDIS_MNEMONIC_CMC, op_cmc, 0, false},      {ZYDIS_MNEMONIC_CLD, op_cld, 0, false},
        {ZYDIS_MNEMONIC_STD, op_std, 0, false},      {ZYDIS_MNEMONIC_CLAC, op_clac, 0, false},
        {ZYDIS_MNEMONIC_STAC, op_stac, 0, false},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        if (d->insn->mnemonic != table[i].mnemonic)
            continue;
        op->fn = table[i].fn;
        if (table[i].size)
            op->size = table[i].size;
        d->ends_block = table[i].ends;
        return true;
    }
    return false;
}
