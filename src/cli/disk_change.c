/* trivisor disk create, convert, resize, snapshot, commit, rebase, compare. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/cmd_disk.h"
#include "disk/tools.h"
#include "util/util.h"

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcasecmp(text + n - m, end);
}

static int check_choice(const char *what, const char *value, const char *const *choices)
{
    for (size_t i = 0; value && choices[i]; i++) {
        if (!strcasecmp(value, choices[i]))
            return 0;
    }
    return value ? cli_usage_error("disk: %s '%s' is not known", what, value) : 0;
}

static int check_choices(const struct disk_args *args)
{
    static const char *const adapters[] = {"ide", "lsilogic", "buslogic", "pvscsi", NULL};
    int status = check_choice("--type", args->type, vmdk_types);
    return status ? status : check_choice("--adapter", args->adapter, adapters);
}

static struct vmdk_create creation(const struct disk_args *args)
{
    return (struct vmdk_create){.type = args->type,
                                .adapter = args->adapter,
                                .parent = args->parent,
                                .zeroed_grains = args->zeroed_grains,
                                .preallocate = args->preallocate,
                                .overwrite = args->force};
}

/* The format that a new file of that name has where none was asked for. */
static const char *format_for(const char *path, const struct disk_args *args)
{
    static const struct {
        const char *end, *format;
    } names[] = {{".vmdk", "vmdk"},   {".img", "raw"}, {".raw", "raw"}, {".iso", "raw"},
                 {".qcow2", "qcow2"}, {".vhd", "vpc"}, {".vdi", "vdi"}, {".vhdx", "vhdx"}};
    for (size_t i = 0; i < ARRAY_SIZE(names) && !args->type; i++) {
        if (ends_with(path, names[i].end))
            return names[i].format;
    }
    return "vmdk";
}

int disk_cmd_create(const struct disk_args *args)
{
    struct tv_error err;
    uint64_t size = 0;
    const char *format = args->format ? args->format : format_for(args->file[0], args);
    int status = check_choices(args);
    if (status)
        return status;
    if (args->files == 2 && !disk_parse_size(args->file[1], &size))
        return cli_usage_error("disk create: '%s' is not a size; 8G is one", args->file[1]);
    if (!size && !args->parent)
        return cli_usage_error("disk create: no size given");
    struct vmdk_create create = creation(args);
    create.size = size;
    int result;
    if (!strcmp(format, "vmdk"))
        result = vmdk_create(args->file[0], &create, &err);
    else if (args->parent)
        return cli_usage_error("disk create: only a VMDK image has a parent");
    else if (!strcmp(format, "raw"))
        result = disk_create_raw(args->file[0], size, args->force, args->preallocate, &err);
    else
        result = nbd_image_create(args->file[0], format, size, args->force, &err);
    return result == 0 ? EXIT_OK : cli_fail("%s", err.message);
}

int disk_cmd_convert(const struct disk_args *args)
{
    struct tv_error err;
    unsigned last = 101;
    int status = check_choices(args);
    if (status)
        return status;
    if (args->parent)
        return cli_usage_error("disk convert: a copy has no parent");
    const char *format = args->to ? args->to : format_for(args->file[1], args);
    struct vmdk_create create = creation(args);
    int result = disk_convert(args->file[0], args->format, args->file[1], format, &create,
                              disk_show_progress, &last, &err);
    return result == 0 ? EXIT_OK : cli_fail("%s", err.message);
}

int disk_cmd_resize(const struct disk_args *args)
{
    struct tv_error err;
    uint64_t size;
    if (!disk_parse_size(args->file[1], &size))
        return cli_usage_error("disk resize: '%s' is not a size; 8G is one", args->file[1]);
    return disk_resize(args->file[0], args->format, size, args->shrink, &err) == 0
               ? EXIT_OK
               : cli_fail("%s", err.message);
}

int disk_cmd_snapshot(const struct disk_args *args)
{
    struct tv_error err;
    int status = check_choices(args);
    if (status)
        return status;
    struct vmdk_create create = creation(args);
    create.parent = args->file[0];
    return vmdk_create(args->file[1], &create, &err) == 0 ? EXIT_OK : cli_fail("%s", err.message);
}

int disk_cmd_commit(const struct disk_args *args)
{
    struct tv_error err;
    unsigned last = 101;
    return disk_commit(args->file[0], disk_show_progress, &last, &err) == 0
               ? EXIT_OK
               : cli_fail("%s", err.message);
}

int disk_cmd_rebase(const struct disk_args *args)
{
    struct tv_error err;
    unsigned last = 101;
    return disk_rebase(args->file[0], args->file[1], args->unsafe, disk_show_progress, &last,
                       &err) == 0
               ? EXIT_OK
               : cli_fail("%s", err.message);
}

int disk_cmd_compare(const struct disk_args *args)
{
    struct tv_error err;
    uint64_t differ;
    if (disk_compare(args->file[0], args->file[1], args->format, NULL, &differ, &err) != 0)
        return cli_fail("%s", err.message);
    if (differ == UINT64_MAX) {
        puts("The images hold the same.");
        return EXIT_OK;
    }
    printf("The images differ at offset %" PRIu64 " of the disk.\n", differ);
    return EXIT_FAILED;
}
