/*
 * The keyboard controller.
 *
 * The output buffer holds one byte: an answer of the controller, or a byte from the keyboard's or
 * the mouse's queue. When the host has read it, the next one follows at once, with an edge on its
 * interrupt line. A device whose interface is disabled keeps its bytes.
 */
#include "dev/i8042.h"

#include <stdlib.h>

#include "dev/ps2.h"
#include "util/util.h"

/* Status register, port 0x64. */
enum { ST_FULL = 0x01, ST_SYSTEM = 0x04, ST_COMMAND = 0x08, ST_UNLOCKED = 0x10, ST_AUX = 0x20 };

/* Command byte, controller RAM location 0. */
enum {
    CB_KBD_INT = 0x01,
    CB_AUX_INT = 0x02,
    CB_SYSTEM = 0x04,
    CB_KBD_OFF = 0x10,
    CB_AUX_OFF = 0x20,
    CB_TRANSLATE = 0x40
};

/* Output port. */
enum { OP_NOT_RESET = 0x01, OP_A20 = 0x02, OP_KBD_FULL = 0x10, OP_AUX_FULL = 0x20, OP_IDLE = 0xcc };

enum controller_command {
    READ_RAM = 0x20,  /* .. 0x3f */
    WRITE_RAM = 0x60, /* .. 0x7f */
    TEST_PASSWORD = 0xa4,
    AUX_DISABLE = 0xa7,
    AUX_ENABLE = 0xa8,
    AUX_TEST = 0xa9,
    SELF_TEST = 0xaa,
    KBD_TEST = 0xab,
    KBD_DISABLE = 0xad,
    KBD_ENABLE = 0xae,
    READ_INPUT_PORT = 0xc0,
    READ_OUTPUT_PORT = 0xd0,
    WRITE_OUTPUT_PORT = 0xd1,
    KBD_LOOP = 0xd2,
    AUX_LOOP = 0xd3,
    AUX_WRITE = 0xd4,
    A20_OFF = 0xdd,
    A20_ON = 0xdf,
    READ_TEST_INPUTS = 0xe0,
    PULSE = 0xf0, /* .. 0xff: a 0 bit pulses that output line low */
};

#define RAM_SIZE 32

struct i8042 {
    struct device_env *env;
    struct irq_line irq1, irq12, a20;
    uint8_t ram[RAM_SIZE]; /* [0]: the command byte */
    uint8_t command;       /* that waits for its data byte at port 0x60; 0: none */
    bool last_was_command; /* the last write was to port 0x64 */
    bool gate;             /* A20 */
    uint8_t output;        /* the output buffer */
    bool full, output_aux; /* it holds a byte; from the mouse */
    bool reply_waits, reply_aux;
    uint8_t reply; /* the controller's own, until the output buffer is free */
    bool breaking; /* translation has seen 0xf0 */
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
};

static void update_lines(struct i8042 *c)
{
    irq_set(&c->irq1, c->full && !c->output_aux && (c->ram[0] & CB_KBD_INT));
    irq_set(&c->irq12, c->full && c->output_aux && (c->ram[0] & CB_AUX_INT));
}

/* The next byte of the keyboard, translated; false where all there was is swallowed prefixes. */
static bool take_from_keyboard(struct i8042 *c, uint8_t *byte)
{
    while (c->keyboard.queue.count) {
        *byte = ps2_take(&c->keyboard.queue);
        if (!(c->ram[0] & CB_TRANSLATE))
            return true;
        if (*byte == 0xf0) {
            c->breaking = true;
            continue;
        }
        *byte = ps2_set2_to_set1(*byte) | (c->breaking ? 0x80 : 0);
        c->breaking = false;
        return true;
    }
    return false;
}

