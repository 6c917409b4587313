/*
 * Requests. A small one to one piece of one host file is tried on the submitter's thread
 * (disk_try): waking another thread takes several times as long as the copy. A read that has to
 * wait for the host's disk goes to io_uring where there is one, so that any number can wait. The
 * rest has a queue, and threads. So have writes: file systems that must not wait hand them to a
 * thread of the kernel's, which was measured to take longer than one of ours.
 *
 * A large read from the page cache is all copying: more threads than processors only take turns
 * with each other and with the vCPU, and each turn costs a good part of what the copy does. So no
 * more threads than the host has processors to spare are active, which means that they take
 * requests and do not expect to wait. One that has to wait after all stops being active first, and
 * has another one go on. When the active threads have more to do than they can, a vCPU with a
 * further request carries it out itself (disk_try), so that all processors copy. Writes to one host
 * file exclude each other in the kernel, which spins: of those that are plain copies one is done at
 * a time. Threads are started as they are needed, so a disk with one request at a time has one.
 *
 * Not every file system can be told not to wait for a write (ext4 cannot), and a write to the page
 * cache may wait all the same: for the journal, for memory, for a writer that holds the file. So it
 * is tried only where the thread is likely to get through: whole pages, and nothing else under way.
 * One that took long has the threads do all writes for a while, so that a vCPU spends little of its
 * time on waiting.
 */
#include "disk/disk.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "disk/image.h"
#include "disk/ring.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/look.h"
#include "util/processors.h"
#include "util/util.h"

/* The submitter, which may be a vCPU, copies what is in the page cache: not much of it, ... */
#define RING_LENGTH_MAX  (64u << 10)
#define TRY_LENGTH_MAX   (128u << 10)
/* ... unless all threads are at work or nothing else is to come. */
#define SHARE_LENGTH_MAX (2u << 20)
#define HOST_PAGE        4096u
#define SLOW_WRITE_NS    1000000 /* a write that was tried and took longer ... */
#define PAUSE_FACTOR     20      /* ... is the last for so many times its time */
#define THREADS_MAX      8
#define METADATA_SECONDS                                                                           \
    2 /* what is only in memory gets to the host after so long without a flush */

struct request_list {
    struct disk_request *head, **tail;
};

struct disk {
    struct image *image;
    struct disk_options options;
    bool may_try;
    struct ring *ring;    /* NULL: all goes to the threads */
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work, drained;
    struct request_list queue;
    struct request_list stalled; /* waits for space on the host */
    _Atomic uint32_t queued;
    unsigned under_way; /* submitted, done() has not returned, not stalled */
    unsigned threads, idle;
    unsigned active, active_max; /* threads that take requests without expecting to wait */
    unsigned called;             /* idle threads that are active from now on */
    bool writing;                /* a plain write to a host file is under way */
    bool closing, given_up;
    pthread_t tids[THREADS_MAX];
    /* disk_try(); no lock. */
    _Atomic bool writes_may_wait;   /* the file system cannot be told not to */
    _Atomic uint64_t writes_resume; /* not before: host's monotonic clock, ns */
};

