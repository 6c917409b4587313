#include "disk/tools.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/error.h"
#include "util/util.h"

#define CHUNK (UINT64_C(2) << 20)
#define PIECE (UINT64_C(64) << 10) /* zeroes are looked for in pieces of this size */

static bool all_zero(const char *p, size_t size)
{
    return !size || (p[0] == 0 && !memcmp(p, p + 1, size - 1));
}

static int read_at(struct image *image, uint64_t offset, void *data, uint64_t length)
{
    struct iovec iov = {.iov_base = data, .iov_len = length};
    struct iov_cursor cursor = iov_start(&iov, 1);
    uint64_t there = offset < image->size ? MIN(length, image->size - offset) : 0;
    int error = there ? image->ops->read(image, offset, &cursor, there) : 0;
    if (!error)
        iov_put(&cursor, NULL, length - there);
    return error;
}

static int write_at(struct image *image, uint64_t offset, const void *data, uint64_t length)
{
    struct iovec iov = {.iov_base = (void *)data, .iov_len = length};
    struct iov_cursor cursor = iov_start(&iov, 1);
    return image->ops->write(image, offset, &cursor, length);
}

static int failed(struct tv_error *err, int error, const struct image *image, uint64_t offset,
                  const char *what)
{
    return tv_fail_errno(err, error, "%s: offset %" PRIu64 " of the disk: cannot %s", image->path,
                         offset, what);
}

/* Write the pieces of `data` that are not zeroes. */
static int write_sparse(struct image *to, uint64_t offset, const char *data, uint64_t length)
{
    int error = 0;
    for (uint64_t at = 0; at < length && !error;) {
        uint64_t begin = at, n;
        while (at < length && !all_zero(data + at, n = MIN(PIECE, length - at)))
            at += n;
        if (at > begin)
            error = write_at(to, offset + begin, data + begin, at - begin);
        else
            at += MIN(PIECE, length - at);
    }
    return error;
}

static int copy(struct image *from, struct image *to, disk_progress progress, void *opaque,
                struct tv_error *err)
{
    char *buffer = malloc(CHUNK);
    int result = buffer ? 0 : tv_fail(err, "%s: out of memory", from->path);
    for (uint64_t offset = 0; offset < from->size && result == 0;) {
        struct image_range range = {.data = true};
        int error = from->ops->map(from, offset, from->size - offset, &range);
        uint64_t n = range.data ? MIN(range.length, CHUNK) : range.length;
        if (!error && range.data) {
            /* Several short ranges in one transfer, ended where the next chunk begins. */
            n = MIN(CHUNK - offset % CHUNK, from->size - offset);
            error = read_at(from, offset, buffer, n);
        }
        if (error) {
            result = failed(err, error, from, offset, "read");
        } else if (range.data) {
            error = write_sparse(to, offset, buffer, n);
            if (error)
                result = failed(err, error, to, offset, "write");
        }
        offset += n;
        if (progress)
            progress(opaque, offset, from->size);
    }
    free(buffer);
    return result;
}

int disk_create_raw(const char *path, uint64_t size, bool overwrite, bool preallocate,
                    struct tv_error *err)
{
    struct host_file file;
    if (file_open(&file, path, FILE_CREATE | (overwrite ? FILE_OVERWRITE : 0), NULL, err) != 0)
        return -1;
    int error = file_truncate(&file, ALIGN_UP(size, DISK_SECTOR));
    if (!error && preallocate && fallocate(file.fd, 0, 0, (off_t)size) != 0)
        error = errno;
    file_close(&file);
    if (error)
        unlink(path);
    return error
               ? tv_fail_errno(err, error, "%s: cannot make it %" PRIu64 " bytes long", path, size)
               : 0;
}

