#include "dev/virtio_blk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "dev/dma.h"
#include "dev/virtio.h"
#include "disk/disk.h"
#include "util/util.h"

enum feature {
    F_SEG_MAX = 2,
    F_GEOMETRY = 4,
    F_RO = 5,
    F_BLK_SIZE = 6,
    F_FLUSH = 9,
    F_TOPOLOGY = 10,
    F_CONFIG_WCE = 11,
    F_MQ = 12,
    F_DISCARD = 13,
    F_WRITE_ZEROES = 14,
};

enum request_type {
    T_IN = 0,
    T_OUT = 1,
    T_FLUSH = 4,
    T_GET_ID = 8,
    T_DISCARD = 11,
    T_WRITE_ZEROES = 13,
};

enum status { S_OK = 0, S_IOERR = 1, S_UNSUPPORTED = 2 };

/* Offsets in the configuration. */
enum config {
    CONFIG_CAPACITY = 0,  /* sectors */
    CONFIG_SEG_MAX = 12,  /* buffers of data in a request */
    CONFIG_GEOMETRY = 16, /* cylinders, heads, sectors of a track */
    CONFIG_BLK_SIZE = 20,
    CONFIG_TOPOLOGY = 24, /* log2 of sectors in a physical block, offset; smallest, best transfer */
    CONFIG_WRITEBACK = 32,
    CONFIG_QUEUES = 34,
    CONFIG_DISCARD_SECTORS = 36,
    CONFIG_DISCARD_SEGMENTS = 40,
    CONFIG_DISCARD_ALIGNMENT = 44,
    CONFIG_ZEROES_SECTORS = 48,
    CONFIG_ZEROES_SEGMENTS = 52,
    CONFIG_ZEROES_MAY_UNMAP = 56,
    CONFIG_SIZE = 60,
};

#define HEADER_SIZE    16
#define RANGE_SIZE     16 /* of discard and write zeroes: sector, count, flags */
#define RANGE_UNMAP    1
#define RANGE_SECTORS  (1u << 22) /* 2 GiB */
#define SERIAL_SIZE    20
#define HEADS          16
#define TRACK          63
#define PHYSICAL_BLOCK 4096

struct virtio_blk;

struct blk_request {
    struct virtio_blk *blk;
    struct blk_request *next_free;
    uint32_t generation;
    uint32_t written;
    unsigned queue;
    uint8_t *status; /* the last byte that the driver gave to write */
    struct disk_request disk;
    struct virtio_chain chain;
};

struct virtio_blk {
    struct virtio_device virtio;
    struct disk *disk;
    struct dma_count dma;
    struct blk_request *free;
    char serial[SERIAL_SIZE];
    uint8_t writeback;
};

/* ---- The end of a request ---- */

static void finish(struct blk_request *r, enum status status)
{
    struct virtio_blk *blk = r->blk;
    struct virtio_device *dev = &blk->virtio;
    if (r->generation == dev->generation) {
        *r->status = (uint8_t)status;
        physmem_written(dev->env->mem, r->status, 1);
        virtio_push(dev, r->queue, r->chain.head, r->written + 1);
    }
    r->next_free = blk->free;
    blk->free = r;
}

/* A read's data are in the driver's buffers. */
static void was_read(struct blk_request *r)
{
    const struct disk_request *d = &r->disk;
    dma_written(r->blk->virtio.env->mem, d->iov, d->iov_count, d->length);
    r->written = (uint32_t)d->length;
}

static void disk_done(struct disk_request *request, int error)
{
    struct blk_request *r = request->opaque;
    struct virtio_blk *blk = r->blk;
    struct virtio_device *dev = &blk->virtio;
    if (!error && request->op == DISK_READ)
        was_read(r);
    pthread_mutex_lock(dev->env->lock);
    unsigned queue = r->queue;
    bool current = r->generation == dev->generation;
    finish(r, error ? S_IOERR : S_OK);
    if (current)
        virtio_interrupt(dev, queue);
    dma_finish(&blk->dma);
    pthread_mutex_unlock(dev->env->lock);
}

