/* The drives of the configuration: their images, and the controllers that they hang on. */
#ifndef TRIVISOR_VM_DRIVES_H
#define TRIVISOR_VM_DRIVES_H

#include "vm/vm.h"

#define PVSCSI_SLOT 16

struct pci_bus;
struct rtc;

/* Open all images, create the controllers, describe floppy drives in the CMOS of `rtc`. -1 with
 * `err` filled. */
int drives_create(struct tv_vm *vm, struct pci_bus *pci, struct rtc *rtc, struct tv_error *err);
/* Try again what found no space on the host. True: nothing waits for it any more. All vCPUs are
 * parked. */
bool drives_retry(struct tv_vm *vm);
/* Wait for what is under way and give up what waits for space; no vCPU runs any more. Then the
 * devices go, then the images. */
void drives_drain(struct tv_vm *vm);
void drives_close(struct tv_vm *vm);

#endif
