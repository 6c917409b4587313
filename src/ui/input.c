#include "ui/input.h"

#include <stdlib.h>
#include <string.h>

#include "ui/keymap.h"
#include "util/util.h"

#define QUEUE_SIZE 16384 /* a long text that somebody pastes */
#define GROUP_MAX  6

enum { KEY_LSHIFT = 0x2a, KEY_RSHIFT = 0x36, KEY_ALT = 0x38, KEY_RALT = 0xb8 };
enum { KEY_CTRL = 0x1d, KEY_RCTRL = 0x9d, KEY_SYSRQ = 0x54, KEY_SCROLL_LOCK = 0x46 };
enum { LED_CAPS = 4 };
enum {
    RFB_LEFT = 1,
    RFB_MIDDLE = 2,
    RFB_RIGHT = 4,
    RFB_WHEEL_UP = 8,
    RFB_WHEEL_DOWN = 16,
    RFB_BACK = 128
};

/* The bytes of one key event: they go to the keyboard together. */
struct group {
    uint8_t count, bytes[GROUP_MAX];
};

struct input {
    const struct input_ops *ops;
    void *machine;
    const struct keymap *map;
    const void *holder[256]; /* by code: who holds the key down; NULL: nobody */
    uint8_t sent_as[256];    /* by code: the code that went down for it */
    struct group queue[QUEUE_SIZE];
    unsigned head, queued;
    bool placed; /* the position is known */
    unsigned x, y, buttons;
};

struct input *input_create(const struct input_ops *ops, void *machine, const struct keymap *layout)
{
    struct input *in = calloc(1, sizeof *in);
    if (!in)
        return NULL;
    in->ops = ops;
    in->machine = machine;
    in->map = layout;
    return in;
}

void input_destroy(struct input *in)
{
    free(in);
}

unsigned input_leds(const struct input *in)
{
    return in->ops->leds(in->machine);
}

/* ---- Scan codes ---- */

bool input_flush(struct input *in)
{
    while (in->queued) {
        const struct group *g = &in->queue[in->head];
        if (!in->ops->key(in->machine, g->bytes, g->count))
            return false;
        in->head = (in->head + 1) % QUEUE_SIZE;
        in->queued--;
    }
    return true;
}

/* A person who types that far ahead of a guest loses keys. */
static void send(struct input *in, const uint8_t *bytes, unsigned count)
{
    if (in->queued == QUEUE_SIZE)
        return;
    struct group *g = &in->queue[(in->head + in->queued++) % QUEUE_SIZE];
    g->count = (uint8_t)count;
    memcpy(g->bytes, bytes, count);
    input_flush(in);
}

static void send_code(struct input *in, uint8_t code, bool down)
{
    uint8_t bytes[2] = {0xe0, (uint8_t)((code & 0x7f) | (down ? 0 : 0x80))};
    if (code & 0x80)
        send(in, bytes, 2);
    else
        send(in, bytes + 1, 1);
}

static bool held(const struct input *in, uint8_t code)
{
    return in->holder[code] != NULL;
}

/* Pause sends all of itself when it goes down and has no release; with Ctrl it is Break. Print
 * carries a shift; with Alt it is SysRq. */
