/* The PIIX4's ISA bridge (8086:7110, function 0) and power management (8086:7113, function 3). */
#ifndef TRIVISOR_DEV_PIIX4_H
#define TRIVISOR_DEV_PIIX4_H

#include "dev/acpi_ports.h"
#include "dev/device.h"
#include "dev/pci.h"

struct piix4_isa;
struct piix4_pm;

#define PIIX4_SLOT 1

struct piix4_isa *piix4_isa_create(struct device_env *env, struct pci_bus *bus);
/* `sci`: ISA IRQ 9, at the 8259 and the IO-APIC. */
struct piix4_pm *piix4_pm_create(struct device_env *env, struct pci_bus *bus, struct irq_line sci);
/* The block of registers answers at `base`, too, whatever the guest sets: OVMF powers off through
 * the address that it would have chosen, also where it found another one in use. */
void piix4_pm_add_base(struct piix4_pm *pm, uint16_t base);
/* The user pushes the power button. Device lock held. */
void piix4_pm_power_button(struct piix4_pm *pm);
/* An alarm of the clock is due: an event that wakes. Device lock held. */
void piix4_pm_rtc_alarm(struct piix4_pm *pm);
/* Set or clear bit `event` (0..15) of GPE0_STS. Device lock held. */
void piix4_pm_gpe(struct piix4_pm *pm, unsigned event, bool level);

#endif
