/*
 * The usual miss of the first-level TLB. Compiled without vector registers, which may hold the
 * guest's: so it does no more than look into the second level.
 */
#include "bt/bt.h"

int bt_fill(struct vcpu *cpu, struct bt_site *site)
{
    struct bt *bt = cpu->bt;
    struct interp *in = cpu->interp;
    uint64_t linear = bt->linear, addend;
    unsigned slot = linear >> PAGE_SHIFT & (TLB_ENTRIES - 1);
    uint64_t tag = (linear & PAGE_MASK) | in->tlb_tag[linear >> 63];
    if ((linear & ~PAGE_MASK) + site->size > PAGE_SIZE)
        return bt_slow(cpu, site);
    if (site->write) {
        const struct tlb_write_entry *e = &in->wr[slot];
        if (e->tag != tag || *(const volatile uint8_t *)e->flags)
            return bt_slow(cpu, site);
        addend = e->addend;
    } else {
        if (in->rd[slot].tag != tag)
            return bt_slow(cpu, site);
        addend = in->rd[slot].addend;
    }
    bt->stats.fills++;
    bt->l1_used[in->context] = true;
    bt->l1_low[in->context] |= !(linear >> 63);
    bt->l1[in->context][site->write][linear >> PAGE_SHIFT & (L1_ENTRIES - 1)] =
        (struct l1_entry){linear & PAGE_MASK, addend};
    return GO_RETRY;
}
