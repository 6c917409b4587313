/*
 * PCI configuration space, BARs and interrupt routing, and the 440FX host bridge.
 *
 * Configuration mechanism 1: a dword at 0xcf8 selects bus, device, function and register; 0xcfc to
 * 0xcff are a window onto it. Only a whole dword at 0xcf8 reaches the address register. Bytes there
 * belong to other things of the chipset, such as the reset control register at 0xcf9, which claim
 * them with pci_claim_address_byte().
 */
#include "dev/pci.h"

#include <stdlib.h>
#include <string.h>

#include "util/util.h"

#define DEVFNS         256
#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc
#define CONFIG_ENABLE  0x80000000u
#define PIRQS          4
#define PIRQ_OFF       0x80
#define MULTIFUNCTION  0x80
#define CAP_FIRST      0x40
#define STATUS_CAPS    0x10
#define STATUS_INTX    0x08

struct pci_bus {
    struct device_env *env;
    struct pci_wiring wiring;
    struct pci_device *devices[DEVFNS];
    struct {
        const struct io_ops *ops;
        void *device;
    } address_bytes[4];
    uint32_t address;      /* the register at 0xcf8 */
    uint8_t route[PIRQS];  /* PIRQRC[A:D] */
    uint16_t pic_levels;   /* what the bus drives at the 8259 */
    uint8_t ioapic_levels; /* and at the IO-APIC's pins 16..19 */
    struct pci_device host;
};

/* ---- Interrupts ---- */

/* Recompute all lines: there are few devices and few changes. */
static void update_interrupts(struct pci_bus *bus)
{
    unsigned pirq = 0, pic = 0;
    for (unsigned i = 0; i < DEVFNS; i++) {
        const struct pci_device *dev = bus->devices[i];
        if (!dev || !dev->intx || !dev->config[PCI_INTERRUPT_PIN] ||
            (pci_get16(dev, PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE))
            continue;
        pirq |= BIT(((i >> 3) + dev->config[PCI_INTERRUPT_PIN] - 1) % PIRQS);
    }
    for (unsigned i = 0; i < PIRQS; i++)
        if ((pirq & BIT(i)) && !(bus->route[i] & PIRQ_OFF))
            pic |= BIT(bus->route[i] & 15);

    for (unsigned i = 0; i < PIRQS; i++)
        if ((pirq ^ bus->ioapic_levels) & BIT(i))
            irq_set(&bus->wiring.ioapic[i], pirq >> i & 1);
    for (unsigned i = 0; i < 16; i++)
        if ((pic ^ bus->pic_levels) & BIT(i))
            irq_set(&bus->wiring.pic[i], pic >> i & 1);
    bus->ioapic_levels = (uint8_t)pirq;
    bus->pic_levels = (uint16_t)pic;
}

void pci_set_intx(struct pci_device *dev, bool level)
{
    if (dev->intx == level)
        return;
    dev->intx = level;
    if (level)
        dev->config[PCI_STATUS] |= STATUS_INTX;
    else
        dev->config[PCI_STATUS] &= ~STATUS_INTX;
    update_interrupts(dev->bus);
}

void pci_set_pirq_route(struct pci_bus *bus, unsigned pirq, uint8_t route)
{
    bus->route[pirq % PIRQS] = route;
    update_interrupts(bus);
}

/* ---- BARs ---- */

static void unmap_bar(struct pci_device *dev, struct pci_bar *bar)
{
    struct device_env *env = dev->bus->env;
    if (bar->mapped)
        bus_remove(bar->io ? env->pio : env->mmio, bar->base);
    bar->mapped = false;
}

/*
 * Put the BARs where the registers say, if the command register lets them decode. A BAR that the
 * guest puts on top of another device or of RAM is not mapped: what was there first answers.
 */
static void map_bars(struct pci_device *dev)
{
    struct device_env *env = dev->bus->env;
    uint16_t command = pci_get16(dev, PCI_COMMAND);

    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *bar = &dev->bars[i];
        if (!bar->ops)
            continue;
        uint64_t base = pci_get32(dev, PCI_BAR0 + 4 * i) & (bar->io ? ~3u : ~15u);
        bool decodes = command & (bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY);
        if (base == 0 || base + bar->size > (bar->io ? 0x10000 : UINT64_C(0x100000000)))
            decodes = false;
        if (!bar->io && base < env->mem->low_size)
            decodes = false;
        if (bar->mapped && decodes && bar->base == base)
            continue;
        unmap_bar(dev, bar);
        if (!decodes)
            continue;
        bar->mapped = bus_add(bar->io ? env->pio : env->mmio, base, bar->size, bar->ops,
                              bar->device, dev->name);
        bar->base = base;
        if (!bar->mapped && log_on(env->log, LOG_DEV))
            log_write(env->log, LOG_DEV, "%s: BAR %u at %#llx overlaps another device", dev->name,
                      i, (unsigned long long)base);
    }
}

