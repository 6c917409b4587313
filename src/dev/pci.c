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
#define ROM_ENABLE     1

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
    uint8_t *bios; /* what is at 0xe0000 without shadow RAM; NULL: no firmware */
};

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

/* ---- Interrupts ---- */

/* Recompute all lines: there are few devices and few changes. */
static void update_interrupts(struct pci_bus *bus)
{
    unsigned pirq = 0, pic = 0;
    for (unsigned i = 0; i < DEVFNS; i++) {
        const struct pci_device *dev = bus->devices[i];
        if (!dev || !dev->intx || pci_uses_messages(dev) || !dev->config[PCI_INTERRUPT_PIN] ||
            (pci_get16(dev, PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE))
            continue;
        unsigned line = (i >> 3) + dev->config[PCI_INTERRUPT_PIN] - 1;
        pirq |= BIT(line % PIRQS);
        /* Slot 1's pin A is PIRQA, as firmware for this chipset has it. */
        uint8_t route = bus->route[(line + PIRQS - 1) % PIRQS];
        if (!(route & PIRQ_OFF))
            pic |= BIT(route & 15);
    }

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
    if (bar->mapped && bar->memory)
        physmem_region_move(env->mem, bar->memory, REGION_UNMAPPED);
    else if (bar->mapped)
        bus_remove(bar->io ? env->pio : env->mmio, bar->base);
    bar->mapped = false;
}

static unsigned bar_register(unsigned bar)
{
    return bar == PCI_BARS ? PCI_ROM_BAR : PCI_BAR0 + 4 * bar;
}

/* Where the register puts it, if the command register lets it decode. */
static bool bar_decodes(const struct pci_device *dev, unsigned i, uint64_t *base)
{
    const struct device_env *env = dev->bus->env;
    const struct pci_bar *bar = &dev->bars[i];
    uint32_t low = pci_get32(dev, bar_register(i));
    *base = low & ~(uint32_t)(bar->size - 1);
    if (bar->wide)
        *base |= (uint64_t)pci_get32(dev, PCI_BAR0 + 4 * (i + 1)) << 32;
    if (!(pci_get16(dev, PCI_COMMAND) & (bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) ||
        (i == PCI_BARS && !(low & ROM_ENABLE)) || *base == 0)
        return false;
    if (bar->io)
        return *base + bar->size <= 0x10000;
    if (!bar->wide || *base < HIGH_RAM_BASE)
        return *base >= env->mem->low_size && *base + bar->size <= HIGH_RAM_BASE;
    return *base >= HIGH_RAM_BASE + (env->mem->size - env->mem->low_size) &&
           *base <= (UINT64_C(1) << 52) - bar->size;
}

/* A BAR that the guest puts on top of another device or of RAM is not mapped: what was there first
 * answers. The local APIC's page is on no bus, and may be moved by its processor: a BAR under it is
 * mapped, for DMA and the other processors, and the processor's own accesses stop at its APIC
 * before they get here. */
static void map_free_bars(struct pci_device *dev)
{
    struct device_env *env = dev->bus->env;
    for (unsigned i = 0; i <= PCI_BARS; i++) {
        struct pci_bar *bar = &dev->bars[i];
        uint64_t base;
        if ((!bar->ops && !bar->memory) || bar->mapped || !bar_decodes(dev, i, &base))
            continue;
        if (bar->memory)
            bar->mapped = physmem_region_move(env->mem, bar->memory, base);
        else
            bar->mapped = bus_add(bar->io ? env->pio : env->mmio, base, bar->size, bar->ops,
                                  bar->device, dev->name);
        bar->base = base;
        if (!bar->mapped && log_on(env->log, LOG_DEV))
            log_write(env->log, LOG_DEV, "%s: BAR %u at %#llx overlaps another device", dev->name,
                      i, (unsigned long long)base);
    }
}

/* Put the BARs where the registers say. */
static void map_bars(struct pci_device *dev)
{
    bool left = false;
    for (unsigned i = 0; i <= PCI_BARS; i++) {
        struct pci_bar *bar = &dev->bars[i];
        uint64_t base;
        if (!bar->mapped || (bar_decodes(dev, i, &base) && bar->base == base))
            continue;
        unmap_bar(dev, bar);
        left = true;
    }
    map_free_bars(dev);
    /* Another one may have waited for the place that has become free. */
    for (unsigned i = 0; left && i < DEVFNS; i++)
        if (dev->bus->devices[i])
            map_free_bars(dev->bus->devices[i]);
}

static void put_bar(struct pci_device *dev, unsigned i, unsigned flags, const struct pci_bar *bar)
{
    unsigned at = bar_register(i);
    uint64_t mask = ~(bar->size - 1) & (bar->io ? ~UINT64_C(3) : ~UINT64_C(15));
    dev->bars[i] = *bar;
    dev->bars[i].io = flags & PCI_BAR_IO;
    dev->bars[i].wide = flags & PCI_BAR_64;
    memcpy(&dev->wmask[at], &mask, flags & PCI_BAR_64 ? 8 : 4);
    dev->config_reset[at] = (flags & PCI_BAR_IO ? 1 : 0) | (flags & PCI_BAR_64 ? 4 : 0) |
                            (flags & PCI_BAR_PREFETCH ? 8 : 0);
    dev->wmask[PCI_COMMAND] |= flags & PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
}

void pci_add_register_bar(struct pci_device *dev, unsigned bar, unsigned flags, uint64_t size,
                          const struct io_ops *ops, void *device)
{
    put_bar(
        dev, bar, flags,
        &(struct pci_bar){.ops = ops, .device = device, .size = size, .io = flags & PCI_BAR_IO});
}

void pci_add_bar(struct pci_device *dev, unsigned bar, bool io, uint64_t size,
                 const struct io_ops *ops, void *device)
{
    pci_add_register_bar(dev, bar, io ? PCI_BAR_IO : 0, size, ops, device);
}

struct physmem_region *pci_add_ram_bar(struct pci_device *dev, unsigned bar, unsigned flags,
                                       uint64_t size)
{
    struct physmem *mem = dev->bus->env->mem;
    uint8_t *host = physmem_extra(mem, size);
    struct physmem_region *region = host ? physmem_region_add(mem, host, size, true) : NULL;
    if (region)
        put_bar(dev, bar, flags, &(struct pci_bar){.memory = region, .size = size});
    return region;
}

bool pci_add_rom(struct pci_device *dev, const void *data, uint64_t size)
{
    struct physmem *mem = dev->bus->env->mem;
    uint64_t padded = PAGE_SIZE;
    while (padded < size)
        padded *= 2;
    uint8_t *host = physmem_extra(mem, padded);
    struct physmem_region *region = host ? physmem_region_add(mem, host, padded, false) : NULL;
    if (!region)
        return false;
    memset(host, 0xff, padded);
    memcpy(host, data, size);
    put_bar(dev, PCI_BARS, 0, &(struct pci_bar){.memory = region, .size = padded});
    dev->wmask[PCI_ROM_BAR] |= ROM_ENABLE;
    return true;
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

/* ---- Message-signalled interrupts ---- */

enum { CAP_MSI = 0x05, CAP_MSIX = 0x11 };
enum { MSI_CONTROL = 2, MSI_ADDRESS = 4, MSI_DATA = 12, MSI_SIZE = 14 };
enum { MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_PENDING = 8, MSIX_SIZE = 12 };
#define MSI_ENABLE       0x0001
#define MSI_64BIT        0x0080
#define MSIX_ENABLE      0x8000
#define MSIX_MASK_ALL    0x4000
#define MSIX_VECTOR_MASK 1
#define MSIX_BAR_SIZE    4096
#define MSIX_PENDING_AT  2048
#define MSIX_ENTRY       16

static unsigned msi_control(const struct pci_device *dev)
{
    return dev->msi_cap ? pci_get16(dev, dev->msi_cap + MSI_CONTROL) : 0;
}

static unsigned msix_control(const struct pci_device *dev)
{
    return dev->msix_cap ? pci_get16(dev, dev->msix_cap + MSIX_CONTROL) : 0;
}

bool pci_uses_messages(const struct pci_device *dev)
{
    return (msi_control(dev) & MSI_ENABLE) || (msix_control(dev) & MSIX_ENABLE);
}

/* A message is a write to memory by a bus master. */
static void send_message(struct pci_device *dev, uint64_t address, uint32_t data)
{
    const struct pci_wiring *w = &dev->bus->wiring;
    if (w->msi && (pci_get16(dev, PCI_COMMAND) & PCI_COMMAND_MASTER))
        w->msi(w->msi_opaque, address, data);
}

static void send_vector(struct pci_device *dev, unsigned vector)
{
    const uint32_t *entry = &dev->msix_table[vector * 4];
    dev->msix_pending &= ~BIT(vector);
    send_message(dev, entry[0] | (uint64_t)entry[1] << 32, entry[2]);
}

static bool vector_masked(const struct pci_device *dev, unsigned vector)
{
    return (msix_control(dev) & MSIX_MASK_ALL) ||
           (dev->msix_table[vector * 4 + 3] & MSIX_VECTOR_MASK);
}

bool pci_notify(struct pci_device *dev, unsigned vector)
{
    if (msix_control(dev) & MSIX_ENABLE) {
        if (vector >= dev->msix_vectors)
            return true;
        if (vector_masked(dev, vector))
            dev->msix_pending |= BIT(vector);
        else
            send_vector(dev, vector);
        return true;
    }
    if (!(msi_control(dev) & MSI_ENABLE))
        return false;
    unsigned cap = dev->msi_cap;
    send_message(dev,
                 pci_get32(dev, cap + MSI_ADDRESS) | (uint64_t)pci_get32(dev, cap + MSI_ADDRESS + 4)
                                                         << 32,
                 pci_get16(dev, cap + MSI_DATA));
    return true;
}

/* Masks may have gone: what waited is sent. */
static void send_pending(struct pci_device *dev)
{
    if (!(msix_control(dev) & MSIX_ENABLE))
        return;
    for (unsigned i = 0; i < dev->msix_vectors; i++)
        if ((dev->msix_pending & BIT(i)) && !vector_masked(dev, i))
            send_vector(dev, i);
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct pci_device *dev = opaque;
    uint32_t value = 0;
    if (offset / MSIX_ENTRY < dev->msix_vectors)
        value = dev->msix_table[offset / 4];
    else if (offset / 4 == MSIX_PENDING_AT / 4)
        value = dev->msix_pending;
    return value >> (8 * (offset & 3));
}

static void msix_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_device *dev = opaque;
    if (offset / MSIX_ENTRY >= dev->msix_vectors || size != 4 || (offset & 3))
        return;
    dev->msix_table[offset / 4] = (uint32_t)value;
    send_pending(dev);
}

static const struct io_ops msix_ops = {msix_read, msix_write, 4};

bool pci_add_msi(struct pci_device *dev)
{
    unsigned cap = pci_add_capability(dev, CAP_MSI, MSI_SIZE);
    if (!cap)
        return false;
    dev->msi_cap = (uint8_t)cap;
    put16(dev->config_reset + cap + MSI_CONTROL, MSI_64BIT);
    put16(dev->wmask + cap + MSI_CONTROL, MSI_ENABLE);
    memset(dev->wmask + cap + MSI_ADDRESS, 0xff, MSI_SIZE - MSI_ADDRESS);
    dev->wmask[cap + MSI_ADDRESS] = 0xfc;
    return true;
}

bool pci_add_msix(struct pci_device *dev, unsigned bar, unsigned vectors)
{
    unsigned cap = pci_add_capability(dev, CAP_MSIX, MSIX_SIZE);
    if (!cap || !vectors || vectors > PCI_MSIX_MAX)
        return false;
    dev->msix_cap = (uint8_t)cap;
    dev->msix_vectors = (uint8_t)vectors;
    put16(dev->config_reset + cap + MSIX_CONTROL, vectors - 1);
    put16(dev->wmask + cap + MSIX_CONTROL, MSIX_ENABLE | MSIX_MASK_ALL);
    dev->config_reset[cap + MSIX_TABLE] = (uint8_t)bar;
    put16(dev->config_reset + cap + MSIX_PENDING, MSIX_PENDING_AT | bar);
    pci_add_register_bar(dev, bar, 0, MSIX_BAR_SIZE, &msix_ops, dev);
    return true;
}

static bool holds(unsigned offset, unsigned size, unsigned cap, unsigned length)
{
    return cap && offset < cap + length && offset + size > cap;
}

/* ---- Configuration space ---- */

static void config_write(struct pci_device *dev, unsigned offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++) {
        unsigned at = offset + i;
        uint8_t byte = (uint8_t)(value >> (8 * i)), mask = dev->wmask[at];
        dev->config[at] = (dev->config[at] & ~mask & ~(byte & dev->w1c[at])) | (byte & mask);
    }
    if (offset < PCI_ROM_BAR + 4 && offset + size > PCI_COMMAND)
        map_bars(dev);
    if (offset < PCI_COMMAND + 2 && offset + size > PCI_COMMAND)
        update_interrupts(dev->bus);
    if (holds(offset, size, dev->msi_cap, MSI_SIZE) ||
        holds(offset, size, dev->msix_cap, MSIX_SIZE)) {
        update_interrupts(dev->bus);
        send_pending(dev);
    }
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

struct pci_device *pci_device_at(struct pci_bus *bus, unsigned devfn)
{
    return bus->devices[devfn % DEVFNS];
}

void pci_device_reset(struct pci_device *dev)
{
    memcpy(dev->config, dev->config_reset, sizeof dev->config);
    dev->intx = false;
    for (unsigned i = 0; i < dev->msix_vectors; i++)
        dev->msix_table[i * 4 + 3] = MSIX_VECTOR_MASK;
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

/*
 * PAM0 (0x59) to PAM6: two bits for each stretch, 1: reads go to RAM, 2: writes go to RAM. What
 * does not goes to PCI: the BIOS ROM or nothing.
 */
enum { PAM0 = 0x59, SMRAM = 0x72, PAM_READ = 1, PAM_WRITE = 2, SMRAM_OPEN = 0x40 };

static const struct {
    uint32_t base, size;
    uint8_t reg, shift;
} pam_ranges[] = {
    {0xf0000, 0x10000, 0x59, 4}, {0xc0000, 0x4000, 0x5a, 0}, {0xc4000, 0x4000, 0x5a, 4},
    {0xc8000, 0x4000, 0x5b, 0},  {0xcc000, 0x4000, 0x5b, 4}, {0xd0000, 0x4000, 0x5c, 0},
    {0xd4000, 0x4000, 0x5c, 4},  {0xd8000, 0x4000, 0x5d, 0}, {0xdc000, 0x4000, 0x5d, 4},
    {0xe0000, 0x4000, 0x5e, 0},  {0xe4000, 0x4000, 0x5e, 4}, {0xe8000, 0x4000, 0x5f, 0},
    {0xec000, 0x4000, 0x5f, 4},
};

#define BIOS_SHADOW 0xe0000u

static void map_shadow(struct pci_bus *bus)
{
    struct physmem *mem = bus->env->mem;
    if (!bus->bios)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(pam_ranges); i++) {
        uint32_t base = pam_ranges[i].base;
        unsigned pam = bus->host.config[pam_ranges[i].reg] >> pam_ranges[i].shift;
        uint8_t *ram = mem->ram + base;
        uint8_t *rom = base >= BIOS_SHADOW ? bus->bios + (base - BIOS_SHADOW) : NULL;
        physmem_map_low(mem, base, pam_ranges[i].size, pam & PAM_READ ? ram : rom,
                        pam & PAM_WRITE ? ram : NULL);
    }
    uint8_t *smram = bus->host.config[SMRAM] & SMRAM_OPEN ? mem->ram + 0xa0000 : NULL;
    physmem_map_low(mem, 0xa0000, 0x20000, smram, smram);
    physmem_low_changed(mem);
}

static void host_written(struct pci_device *dev, unsigned offset, unsigned size)
{
    if (holds(offset, size, PAM0, 7) || holds(offset, size, SMRAM, 1))
        map_shadow(container_of(dev, struct pci_bus, host));
}

void pci_set_firmware(struct pci_bus *bus, uint8_t *rom)
{
    bus->bios = rom;
    /* SeaBIOS looks here for whether it runs on a machine of the kind that it knows. */
    put16(bus->host.config_reset + PCI_SUBSYSTEM_VENDOR, 0x1af4);
    put16(bus->host.config_reset + PCI_SUBSYSTEM, 0x1100);
    memcpy(bus->host.config, bus->host.config_reset, sizeof bus->host.config);
    map_shadow(bus);
}

static const struct state_field bus_fields[] = {
    STATE(struct pci_bus, address, 0),
    STATE_ARRAY(struct pci_bus, route, PIRQ_OFF),
    PCI_DEVICE_STATE(struct pci_bus, host),
};

static void after_reset(void *opaque)
{
    struct pci_bus *bus = opaque;
    pci_device_reset(&bus->host);
    map_shadow(bus);
}

static void after_load(void *opaque)
{
    struct pci_bus *bus = opaque;
    pci_device_loaded(&bus->host);
    map_shadow(bus);
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
    bus->host.config_reset[SMRAM] = 0x02;
    bus->host.config_written = host_written;
    memset(bus->host.wmask + 0x50, 0xff, 0x50);
    device_register(env, &bus_table, bus, free);
    return bus;
}
