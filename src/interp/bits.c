/* BT BTS BTR BTC, BSF BSR, POPCNT LZCNT TZCNT, BMI1, BMI2's bit instructions, ADCX ADOX, CRC32. */
#include "interp/core.h"

#define FROM_MEMORY OP_REP /* op->flags: the source is memory */

static uint64_t source(struct vcpu *cpu, const struct op *op)
{
    if (op->flags & FROM_MEMORY)
        return interp_load(cpu, op, addr_any(cpu, op, op->size, false), op->size);
    return cpu->gpr[op->src] & bytes_mask(op->size);
}

static void put(struct vcpu *cpu, const struct op *op, uint64_t value)
{
    if (op->size == 2)
        reg_set(cpu, op->dst, 0, 2, value);
    else
        cpu->gpr[op->dst] = op->size == 4 ? (uint32_t)value : value;
}

/*
 * Templates over the host's instruction: `a` is the full destination register, so that a host that
 * leaves it or its upper half alone does the same for the guest.
 */
#define NATIVE2(name, insn)                                                                        \
    static void name(struct vcpu *cpu, const struct op *op)                                        \
    {                                                                                              \
        uint64_t b = source(cpu, op), a = cpu->gpr[op->dst];                                       \
        uint32_t ax = ax_from_flags(cpu->cc);                                                      \
        switch (op->size) {                                                                        \
        case 2:                                                                                    \
            __asm__(LOAD_FLAGS insn " %w2, %w0" CAPTURE_FLAGS                                      \
                    : "+r"(a), "+&a"(ax)                                                           \
                    : "r"(b)                                                                       \
                    : "cc");                                                                       \
            break;                                                                                 \
        case 4:                                                                                    \
            __asm__(LOAD_FLAGS insn " %k2, %k0" CAPTURE_FLAGS                                      \
                    : "+r"(a), "+&a"(ax)                                                           \
                    : "r"(b)                                                                       \
                    : "cc");                                                                       \
            break;                                                                                 \
        default:                                                                                   \
            __asm__(LOAD_FLAGS insn " %q2, %q0" CAPTURE_FLAGS                                      \
                    : "+r"(a), "+&a"(ax)                                                           \
                    : "r"(b)                                                                       \
                    : "cc");                                                                       \
        }                                                                                          \
        cpu->cc = flags_from_ax(ax);                                                               \
        cpu->gpr[op->dst] = a;                                                                     \
        NEXT(cpu, op);                                                                             \
    }
NATIVE2(bsf, "bsf")
NATIVE2(bsr, "bsr")
NATIVE2(popcnt, "popcnt")
NATIVE2(lzcnt, "lzcnt")
NATIVE2(tzcnt, "tzcnt")

/* The VEX-encoded ones have 32- and 64-bit forms; `a` is unused as an input. */
#define VEX_UNARY(name, insn)                                                                      \
    static void name(struct vcpu *cpu, const struct op *op)                                        \
    {                                                                                              \
        uint64_t b = source(cpu, op), a;                                                           \
        uint32_t ax = ax_from_flags(cpu->cc);                                                      \
        if (op->size == 4)                                                                         \
            __asm__(LOAD_FLAGS insn " %k2, %k0" CAPTURE_FLAGS                                      \
                    : "=r"(a), "+&a"(ax)                                                           \
                    : "r"(b)                                                                       \
                    : "cc");                                                                       \
        else                                                                                       \
            __asm__(LOAD_FLAGS insn " %q2, %q0" CAPTURE_FLAGS                                      \
                    : "=r"(a), "+&a"(ax)                                                           \
                    : "r"(b)                                                                       \
                    : "cc");                                                                       \
        cpu->cc = flags_from_ax(ax);                                                               \
        cpu->gpr[op->dst] = a;                                                                     \
        NEXT(cpu, op);                                                                             \
    }
VEX_UNARY(blsi, "blsi")
VEX_UNARY(blsr, "blsr")
VEX_UNARY(blsmsk, "blsmsk")

