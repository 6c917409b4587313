/*
 * Commands that move data: sector by sector between the disk, the buffer, and the guest or its DMA
 * channel. All functions run with the device lock held; requests of the disk end on its threads,
 * which take it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/fdc_internal.h"
#include "util/util.h"

struct fdc_request {
    struct disk_request disk;
    struct fdc *fdc;
    uint32_t generation;
    struct iovec iov;
    uint8_t data[];
};

/* ---- Disk requests ---- */

static void sector_read(struct fdc *fdc);
static void sector_written(struct fdc *fdc);

static void request_ended(struct fdc_request *r, int error)
{
    struct fdc *fdc = r->fdc;
    if (r->generation != fdc->generation)
        return;
    if (error) {
        if (error == EROFS)
            fdc_result_data(fdc, ST0_FAILED, ST1_PROTECTED, 0);
        else
            fdc_result_data(fdc, ST0_FAILED, ST1_DATA, ST2_DATA);
    } else if (r->disk.op == DISK_READ) {
        memcpy(fdc->data, r->data, r->disk.length);
        sector_read(fdc);
    } else {
        sector_written(fdc);
    }
}

static void on_done(struct disk_request *disk, int error)
{
    struct fdc_request *r = container_of(disk, struct fdc_request, disk);
    pthread_mutex_t *lock = r->fdc->env->lock;
    pthread_mutex_lock(lock);
    request_ended(r, error);
    pthread_mutex_unlock(lock);
    free(r);
}

/* `count` sectors from sector R of this track on, to or from the buffer. */
static void submit(struct fdc *fdc, enum disk_op op, unsigned sector, unsigned count)
{
    struct drive *d = &fdc->drives[fdc->unit];
    const struct geometry *g = d->medium;
    uint32_t bytes = count * SECTOR;
    struct fdc_request *r = calloc(1, sizeof *r + bytes);
    if (!r) {
        fdc_result_data(fdc, ST0_FAILED, ST1_DATA, ST2_DATA);
        return;
    }
    uint64_t lba = ((uint64_t)d->track * g->heads + fdc->head) * g->spt + sector - 1;
    fdc->phase = op == DISK_READ ? PHASE_READING : PHASE_WRITING;
    r->fdc = fdc;
    r->generation = fdc->generation;
    r->iov = (struct iovec){r->data, bytes};
    if (op == DISK_WRITE)
        memcpy(r->data, fdc->data, bytes);
    r->disk = (struct disk_request){.op = op,
                                    .offset = lba * DISK_SECTOR,
                                    .length = bytes,
                                    .iov = &r->iov,
                                    .iov_count = 1,
                                    .done = on_done};
    disk_submit(d->disk, &r->disk);
}

/* ---- READ DATA, WRITE DATA, VERIFY, FORMAT TRACK ---- */

static bool command_is(const struct fdc *fdc, unsigned code)
{
    return (fdc->command & 0x1f) == code;
}

static bool writes(const struct fdc *fdc)
{
    return command_is(fdc, 0x05) || command_is(fdc, 0x09) || command_is(fdc, 0x0d);
}

bool fdc_track_readable(struct fdc *fdc)
{
    struct drive *d = fdc_drive_at(fdc, fdc->unit);
    if (!d || !d->medium || d->medium->rate != (fdc->dsr & DSR_RATE) ||
        !(fdc->command & COMMAND_MFM) || d->track >= d->medium->tracks ||
        fdc->head >= d->medium->heads) {
        fdc_result_data(fdc, ST0_FAILED, ST1_MARK, 0);
        return false;
    }
    if (writes(fdc) && d->read_only) {
        fdc_result_data(fdc, ST0_FAILED, ST1_PROTECTED, 0);
        return false;
    }
    return true;
}

/* The sector that CHRN names. */
static bool sector_found(struct fdc *fdc)
{
    if (!fdc_track_readable(fdc))
        return false;
    const struct drive *d = &fdc->drives[fdc->unit];
    const uint8_t *id = fdc->chrn;
    uint8_t st2 = 0;
    if (id[0] != d->track)
        st2 = id[0] == 0xff ? ST2_BAD_CYLINDER : ST2_WRONG_CYLINDER;
    else if (id[1] == fdc->head && id[2] >= 1 && id[2] <= d->medium->spt && id[3] == SIZE_CODE)
        return true;
    fdc_result_data(fdc, ST0_FAILED, ST1_NO_DATA, st2);
    return false;
}

static void move_data(struct fdc *fdc);