void pci_add_bar(struct pci_device *dev, unsigned bar, bool io, uint64_t size,
                 const struct io_ops *ops, void *device)
{
    dev->bars[bar] = (struct pci_bar){.ops = ops, .device = device, .size = size, .io = io};
    unsigned at = PCI_BAR0 + 4 * bar;
    uint32_t mask = ~(uint32_t)(size - 1) & (io ? ~3u : ~15u);
    memcpy(&dev->wmask[at], &mask, sizeof mask);
    dev->config_reset[at] = io;
    dev->wmask[PCI_COMMAND] |= io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
}

unsigned pci_add_capability(struct pci_device *dev, uint8_t id, unsigned size)
{
    /* Capabilities are laid out one after the other, each linked in at the front. */
    unsigned at = CAP_FIRST;
    for (unsigned c = dev->config_reset[PCI_CAPABILITIES]; c; c = dev->config_reset[c + 1])
        at = MAX(at, c);
    if (dev->config_reset[PCI_CAPABILITIES])
        at += dev->cap_size;
    at = ALIGN_UP(at, 4u);
    if (at + size > PCI_CONFIG_SIZE)
        return 0;
    dev->config_reset[at] = id;
    dev->config_reset[at + 1] = dev->config_reset[PCI_CAPABILITIES];
    dev->config_reset[PCI_CAPABILITIES] = (uint8_t)at;
    dev->config_reset[PCI_STATUS] |= STATUS_CAPS;
    dev->cap_size = (uint8_t)size;
    return at;
}

/* ---- Configuration space ---- */

static void config_write(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++) {
        unsigned at = offset + i;
        uint8_t byte = (uint8_t)(value >> (8 * i)), mask = dev->wmask[at];
        dev->config[at] = (dev->config[at] & ~mask & ~(byte & dev->w1c[at])) | (byte & mask);
    }
    if (offset < PCI_BAR0 + 4 * PCI_BARS && offset + size > PCI_COMMAND)
        map_bars(dev);
    if (offset < PCI_COMMAND + 2 && offset + size > PCI_COMMAND)
        update_interrupts(dev->bus);
    if (dev->config_written)
        dev->config_written(dev, offset, size);
}

static struct pci_device *selected(const struct pci_bus *bus)
{
    if (!(bus->address & CONFIG_ENABLE) || (bus->address >> 16 & 0xff) != 0)
        return NULL;
    return bus->devices[bus->address >> 8 & 0xff];
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = opaque;
    const struct pci_device *dev = selected(bus);
    if (!dev)
        return ~UINT64_C(0);
    uint32_t value = 0;
    memcpy(&value, &dev->config[(bus->address & 0xfc) + offset], size);
    return value;
}

static void data_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bus *bus = opaque;
    struct pci_device *dev = selected(bus);
    if (dev)
        config_write(dev, (bus->address & 0xfc) + (unsigned)offset, size, (uint32_t)value);
}

static uint64_t address_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_bus *bus = opaque;
    if (size == 4)
        return bus->address;
    if (size == 1 && bus->address_bytes[offset].ops)
        return bus->address_bytes[offset].ops->read(bus->address_bytes[offset].device, 0, 1);
    return ~UINT64_C(0);
}

static void address_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bus *bus = opaque;
    if (size == 4)
        bus->address = (uint32_t)value & 0x80fffffc;
    else if (size == 1 && bus->address_bytes[offset].ops)
        bus->address_bytes[offset].ops->write(bus->address_bytes[offset].device, 0, 1, value);
}

