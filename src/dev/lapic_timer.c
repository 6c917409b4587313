/*
 * The local APIC's timer: one-shot, periodic, TSC deadline. It has a lock of its own, as its
 * call-back and the vCPU's thread both re-arm it. It counts at a thousand million a second, which
 * CPUID's timing leaf tells guests: one count, divided by one, is a nanosecond.
 */
#include "dev/lapic_internal.h"

#define TIMER_MODE(lvt) ((lvt) >> 17 & 3)
enum { TIMER_ONESHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

static uint64_t divisor(const struct lapic *a)
{
    unsigned code = (a->divide & 3) | (a->divide >> 1 & 4);
    return code == 7 ? 1 : UINT64_C(2) << code;
}

static uint64_t period_ns(const struct lapic *a)
{
    return a->initial * divisor(a);
}

/* Under timer_lock. */
static void start_count(struct lapic *a)
{
    bool counts = TIMER_MODE(a->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE && a->initial;
    a->next_ns = counts ? vclock_ns(a->env->clock) + period_ns(a) : TIMER_OFF;
    timer_set(&a->timer, a->next_ns);
}

static void start_deadline(struct lapic *a)
{
    a->next_ns = TIMER_OFF;
    if (a->tsc_deadline && TIMER_MODE(a->lvt[LVT_TIMER]) == TIMER_TSC_DEADLINE) {
        int64_t base = (int64_t)(a->tsc_deadline - (uint64_t)a->tsc_offset);
        a->next_ns = base <= 0 ? 0 : vclock_tsc_to_ns(a->env->clock, (uint64_t)base) + 1;
    }
    timer_set(&a->timer, a->next_ns);
}

/* Device lock held. */
static void timer_fired(void *opaque)
{
    struct lapic *a = opaque;
    pthread_mutex_lock(&a->timer_lock);
    uint64_t now = vclock_ns(a->env->clock);
    uint64_t due_at = a->next_ns;
    bool due = due_at <= now;
    uint32_t lvt = a->lvt[LVT_TIMER];
    if (due) {
        a->next_ns = TIMER_OFF;
        a->tsc_deadline = 0;
        if (TIMER_MODE(lvt) == TIMER_PERIODIC && a->initial) {
            /* From the last due time, so that lateness does not add up; periods that passed while
             * nobody looked are one interrupt, as IRR has one bit. */
            uint64_t period = period_ns(a);
            a->next_ns = due_at + ((now - due_at) / period + 1) * period;
        }
    }
    if (a->next_ns != TIMER_OFF)
        timer_set(&a->timer, a->next_ns);
    pthread_mutex_unlock(&a->timer_lock);
    if (due && !(lvt & LVT_MASKED))
        lapic_post(a, (uint8_t)lvt, false);
}

uint32_t lapic_timer_count(struct lapic *a)
{
    pthread_mutex_lock(&a->timer_lock);
    uint64_t now = vclock_ns(a->env->clock), count = 0;
    if (TIMER_MODE(a->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE && a->next_ns != TIMER_OFF) {
        if (a->next_ns > now)
            count = (a->next_ns - now) / divisor(a);
        else if (TIMER_MODE(a->lvt[LVT_TIMER]) == TIMER_PERIODIC)
            count = (period_ns(a) - (now - a->next_ns) % period_ns(a)) / divisor(a);
    }
    pthread_mutex_unlock(&a->timer_lock);
    return (uint32_t)MIN(count, a->initial);
}

void lapic_set_tsc_offset(struct lapic *a, int64_t offset)
{
    pthread_mutex_lock(&a->timer_lock);
    a->tsc_offset = offset;
    if (a->tsc_deadline)
        start_deadline(a);
    pthread_mutex_unlock(&a->timer_lock);
}

void lapic_timer_set_lvt(struct lapic *a, uint32_t value)
{
    uint32_t *lvt = &a->lvt[LVT_TIMER];
    pthread_mutex_lock(&a->timer_lock);
    bool changed = TIMER_MODE(value ^ *lvt) != 0;
    bool deadline =
        TIMER_MODE(value) == TIMER_TSC_DEADLINE || TIMER_MODE(*lvt) == TIMER_TSC_DEADLINE;
    *lvt = value;
    if (changed && deadline) { /* between counting and deadline the timer is disarmed */
        a->tsc_deadline = 0;
        a->initial = 0;
        a->next_ns = TIMER_OFF;
        timer_cancel(&a->timer);
    }
    pthread_mutex_unlock(&a->timer_lock);
}

void lapic_timer_set_initial(struct lapic *a, uint32_t value)
{
    pthread_mutex_lock(&a->timer_lock);
    if (TIMER_MODE(a->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE) {
        a->initial = value;
        start_count(a);
    }
    pthread_mutex_unlock(&a->timer_lock);
}

void lapic_timer_set_divide(struct lapic *a, uint32_t value)
{
    pthread_mutex_lock(&a->timer_lock);
    a->divide = value;
    if (a->next_ns != TIMER_OFF && TIMER_MODE(a->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE)
        start_count(a);
    pthread_mutex_unlock(&a->timer_lock);
}

void lapic_timer_set_deadline(struct lapic *a, uint64_t tsc)
{
    pthread_mutex_lock(&a->timer_lock);
    if (TIMER_MODE(a->lvt[LVT_TIMER]) == TIMER_TSC_DEADLINE) {
        a->tsc_deadline = tsc;
        start_deadline(a);
    }
    pthread_mutex_unlock(&a->timer_lock);
}

void lapic_timer_init(struct lapic *a)
{
    pthread_mutex_init(&a->timer_lock, NULL);
    timer_init(&a->timer, a->env->timers, timer_fired, a);
}
