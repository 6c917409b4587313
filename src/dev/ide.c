/* The registers of the two channels and the PCI function. */
#include "dev/ide.h"

#include <stdlib.h>
#include <string.h>

#include "dev/ide_internal.h"
#include "dev/piix4.h"
#include "util/util.h"

/* Of a channel without drives: the lines float, but for bit 7, pulled down, so nobody waits for
 * BSY. */
#define NO_DRIVES 0x7f

enum { REG_DATA, REG_ERROR, REG_COUNT, REG_LBA0, REG_LBA1, REG_LBA2, REG_DEVICE, REG_STATUS };
enum { CONTROL_NIEN = 2, CONTROL_RESET = 4, CONTROL_HOB = 0x80 };
enum { BM_COMMAND = 0, BM_STATUS = 2, BM_PRD = 4, BM_SIZE = 16 };
enum { BM_START = 1, BM_WRITABLE = 9, BM_ACTIVE = 1, BM_CLEARS = 6, BM_CAPABLE = 0x60 };
enum { IDETIM = 0x40, IDETIM_DECODE = 0x80, UDMACTL = 0x48 };
enum { COMMAND_RESET_PACKET = 0x08 };

static const struct {
    uint16_t base, control;
} ports[2] = {{0x1f0, 0x3f6}, {0x170, 0x376}};

static bool has_drives(const struct ide_channel *ch)
{
    return ch->drives[0].present || ch->drives[1].present;
}

uint64_t ide_native_sectors(const struct ide_drive *d)
{
    return d->disk ? disk_size(d->disk) / (d->cdrom ? ATAPI_SECTOR : DISK_SECTOR) : 0;
}

/* ---- Reset ---- */

static void reset_drive(struct ide_drive *d, bool keep_modes)
{
    d->regs = (struct ide_registers){.status = d->cdrom ? 0 : ST_READY, .error = 1};
    ata_set_signature(d);
    if (keep_modes)
        return;
    d->heads = 16;
    d->spt = 63;
    d->multiple = 16;
    d->mwdma = d->udma = 0xff;
    d->write_cache = d->look_ahead = d->smart = true;
    d->apm = 0;
    d->power = IDE_ACTIVE;
    d->hidden = 0;
    d->sectors = ide_native_sectors(d);
}

/* Drives are busy from here on. What moves to or from guest memory ends before this returns, with
 * the lock let go: the guest may use its buffers for something else after a reset. */
static void begin_reset(struct ide_channel *ch)
{
    ide_abort(ch);
    ch->interrupt = false;
    irq_set(&ch->irq, 0);
    for (unsigned i = 0; i < 2; i++) {
        reset_drive(&ch->drives[i], true);
        ch->drives[i].regs.status = ST_BSY;
    }
    dma_wait(&ch->dma);
}

/* ---- Task file ---- */

static uint8_t task_read(struct ide_channel *ch, unsigned reg)
{
    struct ide_drive *d = ide_selected(ch);
    const struct ide_registers *r = &d->regs;
    bool old = ch->control & CONTROL_HOB;
    if (!has_drives(ch))
        return NO_DRIVES;
    /* The master answers for a slave that is not there, with nothing to say. */
    if (!d->present)
        return reg == REG_DEVICE ? r->device : 0;
    switch (reg) {
    case REG_ERROR:
        return r->error;
    case REG_COUNT:
        return old ? r->old_count : r->count;
    case REG_LBA0:
    case REG_LBA1:
    case REG_LBA2:
        return old ? r->old_lba[reg - REG_LBA0] : r->lba[reg - REG_LBA0];
    case REG_DEVICE:
        return r->device | 0xa0;
    default: /* reading the status acknowledges the interrupt */
        ch->interrupt = false;
        irq_set(&ch->irq, 0);
        return r->status;
    }
}

/* Both drives hear of it, unless one works: it keeps what it was told, and stays the selected one.
 */
static void task_write(struct ide_channel *ch, unsigned reg, uint8_t value)
{
    if (ide_selected(ch)->regs.status & (ST_BSY | ST_DRQ))
        return;
    for (unsigned i = 0; i < 2; i++) {
        struct ide_registers *r = &ch->drives[i].regs;
        switch (reg) {
        case REG_ERROR:
            r->feature = value;
            break;
        case REG_COUNT:
            r->old_count = r->count;
            r->count = value;
            break;
        case REG_DEVICE:
            r->device = value;
            break;
        default:
            r->old_lba[reg - REG_LBA0] = r->lba[reg - REG_LBA0];
            r->lba[reg - REG_LBA0] = value;
        }
    }
}

