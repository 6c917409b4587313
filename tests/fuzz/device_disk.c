/*
 * Disks without threads: what is submitted waits until the machine's loop, or a device that waits
 * for its transfers, lets it end. So inputs do the same each time. The linker gives us the waits of
 * devices (--wrap).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

struct disk {
    uint64_t size;
    bool read_only;
    uint8_t *data;
};

struct pending {
    struct disk *disk;
    struct disk_request *request;
};

#define PENDING_MAX 65536

static struct pending pending[PENDING_MAX];
static unsigned pending_count, mode;

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);

struct disk *fuzz_disk(uint64_t size, bool read_only)
{
    struct disk *disk = calloc(1, sizeof *disk);
    if (!disk || !(disk->data = calloc(1, size)))
        exit(1);
    disk->size = size;
    disk->read_only = read_only;
    for (uint64_t at = 0; at < size; at += DISK_SECTOR)
        disk->data[at] = (uint8_t)(at / DISK_SECTOR);
    return disk;
}

void fuzz_disks_set_mode(unsigned wanted)
{
    mode = wanted;
}

static int carry_out(struct disk *disk, const struct disk_request *r)
{
    uint64_t sum = 0;
    if (r->op == DISK_FLUSH)
        return 0;
    if (r->offset % DISK_SECTOR || r->length % DISK_SECTOR)
        abort();
    if (r->op == DISK_READ || r->op == DISK_WRITE) {
        for (unsigned i = 0; i < r->iov_count; i++)
            sum += r->iov[i].iov_len;
        if (sum != r->length)
            abort();
    }
    if (r->offset > disk->size || r->length > disk->size - r->offset)
        return EINVAL;
    if (r->op != DISK_READ && disk->read_only)
        return EROFS;
    uint8_t *at = disk->data + r->offset;
    if (r->op == DISK_WRITE_ZEROES || r->op == DISK_DISCARD) {
        memset(at, 0, r->length);
        return 0;
    }
    for (unsigned i = 0; i < r->iov_count; at += r->iov[i].iov_len, i++) {
        if (r->op == DISK_READ)
            memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
        else
            memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
    }
    return 0;
}

static void finish_one(void)
{
    unsigned at = mode & DISK_BACKWARDS ? pending_count - 1 : 0;
    struct pending p = pending[at];
    pending_count--;
    memmove(pending + at, pending + at + 1, (pending_count - at) * sizeof pending[0]);
    int error = carry_out(p.disk, p.request);
    p.request->done(p.request, mode & DISK_FAILS ? EIO : error);
}

void fuzz_disks_finish(void)
{
    while (pending_count)
        finish_one();
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
    if (!pending_count)
        abort(); /* a device waits for what is not under way */
    pthread_mutex_unlock(mutex);
    finish_one();
    pthread_mutex_lock(mutex);
    return 0;
}

/* ---- disk/disk.h ---- */

struct disk *disk_open(const char *path, const struct disk_options *options, struct tv_error *err)
{
    return NULL;
}

void disk_close(struct disk *disk)
{
}

uint64_t disk_size(const struct disk *disk)
{
    return disk->size;
}

bool disk_read_only(const struct disk *disk)
{
    return disk->read_only;
}

bool disk_try(struct disk *disk, const struct disk_request *request)
{
    return mode & DISK_AT_ONCE && !(mode & DISK_FAILS) && carry_out(disk, request) == 0;
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    if (pending_count == PENDING_MAX)
        abort();
    pending[pending_count++] = (struct pending){disk, request};
}

void disk_drain(struct disk *disk)
{
}

void disk_retry(struct disk *disk)
{
}

bool disk_stalled(struct disk *disk)
{
    return false;
}

void disk_give_up(struct disk *disk)
{
}
