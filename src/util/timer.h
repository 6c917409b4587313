/*
 * One-shot timers on guest time. A thread of the VM runs the call-backs with the device lock held;
 * a call-back may set its own or any other timer. Deadlines are absolute guest nanoseconds
 * (vclock_ns).
 */
#ifndef TRIVISOR_UTIL_TIMER_H
#define TRIVISOR_UTIL_TIMER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <trivisor/trivisor.h>

#include "util/clock.h"

struct timers;

struct timer {
    struct timers *timers;
    void (*fire)(void *opaque);
    void *opaque;
    uint64_t deadline; /* ns; TIMER_OFF when not set */
    uint32_t heap_index;
};

#define TIMER_OFF UINT64_MAX

/* `device_lock` is held while call-backs run. timers_start creates the thread. */
struct timers *timers_create(struct vclock *clock, pthread_mutex_t *device_lock);
int timers_start(struct timers *timers, struct tv_error *err);
/* After the clock was paused or resumed: look at the deadlines anew. While paused nothing fires. */
void timers_kick(struct timers *timers);
void timers_destroy(struct timers *timers);

void timer_init(struct timer *timer, struct timers *timers, void (*fire)(void *opaque),
                void *opaque);
/* Set or move the deadline. Any thread, device lock held or not (timers have a lock of their own).
 */
void timer_set(struct timer *timer, uint64_t deadline_ns);
void timer_cancel(struct timer *timer);

#endif
