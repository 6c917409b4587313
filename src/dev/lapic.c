/*
 * The local APIC.
 *
 * Who may touch what. The owner is the vCPU's thread; it alone reads and writes the registers.
 * Other threads only post: they set a bit of IRR atomically and then tell the processor.
 *
 * No interrupt is lost: a poster sets IRR, then `intr(true)`. The owner, when it finds nothing
 * deliverable, says `intr(false)` and only then looks at IRR once more. All of these are
 * sequentially consistent, so either the poster's "true" comes after the owner's "false", or the
 * owner's second look sees the bit.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/lapic_internal.h"
#include "util/util.h"

#define LAPIC_VERSION        0x00050014u /* version 0x14, six LVT entries */
#define LAPIC_BASE           0xfee00000u

#define BASE_BSP             BIT(8)
#define BASE_X2APIC          BIT(10)
#define BASE_ENABLE          BIT(11)
#define SVR_ENABLE           BIT(8)
#define LVT_PENDING          BIT(12) /* read-only */
#define LVT_REMOTE_IRR       BIT(14) /* of LINT0 and LINT1: read-only */
#define ESR_ILLEGAL_REGISTER BIT(7)
#define ESR_SEND_ILLEGAL     BIT(5)
#define ESR_RECEIVE_ILLEGAL  BIT(6)

/* Register offsets in the xAPIC page; an x2APIC MSR is 0x800 + offset / 16. */
enum {
    REG_ID = 0x20,
    REG_VERSION = 0x30,
    REG_TPR = 0x80,
    REG_APR = 0x90,
    REG_PPR = 0xa0,
    REG_EOI = 0xb0,
    REG_RRD = 0xc0,
    REG_LDR = 0xd0,
    REG_DFR = 0xe0,
    REG_SVR = 0xf0,
    REG_ISR = 0x100,
    REG_TMR = 0x180,
    REG_IRR = 0x200,
    REG_ESR = 0x280,
    REG_ICR_LOW = 0x300,
    REG_ICR_HIGH = 0x310,
    REG_LVT = 0x320,
    REG_INITIAL = 0x380,
    REG_CURRENT = 0x390,
    REG_DIVIDE = 0x3e0,
    REG_SELF_IPI = 0x3f0,
};
/* Bits of each LVT entry that can be written. */
static const uint32_t lvt_writable[LVTS] = {0x000700ff, 0x000107ff, 0x000107ff,
                                            0x0001a7ff, 0x0001a7ff, 0x000100ff};

/* ---- Bits of ISR, TMR, IRR ---- */

static void set_bit(uint32_t *words, unsigned n)
{
    __atomic_fetch_or(&words[n / 32], BIT(n % 32), __ATOMIC_SEQ_CST);
}

static void clear_bit(uint32_t *words, unsigned n)
{
    __atomic_fetch_and(&words[n / 32], ~BIT(n % 32), __ATOMIC_SEQ_CST);
}

static bool get_bit(const uint32_t *words, unsigned n)
{
    return __atomic_load_n(&words[n / 32], __ATOMIC_SEQ_CST) >> (n % 32) & 1;
}

static int highest_bit(const uint32_t *words)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t w = __atomic_load_n(&words[i], __ATOMIC_SEQ_CST);
        if (w)
            return i * 32 + 31 - __builtin_clz(w);
    }
    return -1;
}

/* ---- Priorities ---- */

static bool enabled(const struct lapic *a)
{
    return (a->base & BASE_ENABLE) && (a->svr & SVR_ENABLE);
}

static bool x2apic(const struct lapic *a)
{
    return a->base & BASE_X2APIC;
}

static uint32_t ppr(const struct lapic *a)
{
    int in_service = highest_bit(a->isr);
    uint32_t isrv = in_service < 0 ? 0 : (uint32_t)in_service;
    return (a->tpr & 0xf0) >= (isrv & 0xf0) ? a->tpr : isrv & 0xf0;
}

