/* MUL IMUL MULX DIV IDIV, and the sign extensions of the accumulator. */
#include "interp/core.h"

static uint64_t operand(struct vcpu *cpu, const struct op *op)
{
    if (op->flags & OP_REP) /* memory */
        return interp_load(cpu, op, addr_any(cpu, op, op->size, false), op->size);
    return op->size == 1 ? get_dst(cpu, op, 1) : cpu->gpr[op->dst] & bytes_mask(op->size);
}

/*
 * One host instruction on RAX, RDX and the operand, from our flags to our flags. MOV does not touch
 * flags, so AX can carry them in before and out after.
 */
#define ACCUMULATOR(name, insn, T)                                                                 \
    static uint32_t name(uint64_t *rax, uint64_t *rdx, uint64_t b, uint32_t cc)                    \
    {                                                                                              \
        uint64_t acc = *rax, hi = *rdx, ax = ax_from_flags(cc);                                    \
        T v = (T)b;                                                                                \
        __asm__(LOAD_FLAGS "mov %[acc], %%rax\n\t" insn " %[v]\n\t"                                \
                           "mov %%rax, %[acc]" CAPTURE_FLAGS                                       \
                : "+&a"(ax), [acc] "+&r"(acc), "+&d"(hi)                                           \
                : [v] "q"(v)                                                                       \
                : "cc");                                                                           \
        *rax = acc;                                                                                \
        *rdx = hi;                                                                                 \
        return flags_from_ax((uint32_t)ax);                                                        \
    }
