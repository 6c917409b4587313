/* Raw images: a file or a block device, byte for byte. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/image.h"
#include "util/error.h"
#include "util/util.h"

struct raw {
    struct image image;
    struct host_file file;
    bool probed; /* nobody said that it is raw */
};

static int raw_read(struct image *image, uint64_t offset, struct iov_cursor *cursor,
                    uint64_t length)
{
    return file_readv(&container_of(image, struct raw, image)->file, cursor, length, offset);
}

/*
 * A guest could write the header of another format, whose parent is a file of the host's, and read
 * that when the image is opened again. So such a header is not taken where the format was a guess.
 */
static bool pretends(const struct raw *raw, uint64_t offset, struct iov_cursor cursor)
{
    char head[DISK_SECTOR];
    if (!raw->probed || offset != 0)
        return false;
    iov_get(&cursor, head, sizeof head);
    return strcmp(image_probe(head, sizeof head), "raw") != 0;
}

static int raw_write(struct image *image, uint64_t offset, struct iov_cursor *cursor,
                     uint64_t length)
{
    struct raw *raw = container_of(image, struct raw, image);
    if (pretends(raw, offset, *cursor))
        return EPERM;
    return file_writev(&raw->file, cursor, length, offset);
}

static int raw_zero(struct image *image, uint64_t offset, uint64_t length, bool discard)
{
    struct raw *raw = container_of(image, struct raw, image);
    return discard ? file_discard(&raw->file, offset, length)
                   : file_zero(&raw->file, offset, length);
}

static int raw_flush(struct image *image)
{
    return file_sync(&container_of(image, struct raw, image)->file);
}

static bool raw_direct(struct image *image, bool write, uint64_t offset, uint64_t length, int *fd,
                       uint64_t *file_offset)
{
    struct raw *raw = container_of(image, struct raw, image);
    if (write && offset == 0 && raw->probed)
        return false;
    *fd = raw->file.fd;
    *file_offset = offset;
    return true;
}

static int raw_map(struct image *image, uint64_t offset, uint64_t length, struct image_range *range)
{
    struct raw *raw = container_of(image, struct raw, image);
    uint64_t data = file_next_data(&raw->file, offset, offset + length);
    *range = (struct image_range){.file = raw->file.path, .file_offset = offset};
    if (data > offset) {
        range->length = ALIGN_DOWN(data, DISK_SECTOR) - offset;
        if (range->length)
            return 0;
    }
    uint64_t hole = file_next_hole(&raw->file, MAX(data, offset), offset + length);
    range->data = true;
    range->length = MIN(ALIGN_UP(MAX(hole, offset + 1), DISK_SECTOR) - offset, length);
    return 0;
}

static void raw_close(struct image *image)
{
    struct raw *raw = container_of(image, struct raw, image);
    file_close(&raw->file);
    free(raw);
}

static const struct image_ops raw_ops = {.format = "raw",
                                         .read = raw_read,
                                         .write = raw_write,
                                         .zero = raw_zero,
                                         .flush = raw_flush,
                                         .direct = raw_direct,
                                         .map = raw_map,
                                         .close = raw_close};

struct image *raw_open(const char *path, const struct disk_options *options, bool probed,
                       struct tv_error *err)
{
    struct raw *raw = calloc(1, sizeof *raw);
    if (!raw) {
        tv_fail(err, "%s: out of memory", path);
        return NULL;
    }
    raw->image.ops = &raw_ops;
    raw->image.read_only = options->read_only;
    raw->probed = probed;
    if (file_open(&raw->file, path, options->read_only ? FILE_READ_ONLY : 0, options->trace, err) !=
        0) {
        free(raw);
        return NULL;
    }
    int error = file_size(&raw->file, &raw->image.size);
    if (error || raw->image.size > INT64_MAX - DISK_SECTOR) {
        tv_fail_errno(err, error ? error : EFBIG, "%s: cannot find out its size", path);
        raw_close(&raw->image);
        return NULL;
    }
    raw->file.zeroes_beyond = raw->image.size < options->at_least;
    raw->image.size = ALIGN_UP(MAX(raw->image.size, options->at_least), DISK_SECTOR);
    return &raw->image;
}
