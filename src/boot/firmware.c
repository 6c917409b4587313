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

/* Real-mode services, which there are none of: INT 13h and 15h say so, others just return. A kernel
 * that asks a BIOS for more than it was handed goes on with that. */
enum { BIOS_SEGMENT = RSDP_BASE >> 4, DISK_SERVICES = 0x13, SYSTEM_SERVICES = 0x15 };

static const uint8_t no_service[] = {
    0xcf,                   /* iret */
    0xb4, 0x86,             /* mov $0x86, %ah: not supported */
    0x55, 0x89, 0xe5,       /* push %bp; mov %sp, %bp */
    0x80, 0x4e, 0x06, 0x01, /* orb $1, 6(%bp): CF of the caller */
    0x5d, 0xcf,             /* pop %bp; iret */
};

#define EQUIPMENT_FPU        0x0002
#define EQUIPMENT_MOUSE      0x0004
#define EQUIPMENT_TWO_SERIAL 0x0400

static void build_vectors(struct physmem *mem)
{
    physmem_write(mem, BIOS_STUBS, no_service, sizeof no_service);
    for (unsigned n = 0; n < 256; n++) {
        uint8_t vector[4];
        bool told = n == DISK_SERVICES || n == SYSTEM_SERVICES;
        put16(vector, (uint16_t)(BIOS_STUBS - RSDP_BASE + (told ? 1 : 0)));
        put16(vector + 2, BIOS_SEGMENT);
        physmem_write(mem, 4 * n, vector, sizeof vector);
    }
}

int firmware_build(const struct boot_image *image, struct physmem *mem, struct tv_error *err)
{
    boot_zero(mem, 0, BOOT_STRINGS);
    boot_zero(mem, EBDA_BASE, VGA_BASE - EBDA_BASE);
    boot_zero(mem, ACPI_BASE, KERNEL_BASE - ACPI_BASE);

    build_vectors(mem);
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
