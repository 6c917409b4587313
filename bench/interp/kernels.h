/* The benchmark's kernels: each takes a zeroed work area and returns a checksum. */
#ifndef TRIVISOR_BENCH_KERNELS_H
#define TRIVISOR_BENCH_KERNELS_H

#include <stdint.h>

#define WORK_SIZE (8u << 20)

typedef uint64_t kernel_fn(void *work);
kernel_fn kernel_sieve, kernel_crc, kernel_quicksort, kernel_hash, kernel_chase, kernel_bytecode,
    kernel_recursion;

#endif
