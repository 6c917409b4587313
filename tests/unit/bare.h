/* A bare machine for tests of the interpreter: RAM, one vCPU in 64-bit mode at CPL 0, page tables
 * and an IDT whose handlers halt. No devices. */
#ifndef TESTS_UNIT_BARE_H
#define TESTS_UNIT_BARE_H

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "interp/interp.h"

#define BARE_RAM     (UINT64_C(16) << 20)
#define BARE_CODE    UINT64_C(0x400000) /* identity-mapped, like all RAM below 8 MiB */
#define BARE_DATA    UINT64_C(0x500000)
#define BARE_STACK   UINT64_C(0x3ff000)
#define BARE_FREE    UINT64_C(0x40000000) /* linear addresses that bare_map() may map */
#define BARE_HANDLER UINT64_C(0x20000)    /* + 16 * vector */
#define NO_VECTOR    (-1)

struct bare {
    struct machine *m;
    struct vcpu *cpu;
    uint64_t next_table;
    pthread_mutex_t lock;
};

/* Guest code as assembly: GUEST(name, "...") and bare_load(b, at, name). */
#define GUEST(name, text)                                                                          \
    __asm__(".pushsection .rodata\n" #name "_start:\n" text "\n" #name "_end:\n.popsection\n");    \
    extern const uint8_t name##_start[], name##_end[]
#define bare_load(b, at, name)                                                                     \
    CHECK(physmem_write((b)->m->mem, (at), name##_start, (uint64_t)(name##_end - name##_start)))

struct bare *bare_new(void);
/* One more vCPU in the state of the first, for the test to run in a thread of its own. */
struct vcpu *bare_second_cpu(struct bare *b, uint64_t stack);
void bare_free(struct bare *b);
/* Map one 4 KiB page with PTE_* flags (0 unmaps). Flushes nothing. */
void bare_map(struct bare *b, uint64_t linear, uint64_t gpa, uint64_t flags);
/* The page-table entry of a page. */
uint64_t bare_pte(struct bare *b, uint64_t linear);
/* Run from `rip` until HLT. The vector whose handler halted, or NO_VECTOR for HLT elsewhere. */
int bare_run(struct bare *b, uint64_t rip);
/* Of the exception that bare_run() reported: the pushed RIP, and error code if it has one. */
uint64_t bare_fault_rip(struct bare *b, bool has_error);
uint64_t bare_fault_error(struct bare *b);
uint64_t bare_get(struct bare *b, uint64_t gpa);
void bare_put(struct bare *b, uint64_t gpa, uint64_t value);

#endif
