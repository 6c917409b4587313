/* BSWAP, LAHF and SAHF, flag bits of CF and DF, NOPs and hints, fences, random numbers, RDPID,
 * BOUND, the undefined instructions, CLZERO. */
#include "interp/core.h"

static void nop(struct vcpu *cpu, const struct op *op)
{
    NEXT(cpu, op);
}

static void undefined(struct vcpu *cpu, const struct op *op)
{
    interp_raise(cpu, op, VEC_UD);
}

static void fence(struct vcpu *cpu, const struct op *op)
{
    __asm__ volatile("mfence" : : : "memory");
    NEXT(cpu, op);
}

/* RDTSC behind it is not to be executed before it. */
static void load_fence(struct vcpu *cpu, const struct op *op)
{
    __asm__ volatile("lfence" : : : "memory");
    NEXT(cpu, op);
}

static void pause_hint(struct vcpu *cpu, const struct op *op)
{
    __asm__ volatile("pause");
    NEXT(cpu, op);
}

/* CLFLUSH and its like: nothing to flush, but the address is checked as a load's. */
static void flush_line(struct vcpu *cpu, const struct op *op)
{
    interp_load(cpu, op, addr_any(cpu, op, 1, false), 1);
    NEXT(cpu, op);
}

static void bswap4(struct vcpu *cpu, const struct op *op)
{
    cpu->gpr[op->dst] = __builtin_bswap32((uint32_t)cpu->gpr[op->dst]);
    NEXT(cpu, op);
}

static void bswap8(struct vcpu *cpu, const struct op *op)
{
    cpu->gpr[op->dst] = __builtin_bswap64(cpu->gpr[op->dst]);
    NEXT(cpu, op);
}

/* Undefined with 16 bits: processors clear the register's low half. */
static void bswap2(struct vcpu *cpu, const struct op *op)
{
    reg_set(cpu, op->dst, 0, 2, 0);
    NEXT(cpu, op);
}

static void lahf(struct vcpu *cpu, const struct op *op)
{
    reg_set(cpu, RAX, 8, 1, (cpu->cc & 0xd5) | FLAG_ONE);
    NEXT(cpu, op);
}

static void sahf(struct vcpu *cpu, const struct op *op)
{
    cpu->cc = (cpu->cc & FLAG_OF) | (uint32_t)((cpu->gpr[RAX] >> 8) & 0xd5);
    NEXT(cpu, op);
}

static void stc(struct vcpu *cpu, const struct op *op)
{
    cpu->cc |= FLAG_CF;
    NEXT(cpu, op);
}

static void clc(struct vcpu *cpu, const struct op *op)
{
    cpu->cc &= ~FLAG_CF;
    NEXT(cpu, op);
}

static void cmc(struct vcpu *cpu, const struct op *op)
{
    cpu->cc ^= FLAG_CF;
    NEXT(cpu, op);
}

static void std(struct vcpu *cpu, const struct op *op)
{
    cpu->rflags |= FLAG_DF;
    NEXT(cpu, op);
}

static void cld(struct vcpu *cpu, const struct op *op)
{
    cpu->rflags &= ~FLAG_DF;
    NEXT(cpu, op);
}

/* A random number or, with CF clear, none: as the host's generator has it. */
#define RANDOM(name, insn)                                                                         \
    static void name(struct vcpu *cpu, const struct op *op)                                        \
    {                                                                                              \
        uint64_t value = 0;                                                                        \
        bool ok;                                                                                   \
        __asm__ volatile(insn " %0" : "=r"(value), "=@ccc"(ok));                                   \
        if (!ok)                                                                                   \
            value = 0;                                                                             \
        cpu->cc = ok ? FLAG_CF : 0;                                                                \
        if (op->size == 2)                                                                         \
            reg_set(cpu, op->dst, 0, 2, value);                                                    \
        else                                                                                       \
            cpu->gpr[op->dst] = value & bytes_mask(op->size);                                      \
        NEXT(cpu, op);                                                                             \
    }
RANDOM(rdrand, "rdrand")
RANDOM(rdseed, "rdseed")

static void rdpid(struct vcpu *cpu, const struct op *op)
{
    cpu->gpr[op->dst] = (uint32_t)cpu->tsc_aux;
    NEXT(cpu, op);
}

static void bound(struct vcpu *cpu, const struct op *op)
{
    unsigned size = op->size, shift = 64 - 8 * size;
    /* Two accesses: the first may be fine where the second is beyond the segment. */
    struct op second = *op;
    second.disp += (int64_t)size;
    uint64_t at = addr_any(cpu, op, size, false);
    int64_t low = (int64_t)(interp_load(cpu, op, at, size) << shift) >> shift;
    at = addr_any(cpu, &second, size, false);
    int64_t high = (int64_t)(interp_load(cpu, &second, at, size) << shift) >> shift;
    int64_t index = (int64_t)(cpu->gpr[op->dst] << shift) >> shift;
    if (index < low || index > high)
        interp_raise(cpu, op, VEC_BR);
    NEXT(cpu, op);
}

