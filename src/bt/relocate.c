/*
 * The same code at another linear address, as a shared library in the next program, is not
 * translated anew: what a block's code holds that depends on where it is has been noted, and is
 * changed in a copy, or in the block itself.
 */
#include "bt/perf_map.h"
#include "bt/translate.h"

/* ---- Noting ---- */

static void note(struct translation_state *t, const uint8_t *at, enum bt_reloc_kind kind)
{
    if (t->reloc_count == ARRAY_SIZE(t->relocs)) {
        t->block->fixed = true;
        return;
    }
    t->relocs[t->reloc_count++] =
        (struct bt_reloc){.at = (uint16_t)(at - t->code), .kind = (uint16_t)kind};
}

/* Load `value` so that it can be changed later. */
static void put_wide(struct translation_state *t, unsigned reg, uint64_t value,
                     enum bt_reloc_kind kind)
{
    const uint8_t *start = t->e.at;
    put_load_imm(&t->e, reg, value);
    if (t->e.at - start == 10)
        note(t, t->e.at - 8, kind);
    else
        t->block->fixed = true; /* a short form */
}

void bt_put_rip(struct translation_state *t, unsigned reg, uint64_t rip)
{
    put_wide(t, reg, rip, RELOC_RIP);
}

void bt_put_site(struct translation_state *t, unsigned reg, const struct bt_site *site,
                 unsigned bits)
{
    put_wide(t, reg, (uint64_t)(uintptr_t)site | bits, RELOC_SITE);
}

void bt_put_to_stub(struct translation_state *t, uint8_t *displacement, const uint8_t *stub)
{
    put_target(displacement, stub);
    note(t, displacement, RELOC_STUB);
}

void bt_note_site_offset(struct translation_state *t)
{
    note(t, t->e.at - 4, RELOC_SITE_OFFSET);
}

/* ---- Finding ---- */

static struct bt_block **template_slot(struct bt *bt, const struct bt_page *page, uint64_t rip,
                                       uint16_t mode, bool plain)
{
    uint64_t h = page->index << PAGE_SHIFT | (rip & ~PAGE_MASK);
    h = (h ^ (uint64_t)mode << 48 ^ (uint64_t)plain << 47) * UINT64_C(0x9e3779b97f4a7c15);
    return &bt->templates[h >> 40 & (TEMPLATES - 1)];
}

void bt_template_add(struct bt *bt, struct bt_block *b)
{
    if (!b->fixed)
        *template_slot(bt, b->page, b->rip, b->mode, b->plain) = b;
}

void bt_template_drop(struct bt *bt, const struct bt_block *b)
{
    struct bt_block **slot = template_slot(bt, b->page, b->rip, b->mode, b->plain);
    if (*slot == b)
        *slot = NULL;
}

/* Addresses that code at `rip` can reach directly are canonical where those of the template are. */
static bool same_half(uint64_t rip, uint64_t other)
{
    const uint64_t reach = UINT64_C(1) << 32;
    return rip >> 63 == other >> 63 && is_canonical(rip + reach) && is_canonical(rip - reach) &&
           is_canonical(other + reach) && is_canonical(other - reach);
}

/* ---- Moving ---- */

/* How far things move. */
struct move {
    struct bt *bt;
    struct bt_block *b;
    uint64_t rip;
    ptrdiff_t code, data;
};

#define MOVED(pointer, by)                                                                         \
    ((__typeof__(pointer))(uintptr_t)((uintptr_t)(pointer) + (uintptr_t)(by)))

/* What it was decoded to holds addresses. */
static void move_site(const struct move *m, struct bt_site *site)
{
    if (site->block != m->b)
        site->op = NULL;
    else if (site->op)
        site->op->flushes = UINT64_MAX;
    site->block = m->b;
}

static void move_reloc(const struct move *m, uint8_t *at, unsigned kind)
{
    uint64_t wide;
    uint32_t narrow;
    switch (kind) {
    case RELOC_RIP:
        memcpy(&wide, at, sizeof wide);
        wide += m->rip;
        memcpy(at, &wide, sizeof wide);
        break;
    case RELOC_SITE:
        memcpy(&wide, at, sizeof wide);
        wide += (uint64_t)m->data;
        memcpy(at, &wide, sizeof wide);
        move_site(m, (struct bt_site *)(uintptr_t)(wide & ~UINT64_C(3)));
        break;
    case RELOC_SITE_OFFSET:
        memcpy(&narrow, at, sizeof narrow);
        narrow += (uint32_t)m->data;
        memcpy(at, &narrow, sizeof narrow);
        move_site(m, (struct bt_site *)(m->bt->data + narrow));
        break;
    case RELOC_STUB:
        memcpy(&narrow, at, sizeof narrow);
        narrow -= (uint32_t)m->code;
        memcpy(at, &narrow, sizeof narrow);
        break;
    }
}

