#include "dev/port80.h"

#include <stdlib.h>

#include "util/util.h"

struct port80 {
    struct device_env *env;
    uint8_t code;
};

static uint64_t port80_read(void *opaque, uint64_t offset, unsigned size)
{
    struct port80 *p = opaque;
    return p->code;
}

static void port80_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct port80 *p = opaque;
    /* Kernels write the same value over and over to make a delay. */
    if (p->code != (uint8_t)value && log_on(p->env->log, LOG_DEV))
        log_write(p->env->log, LOG_DEV, "POST code %02x", (unsigned)(uint8_t)value);
    p->code = (uint8_t)value;
}

static const struct io_ops ops = {port80_read, port80_write, 1};

static const struct state_field fields[] = {STATE(struct port80, code, 0)};

static const struct state_table table = {
    .name = "port80",
    .version = 1,
    .size = sizeof(struct port80),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
};

struct port80 *port80_create(struct device_env *env)
{
    struct port80 *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->env = env;
    bus_add(env->pio, 0x80, 1, &ops, p, "port 80");
    device_register(env, &table, p, free);
    return p;
}
