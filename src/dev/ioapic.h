/* The 82093AA I/O APIC: 24 pins, registers at 0xfec00000. */
#ifndef TRIVISOR_DEV_IOAPIC_H
#define TRIVISOR_DEV_IOAPIC_H

#include "dev/lapic.h"

#define IOAPIC_BASE UINT64_C(0xfec00000)
#define IOAPIC_PINS 24

struct ioapic;

struct ioapic *ioapic_create(struct device_env *env, struct lapics *all);
/* Drive pin 0..23. `ioapic` is the struct ioapic: this is the `set` of an irq_line. Device lock
 * held. */
void ioapic_set_irq(void *ioapic, int pin, int level);
/* Has an interrupt of the edge-triggered `pin` not been taken yet? Where it has not, whoever was
 * named to lapics_on_taken is called when it is. Device lock held. */
bool ioapic_waits(struct ioapic *ioapic, unsigned pin);

#endif
