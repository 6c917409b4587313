#include "dev/debugcon.h"

#include <ctype.h>
#include <stdlib.h>

#include "util/util.h"

#define LINE_MAX_SIZE 160

struct debugcon {
    struct device_env *env;
    struct chardev *out;
    uint8_t line[LINE_MAX_SIZE]; /* what the log gets next */
    uint32_t length;
};

/* Guests look for the port by reading its own number from it. */
static uint64_t debugcon_read(void *opaque, uint64_t offset, unsigned size)
{
    return DEBUGCON_PORT; /* what firmware expects at 0x402, too */
}

static void debugcon_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct debugcon *d = opaque;
    uint8_t byte = (uint8_t)value;

    if (d->out) {
        chardev_write(d->out, &byte, 1);
        return;
    }
    if (byte != '\n')
        d->line[d->length++] = isprint(byte) || byte == '\t' ? byte : '.';
    if (byte == '\n' || d->length == LINE_MAX_SIZE) {
        if (log_on(d->env->log, LOG_DEV))
            log_write(d->env->log, LOG_DEV, "debug console: %.*s", (int)d->length,
                      (const char *)d->line);
        d->length = 0;
    }
}

static const struct io_ops ops = {debugcon_read, debugcon_write, 1};

static const struct state_field fields[] = {STATE_ARRAY(struct debugcon, line, 0),
                                            STATE(struct debugcon, length, 0)};

/* `length` is an index: what a snapshot says has to be checked. */
static void after_load(void *opaque)
{
    struct debugcon *d = opaque;
    if (d->length >= LINE_MAX_SIZE)
        d->length = 0;
}

static const struct state_table table = {
    .name = "debugcon",
    .version = 1,
    .size = sizeof(struct debugcon),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_load = after_load,
};

struct debugcon *debugcon_create(struct device_env *env, uint16_t port, struct chardev *out)
{
    struct debugcon *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->env = env;
    d->out = out;
    bus_add(env->pio, port, 1, &ops, d, "debug console");
    device_register(env, &table, d, free);
    return d;
}
