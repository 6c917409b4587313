/* The debug console, port 0xe9: bytes written go out, reads give 0xe9. */
#ifndef TRIVISOR_DEV_DEBUGCON_H
#define TRIVISOR_DEV_DEBUGCON_H

#include "dev/device.h"
#include "ui/chardev.h"

struct debugcon;

/* `out` may be NULL: the bytes go line by line to the log (item dev). */
struct debugcon *debugcon_create(struct device_env *env, struct chardev *out);

#endif