/* Three operands in AT&T order; op->aux is the one that must be a register. */
#define VEX_BINARY(name, insn, first, second)                                                      \
    static void name(struct vcpu *cpu, const struct op *op)                                        \
    {                                                                                              \
        uint64_t rm = source(cpu, op), reg = cpu->gpr[op->aux], a;                                 \
        uint32_t ax = ax_from_flags(cpu->cc);                                                      \
        if (op->size == 4)                                                                         \
            __asm__(LOAD_FLAGS insn " %k[" first "], %k[" second "], %k0" CAPTURE_FLAGS            \
                    : "=r"(a), "+&a"(ax)                                                           \
                    : [rm] "r"(rm), [reg] "r"(reg)                                                 \
                    : "cc");                                                                       \
        else                                                                                       \
            __asm__(LOAD_FLAGS insn " %q[" first "], %q[" second "], %q0" CAPTURE_FLAGS            \
                    : "=r"(a), "+&a"(ax)                                                           \
                    : [rm] "r"(rm), [reg] "r"(reg)                                                 \
                    : "cc");                                                                       \
        cpu->cc = flags_from_ax(ax);                                                               \
        cpu->gpr[op->dst] = a;                                                                     \
        NEXT(cpu, op);                                                                             \
    }
VEX_BINARY(andn, "andn", "rm", "reg")
VEX_BINARY(pdep, "pdep", "rm", "reg")
VEX_BINARY(pext, "pext", "rm", "reg")
VEX_BINARY(bextr, "bextr", "reg", "rm")
VEX_BINARY(bzhi, "bzhi", "reg", "rm")

static void adcx(struct vcpu *cpu, const struct op *op)
{
    uint64_t b = source(cpu, op), mask = bytes_mask(op->size);
    unsigned __int128 sum =
        (unsigned __int128)(cpu->gpr[op->dst] & mask) + b + (cpu->cc & FLAG_CF ? 1u : 0u);
    cpu->cc = (cpu->cc & ~FLAG_CF) | (sum >> (8 * op->size) ? FLAG_CF : 0);
    put(cpu, op, (uint64_t)sum);
    NEXT(cpu, op);
}

static void adox(struct vcpu *cpu, const struct op *op)
{
    uint64_t b = source(cpu, op), mask = bytes_mask(op->size);
    unsigned __int128 sum =
        (unsigned __int128)(cpu->gpr[op->dst] & mask) + b + (cpu->cc & FLAG_OF ? 1u : 0u);
    cpu->cc = (cpu->cc & ~FLAG_OF) | (sum >> (8 * op->size) ? FLAG_OF : 0);
    put(cpu, op, (uint64_t)sum);
    NEXT(cpu, op);
}

/* op->size is the source's, op->aux the destination's. */
static void crc32(struct vcpu *cpu, const struct op *op)
{
    uint64_t b = op->flags & FROM_MEMORY
                     ? interp_load(cpu, op, addr_any(cpu, op, op->size, false), op->size)
                     : reg_get(cpu, op->src, op->aux2, op->size);
    uint64_t crc = (uint32_t)cpu->gpr[op->dst];
    switch (op->size) {
    case 1:
        __asm__("crc32b %b1, %k0" : "+r"(crc) : "q"(b));
        break;
    case 2:
        __asm__("crc32w %w1, %k0" : "+r"(crc) : "r"(b));
        break;
    case 4:
        __asm__("crc32l %k1, %k0" : "+r"(crc) : "r"(b));
        break;
    default:
        __asm__("crc32q %q1, %q0" : "+r"(crc) : "r"(b));
    }
    cpu->gpr[op->dst] = (uint32_t)crc;
    NEXT(cpu, op);
}

/* ---- Bit tests ---- */

enum { BT, BTS, BTR, BTC };

