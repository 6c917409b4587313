/*
 * PIIX4 function 3: ACPI power management. Its block of I/O registers is at ACPI_PM_BASE from
 * power-up on, and moves where the guest's firmware programs PMBA. Of the block, PM1, the PM timer
 * and GPE0 are there; GPE0 is where the ACPI tables say, inside the block. The SMBus host, whose
 * place and configuration are in this function's configuration space, too, is piix4_smbus.c.
 */
#include <stdlib.h>

#include "dev/piix4.h"
#include "dev/piix4_smbus.h"
#include "util/util.h"

#define PMBA      0x40 /* base of the I/O registers */
#define PMREGMISC 0x80 /* bit 0: the I/O registers decode */
#define SMBBA     0x90 /* base of the SMBus host's registers, which PCI_COMMAND_IO makes decode */
#define SMBHSTCFG 0xd2

enum { SMB_HST_EN = 0x01, SMB_INTRSEL = 0x0e, SMB_IRQ9 = 0x08 };

#define PM1_STS  0x00
#define PM1_EN   0x02
#define PM1_CNT  0x04
#define PM_TMR   (ACPI_PM_TMR - ACPI_PM_BASE)
#define GPE0_STS (ACPI_GPE0 - ACPI_PM_BASE)
#define GPE0_EN  (GPE0_STS + 2)

enum {
    TMR_STS = 0x0001,
    GBL_STS = 0x0020,
    PWRBTN_STS = 0x0100,
    RTC_STS = 0x0400,
    WAK_STS = 0x8000
};
#define PM1_STS_BITS   (TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS | WAK_STS)
#define PM1_EN_BITS    (TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS)

#define SCI_EN         0x0001
#define SLP_TYP(cnt)   ((cnt) >> 10 & 7)
#define SLP_EN         0x2000
#define PM1_CNT_WRITES 0x1c02 /* SCI_EN belongs to the chipset, GBL_RLS and SLP_EN read as 0 */

struct piix4_pm {
    struct pci_device pci;
    struct device_env *env;
    struct irq_line sci;
    struct timer overflow; /* next change of the PM timer's top bit */
    uint16_t pm1_sts, pm1_en, pm1_cnt;
    uint16_t gpe0_sts, gpe0_en;
    uint8_t smi_command, smi_data; /* ports 0xb2 and 0xb3 */
    uint64_t seen_ticks;           /* PM timer up to which TMR_STS is right */
    struct piix4_smbus *smbus;
    bool smbus_irq;
    bool mapped;
    uint16_t base; /* of the I/O registers, valid while mapped */
};

static const struct pci_identity identity = {
    .name = "PIIX4 power management",
    .vendor = 0x8086,
    .device = 0x7113,
    .revision = 3,
    .class_code = 0x068000,
    .interrupt_pin = 1,
};

static uint64_t pm_ticks(const struct piix4_pm *pm)
{
    return vclock_ticks(vclock_ns(pm->env->clock), ACPI_PM_TMR_HZ);
}

/* Bring TMR_STS and the SCI up to date. The timer is 32 bits wide: its top bit is bit 31. */
static void update(struct piix4_pm *pm)
{
    uint64_t now = pm_ticks(pm);
    if (now >> 31 != pm->seen_ticks >> 31)
        pm->pm1_sts |= TMR_STS;
    pm->seen_ticks = now;
    bool active = (pm->pm1_sts & pm->pm1_en & PM1_EN_BITS) || (pm->gpe0_sts & pm->gpe0_en);
    bool smbus = pm->smbus_irq && (pm->pci.config[SMBHSTCFG] & SMB_INTRSEL) == SMB_IRQ9;
    irq_set(&pm->sci, (active && (pm->pm1_cnt & SCI_EN)) || smbus);
    if ((pm->pm1_en & TMR_STS) && !(pm->pm1_sts & TMR_STS))
        timer_set(&pm->overflow, vclock_ticks_to_ns(((now >> 31) + 1) << 31, ACPI_PM_TMR_HZ));
    else
        timer_cancel(&pm->overflow);
}

static void set_smbus_irq(void *opaque, int pin, int level)
{
    struct piix4_pm *pm = opaque;
    if (pm->smbus_irq == (level != 0))
        return;
    pm->smbus_irq = level;
    update(pm);
}

static void on_overflow(void *opaque)
{
    update(opaque);
}

void piix4_pm_power_button(struct piix4_pm *pm)
{
    pm->pm1_sts |= PWRBTN_STS;
    update(pm);
}

void piix4_pm_rtc_alarm(struct piix4_pm *pm)
{
    pm->pm1_sts |= RTC_STS;
    update(pm);
}

