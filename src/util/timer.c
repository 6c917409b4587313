/*
 * Timers: a binary heap by deadline and one thread that sleeps until the first.
 *
 * Locks: the heap's own lock is innermost. A call-back runs with the device lock held and the
 * heap's lock released. A timer that is cancelled or moved between being due and being fired is
 * looked at again under both locks: a call-back never comes for a deadline that was taken back by
 * somebody who holds the device lock.
 */
#include "util/timer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "util/error.h"

#define NOT_IN_HEAP UINT32_MAX

struct timers {
    struct vclock *clock;
    pthread_mutex_t *device_lock;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool started, ending;
    struct timer **heap;
    uint32_t count, capacity;
};

/* ---- The heap ---- */

static void place(struct timers *t, uint32_t at, struct timer *timer)
{
    t->heap[at] = timer;
    timer->heap_index = at;
}

static void sift_up(struct timers *t, uint32_t at)
{
    struct timer *timer = t->heap[at];
    while (at > 0 && t->heap[(at - 1) / 2]->deadline > timer->deadline) {
        place(t, at, t->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    place(t, at, timer);
}

static void sift_down(struct timers *t, uint32_t at)
{
    struct timer *timer = t->heap[at];
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= t->count)
            break;
        if (child + 1 < t->count && t->heap[child + 1]->deadline < t->heap[child]->deadline)
            child++;
        if (t->heap[child]->deadline >= timer->deadline)
            break;
        place(t, at, t->heap[child]);
        at = child;
    }
    place(t, at, timer);
}

static void remove_timer(struct timers *t, struct timer *timer)
{
    uint32_t at = timer->heap_index;
    if (at == NOT_IN_HEAP)
        return;
    timer->heap_index = NOT_IN_HEAP;
    struct timer *last = t->heap[--t->count];
    if (last == timer)
        return;
    place(t, at, last);
    sift_up(t, at);
    sift_down(t, last->heap_index);
}

/* ---- The thread ---- */

static void sleep_until(struct timers *t, uint64_t deadline)
{
    if (deadline == TIMER_OFF || t->clock->paused) {
        pthread_cond_wait(&t->changed, &t->lock);
        return;
    }
    uint64_t now = vclock_ns(t->clock);
    if (deadline <= now)
        return;
    uint64_t when = host_ns() + (deadline - now);
    const struct timespec ts = {.tv_sec = (time_t)(when / 1000000000u),
                                .tv_nsec = (long)(when % 1000000000u)};
    pthread_cond_timedwait(&t->changed, &t->lock, &ts);
}

/* Fire the first timer if it still is due, holding the device lock. Called and left with the heap's
 * lock held. */
static void fire_first(struct timers *t)
{
    pthread_mutex_unlock(&t->lock);
    pthread_mutex_lock(t->device_lock);
    pthread_mutex_lock(&t->lock);
    struct timer *timer = t->count ? t->heap[0] : NULL;
    if (timer && !t->clock->paused && timer->deadline <= vclock_ns(t->clock)) {
        remove_timer(t, timer);
        timer->deadline = TIMER_OFF;
        pthread_mutex_unlock(&t->lock);
        timer->fire(timer->opaque);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(t->device_lock);
}

static void *timers_main(void *opaque)
{
    struct timers *t = opaque;
    prctl(PR_SET_TIMERSLACK, 1); /* the default lets every wake-up be 50 us late */
    pthread_mutex_lock(&t->lock);
    while (!t->ending) {
        uint64_t first = t->count ? t->heap[0]->deadline : TIMER_OFF;
        if (first != TIMER_OFF && !t->clock->paused && first <= vclock_ns(t->clock))
            fire_first(t);
        else
            sleep_until(t, first);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* ---- Interface ---- */

struct timers *timers_create(struct vclock *clock, pthread_mutex_t *device_lock)
{
    struct timers *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->clock = clock;
    t->device_lock = device_lock;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&t->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

int timers_start(struct timers *t, struct tv_error *err)
{
    int error = pthread_create(&t->thread, NULL, timers_main, t);
    if (error)
        return tv_fail_errno(err, error, "cannot create the timer thread");
    pthread_setname_np(t->thread, "timers");
    t->started = true;
    return 0;
}

void timers_kick(struct timers *t)
{
    pthread_mutex_lock(&t->lock);
    pthread_cond_signal(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

void timers_destroy(struct timers *t)
{
    if (!t)
        return;
    if (t->started) {
        pthread_mutex_lock(&t->lock);
        t->ending = true;
        pthread_cond_signal(&t->changed);
        pthread_mutex_unlock(&t->lock);
        pthread_join(t->thread, NULL);
    }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t->heap);
    free(t);
}

void timer_init(struct timer *timer, struct timers *timers, void (*fire)(void *opaque),
                void *opaque)
{
    *timer = (struct timer){.timers = timers,
                            .fire = fire,
                            .opaque = opaque,
                            .deadline = TIMER_OFF,
                            .heap_index = NOT_IN_HEAP};
}

void timer_set(struct timer *timer, uint64_t deadline_ns)
{
    struct timers *t = timer->timers;
    pthread_mutex_lock(&t->lock);
    remove_timer(t, timer);
    timer->deadline = deadline_ns;
    if (deadline_ns != TIMER_OFF) {
        if (t->count == t->capacity) {
            t->capacity = t->capacity ? 2 * t->capacity : 64;
            t->heap = realloc(t->heap, t->capacity * sizeof(struct timer *));
            if (!t->heap)
                abort(); /* a few hundred bytes: there is nothing left to run on */
        }
        t->heap[t->count] = timer;
        timer->heap_index = t->count++;
        sift_up(t, timer->heap_index);
        if (timer->heap_index == 0)
            pthread_cond_signal(&t->changed);
    }
    pthread_mutex_unlock(&t->lock);
}

void timer_cancel(struct timer *timer)
{
    timer_set(timer, TIMER_OFF);
}
