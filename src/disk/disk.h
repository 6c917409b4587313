/*
 * A disk: what a disk controller sees of an image, whatever its format.
 *
 * Requests are asynchronous. disk_submit() may be called from any thread, with the device lock held
 * or not, and never waits. A request is finished by its done(), on a thread of the disk's with no
 * lock held; it may take the device lock and may submit the next request. Requests may overtake
 * each other; a flush covers all writes that were done when it was submitted.
 *
 * A controller asks disk_try() first: what the host's page cache can do at once is cheaper done
 * than handed to another thread.
 */
#ifndef TRIVISOR_DISK_DISK_H
#define TRIVISOR_DISK_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <trivisor/trivisor.h>

#define DISK_SECTOR UINT64_C(512)

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES };

struct disk_request {
    enum disk_op op;
    bool fua;                /* a write that is on the host's disk before it is done */
    bool alone;              /* the controller has no other request before this one is done */
    uint64_t offset, length; /* bytes, multiples of DISK_SECTOR; neither for a flush */
    const struct iovec *iov; /* `length` bytes in all; the caller's, unchanged until done() */
    unsigned iov_count;
    /* 0, or an errno value: EIO, ENOSPC, EROFS, EINVAL where the range is not on the disk. */
    void (*done)(struct disk_request *request, int error);
    void *opaque; /* the caller's */
    /* The disk's, until done(). */
    struct disk_request *next;
    bool exclusive; /* a write that waits for others of its kind */
};

struct disk;
struct file_trace;

struct disk_options {
    bool read_only;
    bool snapshot;      /* writes go to a temporary overlay and are lost at the end */
    bool write_through; /* every write as if it had `fua` */
    const char *format; /* NULL: found out; "raw", "vmdk", ... */
    /*
     * The host has no space left for a write. The request is kept, and tried again at
     * disk_retry(). On a disk thread, no lock held. NULL: the request ends with ENOSPC.
     */
    void (*no_space)(void *opaque, const char *message);
    void *opaque;
    bool trust_paths;       /* the image may name parts of itself in other directories */
    bool ignore_parent_cid; /* a parent that was changed is no error */
    bool without_parent;    /* the image alone: what it does not have reads as zeroes */
    bool threads_only;      /* no io_uring */
    uint64_t at_least; /* bytes: a shorter raw image reads as zeroes up to there, and grows when a
                        * guest writes there */
    const struct file_trace *trace; /* for tests (disk/file.h); NULL */
};

/* NULL with `err` (file, and offset where there is one) if it is no image that we can use. */
struct disk *disk_open(const char *path, const struct disk_options *options, struct tv_error *err);
/* Waits for all requests, flushes, frees. NULL is fine. */
void disk_close(struct disk *disk);
uint64_t disk_size(const struct disk *disk); /* bytes, a multiple of DISK_SECTOR */
bool disk_read_only(const struct disk *disk);
/*
 * Carry out a request on this thread, if it is a copy from or to the host's page cache and either
 * small, or alone, or a read that the disk's threads would not get to soon. True: it is done,
 * without error, and done() is not called. False: submit it. A write may wait for the host now and
 * then: call it without the device lock.
 */
bool disk_try(struct disk *disk, const struct disk_request *request);
void disk_submit(struct disk *disk, struct disk_request *request);
/* Wait until no request is under way (those that wait for space are not). Nobody submits meanwhile.
 */
void disk_drain(struct disk *disk);
/* Try again what no_space() was told of. */
void disk_retry(struct disk *disk);
/* Does a request wait for space? */
bool disk_stalled(struct disk *disk);
/* What waits for space ends with ENOSPC, and so does from now on what finds none. */
void disk_give_up(struct disk *disk);

#endif
