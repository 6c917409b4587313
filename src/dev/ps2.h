/*
 * The PS/2 keyboard and mouse that hang on the keyboard controller. Each has a queue of bytes for
 * the host; the controller takes them from it when its output buffer is free.
 */
#ifndef TRIVISOR_DEV_PS2_H
#define TRIVISOR_DEV_PS2_H

#include <stdbool.h>
#include <stdint.h>

#include "state/state.h"

#define PS2_QUEUE_SIZE 64

/* What both devices answer. */
enum { PS2_ACK = 0xfa, PS2_RESEND = 0xfe, PS2_BAT_OK = 0xaa };

struct ps2_queue {
    uint8_t bytes[PS2_QUEUE_SIZE];
    uint8_t head, count;
    uint8_t last; /* sent last: for "resend" */
};

#define PS2_QUEUE_STATE(device, queue)                                                             \
    STATE_ARRAY(device, queue.bytes, 0), STATE(device, queue.head, 0),                             \
        STATE(device, queue.count, 0), STATE(device, queue.last, 0)

static inline unsigned ps2_room(const struct ps2_queue *q)
{
    return PS2_QUEUE_SIZE - q->count;
}

/* A byte that finds no room is lost. */
static inline void ps2_put(struct ps2_queue *q, uint8_t byte)
{
    if (q->count < PS2_QUEUE_SIZE)
        q->bytes[(q->head + q->count++) % PS2_QUEUE_SIZE] = byte;
}

/* Only while count is not 0. */
static inline uint8_t ps2_take(struct ps2_queue *q)
{
    q->last = q->bytes[q->head];
    q->head = (q->head + 1) % PS2_QUEUE_SIZE;
    q->count--;
    return q->last;
}

/* Make the indices of a loaded snapshot harmless. */
static inline void ps2_check(struct ps2_queue *q)
{
    q->head %= PS2_QUEUE_SIZE;
    if (q->count > PS2_QUEUE_SIZE)
        q->count = PS2_QUEUE_SIZE;
}

struct ps2_keyboard {
    struct ps2_queue queue;
    uint8_t command; /* that a parameter is expected for; 0: none */
    uint8_t set;     /* scan code set, 1 .. 3 */
    uint8_t leds;    /* bit 0 scroll lock, 1 num lock, 2 caps lock */
    uint8_t rate;    /* typematic rate and delay */
    bool scanning;
};

#define PS2_KEYBOARD_STATE(device, keyboard)                                                       \
    PS2_QUEUE_STATE(device, keyboard.queue), STATE(device, keyboard.command, 0),                   \
        STATE(device, keyboard.set, 2), STATE(device, keyboard.leds, 0),                           \
        STATE(device, keyboard.rate, 0x2b), STATE(device, keyboard.scanning, 1)

/* A byte from the host. */
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
/* Bytes of set 1; see i8042_key(). */
bool ps2_keyboard_key(struct ps2_keyboard *k, const uint8_t *scancodes, unsigned count);
/* Set 1 code of a byte of set 2, as the controller's translation has it. */
uint8_t ps2_set2_to_set1(uint8_t byte);

struct ps2_mouse {
    struct ps2_queue queue;
    uint8_t command; /* that a parameter is expected for; 0: none */
    uint8_t id;      /* 0 standard, 3 with a wheel, 4 with a wheel and five buttons */
    uint8_t resolution, rate;
    uint8_t rates[2]; /* that were set last, the latest first: some sequences change `id` */
    bool scale21, remote, wrap, reporting;
    uint8_t buttons;      /* as they are */
    uint8_t sent_buttons; /* as the last packet had them */
    int32_t dx, dy, dz;   /* moved since the last packet */
};

#define PS2_MOUSE_STATE(device, mouse)                                                             \
    PS2_QUEUE_STATE(device, mouse.queue), STATE(device, mouse.command, 0),                         \
        STATE(device, mouse.id, 0), STATE(device, mouse.resolution, 2),                            \
        STATE(device, mouse.rate, 100), STATE_ARRAY(device, mouse.rates, 0),                       \
        STATE(device, mouse.scale21, 0), STATE(device, mouse.remote, 0),                           \
        STATE(device, mouse.wrap, 0), STATE(device, mouse.reporting, 0),                           \
        STATE(device, mouse.buttons, 0), STATE(device, mouse.sent_buttons, 0),                     \
        STATE(device, mouse.dx, 0), STATE(device, mouse.dy, 0), STATE(device, mouse.dz, 0)

/* A byte from the host. */
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
/* It moves; see i8042_mouse(). */
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons);
/* Send a packet without movement, unless packets are on their way. */
void ps2_mouse_nudge(struct ps2_mouse *m);
/* The queue has room again: send what has moved since. */
void ps2_mouse_report(struct ps2_mouse *m);

#endif
