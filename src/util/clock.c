#include "util/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

#define CALIBRATION_NS 20000000

struct sample {
    uint64_t tsc;
    int64_t ns;
};

/* One (TSC, time) pair: of several, the one whose two TSC readings lie closest around the clock's.
 */
static struct sample take_sample(void)
{
    struct sample best = {0, 0};
    uint64_t best_width = UINT64_MAX;
    for (int i = 0; i < 16; i++) {
        uint64_t before = __rdtsc();
        int64_t now = (int64_t)host_ns();
        uint64_t after = __rdtsc();
        if (after - before < best_width) {
            best_width = after - before;
            best = (struct sample){before + best_width / 2, now};
        }
    }
    return best;
}

static uint64_t host_tsc_hz;
static pthread_once_t calibrated = PTHREAD_ONCE_INIT;

static void calibrate(void)
{
    struct sample start = take_sample();
    struct timespec wait = {.tv_nsec = CALIBRATION_NS};
    nanosleep(&wait, NULL);
    struct sample end = take_sample();
    unsigned __int128 ticks = (unsigned __int128)(end.tsc - start.tsc) * 1000000000u;
    uint64_t hz = (uint64_t)(ticks / (uint64_t)(end.ns - start.ns));
    /* Processors run at whole kHz as far as guests can tell: round, so that all runs agree. */
    host_tsc_hz = (hz + 500) / 1000 * 1000;
}

void vclock_init(struct vclock *clock)
{
    pthread_once(&calibrated, calibrate);
    *clock =
        (struct vclock){.tsc_hz = host_tsc_hz,
                        .mult = (uint64_t)(((unsigned __int128)1000000000u << 32) / host_tsc_hz),
                        .host_base = __rdtsc()};
}

uint64_t vclock_tsc(const struct vclock *clock)
{
    return clock->paused ? clock->paused_at : __rdtsc() - clock->host_base;
}

uint64_t vclock_tsc_to_ns(const struct vclock *clock, uint64_t tsc)
{
    return (uint64_t)((unsigned __int128)tsc * clock->mult >> 32);
}

uint64_t vclock_ns(const struct vclock *clock)
{
    return vclock_tsc_to_ns(clock, vclock_tsc(clock));
}

uint64_t vclock_ns_to_tsc(const struct vclock *clock, uint64_t ns)
{
    return (uint64_t)((((unsigned __int128)ns << 32) + clock->mult - 1) / clock->mult);
}

void vclock_pause(struct vclock *clock)
{
    if (clock->paused)
        return;
    clock->paused_at = vclock_tsc(clock);
    clock->paused = true;
}

void vclock_resume(struct vclock *clock)
{
    if (!clock->paused)
        return;
    clock->host_base = __rdtsc() - clock->paused_at;
    clock->paused = false;
}
