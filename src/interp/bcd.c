/* AAA AAS AAD AAM DAA DAS, SALC: instructions that 64-bit mode, and so our host, no longer has.
 * Undefined flags are what an AMD Zen 5 was seen to leave: those of the sums. */
#include "interp/core.h"

/* 8-bit sum or difference and the flags that go with it. */
static uint8_t add8(uint8_t a, uint8_t b, uint32_t *cc)
{
    uint32_t ax;
    __asm__("add %b2, %b0" CAPTURE_FLAGS : "+q"(a), "=&a"(ax) : "q"(b) : "cc");
    *cc = flags_from_ax(ax);
    return a;
}

static uint8_t sub8(uint8_t a, uint8_t b, uint32_t *cc)
{
    uint32_t ax;
    __asm__("sub %b2, %b0" CAPTURE_FLAGS : "+q"(a), "=&a"(ax) : "q"(b) : "cc");
    *cc = flags_from_ax(ax);
    return a;
}

/* The same with 16 bits, for AAA and AAS. */
static uint16_t add16(uint16_t a, uint16_t b, uint32_t *cc)
{
    uint32_t ax;
    __asm__("add %w2, %w0" CAPTURE_FLAGS : "+r"(a), "=&a"(ax) : "r"(b) : "cc");
    *cc = flags_from_ax(ax);
    return a;
}

static uint16_t sub16(uint16_t a, uint16_t b, uint32_t *cc)
{
    uint32_t ax;
    __asm__("sub %w2, %w0" CAPTURE_FLAGS : "+r"(a), "=&a"(ax) : "r"(b) : "cc");
    *cc = flags_from_ax(ax);
    return a;
}

#define SZPO (FLAG_SF | FLAG_ZF | FLAG_PF | FLAG_OF)

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
    uint32_t cc;
    bool adjust = (ax & 15) > 9 || (cpu->cc & FLAG_AF);
    set_ax(cpu, add16(ax, adjust ? 0x106 : 0, &cc) & 0xff0f);
    cpu->cc = (adjust ? FLAG_AF | FLAG_CF : 0) | (cc & SZPO);
    NEXT(cpu, op);
}

static void aas(struct vcpu *cpu, const struct op *op)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    uint32_t cc;
    bool adjust = (ax & 15) > 9 || (cpu->cc & FLAG_AF);
    set_ax(cpu, sub16(ax, adjust ? 0x106 : 0, &cc) & 0xff0f);
    cpu->cc = (adjust ? FLAG_AF | FLAG_CF : 0) | (cc & SZPO);
    NEXT(cpu, op);
}

static void daa(struct vcpu *cpu, const struct op *op)
{
    uint8_t al = (uint8_t)cpu->gpr[RAX];
    uint32_t cc;
    bool low = (al & 15) > 9 || (cpu->cc & FLAG_AF), high = al > 0x99 || (cpu->cc & FLAG_CF);
    set_al(cpu, add8(al, (uint8_t)((low ? 6 : 0) + (high ? 0x60 : 0)), &cc));
    cpu->cc = (low ? FLAG_AF : 0) | (high ? FLAG_CF : 0) | (cc & SZPO);
    NEXT(cpu, op);
}

static void das(struct vcpu *cpu, const struct op *op)
{
    uint8_t al = (uint8_t)cpu->gpr[RAX];
    uint32_t cc;
    bool low = (al & 15) > 9 || (cpu->cc & FLAG_AF), high = al > 0x99 || (cpu->cc & FLAG_CF);
    bool carry = high || (low && al < 6);
    set_al(cpu, sub8(al, (uint8_t)((low ? 6 : 0) + (high ? 0x60 : 0)), &cc));
    cpu->cc = (low ? FLAG_AF : 0) | (carry ? FLAG_CF : 0) | (cc & SZPO);
    NEXT(cpu, op);
}

static void aad(struct vcpu *cpu, const struct op *op)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    set_ax(cpu, add8((uint8_t)ax, (uint8_t)((ax >> 8) * op->imm), &cpu->cc));
    NEXT(cpu, op);
}

static void aam(struct vcpu *cpu, const struct op *op)
{
    uint8_t al = (uint8_t)cpu->gpr[RAX], base = (uint8_t)op->imm;
    if (!base)
        interp_raise(cpu, op, VEC_DE);
    uint8_t rest = add8(al % base, 0, &cpu->cc);
    set_ax(cpu, (uint16_t)((al / base) << 8 | rest));
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