/* An existing file of another format is not overwritten by accident: creation refuses. */
static int target_create(const char *to, const char *format, const struct vmdk_create *create,
                         struct tv_error *err)
{
    if (!strcmp(format, "vmdk"))
        return vmdk_create(to, create, err);
    if (!strcmp(format, "raw"))
        return image_is_uri(to)
                   ? 0
                   : disk_create_raw(to, create->size, create->overwrite, create->preallocate, err);
    return nbd_image_create(to, format, create->size, create->overwrite, err);
}

int disk_convert(const char *from, const char *from_format, const char *to, const char *format,
                 const struct vmdk_create *create, disk_progress progress, void *opaque,
                 struct tv_error *err)
{
    struct disk_options options = {.read_only = true, .format = from_format};
    struct image *source = image_open(from, &options, err), *target = NULL;
    if (!source)
        return -1;
    struct vmdk_create own = *create;
    own.size = source->size;
    int result;
    if (!strcmp(format, "vmdk") && own.type && !strcasecmp(own.type, "streamOptimized")) {
        result = vmdk_write_stream(to, &own, source, progress, opaque, err);
    } else {
        result = target_create(to, format, &own, err);
        if (result == 0) {
            options = (struct disk_options){.format = image_is_uri(to) ? NULL : format};
            target = image_open(to, &options, err);
            result = target ? copy(source, target, progress, opaque, err) : -1;
        }
        if (result == 0) {
            int error = target->ops->flush(target);
            if (error)
                result = failed(err, error, target, 0, "flush");
        }
    }
    image_close(target);
    image_close(source);
    return result;
}

int disk_compare(const char *a, const char *b, const char *format_a, const char *format_b,
                 uint64_t *differ, struct tv_error *err)
{
    struct disk_options options = {.read_only = true, .format = format_a};
    struct image *x = image_open(a, &options, err);
    options.format = format_b;
    struct image *y = x ? image_open(b, &options, err) : NULL;
    char *p = malloc(CHUNK), *q = malloc(CHUNK);
    int result = y ? 0 : -1;
    *differ = UINT64_MAX;
    if (result == 0 && (!p || !q))
        result = tv_fail(err, "%s: out of memory", a);
    uint64_t size = y ? MAX(x->size, y->size) : 0;
    for (uint64_t offset = 0, n; offset < size && result == 0 && *differ == UINT64_MAX;
         offset += n) {
        n = MIN(CHUNK, size - offset);
        int error = read_at(x, offset, p, n);
        if (error)
            result = failed(err, error, x, offset, "read");
        else if ((error = read_at(y, offset, q, n)))
            result = failed(err, error, y, offset, "read");
        for (uint64_t i = 0; result == 0 && memcmp(p, q, n) != 0 && i < n; i++) {
            if (p[i] != q[i]) {
                *differ = offset + i;
                break;
            }
        }
    }
    free(p);
    free(q);
    image_close(x);
    image_close(y);
    return result;
}

/* Set the parent that a descriptor names; `hint` NULL: only its CID. */
static int set_parent(struct image *image, uint32_t cid, const char *hint, bool none,
                      struct tv_error *err)
{
    struct vmdk *v = vmdk_of(image);
    char digits[9], quoted[PATH_MAX + 3];
    snprintf(digits, sizeof digits, "%08x", cid);
    char *text = vmdk_descriptor_set(v->descriptor.text, "parentCID", digits);
    if (text && (hint || none)) {
        snprintf(quoted, sizeof quoted, "\"%s\"", hint ? hint : "");
        char *with = vmdk_descriptor_set(text, "parentFileNameHint", none ? NULL : quoted);
        free(text);
        text = with;
    }
    return text ? vmdk_descriptor_store(v, text, err)
                : tv_fail(err, "%s: out of memory", image->path);
}

static struct image *open_vmdk(const char *path, bool read_only, bool alone, struct tv_error *err)
{
    struct disk_options options = {
        .read_only = read_only, .format = "vmdk", .without_parent = alone};
    struct image *image = image_open(path, &options, err);
    return image;
}

