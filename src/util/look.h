/*
 * Waiting for what often comes within microseconds: another processor's answer, the next request.
 * To sleep and be woken takes the host longer than that, and takes the waker's time, too. So a
 * thread looks before it sleeps: for longer if its last waits were short, but longer than it had
 * looked, and not at all after a long one. Whoever else wants the host's processor gets it.
 */
#ifndef TRIVISOR_UTIL_LOOK_H
#define TRIVISOR_UTIL_LOOK_H

#include <stdint.h>

/* What one thread has learnt of one kind of wait; starts as zeroes. */
struct look {
    uint64_t ns; /* that the next wait looks */
};

/* Look for one of `bits` in `*word`, until it is there or enough was looked. Returns when that
 * began. */
uint64_t look_for(const struct look *look, const _Atomic uint32_t *word, uint32_t bits);
/* The wait that began at `start` is over. */
void look_learn(struct look *look, uint64_t start);

#endif
