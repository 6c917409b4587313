/*
 * Makes random sequences. Instructions are found by decoding random bytes: whatever Zydis can
 * decode can come up, in every operand form. Mnemonics that have come up often are passed over so
 * that the rare ones get their share. Memory operands are then turned towards the data pages: the
 * registers that serve as base hold pointers, displacements are made small.
 */
#include <Zydis/Zydis.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cpu/xstate.h"
#include "diff.h"

struct generator {
    uint64_t seed;
    const char *only;
    unsigned bits; /* sum of the kinds of code */
    ZydisDecoder decoder64, decoder32, decoder16;
    uint32_t seen[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    uint64_t total;
};

struct generator *generator_create(uint64_t seed, const char *only, unsigned bits)
{
    struct generator *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->seed = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    g->only = only;
    g->bits = bits;
    ZydisDecoderInit(&g->decoder16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&g->decoder64, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&g->decoder32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    return g;
}

void generator_destroy(struct generator *g)
{
    free(g);
}

static uint64_t r64(struct generator *g)
{
    return next_random(&g->seed) ^ next_random(&g->seed) >> 32;
}

static unsigned below(struct generator *g, unsigned n)
{
    return (unsigned)(next_random(&g->seed) >> 33) % n;
}

static bool chance(struct generator *g, unsigned percent)
{
    return below(g, 100) < percent;
}

/*
 * What a program's surroundings decide rather than the processor: system calls, the kernel's
 * descriptor tables and what it emulates (UMIP), time, randomness, the outer hypervisor, the layout
 * of XSAVE areas (tested apart).
 */
static bool unwanted(const ZydisDecodedInstruction *i, const ZydisDecodedOperand *operands)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_RDPRU:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_INVPCID: /* guests have it whatever the host has */
    case ZYDIS_MNEMONIC_RDPKRU:  /* depend on the host's CR4.PKE, and would take its memory away */
    case ZYDIS_MNEMONIC_WRPKRU:
    case ZYDIS_MNEMONIC_CLUI: /* the same bytes behind F3, on processors that do not have them */
    case ZYDIS_MNEMONIC_STUI:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_MONITORX:
    case ZYDIS_MNEMONIC_MWAITX:
    case ZYDIS_MNEMONIC_MONITOR:
    case ZYDIS_MNEMONIC_MWAIT:
    case ZYDIS_MNEMONIC_UMWAIT:
    case ZYDIS_MNEMONIC_TPAUSE:
    case ZYDIS_MNEMONIC_XSAVES: /* hosts under a hypervisor have it and do not say so */
    case ZYDIS_MNEMONIC_XSAVES64:
    case ZYDIS_MNEMONIC_XRSTORS:
    case ZYDIS_MNEMONIC_XRSTORS64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    /* This kind of host knows them and does not say so in CPUID. */
    case ZYDIS_MNEMONIC_PVALIDATE:
    case ZYDIS_MNEMONIC_CLZERO:
    case ZYDIS_MNEMONIC_CLGI:
    case ZYDIS_MNEMONIC_STGI:
    case ZYDIS_MNEMONIC_VMRUN:
    case ZYDIS_MNEMONIC_VMLOAD:
    case ZYDIS_MNEMONIC_VMSAVE:
    case ZYDIS_MNEMONIC_INVLPGA:
    case ZYDIS_MNEMONIC_SKINIT:
    case ZYDIS_MNEMONIC_MOVDIRI:
    case ZYDIS_MNEMONIC_MOVDIR64B:
    /* The x87 environment's selectors: we say in CPUID that they are gone, this host keeps them. */
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        return true;
    /* With VEX.W outside 64-bit mode: a Zen 5 copies an upper half that code there cannot know. */
    case ZYDIS_MNEMONIC_KMOVD:
        return i->raw.vex.W && i->machine_mode != ZYDIS_MACHINE_MODE_LONG_64;
    default:
        break;
    }
    if (i->meta.category == ZYDIS_CATEGORY_UNCOND_BR || i->meta.category == ZYDIS_CATEGORY_CALL ||
        i->meta.category == ZYDIS_CATEGORY_RET) {
        if (i->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            return true;
    }
    for (unsigned n = 0; n < i->operand_count; n++) {
        const ZydisDecodedOperand *o = &operands[n];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT &&
            (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return true;
    }
    return (i->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS) ||
           (i->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS);
}

/* Registers that hold pointers: as base registers, RM or SIB numbers. */
static const uint8_t pointers64[] = {3, 6, 7, 3, 6, 7, 5, 10 + 2};
static const uint8_t pointers32[] = {3, 6, 7, 5};

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, 4);
}