/* The highest request above the processor's priority, or -1. */
static int deliverable(const struct lapic *a)
{
    if (!enabled(a))
        return -1;
    int vector = highest_bit(a->irr);
    return vector >= 0 && ((uint32_t)vector & 0xf0) > (ppr(a) & 0xf0) ? vector : -1;
}

static bool extint_wired(const struct lapic *a)
{
    if (!a->bsp)
        return false;
    if (!(a->base & BASE_ENABLE))
        return true; /* the pin is INTR itself */
    uint32_t lint0 = __atomic_load_n(&a->lvt[LVT_LINT0], __ATOMIC_RELAXED);
    return !(lint0 & LVT_MASKED) && (lint0 >> 8 & 7) == DELIVER_EXTINT;
}

static bool extint_pending(const struct lapic *a)
{
    return __atomic_load_n(&a->all->extint, __ATOMIC_SEQ_CST) && extint_wired(a);
}

bool lapic_has_interrupt(struct lapic *a)
{
    return deliverable(a) >= 0 || extint_pending(a);
}

/* The owner looks again after anything that may change what is deliverable. */
static void update(struct lapic *a)
{
    if (!lapic_has_interrupt(a))
        a->ops->intr(a->cpu, false);
    if (lapic_has_interrupt(a))
        a->ops->intr(a->cpu, true);
}

static void tell_taken(struct lapic *a, unsigned vector)
{
    pthread_mutex_lock(a->env->lock);
    clear_bit(a->all->watched, vector);
    a->all->taken(a->all->taken_opaque);
    pthread_mutex_unlock(a->env->lock);
}

int lapic_ack(struct lapic *a)
{
    int vector = deliverable(a);
    if (vector >= 0) {
        clear_bit(a->irr, (unsigned)vector);
        set_bit(a->isr, (unsigned)vector);
        if (get_bit(a->all->watched, (unsigned)vector))
            tell_taken(a, (unsigned)vector);
    } else if (extint_pending(a)) {
        pthread_mutex_lock(a->env->lock);
        if (__atomic_load_n(&a->all->extint, __ATOMIC_SEQ_CST) && a->all->ack)
            vector = a->all->ack(a->all->ack_opaque);
        pthread_mutex_unlock(a->env->lock);
    }
    update(a);
    return vector;
}

/* ---- Delivery ---- */

static void raise_error(struct lapic *a, uint32_t bit);

void lapic_post(struct lapic *a, uint8_t vector, bool level)
{
    if (vector < 16) {
        raise_error(a, ESR_RECEIVE_ILLEGAL);
        return;
    }
    if (!enabled(a))
        return;
    if (level)
        set_bit(a->tmr, vector);
    else
        clear_bit(a->tmr, vector);
    set_bit(a->irr, vector);
    a->ops->intr(a->cpu, true);
}

static void raise_error(struct lapic *a, uint32_t bit)
{
    __atomic_fetch_or(&a->esr_latched, bit, __ATOMIC_SEQ_CST);
    uint32_t lvt = a->lvt[LVT_ERROR];
    if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
        lapic_post(a, (uint8_t)lvt, false);
}

static void accept_message(struct lapic *a, const struct apic_message *m)
{
    switch (m->mode) {
    case DELIVER_FIXED:
    case DELIVER_LOWEST:
        lapic_post(a, m->vector, m->level);
        break;
    case DELIVER_SMI:
        a->ops->smi(a->cpu);
        break;
    case DELIVER_NMI:
        a->ops->nmi(a->cpu);
        break;
    case DELIVER_INIT:
        a->ops->init(a->cpu);
        break;
    case DELIVER_SIPI:
        a->ops->sipi(a->cpu, m->vector);
        break;
    default:
        break;
    }
}

static uint32_t logical_id(const struct lapic *a)
{
    return x2apic(a) ? a->id >> 4 << 16 | BIT(a->id & 15) : a->ldr;
}

