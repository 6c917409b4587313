/*
 * Hardware task switching (SDM vol. 3, chapter 7): TSS and TSS16, by JMP, CALL, IRET and through
 * task gates.
 *
 * The order is the SDM's (7.3): checks of the new TSS, the old state is saved, the new state is
 * loaded; what is wrong with the new task's segments is then a fault *in the new task*.
 */
#include "interp/system.h"

/* Where a TSS keeps things. */
struct tss_layout {
    uint32_t min_limit;
    uint8_t word; /* size of a register */
    uint8_t rip, flags, gprs, segs, ldt;
    uint8_t segments; /* how many: TSS16 has no FS and GS */
};
static const struct tss_layout tss16 = {43, 2, 14, 16, 18, 34, 42, 4};
static const struct tss_layout tss32 = {103, 4, 32, 36, 40, 72, 96, 6};

#define TSS32_CR3  28
#define TSS32_TRAP 100

static const uint8_t segment_order[] = {ES, CS, SS, DS, FS, GS};

static const struct tss_layout *layout_of(unsigned type)
{
    return type >= SYS_TSS ? &tss32 : &tss16;
}

static void save_state(struct vcpu *cpu, const struct op *op, uint64_t base,
                       const struct tss_layout *l, uint32_t flags, uint64_t rip)
{
    interp_store_system(cpu, op, base + l->rip, l->word, rip);
    interp_store_system(cpu, op, base + l->flags, l->word, flags);
    for (unsigned i = 0; i < 8; i++)
        interp_store_system(cpu, op, base + l->gprs + i * l->word, l->word, cpu->gpr[i]);
    for (unsigned i = 0; i < l->segments; i++)
        interp_store_system(cpu, op, base + l->segs + i * l->word, 2,
                            cpu->seg[segment_order[i]].selector);
}

struct task_state {
    uint32_t rip, flags, cr3, trap;
    uint32_t gpr[8];
    uint16_t seg[6], ldt;
};

static struct task_state load_state(struct vcpu *cpu, const struct op *op, uint64_t base,
                                    const struct tss_layout *l)
{
    struct task_state t = {.rip = (uint32_t)interp_load_system(cpu, op, base + l->rip, l->word),
                           .flags = (uint32_t)interp_load_system(cpu, op, base + l->flags, l->word),
                           .ldt = (uint16_t)interp_load_system(cpu, op, base + l->ldt, 2)};
    for (unsigned i = 0; i < 8; i++)
        t.gpr[i] = (uint32_t)interp_load_system(cpu, op, base + l->gprs + i * l->word, l->word) |
                   (l->word == 2 ? 0xffff0000u : 0);
    for (unsigned i = 0; i < l->segments; i++)
        t.seg[i] = (uint16_t)interp_load_system(cpu, op, base + l->segs + i * l->word, 2);
    if (l == &tss32) {
        t.cr3 = (uint32_t)interp_load_system(cpu, op, base + TSS32_CR3, 4);
        t.trap = (uint32_t)interp_load_system(cpu, op, base + TSS32_TRAP, 2) & 1;
    }
    return t;
}

static void set_busy(struct vcpu *cpu, const struct op *op, uint16_t selector, bool busy)
{
    uint64_t address = cpu->gdtr.base + (selector & ~7u) + 5;
    uint64_t byte = interp_load_system(cpu, op, address, 1);
    interp_store_system(cpu, op, address, 1, busy ? byte | 2 : byte & ~UINT64_C(2));
}

static void load_ldt(struct vcpu *cpu, uint16_t selector)
{
    cpu->ldtr = (struct segment){.selector = selector, .attr = SEG_UNUSABLE};
    if (selector_null(selector))
        return;
    if (selector & 4)
        interp_raise_error(cpu, NULL, VEC_TS, selector & ~3u);
    descriptor d = descriptor_need(cpu, NULL, selector, VEC_TS, 0, NULL);
    if (desc_s(d) || desc_type(d) != SYS_LDT || !desc_present(d))
        interp_raise_error(cpu, NULL, VEC_TS, selector & ~3u);
    cpu->ldtr = segment_of(selector, d);
}

/* Segments of the new task: #TS, #NP and #SS with the selector, in the new task's context. */
static void load_code(struct vcpu *cpu, uint16_t selector)
{
    uint64_t address;
    if (selector_null(selector))
        interp_raise_error(cpu, NULL, VEC_TS, 0);
    descriptor d = descriptor_need(cpu, NULL, selector, VEC_TS, 0, &address);
    unsigned rpl = selector & 3;
    if (!desc_is_code(d) || (desc_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl))
        interp_raise_error(cpu, NULL, VEC_TS, selector & ~3u);
    if (!desc_present(d))
        interp_raise_error(cpu, NULL, VEC_NP, selector & ~3u);
    descriptor_mark_accessed(cpu, NULL, address, &d);
    segment_set_cs(cpu, selector, d, rpl);
}

