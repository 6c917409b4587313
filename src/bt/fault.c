/* Signals that translated code raises: the interpreter then runs the instruction. */
#include <signal.h>
#include <ucontext.h>

#include "bt/host.h"

static const struct bt_fault_point *find_point(const struct bt *bt, const uint8_t *code)
{
    for (unsigned i = 0; i < PAGE_HASH; i++)
        for (const struct bt_page *p = bt->pages[i]; p; p = p->hash_next)
            for (const struct bt_block *b = p->blocks; b; b = b->page_next)
                for (unsigned n = 0; n < b->fault_count; n++)
                    if (b->faults[n].code == code)
                        return &b->faults[n];
    return NULL;
}

bool bt_on_signal(int number, void *context)
{
    ucontext_t *uc = context;
    greg_t *regs = uc->uc_mcontext.gregs;
    const struct vcpu *cpu = bt_running();
    struct bt *bt = cpu ? cpu->bt : NULL;
    uint64_t size = bt ? bt->segment_code * bt->segment_count : 0;
    uintptr_t rip = (uintptr_t)regs[REG_RIP];
    if (!bt || rip < (uintptr_t)bt->exec || rip >= (uintptr_t)bt->exec + size)
        return false;
    const struct bt_fault_point *point = find_point(bt, (const uint8_t *)rip);
    if (!point)
        return false;
    uint32_t eflags = (uint32_t)regs[REG_EFL];
    if (point->flags_live)
        bt->flags = (eflags & 0xff) << 8 | (eflags >> 11 & 1);
    regs[REG_R11] = (greg_t)(uintptr_t)point->site;
    regs[REG_RIP] = (greg_t)(uintptr_t)bt->fault_stub;
    regs[REG_EFL] &= ~(greg_t)0x100; /* whatever it was, we do not single-step */
    return true;
}