static void command(struct ide_channel *ch, uint8_t value)
{
    struct ide_drive *d = ide_selected(ch);
    if (!d->present)
        return;
    bool busy = d->regs.status & (ST_BSY | ST_DRQ);
    if (busy && !(d->cdrom && value == COMMAND_RESET_PACKET))
        return;
    ide_abort(ch);
    ch->interrupt = false;
    irq_set(&ch->irq, 0);
    ch->packet = false;
    d->regs.error = 0;
    d->regs.status = ST_READY;
    ata_command(ch, value);
}

/* ---- Data port: two bytes at a time, or four ---- */

static bool buffer_open(struct ide_channel *ch, bool in)
{
    bool reading = ch->phase == IDE_PIO_IN;
    bool writing = ch->phase == IDE_PIO_OUT || ch->phase == IDE_PACKET_OUT;
    return (in ? reading : writing) && (ide_selected(ch)->regs.status & ST_DRQ);
}

static uint64_t data_read(struct ide_channel *ch, unsigned size)
{
    uint64_t value = 0;
    if (!buffer_open(ch, true))
        return 0;
    unsigned n = MIN(size, ch->length - ch->position);
    memcpy(&value, ch->buffer + ch->position, n);
    ch->position += n;
    if (ch->position >= ch->length)
        ide_buffer_done(ch);
    return value;
}

static void data_write(struct ide_channel *ch, unsigned size, uint64_t value)
{
    if (!buffer_open(ch, false))
        return;
    unsigned n = MIN(size, ch->length - ch->position);
    memcpy(ch->buffer + ch->position, &value, n);
    ch->position += n;
    if (ch->position >= ch->length)
        ide_buffer_done(ch);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ide_channel *ch = opaque;
    if (offset == REG_DATA)
        return has_drives(ch) ? data_read(ch, size) : ~UINT64_C(0);
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)task_read(ch, (unsigned)offset + i) << (8 * i);
    return value;
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ide_channel *ch = opaque;
    if (offset == REG_DATA) {
        data_write(ch, size, value);
        return;
    }
    for (unsigned i = 0; i < size; i++, value >>= 8) {
        ch->control &= (uint8_t)~CONTROL_HOB;
        if (offset + i == REG_STATUS)
            command(ch, (uint8_t)value);
        else
            task_write(ch, (unsigned)offset + i, (uint8_t)value);
    }
}

static uint64_t control_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ide_channel *ch = opaque;
    if (!has_drives(ch))
        return NO_DRIVES;
    const struct ide_drive *d = ide_selected(ch);
    return d->present ? d->regs.status : 0;
}

static void control_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ide_channel *ch = opaque;
    bool was_reset = ch->control & CONTROL_RESET, reset = value & CONTROL_RESET;
    ch->control = (uint8_t)value;
    if (reset && !was_reset) {
        begin_reset(ch);
    } else if (!reset && was_reset) {
        for (unsigned i = 0; i < 2; i++)
            reset_drive(&ch->drives[i], true);
    }
    irq_set(&ch->irq, ch->interrupt && !(ch->control & CONTROL_NIEN));
}

static const struct io_ops port_ops = {port_read, port_write, 4};
static const struct io_ops control_ops = {control_read, control_write, 1};

/* ---- Bus master registers ---- */

static uint64_t bm_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ide *ide = opaque;
    const struct ide_channel *ch = &ide->channels[offset >> 3 & 1];
    uint8_t bytes[16] = {[BM_COMMAND] = ch->bm_command, [BM_STATUS] = ch->bm_status};
    memcpy(bytes + BM_PRD, &ch->prd, sizeof ch->prd);
    uint64_t value = 0;
    memcpy(&value, bytes + (offset & 7), size);
    return value;
}

static void bm_write_byte(struct ide_channel *ch, unsigned reg, uint8_t value)
{
    if (reg == BM_COMMAND) {
        bool was_on = ch->bm_command & BM_START;
        ch->bm_command = value & BM_WRITABLE;
        if (value & BM_START && !was_on) {
            ide_dma_start(ch);
        } else if (!(value & BM_START)) {
            ch->bm_status &= (uint8_t)~BM_ACTIVE;
        }
    } else if (reg == BM_STATUS) {
        ch->bm_status =
            (uint8_t)((ch->bm_status & ~BM_CAPABLE & ~(value & BM_CLEARS)) | (value & BM_CAPABLE));
    } else if (reg >= BM_PRD) {
        unsigned shift = 8 * (reg - BM_PRD);
        ch->prd = (ch->prd & ~(0xffu << shift)) | (uint32_t)value << shift;
        ch->prd &= ~3u;
    }
}