/* The host's instruction on the operand in a register: flags beside CF are its own affair. */
static uint64_t bit_test(struct vcpu *cpu, unsigned kind, uint64_t a, uint64_t n)
{
    uint32_t ax = ax_from_flags(cpu->cc);
    switch (kind) {
    case BT:
        __asm__(LOAD_FLAGS "bt %2, %0" CAPTURE_FLAGS : "+r"(a), "+&a"(ax) : "r"(n) : "cc");
        break;
    case BTS:
        __asm__(LOAD_FLAGS "bts %2, %0" CAPTURE_FLAGS : "+r"(a), "+&a"(ax) : "r"(n) : "cc");
        break;
    case BTR:
        __asm__(LOAD_FLAGS "btr %2, %0" CAPTURE_FLAGS : "+r"(a), "+&a"(ax) : "r"(n) : "cc");
        break;
    default:
        __asm__(LOAD_FLAGS "btc %2, %0" CAPTURE_FLAGS : "+r"(a), "+&a"(ax) : "r"(n) : "cc");
    }
    cpu->cc = flags_from_ax(ax);
    return a;
}

static uint64_t bit_number(struct vcpu *cpu, const struct op *op)
{
    return op->src == REG_NONE ? op->imm : cpu->gpr[op->src];
}

static void bt_r(struct vcpu *cpu, const struct op *op)
{
    uint64_t n = bit_number(cpu, op) & (8 * op->size - 1);
    uint64_t a = bit_test(cpu, op->aux, cpu->gpr[op->dst], n);
    if (op->aux != BT)
        put(cpu, op, a);
    NEXT(cpu, op);
}

/* A register's bit number reaches beyond the operand: it moves the address by whole operands. */
static void bt_m(struct vcpu *cpu, const struct op *op)
{
    unsigned size = op->size, bits = 8 * size;
    uint64_t offset = addr_offset(cpu, op), n = bit_number(cpu, op);
    if (op->src != REG_NONE) {
        int64_t whole = (int64_t)(n << (64 - bits)) >> (64 - bits);
        int64_t step = whole >> __builtin_ctz(bits);
        offset = (offset + (uint64_t)(step * (int64_t)size)) & bytes_mask(op->addr_size);
    }
    n &= bits - 1;
    bool locked = op->flags & OP_LOCK;
    uint64_t linear =
        op->flags & OP_FLAT ? offset : interp_linear(cpu, op, op->seg, offset, size, op->aux != BT);
    if (op->aux == BT) {
        bit_test(cpu, BT, interp_load(cpu, op, linear, size), n);
        NEXT(cpu, op);
    }
    struct rmw m = mem_rmw(cpu, op, linear, size, locked);
    uint64_t old = host_load(m.host, size);
    if (locked) {
        /* Compare and exchange until nobody came between. */
        for (;;) {
            uint64_t bit = BIT64(n), new = op->aux == BTS   ? old | bit
                                           : op->aux == BTR ? old & ~bit
                                                            : old ^ bit;
            uint64_t seen = old;
            switch (size) {
            case 2:
                __asm__ volatile("lock cmpxchgw %w2, %1"
                                 : "+a"(seen), "+m"(*(uint16_t *)m.host)
                                 : "r"(new)
                                 : "cc");
                seen = (uint16_t)seen;
                break;
            case 4:
                __asm__ volatile("lock cmpxchgl %k2, %1"
                                 : "+a"(seen), "+m"(*(uint32_t *)m.host)
                                 : "r"(new)
                                 : "cc");
                seen = (uint32_t)seen;
                break;
            default:
                __asm__ volatile("lock cmpxchgq %q2, %1"
                                 : "+a"(seen), "+m"(*(uint64_t *)m.host)
                                 : "r"(new)
                                 : "cc");
            }
            if (seen == old)
                break;
            old = seen;
        }
        bit_test(cpu, op->aux, old, n);
    } else {
        host_store(m.host, size, bit_test(cpu, op->aux, old, n));
    }
    mem_rmw_done(cpu, op, m, size);
    NEXT(cpu, op);
}

/* ---- Binding ---- */

