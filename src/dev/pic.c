/*
 * Two 8259A interrupt controllers, master and slave, as a PC wires them.
 *
 * A request is latched in IRR by a rising edge, or follows the line where the input is level
 * triggered (ELCR, or LTIM for the whole chip). A latched edge stays until it is acknowledged even
 * if the line falls: stricter chips would answer with IRQ 7, and no driver wants that. The slave's
 * INT is not an edge-triggered input here: IR2 of the master follows it, which is what the
 * pair looks like to software, since the slave drops INT at each acknowledge.
 */
#include "dev/pic.h"

#include <stdlib.h>

#include "util/util.h"

enum { MASTER, SLAVE };

#define CASCADE_IR 2
#define ICW1_INIT  0x10
#define ICW1_LTIM  0x08
#define ICW1_IC4   0x01
#define ICW4_SFNM  0x10
#define ICW4_AEOI  0x02
#define OCW3       0x08

struct i8259 {
    uint8_t irr, isr, imr;
    uint8_t lines; /* levels of the inputs */
    uint8_t elcr;
    uint8_t base;      /* ICW2: vector of input 0 */
    uint8_t icw3;      /* kept for readers of a snapshot: the wiring is fixed */
    uint8_t next_icw;  /* 2, 3, 4: the ICW that is expected; 0: initialized */
    uint8_t highest;   /* input of the highest priority */
    bool level;        /* LTIM */
    bool expects_icw4; /* ICW1.IC4 */
    bool single;       /* ICW1.SNGL: there is no ICW3 */
    bool auto_eoi;
    bool rotate_auto_eoi;
    bool special_nested;
    bool special_mask;
    bool poll;     /* the next read is an acknowledge */
    bool read_isr; /* reads give ISR, not IRR */
};

struct pic {
    struct device_env *env;
    struct irq_line output;
    void (*taken)(void *opaque, unsigned irq); /* may be NULL */
    void *taken_opaque;
    struct i8259 chip[2];
    struct pic_ref {
        struct pic *pic;
        unsigned which;
    } ref[2];
};

static const uint8_t elcr_writable[2] = {0xf8, 0xde}; /* IRQ 0, 1, 2, 8, 13 are always edges */

/* Position of the highest-priority set bit of `mask`: 0 is the highest, 8 means none. */
static unsigned priority(const struct i8259 *c, uint8_t mask)
{
    for (unsigned p = 0; p < 8; p++)
        if (mask & BIT((c->highest + p) & 7))
            return p;
    return 8;
}

/* The input that the chip asks to be served, or -1. */
static int pending(const struct i8259 *c, bool is_master)
{
    unsigned request = priority(c, c->irr & ~c->imr);
    if (request == 8)
        return -1;
    uint8_t blocking = c->special_mask ? c->isr & ~c->imr : c->isr;
    unsigned in_service = priority(c, blocking);
    int ir = (c->highest + request) & 7;
    if (request < in_service)
        return ir;
    /* Special fully nested: the slave may interrupt its own interrupts with better ones. */
    if (request == in_service && is_master && c->special_nested && ir == CASCADE_IR)
        return ir;
    return -1;
}

static void update(struct pic *pic)
{
    struct i8259 *master = &pic->chip[MASTER];
    if (pending(&pic->chip[SLAVE], false) >= 0)
        master->irr |= BIT(CASCADE_IR);
    else
        master->irr &= ~BIT(CASCADE_IR);
    irq_set(&pic->output, pending(master, true) >= 0);
}

static bool level_triggered(const struct i8259 *c, unsigned ir)
{
    return c->level || (c->elcr & BIT(ir));
}

void pic_set_irq(void *opaque, int irq, int level)
{
    struct pic *pic = opaque;
    if (irq < 0 || irq > 15 || irq == CASCADE_IR)
        return;
    struct i8259 *c = &pic->chip[irq >> 3];
    unsigned ir = irq & 7;
    uint8_t bit = (uint8_t)BIT(ir);
    bool was = c->lines & bit;

    c->lines = level ? c->lines | bit : c->lines & ~bit;
    if (level_triggered(c, ir))
        c->irr = level ? c->irr | bit : c->irr & ~bit;
    else if (level && !was)
        c->irr |= bit;
    update(pic);
}

