/*
 * The namespace that the guest's ACPI interpreter sees:
 *
 *   \_S5           how to power off
 *   \_SB.C000..    processors
 *   \_SB.PCI0      host bridge: windows and interrupt routing
 *     .ISA         PIIX4 ISA bridge and, below it, what has fixed ports
 *   \_SB.HPET
 *
 * All of it is data: there are no methods, so there is nothing to go wrong at run time.
 */
#include "boot/dsdt.h"

#include "boot/layout.h"
#include "dev/acpi_ports.h"
#include "dev/pvpanic.h"
#include "util/util.h"

#define PCI_SLOTS   32
#define ISA_ADDRESS 0x00010000 /* slot 1, function 0 */

static void sleep_states(struct aml *aml)
{
    aml_name(aml, "_S5_");
    aml_open_package(aml, 4);
    aml_integer(aml, ACPI_S5_SLP_TYP); /* for PM1a_CNT, then for PM1b_CNT */
    aml_integer(aml, ACPI_S5_SLP_TYP);
    aml_integer(aml, 0);
    aml_integer(aml, 0);
    aml_close(aml);
}

static void processors(struct aml *aml, unsigned vcpus)
{
    static const char digits[] = "0123456789ABCDEF";
    for (unsigned i = 0; i < vcpus; i++) {
        const char name[5] = {'C', digits[i >> 8 & 15], digits[i >> 4 & 15], digits[i & 15], 0};
        aml_open_device(aml, name);
        aml_name_string(aml, "_HID", "ACPI0007");
        aml_name_integer(aml, "_UID", i);
        aml_close(aml);
    }
}

/* Each slot's four pins go straight to IO-APIC pins. */
static void pci_routing(struct aml *aml)
{
    aml_name(aml, "_PRT");
    aml_open_package(aml, (PCI_SLOTS - 1) * 4);
    for (uint32_t slot = 1; slot < PCI_SLOTS; slot++) {
        for (uint32_t pin = 0; pin < 4; pin++) {
            aml_open_package(aml, 4);
            aml_integer(aml, slot << 16 | 0xffff);
            aml_integer(aml, pin);
            aml_integer(aml, 0); /* no link device: the next is the interrupt number itself */
            aml_integer(aml, PCI_GSI_BASE + (slot + pin) % 4);
            aml_close(aml);
        }
    }
    aml_close(aml);
}

struct isa_device {
    const char *name, *hid;
    int uid; /* -1: none needed, there is only one */
    int irq; /* -1: none */
    struct {
        uint16_t base;
        uint8_t length;
    } io[2];
};

static const struct isa_device isa_devices[] = {
    {"COM1", "PNP0501", 1, 4, {{0x3f8, 8}}},
    {"COM2", "PNP0501", 2, 3, {{0x2f8, 8}}},
    {"RTC_", "PNP0B00", -1, 8, {{0x70, 2}}},
    {"KBD_", "PNP0303", -1, 1, {{0x60, 1}, {0x64, 1}}},
    {"MOU_", "PNP0F13", -1, 12, {{0}}},
    {"PIC_", "PNP0000", -1, 2, {{0x20, 2}, {0xa0, 2}}},
    {"TIMR", "PNP0100", -1, 0, {{0x40, 4}}},
    {"SPKR", "PNP0800", -1, -1, {{0x61, 1}}},
    {"PEVT", "QEMU0001", 1, -1, {{PVPANIC_PORT, 1}}},
};

static void isa_bridge(struct aml *aml)
{
    aml_open_device(aml, "ISA_");
    aml_name_integer(aml, "_ADR", ISA_ADDRESS);
    for (size_t i = 0; i < ARRAY_SIZE(isa_devices); i++) {
        const struct isa_device *d = &isa_devices[i];
        aml_open_device(aml, d->name);
        if (d->hid[0] == 'P')
            aml_name_eisa_id(aml, "_HID", d->hid);
        else
            aml_name_string(aml, "_HID", d->hid);
        if (d->uid >= 0)
            aml_name_integer(aml, "_UID", (uint64_t)d->uid);
        aml_name_integer(aml, "_STA", 0xf); /* present, enabled, shown, working */
        aml_name(aml, "_CRS");
        aml_open_resources(aml);
        for (size_t r = 0; r < ARRAY_SIZE(d->io); r++)
            if (d->io[r].length)
                aml_res_io(aml, d->io[r].base, d->io[r].length);
        if (d->irq >= 0)
            aml_res_irq(aml, (unsigned)d->irq);
        aml_close_resources(aml);
        aml_close(aml);
    }
    aml_close(aml);
}

/* Ports that belong to the board rather than to a device, so that nothing is placed there. */
static void board(struct aml *aml)
{
    aml_open_device(aml, "MBRD");
    aml_name_eisa_id(aml, "_HID", "PNP0C02");
    aml_name_integer(aml, "_UID", 1);
    aml_name(aml, "_CRS");
    aml_open_resources(aml);
    aml_res_io(aml, ACPI_SMI_CMD, 2);
    aml_res_io(aml, ACPI_PM_BASE, ACPI_PM_SIZE);
    aml_res_io(aml, ACPI_SMBUS_BASE, ACPI_SMBUS_SIZE);
    aml_close_resources(aml);
    aml_close(aml);
}

static void pci_root(struct aml *aml, uint64_t ram_end)
{
    aml_open_device(aml, "PCI0");
    aml_name_eisa_id(aml, "_HID", "PNP0A03");
    aml_name_integer(aml, "_UID", 0);
    aml_name_integer(aml, "_BBN", 0);
    aml_name(aml, "_CRS");
    aml_open_resources(aml);
    aml_res_bus_window(aml, 0, 0xff);
    aml_res_io(aml, 0xcf8, 8);
    aml_res_io_window(aml, 0, 0xcf7);
    aml_res_io_window(aml, 0xd00, 0xffff);
    aml_res_memory_window(aml, VGA_BASE, 0xbffff);
    aml_res_memory_window(aml, MAX((uint32_t)ram_end, PCI_WINDOW_BASE), PCI_WINDOW_END - 1);
    aml_close_resources(aml);
    pci_routing(aml);
    isa_bridge(aml);
    board(aml);
    aml_close(aml);
}

static void hpet_device(struct aml *aml)
{
    aml_open_device(aml, "HPET");
    aml_name_eisa_id(aml, "_HID", "PNP0103");
    aml_name(aml, "_CRS");
    aml_open_resources(aml);
    aml_res_memory_fixed(aml, HPET_ADDRESS, 0x400);
    aml_close_resources(aml);
    aml_close(aml);
}

void dsdt_write(struct aml *aml, unsigned vcpus, bool hpet, uint64_t ram_end)
{
    sleep_states(aml);
    aml_open_scope(aml, "\\_SB_");
    processors(aml, vcpus);
    pci_root(aml, ram_end);
    if (hpet)
        hpet_device(aml);
    aml_close(aml);
}
