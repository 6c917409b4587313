/* A place in a scatter-gather list that moves on as bytes are read or written. */
#ifndef TRIVISOR_DISK_IOV_H
#define TRIVISOR_DISK_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct iov_cursor {
    const struct iovec *iov;
    unsigned count; /* entries left, the one that we are in included */
    size_t skip;    /* bytes of the first entry that are behind us */
};

static inline struct iov_cursor iov_start(const struct iovec *iov, unsigned count)
{
    return (struct iov_cursor){.iov = iov, .count = count};
}

uint64_t iov_total(const struct iovec *iov, unsigned count);
/* At most `max` entries for at most `length` bytes from the cursor on, which stays. Returns how
 * many entries, and in `bytes` what they hold. */
unsigned iov_slice(const struct iov_cursor *cursor, struct iovec *out, unsigned max,
                   uint64_t length, uint64_t *bytes);
void iov_advance(struct iov_cursor *cursor, uint64_t length);
/* Copy `length` bytes to or from the list and move on. `iov_put` of NULL stores zeroes. */
void iov_put(struct iov_cursor *cursor, const void *from, uint64_t length);
void iov_get(struct iov_cursor *cursor, void *to, uint64_t length);

#endif
