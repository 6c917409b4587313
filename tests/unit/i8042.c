#include "dev/i8042.h"

#include "check.h"
#include "fake_machine.h"
#include "util/util.h"

static struct fake_machine m;
static struct probe irq1, irq12, a20;
static struct i8042 *kbc;

#define EMPTY 0x1000

static void setup(void)
{
    fake_machine_init(&m);
    irq1 = irq12 = a20 = (struct probe){0};
    kbc = i8042_create(&m.env, fake_line(&irq1), fake_line(&irq12), fake_line(&a20));
}

/* The next byte, with 0x100 where it is the mouse's. */
static unsigned next(void)
{
    unsigned status = in8(&m, 0x64);
    if (!(status & 1))
        return EMPTY;
    return in8(&m, 0x60) | (status & 0x20 ? 0x100 : 0);
}

static unsigned command(unsigned c)
{
    out8(&m, 0x64, c);
    return next();
}

static void with_data(unsigned c, unsigned data)
{
    out8(&m, 0x64, c);
    out8(&m, 0x60, data);
}

static unsigned keyboard(unsigned byte)
{
    out8(&m, 0x60, byte);
    return next();
}

static unsigned mouse(unsigned byte)
{
    with_data(0xd4, byte);
    return next();
}

/* What Linux's driver does when it looks for the controller. */
static void test_controller(void)
{
    setup();
    CHECK(next() == EMPTY);
    unsigned cb = command(0x20);
    CHECK(cb == 0x65);
    with_data(0x60, cb | 0x30);
    CHECK(command(0xaa) == 0x55);
    CHECK(in8(&m, 0x64) & 4);
    with_data(0xd3, 0x5a);
    CHECK(next() == 0x15a);
    with_data(0xd2, 0xa5);
    CHECK(next() == 0xa5);
    CHECK(command(0xa9) == 0 && command(0xab) == 0);
    out8(&m, 0x64, 0xa7);
    CHECK(command(0x20) & 0x20);
    out8(&m, 0x64, 0xa8);
    CHECK(!(command(0x20) & 0x20));
    /* The AUX interrupt test. */
    with_data(0x60, 0x46);
    with_data(0xd3, 0xa5);
    CHECK(irq12.level && irq12.rises == 1 && !irq1.level);
    CHECK(next() == 0x1a5 && !irq12.level);
    /* A20 and reset. */
    CHECK(a20.level);
    CHECK(command(0xd0) & 2);
    with_data(0xd1, 0xdd);
    CHECK(!a20.level);
    out8(&m, 0x64, 0xdf);
    CHECK(a20.level);
    CHECK(m.resets == 0);
    out8(&m, 0x64, 0xfe);
    CHECK(m.resets == 1);
    with_data(0xd1, 0x02);
    CHECK(m.resets == 2);
    fake_machine_end(&m);
}