static const struct io_ops data_ops = {data_read, data_write, 4};
static const struct io_ops address_ops = {address_read, address_write, 4};

void pci_claim_address_byte(struct pci_bus *bus, unsigned byte, const struct io_ops *ops,
                            void *device)
{
    bus->address_bytes[byte & 3].ops = ops;
    bus->address_bytes[byte & 3].device = device;
}

/* ---- Devices ---- */

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

void pci_device_init(struct pci_bus *bus, struct pci_device *dev, unsigned devfn,
                     const struct pci_identity *identity)
{
    uint8_t *c = dev->config_reset;
    dev->bus = bus;
    dev->devfn = (uint8_t)devfn;
    dev->name = identity->name;
    put16(c + PCI_VENDOR, identity->vendor);
    put16(c + PCI_DEVICE, identity->device);
    c[PCI_REVISION] = identity->revision;
    c[PCI_CLASS] = (uint8_t)identity->class_code;
    put16(c + PCI_CLASS + 1, identity->class_code >> 8);
    put16(c + PCI_SUBSYSTEM_VENDOR, identity->subsystem_vendor);
    put16(c + PCI_SUBSYSTEM, identity->subsystem);
    c[PCI_INTERRUPT_PIN] = identity->interrupt_pin;
    if (identity->interrupt_pin) {
        dev->wmask[PCI_INTERRUPT_LINE] = 0xff;
        put16(dev->wmask + PCI_COMMAND, PCI_COMMAND_INTX_DISABLE);
    }
    bus->devices[devfn] = dev;
    /* Function 0 of a slot tells that there are others. */
    struct pci_device *first = bus->devices[devfn & ~7u];
    if ((devfn & 7) && first) {
        first->config_reset[PCI_HEADER_TYPE] |= MULTIFUNCTION;
        first->config[PCI_HEADER_TYPE] |= MULTIFUNCTION;
    }
}

void pci_device_reset(struct pci_device *dev)
{
    memcpy(dev->config, dev->config_reset, sizeof dev->config);
    dev->intx = false;
    map_bars(dev);
    update_interrupts(dev->bus);
}

void pci_device_loaded(struct pci_device *dev)
{
    map_bars(dev);
    update_interrupts(dev->bus);
}

/* ---- The host bridge ---- */

static const struct pci_identity host_identity = {
    .name = "440FX host bridge",
    .vendor = 0x8086,
    .device = 0x1237,
    .revision = 2,
    .class_code = 0x060000,
};

static const struct state_field bus_fields[] = {
    STATE(struct pci_bus, address, 0),
    STATE_ARRAY(struct pci_bus, route, PIRQ_OFF),
    PCI_DEVICE_STATE(struct pci_bus, host),
};

static void after_reset(void *opaque)
{
    struct pci_bus *bus = opaque;
    pci_device_reset(&bus->host);
}

static void after_load(void *opaque)
{
    struct pci_bus *bus = opaque;
    pci_device_loaded(&bus->host);
}

static const struct state_table bus_table = {
    .name = "pci",
    .version = 1,
    .size = sizeof(struct pci_bus),
    .fields = bus_fields,
    .field_count = ARRAY_SIZE(bus_fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

struct pci_bus *pci_create(struct device_env *env, const struct pci_wiring *wiring)
{
    struct pci_bus *bus = calloc(1, sizeof *bus);
    if (!bus)
        return NULL;
    bus->env = env;
    bus->wiring = *wiring;
    bus_add(env->pio, CONFIG_ADDRESS, 4, &address_ops, bus, "PCI configuration address");
    bus_add(env->pio, CONFIG_DATA, 4, &data_ops, bus, "PCI configuration data");
    pci_device_init(bus, &bus->host, PCI_DEVFN(0, 0), &host_identity);
    put16(bus->host.config_reset + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    put16(bus->host.config_reset + PCI_STATUS,
          0x0280); /* medium DEVSEL timing, fast back-to-back */
    /* The shadow RAM attributes (PAM, SMRAM): all is RAM here, firmware may note what it likes. */
    memset(bus->host.wmask + 0x50, 0xff, 0x50);
    device_register(env, &bus_table, bus, free);
    return bus;
}
