/* The PS/2 mouse, with the wheel that Microsoft's IntelliMouse protocol adds, and the two buttons
 * that IntelliMouse Explorer adds. */
#include "dev/ps2.h"
#include "util/util.h"

enum mouse_command {
    SCALE_11 = 0xe6,
    SCALE_21 = 0xe7,
    SET_RESOLUTION = 0xe8,
    STATUS = 0xe9,
    STREAM_MODE = 0xea,
    READ_DATA = 0xeb,
    RESET_WRAP = 0xec,
    WRAP_MODE = 0xee,
    REMOTE_MODE = 0xf0,
    IDENTIFY = 0xf2,
    SET_RATE = 0xf3,
    ENABLE = 0xf4,
    DISABLE = 0xf5,
    SET_DEFAULT = 0xf6,
    RESEND = 0xfe,
    RESET = 0xff,
};

#define WHEEL_ID      3
#define EXPLORER_ID   4
#define MOVED_MAX     100000 /* further than any report will ever tell */
#define PACKETS_AHEAD 4

/* Sample rates that, set one after the other, make it another mouse. */
static const struct {
    uint8_t rates[3], id;
} knocks[] = {{{200, 100, 80}, WHEEL_ID}, {{200, 200, 80}, EXPLORER_ID}};

static int32_t clamp(int64_t v, int32_t low, int32_t high)
{
    return (int32_t)(v < low ? low : v > high ? high : v);
}

/* In stream mode, 2:1 scaling makes small movements finer and large ones faster. */
static int32_t scale(const struct ps2_mouse *m, int32_t v)
{
    static const int8_t small[] = {0, 1, 1, 3, 6, 9};
    if (!m->scale21 || m->remote)
        return v;
    int32_t size = v < 0 ? -v : v;
    int32_t scaled = size < (int32_t)ARRAY_SIZE(small) ? small[size] : 2 * size;
    return v < 0 ? -scaled : scaled;
}

static void put_packet(struct ps2_mouse *m)
{
    int32_t dx = clamp(m->dx, -127, 127), dy = clamp(m->dy, -127, 127), dz = clamp(m->dz, -8, 7);
    m->dx -= dx;
    m->dy -= dy;
    m->dz = m->id ? m->dz - dz : 0;
    m->sent_buttons = m->buttons;

    dx = clamp(scale(m, dx), -255, 255);
    dy = clamp(scale(m, dy), -255, 255);
    ps2_put(&m->queue, (uint8_t)(8 | (m->buttons & 7) | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)));
    ps2_put(&m->queue, (uint8_t)dx);
    ps2_put(&m->queue, (uint8_t)dy);
    if (m->id == WHEEL_ID)
        ps2_put(&m->queue, (uint8_t)dz);
    else if (m->id == EXPLORER_ID)
        ps2_put(&m->queue, (uint8_t)((dz & 15) | (m->buttons & 0x18) << 1));
}

void ps2_mouse_report(struct ps2_mouse *m)
{
    if (!m->reporting || m->remote || m->wrap || m->command)
        return;
    while ((m->dx || m->dy || m->dz || m->buttons != m->sent_buttons) &&
           m->queue.count < PACKETS_AHEAD * 4)
        put_packet(m);
}

void ps2_mouse_nudge(struct ps2_mouse *m)
{
    if (m->reporting && !m->remote && !m->wrap && !m->command && m->queue.count == 0)
        put_packet(m);
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz, unsigned buttons)
{
    m->buttons = buttons & (m->id == EXPLORER_ID ? 0x1f : 7);
    if (!m->reporting && !m->remote)
        return;
    m->dx = clamp((int64_t)m->dx + dx, -MOVED_MAX, MOVED_MAX);
    m->dy = clamp((int64_t)m->dy + dy, -MOVED_MAX, MOVED_MAX);
    m->dz = clamp((int64_t)m->dz + dz, -MOVED_MAX, MOVED_MAX);
    ps2_mouse_report(m);
}

static void set_defaults(struct ps2_mouse *m)
{
    m->resolution = 2;
    m->rate = 100;
    m->scale21 = false;
    m->remote = false;
    m->wrap = false;
    m->reporting = false;
    m->dx = m->dy = m->dz = 0;
}

static void parameter(struct ps2_mouse *m, uint8_t byte)
{
    uint8_t command = m->command;
    m->command = 0;
    if (command == SET_RESOLUTION) {
        m->resolution = byte & 3;
    } else {
        for (unsigned i = 0; i < ARRAY_SIZE(knocks); i++) {
            const uint8_t *rates = knocks[i].rates;
            if (m->rates[1] == rates[0] && m->rates[0] == rates[1] && byte == rates[2])
                m->id = knocks[i].id;
        }
        m->rates[1] = m->rates[0];
        m->rates[0] = m->rate = byte;
    }
    ps2_put(&m->queue, PS2_ACK);
}

static uint8_t status(const struct ps2_mouse *m)
{
    return (uint8_t)(m->remote << 6 | m->reporting << 5 | m->scale21 << 4 | (m->buttons & 1) << 2 |
                     (m->buttons & 4) >> 1 | (m->buttons & 2) >> 1);
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
    if (m->wrap && byte != RESET && byte != RESET_WRAP) {
        ps2_put(&m->queue, byte);
        return;
    }
    if (byte != RESEND)
        m->queue.count = 0; /* a command cuts off the packet that is being sent */
    if (m->command) {
        parameter(m, byte);
        return;
    }
    switch (byte) {
    case SCALE_11:
    case SCALE_21:
        m->scale21 = byte == SCALE_21;
        break;
    case SET_RESOLUTION:
    case SET_RATE:
        m->command = byte;
        break;
    case STATUS:
        ps2_put(&m->queue, PS2_ACK);
        ps2_put(&m->queue, status(m));
        ps2_put(&m->queue, m->resolution);
        ps2_put(&m->queue, m->rate);
        return;
    case STREAM_MODE:
        m->remote = false;
        break;
    case REMOTE_MODE:
        m->remote = true;
        break;
    case READ_DATA:
        ps2_put(&m->queue, PS2_ACK);
        put_packet(m);
        return;
    case RESET_WRAP:
    case WRAP_MODE:
        m->wrap = byte == WRAP_MODE;
        break;
    case IDENTIFY:
        ps2_put(&m->queue, PS2_ACK);
        ps2_put(&m->queue, m->id);
        return;
    case ENABLE:
        m->reporting = true;
        m->dx = m->dy = m->dz = 0;
        m->sent_buttons = m->buttons;
        break;
    case DISABLE:
        m->reporting = false;
        break;
    case SET_DEFAULT:
        set_defaults(m);
        break;
    case RESEND:
        ps2_put(&m->queue, m->queue.last);
        return;
    case RESET:
        set_defaults(m);
        m->id = 0;
        m->rates[0] = m->rates[1] = 0;
        ps2_put(&m->queue, PS2_ACK);
        ps2_put(&m->queue, PS2_BAT_OK);
        ps2_put(&m->queue, 0);
        return;
    default:
        ps2_put(&m->queue, PS2_RESEND);
        return;
    }
    ps2_put(&m->queue, PS2_ACK);
}