/* Fill the output buffer if it is free. */
static void fill(struct i8042 *c)
{
    if (!c->full) {
        update_lines(c);
        if (c->reply_waits) {
            c->reply_waits = false;
            c->output = c->reply;
            c->output_aux = c->reply_aux;
            c->full = true;
        } else if (!(c->ram[0] & CB_KBD_OFF) && take_from_keyboard(c, &c->output)) {
            c->output_aux = false;
            c->full = true;
        } else if (!(c->ram[0] & CB_AUX_OFF) && c->mouse.queue.count) {
            c->output = ps2_take(&c->mouse.queue);
            c->output_aux = true;
            c->full = true;
            ps2_mouse_report(&c->mouse);
        }
    }
    update_lines(c);
}

static void answer(struct i8042 *c, uint8_t byte, bool aux)
{
    c->reply = byte;
    c->reply_aux = aux;
    c->reply_waits = true;
}

static void set_gate(struct i8042 *c, bool open)
{
    c->gate = open;
    irq_set(&c->a20, open);
}

static void reset_machine(struct i8042 *c)
{
    c->env->request_reset(c->env->vm, "keyboard controller");
}

/* ---- Port 0x64 ---- */

static void write_command(struct i8042 *c, uint8_t command)
{
    c->command = 0;
    switch (command) {
    case READ_RAM ... READ_RAM + RAM_SIZE - 1:
        answer(c, c->ram[command - READ_RAM], false);
        break;
    case WRITE_RAM ... WRITE_RAM + RAM_SIZE - 1:
    case WRITE_OUTPUT_PORT:
    case KBD_LOOP:
    case AUX_LOOP:
    case AUX_WRITE:
        c->command = command;
        break;
    case TEST_PASSWORD:
        answer(c, 0xf1, false); /* none is set */
        break;
    case AUX_DISABLE:
        c->ram[0] |= CB_AUX_OFF;
        break;
    case AUX_ENABLE:
        c->ram[0] &= ~CB_AUX_OFF;
        break;
    case AUX_TEST:
    case KBD_TEST:
    case READ_TEST_INPUTS:
        answer(c, 0, false);
        break;
    case SELF_TEST:
        c->ram[0] |= CB_SYSTEM;
        c->full = false;
        answer(c, 0x55, false);
        break;
    case KBD_DISABLE:
        c->ram[0] |= CB_KBD_OFF;
        break;
    case KBD_ENABLE:
        c->ram[0] &= ~CB_KBD_OFF;
        break;
    case READ_INPUT_PORT:
        answer(c, 0x80, false); /* not locked */
        break;
    case READ_OUTPUT_PORT:
        answer(c,
               OP_IDLE | OP_NOT_RESET | (c->gate ? OP_A20 : 0) |
                   (c->full ? (c->output_aux ? OP_AUX_FULL : OP_KBD_FULL) : 0),
               false);
        break;
    case A20_OFF:
    case A20_ON:
        set_gate(c, command == A20_ON);
        break;
    case PULSE ... 0xff:
        if (!(command & OP_NOT_RESET))
            reset_machine(c);
        break;
    default:
        if (log_on(c->env->log, LOG_DEV))
            log_write(c->env->log, LOG_DEV, "keyboard controller: unknown command %02x", command);
        break;
    }
}

/* ---- Port 0x60 ---- */

static void write_data(struct i8042 *c, uint8_t byte)
{
    uint8_t command = c->command;
    c->command = 0;
    switch (command) {
    case 0:
        c->ram[0] &= ~CB_KBD_OFF; /* talking to a device turns its interface on */
        ps2_keyboard_write(&c->keyboard, byte);
        break;
    case WRITE_RAM ... WRITE_RAM + RAM_SIZE - 1:
        c->ram[command - WRITE_RAM] = byte;
        break;
    case WRITE_OUTPUT_PORT:
        set_gate(c, byte & OP_A20);
        if (!(byte & OP_NOT_RESET))
            reset_machine(c);
        break;
    case KBD_LOOP:
        answer(c, byte, false);
        break;
    case AUX_LOOP:
        answer(c, byte, true);
        break;
    default: /* AUX_WRITE */
        c->ram[0] &= ~CB_AUX_OFF;
        ps2_mouse_write(&c->mouse, byte);
        break;
    }
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned size)
{
    struct i8042 *c = opaque;
    uint8_t byte = c->output; /* an empty buffer gives the old byte again */
    c->full = false;
    fill(c);
    return byte;
}

