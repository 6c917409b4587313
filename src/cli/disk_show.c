/* trivisor disk info, check, map. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/cmd_disk.h"
#include "disk/tools.h"
#include "util/util.h"

static void print_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < 32)
            printf("\\u%04x", *text);
        else
            putchar(*text);
    }
    putchar('"');
}

static const char *size_text(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    /* 2047 MiB rather than 2.00 GiB: whole numbers stay whole while they are short. */
    for (; value >= 1024 && unit + 1 < ARRAY_SIZE(units) &&
           (value >= 10240 || (uint64_t)value % 1024 == 0);
         unit++)
        value /= 1024;
    snprintf(out, 32, unit && value != (double)(uint64_t)value ? "%.2f %s" : "%.0f %s", value,
             units[unit]);
    return out;
}

static uint64_t bytes_used(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static uint64_t image_used(struct image *image)
{
    struct vmdk *v = vmdk_of(image);
    uint64_t used = v && v->embedded ? 0 : bytes_used(image->path);
    for (unsigned i = 0; v && i < v->extent_count; i++)
        used += v->extents[i].file.path ? bytes_used(v->extents[i].file.path) : 0;
    return used;
}

static void info_text(struct image *image)
{
    char a[32], b[32];
    struct vmdk *v = vmdk_of(image);
    printf("%-12s %s\n", "file:", image->path);
    printf("%-12s %s%s%s\n", "format:", image->format, v ? ", " : "",
           v ? v->descriptor.create_type : "");
    printf("%-12s %s (%" PRIu64 " bytes)\n", "disk size:", size_text(image->size, a), image->size);
    printf("%-12s %s\n", "on the host:", size_text(image_used(image), b));
    if (!v)
        return;
    printf("%-12s %08x\n", "CID:", v->descriptor.cid);
    if (*v->descriptor.adapter)
        printf("%-12s %s\n", "adapter:", v->descriptor.adapter);
    for (unsigned i = 0; i < v->extent_count; i++) {
        const struct vmdk_extent *e = &v->extents[i];
        const struct vmdk_extent_line *line = &v->descriptor.lines[i];
        printf("%-12s %s, %s%s%s%s", i ? "" : "extents:", line->type, size_text(e->length, a),
               line->access[1] == 'W' ? "" : ", read-only", e->file.path ? ", " : "",
               e->file.path ? e->file.path : "");
        if (e->kind == VMDK_SPARSE)
            printf(" (version %u, grains of %s%s%s)", e->header.version, size_text(e->grain, b),
                   e->header.flags & VMDK_COMPRESSED ? ", compressed" : "",
                   e->unclean ? ", not closed" : "");
        putchar('\n');
    }
    if (v->descriptor.parent_hint)
        printf("%-12s %s (CID %08x)\n", "parent:", v->descriptor.parent_hint,
               v->descriptor.parent_cid);
}

static void info_json(struct image *image)
{
    struct vmdk *v = vmdk_of(image);
    printf("{\"file\": ");
    print_string(image->path);
    printf(", \"format\": \"%s\", \"size\": %" PRIu64 ", \"used\": %" PRIu64, image->format,
           image->size, image_used(image));
    if (v) {
        printf(", \"type\": ");
        print_string(v->descriptor.create_type);
        printf(", \"cid\": \"%08x\", \"parent_cid\": \"%08x\", \"adapter\": ", v->descriptor.cid,
               v->descriptor.parent_cid);
        print_string(v->descriptor.adapter);
        printf(", \"extents\": [");
        for (unsigned i = 0; i < v->extent_count; i++) {
            const struct vmdk_extent *e = &v->extents[i];
            printf("%s{\"type\": ", i ? ", " : "");
            print_string(v->descriptor.lines[i].type);
            printf(", \"size\": %" PRIu64 ", \"access\": ", e->length);
            print_string(v->descriptor.lines[i].access);
            if (e->file.path) {
                printf(", \"file\": ");
                print_string(e->file.path);
            }
            if (e->kind == VMDK_SPARSE)
                printf(", \"version\": %u, \"grain\": %" PRIu64
                       ", \"compressed\": %s, \"unclean\": %s",
                       e->header.version, e->grain,
                       e->header.flags & VMDK_COMPRESSED ? "true" : "false",
                       e->unclean ? "true" : "false");
            putchar('}');
        }
        putchar(']');
    }
    if (image->parent) {
        printf(", \"parent\": ");
        info_json(image->parent);
    }
    putchar('}');
}

static struct image *open_to_read(const struct disk_args *args, struct tv_error *err)
{
    struct disk_options options = {.read_only = true, .format = args->format};
    return image_open(args->file[0], &options, err);
}

int disk_cmd_info(const struct disk_args *args)
{
    struct tv_error err;
    struct image *image = open_to_read(args, &err);
    if (!image)
        return cli_fail("%s", err.message);
    if (args->json) {
        info_json(image);
        putchar('\n');
    } else {
        for (struct image *i = image; i; i = i->parent) {
            info_text(i);
            if (i->parent)
                putchar('\n');
        }
    }
    image_close(image);
    return EXIT_OK;
}

struct findings {
    bool json;
    unsigned count;
};

static void report(void *opaque, const char *message)
{
    struct findings *f = opaque;
    if (f->json) {
        printf("%s\n  ", f->count ? "," : "");
        print_string(message);
    } else {
        puts(message);
    }
    f->count++;
}

int disk_cmd_check(const struct disk_args *args)
{
    struct tv_error err;
    struct findings findings = {.json = args->json};
    struct vmdk_check check = {.repair = args->repair, .report = report, .opaque = &findings};
    struct image *image = open_to_read(args, &err);
    bool vmdk = image ? vmdk_of(image) != NULL : true;
    image_close(image);
    if (!vmdk) {
        puts(args->json ? "{\"errors\": 0}" : "Nothing to check: only VMDK images have tables.");
        return EXIT_OK;
    }
    if (args->json)
        printf("{\"findings\": [");
    int result = vmdk_check(args->file[0], &check, &err);
    uint64_t left = check.errors - check.repaired;
    if (args->json)
        printf("], \"errors\": %" PRIu64 ", \"notes\": %" PRIu64 ", \"repaired\": %" PRIu64
               ", \"leaked_grains\": %" PRIu64 ", \"allocated_grains\": %" PRIu64
               ", \"grains\": %" PRIu64 "}\n",
               left, check.notes, check.repaired, check.leaked, check.allocated, check.grains);
    if (result != 0)
        return cli_fail("%s", err.message);
    if (!args->json && !check.errors)
        printf("%s: no errors; %" PRIu64 " of %" PRIu64 " grains are stored", args->file[0],
               check.allocated, check.grains);
    else if (!args->json)
        printf("%s: %" PRIu64 " errors, %" PRIu64 " repaired", args->file[0], check.errors,
               check.repaired);
    if (!args->json && check.leaked)
        printf("; %" PRIu64 " grains of the file are unused", check.leaked);
    if (!args->json)
        putchar('\n');
    return left ? EXIT_FAILED : EXIT_OK;
}

int disk_cmd_map(const struct disk_args *args)
{
    struct tv_error err;
    struct image *image = open_to_read(args, &err);
    if (!image)
        return cli_fail("%s", err.message);
    if (args->json)
        putchar('[');
    else
        printf("%16s %16s  %5s  %s\n", "offset", "length", "depth", "where");
    int error = 0;
    bool first = true;
    for (uint64_t offset = 0, n; offset < image->size && !error; offset += n) {
        struct image_range range, next;
        error = image->ops->map(image, offset, image->size - offset, &range);
        n = range.length;
        /* Ranges that go on in the same way are one line. */
        while (!error && offset + n < image->size &&
               image->ops->map(image, offset + n, image->size - offset - n, &next) == 0 &&
               next.data == range.data && next.depth == range.depth &&
               next.compressed == range.compressed &&
               (!range.data || range.compressed ||
                (next.file == range.file && next.file_offset == range.file_offset + n)))
            n += next.length;
        if (error || (!range.data && !args->json))
            continue;
        if (args->json) {
            printf("%s\n{\"start\": %" PRIu64 ", \"length\": %" PRIu64
                   ", \"depth\": %u, \"data\": %s, \"zero\": %s, \"compressed\": %s",
                   first ? "" : ",", offset, n, range.depth, range.data ? "true" : "false",
                   range.data ? "false" : "true", range.compressed ? "true" : "false");
            if (range.data && range.file) {
                printf(", \"file\": ");
                print_string(range.file);
                printf(", \"offset\": %" PRIu64, range.file_offset);
            }
            putchar('}');
        } else if (range.file) {
            printf("%#16" PRIx64 " %#16" PRIx64 "  %5u  %s at %#" PRIx64 "\n", offset, n,
                   range.depth, range.file, range.file_offset);
        } else {
            printf("%#16" PRIx64 " %#16" PRIx64 "  %5u  %s\n", offset, n, range.depth,
                   range.compressed ? "compressed" : "stored");
        }
        first = false;
    }
    if (args->json)
        puts("]");
    if (error)
        cli_fail("%s: a table is damaged: %s", args->file[0], strerror(error));
    image_close(image);
    return error ? EXIT_FAILED : EXIT_OK;
}