void piix4_pm_gpe(struct piix4_pm *pm, unsigned event, bool level)
{
    if (level)
        pm->gpe0_sts |= BIT(event & 15);
    else
        pm->gpe0_sts &= ~BIT(event & 15);
    update(pm);
}

static void write_control(struct piix4_pm *pm, uint16_t value)
{
    pm->pm1_cnt = (pm->pm1_cnt & ~PM1_CNT_WRITES) | (value & PM1_CNT_WRITES);
    if (!(value & SLP_EN))
        return;
    if (SLP_TYP(value) == ACPI_S5_SLP_TYP)
        pm->env->request_poweroff(pm->env->vm);
    else if (log_on(pm->env->log, LOG_DEV))
        log_write(pm->env->log, LOG_DEV, "sleep type %u is not one that the ACPI tables offer",
                  SLP_TYP(value));
}

/* The registers are 16 bits wide but for the timer; a byte write changes its half. */
static uint16_t *register_at(struct piix4_pm *pm, unsigned offset)
{
    switch (offset) {
    case PM1_STS:
        return &pm->pm1_sts;
    case PM1_EN:
        return &pm->pm1_en;
    case PM1_CNT:
        return &pm->pm1_cnt;
    case GPE0_STS:
        return &pm->gpe0_sts;
    case GPE0_EN:
        return &pm->gpe0_en;
    default:
        return NULL;
    }
}

static uint64_t block_read(void *opaque, uint64_t offset, unsigned size)
{
    struct piix4_pm *pm = opaque;
    if (offset >= PM_TMR && offset < PM_TMR + 4)
        return (uint32_t)pm_ticks(pm) >> (8 * (offset - PM_TMR));
    if (offset == PM1_STS)
        update(pm);
    uint16_t *reg = register_at(pm, offset & ~1u);
    return reg ? (uint64_t)*reg >> (8 * (offset & 1)) : 0;
}

static void block_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct piix4_pm *pm = opaque;
    unsigned at = offset & ~1u, shift = 8 * (offset & 1);
    uint16_t *reg = register_at(pm, at);
    if (!reg)
        return;
    uint16_t mask = (uint16_t)(bytes_mask(size) << shift);
    uint16_t bits = (uint16_t)(value << shift) & mask;

    update(pm);
    switch (at) {
    case PM1_STS:
    case GPE0_STS: /* a written 1 clears */
        *reg &= ~bits;
        break;
    case PM1_CNT:
        write_control(pm, (*reg & ~mask & ~SLP_EN) | bits);
        break;
    case PM1_EN:
        *reg = ((*reg & ~mask) | bits) & PM1_EN_BITS;
        break;
    default:
        *reg = (*reg & ~mask) | bits;
        break;
    }
    update(pm);
}

/* Dwords reach the timer whole; all else goes in words. */
static uint64_t block_read_any(void *opaque, uint64_t offset, unsigned size)
{
    if (size == 4 && offset != PM_TMR)
        return block_read(opaque, offset, 2) | block_read(opaque, offset + 2, 2) << 16;
    if (size == 2 && (offset & 1))
        return (block_read(opaque, offset, 1) & 0xff) | block_read(opaque, offset + 1, 1) << 8;
    return block_read(opaque, offset, size);
}

static void block_write_any(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    if (size == 1 || (size == 2 && !(offset & 1))) {
        block_write(opaque, offset, size, value);
        return;
    }
    unsigned half = size / 2;
    block_write_any(opaque, offset, half, value & bytes_mask(half));
    block_write_any(opaque, offset + half, half, value >> (8 * half));
}

static const struct io_ops block_ops = {block_read_any, block_write_any, 4};

/* Firmware's SMI handler would do this on a real board. */
static void smi_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct piix4_pm *pm = opaque;
    if (offset == 1) {
        pm->smi_data = (uint8_t)value;
        return;
    }
    pm->smi_command = (uint8_t)value;
    if (value == ACPI_ENABLE)
        pm->pm1_cnt |= SCI_EN;
    else if (value == ACPI_DISABLE)
        pm->pm1_cnt &= ~SCI_EN;
    update(pm);
}

static uint64_t smi_read(void *opaque, uint64_t offset, unsigned size)
{
    struct piix4_pm *pm = opaque;
    return offset ? pm->smi_data : pm->smi_command;
}

static const struct io_ops smi_ops = {smi_read, smi_write, 1};

/* ---- Where the block is ---- */