static void move_exit(const struct move *m, struct bt_exit *exit)
{
    exit->from = m->b;
    exit->to = NULL;
    exit->target += m->rip;
    if (!exit->stub)
        return;
    exit->jump = MOVED(exit->jump, m->code);
    exit->stub = MOVED(exit->stub, m->code);
    bt_write_exit_stub(m->bt, exit);
    put_target(exit->jump, exit->stub);
}

static const uint8_t *code_of(const struct bt_block *b)
{
    return MIN(b->entry_live, b->entry_saved);
}

/* `b` holds what another block held, or what it held itself, until now. */
static void place(const struct move *m, struct bt_page *page, uint64_t rip)
{
    struct bt_block *b = m->b;
    b->shadow = NULL;
    b->page = page;
    b->rip = rip;
    b->bytes = MOVED(b->bytes, m->data);
    b->entry_live = MOVED(b->entry_live, m->code);
    b->entry_saved = MOVED(b->entry_saved, m->code);
    b->code_end = MOVED(b->code_end, m->code);
    b->exits = MOVED(b->exits, m->data);
    b->faults = MOVED(b->faults, m->data);
    b->relocs = MOVED(b->relocs, m->data);
    uint8_t *code = m->bt->write + (code_of(b) - m->bt->exec);
    for (unsigned i = 0; i < b->reloc_count; i++)
        move_reloc(m, code + b->relocs[i].at, b->relocs[i].kind);
    for (unsigned i = 0; i < b->fault_count; i++) {
        struct bt_fault_point *f = &b->faults[i];
        f->code = MOVED(f->code, m->code);
        f->site = MOVED(f->site, m->data);
        move_site(m, f->site);
    }
    for (unsigned i = 0; i < b->exit_count; i++)
        move_exit(m, &b->exits[i]);
}

static struct bt_block *move(struct vcpu *cpu, struct bt_block *b, struct bt_page *page)
{
    struct bt *bt = cpu->bt;
    struct move m = {.bt = bt, .b = b, .rip = cpu->rip - b->rip};
    struct bt_page *left = b->page;
    bt_block_remove(cpu, b);
    bt_page_put(bt, left);
    struct jump_cache_entry *e = bt_jump_cache_slot(bt, b->rip);
    if (e->code == b->entry_saved)
        *e = (struct jump_cache_entry){0};
    place(&m, page, cpu->rip);
    bt_block_add(bt, b);
    bt->stats.moves++;
    return b;
}

static struct bt_block *copy(struct vcpu *cpu, const struct bt_block *from, struct bt_page *page)
{
    struct bt *bt = cpu->bt;
    size_t size = (size_t)(from->code_end - code_of(from));
    uint8_t *to = bt_cache_reserve(cpu, size, from->data_size);
    if (from->dead)
        return NULL; /* to make room for its copy */
    struct bt_block *b = bt_cache_data(bt, from->data_size);
    memcpy(b, from, from->data_size);
    memcpy(to, bt->write + (code_of(from) - bt->exec), size);
    b->in = NULL;
    struct move m = {.bt = bt,
                     .b = b,
                     .rip = cpu->rip - from->rip,
                     .code = bt_exec(bt, to) - code_of(from),
                     .data = (uint8_t *)b - (const uint8_t *)from};
    place(&m, page, cpu->rip);
    bt_cache_commit(bt, to + size);
    bt_cache_add(bt, b);
    if (cpu->machine->perf_map)
        perf_map_block(cpu->machine->perf_map, b);
    bt->stats.copies++;
    return b;
}

/* Loads of CR3 after which a block counts as one of a program that has ended. Where it has not, it
 * asks for its block again and gets a copy, as that is too soon for another move. */
#define LEFT_BEHIND 3

struct bt_block *bt_reuse(struct vcpu *cpu, struct bt_page *page, bool plain, const uint8_t *host)
{
    struct bt *bt = cpu->bt;
    uint64_t rip = cpu->rip;
    if (cpu->machine->bt_off & BT_OFF_COPY)
        return NULL;
    struct bt_block *b = *template_slot(bt, page, rip, bt->mode, plain);
    if (!b || b->page->index != page->index || b->mode != bt->mode || b->plain != plain ||
        ((b->rip ^ rip) & ~PAGE_MASK) || !same_half(rip, b->rip) ||
        memcmp(host + (rip & ~PAGE_MASK), b->bytes, b->length) != 0)
        return NULL;
    if (bt->stats.l1_flushes - b->placed >= LEFT_BEHIND && !cpu->machine->perf_map)
        return move(cpu, b, page);
    return copy(cpu, b, page);
}