#define ACCUMULATORS(name, insn)                                                                   \
    ACCUMULATOR(name##1, insn "b", uint8_t)                                                        \
    ACCUMULATOR(name##2, insn "w", uint16_t)                                                       \
    ACCUMULATOR(name##4, insn "l", uint32_t) ACCUMULATOR(name##8, insn "q", uint64_t)
ACCUMULATORS(mul, "mul")
ACCUMULATORS(imul, "imul")
ACCUMULATORS(div, "div")
ACCUMULATORS(idiv, "idiv")

typedef uint32_t accumulator_fn(uint64_t *rax, uint64_t *rdx, uint64_t b, uint32_t cc);
enum { MUL, IMUL, DIV, IDIV };
static accumulator_fn *const accumulator_ops[4][4] = {
    {mul1, mul2, mul4, mul8},
    {imul1, imul2, imul4, imul8},
    {div1, div2, div4, div8},
    {idiv1, idiv2, idiv4, idiv8},
};

static void accumulate(struct vcpu *cpu, const struct op *op)
{
    uint64_t b = operand(cpu, op);
    cpu->cc =
        accumulator_ops[op->aux2][size_log2(op->size)](&cpu->gpr[RAX], &cpu->gpr[RDX], b, cpu->cc);
    NEXT(cpu, op);
}

static uint64_t dividend_high(const struct vcpu *cpu, unsigned size)
{
    return size == 1 ? (uint8_t)(cpu->gpr[RAX] >> 8) : cpu->gpr[RDX] & bytes_mask(size);
}

/* The quotient fits exactly if the dividend's upper half is below the divisor. */
static void divide(struct vcpu *cpu, const struct op *op)
{
    uint64_t b = operand(cpu, op);
    if (dividend_high(cpu, op->size) >= b)
        interp_raise(cpu, op, VEC_DE);
    cpu->cc = accumulator_ops[DIV][size_log2(op->size)](&cpu->gpr[RAX], &cpu->gpr[RDX], b, cpu->cc);
    NEXT(cpu, op);
}

static int64_t sign_extend(uint64_t v, unsigned size)
{
    unsigned shift = 64 - 8 * size;
    return (int64_t)(v << shift) >> shift;
}

static bool signed_quotient_fits(const struct vcpu *cpu, uint64_t b, unsigned size)
{
    unsigned bits = 8 * size;
    unsigned __int128 raw =
        (unsigned __int128)dividend_high(cpu, size) << bits | (cpu->gpr[RAX] & bytes_mask(size));
    __int128 dividend = (__int128)(raw << (128 - 2 * bits)) >> (128 - 2 * bits);
    __int128 divisor = sign_extend(b, size);
    if (!divisor)
        return false;
    bool negative = (dividend < 0) != (divisor < 0);
    unsigned __int128 n = dividend < 0 ? -(unsigned __int128)dividend : (unsigned __int128)dividend;
    unsigned __int128 m = divisor < 0 ? -(unsigned __int128)divisor : (unsigned __int128)divisor;
    /* |quotient| <= 2^(bits-1) - 1, or 2^(bits-1) if negative: compare with |divisor| * limit. */
    unsigned __int128 limit = ((unsigned __int128)1 << (bits - 1)) + negative;
    return n < m * limit;
}

static void divide_signed(struct vcpu *cpu, const struct op *op)
{
    uint64_t b = operand(cpu, op);
    if (!signed_quotient_fits(cpu, b, op->size))
        interp_raise(cpu, op, VEC_DE);
    cpu->cc =
        accumulator_ops[IDIV][size_log2(op->size)](&cpu->gpr[RAX], &cpu->gpr[RDX], b, cpu->cc);
    NEXT(cpu, op);
}

/* IMUL with two and three operands. */
#define IMUL2(bytes)                                                                               \
    static inline TYPE##bytes imul2_##bytes(struct vcpu *cpu, TYPE##bytes a, TYPE##bytes b)        \
    {                                                                                              \
        uint32_t ax = ax_from_flags(cpu->cc);                                                      \
        __asm__(LOAD_FLAGS "imul %2, %0" CAPTURE_FLAGS : "+r"(a), "+&a"(ax) : "r"(b) : "cc");      \
        cpu->cc = flags_from_ax(ax);                                                               \
        return a;                                                                                  \
    }                                                                                              \
    static void imul_rr##bytes(struct vcpu *cpu, const struct op *op)                              \
    {                                                                                              \
        TYPE##bytes a = (TYPE##bytes)cpu->gpr[op->dst], b = (TYPE##bytes)cpu->gpr[op->src];        \
        set_dst(cpu, op, bytes, imul2_##bytes(cpu, a, b));                                         \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void imul_rm##bytes(struct vcpu *cpu, const struct op *op)                              \
    {                                                                                              \
        uint64_t linear = addr_any(cpu, op, bytes, false);                                         \
        TYPE##bytes b = (TYPE##bytes)mem_load(cpu, op, linear, bytes);                             \
        set_dst(cpu, op, bytes, imul2_##bytes(cpu, (TYPE##bytes)cpu->gpr[op->dst], b));            \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void imul_rri##bytes(struct vcpu *cpu, const struct op *op)                             \
    {                                                                                              \
        TYPE##bytes a = (TYPE##bytes)cpu->gpr[op->src];                                            \
        set_dst(cpu, op, bytes, imul2_##bytes(cpu, a, (TYPE##bytes)op->imm));                      \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void imul_rmi##bytes(struct vcpu *cpu, const struct op *op)                             \
    {                                                                                              \
        uint64_t linear = addr_any(cpu, op, bytes, false);                                         \
        TYPE##bytes a = (TYPE##bytes)mem_load(cpu, op, linear, bytes);                             \
        set_dst(cpu, op, bytes, imul2_##bytes(cpu, a, (TYPE##bytes)op->imm));                      \
        NEXT(cpu, op);                                                                             \
    }
IMUL2(2)
IMUL2(4)
IMUL2(8)
static op_fn *const imul_ops[3][4] = {{imul_rr2, imul_rm2, imul_rri2, imul_rmi2},
                                      {imul_rr4, imul_rm4, imul_rri4, imul_rmi4},
                                      {imul_rr8, imul_rm8, imul_rri8, imul_rmi8}};

/* MULX: dst is the high half, aux the low half (dst wins where they are the same). */
static void mulx(struct vcpu *cpu, const struct op *op)
{
    uint64_t b = op->flags & OP_REP
                     ? interp_load(cpu, op, addr_any(cpu, op, op->size, false), op->size)
                     : cpu->gpr[op->src] & bytes_mask(op->size);
    unsigned __int128 p = (unsigned __int128)(cpu->gpr[RDX] & bytes_mask(op->size)) * b;
    cpu->gpr[op->aux] = (uint64_t)p & bytes_mask(op->size);
    cpu->gpr[op->dst] = (uint64_t)(p >> (8 * op->size)) & bytes_mask(op->size);
    NEXT(cpu, op);
}

static void extend_accumulator(struct vcpu *cpu, const struct op *op)
{
    unsigned size = op->size; /* of the result */
    int64_t v = sign_extend(cpu->gpr[RAX], size / 2);
    if (size == 2)
        reg_set(cpu, RAX, 0, 2, (uint64_t)v);
    else
        cpu->gpr[RAX] = (uint64_t)v & bytes_mask(size);
    NEXT(cpu, op);
}

static void extend_into_dx(struct vcpu *cpu, const struct op *op)
{
    uint64_t v = (uint64_t)(sign_extend(cpu->gpr[RAX], op->size) >> 63);
    if (op->size == 2)
        reg_set(cpu, RDX, 0, 2, v);
    else
        cpu->gpr[RDX] = v & bytes_mask(op->size);
    NEXT(cpu, op);
}

static bool bind_imul_two(struct decode *d, struct op *op)
{
    enum form form = bind_two(d, op);
    if (form != FORM_RR && form != FORM_RM)
        return false;
    unsigned column = form == FORM_RM;
    if (d->insn->operand_count_visible == 3) {
        op->imm = bind_imm(d, 2);
        column += 2;
    }
    op->fn = imul_ops[size_log2(op->size) - 1][column];
    return true;
}

static bool bind_accumulator(struct decode *d, struct op *op, unsigned which, op_fn *fn)
{
    enum form form = bind_one(d, op);
    op->flags &= (uint8_t)~OP_REP;
    if (form == FORM_MR)
        op->flags |= OP_REP;
    op->aux2 = (uint8_t)which;
    op->fn = fn;
    return form != FORM_OTHER;
}

bool bind_muldiv(struct decode *d, struct op *op)
{
    switch (d->insn->mnemonic) {
    case ZYDIS_MNEMONIC_MUL:
        return bind_accumulator(d, op, MUL, accumulate);
    case ZYDIS_MNEMONIC_IMUL:
        if (d->insn->operand_count_visible >= 2)
            return bind_imul_two(d, op);
        return bind_accumulator(d, op, IMUL, accumulate);
    case ZYDIS_MNEMONIC_DIV:
        return bind_accumulator(d, op, DIV, divide);
    case ZYDIS_MNEMONIC_IDIV:
        return bind_accumulator(d, op, IDIV, divide_signed);
    case ZYDIS_MNEMONIC_MULX: {
        uint8_t shift;
        bind_one(d, op);
        if (!bind_reg(d->operands[1].reg.value, &op->aux, &shift))
            return false;
        op->flags &= (uint8_t)~OP_REP;
        if (d->operands[2].type == ZYDIS_OPERAND_TYPE_MEMORY)
            op->flags |= OP_REP;
        else if (!bind_reg(d->operands[2].reg.value, &op->src, &shift))
            return false;
        op->fn = mulx;
        return true;
    }
    case ZYDIS_MNEMONIC_CBW:
        op->size = 2, op->fn = extend_accumulator;
        return true;
    case ZYDIS_MNEMONIC_CWDE:
        op->size = 4, op->fn = extend_accumulator;
        return true;
    case ZYDIS_MNEMONIC_CDQE:
        op->size = 8, op->fn = extend_accumulator;
        return true;
    case ZYDIS_MNEMONIC_CWD:
        op->size = 2, op->fn = extend_into_dx;
        return true;
    case ZYDIS_MNEMONIC_CDQ:
        op->size = 4, op->fn = extend_into_dx;
        return true;
    case ZYDIS_MNEMONIC_CQO:
        op->size = 8, op->fn = extend_into_dx;
        return true;
    default:
        return false;
    }
}
