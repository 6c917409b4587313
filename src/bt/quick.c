/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT and IRET in their common forms, between rings 0 and 3 of code
 * of one width: straight from translated code to translated code. Whatever is not as usual is left
 * to the interpreter, with nothing changed. Compiled so that vector registers stay untouched.
 */
#include "bt/bt.h"
#include "interp/system.h"

#define USUAL_CODE   (SEG_P | SEG_S | SEG_CODE | SEG_L | SEG_ACCESSED)
#define USUAL_CODE32 (SEG_P | SEG_S | SEG_CODE | SEG_DB | SEG_ACCESSED)
#define USUAL_DATA   (SEG_P | SEG_S | SEG_WRITE | SEG_ACCESSED)

/* What interp_mode_changed() does, where CPL and AC alone have changed; and the translator's mode.
 * False: that mode has not been met yet. */
static bool set_ring(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    interp_ring_changed(cpu);
    uint16_t mode = bt->mode & (uint16_t) ~(BT_USER | BT_OUTER | BT_AC | BT_SMAP);
    if (cpu->cpl == 3)
        mode |= BT_USER;
    else if (cpu->cr4 & CR4_SMAP)
        mode |= BT_SMAP | (cpu->rflags & FLAG_AC ? BT_AC : 0);
    if (!bt->mode_number[mode])
        return false;
    bt->mode = mode;
    bt_set_jump_keys(bt);
    bt_forget_returns(bt);
    return true;
}

static void load_flags(struct vcpu *cpu, uint32_t flags, uint32_t mask)
{
    uint32_t old = cpu_rflags(cpu);
    cpu_set_rflags(cpu, (old & ~mask) | (flags & mask));
    if ((cpu->rflags & FLAG_IF) && atomic_load_explicit(&cpu->intr_asserted, memory_order_seq_cst))
        atomic_fetch_or(&cpu->attention, ATT_INTR);
}

static bool debugging(const struct vcpu *cpu)
{
    return cpu->interp->single || (cpu->dr[7] & 0xff);
}

#define FLAT_CODE(dpl, size)                                                                       \
    (SEG_G | (uint32_t)(dpl) << SEG_DPL_SHIFT | SEG_P | SEG_S | SEG_CODE | SEG_WRITE |             \
     SEG_ACCESSED | (size))
#define FLAT_DATA(dpl)                                                                             \
    (SEG_G | SEG_DB | SEG_P | (uint32_t)(dpl) << SEG_DPL_SHIFT | SEG_S | SEG_WRITE | SEG_ACCESSED)

static void set_flat(struct segment *s, unsigned selector, uint32_t attr)
{
    s->selector = (uint16_t)selector;
    s->attr = attr;
    s->limit = 0xffffffff;
    s->base = 0;
}

static bool quick_syscall(struct vcpu *cpu, const struct bt_site *site)
{
    if (!(cpu->efer & EFER_SCE) || cpu->cpl != 3 || !is_canonical(cpu->lstar))
        return false;
    unsigned cs = (unsigned)(cpu->star >> 32) & 0xfffc;
    uint32_t flags = cpu_rflags(cpu) & ~FLAG_RF;
    cpu->gpr[RCX] = site->block->rip + site->offset + site->length;
    cpu->gpr[R11] = flags;
    cpu->rip = cpu->lstar;
    set_flat(&cpu->seg[CS], cs, FLAT_CODE(0, SEG_L));
    set_flat(&cpu->seg[SS], cs + 8, FLAT_DATA(0));
    cpu->cpl = 0;
    cpu_set_rflags(cpu, flags & ~(uint32_t)cpu->sfmask);
    return true;
}

static bool quick_sysret(struct vcpu *cpu, const struct bt_site *site)
{
    const uint8_t *insn = site->block->bytes + site->offset;
    if (site->length != 3 || insn[0] != 0x48 || !(cpu->efer & EFER_SCE) || cpu->cpl != 0 ||
        !is_canonical(cpu->gpr[RCX]) || (cpu->gpr[R11] & FLAG_TF))
        return false;
    unsigned base = (unsigned)(cpu->star >> 48);
    cpu->rip = cpu->gpr[RCX];
    set_flat(&cpu->seg[CS], (base + 16) | 3, FLAT_CODE(3, SEG_L));
    struct segment *ss = &cpu->seg[SS];
    if (cpu->machine->cpuid.vendor == VENDOR_INTEL) {
        set_flat(ss, (base + 8) | 3, FLAT_DATA(3));
    } else { /* what is cached of SS stays */
        ss->selector = (uint16_t)((base + 8) | 3);
        ss->attr = (ss->attr & ~SEG_UNUSABLE) | 3u << SEG_DPL_SHIFT;
    }
    cpu->cpl = 3;
    load_flags(cpu, (uint32_t)cpu->gpr[R11], 0x3c7fd7 & ~FLAG_RF);
    return true;
}