int disk_commit(const char *path, disk_progress progress, void *opaque, struct tv_error *err)
{
    struct image *child = open_vmdk(path, false, true, err);
    if (!child)
        return -1;
    const struct vmdk_descriptor *d = &vmdk_of(child)->descriptor;
    if (!d->parent_hint || d->parent_cid == VMDK_NO_CID) {
        image_close(child);
        return tv_fail(err, "%s: has no parent", path);
    }
    char *parent_path = vmdk_path_beside(path, d->parent_hint);
    struct image *parent = parent_path ? open_vmdk(parent_path, false, false, err) : NULL;
    char *buffer = malloc(CHUNK);
    int result = parent && buffer ? 0 : -1;
    if (parent && vmdk_of(parent)->descriptor.cid != d->parent_cid)
        result = tv_fail(err, "%s: the parent %s was changed after the snapshot was made", path,
                         parent_path);
    else if (parent && parent->size < child->size)
        result =
            tv_fail(err, "%s: is larger than its parent %s; resize that first", path, parent_path);
    uint64_t size = result == 0 ? child->size : 0;
    for (uint64_t offset = 0, n; offset < size && result == 0; offset += n) {
        struct image_range range;
        int error = child->ops->map(child, offset, size - offset, &range);
        n = error || range.absent || !range.data ? range.length : MIN(range.length, CHUNK);
        if (!error && range.data)
            error = read_at(child, offset, buffer, n);
        if (error) {
            result = failed(err, error, child, offset, "read");
            break;
        }
        if (range.data)
            error = write_at(parent, offset, buffer, n);
        else if (!range.absent)
            error = parent->ops->zero(parent, offset, n, false);
        if (error)
            result = failed(err, error, parent, offset, "write");
        if (progress)
            progress(opaque, offset + n, size);
    }
    if (result == 0) {
        int error = parent->ops->flush(parent);
        if (error)
            result = failed(err, error, parent, 0, "flush");
    }
    if (result == 0)
        result = set_parent(child, vmdk_of(parent)->descriptor.cid, NULL, false, err);
    free(buffer);
    free(parent_path);
    image_close(parent);
    image_close(child);
    return result;
}

static int hint_for(const char *path, const char *parent, char hint[PATH_MAX], struct tv_error *err)
{
    const char *slash = strrchr(path, '/'), *its = strrchr(parent, '/');
    size_t mine = slash ? (size_t)(slash - path) : 0, n = its ? (size_t)(its - parent) : 0;
    if (mine == n && !memcmp(path, parent, n) && !slash == !its)
        snprintf(hint, PATH_MAX, "%s", its ? its + 1 : parent);
    else if (!realpath(parent, hint))
        return tv_fail_errno(err, errno, "%s", parent);
    return strpbrk(hint, "\"\n")
               ? tv_fail(err, "%s: the name cannot be written in a descriptor", parent)
               : 0;
}

/* Copy into `child` where it shows its old parent and the new one differs. */
static int keep_contents(struct image *child, struct image *parent, disk_progress progress,
                         void *opaque, struct tv_error *err)
{
    char *old = malloc(PIECE), *new = malloc(PIECE);
    int result = old && new ? 0 : tv_fail(err, "%s: out of memory", child->path);
    for (uint64_t offset = 0, n; offset < child->size && result == 0; offset += n) {
        struct image_range range;
        n = MIN(PIECE - offset % PIECE, child->size - offset);
        int error = child->ops->map(child, offset, n, &range);
        if (!error)
            n = range.length;
        bool own = !error && range.depth == 0 && !range.absent;
        if (!error && !own)
            error = read_at(child, offset, old, n);
        if (!error && !own && parent)
            error = read_at(parent, offset, new, n);
        if (!error && !own && !parent)
            memset(new, 0, n);
        if (!error && !own && memcmp(old, new, n) != 0)
            error = write_at(child, offset, old, n);
        if (error)
            result = failed(err, error, child, offset, "copy");
        if (progress)
            progress(opaque, offset + n, child->size);
    }
    free(old);
    free(new);
    return result;
}

