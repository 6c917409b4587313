/*
 * The translation cache: its memory, the blocks in it, how they are found, linked and dropped.
 *
 * The code's memory is mapped twice, writable and executable. It is cut into segments that are
 * filled in turn; when the last one is full the first is emptied, so that an eviction touches a
 * fraction of all blocks. Blocks, exits and sites of a segment lie in a data area of its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bt/bt.h"
#include "bt/emit.h"
#include "bt/perf_map.h"
#include "mem/populate.h"
#include "util/error.h"

#define SEGMENT_MIN  (UINT64_C(64) << 10) /* more than any block needs */
#define PATIENCE_MIN 256u                 /* writes; see bt_page_written() */
#define PATIENCE_MAX (64u << 10)

int bt_cache_create(struct bt *bt, uint64_t size, struct tv_error *err)
{
    bt->segment_count = (unsigned)MIN(size / SEGMENT_MIN, (uint64_t)SEGMENTS_MAX);
    bt->segment_code = size / bt->segment_count & PAGE_MASK;
    bt->segment_data = bt->segment_code;
    /* Shared anonymous memory can be mapped a second time, and perf looks for names of code there.
     */
    uint64_t length = bt->segment_code * bt->segment_count;
    bt->write = mmap(NULL, length, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bt->write != MAP_FAILED)
        bt->exec = mremap(bt->write, 0, length, MREMAP_MAYMOVE);
    bt->data = mmap(NULL, length, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bt->write != MAP_FAILED && bt->exec != MAP_FAILED && bt->data != MAP_FAILED &&
        mprotect(bt->exec, length, PROT_READ | PROT_EXEC) == 0)
        return 0;
    tv_fail_errno(err, errno, "no memory for a translation cache of %llu KiB",
                  (unsigned long long)(size >> 10));
    return -1;
}

static void unmap(void *p, uint64_t size)
{
    if (p && p != MAP_FAILED)
        munmap(p, size);
}

static void free_pages(struct bt *bt)
{
    for (unsigned i = 0; i < PAGE_HASH; i++) {
        for (struct bt_page *p = bt->pages[i], *next; p; p = next) {
            next = p->hash_next;
            free(p);
        }
        bt->pages[i] = bt->by_physical[i] = NULL;
    }
}

void bt_cache_free(struct bt *bt)
{
    populator_wait(bt->cpu->machine->mem->populator);
    uint64_t length = bt->segment_code * bt->segment_count;
    unmap(bt->write, length);
    unmap(bt->exec, length);
    unmap(bt->data, length);
    free_pages(bt);
}

/* ---- Pages ---- */

static unsigned page_slot(uint64_t linear, uint64_t gpa)
{
    return (unsigned)(((linear >> PAGE_SHIFT) * 31 ^ gpa >> PAGE_SHIFT) & (PAGE_HASH - 1));
}

struct bt_page *bt_page_get(struct vcpu *cpu, uint64_t linear, uint64_t gpa)
{
    struct bt *bt = cpu->bt;
    linear &= PAGE_MASK;
    gpa &= PAGE_MASK;
    struct bt_page **slot = &bt->pages[page_slot(linear, gpa)];
    for (struct bt_page *p = *slot; p; p = p->hash_next)
        if (p->linear == linear && p->gpa == gpa)
            return p;
    const uint8_t *host = physmem_host(cpu->machine->mem, gpa, PAGE_SIZE);
    struct bt_page *p = host ? calloc(1, sizeof *p) : NULL;
    if (!p)
        return NULL;
    uint64_t index = physmem_page(cpu->machine->mem, host);
    struct bt_page **physical = &bt->by_physical[index & (PAGE_HASH - 1)];
    *p = (struct bt_page){.hash_next = *slot,
                          .physical_next = *physical,
                          .linear = linear,
                          .gpa = gpa,
                          .index = index,
                          .id = ++bt->next_id,
                          .gen = atomic_load(&cpu->machine->mem->page_gen[index]),
                          .patience = PATIENCE_MIN};
    *slot = p;
    *physical = p;
    return p;
}

/* ---- Blocks ---- */

static struct bt_block **block_slot(struct bt *bt, const struct bt_page *page, uint64_t rip,
                                    uint16_t mode)
{
    uint64_t h = (page->id ^ rip << 20 ^ (uint64_t)mode << 50) * UINT64_C(0x9e3779b97f4a7c15);
    return &bt->hash[h >> 40 & (BLOCK_HASH - 1)];
}

struct bt_block *bt_block_find(struct bt *bt, const struct bt_page *page, uint64_t rip,
                               uint16_t mode, bool plain)
{
    for (struct bt_block *b = *block_slot(bt, page, rip, mode); b; b = b->hash_next)
        if (b->rip == rip && b->page == page && b->mode == mode && b->plain == plain &&
            b->cs_base == bt->cs.base && b->cs_limit == bt->cs.limit)
            return b;
    return NULL;
}