static void list_init(struct request_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static void list_append(struct request_list *list, struct disk_request *request)
{
    request->next = NULL;
    *list->tail = request;
    list->tail = &request->next;
}

static struct disk_request *list_take(struct request_list *list)
{
    struct disk_request *request = list->head;
    if (request) {
        list->head = request->next;
        if (!list->head)
            list->tail = &list->head;
    }
    return request;
}

static int check(const struct disk *disk, const struct disk_request *request)
{
    if (request->op > DISK_WRITE_ZEROES)
        return EINVAL;
    if (request->op != DISK_READ && request->op != DISK_FLUSH && disk->image->read_only)
        return EROFS;
    if (request->op == DISK_FLUSH)
        return 0;
    if ((request->offset | request->length) % DISK_SECTOR || request->offset > disk->image->size ||
        request->length > disk->image->size - request->offset)
        return EINVAL;
    if ((request->op == DISK_READ || request->op == DISK_WRITE) &&
        iov_total(request->iov, request->iov_count) != request->length)
        return EINVAL;
    return 0;
}

static int perform(struct disk *disk, const struct disk_request *request)
{
    struct image *image = disk->image;
    struct iov_cursor cursor = iov_start(request->iov, request->iov_count);
    int error = check(disk, request);
    if (error)
        return error;
    switch (request->op) {
    case DISK_READ:
        return image->ops->read(image, request->offset, &cursor, request->length);
    case DISK_FLUSH:
        return image->read_only ? 0 : image->ops->flush(image);
    case DISK_WRITE:
        error = image->ops->write(image, request->offset, &cursor, request->length);
        break;
    case DISK_DISCARD:
        return image->ops->zero(image, request->offset, request->length, true);
    case DISK_WRITE_ZEROES:
        error = image->ops->zero(image, request->offset, request->length, false);
        break;
    }
    if (!error && (request->fua || disk->options.write_through))
        error = image->ops->flush(image);
    return error;
}

/* Called without the lock. */
static void finish(struct disk *disk, struct disk_request *request, int error)
{
    request->done(request, error);
    pthread_mutex_lock(&disk->lock);
    if (--disk->under_way == 0)
        pthread_cond_broadcast(&disk->drained);
    pthread_mutex_unlock(&disk->lock);
}

/* Keep a request that found no space. False: it was given up, or nobody wants to know. */
static bool stall(struct disk *disk, struct disk_request *request)
{
    if (!disk->options.no_space)
        return false;
    pthread_mutex_lock(&disk->lock);
    bool keep = !disk->given_up, first = !disk->stalled.head;
    if (keep) {
        list_append(&disk->stalled, request);
        if (--disk->under_way == 0)
            pthread_cond_broadcast(&disk->drained);
    }
    pthread_mutex_unlock(&disk->lock);
    if (keep && first) {
        struct tv_error text;
        tv_fail(&text,
                "%s: no space left on the host for the guest's write; the machine waits until some "
                "is free",
                disk->image->path);
        disk->options.no_space(disk->options.opaque, text.message);
    }
    return keep;
}

/*
 * How a thread is to carry out a request: copying from the page cache, as long as the data are
 * there; a write that excludes others; or waiting for who knows what.
 */
enum manner { COPIES, WRITES, WAITS };

static enum manner manner_of(struct disk *disk, const struct disk_request *request, int *fd,
                             uint64_t *offset)
{
    bool write = request->op == DISK_WRITE;
    if (!disk->may_try || (!write && request->op != DISK_READ) || !request->length ||
        request->iov_count > IOV_MAX || (write && (request->fua || disk->options.write_through)) ||
        check(disk, request) != 0 ||
        !disk->image->ops->direct(disk->image, write, request->offset, request->length, fd, offset))
        return WAITS;
    return write ? WRITES : COPIES;
}

/* All of it from the page cache, or false. */
static bool copy_cached(int fd, const struct disk_request *request, uint64_t offset)
{
    ssize_t got = preadv2(fd, request->iov, (int)request->iov_count, (off_t)offset, RWF_NOWAIT);
    return got >= 0 && (uint64_t)got == request->length;
}

static void *worker(void *opaque);

/* With the lock: there is a request to be taken; have another thread active, if that is of use. */
static void call_thread(struct disk *disk)
{
    if (disk->active >= disk->active_max)
        return;
    if (disk->idle > disk->called) {
        disk->called++;
        disk->active++;
        pthread_cond_signal(&disk->work);
    } else if (disk->threads < THREADS_MAX &&
               pthread_create(&disk->tids[disk->threads], NULL, worker, disk) == 0) {
        disk->threads++;
        disk->active++;
    }
}

/* With the lock: take a request that can be begun now, of the given manner; NULL: none. */
static struct disk_request *take(struct disk *disk)
{
    struct disk_request **link = &disk->queue.head, *request;
    while ((request = *link) && request->exclusive && disk->writing)
        link = &request->next;
    if (!request)
        return NULL;
    *link = request->next;
    if (!request->next)
        disk->queue.tail = link;
    disk->queued--;
    if (request->exclusive)
        disk->writing = true;
    return request;
}

/* With the lock: is there a request that can be begun now? */
static bool takeable(const struct disk *disk)
{
    const struct disk_request *request = disk->queue.head;
    while (request && request->exclusive && disk->writing)
        request = request->next;
    return request != NULL;
}

/* With the lock, by a thread that is not active: until it is. False: the disk is being closed. */
static bool wait_until_called(struct disk *disk)
{
    const struct image_ops *ops = disk->image->ops;
    disk->idle++;
    while (!disk->called && !disk->closing) {
        if (!ops->dirty || !ops->dirty(disk->image)) {
            pthread_cond_wait(&disk->work, &disk->lock);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += METADATA_SECONDS;
        if (pthread_cond_timedwait(&disk->work, &disk->lock, &until) != ETIMEDOUT || disk->called ||
            disk->closing)
            continue;
        disk->idle--;
        pthread_mutex_unlock(&disk->lock);
        ops->flush(disk->image);
        pthread_mutex_lock(&disk->lock);
        disk->idle++;
    }
    disk->idle--;
    if (!disk->called)
        return false;
    disk->called--;
    return true;
}

/* With the lock, by an active thread. */
static void stop_being_active(struct disk *disk)
{
    disk->active--;
    if (takeable(disk))
        call_thread(disk);
}

/* By an active thread with the lock, which it lets go. Returns whether it is still active. */
static bool carry_out(struct disk *disk, struct disk_request *request)
{
    int fd, error = 0;
    uint64_t offset;
    bool exclusive = request->exclusive, active = !exclusive;
    if (exclusive)
        stop_being_active(disk);
    pthread_mutex_unlock(&disk->lock);
    bool copied = active && manner_of(disk, request, &fd, &offset) == COPIES &&
                  copy_cached(fd, request, offset);
    if (!copied && active) {
        active = false;
        pthread_mutex_lock(&disk->lock);
        stop_being_active(disk);
        pthread_mutex_unlock(&disk->lock);
    }
    if (!copied)
        error = perform(disk, request);
    if (exclusive) {
        pthread_mutex_lock(&disk->lock);
        disk->writing = false;
        pthread_mutex_unlock(&disk->lock);
    }
    if (error != ENOSPC || !stall(disk, request))
        finish(disk, request, error);
    pthread_mutex_lock(&disk->lock);
    return active;
}

/* By an active thread, with the lock, which it lets go meanwhile. Returns when it began. */
static uint64_t look_for_request(struct disk *disk, const struct look *look)
{
    pthread_mutex_unlock(&disk->lock);
    uint64_t start = look_for(look, &disk->queued, UINT32_MAX);
    pthread_mutex_lock(&disk->lock);
    return start;
}

static void *worker(void *opaque)
{
    struct disk *disk = opaque;
    bool active = true;
    struct look look = {0};
    pthread_setname_np(pthread_self(), "disk");
    pthread_mutex_lock(&disk->lock);
    for (;;) {
        if (!active && disk->active < disk->active_max) {
            disk->active++;
            active = true;
        }
        struct disk_request *request = active ? take(disk) : NULL;
        if (request) {
            active = carry_out(disk, request);
            continue;
        }
        uint64_t start = active ? look_for_request(disk, &look) : host_ns();
        if (active && takeable(disk))
            continue;
        if (active)
            disk->active--;
        if (!wait_until_called(disk))
            break;
        look_learn(&look, start);
        active = true;
    }
    pthread_mutex_unlock(&disk->lock);
    return NULL;
}

/* With the lock. */
static void enqueue(struct disk *disk, struct disk_request *request)
{
    int fd;
    uint64_t offset;
    request->exclusive = manner_of(disk, request, &fd, &offset) == WRITES;
    list_append(&disk->queue, request);
    disk->queued++;
    if (takeable(disk))
        call_thread(disk);
}

/* On the ring's thread. What did not simply work is done again by a thread, which tells why. */
static void ring_done(void *opaque, void *tag, int result)
{
    struct disk *disk = opaque;
    struct disk_request *request = tag;
    if (result >= 0 && (uint64_t)result == request->length) {
        finish(disk, request, 0);
        return;
    }
    pthread_mutex_lock(&disk->lock);
    enqueue(disk, request);
    pthread_mutex_unlock(&disk->lock);
}

static bool submit_direct(struct disk *disk, struct disk_request *request)
{
    int fd;
    uint64_t offset;
    if (!disk->ring || request->op != DISK_READ || !request->length ||
        request->length > RING_LENGTH_MAX || check(disk, request) != 0 ||
        !disk->image->ops->direct(disk->image, false, request->offset, request->length, &fd,
                                  &offset))
        return false;
    pthread_mutex_lock(&disk->lock);
    disk->under_way++;
    pthread_mutex_unlock(&disk->lock);
    if (ring_read(disk->ring, fd, offset, request->iov, request->iov_count, request))
        return true;
    pthread_mutex_lock(&disk->lock);
    disk->under_way--;
    pthread_mutex_unlock(&disk->lock);
    return false;
}

static bool nothing_under_way(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    bool nothing = !disk->under_way && !disk->stalled.head;
    pthread_mutex_unlock(&disk->lock);
    return nothing;
}

static bool try_write(struct disk *disk, int fd, const struct disk_request *request,
                      uint64_t file_offset)
{
    if ((file_offset | request->length) % HOST_PAGE || !nothing_under_way(disk))
        return false;
    uint64_t start = host_ns();
    if (start < disk->writes_resume)
        return false;
    ssize_t put = -1;
    if (!disk->writes_may_wait) {
        put = pwritev2(fd, request->iov, (int)request->iov_count, (off_t)file_offset, RWF_NOWAIT);
        if (put < 0 && errno != EOPNOTSUPP && errno != ENOSYS)
            return false;
        disk->writes_may_wait = put < 0;
    }
    if (disk->writes_may_wait)
        put = pwritev(fd, request->iov, (int)request->iov_count, (off_t)file_offset);
    uint64_t end = host_ns();
    if (end - start > SLOW_WRITE_NS)
        disk->writes_resume = end + PAUSE_FACTOR * (end - start);
    return put >= 0 && (uint64_t)put == request->length;
}

/*
 * The threads have enough to do for as long as a vCPU copies and its guest then takes to ask for
 * more. With less than this, they were idle for a third of the time (docs/disks.md).
 */
static bool threads_are_behind(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    bool behind = disk->queued > disk->active_max && disk->active >= disk->active_max;
    pthread_mutex_unlock(&disk->lock);
    return behind;
}

bool disk_try(struct disk *disk, const struct disk_request *request)
{
    int fd;
    uint64_t offset;
    bool write = request->op == DISK_WRITE;
    if (request->length > (request->alone || !write ? SHARE_LENGTH_MAX : TRY_LENGTH_MAX))
        return false;
    switch (manner_of(disk, request, &fd, &offset)) {
    case WRITES:
        return try_write(disk, fd, request, offset);
    case COPIES:
        if (request->length > TRY_LENGTH_MAX && !request->alone && !threads_are_behind(disk))
            return false;
        return copy_cached(fd, request, offset);
    case WAITS:
        break;
    }
    return false;
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    if (submit_direct(disk, request))
        return;
    pthread_mutex_lock(&disk->lock);
    disk->under_way++;
    enqueue(disk, request);
    pthread_mutex_unlock(&disk->lock);
}

void disk_drain(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    while (disk->under_way)
        pthread_cond_wait(&disk->drained, &disk->lock);
    pthread_mutex_unlock(&disk->lock);
}

void disk_retry(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    struct disk_request *request;
    struct request_list stalled = disk->stalled;
    if (!stalled.head)
        list_init(&stalled);
    list_init(&disk->stalled);
    while ((request = list_take(&stalled))) {
        disk->under_way++;
        enqueue(disk, request);
    }
    pthread_mutex_unlock(&disk->lock);
}

bool disk_stalled(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    bool stalled = disk->stalled.head != NULL;
    pthread_mutex_unlock(&disk->lock);
    return stalled;
}

void disk_give_up(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    struct request_list stalled = disk->stalled;
    if (!stalled.head)
        list_init(&stalled);
    list_init(&disk->stalled);
    disk->given_up = true;
    pthread_mutex_unlock(&disk->lock);
    for (struct disk_request *request; (request = list_take(&stalled));)
        request->done(request, ENOSPC);
}

uint64_t disk_size(const struct disk *disk)
{
    return disk->image->size;
}

bool disk_read_only(const struct disk *disk)
{
    return disk->image->read_only;
}

struct disk *disk_open(const char *path, const struct disk_options *options, struct tv_error *err)
{
    struct disk *disk = calloc(1, sizeof *disk);
    if (!disk) {
        tv_fail(err, "%s: out of memory", path);
        return NULL;
    }
    if (options)
        disk->options = *options;
    disk->image = image_open(path, &disk->options, err);
    if (!disk->image) {
        free(disk);
        return NULL;
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->work, &attr);
    pthread_cond_init(&disk->drained, NULL);
    pthread_condattr_destroy(&attr);
    list_init(&disk->queue);
    list_init(&disk->stalled);
    disk->may_try = disk->image->ops->direct && !disk->options.trace && !disk->options.threads_only;
    /* One processor is for the vCPU that hands in the requests. */
    disk->active_max = MIN(MAX(host_processors(), 2) - 1, THREADS_MAX);
    /* One thread from the start: without it there would be nobody to report even an error. */
    disk->active = 1;
    if (pthread_create(&disk->tids[0], NULL, worker, disk) != 0) {
        tv_fail(err, "%s: cannot start a thread for the disk", path);
        disk_close(disk);
        return NULL;
    }
    disk->threads = 1;
    if (disk->may_try)
        disk->ring = ring_open(ring_done, disk);
    return disk;
}

void disk_close(struct disk *disk)
{
    if (!disk)
        return;
    disk_drain(disk);
    disk_give_up(disk);
    ring_close(disk->ring);
    pthread_mutex_lock(&disk->lock);
    disk->closing = true;
    pthread_cond_broadcast(&disk->work);
    pthread_mutex_unlock(&disk->lock);
    for (unsigned i = 0; i < disk->threads; i++)
        pthread_join(disk->tids[i], NULL);
    image_close(disk->image);
    pthread_cond_destroy(&disk->work);
    pthread_cond_destroy(&disk->drained);
    pthread_mutex_destroy(&disk->lock);
    free(disk);
}
