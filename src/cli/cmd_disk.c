/* trivisor disk: the verbs and their command lines. */
#include "cli/cmd_disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/util.h"

static const char help[] =
    "usage: trivisor disk VERB [OPTION...] FILE...\n"
    "  create FILE SIZE      new image (8G: with K, M, G or T); VMDK, or as named\n"
    "  info FILE             format, type, sizes, parents          [--json]\n"
    "  check FILE            is it sound?                  [--repair] [--json]\n"
    "  convert FROM TO       copy into another format or type\n"
    "  compare A B           do two images hold the same?  (status 1: no)\n"
    "  map FILE              where the data is                     [--json]\n"
    "  resize FILE SIZE      make it larger (raw with --shrink: smaller)\n"
    "  snapshot FILE NEW     NEW gets all writes from now on, FILE is its parent\n"
    "  commit FILE           write a snapshot's changes into its parent\n"
    "  rebase FILE [PARENT]  another parent, or none; contents stay [--unsafe]\n"
    "options:\n"
    "  --format F    what FILE or FROM is, else found out; create: what to make\n"
    "  --to F        convert: raw, vmdk, or qcow2, vpc, vdi, vhdx through qemu-nbd\n"
    "  --type T      monolithicSparse, monolithicFlat, twoGbMaxExtentSparse,\n"
    "                twoGbMaxExtentFlat, streamOptimized, vmfs\n"
    "  --adapter A   ide, lsilogic (default), buslogic, pvscsi    --preallocate\n"
    "  --parent P    create: a snapshot of P    --zeroed-grains   --force (overwrite)\n"
    "nbd:// and nbd+unix:// addresses are images too. See trivisor(1).\n";

static const struct verb {
    const char *name;
    int (*run)(const struct disk_args *);
    unsigned least, most; /* names of files, or a size */
} verbs[] = {
    {"create", disk_cmd_create, 1, 2},   {"info", disk_cmd_info, 1, 1},
    {"check", disk_cmd_check, 1, 1},     {"convert", disk_cmd_convert, 2, 2},
    {"compare", disk_cmd_compare, 2, 2}, {"map", disk_cmd_map, 1, 1},
    {"resize", disk_cmd_resize, 2, 2},   {"snapshot", disk_cmd_snapshot, 2, 2},
    {"commit", disk_cmd_commit, 1, 1},   {"rebase", disk_cmd_rebase, 1, 2},
};

bool disk_parse_size(const char *text, uint64_t *size)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (end == text || errno || *text == '-')
        return false;
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if ((*end && (!unit || end[1])) || !n || n > (UINT64_C(1) << 62) >> shift)
        return false;
    *size = n << shift;
    return true;
}

void disk_show_progress(void *opaque, uint64_t done, uint64_t total)
{
    unsigned *last = opaque, percent = total ? (unsigned)(done * 100.0 / (double)total) : 100;
    if (percent == *last || !isatty(STDERR_FILENO))
        return;
    *last = percent;
    fprintf(stderr, "\r%3u %%%s", percent, percent == 100 ? "\r      \r" : "");
}

static int option(struct disk_args *args, char **argv, int argc, int *i)
{
    const struct {
        const char *name;
        const char **value;
        bool *flag;
    } options[] = {
        {"--format", &args->format, NULL},
        {"--to", &args->to, NULL},
        {"--type", &args->type, NULL},
        {"--adapter", &args->adapter, NULL},
        {"--parent", &args->parent, NULL},
        {"--json", NULL, &args->json},
        {"--repair", NULL, &args->repair},
        {"--force", NULL, &args->force},
        {"--unsafe", NULL, &args->unsafe},
        {"--shrink", NULL, &args->shrink},
        {"--preallocate", NULL, &args->preallocate},
        {"--zeroed-grains", NULL, &args->zeroed_grains},
    };
    for (size_t j = 0; j < ARRAY_SIZE(options); j++) {
        if (strcmp(argv[*i], options[j].name) != 0)
            continue;
        if (options[j].flag) {
            *options[j].flag = true;
            return 0;
        }
        if (++*i >= argc)
            return cli_usage_error("disk: %s needs an argument", argv[*i - 1]);
        *options[j].value = argv[*i];
        return 0;
    }
    return cli_usage_error("disk %s: unknown option '%s'", args->verb, argv[*i]);
}

int cmd_disk(int argc, char **argv)
{
    struct disk_args args = {0};
    const struct verb *verb = NULL;
    if (argc < 2)
        return cli_usage_error("disk: no verb given; try trivisor disk --help");
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(help, stdout);
            return EXIT_OK;
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
        if (!strcmp(argv[1], verbs[i].name))
            verb = &verbs[i];
    }
    if (!verb)
        return cli_usage_error("disk: unknown verb '%s'", argv[1]);
    args.verb = verb->name;
    bool names_only = false;
    for (int i = 2; i < argc; i++) {
        int status = 0;
        if (!names_only && !strcmp(argv[i], "--"))
            names_only = true;
        else if (!names_only && !strncmp(argv[i], "--", 2))
            status = option(&args, argv, argc, &i);
        else if (args.files == verb->most)
            status = cli_usage_error("disk %s: unexpected argument '%s'", verb->name, argv[i]);
        else
            args.file[args.files++] = argv[i];
        if (status != 0)
            return status;
    }
    if (args.files < verb->least)
        return cli_usage_error("disk %s: %s", verb->name,
                               verb->least == 1 ? "no file given" : "two arguments are needed");
    return verb->run(&args);
}
