/* A sparse extent's header, grain directory and grain tables. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "disk/vmdk.h"
#include "util/error.h"
#include "util/util.h"

#define TABLES_MAX   (16u << 20)
#define GROW         (UINT64_C(4) << 20) /* the file grows by so much at once */
#define FILE_SECTORS (UINT64_C(1) << 32) /* what a table entry can address */

static int bad(const struct vmdk_extent *e, uint64_t offset, struct tv_error *err, const char *what)
{
    return tv_fail(err, "%s: offset %" PRIu64 ": VMDK: %s", e->file.path, offset, what);
}

int sparse_header_read(const struct host_file *file, uint64_t offset, struct vmdk_header *header,
                       struct tv_error *err)
{
    struct vmdk_extent e = {.file = *file};
    int error = file_read(file, header, sizeof *header, offset);
    if (error)
        return tv_fail_errno(err, error, "%s: offset %" PRIu64 ": VMDK: cannot read the header",
                             file->path, offset);
    if (header->magic != VMDK_MAGIC)
        return bad(&e, offset, err, "no VMDK header");
    if (header->version < 1 || header->version > 3)
        return bad(&e, offset + 4, err, "a version that is not known; 1 to 3 are");
    if (header->flags & VMDK_NEWLINE_TEST && memcmp(header->newline_test, "\n \r\n", 4) != 0)
        return bad(&e, offset + 73, err,
                   "the file was transferred as text, and is damaged by that");
    uint64_t g = header->grain_size;
    if (!g || g & (g - 1) || g > 65536)
        return bad(&e, offset + 20, err, "the grain size is no power of two up to 65536 sectors");
    uint32_t n = header->gtes_per_gt;
    if (n < 128 || n & (n - 1) || n > 65536)
        return bad(&e, offset + 44, err,
                   "the size of grain tables is no power of two of 128 to 65536");
    if (!header->capacity || header->capacity >> 53)
        return bad(&e, offset + 12, err, "the capacity is out of range");
    if (header->capacity / (g * n) >= TABLES_MAX)
        return bad(&e, offset + 12, err, "the capacity is too large for the grain size");
    if (header->flags & VMDK_COMPRESSED && header->compression > 1)
        return bad(&e, offset + 77, err, "a compression that is not known");
    return 0;
}

static int directory_read(struct vmdk_extent *e, uint64_t sector, uint64_t file_sectors,
                          bool lenient, uint32_t **out, struct tv_error *err)
{
    size_t bytes = ALIGN_UP((size_t)e->tables_count * 4, DISK_SECTOR);
    uint64_t gt_sectors = (uint64_t)e->gtes * 4 / DISK_SECTOR;
    if (!sector || sector > file_sectors || bytes / DISK_SECTOR > file_sectors - sector)
        return bad(e, e->header_offset + 48, err,
                   "the grain directory lies outside the file; it is truncated or damaged");
    uint32_t *gd = malloc(bytes);
    int error = gd ? file_read(&e->file, gd, bytes, sector * DISK_SECTOR) : ENOMEM;
    if (error) {
        free(gd);
        return tv_fail_errno(err, error, "%s: offset %" PRIu64 ": VMDK: the grain directory",
                             e->file.path, sector * DISK_SECTOR);
    }
    for (uint32_t i = 0; i < e->tables_count && !lenient; i++) {
        if (gd[i] && (gd[i] > file_sectors || gt_sectors > file_sectors - gd[i])) {
            free(gd);
            return bad(e, sector * DISK_SECTOR + i * 4u, err,
                       "a grain table lies outside the file (try trivisor disk check --repair)");
        }
    }
    *out = gd;
    return 0;
}

