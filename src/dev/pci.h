/*
 * PCI: the host bridge with configuration mechanism 1, and what a PCI device is made of.
 *
 * A PCI device embeds a struct pci_device, calls pci_device_init() with its identity, adds its BARs
 * and capabilities, sets up writable bits in `wmask` (and write-one-to-clear bits in `w1c`), and
 * lists PCI_DEVICE_STATE in its own state table. The framework does configuration cycles, BAR
 * sizing and mapping, and interrupt routing.
 */
#ifndef TRIVISOR_DEV_PCI_H
#define TRIVISOR_DEV_PCI_H

#include "dev/device.h"

#define PCI_CONFIG_SIZE     256
#define PCI_BARS            6

#define PCI_DEVFN(slot, fn) ((slot) << 3 | (fn))

/* Configuration registers of header type 0. */
enum pci_register {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09, /* programming interface, subclass, class */
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM = 0x2e,
    PCI_ROM_BAR = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};

enum pci_command {
    PCI_COMMAND_IO = 1,
    PCI_COMMAND_MEMORY = 2,
    PCI_COMMAND_MASTER = 4,
    PCI_COMMAND_INTX_DISABLE = 0x400
};

struct pci_bus;
struct pci_device;

enum pci_bar_flag {
    PCI_BAR_IO = 1,
    PCI_BAR_PREFETCH = 2,
    PCI_BAR_64 = 4, /* takes the next BAR, too */
};

struct pci_bar {
    const struct io_ops *ops;      /* one of these two, or neither: not there */
    struct physmem_region *memory; /* RAM- or ROM-backed */
    void *device;
    uint64_t size; /* a power of two */
    bool io, wide;
    bool mapped;
    uint64_t base; /* valid while mapped */
};

#define PCI_MSIX_MAX 32 /* vectors */

struct pci_identity {
    const char *name;
    uint16_t vendor, device;
    uint8_t revision;
    uint32_t class_code; /* class << 16 | subclass << 8 | programming interface */
    uint16_t subsystem_vendor, subsystem;
    uint8_t interrupt_pin; /* 0: none, 1: INTA .. 4: INTD */
};

struct pci_device {
    struct pci_bus *bus;
    uint8_t devfn;
    const char *name;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t config_reset[PCI_CONFIG_SIZE]; /* what reset puts there */
    uint8_t wmask[PCI_CONFIG_SIZE];        /* bits that the guest can write */
    uint8_t w1c[PCI_CONFIG_SIZE];          /* bits that a written 1 clears */
    struct pci_bar bars[PCI_BARS + 1];     /* the last one is the expansion ROM */
    uint8_t msi_cap, msix_cap;             /* where the capabilities are; 0: none */
    uint8_t msix_vectors;
    uint32_t msix_table[PCI_MSIX_MAX * 4]; /* address low and high, data, control */
    uint32_t msix_pending;
    uint8_t cap_size; /* of the capability added last */
    bool intx;        /* level of the interrupt pin */
    /* After the guest wrote configuration bytes [offset, offset+size); may be NULL. */
    void (*config_written)(struct pci_device *dev, unsigned offset, unsigned size);
};

/* The lines of a device's state table for its struct pci_device member. Its after_reset calls
 * pci_device_reset(), its after_load pci_device_loaded(). */
#define PCI_DEVICE_STATE(type, member)                                                             \
    STATE_ARRAY(type, member.config, 0), STATE(type, member.intx, 0),                              \
        STATE_ARRAY(type, member.msix_table, 0), STATE(type, member.msix_pending, 0)

/* Where interrupts go: PIRQ lines to the 8259 through the ISA bridge's routing, and fixed to the
 * IO-APIC. */
struct pci_wiring {
    struct irq_line pic[16];
    struct irq_line ioapic[4];                                  /* pins 16..19 */
    void (*msi)(void *opaque, uint64_t address, uint32_t data); /* NULL: none */
    void *msi_opaque;
};

/* The bus and its 440FX/440BX host bridge in slot 0. */
struct pci_bus *pci_create(struct device_env *env, const struct pci_wiring *wiring);
/* Put a device on the bus before any vCPU runs. Call device_register() after all of its
 * config_reset is set up. */
