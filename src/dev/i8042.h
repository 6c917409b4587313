/* The keyboard controller, ports 0x60 and 0x64, with a PS/2 keyboard and a PS/2 wheel mouse
 * of five buttons. */
#ifndef TRIVISOR_DEV_I8042_H
#define TRIVISOR_DEV_I8042_H

#include "dev/device.h"

struct i8042;

/* `a20`: the A20 gate bit of the output port. The reset pulse goes to env->request_reset. */
struct i8042 *i8042_create(struct device_env *env, struct irq_line irq1, struct irq_line irq12,
                           struct irq_line a20);
/*
 * A key goes down or up: `count` bytes of scan code set 1 as the PC/XT made them (0xe0 first for
 * the grey keys, bit 7 set on release). The keyboard sends them in the scan code set that the guest
 * chose. Device lock held. Returns false where the keyboard's buffer has no room.
 */
bool i8042_key(struct i8042 *kbc, const uint8_t *scancodes, unsigned count);

/* Bytes of the keyboard that the guest has not read. Device lock held. */
unsigned i8042_keys_pending(const struct i8042 *kbc);

/* The keyboard's lights: bit 0 scroll lock, 1 num lock, 2 caps lock. Device lock held. */
unsigned i8042_leds(const struct i8042 *kbc);

/* A packet without movement: the mouse's driver is to look elsewhere. Device lock held. */
void i8042_mouse_interrupt(struct i8042 *kbc);

#define MOUSE_LEFT   1
#define MOUSE_RIGHT  2
#define MOUSE_MIDDLE 4
#define MOUSE_SIDE   8
#define MOUSE_EXTRA  16
/* The mouse moves right by dx, up by dy, the wheel turns by dz towards the user. Device lock held.
 */
void i8042_mouse(struct i8042 *kbc, int dx, int dy, int dz, unsigned buttons);

#endif
