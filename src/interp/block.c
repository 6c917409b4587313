/* Decoded blocks: finding, making, reviving and dropping them. */
#include "interp/core.h"

#define MODE_SINGLE  0x40 /* one instruction only */
#define INSN_MAX     15
#define ARENA_MARGIN (UINT64_C(256) << 10)

void *interp_block_alloc(struct vcpu *cpu, size_t size)
{
    struct interp *in = cpu->interp;
    uint64_t at = ALIGN_UP(in->arena_used, UINT64_C(64));
    if (size > ARENA_SIZE - at)
        return NULL;
    in->arena_used = at + size;
    return in->arena + at;
}

void interp_flush_blocks(struct vcpu *cpu)
{
    struct interp *in = cpu->interp;
    memset(in->hash, 0, sizeof in->hash);
    in->arena_used = 0;
    in->block = NULL;
    in->stats.arena_flushes++;
    interp_flush_jumps(cpu);
    memset(in->jumps, 0, sizeof in->jumps);
}

void interp_reserve(struct vcpu *cpu)
{
    if (ARENA_SIZE - cpu->interp->arena_used < ARENA_MARGIN)
        interp_flush_blocks(cpu);
}

uint64_t interp_linear_rip(const struct vcpu *cpu)
{
    if (cpu->interp->mode.bits == 64)
        return cpu->rip;
    return (uint32_t)(cpu->seg[CS].base + cpu->rip);
}

static struct block **hash_slot(struct interp *in, uint64_t gpa, mode_key mode)
{
    uint64_t h = (gpa ^ (gpa >> 12) ^ ((uint64_t)mode << 7)) * UINT64_C(0x9e3779b97f4a7c15);
    return &in->hash[h >> 50 & (HASH_ENTRIES - 1)];
}

/* A page that instructions are fetched from. */
struct code_page {
    uint64_t gpa;        /* of the first byte wanted */
    const uint8_t *host; /* NULL: not RAM */
    const _Atomic uint32_t *gen_at;
    uint32_t gen;
};

static const _Atomic uint32_t no_generation;

/* Marks the page, so that what is read from now on is either current or found stale. */
static struct code_page open_page(struct vcpu *cpu, uint64_t gpa)
{
    struct physmem *mem = cpu->machine->mem;
    struct code_page page = {
        .gpa = gpa, .host = physmem_host(mem, gpa, 1), .gen_at = &no_generation};
    if (page.host) {
        physmem_mark_code(mem, page.host);
        page.gen_at = &mem->page_gen[physmem_page(mem, page.host)];
        page.gen = atomic_load(page.gen_at);
    }
    return page;
}

static void read_code(struct vcpu *cpu, const struct code_page *page, uint8_t *buf, unsigned len)
{
    if (page->host) {
        memcpy(buf, page->host, len);
        return;
    }
    for (unsigned i = 0; i < len; i++)
        buf[i] = (uint8_t)machine_mmio_read(cpu->machine, page->gpa + i, 1);
}

/* The block's bytes are what they were? Then it is as good as new. */
static bool revive(struct vcpu *cpu, struct block *b)
{
    struct code_page first = open_page(cpu, b->gpa);
    if (!first.host || memcmp(first.host, b->bytes, b->in_page))
        return false;
    if (b->gen2_at) {
        struct code_page second = open_page(cpu, b->gpa2);
        if (!second.host ||
            memcmp(second.host, b->bytes + b->in_page, (size_t)(b->length - b->in_page)))
            return false;
        b->gen2 = second.gen;
    }
    b->gen = first.gen;
    cpu->interp->stats.revived++;
    return true;
}

static void op_ud(struct vcpu *cpu, const struct op *op)
{
    interp_raise(cpu, op, VEC_UD);
}

static void op_gp(struct vcpu *cpu, const struct op *op)
{
    interp_raise_error(cpu, op, VEC_GP, 0);
}

/* The block ends for want of room or bytes: go on behind it. */
static void op_fall_through(struct vcpu *cpu, const struct op *op)
{
    cpu->rip = (cpu->rip + op->offset) & cpu->interp->ip_mask;
    return interp_chain(cpu);
}

struct block_bytes {
    uint8_t bytes[BLOCK_OPS * INSN_MAX];
    unsigned len;     /* how many may be decoded */
    unsigned in_page; /* of these, in the first page */
    bool limited;     /* the code segment ends behind them */
};

/* Bytes from rip to the end of the segment, at most `len`. */
static unsigned within_limit(struct vcpu *cpu, unsigned len, bool *limited)
{
    *limited = false;
    if (cpu->interp->mode.bits == 64)
        return len;
    uint64_t left = (uint64_t)cpu->seg[CS].limit - cpu->rip + 1;
    if (len <= left)
        return len;
    *limited = true;
    return (unsigned)left;
}

/* The first instruction goes on in the next page: fetch from there too. */
static struct code_page open_second(struct vcpu *cpu, uint64_t linear, struct block_bytes *code)
{
    struct interp *in = cpu->interp;
    uint64_t next = (linear | ~PAGE_MASK) + 1;
    if (in->mode.bits != 64)
        next = (uint32_t)next;
    else if (!is_canonical(next))
        interp_raise_error(cpu, NULL, VEC_GP, 0);
    struct code_page page = open_page(cpu, interp_fetch_translate(cpu, next));
    unsigned more = within_limit(cpu, INSN_MAX, &code->limited);
    more = more > code->in_page ? more - code->in_page : 0;
    read_code(cpu, &page, code->bytes + code->in_page, more);
    code->len = code->in_page + more;
    return page;
}

