#include "util/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int tv_fail(struct tv_error *err, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
    }
    return -1;
}

int tv_fail_errno(struct tv_error *err, int errnum, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < sizeof err->message) {
            char text[128];
            snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s",
                     strerror_r(errnum, text, sizeof text));
        }
    }
    return -1;
}