/* The acknowledge cycle of one chip for input `ir`. */
static void acknowledge(struct i8259 *c, unsigned ir)
{
    if (!level_triggered(c, ir))
        c->irr &= ~BIT(ir);
    if (!c->auto_eoi)
        c->isr |= BIT(ir);
    else if (c->rotate_auto_eoi)
        c->highest = (ir + 1) & 7;
}

int pic_ack(void *opaque)
{
    struct pic *pic = opaque;
    struct i8259 *master = &pic->chip[MASTER], *slave = &pic->chip[SLAVE];
    int vector;
    int ir = pending(master, true);

    if (ir == CASCADE_IR) {
        int slave_ir = pending(slave, false);
        acknowledge(master, CASCADE_IR);
        if (slave_ir >= 0)
            acknowledge(slave, slave_ir);
        vector = slave->base + (slave_ir >= 0 ? slave_ir : 7);
    } else if (ir >= 0) {
        acknowledge(master, ir);
        vector = master->base + ir;
    } else {
        vector = master->base + 7; /* spurious: nothing goes in service */
    }
    update(pic);
    if (ir >= 0 && ir != CASCADE_IR && pic->taken)
        pic->taken(pic->taken_opaque, (unsigned)ir);
    return vector;
}

bool pic_waits(const struct pic *pic, unsigned irq)
{
    const struct i8259 *c = &pic->chip[irq >> 3];
    return c->irr & ~c->imr & BIT(irq & 7);
}

void pic_on_ack(struct pic *pic, void (*taken)(void *opaque, unsigned irq), void *opaque)
{
    pic->taken = taken;
    pic->taken_opaque = opaque;
}

static void write_icw1(struct i8259 *c, uint8_t value)
{
    /* The edge detectors are reset: an input that is high now needs another rise. */
    c->irr = 0;
    c->isr = 0;
    c->imr = 0;
    c->highest = 0;
    c->special_mask = false;
    c->read_isr = false;
    c->poll = false;
    c->auto_eoi = false;
    c->rotate_auto_eoi = false;
    c->special_nested = false;
    c->level = value & ICW1_LTIM;
    c->single = value & 2;
    c->expects_icw4 = value & ICW1_IC4;
    c->next_icw = 2;
    for (unsigned ir = 0; ir < 8; ir++)
        if (level_triggered(c, ir))
            c->irr |= c->lines & BIT(ir);
}

static void write_icw(struct i8259 *c, uint8_t value)
{
    switch (c->next_icw) {
    case 2:
        c->base = value & 0xf8;
        c->next_icw = !c->single ? 3 : c->expects_icw4 ? 4 : 0;
        break;
    case 3:
        c->icw3 = value;
        c->next_icw = c->expects_icw4 ? 4 : 0;
        break;
    default:
        c->special_nested = value & ICW4_SFNM;
        c->auto_eoi = value & ICW4_AEOI;
        c->next_icw = 0;
        break;
    }
}

/* The input that a non-specific EOI ends, or -1. Bits that special mask mode hides stay. */
static int in_service(const struct i8259 *c)
{
    unsigned p = priority(c, c->special_mask ? c->isr & ~c->imr : c->isr);
    return p == 8 ? -1 : (int)((c->highest + p) & 7);
}

static void write_ocw2(struct i8259 *c, uint8_t value)
{
    bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    int ir = specific ? value & 7 : in_service(c);

    if (!eoi && !specific) {
        c->rotate_auto_eoi = rotate;
        return;
    }
    if (ir < 0)
        return;
    if (eoi)
        c->isr &= ~BIT(ir);
    if (rotate)
        c->highest = (ir + 1) & 7;
}