int disk_rebase(const char *path, const char *parent, bool unsafe, disk_progress progress,
                void *opaque, struct tv_error *err)
{
    char hint[PATH_MAX];
    if (parent && hint_for(path, parent, hint, err) != 0)
        return -1;
    struct image *under = parent ? open_vmdk(parent, true, false, err) : NULL;
    if (parent && !under)
        return -1;
    struct image *child = open_vmdk(path, false, unsafe, err);
    int result = child ? 0 : -1;
    if (result == 0 && !unsafe)
        result = keep_contents(child, under, progress, opaque, err);
    if (result == 0) {
        int error = child->ops->flush(child);
        if (error)
            result = failed(err, error, child, 0, "flush");
    }
    if (result == 0)
        result = set_parent(child, under ? vmdk_of(under)->descriptor.cid : VMDK_NO_CID,
                            parent ? hint : NULL, !parent, err);
    image_close(child);
    image_close(under);
    return result;
}

static int set_sectors(struct vmdk *v, uint64_t sectors, struct tv_error *err)
{
    const struct vmdk_extent_line *line = &v->descriptor.lines[v->descriptor.line_count - 1];
    char old[64], *text = NULL;
    size_t size = 0;
    snprintf(old, sizeof old, "%s %" PRIu64 " %s ", line->access, line->sectors, line->type);
    char *at = strstr(v->descriptor.text, old);
    FILE *f = at ? open_memstream(&text, &size) : NULL;
    if (!f)
        return tv_fail(err, "%s: the descriptor's extent line is written in an unusual way",
                       v->image.path);
    fprintf(f, "%.*s%s %" PRIu64 " %s %s", (int)(at - v->descriptor.text), v->descriptor.text,
            line->access, sectors, line->type, at + strlen(old));
    if (fclose(f) != 0)
        return tv_fail(err, "%s: out of memory", v->image.path);
    return vmdk_descriptor_store(v, text, err);
}

static int resize_vmdk(const char *path, uint64_t size, struct tv_error *err)
{
    struct image *image = open_vmdk(path, false, false, err);
    if (!image)
        return -1;
    struct vmdk *v = vmdk_of(image);
    struct vmdk_extent *last = &v->extents[v->extent_count - 1];
    int result = 0;
    if (size < image->size)
        result = tv_fail(err, "%s: a VMDK disk cannot be made smaller", path);
    else if (v->extent_count != 1 || last->kind == VMDK_ZERO)
        result = tv_fail(err, "%s: a disk of several extents cannot be resized; convert it", path);
    else if (last->kind == VMDK_SPARSE)
        result = sparse_grow(last, size / DISK_SECTOR, err);
    else {
        int error = file_truncate(&last->file, last->file_offset + size);
        if (!error)
            error = file_sync(&last->file);
        if (error)
            result = tv_fail_errno(err, error, "%s: cannot grow", last->file.path);
    }
    /* The room first, then the descriptor that speaks of it. */
    if (result == 0)
        result = set_sectors(v, size / DISK_SECTOR, err);
    image_close(image);
    return result;
}

int disk_resize(const char *path, const char *format, uint64_t size, bool shrink,
                struct tv_error *err)
{
    struct disk_options options = {.format = format};
    size = ALIGN_UP(size, DISK_SECTOR);
    struct image *image = image_open(path, &options, err);
    if (!image)
        return -1;
    bool raw = !strcmp(image->ops->format, "raw"), vmdk = vmdk_of(image);
    uint64_t old = image->size;
    image_close(image);
    if (vmdk)
        return resize_vmdk(path, size, err);
    if (!raw)
        return tv_fail(err, "%s: only raw and VMDK images can be resized", path);
    if (size < old && !shrink)
        return tv_fail(err, "%s: its end would be lost; --shrink says that it may be", path);
    struct host_file file;
    if (file_open(&file, path, 0, NULL, err) != 0)
        return -1;
    int error = file_truncate(&file, size);
    file_close(&file);
    return error ? tv_fail_errno(err, error, "%s: cannot resize", path) : 0;
}
