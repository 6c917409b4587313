#include "dev/fdc.h"

#include <stdlib.h>
#include <string.h>

#include "dev/fdc_internal.h"
#include "util/util.h"

enum { REG_DOR, REG_TDR, REG_MSR, REG_FIFO }; /* from 3f2 on */
enum { DOR_DRIVE = 0x03, DOR_ENABLE = 0x04, DOR_DMA = 0x08 };
enum { MSR_BUSY = 0x10, MSR_NON_DMA = 0x20, MSR_TO_HOST = 0x40, MSR_READY = 0x80 };
enum { DIR_CHANGED = 0x80 };
enum { ST3_FIXED = 0x28, ST3_TRACK_0 = 0x10, ST3_PROTECTED = 0x40 };

static const struct geometry geometries[] = {
    {2880, 80, 2, 18, 0, 4}, {5760, 80, 2, 36, 3, 5}, {1440, 80, 2, 9, 2, 4},
    {2400, 80, 2, 15, 0, 2}, {720, 40, 2, 9, 2, 1},   {640, 40, 2, 8, 2, 1},
    {360, 40, 1, 9, 2, 1},   {320, 40, 1, 8, 2, 1},   {3360, 80, 2, 21, 0, 4},
    {3444, 82, 2, 21, 0, 4},
};

static const struct geometry *geometry_of(uint64_t bytes)
{
    for (unsigned i = 0; i < ARRAY_SIZE(geometries); i++)
        if (geometries[i].sectors * DISK_SECTOR == bytes)
            return &geometries[i];
    return NULL;
}

uint8_t fdc_drive_type(uint64_t bytes)
{
    const struct geometry *g = geometry_of(bytes);
    return g ? g->type : 0;
}

uint64_t fdc_medium_size(uint64_t bytes)
{
    uint64_t least = 0;
    if (geometry_of(bytes))
        return bytes;
    for (unsigned i = 0; i < ARRAY_SIZE(geometries); i++) {
        uint64_t size = geometries[i].sectors * DISK_SECTOR;
        if (geometries[i].spt >= 18 && bytes < size && (!least || size < least))
            least = size;
    }
    return least;
}

/* ---- Interrupts and results ---- */

static void update_irq(struct fdc *fdc)
{
    irq_set(&fdc->irq, fdc->interrupt && (fdc->dor & DOR_DMA) && (fdc->dor & DOR_ENABLE));
}

void fdc_set_interrupt(struct fdc *fdc, bool on)
{
    fdc->interrupt = on;
    update_irq(fdc);
}

/* The input is edge-triggered: whatever held the line up before, this is an interrupt. */
static void new_interrupt(struct fdc *fdc)
{
    fdc_set_interrupt(fdc, false);
    fdc_set_interrupt(fdc, true);
}

static void want_command(struct fdc *fdc)
{
    fdc->phase = PHASE_COMMAND;
    fdc->position = fdc->length = 0;
}

static void result(struct fdc *fdc, const uint8_t *bytes, unsigned count)
{
    memcpy(fdc->fifo, bytes, count);
    fdc->phase = PHASE_RESULT;
    fdc->position = 0;
    fdc->length = (uint8_t)count;
}

static void result_byte(struct fdc *fdc, uint8_t byte)
{
    result(fdc, &byte, 1);
}

void fdc_result_data(struct fdc *fdc, uint8_t st0, uint8_t st1, uint8_t st2)
{
    const uint8_t *id = fdc->chrn;
    const uint8_t bytes[] = {
        (uint8_t)(st0 | fdc->head << 2 | fdc->unit), st1, st2, id[0], id[1], id[2], id[3]};
    fdc->generation++;
    dma8237_request(fdc->dma, DMA_CHANNEL, false);
    result(fdc, bytes, sizeof bytes);
    new_interrupt(fdc);
}

/* ---- Reset ---- */

static void abort_command(struct fdc *fdc)
{
    fdc->generation++;
    fdc->interrupt = false;
    dma8237_request(fdc->dma, DMA_CHANNEL, false);
    want_command(fdc);
}

/* By the DOR or the DSR: what the driver has set up stays, more of it after LOCK. */
static void software_reset(struct fdc *fdc)
{
    abort_command(fdc);
    if (!fdc->lock) {
        fdc->config = CONFIG_RESET;
        fdc->pretrk = 0;
    }
    for (unsigned i = 0; i < FDC_DRIVES; i++)
        fdc->drives[i].pcn = 0;
    for (unsigned i = 0; i < POLLED; i++) {
        fdc->sense[i] = (uint8_t)(ST0_POLL | i);
        fdc->sense_due[i] = !(fdc->config & CONFIG_NO_POLL);
    }
    if (fdc->sense_due[0])
        new_interrupt(fdc);
    else
        update_irq(fdc);
}