void bt_block_add(struct bt *bt, struct bt_block *b)
{
    struct bt_block **slot = block_slot(bt, b->page, b->rip, b->mode);
    b->hash_next = *slot;
    *slot = b;
    b->page_next = b->page->blocks;
    b->page->blocks = b;
    if (b->tail) {
        b->tail_next = b->tail->tails;
        b->tail->tails = b;
    }
    b->placed = bt->stats.l1_flushes;
    bt_template_add(bt, b);
}

static void unlink_exit(struct vcpu *cpu, struct bt_exit *exit)
{
    struct bt_exit **at = &exit->to->in;
    while (*at != exit)
        at = &(*at)->next;
    *at = exit->next;
    exit->to = NULL;
    cpu->bt->stats.unlinks++;
}

void bt_link(struct vcpu *cpu, struct bt_exit *exit, struct bt_block *to)
{
    struct bt *bt = cpu->bt;
    if (cpu->machine->bt_off & BT_OFF_LINKS || exit->from->dead || to->dead ||
        exit->mode != to->mode || exit->target != to->rip || exit->from->cs_base != to->cs_base ||
        exit->from->cs_limit != to->cs_limit)
        return;
    if (exit->to == to)
        return; /* its page was not mapped there, for a while */
    if (exit->to)
        unlink_exit(cpu, exit);
    exit->to = to;
    exit->next = to->in;
    to->in = exit;
    bt->stats.links++;
    if (exit->crosses)
        bt_write_exit_stub(bt, exit);
    else
        put_target(exit->jump,
                   bt->write + ((exit->flags_live ? to->entry_live : to->entry_saved) - bt->exec));
}

void bt_block_remove(struct vcpu *cpu, struct bt_block *b)
{
    struct bt *bt = cpu->bt;
    while (b->in) {
        struct bt_exit *exit = b->in;
        unlink_exit(cpu, exit);
        bt_write_exit_stub(bt, exit);
        put_target(exit->jump, exit->stub);
    }
    for (unsigned i = 0; i < b->exit_count; i++)
        if (b->exits[i].to)
            unlink_exit(cpu, &b->exits[i]);
    bt_template_drop(bt, b);
    struct bt_block **at = block_slot(bt, b->page, b->rip, b->mode);
    while (*at != b)
        at = &(*at)->hash_next;
    *at = b->hash_next;
    at = &b->page->blocks;
    while (*at != b)
        at = &(*at)->page_next;
    *at = b->page_next;
    if (!b->tail)
        return;
    at = &b->tail->tails;
    while (*at != b)
        at = &(*at)->tail_next;
    *at = b->tail_next;
}

static void drop_block(struct vcpu *cpu, struct bt_block *b)
{
    bt_block_remove(cpu, b);
    b->dead = true;
}

/* Drop the page's blocks whose bytes are no longer what they were, or all of them. */
static bool drop_changed(struct vcpu *cpu, struct bt_page *p, bool all)
{
    const uint8_t *host = cpu->machine->mem->ram + (p->index << PAGE_SHIFT);
    bool dropped = false;
    for (struct bt_block *b = p->blocks, *next; b; b = next) {
        next = b->page_next;
        if (!all && memcmp(host + (bt_linear(b) & ~PAGE_MASK), b->bytes, bt_head(b)) == 0)
            continue;
        drop_block(cpu, b);
        cpu->bt->stats.invalidated++;
        dropped = true;
    }
    for (struct bt_block *b = p->tails, *next; b; b = next) {
        next = b->tail_next;
        if (!all && memcmp(host, b->bytes + bt_head(b), b->length - bt_head(b)) == 0)
            continue;
        drop_block(cpu, b);
        cpu->bt->stats.invalidated++;
        dropped = true;
    }
    return dropped;
}

/* A jump-cache entry may point into any dropped block. */
static void forget_jumps(struct bt *bt)
{
    memset(bt->jumps, 0, sizeof bt->jumps);
}

/*
 * A page may hold data beside code, or code that nobody will run again: Xen's stack lay where a
 * boot loader had been, and every push was heard of. So a page that is written to again and again
 * loses its blocks; what still runs is translated anew, and then has twice as long.
 */
void bt_page_written(struct vcpu *cpu, uint64_t index)
{
    struct bt *bt = cpu->bt;
    struct physmem *mem = cpu->machine->mem;
    bool dropped = false;
    for (struct bt_page *p = bt->by_physical[index & (PAGE_HASH - 1)]; p; p = p->physical_next) {
        if (p->index != index || !(p->blocks || p->tails))
            continue;
        bool enough = ++p->beside >= p->patience;
        if (enough) {
            p->beside = 0;
            p->patience = MIN(2 * p->patience, PATIENCE_MAX);
        } else {
            /* From here on writes are heard of again, so what is compared now stays known. */
            physmem_mark_code(mem, mem->ram + (index << PAGE_SHIFT));
        }
        p->gen = atomic_load(&mem->page_gen[index]);
        dropped |= drop_changed(cpu, p, enough);
    }
    if (dropped)
        forget_jumps(bt);
}