static void map_block(struct piix4_pm *pm)
{
    uint16_t base = pci_get16(&pm->pci, PMBA) & 0xffc0;
    bool decodes = (pm->pci.config[PMREGMISC] & 1) && base != 0;
    if (pm->mapped && decodes && pm->base == base)
        return;
    if (pm->mapped)
        bus_remove(pm->env->pio, pm->base);
    pm->mapped =
        decodes && bus_add(pm->env->pio, base, ACPI_PM_SIZE, &block_ops, pm, "power management");
    pm->base = base;
}

static void map_all(struct piix4_pm *pm)
{
    bool decodes = pm->pci.config[PCI_COMMAND] & PCI_COMMAND_IO;
    map_block(pm);
    piix4_smbus_configure(pm->smbus, decodes ? pci_get16(&pm->pci, SMBBA) & 0xfff0 : 0,
                          pm->pci.config[SMBHSTCFG] & SMB_HST_EN);
    update(pm);
}

static void config_written(struct pci_device *dev, unsigned offset, unsigned size)
{
    map_all(container_of(dev, struct piix4_pm, pci));
}

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(struct piix4_pm, pci), STATE(struct piix4_pm, pm1_sts, 0),
    STATE(struct piix4_pm, pm1_en, 0),      STATE(struct piix4_pm, pm1_cnt, 0),
    STATE(struct piix4_pm, gpe0_sts, 0),    STATE(struct piix4_pm, gpe0_en, 0),
    STATE(struct piix4_pm, smi_command, 0), STATE(struct piix4_pm, smi_data, 0),
    STATE(struct piix4_pm, seen_ticks, 0),
};

static void after_reset(void *opaque)
{
    struct piix4_pm *pm = opaque;
    pci_device_reset(&pm->pci);
    pm->seen_ticks = pm_ticks(pm);
    map_all(pm);
}

static void after_load(void *opaque)
{
    struct piix4_pm *pm = opaque;
    pci_device_loaded(&pm->pci);
    map_all(pm);
}

static const struct state_table table = {
    .name = "piix4_pm",
    .version = 1,
    .size = sizeof(struct piix4_pm),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

void piix4_pm_add_base(struct piix4_pm *pm, uint16_t base)
{
    bus_add(pm->env->pio, base, ACPI_PM_SIZE, &block_ops, pm, "power management");
}

struct piix4_pm *piix4_pm_create(struct device_env *env, struct pci_bus *bus, struct irq_line sci)
{
    struct piix4_pm *pm = calloc(1, sizeof *pm);
    if (!pm)
        return NULL;
    struct pci_device *dev = &pm->pci;
    pm->env = env;
    pm->sci = sci;
    pm->smbus = piix4_smbus_create(env, (struct irq_line){set_smbus_irq, pm, 0});
    if (!pm->smbus) {
        free(pm);
        return NULL;
    }
    timer_init(&pm->overflow, env->timers, on_overflow, pm);
    pci_device_init(bus, dev, PCI_DEVFN(PIIX4_SLOT, 3), &identity);
    dev->config_written = config_written;
    dev->config_reset[PCI_COMMAND] = PCI_COMMAND_IO;
    dev->config_reset[PCI_STATUS] = 0x80;
    dev->config_reset[PCI_STATUS + 1] = 0x02;
    dev->config_reset[PCI_INTERRUPT_LINE] = ACPI_SCI_IRQ;
    dev->config_reset[PMBA] = (ACPI_PM_BASE & 0xc0) | 1;
    dev->config_reset[PMBA + 1] = ACPI_PM_BASE >> 8;
    dev->wmask[PMBA] = 0xc0;
    dev->wmask[PMBA + 1] = 0xff;
    /* DEVACTB: SMIs by the command port are on already, so firmware does not set up SMM. */
    dev->config_reset[0x5b] = 0x02;
    dev->config_reset[PMREGMISC] = 1;
    dev->wmask[PMREGMISC] = 1;
    dev->config_reset[SMBBA] = (ACPI_SMBUS_BASE & 0xf0) | 1;
    dev->config_reset[SMBBA + 1] = ACPI_SMBUS_BASE >> 8;
    dev->wmask[SMBBA] = 0xf0;
    dev->wmask[SMBBA + 1] = 0xff;
    dev->config_reset[SMBHSTCFG] = SMB_HST_EN | SMB_IRQ9;
    dev->wmask[SMBHSTCFG] = SMB_HST_EN | SMB_INTRSEL;
    /* SMBSLVC, the two shadow ports */
    dev->wmask[SMBHSTCFG + 1] = dev->wmask[SMBHSTCFG + 2] = dev->wmask[SMBHSTCFG + 3] = 0xff;
    dev->wmask[PCI_COMMAND] |= PCI_COMMAND_IO;
    bus_add(env->pio, ACPI_SMI_CMD, 2, &smi_ops, pm, "SMI command");
    device_register(env, &table, pm, free);
    return pm;
}
