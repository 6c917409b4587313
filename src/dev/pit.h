/* The 8254 interval timer, ports 0x40..0x43, and the system control port 0x61. */
#ifndef TRIVISOR_DEV_PIT_H
#define TRIVISOR_DEV_PIT_H

#include "dev/device.h"

struct pit;

#define PIT_HZ 1193182

/* `irq0`: output of counter 0. */
struct pit *pit_create(struct device_env *env, struct irq_line irq0);

#endif
