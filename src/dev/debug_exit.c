#include "dev/debug_exit.h"

#include <stdlib.h>

#include "util/util.h"

struct debug_exit {
    struct device_env *env;
    uint32_t value; /* last written */
};

static uint64_t debug_exit_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}

static void debug_exit_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct debug_exit *d = opaque;
    d->value = (uint32_t)value;
    d->env->request_exit(d->env->vm, (int)((value << 1 | 1) & 0x7fffffff));
}

static const struct io_ops ops = {debug_exit_read, debug_exit_write, 4};

static const struct state_field fields[] = {STATE(struct debug_exit, value, 0)};

static const struct state_table table = {
    .name = "debug_exit",
    .version = 1,
    .size = sizeof(struct debug_exit),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
};

struct debug_exit *debug_exit_create(struct device_env *env, uint16_t port, unsigned size)
{
    struct debug_exit *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->env = env;
    if (!bus_add(env->pio, port, size, &ops, d, "debug exit")) {
        free(d);
        return NULL;
    }
    device_register(env, &table, d, free);
    return d;
}