static void bm_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ide *ide = opaque;
    for (unsigned i = 0; i < size; i++)
        bm_write_byte(&ide->channels[offset >> 3 & 1], ((unsigned)offset + i) & 7,
                      (uint8_t)(value >> (8 * i)));
}

static const struct io_ops bm_ops = {bm_read, bm_write, 4};

/* ---- State ---- */

#define DRIVE_STATE(c, d)                                                                          \
    STATE(struct ide, channels[c].drives[d].regs.feature, 0),                                      \
        STATE(struct ide, channels[c].drives[d].regs.count, 0),                                    \
        STATE_ARRAY(struct ide, channels[c].drives[d].regs.lba, 0),                                \
        STATE(struct ide, channels[c].drives[d].regs.old_count, 0),                                \
        STATE_ARRAY(struct ide, channels[c].drives[d].regs.old_lba, 0),                            \
        STATE(struct ide, channels[c].drives[d].regs.device, 0),                                   \
        STATE(struct ide, channels[c].drives[d].regs.status, 0),                                   \
        STATE(struct ide, channels[c].drives[d].regs.error, 0),                                    \
        STATE(struct ide, channels[c].drives[d].heads, 16),                                        \
        STATE(struct ide, channels[c].drives[d].spt, 63),                                          \
        STATE(struct ide, channels[c].drives[d].multiple, 16),                                     \
        STATE(struct ide, channels[c].drives[d].mwdma, 0xff),                                      \
        STATE(struct ide, channels[c].drives[d].udma, 0xff),                                       \
        STATE(struct ide, channels[c].drives[d].write_cache, 1),                                   \
        STATE(struct ide, channels[c].drives[d].look_ahead, 1),                                    \
        STATE(struct ide, channels[c].drives[d].smart, 1),                                         \
        STATE(struct ide, channels[c].drives[d].apm, 0),                                           \
        STATE(struct ide, channels[c].drives[d].power, IDE_ACTIVE),                                \
        STATE(struct ide, channels[c].drives[d].hidden, 0),                                        \
        STATE(struct ide, channels[c].drives[d].sense, 0),                                         \
        STATE(struct ide, channels[c].drives[d].asc, 0),                                           \
        STATE(struct ide, channels[c].drives[d].ascq, 0),                                          \
        STATE(struct ide, channels[c].drives[d].locked, 0),                                        \
        STATE(struct ide, channels[c].drives[d].tray_open, 0),                                     \
        STATE(struct ide, channels[c].drives[d].changed, 0),                                       \
        STATE(struct ide, channels[c].drives[d].event, 0)

#define CHANNEL_STATE(c)                                                                           \
    DRIVE_STATE(c, 0), DRIVE_STATE(c, 1), STATE(struct ide, channels[c].control, 0),               \
        STATE(struct ide, channels[c].interrupt, 0), STATE(struct ide, channels[c].bm_command, 0), \
        STATE(struct ide, channels[c].bm_status, 0), STATE(struct ide, channels[c].prd, 0),        \
        STATE(struct ide, channels[c].phase, IDE_IDLE), STATE(struct ide, channels[c].packet, 0),  \
        STATE(struct ide, channels[c].media, 0), STATE(struct ide, channels[c].fua, 0),            \
        STATE(struct ide, channels[c].offset, 0), STATE(struct ide, channels[c].remaining, 0),     \
        STATE(struct ide, channels[c].block, 512), STATE(struct ide, channels[c].position, 0),     \
        STATE(struct ide, channels[c].length, 0), STATE_ARRAY(struct ide, channels[c].buffer, 0)

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(struct ide, pci),
    CHANNEL_STATE(0),
    CHANNEL_STATE(1),
};

static void after_reset(void *opaque)
{
    struct ide *ide = opaque;
    pci_device_reset(&ide->pci);
    for (unsigned c = 0; c < 2; c++) {
        begin_reset(&ide->channels[c]);
        for (unsigned i = 0; i < 2; i++)
            reset_drive(&ide->channels[c].drives[i], false);
    }
}

