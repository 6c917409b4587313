/* From keysyms to scan codes: layouts, modifiers that the guest needs, special keys, several
 * viewers, a keyboard without room; and the pointer. */
#include "ui/input.h"

#include <string.h>

#include "check.h"
#include "ui/keymap.h"

static uint8_t bytes[1024];
static unsigned count, room, leds;
static int moved_x, moved_y, wheel;
static unsigned buttons, at_x, at_y;
static bool wants_absolute;

static bool on_key(void *machine, const uint8_t *scancodes, unsigned n)
{
    if (n > room)
        return false;
    room -= n;
    memcpy(bytes + count, scancodes, n);
    count += n;
    return true;
}

static unsigned on_leds(void *machine)
{
    return leds;
}

static void on_mouse(void *machine, int dx, int dy, int dz, unsigned pressed)
{
    moved_x = dx;
    moved_y = dy;
    wheel = dz;
    buttons = pressed;
}

static bool on_absolute(void *machine, unsigned x, unsigned y, int dz, unsigned pressed)
{
    at_x = x;
    at_y = y;
    return wants_absolute;
}

static const struct input_ops ops = {on_key, on_leds, on_mouse, on_absolute};
static struct input *in;
static const char viewer[2];

static void begin(const char *layout)
{
    input_destroy(in);
    in = input_create(&ops, NULL, keymap_find(layout));
    count = leds = 0;
    room = 1000;
}

/* What was sent since the last look. */
static bool sent(const char *expected, size_t size)
{
    bool same = count == size && memcmp(bytes, expected, size) == 0;
    if (!same)
        for (unsigned i = 0; i < count; i++)
            fprintf(stderr, "%02x%s", bytes[i], i + 1 < count ? " " : "\n");
    count = 0;
    return same;
}
#define SENT(string) CHECK(sent(string, sizeof string - 1))

static void tap(uint32_t keysym)
{
    input_keysym(in, viewer, keysym, true);
    input_keysym(in, viewer, keysym, false);
}

static void test_layouts(void)
{
    begin("us");
    tap('a');
    SENT("\x1e\x9e");
    tap('A'); /* from a program that sends no Shift */
    SENT("\x2a\x1e\xaa\x9e");
    input_keysym(in, viewer, 0xffe1, true);
    tap('A');
    tap('!');
    input_keysym(in, viewer, 0xffe1, false);
    SENT("\x2a\x1e\x9e\x02\x82\xaa");
    tap('@');
    SENT("\x2a\x03\xaa\x83");
    tap(0xe4); /* a letter of another layout: its place there */
    SENT("\x28\xa8");
    tap(0x010020ac);
    CHECK(count > 0);
    count = 0;

    begin("de");
    tap('z');
    SENT("\x15\x95");
    tap('@');
    SENT("\xe0\x38\x10\xe0\xb8\x90");
    tap(0xfc); /* ue, oe shifted, sharp s */
    tap(0xd6);
    tap(0xdf);
    SENT("\x1a\x9a\x2a\x27\xaa\xa7\x0c\x8c");
    input_keysym(in, viewer, 0xfe03, true); /* AltGr is held: nothing is added */
    tap('{');
    input_keysym(in, viewer, 0xfe03, false);
    SENT("\xe0\x38\x08\x88\xe0\xb8");
    input_keysym(in, viewer, 0xffe1, true); /* "<" wants no shift here */
    tap('<');
    input_keysym(in, viewer, 0xffe1, false);
    SENT("\x2a\xaa\x56\x2a\xd6\xaa");

    begin("fr");
    tap('a');
    tap('1');
    tap(0xe9);
    SENT("\x10\x90\x2a\x02\xaa\x82\x03\x83");
    tap('M');
    SENT("\x2a\x27\xaa\xa7");

    CHECK(!keymap_find("xx"));
}

static void test_caps_lock(void)
{
    begin("us");
    leds = 4;
    tap('A');
    SENT("\x1e\x9e");
    tap('a');
    SENT("\x2a\x1e\xaa\x9e");
    tap('1'); /* no letter */
    SENT("\x02\x82");
}

static void test_special(void)
{
    begin("us");
    tap(0xff13);
    SENT("\xe1\x1d\x45\xe1\x9d\xc5");
    tap(0xff61);
    SENT("\xe0\x2a\xe0\x37\xe0\xb7\xe0\xaa");
    input_keysym(in, viewer, 0xffe3, true);
    tap(0xff13);
    tap('c');
    input_keysym(in, viewer, 0xffe3, false);
    SENT("\x1d\xe0\x46\xe0\xc6\x2e\xae\x9d");
    input_keysym(in, viewer, 0xffe9, true);
    tap(0xff61);
    input_keysym(in, viewer, 0xffe9, false);
    SENT("\x38\x54\xd4\xb8");
    tap(0xff52);
    tap(0xff8d);
    SENT("\xe0\x48\xe0\xc8\xe0\x1c\xe0\x9c");
    input_scancode(in, viewer, 0xd3, true);
    input_scancode(in, viewer, 0xd3, false);
    SENT("\xe0\x53\xe0\xd3");
    tap(0xfffffff); /* nothing that a keyboard has */
    SENT("");
}

static void test_viewers(void)
{
    begin("us");
    input_keysym(in, &viewer[0], 'a', true);
    input_keysym(in, &viewer[1], 0xffe3, true);
    count = 0;
    input_leave(in, &viewer[0]);
    SENT("\x9e");
    input_leave(in, &viewer[1]);
    SENT("\x9d");
    input_keysym(in, viewer, 'a', false); /* was not down */
    SENT("");

    room = 3; /* a group goes whole or not at all, and in order */
    tap('a');
    tap(0xff52);
    tap('b');
    SENT("\x1e\x9e");
    CHECK(!input_flush(in));
    room = 100;
    CHECK(input_flush(in));
    SENT("\xe0\x48\xe0\xc8\x30\xb0");
    room = 0;
    for (int i = 0; i < 4000; i++) /* somebody pastes a long text */
        tap('x');
    for (unsigned left = 8000; left; left -= 1000) {
        room = 1000;
        CHECK(input_flush(in) == (left == 1000) && count == 1000);
        count = 0;
    }
}

static void test_pointer(void)
{
    begin("us");
    wants_absolute = false;
    input_pointer(in, 100, 100, 640, 480, 0);
    CHECK(moved_x == 0 && moved_y == 0);
    input_pointer(in, 110, 95, 640, 480, 1);
    CHECK(moved_x == 10 && moved_y == 5 && buttons == 1);
    input_pointer(in, 110, 95, 640, 480, 2 | 4);
    CHECK(buttons == (2 | 4));
    input_pointer(in, 110, 95, 640, 480, 128);
    CHECK(buttons == 8);
    input_pointer(in, 110, 95, 640, 480, 8);
    CHECK(wheel == -1);
    input_pointer(in, 110, 95, 640, 480, 8);
    CHECK(wheel == 0);
    input_pointer(in, 110, 95, 640, 480, 16);
    CHECK(wheel == 1);
    wants_absolute = true;
    input_pointer(in, 639, 0, 640, 480, 0);
    CHECK(at_x == 0xffff && at_y == 0);
    input_pointer(in, 5000, 5000, 640, 480, 0);
    CHECK(at_x == 0xffff && at_y == 0xffff);
}

int main(void)
{
    test_layouts();
    test_caps_lock();
    test_special();
    test_viewers();
    test_pointer();
    input_destroy(in);
    return check_result();
}
