/* A port that ends the VM: a write of v gives exit status (v << 1) | 1. */
#ifndef TRIVISOR_DEV_DEBUG_EXIT_H
#define TRIVISOR_DEV_DEBUG_EXIT_H

#include "dev/device.h"

struct debug_exit;

/* Claims ports [port, port + size); size is 1, 2 or 4. NULL where the port is taken. */
struct debug_exit *debug_exit_create(struct device_env *env, uint16_t port, unsigned size);

#endif