void fdc_offer_data(struct fdc *fdc, enum phase phase, uint32_t length)
{
    fdc->phase = phase;
    fdc->data_position = 0;
    fdc->data_length = length;
    if (fdc_uses_dma(fdc)) {
        dma8237_request(fdc->dma, DMA_CHANNEL, true);
        move_data(fdc);
    } else {
        fdc_set_interrupt(fdc, true);
    }
}

void fdc_next_sector(struct fdc *fdc)
{
    if (!sector_found(fdc))
        return;
    if (writes(fdc))
        fdc_offer_data(fdc, PHASE_FROM_HOST, SECTOR);
    else
        submit(fdc, DISK_READ, fdc->chrn[2], 1);
}

/* The sector after the last one, as the result tells it. */
static void step_id(struct fdc *fdc)
{
    uint8_t *id = fdc->chrn;
    if (id[2] != fdc->eot) {
        id[2]++;
        return;
    }
    id[2] = 1;
    if (!(fdc->command & COMMAND_MT)) {
        id[0]++;
    } else {
        if (id[1] & 1)
            id[0]++;
        id[1] ^= 1;
    }
}

/* A sector is done. */
static void advance(struct fdc *fdc)
{
    bool last = fdc->chrn[2] == fdc->eot && (!(fdc->command & COMMAND_MT) || fdc->head == 1);
    bool deleted = command_is(fdc, 0x0c); /* it was none: the controller stops and says so */
    bool verify = command_is(fdc, 0x16);
    if (verify && fdc->verify_count)
        fdc->terminal = --fdc->verify_count == 0;
    else if (verify)
        fdc->terminal = last;
    if (fdc->terminal || deleted) {
        step_id(fdc);
        fdc_result_data(fdc, 0, 0, deleted ? ST2_MARK : 0);
    } else if (last) {
        fdc_result_data(fdc, ST0_FAILED, ST1_END, 0);
    } else {
        step_id(fdc);
        fdc->head = fdc->chrn[1] & 1;
        fdc_next_sector(fdc);
    }
}

static void sector_read(struct fdc *fdc)
{
    if (command_is(fdc, 0x16))
        advance(fdc);
    else
        fdc_offer_data(fdc, PHASE_TO_HOST, SECTOR);
}

static void sector_written(struct fdc *fdc)
{
    if (fdc->format)
        fdc_result_data(fdc, 0, 0, 0);
    else
        advance(fdc);
}

/* The guest has sent the IDs of a track's sectors. Only the layout that the image has can be kept.
 */
static void format_track(struct fdc *fdc)
{
    const struct drive *d = &fdc->drives[fdc->unit];
    unsigned count = fdc->data_position / 4, seen = 0;
    bool fits = count == d->medium->spt;
    uint64_t ids = 0;
    for (unsigned i = 0; fits && i < count; i++) {
        const uint8_t *id = fdc->data + 4 * (size_t)i;
        fits = id[0] == d->track && id[1] == fdc->head && id[2] >= 1 && id[2] <= count &&
               id[3] == SIZE_CODE && !(ids >> id[2] & 1);
        ids |= fits ? UINT64_C(1) << id[2] : 0;
        seen += fits;
        memcpy(fdc->chrn, id, 4);
    }
    if (!fits || seen != count) {
        fdc_result_data(fdc, ST0_FAILED, ST1_NO_DATA, 0);
        return;
    }
    memset(fdc->data, fdc->filler, count * SECTOR);
    submit(fdc, DISK_WRITE, 1, count);
}

void fdc_data_moved(struct fdc *fdc)
{
    dma8237_request(fdc->dma, DMA_CHANNEL, false);
    fdc_set_interrupt(fdc, false);
    if (fdc->phase == PHASE_TO_HOST) {
        advance(fdc);
    } else if (fdc->format) {
        format_track(fdc);
    } else {
        memset(fdc->data + fdc->data_position, 0, SECTOR - fdc->data_position);
        submit(fdc, DISK_WRITE, fdc->chrn[2], 1);
    }
}

static void move_data(struct fdc *fdc)
{
    bool in = fdc->phase == PHASE_TO_HOST;
    fdc->data_position +=
        dma8237_transfer(fdc->dma, DMA_CHANNEL, fdc->data + fdc->data_position,
                         fdc->data_length - fdc->data_position, in, &fdc->terminal);
    if (fdc->terminal || fdc->data_position == fdc->data_length)
        fdc_data_moved(fdc);
}

void fdc_dma_ready(void *opaque)
{
    struct fdc *fdc = opaque;
    if (fdc_uses_dma(fdc) && (fdc->phase == PHASE_TO_HOST || fdc->phase == PHASE_FROM_HOST))
        move_data(fdc);
}
