#include "dev/dma8237.h"

#include <stdlib.h>
#include <string.h>

#include "util/util.h"

#define PAGE_PORTS 0x81
#define PAGE_COUNT 15

/* Registers behind the eight of the channels. */
enum {
    REG_STATUS = 8, /* read; the command register when written */
    REG_REQUEST,
    REG_MASK_ONE,
    REG_MODE,
    REG_CLEAR_POINTER,
    REG_MASTER_CLEAR, /* written; the temporary register when read */
    REG_CLEAR_MASK,
    REG_MASK_ALL,
};

enum { COMMAND_DISABLE = 0x04 };
enum { MODE_TYPE = 0x0c, MODE_AUTO_INIT = 0x10, MODE_DECREMENT = 0x20, MODE_KIND = 0xc0 };
enum { TYPE_VERIFY = 0x00, TYPE_TO_MEMORY = 0x04, TYPE_FROM_MEMORY = 0x08 };
enum { KIND_CASCADE = 0xc0 };

struct channel {
    uint16_t base_address, base_count, address, count;
    uint8_t mode;
    bool dreq;
    void (*ready)(void *opaque);
    void *opaque;
};

struct controller {
    struct dma8237 *dma;
    unsigned number;
    uint8_t command, terminal, request, mask;
    bool high; /* the byte pointer */
    struct channel channels[4];
};

struct dma8237 {
    struct device_env *env;
    struct controller controllers[2];
    uint8_t pages[PAGE_COUNT]; /* ports 81 to 8f; those of no channel are just memory */
};

/* Index of a channel's page register. */
static const uint8_t page_of[DMA8237_CHANNELS] = {6, 2, 0, 1, 14, 10, 8, 9};

static bool open_channel(const struct controller *c, unsigned n)
{
    return !(c->command & COMMAND_DISABLE) && !(c->mask & 1u << n) &&
           (c->channels[n].mode & MODE_KIND) != KIND_CASCADE;
}

static void offer(struct controller *c)
{
    for (unsigned n = 0; n < 4; n++)
        if (c->channels[n].dreq && c->channels[n].ready && open_channel(c, n))
            c->channels[n].ready(c->channels[n].opaque);
}

/* ---- Registers ---- */

static void master_clear(struct controller *c)
{
    c->command = c->terminal = c->request = 0;
    c->mask = 0x0f;
    c->high = false;
}

static uint8_t status(struct controller *c)
{
    uint8_t value = c->terminal;
    for (unsigned n = 0; n < 4; n++)
        if (c->channels[n].dreq || c->request & 1u << n)
            value |= (uint8_t)(0x10u << n);
    c->terminal = 0;
    return value;
}

static uint8_t read_register(struct controller *c, unsigned reg)
{
    if (reg < REG_STATUS) {
        const struct channel *ch = &c->channels[reg >> 1];
        uint16_t value = reg & 1 ? ch->count : ch->address;
        unsigned shift = c->high ? 8 : 0;
        c->high = !c->high;
        return (uint8_t)(value >> shift);
    }
    switch (reg) {
    case REG_STATUS:
        return status(c);
    case REG_MASK_ALL:
        return c->mask | 0xf0;
    case REG_MASTER_CLEAR:
        return 0; /* the temporary register: only memory to memory transfers fill it */
    default:
        return 0xff;
    }
}

static void write_half(uint16_t *base, uint16_t *current, bool high, uint8_t value)
{
    *base = high ? (uint16_t)((*base & 0x00ff) | value << 8) : (uint16_t)((*base & 0xff00) | value);
    *current = *base;
}

static void write_register(struct controller *c, unsigned reg, uint8_t value)
{
    unsigned n = value & 3, bit = 1u << n;
    if (reg < REG_STATUS) {
        struct channel *ch = &c->channels[reg >> 1];
        if (reg & 1)
            write_half(&ch->base_count, &ch->count, c->high, value);
        else
            write_half(&ch->base_address, &ch->address, c->high, value);
        c->high = !c->high;
        return;
    }
    switch (reg) {
    case REG_STATUS:
        c->command = value;
        break;
    case REG_REQUEST:
        c->request = (uint8_t)(value & 4 ? c->request | bit : c->request & ~bit);
        break;
    case REG_MASK_ONE:
        c->mask = (uint8_t)(value & 4 ? c->mask | bit : c->mask & ~bit);
        break;
    case REG_MODE:
        c->channels[n].mode = value & (uint8_t)~3;
        break;
    case REG_CLEAR_POINTER:
        c->high = false;
        break;
    case REG_MASTER_CLEAR:
        master_clear(c);
        break;
    case REG_CLEAR_MASK:
        c->mask = 0;
        break;
    default:
        c->mask = value & 0x0f;
    }
    offer(c);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct controller *c = opaque;
    return read_register(c, (unsigned)offset >> c->number & 15);
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct controller *c = opaque;
    write_register(c, (unsigned)offset >> c->number & 15, (uint8_t)value);
}

static uint64_t page_read(void *opaque, uint64_t offset, unsigned size)
{
    struct dma8237 *dma = opaque;
    return dma->pages[offset];
}

static void page_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct dma8237 *dma = opaque;
    dma->pages[offset] = (uint8_t)value;
}

static const struct io_ops port_ops = {port_read, port_write, 1};
static const struct io_ops page_ops = {page_read, page_write, 1};

