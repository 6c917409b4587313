/* The clock and the timers here stand in for the library's. */
#include "fake_machine.h"

#include <stdlib.h>
#include <string.h>

#include "util/util.h"

#define TIMERS_MAX 16

static uint64_t now;
static struct timer *timers_known[TIMERS_MAX];
static unsigned timer_count;

/* ---- util/clock.h ---- */

void vclock_init(struct vclock *clock)
{
    memset(clock, 0, sizeof *clock);
    clock->tsc_hz = 1000000000;
    clock->paused = true;
}

uint64_t vclock_tsc(const struct vclock *clock)
{
    return now;
}

uint64_t vclock_ns(const struct vclock *clock)
{
    return now;
}

uint64_t vclock_tsc_to_ns(const struct vclock *clock, uint64_t tsc)
{
    return tsc;
}

uint64_t vclock_ns_to_tsc(const struct vclock *clock, uint64_t ns)
{
    return ns;
}

void vclock_pause(struct vclock *clock)
{
}

void vclock_resume(struct vclock *clock)
{
}

/* ---- util/timer.h ---- */

struct timers *timers_create(struct vclock *clock, pthread_mutex_t *device_lock)
{
    return NULL;
}

int timers_start(struct timers *timers, struct tv_error *err)
{
    return 0;
}

void timers_kick(struct timers *timers)
{
}

void timers_destroy(struct timers *timers)
{
}

void timer_init(struct timer *timer, struct timers *timers, void (*fire)(void *opaque),
                void *opaque)
{
    if (timer_count == TIMERS_MAX)
        abort();
    *timer =
        (struct timer){.timers = timers, .fire = fire, .opaque = opaque, .deadline = TIMER_OFF};
    timers_known[timer_count++] = timer;
}

void timer_set(struct timer *timer, uint64_t deadline_ns)
{
    timer->deadline = deadline_ns;
}

void timer_cancel(struct timer *timer)
{
    timer->deadline = TIMER_OFF;
}

/* ---- The machine ---- */

static void on_reset(void *vm, const char *why)
{
    ((struct fake_machine *)vm)->resets++;
}

static void on_poweroff(void *vm)
{
    ((struct fake_machine *)vm)->poweroffs++;
}

static void on_exit_request(void *vm, int status)
{
    struct fake_machine *m = vm;
    m->exits++;
    m->exit_status = status;
}

static void on_panic(void *vm, const char *notice)
{
    ((struct fake_machine *)vm)->panics++;
}

void fake_machine_init(struct fake_machine *m)
{
    memset(m, 0, sizeof *m);
    now = 0;
    timer_count = 0;
    pthread_mutex_init(&m->lock, NULL);
    bus_init(&m->pio, &m->lock);
    bus_init(&m->mmio, &m->lock);
    vclock_init(&m->clock);
    m->env = (struct device_env){.pio = &m->pio,
                                 .mmio = &m->mmio,
                                 .mem = &m->mem,
                                 .clock = &m->clock,
                                 .log = &m->log,
                                 .lock = &m->lock,
                                 .request_reset = on_reset,
                                 .request_poweroff = on_poweroff,
                                 .request_exit = on_exit_request,
                                 .guest_panicked = on_panic,
                                 .vm = m};
}

void fake_machine_end(struct fake_machine *m)
{
    devices_destroy(&m->env);
    pthread_mutex_destroy(&m->lock);
}

/* The timer that is due first, by `end`. */
static struct timer *due(uint64_t end)
{
    struct timer *first = NULL;
    for (unsigned i = 0; i < timer_count; i++) {
        struct timer *t = timers_known[i];
        if (t->deadline <= end && (!first || t->deadline < first->deadline))
            first = t;
    }
    return first;
}

void fake_advance(struct fake_machine *m, uint64_t ns)
{
    uint64_t end = now + ns;
    struct timer *t;
    while ((t = due(end))) {
        now = MAX(now, t->deadline);
        t->deadline = TIMER_OFF;
        pthread_mutex_lock(&m->lock);
        t->fire(t->opaque);
        pthread_mutex_unlock(&m->lock);
    }
    now = end;
}

void fake_stall(uint64_t ns)
{
    now += ns;
}

uint64_t fake_now(void)
{
    return now;
}

static void probe_set(void *opaque, int pin, int level)
{
    struct probe *p = opaque;
    if (level && !p->level)
        p->rises++;
    p->level = level;
}

struct irq_line fake_line(struct probe *probe)
{
    return (struct irq_line){probe_set, probe, 0};
}

void out8(struct fake_machine *m, unsigned port, unsigned value)
{
    bus_write(&m->pio, port, 1, value);
}

unsigned in8(struct fake_machine *m, unsigned port)
{
    return (unsigned)bus_read(&m->pio, port, 1);
}