/* ---- The head ---- */

/* Steps move the head from where it is, and the controller's count with it. */
static void step_to(struct fdc *fdc, unsigned unit, int target)
{
    struct drive *d = fdc_drive_at(fdc, unit);
    if (!d)
        return;
    int steps = target - d->pcn, track = d->track + steps;
    d->track = (uint8_t)(track < 0 ? 0 : MIN(track, TRACK_LAST));
    d->pcn = (uint8_t)target;
    if (steps && d->disk)
        d->changed = false;
}

static void seek_ended(struct fdc *fdc, unsigned unit, uint8_t st0)
{
    fdc->sense[unit] = (uint8_t)(st0 | unit);
    fdc->sense_due[unit] = true;
    want_command(fdc);
    new_interrupt(fdc);
}

/* ---- Commands ---- */

static void select_drive(struct fdc *fdc)
{
    fdc->command = fdc->fifo[0];
    fdc->unit = fdc->fifo[1] & 3;
    fdc->head = fdc->fifo[1] >> 2 & 1;
    fdc->terminal = fdc->format = false;
}

static void do_data(struct fdc *fdc)
{
    select_drive(fdc);
    memcpy(fdc->chrn, fdc->fifo + 2, 4);
    fdc->eot = fdc->fifo[6];
    fdc->verify_count = fdc->fifo[1] & 0x80 ? fdc->fifo[8] : 0;
    if (fdc->config & CONFIG_SEEK)
        step_to(fdc, fdc->unit, fdc->chrn[0]);
    fdc_next_sector(fdc);
}

static void do_format(struct fdc *fdc)
{
    select_drive(fdc);
    fdc->format = true;
    fdc->filler = fdc->fifo[5];
    fdc->eot = fdc->fifo[3];
    const struct drive *d = fdc_drive_at(fdc, fdc->unit);
    const uint8_t id[4] = {d ? d->track : 0, fdc->head, 1, fdc->fifo[2]};
    memcpy(fdc->chrn, id, sizeof id);
    if (!fdc_track_readable(fdc))
        return;
    if (fdc->fifo[2] != SIZE_CODE || fdc->fifo[3] == 0 || fdc->fifo[3] > SPT_MAX)
        fdc_result_data(fdc, ST0_FAILED, ST1_NO_DATA, 0);
    else
        fdc_offer_data(fdc, PHASE_FROM_HOST, fdc->fifo[3] * 4u);
}

static void do_read_id(struct fdc *fdc)
{
    select_drive(fdc);
    const struct drive *d = fdc_drive_at(fdc, fdc->unit);
    const uint8_t id[4] = {d ? d->track : 0, fdc->head, 1, SIZE_CODE};
    memcpy(fdc->chrn, id, sizeof id);
    if (fdc_track_readable(fdc))
        fdc_result_data(fdc, 0, 0, 0);
}

static void do_recalibrate(struct fdc *fdc)
{
    unsigned unit = fdc->fifo[1] & 3;
    struct drive *d = fdc_drive_at(fdc, unit);
    if (!d) {
        seek_ended(fdc, unit, ST0_FAILED | ST0_SEEK | ST0_CHECK);
        return;
    }
    unsigned steps = MIN(d->track, RECAL_STEPS);
    d->track = (uint8_t)(d->track - steps);
    d->pcn = 0;
    if (steps && d->disk)
        d->changed = false;
    seek_ended(fdc, unit, d->track ? ST0_FAILED | ST0_SEEK | ST0_CHECK : ST0_SEEK);
}

static void do_seek(struct fdc *fdc)
{
    unsigned unit = fdc->fifo[1] & 3;
    step_to(fdc, unit, fdc->fifo[2]);
    seek_ended(fdc, unit, (uint8_t)(ST0_SEEK | (fdc->fifo[1] & 4)));
}

static void do_relative_seek(struct fdc *fdc)
{
    unsigned unit = fdc->fifo[1] & 3;
    const struct drive *d = fdc_drive_at(fdc, unit);
    int pcn = d ? d->pcn : 0, n = fdc->fifo[2];
    int target = fdc->fifo[0] & 0x40 ? MIN(pcn + n, 255) : pcn - n;
    step_to(fdc, unit, target < 0 ? 0 : target);
    seek_ended(fdc, unit, (uint8_t)(ST0_SEEK | (fdc->fifo[1] & 4)));
}

