#include "dev/port92.h"

#include <stdlib.h>

#include "util/util.h"

#define FAST_RESET 1
#define A20_GATE   2

struct port92 {
    struct device_env *env;
    struct irq_line a20;
    uint8_t value;
    bool kbc_gate;
};

static void drive(void *opaque)
{
    struct port92 *p = opaque;
    irq_set(&p->a20, (p->value & A20_GATE) || p->kbc_gate);
}

void port92_set_kbc_a20(void *port92, int pin, int level)
{
    struct port92 *p = port92;
    p->kbc_gate = level;
    drive(p);
}

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
    struct port92 *p = opaque;
    return p->value;
}

static void port92_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct port92 *p = opaque;
    bool reset = value & ~p->value & FAST_RESET; /* on its rise */
    p->value = value & (FAST_RESET | A20_GATE);
    drive(p);
    if (reset)
        p->env->request_reset(p->env->vm, "system control port 0x92");
}

static const struct io_ops ops = {port92_read, port92_write, 1};

/* The gate is open at power-up: there may be no firmware that opens it. */
static const struct state_field fields[] = {STATE(struct port92, value, A20_GATE),
                                            STATE(struct port92, kbc_gate, 1)};

static const struct state_table table = {
    .name = "port92",
    .version = 1,
    .size = sizeof(struct port92),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = drive,
    .after_load = drive,
};

struct port92 *port92_create(struct device_env *env, struct irq_line a20)
{
    struct port92 *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->env = env;
    p->a20 = a20;
    bus_add(env->pio, 0x92, 1, &ops, p, "port 92");
    device_register(env, &table, p, free);
    return p;
}