static void load_data(struct vcpu *cpu, unsigned seg, uint16_t selector)
{
    uint64_t address;
    if (selector_null(selector)) {
        cpu->seg[seg] = (struct segment){.selector = selector, .attr = SEG_UNUSABLE};
        return;
    }
    descriptor d = descriptor_need(cpu, NULL, selector, VEC_TS, 0, &address);
    bool readable = desc_s(d) && (!desc_is_code(d) || (desc_type(d) & 2));
    bool conforming = desc_is_code(d) && desc_conforming(d);
    if (!readable || (!conforming && (desc_dpl(d) < (selector & 3u) || desc_dpl(d) < cpu->cpl)))
        interp_raise_error(cpu, NULL, VEC_TS, selector & ~3u);
    if (!desc_present(d))
        interp_raise_error(cpu, NULL, VEC_NP, selector & ~3u);
    descriptor_mark_accessed(cpu, NULL, address, &d);
    cpu->seg[seg] = segment_of(selector, d);
}

static void load_segments(struct vcpu *cpu, const struct task_state *t)
{
    if (cpu->rflags & FLAG_VM) {
        cpu->cpl = 3;
        load_ldt(cpu, t->ldt);
        for (unsigned i = 0; i < 6; i++)
            segment_load_real(cpu, segment_order[i], t->seg[i]);
        return;
    }
    /* Until each is checked it is there by its selector alone. */
    for (unsigned i = 0; i < 6; i++)
        cpu->seg[segment_order[i]] = (struct segment){.selector = t->seg[i], .attr = SEG_UNUSABLE};
    cpu->cpl = t->seg[1] & 3;
    load_ldt(cpu, t->ldt);
    load_code(cpu, t->seg[1]);
    cpu->seg[SS] = segment_check_stack(cpu, NULL, t->seg[2], cpu->cpl, VEC_TS, 0);
    load_data(cpu, ES, t->seg[0]);
    load_data(cpu, DS, t->seg[3]);
    load_data(cpu, FS, t->seg[4]);
    load_data(cpu, GS, t->seg[5]);
}

/* The new TSS's descriptor, checked. */
static descriptor new_tss(struct vcpu *cpu, const struct op *op, uint16_t selector,
                          enum task_switch kind, unsigned ext)
{
    enum vector bad = kind == TASK_IRET ? VEC_TS : VEC_GP;
    if (selector & 4)
        interp_raise_error(cpu, op, bad, (selector & ~3u) | ext);
    descriptor d = descriptor_need(cpu, op, selector, bad, ext, NULL);
    unsigned type = desc_type(d);
    bool busy = type == SYS_TSS_BUSY || type == SYS_TSS16_BUSY;
    bool available = type == SYS_TSS || type == SYS_TSS16;
    if (desc_s(d) || (kind == TASK_IRET ? !busy : !available))
        interp_raise_error(cpu, op, bad, (selector & ~3u) | ext);
    if (!desc_present(d))
        interp_raise_error(cpu, op, VEC_NP, (selector & ~3u) | ext);
    if (segment_of(selector, d).limit < layout_of(type)->min_limit)
        interp_raise_error(cpu, op, VEC_TS, (selector & ~3u) | ext);
    return d;
}

void task_switch(struct vcpu *cpu, const struct op *op, uint16_t selector, enum task_switch kind,
                 uint64_t return_rip, bool has_error, uint32_t error, unsigned ext)
{
    descriptor d = new_tss(cpu, op, selector, kind, ext);
    struct segment next = segment_of(selector, d);
    const struct tss_layout *to = layout_of(desc_type(d));
    const struct tss_layout *from = layout_of(cpu->tr.attr & SEG_TYPE);
    bool nests = kind == TASK_CALL || kind == TASK_GATE;

    struct task_state t = load_state(cpu, op, next.base, to);
    uint32_t flags = cpu_rflags(cpu);
    if (kind == TASK_IRET)
        flags &= ~FLAG_NT;
    save_state(cpu, op, cpu->tr.base, from, flags, return_rip);
    if (!nests)
        set_busy(cpu, op, cpu->tr.selector, false);
    if (nests) {
        interp_store_system(cpu, op, next.base, 2, cpu->tr.selector);
        t.flags |= FLAG_NT;
    }
    if (kind != TASK_IRET)
        set_busy(cpu, op, selector, true);

    /* From here on we are in the new task. */
    next.attr |= 2;
    cpu->tr = next;
    cpu->cr0 |= CR0_TS;
    if (to == &tss32 && (cpu->cr0 & CR0_PG)) {
        if (!(cpu->cr4 & CR4_PAE) || paging_load_pdptes(cpu, t.cr3))
            cpu->cr3 = t.cr3;
        interp_flush_tlb(cpu);
    }
    cpu->rip = t.rip;
    cpu_set_rflags(cpu, t.flags);
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = t.gpr[i];
    cpu->dr[7] &= ~UINT64_C(0x155); /* local breakpoints */
    load_segments(cpu, &t);
    interp_mode_changed(cpu);
    if ((cpu->rflags & FLAG_IF) && atomic_load(&cpu->intr_asserted))
        atomic_fetch_or(&cpu->attention, ATT_INTR);
    if (has_error) {
        struct stack s = stack_current(cpu, NULL);
        stack_push(&s, to->word, error);
        stack_commit(&s);
    }
    if (cpu->rip > cpu->seg[CS].limit)
        interp_raise_error(cpu, NULL, VEC_GP, 0);
    if (t.trap)
        cpu->pending_db |= BIT64(15); /* BT */
}