static void do_sense_interrupt(struct fdc *fdc)
{
    for (unsigned i = 0; i < POLLED; i++) {
        if (!fdc->sense_due[i])
            continue;
        const struct drive *d = fdc_drive_at(fdc, i);
        const uint8_t bytes[] = {fdc->sense[i], d ? d->pcn : 0};
        fdc->sense_due[i] = false;
        fdc_set_interrupt(fdc, false);
        result(fdc, bytes, sizeof bytes);
        return;
    }
    result_byte(fdc, ST0_INVALID);
}

static void do_sense_drive(struct fdc *fdc)
{
    const struct drive *d = fdc_drive_at(fdc, fdc->fifo[1] & 3);
    uint8_t st3 = ST3_FIXED | (fdc->fifo[1] & 7);
    if (d && d->track == 0)
        st3 |= ST3_TRACK_0;
    if (d && d->disk && d->read_only)
        st3 |= ST3_PROTECTED;
    result_byte(fdc, st3);
}

static void do_specify(struct fdc *fdc)
{
    memcpy(fdc->specify, fdc->fifo + 1, 2);
    want_command(fdc);
}

static void do_configure(struct fdc *fdc)
{
    fdc->config = fdc->fifo[2] & 0x7f;
    fdc->pretrk = fdc->fifo[3];
    want_command(fdc);
}

static void do_perpendicular(struct fdc *fdc)
{
    /* OW: only with it are the drives' bits written. */
    uint8_t value = fdc->fifo[1];
    fdc->perpendicular =
        (uint8_t)((value & 0x80 ? value & 0x3c : fdc->perpendicular & 0x3c) | (value & 3));
    want_command(fdc);
}

static void do_dump(struct fdc *fdc)
{
    const uint8_t bytes[] = {fdc->drives[0].pcn,
                             fdc->drives[1].pcn,
                             0,
                             0,
                             fdc->specify[0],
                             fdc->specify[1],
                             fdc->eot,
                             (uint8_t)(fdc->lock << 7 | fdc->perpendicular),
                             fdc->config,
                             fdc->pretrk};
    result(fdc, bytes, sizeof bytes);
}

static void do_lock(struct fdc *fdc)
{
    fdc->lock = fdc->fifo[0] & 0x80;
    result_byte(fdc, (uint8_t)(fdc->lock << 4));
}

static void do_version(struct fdc *fdc)
{
    result_byte(fdc, 0x90);
}

static const struct {
    uint8_t mask, code, length;
    void (*run)(struct fdc *fdc);
} commands[] = {
    {0x1f, 0x06, 9, do_data},            /* READ DATA */
    {0x1f, 0x0c, 9, do_data},            /* READ DELETED DATA */
    {0x1f, 0x16, 9, do_data},            /* VERIFY */
    {0x3f, 0x05, 9, do_data},            /* WRITE DATA */
    {0x3f, 0x09, 9, do_data},            /* WRITE DELETED DATA: the mark is lost */
    {0xbf, 0x0d, 6, do_format},          /* FORMAT TRACK */
    {0xbf, 0x0a, 2, do_read_id},         /* READ ID */
    {0xff, 0x07, 2, do_recalibrate},     /* RECALIBRATE */
    {0xff, 0x0f, 3, do_seek},            /* SEEK */
    {0xbf, 0x8f, 3, do_relative_seek},   /* RELATIVE SEEK */
    {0xff, 0x08, 1, do_sense_interrupt}, /* SENSE INTERRUPT STATUS */
    {0xff, 0x04, 2, do_sense_drive},     /* SENSE DRIVE STATUS */
    {0xff, 0x03, 3, do_specify},         /* SPECIFY */
    {0xff, 0x13, 4, do_configure},       /* CONFIGURE */
    {0xff, 0x12, 2, do_perpendicular},   /* PERPENDICULAR MODE */
    {0xff, 0x0e, 1, do_dump},            /* DUMPREG */
    {0xff, 0x10, 1, do_version},         /* VERSION */
    {0x7f, 0x14, 1, do_lock},            /* LOCK */
};

