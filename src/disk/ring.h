/*
 * io_uring, where the kernel has it and lets us: reads go to the kernel from the submitter's
 * thread. By system calls; it is too little for a library.
 */
#ifndef TRIVISOR_DISK_RING_H
#define TRIVISOR_DISK_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring;

/* `done` is called on the ring's thread with what readv() would return, or -errno. NULL
 * where there is no io_uring (containers often forbid it). */
struct ring *ring_open(void (*done)(void *opaque, void *tag, int result), void *opaque);
/* Nothing is under way. */
void ring_close(struct ring *ring);
/* False: no room, or `iov_count` is too large. Does not wait for the host's disk. `tag` is not
 * NULL. */
bool ring_read(struct ring *ring, int fd, uint64_t offset, const struct iovec *iov,
               unsigned iov_count, void *tag);

#endif
