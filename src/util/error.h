/* Error reporting inside the library: no printing, no exit(); a message travels back to the caller.
 */
#ifndef TRIVISOR_UTIL_ERROR_H
#define TRIVISOR_UTIL_ERROR_H

#include <trivisor/trivisor.h>

/*
 * Store a printf-formatted message in `err` (which may be NULL) and return -1, so that a failing
 * function can `return tv_fail(err, ...)`. The message is one line without a newline; it says what
 * was wrong and what to do about it.
 */
int tv_fail(struct tv_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* As tv_fail, with ": " and the text of `errnum` appended. */
int tv_fail_errno(struct tv_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