static void command_byte(struct fdc *fdc, uint8_t value)
{
    fdc->fifo[fdc->position++] = value;
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
        if ((fdc->fifo[0] & commands[i].mask) != commands[i].code)
            continue;
        if (fdc->position >= commands[i].length)
            commands[i].run(fdc);
        return;
    }
    if (log_on(fdc->env->log, LOG_DEV))
        log_write(fdc->env->log, LOG_DEV, "floppy: unknown command %02x", fdc->fifo[0]);
    result_byte(fdc, ST0_INVALID);
}

/* ---- Registers ---- */

static uint8_t main_status(const struct fdc *fdc)
{
    bool pio = !fdc_uses_dma(fdc);
    if (!(fdc->dor & DOR_ENABLE))
        return 0;
    switch (fdc->phase) {
    case PHASE_COMMAND:
        return (uint8_t)(MSR_READY | (fdc->position ? MSR_BUSY : 0));
    case PHASE_RESULT:
        return MSR_READY | MSR_TO_HOST | MSR_BUSY;
    case PHASE_TO_HOST:
        return pio ? MSR_READY | MSR_TO_HOST | MSR_NON_DMA | MSR_BUSY : MSR_BUSY;
    case PHASE_FROM_HOST:
        return pio ? MSR_READY | MSR_NON_DMA | MSR_BUSY : MSR_BUSY;
    default:
        return pio ? MSR_NON_DMA | MSR_BUSY : MSR_BUSY;
    }
}

/* One interrupt is enough for the drives polled after a reset, but each seek has its own. */
static void announce_seeks(struct fdc *fdc)
{
    for (unsigned i = 0; i < POLLED; i++)
        if (fdc->sense_due[i] && (fdc->sense[i] & ST0_POLL) != ST0_POLL)
            new_interrupt(fdc);
}

static uint8_t fifo_read(struct fdc *fdc)
{
    if (fdc->phase == PHASE_TO_HOST && !fdc_uses_dma(fdc)) {
        uint8_t value = fdc->data[fdc->data_position++];
        if (fdc->data_position == fdc->data_length)
            fdc_data_moved(fdc);
        return value;
    }
    if (fdc->phase != PHASE_RESULT)
        return 0xff;
    fdc_set_interrupt(fdc, false);
    uint8_t value = fdc->fifo[fdc->position++];
    if (fdc->position == fdc->length) {
        want_command(fdc);
        announce_seeks(fdc);
    }
    return value;
}

static void fifo_write(struct fdc *fdc, uint8_t value)
{
    if (!(fdc->dor & DOR_ENABLE))
        return;
    if (fdc->phase == PHASE_COMMAND) {
        command_byte(fdc, value);
    } else if (fdc->phase == PHASE_FROM_HOST && !fdc_uses_dma(fdc)) {
        fdc->data[fdc->data_position++] = value;
        if (fdc->data_position == fdc->data_length)
            fdc_data_moved(fdc);
    }
}

static void write_dor(struct fdc *fdc, uint8_t value)
{
    bool was_on = fdc->dor & DOR_ENABLE;
    fdc->dor = value;
    if (!(value & DOR_ENABLE)) {
        abort_command(fdc);
        memset(fdc->sense_due, 0, sizeof fdc->sense_due);
    } else if (!was_on) {
        software_reset(fdc);
    }
    update_irq(fdc);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fdc *fdc = opaque;
    switch (offset) {
    case REG_DOR:
        return fdc->dor;
    case REG_TDR:
        return fdc->tdr | 0xfc;
    case REG_MSR:
        return main_status(fdc);
    default:
        return fifo_read(fdc);
    }
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct fdc *fdc = opaque;
    switch (offset) {
    case REG_DOR:
        write_dor(fdc, (uint8_t)value);
        break;
    case REG_TDR:
        fdc->tdr = value & 3;
        break;
    case REG_MSR: /* the DSR when written */
        fdc->dsr = value & 0x7f;
        if (value & DSR_RESET && fdc->dor & DOR_ENABLE)
            software_reset(fdc);
        break;
    default:
        fifo_write(fdc, (uint8_t)value);
    }
}

static uint64_t dir_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fdc *fdc = opaque;
    const struct drive *d = fdc_drive_at(fdc, fdc->dor & DOR_DRIVE);
    return d && (d->changed || !d->disk) ? DIR_CHANGED : 0;
}

static void ccr_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct fdc *fdc = opaque;
    fdc->dsr = (uint8_t)((fdc->dsr & ~DSR_RATE) | (value & DSR_RATE));
}

static const struct io_ops port_ops = {port_read, port_write, 1};
static const struct io_ops dir_ops = {dir_read, ccr_write, 1};

