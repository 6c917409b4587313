#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/dma.h"
#include "dev/scsi_internal.h"
#include "util/util.h"

#define PHYSICAL_EXPONENT 3          /* 8 logical blocks in a physical one */
#define UNMAP_BLOCKS      (1u << 22) /* 2 GiB in a descriptor */
#define UNMAP_RANGES      256
#define UNMAP_HEADER      8
#define UNMAP_RANGE       16
#define SAME_BLOCKS       (1u << 16)
#define SAME_BUFFER       (64u << 10)

/* ---- Ends of a command ---- */

void scsi_good(struct scsi_request *r)
{
    free(r->buffer);
    r->buffer = NULL;
    r->status = SCSI_GOOD;
    r->sense_length = 0;
    r->done(r);
}

static void fixed_sense(uint8_t *sense, uint32_t what)
{
    memset(sense, 0, SCSI_SENSE_MAX);
    sense[0] = 0x70;
    sense[2] = (uint8_t)(what >> 16);
    sense[7] = SCSI_SENSE_MAX - 8;
    sense[12] = (uint8_t)(what >> 8);
    sense[13] = (uint8_t)what;
}

void scsi_fail(struct scsi_request *r, uint32_t what)
{
    free(r->buffer);
    r->buffer = NULL;
    r->status = SCSI_CHECK_CONDITION;
    r->transferred = 0;
    fixed_sense(r->sense, what);
    r->sense_length = SCSI_SENSE_MAX;
    r->done(r);
}

static void overrun(struct scsi_request *r)
{
    r->overrun = true;
    r->status = SCSI_GOOD;
    r->transferred = 0;
    r->done(r);
}

/* Data for the initiator, cut to what it has room for. */
void scsi_reply(struct scsi_request *r, const uint8_t *data, uint64_t length, uint64_t room)
{
    if (r->can_read)
        r->transferred = dma_put(r->target->env->mem, r->iov, r->iov_count, 0, data,
                                 MIN(MIN(length, room), r->length));
    scsi_good(r);
}

static uint32_t sense_of(const struct disk_request *disk, int error)
{
    switch (error) {
    case ENOSPC:
        return NO_SPACE;
    case EROFS:
        return WRITE_PROTECTED;
    case EINVAL:
        return OUT_OF_RANGE;
    case ENOMEM:
        return INTERNAL_FAILURE;
    default:
        return disk->op == DISK_READ ? MEDIUM_READ_ERROR : MEDIUM_WRITE_ERROR;
    }
}

/* Device lock held. */
static void disk_ended(struct scsi_request *r, int error)
{
    const struct disk_request *disk = &r->disk;
    if (error)
        return scsi_fail(r, sense_of(disk, error));
    if (disk->op == DISK_READ || (disk->op == DISK_WRITE && !r->buffer))
        r->transferred = disk->length;
    scsi_good(r);
}

static void disk_done(struct disk_request *disk, int error)
{
    struct scsi_request *r = disk->opaque;
    struct device_env *env = r->target->env;
    if (!error && disk->op == DISK_READ)
        dma_written(env->mem, disk->iov, disk->iov_count, disk->length);
    pthread_mutex_lock(env->lock);
    disk_ended(r, error);
    pthread_mutex_unlock(env->lock);
}

void scsi_start(struct scsi_request *r, enum disk_op op, uint64_t block, uint64_t blocks)
{
    struct disk_request *d = &r->disk;
    d->op = op;
    d->offset = block * BLOCK;
    d->length = blocks * BLOCK;
    d->iov = r->iov;
    d->iov_count = r->iov_count;
    if (!d->done)
        d->done = disk_done;
    d->opaque = r;
    if (op != DISK_READ && op != DISK_FLUSH && !r->target->write_cache)
        d->fua = true;
    pthread_mutex_t *lock = r->target->env->lock;
    pthread_mutex_unlock(lock);
    bool done = d->done == disk_done && disk_try(r->target->disk, d);
    if (!done)
        disk_submit(r->target->disk, d);
    else if (op == DISK_READ)
        dma_written(r->target->env->mem, d->iov, d->iov_count, d->length);
    pthread_mutex_lock(lock);
    if (done)
        disk_ended(r, 0);
}

