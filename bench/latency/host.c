/*
 * What the host alone takes, for latency.py: a timer that is due while its thread sleeps, and one
 * thread that wakes another. Prints lines as the guest does (latency64.c).
 */
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SAMPLES 800

static uint64_t samples[SAMPLES];

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void result(const char *name)
{
    qsort(samples, SAMPLES, sizeof *samples, compare);
    printf("RESULT %s %d %llu %llu %llu\n", name, SAMPLES, (unsigned long long)samples[SAMPLES / 2],
           (unsigned long long)samples[SAMPLES * 99 / 100],
           (unsigned long long)samples[SAMPLES - 1]);
}

static void sleep_until(uint64_t due)
{
    const struct timespec t = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void timers(void)
{
    for (int i = 0; i < SAMPLES; i++) {
        const uint64_t due = now() + (200 + (uint64_t)random() % 1000) * 1000;
        sleep_until(due);
        samples[i] = now() - due;
    }
    result("host-timer");
}

static _Atomic uint32_t word;
static _Atomic uint64_t woken;

static void *sleeper(void *unused)
{
    for (uint32_t seen = 0; seen < SAMPLES; seen++) {
        while (atomic_load(&word) == seen)
            syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
        atomic_store(&woken, now());
    }
    return unused;
}

static void wake_ups(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleeper, NULL))
        exit(1);
    for (int i = 0; i < SAMPLES; i++) {
        for (const uint64_t end = now() + 100000 + (uint64_t)random() % 300000; now() < end;)
            __builtin_ia32_pause();
        atomic_store(&woken, 0);
        const uint64_t start = now();
        atomic_fetch_add(&word, 1);
        syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        while (!atomic_load(&woken))
            __builtin_ia32_pause();
        samples[i] = atomic_load(&woken) - start;
    }
    pthread_join(thread, NULL);
    result("host-wake-up");
}

int main(void)
{
    prctl(PR_SET_TIMERSLACK, 1);
    timers();
    wake_ups();
    return 0;
}
