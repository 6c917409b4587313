/* The 8254: modes 0, 2, 3, 4 and 1, 5 by the gate of counter 2, byte order, latching, read-back,
 * BCD. Counter 2 serves: its gate and its output are to be had at port 61h.
 * QEMU 7.2 does not let the gate stop a counter, and has no mode 4. */
#include "lib/guest.h"

static void gate(bool on)
{
    outb(0x61, (u8)((inb(0x61) & ~3) | on));
}

static bool out(void)
{
    return inb(0x61) & 0x20;
}

static void program(u8 mode, u16 count)
{
    outb(0x43, (u8)(0xb0 | mode << 1));
    outb(0x42, (u8)count);
    outb(0x42, (u8)(count >> 8));
}

static u16 latch(void)
{
    outb(0x43, 0x80);
    const u8 low = inb(0x42);
    return (u16)(low | inb(0x42) << 8);
}

static u8 status(void)
{
    outb(0x43, 0xe8); /* read-back, status of counter 2 */
    return inb(0x42);
}

static bool rises(void)
{
    for (int i = 0; i < 2000000; i++)
        if (out())
            return true;
    return false;
}

static bool falls(void)
{
    for (int i = 0; i < 2000000; i++)
        if (!out())
            return true;
    return false;
}

/* The gate starts the pulse; it is 55 ms long, and a busy host may keep us from seeing its end or
 * its beginning, so there are several. */
static bool one_shot(void)
{
    for (int i = 0; i < 10; i++) {
        gate(false);
        program(1, 0xffff);
        gate(true);
        if (!out() && rises())
            return true;
    }
    return false;
}

void guest_main(void)
{
    gate(true);
    program(0, 0xffff);
    check("mode 0: low at first", !out());
    check("mode 0: rises at the end", rises());
    check("mode 0: stays", out() && out());
    gate(false);
    program(0, 20000);
    const u16 a = latch();
    for (volatile int i = 0; i < 1000; i++)
        continue;
    check("gate low: counting stops", latch() == a);
    gate(true);
    check("and goes on", rises());
    program(2, 1000);
    check("mode 2: counts down", latch() <= 1000 && latch() > 0);
    program(3, 4000);
    check("mode 3: square wave", rises() && falls() && rises());
    printf("status: mode %x\n", status() & 0x3f);
    gate(false);
    check("mode 3: gate low holds the output high", out());
    gate(true);
    gate(false);
    program(1, 20000);
    check("mode 1: high until the gate rises", out());
    check("mode 1: one shot", one_shot());
    program(4, 10000);
    check("mode 4: high", out());
    outb(0x43, 0xb1); /* mode 0, BCD */
    outb(0x42, 0x00);
    outb(0x42, 0x10);
    check("BCD", (latch() & 0xf) <= 9 && latch() <= 0x1000);
    outb(0x43, 0x90); /* low byte alone, mode 0 */
    outb(0x42, 200);
    check("low byte alone", rises());
    gate(false);
    program(0, 0x1234);
    outb(0x43, 0x80);
    const u8 low = inb(0x42);
    outb(0x43, 0x80); /* a second latch is ignored until the first is read */
    const u8 high = inb(0x42);
    printf("latched: %x\n", low | high << 8);
    outb(0x43, 0xc8); /* read-back, status and count */
    const u8 s = inb(0x42), l = inb(0x42), h = inb(0x42);
    printf("read-back: status %x, count %x\n", s & 0x3f, l | h << 8);
}
