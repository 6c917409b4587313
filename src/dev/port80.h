/* The POST code port 0x80: what is written goes to the log. */
#ifndef TRIVISOR_DEV_PORT80_H
#define TRIVISOR_DEV_PORT80_H

#include "dev/device.h"

struct port80;

struct port80 *port80_create(struct device_env *env);

#endif