/* Turn an instruction's memory operand, if it has one, towards the data pages. */
static void aim(struct generator *g, uint8_t *bytes, const ZydisDecodedInstruction *i,
                unsigned bits)
{
    bool is64 = bits == 64;
    uint32_t base = bits == 16 ? 0 : DATA_BASE; /* of the data, in its segment */
    if (chance(g, 4))
        return;
    if (i->raw.disp.size == 64 ||
        (i->raw.disp.size && !(i->attributes & ZYDIS_ATTRIB_HAS_MODRM))) { /* moffs */
        uint64_t address = base + below(g, DATA_SIZE - 64);
        memcpy(bytes + i->raw.disp.offset, &address, i->raw.disp.size / 8);
        return;
    }
    if (!(i->attributes & ZYDIS_ATTRIB_HAS_MODRM) || i->raw.modrm.mod == 3)
        return;
    if (i->address_width == 16) {
        if (i->raw.disp.size == 16) {
            uint16_t value = (uint16_t)(i->raw.modrm.mod == 0 ? 64 + below(g, DATA_SIZE - 256)
                                                              : below(g, 1024) - 512u);
            memcpy(bytes + i->raw.disp.offset, &value, 2);
        }
        return;
    }
    uint8_t *modrm = bytes + i->raw.modrm.offset;
    uint8_t pointer =
        is64 ? pointers64[below(g, sizeof pointers64)] : pointers32[below(g, sizeof pointers32)];
    if (i->raw.modrm.rm == 4) {
        uint8_t *sib = bytes + i->raw.sib.offset;
        if (!(i->raw.modrm.mod == 0 && i->raw.sib.base == 5))
            *sib = (uint8_t)((*sib & ~7) | (pointer & 7));
        if (chance(g, 60) && !(i->attributes & ZYDIS_ATTRIB_HAS_VEX) &&
            !(i->attributes & ZYDIS_ATTRIB_HAS_EVEX))
            *sib = (uint8_t)((*sib & 0xc7) |
                             (below(g, 2) ? 1 << 3 : 2 << 3)); /* RCX or RDX: small integers */
        if (i->raw.modrm.mod == 0 && i->raw.sib.base != 5 && (pointer & 7) == 5)
            *sib = (uint8_t)((*sib & ~7) | 3);
    } else if (!(i->raw.modrm.mod == 0 && i->raw.modrm.rm == 5)) {
        if ((pointer & 7) == 4 || (i->raw.modrm.mod == 0 && (pointer & 7) == 5))
            pointer = 3;
        *modrm = (uint8_t)((*modrm & ~7) | (pointer & 7));
    }
    if (i->raw.disp.size == 32) {
        bool absolute = i->raw.modrm.mod == 0;
        uint32_t value = absolute ? base + 64 + below(g, DATA_SIZE - 256) : below(g, 1024) - 512u;
        put32(bytes + i->raw.disp.offset, value);
    }
}

static unsigned put_prefixes(struct generator *g, uint8_t *b, bool is64)
{
    unsigned n = 0;
    static const uint8_t segments[] = {0x2e, 0x36, 0x3e, 0x26};
    if (chance(g, 20))
        b[n++] = 0x66;
    if (chance(g, 16))
        b[n++] = below(g, 2) ? 0xf2 : 0xf3;
    if (chance(g, 4))
        b[n++] = 0xf0;
    if (chance(g, 4))
        b[n++] = 0x67;
    if (chance(g, 3))
        b[n++] = segments[below(g, 4)];
    if (is64 && chance(g, 55))
        b[n++] = (uint8_t)(0x40 | below(g, 16));
    return n;
}