static bool bind_bit_test(struct decode *d, struct op *op, uint8_t kind)
{
    uint8_t shift;
    enum form form = bind_one(d, op);
    if (d->operands[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        op->src = REG_NONE;
        op->imm = d->operands[1].imm.value.u;
    } else if (!bind_reg(d->operands[1].reg.value, &op->src, &shift)) {
        return false;
    }
    op->aux = kind;
    op->fn = form == FORM_RR ? bt_r : bt_m;
    return true;
}

static bool bind_source(struct decode *d, struct op *op, unsigned i)
{
    uint8_t shift;
    op->flags &= (uint8_t)~FROM_MEMORY;
    if (d->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
        op->flags |= FROM_MEMORY;
    else if (!bind_reg(d->operands[i].reg.value, &op->src, &shift))
        return false;
    return true;
}

static bool bind_unary(struct decode *d, struct op *op, op_fn *fn)
{
    bind_one(d, op);
    op->fn = fn;
    return bind_source(d, op, 1);
}

/* dst, reg, r/m or dst, r/m, reg. */
static bool bind_vex(struct decode *d, struct op *op, op_fn *fn, bool rm_last)
{
    uint8_t shift;
    bind_one(d, op);
    op->fn = fn;
    return bind_source(d, op, rm_last ? 2 : 1) &&
           bind_reg(d->operands[rm_last ? 1 : 2].reg.value, &op->aux, &shift);
}

bool bind_bits(struct decode *d, struct op *op)
{
    switch (d->insn->mnemonic) {
    case ZYDIS_MNEMONIC_BT:
        return bind_bit_test(d, op, BT);
    case ZYDIS_MNEMONIC_BTS:
        return bind_bit_test(d, op, BTS);
    case ZYDIS_MNEMONIC_BTR:
        return bind_bit_test(d, op, BTR);
    case ZYDIS_MNEMONIC_BTC:
        return bind_bit_test(d, op, BTC);
    case ZYDIS_MNEMONIC_BSF:
        return bind_unary(d, op, bsf);
    case ZYDIS_MNEMONIC_BSR:
        return bind_unary(d, op, bsr);
    case ZYDIS_MNEMONIC_POPCNT:
        return bind_unary(d, op, popcnt);
    case ZYDIS_MNEMONIC_LZCNT:
        return bind_unary(d, op, lzcnt);
    case ZYDIS_MNEMONIC_TZCNT:
        return bind_unary(d, op, tzcnt);
    case ZYDIS_MNEMONIC_BLSI:
        return bind_unary(d, op, blsi);
    case ZYDIS_MNEMONIC_BLSR:
        return bind_unary(d, op, blsr);
    case ZYDIS_MNEMONIC_BLSMSK:
        return bind_unary(d, op, blsmsk);
    case ZYDIS_MNEMONIC_ANDN:
        return bind_vex(d, op, andn, true);
    case ZYDIS_MNEMONIC_PDEP:
        return bind_vex(d, op, pdep, true);
    case ZYDIS_MNEMONIC_PEXT:
        return bind_vex(d, op, pext, true);
    case ZYDIS_MNEMONIC_BEXTR:
        return d->operands[2].type == ZYDIS_OPERAND_TYPE_REGISTER && bind_vex(d, op, bextr, false);
    case ZYDIS_MNEMONIC_BZHI:
        return bind_vex(d, op, bzhi, false);
    case ZYDIS_MNEMONIC_ADCX:
        return bind_unary(d, op, adcx);
    case ZYDIS_MNEMONIC_ADOX:
        return bind_unary(d, op, adox);
    case ZYDIS_MNEMONIC_CRC32:
        bind_two(d, op);
        op->size = (uint8_t)(d->operands[1].size / 8);
        op->flags &= (uint8_t)~FROM_MEMORY;
        if (d->operands[1].type == ZYDIS_OPERAND_TYPE_MEMORY)
            op->flags |= FROM_MEMORY;
        op->fn = crc32;
        return true;
    default:
        return false;
    }
}