/* Indices into the buffer and divisors come from the snapshot. */
static void after_load(void *opaque)
{
    struct ide *ide = opaque;
    pci_device_loaded(&ide->pci);
    for (unsigned c = 0; c < 2; c++) {
        struct ide_channel *ch = &ide->channels[c];
        ch->length = MIN(ch->length, IDE_BUFFER);
        ch->position = MIN(ch->position, ch->length);
        ch->block = MIN(ch->block, IDE_BUFFER);
        ch->generation++;
        ch->submitted = false;
        for (unsigned i = 0; i < 2; i++) {
            struct ide_drive *d = &ch->drives[i];
            d->heads = d->heads ? d->heads : 16;
            d->spt = d->spt ? d->spt : 63;
            uint64_t native = ide_native_sectors(d);
            d->sectors = native - MIN(d->hidden, native);
        }
        if (!ch->media)
            ch->remaining = MIN(ch->remaining, (uint64_t)IDE_BUFFER - ch->length);
        irq_set(&ch->irq, ch->interrupt && !(ch->control & CONTROL_NIEN));
    }
}

static const struct state_table table = {
    .name = "piix4_ide",
    .version = 1,
    .size = sizeof(struct ide),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

/* ---- Creation ---- */

static void destroy(void *opaque)
{
    struct ide *ide = opaque;
    for (unsigned c = 0; c < 2; c++)
        dma_count_end(&ide->channels[c].dma);
    free(ide);
}

static const struct pci_identity identity = {
    .name = "PIIX4 IDE",
    .vendor = 0x8086,
    .device = 0x7111,
    .revision = 1,
    .class_code = 0x010180, /* both channels at their legacy ports, bus master */
};

struct ide *ide_create(struct device_env *env, struct pci_bus *bus, struct irq_line irq14,
                       struct irq_line irq15)
{
    struct ide *ide = calloc(1, sizeof *ide);
    if (!ide)
        return NULL;
    struct pci_device *dev = &ide->pci;
    ide->env = env;
    pci_device_init(bus, dev, PCI_DEVFN(PIIX4_SLOT, 1), &identity);
    dev->config_reset[PCI_STATUS] = 0x80;
    dev->config_reset[PCI_STATUS + 1] = 0x02;
    dev->config_reset[PCI_COMMAND] = PCI_COMMAND_IO;
    dev->wmask[PCI_COMMAND] = PCI_COMMAND_IO | PCI_COMMAND_MASTER;
    dev->config_reset[IDETIM + 1] = dev->config_reset[IDETIM + 3] = IDETIM_DECODE;
    memset(dev->wmask + IDETIM, 0xff, 5);  /* timing, slave timing */
    memset(dev->wmask + UDMACTL, 0xff, 4); /* ultra DMA control and timing */
    pci_add_bar(dev, 4, true, BM_SIZE, &bm_ops, ide);
    for (unsigned c = 0; c < 2; c++) {
        struct ide_channel *ch = &ide->channels[c];
        ch->ide = ide;
        ch->number = c;
        dma_count_init(&ch->dma, env);
        ch->irq = c ? irq15 : irq14;
        bus_add(env->pio, ports[c].base, 8, &port_ops, ch, "IDE");
        bus_add(env->pio, ports[c].control, 1, &control_ops, ch, "IDE control");
    }
    device_register(env, &table, ide, destroy);
    return ide;
}

void ide_attach(struct ide *ide, unsigned unit, struct disk *disk, bool cdrom)
{
    struct ide_drive *d = &ide->channels[unit >> 1].drives[unit & 1];
    d->disk = disk;
    d->present = true;
    d->cdrom = cdrom;
    reset_drive(d, false);
}

bool ide_tray_locked(const struct ide *ide, unsigned unit)
{
    return ide->channels[unit >> 1 & 1].drives[unit & 1].locked;
}

bool ide_tray_open(const struct ide *ide, unsigned unit)
{
    return ide->channels[unit >> 1 & 1].drives[unit & 1].tray_open;
}

bool ide_change_medium(struct ide *ide, unsigned unit, struct disk *disk, bool force)
{
    struct ide_channel *ch = &ide->channels[unit >> 1 & 1];
    struct ide_drive *d = &ch->drives[unit & 1];
    if (!d->present || !d->cdrom)
        return false;
    if (d->locked && !force) { /* the button asks the guest, which may unlock and open the tray */
        d->event = EVENT_EJECT_REQUEST;
        return false;
    }
    if (d->regs.status & (ST_BSY | ST_DRQ))
        return false;
    d->disk = disk;
    d->sectors = ide_native_sectors(d);
    d->tray_open = false;
    d->changed = disk != NULL;
    d->event = disk ? EVENT_NEW_MEDIUM : EVENT_REMOVAL;
    return true;
}