static bool matches(const struct lapic *a, const struct apic_message *m)
{
    if (!(a->base & BASE_ENABLE) && m->mode != DELIVER_INIT && m->mode != DELIVER_SIPI &&
        m->mode != DELIVER_NMI)
        return false;
    if (m->destination == 0xff || m->destination == 0xffffffff)
        return true;
    if (!m->logical)
        return m->destination == a->id;
    uint32_t own = logical_id(a);
    if (x2apic(a))
        return m->destination >> 16 == own >> 16 && (m->destination & own & 0xffff);
    own >>= 24;
    if (a->dfr >> 28 == 0xf) /* flat */
        return m->destination & own;
    return (m->destination & 0xf0) == (own & 0xf0) && (m->destination & own & 0x0f);
}

bool lapics_deliver(struct lapics *all, const struct apic_message *m)
{
    bool lowest = m->mode == DELIVER_LOWEST;
    unsigned start = lowest ? __atomic_add_fetch(&all->last_lowest, 1, __ATOMIC_RELAXED) : 0;
    bool taken = false;
    for (unsigned n = 0; n < all->count; n++) {
        struct lapic *a = all->apics[(start + n) % all->count];
        if (!matches(a, m) || (lowest && !enabled(a)))
            continue;
        accept_message(a, m);
        taken = true;
        if (lowest)
            break;
    }
    return taken;
}

bool lapics_waits(struct lapics *all, const struct apic_message *m)
{
    if (m->mode != DELIVER_FIXED && m->mode != DELIVER_LOWEST)
        return false;
    /* First the wish to hear of it, then the look: whichever thread comes second sees the other. */
    set_bit(all->watched, m->vector);
    for (unsigned n = 0; n < all->count; n++) {
        const struct lapic *a = all->apics[n];
        if (matches(a, m) && enabled(a) && get_bit(a->irr, m->vector))
            return true;
    }
    clear_bit(all->watched, m->vector);
    return false;
}

static void send_icr(struct lapic *a)
{
    uint32_t low = (uint32_t)a->icr;
    struct apic_message m = {.destination =
                                 x2apic(a) ? (uint32_t)(a->icr >> 32) : (uint32_t)(a->icr >> 56),
                             .logical = low >> 11 & 1,
                             .mode = low >> 8 & 7,
                             .vector = (uint8_t)low,
                             .level = low >> 15 & 1,
                             .asserted = low >> 14 & 1};
    /* INIT with level de-assert only set arbitration IDs, long ago. */
    if (m.mode == DELIVER_INIT && m.level && !m.asserted)
        return;
    m.level = false; /* IPIs are edges */
    if ((m.mode == DELIVER_FIXED || m.mode == DELIVER_LOWEST) && m.vector < 16)
        raise_error(a, ESR_SEND_ILLEGAL);
    switch (low >> 18 & 3) {
    case 0:
        lapics_deliver(a->all, &m);
        break;
    case 1:
        accept_message(a, &m);
        break;
    default:
        for (unsigned i = 0; i < a->all->count; i++)
            if (a->all->apics[i] != a || (low >> 18 & 3) == 2)
                accept_message(a->all->apics[i], &m);
    }
}

static void write_eoi(struct lapic *a)
{
    int vector = highest_bit(a->isr);
    if (vector < 0)
        return;
    clear_bit(a->isr, (unsigned)vector);
    if (get_bit(a->tmr, (unsigned)vector) && a->all->eoi) {
        pthread_mutex_lock(a->env->lock);
        a->all->eoi(a->all->eoi_opaque, (uint8_t)vector);
        pthread_mutex_unlock(a->env->lock);
    }
    update(a);
}

/* ---- Registers ---- */

static void write_lvt(struct lapic *a, unsigned n, uint32_t value)
{
    value &= lvt_writable[n];
    if (!(a->svr & SVR_ENABLE))
        value |= LVT_MASKED;
    if (n == LVT_TIMER) {
        lapic_timer_set_lvt(a, value);
        return;
    }
    __atomic_store_n(&a->lvt[n], value, __ATOMIC_SEQ_CST);
    update(a);
}

static void write_svr(struct lapic *a, uint32_t value)
{
    a->svr = value & 0x1ff;
    if (!(a->svr & SVR_ENABLE))
        for (unsigned n = 0; n < LVTS; n++)
            a->lvt[n] |= LVT_MASKED;
    update(a);
}