/* ---- Transfers ---- */

void dma8237_attach(struct dma8237 *dma, unsigned channel, void (*ready)(void *opaque),
                    void *opaque)
{
    struct channel *ch = &dma->controllers[channel >> 2 & 1].channels[channel & 3];
    ch->ready = ready;
    ch->opaque = opaque;
}

void dma8237_request(struct dma8237 *dma, unsigned channel, bool level)
{
    dma->controllers[channel >> 2 & 1].channels[channel & 3].dreq = level;
}

static uint64_t physical(const struct dma8237 *dma, unsigned channel, const struct channel *ch)
{
    uint64_t page = dma->pages[page_of[channel]];
    return channel < 4 ? page << 16 | ch->address
                       : (page & 0xfe) << 16 | (uint64_t)ch->address << 1;
}

/* One unit: a byte or a word. */
static void move(struct dma8237 *dma, uint64_t gpa, uint8_t *buffer, unsigned unit, uint8_t type)
{
    if (type == TYPE_TO_MEMORY)
        physmem_write(dma->env->mem, gpa, buffer, unit);
    else if (type == TYPE_FROM_MEMORY && !physmem_read(dma->env->mem, gpa, buffer, unit))
        memset(buffer, 0xff, unit);
}

static void end_of_count(struct controller *c, unsigned n)
{
    struct channel *ch = &c->channels[n];
    c->terminal |= (uint8_t)(1u << n);
    c->request &= (uint8_t) ~(1u << n);
    if (ch->mode & MODE_AUTO_INIT) {
        ch->address = ch->base_address;
        ch->count = ch->base_count;
    } else {
        c->mask |= (uint8_t)(1u << n);
    }
}

uint32_t dma8237_transfer(struct dma8237 *dma, unsigned channel, void *buffer, uint32_t length,
                          bool to_memory, bool *terminal)
{
    channel &= DMA8237_CHANNELS - 1;
    unsigned n = channel & 3, unit = channel < 4 ? 1 : 2;
    struct controller *c = &dma->controllers[channel >> 2];
    struct channel *ch = &c->channels[n];
    uint8_t type = ch->mode & MODE_TYPE;
    uint32_t moved = 0;
    *terminal = false;
    if (!open_channel(c, n) ||
        (type != TYPE_VERIFY && type != (to_memory ? TYPE_TO_MEMORY : TYPE_FROM_MEMORY)))
        return 0;
    while (moved + unit <= length && !*terminal) {
        move(dma, physical(dma, channel, ch), (uint8_t *)buffer + moved, unit, type);
        moved += unit;
        /* Only the 16 bits count: the page stays. */
        ch->address = (uint16_t)(ch->mode & MODE_DECREMENT ? ch->address - 1 : ch->address + 1);
        if (ch->count-- == 0) {
            *terminal = true;
            end_of_count(c, n);
        }
    }
    return moved;
}

/* ---- State ---- */

#define CHANNEL_STATE(c, n)                                                                        \
    STATE(struct dma8237, controllers[c].channels[n].base_address, 0),                             \
        STATE(struct dma8237, controllers[c].channels[n].base_count, 0),                           \
        STATE(struct dma8237, controllers[c].channels[n].address, 0),                              \
        STATE(struct dma8237, controllers[c].channels[n].count, 0),                                \
        STATE(struct dma8237, controllers[c].channels[n].mode, 0)

#define CONTROLLER_STATE(c)                                                                        \
    STATE(struct dma8237, controllers[c].command, 0),                                              \
        STATE(struct dma8237, controllers[c].terminal, 0),                                         \
        STATE(struct dma8237, controllers[c].request, 0),                                          \
        STATE(struct dma8237, controllers[c].mask, 0x0f),                                          \
        STATE(struct dma8237, controllers[c].high, 0), CHANNEL_STATE(c, 0), CHANNEL_STATE(c, 1),   \
        CHANNEL_STATE(c, 2), CHANNEL_STATE(c, 3)

static const struct state_field fields[] = {
    CONTROLLER_STATE(0),
    CONTROLLER_STATE(1),
    STATE_ARRAY(struct dma8237, pages, 0),
};

static void after_load(void *opaque)
{
    struct dma8237 *dma = opaque;
    for (unsigned i = 0; i < 2; i++) {
        dma->controllers[i].mask &= 0x0f;
        dma->controllers[i].terminal &= 0x0f;
        dma->controllers[i].request &= 0x0f;
    }
}

static const struct state_table table = {
    .name = "dma8237",
    .version = 1,
    .size = sizeof(struct dma8237),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_load = after_load,
};

struct dma8237 *dma8237_create(struct device_env *env)
{
    struct dma8237 *dma = calloc(1, sizeof *dma);
    if (!dma)
        return NULL;
    dma->env = env;
    for (unsigned i = 0; i < 2; i++) {
        dma->controllers[i].dma = dma;
        dma->controllers[i].number = i;
    }
    bus_add(env->pio, 0x00, 16, &port_ops, &dma->controllers[0], "DMA 1");
    bus_add(env->pio, 0xc0, 32, &port_ops, &dma->controllers[1], "DMA 2");
    bus_add(env->pio, PAGE_PORTS, PAGE_COUNT, &page_ops, dma, "DMA pages");
    device_register(env, &table, dma, free);
    return dma;
}