static void random_bytes(struct generator *g, uint8_t *b, bool is64)
{
    for (unsigned i = 0; i < 16; i++)
        b[i] = (uint8_t)(next_random(&g->seed) >> 40);
    unsigned kind = below(g, 100);
    unsigned n;
    if (kind < 38) {
        put_prefixes(g, b, is64);
    } else if (kind < 66) {
        n = put_prefixes(g, b, is64);
        b[n] = 0x0f;
    } else if (kind < 74) {
        n = put_prefixes(g, b, is64);
        b[n] = 0x0f;
        b[n + 1] = below(g, 3) ? 0x38 : 0x3a;
    } else if (kind < 80) {
        b[0] = 0xc5;
        if (!is64)
            b[1] |= 0xc0;
    } else if (kind < 88) {
        b[0] = 0xc4;
        b[1] = (uint8_t)((b[1] & 0xe0) | (1 + below(g, 3)));
        if (!is64)
            b[1] |= 0xc0;
    } else {
        b[0] = 0x62;
        b[1] = (uint8_t)((b[1] & 0xf0) | (1 + below(g, 3)));
        b[2] |= 4;
        if (!is64)
            b[1] |= 0xc0;
        if (below(g, 2))
            b[3] &= 0xf8; /* no mask register */
        if (below(g, 2))
            b[3] |= 8;
    }
}

static const ZydisDecoder *decoder_of(const struct generator *g, unsigned bits)
{
    return bits == 64 ? &g->decoder64 : bits == 32 ? &g->decoder32 : &g->decoder16;
}

static unsigned make_instruction(struct generator *g, uint8_t *out, unsigned bits,
                                 ZydisDecodedInstruction *i)
{
    const ZydisDecoder *decoder = decoder_of(g, bits);
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    for (;;) {
        uint8_t b[16];
        random_bytes(g, b, bits == 64);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, b, 15, i, operands)) ||
            unwanted(i, operands))
            continue;
        if (g->only && strcasecmp(ZydisMnemonicGetString(i->mnemonic), g->only) != 0)
            continue;
        /* Pass over what came up more than eight times its fair share. */
        if (!g->only && g->seen[i->mnemonic] > 64 + 8 * (g->total / 1400))
            continue;
        ZydisMnemonic mnemonic = i->mnemonic;
        aim(g, b, i, bits);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, b, 15, i, operands)) ||
            i->mnemonic != mnemonic || unwanted(i, operands))
            continue;
        g->seen[mnemonic]++;
        g->total++;
        memcpy(out, b, i->length);
        return i->length;
    }
}

/* A value that an integer instruction may find interesting. */
static uint64_t integer(struct generator *g)
{
    switch (below(g, 6)) {
    case 0:
        return below(g, 64);
    case 1:
        return (uint64_t)0 - below(g, 64);
    case 2:
        return UINT64_C(1) << below(g, 64);
    case 3:
        return (UINT64_C(1) << below(g, 64)) - 1;
    case 4:
        return r64(g) >> below(g, 64);
    default:
        return r64(g);
    }
}

static void fill_lane(struct generator *g, uint8_t *lane, unsigned kind)
{
    for (unsigned i = 0; i < 64; i += 8) {
        uint64_t value = r64(g);
        if (kind == 1) { /* doubles around 1 */
            double d = (double)(int64_t)value / 1e17;
            memcpy(&value, &d, 8);
        } else if (kind == 2) { /* floats */
            float f[2] = {(float)(int32_t)value / 1e5f, (float)(int32_t)(value >> 32) * 1e-7f};
            memcpy(&value, f, 8);
        } else if (kind == 3) { /* special values */
            static const uint64_t special[] = {0,
                                               UINT64_C(0x8000000000000000),
                                               UINT64_C(0x7ff0000000000000),
                                               UINT64_C(0xfff8000000000000),
                                               UINT64_C(0x7ff0000000000001),
                                               1,
                                               UINT64_C(0x3ff0000000000000),
                                               UINT64_C(0x7f8000007f800001),
                                               UINT64_C(0x3f80000000000001),
                                               UINT64_C(0x00000001ff800000),
                                               UINT64_C(0x43e0000000000000)};
            value = special[below(g, sizeof special / 8)];
        } else if (kind == 4) { /* small integers: indices of gathers */
            value = below(g, 512) | (uint64_t)below(g, 512) << 32;
        }
        memcpy(lane + i, &value, 8);
    }
}

