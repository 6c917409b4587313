/*
 * MOVS STOS LODS CMPS SCAS with their repeat prefixes.
 *
 * A repeated instruction goes on for a slice of iterations and then, if it is not done, leaves RIP
 * on itself and returns to the main loop, which looks at interrupts. MOVS and STOS work on whole
 * runs of RAM within a page where nobody watches the page.
 */
#include "interp/core.h"

#define SLICE 4096 /* iterations between looks at vcpu.attention */

enum { MOVS, STOS, LODS, CMPS, SCAS };

struct string {
    struct vcpu *cpu;
    const struct op *op;
    uint64_t mask; /* of the address size */
    uint64_t si, di, count;
    int64_t step;
    unsigned size;
};

static bool source_flat(const struct string *s)
{
    return s->op->flags & OP_FLAT && s->op->addr_size != 2;
}

static bool dest_flat(const struct string *s)
{
    return s->cpu->interp->flat && s->op->addr_size != 2;
}

static uint64_t source_linear(struct string *s)
{
    if (source_flat(s))
        return s->si;
    return interp_linear(s->cpu, s->op, s->op->seg, s->si, s->size, false);
}

static uint64_t dest_linear(struct string *s, bool write)
{
    if (dest_flat(s))
        return s->di;
    return interp_linear(s->cpu, s->op, ES, s->di, s->size, write);
}

static void put_register(struct vcpu *cpu, unsigned reg, uint64_t mask, uint64_t value)
{
    if (mask == 0xffff)
        cpu->gpr[reg] = (cpu->gpr[reg] & ~mask) | (value & mask);
    else
        cpu->gpr[reg] = value & mask;
}

/* Registers as of now: after every iteration that may be followed by a fault. */
static void commit(struct string *s, bool repeated)
{
    unsigned kind = s->op->aux;
    if (kind == MOVS || kind == LODS || kind == CMPS)
        put_register(s->cpu, RSI, s->mask, s->si);
    if (kind != LODS)
        put_register(s->cpu, RDI, s->mask, s->di);
    if (repeated)
        put_register(s->cpu, RCX, s->mask, s->count);
}

static void compare(struct vcpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    uint32_t ax;
    unsigned shift = 64 - 8 * size;
    /* PF and AF look at the lowest byte: so the host compares at the operand's own size. */
    switch (shift) {
    case 56:
        __asm__("cmp %b2, %b1" CAPTURE_FLAGS : "=&a"(ax) : "q"(a), "q"(b) : "cc");
        break;
    case 48:
        __asm__("cmp %w2, %w1" CAPTURE_FLAGS : "=&a"(ax) : "q"(a), "q"(b) : "cc");
        break;
    case 32:
        __asm__("cmp %k2, %k1" CAPTURE_FLAGS : "=&a"(ax) : "q"(a), "q"(b) : "cc");
        break;
    default:
        __asm__("cmp %2, %1" CAPTURE_FLAGS : "=&a"(ax) : "q"(a), "q"(b) : "cc");
    }
    cpu->cc = flags_from_ax(ax);
}

/* One iteration; the pointers advance only after its last possible fault. */
static void iterate(struct string *s)
{
    struct vcpu *cpu = s->cpu;
    const struct op *op = s->op;
    uint64_t value;
    switch (op->aux) {
    case MOVS:
        value = interp_load(cpu, op, source_linear(s), s->size);
        interp_store(cpu, op, dest_linear(s, true), s->size, value);
        break;
    case STOS:
        interp_store(cpu, op, dest_linear(s, true), s->size, cpu->gpr[RAX]);
        break;
    case LODS:
        value = interp_load(cpu, op, source_linear(s), s->size);
        reg_set(cpu, RAX, 0, s->size, value);
        break;
    case CMPS:
        value = interp_load(cpu, op, source_linear(s), s->size);
        compare(cpu, value, interp_load(cpu, op, dest_linear(s, false), s->size), s->size);
        break;
    default:
        value = interp_load(cpu, op, dest_linear(s, false), s->size);
        compare(cpu, cpu->gpr[RAX], value, s->size);
    }
    s->si = (s->si + (uint64_t)s->step) & s->mask;
    s->di = (s->di + (uint64_t)s->step) & s->mask;
}

static struct string start(struct vcpu *cpu, const struct op *op)
{
    uint64_t mask = bytes_mask(op->addr_size);
    return (struct string){
        .cpu = cpu,
        .op = op,
        .mask = mask,
        .si = cpu->gpr[RSI] & mask,
        .di = cpu->gpr[RDI] & mask,
        .count = cpu->gpr[RCX] & mask,
        .size = op->size,
        .step = cpu->rflags & FLAG_DF ? -(int64_t)op->size : op->size,
    };
}

