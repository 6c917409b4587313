/*
 * LOCK forms, XCHG, XADD, CMPXCHG, CMPXCHG8B and 16B.
 *
 * On RAM the host's own locked instruction runs on guest memory, so vCPUs on other threads see what
 * they would see of a processor. What crosses a page or is not RAM works on a copy, under a lock of
 * the whole process (mem_rmw with `locked`).
 */
#include "interp/core.h"

#define LOCKED(name, insn, bytes)                                                                  \
    static void name##bytes(struct vcpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        struct rmw m = mem_rmw(cpu, op, addr_any(cpu, op, bytes, true), bytes, true);              \
        TYPE##bytes b = (TYPE##bytes)(op->src == REG_NONE ? op->imm : get_src(cpu, op, bytes));    \
        uint32_t ax = ax_from_flags(cpu->cc);                                                      \
        __asm__ volatile(LOAD_FLAGS "lock " insn " %2, %0" CAPTURE_FLAGS                           \
                         : "+m"(*(TYPE##bytes *)m.host), "+&a"(ax)                                 \
                         : "q"(b)                                                                  \
                         : "cc", "memory");                                                        \
        cpu->cc = flags_from_ax(ax);                                                               \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }
#define LOCKED_UNARY(name, insn, bytes, sfx)                                                       \
    static void name##bytes(struct vcpu *cpu, const struct op *op)                                 \
    {                                                                                              \
        struct rmw m = mem_rmw(cpu, op, addr_any(cpu, op, bytes, true), bytes, true);              \
        uint32_t ax = ax_from_flags(cpu->cc);                                                      \
        __asm__ volatile(LOAD_FLAGS "lock " insn sfx " %0" CAPTURE_FLAGS                           \
                         : "+m"(*(TYPE##bytes *)m.host), "+&a"(ax)                                 \
                         :                                                                         \
                         : "cc", "memory");                                                        \
        cpu->cc = flags_from_ax(ax);                                                               \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }
#define LOCKEDS(name, insn)                                                                        \
    LOCKED(name, insn, 1) LOCKED(name, insn, 2) LOCKED(name, insn, 4) LOCKED(name, insn, 8)
#define LOCKED_UNARIES(name, insn)                                                                 \
    LOCKED_UNARY(name, insn, 1, "b")                                                               \
    LOCKED_UNARY(name, insn, 2, "w")                                                               \
    LOCKED_UNARY(name, insn, 4, "l") LOCKED_UNARY(name, insn, 8, "q")
LOCKEDS(lock_add, "add")
LOCKEDS(lock_or, "or")
LOCKEDS(lock_adc, "adc")
LOCKEDS(lock_sbb, "sbb")
LOCKEDS(lock_and, "and")
LOCKEDS(lock_sub, "sub")
LOCKEDS(lock_xor, "xor")
LOCKED_UNARIES(lock_inc, "inc")
LOCKED_UNARIES(lock_dec, "dec")
LOCKED_UNARIES(lock_neg, "neg")
LOCKED_UNARIES(lock_not, "not")

#define SIZES(name)                                                                                \
    {                                                                                              \
        name##1, name##2, name##4, name##8                                                         \
    }
static const struct {
    ZydisMnemonic mnemonic;
    op_fn *fn[4];
} locked_ops[] = {
    {ZYDIS_MNEMONIC_ADD, SIZES(lock_add)}, {ZYDIS_MNEMONIC_OR, SIZES(lock_or)},
    {ZYDIS_MNEMONIC_ADC, SIZES(lock_adc)}, {ZYDIS_MNEMONIC_SBB, SIZES(lock_sbb)},
    {ZYDIS_MNEMONIC_AND, SIZES(lock_and)}, {ZYDIS_MNEMONIC_SUB, SIZES(lock_sub)},
    {ZYDIS_MNEMONIC_XOR, SIZES(lock_xor)}, {ZYDIS_MNEMONIC_INC, SIZES(lock_inc)},
    {ZYDIS_MNEMONIC_DEC, SIZES(lock_dec)}, {ZYDIS_MNEMONIC_NEG, SIZES(lock_neg)},
    {ZYDIS_MNEMONIC_NOT, SIZES(lock_not)},
};

/* XCHG, XADD and CMPXCHG in registers (r) and memory (m: locked or not, the host locks). */
#define EXCHANGES(bytes)                                                                           \
    static void xchg_r##bytes(struct vcpu *cpu, const struct op *op)                               \
    {                                                                                              \
        uint64_t a = get_dst(cpu, op, bytes), b = get_src(cpu, op, bytes);                         \
        set_dst(cpu, op, bytes, b);                                                                \
        set_src(cpu, op, bytes, a);                                                                \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void xchg_m##bytes(struct vcpu *cpu, const struct op *op)                               \
    {                                                                                              \
        struct rmw m = mem_rmw(cpu, op, addr_any(cpu, op, bytes, true), bytes, true);              \
        TYPE##bytes b = (TYPE##bytes)get_src(cpu, op, bytes);                                      \
        __asm__ volatile("xchg %1, %0" : "+m"(*(TYPE##bytes *)m.host), "+q"(b) : : "memory");      \
        set_src(cpu, op, bytes, b);                                                                \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void xadd_r##bytes(struct vcpu *cpu, const struct op *op)                               \
    {                                                                                              \
        TYPE##bytes a = (TYPE##bytes)get_dst(cpu, op, bytes);                                      \
        TYPE##bytes b = (TYPE##bytes)get_src(cpu, op, bytes);                                      \
        uint32_t ax;                                                                               \
        __asm__("xadd %2, %0" CAPTURE_FLAGS : "+q"(a), "=&a"(ax), "+q"(b) : : "cc");               \
        cpu->cc = flags_from_ax(ax);                                                               \
        set_src(cpu, op, bytes, b);                                                                \
        set_dst(cpu, op, bytes, a);                                                                \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void xadd_m##bytes(struct vcpu *cpu, const struct op *op)                               \
    {                                                                                              \
        struct rmw m = mem_rmw(cpu, op, addr_any(cpu, op, bytes, true), bytes, true);              \
        TYPE##bytes b = (TYPE##bytes)get_src(cpu, op, bytes);                                      \
        uint32_t ax;                                                                               \
        __asm__ volatile("lock xadd %2, %0" CAPTURE_FLAGS                                          \
                         : "+m"(*(TYPE##bytes *)m.host), "=&a"(ax), "+q"(b)                        \
                         :                                                                         \
                         : "cc", "memory");                                                        \
        cpu->cc = flags_from_ax(ax);                                                               \
        set_src(cpu, op, bytes, b);                                                                \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    /* The accumulator is written only where the comparison fails, the destination only where it   \
     * succeeds: so a 32-bit one may keep its upper half. */                                       \
    static void cmpxchg_r##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        TYPE##bytes a = (TYPE##bytes)get_dst(cpu, op, bytes);                                      \
        TYPE##bytes b = (TYPE##bytes)get_src(cpu, op, bytes);                                      \
        TYPE##bytes acc = (TYPE##bytes)cpu->gpr[RAX];                                              \
        bool same = acc == a;                                                                      \
        uint32_t ax;                                                                               \
        __asm__("cmp %2, %1" CAPTURE_FLAGS : "=&a"(ax) : "q"(acc), "q"(a) : "cc");                 \
        cpu->cc = flags_from_ax(ax);                                                               \
        if (same) {                                                                                \
            set_dst(cpu, op, bytes, b);                                                            \
        } else {                                                                                   \
            reg_set(cpu, RAX, 0, bytes, a);                                                        \
        }                                                                                          \
        NEXT(cpu, op);                                                                             \
    }                                                                                              \
    static void cmpxchg_m##bytes(struct vcpu *cpu, const struct op *op)                            \
    {                                                                                              \
        struct rmw m = mem_rmw(cpu, op, addr_any(cpu, op, bytes, true), bytes, true);              \
        TYPE##bytes acc = (TYPE##bytes)cpu->gpr[RAX], old = acc;                                   \
        TYPE##bytes b = (TYPE##bytes)get_src(cpu, op, bytes);                                      \
        uint32_t ax;                                                                               \
        __asm__ volatile("lock cmpxchg %2, %0"                                                     \
                         : "+m"(*(TYPE##bytes *)m.host), "+a"(old)                                 \
                         : "q"(b)                                                                  \
                         : "cc", "memory");                                                        \
        __asm__("cmp %2, %1" CAPTURE_FLAGS : "=&a"(ax) : "q"(acc), "q"(old) : "cc");               \
        cpu->cc = flags_from_ax(ax);                                                               \
        if (old != acc)                                                                            \
            reg_set(cpu, RAX, 0, bytes, old);                                                      \
        mem_rmw_done(cpu, op, m, bytes);                                                           \
        NEXT(cpu, op);                                                                             \
    }
EXCHANGES(1)
EXCHANGES(2)
EXCHANGES(4)
EXCHANGES(8)

#define EXCHANGE_ROW(name)                                                                         \
    {                                                                                              \
        SIZES(name##_r), SIZES(name##_m)                                                           \
    }
static const struct {
    ZydisMnemonic mnemonic;
    op_fn *fn[2][4]; /* register, memory */
} exchange_ops[] = {
    {ZYDIS_MNEMONIC_XCHG, EXCHANGE_ROW(xchg)},
    {ZYDIS_MNEMONIC_XADD, EXCHANGE_ROW(xadd)},
    {ZYDIS_MNEMONIC_CMPXCHG, EXCHANGE_ROW(cmpxchg)},
};

op_fn *atomic_xchg_register(unsigned size)
{
    return exchange_ops[0].fn[0][size_log2(size)];
}

static void set_zf(struct vcpu *cpu, bool zf)
{
    cpu->cc = zf ? cpu->cc | FLAG_ZF : cpu->cc & ~FLAG_ZF;
}

static void cmpxchg8b(struct vcpu *cpu, const struct op *op)
{
    struct rmw m = mem_rmw(cpu, op, addr_any(cpu, op, 8, true), 8, true);
    uint64_t expected = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32, old = expected;
    uint64_t new = (uint32_t)cpu->gpr[RBX] | cpu->gpr[RCX] << 32;
    __asm__ volatile("lock cmpxchg %2, %0"
                     : "+m"(*(uint64_t *)m.host), "+a"(old)
                     : "r"(new)
                     : "cc", "memory");
    set_zf(cpu, old == expected);
    if (old != expected) {
        cpu->gpr[RAX] = (uint32_t)old;
        cpu->gpr[RDX] = old >> 32;
    }
    mem_rmw_done(cpu, op, m, 8);
    NEXT(cpu, op);
}

static void cmpxchg16b(struct vcpu *cpu, const struct op *op)
{
    uint64_t linear = addr_any(cpu, op, 16, true);
    if (linear & 15)
        interp_raise_error(cpu, op, VEC_GP, 0);
    struct rmw m = mem_rmw(cpu, op, linear, 16, true);
    uint64_t lo = cpu->gpr[RAX], hi = cpu->gpr[RDX];
    bool same;
    __asm__ volatile("lock cmpxchg16b %0"
                     : "+m"(*(unsigned __int128 *)m.host), "+a"(lo), "+d"(hi), "=@ccz"(same)
                     : "b"(cpu->gpr[RBX]), "c"(cpu->gpr[RCX])
                     : "memory");
    set_zf(cpu, same);
    if (!same) {
        cpu->gpr[RAX] = lo;
        cpu->gpr[RDX] = hi;
    }
    mem_rmw_done(cpu, op, m, 16);
    NEXT(cpu, op);
}

bool bind_atomic(struct decode *d, struct op *op)
{
    ZydisMnemonic mnemonic = d->insn->mnemonic;
    if (mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B || mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B) {
        op->fn = mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B ? cmpxchg8b : cmpxchg16b;
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(exchange_ops); i++) {
        if (exchange_ops[i].mnemonic != mnemonic)
            continue;
        enum form form = bind_two(d, op);
        if (form == FORM_RM) { /* XCHG r, m: the same as XCHG m, r */
            op->src = op->dst;
            op->aux2 = op->aux;
            form = FORM_MR;
        }
        op->fn = exchange_ops[i].fn[form == FORM_MR][size_log2(op->size)];
        return form == FORM_RR || form == FORM_MR;
    }
    if (!bind_has_lock(d))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(locked_ops); i++) {
        if (locked_ops[i].mnemonic != mnemonic)
            continue;
        if (d->insn->operand_count_visible >= 2) {
            if (bind_two(d, op) == FORM_MI)
                op->src = REG_NONE;
        } else {
            bind_one(d, op);
        }
        op->fn = locked_ops[i].fn[size_log2(op->size)];
        return true;
    }
    return false;
}
