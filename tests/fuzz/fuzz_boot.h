/* Feeding one kernel loader: its input is the kernel file. */
#ifndef TESTS_FUZZ_FUZZ_BOOT_H
#define TESTS_FUZZ_FUZZ_BOOT_H

#include "boot/loader.h"
#include "fuzz.h"

/* Load `data` into a small guest, and abort() where the outcome is not one of the two allowed: an
 * entry point in RAM, or a one-line message that names the file. */
void fuzz_boot(const uint8_t *data, size_t size, bool (*probe)(const struct boot_file *),
               int (*load)(const struct boot_image *, struct physmem *, struct boot_entry *,
                           struct tv_error *));

#endif
