/*
 * ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT.
 *
 * The host's own instruction computes result and flags, so undefined flags are what this processor
 * makes of them. Each instruction has a function for each size and operand form.
 */
#include "interp/core.h"

#define PLAIN(name, insn, bytes)                                                                   \
    static inline __attribute__((always_inline))                                                   \
    TYPE##bytes name##bytes(struct vcpu *cpu, TYPE##bytes a, TYPE##bytes b)                        \
    {                                                                                              \
        uint32_t ax;                                                                               \
        __asm__(insn " %2, %0" CAPTURE_FLAGS : "+q"(a), "=&a"(ax) : "q"(b) : "cc");                \
        cpu->cc = flags_from_ax(ax);                                                               \
        return a;                                                                                  \
    }
#define CARRY(name, insn, bytes)                                                                   \
    static inline __attribute__((always_inline))                                                   \
    TYPE##bytes name##bytes(struct vcpu *cpu, TYPE##bytes a, TYPE##bytes b)                        \
    {                                                                                              \
        uint32_t ax;                                                                               \
        __asm__("bt $0, %3\n\t" insn " %2, %0" CAPTURE_FLAGS                                       \
                : "+q"(a), "=&a"(ax)                                                               \
                : "q"(b), "r"(cpu->cc)                                                             \
                : "cc");                                                                           \
        cpu->cc = flags_from_ax(ax);                                                               \
        return a;                                                                                  \
    }
#define KEEP_CARRY(name, insn, bytes)                                                              \
    static inline __attribute__((always_inline))                                                   \
    TYPE##bytes name##bytes(struct vcpu *cpu, TYPE##bytes a)                                       \
    {                                                                                              \
        uint32_t ax;                                                                               \
        __asm__("bt $0, %2\n\t" insn " %0" CAPTURE_FLAGS                                           \
                : "+q"(a), "=&a"(ax)                                                               \
                : "r"(cpu->cc)                                                                     \
                : "cc");                                                                           \
        cpu->cc = flags_from_ax(ax);                                                               \
        return a;                                                                                  \
    }
#define UNARY(name, insn, bytes)                                                                   \
    static inline __attribute__((always_inline))                                                   \
    TYPE##bytes name##bytes(struct vcpu *cpu, TYPE##bytes a)                                       \
    {                                                                                              \
        uint32_t ax;                                                                               \
        __asm__(insn " %0" CAPTURE_FLAGS : "+q"(a), "=&a"(ax) : : "cc");                           \
        cpu->cc = flags_from_ax(ax);                                                               \
        return a;                                                                                  \
    }
