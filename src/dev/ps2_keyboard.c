/* The PS/2 keyboard: its commands, and scan codes in sets 1, 2 and 3. */
#include <string.h>

#include "dev/ps2.h"
#include "util/util.h"

enum keyboard_command {
    SET_LEDS = 0xed,
    ECHO = 0xee,
    SCAN_CODE_SET = 0xf0,
    IDENTIFY = 0xf2,
    SET_RATE = 0xf3,
    ENABLE = 0xf4,
    DISABLE = 0xf5,
    SET_DEFAULT = 0xf6,
    ALL_TYPEMATIC = 0xf7, /* .. 0xfa: key types of set 3 */
    ALL_BOTH = 0xfa,
    KEY_TYPEMATIC = 0xfb, /* .. 0xfd: with a key's code */
    KEY_MAKE = 0xfd,
    RESEND = 0xfe,
    RESET = 0xff,
};

/* Set 1 by set 2: the controller's translation. */
static const uint8_t set1_of_set2[128] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

#define SET2_F7    0x83
#define SET2_SYSRQ 0x84
#define SET1_F7    0x41
#define SET1_SYSRQ 0x54
#define SET1_SHIFT 0x2a
#define SET3_PAUSE 0x62

/* Where set 3 differs from set 2. Bit 7 of `set1`: the key with the 0xe0 prefix. */
static const struct {
    uint8_t set1, set3;
} set3_codes[] = {
    {0x01, 0x08}, {0x3b, 0x07}, {0x3c, 0x0f}, {0x3d, 0x17}, {0x3e, 0x1f}, {0x3f, 0x27},
    {0x40, 0x2f}, {0x41, 0x37}, {0x42, 0x3f}, {0x43, 0x47}, {0x44, 0x4f}, {0x57, 0x56},
    {0x58, 0x5e}, {0x1d, 0x11}, {0x3a, 0x14}, {0x38, 0x19}, {0xb8, 0x39}, {0x9d, 0x58},
    {0x2b, 0x5c}, {0x56, 0x13}, {0xd2, 0x67}, {0xc7, 0x6e}, {0xc9, 0x6f}, {0xd3, 0x64},
    {0xcf, 0x65}, {0xd1, 0x6d}, {0xc8, 0x63}, {0xcb, 0x61}, {0xd0, 0x60}, {0xcd, 0x6a},
    {0x45, 0x76}, {0xb5, 0x77}, {0x37, 0x7e}, {0x4a, 0x84}, {0x4e, 0x7c}, {0x9c, 0x79},
    {0x46, 0x5f}, {0xb7, 0x57}, {0xc6, 0x62}, {0xdb, 0x8b}, {0xdc, 0x8c}, {0xdd, 0x8d},
};

uint8_t ps2_set2_to_set1(uint8_t byte)
{
    if (byte == SET2_F7)
        return SET1_F7;
    if (byte == SET2_SYSRQ)
        return SET1_SYSRQ;
    return byte < 128 ? set1_of_set2[byte] : byte;
}

static uint8_t set1_to_set2(uint8_t code)
{
    if (code == SET1_F7)
        return SET2_F7;
    if (code == SET1_SYSRQ)
        return SET2_SYSRQ;
    for (unsigned i = 0; i < ARRAY_SIZE(set1_of_set2); i++)
        if (set1_of_set2[i] == code)
            return (uint8_t)i;
    return 0;
}

static uint8_t set1_to_set3(uint8_t code, bool grey)
{
    for (unsigned i = 0; i < ARRAY_SIZE(set3_codes); i++)
        if (set3_codes[i].set1 == (code | (grey ? 0x80 : 0)))
            return set3_codes[i].set3;
    return set1_to_set2(code);
}

bool ps2_keyboard_key(struct ps2_keyboard *k, const uint8_t *scancodes, unsigned count)
{
    bool grey = false;
    if (!k->scanning)
        return true;
    if (ps2_room(&k->queue) < 2 * count)
        return false;
    if (k->set == 3 && scancodes[0] == 0xe1) { /* Pause is a key like others there */
        ps2_put(&k->queue, SET3_PAUSE);
        ps2_put(&k->queue, 0xf0);
        ps2_put(&k->queue, SET3_PAUSE);
        return true;
    }
    for (unsigned i = 0; i < count; i++) {
        uint8_t byte = scancodes[i];
        bool prefix = byte == 0xe0 || byte == 0xe1;
        if (k->set == 1 || (prefix && k->set == 2)) {
            ps2_put(&k->queue, byte);
            continue;
        }
        if (prefix) {
            grey = byte == 0xe0;
            continue;
        }
        /* Set 3 has no shifts around the grey keys. */
        if (k->set == 3 && grey && (byte & 0x7f) == SET1_SHIFT) {
            grey = false;
            continue;
        }
        if (byte & 0x80)
            ps2_put(&k->queue, 0xf0);
        ps2_put(&k->queue,
                k->set == 2 ? set1_to_set2(byte & 0x7f) : set1_to_set3(byte & 0x7f, grey));
        grey = false;
    }
    return true;
}

static void set_defaults(struct ps2_keyboard *k)
{
    k->queue.count = 0;
    k->set = 2;
    k->rate = 0x2b; /* 10.9 a second after half a second */
}

static void parameter(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->command;
    k->command = 0;
    switch (command) {
    case SET_LEDS:
        k->leds = byte & 7;
        break;
    case SET_RATE:
        k->rate = byte & 0x7f;
        break;
    case SCAN_CODE_SET:
        if (byte > 3) {
            ps2_put(&k->queue, PS2_RESEND);
            return;
        }
        ps2_put(&k->queue, PS2_ACK);
        if (byte == 0)
            ps2_put(&k->queue, k->set);
        else
            k->set = byte;
        return;
    default: /* key types: all keys repeat and have a break code, whatever is asked */
        break;
    }
    ps2_put(&k->queue, PS2_ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
    /* A command in the place of a parameter cancels the one before. */
    if (k->command && byte < SET_LEDS) {
        parameter(k, byte);
        return;
    }
    k->command = 0;

    switch (byte) {
    case SET_LEDS:
    case SCAN_CODE_SET:
    case SET_RATE:
    case KEY_TYPEMATIC ... KEY_MAKE:
        k->command = byte;
        break;
    case ECHO:
        ps2_put(&k->queue, ECHO);
        return;
    case IDENTIFY:
        ps2_put(&k->queue, PS2_ACK);
        ps2_put(&k->queue, 0xab);
        ps2_put(&k->queue, 0x83);
        return;
    case ENABLE:
        k->queue.count = 0;
        k->scanning = true;
        break;
    case DISABLE:
        set_defaults(k);
        k->scanning = false;
        break;
    case SET_DEFAULT:
        set_defaults(k);
        break;
    case ALL_TYPEMATIC ... ALL_BOTH:
        break;
    case RESEND:
        ps2_put(&k->queue, k->queue.last);
        return;
    case RESET:
        set_defaults(k);
        k->leds = 0;
        k->scanning = true;
        ps2_put(&k->queue, PS2_ACK);
        ps2_put(&k->queue, PS2_BAT_OK);
        return;
    default:
        ps2_put(&k->queue, PS2_RESEND);
        return;
    }
    ps2_put(&k->queue, PS2_ACK);
}
