/* A workload runs its loop `n` times; main.c finds out how many fill the wanted time. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct workload {
    const char *name;
    void (*run)(unsigned long n);
};

extern const struct workload integer_workloads[], float_workloads[], kernel_workloads[];

/* What a loop computes goes here, so that it is computed. */
extern volatile uint64_t sink;
/* The program's own path, for workloads that execute it. */
extern const char *own_path;

_Noreturn static inline void fail(const char *what)
{
    perror(what);
    exit(1);
}

#endif