/* ---- Its beginning ---- */

/* The device lock is let go meanwhile. */
static void submit(struct blk_request *r, enum disk_op op, uint64_t sector, uint64_t length)
{
    struct virtio_blk *blk = r->blk;
    r->disk.op = op;
    r->disk.offset = sector * DISK_SECTOR;
    r->disk.length = length;
    r->disk.done = disk_done;
    r->disk.opaque = r;
    r->disk.fua = op != DISK_FLUSH && op != DISK_READ && !blk->writeback;
    pthread_mutex_t *lock = blk->virtio.env->lock;
    dma_begin(&blk->dma);
    pthread_mutex_unlock(lock);
    bool done = disk_try(blk->disk, &r->disk);
    if (!done)
        disk_submit(blk->disk, &r->disk);
    else if (op == DISK_READ)
        was_read(r);
    pthread_mutex_lock(lock);
    if (done) {
        finish(r, S_OK);
        dma_finish(&blk->dma);
    }
}

/* Is the range on the disk? */
static bool in_range(const struct virtio_blk *blk, uint64_t sector, uint64_t length)
{
    uint64_t sectors = disk_size(blk->disk) / DISK_SECTOR;
    return length % DISK_SECTOR == 0 && sector <= sectors &&
           length / DISK_SECTOR <= sectors - sector;
}

/* Take `bytes` off the front of the list. */
static void skip(struct iovec **iov, unsigned *count, uint64_t bytes)
{
    while (bytes && *count) {
        uint64_t n = MIN(bytes, (*iov)->iov_len);
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
        bytes -= n;
        if (!(*iov)->iov_len) {
            ++*iov;
            --*count;
        }
    }
}

static uint64_t total(const struct iovec *iov, unsigned count)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

static void transfer(struct blk_request *r, bool write, uint64_t sector, struct iovec *iov,
                     unsigned count)
{
    uint64_t length = total(iov, count);
    r->disk.iov = iov;
    r->disk.iov_count = count;
    if (!in_range(r->blk, sector, length) || length > UINT32_MAX - 1 ||
        (write && disk_read_only(r->blk->disk)))
        finish(r, S_IOERR);
    else if (!length)
        finish(r, S_OK);
    else
        submit(r, write ? DISK_WRITE : DISK_READ, sector, length);
}

static void discard(struct blk_request *r, bool zeroes, const struct iovec *iov, unsigned count)
{
    struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range;
    static_assert(sizeof range == RANGE_SIZE, "as the driver has it");
    if (total(iov, count) != RANGE_SIZE ||
        dma_get(iov, count, 0, &range, RANGE_SIZE) != RANGE_SIZE ||
        (range.flags & ~(uint32_t)(zeroes ? RANGE_UNMAP : 0)))
        finish(r, S_UNSUPPORTED);
    else if (disk_read_only(r->blk->disk) || range.sectors > RANGE_SECTORS ||
             !in_range(r->blk, range.sector, range.sectors * DISK_SECTOR))
        finish(r, S_IOERR);
    else if (!range.sectors)
        finish(r, S_OK);
    else
        submit(r, zeroes ? DISK_WRITE_ZEROES : DISK_DISCARD, range.sector,
               range.sectors * DISK_SECTOR);
}

static void get_id(struct blk_request *r, const struct iovec *iov, unsigned count)
{
    struct virtio_blk *blk = r->blk;
    r->written = (uint32_t)dma_put(blk->virtio.env->mem, iov, count, 0, blk->serial, SERIAL_SIZE);
    finish(r, S_OK);
}

