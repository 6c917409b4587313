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

struct pci_bar {
    const struct io_ops *ops; /* NULL: not there */
    void *device;
    uint64_t size; /* a power of two */
    bool io;
    bool mapped;
    uint64_t base; /* valid while mapped */
};

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
    struct pci_bar bars[PCI_BARS];
    uint8_t cap_size; /* of the capability added last */
    bool intx;        /* level of the interrupt pin */
    /* After the guest wrote configuration bytes [offset, offset+size); may be NULL. */
    void (*config_written)(struct pci_device *dev, unsigned offset, unsigned size);
};

/* The lines of a device's state table for its struct pci_device member. Its after_reset calls
 * pci_device_reset(), its after_load pci_device_loaded(). */
#define PCI_DEVICE_STATE(type, member)                                                             \
    STATE_ARRAY(type, member.config, 0), STATE(type, member.intx, 0)

/* Where interrupts go: PIRQ lines to the 8259 through the ISA bridge's routing, and fixed to the
 * IO-APIC. */
struct pci_wiring {
    struct irq_line pic[16];
    struct irq_line ioapic[4]; /* pins 16..19 */
};

/* The bus and its 440FX/440BX host bridge in slot 0. */
struct pci_bus *pci_create(struct device_env *env, const struct pci_wiring *wiring);
/* Put a device on the bus before any vCPU runs. Call device_register() after all of its
 * config_reset is set up. */
void pci_device_init(struct pci_bus *bus, struct pci_device *dev, unsigned devfn,
                     const struct pci_identity *identity);
/* Add a base address register: an I/O range, or 32-bit non-prefetchable memory. */
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
