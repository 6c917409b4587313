/*
 * A temporary overlay: what the guest writes goes to a file without a name, at the same offset as
 * on the disk, and is gone with the VM. A bit for each cluster says whether the overlay has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/image.h"
#include "util/error.h"
#include "util/util.h"

#define CLUSTER UINT64_C(4096)
#define LOCKS   64

struct overlay {
    struct image image;
    struct host_file file;
    _Atomic uint64_t *have;
    pthread_mutex_t
        locks[LOCKS]; /* one of them is held while a cluster is merged with what is under it */
};

static bool has(const struct overlay *o, uint64_t cluster)
{
    return atomic_load_explicit(&o->have[cluster / 64], memory_order_acquire) >> cluster % 64 & 1;
}

/* How far from `offset` on the overlay has, or has not, the clusters. */
static uint64_t run_at(const struct overlay *o, uint64_t offset, uint64_t length, bool *have)
{
    uint64_t cluster = offset / CLUSTER, n = CLUSTER - offset % CLUSTER;
    *have = has(o, cluster);
    while (n < length && has(o, ++cluster) == *have)
        n += CLUSTER;
    return MIN(n, length);
}

static int overlay_read(struct image *image, uint64_t offset, struct iov_cursor *cursor,
                        uint64_t length)
{
    struct overlay *o = container_of(image, struct overlay, image);
    struct image *under = image->parent;
    int error = 0;
    while (length && !error) {
        bool have;
        uint64_t n = run_at(o, offset, length, &have);
        error = have ? file_readv(&o->file, cursor, n, offset)
                     : under->ops->read(under, offset, cursor, n);
        offset += n;
        length -= n;
    }
    return error;
}

/* Make whole a cluster of which only a part is about to be written. */
static int fill(struct overlay *o, uint64_t cluster)
{
    char data[CLUSTER];
    uint64_t offset = cluster * CLUSTER, n = MIN(CLUSTER, o->image.size - offset);
    struct iovec iov = {.iov_base = data, .iov_len = n};
    struct iov_cursor cursor = iov_start(&iov, 1);
    int error = 0;
    pthread_mutex_lock(&o->locks[cluster % LOCKS]);
    if (!has(o, cluster)) {
        error = o->image.parent->ops->read(o->image.parent, offset, &cursor, n);
        if (!error)
            error = file_write(&o->file, data, n, offset);
        if (!error)
            atomic_fetch_or(&o->have[cluster / 64], BIT64(cluster % 64));
    }
    pthread_mutex_unlock(&o->locks[cluster % LOCKS]);
    return error;
}

static bool partial(const struct overlay *o, uint64_t edge)
{
    return edge % CLUSTER && edge < o->image.size && !has(o, edge / CLUSTER);
}

/* `cursor` NULL: zeroes. */
static int change(struct overlay *o, uint64_t offset, struct iov_cursor *cursor, uint64_t length)
{
    uint64_t end = offset + length;
    if (!length)
        return 0;
    int error = partial(o, offset) ? fill(o, offset / CLUSTER) : 0;
    if (!error && partial(o, end))
        error = fill(o, end / CLUSTER);
    if (!error)
        error = cursor ? file_writev(&o->file, cursor, length, offset)
                       : file_zero(&o->file, offset, length);
    for (uint64_t c = offset / CLUSTER; !error && c <= (end - 1) / CLUSTER; c++) {
        if (!has(o, c))
            atomic_fetch_or(&o->have[c / 64], BIT64(c % 64));
    }
    return error;
}

static int overlay_write(struct image *image, uint64_t offset, struct iov_cursor *cursor,
                         uint64_t length)
{
    return change(container_of(image, struct overlay, image), offset, cursor, length);
}

static int overlay_zero(struct image *image, uint64_t offset, uint64_t length, bool discard)
{
    return discard ? 0 : change(container_of(image, struct overlay, image), offset, NULL, length);
}

/* Nothing of it is kept, so nothing has to reach the host's disk. */
static int overlay_flush(struct image *image)
{
    return 0;
}

static bool overlay_direct(struct image *image, bool write, uint64_t offset, uint64_t length,
                           int *fd, uint64_t *file_offset)
{
    struct overlay *o = container_of(image, struct overlay, image);
    bool have;
    if (run_at(o, offset, length, &have) < length)
        return false;
    if (!have)
        return !write && image->parent->ops->direct &&
               image->parent->ops->direct(image->parent, false, offset, length, fd, file_offset);
    *fd = o->file.fd;
    *file_offset = offset;
    return true;
}

static int overlay_map(struct image *image, uint64_t offset, uint64_t length,
                       struct image_range *range)
{
    struct overlay *o = container_of(image, struct overlay, image);
    bool have;
    uint64_t n = run_at(o, offset, length, &have);
    *range = (struct image_range){.length = n, .data = true};
    if (have)
        return 0;
    int error = image->parent->ops->map(image->parent, offset, n, range);
    range->depth++;
    return error;
}

static void overlay_close(struct image *image)
{
    struct overlay *o = container_of(image, struct overlay, image);
    image_close(image->parent);
    file_close(&o->file);
    free(o->have);
    for (unsigned i = 0; i < LOCKS; i++)
        pthread_mutex_destroy(&o->locks[i]);
    free(o);
}

static const struct image_ops overlay_ops = {.format = "overlay",
                                             .read = overlay_read,
                                             .write = overlay_write,
                                             .zero = overlay_zero,
                                             .flush = overlay_flush,
                                             .direct = overlay_direct,
                                             .map = overlay_map,
                                             .close = overlay_close};

static int nameless_file(struct host_file *file, uint64_t size, struct tv_error *err)
{
    const char *directory = getenv("TMPDIR");
    if (!directory || !*directory)
        directory = "/var/tmp"; /* /tmp may be RAM, and a disk may be large */
    file->fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file->fd < 0) {
        char name[4096];
        snprintf(name, sizeof name, "%s/trivisor-XXXXXX", directory);
        file->fd = mkostemp(name, O_CLOEXEC);
        if (file->fd >= 0)
            unlink(name);
    }
    if (file->fd < 0)
        return tv_fail_errno(err, errno,
                             "%s: no room for the snapshot's overlay (TMPDIR names another "
                             "directory)",
                             directory);
    file->path = strdup(directory);
    int error = file->path ? file_truncate(file, size) : ENOMEM;
    return error ? tv_fail_errno(err, error, "%s: the snapshot's overlay", directory) : 0;
}

struct image *overlay_open(struct image *under, struct tv_error *err)
{
    struct overlay *o = calloc(1, sizeof *o);
    if (!o) {
        tv_fail(err, "%s: out of memory", under->path);
        image_close(under);
        return NULL;
    }
    o->image.ops = &overlay_ops;
    o->image.parent = under;
    o->image.size = under->size;
    o->file.fd = -1;
    for (unsigned i = 0; i < LOCKS; i++)
        pthread_mutex_init(&o->locks[i], NULL);
    o->have = calloc(under->size / CLUSTER / 64 + 1, sizeof *o->have);
    if (!o->have)
        tv_fail(err, "%s: out of memory", under->path);
    if (!o->have || nameless_file(&o->file, under->size, err) != 0) {
        overlay_close(&o->image);
        return NULL;
    }
    return &o->image;
}
