/*
 * Which code is where: keys of the jump cache, and the table of pages that links between pages ask.
 * Both are of the address space that is loaded. One that is left is remembered, as the
 * interpreter's TLB keeps its entries: where CR3 is loaded without a flush, programs that run by
 * turns find theirs again.
 */
#include "bt/bt.h"

void bt_number_mode(struct bt *bt)
{
    const uint16_t modes[2] = {bt->mode, bt->mode ^ BT_AC};
    unsigned count = bt->mode & BT_SMAP ? 2 : 1;
    for (unsigned i = 0; i < count; i++) {
        if (bt->mode_number[modes[i]])
            continue;
        if (++bt->mode_numbers == MODES_MAX) {
            memset(bt->mode_number, 0, sizeof bt->mode_number);
            memset(bt->jumps, 0, sizeof bt->jumps);
            bt->mode_numbers = 1;
            i = 0;
        }
        bt->mode_number[modes[i]] = bt->mode_numbers;
    }
    bt_set_jump_keys(bt);
}

void bt_number_code_segment(struct bt *bt, uint32_t base, uint32_t limit)
{
    struct bt_code_segment *s =
        &bt->code_segments[(base >> 4 ^ base >> 14 ^ limit) & (CODE_SEGMENTS - 1)];
    if (!s->number || s->base != base || s->limit != limit) {
        if (!++bt->last_code_segment) { /* numbers start anew */
            memset(bt->code_segments, 0, sizeof bt->code_segments);
            memset(bt->jumps, 0, sizeof bt->jumps);
            bt->last_code_segment = 1;
        }
        *s = (struct bt_code_segment){base, limit, bt->last_code_segment};
    }
    bt->cs = *s;
}

unsigned bt_code_page_bit(uint64_t linear)
{
    return (unsigned)(linear >> PAGE_SHIFT ^ linear >> 25) & (CODE_PAGE_BITS - 1);
}

void bt_note_page(struct bt *bt, bool user, const struct bt_page *page)
{
    unsigned entry = page->linear >> PAGE_SHIFT & (PAGE_ID_ENTRIES - 1);
    unsigned bit = bt_code_page_bit(page->linear);
    bt->code_pages[bit / 64] |= UINT64_C(1) << bit % 64;
    bt->low_kernel |= !user && !(page->linear >> 63);
    uint32_t *id = &bt->page_id[user][entry];
    if (!*id)
        bt->page_ids[user][bt->page_id_count[user]++] = (uint16_t)entry;
    *id = page->id;
}

static void forget_pages(struct bt *bt, bool user)
{
    for (unsigned i = 0; i < bt->page_id_count[user]; i++)
        bt->page_id[user][bt->page_ids[user][i]] = 0;
    bt->page_id_count[user] = 0;
}

void bt_forget_spaces(struct bt *bt)
{
    bt->space_tag = bt->cpu->interp->tlb_tag[0];
    bt->space_wraps = bt->cpu->interp->wraps;
    for (unsigned i = 0; i < SPACES; i++)
        bt->spaces[i].tag = 0;
}

static void new_generation(struct bt *bt, bool user)
{
    if (++bt->last_gen[user] == 1 << 12) {
        memset(bt->jumps, 0, sizeof bt->jumps);
        bt_forget_spaces(bt);
        bt->last_gen[user] = 1;
    }
    bt->jump_gen[user] = bt->last_gen[user];
}

void bt_forget_jumps(struct bt *bt, bool user)
{
    new_generation(bt, user);
    bt_set_jump_keys(bt);
    bt_forget_returns(bt);
    forget_pages(bt, user);
}

static void leave(struct bt *bt)
{
    if (bt->page_id_count[1] > SPACE_PAGES)
        return;
    struct bt_space *s = &bt->spaces[0];
    for (unsigned i = 1; i < SPACES && s->tag; i++)
        if (!bt->spaces[i].tag || bt->spaces[i].used < s->used)
            s = &bt->spaces[i];
    s->tag = bt->space_tag;
    s->used = ++bt->spaces_used;
    s->gen = bt->jump_gen[1];
    s->count = (uint16_t)bt->page_id_count[1];
    for (unsigned i = 0; i < s->count; i++) {
        uint16_t entry = bt->page_ids[1][i];
        s->pages[i].entry = entry;
        s->pages[i].id = bt->page_id[1][entry];
    }
}

/* The one whose tag is loaded leaves the table: what is flushed from now on is not in it. */
static bool come_back(struct bt *bt)
{
    struct bt_space *s = bt->spaces;
    while (s < bt->spaces + SPACES && s->tag != bt->space_tag)
        s++;
    if (s == bt->spaces + SPACES)
        return false;
    s->tag = 0;
    bt->jump_gen[1] = s->gen;
    for (unsigned i = 0; i < s->count; i++) {
        bt->page_ids[1][i] = s->pages[i].entry;
        bt->page_id[1][s->pages[i].entry] = s->pages[i].id;
    }
    bt->page_id_count[1] = s->count;
    return true;
}

void bt_switch_space(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    const struct interp *in = cpu->interp;
    uint64_t tag = in->tlb_tag[0];
    bt_forget_returns(bt);
    if (in->wraps != bt->space_wraps) { /* tags started anew */
        bt_forget_spaces(bt);
        bt_forget_jumps(bt, true);
        return;
    }
    if (tag == bt->space_tag)
        return;
    leave(bt);
    bt->space_tag = tag;
    forget_pages(bt, true);
    if (!come_back(bt))
        new_generation(bt, true);
    bt_set_jump_keys(bt);
}