/* Registers, or upper parts of them, that the host's processor does not have. */
static void clear_missing(struct state *s)
{
    uint64_t host = xstate_host_mask();
    unsigned width = host >> XSTATE_ZMM_HI256 & 1 ? 64 : host >> XSTATE_AVX & 1 ? 32 : 16;
    unsigned count = host >> XSTATE_HI16_ZMM & 1 ? 32 : 16;
    for (unsigned i = 0; i < 32; i++) {
        unsigned kept = i < count ? width : 0;
        memset(s->zmm[i] + kept, 0, 64 - kept);
    }
    if (!(host >> XSTATE_OPMASK & 1))
        memset(s->k, 0, sizeof s->k);
}

static void fill_state(struct generator *g, struct state *s, unsigned bits)
{
    bool is64 = bits == 64;
    uint32_t base = bits == 16 ? 0 : DATA_BASE;
    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = integer(g);
    static const uint8_t pointer_registers[] = {3, 5, 6, 7, 12, 13, 14, 4};
    for (unsigned i = 0; i < sizeof pointer_registers; i++)
        s->gpr[pointer_registers[i]] =
            base + (chance(g, 85)   ? 1024 + below(g, DATA_SIZE - 2048)
                    : chance(g, 70) ? 4096 - below(g, 64)        /* into the second page */
                                    : DATA_SIZE - below(g, 64)); /* out of it */
    /* 16-bit operands have the sums of two. */
    if (bits == 16)
        s->gpr[6] = below(g, 512), s->gpr[7] = below(g, 512);
    s->gpr[4] = (base + 1024 + below(g, DATA_SIZE - 2048)) & ~UINT64_C(7);
    for (unsigned i = 1; i <= 2; i++)
        if (chance(g, 70))
            s->gpr[i] = below(g, 100);
    if (chance(g, 50)) /* aligned data */
        for (unsigned i = 0; i < sizeof pointer_registers; i++)
            s->gpr[pointer_registers[i]] &= ~UINT64_C(63);
    if (!is64)
        for (unsigned i = 0; i < 16; i++)
            s->gpr[i] = i < 8 ? (uint32_t)s->gpr[i] : 0;
    s->rflags =
        0x202 | (r64(g) & 0x8d5) | (chance(g, 20) ? 0x400 : 0) | (chance(g, 2) ? 0x40000 : 0);

    for (unsigned i = 0; i < (is64 ? 32u : 8u); i++)
        fill_lane(g, s->zmm[i], below(g, 5));
    for (unsigned i = 0; i < 8; i++)
        s->k[i] = chance(g, 30) ? ~UINT64_C(0) : r64(g);
    clear_missing(s);
    s->mxcsr = 0x1f80 | (r64(g) & 0x8040) | (r64(g) & 0x6000);
    if (chance(g, 5))
        s->mxcsr &= ~(uint32_t)(r64(g) & 0x1f80);

    s->fcw =
        (uint16_t)(0x37f & ~(chance(g, 30) ? (r64(g) & 0x300) : 0)) | (uint16_t)(r64(g) & 0xc00);
    if (chance(g, 5))
        s->fcw &= (uint16_t) ~(r64(g) & 0x3f);
    unsigned depth = below(g, 9);
    unsigned top = (8 - depth) & 7;
    s->fsw = (uint16_t)(top << 11 | (r64(g) & 0x4700));
    for (unsigned i = 0; i < 8; i++) {
        long double value = (long double)(int64_t)r64(g) / (chance(g, 50) ? 1e15L : 1e19L);
        if (chance(g, 15))
            memcpy(&value, (uint64_t[]){integer(g), r64(g) & 0xffff}, 10);
        memcpy(s->st[i], &value, 10);
        if (i < depth)
            s->ftw |= (uint8_t)(1 << ((top + i) & 7));
    }
}

/* Branches go forward, to the start of a later instruction or the end; RIP-relative operands to the
 * data. */
