/* What firmware would have left below 1 MiB. */
#include "boot/bytes.h"
#include "boot/layout.h"
#include "boot/loader.h"

/* BIOS data area: the words that kernels still read. */
enum {
    BDA_COM1 = 0x00,
    BDA_COM2 = 0x02,
    BDA_EBDA_SEGMENT = 0x0e,
    BDA_EQUIPMENT = 0x10,
    BDA_BASE_MEMORY_K = 0x13,
};

#define EQUIPMENT_FPU        0x0002
#define EQUIPMENT_MOUSE      0x0004
#define EQUIPMENT_TWO_SERIAL 0x0400

int firmware_build(const struct boot_image *image, struct physmem *mem, struct tv_error *err)
{
    boot_zero(mem, 0, BOOT_STRINGS);
    boot_zero(mem, EBDA_BASE, VGA_BASE - EBDA_BASE);
    boot_zero(mem, ACPI_BASE, KERNEL_BASE - ACPI_BASE);

    uint8_t bda[256] = {0};
    put16(bda + BDA_COM1, 0x3f8);
    put16(bda + BDA_COM2, 0x2f8);
    put16(bda + BDA_EBDA_SEGMENT, EBDA_BASE >> 4);
    put16(bda + BDA_EQUIPMENT, EQUIPMENT_FPU | EQUIPMENT_MOUSE | EQUIPMENT_TWO_SERIAL);
    put16(bda + BDA_BASE_MEMORY_K, EBDA_BASE >> 10);
    physmem_write(mem, BDA_BASE, bda, sizeof bda);
    uint8_t ebda_kib = (VGA_BASE - EBDA_BASE) >> 10;
    physmem_write(mem, EBDA_BASE, &ebda_kib, 1);

    mptable_build(image, mem);
    smbios_build(image, mem);
    return acpi_build(image, mem, err);
}
