/* Option ROMs: what firmware finds in a PCI function's expansion ROM and runs. */
#ifndef TRIVISOR_VM_OPTION_ROM_H
#define TRIVISOR_VM_OPTION_ROM_H

#include "dev/pci.h"

/* The file `path` as the expansion ROM of the function. -1 with `err` filled: it is no option ROM,
 * or there is no such function, or it has one. */
int option_rom_add(struct pci_bus *bus, unsigned devfn, const char *path, struct tv_error *err);
/* Our UEFI driver for PVSCSI (src/firmware), which Debian's OVMF does not have, as the ROM of that
 * function unless it has another. */
int option_rom_add_pvscsi(struct pci_bus *bus, unsigned devfn, struct tv_error *err);

/* Made from src/firmware. */
extern const uint8_t pvscsi_rom[];
extern const size_t pvscsi_rom_size;

#endif
