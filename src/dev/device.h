/*
 * What a device is given, and how it makes itself known. A device is a struct, a state table, and a
 * function `struct X *x_create(struct device_env *env, ...)` that allocates it, claims its ranges
 * and registers it. Every device function is called with env->lock held (bus accesses, timer
 * call-backs, interrupt lines and back ends all take it); creation happens before any vCPU runs.
 */
#ifndef TRIVISOR_DEV_DEVICE_H
#define TRIVISOR_DEV_DEVICE_H

#include <pthread.h>

#include "dev/irq.h"
#include "mem/bus.h"
#include "mem/physmem.h"
#include "state/state.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/timer.h"

#define DEVICES_MAX 128

struct device_env {
    struct bus *pio;  /* port I/O space, 0 .. 0xffff */
    struct bus *mmio; /* guest-physical space outside RAM */
    struct physmem *mem;
    struct vclock *clock;
    struct timers *timers;
    struct event_log *log;
    pthread_mutex_t *lock;
    /* What a device asks of the machine as a whole. Any thread; they return at once. */
    void (*request_reset)(void *vm, const char *why); /* hardware reset of the whole machine */
    void (*request_poweroff)(void *vm);               /* ACPI S5 */
    void (*request_exit)(void *vm, int status);       /* end the VM with this exit status */
    void (*guest_panicked)(void *vm, const char *notice);
    void *vm;

    struct {
        const struct state_table *table;
        void *device;
        void (*destroy)(void *device); /* frees it; may be NULL */
    } devices[DEVICES_MAX];
    unsigned device_count;
};

/* Add a device to the list that reset, snapshots, the debugger and the tear-down walk, and reset it
 * now. */
void device_register(struct device_env *env, const struct state_table *table, void *device,
                     void (*destroy)(void *device));
/* Hardware reset of all devices, in the order of registration. */
void devices_reset(struct device_env *env);
/* Destroy all devices, last registered first. */
void devices_destroy(struct device_env *env);

#endif
