/* System control port A, 0x92: fast A20 gate and fast reset. */
#ifndef TRIVISOR_DEV_PORT92_H
#define TRIVISOR_DEV_PORT92_H

#include "dev/device.h"

struct port92;

/* `a20` gets the OR of this port's gate and the keyboard controller's. */
struct port92 *port92_create(struct device_env *env, struct irq_line a20);
/* The keyboard controller's gate: the `set` of an irq_line. `pin` is unused. */
void port92_set_kbc_a20(void *port92, int pin, int level);

#endif
