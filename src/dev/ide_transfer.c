/*
 * How data moves between a drive, the guest and the image. All functions run with the device lock
 * held; requests of the disk end on its threads, which take it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/ide_internal.h"
#include "util/util.h"

#define PRD_MAX  8192u /* entries in 64 KiB */
#define PRD_LAST 0x80000000u

enum { BM_START = 1, BM_TO_MEMORY = 8 };
enum { BM_ACTIVE = 1, BM_ERROR = 2, BM_INTERRUPT = 4 };

struct ide_request {
    struct disk_request disk;
    struct ide_channel *channel;
    uint32_t generation;
    bool dma;
    uint64_t bytes;
    unsigned count;
    struct iovec iov[];
};

void ide_interrupt(struct ide_channel *ch)
{
    ch->interrupt = true;
    ch->bm_status |= BM_INTERRUPT;
    irq_set(&ch->irq, !(ch->control & 2));
}

void ide_abort(struct ide_channel *ch)
{
    ch->generation++;
    ch->phase = IDE_IDLE;
    ch->submitted = false;
    ch->bm_status &= (uint8_t)~BM_ACTIVE;
    ch->remaining = ch->position = ch->length = 0;
}

void ide_done(struct ide_channel *ch)
{
    ch->phase = IDE_IDLE;
    ide_selected(ch)->regs.status = ST_READY;
    ide_interrupt(ch);
}

void ide_fail(struct ide_channel *ch, uint8_t error)
{
    struct ide_drive *d = ide_selected(ch);
    ch->phase = IDE_IDLE;
    d->regs.status = ST_READY | ST_ERR;
    d->regs.error = error;
    ide_interrupt(ch);
}

/* All of the transfer has been done. */
static void finish(struct ide_channel *ch)
{
    if (ch->packet)
        atapi_done(ch);
    else
        ide_done(ch);
}

/*
 * Data that cannot be read are uncorrectable. There is no such bit for a write or a flush: they are
 * aborted. The address registers have what the command gave, where it may have begun to fail.
 */
static void disk_failed(struct ide_channel *ch, enum disk_op op, int error)
{
    if (ch->packet)
        atapi_read_failed(ch);
    else
        ide_fail(ch, error == EINVAL ? ER_IDNF : op == DISK_READ ? ER_UNC : ER_ABRT);
}

/* ---- Programmed I/O ---- */

/* The buffer is there for the guest to read or to fill. */
static void offer_buffer(struct ide_channel *ch, bool interrupt)
{
    struct ide_drive *d = ide_selected(ch);
    ch->position = 0;
    d->regs.status = ST_READY | ST_DRQ;
    if (ch->packet) {
        d->regs.count = ch->phase == IDE_PIO_IN ? REASON_IO : 0;
        d->regs.lba[1] = (uint8_t)ch->length;
        d->regs.lba[2] = (uint8_t)(ch->length >> 8);
    }
    if (interrupt)
        ide_interrupt(ch);
}

static struct ide_request *new_request(struct ide_channel *ch, unsigned iovs)
{
    struct ide_request *r = calloc(1, sizeof *r + iovs * sizeof r->iov[0]);
    if (r) {
        r->channel = ch;
        r->generation = ch->generation;
    }
    return r;
}

static void pio_next(struct ide_channel *ch);

/* Memory that the disk was read to has been written. */
static void tell_written(struct ide_channel *ch, const struct ide_request *r)
{
    for (unsigned i = 0; i < r->count; i++)
        physmem_written(ch->ide->env->mem, r->iov[i].iov_base, r->iov[i].iov_len);
}

static void dma_finished(struct ide_channel *ch)
{
    ch->bm_status &= (uint8_t)~BM_ACTIVE;
    finish(ch);
}

static void request_ended(struct ide_request *r, int error)
{
    struct ide_channel *ch = r->channel;
    if (r->dma && r->disk.op == DISK_READ)
        tell_written(ch, r);
    if (r->dma)
        dma_finish(&ch->dma);
    if (r->generation != ch->generation)
        return;
    ch->submitted = false;
    if (error) {
        if (r->dma)
            ch->bm_status &= (uint8_t)~BM_ACTIVE;
        disk_failed(ch, r->disk.op, error);
        return;
    }
    if (r->dma) {
        dma_finished(ch);
        return;
    }
    if (r->disk.op == DISK_FLUSH) {
        ide_done(ch);
        return;
    }
    ch->offset += r->bytes;
    ch->remaining -= r->bytes;
    if (r->disk.op == DISK_READ) {
        memcpy(ch->buffer, r->iov[0].iov_base, r->bytes);
        ch->length = (uint32_t)r->bytes;
        offer_buffer(ch, true);
    } else if (ch->remaining) {
        ch->length = (uint32_t)MIN((uint64_t)ch->block, ch->remaining);
        offer_buffer(ch, true);
    } else {
        finish(ch);
    }
}

