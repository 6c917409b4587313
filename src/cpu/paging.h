/* The page-table walk of all paging modes (SDM vol. 3, chapter 4). */
#ifndef TRIVISOR_CPU_PAGING_H
#define TRIVISOR_CPU_PAGING_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu/cpu.h"

/* What kind of access asks: a set of these. */
enum access {
    ACCESS_READ = 0,
    ACCESS_WRITE = 1,
    ACCESS_EXEC = 2,
    ACCESS_USER = 4, /* CPL 3; implicit supervisor accesses (descriptor tables, TSS) leave it out */
    ACCESS_IMPLICIT = 8, /* implicit supervisor access: SMAP applies whatever EFLAGS.AC says */
    ACCESS_PROBE = 16,   /* leave accessed and dirty bits alone (a debugger looks) */
};

struct translation {
    uint64_t gpa;       /* of the byte asked for */
    uint64_t page_size; /* 4 KiB, 2 MiB, 4 MiB or 1 GiB; 4 KiB where paging is off */
    bool writable;      /* a write with the same privilege would pass and D is set already */
    bool executable;    /* so would a fetch */
    bool user;          /* U/S is set at all levels */
    bool global;
};

/*
 * Translate linear address `va` for an access with flags `access`, setting accessed and dirty bits
 * as the processor would. Returns true with `*out` filled; or false with the page-fault error code
 * in `*error`, and CR2 not written (the caller raises the fault).
 */
bool paging_translate(struct vcpu *cpu, uint64_t va, unsigned access, struct translation *out,
                      uint32_t *error);

/* Load the PDPTEs from CR3 in PAE mode. False: a reserved bit is set, the guest gets #GP(0). */
bool paging_load_pdptes(struct vcpu *cpu, uint64_t cr3);

/* Copy from or to guest-linear memory as a debugger does: no faults, no accessed bits. Bytes
 * copied. */
uint64_t paging_debug_read(struct vcpu *cpu, uint64_t va, void *buf, uint64_t len);
uint64_t paging_debug_write(struct vcpu *cpu, uint64_t va, const void *buf, uint64_t len);

#endif
