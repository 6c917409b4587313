/* A stub process and the hand-over to it. All functions but stub_kick() are the vCPU thread's. */
#ifndef TRIVISOR_DIRECT_PROCESS_H
#define TRIVISOR_DIRECT_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>
#include <trivisor/trivisor.h>

#include "direct/stub.h"

struct physmem;

#define STUB_SITES 4 /* the processor's breakpoints */

struct stub {
    pid_t pid; /* 0: there is none */
    uint64_t base;
    uint8_t *shared; /* STUB_SIZE bytes: what the stub has mapped at `base` */
    const struct physmem *mem;
    unsigned cpu;               /* that it is bound to, plus one; 0: none */
    uint64_t sites[STUB_SITES]; /* where it stops before the instruction; 0: none */
};

/* Start a stub whose file of guest RAM is `mem`'s. -1 with `err`. */
int stub_start(struct stub *stub, const struct physmem *mem, struct tv_error *err);
/* Kill it and free everything. Fine on one that was not started. */
void stub_end(struct stub *stub);

static inline struct stub_control *stub_control(const struct stub *stub)
{
    return (struct stub_control *)(void *)(stub->shared + STUB_CONTROL);
}
static inline const volatile struct stub_report *stub_report(const struct stub *stub)
{
    return (const volatile struct stub_report *)(const void *)(stub->shared + STUB_REPORT);
}
/* Is [address, address+size) in the pages that are the stub's own? */
static inline bool stub_owns(const struct stub *stub, uint64_t address, uint64_t size)
{
    return address < stub->base + STUB_SIZE && address + size > stub->base;
}

/* Have the stub make calls: added here, made by the next stub_flush() or as soon as there are
 * CALLS_MAX. False: the stub is gone. */
bool stub_map(struct stub *stub, uint64_t address, uint64_t size, int protection, uint64_t offset);
bool stub_protect(struct stub *stub, uint64_t address, uint64_t size, int protection);
bool stub_unmap(struct stub *stub, uint64_t address, uint64_t size);
/* Make them now. *failed is set if one of them failed. False: the stub is gone. */
bool stub_flush(struct stub *stub, bool *failed);

/* Stop it, with SIGTRAP, before it executes what is at these addresses and no others. False: the
 * host does not let us, or the stub is gone. */
bool stub_break_at(struct stub *stub, const uint64_t *sites, unsigned count);

/* Let the stub return from its signal, and wait for the next. False: the stub is gone, and with it
 * the registers of the guest. */
bool stub_resume(struct stub *stub);
/* Bind it to the processor that this thread is on: of the two only one runs at a time, and waking a
 * sleeping processor takes tens of microseconds. */
void stub_follow(struct stub *stub);
/* Bind it to none: where it runs for long, its processor may have others to serve, and another may
 * be idle. */
void stub_roam(struct stub *stub);
/* Make a running stub raise a signal. Any thread, as long as the stub is not ended meanwhile. */
void stub_kick(pid_t pid);

#endif
