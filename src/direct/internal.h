/* Direct execution's structures. */
#ifndef TRIVISOR_DIRECT_INTERNAL_H
#define TRIVISOR_DIRECT_INTERNAL_H

#include <pthread.h>

#include "direct/direct.h"
#include "direct/process.h"
#include "mem/physmem.h"

#define SPACES_MAX       32
#define STUBS_MAX        8
#define SPACE_PAGES      16384
#define SPACE_HASH       8192
#define SWAPS_MAX        4
#define REFUSED_PAGES    64
#define LARGE_PAGE       (UINT64_C(2) << 20)
#define LARGE_PAGE_COUNT (LARGE_PAGE / PAGE_SIZE)

/* What is mapped in a stub: a page, or 2 MiB. */
struct stub_page {
    uint64_t linear;
    uint32_t index; /* of the (first) page in physmem.page_gen */
    uint32_t next;  /* in the hash chain or the free list; 0: last */
    uint8_t protection;
    bool large, used;
};

/* An address space that was seen to compute. */
struct space {
    uint64_t cr3; /* without PCID; 0: unused */
    uint64_t tag; /* of the interpreter's TLB when the pages were last right */
    uint64_t wraps;
    uint32_t pkru;
    uint64_t used; /* direct.clock */
    /* Promotion: */
    unsigned streak;
    uint64_t cool_until, backoff; /* ns */
    bool held;                    /* not now: direct_hold() */
    /* For demotion: what a run costs at least; since when this window lasts; time in direct
     * execution and how often it was left in it. */
    uint64_t trap_ns, window, direct_ns;
    unsigned traps, swaps;
    bool was_bad;
    bool roams; /* the last run was long: the stub is not bound to the vCPU's processor */
    uint64_t refused[REFUSED_PAGES]; /* linear addresses of pages that must not run, plus one */
    struct stub stub;
    /* Entry 0 is not used. NULL while there is no stub. */
    struct stub_page *pages;
    uint32_t *hash;
    uint32_t free, count, top;
};

struct direct {
    struct vcpu *cpu;
    struct space spaces[SPACES_MAX];
    struct space *current; /* with the CR3 of now; NULL: unknown */
    uint64_t clock;
    uint64_t last_cr3, last_entries, last_ns;
    bool broken;                              /* the host does not let us start processes */
    bool host_tried, breakpoints, tsc_faults; /* do they stop a stub? */
    uint64_t *mapped;                         /* bit set: the page may be mapped in some stub */
    uint64_t host_mask;                       /* XSAVE components of the host's signal frames */
    pthread_mutex_t kick_lock;
    pid_t running; /* under kick_lock: to be kicked */
    struct direct_stats stats;
};

/* ---- pages.c ---- */

bool space_create_pages(struct space *s);
void space_free_pages(struct space *s);
/* Map what the access at `linear` needs, with page-fault error code `error`. False: it faults in
 * the guest, or needs more than a plain access. */
bool space_fill(struct direct *d, struct space *s, uint64_t linear, uint32_t error);
/* Is `rip` in a page that was found unfit to run? A hint. */
bool space_refuses(struct space *s, uint64_t rip);
void space_forgive(struct space *s);
/* Bring the mapping in line with the guest's page tables as they are now. False: most of it was
 * wrong. */
bool space_validate(struct direct *d, struct space *s);

#endif
