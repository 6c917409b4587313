/* AAA AAS AAD AAM DAA DAS, SALC: instructions that 64-bit mode, and so our host, no longer has.
 * Undefined flags are what current AMD and Intel processors were seen to leave. */
#include "interp/core.h"

static uint32_t szp(uint8_t value)
{
    uint8_t zero = 0;
    uint32_t ax;
    __asm__("or %b1, %b0" CAPTURE_FLAGS : "+q"(value), "=&a"(ax) : "q"(zero) : "cc");
    return flags_from_ax(ax) & (FLAG_SF | FLAG_ZF | FLAG_PF);
}

static void set_ax(struct vcpu *cpu, uint16_t value)
{
    cpu->gpr[RAX] = (cpu->gpr[RAX] & ~UINT64_C(0xffff)) | value;
}

static void set_al(struct vcpu *cpu, uint8_t value)
{
    cpu->gpr[RAX] = (cpu->gpr[RAX] & ~UINT64_C(0xff)) | value;
}

static void aaa(struct vcpu *cpu, const struct op *op)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    bool adjust = (ax & 15) > 9 || (cpu->cc & FLAG_AF);
    if (adjust)
        ax = (uint16_t)(ax + 0x106);
    ax &= 0xff0f;
    set_ax(cpu, ax);
    cpu->cc = (adjust ? FLAG_AF | FLAG_CF : 0) | szp((uint8_t)ax);
    NEXT(cpu, op);
}

static void aas(struct vcpu *cpu, const struct op *op)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    bool adjust = (ax & 15) > 9 || (cpu->cc & FLAG_AF);
    if (adjust)
        ax = (uint16_t)(ax - 0x106);
    ax &= 0xff0f;
    set_ax(cpu, ax);
    cpu->cc = (adjust ? FLAG_AF | FLAG_CF : 0) | szp((uint8_t)ax);
    NEXT(cpu, op);
}

static void daa(struct vcpu *cpu, const struct op *op)
{
    uint8_t al = (uint8_t)cpu->gpr[RAX], old = al;
    uint32_t cc = cpu->cc;
    bool low = (al & 15) > 9 || (cc & FLAG_AF), high = old > 0x99 || (cc & FLAG_CF);
    if (low)
        al = (uint8_t)(al + 6);
    if (high)
        al = (uint8_t)(al + 0x60);
    set_al(cpu, al);
    cpu->cc = (low ? FLAG_AF : 0) | (high ? FLAG_CF : 0) | szp(al);
    NEXT(cpu, op);
}

static void das(struct vcpu *cpu, const struct op *op)
{
    uint8_t al = (uint8_t)cpu->gpr[RAX], old = al;
    uint32_t cc = cpu->cc;
    bool low = (al & 15) > 9 || (cc & FLAG_AF), high = old > 0x99 || (cc & FLAG_CF);
    bool carry = high;
    if (low) {
        carry |= al < 6;
        al = (uint8_t)(al - 6);
    }
    if (high)
        al = (uint8_t)(al - 0x60);
    set_al(cpu, al);
    cpu->cc = (low ? FLAG_AF : 0) | (carry ? FLAG_CF : 0) | szp(al);
    NEXT(cpu, op);
}

static void aad(struct vcpu *cpu, const struct op *op)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    uint8_t al = (uint8_t)((ax >> 8) * op->imm + (ax & 0xff));
    set_ax(cpu, al);
    cpu->cc = szp(al);
    NEXT(cpu, op);
}

static void aam(struct vcpu *cpu, const struct op *op)
{
    uint8_t al = (uint8_t)cpu->gpr[RAX], base = (uint8_t)op->imm;
    if (!base)
        interp_raise(cpu, op, VEC_DE);
    set_ax(cpu, (uint16_t)((al / base) << 8 | (al % base)));
    cpu->cc = szp((uint8_t)(al % base));
    NEXT(cpu, op);
}

static void salc(struct vcpu *cpu, const struct op *op)
{
    set_al(cpu, cpu->cc & FLAG_CF ? 0xff : 0);
    NEXT(cpu, op);
}

static const struct {
    ZydisMnemonic mnemonic;
    op_fn *fn;
} bcd_ops[] = {
    {ZYDIS_MNEMONIC_AAA, aaa},   {ZYDIS_MNEMONIC_AAS, aas}, {ZYDIS_MNEMONIC_DAA, daa},
    {ZYDIS_MNEMONIC_DAS, das},   {ZYDIS_MNEMONIC_AAD, aad}, {ZYDIS_MNEMONIC_AAM, aam},
    {ZYDIS_MNEMONIC_SALC, salc},
};

bool bind_bcd(struct decode *d, struct op *op)
{
    for (unsigned i = 0; i < ARRAY_SIZE(bcd_ops); i++) {
        if (bcd_ops[i].mnemonic != d->insn->mnemonic)
            continue;
        if (d->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            op->imm = d->operands[0].imm.value.u & 0xff;
        op->fn = bcd_ops[i].fn;
        return true;
    }
    return false;
}
