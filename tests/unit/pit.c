#include "dev/pit.h"

#include "check.h"
#include "fake_machine.h"

static struct fake_machine m;
static struct probe irq0;

static struct pit *pit;

static void setup(void)
{
    fake_machine_init(&m);
    irq0 = (struct probe){0};
    pit = pit_create(&m.env, fake_line(&irq0));
}

/* Let exactly `ticks` of the counter's clock pass since `base`. */
static uint64_t base;
static void at_tick(uint64_t ticks)
{
    fake_advance(&m, base + vclock_ticks_to_ns(ticks, PIT_HZ) - fake_now());
}

static void program(unsigned counter, unsigned mode, unsigned count, unsigned bcd)
{
    out8(&m, 0x43, counter << 6 | 0x30 | mode << 1 | bcd);
    out8(&m, 0x40 + counter, count & 0xff);
    out8(&m, 0x40 + counter, count >> 8);
    base = fake_now();
}

static unsigned count_of(unsigned counter)
{
    out8(&m, 0x43, counter << 6);
    unsigned low = in8(&m, 0x40 + counter);
    return low | in8(&m, 0x40 + counter) << 8;
}

static unsigned status_of(unsigned counter)
{
    out8(&m, 0x43, 0xe0 | 2 << counter);
    return in8(&m, 0x40 + counter);
}

static void test_rate(void)
{
    setup();
    program(0, 2, 11932, 0);
    irq0.rises = 0;
    fake_advance(&m, 10000000000);
    /* 10 s at 1193182 / 11932 Hz, with no drift. */
    CHECK(irq0.rises == (uint64_t)10 * PIT_HZ / 11932);
    fake_machine_end(&m);

    setup();
    program(0, 3, 0, 0);
    irq0.rises = 0;
    fake_advance(&m, 10000000000);
    CHECK(irq0.rises == 182); /* 18.2 Hz */
    fake_machine_end(&m);
}

static void test_catch_up(void)
{
    setup();
    program(0, 2, 11932, 0);
    irq0.rises = 0;
    fake_stall(100000000); /* 10 ticks are missed */
    fake_advance(&m, 1000000);
    CHECK(irq0.rises == 1); /* no burst */
    fake_advance(&m, 899000000);
    CHECK(irq0.rises == 99); /* but none is lost */
    fake_stall(100000000000);
    irq0.rises = 0;
    fake_advance(&m, 10000000000);
    CHECK(irq0.rises > 1000 && irq0.rises < 1070); /* what is owed has a limit */
    fake_machine_end(&m);

    setup();
    program(0, 2, 2, 0); /* 600 kHz is asked for: no storm */
    irq0.rises = 0;
    fake_advance(&m, 1000000000);
    CHECK(irq0.rises <= 20100);
    fake_machine_end(&m);
}

static bool waits;
static bool tick_waits(void *opaque)
{
    (void)opaque;
    return waits;
}

static void test_waiting(void)
{
    setup();
    pit_on_tick(pit, tick_waits, NULL);
    program(0, 2, 11932, 0);
    irq0.rises = 0;
    fake_advance(&m, 10100000);
    CHECK(irq0.rises == 1);
    waits = true; /* the processor does not get to it for five ticks */
    fake_advance(&m, 50000000);
    CHECK(irq0.rises == 1);
    waits = false;
    for (int i = 0; i < 7; i++)
        pit_tick_taken(pit);
    CHECK(irq0.rises == 6);
    fake_advance(&m, 10000000);
    CHECK(irq0.rises == 7);

    /* A processor that never takes it: what is owed has a limit. */
    waits = true;
    fake_advance(&m, 10000000000);
    waits = false;
    irq0.rises = 0;
    for (int i = 0; i < 1000; i++)
        pit_tick_taken(pit);
    CHECK(irq0.rises == 64);
    /* No storm of a fast counter's. */
    program(0, 2, 2, 0);
    waits = true;
    fake_advance(&m, 10000000);
    irq0.rises = 0;
    for (int i = 0; i < 1000; i++)
        pit_tick_taken(pit);
    CHECK(irq0.rises == 0);
    waits = false;
    fake_machine_end(&m);
}

static void test_one_shot(void)
{
    setup();
    program(0, 0, 1000, 0);
    CHECK(!irq0.level);
    at_tick(400);
    CHECK(count_of(0) == 600);
    CHECK((status_of(0) & 0xc0) == 0);
    at_tick(999);
    CHECK(!irq0.level);
    at_tick(1000);
    CHECK(irq0.level);
    CHECK(status_of(0) & 0x80);
    at_tick(1001);
    CHECK(count_of(0) == 0xffff);
    unsigned rises = irq0.rises;
    fake_advance(&m, 1000000000);
    CHECK(irq0.rises == rises);
    /* A new count: it starts again. The first byte stops it. */
    out8(&m, 0x40, 0x10);
    CHECK(!irq0.level);
    out8(&m, 0x40, 0);
    base = fake_now();
    at_tick(17);
    CHECK(irq0.rises == rises + 1);

    /* Mode 4: the strobe. */
    program(0, 4, 500, 0);
    irq0.rises = 0;
    at_tick(499);
    CHECK(irq0.rises == 0);
    at_tick(502);
    CHECK(irq0.rises == 1);
    fake_machine_end(&m);
}

