/*
 * The I/O APIC. A level-triggered entry delivers while its pin is asserted and its Remote IRR bit
 * is clear; the bit is set by the delivery and cleared by the local APICs' EOI, after which a pin
 * that still is asserted delivers again.
 */
#include "dev/ioapic.h"

#include <stdlib.h>

#include "util/util.h"

#define IOAPIC_VERSION 0x20 /* with the EOI register */
#define IOAPIC_SIZE    0x1000

#define RTE_VECTOR     UINT64_C(0xff)
#define RTE_MODE_SHIFT 8
#define RTE_LOGICAL    BIT64(11)
#define RTE_PENDING    BIT64(12)
#define RTE_LOW        BIT64(13)
#define RTE_REMOTE_IRR BIT64(14)
#define RTE_LEVEL      BIT64(15)
#define RTE_MASKED     BIT64(16)
#define RTE_READ_ONLY  (RTE_PENDING | RTE_REMOTE_IRR)
#define RTE_WRITABLE   UINT64_C(0xff0000000001afff)

enum { WINDOW_INDEX = 0x00, WINDOW_DATA = 0x10, WINDOW_EOI = 0x40 };
enum { REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2, REG_RTE = 0x10 };

struct ioapic {
    struct lapics *all;
    uint32_t index, id;
    uint64_t rte[IOAPIC_PINS];
    uint32_t levels; /* of the pins, polarity not applied: 1 is asserted */
};

static struct apic_message message(uint64_t rte)
{
    return (struct apic_message){.destination = (uint32_t)(rte >> 56),
                                 .logical = rte & RTE_LOGICAL,
                                 .mode = rte >> RTE_MODE_SHIFT & 7,
                                 .vector = (uint8_t)rte,
                                 .level = rte & RTE_LEVEL,
                                 .asserted = true};
}

static void deliver(struct ioapic *io, unsigned pin)
{
    uint64_t *rte = &io->rte[pin];
    const struct apic_message m = message(*rte);
    if ((*rte & RTE_MASKED) || (m.level && (*rte & RTE_REMOTE_IRR)))
        return;
    if (lapics_deliver(io->all, &m) && m.level)
        *rte |= RTE_REMOTE_IRR;
}

bool ioapic_waits(struct ioapic *io, unsigned pin)
{
    const struct apic_message m = message(io->rte[pin]);
    return !(io->rte[pin] & (RTE_MASKED | RTE_LEVEL)) && lapics_waits(io->all, &m);
}

void ioapic_set_irq(void *opaque, int pin, int level)
{
    struct ioapic *io = opaque;
    if (pin < 0 || pin >= IOAPIC_PINS)
        return;
    uint32_t bit = BIT(pin);
    bool rises = level && !(io->levels & bit);
    io->levels = level ? io->levels | bit : io->levels & ~bit;
    if (level && (rises || (io->rte[pin] & RTE_LEVEL)))
        deliver(io, (unsigned)pin);
}

static void eoi(void *opaque, uint8_t vector)
{
    struct ioapic *io = opaque;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *rte = &io->rte[pin];
        if (!(*rte & RTE_LEVEL) || (*rte & RTE_VECTOR) != vector)
            continue;
        *rte &= ~RTE_REMOTE_IRR;
        if (io->levels & BIT(pin))
            deliver(io, pin);
    }
}

static uint32_t read_indexed(const struct ioapic *io)
{
    switch (io->index) {
    case REG_ID:
    case REG_ARBITRATION:
        return io->id << 24;
    case REG_VERSION:
        return (IOAPIC_PINS - 1) << 16 | IOAPIC_VERSION;
    default:
        break;
    }
    unsigned pin = (io->index - REG_RTE) / 2;
    if (io->index < REG_RTE || pin >= IOAPIC_PINS)
        return 0;
    return (uint32_t)(io->rte[pin] >> (io->index & 1 ? 32 : 0));
}

static void write_indexed(struct ioapic *io, uint32_t value)
{
    if (io->index == REG_ID) {
        io->id = value >> 24 & 15;
        return;
    }
    unsigned pin = (io->index - REG_RTE) / 2;
    if (io->index < REG_RTE || pin >= IOAPIC_PINS)
        return;
    uint64_t *rte = &io->rte[pin];
    uint64_t new = io->index & 1 ? (uint32_t)*rte | (uint64_t)value << 32
                                 : (*rte & ~UINT64_C(0xffffffff)) | value;
    *rte = (new &RTE_WRITABLE & ~RTE_READ_ONLY) | (*rte & RTE_READ_ONLY);
    if (!(*rte & RTE_LEVEL))
        *rte &= ~RTE_REMOTE_IRR; /* Linux clears a stuck bit by way of edge mode */
    else if (io->levels & BIT(pin))
        deliver(io, pin);
}

static uint64_t io_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ioapic *io = opaque;
    (void)size;
    switch (offset) {
    case WINDOW_INDEX:
        return io->index;
    case WINDOW_DATA:
        return read_indexed(io);
    default:
        return 0;
    }
}

static void io_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *io = opaque;
    (void)size;
    switch (offset) {
    case WINDOW_INDEX:
        io->index = value & 0xff;
        break;
    case WINDOW_DATA:
        write_indexed(io, (uint32_t)value);
        break;
    case WINDOW_EOI:
        eoi(io, (uint8_t)value);
        break;
    default:
        break;
    }
}

static const struct io_ops ops = {.read = io_read, .write = io_write, .max_size = 4};

static const struct state_field fields[] = {
    STATE(struct ioapic, index, 0),
    STATE(struct ioapic, id, 0),
    STATE_ARRAY(struct ioapic, rte, RTE_MASKED),
    STATE(struct ioapic, levels, 0),
};
static const struct state_table table = {.name = "ioapic",
                                         .version = 1,
                                         .size = sizeof(struct ioapic),
                                         .fields = fields,
                                         .field_count = ARRAY_SIZE(fields)};

struct ioapic *ioapic_create(struct device_env *env, struct lapics *all)
{
    struct ioapic *io = calloc(1, sizeof *io);
    if (!io)
        abort();
    io->all = all;
    if (!bus_add(env->mmio, IOAPIC_BASE, IOAPIC_SIZE, &ops, io, "ioapic"))
        abort();
    device_register(env, &table, io, free);
    lapics_on_eoi(all, eoi, io);
    return io;
}
