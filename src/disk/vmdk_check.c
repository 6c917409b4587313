/*
 * Looking an image over, and repairing what can be: a grain directory or table that is damaged is
 * taken from its redundant copy; entries that point outside the file become unallocated.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "disk/vmdk.h"
#include "util/error.h"
#include "util/util.h"

struct checker {
    struct vmdk_check *check;
    struct vmdk_extent *e;
    uint8_t *used; /* a bit for each grain-sized piece of the file */
    uint64_t pieces, file_sectors;
    uint32_t *table, *copy;
    void *grain;
};

__attribute__((format(printf, 4, 5))) static void tell(struct checker *c, bool note, bool repaired,
                                                       const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (note) {
        c->check->notes++;
    } else {
        c->check->errors++;
        c->check->repaired += repaired;
    }
    if (c->check->report) {
        struct tv_error line;
        tv_fail(&line, "%s: %s%s", c->e->file.path, text, repaired ? " (repaired)" : "");
        c->check->report(c->check->opaque, line.message);
    }
}

#define found(c, repaired, ...) tell(c, false, repaired, __VA_ARGS__)

static bool table_place_valid(const struct checker *c, uint32_t sector)
{
    return sector && sector + (uint64_t)c->e->gtes * 4 / DISK_SECTOR <= c->file_sectors;
}

static bool table_read(struct checker *c, uint32_t sector, uint32_t *out)
{
    return table_place_valid(c, sector) &&
           file_read(&c->e->file, out, c->e->gtes * 4u, (uint64_t)sector * DISK_SECTOR) == 0;
}

/* How many entries of a table are no places for a grain. */
static uint32_t table_faults(const struct checker *c, const uint32_t *table)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->e->gtes; i++)
        n += !sparse_entry_valid(c->e, table[i]);
    return n;
}

static bool used_before(struct checker *c, uint32_t entry)
{
    uint64_t piece = (entry - c->e->header.overhead) / c->e->header.grain_size;
    if (piece >= c->pieces)
        return false;
    bool before = c->used[piece / 8] >> piece % 8 & 1;
    c->used[piece / 8] |= (uint8_t)(1u << piece % 8);
    return before;
}

static void check_entries(struct checker *c, uint32_t index, bool *changed)
{
    struct vmdk_extent *e = c->e;
    bool compressed = e->header.flags & VMDK_COMPRESSED, repair = c->check->repair && !compressed;
    for (uint32_t i = 0; i < e->gtes; i++) {
        uint64_t grain = (uint64_t)index * e->gtes + i;
        uint64_t at = (uint64_t)e->gd[index] * DISK_SECTOR + i * 4u;
        uint32_t entry = c->table[i];
        if (entry == 0 || (entry == VMDK_GTE_ZEROED && e->header.flags & VMDK_ZEROED_GTES))
            continue;
        c->check->allocated++;
        if (!sparse_entry_valid(e, entry)) {
            found(c, repair,
                  "offset %" PRIu64 ": grain %" PRIu64 " is outside the file, at sector %u", at,
                  grain, entry);
        } else if (grain >= e->grains) {
            found(c, repair, "offset %" PRIu64 ": an entry behind the end of the disk", at);
        } else if (compressed) {
            if (compressed_unpack(e, grain, entry, c->grain) != 0)
                found(c, false, "offset %" PRIu64 ": grain %" PRIu64 " cannot be unpacked",
                      (uint64_t)entry * DISK_SECTOR, grain);
            continue;
        } else if (used_before(c, entry)) {
            /* Which of the two owns it cannot be known, so it is left to the user. */
            found(c, false, "offset %" PRIu64 ": grain %" PRIu64 " shares its place with another",
                  at, grain);
            continue;
        } else {
            continue;
        }
        if (repair) {
            c->table[i] = 0;
            *changed = true;
        }
    }
}

static void check_table(struct checker *c, uint32_t index)
{
    struct vmdk_extent *e = c->e;
    size_t bytes = e->gtes * 4u;
    bool repair = c->check->repair, changed = false;
    bool have = table_read(c, e->gd[index], c->table);
    bool have_copy = e->rgd && table_read(c, e->rgd[index], c->copy);
    if (!e->gd[index] && !(e->rgd && e->rgd[index]))
        return;
    if (!have && e->gd[index] == 0 && have_copy && table_faults(c, c->copy) == 0) {
        memcpy(c->table, c->copy, bytes);
    } else if (!have) {
        found(c, repair && have_copy,
              "offset %" PRIu64 ": the table of grains from %" PRIu64 " lies outside the file, at "
              "sector %u%s",
              e->header.gd_offset * DISK_SECTOR + index * 4u, (uint64_t)index * e->gtes,
              e->gd[index], have_copy ? "" : "; no copy of it is left");
        if (!have_copy)
            return;
        /* The copy is whole: it becomes the table. */
        memcpy(c->table, c->copy, bytes);
        if (repair) {
            e->gd[index] = e->rgd[index];
            file_write(&e->file, &e->gd[index], 4, e->header.gd_offset * DISK_SECTOR + index * 4u);
        }
    } else if (have_copy && memcmp(c->table, c->copy, bytes) != 0) {
        bool from_copy = table_faults(c, c->table) > table_faults(c, c->copy);
        tell(c, e->unclean && !from_copy, repair,
             "offset %" PRIu64 ": a grain table differs from its copy%s",
             (uint64_t)e->gd[index] * DISK_SECTOR, from_copy ? " and is damaged" : "");
        if (from_copy)
            memcpy(c->table, c->copy, bytes);
        changed = true;
    }
    check_entries(c, index, &changed);
    if (!changed || !repair)
        return;
    int error = file_write(&e->file, c->table, bytes, (uint64_t)e->gd[index] * DISK_SECTOR);
    if (!error)
        error = file_sync(&e->file);
    if (!error && e->rgd && table_place_valid(c, e->rgd[index]))
        error = file_write(&e->file, c->table, bytes, (uint64_t)e->rgd[index] * DISK_SECTOR);
    if (error)
        found(c, false, "offset %" PRIu64 ": cannot write: %s",
              (uint64_t)e->gd[index] * DISK_SECTOR, strerror(error));
}

