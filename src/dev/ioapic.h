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

#endif
