/*
 * What a person does at a keyboard and a mouse, on its way from a viewer to the machine.
 *
 * Key events become scan codes of set 1, as the PC/XT keyboard made them. What the machine's
 * keyboard has no room for waits here, in order. One keyboard and one mouse, however many viewers
 * there are: a key that one viewer holds down is let go when that viewer leaves.
 *
 * One thread, the viewers', calls all of this; no lock is held.
 */
#ifndef TRIVISOR_UI_INPUT_H
#define TRIVISOR_UI_INPUT_H

#include <stdbool.h>
#include <stdint.h>

struct keymap;
struct input;

/* The machine's side. Each takes the device lock by itself. */
struct input_ops {
    /* False: the keyboard has no room now. */
    bool (*key)(void *machine, const uint8_t *scancodes, unsigned count);
    /* Lights: bit 0 scroll lock, 1 num lock, 2 caps lock. */
    unsigned (*leds)(void *machine);
    /* Moved right by dx, up by dy; the wheel turned by dz towards the user. `buttons`: MOUSE_*. */
    void (*mouse)(void *machine, int dx, int dy, int dz, unsigned buttons);
    /* Where it is, 0 to 0xffff from the left and the top. False: the guest wants movements. */
    bool (*absolute)(void *machine, unsigned x, unsigned y, int dz, unsigned buttons);
};

/* `layout`: the guest's keyboard layout; stays valid. NULL when out of memory. */
struct input *input_create(const struct input_ops *ops, void *machine, const struct keymap *layout);
void input_destroy(struct input *input);

/* `viewer` tells viewers apart. A keysym of X11 goes down (again, where it repeats) or up. */
void input_keysym(struct input *input, const void *viewer, uint32_t keysym, bool down);
/* The same by scan code: of set 1, with bit 7 for the keys with prefix 0xe0. */
void input_scancode(struct input *input, const void *viewer, uint8_t code, bool down);
/* The pointer is at (x, y) of a picture of width by height. `buttons` as RFB has them: bit 0 left,
 * 1 middle, 2 right, 3 wheel away from the user, 4 wheel towards the user. */
void input_pointer(struct input *input, unsigned x, unsigned y, unsigned width, unsigned height,
                   unsigned buttons);
/* The viewer left: let go what it held. */
void input_leave(struct input *input, const void *viewer);
/* Deliver what waits. False: something still waits, call again soon. */
bool input_flush(struct input *input);
unsigned input_leds(const struct input *input);

#endif