int sparse_open(struct vmdk_extent *e, bool lenient, struct tv_error *err)
{
    uint64_t size;
    pthread_mutex_init(&e->lock, NULL);
    pthread_mutex_init(&e->flush_lock, NULL);
    pthread_cond_init(&e->claim_ended, NULL);
    int error = file_size(&e->file, &size);
    if (error)
        return tv_fail_errno(err, error, "%s: cannot find out its size", e->file.path);
    if (sparse_header_read(&e->file, 0, &e->header, err) != 0)
        return -1;
    if (e->header.gd_offset == VMDK_GD_AT_END) {
        /* header ... footer marker, footer, end-of-stream marker */
        if (size < 4 * DISK_SECTOR || size % DISK_SECTOR)
            return bad(e, size, err, "no footer: the file is truncated");
        e->header_offset = size - 2 * DISK_SECTOR;
        if (sparse_header_read(&e->file, e->header_offset, &e->header, err) != 0)
            return -1;
        if (e->header.gd_offset == VMDK_GD_AT_END)
            return bad(e, e->header_offset + 56, err, "the footer has no grain directory");
    }
    e->grain = e->header.grain_size * DISK_SECTOR;
    e->grains = (e->header.capacity + e->header.grain_size - 1) / e->header.grain_size;
    e->gtes = e->header.gtes_per_gt;
    e->tables_count = (uint32_t)((e->grains + e->gtes - 1) / e->gtes);
    e->unclean = e->header.unclean_shutdown;
    uint64_t sectors = MIN(size / DISK_SECTOR, FILE_SECTORS);
    if (directory_read(e, e->header.gd_offset, sectors, lenient, &e->gd, err) != 0)
        return -1;
    if (e->header.flags & VMDK_REDUNDANT && !(e->header.flags & VMDK_COMPRESSED)) {
        struct tv_error ignored;
        if (directory_read(e, e->header.rgd_offset, sectors, lenient, &e->rgd,
                           e->writable ? err : &ignored) != 0 &&
            e->writable)
            return -1;
    }
    e->tables = calloc(e->tables_count, sizeof *e->tables);
    if (!e->tables)
        return tv_fail(err, "%s: out of memory", e->file.path);
    e->file_end = size;
    e->next_grain = MAX(ALIGN_UP(size, e->grain), e->header.overhead * DISK_SECTOR);
    return 0;
}

void sparse_close(struct vmdk_extent *e)
{
    for (uint32_t i = 0; e->tables && i < e->tables_count; i++)
        free(e->tables[i]);
    free(e->tables);
    free(e->gd);
    free(e->rgd);
    compressed_close(e);
    pthread_mutex_destroy(&e->lock);
    pthread_mutex_destroy(&e->flush_lock);
    pthread_cond_destroy(&e->claim_ended);
}

bool sparse_entry_valid(const struct vmdk_extent *e, uint32_t entry)
{
    if (entry == 0 || (entry == VMDK_GTE_ZEROED && e->header.flags & VMDK_ZEROED_GTES))
        return true;
    uint64_t sectors = e->file_end / DISK_SECTOR;
    if (e->header.flags & VMDK_COMPRESSED)
        return entry < sectors;
    /* The last grain of the disk may be cut short by the end of the file. */
    return entry >= MAX(e->header.overhead, UINT64_C(1)) && entry < sectors;
}

static int table_load(struct vmdk_extent *e, uint32_t index, struct grain_table **out)
{
    int error = 0;
    pthread_mutex_lock(&e->lock);
    struct grain_table *t = e->tables[index];
    if (!t) {
        t = calloc(1, sizeof *t + e->gtes * sizeof t->entries[0]);
        if (!t)
            error = ENOMEM;
        else if (e->gd[index])
            error = file_read(&e->file, (void *)t->entries, e->gtes * 4u,
                              (uint64_t)e->gd[index] * DISK_SECTOR);
        for (uint32_t i = 0; !error && i < e->gtes; i++) {
            if (!sparse_entry_valid(e, t->entries[i]))
                error = EIO;
        }
        if (error) {
            free(t);
        } else {
            t->index = index;
            atomic_store_explicit(&e->tables[index], t, memory_order_release);
        }
    }
    pthread_mutex_unlock(&e->lock);
    *out = t;
    return error;
}

static int table_get(struct vmdk_extent *e, uint32_t index, struct grain_table **out)
{
    *out = atomic_load_explicit(&e->tables[index], memory_order_acquire);
    return LIKELY(*out != NULL) ? 0 : table_load(e, index, out);
}

int sparse_lookup(struct vmdk_extent *e, uint64_t grain, uint32_t *entry)
{
    struct grain_table *t;
    int error = table_get(e, (uint32_t)(grain / e->gtes), &t);
    if (!error)
        *entry = atomic_load_explicit(&t->entries[grain % e->gtes], memory_order_acquire);
    return error;
}

bool sparse_peek(struct vmdk_extent *e, uint64_t grain, uint32_t *entry)
{
    struct grain_table *t = atomic_load_explicit(&e->tables[grain / e->gtes], memory_order_acquire);
    if (!t)
        return false;
    *entry = atomic_load_explicit(&t->entries[grain % e->gtes], memory_order_acquire);
    return true;
}

int sparse_set(struct vmdk_extent *e, uint64_t grain, uint64_t count, uint32_t entry, uint32_t step)
{
    for (uint64_t i = 0; i < count; i++, entry += step) {
        struct grain_table *t;
        int error = table_get(e, (uint32_t)((grain + i) / e->gtes), &t);
        if (error)
            return error;
        pthread_mutex_lock(&e->lock);
        atomic_store_explicit(&t->entries[(grain + i) % e->gtes], entry, memory_order_release);
        if (!t->dirty) {
            t->dirty = true;
            t->next_dirty = e->dirty;
            e->dirty = t;
        }
        pthread_mutex_unlock(&e->lock);
    }
    return 0;
}

