/*
 * A rehearsal: ops run without lasting effect. While vcpu.interp->rehearsal is set, each store to
 * RAM is recorded before it is made, and what must not happen twice (devices, time, chance) leaves
 * by interp_head.unwind with REHEARSAL_ONCE. Registers are the caller's to save.
 *
 * The translator's --verify is built on it: one vCPU only.
 */
#ifndef TRIVISOR_INTERP_REHEARSAL_H
#define TRIVISOR_INTERP_REHEARSAL_H

#include "cpu/cpu.h"
#include "interp/op.h"

#define REHEARSAL_ONCE   2 /* what setjmp() returns; 1 is a fault, as ever */
#define REHEARSAL_STORES 8192
#define REHEARSAL_BYTES  (UINT32_C(256) << 10)

struct rehearsal_store {
    uint8_t *host;
    uint32_t length;
    uint32_t at; /* in `before` and `after` */
};

struct rehearsal {
    unsigned count;
    uint32_t used;
    struct rehearsal_store stores[REHEARSAL_STORES];
    uint8_t before[REHEARSAL_BYTES]; /* each store: what was there */
    uint8_t after[REHEARSAL_BYTES];  /* when all was done */
};

/* Stores go to `r`, from empty; NULL: the rehearsal is over (its stores are not taken back). */
void rehearsal_set(struct vcpu *cpu, struct rehearsal *r);
/* Keep what was stored in `after` and put back what was there before. */
void rehearsal_undo(struct rehearsal *r);
/* The first store that memory does not agree with, NULL: none. */
const struct rehearsal_store *rehearsal_difference(const struct rehearsal *r);

/* ---- For the interpreter ---- */

/* `len` bytes at `host` are about to be written. */
void rehearsal_note(struct vcpu *cpu, void *host, uint32_t len);
/* What comes now is not done in a rehearsal. Returns only outside one. */
void rehearsal_once(struct vcpu *cpu);

#endif
