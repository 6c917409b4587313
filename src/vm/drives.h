/* The drives of the configuration: their images, and the controllers that they hang on. */
#ifndef TRIVISOR_VM_DRIVES_H
#define TRIVISOR_VM_DRIVES_H

#include <stdio.h>

#include "vm/vm.h"

#define PVSCSI_SLOT 16

struct pci_bus;
struct rtc;

/* Open all images, create the controllers, describe floppy drives in the CMOS of `rtc`. -1 with
 * `err` filled. */
int drives_create(struct tv_vm *vm, struct pci_bus *pci, struct rtc *rtc, struct tv_error *err);
/*
 * Another medium in a CD-ROM or floppy drive, or none (`medium->path` NULL); of `medium` path,
 * format, read_only and snapshot count. `force`: although the guest has locked the tray. Any
 * thread, no lock held. -1 with `err` filled: the old medium is still there.
 */
int drives_change(struct tv_vm *vm, size_t drive, const struct tv_drive *medium, bool force,
                  struct tv_error *err);
/* Lines for the user about what is where. */
void drives_print(struct tv_vm *vm, FILE *out);
/* Try again what found no space on the host. True: nothing waits for it any more. All vCPUs are
 * parked. */
bool drives_retry(struct tv_vm *vm);
/* Wait for what is under way and give up what waits for space; no vCPU runs any more. Then the
 * devices go, then the images. */
void drives_drain(struct tv_vm *vm);
void drives_close(struct tv_vm *vm);

#endif