/* ---- State ---- */

#define DRIVE_STATE(n)                                                                             \
    STATE(struct fdc, drives[n].track, 0), STATE(struct fdc, drives[n].pcn, 0),                    \
        STATE(struct fdc, drives[n].changed, 1)

static const struct state_field fields[] = {
    DRIVE_STATE(0),
    DRIVE_STATE(1),
    STATE(struct fdc, dor, 0),
    STATE(struct fdc, tdr, 0),
    STATE(struct fdc, dsr, 2),
    STATE_ARRAY(struct fdc, specify, 0),
    STATE(struct fdc, config, CONFIG_RESET),
    STATE(struct fdc, pretrk, 0),
    STATE(struct fdc, perpendicular, 0),
    STATE(struct fdc, lock, 0),
    STATE_ARRAY(struct fdc, sense, 0),
    STATE_ARRAY(struct fdc, sense_due, 0),
    STATE(struct fdc, interrupt, 0),
    STATE(struct fdc, phase, PHASE_COMMAND),
    STATE_ARRAY(struct fdc, fifo, 0),
    STATE(struct fdc, position, 0),
    STATE(struct fdc, length, 0),
    STATE(struct fdc, command, 0),
    STATE(struct fdc, unit, 0),
    STATE(struct fdc, head, 0),
    STATE_ARRAY(struct fdc, chrn, 0),
    STATE(struct fdc, eot, 0),
    STATE(struct fdc, filler, 0),
    STATE(struct fdc, verify_count, 0),
    STATE(struct fdc, terminal, 0),
    STATE(struct fdc, format, 0),
    STATE(struct fdc, data_position, 0),
    STATE(struct fdc, data_length, 0),
    STATE_ARRAY(struct fdc, data, 0),
};

static void after_reset(void *opaque)
{
    struct fdc *fdc = opaque;
    fdc->generation++;
    dma8237_request(fdc->dma, DMA_CHANNEL, false);
    update_irq(fdc);
}

/* Indices come from the snapshot. A command with data under way ends with an error that makes
 * drivers repeat it. */
static void after_load(void *opaque)
{
    struct fdc *fdc = opaque;
    fdc->generation++;
    fdc->unit &= 3;
    fdc->head &= 1;
    for (unsigned i = 0; i < FDC_DRIVES; i++)
        fdc->drives[i].track = MIN(fdc->drives[i].track, TRACK_LAST);
    dma8237_request(fdc->dma, DMA_CHANNEL, false);
    if (fdc->phase > PHASE_RESULT) {
        fdc_result_data(fdc, ST0_FAILED, ST1_DATA, ST2_DATA);
    } else if (fdc->position >= FIFO_SIZE || fdc->length > FIFO_SIZE ||
               (fdc->phase == PHASE_RESULT && fdc->position >= fdc->length)) {
        want_command(fdc);
    }
    update_irq(fdc);
}

static const struct state_table table = {
    .name = "fdc",
    .version = 1,
    .size = sizeof(struct fdc),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

/* ---- Creation ---- */

struct fdc *fdc_create(struct device_env *env, struct dma8237 *dma, struct irq_line irq6)
{
    struct fdc *fdc = calloc(1, sizeof *fdc);
    if (!fdc)
        return NULL;
    fdc->env = env;
    fdc->dma = dma;
    fdc->irq = irq6;
    dma8237_attach(dma, DMA_CHANNEL, fdc_dma_ready, fdc);
    bus_add(env->pio, 0x3f2, 4, &port_ops, fdc, "floppy");
    bus_add(env->pio, 0x3f7, 1, &dir_ops, fdc, "floppy DIR");
    device_register(env, &table, fdc, free);
    return fdc;
}

static void insert(struct drive *d, struct disk *disk)
{
    d->disk = disk;
    d->medium = disk ? geometry_of(disk_size(disk)) : NULL;
    d->read_only = disk && disk_read_only(disk);
    d->changed = true;
}

void fdc_attach(struct fdc *fdc, unsigned unit, struct disk *disk)
{
    fdc->drives[unit].present = true;
    insert(&fdc->drives[unit], disk);
}

bool fdc_change_medium(struct fdc *fdc, unsigned unit, struct disk *disk)
{
    struct drive *d = fdc_drive_at(fdc, unit);
    if (!d || fdc->phase > PHASE_RESULT || (disk && !geometry_of(disk_size(disk))))
        return false;
    insert(d, disk);
    return true;
}
