#include "bt/perf_map.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/error.h"

struct symbol {
    uint64_t address;
    char *name;
};

struct perf_map {
    FILE *file; /* locked by stdio; a line is one call */
    _Atomic bool evicted;
    bool rewriting;
    struct symbol *symbols; /* by address */
    size_t symbol_count;
};

static int by_address(const void *a, const void *b)
{
    const struct symbol *x = a, *y = b;
    return x->address < y->address ? -1 : x->address > y->address;
}

static int read_symbols(struct perf_map *map, const char *path, struct tv_error *err)
{
    FILE *in = fopen(path, "re");
    if (!in)
        return tv_fail_errno(err, errno, "--symbols: cannot read %s", path);
    char line[512], type, name[256];
    uint64_t address;
    size_t room = 0;
    int result = 0;
    while (result == 0 && fgets(line, sizeof line, in)) {
        if (sscanf(line, "%" SCNx64 " %c %255s", &address, &type, name) != 3 ||
            !strchr("tTwW", type))
            continue;
        if (map->symbol_count == room) {
            room = room ? 2 * room : 1024;
            struct symbol *more = realloc(map->symbols, room * sizeof *more);
            if (!more) {
                result = tv_fail(err, "--symbols: out of memory");
                break;
            }
            map->symbols = more;
        }
        char *copy = strdup(name);
        if (!copy)
            result = tv_fail(err, "--symbols: out of memory");
        else
            map->symbols[map->symbol_count++] = (struct symbol){address, copy};
    }
    fclose(in);
    if (result == 0 && !map->symbol_count)
        result = tv_fail(err, "--symbols %s: no line is \"ADDRESS t NAME\"", path);
    if (map->symbol_count)
        qsort(map->symbols, map->symbol_count, sizeof *map->symbols, by_address);
    return result;
}

struct perf_map *perf_map_create(const char *path, const char *symbols, struct tv_error *err)
{
    char usual[64];
    snprintf(usual, sizeof usual, "/tmp/perf-%d.map", (int)getpid());
    struct perf_map *map = calloc(1, sizeof *map);
    if (!map) {
        tv_fail(err, "out of memory");
        return NULL;
    }
    if (!path)
        path = usual;
    map->file = fopen(path, "we");
    if (!map->file)
        tv_fail_errno(err, errno, "--log perfmap: cannot create %s", path);
    if (!map->file || (symbols && read_symbols(map, symbols, err) < 0)) {
        perf_map_free(map);
        return NULL;
    }
    return map;
}

void perf_map_free(struct perf_map *map)
{
    if (!map)
        return;
    if (map->file)
        fclose(map->file);
    for (size_t i = 0; i < map->symbol_count; i++)
        free(map->symbols[i].name);
    free(map->symbols);
    free(map);
}

void perf_map_stubs(struct perf_map *map, const struct bt *bt)
{
    fprintf(map->file, "%" PRIxPTR " %" PRIx64 " translator stubs\n", (uintptr_t)bt->exec,
            bt->code_start);
}

/* The last symbol at or below `address`; NULL: none within a megabyte. */
static const struct symbol *find_symbol(const struct perf_map *map, uint64_t address)
{
    size_t low = 0, high = map->symbol_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->symbols[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low || address - map->symbols[low - 1].address > 1 << 20)
        return NULL;
    return &map->symbols[low - 1];
}

void perf_map_block(struct perf_map *map, const struct bt_block *b)
{
    const uint8_t *start = MIN(b->entry_live, b->entry_saved);
    const struct symbol *symbol = find_symbol(map, b->rip);
    const char *ring = b->mode & BT_USER ? "user" : "guest";
    if (symbol)
        fprintf(map->file, "%" PRIxPTR " %tx %s+%#" PRIx64 "\n", (uintptr_t)start,
                b->code_end - start, symbol->name, b->rip - symbol->address);
    else
        fprintf(map->file, "%" PRIxPTR " %tx %s:%" PRIx64 "\n", (uintptr_t)start,
                b->code_end - start, ring, b->rip);
}

void perf_map_evicted(struct perf_map *map)
{
    map->evicted = true;
}

void perf_map_finish(struct perf_map *map, const struct bt *bt)
{
    if (!map->evicted)
        return;
    if (!map->rewriting) {
        map->rewriting = true;
        rewind(map->file);
        if (ftruncate(fileno(map->file), 0) < 0)
            return; /* the longer file has what the shorter one would */
    }
    perf_map_stubs(map, bt);
    for (unsigned i = 0; i < PAGE_HASH; i++)
        for (const struct bt_page *p = bt->pages[i]; p; p = p->hash_next)
            for (const struct bt_block *b = p->blocks; b; b = b->page_next)
                perf_map_block(map, b);
}
