/* The drives of the configuration: their images, and the controllers that they hang on. */
#ifndef TRIVISOR_VM_DRIVES_H
#define TRIVISOR_VM_DRIVES_H

#include "vm/vm.h"

struct pci_bus;

/* Open all images and create the controllers. -1 with `err` filled. */
int drives_create(struct tv_vm *vm, struct pci_bus *pci, struct tv_error *err);
/* Wait for what is under way; no vCPU runs any more. Then the devices go, then the images. */
void drives_drain(struct tv_vm *vm);
void drives_close(struct tv_vm *vm);

#endif
