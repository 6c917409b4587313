/*
 * The SMBus host (82371AB, 11.2): a transaction is set up in registers, started by the control
 * register, and is over at once. Nothing is on the bus, so each ends as one that nobody
 * acknowledges: with DEV_ERR.
 */
#include "dev/piix4_smbus.h"

#include <stdlib.h>

#include "util/util.h"

enum {
    HST_STS,
    SLV_STS,
    HST_CNT,
    HST_CMD,
    HST_ADD,
    HST_DAT0,
    HST_DAT1,
    BLK_DAT,
    SLV_CNT,
    SHDW_CMD,
    SLV_EVT, /* two bytes, as the next */
    SLV_DAT = 12,
};

/* Host status; a written 1 clears all but HOST_BUSY. */
enum { STS_INTER = 0x02, STS_DEV_ERR = 0x04, STS_BUS_ERR = 0x08, STS_FAILED = 0x10 };
#define STS_BITS  (STS_INTER | STS_DEV_ERR | STS_BUS_ERR | STS_FAILED)
#define SLV_BITS  0x3c /* slave, shadow and alert events */
#define SLV_CNTS  0x0f

#define BLOCK_MAX 32

enum { CNT_INTEREN = 0x01, CNT_KILL = 0x02, CNT_PROTOCOL = 0x1c, CNT_START = 0x40 };
enum protocol { QUICK, BYTE, BYTE_DATA, WORD_DATA, BLOCK = 5 };

struct piix4_smbus {
    struct device_env *env;
    struct irq_line irq;
    bool enabled;
    uint16_t base; /* 0: not mapped */
    uint8_t status, control, command, address, data[2];
    uint8_t block[BLOCK_MAX], block_index;
    uint8_t slave_status, slave_control, shadow_command;
    uint8_t slave_event[2];
};

static void update(void *opaque)
{
    struct piix4_smbus *s = opaque;
    irq_set(&s->irq, (s->status & STS_BITS) && (s->control & CNT_INTEREN));
}

static void start(struct piix4_smbus *s)
{
    unsigned protocol = (s->control & CNT_PROTOCOL) >> 2;
    bool known = protocol <= WORD_DATA || protocol == BLOCK;
    if (log_on(s->env->log, LOG_DEV))
        log_write(s->env->log, LOG_DEV, "SMBus: protocol %u with address %#x, %s", protocol,
                  s->address >> 1, known ? "nobody answers" : "which is not one");
    s->status |= known ? STS_DEV_ERR : STS_FAILED;
}

static uint64_t smbus_read(void *opaque, uint64_t offset, unsigned size)
{
    struct piix4_smbus *s = opaque;
    switch (offset) {
    case HST_STS:
        return s->status;
    case SLV_STS:
        return s->slave_status;
    case HST_CNT:
        s->block_index = 0;
        return s->control;
    case HST_CMD:
        return s->command;
    case HST_ADD:
        return s->address;
    case HST_DAT0:
    case HST_DAT1:
        return s->data[offset - HST_DAT0];
    case BLK_DAT: {
        uint8_t value = s->block[s->block_index];
        s->block_index = (s->block_index + 1) % BLOCK_MAX;
        return value;
    }
    case SLV_CNT:
        return s->slave_control;
    case SHDW_CMD:
        return s->shadow_command;
    case SLV_EVT:
    case SLV_EVT + 1:
        return s->slave_event[offset - SLV_EVT];
    default: /* SLV_DAT: no master ever sent anything */
        return 0;
    }
}

static void smbus_write(void *opaque, uint64_t offset, unsigned size, uint64_t value64)
{
    struct piix4_smbus *s = opaque;
    uint8_t value = (uint8_t)value64;
    switch (offset) {
    case HST_STS:
        s->status &= ~(value & STS_BITS);
        break;
    case SLV_STS:
        s->slave_status &= ~(value & SLV_BITS);
        break;
    case HST_CNT: /* a KILL finds nothing under way, but stops what comes with it */
        s->control = value & (CNT_INTEREN | CNT_KILL | CNT_PROTOCOL);
        if ((value & CNT_START) && s->enabled) {
            if (value & CNT_KILL)
                s->status |= STS_FAILED;
            else
                start(s);
        }
        break;
    case HST_CMD:
        s->command = value;
        break;
    case HST_ADD:
        s->address = value;
        break;
    case HST_DAT0:
    case HST_DAT1:
        s->data[offset - HST_DAT0] = value;
        break;
    case BLK_DAT:
        s->block[s->block_index] = value;
        s->block_index = (s->block_index + 1) % BLOCK_MAX;
        break;
    case SLV_CNT:
        s->slave_control = value & SLV_CNTS;
        break;
    case SLV_EVT:
    case SLV_EVT + 1:
        s->slave_event[offset - SLV_EVT] = value;
        break;
    default: /* SHDW_CMD, SLV_DAT: read-only */
        break;
    }
    update(s);
}

static const struct io_ops ops = {smbus_read, smbus_write, 1};

void piix4_smbus_configure(struct piix4_smbus *s, uint16_t base, bool enabled)
{
    s->enabled = enabled;
    if (s->base == base)
        return;
    if (s->base)
        bus_remove(s->env->pio, s->base);
    bool mapped = base && bus_add(s->env->pio, base, PIIX4_SMBUS_SIZE, &ops, s, "SMBus");
    s->base = mapped ? base : 0;
}

static const struct state_field fields[] = {
    STATE(struct piix4_smbus, status, 0),
    STATE(struct piix4_smbus, control, 0),
    STATE(struct piix4_smbus, command, 0),
    STATE(struct piix4_smbus, address, 0),
    STATE_ARRAY(struct piix4_smbus, data, 0),
    STATE_ARRAY(struct piix4_smbus, block, 0),
    STATE(struct piix4_smbus, block_index, 0),
    STATE(struct piix4_smbus, slave_status, 0),
    STATE(struct piix4_smbus, slave_control, 0),
    STATE(struct piix4_smbus, shadow_command, 0),
    STATE_ARRAY(struct piix4_smbus, slave_event, 0),
};

static void after_load(void *opaque)
{
    struct piix4_smbus *s = opaque;
    s->block_index %= BLOCK_MAX;
    update(s);
}

static const struct state_table table = {
    .name = "piix4_smbus",
    .version = 1,
    .size = sizeof(struct piix4_smbus),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = update,
    .after_load = after_load,
};

struct piix4_smbus *piix4_smbus_create(struct device_env *env, struct irq_line irq)
{
    struct piix4_smbus *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->env = env;
    s->irq = irq;
    device_register(env, &table, s, free);
    return s;
}
