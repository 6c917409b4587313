/*
 * The 8254 interval timer and port 0x61.
 *
 * A counter is never decremented: what it shows is computed from guest time and the tick at which
 * it was loaded, so that it agrees with the TSC and the other timers for ever. Counter 0 needs a
 * host timer for its interrupts. Its deadlines are multiples of the period from the tick at which
 * the counter was loaded, so lateness of the host never adds up.
 *
 * Catching up: where the host ran late, the edges that were missed are sent at twice the programmed
 * rate until the guest has had them all, so that a guest which counts ticks keeps time. An edge is
 * missed, too, where the one before it still waits for a processor that the host lets wait; those
 * are sent as soon as it has been taken, since a guest that tests whether the timer works looks at
 * the TSC and at what it has counted. At most BACKLOG_MAX edges are owed at any time (what is
 * beyond is dropped), and of a fast counter's edges none comes sooner than MIN_GAP ticks after
 * another, so that no program of the guest's can make a storm of them.
 */
#include "dev/pit.h"

#include <stdlib.h>

#include "util/util.h"

#define COUNTERS     3
#define BACKLOG_MAX  64
#define MIN_GAP      60 /* 50 us */

/* Port 0x61. */
#define GATE2        0x01
#define SPEAKER      0x02
#define PORT61_WRITE 0x0f
#define REFRESH_NS   15085

enum access { LATCH_COMMAND, LSB, MSB, WORD };

struct counter {
    uint8_t mode;   /* 0 .. 5 */
    uint8_t access; /* enum access */
    bool bcd;
    bool gate;
    bool loaded;     /* has a count since the mode was set */
    bool triggered;  /* modes 1 and 5: the gate has started it */
    bool pending;    /* modes 2 and 3: next_count is taken at the tick switch_at */
    bool write_msb;  /* the next byte of a word that is written is the high one */
    bool read_msb;   /* the same for reading */
    uint8_t latched; /* bytes of `latch` still to be read */
    bool status_latched;
    uint8_t status;
    uint8_t low_byte; /* of the word being written */
    uint16_t latch;
    uint32_t count; /* clocks in a cycle: 1 .. 65536 */
    uint32_t next_count;
    uint64_t start; /* tick at which `count` was loaded */
    uint64_t switch_at;
    uint64_t held; /* clocks counted when the gate went low (modes 0 and 4) */
};

struct pit {
    struct device_env *env;
    struct irq_line irq0;
    struct timer timer;
    struct counter c[COUNTERS];
    uint8_t port61;
    bool (*tick_waits)(void *opaque); /* may be NULL */
    void *tick_opaque;
    void (*tone)(void *opaque, unsigned hz); /* may be NULL */
    void *tone_opaque;
    unsigned tone_hz;   /* told last */
    int64_t edges_sent; /* of counter 0 since its start; negative: owed from before */
};

static uint64_t now_ticks(const struct pit *pit)
{
    return vclock_ticks(vclock_ns(pit->env->clock), PIT_HZ);
}

static uint32_t from_bcd(uint16_t v)
{
    return (v >> 12) * 1000u + ((v >> 8) & 15) * 100u + ((v >> 4) & 15) * 10u + (v & 15);
}

static uint16_t to_bcd(uint32_t v)
{
    return (uint16_t)((v / 1000 % 10) << 12 | (v / 100 % 10) << 8 | (v / 10 % 10) << 4 | v % 10);
}

static bool periodic(const struct counter *c)
{
    return c->mode == 2 || c->mode == 3;
}

/* Take a new count where its time has come. */
static void settle(struct pit *pit, struct counter *c, uint64_t now)
{
    if (c->pending && now >= c->switch_at) {
        c->pending = false;
        if (c == &pit->c[0])
            pit->edges_sent -= (int64_t)((c->switch_at - c->start) / c->count);
        c->count = c->next_count;
        c->start = c->switch_at;
    }
}

/* Clocks since the count was loaded. */
static uint64_t elapsed(const struct counter *c, uint64_t now)
{
    if (!c->gate && (c->mode == 0 || c->mode == 4))
        return c->held;
    return now > c->start ? now - c->start : 0;
}

static bool running(const struct counter *c)
{
    return c->loaded && ((c->mode != 1 && c->mode != 5) || c->triggered);
}

