/* trivisor disk: a file for each group of verbs. */
#ifndef TRIVISOR_CLI_CMD_DISK_H
#define TRIVISOR_CLI_CMD_DISK_H

#include <stdbool.h>
#include <stdint.h>

#define DISK_ARGUMENTS_MAX 2

/* What stood on the command line. */
struct disk_args {
    const char *verb;
    const char *file[DISK_ARGUMENTS_MAX];
    unsigned files;
    const char *format, *to, *type, *adapter, *parent;
    bool json, repair, force, unsafe, shrink, preallocate, zeroed_grains;
};

/* Each returns the exit status. */
int disk_cmd_create(const struct disk_args *args);
int disk_cmd_resize(const struct disk_args *args);
int disk_cmd_snapshot(const struct disk_args *args);
int disk_cmd_rebase(const struct disk_args *args);
int disk_cmd_commit(const struct disk_args *args);
int disk_cmd_convert(const struct disk_args *args);
int disk_cmd_compare(const struct disk_args *args);
int disk_cmd_info(const struct disk_args *args);
int disk_cmd_check(const struct disk_args *args);
int disk_cmd_map(const struct disk_args *args);

/* "8G": bytes with an optional K, M, G or T. False if it is no size. */
bool disk_parse_size(const char *text, uint64_t *size);
/* A line of progress on a terminal's standard error. */
void disk_show_progress(void *opaque, uint64_t done, uint64_t total);

#endif