static void test_counting(void)
{
    setup();
    out8(&m, 0x61, 1);
    program(2, 2, 100, 0);
    at_tick(30);
    CHECK(count_of(2) == 70);
    at_tick(130);
    CHECK(count_of(2) == 70);
    CHECK(in8(&m, 0x61) & 0x20);
    at_tick(199);
    CHECK(!(in8(&m, 0x61) & 0x20)); /* low in the last clock */
    /* A new count waits for the cycle's end. */
    at_tick(250);
    out8(&m, 0x42, 200), out8(&m, 0x42, 0);
    CHECK(status_of(2) & 0x40);
    at_tick(290);
    CHECK(count_of(2) == 10);
    at_tick(310);
    CHECK(count_of(2) == 190);
    CHECK(!(status_of(2) & 0x40));

    program(2, 3, 7, 0); /* odd: 4 high, 3 low */
    unsigned high = 0;
    for (unsigned i = 0; i < 14; i++) {
        at_tick(i);
        high += (in8(&m, 0x61) & 0x20) != 0;
    }
    CHECK(high == 8);

    program(2, 0, 0x1000, 1); /* BCD */
    at_tick(1);
    CHECK(count_of(2) == 0x0999);
    at_tick(1001);
    CHECK(count_of(2) == 0x9999);

    /* The gate holds mode 0 and restarts mode 2; it triggers mode 1. */
    program(2, 0, 1000, 0);
    at_tick(100);
    out8(&m, 0x61, 0);
    at_tick(500);
    CHECK(count_of(2) == 900);
    out8(&m, 0x61, 1);
    at_tick(600);
    CHECK(count_of(2) == 800);
    program(2, 1, 50, 0);
    at_tick(10);
    CHECK(in8(&m, 0x61) & 0x20);
    out8(&m, 0x61, 0), out8(&m, 0x61, 1);
    base = fake_now();
    at_tick(49);
    CHECK(!(in8(&m, 0x61) & 0x20));
    at_tick(50);
    CHECK(in8(&m, 0x61) & 0x20);
    fake_machine_end(&m);
}

static void test_access(void)
{
    setup();
    out8(&m, 0x61, 1);
    out8(&m, 0x43, 0x94); /* counter 2, LSB only, mode 2 */
    out8(&m, 0x42, 50);
    base = fake_now();
    at_tick(10);
    CHECK(in8(&m, 0x42) == 40);
    out8(&m, 0x43, 0xa4); /* MSB only */
    out8(&m, 0x42, 2);
    base = fake_now();
    at_tick(10);
    CHECK(in8(&m, 0x42) == (512 - 10) >> 8);
    /* A latched count stays until it has been read; read-back of count and status: status first. */
    program(2, 2, 1000, 0);
    at_tick(100);
    out8(&m, 0x43, 0xc8);
    at_tick(200);
    CHECK((in8(&m, 0x42) & 0x3f) == 0x34);
    unsigned low = in8(&m, 0x42);
    CHECK((low | in8(&m, 0x42) << 8) == 900);
    /* The refresh bit toggles. */
    unsigned before = in8(&m, 0x61) & 0x10;
    fake_advance(&m, 15085);
    CHECK((in8(&m, 0x61) & 0x10) != before);
    fake_machine_end(&m);
}

static unsigned tone;

static void on_tone(void *opaque, unsigned hz)
{
    tone = hz;
}

static void test_speaker(void)
{
    fake_machine_init(&m);
    pit = pit_create(&m.env, (struct irq_line){0});
    pit_on_tone(pit, on_tone, NULL);
    out8(&m, 0x43, 0xb6);
    out8(&m, 0x42, 1193 & 255);
    out8(&m, 0x42, 1193 >> 8);
    CHECK(tone == 0);
    out8(&m, 0x61, 3);
    CHECK(tone == 1000);
    out8(&m, 0x61, 2); /* the gate is low */
    CHECK(tone == 0);
    out8(&m, 0x61, 3);
    devices_reset(&m.env);
    CHECK(tone == 0);
    fake_machine_end(&m);
}

int main(void)
{
    test_speaker();
    test_rate();
    test_catch_up();
    test_waiting();
    test_one_shot();
    test_counting();
    test_access();
    return check_result();
}