/* Where the interpreter's TLB has `size` bytes at `linear` for reading; NULL: ask it. */
static const void *look(const struct vcpu *cpu, unsigned context, uint64_t linear, unsigned size)
{
    const struct interp *in = cpu->interp;
    const struct tlb_entry *e = &in->read_tlb[context][tlb_slot(in, linear)];
    return tlb_hit(in, e->tag, linear, size) ? (const void *)(uintptr_t)(linear + e->addend) : NULL;
}

/* The descriptor of `selector`, where it has the attributes `usual` and the privilege of it. */
static bool usual_segment(const struct vcpu *cpu, unsigned selector, uint32_t usual,
                          struct segment *s)
{
    unsigned rpl = selector & 3;
    if ((selector & 4) || selector < 8 || (selector | 7) > cpu->gdtr.limit)
        return false;
    const uint64_t *at = look(cpu, TLB_SUPERVISOR, cpu->gdtr.base + (selector & ~7u), 8);
    if (!at)
        return false;
    uint64_t d = host_load(at, 8);
    uint32_t attr = (uint32_t)(d >> 40) & 0xf0ff;
    /* Readable code or not, 32-bit data or not, large or not: no matter. */
    uint32_t dont_care =
        SEG_G | SEG_AVL | 3u << SEG_DPL_SHIFT | (usual & SEG_CODE ? SEG_WRITE : SEG_DB | SEG_L);
    if ((attr & ~dont_care) != usual || (attr >> SEG_DPL_SHIFT & 3) != rpl)
        return false;
    uint32_t limit = (uint32_t)(d & 0xffff) | (uint32_t)(d >> 32 & 0xf0000);
    s->selector = (uint16_t)selector;
    s->attr = attr;
    s->limit = attr & SEG_G ? limit << 12 | 0xfff : limit;
    s->base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000);
    return true;
}

/* Returning to ring 3 takes inner rings' data segments away. */
static bool would_drop(const struct vcpu *cpu)
{
    static const uint8_t data[] = {ES, DS, FS, GS};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        uint32_t attr = cpu->seg[data[i]].attr;
        if (!(attr & SEG_UNUSABLE) && (attr >> SEG_DPL_SHIFT & 3) < 3)
            return true;
    }
    return false;
}

/* IRET at CPL 0 is sure to succeed: what it loads. */
static void finish_iret(struct vcpu *cpu, uint64_t rip, uint64_t sp, const struct segment *code,
                        const struct segment *stack, uint32_t flags)
{
    cpu->rip = rip;
    cpu->gpr[RSP] = sp;
    cpu->seg[CS] = *code;
    cpu->seg[SS] = *stack;
    cpu->cpl = code->selector & 3;
    load_flags(cpu, flags,
               FLAGS_ARITH | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID | FLAG_IF | FLAG_IOPL | FLAG_RF |
                   FLAG_VIF | FLAG_VIP);
    cpu->rflags &= ~FLAG_RF; /* nobody looks at it before the next instruction is done */
    cpu->nmi_blocked = false;
}

static bool quick_iret(struct vcpu *cpu, const struct bt_site *site)
{
    uint64_t sp = cpu->gpr[RSP];
    if (cpu->cpl != 0 || (cpu->rflags & FLAG_NT) || !is_canonical(sp))
        return false;
    const uint8_t *frame = look(cpu, bt_context(cpu->bt->mode), sp, 40);
    if (!frame)
        return false;
    uint64_t rip = host_load(frame, 8), new_sp = host_load(frame + 24, 8);
    unsigned cs = (uint16_t)host_load(frame + 8, 8), ss = (uint16_t)host_load(frame + 32, 8);
    uint32_t flags = (uint32_t)host_load(frame + 16, 8);
    unsigned cpl = cs & 3;
    struct segment code, stack = {.selector = 0, .attr = SEG_UNUSABLE};
    if ((cpl != 0 && cpl != 3) || !is_canonical(rip) ||
        (flags & (FLAG_TF | FLAG_NT | FLAG_VIF | FLAG_VIP | FLAG_VM)) ||
        ((flags & FLAG_RF) && debugging(cpu)) || !usual_segment(cpu, cs, USUAL_CODE, &code) ||
        ((ss & 3) != cpl) || ((ss || cpl) && !usual_segment(cpu, ss, USUAL_DATA, &stack)) ||
        (cpl == 3 && would_drop(cpu)))
        return false;
    finish_iret(cpu, rip, new_sp, &code, &stack, flags);
    return true;
}

/* ---- 32-bit code, outside long mode ---- */