static uint32_t read_register(struct lapic *a, uint32_t offset)
{
    if (offset >= REG_ISR && offset < REG_ISR + 0x80)
        return a->isr[(offset - REG_ISR) / 16];
    if (offset >= REG_TMR && offset < REG_TMR + 0x80)
        return a->tmr[(offset - REG_TMR) / 16];
    if (offset >= REG_IRR && offset < REG_IRR + 0x80)
        return __atomic_load_n(&a->irr[(offset - REG_IRR) / 16], __ATOMIC_SEQ_CST);
    if (offset >= REG_LVT && offset < REG_LVT + 16 * LVTS)
        return a->lvt[(offset - REG_LVT) / 16];
    switch (offset) {
    case REG_ID:
        return x2apic(a) ? a->id : a->id << 24;
    case REG_VERSION:
        return LAPIC_VERSION;
    case REG_TPR:
        return a->tpr;
    case REG_APR:
    case REG_PPR:
        return ppr(a);
    case REG_LDR:
        return x2apic(a) ? logical_id(a) : a->ldr;
    case REG_DFR:
        return a->dfr;
    case REG_SVR:
        return a->svr;
    case REG_ESR:
        return a->esr;
    case REG_ICR_LOW:
        return (uint32_t)a->icr;
    case REG_ICR_HIGH:
        return (uint32_t)(a->icr >> 32);
    case REG_INITIAL:
        return a->initial;
    case REG_CURRENT:
        return lapic_timer_count(a);
    case REG_DIVIDE:
        return a->divide;
    case REG_EOI:
    case REG_RRD:
        return 0;
    default:
        raise_error(a, ESR_ILLEGAL_REGISTER);
        return 0;
    }
}

static void write_register(struct lapic *a, uint32_t offset, uint32_t value)
{
    if (offset >= REG_LVT && offset < REG_LVT + 16 * LVTS) {
        write_lvt(a, (offset - REG_LVT) / 16, value);
        return;
    }
    switch (offset) {
    case REG_TPR:
        a->tpr = value & 0xff;
        update(a);
        break;
    case REG_EOI:
        write_eoi(a);
        break;
    case REG_LDR:
        a->ldr = value & 0xff000000;
        break;
    case REG_DFR:
        a->dfr = value | 0x0fffffff;
        break;
    case REG_SVR:
        write_svr(a, value);
        break;
    case REG_ESR: /* a write shows what has gathered since the last one */
        a->esr = __atomic_exchange_n(&a->esr_latched, 0, __ATOMIC_SEQ_CST);
        break;
    case REG_ICR_LOW:
        a->icr = (a->icr & ~UINT64_C(0xffffffff)) | (value & ~LVT_PENDING);
        send_icr(a);
        break;
    case REG_ICR_HIGH:
        a->icr = (uint32_t)a->icr | (uint64_t)(value & 0xff000000) << 32;
        break;
    case REG_INITIAL:
        lapic_timer_set_initial(a, value);
        break;
    case REG_DIVIDE:
        lapic_timer_set_divide(a, value & 0xb);
        break;
    case REG_ID: /* read-only, as on all processors since the P6 */
    case REG_CURRENT:
    case REG_VERSION:
        break;
    default:
        raise_error(a, ESR_ILLEGAL_REGISTER);
    }
}

uint32_t lapic_mmio_read(struct lapic *a, uint32_t offset, unsigned size)
{
    uint32_t value = read_register(a, offset & 0xff0);
    unsigned at = offset & 15;
    if (at >= 4)
        return 0;
    return (uint32_t)(value >> (8 * at) & bytes_mask(MIN(size, 4u)));
}

void lapic_mmio_write(struct lapic *a, uint32_t offset, unsigned size, uint32_t value)
{
    if ((offset & 15) == 0 && size >= 4)
        write_register(a, offset & 0xff0, value);
}

/* ---- x2APIC ---- */

#define MSR_DEADLINE 0x6e0