static void write_ocw3(struct i8259 *c, uint8_t value)
{
    if (value & 0x04)
        c->poll = true;
    if (value & 0x02)
        c->read_isr = value & 1;
    if (value & 0x40)
        c->special_mask = value & 0x20;
}

static void chip_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic_ref *ref = opaque;
    struct i8259 *c = &ref->pic->chip[ref->which];
    uint8_t byte = (uint8_t)value;

    if (offset == 0) {
        if (byte & ICW1_INIT)
            write_icw1(c, byte);
        else if (byte & OCW3)
            write_ocw3(c, byte);
        else
            write_ocw2(c, byte);
    } else if (c->next_icw) {
        write_icw(c, byte);
    } else {
        c->imr = byte;
    }
    update(ref->pic);
}

static uint64_t chip_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pic_ref *ref = opaque;
    struct i8259 *c = &ref->pic->chip[ref->which];

    if (c->poll) {
        c->poll = false;
        int ir = pending(c, ref->which == MASTER);
        if (ir < 0)
            return 0;
        acknowledge(c, ir);
        update(ref->pic);
        return 0x80 | ir;
    }
    if (offset == 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pic *pic = opaque;
    return pic->chip[offset].elcr;
}

static void elcr_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pic *pic = opaque;
    struct i8259 *c = &pic->chip[offset];
    uint8_t before = c->elcr;
    c->elcr = (uint8_t)value & elcr_writable[offset];
    /* What has just become a level follows its line. */
    uint8_t changed = c->elcr & ~before;
    c->irr = (c->irr & ~changed) | (c->lines & changed);
    update(pic);
}

static const struct io_ops chip_ops = {chip_read, chip_write, 1};
static const struct io_ops elcr_ops = {elcr_read, elcr_write, 1};

static void refresh(void *opaque)
{
    update(opaque);
}

/* An uninitialized pair stays silent: all inputs masked. */
#define CHIP_STATE(n)                                                                              \
    STATE(struct pic, chip[n].irr, 0), STATE(struct pic, chip[n].isr, 0),                          \
        STATE(struct pic, chip[n].imr, 0xff), STATE(struct pic, chip[n].lines, 0),                 \
        STATE(struct pic, chip[n].elcr, 0), STATE(struct pic, chip[n].base, 0),                    \
        STATE(struct pic, chip[n].icw3, 0), STATE(struct pic, chip[n].next_icw, 0),                \
        STATE(struct pic, chip[n].highest, 0), STATE(struct pic, chip[n].level, 0),                \
        STATE(struct pic, chip[n].expects_icw4, 0), STATE(struct pic, chip[n].single, 0),          \
        STATE(struct pic, chip[n].auto_eoi, 0), STATE(struct pic, chip[n].rotate_auto_eoi, 0),     \
        STATE(struct pic, chip[n].special_nested, 0), STATE(struct pic, chip[n].special_mask, 0),  \
        STATE(struct pic, chip[n].poll, 0), STATE(struct pic, chip[n].read_isr, 0)

static const struct state_field pic_fields[] = {CHIP_STATE(0), CHIP_STATE(1)};

static const struct state_table pic_table = {
    .name = "pic",
    .version = 1,
    .size = sizeof(struct pic),
    .fields = pic_fields,
    .field_count = ARRAY_SIZE(pic_fields),
    .after_reset = refresh,
    .after_load = refresh,
};

struct pic *pic_create(struct device_env *env, struct irq_line output)
{
    struct pic *pic = calloc(1, sizeof *pic);
    if (!pic)
        return NULL;
    pic->env = env;
    pic->output = output;
    for (unsigned i = 0; i < 2; i++)
        pic->ref[i] = (struct pic_ref){pic, i};
    bus_add(env->pio, 0x20, 2, &chip_ops, &pic->ref[MASTER], "pic master");
    bus_add(env->pio, 0xa0, 2, &chip_ops, &pic->ref[SLAVE], "pic slave");
    bus_add(env->pio, 0x4d0, 2, &elcr_ops, pic, "pic elcr");
    device_register(env, &pic_table, pic, free);
    return pic;
}