static void free_request(struct ide_request *r)
{
    if (!r->dma && r->count)
        free(r->iov[0].iov_base);
    free(r);
}

static void on_done(struct disk_request *disk, int error)
{
    struct ide_request *r = container_of(disk, struct ide_request, disk);
    pthread_mutex_t *lock = r->channel->ide->env->lock;
    pthread_mutex_lock(lock);
    request_ended(r, error);
    pthread_mutex_unlock(lock);
    free_request(r);
}

/*
 * The device lock is let go meanwhile: the drive is busy, and what comes between can only be a
 * reset. A drive without a disk gets here with a snapshot that was made up.
 */
static void submit(struct ide_channel *ch, struct ide_request *r, enum disk_op op)
{
    struct disk *disk = ide_selected(ch)->disk;
    if (!disk) {
        free_request(r);
        disk_failed(ch, op, EIO);
        return;
    }
    r->disk.op = op;
    r->disk.fua = ch->fua && op == DISK_WRITE;
    r->disk.offset = ch->offset;
    r->disk.length = op == DISK_FLUSH ? 0 : r->bytes;
    r->disk.iov = r->iov;
    r->disk.iov_count = r->count;
    r->disk.done = on_done;
    r->disk.alone = true;
    if (r->dma) {
        ch->submitted = true;
        dma_begin(&ch->dma);
    }
    pthread_mutex_t *lock = ch->ide->env->lock;
    pthread_mutex_unlock(lock);
    bool done = disk_try(disk, &r->disk);
    if (!done)
        disk_submit(disk, &r->disk);
    pthread_mutex_lock(lock);
    if (done) {
        request_ended(r, 0);
        free_request(r);
    }
}

/* Move a block between the disk and a buffer of the request's own. */
static void pio_next(struct ide_channel *ch)
{
    bool in = ch->phase == IDE_PIO_IN;
    uint64_t bytes = in ? MIN((uint64_t)ch->block, ch->remaining) : ch->length;
    struct ide_request *r = new_request(ch, 1);
    void *data = malloc(bytes);
    if (!r || !data) {
        free(r);
        free(data);
        disk_failed(ch, in ? DISK_READ : DISK_WRITE, ENOMEM);
        return;
    }
    ide_selected(ch)->regs.status = ST_BSY;
    if (!in)
        memcpy(data, ch->buffer, bytes);
    r->iov[0] = (struct iovec){data, bytes};
    r->count = 1;
    r->bytes = bytes;
    submit(ch, r, in ? DISK_READ : DISK_WRITE);
}

void ide_buffer_done(struct ide_channel *ch)
{
    switch (ch->phase) {
    case IDE_PACKET_OUT:
        ch->phase = IDE_IDLE;
        atapi_packet(ch);
        break;
    case IDE_PIO_OUT:
        if (ch->media)
            pio_next(ch);
        else
            finish(ch);
        break;
    case IDE_PIO_IN:
        if (ch->media && ch->remaining) {
            pio_next(ch);
        } else if (!ch->media && ch->remaining) {
            /* A long answer of a packet device goes in pieces of what the host allows. */
            memmove(ch->buffer, ch->buffer + ch->length, ch->remaining);
            ch->length = (uint32_t)MIN((uint64_t)ch->block, ch->remaining);
            ch->remaining -= ch->length;
            offer_buffer(ch, true);
        } else if (ch->packet) {
            atapi_done(ch);
        } else {
            ch->phase = IDE_IDLE;
            ide_selected(ch)->regs.status = ST_READY;
        }
        break;
    default:
        break;
    }
}

/* ---- Bus master ---- */

static bool read_prd(struct ide_channel *ch, unsigned n, uint32_t prd[2])
{
    return physmem_read(ch->ide->env->mem, ch->prd + (uint64_t)n * 8, prd, 8);
}

/* Host addresses of `bytes` of the guest's buffers. 0: the table is no good or too short. */
static unsigned map_prds(struct ide_channel *ch, struct iovec *iov, uint64_t bytes, bool write)
{
    struct physmem *mem = ch->ide->env->mem;
    unsigned count = 0;
    for (unsigned n = 0; n < PRD_MAX; n++) {
        uint32_t prd[2];
        if (!read_prd(ch, n, prd))
            return 0;
        uint64_t size = prd[1] & 0xfffe ? prd[1] & 0xfffe : 0x10000;
        uint64_t used = MIN(size, bytes);
        uint8_t *host = physmem_host_any(mem, prd[0] & ~1u, used, write);
        if (!host)
            return 0;
        iov[count++] = (struct iovec){host, used};
        bytes -= used;
        if (!bytes)
            return count;
        if (prd[1] & PRD_LAST)
            return 0;
    }
    return 0;
}