/* ---- Room ---- */

void bt_page_put(struct bt *bt, struct bt_page *page)
{
    if (page->blocks || page->tails || page == bt->page_in_use[0] || page == bt->page_in_use[1])
        return;
    struct bt_page **at = &bt->pages[page_slot(page->linear, page->gpa)];
    while (*at != page)
        at = &(*at)->hash_next;
    *at = page->hash_next;
    at = &bt->by_physical[page->index & (PAGE_HASH - 1)];
    while (*at != page)
        at = &(*at)->physical_next;
    *at = page->physical_next;
    free(page);
}

static void empty_segment(struct vcpu *cpu, unsigned n)
{
    struct bt *bt = cpu->bt;
    struct bt_segment *s = &bt->segments[n];
    if (s->data_used) {
        for (struct bt_block *b = s->blocks; b; b = b->segment_next) {
            if (b->dead)
                continue;
            drop_block(cpu, b);
            bt_page_put(bt, b->page);
            if (b->tail)
                bt_page_put(bt, b->tail);
        }
        forget_jumps(bt);
        bt_forget_returns(bt);
        bt->stats.evictions++;
        if (cpu->machine->perf_map)
            perf_map_evicted(cpu->machine->perf_map);
    }
    *s = (struct bt_segment){.code_used = n ? 0 : (uint32_t)bt->code_start};
}

void bt_drop_all(struct vcpu *cpu)
{
    for (unsigned n = 0; n < cpu->bt->segment_count; n++)
        empty_segment(cpu, n);
    cpu->bt->segment = 0;
}

void bt_forget_pages(struct vcpu *cpu)
{
    bt_drop_all(cpu);
    free_pages(cpu->bt);
}

/* The host allocates memory for both areas while others are being filled. They are used from front
 * to end the first time. */
#define AHEAD       (UINT64_C(256) << 10)
#define AHEAD_PIECE (UINT64_C(128) << 10)

static bool ask_ahead(const struct bt *bt, uint64_t used, uint64_t *asked, uint64_t *from,
                      uint64_t *size)
{
    uint64_t length = bt->segment_code * bt->segment_count;
    if (LIKELY(used + AHEAD <= *asked || *asked == length))
        return false;
    *from = MAX(used & PAGE_MASK, *asked);
    *asked = MIN((used & PAGE_MASK) + AHEAD + AHEAD_PIECE, length);
    *size = *asked - *from;
    return true;
}

static void populate(struct bt *bt, const struct bt_segment *s)
{
    struct populator *p = bt->cpu->machine->mem->populator;
    uint64_t from, size, n = bt->segment;
    if (ask_ahead(bt, n * bt->segment_code + s->code_used, &bt->code_asked, &from, &size)) {
        populator_ask(p, bt->write + from, size, false);
        populator_ask(p, bt->exec + from, size, true);
    }
    if (ask_ahead(bt, n * bt->segment_data + s->data_used, &bt->data_asked, &from, &size))
        populator_ask(p, bt->data + from, size, false);
}

uint8_t *bt_cache_reserve(struct vcpu *cpu, uint64_t code, uint64_t data)
{
    struct bt *bt = cpu->bt;
    struct bt_segment *s = &bt->segments[bt->segment];
    if (s->code_used + code > bt->segment_code || s->data_used + data > bt->segment_data) {
        bt->segment = (bt->segment + 1) % bt->segment_count;
        empty_segment(cpu, bt->segment);
        s = &bt->segments[bt->segment];
    }
    populate(bt, s);
    return bt->write + bt->segment * bt->segment_code + s->code_used;
}

void *bt_cache_data(struct bt *bt, uint64_t size)
{
    struct bt_segment *s = &bt->segments[bt->segment];
    void *p = bt->data + bt->segment * bt->segment_data + s->data_used;
    s->data_used += (uint32_t)ALIGN_UP(size, UINT64_C(8));
    memset(p, 0, size);
    return p;
}

void bt_cache_add(struct bt *bt, struct bt_block *b)
{
    struct bt_segment *s = &bt->segments[bt->segment];
    b->segment_next = s->blocks;
    s->blocks = b;
    bt_block_add(bt, b);
}

void bt_cache_commit(struct bt *bt, const uint8_t *end)
{
    struct bt_segment *s = &bt->segments[bt->segment];
    uint64_t start = bt->segment * bt->segment_code;
    s->code_used = (uint32_t)ALIGN_UP((uint64_t)(end - bt->write) - start, UINT64_C(16));
}