static bool readable_msr(uint32_t offset)
{
    if (offset >= REG_ISR && offset < REG_ESR)
        return true;
    if (offset >= REG_LVT && offset < REG_LVT + 16 * LVTS)
        return true;
    switch (offset) {
    case REG_ID:
    case REG_VERSION:
    case REG_TPR:
    case REG_PPR:
    case REG_LDR:
    case REG_SVR:
    case REG_ESR:
    case REG_ICR_LOW:
    case REG_INITIAL:
    case REG_CURRENT:
    case REG_DIVIDE:
        return true;
    default:
        return false;
    }
}

/* Bits that WRMSR may have set; anything else is #GP. Read-only ones do nothing, but Linux sets
 * them in the LINT entries at power-off. 0 with `*known` false: not writable at all. */
static uint32_t writable_bits(uint32_t offset, bool *known)
{
    *known = true;
    if (offset >= REG_LVT && offset < REG_LVT + 16 * LVTS) {
        unsigned n = (offset - REG_LVT) / 16;
        bool lint = n == LVT_LINT0 || n == LVT_LINT1;
        return lvt_writable[n] | LVT_MASKED | LVT_PENDING | (lint ? LVT_REMOTE_IRR : 0);
    }
    switch (offset) {
    case REG_TPR:
    case REG_SELF_IPI:
        return 0xff;
    case REG_EOI:
    case REG_ESR:
        return 0;
    case REG_SVR:
        return 0x1ff | BIT(12);
    case REG_INITIAL:
        return 0xffffffff;
    case REG_DIVIDE:
        return 0xb;
    case REG_ICR_LOW:
        return 0x000ccfff | LVT_PENDING;
    default:
        *known = false;
        return 0;
    }
}

bool lapic_msr_read(struct lapic *a, uint32_t index, uint64_t *value)
{
    if (index == MSR_DEADLINE) {
        *value = a->tsc_deadline;
        return true;
    }
    uint32_t offset = (index - 0x800) * 16;
    if (!x2apic(a) || !readable_msr(offset))
        return false;
    *value = offset == REG_ICR_LOW ? a->icr : read_register(a, offset);
    return true;
}

bool lapic_msr_write(struct lapic *a, uint32_t index, uint64_t value)
{
    if (index == MSR_DEADLINE) {
        lapic_timer_set_deadline(a, value);
        return true;
    }
    uint32_t offset = (index - 0x800) * 16;
    bool known;
    uint32_t bits = writable_bits(offset, &known);
    if (!x2apic(a) || !known || ((uint32_t)value & ~bits) || (value >> 32 && offset != REG_ICR_LOW))
        return false;
    if (offset == REG_ICR_LOW) {
        a->icr = value & ~(uint64_t)LVT_PENDING;
        send_icr(a);
    } else if (offset == REG_SELF_IPI) {
        lapic_post(a, (uint8_t)value, false);
    } else {
        write_register(a, offset, (uint32_t)value);
    }
    return true;
}

/* ---- CR8, IA32_APIC_BASE ---- */

uint8_t lapic_cr8(const struct lapic *a)
{
    return a->tpr >> 4 & 15;
}

void lapic_set_cr8(struct lapic *a, uint8_t cr8)
{
    a->tpr = (uint32_t)cr8 << 4;
    update(a);
}

uint64_t lapic_base(const struct lapic *a)
{
    return a->base;
}

uint64_t lapic_mmio_address(const struct lapic *a)
{
    return (a->base & BASE_ENABLE) && !(a->base & BASE_X2APIC)
               ? a->base & UINT64_C(0xfffffffffffff000)
               : ~UINT64_C(0);
}

bool lapic_set_base(struct lapic *a, uint64_t value)
{
    uint64_t known = UINT64_C(0x0000fffffffff000) | BASE_BSP | BASE_X2APIC | BASE_ENABLE;
    bool was_x2 = x2apic(a), x2 = value & BASE_X2APIC, on = value & BASE_ENABLE;
    if ((value & ~known) || (x2 && !on) || (was_x2 && !x2 && on) ||
        (x2 && !was_x2 && !(a->base & BASE_ENABLE)))
        return false;
    bool was_on = a->base & BASE_ENABLE;
    a->base = (value & ~(uint64_t)BASE_BSP) | (a->bsp ? BASE_BSP : 0);
    if (was_on && !on)
        lapic_init_reset(a);
    update(a);
    return true;
}

