/*
 * The MC146818 real-time clock and CMOS memory.
 *
 * The time of day is never counted: it is `base_ns` plus guest time, with base_ns taken from the
 * host's clock (UTC) at creation and moved when the guest sets the clock. The flags of register C
 * are brought up to date whenever somebody looks, from what has passed since the last look; a timer
 * runs only while an interrupt is enabled and not already pending. So a late host makes the guest
 * see one interrupt for several periods, as a real chip whose register C is read late.
 */
#include "dev/rtc.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "util/util.h"

#define NS_PER_SECOND INT64_C(1000000000)
#define DAY           86400
#define SECONDS_MAX   INT64_C(8000000000)
#define CMOS_SIZE     128
#define UIP_NS        244000 /* UIP rises this long before an update */

enum rtc_register {
    SECONDS = 0,
    SECONDS_ALARM = 1,
    MINUTES = 2,
    MINUTES_ALARM = 3,
    HOURS = 4,
    HOURS_ALARM = 5,
    WEEKDAY = 6,
    DAY_OF_MONTH = 7,
    MONTH = 8,
    YEAR = 9,
    REG_A = 10,
    REG_B = 11,
    REG_C = 12,
    REG_D = 13,
    EQUIPMENT = 0x14,
    CENTURY = 0x32,
};

enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_32KHZ = 0x20, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 4, B_24H = 2 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VALID = 0x80 };

struct rtc {
    struct device_env *env;
    struct irq_line irq;
    struct timer timer;
    uint8_t index; /* port 0x70, with the NMI mask in bit 7 */
    uint8_t reg_a, reg_b, reg_c;
    uint8_t cmos[CMOS_SIZE];
    int64_t base_ns;  /* time of day, since 1970, at guest time 0 */
    uint64_t seen_ns; /* guest time up to which reg_c is right */

    /* What the battery keeps over a reset. */
    uint8_t kept_cmos[CMOS_SIZE];
    uint8_t kept_b;
    int64_t kept_base_ns;

    void (*alarm)(void *opaque);
    void *alarm_opaque;
};