/* Elements from the one at `linear` to its page's end, or `down` to its start. */
static uint64_t in_page(uint64_t linear, unsigned size, bool down)
{
    uint64_t offset = linear & ~PAGE_MASK;
    if (!down)
        return (PAGE_SIZE - offset) / size;
    return offset + size <= PAGE_SIZE ? offset / size + 1 : 0;
}

/* The same from `offset` on within its segment. 0: ask for each. */
static uint64_t in_segment(const struct string *s, unsigned seg, uint64_t offset)
{
    const struct segment *g = &s->cpu->seg[seg];
    uint64_t top = MIN((uint64_t)g->limit, s->mask);
    if (s->cpu->interp->mode.bits == 64 || (g->attr & (SEG_DOWN | SEG_CODE)) == SEG_DOWN ||
        offset + s->size - 1 > top)
        return 0;
    return s->step < 0 ? offset / s->size + 1 : (top - offset + 1) / s->size;
}

/* The host's instruction, downwards or not; the host's own code expects DF clear. */
#define REPEATED(insn, ...)                                                                        \
    do {                                                                                           \
        if (down)                                                                                  \
            __asm__ volatile("std; rep " insn "; cld" __VA_ARGS__ : "memory", "cc");               \
        else                                                                                       \
            __asm__ volatile("rep " insn __VA_ARGS__ : "memory");                                  \
    } while (0)

static void fill(void *host, uint64_t value, unsigned size, uint64_t count, bool down)
{
    switch (size) {
    case 1:
        REPEATED("stosb", : "+D"(host), "+c"(count) : "a"(value));
        break;
    case 2:
        REPEATED("stosw", : "+D"(host), "+c"(count) : "a"(value));
        break;
    case 4:
        REPEATED("stosl", : "+D"(host), "+c"(count) : "a"(value));
        break;
    default:
        REPEATED("stosq", : "+D"(host), "+c"(count) : "a"(value));
    }
}

static void copy(void *to, const void *from, unsigned size, uint64_t count, bool down)
{
    /* Element by element in order, as the guest's own: overlap must smear alike. */
    switch (size) {
    case 1:
        REPEATED("movsb", : "+D"(to), "+S"(from), "+c"(count) :);
        break;
    case 2:
        REPEATED("movsw", : "+D"(to), "+S"(from), "+c"(count) :);
        break;
    case 4:
        REPEATED("movsl", : "+D"(to), "+S"(from), "+c"(count) :);
        break;
    default:
        REPEATED("movsq", : "+D"(to), "+S"(from), "+c"(count) :);
    }
}

/* As many iterations at once as one page and `limit` allow; 0: not possible here, go by single
 * ones. */
static uint64_t bulk(struct string *s, uint64_t limit)
{
    struct vcpu *cpu = s->cpu;
    const struct op *op = s->op;
    if ((op->aux != MOVS && op->aux != STOS) || cpu->interp->watching || cpu->interp->align_check)
        return 0;
    bool down = s->step < 0;
    uint64_t n = MIN(s->count, limit), si = 0;
    if (!dest_flat(s))
        n = MIN(n, in_segment(s, ES, s->di));
    if (op->aux == MOVS && !source_flat(s))
        n = MIN(n, in_segment(s, op->seg, s->si));
    if (n < 4)
        return 0;
    if (op->aux == MOVS) {
        si = source_linear(s);
        n = MIN(n, in_page(si, s->size, down));
    }
    if (n < 4)
        return 0;
    const void *from = NULL;
    if (op->aux == MOVS && !(from = interp_host(cpu, op, si, s->size, false)))
        return 0;
    const uint64_t di = dest_linear(s, true);
    n = MIN(n, in_page(di, s->size, down));
    if (n < 4)
        return 0;
    uint8_t *to = interp_host(cpu, op, di, s->size, true);
    if (!to)
        return 0;
    if (UNLIKELY(cpu->interp->rehearsal))
        rehearsal_note(cpu, to - (down ? (n - 1) * s->size : 0), (uint32_t)(n * s->size));
    if (op->aux == MOVS)
        copy(to, from, s->size, n, down);
    else
        fill(to, cpu->gpr[RAX], s->size, n, down);
    if (down)
        to -= (n - 1) * s->size;
    /* The page may have become one with code (of another vCPU's) since interp_host() looked. */
    if (!cpu->interp->rehearsal && UNLIKELY(physmem_page_flagged(cpu->machine->mem, to)))
        interp_written(cpu, op, to, (unsigned)(n * s->size));
    s->si = (s->si + n * (uint64_t)s->step) & s->mask;
    s->di = (s->di + n * (uint64_t)s->step) & s->mask;
    return n;
}

static void string_once(struct vcpu *cpu, const struct op *op)
{
    struct string s = start(cpu, op);
    iterate(&s);
    commit(&s, false);
    NEXT(cpu, op);
}