/* ---- Life ---- */

static void after_reset(void *opaque)
{
    struct lapic *a = opaque;
    a->base = LAPIC_BASE | BASE_ENABLE | (a->bsp ? BASE_BSP : 0);
    timer_cancel(&a->timer);
}

static void after_load(void *opaque)
{
    struct lapic *a = opaque;
    timer_set(&a->timer, a->next_ns);
    update(a);
}

static const struct state_field fields[] = {
    STATE(struct lapic, base, LAPIC_BASE | BASE_ENABLE),
    STATE(struct lapic, tpr, 0),
    STATE(struct lapic, ldr, 0),
    STATE(struct lapic, dfr, 0xffffffff),
    STATE(struct lapic, svr, 0xff),
    STATE(struct lapic, esr, 0),
    STATE(struct lapic, esr_latched, 0),
    STATE_ARRAY(struct lapic, isr, 0),
    STATE_ARRAY(struct lapic, tmr, 0),
    STATE_ARRAY(struct lapic, irr, 0),
    STATE(struct lapic, icr, 0),
    STATE_ARRAY(struct lapic, lvt, LVT_MASKED),
    STATE(struct lapic, divide, 0),
    STATE(struct lapic, initial, 0),
    STATE(struct lapic, next_ns, TIMER_OFF),
    STATE(struct lapic, tsc_deadline, 0),
};

static const struct state_table table = {.name = "lapic",
                                         .version = 1,
                                         .size = sizeof(struct lapic),
                                         .fields = fields,
                                         .field_count = ARRAY_SIZE(fields),
                                         .after_reset = after_reset,
                                         .after_load = after_load};

static void destroy(void *opaque)
{
    struct lapic *a = opaque;
    pthread_mutex_destroy(&a->timer_lock);
    free(a);
}

static const struct state_table all_table = {
    .name = "lapics", .version = 1, .size = sizeof(struct lapics)};

struct lapics *lapics_create(struct device_env *env)
{
    struct lapics *all = calloc(1, sizeof *all);
    if (!all)
        abort();
    all->env = env;
    device_register(env, &all_table, all, free);
    return all;
}

struct lapic *lapic_create(struct lapics *all, struct device_env *env, unsigned id, bool bsp,
                           const struct lapic_cpu_ops *ops, void *cpu)
{
    struct lapic *a = calloc(1, sizeof *a);
    if (!a)
        abort();
    a->all = all;
    a->env = env;
    a->ops = ops;
    a->cpu = cpu;
    a->id = id;
    a->bsp = bsp;
    lapic_timer_init(a);
    all->apics[all->count++] = a;
    device_register(env, &table, a, destroy);
    return a;
}

void lapic_init_reset(struct lapic *a)
{
    uint64_t base = a->base;
    state_reset(&table, a);
    a->base = base;
    update(a);
}

void lapics_on_eoi(struct lapics *all, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
    all->eoi = eoi;
    all->eoi_opaque = opaque;
}

void lapics_on_taken(struct lapics *all, void (*taken)(void *opaque), void *opaque)
{
    all->taken = taken;
    all->taken_opaque = opaque;
}

bool lapics_extint_wired(const struct lapics *all)
{
    return all->count && extint_wired(all->apics[0]);
}

void lapics_set_extint(struct lapics *all, int level)
{
    __atomic_store_n(&all->extint, level, __ATOMIC_SEQ_CST);
    if (level && all->count && extint_pending(all->apics[0]))
        all->apics[0]->ops->intr(all->apics[0]->cpu, true);
}

void lapics_on_extint_ack(struct lapics *all, int (*ack)(void *opaque), void *opaque)
{
    all->ack = ack;
    all->ack_opaque = opaque;
}
