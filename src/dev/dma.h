/*
 * Scatter-gather lists of guest memory: what a bus-master device makes of the addresses and lengths
 * that its driver gives, for transfers straight between guest memory and a disk. And the count of
 * transfers under way, which a reset waits for.
 */
#ifndef TRIVISOR_DEV_DMA_H
#define TRIVISOR_DEV_DMA_H

#include <sys/uio.h>

#include "dev/device.h"

struct dma_list {
    struct iovec *iov; /* host addresses inside guest memory */
    unsigned count, capacity;
    uint64_t length; /* bytes in all */
};

/*
 * Append [gpa, gpa+length); neighbours are merged. `write`: the device writes there. Returns false,
 * with the list as it was, if it is not all memory or the list cannot grow.
 */
bool dma_add(struct dma_list *list, const struct physmem *mem, uint64_t gpa, uint64_t length,
             bool write);
void dma_free(struct dma_list *list);
/* Copy between a list and a buffer, from byte `skip` of the list on; returns the bytes copied: what
 * both have. dma_put() keeps cached code coherent. */
uint64_t dma_get(const struct iovec *iov, unsigned count, uint64_t skip, void *to, uint64_t length);
uint64_t dma_put(struct physmem *mem, const struct iovec *iov, unsigned count, uint64_t skip,
                 const void *from, uint64_t length);
/* The first `length` bytes of the list were written (by a disk). */
void dma_written(struct physmem *mem, const struct iovec *iov, unsigned count, uint64_t length);

/* Transfers under way, under the device lock. */
struct dma_count {
    struct device_env *env;
    unsigned under_way;
    unsigned waiting; /* somebody waits: nothing new is to start */
    pthread_cond_t idle;
};

void dma_count_init(struct dma_count *count, struct device_env *env);
void dma_count_end(struct dma_count *count);
void dma_begin(struct dma_count *count);
void dma_finish(struct dma_count *count);
/*
 * Wait until there are none; the device lock is held, and let go while waiting. A transfer that the
 * host holds up (no space left) is waited for, but not for ever. Returns whether all ended.
 */
bool dma_wait(struct dma_count *count);

#endif