static void data_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *c = opaque;
    c->last_was_command = false;
    write_data(c, (uint8_t)value);
    fill(c);
}

static uint64_t status_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct i8042 *c = opaque;
    return ST_UNLOCKED | (c->full ? ST_FULL : 0) | (c->full && c->output_aux ? ST_AUX : 0) |
           (c->ram[0] & CB_SYSTEM ? ST_SYSTEM : 0) | (c->last_was_command ? ST_COMMAND : 0);
}

static void command_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct i8042 *c = opaque;
    c->last_was_command = true;
    write_command(c, (uint8_t)value);
    fill(c);
}

static const struct io_ops data_ops = {data_read, data_write, 1};
static const struct io_ops command_ops = {status_read, command_write, 1};

bool i8042_key(struct i8042 *kbc, const uint8_t *scancodes, unsigned count)
{
    bool taken = ps2_keyboard_key(&kbc->keyboard, scancodes, count);
    fill(kbc);
    return taken;
}

unsigned i8042_keys_pending(const struct i8042 *kbc)
{
    return kbc->keyboard.queue.count + (kbc->full && !kbc->output_aux);
}

unsigned i8042_leds(const struct i8042 *kbc)
{
    return kbc->keyboard.leds;
}

void i8042_mouse(struct i8042 *kbc, int dx, int dy, int dz, unsigned buttons)
{
    ps2_mouse_move(&kbc->mouse, dx, dy, dz, buttons);
    fill(kbc);
}

void i8042_mouse_interrupt(struct i8042 *kbc)
{
    ps2_mouse_nudge(&kbc->mouse);
    fill(kbc);
}

static const struct state_field fields[] = {
    STATE_ARRAY(struct i8042, ram, 0),        STATE(struct i8042, command, 0),
    STATE(struct i8042, last_was_command, 0), STATE(struct i8042, gate, 1),
    STATE(struct i8042, output, 0),           STATE(struct i8042, full, 0),
    STATE(struct i8042, output_aux, 0),       STATE(struct i8042, reply_waits, 0),
    STATE(struct i8042, reply_aux, 0),        STATE(struct i8042, reply, 0),
    STATE(struct i8042, breaking, 0),         PS2_KEYBOARD_STATE(struct i8042, keyboard),
    PS2_MOUSE_STATE(struct i8042, mouse),
};

/* The command byte is what firmware leaves: keyboard on, with interrupts and translation; mouse
 * off.
 */
static void after_reset(void *opaque)
{
    struct i8042 *c = opaque;
    c->ram[0] = CB_KBD_INT | CB_SYSTEM | CB_AUX_OFF | CB_TRANSLATE;
    set_gate(c, c->gate);
    fill(c);
}

static void after_load(void *opaque)
{
    struct i8042 *c = opaque;
    ps2_check(&c->keyboard.queue);
    ps2_check(&c->mouse.queue);
    set_gate(c, c->gate);
    update_lines(c);
}

static const struct state_table table = {
    .name = "i8042",
    .version = 1,
    .size = sizeof(struct i8042),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

struct i8042 *i8042_create(struct device_env *env, struct irq_line irq1, struct irq_line irq12,
                           struct irq_line a20)
{
    struct i8042 *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->env = env;
    c->irq1 = irq1;
    c->irq12 = irq12;
    c->a20 = a20;
    bus_add(env->pio, 0x60, 1, &data_ops, c, "keyboard data");
    bus_add(env->pio, 0x64, 1, &command_ops, c, "keyboard command");
    device_register(env, &table, c, free);
    return c;
}
