/* The SMBus host of the PIIX4's function 3. The function itself says where its registers are. */
#ifndef TRIVISOR_DEV_PIIX4_SMBUS_H
#define TRIVISOR_DEV_PIIX4_SMBUS_H

#include "dev/device.h"

#define PIIX4_SMBUS_SIZE 16 /* bytes of I/O space */

struct piix4_smbus;

/* `irq` is up while a finished transaction that asked for an interrupt is not acknowledged. NULL:
 * out of memory. */
struct piix4_smbus *piix4_smbus_create(struct device_env *env, struct irq_line irq);
/* Answer at `base` from now on, or, 0, nowhere. `enabled`: the host starts transactions. Device
 * lock held. */
void piix4_smbus_configure(struct piix4_smbus *smbus, uint16_t base, bool enabled);

#endif
