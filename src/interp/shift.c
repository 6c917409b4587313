/* SHL SHR SAR ROL ROR RCL RCR, SHLD SHRD, and BMI2's RORX SARX SHLX SHRX. */
#include "interp/core.h"

/* A count of zero leaves the flags alone, a rotate most of them: so the host starts from ours. */
#define SHIFT(name, insn, bytes)                                                                   \
    static inline __attribute__((always_inline))                                                   \
    TYPE##bytes name##bytes(struct vcpu *cpu, TYPE##bytes a, uint8_t count)                        \
    {                                                                                              \
        uint32_t ax = ax_from_flags(cpu->cc);                                                      \
        __asm__(LOAD_FLAGS insn " %%cl, %0" CAPTURE_FLAGS                                          \
                : "+q"(a), "+&a"(ax)                                                               \
                : "c"(count)                                                                       \
                : "cc");                                                                           \
        cpu->cc = flags_from_ax(ax);                                                               \
        return a;                                                                                  \
    }                                                                                              \
    static void name##_rc##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        uint8_t count = (uint8_t)cpu->gpr[RCX];                                                    \
        set_dst(cpu, op, bytes, name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes), count));    \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_ri##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        set_dst(cpu, op, bytes,                                                                    \
                name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes), (uint8_t)op->imm));         \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_m##bytes(struct vcpu *cpu, const struct op *op)                             \
    {                                                                                              \
        struct rmw m = mem_rmw(cpu, op, addr_any(cpu, op, bytes, true), bytes, false);             \
        TYPE##bytes a = (TYPE##bytes)host_load(m.host, bytes);                                     \
        uint8_t count = op->aux2 ? (uint8_t)cpu->gpr[RCX] : (uint8_t)op->imm;                      \
        host_store(m.host, bytes, name##bytes(cpu, a, count));                                     \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }
#define SHIFTS(name, insn)                                                                         \
    SHIFT(name, insn, 1) SHIFT(name, insn, 2) SHIFT(name, insn, 4) SHIFT(name, insn, 8)
SHIFTS(shl, "shl")
SHIFTS(shr, "shr")
SHIFTS(sar, "sar")
SHIFTS(rol, "rol")
SHIFTS(ror, "ror")
SHIFTS(rcl, "rcl")
SHIFTS(rcr, "rcr")

#define ROW(name, bytes)                                                                           \
    {                                                                                              \
        name##_rc##bytes, name##_ri##bytes, name##_m##bytes                                        \
    }
#define ROWS(name)                                                                                 \
    {                                                                                              \
        ROW(name, 1), ROW(name, 2), ROW(name, 4), ROW(name, 8)                                     \
    }
static const struct {
    ZydisMnemonic mnemonic;
    op_fn *fn[4][3];
} shift_ops[] = {
    {ZYDIS_MNEMONIC_SHL, ROWS(shl)}, {ZYDIS_MNEMONIC_SHR, ROWS(shr)},
    {ZYDIS_MNEMONIC_SAR, ROWS(sar)}, {ZYDIS_MNEMONIC_ROL, ROWS(rol)},
    {ZYDIS_MNEMONIC_ROR, ROWS(ror)}, {ZYDIS_MNEMONIC_RCL, ROWS(rcl)},
    {ZYDIS_MNEMONIC_RCR, ROWS(rcr)},
};

/* SHLD and SHRD. imm: the count; aux2: it is CL instead. */
#define DOUBLE(name, insn, bytes)                                                                  \
    static inline TYPE##bytes name##bytes(struct vcpu *cpu, TYPE##bytes a, TYPE##bytes b,          \
                                          uint8_t count)                                           \
    {                                                                                              \
        uint32_t ax = ax_from_flags(cpu->cc);                                                      \
        __asm__(LOAD_FLAGS insn " %%cl, %2, %0" CAPTURE_FLAGS                                      \
                : "+r"(a), "+&a"(ax)                                                               \
                : "r"(b), "c"(count)                                                               \
                : "cc");                                                                           \
        cpu->cc = flags_from_ax(ax);                                                               \
        return a;                                                                                  \
    }                                                                                              \
    static void name##_r##bytes(struct vcpu *cpu, const struct op *op)                             \
    {                                                                                              \
        uint8_t count = op->aux2 ? (uint8_t)cpu->gpr[RCX] : (uint8_t)op->imm;                      \
        TYPE##bytes b = (TYPE##bytes)cpu->gpr[op->src];                                            \
        set_dst(cpu, op, bytes, name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes), b, count)); \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_m##bytes(struct vcpu *cpu, const struct op *op)                             \
    {                                                                                              \
        uint8_t count = op->aux2 ? (uint8_t)cpu->gpr[RCX] : (uint8_t)op->imm;                      \
        struct rmw m = mem_rmw(cpu, op, addr_any(cpu, op, bytes, true), bytes, false);             \
        TYPE##bytes a = (TYPE##bytes)host_load(m.host, bytes);                                     \
        host_store(m.host, bytes, name##bytes(cpu, a, (TYPE##bytes)cpu->gpr[op->src], count));     \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }
#define DOUBLES(name, insn) DOUBLE(name, insn, 2) DOUBLE(name, insn, 4) DOUBLE(name, insn, 8)
DOUBLES(shld, "shld")
DOUBLES(shrd, "shrd")

static op_fn *const double_ops[2][3][2] = {
    {{shld_r2, shld_m2}, {shld_r4, shld_m4}, {shld_r8, shld_m8}},
    {{shrd_r2, shrd_m2}, {shrd_r4, shrd_m4}, {shrd_r8, shrd_m8}},
};

/* RORX, SARX, SHLX, SHRX: no flags. aux: which; aux2: register that counts, or REG_NONE (imm). */
enum { X_ROR, X_SAR, X_SHL, X_SHR };

static void shift_x(struct vcpu *cpu, const struct op *op)
{
    uint64_t v = op->flags & OP_REP /* memory */
                     ? interp_load(cpu, op, addr_any(cpu, op, op->size, false), op->size)
                     : cpu->gpr[op->src] & bytes_mask(op->size);
    unsigned bits = op->size * 8;
    unsigned n = (unsigned)(op->aux2 == REG_NONE ? op->imm : cpu->gpr[op->aux2]) & (bits - 1);
    switch (op->aux) {
    case X_ROR:
        v = n ? v >> n | v << (bits - n) : v;
        break;
    case X_SAR:
        v = (uint64_t)((int64_t)(v << (64 - bits)) >> (64 - bits) >> n);
        break;
    case X_SHL:
        v <<= n;
        break;
    default:
        v >>= n;
    }
    cpu->gpr[op->dst] = v & bytes_mask(op->size);
    NEXT(cpu, op);
}

static bool bind_shift_x(struct decode *d, struct op *op, uint8_t kind)
{
    uint8_t shift;
    enum form form = bind_two(d, op);
    op->aux = kind;
    op->flags &= (uint8_t)~OP_REP;
    if (form == FORM_RM)
        op->flags |= OP_REP;
    op->aux2 = REG_NONE;
    if (d->operands[2].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        op->imm = d->operands[2].imm.value.u;
    else if (!bind_reg(d->operands[2].reg.value, &op->aux2, &shift))
        return false;
    op->fn = shift_x;
    return true;
}

static bool bind_double(struct decode *d, struct op *op, unsigned which)
{
    uint8_t shift;
    enum form form = bind_one(d, op);
    if (!bind_reg(d->operands[1].reg.value, &op->src, &shift))
        return false;
    op->aux2 = d->operands[2].type == ZYDIS_OPERAND_TYPE_REGISTER;
    op->imm = op->aux2 ? 0 : d->operands[2].imm.value.u;
    op->fn = double_ops[which][size_log2(op->size) - 1][form == FORM_MR];
    return true;
}

bool bind_shift(struct decode *d, struct op *op)
{
    switch (d->insn->mnemonic) {
    case ZYDIS_MNEMONIC_SHLD:
        return bind_double(d, op, 0);
    case ZYDIS_MNEMONIC_SHRD:
        return bind_double(d, op, 1);
    case ZYDIS_MNEMONIC_RORX:
        return bind_shift_x(d, op, X_ROR);
    case ZYDIS_MNEMONIC_SARX:
        return bind_shift_x(d, op, X_SAR);
    case ZYDIS_MNEMONIC_SHLX:
        return bind_shift_x(d, op, X_SHL);
    case ZYDIS_MNEMONIC_SHRX:
        return bind_shift_x(d, op, X_SHR);
    default:
        break;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(shift_ops); i++) {
        if (shift_ops[i].mnemonic != d->insn->mnemonic)
            continue;
        enum form form = bind_one(d, op);
        bool by_cl = d->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
        op->imm = by_cl ? 0 : d->operands[1].imm.value.u;
        op->aux2 = by_cl;
        op->fn = shift_ops[i].fn[size_log2(op->size)][form == FORM_MR ? 2 : !by_cl];
        return true;
    }
    return false;
}