static uint64_t now_ns(const struct rtc *rtc)
{
    return vclock_ns(rtc->env->clock);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static int64_t day_time(const struct rtc *rtc, uint64_t ns)
{
    return rtc->base_ns + (int64_t)ns;
}

/* Does the clock advance? */
static bool ticking(const struct rtc *rtc)
{
    return !(rtc->reg_b & B_SET) && (rtc->reg_a & A_DIVIDER) == A_32KHZ;
}

/* ---- Number formats ---- */

static uint8_t encode(const struct rtc *rtc, unsigned v)
{
    return (uint8_t)(rtc->reg_b & B_BINARY ? v : (v / 10) << 4 | v % 10);
}

static unsigned decode(const struct rtc *rtc, uint8_t v)
{
    return rtc->reg_b & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hour(const struct rtc *rtc, unsigned hour)
{
    if (rtc->reg_b & B_24H)
        return encode(rtc, hour);
    return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static unsigned decode_hour(const struct rtc *rtc, uint8_t v)
{
    if (rtc->reg_b & B_24H)
        return decode(rtc, v);
    return decode(rtc, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

/* Put the time of day into the registers. */
static void time_to_registers(struct rtc *rtc, uint64_t ns)
{
    time_t t = floor_div(day_time(rtc, ns), NS_PER_SECOND);
    struct tm tm;
    gmtime_r(&t, &tm);
    rtc->cmos[SECONDS] = encode(rtc, tm.tm_sec);
    rtc->cmos[MINUTES] = encode(rtc, tm.tm_min);
    rtc->cmos[HOURS] = encode_hour(rtc, tm.tm_hour);
    rtc->cmos[WEEKDAY] = encode(rtc, tm.tm_wday + 1);
    rtc->cmos[DAY_OF_MONTH] = encode(rtc, tm.tm_mday);
    rtc->cmos[MONTH] = encode(rtc, tm.tm_mon + 1);
    rtc->cmos[YEAR] = encode(rtc, tm.tm_year % 100);
    rtc->cmos[CENTURY] = encode(rtc, tm.tm_year / 100 + 19);
}

/* Take the time of day from the registers: it is `fraction` ns past that second now. */
static void registers_to_time(struct rtc *rtc, uint64_t ns, int64_t fraction)
{
    unsigned year = decode(rtc, rtc->cmos[CENTURY]) * 100 + decode(rtc, rtc->cmos[YEAR]);
    struct tm tm = {
        .tm_sec = (int)decode(rtc, rtc->cmos[SECONDS]),
        .tm_min = (int)decode(rtc, rtc->cmos[MINUTES]),
        .tm_hour = (int)decode_hour(rtc, rtc->cmos[HOURS]),
        .tm_mday = (int)decode(rtc, rtc->cmos[DAY_OF_MONTH]),
        .tm_mon = (int)decode(rtc, rtc->cmos[MONTH]) - 1,
        .tm_year = (int)year - 1900,
    };
    /* The guest can ask for any year: keep to what 64 bits of nanoseconds hold, with room to run.
     */
    int64_t seconds = MAX(-SECONDS_MAX, MIN(timegm(&tm), SECONDS_MAX));
    rtc->base_ns = seconds * NS_PER_SECOND + fraction - (int64_t)ns;
    rtc->kept_base_ns = rtc->base_ns;
}

/* ---- Flags and interrupts ---- */

/* Frequency of the periodic interrupt, 0: off. */
static uint64_t periodic_hz(const struct rtc *rtc)
{
    unsigned rate = rtc->reg_a & A_RATE;
    if (rate == 0 || (rtc->reg_a & A_DIVIDER) != A_32KHZ)
        return 0;
    if (rate < 3)
        rate += 7;
    return 32768u >> (rate - 1);
}

static bool alarm_field_matches(const struct rtc *rtc, unsigned reg, unsigned value, bool hour)
{
    uint8_t alarm = rtc->cmos[reg];
    if ((alarm & 0xc0) == 0xc0)
        return true;
    return (hour ? decode_hour(rtc, alarm) : decode(rtc, alarm)) == value;
}

/* Is there an alarm in the seconds (from, to]? */
static bool alarm_between(const struct rtc *rtc, int64_t from, int64_t to)
{
    if (to - from > DAY)
        from = to - DAY; /* it repeats every day */
    for (int64_t t = from + 1; t <= to; t++) {
        unsigned second = (unsigned)(t - floor_div(t, DAY) * DAY);
        if (alarm_field_matches(rtc, SECONDS_ALARM, second % 60, false) &&
            alarm_field_matches(rtc, MINUTES_ALARM, second / 60 % 60, false) &&
            alarm_field_matches(rtc, HOURS_ALARM, second / 3600, true))
            return true;
    }
    return false;
}

/* Bring register C and the interrupt line up to date. */
static void look(struct rtc *rtc)
{
    uint64_t now = now_ns(rtc), hz = periodic_hz(rtc);

    if (hz && vclock_ticks(now, hz) != vclock_ticks(rtc->seen_ns, hz))
        rtc->reg_c |= C_PF;
    if (ticking(rtc)) {
        int64_t from = floor_div(day_time(rtc, rtc->seen_ns), NS_PER_SECOND);
        int64_t to = floor_div(day_time(rtc, now), NS_PER_SECOND);
        if (to > from) {
            rtc->reg_c |= C_UF;
            if (!(rtc->reg_c & C_AF) && alarm_between(rtc, from, to)) {
                rtc->reg_c |= C_AF;
                if ((rtc->reg_b & B_AIE) && rtc->alarm)
                    rtc->alarm(rtc->alarm_opaque);
            }
        }
    }
    rtc->seen_ns = now;
    /* The enable bits of B and the flags of C have the same positions. */
    bool irq = rtc->reg_b & rtc->reg_c & (C_PF | C_AF | C_UF);
    rtc->reg_c = (rtc->reg_c & ~C_IRQF) | (irq ? C_IRQF : 0);
    irq_set(&rtc->irq, irq);
}

/* Set the timer for the next thing that can raise the interrupt. */
static void schedule(struct rtc *rtc)
{
    uint64_t now = rtc->seen_ns, at = TIMER_OFF, hz = periodic_hz(rtc);

    if (!(rtc->reg_c & C_IRQF)) {
        if ((rtc->reg_b & B_PIE) && hz)
            at = vclock_ticks_to_ns(vclock_ticks(now, hz) + 1, hz);
        if ((rtc->reg_b & (B_AIE | B_UIE)) && ticking(rtc)) {
            int64_t t = day_time(rtc, now);
            int64_t left = NS_PER_SECOND - (t - floor_div(t, NS_PER_SECOND) * NS_PER_SECOND);
            at = MIN(at, now + (uint64_t)left);
        }
    }
    if (at == TIMER_OFF)
        timer_cancel(&rtc->timer);
    else
        timer_set(&rtc->timer, at);
}

static void refresh(struct rtc *rtc)
{
    look(rtc);
    schedule(rtc);
}

static void fire(void *opaque)
{
    refresh(opaque);
}

/* ---- Registers ---- */

static bool is_time(unsigned reg)
{
    return reg == SECONDS || reg == MINUTES || reg == HOURS || (reg >= WEEKDAY && reg <= YEAR) ||
           reg == CENTURY;
}

static bool update_in_progress(const struct rtc *rtc, uint64_t ns)
{
    int64_t t = day_time(rtc, ns + UIP_NS);
    return ticking(rtc) && t - floor_div(t, NS_PER_SECOND) * NS_PER_SECOND < UIP_NS;
}

static uint8_t read_register(struct rtc *rtc, unsigned reg)
{
    uint8_t value;
    switch (reg) {
    case REG_A:
        return rtc->reg_a | (update_in_progress(rtc, now_ns(rtc)) ? A_UIP : 0);
    case REG_B:
        return rtc->reg_b;
    case REG_C:
        look(rtc);
        value = rtc->reg_c;
        rtc->reg_c = 0;
        refresh(rtc);
        return value;
    case REG_D:
        return D_VALID;
    default:
        if (is_time(reg) && ticking(rtc))
            time_to_registers(rtc, now_ns(rtc));
        return rtc->cmos[reg];
    }
}

/* A or B changes: the clock may stop or start. */
static void write_control(struct rtc *rtc, uint8_t a, uint8_t b)
{
    look(rtc);
    uint64_t now = rtc->seen_ns;
    bool was_ticking = ticking(rtc);
    bool was_reset = (rtc->reg_a & 0x60) == 0x60;
    if (was_ticking)
        time_to_registers(rtc, now);

    int64_t t = day_time(rtc, now);
    int64_t fraction = t - floor_div(t, NS_PER_SECOND) * NS_PER_SECOND;
    rtc->reg_a = a & ~A_UIP;
    rtc->reg_b = b;
    if (was_reset && (rtc->reg_a & 0x60) != 0x60) {
        /* The first update comes half a second after the divider was let go. */
        rtc->base_ns += NS_PER_SECOND / 2 - fraction;
        fraction = NS_PER_SECOND / 2;
    }
    if (ticking(rtc) && !was_ticking) {
        registers_to_time(rtc, now, fraction);
    } else if (was_ticking && ticking(rtc)) {
        /* Only the format may have changed: the registers are made anew when read. */
        time_to_registers(rtc, now);
    }
    rtc->kept_b = rtc->reg_b & (B_BINARY | B_24H);
    refresh(rtc);
}

static void write_register(struct rtc *rtc, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_A:
        write_control(rtc, value, rtc->reg_b);
        break;
    case REG_B:
        if (value & B_SET)
            value &= ~B_UIE;
        write_control(rtc, rtc->reg_a, value);
        break;
    case REG_C:
    case REG_D:
        break;
    default:
        look(rtc);
        if (is_time(reg) && ticking(rtc)) {
            int64_t t = day_time(rtc, rtc->seen_ns);
            time_to_registers(rtc, rtc->seen_ns);
            rtc->cmos[reg] = value;
            registers_to_time(rtc, rtc->seen_ns, t - floor_div(t, NS_PER_SECOND) * NS_PER_SECOND);
        } else {
            rtc->cmos[reg] = value;
        }
        rtc->kept_cmos[reg] = value;
        schedule(rtc);
        break;
    }
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
    struct rtc *rtc = opaque;
    return offset == 0 ? rtc->index : read_register(rtc, rtc->index & 0x7f);
}

static void rtc_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct rtc *rtc = opaque;
    if (offset == 0)
        rtc->index = (uint8_t)value;
    else
        write_register(rtc, rtc->index & 0x7f, (uint8_t)value);
}

static const struct io_ops rtc_ops = {rtc_read, rtc_write, 1};

void rtc_on_alarm(struct rtc *rtc, void (*alarm)(void *opaque), void *opaque)
{
    rtc->alarm = alarm;
    rtc->alarm_opaque = opaque;
}

bool rtc_nmi_masked(const struct rtc *rtc)
{
    return rtc->index & 0x80;
}

void rtc_set_cmos(struct rtc *rtc, unsigned index, uint8_t value)
{
    if (index > REG_D && index < CMOS_SIZE)
        rtc->cmos[index] = rtc->kept_cmos[index] = value;
}

static void set_cmos16(struct rtc *rtc, unsigned index, uint64_t value)
{
    rtc_set_cmos(rtc, index, (uint8_t)value);
    rtc_set_cmos(rtc, index + 1, (uint8_t)(value >> 8));
}

/* What set-up of a PC stores about the machine. */
static void describe_machine(struct rtc *rtc, uint64_t low_ram, uint64_t high_ram)
{
    const uint64_t kib = 1024, mib = kib * kib;
    uint64_t extended = low_ram > mib ? (low_ram - mib) / kib : 0;
    uint64_t above_16m = low_ram > 16 * mib ? (low_ram - 16 * mib) / (64 * kib) : 0;
    uint64_t high = high_ram / (64 * kib);

    rtc_set_cmos(rtc, EQUIPMENT, 0x06); /* x87, PS/2 mouse */
    set_cmos16(rtc, 0x15, 640);
    set_cmos16(rtc, 0x17, MIN(extended, 0xffff));
    set_cmos16(rtc, 0x30, MIN(extended, 0xffff));
    set_cmos16(rtc, 0x34, MIN(above_16m, 0xffff));
    set_cmos16(rtc, 0x5b, MIN(high, 0xffffff));
    rtc_set_cmos(rtc, 0x5d, (uint8_t)(MIN(high, 0xffffff) >> 16));

    uint16_t sum = 0;
    for (unsigned i = 0x10; i < 0x2e; i++)
        sum += rtc->kept_cmos[i];
    rtc_set_cmos(rtc, 0x2e, (uint8_t)(sum >> 8)); /* high byte first */
    rtc_set_cmos(rtc, 0x2f, (uint8_t)sum);
}

static const struct state_field rtc_fields[] = {
    STATE(struct rtc, index, 0),      STATE(struct rtc, reg_a, 0x26),
    STATE(struct rtc, reg_b, B_24H),  STATE(struct rtc, reg_c, 0),
    STATE_ARRAY(struct rtc, cmos, 0), STATE(struct rtc, base_ns, 0),
    STATE(struct rtc, seen_ns, 0),
};

static void after_reset(void *opaque)
{
    struct rtc *rtc = opaque;
    memcpy(rtc->cmos, rtc->kept_cmos, sizeof rtc->cmos);
    rtc->base_ns = rtc->kept_base_ns;
    rtc->reg_b = rtc->kept_b;
    rtc->seen_ns = now_ns(rtc);
    refresh(rtc);
}

static void before_save(void *opaque)
{
    look(opaque);
}

static void after_load(void *opaque)
{
    struct rtc *rtc = opaque;
    memcpy(rtc->kept_cmos, rtc->cmos, sizeof rtc->cmos);
    rtc->kept_base_ns = rtc->base_ns;
    rtc->kept_b = rtc->reg_b & (B_BINARY | B_24H);
    refresh(rtc);
}

static const struct state_table rtc_table = {
    .name = "rtc",
    .version = 1,
    .size = sizeof(struct rtc),
    .fields = rtc_fields,
    .field_count = ARRAY_SIZE(rtc_fields),
    .after_reset = after_reset,
    .before_save = before_save,
    .after_load = after_load,
};

struct rtc *rtc_create(struct device_env *env, struct irq_line irq8, uint64_t low_ram,
                       uint64_t high_ram)
{
    struct rtc *rtc = calloc(1, sizeof *rtc);
    if (!rtc)
        return NULL;
    struct timespec host;
    clock_gettime(CLOCK_REALTIME, &host);
    rtc->env = env;
    rtc->irq = irq8;
    rtc->kept_base_ns = host.tv_sec * NS_PER_SECOND + host.tv_nsec - (int64_t)now_ns(rtc);
    rtc->kept_b = B_24H;
    describe_machine(rtc, low_ram, high_ram);
    timer_init(&rtc->timer, env->timers, fire, rtc);
    bus_add(env->pio, 0x70, 2, &rtc_ops, rtc, "rtc");
    device_register(env, &rtc_table, rtc, free);
    return rtc;
}
