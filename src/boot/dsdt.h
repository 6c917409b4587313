/* The differentiated system description table's contents. */
#ifndef TRIVISOR_BOOT_DSDT_H
#define TRIVISOR_BOOT_DSDT_H

#include "boot/aml.h"

void dsdt_write(struct aml *aml, unsigned vcpus, bool hpet, uint64_t ram_end);

#endif
