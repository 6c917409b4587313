/*
 * Has the host allocate memory before it is touched, on a thread of its own: a vCPU that goes
 * through fresh memory then need not wait for pages to be cleared where another processor is free.
 */
#ifndef TRIVISOR_MEM_POPULATE_H
#define TRIVISOR_MEM_POPULATE_H

#include <stdbool.h>
#include <stdint.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct populator;

/* NULL: out of memory. The thread starts with the first request. */
struct populator *populator_create(void);
void populator_destroy(struct populator *p);

/* Ask for whole pages, of a writable mapping or (`exec`) of one that is only read. Any thread.
 * Comes to nothing where there is no thread or too much is asked for already: pages then come when
 * they are touched. */
void populator_ask(struct populator *p, const void *start, uint64_t length, bool exec);
/* Until all that was asked for is done: before a mapping goes. */
void populator_wait(struct populator *p);

#endif
