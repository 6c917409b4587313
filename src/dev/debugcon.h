/* The debug console, ports 0xe9 and (firmware) 0x402: bytes written go out, reads give 0xe9. */
#ifndef TRIVISOR_DEV_DEBUGCON_H
#define TRIVISOR_DEV_DEBUGCON_H

#include "dev/device.h"
#include "ui/chardev.h"

#define DEBUGCON_PORT      0xe9
#define DEBUGCON_BIOS_PORT 0x402

struct debugcon;

/* `out` may be NULL: the bytes go line by line to the log (item dev). */
struct debugcon *debugcon_create(struct device_env *env, uint16_t port, struct chardev *out);

#endif
