/*
 * Names of translated code for the host's perf: a file of "START SIZE NAME" lines, which perf looks
 * for in /tmp/perf-PID.map. It belongs to the machine; all its vCPUs write to it.
 *
 * Lines are appended as blocks are made. Once a part of a cache was evicted, its addresses come to
 * stand for other code: then the file is written anew at the end, with what lives there.
 */
#ifndef TRIVISOR_BT_PERF_MAP_H
#define TRIVISOR_BT_PERF_MAP_H

#include "bt/bt.h"

struct perf_map;

/*
 * `path` NULL: where perf looks. `symbols`: names of guest addresses, a file like System.map or
 * /proc/kallsyms; NULL: none. Returns NULL with `err` filled on failure.
 */
struct perf_map *perf_map_create(const char *path, const char *symbols, struct tv_error *err);
void perf_map_free(struct perf_map *map);

void perf_map_stubs(struct perf_map *map, const struct bt *bt);
void perf_map_block(struct perf_map *map, const struct bt_block *b);
void perf_map_evicted(struct perf_map *map);
/* The vCPU's cache is about to go. */
void perf_map_finish(struct perf_map *map, const struct bt *bt);

#endif
