/* What the two files of the local APIC share. */
#ifndef TRIVISOR_DEV_LAPIC_INTERNAL_H
#define TRIVISOR_DEV_LAPIC_INTERNAL_H

#include "dev/lapic.h"
#include "util/util.h"

#define LVT_MASKED BIT(16)
enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVTS };

struct lapic {
    struct lapics *all;
    struct device_env *env;
    const struct lapic_cpu_ops *ops;
    void *cpu;
    unsigned id;
    bool bsp;

    uint64_t base;
    uint32_t tpr, ldr, dfr, svr, esr, esr_latched;
    uint32_t isr[8], tmr[8], irr[8];
    uint64_t icr;
    uint32_t lvt[LVTS];

    /* Under timer_lock: */
    pthread_mutex_t timer_lock;
    struct timer timer;
    uint32_t divide, initial;
    uint64_t next_ns;      /* when the count reaches zero; TIMER_OFF: stopped */
    uint64_t tsc_deadline; /* guest TSC; 0: disarmed */
    int64_t tsc_offset;    /* guest TSC less time base */
};

struct lapics {
    struct lapic *apics[256];
    unsigned count;
    struct device_env *env;
    void (*eoi)(void *opaque, uint8_t vector);
    void *eoi_opaque;
    int (*ack)(void *opaque);
    void *ack_opaque;
    void (*taken)(void *opaque);
    void *taken_opaque;
    uint32_t watched[8];  /* vectors that `taken` wants to hear of, once */
    int extint;           /* level of the 8259's INTR, atomic */
    unsigned last_lowest; /* lowest-priority arbitration goes round, atomic */
};

/* Accept a fixed interrupt. Any thread. */
void lapic_post(struct lapic *a, uint8_t vector, bool level);

void lapic_timer_init(struct lapic *a);
/* Writes of the registers. vCPU's thread. */
void lapic_timer_set_lvt(struct lapic *a, uint32_t value);
void lapic_timer_set_initial(struct lapic *a, uint32_t value);
void lapic_timer_set_divide(struct lapic *a, uint32_t value);
void lapic_timer_set_deadline(struct lapic *a, uint64_t tsc);
/* The current-count register. */
uint32_t lapic_timer_count(struct lapic *a);

#endif
