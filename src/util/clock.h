/*
 * The VM's time base. One counter is the source of all guest time: the host's invariant TSC, read
 * with RDTSC and scaled once to nanoseconds. The guest's TSC, the 8254, the RTC's ticks, the APIC
 * timer and the ACPI PM timer are all computed from it, so they can never drift against each other.
 * It stands still while the VM is paused.
 */
#ifndef TRIVISOR_UTIL_CLOCK_H
#define TRIVISOR_UTIL_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct vclock {
    uint64_t tsc_hz;    /* of the host's TSC, and of the guest's */
    uint64_t host_base; /* host TSC that is guest time 0; advanced by pauses */
    uint64_t paused_at; /* guest TSC at which the clock stands, valid while paused */
    bool paused;
    uint64_t mult; /* ns = (tsc * mult) >> 32, in 128 bits */
};

/* Calibrate against CLOCK_MONOTONIC (takes some 20 ms, once a process) and start at 0. */
void vclock_init(struct vclock *clock);
/* Guest TSC before TSC_ADJUST and offsets: host ticks since start, less pauses. */
uint64_t vclock_tsc(const struct vclock *clock);
/* Guest time in nanoseconds since power-on. */
uint64_t vclock_ns(const struct vclock *clock);
uint64_t vclock_tsc_to_ns(const struct vclock *clock, uint64_t tsc);
uint64_t vclock_ns_to_tsc(const struct vclock *clock, uint64_t ns);
/* Stop and continue; no vCPU runs when these are called. */
void vclock_pause(struct vclock *clock);
void vclock_resume(struct vclock *clock);

/* The host's monotonic clock, which goes on while the VM is paused. */
static inline uint64_t host_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
static inline uint64_t host_ms(void)
{
    return host_ns() / 1000000u;
}

/* Ticks of a counter of `hz` at guest time `ns`, and the first time at which it shows `ticks`. */
static inline uint64_t vclock_ticks(uint64_t ns, uint64_t hz)
{
    return (uint64_t)((unsigned __int128)ns * hz / 1000000000u);
}
static inline uint64_t vclock_ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    return (uint64_t)(((unsigned __int128)ticks * 1000000000u + hz - 1) / hz);
}

#endif
