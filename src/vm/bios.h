/* The virtual BIOS: the ROM image, and what the firmware configuration device tells it. */
#ifndef TRIVISOR_VM_BIOS_H
#define TRIVISOR_VM_BIOS_H

#include "vm/vm.h"

struct pci_bus;
struct rtc;

/* Load the BIOS (config.bios, or where Debian's `seabios` package has it) below 4 GiB and make it
 * known to the chipset. -1 with `err` filled. */
int bios_create(struct tv_vm *vm, struct pci_bus *pci, struct rtc *rtc, struct tv_error *err);

/* Tell the firmware what to boot from: at power-up, or again after a reset. vm->bios is there, and
 * all vCPUs are parked. -1 with `err` filled. */
int bios_set_boot_order(struct tv_vm *vm, bool again, struct tv_error *err);

#endif
