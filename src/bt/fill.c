/*
 * What runs while the guest's vector registers are in the host's, and is compiled so that it leaves
 * them alone: the usual miss of the first-level TLB, what other vCPUs ask for, and the moves of the
 * x87 registers.
 */
#include "bt/bt.h"

/* 2 MiB that need no entries for their pages: false where one has to be made all the same. */
static bool in_large(struct vcpu *cpu, unsigned context, bool write, uint64_t linear,
                     uint64_t *addend)
{
    struct interp *in = cpu->interp;
    const struct physmem *mem = cpu->machine->mem;
    const struct tlb_entry *e = large_entry(in, context, write, linear);
    if (!large_hit(in, e, linear) || in->watching)
        return false;
    const uint8_t *host = (const uint8_t *)(uintptr_t)(linear + e->addend);
    *addend = e->addend;
    return mem->populated[(uint64_t)(host - mem->ram) / POPULATE_SIZE] == PIECE_USED &&
           !(write && physmem_page_flagged(mem, host));
}

int bt_fill(struct vcpu *cpu, struct bt_site *site)
{
    struct bt *bt = cpu->bt;
    struct interp *in = cpu->interp;
    uint64_t linear = bt->linear, addend;
    unsigned context = bt_context(site->block->mode); /* the interpreter's may be out of date */
    unsigned slot = tlb_slot(in, linear);
    uint64_t tag = (linear & PAGE_MASK) | in->tlb_tag[linear >> 63];
    if ((linear & ~PAGE_MASK) + site->size > PAGE_SIZE)
        return bt_slow(cpu, site);
    if (site->write) {
        const struct tlb_write_entry *e = &in->write_tlb[context][slot];
        addend = e->addend;
        if ((e->tag != tag || *(const volatile uint8_t *)e->flags) &&
            !in_large(cpu, context, true, linear, &addend))
            return bt_slow(cpu, site);
    } else {
        addend = in->read_tlb[context][slot].addend;
        if (in->read_tlb[context][slot].tag != tag &&
            !in_large(cpu, context, false, linear, &addend))
            return bt_slow(cpu, site);
    }
    bt_l1_enter(bt, context, site->write, linear, addend);
    return GO_RETRY;
}

/* The rest is compiled like any C code. */
void bt_purge_writes(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    uint8_t live = bt->vector_live;
    atomic_store(&bt->purge, false);
    if (live)
        bt->vectors_save();
    bt_clear_writes(cpu);
    if (live)
        bt->vectors_load[live]();
}

/* ---- x87 ---- */

#define X87_BYTES  160 /* of the FXSAVE image */
#define MXCSR_WORD 3   /* of 8 bytes: not the x87's */

static void copy_x87(void *to, const void *from)
{
    uint64_t *t = to;
    const uint64_t *f = from;
    for (unsigned i = 0; i < X87_BYTES / 8; i++)
        if (i != MXCSR_WORD)
            t[i] = f[i];
}

void bt_x87_load(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    copy_x87(bt->x87_area, &cpu->fpu.fx);
    bt->x87_area[512] = 1; /* XSTATE_BV: x87 */
    __asm__ volatile("xrstor64 %0" : : "m"(bt->x87_area), "a"(1), "d"(0) : "memory");
    bt->x87_live = true;
}

void bt_x87_save(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    struct fxsave *fx = &cpu->fpu.fx;
    uint64_t fip = fx->fip, fdp = fx->fdp;
    uint16_t fop = fx->fop;
    __asm__ volatile("xsave64 %0\n\tfninit" : "+m"(bt->x87_area) : "a"(1), "d"(0) : "memory");
    bt->x87_live = false;
    const struct bt_site *site = bt->x87_last;
    if (site) {
        const uint8_t *insn = site->block->bytes + site->offset;
        fip = site->block->rip + site->offset;
        while ((*insn & 0xf8) != 0xd8) /* prefixes */
            insn++;
        fop = (uint16_t)((insn[0] & 7) << 8 | insn[1]);
        cpu->fpu.fcs = cpu->seg[CS].selector;
    }
    site = bt->x87_data_site;
    if (site) {
        bool based = !(site->block->mode & BT_64) || site->segment >= FS;
        fdp = bt->x87_data - (based ? cpu->seg[site->segment].base : 0);
        cpu->fpu.fds = cpu->seg[site->segment].selector;
    }
    bt->x87_last = bt->x87_data_site = NULL;
    copy_x87(fx, bt->x87_area);
    fx->fip = fip;
    fx->fdp = fdp;
    fx->fop = fop;
}
