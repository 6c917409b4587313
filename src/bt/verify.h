/* What --verify keeps, and how it reports. */
#ifndef TRIVISOR_BT_VERIFY_H
#define TRIVISOR_BT_VERIFY_H

#include "bt/bt.h"

struct bt_verify {
    struct vcpu before, rehearsed, acted;       /* only the architectural state is filled */
    struct rehearsal rehearsals[2], *rehearsal; /* the last one */
    struct fault rehearsed_fault;
    jmp_buf unwind;
    struct op *patched, kept; /* the op that stands for a rehearsal's end */
    uint64_t compared, early, once, strings, tails;
    /* What first differed from the rehearsal of the whole block; NULL: flags, memory. */
    const char *first;
    bool failed;
    char message[512];
};

/* Name of the first register that differs, NULL: none. Arithmetic flags are not looked at. */
const char *bt_verify_first_difference(const struct vcpu *a, const struct vcpu *b, bool vectors);
/* The states in bt_verify differ from vcpu's: fill bt_verify.message and write the log. */
void bt_verify_report(struct vcpu *cpu, const struct bt_block *b, bool vectors, bool rehearsed,
                      bool acted);

#endif
