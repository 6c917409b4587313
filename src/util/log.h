/*
 * The event log that --log ITEMS:FILE turns on. A log belongs to one VM; each line is tagged with
 * the item's name and the vCPU. Testing whether an item is on costs one load and one bit test.
 */
#ifndef TRIVISOR_UTIL_LOG_H
#define TRIVISOR_UTIL_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <trivisor/trivisor.h>

enum log_item {
    LOG_INT,   /* exceptions and interrupts as they are delivered */
    LOG_CR,    /* writes of control registers and EFER */
    LOG_MSR,   /* RDMSR and WRMSR */
    LOG_CPUID, /* CPUID */
    LOG_IO,    /* port I/O */
    LOG_MMIO,  /* memory-mapped I/O */
    LOG_EXEC,  /* one line for each block entered */
    LOG_CPU,   /* the whole register file at each block */
    LOG_DEV,   /* what devices find odd: unknown registers, unsupported modes */
    LOG_RESET, /* resets, INIT, SIPI, triple faults, power-off */
    LOG_VERIFY, /* what --verify found; on with it */
    LOG_ITEMS
};

struct event_log {
    uint32_t mask; /* bit n: enum log_item n */
    FILE *file;    /* locked by stdio; a line is one call */
};

/*
 * Open a log as "item,item,...:FILE" asks ("all" is every item; FILE "-" is stderr). Returns 0, or
 * -1 with `err` filled for an unknown item or a file that cannot be created.
 */
int log_open(struct event_log *log, const char *spec, struct tv_error *err);
void log_close(struct event_log *log);

static inline bool log_on(const struct event_log *log, enum log_item item)
{
    return __builtin_expect((log->mask >> item) & 1, 0);
}

/* Write one line ("item: text\n"). Call it only when log_on(). */
void log_write(struct event_log *log, enum log_item item, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
