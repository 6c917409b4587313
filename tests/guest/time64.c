/* The time bases agree: PIT, TSC, PM timer, local APIC timer and RTC over about a tenth of a
 * second, within half a per cent; and none of them goes backwards. */
#include "lib/guest.h"

#define PM_HZ  3579545u
#define PIT_HZ 1193182u

static u16 pm;

static u32 pm_since(u32 start)
{
    return (inl(pm) - start) & 0xffffff;
}

static bool near(u64 a, u64 b, unsigned per_mille)
{
    const u64 d = a > b ? a - b : b - a;
    return d * 1000 <= b * per_mille;
}

/* `value` is good if one try in forty agrees: the host may take the processor away at any moment. */
#define AGREE(name, expression)                                                                    \
    do {                                                                                           \
        bool good_ = false;                                                                        \
        for (int try_ = 0; try_ < 40 && !good_; try_++)                                             \
            good_ = (expression);                                                                  \
        check(name, good_);                                                                        \
    } while (0)

/* Nanoseconds by the PM timer that the PIT's counter 2 takes for 50 ms. */
static bool pit(void)
{
    outb(0x61, (u8)((inb(0x61) & ~2) | 1));
    outb(0x43, 0xb0); /* counter 2, mode 0 */
    outb(0x42, (u8)59659);
    outb(0x42, (u8)(59659 >> 8));
    const u32 start = inl(pm);
    while (!(inb(0x61) & 0x20))
        continue;
    return near(pm_since(start), (u64)PM_HZ * 59659 / PIT_HZ, 5);
}

static u64 tsc_hz;

static bool tsc(void)
{
    u64 hz[2];
    for (int i = 0; i < 2; i++) {
        const u32 start = inl(pm);
        const u64 t = rdtsc();
        u32 ticks;
        while ((ticks = pm_since(start)) < PM_HZ / 20)
            continue;
        hz[i] = (rdtsc() - t) * PM_HZ / ticks;
    }
    tsc_hz = hz[1];
    return near(hz[0], hz[1], 5);
}

static bool apic(void)
{
    u32 rates[2];
    for (int i = 0; i < 2; i++) {
        apic_write(APIC_DIVIDE, 0xb);
        apic_write(APIC_INITIAL, 0xffffffff);
        const u64 t = rdtsc();
        const u32 first = apic_read(APIC_CURRENT);
        while (rdtsc() - t < tsc_hz / 20)
            continue;
        const u32 last = apic_read(APIC_CURRENT);
        rates[i] = (u32)((u64)(first - last) * tsc_hz / (rdtsc() - t));
    }
    return near(rates[0], rates[1], 5);
}

static u8 cmos(u8 reg)
{
    outb(0x70, reg);
    return inb(0x71);
}

/* Periodic flag at 64 Hz, 8 of them: an eighth of a second. */
static bool rtc(void)
{
    outb(0x70, 0x0a);
    outb(0x71, 0x2a);
    outb(0x70, 0x0b);
    outb(0x71, 0x42);
    cmos(0x0c);
    while (!(cmos(0x0c) & 0x40))
        continue;
    const u64 t = rdtsc();
    for (int i = 0; i < 8;)
        i += (cmos(0x0c) & 0x40) != 0;
    const u64 took = rdtsc() - t;
    outb(0x70, 0x0b);
    outb(0x71, 0x02);
    return near(took, tsc_hz / 8, 10);
}

static volatile u32 ticks;

static void on_pit(struct frame *f)
{
    (void)f;
    ticks++;
    pic_eoi(0);
}

/* Counter 0 in mode 2 at 100 Hz: ten interrupts. */
static bool pit_interrupts(void)
{
    outb(0x43, 0x34);
    outb(0x40, (u8)11932);
    outb(0x40, (u8)(11932 >> 8));
    pic_unmask(0);
    ticks = 0;
    sti();
    while (!ticks)
        continue;
    const u32 first = ticks;
    const u64 t = rdtsc();
    while (ticks < first + 10)
        continue;
    const u64 took = rdtsc() - t;
    cli();
    pic_mask(0);
    return near(took, tsc_hz / 10, 20);
}

static bool monotonic(void)
{
    u64 last = rdtsc();
    for (int i = 0; i < 10000; i++) {
        const u64 now = rdtsc();
        if (now <= last)
            return false;
        last = now;
    }
    u32 p = inl(pm);
    for (int i = 0; i < 2000; i++) {
        const u32 now = inl(pm);
        if (((now - p) & 0xffffff) > 0x7fffff)
            return false;
        p = now;
    }
    return true;
}

void guest_main(void)
{
    pic_init();
    apic_enable();
    apic_write(APIC_LINT0, 0x700); /* the 8259s through here */
    handle(0x20, on_pit);

    pm = pm_timer_port();
    AGREE("PIT against PM timer", pit());
    AGREE("TSC against PM timer", tsc());
    AGREE("local APIC timer against TSC", apic());
    AGREE("RTC periodic flag against TSC", rtc());
    AGREE("PIT interrupts against TSC", pit_interrupts());
    check("never backwards", monotonic());
    /* An update takes the RTC's seconds on by one, once a second. */
    const u8 second = cmos(0);
    const u64 t = rdtsc();
    while (cmos(0) == second && rdtsc() - t < tsc_hz * 3)
        continue;
    check("RTC seconds", cmos(0) != second && rdtsc() - t <= tsc_hz * 12 / 10);
    cmos(0x0c);
    while (!(cmos(0x0c) & 0x10) && rdtsc() - t < tsc_hz * 4)
        continue;
    check("RTC update flag", rdtsc() - t < tsc_hz * 4);
}