/* The chain is a header, data one way or the other, and a byte for the status. */
static void start(struct blk_request *r)
{
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header;
    static_assert(sizeof header == HEADER_SIZE, "as the driver has it");
    struct virtio_device *dev = &r->blk->virtio;
    struct iovec *out = r->chain.iov, *in = r->chain.iov + r->chain.out_count;
    unsigned out_count = r->chain.out_count, in_count = r->chain.in_count;

    if (!in_count || dma_get(out, out_count, 0, &header, HEADER_SIZE) != HEADER_SIZE) {
        r->next_free = r->blk->free;
        r->blk->free = r;
        virtio_broken(dev, "a request without a header or room for its status");
        return;
    }
    skip(&out, &out_count, HEADER_SIZE);
    struct iovec *last = &in[in_count - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    if (--last->iov_len == 0)
        in_count--;

    switch (header.type) {
    case T_IN:
        transfer(r, false, header.sector, in, in_count);
        break;
    case T_OUT:
        transfer(r, true, header.sector, out, out_count);
        break;
    case T_FLUSH:
        submit(r, DISK_FLUSH, 0, 0);
        break;
    case T_GET_ID:
        get_id(r, in, in_count);
        break;
    case T_DISCARD:
    case T_WRITE_ZEROES:
        discard(r, header.type == T_WRITE_ZEROES, out, out_count);
        break;
    default:
        finish(r, S_UNSUPPORTED);
        break;
    }
}

static struct blk_request *get_request(struct virtio_blk *blk, unsigned queue)
{
    struct blk_request *r = blk->free;
    if (r)
        blk->free = r->next_free;
    else
        r = malloc(sizeof *r);
    if (!r)
        return NULL;
    r->blk = blk;
    r->generation = blk->virtio.generation;
    r->queue = queue;
    r->written = 0;
    r->disk = (struct disk_request){0};
    return r;
}

static void blk_notify(struct virtio_device *dev, unsigned queue)
{
    struct virtio_blk *blk = container_of(dev, struct virtio_blk, virtio);
    uint32_t generation = dev->generation;
    while (!blk->dma.waiting && dev->generation == generation) {
        struct blk_request *r = get_request(blk, queue);
        if (!r)
            break; /* the next notification tries again */
        if (!virtio_pop(dev, queue, &r->chain)) {
            r->next_free = blk->free;
            blk->free = r;
            break;
        }
        start(r);
    }
    virtio_interrupt(dev, queue);
}

/* ---- Configuration ---- */

/* A driver that knows nothing of flushing gets every write on the disk. */
static void set_cache(struct virtio_blk *blk, bool writeback)
{
    blk->writeback = writeback;
    blk->virtio.config[CONFIG_WRITEBACK] = writeback;
}

static void blk_config_write(struct virtio_device *dev, unsigned offset, uint8_t value)
{
    if (offset == CONFIG_WRITEBACK && virtio_has(dev, F_CONFIG_WCE))
        set_cache(container_of(dev, struct virtio_blk, virtio), value & 1);
}

static void blk_first_notify(struct virtio_device *dev, unsigned queue)
{
    struct virtio_blk *blk = container_of(dev, struct virtio_blk, virtio);
    if (!virtio_has(dev, F_FLUSH) && !virtio_has(dev, F_CONFIG_WCE))
        blk->writeback = false;
    blk_notify(dev, queue);
}

static void blk_reset(struct virtio_device *dev)
{
    struct virtio_blk *blk = container_of(dev, struct virtio_blk, virtio);
    dma_wait(&blk->dma);
    set_cache(blk, true);
}

static void put(struct virtio_device *dev, unsigned offset, uint64_t value, unsigned size)
{
    memcpy(dev->config + offset, &value, size);
}

static void fill_config(struct virtio_blk *blk)
{
    struct virtio_device *dev = &blk->virtio;
    uint64_t sectors = disk_size(blk->disk) / DISK_SECTOR;
    put(dev, CONFIG_CAPACITY, sectors, 8);
    put(dev, CONFIG_SEG_MAX, VIRTIO_QUEUE_SIZE - 2, 4);
    put(dev, CONFIG_GEOMETRY, MIN(sectors / (HEADS * TRACK), UINT64_C(65535)), 2);
    dev->config[CONFIG_GEOMETRY + 2] = HEADS;
    dev->config[CONFIG_GEOMETRY + 3] = TRACK;
    put(dev, CONFIG_BLK_SIZE, DISK_SECTOR, 4);
    dev->config[CONFIG_TOPOLOGY] = 3; /* 4 KiB in sectors, as a power of two */
    put(dev, CONFIG_TOPOLOGY + 2, PHYSICAL_BLOCK / DISK_SECTOR, 2);
    put(dev, CONFIG_QUEUES, dev->queues, 2);
    put(dev, CONFIG_DISCARD_SECTORS, RANGE_SECTORS, 4);
    put(dev, CONFIG_DISCARD_SEGMENTS, 1, 4);
    put(dev, CONFIG_DISCARD_ALIGNMENT, PHYSICAL_BLOCK / DISK_SECTOR, 4);
    put(dev, CONFIG_ZEROES_SECTORS, RANGE_SECTORS, 4);
    put(dev, CONFIG_ZEROES_SEGMENTS, 1, 4);
    dev->config[CONFIG_ZEROES_MAY_UNMAP] = 1;
}

/* ---- State ---- */

static const struct virtio_ops blk_ops = {
    .identity = {.name = "virtio-blk",
                 .vendor = 0x1af4,
                 .device = 0x1001,
                 .class_code = 0x010000,
                 .subsystem_vendor = 0x1af4,
                 .subsystem = 2,
                 .interrupt_pin = 1},
    .features = BIT(F_SEG_MAX) | BIT(F_GEOMETRY) | BIT(F_BLK_SIZE) | BIT(F_FLUSH) |
                BIT(F_TOPOLOGY) | BIT(F_CONFIG_WCE) | BIT(F_DISCARD) | BIT(F_WRITE_ZEROES),
    .queues = 1,
    .config_size = CONFIG_SIZE,
    .notify = blk_first_notify,
    .config_write = blk_config_write,
    .reset = blk_reset,
};

static const struct state_field fields[] = {
    VIRTIO_DEVICE_STATE(struct virtio_blk, virtio),
    STATE(struct virtio_blk, writeback, 1),
};

static void after_reset(void *opaque)
{
    struct virtio_blk *blk = opaque;
    virtio_reset(&blk->virtio);
}

/* A snapshot is taken when nothing is under way. */
static void before_save(void *opaque)
{
    struct virtio_blk *blk = opaque;
    dma_wait(&blk->dma);
}

static void after_load(void *opaque)
{
    struct virtio_blk *blk = opaque;
    blk->virtio.config[CONFIG_WRITEBACK] = blk->writeback;
    virtio_loaded(&blk->virtio);
}

static const struct state_table table = {
    .name = "virtio-blk",
    .version = 1,
    .size = sizeof(struct virtio_blk),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .before_save = before_save,
    .after_load = after_load,
};

static void destroy(void *opaque)
{
    struct virtio_blk *blk = opaque;
    struct device_env *env = blk->virtio.env;
    pthread_mutex_lock(env->lock);
    blk->virtio.generation++;
    bool idle = dma_wait(&blk->dma);
    pthread_mutex_unlock(env->lock);
    if (!idle)
        return; /* a write that waits for space still refers to us */
    for (struct blk_request *r; (r = blk->free);) {
        blk->free = r->next_free;
        free(r);
    }
    dma_count_end(&blk->dma);
    free(blk);
}

struct virtio_blk *virtio_blk_create(struct device_env *env, struct pci_bus *bus, unsigned devfn,
                                     struct disk *disk, const char *serial, unsigned queues)
{
    struct virtio_blk *blk = calloc(1, sizeof *blk);
    if (!blk)
        return NULL;
    blk->disk = disk;
    memcpy(blk->serial, serial, strnlen(serial, SERIAL_SIZE));
    dma_count_init(&blk->dma, env);
    blk->virtio.queues = MIN(queues, VIRTIO_QUEUES_MAX);
    virtio_init(&blk->virtio, env, bus, devfn, &blk_ops);
    if (queues > 1)
        blk->virtio.features |= BIT(F_MQ);
    if (disk_read_only(disk))
        blk->virtio.features |= BIT(F_RO);
    fill_config(blk);
    device_register(env, &table, blk, destroy);
    return blk;
}
