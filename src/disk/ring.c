#include "disk/ring.h"

#include <errno.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/util.h"

#define ENTRIES 256

struct ring {
    void (*done)(void *opaque, void *tag, int result);
    void *opaque;
    int fd;
    pthread_mutex_t lock; /* submission */
    _Atomic unsigned under_way;
    void *sq_map, *cq_map;
    size_t sq_size, cq_size, sqe_size;
    struct io_uring_sqe *sqes;
    _Atomic unsigned *sq_head, *sq_tail, *cq_head, *cq_tail;
    unsigned sq_mask, cq_mask, *sq_array;
    struct io_uring_cqe *cqes;
    pthread_t thread;
    bool has_thread;
};

static int ring_enter(const struct ring *r, unsigned submit, unsigned wait)
{
    return (int)syscall(SYS_io_uring_enter, r->fd, submit, wait, wait ? IORING_ENTER_GETEVENTS : 0,
                        NULL, 0);
}

static void *completions(void *opaque)
{
    struct ring *r = opaque;
    pthread_setname_np(pthread_self(), "disk-ring");
    for (;;) {
        unsigned head = atomic_load_explicit(r->cq_head, memory_order_relaxed);
        if (head == atomic_load_explicit(r->cq_tail, memory_order_acquire)) {
            if (ring_enter(r, 0, 1) < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY)
                return NULL;
            continue;
        }
        struct io_uring_cqe cqe = r->cqes[head & r->cq_mask];
        atomic_store_explicit(r->cq_head, head + 1, memory_order_release);
        if (!cqe.user_data)
            return NULL; /* ring_close() */
        atomic_fetch_sub(&r->under_way, 1);
        r->done(r->opaque, (void *)(uintptr_t)cqe.user_data, cqe.res);
    }
}

/* With the lock: one entry to the kernel. */
static bool push(struct ring *r, const struct io_uring_sqe *sqe)
{
    unsigned tail = atomic_load_explicit(r->sq_tail, memory_order_relaxed);
    r->sqes[tail & r->sq_mask] = *sqe;
    r->sq_array[tail & r->sq_mask] = tail & r->sq_mask;
    atomic_store_explicit(r->sq_tail, tail + 1, memory_order_release);
    int n;
    do
        n = ring_enter(r, 1, 0);
    while (n < 0 && errno == EINTR);
    if (n == 1)
        return true;
    /* Not taken: the kernel has not seen it, so it is ours again. */
    if (atomic_load_explicit(r->sq_head, memory_order_acquire) != tail)
        return true;
    atomic_store_explicit(r->sq_tail, tail, memory_order_release);
    return false;
}

bool ring_read(struct ring *r, int fd, uint64_t offset, const struct iovec *iov, unsigned iov_count,
               void *tag)
{
    struct io_uring_sqe sqe = {.opcode = IORING_OP_READV,
                               .fd = fd,
                               .off = offset,
                               .addr = (uintptr_t)iov,
                               .len = iov_count,
                               .user_data = (uintptr_t)tag};
    if (iov_count > IOV_MAX)
        return false;
    if (atomic_fetch_add(&r->under_way, 1) >= ENTRIES) {
        atomic_fetch_sub(&r->under_way, 1);
        return false;
    }
    pthread_mutex_lock(&r->lock);
    bool taken = push(r, &sqe);
    pthread_mutex_unlock(&r->lock);
    if (!taken)
        atomic_fetch_sub(&r->under_way, 1);
    return taken;
}

static bool ring_map(struct ring *r, const struct io_uring_params *p)
{
    r->sq_size = p->sq_off.array + p->sq_entries * sizeof(unsigned);
    r->cq_size = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    r->sqe_size = p->sq_entries * sizeof(struct io_uring_sqe);
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    r->sq_map = mmap(NULL, r->sq_size, prot, flags, r->fd, IORING_OFF_SQ_RING);
    r->cq_map = mmap(NULL, r->cq_size, prot, flags, r->fd, IORING_OFF_CQ_RING);
    r->sqes = mmap(NULL, r->sqe_size, prot, flags, r->fd, IORING_OFF_SQES);
    if (r->sq_map == MAP_FAILED || r->cq_map == MAP_FAILED || r->sqes == MAP_FAILED)
        return false;
    char *sq = r->sq_map, *cq = r->cq_map;
    r->sq_head = (_Atomic unsigned *)(sq + p->sq_off.head);
    r->sq_tail = (_Atomic unsigned *)(sq + p->sq_off.tail);
    r->sq_mask = *(unsigned *)(sq + p->sq_off.ring_mask);
    r->sq_array = (unsigned *)(sq + p->sq_off.array);
    r->cq_head = (_Atomic unsigned *)(cq + p->cq_off.head);
    r->cq_tail = (_Atomic unsigned *)(cq + p->cq_off.tail);
    r->cq_mask = *(unsigned *)(cq + p->cq_off.ring_mask);
    r->cqes = (struct io_uring_cqe *)(cq + p->cq_off.cqes);
    return true;
}

struct ring *ring_open(void (*done)(void *opaque, void *tag, int result), void *opaque)
{
    struct io_uring_params p = {0};
    struct ring *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    *r = (struct ring){.done = done,
                       .opaque = opaque,
                       .sq_map = MAP_FAILED,
                       .cq_map = MAP_FAILED,
                       .sqes = MAP_FAILED};
    pthread_mutex_init(&r->lock, NULL);
    r->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
    if (r->fd >= 0 && p.features & IORING_FEAT_NODROP && ring_map(r, &p))
        r->has_thread = pthread_create(&r->thread, NULL, completions, r) == 0;
    if (r->has_thread)
        return r;
    ring_close(r);
    return NULL;
}

void ring_close(struct ring *r)
{
    if (!r)
        return;
    if (r->has_thread) {
        struct io_uring_sqe end = {.opcode = IORING_OP_NOP};
        pthread_mutex_lock(&r->lock);
        while (!push(r, &end))
            usleep(1000);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    if (r->sq_map != MAP_FAILED)
        munmap(r->sq_map, r->sq_size);
    if (r->cq_map != MAP_FAILED)
        munmap(r->cq_map, r->cq_size);
    if (r->sqes != MAP_FAILED)
        munmap(r->sqes, r->sqe_size);
    if (r->fd >= 0)
        close(r->fd);
    pthread_mutex_destroy(&r->lock);
    free(r);
}