/* REP (and REPE, REPNE with CMPS and SCAS): ends its block, so that it can stop in the middle. */
static void string_repeated(struct vcpu *cpu, const struct op *op)
{
    struct string s = start(cpu, op);
    bool compares = op->aux == CMPS || op->aux == SCAS;
    bool while_equal = !(op->flags & OP_REPNE);
    bool stepping = cpu->interp->single || (cpu->rflags & FLAG_TF);
    uint64_t limit = cpu->interp->string_limit;
    uint64_t budget = stepping ? 1 : limit ? limit : SLICE;
    bool done = !s.count;
    while (!done && budget) {
        uint64_t n = stepping ? 0 : bulk(&s, limit ? budget : s.count);
        if (!n) {
            iterate(&s);
            n = 1;
        }
        s.count -= n;
        budget -= MIN(n, budget);
        commit(&s, true);
        done = !s.count || (compares && !!(cpu->cc & FLAG_ZF) != while_equal);
        /* What it has overwritten of itself counts when it has ended, or was interrupted. */
        if (!budget && !stepping && !limit &&
            !atomic_load_explicit(&cpu->attention, memory_order_relaxed))
            budget = SLICE;
    }
    if (done) {
        cpu->rip = next_rip(cpu, op);
        return interp_end_block(cpu, op);
    }
    interp_op_leave(cpu, op);
}

static const struct {
    ZydisMnemonic mnemonic;
    uint8_t kind, size;
} string_ops[] = {
    {ZYDIS_MNEMONIC_MOVSB, MOVS, 1}, {ZYDIS_MNEMONIC_MOVSW, MOVS, 2},
    {ZYDIS_MNEMONIC_MOVSD, MOVS, 4}, {ZYDIS_MNEMONIC_MOVSQ, MOVS, 8},
    {ZYDIS_MNEMONIC_STOSB, STOS, 1}, {ZYDIS_MNEMONIC_STOSW, STOS, 2},
    {ZYDIS_MNEMONIC_STOSD, STOS, 4}, {ZYDIS_MNEMONIC_STOSQ, STOS, 8},
    {ZYDIS_MNEMONIC_LODSB, LODS, 1}, {ZYDIS_MNEMONIC_LODSW, LODS, 2},
    {ZYDIS_MNEMONIC_LODSD, LODS, 4}, {ZYDIS_MNEMONIC_LODSQ, LODS, 8},
    {ZYDIS_MNEMONIC_CMPSB, CMPS, 1}, {ZYDIS_MNEMONIC_CMPSW, CMPS, 2},
    {ZYDIS_MNEMONIC_CMPSD, CMPS, 4}, {ZYDIS_MNEMONIC_CMPSQ, CMPS, 8},
    {ZYDIS_MNEMONIC_SCASB, SCAS, 1}, {ZYDIS_MNEMONIC_SCASW, SCAS, 2},
    {ZYDIS_MNEMONIC_SCASD, SCAS, 4}, {ZYDIS_MNEMONIC_SCASQ, SCAS, 8},
};

/* The segment of the source, which only an override changes. */
static void bind_segment(struct decode *d, struct op *op)
{
    static const struct {
        ZydisInstructionAttributes attribute;
        uint8_t seg;
    } overrides[] = {
        {ZYDIS_ATTRIB_HAS_SEGMENT_ES, ES}, {ZYDIS_ATTRIB_HAS_SEGMENT_CS, CS},
        {ZYDIS_ATTRIB_HAS_SEGMENT_SS, SS}, {ZYDIS_ATTRIB_HAS_SEGMENT_FS, FS},
        {ZYDIS_ATTRIB_HAS_SEGMENT_GS, GS},
    };
    op->seg = DS;
    for (unsigned i = 0; i < ARRAY_SIZE(overrides); i++)
        if (d->insn->attributes & overrides[i].attribute)
            op->seg = overrides[i].seg;
    op->flags &= (uint8_t)~OP_FLAT;
    if (d->mode.bits == 64 ? op->seg < FS : d->cpu->interp->flat && op->seg < FS && op->seg != CS)
        op->flags |= OP_FLAT;
}

bool bind_string(struct decode *d, struct op *op)
{
    /* MOVSD and CMPSD are also SSE2's. */
    if (d->insn->meta.category != ZYDIS_CATEGORY_STRINGOP)
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(string_ops); i++) {
        if (string_ops[i].mnemonic != d->insn->mnemonic)
            continue;
        op->aux = string_ops[i].kind;
        op->size = string_ops[i].size;
        op->addr_size = d->insn->address_width / 8;
        op->flags &= (uint8_t) ~(OP_REP | OP_REPNE);
        if (d->insn->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
            op->flags |= OP_REP;
        else if (d->insn->attributes & ZYDIS_ATTRIB_HAS_REPNE)
            op->flags |= OP_REPNE;
        bind_segment(d, op);
        d->ends_block = op->flags & (OP_REP | OP_REPNE);
        op->fn = d->ends_block ? string_repeated : string_once;
        return true;
    }
    return false;
}