/* With e->lock. The header is marked before any table changes; a sync comes between (sparse_flush).
 */
static int mark_unclean(struct vmdk_extent *e)
{
    if (e->unclean)
        return 0;
    const uint8_t one = 1;
    int error = file_write(&e->file, &one, 1,
                           e->header_offset + offsetof(struct vmdk_header, unclean_shutdown));
    if (!error)
        e->unclean = true;
    return error;
}

int sparse_allocate(struct vmdk_extent *e, uint64_t count, uint64_t *offset)
{
    pthread_mutex_lock(&e->lock);
    int error = mark_unclean(e);
    uint64_t end = e->next_grain + count * e->grain;
    if (!error && end / DISK_SECTOR > FILE_SECTORS)
        error = ENOSPC;
    if (!error && end > e->file_end) {
        uint64_t size = MIN(end + GROW, FILE_SECTORS * DISK_SECTOR);
        error = file_truncate(&e->file, size);
        if (!error)
            e->file_end = size;
    }
    if (!error) {
        *offset = e->next_grain;
        e->next_grain = end;
    }
    pthread_mutex_unlock(&e->lock);
    return error;
}

/* With e->lock: a table that has no place in the file yet gets one at the end. */
static int table_place(struct vmdk_extent *e, struct grain_table *t)
{
    size_t bytes = e->gtes * 4u;
    uint64_t need = bytes * (e->rgd ? 2 : 1), at = e->next_grain;
    uint64_t end = ALIGN_UP(at + need, e->grain);
    if (end / DISK_SECTOR > FILE_SECTORS)
        return ENOSPC;
    if (end > e->file_end) {
        int error = file_truncate(&e->file, end);
        if (error)
            return error;
        e->file_end = end;
    }
    e->next_grain = end;
    t->placed = true;
    e->gd[t->index] = (uint32_t)(at / DISK_SECTOR);
    if (e->rgd)
        e->rgd[t->index] = (uint32_t)((at + bytes) / DISK_SECTOR);
    return 0;
}

/* What was on the dirty list when a flush began. */
struct snapshot {
    struct grain_table *table;
    struct snapshot *next;
    uint32_t entries[];
};

static int snapshot_take(struct vmdk_extent *e, struct snapshot **out)
{
    int error = 0;
    pthread_mutex_lock(&e->lock);
    while (e->dirty && !error) {
        struct grain_table *t = e->dirty;
        struct snapshot *s = malloc(sizeof *s + e->gtes * 4u);
        if (!s) {
            error = ENOMEM;
            break;
        }
        s->table = t;
        if (!e->gd[t->index])
            error = table_place(e, t);
        if (error) {
            free(s);
            break;
        }
        for (uint32_t i = 0; i < e->gtes; i++)
            s->entries[i] = t->entries[i];
        s->next = *out;
        *out = s;
        e->dirty = t->next_dirty;
        t->dirty = false;
    }
    pthread_mutex_unlock(&e->lock);
    return error;
}

static int write_tables(struct vmdk_extent *e, const struct snapshot *list, const uint32_t *gd)
{
    int error = 0;
    for (const struct snapshot *s = list; s && !error; s = s->next) {
        uint32_t sector = gd[s->table->index];
        if (sector) /* a redundant directory may lack one */
            error = file_write(&e->file, s->entries, e->gtes * 4u, (uint64_t)sector * DISK_SECTOR);
    }
    return error;
}

/* Directory entries of new tables; after the tables themselves are on disk. */
static int write_directory(struct vmdk_extent *e, const struct snapshot *list)
{
    int error = 0;
    bool any = false;
    for (const struct snapshot *s = list; s && !error; s = s->next) {
        if (!s->table->placed)
            continue;
        if (!any)
            error = file_sync(&e->file);
        any = true;
        uint32_t i = s->table->index;
        if (!error)
            error = file_write(&e->file, &e->gd[i], 4, e->header.gd_offset * DISK_SECTOR + i * 4u);
        if (!error && e->rgd)
            error =
                file_write(&e->file, &e->rgd[i], 4, e->header.rgd_offset * DISK_SECTOR + i * 4u);
    }
    return error;
}

int sparse_flush(struct vmdk_extent *e)
{
    struct snapshot *list = NULL;
    pthread_mutex_lock(&e->flush_lock);
    int error = snapshot_take(e, &list);
    if (!error)
        error = file_sync(&e->file);
    if (!error && list) {
        error = write_tables(e, list, e->gd);
        if (!error)
            error = write_directory(e, list);
        if (!error)
            error = file_sync(&e->file);
        if (!error && e->rgd)
            error = write_tables(e, list, e->rgd);
    }
    pthread_mutex_lock(&e->lock);
    for (struct snapshot *s = list, *next; s; s = next) {
        next = s->next;
        if (error && !s->table->dirty) { /* to be tried again */
            s->table->dirty = true;
            s->table->next_dirty = e->dirty;
            e->dirty = s->table;
        }
        s->table->placed &= error != 0;
        free(s);
    }
    pthread_mutex_unlock(&e->lock);
    pthread_mutex_unlock(&e->flush_lock);
    return error;
}

