/* A machine with nothing in it, for driving one device alone: buses, a clock that moves only when
 * told to, timers on that clock, and interrupt lines that count. */
#ifndef TESTS_UNIT_FAKE_MACHINE_H
#define TESTS_UNIT_FAKE_MACHINE_H

#include "dev/device.h"

/* An interrupt line's end: its level and how often it rose. */
struct probe {
    int level;
    unsigned rises;
};

struct fake_machine {
    struct device_env env;
    struct bus pio, mmio;
    struct physmem mem;
    struct vclock clock;
    struct event_log log;
    pthread_mutex_t lock;
    unsigned resets, poweroffs, exits, panics;
    int exit_status;
};

/* One at a time. */
void fake_machine_init(struct fake_machine *m);
void fake_machine_end(struct fake_machine *m);
/* Move the clock, firing timers at their deadlines. */
void fake_advance(struct fake_machine *m, uint64_t ns);
uint64_t fake_now(void);
/* Move the clock without looking at timers, as a host that is late does. */
void fake_stall(uint64_t ns);
struct irq_line fake_line(struct probe *probe);
void out8(struct fake_machine *m, unsigned port, unsigned value);
unsigned in8(struct fake_machine *m, unsigned port);

#endif