static uint16_t current(const struct counter *c, uint64_t now)
{
    uint32_t modulus = c->bcd ? 10000 : 65536;
    uint32_t value = c->count;

    if (running(c) && !(periodic(c) && !c->gate)) {
        uint64_t d = elapsed(c, now);
        if (c->mode == 2) {
            value = c->count - (uint32_t)(d % c->count);
        } else if (c->mode == 3) {
            /* Counts by two; of an odd count the high half is one clock longer. */
            uint32_t at = (uint32_t)(d % c->count), high = (c->count + 1) / 2;
            value = (c->count & ~1u) - 2 * (at < high ? at : at - high);
        } else {
            value = (c->count + modulus - (uint32_t)(d % modulus)) % modulus;
        }
    }
    value %= modulus;
    return c->bcd ? to_bcd(value) : (uint16_t)value;
}

static bool output(const struct counter *c, uint64_t now)
{
    if (!running(c))
        return c->mode != 0;
    uint64_t d = elapsed(c, now);
    switch (c->mode) {
    case 0:
    case 1:
        return d >= c->count;
    case 2:
        return !c->gate || d % c->count != c->count - 1;
    case 3:
        return !c->gate || d % c->count < (c->count + 1) / 2;
    default:
        return d != c->count;
    }
}

/* ---- Interrupts of counter 0 ---- */

/* How many rising edges counter 0 has made by tick `now` since its start. */
static int64_t edges_made(const struct counter *c, uint64_t now)
{
    uint64_t d = elapsed(c, now);
    if (!running(c))
        return 0;
    if (periodic(c))
        return (int64_t)(d / c->count);
    if (c->mode == 0)
        return d >= c->count;
    return d > c->count; /* mode 4: after the strobe */
}

/* Set the timer for the next edge, and the line to what OUT is now. */
static void schedule(struct pit *pit)
{
    struct counter *c = &pit->c[0];
    uint64_t now = now_ticks(pit), at;

    if (!running(c)) {
        timer_cancel(&pit->timer);
        irq_set(&pit->irq0, c->mode != 0);
        return;
    }
    if (periodic(c)) {
        int64_t owed = edges_made(c, now) - pit->edges_sent;
        at = c->start + (uint64_t)(pit->edges_sent + 1) * c->count;
        if (owed > 0)
            at = now + c->count / 2;
        if (at < now + MIN_GAP && (owed > 0 || c->count < MIN_GAP))
            at = now + MIN_GAP;
    } else {
        if (pit->edges_sent) {
            timer_cancel(&pit->timer);
            return;
        }
        at = c->start + c->count + (c->mode == 4);
        irq_set(&pit->irq0, c->mode != 0);
    }
    timer_set(&pit->timer, vclock_ticks_to_ns(at, PIT_HZ));
}

/* Are there edges to be sent? Those beyond the limit are forgotten. */
static bool owes(struct pit *pit)
{
    struct counter *c = &pit->c[0];
    uint64_t now = now_ticks(pit);

    settle(pit, c, now);
    int64_t made = edges_made(c, now);
    if (made - pit->edges_sent > BACKLOG_MAX)
        pit->edges_sent = made - BACKLOG_MAX;
    return made > pit->edges_sent;
}

static void send_edge(struct pit *pit)
{
    pit->edges_sent++;
    irq_set(&pit->irq0, 0);
    irq_set(&pit->irq0, 1);
}

static void fire(void *opaque)
{
    struct pit *pit = opaque;
    bool later = periodic(&pit->c[0]) && pit->tick_waits && pit->tick_waits(pit->tick_opaque);
    if (owes(pit) && !later)
        send_edge(pit);
    schedule(pit);
}

void pit_on_tick(struct pit *pit, bool (*waits)(void *opaque), void *opaque)
{
    pit->tick_waits = waits;
    pit->tick_opaque = opaque;
}

void pit_tick_taken(struct pit *pit)
{
    if (!owes(pit) || pit->c[0].count < 4 * MIN_GAP)
        return;
    send_edge(pit);
    schedule(pit);
}

/* Counter 0 starts anew. */
static void restart(struct pit *pit, unsigned n)
{
    if (n != 0)
        return;
    pit->edges_sent = 0;
    schedule(pit);
}

