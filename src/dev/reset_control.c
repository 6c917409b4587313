#include "dev/reset_control.h"

#include <stdlib.h>

#include "dev/acpi_ports.h"
#include "util/util.h"

#define SYSTEM_RESET 2 /* hard, not just the processor */
#define RESET_CPU    4 /* its rise starts the reset */
#define FULL_RESET   8 /* with a power cycle */

struct reset_control {
    struct device_env *env;
    uint8_t value;
};

static uint64_t reset_control_read(void *opaque, uint64_t offset, unsigned size)
{
    struct reset_control *r = opaque;
    return r->value;
}

static void reset_control_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct reset_control *r = opaque;
    bool reset = value & ~r->value & RESET_CPU;
    r->value = value & (SYSTEM_RESET | FULL_RESET);
    if (reset)
        r->env->request_reset(r->env->vm, "reset control register 0xcf9");
}

static const struct io_ops ops = {reset_control_read, reset_control_write, 1};

static const struct state_field fields[] = {STATE(struct reset_control, value, 0)};

static const struct state_table table = {
    .name = "reset_control",
    .version = 1,
    .size = sizeof(struct reset_control),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
};

struct reset_control *reset_control_create(struct device_env *env, struct pci_bus *pci)
{
    struct reset_control *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->env = env;
    pci_claim_address_byte(pci, ACPI_RESET_PORT & 3, &ops, r);
    device_register(env, &table, r, free);
    return r;
}