int sparse_recover(struct vmdk_extent *e, struct tv_error *err)
{
    size_t bytes = e->gtes * 4u;
    uint32_t *copy = malloc(bytes), entry;
    int error = copy ? 0 : ENOMEM;
    for (uint32_t i = 0; i < e->tables_count && !error; i++) {
        if (!e->gd[i])
            continue;
        if (sparse_lookup(e, (uint64_t)i * e->gtes, &entry) != 0) {
            free(copy);
            return bad(e, (uint64_t)e->gd[i] * DISK_SECTOR, err,
                       "a grain table is damaged (run trivisor disk check --repair)");
        }
        if (!e->rgd || !e->rgd[i])
            continue;
        error = file_read(&e->file, copy, bytes, (uint64_t)e->rgd[i] * DISK_SECTOR);
        if (!error && memcmp(copy, (void *)e->tables[i]->entries, bytes) != 0)
            error = file_write(&e->file, (void *)e->tables[i]->entries, bytes,
                               (uint64_t)e->rgd[i] * DISK_SECTOR);
    }
    free(copy);
    return error ? tv_fail_errno(err, error, "%s: cannot be made consistent", e->file.path) : 0;
}

int sparse_finish(struct vmdk_extent *e)
{
    int error = sparse_flush(e);
    if (error || !e->unclean)
        return error;
    uint64_t end = MIN(e->file_end, e->next_grain);
    if (end < e->file_end)
        error = file_truncate(&e->file, end);
    if (!error)
        error = file_sync(&e->file);
    const uint8_t zero = 0;
    if (!error)
        error = file_write(&e->file, &zero, 1,
                           e->header_offset + offsetof(struct vmdk_header, unclean_shutdown));
    if (!error)
        error = file_sync(&e->file);
    if (!error)
        e->unclean = false;
    return error;
}

/* A directory of `tables` entries and the tables that it did not have before, at `at` (bytes). */
static int grown_directory(struct vmdk_extent *e, const uint32_t *old, uint32_t tables, uint64_t at)
{
    size_t bytes = ALIGN_UP((size_t)tables * 4, DISK_SECTOR);
    uint32_t *gd = calloc(1, bytes);
    if (!gd)
        return ENOMEM;
    for (uint32_t i = 0; i < tables; i++)
        gd[i] = i < e->tables_count
                    ? old[i]
                    : (uint32_t)((at + bytes) / DISK_SECTOR +
                                 (i - e->tables_count) * (e->gtes * 4 / DISK_SECTOR));
    int error = file_write(&e->file, gd, bytes, at);
    free(gd);
    return error;
}

int sparse_grow(struct vmdk_extent *e, uint64_t sectors, struct tv_error *err)
{
    struct vmdk_header h = e->header;
    h.capacity = MAX(ALIGN_UP(sectors, h.grain_size), h.capacity);
    uint64_t grains = h.capacity / h.grain_size + (h.capacity % h.grain_size != 0);
    uint32_t tables = (uint32_t)((grains + e->gtes - 1) / e->gtes);
    if (h.capacity / (h.grain_size * e->gtes) >= TABLES_MAX)
        return tv_fail(err, "%s: that is too large for its grain size", e->file.path);
    uint64_t size = ALIGN_UP((uint64_t)tables * 4, DISK_SECTOR) +
                    (uint64_t)(tables - e->tables_count) * e->gtes * 4;
    uint64_t at = e->next_grain, end = ALIGN_UP(at + size * 2, e->grain);
    if (end / DISK_SECTOR >= FILE_SECTORS)
        return tv_fail(err, "%s: the file would be too large", e->file.path);
    int error = 0;
    if (tables > e->tables_count) {
        error = file_truncate(&e->file, end);
        if (!error)
            error = grown_directory(e, e->gd, tables, at);
        if (!error && e->rgd)
            error = grown_directory(e, e->rgd, tables, at + size);
        h.gd_offset = at / DISK_SECTOR;
        if (e->rgd)
            h.rgd_offset = (at + size) / DISK_SECTOR;
        e->next_grain = e->file_end = end;
    }
    /* One sector: the old header or the new one. */
    if (!error)
        error = file_sync(&e->file);
    if (!error)
        error = file_write(&e->file, &h, sizeof h, 0);
    if (!error)
        error = file_sync(&e->file);
    return error ? tv_fail_errno(err, error, "%s: cannot grow", e->file.path) : 0;
}