static int check_sparse(struct vmdk_check *check, struct vmdk_extent *e, struct tv_error *err)
{
    struct checker c = {.check = check, .e = e};
    bool compressed = e->header.flags & VMDK_COMPRESSED;
    c.file_sectors = e->file_end / DISK_SECTOR;
    c.pieces = c.file_sectors / e->header.grain_size + 1;
    c.used = calloc(1, c.pieces / 8 + 1);
    c.table = malloc(e->gtes * 4u);
    c.copy = malloc(e->gtes * 4u);
    c.grain = compressed ? malloc(e->grain) : NULL;
    int result = 0;
    if (!c.used || !c.table || !c.copy || (compressed && !c.grain)) {
        result = tv_fail(err, "%s: out of memory", e->file.path);
    } else {
        check->grains += e->grains;
        if (!e->rgd && e->header.flags & VMDK_REDUNDANT && !compressed)
            found(&c, false, "offset 48: the redundant grain directory lies outside the file");
        uint64_t before = check->allocated;
        for (uint32_t i = 0; i < e->tables_count; i++)
            check_table(&c, i);
        uint64_t stored = 0,
                 room = e->header.overhead <= c.file_sectors
                            ? (c.file_sectors - e->header.overhead) / e->header.grain_size
                            : 0;
        for (uint64_t i = 0; i < c.pieces; i++)
            stored += c.used[i / 8] >> i % 8 & 1;
        if (!compressed && room > stored && check->allocated > before)
            check->leaked += room - stored;
        if (e->unclean) {
            tell(&c, true, check->repair, "offset 72: it was not closed");
            const uint8_t zero = 0;
            if (check->repair && (file_sync(&e->file) != 0 ||
                                  file_write(&e->file, &zero, 1, e->header_offset + 72) != 0))
                result = tv_fail(err, "%s: cannot write", e->file.path);
        }
        if (check->repair && file_sync(&e->file) != 0)
            result = tv_fail(err, "%s: cannot write", e->file.path);
    }
    free(c.used);
    free(c.table);
    free(c.copy);
    free(c.grain);
    return result;
}

/* One sparse file, on its own. */
static int check_file(const char *path, struct vmdk_check *check, struct tv_error *err)
{
    struct vmdk_extent e = {.kind = VMDK_SPARSE};
    if (file_open(&e.file, path, check->repair ? 0 : FILE_READ_ONLY, NULL, err) != 0)
        return -1;
    int result = sparse_open(&e, true, err);
    if (result == 0)
        result = check_sparse(check, &e, err);
    sparse_close(&e);
    file_close(&e.file);
    return result;
}

static bool is_sparse_file(const char *path)
{
    struct host_file file;
    char magic[4];
    if (file_open(&file, path, FILE_READ_ONLY | FILE_NO_LOCK, NULL, NULL) != 0)
        return false;
    bool sparse = file_read(&file, magic, 4, 0) == 0 && !memcmp(magic, "KDMV", 4);
    file_close(&file);
    return sparse;
}

int vmdk_check(const char *path, struct vmdk_check *check, struct tv_error *err)
{
    struct vmdk_descriptor d = {0};
    int result = 0;
    if (is_sparse_file(path)) {
        result = check_file(path, check, err);
    } else {
        struct host_file file;
        uint64_t size = 0;
        if (file_open(&file, path, FILE_READ_ONLY, NULL, err) != 0)
            return -1;
        int error = file_size(&file, &size);
        char *text = !error && size < 1 << 20 ? calloc(1, size + 1) : NULL;
        if (!text || file_read(&file, text, size, 0) != 0) {
            free(text);
            result = tv_fail(err, "%s: offset 0: cannot read the descriptor", path);
        } else {
            result = vmdk_descriptor_parse(&d, text, path, 0, err);
        }
        file_close(&file);
    }
    for (unsigned i = 0; i < d.line_count && result == 0; i++) {
        if (strcmp(d.lines[i].type, "SPARSE") != 0 || strchr(d.lines[i].file, '/'))
            continue;
        char *extent = vmdk_path_beside(path, d.lines[i].file);
        result = extent ? check_file(extent, check, err) : tv_fail(err, "%s: out of memory", path);
        free(extent);
    }
    vmdk_descriptor_free(&d);
    if (result != 0)
        return result;
    /* What is left is what opening finds: missing and short files, parents. */
    struct disk_options options = {.read_only = true, .format = "vmdk"};
    struct image *image = image_open(path, &options, err);
    if (!image && check->errors == 0)
        return -1;
    image_close(image);
    return 0;
}
