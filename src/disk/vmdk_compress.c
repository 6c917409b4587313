/* Compressed grains: unpacked into a small cache, since readers rarely want a whole grain. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "disk/vmdk.h"
#include "util/util.h"

#define SLOTS 16

struct grain_cache {
    struct {
        uint64_t grain, used;
        void *data; /* NULL: empty */
    } slot[SLOTS];
    uint64_t clock;
};

int compressed_unpack(struct vmdk_extent *e, uint64_t grain, uint32_t entry, void *out)
{
    uint64_t at = (uint64_t)entry * DISK_SECTOR, end = e->file_end;
    struct vmdk_marker marker = {0};
    size_t limit = compressBound(e->grain) + DISK_SECTOR, skip = 0;
    if (e->header.flags & VMDK_MARKERS) {
        int error = at + VMDK_GRAIN_MARKER > end
                        ? EIO
                        : file_read(&e->file, &marker, VMDK_GRAIN_MARKER, at);
        if (error)
            return error;
        if (marker.value != grain * e->header.grain_size || !marker.size || marker.size > limit)
            return EIO;
        limit = marker.size;
        skip = VMDK_GRAIN_MARKER;
    }
    if (at + skip >= end)
        return EIO;
    limit = (size_t)MIN((uint64_t)limit, end - at - skip);
    if (limit < marker.size)
        return EIO;
    void *packed = malloc(limit);
    int error = packed ? file_read(&e->file, packed, limit, at + skip) : ENOMEM;
    if (!error) {
        z_stream z = {.next_in = packed,
                      .avail_in = (uInt)limit,
                      .next_out = out,
                      .avail_out = (uInt)e->grain};
        if (inflateInit(&z) != Z_OK) {
            error = ENOMEM;
        } else {
            /* The disk's last grain may be short. */
            int status = inflate(&z, Z_FINISH);
            uint64_t whole = MIN(e->grain, e->header.capacity * DISK_SECTOR - grain * e->grain);
            if (status != Z_STREAM_END || z.total_out < whole)
                error = EIO;
            inflateEnd(&z);
        }
    }
    free(packed);
    return error;
}

int compressed_read(struct vmdk_extent *e, uint64_t grain, uint32_t entry, uint64_t within,
                    struct iov_cursor *cursor, uint64_t length)
{
    int error = 0;
    pthread_mutex_lock(&e->lock);
    if (!e->cache)
        e->cache = calloc(1, sizeof *e->cache);
    struct grain_cache *cache = e->cache;
    unsigned victim = 0, hit = SLOTS;
    for (unsigned i = 0; cache && i < SLOTS; i++) {
        if (cache->slot[i].data && cache->slot[i].grain == grain)
            hit = i;
        if (cache->slot[i].used < cache->slot[victim].used)
            victim = i;
    }
    if (!cache) {
        error = ENOMEM;
    } else if (hit == SLOTS) {
        hit = victim;
        if (!cache->slot[hit].data)
            cache->slot[hit].data = malloc(e->grain);
        cache->slot[hit].grain = UINT64_MAX;
        error = cache->slot[hit].data ? compressed_unpack(e, grain, entry, cache->slot[hit].data)
                                      : ENOMEM;
        if (!error)
            cache->slot[hit].grain = grain;
    }
    if (!error) {
        cache->slot[hit].used = ++cache->clock;
        iov_put(cursor, (char *)cache->slot[hit].data + within, length);
    }
    pthread_mutex_unlock(&e->lock);
    return error;
}

void compressed_close(struct vmdk_extent *e)
{
    for (unsigned i = 0; e->cache && i < SLOTS; i++)
        free(e->cache->slot[i].data);
    free(e->cache);
}
