#include "util/log.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "util/error.h"

static const char *const item_names[LOG_ITEMS] = {
    [LOG_INT] = "int", [LOG_CR] = "cr",       [LOG_MSR] = "msr",   [LOG_CPUID] = "cpuid",
    [LOG_IO] = "io",   [LOG_MMIO] = "mmio",   [LOG_EXEC] = "exec", [LOG_CPU] = "cpu",
    [LOG_DEV] = "dev", [LOG_RESET] = "reset", [LOG_VERIFY] = "verify",
};

static int parse_item(const char *name, size_t len)
{
    for (int i = 0; i < LOG_ITEMS; i++)
        if (strlen(item_names[i]) == len && memcmp(item_names[i], name, len) == 0)
            return i;
    return -1;
}

int log_open(struct event_log *log, const char *spec, struct tv_error *err)
{
    const char *colon = strchr(spec, ':');
    if (!colon || colon == spec || !colon[1])
        return tv_fail(err, "--log %s: want ITEM[,ITEM...]:FILE", spec);

    uint32_t mask = 0;
    for (const char *p = spec; p < colon;) {
        size_t len = strcspn(p, ",:");
        int item = parse_item(p, len);
        if (len == 3 && memcmp(p, "all", 3) == 0)
            mask = (UINT32_C(1) << LOG_ITEMS) - 1;
        else if (item < 0)
            return tv_fail(err,
                           "--log: unknown item '%.*s'; want int, cr, msr, cpuid, io, mmio, exec, "
                           "cpu, dev, reset, verify, all, or perfmap alone",
                           (int)len, p);
        else
            mask |= UINT32_C(1) << item;
        p += len + 1;
    }

    FILE *file = strcmp(colon + 1, "-") == 0 ? stderr : fopen(colon + 1, "we");
    if (!file)
        return tv_fail_errno(err, errno, "--log: cannot create %s", colon + 1);
    log->mask = mask;
    log->file = file;
    return 0;
}

void log_close(struct event_log *log)
{
    if (log->file && log->file != stderr)
        fclose(log->file);
    log->file = NULL;
    log->mask = 0;
}

void log_write(struct event_log *log, enum log_item item, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    fprintf(log->file, "%s: %s\n", item_names[item], line);
}