static void test_keyboard(void)
{
    static const uint8_t a_down[] = {0x1e}, a_up[] = {0x9e}, up_down[] = {0xe0, 0x48};
    static const uint8_t pause[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    setup();
    CHECK(keyboard(0xff) == 0xfa && next() == 0xaa && next() == EMPTY);
    CHECK(keyboard(0xf2) == 0xfa && next() == 0xab && next() == 0x41); /* translated */
    CHECK(keyboard(0xed) == 0xfa && keyboard(0x07) == 0xfa);
    CHECK(keyboard(0xee) == 0xee);
    CHECK(keyboard(0xfe) == 0xee);
    CHECK(keyboard(0x00) == 0xfe);

    CHECK(i8042_key(kbc, a_down, 1));
    CHECK(irq1.level);
    CHECK(next() == 0x1e && !irq1.level);
    i8042_key(kbc, a_up, 1);
    CHECK(next() == 0x9e && next() == EMPTY);
    i8042_key(kbc, pause, 6);
    for (unsigned i = 0; i < 6; i++)
        CHECK(next() == pause[i]);
    /* Every plain key survives the way through set 2 and back. */
    for (unsigned code = 1; code < 0x59; code++) {
        uint8_t byte = (uint8_t)code;
        if (code >= 0x55 && code < 0x57)
            continue;
        i8042_key(kbc, &byte, 1);
        CHECK(next() == code);
    }

    with_data(0x60, 0x05); /* no translation: set 2 */
    i8042_key(kbc, a_down, 1), i8042_key(kbc, a_up, 1), i8042_key(kbc, up_down, 2);
    CHECK(next() == 0x1c && next() == 0xf0 && next() == 0x1c && next() == 0xe0 && next() == 0x75);
    CHECK(keyboard(0xf0) == 0xfa && keyboard(0) == 0xfa && next() == 2);
    CHECK(keyboard(0xf0) == 0xfa && keyboard(3) == 0xfa);
    i8042_key(kbc, up_down, 2);
    CHECK(next() == 0x63 && next() == EMPTY);
    static const uint8_t print[] = {0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa};
    i8042_key(kbc, pause, sizeof pause), i8042_key(kbc, print, sizeof print);
    CHECK(next() == 0x62 && next() == 0xf0 && next() == 0x62);
    CHECK(next() == 0x57 && next() == 0xf0 && next() == 0x57 && next() == EMPTY);
    CHECK(keyboard(0xf0) == 0xfa && keyboard(1) == 0xfa);
    i8042_key(kbc, up_down, 2);
    CHECK(next() == 0xe0 && next() == 0x48);

    CHECK(keyboard(0xf5) == 0xfa);
    i8042_key(kbc, a_down, 1);
    CHECK(next() == EMPTY);
    CHECK(keyboard(0xf4) == 0xfa);
    out8(&m, 0x64, 0xad); /* the interface is off: it keeps its bytes */
    i8042_key(kbc, a_down, 1);
    CHECK(next() == EMPTY);
    out8(&m, 0x64, 0xae);
    CHECK(next() == 0x1c);
    unsigned taken = 0;
    while (taken < 1000 && i8042_key(kbc, a_down, 1))
        taken++;
    CHECK(taken > 16 && taken < 100); /* the queue has an end */
    fake_machine_end(&m);
}

static void test_mouse(void)
{
    setup();
    with_data(0x60, 0x47);
    CHECK(mouse(0xff) == 0x1fa && next() == 0x1aa && next() == 0x100);
    CHECK(mouse(0xf2) == 0x1fa && next() == 0x100);
    static const unsigned knock[] = {200, 100, 80};
    for (unsigned i = 0; i < 3; i++)
        CHECK(mouse(0xf3) == 0x1fa && mouse(knock[i]) == 0x1fa);
    CHECK(mouse(0xf2) == 0x1fa && next() == 0x103);
    CHECK(mouse(0xe8) == 0x1fa && mouse(3) == 0x1fa);
    i8042_mouse(kbc, 1, 1, 0, 0);
    CHECK(next() == EMPTY); /* not enabled */
    CHECK(mouse(0xf4) == 0x1fa);
    CHECK(mouse(0xe9) == 0x1fa && next() == 0x120 && next() == 0x103 && next() == 0x150);
    irq12.rises = 0;
    i8042_mouse(kbc, 5, -3, -1, MOUSE_LEFT);
    CHECK(next() == 0x129 && next() == 0x105 && next() == 0x1fd && next() == 0x1ff);
    CHECK(irq12.rises == 4);
    CHECK(next() == EMPTY);
    i8042_mouse(kbc, 1000, 0, 0, 0); /* comes in several packets */
    int moved = 0;
    for (unsigned byte; (byte = next()) != EMPTY;) {
        CHECK(byte == 0x108);
        moved += (int8_t)next();
        next(), next();
    }
    CHECK(moved == 1000);
    for (int i = 0; i < 1000; i++)
        i8042_mouse(kbc, 1 << 30, -(1 << 30), 1 << 30, i & 7);
    mouse(0xf5); /* cuts packets off, but for the byte that is in the output buffer */
    CHECK(next() == 0x1fa && next() == EMPTY);
    fake_machine_end(&m);
}

static unsigned mouse_id(void)
{
    CHECK(mouse(0xf2) == 0x1fa);
    return next() & 0xff;
}

static void knock(unsigned first, unsigned second, unsigned third)
{
    const unsigned rates[] = {first, second, third};
    for (unsigned i = 0; i < ARRAY_SIZE(rates); i++)
        CHECK(mouse(0xf3) == 0x1fa && mouse(rates[i]) == 0x1fa);
}

/* IntelliMouse Explorer: the fourth byte has a short wheel and two more buttons. */
static void test_explorer(void)
{
    setup();
    with_data(0x60, 0x47);
    CHECK(mouse(0xf4) == 0x1fa);
    i8042_mouse(kbc, 0, 0, 1, MOUSE_SIDE); /* which a standard mouse has not */
    CHECK(next() == 0x108 && next() == 0x100 && next() == 0x100 && next() == EMPTY);
    knock(200, 80, 200);
    knock(200, 80, 80);
    CHECK(mouse_id() == 4); /* the three in the middle */
    i8042_mouse(kbc, 2, 1, 0, MOUSE_LEFT | MOUSE_EXTRA);
    CHECK(next() == 0x109 && next() == 0x102 && next() == 0x101 && next() == 0x120);
    i8042_mouse(kbc, 0, 0, -1, MOUSE_SIDE);
    CHECK(next() == 0x108 && next() == 0x100 && next() == 0x100 && next() == 0x11f);
    i8042_mouse(kbc, 0, 0, 9, 0);
    CHECK(next() == 0x108 && next() == 0x100 && next() == 0x100 && next() == 0x107);
    CHECK(next() == 0x108 && next() == 0x100 && next() == 0x100 && next() == 0x102);
    CHECK(next() == EMPTY);
    knock(200, 100, 80);
    CHECK(mouse_id() == 3);
    i8042_mouse(kbc, 0, 0, -1, MOUSE_EXTRA);
    CHECK(next() == 0x108 && next() == 0x100 && next() == 0x100 && next() == 0x1ff);
    CHECK(mouse(0xff) == 0x1fa && next() == 0x1aa && next() == 0x100);
    CHECK(mouse(0xf3) == 0x1fa && mouse(80) == 0x1fa && mouse_id() == 0);
    fake_machine_end(&m);
}

int main(void)
{
    test_controller();
    test_keyboard();
    test_mouse();
    test_explorer();
    return check_result();
}