static void fix_up(struct generator *g, struct test *t)
{
    const ZydisDecoder *decoder = decoder_of(g, t->bits);
    unsigned starts[SEQUENCE_MAX + 1];
    unsigned at = 0;
    for (unsigned n = 0; n < t->count; n++) {
        starts[n] = at;
        at += t->lengths[n];
    }
    starts[t->count] = at;
    for (unsigned n = 0; n < t->count; n++) {
        ZydisDecodedInstruction i;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        uint8_t *bytes = t->code + starts[n];
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, bytes, t->lengths[n], &i, operands)))
            continue;
        unsigned next = starts[n] + t->lengths[n];
        if (i.raw.imm[0].is_relative) {
            unsigned target = n + 1 + below(g, t->count - n);
            uint64_t distance = starts[target] - next;
            memcpy(bytes + i.raw.imm[0].offset, &distance, i.raw.imm[0].size / 8);
        }
        if (t->bits == 64 && (i.attributes & ZYDIS_ATTRIB_HAS_MODRM) && i.raw.modrm.mod == 0 &&
            i.raw.modrm.rm == 5 && i.raw.disp.size == 32)
            put32(bytes + i.raw.disp.offset,
                  DATA_BASE + 64 + below(g, DATA_SIZE - 256) - (CODE_BASE + t->start + next));
    }
    t->code[at] = 0xcc;
    t->length = (uint16_t)(at + 1);
}

/* Do the instructions leave RCX alone, so that a LOOP comes to an end? */
static bool keeps_rcx(const struct generator *g, const struct test *t)
{
    unsigned at = 0;
    for (unsigned n = 0; n < t->count; at += t->lengths[n++]) {
        ZydisDecodedInstruction i;
        ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
        if (!ZYAN_SUCCESS(
                ZydisDecoderDecodeFull(decoder_of(g, t->bits), t->code + at, t->lengths[n], &i, o)))
            return false;
        for (unsigned k = 0; k < i.operand_count; k++)
            if (o[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                (o[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
                (ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o[k].reg.value) ==
                     ZYDIS_REGISTER_RCX ||
                 o[k].reg.value == ZYDIS_REGISTER_CH))
                return false;
        if (i.raw.imm[0].is_relative && i.meta.category == ZYDIS_CATEGORY_CALL)
            return false; /* a RET might go anywhere */
    }
    return true;
}

/* Now and then, everything from some instruction on is done a few times. */
static void add_loop(struct generator *g, struct test *t)
{
    unsigned from = below(g, t->count), start = 0, end = 0;
    for (unsigned n = 0; n < t->count; n++) {
        start += n < from ? t->lengths[n] : 0;
        end += t->lengths[n];
    }
    if (t->count == SEQUENCE_MAX || end - start > 120 || !keeps_rcx(g, t))
        return;
    t->code[end] = 0xe2;
    t->code[end + 1] = (uint8_t)(start - (end + 2));
    t->lengths[t->count++] = 2;
    t->before.gpr[1] = 2 + below(g, 6);
    t->code[end + 2] = 0xcc;
    t->length = (uint16_t)(end + 3);
}

void generate(struct generator *g, struct test *t)
{
    memset(t, 0, sizeof *t);
    unsigned kind = below(g, 100);
    t->bits = kind < 60 ? 64 : kind < 85 ? 32 : 16;
    while (!(g->bits & t->bits))
        t->bits = t->bits == 64 ? 16 : t->bits * 2;
    unsigned count = 1 + below(g, chance(g, 20) ? SEQUENCE_MAX : 6);
    unsigned at = 0;
    for (unsigned n = 0; n < count; n++) {
        ZydisDecodedInstruction i;
        unsigned length = make_instruction(g, t->code + at, t->bits, &i);
        t->lengths[n] = (uint8_t)length;
        at += length;
    }
    t->count = (uint8_t)count;
    /* Often across the page boundary. */
    t->start = chance(g, 25) ? (uint16_t)(0x1000 - below(g, at + 1)) : (uint16_t)below(g, 0x800);
    t->data_seed = r64(g) | 1;
    fill_state(g, &t->before, t->bits);
    fix_up(g, t);
    if (chance(g, 15))
        add_loop(g, t);
}

void remove_instruction(struct test *t, unsigned index)
{
    unsigned at = 0;
    for (unsigned n = 0; n < index; n++)
        at += t->lengths[n];
    unsigned length = t->lengths[index];
    /* Replace with NOPs, so that branch targets and RIP-relative operands stay as they are. */
    memset(t->code + at, 0x90, length);
}