static bool in_range(const struct scsi_disk *t, uint64_t block, uint64_t blocks)
{
    return block <= t->blocks && blocks <= t->blocks - block;
}

/* ---- Reading and writing ---- */

struct extent {
    uint64_t block;
    uint32_t count;
};

/* Where a command of any length has its address and count: the opcode's group says it. */
static struct extent extent_of(const uint8_t *cdb)
{
    switch (cdb[0] >> 5) {
    case 0:
        return (struct extent){get24(cdb + 1) & 0x1fffff, cdb[4] ? cdb[4] : 256};
    case 4:
        return (struct extent){get64(cdb + 2), get32(cdb + 10)};
    case 5:
        return (struct extent){get32(cdb + 2), get32(cdb + 6)};
    default:
        return (struct extent){get32(cdb + 2), get16(cdb + 7)};
    }
}

/* Cut the list to `length` bytes, which it has. */
static void cut(struct scsi_request *r, uint64_t length)
{
    for (unsigned i = 0; i < r->iov_count; i++) {
        if (r->iov[i].iov_len >= length) {
            r->iov[i].iov_len = length;
            r->iov_count = length ? i + 1 : i;
            return;
        }
        length -= r->iov[i].iov_len;
    }
}

#define CDB_FUA     0x08
#define CDB_PROTECT 0xe0

static void transfer(struct scsi_request *r, bool write)
{
    struct scsi_disk *t = r->target;
    struct extent e = extent_of(r->cdb);
    bool six = r->cdb[0] >> 5 == 0;
    uint64_t length = e.count * BLOCK;
    if (!six && (r->cdb[1] & CDB_PROTECT))
        return scsi_fail(r, INVALID_FIELD);
    if (!in_range(t, e.block, e.count))
        return scsi_fail(r, OUT_OF_RANGE);
    if (write && disk_read_only(t->disk))
        return scsi_fail(r, WRITE_PROTECTED);
    if (!e.count)
        return scsi_good(r);
    if (length > r->length || !(write ? r->can_write : r->can_read))
        return overrun(r);
    cut(r, length);
    r->disk.fua = write && !six && (r->cdb[1] & CDB_FUA);
    scsi_start(r, write ? DISK_WRITE : DISK_READ, e.block, e.count);
}

static void read_blocks(struct scsi_request *r)
{
    transfer(r, false);
}

static void write_blocks(struct scsi_request *r)
{
    transfer(r, true);
}

static void synchronize_cache(struct scsi_request *r)
{
    scsi_start(r, DISK_FLUSH, 0, 0);
}

/* VERIFY without data to compare with, PRE-FETCH: the range has to exist. */
static void check_range(struct scsi_request *r)
{
    struct extent e = extent_of(r->cdb);
    if ((r->cdb[0] & 0x1f) == 0x0f && (r->cdb[1] & 0x06)) /* VERIFY with BYTCHK */
        return scsi_fail(r, INVALID_FIELD);
    if (!in_range(r->target, e.block, e.count))
        return scsi_fail(r, OUT_OF_RANGE);
    scsi_good(r);
}

#define SAME_NDOB  0x01
#define SAME_UNMAP 0x08

static bool all_zero(const uint8_t *p, size_t length)
{
    return p[0] == 0 && memcmp(p, p + 1, length - 1) == 0;
}