/* ---- Registers ---- */

static void load(struct pit *pit, unsigned n, uint16_t raw)
{
    struct counter *c = &pit->c[n];
    uint64_t now = now_ticks(pit);
    uint32_t count = c->bcd ? from_bcd(raw) : raw;
    if (count == 0)
        count = c->bcd ? 10000 : 65536;

    settle(pit, c, now);
    if (periodic(c) && c->loaded && c->gate) {
        /* Takes effect at the end of the cycle that is running. */
        c->next_count = count;
        c->switch_at = c->start + (elapsed(c, now) / c->count + 1) * c->count;
        c->pending = true;
        if (n == 0)
            schedule(pit);
        return;
    }
    c->count = count;
    c->loaded = true;
    if (c->mode == 1 || c->mode == 5)
        return; /* from the next trigger on */
    c->start = now;
    c->held = 0;
    restart(pit, n);
}

static void write_counter(struct pit *pit, unsigned n, uint8_t value)
{
    struct counter *c = &pit->c[n];
    switch (c->access) {
    case LSB:
        load(pit, n, value);
        break;
    case MSB:
        load(pit, n, (uint16_t)(value << 8));
        break;
    default:
        if (c->write_msb) {
            c->write_msb = false;
            load(pit, n, (uint16_t)(value << 8 | c->low_byte));
            break;
        }
        c->low_byte = value;
        c->write_msb = true;
        if (c->mode == 0) {
            c->loaded = false; /* the first byte stops it, OUT is low */
            restart(pit, n);
        }
        break;
    }
}

static void latch_count(struct pit *pit, struct counter *c, uint64_t now)
{
    if (c->latched)
        return;
    settle(pit, c, now);
    c->latch = current(c, now);
    c->latched = c->access == WORD ? 2 : 1;
}

static void latch_status(struct pit *pit, struct counter *c, uint64_t now)
{
    if (c->status_latched)
        return;
    settle(pit, c, now);
    c->status = (uint8_t)(output(c, now) << 7 | (!c->loaded || c->pending) << 6 | c->access << 4 |
                          c->mode << 1 | c->bcd);
    c->status_latched = true;
}

static void write_control(struct pit *pit, uint8_t value)
{
    unsigned n = value >> 6;
    uint64_t now = now_ticks(pit);

    if (n == 3) { /* read-back: active-low selections */
        for (n = 0; n < COUNTERS; n++) {
            if (!(value & (2 << n)))
                continue;
            if (!(value & 0x20))
                latch_count(pit, &pit->c[n], now);
            if (!(value & 0x10))
                latch_status(pit, &pit->c[n], now);
        }
        return;
    }
    struct counter *c = &pit->c[n];
    unsigned access = (value >> 4) & 3;
    if (access == LATCH_COMMAND) {
        latch_count(pit, c, now);
        return;
    }
    c->access = (uint8_t)access;
    c->mode = (value >> 1) & 7;
    if (c->mode > 5)
        c->mode &= 3; /* 6 and 7 are modes 2 and 3 */
    c->bcd = value & 1;
    c->loaded = false;
    c->triggered = false;
    c->pending = false;
    c->write_msb = false;
    c->read_msb = false;
    c->latched = 0;
    c->status_latched = false;
    restart(pit, n);
}

static uint8_t read_counter(struct pit *pit, unsigned n)
{
    struct counter *c = &pit->c[n];
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint64_t now = now_ticks(pit);
    settle(pit, c, now);
    uint16_t value = c->latched ? c->latch : current(c, now);
    bool high = c->access == MSB || (c->access == WORD && c->read_msb);
    if (c->access == WORD)
        c->read_msb = !c->read_msb;
    if (c->latched)
        c->latched--;
    return high ? value >> 8 : (uint8_t)value;
}

static void set_gate(struct pit *pit, unsigned n, bool level)
{
    struct counter *c = &pit->c[n];
    uint64_t now = now_ticks(pit);
    if (c->gate == level)
        return;
    settle(pit, c, now);
    if (!level) {
        c->held = elapsed(c, now);
        c->gate = false;
        return;
    }
    c->gate = true;
    if (!c->loaded)
        return;
    if (c->pending) {
        c->pending = false;
        c->count = c->next_count;
    }
    if (c->mode == 0 || c->mode == 4)
        c->start = now - c->held;
    else
        c->start = now;
    c->triggered = true;
}

