/* The chipset's reset control register, port 0xcf9. */
#ifndef TRIVISOR_DEV_RESET_CONTROL_H
#define TRIVISOR_DEV_RESET_CONTROL_H

#include "dev/device.h"
#include "dev/pci.h"

struct reset_control;

/* It lies inside the dword of the PCI configuration address. */
struct reset_control *reset_control_create(struct device_env *env, struct pci_bus *pci);

#endif
