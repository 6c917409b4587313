/*
 * What an input reached, in a build with -fsanitize-coverage=trace-pc,trace-cmp (-Dfuzz=true with
 * gcc); without that nothing is ever reached. Single-threaded.
 */
#ifndef TESTS_FUZZ_COVERAGE_H
#define TESTS_FUZZ_COVERAGE_H

#include <stdbool.h>
#include <stdint.h>

/* Two operands that instrumented code compared. */
struct comparison {
    uint64_t a, b;
    unsigned size;
};

#define COMPARISONS    4096
#define COVERAGE_EDGES (1u << 16)

void coverage_start(void);
/* Returns whether the input reached something, or did something more often, than any before it. */
bool coverage_stop(void);
/* Branches seen by all inputs so far; 0: the code is not instrumented. */
unsigned coverage_edges(void);
/* How often each of COVERAGE_EDGES branches was taken by the last input. */
const uint8_t *coverage_hits(void);
/* Comparison number `i` below COMPARISONS of the last ones; false: there are fewer. */
bool coverage_comparison(unsigned i, struct comparison *c);

#endif
