#include "dev/rtc.h"

#include <time.h>

#include "check.h"
#include "fake_machine.h"

#define SECOND UINT64_C(1000000000)

static struct fake_machine m;
static struct probe irq8;
static struct rtc *rtc;

static unsigned get(unsigned reg)
{
    out8(&m, 0x70, reg);
    return in8(&m, 0x71);
}

static void put(unsigned reg, unsigned value)
{
    out8(&m, 0x70, reg);
    out8(&m, 0x71, value);
}

static void setup(void)
{
    fake_machine_init(&m);
    irq8 = (struct probe){0};
    rtc = rtc_create(&m.env, fake_line(&irq8), UINT64_C(512) << 20, UINT64_C(3) << 30);
}

/* Set the clock the way drivers do, to a second's start. */
static void set_clock(unsigned y, unsigned mo, unsigned d, unsigned h, unsigned mi, unsigned s)
{
    put(11, get(11) | 0x80);
    put(10, 0x76); /* divider held */
    put(0, s), put(2, mi), put(4, h), put(7, d), put(8, mo), put(9, y);
    put(10, 0x26);
    put(11, get(11) & ~0x80u);
}

static void test_time(void)
{
    setup();
    time_t t = time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    unsigned year = get(0x32) * 100 + get(9); /* BCD digits, but compare as they are */
    CHECK((year / 100 >> 4) * 1000 + (year / 100 & 15) * 100 + (year % 100 >> 4) * 10 >= 2000 ||
          tm.tm_year < 100);
    CHECK(get(13) == 0x80);

    put(11, 0x06); /* binary, 24 hours */
    CHECK(get(0x32) == 20 || get(0x32) == 21);
    CHECK(get(9) == (unsigned)tm.tm_year % 100 || tm.tm_yday == 0);
    set_clock(99, 12, 31, 23, 59, 58);
    put(0x32, 20);
    fake_advance(&m, 500000000);
    CHECK(get(0) == 59); /* the first update is half a second after the divider starts */
    fake_advance(&m, SECOND);
    CHECK(get(0) == 0 && get(2) == 0 && get(4) == 0 && get(7) == 1 && get(8) == 1);
    CHECK(get(9) == 0 && get(0x32) == 21);
    CHECK(get(6) == 6); /* 2100-01-01 is a Friday */

    put(11, 0x00); /* BCD, 12 hours */
    set_clock(0x24, 0x02, 0x28, 0x91, 0x59, 0x59);
    put(0x32, 0x20);
    CHECK(get(4) == 0x91);
    fake_advance(&m, 3601 * SECOND);
    CHECK(get(7) == 0x29 && get(4) == 0x01); /* leap day, an hour past midnight */
    put(11, 0x02);
    CHECK(get(4) == 0x01);

    /* SET stops the clock. */
    put(11, 0x82);
    unsigned s = get(0);
    fake_advance(&m, 5 * SECOND);
    CHECK(get(0) == s);
    fake_machine_end(&m);
}

static void test_update(void)
{
    setup();
    put(11, 0x06);
    set_clock(24, 1, 1, 12, 0, 0);
    put(11, 0x16); /* update-ended interrupt */
    get(12);
    fake_advance(&m, 500000000 - 100000);
    CHECK(get(10) & 0x80); /* in progress */
    CHECK(!irq8.level);
    fake_advance(&m, 200000);
    CHECK(!(get(10) & 0x80));
    CHECK(irq8.level);
    CHECK(get(0) == 1);
    CHECK(get(12) == (0x80 | 0x10 | 0x40) || get(12) == 0x90);
    CHECK(!irq8.level);
    CHECK(get(12) == 0);
    for (int i = 0; i < 10; i++) {
        fake_advance(&m, SECOND);
        get(12);
    }
    CHECK(irq8.rises == 11);
    fake_machine_end(&m);
}

static void on_alarm(void *opaque)
{
    ++*(int *)opaque;
}

static void test_alarm(void)
{
    int alarms = 0;
    setup();
    rtc_on_alarm(rtc, on_alarm, &alarms);
    put(11, 0x06);
    set_clock(24, 1, 1, 12, 0, 0);
    put(5, 13), put(3, 30), put(1, 0xff); /* 13:30, every second */
    put(11, 0x26);
    get(12);
    fake_advance(&m, 5400 * SECOND - 2 * SECOND);
    CHECK(!irq8.level);
    CHECK(alarms == 0);
    fake_advance(&m, 2 * SECOND);
    CHECK(irq8.level && alarms == 1);
    CHECK(get(12) & 0x20);
    fake_advance(&m, SECOND);
    CHECK(get(12) & 0x20);
    put(1, 0), put(5, 0xc0);
    get(12);
    fake_advance(&m, 100 * SECOND);
    CHECK(!(get(12) & 0x20)); /* 13:30 has gone */
    fake_advance(&m, 3600 * SECOND);
    CHECK(get(12) & 0x20);
    int before = alarms;
    put(11, 0x06); /* the flag alone wakes nobody */
    fake_advance(&m, 86400 * SECOND);
    CHECK(get(12) & 0x20 && alarms == before);
    fake_machine_end(&m);
}

static void test_periodic(void)
{
    setup();
    put(10, 0x26); /* 1024 Hz */
    put(11, 0x42);
    for (int i = 0; i < 10240; i++) {
        fake_advance(&m, SECOND / 1024);
        get(12);
    }
    CHECK(irq8.rises >= 10235 && irq8.rises <= 10240);
    /* Register C unread: one interrupt, no timer. */
    unsigned before = irq8.rises;
    fake_advance(&m, SECOND);
    CHECK(irq8.rises <= before + 1);
    put(11, 0x02);
    CHECK(get(12) & 0x40); /* the flag needs no enable */
    fake_advance(&m, SECOND / 100);
    CHECK((get(12) & 0xc0) == 0x40);
    fake_machine_end(&m);
}

static void test_cmos(void)
{
    setup();
    CHECK(get(0x15) == 0x80 && get(0x16) == 2);
    CHECK((get(0x34) | get(0x35) << 8) == (512 - 16) * 16);
    CHECK((get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16) == 3 * 1024 * 16);
    put(0x40, 0x5a);
    put(0x8f, 0x0a);
    CHECK(rtc_nmi_masked(rtc));
    devices_reset(&m.env);
    CHECK(get(0x40) == 0x5a && get(0x0f) == 0x0a); /* the battery keeps it */
    CHECK(!rtc_nmi_masked(rtc));
    /* Nonsense of the guest's does no harm. */
    for (unsigned v = 0; v < 256; v += 5) {
        put(11, v & 6);
        for (unsigned reg = 0; reg < 10; reg++)
            put(reg, v ^ (reg * 37));
        put(0x32, v);
        get(9);
        fake_advance(&m, SECOND);
    }
    fake_machine_end(&m);
}

int main(void)
{
    test_time();
    test_update();
    test_alarm();
    test_periodic();
    test_cmos();
    return check_result();
}