static bool send_special(struct input *in, uint8_t code, bool down)
{
    static const uint8_t pause[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const uint8_t ctrl_break[] = {0xe0, 0x46, 0xe0, 0xc6};
    static const uint8_t print_down[] = {0xe0, 0x2a, 0xe0, 0x37};
    static const uint8_t print_up[] = {0xe0, 0xb7, 0xe0, 0xaa};
    if (code == KEY_PAUSE) {
        if (down && (held(in, KEY_CTRL) || held(in, KEY_RCTRL)))
            send(in, ctrl_break, sizeof ctrl_break);
        else if (down)
            send(in, pause, sizeof pause);
        return true;
    }
    if (code != KEY_PRINT)
        return false;
    if (down)
        in->sent_as[code] = held(in, KEY_ALT) || held(in, KEY_RALT) ? KEY_SYSRQ : KEY_PRINT;
    if (in->sent_as[code] == KEY_SYSRQ)
        send_code(in, KEY_SYSRQ, down);
    else
        send(in, down ? print_down : print_up, sizeof print_down);
    return true;
}

void input_scancode(struct input *in, const void *viewer, uint8_t code, bool down)
{
    if (!(code & 0x7f) || (!down && !held(in, code)))
        return;
    if (!send_special(in, code, down))
        send_code(in, code, down);
    in->holder[code] = down ? viewer : NULL;
}

void input_leave(struct input *in, const void *viewer)
{
    for (unsigned code = 0; code < 256; code++)
        if (in->holder[code] == viewer)
            input_scancode(in, viewer, (uint8_t)code, false);
}

/* ---- Keysyms ---- */

/*
 * The viewer says which character it wants; the guest makes one from a key and its own modifiers.
 * Where the modifiers that are held do not fit the character in the guest's layout, they are
 * changed around the key's going down, and put back after it.
 */
static void press_character(struct input *in, const void *viewer, struct key_place place)
{
    bool shift = held(in, KEY_LSHIFT) || held(in, KEY_RSHIFT);
    bool want_shift = place.level == KEY_SHIFT, want_altgr = place.level == KEY_ALTGR;
    if (place.letter && !want_altgr && (input_leds(in) & LED_CAPS))
        want_shift = !want_shift;
    /* With Ctrl or Alt it is a command, not a character: what the viewer holds is meant. */
    if (held(in, KEY_CTRL) || held(in, KEY_RCTRL) || held(in, KEY_ALT) ||
        (want_altgr && held(in, KEY_RALT))) {
        input_scancode(in, viewer, place.code, true);
        return;
    }
    bool add_shift = want_shift && !shift, add_altgr = want_altgr && !held(in, KEY_RALT);
    bool drop_shift = !want_shift && shift;
    if (add_shift)
        send_code(in, KEY_LSHIFT, true);
    if (drop_shift && held(in, KEY_LSHIFT))
        send_code(in, KEY_LSHIFT, false);
    if (drop_shift && held(in, KEY_RSHIFT))
        send_code(in, KEY_RSHIFT, false);
    if (add_altgr)
        send_code(in, KEY_RALT, true);
    input_scancode(in, viewer, place.code, true);
    if (add_altgr)
        send_code(in, KEY_RALT, false);
    if (drop_shift && held(in, KEY_RSHIFT))
        send_code(in, KEY_RSHIFT, true);
    if (drop_shift && held(in, KEY_LSHIFT))
        send_code(in, KEY_LSHIFT, true);
    if (add_shift)
        send_code(in, KEY_LSHIFT, false);
}

void input_keysym(struct input *in, const void *viewer, uint32_t keysym, bool down)
{
    struct key_place place = keymap_place(in->map, keysym);
    if (!place.code)
        return;
    if (down && place.level != KEY_ANY)
        press_character(in, viewer, place);
    else
        input_scancode(in, viewer, place.code, down);
}

/* ---- The pointer ---- */

void input_pointer(struct input *in, unsigned x, unsigned y, unsigned width, unsigned height,
                   unsigned rfb)
{
    /* i8042.h's MOUSE_LEFT, MOUSE_RIGHT, MOUSE_MIDDLE, MOUSE_SIDE. */
    unsigned buttons = (rfb & RFB_LEFT ? 1 : 0) | (rfb & RFB_RIGHT ? 2 : 0) |
                       (rfb & RFB_MIDDLE ? 4 : 0) | (rfb & RFB_BACK ? 8 : 0);
    unsigned pressed = rfb & ~in->buttons;
    int dz = (pressed & RFB_WHEEL_DOWN ? 1 : 0) - (pressed & RFB_WHEEL_UP ? 1 : 0);
    if (!width || !height)
        return;
    x = MIN(x, width - 1);
    y = MIN(y, height - 1);
    unsigned ax = width > 1 ? x * 0xffffu / (width - 1) : 0;
    unsigned ay = height > 1 ? y * 0xffffu / (height - 1) : 0;
    if (!in->ops->absolute(in->machine, ax, ay, dz, buttons)) {
        int dx = in->placed ? (int)x - (int)in->x : 0, dy = in->placed ? (int)in->y - (int)y : 0;
        in->ops->mouse(in->machine, dx, dy, dz, buttons);
    }
    in->x = x;
    in->y = y;
    in->placed = true;
    in->buttons = rfb;
}