static struct block *make_block(struct vcpu *cpu, uint64_t linear, uint64_t gpa, bool single)
{
    struct interp *in = cpu->interp;
    interp_reserve(cpu);
    in->stats.decoded++;

    struct code_page first = open_page(cpu, gpa), second = {0};
    struct block_bytes code;
    unsigned page_left = (unsigned)(PAGE_SIZE - (gpa & ~PAGE_MASK));
    unsigned want = !first.host || single ? INSN_MAX : sizeof code.bytes;
    code.len = code.in_page = within_limit(cpu, MIN(page_left, want), &code.limited);
    read_code(cpu, &first, code.bytes, code.len);

    struct op ops[BLOCK_OPS + 2];
    unsigned n = 0, count = 0, offset = 0, guards = 0;
    unsigned max = single || !first.host ? 1 : BLOCK_OPS;
    bool ends = false;
    while (count < max && !ends) {
        struct op *op = &ops[n];
        memset(op, 0, sizeof *op);
        op->offset = (uint16_t)offset;
        unsigned len = interp_decode(cpu, code.bytes + offset, code.len - offset, op, &ends);
        if (!len) {
            if (offset)
                break;
            bool segment_ends = code.limited;
            if (!segment_ends && !second.gen_at) {
                second = open_second(cpu, linear, &code);
                ops[n++].fn = interp_op_guard;
                guards = 1;
                max = 1;
                continue;
            }
            op->fn = op_gp;
            len = op->length = 1;
            ends = true;
        }
        if (!op->fn)
            op->fn = op_ud, ends = true;
        offset += len;
        n++, count++;
    }
    memset(&ops[n], 0, sizeof ops[n]);
    ops[n].fn = op_fall_through;
    ops[n].offset = (uint16_t)offset;
    n++;

    struct block *b = interp_block_alloc(cpu, sizeof *b + n * sizeof(struct op));
    uint8_t *bytes = interp_block_alloc(cpu, offset);
    *b = (struct block){
        .gen_at = first.gen_at,
        .gen = first.gen,
        .count = (uint16_t)count,
        .length = (uint16_t)offset,
        .gpa = gpa,
        .bytes = bytes,
        .gen2_at = second.gen_at,
        .gen2 = second.gen,
        .mode = in->mode_key | (single ? MODE_SINGLE : 0),
        .guards = (uint8_t)guards,
        .op_count = (uint16_t)n,
        .in_page = (uint16_t)MIN(offset, code.in_page),
        .gpa2 = second.gpa,
    };
    memcpy(bytes, code.bytes, offset);
    memcpy(b->ops, ops, n * sizeof(struct op));
    return b;
}

/* Is the block of the hash table usable now, as it is or revived? */
static bool usable(struct vcpu *cpu, struct block *b, uint64_t linear)
{
    struct interp *in = cpu->interp;
    if (in->mode.bits != 64 && cpu->rip + b->length - 1 > cpu->seg[CS].limit)
        return false;
    if (b->gen2_at) {
        uint64_t next = (linear | ~PAGE_MASK) + 1;
        if (in->mode.bits != 64)
            next = (uint32_t)next;
        if (interp_fetch_translate(cpu, next) != b->gpa2)
            return false;
    }
    if (LIKELY(*b->gen_at == b->gen && (!b->gen2_at || *b->gen2_at == b->gen2)))
        return true;
    return revive(cpu, b);
}

struct block *interp_find_block(struct vcpu *cpu, bool single)
{
    struct interp *in = cpu->interp;
    struct jump_entry *jump = jump_slot(in, cpu->rip);
    if (!single && jump->key == (cpu->rip ^ in->jump_key)) {
        struct block *b = jump->block;
        if (LIKELY(*b->gen_at == b->gen))
            return b;
    }
    in->stats.jump_misses++;
    if (in->mode.bits == 64 ? !is_canonical(cpu->rip) : cpu->rip > cpu->seg[CS].limit)
        interp_raise_error(cpu, NULL, VEC_GP, 0);

    uint64_t linear = interp_linear_rip(cpu);
    uint64_t gpa = interp_fetch_translate(cpu, linear);
    mode_key mode = in->mode_key | (single ? MODE_SINGLE : 0);
    struct block **slot = hash_slot(in, gpa, mode);
    in->stats.lookups++;
    struct block *b;
    for (b = *slot; b; slot = &b->hash_next, b = *slot) {
        if (b->gpa != gpa || b->mode != mode)
            continue;
        if (usable(cpu, b, linear))
            break;
        *slot = b->hash_next; /* its memory comes back when the arena is flushed */
        b = NULL;
        break;
    }
    if (!b) {
        b = make_block(cpu, linear, gpa, single);
        if (b->gen_at == &no_generation || b->gen2_at == &no_generation)
            return b; /* not from RAM: never kept */
        slot = hash_slot(in, gpa, mode);
        b->hash_next = *slot;
        *slot = b;
    }
    if (!single)
        *jump = (struct jump_entry){cpu->rip ^ in->jump_key, b};
    return b;
}