#define INVERT(name, insn, bytes)                                                                  \
    static inline TYPE##bytes name##bytes(struct vcpu *cpu, TYPE##bytes a)                         \
    {                                                                                              \
        return (TYPE##bytes) ~a;                                                                   \
    }

/* Functions that write their result back, by form. */
#define WRITING_MEMORY(name, bytes, V)                                                             \
    static void name##_rm##V##bytes(struct vcpu *cpu, const struct op *op)                         \
    {                                                                                              \
        TYPE##bytes b = (TYPE##bytes)mem_load(cpu, op, ADDRESS_##V(cpu, op, bytes, false), bytes); \
        set_dst(cpu, op, bytes, name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes), b));        \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_mr##V##bytes(struct vcpu *cpu, const struct op *op)                         \
    {                                                                                              \
        struct rmw m = mem_rmw(cpu, op, ADDRESS_##V(cpu, op, bytes, true), bytes, false);          \
        TYPE##bytes a = (TYPE##bytes)host_load(m.host, bytes);                                     \
        host_store(m.host, bytes, name##bytes(cpu, a, (TYPE##bytes)get_src(cpu, op, bytes)));      \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_mi##V##bytes(struct vcpu *cpu, const struct op *op)                         \
    {                                                                                              \
        struct rmw m = mem_rmw(cpu, op, ADDRESS_##V(cpu, op, bytes, true), bytes, false);          \
        TYPE##bytes a = (TYPE##bytes)host_load(m.host, bytes);                                     \
        host_store(m.host, bytes, name##bytes(cpu, a, (TYPE##bytes)op->imm));                      \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }
#define WRITING(name, bytes)                                                                       \
    static void name##_rr##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        set_dst(cpu, op, bytes,                                                                    \
                name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes),                             \
                            (TYPE##bytes)get_src(cpu, op, bytes)));                                \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_ri##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        set_dst(cpu, op, bytes,                                                                    \
                name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes), (TYPE##bytes)op->imm));     \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    WRITING_MEMORY(name, bytes, F)                                                                 \
    WRITING_MEMORY(name, bytes, A)

/* Functions of CMP and TEST. */
#define TESTING_MEMORY(name, bytes, V)                                                             \
    static void name##_rm##V##bytes(struct vcpu *cpu, const struct op *op)                         \
    {                                                                                              \
        TYPE##bytes b = (TYPE##bytes)mem_load(cpu, op, ADDRESS_##V(cpu, op, bytes, false), bytes); \
        name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes), b);                                 \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_mr##V##bytes(struct vcpu *cpu, const struct op *op)                         \
    {                                                                                              \
        TYPE##bytes a = (TYPE##bytes)mem_load(cpu, op, ADDRESS_##V(cpu, op, bytes, false), bytes); \
        name##bytes(cpu, a, (TYPE##bytes)get_src(cpu, op, bytes));                                 \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_mi##V##bytes(struct vcpu *cpu, const struct op *op)                         \
    {                                                                                              \
        TYPE##bytes a = (TYPE##bytes)mem_load(cpu, op, ADDRESS_##V(cpu, op, bytes, false), bytes); \
        name##bytes(cpu, a, (TYPE##bytes)op->imm);                                                 \
        NEXT(cpu, op);                                                                             \
    }
#define TESTING(name, bytes)                                                                       \
    static void name##_rr##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes),                                     \
                    (TYPE##bytes)get_src(cpu, op, bytes));                                         \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void name##_ri##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes), (TYPE##bytes)op->imm);              \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    TESTING_MEMORY(name, bytes, F)                                                                 \
    TESTING_MEMORY(name, bytes, A)

#define SINGLE_MEMORY(name, bytes, V)                                                              \
    static void name##_m##V##bytes(struct vcpu *cpu, const struct op *op)                          \
    {                                                                                              \
        struct rmw m = mem_rmw(cpu, op, ADDRESS_##V(cpu, op, bytes, true), bytes, false);          \
        TYPE##bytes a = (TYPE##bytes)host_load(m.host, bytes);                                     \
        host_store(m.host, bytes, name##bytes(cpu, a));                                            \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }
#define SINGLE(name, bytes)                                                                        \
    static void name##_r##bytes(struct vcpu *cpu, const struct op *op)                             \
    {                                                                                              \
        set_dst(cpu, op, bytes, name##bytes(cpu, (TYPE##bytes)get_dst(cpu, op, bytes)));           \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    SINGLE_MEMORY(name, bytes, F)                                                                  \
    SINGLE_MEMORY(name, bytes, A)

#define ALL_SIZES(core, ops, name, insn)                                                           \
    core(name, insn, 1) core(name, insn, 2) core(name, insn, 4) core(name, insn, 8) ops(name, 1)   \
        ops(name, 2) ops(name, 4) ops(name, 8)

ALL_SIZES(PLAIN, WRITING, add, "add")
ALL_SIZES(PLAIN, WRITING, or, "or")
ALL_SIZES(CARRY, WRITING, adc, "adc")
ALL_SIZES(CARRY, WRITING, sbb, "sbb")
ALL_SIZES(PLAIN, WRITING, and, "and")
ALL_SIZES(PLAIN, WRITING, sub, "sub")
ALL_SIZES(PLAIN, WRITING, xor, "xor")
ALL_SIZES(PLAIN, TESTING, cmp, "cmp")
ALL_SIZES(PLAIN, TESTING, test, "test")
ALL_SIZES(KEEP_CARRY, SINGLE, inc, "inc")
ALL_SIZES(KEEP_CARRY, SINGLE, dec, "dec")
ALL_SIZES(UNARY, SINGLE, neg, "neg")
ALL_SIZES(INVERT, SINGLE, not, "not")

#define ROW2(name, bytes)                                                                          \
    {                                                                                              \
        name##_rr##bytes, name##_ri##bytes, name##_rmF##bytes, name##_rmA##bytes,                  \
            name##_mrF##bytes, name##_mrA##bytes, name##_miF##bytes, name##_miA##bytes             \
    }
#define ROW1(name, bytes)                                                                          \
    {                                                                                              \
        name##_r##bytes, name##_mF##bytes, name##_mA##bytes                                        \
    }
#define SIZES(row, name)                                                                           \
    {                                                                                              \
        row(name, 1), row(name, 2), row(name, 4), row(name, 8)                                     \
    }

static const struct {
    ZydisMnemonic mnemonic;
    op_fn *fn[4][8]; /* by size; rr, ri, then rm, mr, mi: each fast and any */
} binary_ops[] = {
    {ZYDIS_MNEMONIC_ADD, SIZES(ROW2, add)},   {ZYDIS_MNEMONIC_OR, SIZES(ROW2, or)},
    {ZYDIS_MNEMONIC_ADC, SIZES(ROW2, adc)},   {ZYDIS_MNEMONIC_SBB, SIZES(ROW2, sbb)},
    {ZYDIS_MNEMONIC_AND, SIZES(ROW2, and)},   {ZYDIS_MNEMONIC_SUB, SIZES(ROW2, sub)},
    {ZYDIS_MNEMONIC_XOR, SIZES(ROW2, xor)},   {ZYDIS_MNEMONIC_CMP, SIZES(ROW2, cmp)},
    {ZYDIS_MNEMONIC_TEST, SIZES(ROW2, test)},
};

static const struct {
    ZydisMnemonic mnemonic;
    op_fn *fn[4][3];
} unary_ops[] = {
    {ZYDIS_MNEMONIC_INC, SIZES(ROW1, inc)},
    {ZYDIS_MNEMONIC_DEC, SIZES(ROW1, dec)},
    {ZYDIS_MNEMONIC_NEG, SIZES(ROW1, neg)},
    {ZYDIS_MNEMONIC_NOT, SIZES(ROW1, not )},
};

bool bind_alu(struct decode *d, struct op *op)
{
    ZydisMnemonic mnemonic = d->insn->mnemonic;
    if (bind_has_lock(d))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(binary_ops); i++) {
        if (binary_ops[i].mnemonic != mnemonic)
            continue;
        enum form form = bind_two(d, op);
        if (form == FORM_OTHER)
            return false;
        unsigned column = form == FORM_RR   ? 0
                          : form == FORM_RI ? 1
                                            : 2 * (unsigned)(form - FORM_RM) + 2 + !is_fast(d, op);
        op->fn = binary_ops[i].fn[size_log2(op->size)][column];
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(unary_ops); i++) {
        if (unary_ops[i].mnemonic != mnemonic)
            continue;
        enum form form = bind_one(d, op);
        if (form == FORM_OTHER)
            return false;
        op->fn = unary_ops[i].fn[size_log2(op->size)][form == FORM_RR ? 0 : 1 + !is_fast(d, op)];
        return true;
    }
    return false;
}
