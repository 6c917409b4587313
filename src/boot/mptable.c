/*
 * The MultiProcessor Specification 1.4 tables, for kernels without ACPI: who the processors are,
 * and what is wired to the IO-APIC.
 */
#include "boot/bytes.h"
#include "boot/layout.h"
#include "boot/loader.h"
#include "dev/acpi_ports.h"
#include "util/util.h"

enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_IO_INT, MP_LOCAL_INT };
enum { INT_VECTORED, INT_NMI, INT_SMI, INT_EXT };

#define HEADER_SIZE       44
#define PROCESSOR_ENABLED BIT(0)
#define PROCESSOR_BOOT    BIT(1)
#define APIC_VERSION      0x14
#define IOAPIC_VERSION    0x11
#define FEATURES_FPU_APIC 0x201
#define BUS_PCI           0
#define BUS_ISA           1
#define POLARITY_CONFORMS 0
#define ACTIVE_HIGH_LEVEL 0x000d
#define ALL_APICS         0xff
#define PCI_SLOTS         32

struct mp {
    uint8_t data[MPTABLE_END - MPTABLE_BASE - 16];
    size_t size;
    uint16_t entries;
};

static uint8_t *add(struct mp *mp, uint8_t type, size_t size)
{
    uint8_t *p = mp->data + mp->size;
    mp->size += size;
    mp->entries++;
    p[0] = type;
    return p;
}

static void add_bus(struct mp *mp, uint8_t id, const char *name)
{
    uint8_t *p = add(mp, MP_BUS, 8);
    p[1] = id;
    memcpy(p + 2, name, 6);
}

static void add_interrupt(struct mp *mp, uint8_t entry, uint8_t kind, uint16_t flags, uint8_t bus,
                          uint8_t irq, uint8_t apic, uint8_t pin)
{
    uint8_t *p = add(mp, entry, 8);
    p[1] = kind;
    put16(p + 2, flags);
    p[4] = bus;
    p[5] = irq;
    p[6] = apic;
    p[7] = pin;
}

/* Interrupt lines of a PCI slot: bits 2..6 of the source are the slot, bits 0..1 the pin. */
static void add_pci_interrupts(struct mp *mp, uint8_t ioapic)
{
    for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < 4; pin++)
            add_interrupt(mp, MP_IO_INT, INT_VECTORED, POLARITY_CONFORMS, BUS_PCI,
                          (uint8_t)(slot << 2 | pin), ioapic,
                          (uint8_t)(PCI_GSI_BASE + (slot + pin) % 4));
}

/* 128 PCI and 16 ISA interrupts and 255 processors fit. */
_Static_assert(HEADER_SIZE + 255 * 20 + 160 * 8 <= sizeof(((struct mp *)0)->data), "MP table");

void mptable_build(const struct boot_image *image, struct physmem *mem)
{
    struct mp mp = {.size = HEADER_SIZE};
    unsigned vcpus = MIN(image->vcpus, 254u);
    /* IDs of all APICs differ here, as the MP specification wants it; software writes the
     * IO-APIC's. */
    uint8_t ioapic = (uint8_t)vcpus;
    for (unsigned i = 0; i < vcpus; i++) {
        uint8_t *p = add(&mp, MP_PROCESSOR, 20);
        p[1] = (uint8_t)i;
        p[2] = APIC_VERSION;
        p[3] = (uint8_t)(PROCESSOR_ENABLED | (i == 0 ? PROCESSOR_BOOT : 0));
        put32(p + 4, 0x600);
        put32(p + 8, FEATURES_FPU_APIC);
    }
    add_bus(&mp, BUS_PCI, "PCI   ");
    add_bus(&mp, BUS_ISA, "ISA   ");
    uint8_t *p = add(&mp, MP_IOAPIC, 8);
    p[1] = ioapic;
    p[2] = IOAPIC_VERSION;
    p[3] = 1; /* enabled */
    put32(p + 4, IOAPIC_ADDRESS);

    for (uint8_t irq = 0; irq < 16; irq++) {
        if (irq == 2) /* the cascade */
            continue;
        add_interrupt(&mp, MP_IO_INT, INT_VECTORED,
                      irq == ACPI_SCI_IRQ ? ACTIVE_HIGH_LEVEL : POLARITY_CONFORMS, BUS_ISA, irq,
                      ioapic, irq == 0 ? 2 : irq);
    }
    add_pci_interrupts(&mp, ioapic);
    add_interrupt(&mp, MP_LOCAL_INT, INT_EXT, POLARITY_CONFORMS, BUS_ISA, 0, 0, 0);
    add_interrupt(&mp, MP_LOCAL_INT, INT_NMI, POLARITY_CONFORMS, BUS_ISA, 0, ALL_APICS, 1);

    memcpy(mp.data, "PCMP", 4);
    put16(mp.data + 4, (uint16_t)mp.size);
    mp.data[6] = 4; /* revision 1.4 */
    memcpy(mp.data + 8, "TRIVISORTRIVISOR VM ", 20);
    put16(mp.data + 34, mp.entries);
    put32(mp.data + 36, LAPIC_ADDRESS);
    mp.data[7] = checksum(mp.data, mp.size);

    uint8_t pointer[16] = {0};
    memcpy(pointer, "_MP_", 4);
    put32(pointer + 4, MPTABLE_BASE + sizeof pointer);
    pointer[8] = 1; /* of 16 bytes */
    pointer[9] = 4;
    pointer[10] = checksum(pointer, sizeof pointer);
    physmem_write(mem, MPTABLE_BASE, pointer, sizeof pointer);
    physmem_write(mem, MPTABLE_BASE + sizeof pointer, mp.data, mp.size);
}