void pci_device_init(struct pci_bus *bus, struct pci_device *dev, unsigned devfn,
                     const struct pci_identity *identity);
/* Add a base address register of device registers; `flags`: enum pci_bar_flag. */
void pci_add_register_bar(struct pci_device *dev, unsigned bar, unsigned flags, uint64_t size,
                          const struct io_ops *ops, void *device);
/*
 * A BAR of memory that engines access as they do RAM (a frame buffer); not for I/O. Returns the
 * region: its `host` is the memory, zeroed, there as long as the VM; physmem_take_dirty() tells
 * what was written. NULL: no room. A size of 4 KiB at least.
 */
struct physmem_region *pci_add_ram_bar(struct pci_device *dev, unsigned bar, unsigned flags,
                                       uint64_t size);
/* The function there; NULL: none. */
struct pci_device *pci_device_at(struct pci_bus *bus, unsigned devfn);
/* The expansion ROM: a copy of `size` bytes (padded to a power of two). False: no room. */
bool pci_add_rom(struct pci_device *dev, const void *data, uint64_t size);
/*
 * Message-signalled interrupts. pci_add_msi() gives one message; pci_add_msix() as many as
 * `vectors` (PCI_MSIX_MAX at most) with their table and pending bits in the 4 KiB BAR `bar` that it
 * makes. A device interrupts with
 *
 *     if (!pci_notify(dev, vector))
 *         pci_set_intx(dev, true);
 *
 * and a level interrupt that stays up is not seen while messages are on (pci_set_intx() may be
 * called all the same).
 */
bool pci_add_msi(struct pci_device *dev);
bool pci_add_msix(struct pci_device *dev, unsigned bar, unsigned vectors);
/* The guest has turned messages on. */
bool pci_uses_messages(const struct pci_device *dev);
/* Send message `vector` (or note it as pending where it is masked). False: messages are off. Device
 * lock held. */
bool pci_notify(struct pci_device *dev, unsigned vector);
/* A base address register: an I/O range, or 32-bit non-prefetchable memory. */
void pci_add_bar(struct pci_device *dev, unsigned bar, bool io, uint64_t size,
                 const struct io_ops *ops, void *device);
/* Add a capability of `size` bytes (its first two are set here), returns its offset. 0: no room. */
unsigned pci_add_capability(struct pci_device *dev, uint8_t id, unsigned size);
/* Drive the device's interrupt pin. Device lock held. */
void pci_set_intx(struct pci_device *dev, bool level);
void pci_device_reset(struct pci_device *dev);
void pci_device_loaded(struct pci_device *dev);

/* Byte `byte` (0..3) of the dword at port 0xcf8 belongs to another device when it is accessed
 * alone.
 */
void pci_claim_address_byte(struct pci_bus *bus, unsigned byte, const struct io_ops *ops,
                            void *device);
/*
 * Firmware: from now on the host bridge's shadow registers (PAM, SMRAM) are in force. Reads of
 * 0xe0000 .. 0xfffff that they do not give to RAM go to `rom` (the last 128 KiB of the BIOS),
 * everything else to the MMIO bus, as does 0xa0000 .. 0xbffff. Without this call all below 1 MiB is
 * RAM unless a device says otherwise with physmem_map_low().
 */
void pci_set_firmware(struct pci_bus *bus, uint8_t *rom);
/* The ISA bridge tells the PIRQ routing: PIRQRC of line 0..3 as the PIIX has it (bit 7: off). */
void pci_set_pirq_route(struct pci_bus *bus, unsigned pirq, uint8_t route);

static inline uint16_t pci_get16(const struct pci_device *dev, unsigned offset)
{
    return (uint16_t)(dev->config[offset] | dev->config[offset + 1] << 8);
}
static inline uint32_t pci_get32(const struct pci_device *dev, unsigned offset)
{
    return pci_get16(dev, offset) | (uint32_t)pci_get16(dev, offset + 2) << 16;
}

#endif
