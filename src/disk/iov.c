#include "disk/iov.h"

#include <string.h>

#include "util/util.h"

uint64_t iov_total(const struct iovec *iov, unsigned count)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += iov[i].iov_len;
    return total;
}

unsigned iov_slice(const struct iov_cursor *cursor, struct iovec *out, unsigned max,
                   uint64_t length, uint64_t *bytes)
{
    unsigned n = 0;
    size_t skip = cursor->skip;
    *bytes = 0;
    for (unsigned i = 0; i < cursor->count && n < max && *bytes < length; i++, skip = 0) {
        size_t len = cursor->iov[i].iov_len - skip;
        if (!len)
            continue;
        len = (size_t)MIN((uint64_t)len, length - *bytes);
        out[n++] =
            (struct iovec){.iov_base = (char *)cursor->iov[i].iov_base + skip, .iov_len = len};
        *bytes += len;
    }
    return n;
}

void iov_advance(struct iov_cursor *cursor, uint64_t length)
{
    while (length && cursor->count) {
        size_t here = cursor->iov->iov_len - cursor->skip;
        if (length < here) {
            cursor->skip += (size_t)length;
            return;
        }
        length -= here;
        cursor->iov++;
        cursor->count--;
        cursor->skip = 0;
    }
}

static void copy(struct iov_cursor *cursor, void *to, const void *from, uint64_t length)
{
    uint64_t at = 0;
    while (length && cursor->count) {
        size_t n = (size_t)MIN((uint64_t)(cursor->iov->iov_len - cursor->skip), length);
        char *here = (char *)cursor->iov->iov_base + cursor->skip;
        if (to)
            memcpy((char *)to + at, here, n);
        else if (from)
            memcpy(here, (const char *)from + at, n);
        else
            memset(here, 0, n);
        at += n;
        length -= n;
        if (n) {
            iov_advance(cursor, n);
        } else { /* an entry of no bytes */
            cursor->iov++;
            cursor->count--;
            cursor->skip = 0;
        }
    }
}

void iov_put(struct iov_cursor *cursor, const void *from, uint64_t length)
{
    copy(cursor, NULL, from, length);
}

void iov_get(struct iov_cursor *cursor, void *to, uint64_t length)
{
    copy(cursor, to, NULL, length);
}
