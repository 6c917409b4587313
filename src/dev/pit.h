/* The 8254 interval timer, ports 0x40..0x43, and the system control port 0x61. */
#ifndef TRIVISOR_DEV_PIT_H
#define TRIVISOR_DEV_PIT_H

#include "dev/device.h"

struct pit;

#define PIT_HZ 1193182

/* `irq0`: output of counter 0. */
struct pit *pit_create(struct device_env *env, struct irq_line irq0);
/* `waits` tells whether the last tick still waits for a processor to take it; where it does,
 * pit_tick_taken must be called when it has been. Device lock held for both. */
void pit_on_tick(struct pit *pit, bool (*waits)(void *opaque), void *opaque);
void pit_tick_taken(struct pit *pit);
/* The speaker behind counter 2 and port 0x61 begins to sound, changes its pitch, or falls silent (0
 * Hz). Device lock held in `tone`. What a program does by moving the cone itself (bit 1 of port
 * 0x61 without the counter) is not told. */
void pit_on_tone(struct pit *pit, void (*tone)(void *opaque, unsigned hz), void *opaque);

#endif
