/* New images, of each createType that we write. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "disk/vmdk.h"
#include "util/error.h"
#include "util/util.h"

#define SPLIT_SECTORS      UINT64_C(4192256) /* 2047 MiB, as VMware cuts */
#define DESCRIPTOR_SECTORS 20u
#define STREAM_OVERHEAD    128u
#define PATH_LIMIT         4096

static const struct type {
    const char *name, *extent, *suffix; /* suffix NULL: the image is one file */
    bool sparse, split, stream;
} types[] = {
    {"monolithicSparse", "SPARSE", NULL, .sparse = true},
    {"monolithicFlat", "FLAT", "-flat"},
    {"twoGbMaxExtentSparse", "SPARSE", "-s", .sparse = true, .split = true},
    {"twoGbMaxExtentFlat", "FLAT", "-f", .split = true},
    {"streamOptimized", "SPARSE", NULL, .sparse = true, .stream = true},
    {"vmfs", "VMFS", "-flat"},
};
const char *const vmdk_types[] = {"monolithicSparse",
                                  "monolithicFlat",
                                  "twoGbMaxExtentSparse",
                                  "twoGbMaxExtentFlat",
                                  "streamOptimized",
                                  "vmfs",
                                  NULL};

struct creation {
    const struct vmdk_create *create;
    const struct type *type;
    const char *path;
    uint64_t sectors;
    uint32_t cid, parent_cid;
    char hint[PATH_LIMIT];
    char *created[4096]; /* to be removed again after a failure */
    unsigned created_count;
    struct tv_error *err;
};

static int create_file(struct creation *c, const char *path, struct host_file *file)
{
    unsigned flags = FILE_CREATE | (c->create->overwrite ? FILE_OVERWRITE : 0);
    bool existed = access(path, F_OK) == 0;
    if (file_open(file, path, flags, c->create->trace, c->err) != 0)
        return -1;
    if (!existed && c->created_count < ARRAY_SIZE(c->created))
        c->created[c->created_count++] = strdup(path);
    return 0;
}

static int io_failed(struct creation *c, const struct host_file *file, int error)
{
    return tv_fail_errno(c->err, error, "%s: cannot write", file->path);
}

static unsigned extent_count(const struct creation *c)
{
    return c->type->split ? (unsigned)((c->sectors + SPLIT_SECTORS - 1) / SPLIT_SECTORS) : 1;
}

static uint64_t extent_sectors(const struct creation *c, unsigned index)
{
    return c->type->split ? MIN(SPLIT_SECTORS, c->sectors - index * SPLIT_SECTORS) : c->sectors;
}

