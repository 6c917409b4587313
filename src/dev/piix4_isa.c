/* PIIX4 function 0: the PCI to ISA bridge. What matters of it is the routing of PCI interrupts. */
#include <stdlib.h>

#include "dev/piix4.h"
#include "util/util.h"

#define PIRQRC   0x60 /* PIRQRC[A:D] */
#define PIRQ_OFF 0x80

struct piix4_isa {
    struct pci_device pci;
};

static const struct pci_identity identity = {
    .name = "PIIX4 ISA bridge",
    .vendor = 0x8086,
    .device = 0x7110,
    .revision = 2,
    .class_code = 0x060100,
};

static void route(struct piix4_isa *isa)
{
    for (unsigned i = 0; i < 4; i++)
        pci_set_pirq_route(isa->pci.bus, i, isa->pci.config[PIRQRC + i]);
}

static void config_written(struct pci_device *dev, unsigned offset, unsigned size)
{
    if (offset < PIRQRC + 4 && offset + size > PIRQRC)
        route(container_of(dev, struct piix4_isa, pci));
}

static const struct state_field fields[] = {PCI_DEVICE_STATE(struct piix4_isa, pci)};

static void after_reset(void *opaque)
{
    struct piix4_isa *isa = opaque;
    pci_device_reset(&isa->pci);
    route(isa);
}

static void after_load(void *opaque)
{
    struct piix4_isa *isa = opaque;
    pci_device_loaded(&isa->pci);
    route(isa);
}

static const struct state_table table = {
    .name = "piix4_isa",
    .version = 1,
    .size = sizeof(struct piix4_isa),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

struct piix4_isa *piix4_isa_create(struct device_env *env, struct pci_bus *bus)
{
    struct piix4_isa *isa = calloc(1, sizeof *isa);
    if (!isa)
        return NULL;
    struct pci_device *dev = &isa->pci;
    pci_device_init(bus, dev, PCI_DEVFN(PIIX4_SLOT, 0), &identity);
    dev->config_written = config_written;
    dev->config_reset[PCI_COMMAND] = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    dev->config_reset[PCI_STATUS + 1] = 0x02; /* medium DEVSEL timing */
    dev->config_reset[0x4c] = 0x4d;           /* ISA I/O recovery timer */
    dev->config_reset[0x4e] = 0x03;           /* XBCS: RTC and keyboard controller enabled */
    dev->wmask[0x4c] = dev->wmask[0x4e] = dev->wmask[0x4f] = 0xff;
    for (unsigned i = 0; i < 4; i++) {
        dev->config_reset[PIRQRC + i] = PIRQ_OFF;
        dev->wmask[PIRQRC + i] = PIRQ_OFF | 0x0f;
    }
    device_register(env, &table, isa, free);
    return isa;
}
