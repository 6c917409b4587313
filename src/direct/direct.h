/*
 * Direct execution: ring-3 code of an address space that computes for long stretches runs on the
 * bare processor, in a process of its own. docs/direct.md tells how, and when.
 */
#ifndef TRIVISOR_DIRECT_DIRECT_H
#define TRIVISOR_DIRECT_DIRECT_H

#include "cpu/cpu.h"
#include "util/util.h"

struct direct;

/* NULL: out of memory. The vCPU thread's, as are all but direct_kick(). */
struct direct *direct_create(struct vcpu *cpu);
void direct_destroy(struct direct *d);

enum direct_exit {
    DIRECT_NOT,     /* this is not for direct execution: nothing has happened */
    DIRECT_LEFT,    /* the vCPU stands before an instruction; look around */
    DIRECT_EMULATE, /* and the interpreter must execute that instruction */
    DIRECT_ERROR,   /* the process died, and the guest's registers with it */
};

/* Run the ring-3 code at vcpu.rip, if its address space is one for direct execution. */
enum direct_exit direct_run(struct direct *d);
/* After DIRECT_EMULATE: is vcpu.rip still where only the interpreter may execute? */
bool direct_refuses(const struct direct *d);
/* It stays there: no direct execution before the next interrupt that finds it elsewhere. */
void direct_hold(struct direct *d);
/*
 * An interrupt arrived in ring 3. `entries`: how often ring 0 was entered from ring 3 so far.
 * Decides which address spaces are promoted to direct execution.
 */
void direct_sample(struct direct *d, uint64_t entries);
/* Is the current address space one for direct execution? After each change of CR3 and each
 * direct_sample() and direct_run(). */
bool direct_wanted(const struct direct *d);

/* The guest asked for a page's translation to be forgotten. Other flushes are seen in interp. */
void direct_flush_page(struct direct *d, uint64_t linear);
/* A page (index in physmem.page_gen) was written, or code is about to be read from it. */
void direct_page_written(struct direct *d, uint64_t index);
void direct_page_marked(struct direct *d, uint64_t index);
/* Any page may have been written. */
void direct_forget_code(struct direct *d);
/* Code was read from pages that are not known. */
void direct_purge_writes(struct direct *d);

/* Make direct_run() return soon. Any thread. */
void direct_kick(struct direct *d);

struct direct_stats {
    uint64_t stubs, runs, fills, pages, refused, kicks, syscalls, emulated, validations, demotions;
    uint64_t ns; /* in direct execution */
};
const struct direct_stats *direct_stats(const struct direct *d);

#endif