static void enter_ring32(struct vcpu *cpu, unsigned cs, unsigned ring, uint64_t rip, uint64_t sp)
{
    cpu->rip = (uint32_t)rip;
    cpu->gpr[RSP] = (uint32_t)sp;
    set_flat(&cpu->seg[CS], cs, FLAT_CODE(ring, SEG_DB));
    set_flat(&cpu->seg[SS], cs + 8, FLAT_DATA(ring));
    cpu->cpl = (uint8_t)ring;
}

static bool quick_sysenter(struct vcpu *cpu)
{
    unsigned cs = (unsigned)cpu->sysenter_cs & 0xfffc;
    if (!cs)
        return false;
    cpu->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
    enter_ring32(cpu, cs, 0, cpu->sysenter_eip, cpu->sysenter_esp);
    return true;
}

static bool quick_sysexit(struct vcpu *cpu)
{
    unsigned cs = (unsigned)cpu->sysenter_cs & 0xfffc;
    if (!cs || cpu->cpl != 0)
        return false;
    enter_ring32(cpu, (cs + 16) | 3, 3, cpu->gpr[RDX], cpu->gpr[RCX]);
    return true;
}

static bool flat32(const struct segment *s)
{
    return (s->attr & SEG_DB) && s->base == 0 && s->limit == 0xffffffff;
}

static bool quick_iret32(struct vcpu *cpu)
{
    uint64_t sp = (uint32_t)cpu->gpr[RSP];
    if (cpu->cpl != 0 || (cpu->rflags & FLAG_NT))
        return false;
    const uint8_t *frame = look(cpu, bt_context(cpu->bt->mode), sp, 12);
    if (!frame)
        return false;
    uint32_t eip = (uint32_t)host_load(frame, 4), flags = (uint32_t)host_load(frame + 8, 4);
    unsigned cs = (uint16_t)host_load(frame + 4, 4), cpl = cs & 3;
    struct segment code, stack = cpu->seg[SS];
    uint64_t new_sp = (uint32_t)(sp + 12);
    if ((cpl != 0 && cpl != 3) || (flags & (FLAG_TF | FLAG_NT | FLAG_VIF | FLAG_VIP | FLAG_VM)) ||
        ((flags & FLAG_RF) && debugging(cpu)) || !usual_segment(cpu, cs, USUAL_CODE32, &code) ||
        !flat32(&code))
        return false;
    if (cpl == 3) {
        frame = look(cpu, bt_context(cpu->bt->mode), sp, 20);
        if (!frame)
            return false;
        unsigned ss = (uint16_t)host_load(frame + 16, 4);
        new_sp = host_load(frame + 12, 4);
        if ((ss & 3) != 3 || !usual_segment(cpu, ss, USUAL_DATA, &stack) || !flat32(&stack) ||
            would_drop(cpu))
            return false;
    }
    finish_iret(cpu, eip, new_sp, &code, &stack, flags);
    return true;
}

static bool run32(struct vcpu *cpu, const struct bt_site *site)
{
    if (cpu->efer & EFER_LMA)
        return false;
    switch (site->mnemonic) {
    case ZYDIS_MNEMONIC_SYSENTER:
        return quick_sysenter(cpu);
    case ZYDIS_MNEMONIC_SYSEXIT:
        return quick_sysexit(cpu);
    case ZYDIS_MNEMONIC_IRETD:
        return quick_iret32(cpu);
    default:
        return false;
    }
}

static bool run(struct vcpu *cpu, const struct bt_site *site)
{
    switch (site->mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
        return quick_syscall(cpu, site);
    case ZYDIS_MNEMONIC_SYSRET:
        return quick_sysret(cpu, site);
    case ZYDIS_MNEMONIC_IRETQ:
        return quick_iret(cpu, site);
    default:
        return false;
    }
}

const void *bt_callout_end(struct vcpu *cpu, struct bt_site *site)
{
    struct bt *bt = cpu->bt;
    if (site->straddles)
        return bt_callout_end_slow(cpu, site);
    cpu->cc = flags_from_ax((uint32_t)bt->flags & 0xffff);
    if (bt->mode & BT_SEGMENTS || !(bt->mode & BT_64 ? run(cpu, site) : run32(cpu, site)))
        return bt_callout_end_slow(cpu, site);
    bt->flags = ax_from_flags(cpu->cc);
    bt->stats.callouts++;
    bt->stats.quick++;
    bt->stats.by_mnemonic[site->mnemonic]++;
    if (!set_ring(cpu) || cpu->interp->align_check ||
        atomic_load_explicit(&cpu->attention, memory_order_relaxed) ||
        (bt->leave_for_user && cpu->cpl == 3) || bt->log || bt->verify)
        return NULL;
    const struct jump_cache_entry *e = bt_jump_cache_slot(bt, cpu->rip);
    if (e->key == bt_key_of(bt, cpu->rip))
        return e->code;
    return bt_next_code(cpu);
}
