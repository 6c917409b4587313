/* Disk requests that a test waits for, and a pattern that shows where its bytes belong. */
#ifndef TESTS_UNIT_DISK_SYNC_H
#define TESTS_UNIT_DISK_SYNC_H

#include <pthread.h>
#include <string.h>

#include "disk/disk.h"

struct disk_sync {
    struct disk_request request;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int finished, error;
};

static inline void disk_sync_done(struct disk_request *request, int error)
{
    struct disk_sync *sync = request->opaque;
    pthread_mutex_lock(&sync->lock);
    sync->error = error;
    sync->finished = 1;
    pthread_cond_signal(&sync->cond);
    pthread_mutex_unlock(&sync->lock);
}

static inline int disk_do(struct disk *disk, enum disk_op op, bool fua, uint64_t offset, void *data,
                          uint64_t length)
{
    struct iovec iov = {.iov_base = data, .iov_len = data ? (size_t)length : 0};
    struct disk_sync sync = {.request = {.op = op,
                                         .fua = fua,
                                         .offset = offset,
                                         .length = length,
                                         .iov = &iov,
                                         .iov_count = data ? 1 : 0,
                                         .done = disk_sync_done},
                             .lock = PTHREAD_MUTEX_INITIALIZER,
                             .cond = PTHREAD_COND_INITIALIZER};
    sync.request.opaque = &sync;
    /* On this thread where that can be, as controllers do, but not always. */
    if (offset / 4096 % 2 && disk_try(disk, &sync.request))
        return 0;
    disk_submit(disk, &sync.request);
    pthread_mutex_lock(&sync.lock);
    while (!sync.finished)
        pthread_cond_wait(&sync.cond, &sync.lock);
    pthread_mutex_unlock(&sync.lock);
    return sync.error;
}

/* Each 8 bytes tell their offset and `tag`. */
static inline void pattern_fill(void *data, uint64_t offset, uint64_t length, uint64_t tag)
{
    for (uint64_t i = 0; i < length; i += 8) {
        uint64_t value = (offset + i) * 0x9e3779b97f4a7c15u ^ tag;
        memcpy((char *)data + i, &value, 8);
    }
}

#endif
