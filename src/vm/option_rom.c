#include "vm/option_rom.h"

#include <stdlib.h>
#include <string.h>

#include "disk/file.h"
#include "util/error.h"

#define ROM_MIN      512
#define ROM_MAX      (UINT64_C(16) << 20)
#define PCI_DATA_AT  0x18 /* where the PCI data structure is */
#define PCI_DATA_MIN 24u

static bool has_rom(const struct pci_device *dev)
{
    return dev->bars[PCI_BARS].size != 0;
}

/* PCI firmware specification 3.0, 5.1. */
static bool is_option_rom(const uint8_t *rom, uint64_t size)
{
    unsigned at = rom[PCI_DATA_AT] | rom[PCI_DATA_AT + 1] << 8;
    return rom[0] == 0x55 && rom[1] == 0xaa && at + PCI_DATA_MIN <= size &&
           memcmp(rom + at, "PCIR", 4) == 0;
}

int option_rom_add(struct pci_bus *bus, unsigned devfn, const char *path, struct tv_error *err)
{
    struct pci_device *dev = pci_device_at(bus, devfn);
    if (!dev)
        return tv_fail(err, "%s: there is no PCI device in slot %u", path, devfn >> 3);
    if (has_rom(dev))
        return tv_fail(err, "%s: the PCI device in slot %u has an option ROM already", path,
                       devfn >> 3);
    uint64_t size;
    uint8_t *rom = file_read_all(path, ROM_MIN, ROM_MAX, &size, err);
    if (!rom)
        return -1;
    int result = 0;
    if (!is_option_rom(rom, size))
        result = tv_fail(err,
                         "%s: no PCI option ROM: it begins with 55 AA, and says at 18h where its "
                         "PCI data structure is",
                         path);
    else if (!pci_add_rom(dev, rom, size))
        result = tv_fail(err, "%s: no room for another ROM", path);
    free(rom);
    return result;
}

int option_rom_add_pvscsi(struct pci_bus *bus, unsigned devfn, struct tv_error *err)
{
    struct pci_device *dev = pci_device_at(bus, devfn);
    return has_rom(dev) || pci_add_rom(dev, pvscsi_rom, pvscsi_rom_size)
               ? 0
               : tv_fail(err, "no room for the option ROM of PVSCSI");
}
