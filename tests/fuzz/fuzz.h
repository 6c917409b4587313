/* What a fuzz target is: one function for an input, and valid inputs to start from. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "boot_images.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Valid input number `index`; 0 when there are no more. */
int fuzz_seed(unsigned index, struct test_image *image);

/* What inputs are made of: mutations keep pieces of this size together. A target may define it;
 * without it: bytes. */
extern const size_t fuzz_unit __attribute__((weak));

#endif