static void write_same(struct scsi_request *r)
{
    struct scsi_disk *t = r->target;
    struct extent e = extent_of(r->cdb);
    bool no_data = r->cdb[0] >> 5 == 4 && (r->cdb[1] & SAME_NDOB);
    uint8_t block[BLOCK] = {0};
    if ((r->cdb[1] & CDB_PROTECT) || !e.count || e.count > SAME_BLOCKS)
        return scsi_fail(r, INVALID_FIELD);
    if (!in_range(t, e.block, e.count))
        return scsi_fail(r, OUT_OF_RANGE);
    if (disk_read_only(t->disk))
        return scsi_fail(r, WRITE_PROTECTED);
    if (!no_data) {
        if (!r->can_write || dma_get(r->iov, r->iov_count, 0, block, BLOCK) != BLOCK)
            return overrun(r);
        r->transferred = BLOCK;
    }
    /* UNMAP lets us choose how the blocks come to read as the block that was given: zeroes. */
    if (all_zero(block, BLOCK))
        return scsi_start(r, DISK_WRITE_ZEROES, e.block, e.count);

    uint64_t length = e.count * BLOCK;
    unsigned pieces = (unsigned)((length + SAME_BUFFER - 1) / SAME_BUFFER);
    size_t list = pieces * sizeof(struct iovec);
    r->buffer = aligned_alloc(BLOCK, SAME_BUFFER + ALIGN_UP(list, BLOCK));
    if (!r->buffer)
        return scsi_fail(r, INTERNAL_FAILURE);
    for (unsigned at = 0; at < SAME_BUFFER; at += BLOCK)
        memcpy(r->buffer + at, block, BLOCK);
    r->iov = (struct iovec *)(r->buffer + SAME_BUFFER);
    r->iov_count = pieces;
    for (unsigned i = 0; i < pieces; i++, length -= r->iov[i - 1].iov_len)
        r->iov[i] = (struct iovec){r->buffer, MIN(length, SAME_BUFFER)};
    scsi_start(r, DISK_WRITE, e.block, e.count);
}

/* ---- UNMAP: range after range ---- */

static void unmap_next(struct scsi_request *r)
{
    while (r->next < r->ranges) {
        const uint8_t *p = r->buffer + UNMAP_HEADER + r->next++ * UNMAP_RANGE;
        if (get32(p + 8))
            return scsi_start(r, DISK_DISCARD, get64(p), get32(p + 8));
    }
    scsi_good(r);
}

static void unmap_done(struct disk_request *disk, int error)
{
    struct scsi_request *r = disk->opaque;
    struct device_env *env = r->target->env;
    pthread_mutex_lock(env->lock);
    if (error)
        scsi_fail(r, sense_of(disk, error));
    else
        unmap_next(r);
    pthread_mutex_unlock(env->lock);
}

static void unmap(struct scsi_request *r)
{
    struct scsi_disk *t = r->target;
    unsigned length = get16(r->cdb + 7);
    if ((r->cdb[1] & 1) || length > UNMAP_HEADER + UNMAP_RANGES * UNMAP_RANGE)
        return scsi_fail(r, INVALID_FIELD);
    if (disk_read_only(t->disk))
        return scsi_fail(r, WRITE_PROTECTED);
    if (!length)
        return scsi_good(r);
    if (length < UNMAP_HEADER)
        return scsi_fail(r, PARAMETER_LIST_LENGTH);
    r->buffer = malloc(length);
    if (!r->buffer)
        return scsi_fail(r, INTERNAL_FAILURE);
    if (!r->can_write || dma_get(r->iov, r->iov_count, 0, r->buffer, length) != length)
        return scsi_fail(r, PARAMETER_LIST_LENGTH);
    r->next = 0;
    r->ranges = MIN(get16(r->buffer + 2), length - UNMAP_HEADER) / UNMAP_RANGE;
    for (unsigned i = 0; i < r->ranges; i++) {
        const uint8_t *p = r->buffer + UNMAP_HEADER + i * UNMAP_RANGE;
        if (get32(p + 8) > UNMAP_BLOCKS)
            return scsi_fail(r, INVALID_PARAMETER);
        if (!in_range(t, get64(p), get32(p + 8)))
            return scsi_fail(r, OUT_OF_RANGE);
    }
    r->transferred = length;
    r->disk.done = unmap_done;
    unmap_next(r);
}

/* ---- What the target says of itself ---- */

static void pad(uint8_t *to, const char *text, size_t size)
{
    memset(to, ' ', size);
    memcpy(to, text, MIN(strlen(text), size));
}

#define VENDOR  "VMware"
#define PRODUCT "Virtual disk"

/* A name in the local space, of the serial number (FNV-1a). */
static uint64_t local_name(const char *serial)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (; *serial; serial++)
        hash = (hash ^ (uint8_t)*serial) * 0x100000001b3;
    return UINT64_C(3) << 60 | hash >> 4;
}

