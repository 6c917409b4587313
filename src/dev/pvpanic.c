#include "dev/pvpanic.h"

#include <stdlib.h>

#include "util/util.h"

enum { PANICKED = 1, CRASH_LOADED = 2, EVENTS = PANICKED | CRASH_LOADED };

struct pvpanic {
    struct device_env *env;
    uint8_t events; /* that the guest is offered */
};

static uint64_t pvpanic_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pvpanic *p = opaque;
    return p->events;
}

static void pvpanic_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pvpanic *p = opaque;
    const struct device_env *env = p->env;
    if (value & p->events & PANICKED)
        env->guest_panicked(env->vm, "the guest kernel has panicked");
    else if (value & p->events & CRASH_LOADED)
        env->guest_panicked(env->vm, "the guest kernel has panicked and runs its crash kernel");
}

static const struct io_ops ops = {pvpanic_read, pvpanic_write, 1};

static const struct state_field fields[] = {STATE(struct pvpanic, events, EVENTS)};

static const struct state_table table = {
    .name = "pvpanic",
    .version = 1,
    .size = sizeof(struct pvpanic),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
};

struct pvpanic *pvpanic_create(struct device_env *env)
{
    struct pvpanic *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->env = env;
    bus_add(env->pio, PVPANIC_PORT, 1, &ops, p, "pvpanic");
    device_register(env, &table, p, free);
    return p;
}
