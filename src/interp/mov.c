/* MOV (general registers and memory), MOVZX, MOVSX, MOVSXD, LEA, CMOVcc, SETcc, MOVBE, MOVNTI,
 * XLAT. Moves of segment and control registers belong to the system family. */
#include "interp/condition.h"
#include "interp/core.h"

#define MOV_MEMORY(bytes, V)                                                                       \
    static void mov_rm##V##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        set_dst(cpu, op, bytes, mem_load(cpu, op, ADDRESS_##V(cpu, op, bytes, false), bytes));     \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void mov_mr##V##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        mem_store(cpu, op, ADDRESS_##V(cpu, op, bytes, true), bytes, get_src(cpu, op, bytes));     \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void mov_mi##V##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        mem_store(cpu, op, ADDRESS_##V(cpu, op, bytes, true), bytes, op->imm);                     \
        NEXT(cpu, op);                                                                             \
    }
#define MOV(bytes)                                                                                 \
    static void mov_rr##bytes(struct vcpu *cpu, const struct op *op)                               \
    {                                                                                              \
        set_dst(cpu, op, bytes, get_src(cpu, op, bytes));                                          \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void mov_ri##bytes(struct vcpu *cpu, const struct op *op)                               \
    {                                                                                              \
        set_dst(cpu, op, bytes, op->imm);                                                          \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    MOV_MEMORY(bytes, F)                                                                           \
    MOV_MEMORY(bytes, A)
MOV(1)
MOV(2)
MOV(4)
MOV(8)

#define MOV_ROW(bytes)                                                                             \
    {                                                                                              \
        mov_rr##bytes, mov_ri##bytes, mov_rmF##bytes, mov_rmA##bytes, mov_mrF##bytes,              \
            mov_mrA##bytes, mov_miF##bytes, mov_miA##bytes                                         \
    }
static op_fn *const mov_ops[4][8] = {MOV_ROW(1), MOV_ROW(2), MOV_ROW(4), MOV_ROW(8)};

/* Extensions: from 1, 2 or 4 bytes to 2, 4 or 8. */
#define SIGNED1 int8_t
#define SIGNED2 int16_t
#define SIGNED4 int32_t
#define EXTEND(name, from, to, T)                                                                  \
    static void name##_rr_##from##_##to(struct vcpu *cpu, const struct op *op)                     \
    {                                                                                              \
        set_dst(cpu, op, to, (uint64_t)(int64_t)(T)get_src(cpu, op, from));                        \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_rmF_##from##_##to(struct vcpu *cpu, const struct op *op)                    \
    {                                                                                              \
        set_dst(cpu, op, to, (uint64_t)(int64_t)(T)mem_load(cpu, op, addr_flat(cpu, op), from));   \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_rmA_##from##_##to(struct vcpu *cpu, const struct op *op)                    \
    {                                                                                              \
        uint64_t linear = addr_any(cpu, op, from, false);                                          \
        set_dst(cpu, op, to, (uint64_t)(int64_t)(T)mem_load(cpu, op, linear, from));               \
        NEXT(cpu, op);                                                                             \
    }
#define EXTENDS(name, P)                                                                           \
    EXTEND(name, 1, 2, P##1)                                                                       \
    EXTEND(name, 1, 4, P##1)                                                                       \
    EXTEND(name, 1, 8, P##1)                                                                       \
    EXTEND(name, 2, 2, P##2)                                                                       \
    EXTEND(name, 2, 4, P##2)                                                                       \
    EXTEND(name, 2, 8, P##2)                                                                       \
    EXTEND(name, 4, 2, P##4) EXTEND(name, 4, 4, P##4) EXTEND(name, 4, 8, P##4)
EXTENDS(movzx, TYPE)
EXTENDS(movsx, SIGNED)

#define EXTEND_ROW(name, from, to)                                                                 \
    {                                                                                              \
        name##_rr_##from##_##to, name##_rmF_##from##_##to, name##_rmA_##from##_##to                \
    }
#define EXTEND_TABLE(name)                                                                         \
    {                                                                                              \
        {EXTEND_ROW(name, 1, 2), EXTEND_ROW(name, 1, 4), EXTEND_ROW(name, 1, 8)},                  \
            {EXTEND_ROW(name, 2, 2), EXTEND_ROW(name, 2, 4), EXTEND_ROW(name, 2, 8)},              \
        {                                                                                          \
            EXTEND_ROW(name, 4, 2), EXTEND_ROW(name, 4, 4), EXTEND_ROW(name, 4, 8)                 \
        }                                                                                          \
    }
static op_fn *const extend_ops[2][3][3][3] = {EXTEND_TABLE(movzx), EXTEND_TABLE(movsx)};

static void lea_fast8(struct vcpu *cpu, const struct op *op)
{
    cpu->gpr[op->dst] = addr_flat(cpu, op);
    NEXT(cpu, op);
}

static void lea_fast4(struct vcpu *cpu, const struct op *op)
{
    cpu->gpr[op->dst] = (uint32_t)addr_flat(cpu, op);
    NEXT(cpu, op);
}

static void lea_any(struct vcpu *cpu, const struct op *op)
{
    uint64_t offset = addr_offset(cpu, op);
    switch (op->size) {
    case 2:
        set_dst(cpu, op, 2, offset);
        break;
    case 4:
        set_dst(cpu, op, 4, offset);
        break;
    default:
        set_dst(cpu, op, 8, offset);
    }
    NEXT(cpu, op);
}

/* CMOVcc: the condition is a parameter of the function. A memory source is read in any case, and a
 * 32-bit destination is zero-extended even where nothing is moved. */
#define CMOV(n)                                                                                    \
    static void cmov_rr4_##n(struct vcpu *cpu, const struct op *op)                                \
    {                                                                                              \
        uint64_t *d = &cpu->gpr[op->dst];                                                          \
        *d = (uint32_t)(condition(cpu->cc, n) ? cpu->gpr[op->src] : *d);                           \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void cmov_rr8_##n(struct vcpu *cpu, const struct op *op)                                \
    {                                                                                              \
        uint64_t *d = &cpu->gpr[op->dst];                                                          \
        *d = condition(cpu->cc, n) ? cpu->gpr[op->src] : *d;                                       \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void set_r_##n(struct vcpu *cpu, const struct op *op)                                   \
    {                                                                                              \
        set_dst(cpu, op, 1, condition(cpu->cc, n));                                                \
        NEXT(cpu, op);                                                                             \
    }
FOR_CONDITIONS(CMOV)

#define CMOV_ROW(n) {cmov_rr4_##n, cmov_rr8_##n, set_r_##n},
static op_fn *const cmov_ops[16][3] = {FOR_CONDITIONS(CMOV_ROW)};

static void cmov_any(struct vcpu *cpu, const struct op *op)
{
    uint64_t value = op->flags & OP_REP /* memory */
                         ? interp_load(cpu, op, addr_any(cpu, op, op->size, false), op->size)
                         : cpu->gpr[op->src];
    if (!condition(cpu->cc, op->aux2))
        value = cpu->gpr[op->dst];
    if (op->size == 2)
        set_dst(cpu, op, 2, value);
    else if (op->size == 4)
        set_dst(cpu, op, 4, value);
    else
        set_dst(cpu, op, 8, value);
    NEXT(cpu, op);
}

static void set_m(struct vcpu *cpu, const struct op *op)
{
    mem_store(cpu, op, addr_any(cpu, op, 1, true), 1, condition(cpu->cc, op->aux2));
    NEXT(cpu, op);
}

static uint64_t swap_bytes(uint64_t v, unsigned size)
{
    return __builtin_bswap64(v) >> (64 - 8 * size);
}

static void movbe_load(struct vcpu *cpu, const struct op *op)
{
    uint64_t v = interp_load(cpu, op, addr_any(cpu, op, op->size, false), op->size);
    v = swap_bytes(v, op->size);
    if (op->size == 2)
        set_dst(cpu, op, 2, v);
    else
        cpu->gpr[op->dst] = v;
    NEXT(cpu, op);
}

static void movbe_store(struct vcpu *cpu, const struct op *op)
{
    uint64_t v = swap_bytes(cpu->gpr[op->src] & bytes_mask(op->size), op->size);
    interp_store(cpu, op, addr_any(cpu, op, op->size, true), op->size, v);
    NEXT(cpu, op);
}

static void xlat(struct vcpu *cpu, const struct op *op)
{
    uint64_t offset = (cpu->gpr[RBX] + (uint8_t)cpu->gpr[RAX]) & bytes_mask(op->addr_size);
    uint64_t linear = interp_linear(cpu, op, op->seg, offset, 1, false);
    reg_set(cpu, RAX, 0, 1, mem_load(cpu, op, linear, 1));
    NEXT(cpu, op);
}

static bool bind_mov_plain(struct decode *d, struct op *op)
{
    enum form form = bind_two(d, op);
    if (form == FORM_OTHER)
        return false;
    unsigned column = form == FORM_RR   ? 0
                      : form == FORM_RI ? 1
                                        : 2 * (unsigned)(form - FORM_RM) + 2 + !is_fast(d, op);
    op->fn = mov_ops[size_log2(op->size)][column];
    return true;
}

static bool bind_extend(struct decode *d, struct op *op, bool sign)
{
    enum form form = bind_two(d, op);
    if (form != FORM_RR && form != FORM_RM)
        return false;
    unsigned from = size_log2(d->operands[1].size / 8), to = size_log2(op->size) - 1;
    op->fn = extend_ops[sign][from][to][form == FORM_RR ? 0 : 1 + !is_fast(d, op)];
    return true;
}

static bool bind_cmov(struct decode *d, struct op *op, unsigned n)
{
    enum form form = bind_two(d, op);
    if (form == FORM_RR && op->size >= 4) {
        op->fn = cmov_ops[n][op->size == 8];
        return true;
    }
    op->flags &= (uint8_t)~OP_REP;
    if (form == FORM_RM)
        op->flags |= OP_REP;
    op->aux2 = (uint8_t)n;
    op->fn = cmov_any;
    return form == FORM_RR || form == FORM_RM;
}

bool bind_mov(struct decode *d, struct op *op)
{
    switch (d->insn->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        return bind_mov_plain(d, op);
    case ZYDIS_MNEMONIC_MOVNTI:
        return bind_mov_plain(d, op);
    case ZYDIS_MNEMONIC_MOVZX:
        return bind_extend(d, op, false);
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
        return bind_extend(d, op, true);
    case ZYDIS_MNEMONIC_LEA:
        bind_one(d, op);
        op->fn = op->addr_size == 8 && op->size == 8   ? lea_fast8
                 : op->addr_size >= 4 && op->size == 4 ? lea_fast4
                                                       : lea_any;
        return true;
    case ZYDIS_MNEMONIC_MOVBE:
        op->fn = bind_two(d, op) == FORM_RM ? movbe_load : movbe_store;
        return true;
    case ZYDIS_MNEMONIC_XLAT:
        op->fn = xlat;
        return true;
    default:
        break;
    }
    int n = condition_of_cmov(d->insn->mnemonic);
    if (n >= 0)
        return bind_cmov(d, op, (unsigned)n);
    n = condition_of_set(d->insn->mnemonic);
    if (n >= 0) {
        if (bind_one(d, op) == FORM_RR) {
            op->fn = cmov_ops[n][2];
        } else {
            op->aux2 = (uint8_t)n;
            op->fn = set_m;
        }
        return true;
    }
    return false;
}