static void update_tone(struct pit *pit)
{
    const struct counter *c = &pit->c[2];
    unsigned hz = 0;
    if ((pit->port61 & (GATE2 | SPEAKER)) == (GATE2 | SPEAKER) && c->loaded && periodic(c))
        hz = PIT_HZ / (c->pending ? c->next_count : c->count);
    if (hz == pit->tone_hz)
        return;
    pit->tone_hz = hz;
    if (pit->tone)
        pit->tone(pit->tone_opaque, hz);
}

void pit_on_tone(struct pit *pit, void (*tone)(void *opaque, unsigned hz), void *opaque)
{
    pit->tone = tone;
    pit->tone_opaque = opaque;
}

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
    return offset < COUNTERS ? read_counter(opaque, (unsigned)offset) : 0xff;
}

static void pit_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset < COUNTERS)
        write_counter(opaque, (unsigned)offset, (uint8_t)value);
    else
        write_control(opaque, (uint8_t)value);
    if (offset >= 2)
        update_tone(opaque);
}

static uint64_t port61_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pit *pit = opaque;
    uint64_t ns = vclock_ns(pit->env->clock);
    uint64_t now = vclock_ticks(ns, PIT_HZ);
    settle(pit, &pit->c[2], now);
    return pit->port61 | (ns / REFRESH_NS & 1) << 4 | (uint64_t)output(&pit->c[2], now) << 5;
}

static void port61_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pit *pit = opaque;
    pit->port61 = value & PORT61_WRITE;
    set_gate(pit, 2, value & GATE2);
    update_tone(pit);
}

static const struct io_ops pit_ops = {pit_read, pit_write, 1};
static const struct io_ops port61_ops = {port61_read, port61_write, 1};

#define COUNTER_STATE(n, gate_reset)                                                               \
    STATE(struct pit, c[n].mode, 3), STATE(struct pit, c[n].access, WORD),                         \
        STATE(struct pit, c[n].bcd, 0), STATE(struct pit, c[n].gate, gate_reset),                  \
        STATE(struct pit, c[n].loaded, 0), STATE(struct pit, c[n].triggered, 0),                   \
        STATE(struct pit, c[n].pending, 0), STATE(struct pit, c[n].write_msb, 0),                  \
        STATE(struct pit, c[n].read_msb, 0), STATE(struct pit, c[n].latched, 0),                   \
        STATE(struct pit, c[n].status_latched, 0), STATE(struct pit, c[n].status, 0),              \
        STATE(struct pit, c[n].low_byte, 0), STATE(struct pit, c[n].latch, 0),                     \
        STATE(struct pit, c[n].count, 65536), STATE(struct pit, c[n].next_count, 65536),           \
        STATE(struct pit, c[n].start, 0), STATE(struct pit, c[n].switch_at, 0),                    \
        STATE(struct pit, c[n].held, 0)

static const struct state_field pit_fields[] = {
    COUNTER_STATE(0, 1),
    COUNTER_STATE(1, 1),
    COUNTER_STATE(2, 0),
    STATE(struct pit, port61, 0),
    STATE(struct pit, edges_sent, 0),
};

static void rearm(void *opaque)
{
    schedule(opaque);
    update_tone(opaque);
}

static const struct state_table pit_table = {
    .name = "pit",
    .version = 1,
    .size = sizeof(struct pit),
    .fields = pit_fields,
    .field_count = ARRAY_SIZE(pit_fields),
    .after_reset = rearm,
    .after_load = rearm,
};

struct pit *pit_create(struct device_env *env, struct irq_line irq0)
{
    struct pit *pit = calloc(1, sizeof *pit);
    if (!pit)
        return NULL;
    pit->env = env;
    pit->irq0 = irq0;
    timer_init(&pit->timer, env->timers, fire, pit);
    bus_add(env->pio, 0x40, 4, &pit_ops, pit, "pit");
    bus_add(env->pio, 0x61, 1, &port61_ops, pit, "port 61");
    device_register(env, &pit_table, pit, free);
    return pit;
}
