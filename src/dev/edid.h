/* EDID 1.4: what a monitor says of itself. */
#ifndef TRIVISOR_DEV_EDID_H
#define TRIVISOR_DEV_EDID_H

#include <stdint.h>

#define EDID_SIZE 128

/* The block of a monitor whose own size is width by height at 60 Hz; up to 4095 each way. */
void edid_build(uint8_t edid[EDID_SIZE], unsigned width, unsigned height);

#endif