/* Vital product data; returns the length, or 0: no such page. */
static unsigned vital_data(const struct scsi_disk *t, unsigned page, uint8_t *d)
{
    static const uint8_t pages[] = {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
    unsigned length;
    d[1] = (uint8_t)page;
    switch (page) {
    case 0x00:
        memcpy(d + 4, pages, sizeof pages);
        length = sizeof pages;
        break;
    case 0x80:
        length = (unsigned)strlen(t->serial);
        memcpy(d + 4, t->serial, length);
        break;
    case 0x83: /* a T10 vendor identification in ASCII, an NAA name */
        d[4] = 2;
        d[5] = 1;
        d[7] = 8 + SERIAL_SIZE;
        pad(d + 8, VENDOR, 8);
        pad(d + 16, t->serial, SERIAL_SIZE);
        d[16 + SERIAL_SIZE] = 1;
        d[17 + SERIAL_SIZE] = 3;
        d[19 + SERIAL_SIZE] = 8;
        put64(d + 20 + SERIAL_SIZE, local_name(t->serial));
        length = 4 + 8 + SERIAL_SIZE + 4 + 8;
        break;
    case 0xb0:    /* block limits */
        d[4] = 1; /* WSNZ: no WRITE SAME of "all the rest" */
        put16(d + 6, 1u << PHYSICAL_EXPONENT);
        put32(d + 20, UNMAP_BLOCKS);
        put32(d + 24, UNMAP_RANGES);
        put32(d + 28, 1u << PHYSICAL_EXPONENT);
        put64(d + 36, SAME_BLOCKS);
        length = 60;
        break;
    case 0xb1: /* nothing rotates */
        put16(d + 4, 1);
        length = 60;
        break;
    case 0xb2: /* UNMAP, WRITE SAME (16) and (10) with UNMAP; thin */
        d[5] = 0xe0;
        d[6] = 2;
        length = 4;
        break;
    default:
        return 0;
    }
    put16(d + 2, length);
    return 4 + length;
}

static void inquiry(struct scsi_request *r)
{
    uint8_t d[REPLY_MAX] = {0};
    unsigned length = 96, room = get16(r->cdb + 3);
    if (r->lun) { /* nothing is there, and nothing can be */
        d[0] = 0x7f;
    } else if (r->cdb[1] & 1) {
        length = vital_data(r->target, r->cdb[2], d);
        if (!length)
            return scsi_fail(r, INVALID_FIELD);
        return scsi_reply(r, d, length, room);
    }
    if (r->cdb[1] || r->cdb[2])
        return scsi_fail(r, INVALID_FIELD);
    d[2] = 6; /* SPC-4 */
    d[3] = 2;
    d[4] = (uint8_t)(length - 5);
    d[7] = 2; /* command queuing */
    pad(d + 8, VENDOR, 8);
    pad(d + 16, PRODUCT, 16);
    pad(d + 32, "2.0", 4);
    put16(d + 58, 0x00a0); /* SAM-5 */
    put16(d + 60, 0x0460); /* SPC-4 */
    put16(d + 62, 0x04c0); /* SBC-3 */
    scsi_reply(r, d, length, room);
}

static void report_luns(struct scsi_request *r)
{
    uint8_t d[16] = {0};
    put32(d, 8);
    scsi_reply(r, d, sizeof d, get32(r->cdb + 6));
}

static void read_capacity_10(struct scsi_request *r)
{
    uint8_t d[8];
    put32(d, MIN(r->target->blocks - 1, (uint64_t)UINT32_MAX));
    put32(d + 4, BLOCK);
    scsi_reply(r, d, sizeof d, sizeof d);
}

static void service_action_in(struct scsi_request *r)
{
    if ((r->cdb[1] & 0x1f) != 0x10) /* READ CAPACITY (16) */
        return scsi_fail(r, INVALID_FIELD);
    uint8_t d[32] = {0};
    put64(d, r->target->blocks - 1);
    put32(d + 8, BLOCK);
    d[13] = PHYSICAL_EXPONENT;
    d[14] = 0x80; /* blocks can be unmapped */
    scsi_reply(r, d, sizeof d, get32(r->cdb + 10));
}

static void request_sense(struct scsi_request *r)
{
    struct scsi_disk *t = r->target;
    uint32_t what = r->lun ? (uint32_t)NO_SUCH_LUN : t->attention;
    uint8_t d[SCSI_SENSE_MAX] = {0};
    unsigned length = sizeof d;
    if (!r->lun)
        t->attention = NO_SENSE;
    if (r->cdb[1] & 1) {
        d[0] = 0x72;
        d[1] = (uint8_t)(what >> 16);
        d[2] = (uint8_t)(what >> 8);
        d[3] = (uint8_t)what;
        length = 8;
    } else {
        fixed_sense(d, what);
    }
    scsi_reply(r, d, length, r->cdb[4]);
}

static void nothing(struct scsi_request *r)
{
    scsi_good(r);
}

static void start_stop(struct scsi_request *r)
{
    if (r->cdb[4] & 0xf2) /* power conditions, eject: for others */
        return scsi_good(r);
    if (r->cdb[4] & 1) {
        r->target->stopped = false;
        return scsi_good(r);
    }
    r->target->stopped = true;
    scsi_start(r, DISK_FLUSH, 0, 0);
}

static void persistent_reserve_in(struct scsi_request *r)
{
    uint8_t d[8] = {0};
    unsigned action = r->cdb[1] & 0x1f;
    if (action == 2) { /* capabilities: none, and that is all of them */
        put16(d, 8);
        d[3] = 0x80;
    } else if (action > 2) {
        return scsi_fail(r, INVALID_FIELD);
    }
    scsi_reply(r, d, sizeof d, get16(r->cdb + 7)); /* no keys, no reservation */
}

/* ---- The commands ---- */

enum command_flag {
    ANY_TIME = 1,  /* works with an attention pending */
    ANY_LUN = 2,   /* and where there is no such LUN */
    UNSTARTED = 4, /* and on a stopped unit */
};

static void report_opcodes(struct scsi_request *r);

static const struct command {
    uint8_t opcode, length;
    uint8_t flags;
    void (*run)(struct scsi_request *r);
} commands[] = {
    {0x00, 6, 0, nothing}, /* TEST UNIT READY */
    {0x03, 6, ANY_TIME | ANY_LUN | UNSTARTED, request_sense},
    {0x08, 6, 0, read_blocks},
    {0x0a, 6, 0, write_blocks},
    {0x12, 6, ANY_TIME | ANY_LUN | UNSTARTED, inquiry},
    {0x15, 6, UNSTARTED, scsi_mode_select},
    {0x16, 6, UNSTARTED, nothing}, /* RESERVE: there is one initiator */
    {0x17, 6, UNSTARTED, nothing}, /* RELEASE */
    {0x1a, 6, UNSTARTED, scsi_mode_sense},
    {0x1b, 6, UNSTARTED, start_stop},
    {0x1d, 6, UNSTARTED, nothing}, /* SEND DIAGNOSTIC: the self-test passes */
    {0x1e, 6, UNSTARTED, nothing}, /* PREVENT ALLOW MEDIUM REMOVAL */
    {0x25, 10, 0, read_capacity_10},
    {0x28, 10, 0, read_blocks},
    {0x2a, 10, 0, write_blocks},
    {0x2e, 10, 0, write_blocks}, /* WRITE AND VERIFY */
    {0x2f, 10, 0, check_range},  /* VERIFY */
    {0x34, 10, 0, check_range},  /* PRE-FETCH */
    {0x35, 10, 0, synchronize_cache},
    {0x41, 10, 0, write_same},
    {0x42, 10, 0, unmap},
    {0x55, 10, UNSTARTED, scsi_mode_select},
    {0x56, 10, UNSTARTED, nothing}, /* RESERVE */
    {0x57, 10, UNSTARTED, nothing}, /* RELEASE */
    {0x5a, 10, UNSTARTED, scsi_mode_sense},
    {0x5e, 10, UNSTARTED, persistent_reserve_in},
    {0x88, 16, 0, read_blocks},
    {0x8a, 16, 0, write_blocks},
    {0x8e, 16, 0, write_blocks}, /* WRITE AND VERIFY */
    {0x8f, 16, 0, check_range},  /* VERIFY */
    {0x90, 16, 0, check_range},  /* PRE-FETCH */
    {0x91, 16, 0, synchronize_cache},
    {0x93, 16, 0, write_same},
    {0x9e, 16, 0, service_action_in},
    {0xa0, 12, ANY_TIME | ANY_LUN | UNSTARTED, report_luns},
    {0xa3, 12, UNSTARTED, report_opcodes},
    {0xa8, 12, 0, read_blocks},
    {0xaa, 12, 0, write_blocks},
    {0xae, 12, 0, write_blocks}, /* WRITE AND VERIFY */
    {0xaf, 12, 0, check_range},  /* VERIFY */
};

static const struct command *command_of(uint8_t opcode)
{
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
        if (commands[i].opcode == opcode)
            return &commands[i];
    return NULL;
}

/* REPORT SUPPORTED OPERATION CODES: all of them, or one. */
static void report_opcodes(struct scsi_request *r)
{
    uint8_t d[REPLY_MAX] = {0};
    uint32_t room = get32(r->cdb + 6);
    unsigned option = r->cdb[2] & 7;
    if ((r->cdb[1] & 0x1f) != 0x0c || (r->cdb[2] & 0x80) || option == 2 || option > 3)
        return scsi_fail(r, INVALID_FIELD);
    if (option == 0) {
        uint8_t *p = d + 4;
        for (unsigned i = 0; i < ARRAY_SIZE(commands); i++, p += 8) {
            p[0] = commands[i].opcode;
            p[7] = commands[i].length;
        }
        put32(d, (uint64_t)(p - d - 4));
        return scsi_reply(r, d, (uint64_t)(p - d), room);
    }
    const struct command *c = command_of(r->cdb[3]);
    d[1] = c ? 3 : 1;
    if (c) {
        put16(d + 2, c->length);
        memset(d + 4, 0xff, c->length);
        d[4] = c->opcode;
    }
    scsi_reply(r, d, 4u + (c ? c->length : 0), room);
}

void scsi_submit(struct scsi_disk *t, struct scsi_request *r)
{
    const struct command *c = command_of(r->cdb[0]);
    r->target = t;
    r->transferred = 0;
    r->overrun = false;
    r->sense_length = 0;
    r->buffer = NULL;
    r->disk = (struct disk_request){0};

    unsigned flags = c ? c->flags : 0;
    if (r->lun && !(flags & ANY_LUN))
        return scsi_fail(r, NO_SUCH_LUN);
    if (t->attention && !(flags & ANY_TIME)) {
        uint32_t what = t->attention;
        t->attention = NO_SENSE;
        return scsi_fail(r, what);
    }
    if (!c) {
        if (log_on(t->env->log, LOG_DEV))
            log_write(t->env->log, LOG_DEV, "scsi: unknown command %#x", r->cdb[0]);
        return scsi_fail(r, INVALID_COMMAND);
    }
    if (t->stopped && !(flags & UNSTARTED))
        return scsi_fail(r, NOT_READY_START_NEEDED);
    c->run(r);
}

static const struct state_field fields[] = {
    STATE(struct scsi_disk, write_cache, true),
    STATE(struct scsi_disk, stopped, false),
    STATE(struct scsi_disk, attention, AFTER_RESET),
};

static const struct state_table table = {
    .name = "scsi-disk",
    .version = 1,
    .size = sizeof(struct scsi_disk),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
};

void scsi_disk_reset(struct scsi_disk *t)
{
    state_reset(&table, t);
}

struct scsi_disk *scsi_disk_create(struct device_env *env, struct disk *disk, const char *serial)
{
    struct scsi_disk *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->env = env;
    t->disk = disk;
    t->blocks = disk_size(disk) / BLOCK;
    memcpy(t->serial, serial, MIN(strlen(serial), (size_t)SERIAL_SIZE));
    device_register(env, &table, t, free);
    return t;
}