static void dma_failed(struct ide_channel *ch)
{
    ch->bm_status = (uint8_t)((ch->bm_status & ~BM_ACTIVE) | BM_ERROR);
    disk_failed(ch, ch->phase == IDE_DMA_IN ? DISK_READ : DISK_WRITE, EIO);
}

/* The bus master does this direction? */
static bool direction_fits(const struct ide_channel *ch)
{
    return !!(ch->bm_command & BM_TO_MEMORY) == (ch->phase == IDE_DMA_IN);
}

void ide_dma_start(struct ide_channel *ch)
{
    struct device_env *env = ch->ide->env;
    if ((ch->phase != IDE_DMA_IN && ch->phase != IDE_DMA_OUT) || ch->submitted ||
        !(ch->bm_command & BM_START))
        return;
    bool in = ch->phase == IDE_DMA_IN;
    uint64_t bytes = ch->media ? ch->remaining : ch->length;
    unsigned iovs = (unsigned)MIN(bytes / 2 + 1, (uint64_t)PRD_MAX);
    struct ide_request *r = new_request(ch, iovs);
    if (!direction_fits(ch) || !(pci_get16(&ch->ide->pci, PCI_COMMAND) & PCI_COMMAND_MASTER) ||
        !r || !(r->count = map_prds(ch, r->iov, bytes, in))) {
        free(r);
        dma_failed(ch);
        return;
    }
    ch->bm_status |= BM_ACTIVE;
    if (!ch->media) { /* a packet device's short answer */
        const uint8_t *from = ch->buffer;
        for (unsigned i = 0; i < r->count; i++) {
            memcpy(r->iov[i].iov_base, from, r->iov[i].iov_len);
            physmem_written(env->mem, r->iov[i].iov_base, r->iov[i].iov_len);
            from += r->iov[i].iov_len;
        }
        free(r);
        dma_finished(ch);
        return;
    }
    r->dma = true;
    r->bytes = bytes;
    submit(ch, r, in ? DISK_READ : DISK_WRITE);
}

/* ---- What commands ask for ---- */

static void start_dma(struct ide_channel *ch, bool in)
{
    ch->phase = in ? IDE_DMA_IN : IDE_DMA_OUT;
    ide_selected(ch)->regs.status = ST_DRDY | ST_BSY;
    ide_dma_start(ch);
}

void ide_send(struct ide_channel *ch, uint32_t length, bool dma)
{
    ch->media = false;
    ch->length = length;
    ch->remaining = 0;
    if (!length) {
        finish(ch);
        return;
    }
    if (dma) {
        start_dma(ch, true);
        return;
    }
    ch->phase = IDE_PIO_IN;
    if (ch->packet && length > ch->block) {
        ch->length = ch->block;
        ch->remaining = length - ch->block;
    }
    offer_buffer(ch, true);
}

void ide_read_disk(struct ide_channel *ch, uint64_t offset, uint64_t bytes, uint32_t block,
                   bool dma)
{
    ch->media = true;
    ch->fua = false;
    ch->offset = offset;
    ch->remaining = bytes;
    ch->block = MIN(block, IDE_BUFFER);
    if (dma) {
        start_dma(ch, true);
    } else {
        ch->phase = IDE_PIO_IN;
        pio_next(ch);
    }
}

void ide_write_disk(struct ide_channel *ch, uint64_t offset, uint64_t bytes, uint32_t block,
                    bool dma, bool fua)
{
    ch->media = true;
    ch->fua = fua;
    ch->offset = offset;
    ch->remaining = bytes;
    ch->block = MIN(block, IDE_BUFFER);
    if (dma) {
        start_dma(ch, false);
    } else {
        ch->phase = IDE_PIO_OUT;
        ch->length = (uint32_t)MIN((uint64_t)ch->block, bytes);
        offer_buffer(ch, false);
    }
}

void ide_flush_disk(struct ide_channel *ch)
{
    struct ide_request *r = new_request(ch, 0);
    if (!r) {
        ide_fail(ch, ER_ABRT);
        return;
    }
    ide_selected(ch)->regs.status = ST_BSY | ST_DRDY;
    submit(ch, r, DISK_FLUSH);
}
