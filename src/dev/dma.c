#include "dev/dma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "util/util.h"

#define FIRST_CAPACITY 16
#define ENTRIES_MAX    4096 /* of 4 KiB each: 16 MiB */
#define WAIT_SECONDS   5

static bool grow(struct dma_list *list)
{
    unsigned capacity = list->capacity ? 2 * list->capacity : FIRST_CAPACITY;
    if (capacity > ENTRIES_MAX)
        return false;
    struct iovec *iov = realloc(list->iov, capacity * sizeof *iov);
    if (!iov)
        return false;
    list->iov = iov;
    list->capacity = capacity;
    return true;
}

bool dma_add(struct dma_list *list, const struct physmem *mem, uint64_t gpa, uint64_t length,
             bool write)
{
    if (!length)
        return true;
    uint8_t *host = write ? physmem_host_write(mem, gpa, length) : physmem_host(mem, gpa, length);
    if (!host)
        return false;
    struct iovec *last = list->count ? &list->iov[list->count - 1] : NULL;
    if (last && (uint8_t *)last->iov_base + last->iov_len == host) {
        last->iov_len += length;
    } else {
        if (list->count == list->capacity && !grow(list))
            return false;
        list->iov[list->count++] = (struct iovec){host, length};
    }
    list->length += length;
    return true;
}

void dma_free(struct dma_list *list)
{
    free(list->iov);
    *list = (struct dma_list){0};
}

/* The part of an entry behind the first `skip` bytes, at most `length` of it. */
static struct iovec part(const struct iovec *entry, uint64_t *skip, uint64_t length)
{
    uint64_t before = MIN(*skip, entry->iov_len);
    *skip -= before;
    return (struct iovec){(uint8_t *)entry->iov_base + before,
                          MIN(entry->iov_len - before, length)};
}

uint64_t dma_get(const struct iovec *iov, unsigned count, uint64_t skip, void *to, uint64_t length)
{
    uint64_t done = 0;
    for (unsigned i = 0; i < count && done < length; i++) {
        struct iovec p = part(&iov[i], &skip, length - done);
        memcpy((uint8_t *)to + done, p.iov_base, p.iov_len);
        done += p.iov_len;
    }
    return done;
}

uint64_t dma_put(struct physmem *mem, const struct iovec *iov, unsigned count, uint64_t skip,
                 const void *from, uint64_t length)
{
    uint64_t done = 0;
    for (unsigned i = 0; i < count && done < length; i++) {
        struct iovec p = part(&iov[i], &skip, length - done);
        memcpy(p.iov_base, (const uint8_t *)from + done, p.iov_len);
        physmem_written(mem, p.iov_base, p.iov_len);
        done += p.iov_len;
    }
    return done;
}

void dma_written(struct physmem *mem, const struct iovec *iov, unsigned count, uint64_t length)
{
    for (unsigned i = 0; i < count && length; i++) {
        uint64_t part_length = MIN(iov[i].iov_len, length);
        physmem_written(mem, iov[i].iov_base, part_length);
        length -= part_length;
    }
}

void dma_count_init(struct dma_count *count, struct device_env *env)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&count->idle, &attr);
    pthread_condattr_destroy(&attr);
    count->env = env;
}

void dma_count_end(struct dma_count *count)
{
    pthread_cond_destroy(&count->idle);
}

void dma_begin(struct dma_count *count)
{
    count->under_way++;
}

void dma_finish(struct dma_count *count)
{
    if (--count->under_way == 0)
        pthread_cond_broadcast(&count->idle);
}

bool dma_wait(struct dma_count *count)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WAIT_SECONDS;
    count->waiting++;
    while (count->under_way)
        if (pthread_cond_timedwait(&count->idle, count->env->lock, &until) == ETIMEDOUT)
            break;
    count->waiting--;
    return count->under_way == 0;
}