/* "disk.vmdk" gives "disk-s001.vmdk". */
static void extent_path(const struct creation *c, unsigned index, char out[PATH_LIMIT])
{
    size_t n = strlen(c->path);
    if (!c->type->suffix) {
        snprintf(out, PATH_LIMIT, "%s", c->path);
        return;
    }
    if (n > 5 && !strcasecmp(c->path + n - 5, ".vmdk"))
        n -= 5;
    if (c->type->split)
        snprintf(out, PATH_LIMIT, "%.*s%s%03u.vmdk", (int)n, c->path, c->type->suffix, index + 1);
    else
        snprintf(out, PATH_LIMIT, "%.*s%s.vmdk", (int)n, c->path, c->type->suffix);
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static char *descriptor_text(const struct creation *c)
{
    char *text = NULL, path[PATH_LIMIT];
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return NULL;
    fprintf(f,
            "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=%08x\nparentCID=%08x\n"
            "createType=\"%s\"\n",
            c->cid, c->parent_cid, c->type->name);
    if (*c->hint)
        fprintf(f, "parentFileNameHint=\"%s\"\n", c->hint);
    fputs("\n# Extent description\n", f);
    for (unsigned i = 0; i < extent_count(c); i++) {
        extent_path(c, i, path);
        fprintf(f, "%s %" PRIu64 " %s \"%s\"%s\n", c->type->stream ? "RDONLY" : "RW",
                extent_sectors(c, i), c->type->extent, name_of(path),
                !strcmp(c->type->extent, "FLAT") ? " 0" : "");
    }
    const char *adapter = c->create->adapter ? c->create->adapter : "lsilogic";
    uint64_t heads = !strcmp(adapter, "ide") ? 16 : 255, cylinders = c->sectors / (heads * 63);
    if (!strcmp(adapter, "ide"))
        cylinders = MIN(cylinders, UINT64_C(16383));
    fprintf(f,
            "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"8\"\n"
            "ddb.geometry.cylinders = \"%" PRIu64 "\"\nddb.geometry.heads = \"%" PRIu64 "\"\n"
            "ddb.geometry.sectors = \"63\"\nddb.adapterType = \"%s\"\n",
            cylinders, heads, adapter);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

static uint32_t tables_for(uint64_t sectors)
{
    uint64_t per_table = (uint64_t)VMDK_GRAIN_SECTORS * VMDK_GTES_PER_GT;
    return (uint32_t)((sectors + per_table - 1) / per_table);
}

/* A directory whose tables follow it. */
static int write_directory(const struct host_file *file, uint64_t sector, uint32_t tables)
{
    uint64_t directory = ALIGN_UP((uint64_t)tables * 4, DISK_SECTOR) / DISK_SECTOR;
    uint32_t *gd = malloc(tables * sizeof *gd);
    if (!gd)
        return ENOMEM;
    for (uint32_t i = 0; i < tables; i++)
        gd[i] = (uint32_t)(sector + directory + i * (VMDK_GTES_PER_GT * 4 / DISK_SECTOR));
    int error = file_write(file, gd, tables * sizeof *gd, sector * DISK_SECTOR);
    free(gd);
    return error;
}

static void header_init(struct vmdk_header *h, uint64_t sectors, bool embedded)
{
    *h = (struct vmdk_header){.magic = VMDK_MAGIC,
                              .version = 1,
                              .flags = VMDK_NEWLINE_TEST | VMDK_REDUNDANT,
                              .capacity = sectors,
                              .grain_size = VMDK_GRAIN_SECTORS,
                              .gtes_per_gt = VMDK_GTES_PER_GT,
                              .newline_test = {'\n', ' ', '\r', '\n'}};
    if (embedded) {
        h->descriptor_offset = 1;
        h->descriptor_size = DESCRIPTOR_SECTORS;
    }
}

static int create_sparse(struct creation *c, const struct host_file *file, uint64_t sectors,
                         const char *text)
{
    struct vmdk_header h;
    header_init(&h, ALIGN_UP(sectors, (uint64_t)VMDK_GRAIN_SECTORS), text);
    if (c->create->zeroed_grains) {
        h.version = 2;
        h.flags |= VMDK_ZEROED_GTES;
    }
    uint32_t tables = tables_for(h.capacity);
    uint64_t directory = ALIGN_UP((uint64_t)tables * 4, DISK_SECTOR) / DISK_SECTOR +
                         (uint64_t)tables * (VMDK_GTES_PER_GT * 4 / DISK_SECTOR);
    h.rgd_offset = 1 + (text ? DESCRIPTOR_SECTORS : 0);
    h.gd_offset = h.rgd_offset + directory;
    h.overhead = ALIGN_UP(h.gd_offset + directory, (uint64_t)VMDK_GRAIN_SECTORS);
    int error = file_truncate(file, h.overhead * DISK_SECTOR);
    if (!error)
        error = write_directory(file, h.rgd_offset, tables);
    if (!error)
        error = write_directory(file, h.gd_offset, tables);
    if (!error && text)
        error = file_write(file, text, strlen(text), DISK_SECTOR);
    if (!error)
        error = file_write(file, &h, sizeof h, 0);
    return error;
}

static int create_extent(struct creation *c, unsigned index, const char *text)
{
    char path[PATH_LIMIT];
    struct host_file file;
    uint64_t sectors = extent_sectors(c, index);
    extent_path(c, index, path);
    if (create_file(c, path, &file) != 0)
        return -1;
    int error;
    if (c->type->sparse) {
        error = create_sparse(c, &file, sectors, text);
    } else {
        error = file_truncate(&file, sectors * DISK_SECTOR);
        if (!error && c->create->preallocate &&
            fallocate(file.fd, 0, 0, (off_t)(sectors * DISK_SECTOR)) != 0)
            error = errno;
    }
    if (!error)
        error = file_sync(&file);
    int result = error ? io_failed(c, &file, error) : 0;
    file_close(&file);
    return result;
}

/* How the image names its parent: by the name alone where both are in one directory. */
static int parent_hint(struct creation *c)
{
    const char *parent = c->create->parent;
    size_t mine = (size_t)(name_of(c->path) - c->path), its = (size_t)(name_of(parent) - parent);
    char real[PATH_MAX];
    if (*parent == '/')
        snprintf(c->hint, sizeof c->hint, "%s", parent);
    else if (mine == its && !memcmp(parent, c->path, mine))
        snprintf(c->hint, sizeof c->hint, "%s", name_of(parent));
    else if (realpath(parent, real))
        snprintf(c->hint, sizeof c->hint, "%s", real);
    else
        return tv_fail_errno(c->err, errno, "%s", parent);
    if (strpbrk(c->hint, "\"\n"))
        return tv_fail(c->err, "%s: the name cannot be written in a descriptor", parent);
    return 0;
}

static int prepare(struct creation *c)
{
    const struct vmdk_create *create = c->create;
    const char *type = create->type ? create->type : "monolithicSparse";
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if (!strcasecmp(types[i].name, type))
            c->type = &types[i];
    }
    if (!c->type)
        return tv_fail(c->err, "%s: no VMDK type that can be written", type);
    uint64_t size = create->size;
    c->cid = vmdk_new_cid();
    c->parent_cid = VMDK_NO_CID;
    if (create->parent) {
        if (!c->type->sparse || c->type->stream)
            return tv_fail(c->err,
                           "%s: an image with a parent is monolithicSparse or "
                           "twoGbMaxExtentSparse",
                           c->type->name);
        struct disk_options read_only = {.read_only = true, .format = "vmdk"};
        struct image *parent = image_open(create->parent, &read_only, c->err);
        if (!parent || parent_hint(c) != 0) {
            image_close(parent);
            return -1;
        }
        c->parent_cid = vmdk_of(parent)->descriptor.cid;
        size = size ? size : parent->size;
        image_close(parent);
    }
    if (!size)
        return tv_fail(c->err, "%s: a disk of no size", c->path);
    c->sectors = size / DISK_SECTOR + (size % DISK_SECTOR != 0);
    if (c->sectors > (UINT64_C(62) << 31))
        return tv_fail(c->err, "%s: a VMDK disk has at most 62 TiB", c->path);
    if (strpbrk(name_of(c->path), "\"\n") || strlen(c->path) > PATH_LIMIT - 40)
        return tv_fail(c->err, "%s: the name cannot be written in a descriptor", c->path);
    return 0;
}

static void finish(struct creation *c, int result)
{
    for (unsigned i = 0; i < c->created_count; i++) {
        if (result != 0 && c->created[i])
            unlink(c->created[i]);
        free(c->created[i]);
    }
}

int vmdk_create(const char *path, const struct vmdk_create *create, struct tv_error *err)
{
    struct creation *c = calloc(1, sizeof *c);
    if (!c)
        return tv_fail(err, "%s: out of memory", path);
    *c = (struct creation){.create = create, .path = path, .err = err};
    int result = prepare(c);
    if (result == 0 && c->type->stream)
        result = tv_fail(err, "streamOptimized images are written by trivisor disk convert");
    char *text = result == 0 ? descriptor_text(c) : NULL;
    if (result == 0 && !text)
        result = tv_fail(err, "%s: out of memory", path);
    /* The descriptor last: before it is there, there is no image. */
    for (unsigned i = 0; result == 0 && i < extent_count(c); i++)
        result = create_extent(c, i, c->type->suffix ? NULL : text);
    if (result == 0 && c->type->suffix) {
        struct host_file file;
        result = create_file(c, path, &file);
        if (result == 0) {
            int error = file_write(&file, text, strlen(text), 0);
            error = error ? error : file_sync(&file);
            if (error)
                result = io_failed(c, &file, error);
            file_close(&file);
        }
    }
    if (result == 0)
        file_sync_directory(path);
    free(text);
    finish(c, result);
    free(c);
    return result;
}

/* streamOptimized: written front to back, so that it may go through a pipe one day. */
struct stream {
    struct host_file file;
    uint64_t at; /* sector */
    uint32_t table[VMDK_GTES_PER_GT];
    uint32_t *gd;
    void *data, *packed;
    size_t grain, packed_size;
};

static int put_marker(struct stream *s, uint64_t sectors, uint32_t type)
{
    uint8_t sector[DISK_SECTOR] = {0};
    struct vmdk_marker m = {.value = sectors, .type = type};
    memcpy(sector, &m, sizeof m);
    int error = file_write(&s->file, sector, sizeof sector, s->at * DISK_SECTOR);
    s->at++;
    return error;
}

static int put_grain(struct stream *s, uint64_t sector)
{
    uint8_t *out = s->packed;
    uLongf size = s->packed_size - VMDK_GRAIN_MARKER - DISK_SECTOR;
    if (compress2(out + VMDK_GRAIN_MARKER, &size, s->data, s->grain, Z_DEFAULT_COMPRESSION) != Z_OK)
        return ENOMEM;
    struct vmdk_marker m = {.value = sector, .size = (uint32_t)size};
    memcpy(out, &m, VMDK_GRAIN_MARKER);
    size_t used = VMDK_GRAIN_MARKER + size, whole = ALIGN_UP(used, DISK_SECTOR);
    memset(out + used, 0, whole - used);
    if (s->at + whole / DISK_SECTOR > UINT32_MAX)
        return EFBIG;
    int error = file_write(&s->file, out, whole, s->at * DISK_SECTOR);
    s->at += whole / DISK_SECTOR;
    return error;
}

static int put_table(struct stream *s, uint32_t index)
{
    uint64_t sectors = sizeof s->table / DISK_SECTOR;
    int error = put_marker(s, sectors, VMDK_MARK_GT);
    s->gd[index] = (uint32_t)s->at;
    if (!error)
        error = file_write(&s->file, s->table, sizeof s->table, s->at * DISK_SECTOR);
    s->at += sectors;
    memset(s->table, 0, sizeof s->table);
    return error;
}

static bool all_zero(const void *data, size_t size)
{
    const char *p = data;
    return !size || (p[0] == 0 && !memcmp(p, p + 1, size - 1));
}

/* `*failed_read` tells whose error it is. */
static int put_contents(struct stream *s, struct image *from, bool *failed_read,
                        void (*progress)(void *, uint64_t, uint64_t), void *opaque)
{
    bool any = false;
    uint32_t index = 0;
    int error = 0;
    for (uint64_t offset = 0; offset < from->size && !error;) {
        uint64_t grain = offset / s->grain, n = MIN(from->size - offset, (uint64_t)s->grain);
        struct image_range range = {.length = n, .data = true};
        if (from->ops->map)
            error = from->ops->map(from, offset, from->size - offset, &range);
        bool skip = !error && !range.data && range.length >= n;
        if (!error && !skip) {
            struct iovec iov = {.iov_base = s->data, .iov_len = n};
            struct iov_cursor cursor = iov_start(&iov, 1);
            memset((char *)s->data + n, 0, s->grain - n);
            error = from->ops->read(from, offset, &cursor, n);
        }
        *failed_read = error;
        if (!error && !skip && !all_zero(s->data, s->grain)) {
            s->table[grain % VMDK_GTES_PER_GT] = (uint32_t)s->at;
            any = true;
            error = put_grain(s, grain * VMDK_GRAIN_SECTORS);
        }
        offset += s->grain;
        if (!error && (offset / s->grain % VMDK_GTES_PER_GT == 0 || offset >= from->size)) {
            index = (uint32_t)(grain / VMDK_GTES_PER_GT);
            if (any)
                error = put_table(s, index);
            any = false;
            if (progress)
                progress(opaque, MIN(offset, from->size), from->size);
        }
    }
    return error;
}

static int put_trailer(struct stream *s, struct vmdk_header *h, uint32_t tables)
{
    uint64_t bytes = ALIGN_UP((uint64_t)tables * 4, DISK_SECTOR);
    int error = put_marker(s, bytes / DISK_SECTOR, VMDK_MARK_GD);
    h->gd_offset = s->at;
    if (!error)
        error = file_write(&s->file, s->gd, bytes, s->at * DISK_SECTOR);
    s->at += bytes / DISK_SECTOR;
    if (!error)
        error = put_marker(s, 1, VMDK_MARK_FOOTER);
    if (!error)
        error = file_write(&s->file, h, sizeof *h, s->at * DISK_SECTOR);
    s->at++;
    if (!error)
        error = put_marker(s, 0, VMDK_MARK_EOS);
    return error ? error : file_sync(&s->file);
}

int vmdk_write_stream(const char *path, const struct vmdk_create *create, struct image *from,
                      void (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                      struct tv_error *err)
{
    struct creation *c = calloc(1, sizeof *c);
    if (!c)
        return tv_fail(err, "%s: out of memory", path);
    struct vmdk_create own = *create;
    own.type = "streamOptimized";
    own.size = from->size;
    own.parent = NULL;
    *c = (struct creation){.create = &own, .path = path, .err = err};
    struct stream s = {.at = STREAM_OVERHEAD, .grain = VMDK_GRAIN_SECTORS * DISK_SECTOR};
    int result = prepare(c), error = 0;
    if (result != 0 || create_file(c, path, &s.file) != 0) {
        finish(c, -1);
        free(c);
        return -1;
    }
    uint32_t tables = tables_for(c->sectors);
    struct vmdk_header h;
    header_init(&h, c->sectors, true);
    h.version = 3;
    h.flags = VMDK_NEWLINE_TEST | VMDK_COMPRESSED | VMDK_MARKERS;
    h.gd_offset = VMDK_GD_AT_END;
    h.overhead = STREAM_OVERHEAD;
    h.compression = 1;
    s.packed_size = compressBound(s.grain) + VMDK_GRAIN_MARKER + 2 * DISK_SECTOR;
    s.data = malloc(s.grain);
    s.packed = malloc(s.packed_size);
    s.gd = calloc(1, ALIGN_UP((size_t)tables * 4, DISK_SECTOR));
    char *text = descriptor_text(c);
    bool failed_read = false;
    if (!s.data || !s.packed || !s.gd || !text)
        error = ENOMEM;
    if (!error)
        error = file_truncate(&s.file, STREAM_OVERHEAD * DISK_SECTOR);
    if (!error)
        error = file_write(&s.file, &h, sizeof h, 0);
    if (!error)
        error = file_write(&s.file, text, strlen(text), DISK_SECTOR);
    if (!error)
        error = put_contents(&s, from, &failed_read, progress, opaque);
    if (!error)
        error = put_trailer(&s, &h, tables);
    if (error)
        result = tv_fail_errno(err, error, "%s: cannot %s", failed_read ? from->path : path,
                               failed_read ? "read" : "write");
    file_close(&s.file);
    if (result == 0)
        file_sync_directory(path);
    free(text);
    free(s.data);
    free(s.packed);
    free(s.gd);
    finish(c, result);
    free(c);
    return result;
}
