#include "boot/layout.h"
#include "boot/loader.h"
#include "util/util.h"

unsigned memmap_build(const struct physmem *mem, struct memmap_range *ranges)
{
    unsigned n = 0;
    ranges[n++] = (struct memmap_range){0, EBDA_BASE, MEMMAP_RAM};
    ranges[n++] = (struct memmap_range){EBDA_BASE, VGA_BASE - EBDA_BASE, MEMMAP_RESERVED};
    ranges[n++] = (struct memmap_range){ACPI_BASE, KERNEL_BASE - ACPI_BASE, MEMMAP_RESERVED};
    if (mem->low_size > KERNEL_BASE)
        ranges[n++] = (struct memmap_range){KERNEL_BASE, mem->low_size - KERNEL_BASE, MEMMAP_RAM};
    /* The chipset's own registers: IO-APIC, HPET, local APICs. */
    ranges[n++] =
        (struct memmap_range){PCI_WINDOW_END, HIGH_RAM_BASE - PCI_WINDOW_END, MEMMAP_RESERVED};
    if (mem->size > mem->low_size)
        ranges[n++] = (struct memmap_range){HIGH_RAM_BASE, mem->size - mem->low_size, MEMMAP_RAM};
    return n;
}