static void clzero(struct vcpu *cpu, const struct op *op)
{
    static const uint8_t zeroes[64];
    uint64_t offset = cpu->gpr[RAX] & bytes_mask(op->addr_size) & ~UINT64_C(63);
    uint64_t linear = interp_linear(cpu, op, op->seg, offset, 64, true);
    interp_store_bytes(cpu, op, linear, zeroes, sizeof zeroes);
    NEXT(cpu, op);
}

static const struct {
    ZydisMnemonic mnemonic;
    op_fn *fn;
} misc_ops[] = {
    {ZYDIS_MNEMONIC_NOP, nop},
    {ZYDIS_MNEMONIC_ENDBR32, nop},
    {ZYDIS_MNEMONIC_ENDBR64, nop},
    {ZYDIS_MNEMONIC_PREFETCH, nop},
    {ZYDIS_MNEMONIC_PREFETCHNTA, nop},
    {ZYDIS_MNEMONIC_PREFETCHT0, nop},
    {ZYDIS_MNEMONIC_PREFETCHT1, nop},
    {ZYDIS_MNEMONIC_PREFETCHT2, nop},
    {ZYDIS_MNEMONIC_PREFETCHW, nop},
    {ZYDIS_MNEMONIC_PREFETCHWT1, nop},
    {ZYDIS_MNEMONIC_CLDEMOTE, nop},
    {ZYDIS_MNEMONIC_SERIALIZE, fence},
    {ZYDIS_MNEMONIC_MFENCE, fence},
    {ZYDIS_MNEMONIC_LFENCE, load_fence},
    {ZYDIS_MNEMONIC_SFENCE, fence},
    {ZYDIS_MNEMONIC_CLFLUSH, flush_line},
    {ZYDIS_MNEMONIC_CLFLUSHOPT, flush_line},
    {ZYDIS_MNEMONIC_CLWB, flush_line},
    {ZYDIS_MNEMONIC_LAHF, lahf},
    {ZYDIS_MNEMONIC_SAHF, sahf},
    {ZYDIS_MNEMONIC_STC, stc},
    {ZYDIS_MNEMONIC_CLC, clc},
    {ZYDIS_MNEMONIC_CMC, cmc},
    {ZYDIS_MNEMONIC_STD, std},
    {ZYDIS_MNEMONIC_CLD, cld},
    {ZYDIS_MNEMONIC_CLZERO, clzero},
    {ZYDIS_MNEMONIC_UD0, undefined},
    {ZYDIS_MNEMONIC_UD1, undefined},
    {ZYDIS_MNEMONIC_UD2, undefined},
};

static bool lahf_offered(const struct decode *d)
{
    return d->mode.bits != 64 || CPUID_HAS(&d->cpu->machine->cpuid, 0x80000001, 0, ecx, 0);
}

/* AMD's PREFETCH opcode has no register form; Intel's is a NOP. */
static bool is_prefetch_register(const struct decode *d)
{
    const ZydisDecodedInstruction *insn = d->insn;
    return insn->opcode_map == ZYDIS_OPCODE_MAP_0F && insn->opcode == 0x0d &&
           insn->raw.modrm.mod == 3 && d->cpu->machine->cpuid.vendor == VENDOR_AMD;
}

static bool bind_pause(struct decode *d, struct op *op)
{
    op->fn = pause_hint;
    if (d->insn->raw.rex.B) {
        op->size = d->insn->operand_width / 8;
        op->dst = RAX;
        op->src = R8;
        op->fn = atomic_xchg_register(op->size);
    }
    return true;
}

bool bind_misc(struct decode *d, struct op *op)
{
    ZydisMnemonic mnemonic = d->insn->mnemonic;
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
        if (is_prefetch_register(d))
            return false;
        break;
    case ZYDIS_MNEMONIC_PAUSE:
        return bind_pause(d, op);
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
        if (!lahf_offered(d))
            return false;
        break;
    case ZYDIS_MNEMONIC_BSWAP:
        bind_one(d, op);
        op->fn = op->size == 8 ? bswap8 : op->size == 4 ? bswap4 : bswap2;
        return true;
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
        bind_one(d, op);
        op->fn = mnemonic == ZYDIS_MNEMONIC_RDRAND ? rdrand : rdseed;
        return true;
    case ZYDIS_MNEMONIC_RDPID:
        bind_one(d, op);
        op->fn = rdpid;
        return true;
    case ZYDIS_MNEMONIC_BOUND:
        bind_one(d, op);
        op->fn = bound;
        return true;
    case ZYDIS_MNEMONIC_CLZERO:
        op->seg = DS;
        op->addr_size = d->insn->address_width / 8;
        break;
    default:
        break;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(misc_ops); i++) {
        if (misc_ops[i].mnemonic != mnemonic)
            continue;
        op->fn = misc_ops[i].fn;
        d->ends_block = op->fn == undefined;
        return true;
    }
    return false;
}
