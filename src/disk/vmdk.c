/* An image: its descriptor, its extents, and the parents under it. */
#include "disk/vmdk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"
#include "util/util.h"

#define DESCRIPTOR_MAX (UINT64_C(1) << 20)
#define PARENTS_MAX    64

static const struct image_ops vmdk_ops;

struct vmdk *vmdk_of(struct image *image)
{
    return image->ops == &vmdk_ops ? container_of(image, struct vmdk, image) : NULL;
}

char *vmdk_path_beside(const char *base, const char *name)
{
    const char *slash = strrchr(base, '/');
    size_t directory = slash && *name != '/' ? (size_t)(slash - base) + 1 : 0;
    char *path = malloc(directory + strlen(name) + 1);
    if (path) {
        memcpy(path, base, directory);
        strcpy(path + directory, name);
    }
    return path;
}

static struct vmdk_extent *extent_at(struct vmdk *v, uint64_t offset)
{
    unsigned low = 0, high = v->extent_count;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (v->extents[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    return &v->extents[low];
}

int vmdk_read_parent(struct vmdk *v, uint64_t offset, struct iov_cursor *cursor, uint64_t length)
{
    struct image *parent = v->image.parent;
    uint64_t there = parent && offset < parent->size ? MIN(length, parent->size - offset) : 0;
    int error = there ? parent->ops->read(parent, offset, cursor, there) : 0;
    if (!error)
        iov_put(cursor, NULL, length - there);
    return error;
}

static int vmdk_read(struct image *image, uint64_t offset, struct iov_cursor *cursor,
                     uint64_t length)
{
    struct vmdk *v = container_of(image, struct vmdk, image);
    int error = 0;
    while (length && !error) {
        struct vmdk_extent *e = extent_at(v, offset);
        uint64_t within = offset - e->start, n = MIN(length, e->length - within);
        if (e->kind == VMDK_FLAT)
            error = file_readv(&e->file, cursor, n, e->file_offset + within);
        else if (e->kind == VMDK_SPARSE)
            error = sparse_read(v, e, within, cursor, n);
        else
            iov_put(cursor, NULL, n);
        offset += n;
        length -= n;
    }
    return error;
}

static struct host_file *descriptor_file(struct vmdk *v)
{
    return v->embedded ? &v->extents[0].file : &v->file;
}

int vmdk_descriptor_store(struct vmdk *v, char *text, struct tv_error *err)
{
    struct host_file *file = descriptor_file(v);
    size_t length = strlen(text), old = strlen(v->descriptor.text);
    struct vmdk_descriptor parsed;
    char *copy = strdup(text);
    if (!copy || (v->descriptor_room && length > v->descriptor_room)) {
        free(copy);
        free(text);
        return tv_fail(err, "%s: no room for the new descriptor", file->path);
    }
    if (vmdk_descriptor_parse(&parsed, copy, file->path, v->descriptor_offset, err) != 0) {
        free(text);
        return -1;
    }
    size_t size = v->descriptor_room ? MAX(length, old) : length;
    char *out = calloc(1, size + 1);
    int error = out ? 0 : ENOMEM;
    if (!error) {
        memcpy(out, text, length);
        error = file_write(file, out, size, v->descriptor_offset);
    }
    if (!error && !v->descriptor_room && length < old)
        error = file_truncate(file, length);
    if (!error)
        error = file_sync(file);
    free(out);
    free(text);
    if (error) {
        vmdk_descriptor_free(&parsed);
        return tv_fail_errno(err, error, "%s: cannot write the descriptor", file->path);
    }
    vmdk_descriptor_free(&v->descriptor);
    v->descriptor = parsed;
    return 0;
}

/* The contents change: images that have this one as their parent must not be used any more. */
static int first_change(struct vmdk *v)
{
    int error = 0;
    pthread_mutex_lock(&v->lock);
    if (!v->changed) {
        char digits[9];
        uint32_t cid = vmdk_new_cid();
        snprintf(digits, sizeof digits, "%08x", cid);
        if (v->descriptor.cid_digits == 8) {
            memcpy(v->descriptor.text + v->descriptor.cid_at, digits, 8);
            v->descriptor.cid = cid;
            error = file_write(descriptor_file(v), digits, 8,
                               v->descriptor_offset + v->descriptor.cid_at);
            if (!error && !v->embedded)
                error = file_sync(&v->file);
        } else {
            struct tv_error ignored;
            char *text = vmdk_descriptor_set(v->descriptor.text, "CID", digits);
            error = text && vmdk_descriptor_store(v, text, &ignored) == 0 ? 0 : EIO;
        }
        if (!error)
            v->changed = true;
    }
    pthread_mutex_unlock(&v->lock);
    return error;
}

/* `cursor` NULL: zeroes, or with `discard` whatever. */
static int change(struct vmdk *v, uint64_t offset, struct iov_cursor *cursor, uint64_t length,
                  bool discard)
{
    int error = LIKELY(v->changed) ? 0 : first_change(v);
    while (length && !error) {
        struct vmdk_extent *e = extent_at(v, offset);
        uint64_t within = offset - e->start, n = MIN(length, e->length - within);
        uint64_t at = e->file_offset + within;
        if (e->kind == VMDK_ZERO || !e->writable)
            error = discard || (e->kind == VMDK_ZERO && !cursor) ? 0 : EROFS;
        else if (e->kind == VMDK_SPARSE)
            error = cursor ? sparse_write(v, e, within, cursor, n)
                           : sparse_zero(v, e, within, n, discard);
        else
            error = cursor    ? file_writev(&e->file, cursor, n, at)
                    : discard ? file_discard(&e->file, at, n)
                              : file_zero(&e->file, at, n);
        offset += n;
        length -= n;
    }
    return error;
}

static int vmdk_write(struct image *image, uint64_t offset, struct iov_cursor *cursor,
                      uint64_t length)
{
    return change(container_of(image, struct vmdk, image), offset, cursor, length, false);
}

static int vmdk_zero(struct image *image, uint64_t offset, uint64_t length, bool discard)
{
    return change(container_of(image, struct vmdk, image), offset, NULL, length, discard);
}

static int vmdk_flush(struct image *image)
{
    struct vmdk *v = container_of(image, struct vmdk, image);
    int error = v->failed;
    if (error || !v->changed)
        return error;
    for (unsigned i = 0; i < v->extent_count && !error; i++) {
        struct vmdk_extent *e = &v->extents[i];
        if (e->writable && e->kind == VMDK_SPARSE)
            error = sparse_flush(e);
        else if (e->writable && e->kind == VMDK_FLAT)
            error = file_sync(&e->file);
    }
    if (error == EIO)
        v->failed = error;
    return error;
}

static bool vmdk_direct(struct image *image, bool write, uint64_t offset, uint64_t length, int *fd,
                        uint64_t *file_offset)
{
    struct vmdk *v = container_of(image, struct vmdk, image);
    if (write && !v->changed)
        return false;
    struct vmdk_extent *e = extent_at(v, offset);
    uint64_t within = offset - e->start;
    if (within + length > e->length || (write && !e->writable) || e->kind == VMDK_ZERO)
        return false;
    *fd = e->file.fd;
    if (e->kind == VMDK_FLAT) {
        *file_offset = e->file_offset + within;
        return true;
    }
    uint64_t grain = within / e->grain, last = (within + length - 1) / e->grain;
    uint32_t first_entry, entry;
    if (e->header.flags & VMDK_COMPRESSED || !sparse_peek(e, grain, &first_entry) ||
        first_entry <= VMDK_GTE_ZEROED)
        return false;
    for (uint64_t i = 1; grain + i <= last; i++) {
        if (!sparse_peek(e, grain + i, &entry) || entry != first_entry + i * e->header.grain_size)
            return false;
    }
    *file_offset = (uint64_t)first_entry * DISK_SECTOR + within % e->grain;
    return true;
}

static int vmdk_map(struct image *image, uint64_t offset, uint64_t length,
                    struct image_range *range)
{
    struct vmdk *v = container_of(image, struct vmdk, image);
    struct vmdk_extent *e = extent_at(v, offset);
    uint64_t within = offset - e->start, n = MIN(length, e->length - within);
    if (e->kind == VMDK_SPARSE)
        return sparse_map(v, e, within, n, range);
    *range = (struct image_range){.length = n};
    if (e->kind == VMDK_FLAT) {
        uint64_t at = e->file_offset + within;
        range->file = e->file.path;
        range->file_offset = at;
        uint64_t data = file_next_data(&e->file, at, at + n);
        range->data = ALIGN_DOWN(data, DISK_SECTOR) <= at;
        if (range->data)
            data = file_next_hole(&e->file, at, at + n);
        range->length = range->data ? ALIGN_UP(MAX(data, at + 1), DISK_SECTOR) - at
                                    : ALIGN_DOWN(data, DISK_SECTOR) - at;
        range->length = MIN(range->length, n);
    }
    return 0;
}

static bool vmdk_dirty(struct image *image)
{
    struct vmdk *v = container_of(image, struct vmdk, image);
    bool dirty = false;
    for (unsigned i = 0; i < v->extent_count && !dirty && !v->failed; i++) {
        struct vmdk_extent *e = &v->extents[i];
        if (e->kind != VMDK_SPARSE || !e->writable)
            continue;
        pthread_mutex_lock(&e->lock);
        dirty = e->dirty;
        pthread_mutex_unlock(&e->lock);
    }
    return dirty;
}

static void vmdk_close(struct image *image)
{
    struct vmdk *v = container_of(image, struct vmdk, image);
    for (unsigned i = 0; i < v->extent_count; i++) {
        struct vmdk_extent *e = &v->extents[i];
        if (e->kind == VMDK_SPARSE) {
            if (e->writable && (v->changed || e->unclean) && !v->failed)
                sparse_finish(e);
            sparse_close(e);
        }
        file_close(&e->file);
    }
    free(v->extents);
    file_close(&v->file);
    image_close(v->image.parent);
    vmdk_descriptor_free(&v->descriptor);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

static const struct image_ops vmdk_ops = {.format = "vmdk",
                                          .read = vmdk_read,
                                          .write = vmdk_write,
                                          .zero = vmdk_zero,
                                          .flush = vmdk_flush,
                                          .direct = vmdk_direct,
                                          .map = vmdk_map,
                                          .dirty = vmdk_dirty,
                                          .close = vmdk_close};

static int descriptor_read(struct vmdk *v, const struct host_file *file, uint64_t offset,
                           uint64_t room, struct tv_error *err)
{
    if (room > DESCRIPTOR_MAX)
        return tv_fail(err,
                       "%s: offset %" PRIu64 ": VMDK: a descriptor of more than %" PRIu64 " KiB",
                       file->path, offset, DESCRIPTOR_MAX >> 10);
    char *text = calloc(1, room + 1);
    int error = text ? file_read(file, text, room, offset) : ENOMEM;
    if (error) {
        free(text);
        return tv_fail_errno(err, error, "%s: offset %" PRIu64 ": VMDK: cannot read the descriptor",
                             file->path, offset);
    }
    v->descriptor_offset = offset;
    return vmdk_descriptor_parse(&v->descriptor, text, file->path, offset, err);
}

/* Only files beside the descriptor: an image from somewhere must not make others of the host's
 * files into disks. */
static int extent_file(struct vmdk *v, const struct vmdk_extent_line *line, struct vmdk_extent *e,
                       const struct disk_options *options, struct tv_error *err)
{
    if (!options->trust_paths && strchr(line->file, '/'))
        return tv_fail(err,
                       "%s: VMDK: extent %s is in another directory, which only a trusted image "
                       "may have (--disk FILE,trust-paths)",
                       v->file.path, line->file);
    char *path = vmdk_path_beside(v->file.path, line->file);
    if (!path)
        return tv_fail(err, "%s: out of memory", v->file.path);
    unsigned flags = (e->writable ? 0 : FILE_READ_ONLY) | (options->trust_paths ? 0 : FILE_REGULAR);
    int result = file_open(&e->file, path, flags, options->trace, err);
    free(path);
    return result;
}

static int extent_open(struct vmdk *v, const struct vmdk_extent_line *line, struct vmdk_extent *e,
                       const struct disk_options *options, struct tv_error *err)
{
    const char *path = descriptor_file(v)->path;
    e->writable = !options->read_only && !strcmp(line->access, "RW");
    if (!strcmp(line->type, "ZERO")) {
        e->kind = VMDK_ZERO;
        return 0;
    }
    bool flat = !strcmp(line->type, "FLAT") || !strcmp(line->type, "VMFS");
    if (!flat && strcmp(line->type, "SPARSE") != 0)
        return tv_fail(err, "%s: VMDK: extents of type %s are not supported", path, line->type);
    e->kind = VMDK_FLAT; /* until sparse_open() has made what sparse_close() frees */
    if (!v->embedded && extent_file(v, line, e, options, err) != 0)
        return -1;
    if (v->embedded && flat)
        return tv_fail(err, "%s: VMDK: the descriptor in a sparse extent names a flat one", path);
    if (!flat) {
        e->kind = VMDK_SPARSE;
        if (sparse_open(e, false, err) != 0)
            return -1;
        if (e->header.capacity < line->sectors)
            return tv_fail(err,
                           "%s: offset 12: VMDK: the extent is smaller (%" PRIu64
                           " sectors) than the descriptor says (%" PRIu64 ")",
                           e->file.path, e->header.capacity, line->sectors);
        return e->writable && e->unclean && !(e->header.flags & VMDK_COMPRESSED)
                   ? sparse_recover(e, err)
                   : 0;
    }
    uint64_t size;
    int error = file_size(&e->file, &size);
    if (error)
        return tv_fail_errno(err, error, "%s: cannot find out its size", e->file.path);
    e->file_offset = line->offset * DISK_SECTOR;
    if (size < e->file_offset || size - e->file_offset < line->sectors * DISK_SECTOR)
        return tv_fail(err,
                       "%s: offset %" PRIu64 ": VMDK: the file ends before the extent does; it "
                       "is truncated",
                       e->file.path, size);
    return 0;
}

static int extents_open(struct vmdk *v, const struct disk_options *options, struct tv_error *err)
{
    const struct vmdk_descriptor *d = &v->descriptor;
    const char *path = descriptor_file(v)->path;
    if (v->embedded && d->line_count != 1)
        return tv_fail(err, "%s: VMDK: the descriptor in a sparse extent has other extents", path);
    if (!v->embedded) {
        v->extents = calloc(d->line_count, sizeof *v->extents);
        if (!v->extents)
            return tv_fail(err, "%s: out of memory", path);
    }
    uint64_t start = 0;
    for (unsigned i = 0; i < d->line_count; i++) {
        struct vmdk_extent *e = &v->extents[i];
        e->start = start;
        e->length = d->lines[i].sectors * DISK_SECTOR;
        v->extent_count = i + 1;
        if (extent_open(v, &d->lines[i], e, options, err) != 0)
            return -1;
        if (e->kind == VMDK_SPARSE && e->header.flags & VMDK_COMPRESSED && e->writable)
            return tv_fail(err,
                           "%s: streamOptimized images are written once: open it read-only or as "
                           "a snapshot, or convert it",
                           path);
        start += e->length;
        if (start > INT64_MAX)
            return tv_fail(err, "%s: VMDK: the extents are too large", path);
    }
    v->image.size = start;
    return 0;
}

static int parent_open(struct vmdk *v, const struct disk_options *options, unsigned depth,
                       struct tv_error *err)
{
    const struct vmdk_descriptor *d = &v->descriptor;
    const char *path = descriptor_file(v)->path;
    if (d->parent_cid == VMDK_NO_CID || options->without_parent)
        return 0;
    if (depth == PARENTS_MAX)
        return tv_fail(err, "%s: VMDK: more than %d parents, one under the other: a loop?", path,
                       PARENTS_MAX);
    struct disk_options read_only = {
        .read_only = true, .format = "vmdk", .trust_paths = options->trust_paths};
    char *parent_path = vmdk_path_beside(path, d->parent_hint);
    if (!parent_path)
        return tv_fail(err, "%s: out of memory", path);
    struct image *parent = vmdk_open(parent_path, &read_only, depth + 1, err);
    if (parent) {
        parent->path = parent_path;
        v->image.parent = parent;
    } else {
        free(parent_path);
        return -1;
    }
    uint32_t cid = vmdk_of(parent)->descriptor.cid;
    if (cid != d->parent_cid && !options->ignore_parent_cid)
        return tv_fail(err,
                       "%s: the parent %s was changed after the snapshot was made (its CID is "
                       "%08x, not %08x); if its contents are right all the same, use trivisor "
                       "disk rebase",
                       path, parent->path, cid, d->parent_cid);
    return 0;
}

struct image *vmdk_open(const char *path, const struct disk_options *options, unsigned depth,
                        struct tv_error *err)
{
    struct vmdk *v = calloc(1, sizeof *v);
    if (!v) {
        tv_fail(err, "%s: out of memory", path);
        return NULL;
    }
    v->image.ops = &vmdk_ops;
    v->image.format = "vmdk";
    v->image.read_only = options->read_only;
    pthread_mutex_init(&v->lock, NULL);
    char magic[4] = {0};
    uint64_t size = 0;
    struct vmdk_header header;
    if (file_open(&v->file, path, options->read_only ? FILE_READ_ONLY : 0, options->trace, err) !=
        0)
        goto failed;
    int error = file_size(&v->file, &size);
    if (!error && size >= sizeof header)
        error = file_read(&v->file, magic, sizeof magic, 0);
    if (error) {
        tv_fail_errno(err, error, "%s: offset 0: cannot read", path);
        goto failed;
    }
    if (!memcmp(magic, "COWD", 4)) {
        tv_fail(err, "%s: VMDK: sparse extents of old ESX (COWD) are not supported", path);
        goto failed;
    }
    if (memcmp(magic, "KDMV", 4) != 0) {
        if (descriptor_read(v, &v->file, 0, size, err) != 0)
            goto failed;
    } else {
        v->embedded = true;
        if (sparse_header_read(&v->file, 0, &header, err) != 0)
            goto failed;
        uint64_t at = header.descriptor_offset, n = header.descriptor_size;
        if (!at || !n || at > size / DISK_SECTOR || n > size / DISK_SECTOR - at) {
            tv_fail(err,
                    at ? "%s: offset 28: VMDK: the descriptor lies outside the file"
                       : "%s: offset 28: VMDK: one extent of an image; name its descriptor file",
                    path);
            goto failed;
        }
        v->descriptor_room = n * DISK_SECTOR;
        if (descriptor_read(v, &v->file, at * DISK_SECTOR, v->descriptor_room, err) != 0)
            goto failed;
        v->extents = calloc(1, sizeof *v->extents);
        if (!v->extents) {
            tv_fail(err, "%s: out of memory", path);
            goto failed;
        }
        v->extents[0].file = v->file;
        v->extent_count = 1;
        v->file = (struct host_file){.fd = -1};
    }
    if (extents_open(v, options, err) == 0 && parent_open(v, options, depth, err) == 0)
        return &v->image;
failed:
    v->changed = false;
    vmdk_close(&v->image);
    return NULL;
}
