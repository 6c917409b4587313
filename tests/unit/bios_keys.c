/* Typing ahead of a BIOS: its buffer of 15 keys never overflows, and an operating system that does
 * not use it is not kept waiting. */
#include "vm/bios_keys.h"

#include <string.h>

#include "check.h"

static uint8_t bda[BIOS_DATA_SIZE];
static struct bios_keys keys;
static uint64_t now;
static const uint8_t make[] = {0x1e}, release[] = {0x9e}, shift[] = {0x2a}, grey[] = {0xe0, 0x48};

static void put(unsigned at, unsigned value)
{
    bda[at] = (uint8_t)value;
    bda[at + 1] = (uint8_t)(value >> 8);
}

static void set_up(unsigned used)
{
    memset(&keys, 0, sizeof keys);
    put(0x80, 0x1e);
    put(0x82, 0x3e);
    put(0x1a, 0x3a); /* it wraps */
    put(0x1c, 0x1e + (0x3a - 0x1e + 2 * used) % 32);
}

static bool admit(const uint8_t *codes, unsigned count)
{
    return bios_keys_admit(&keys, bda, codes, count, 0, now);
}

static unsigned used(void)
{
    return (unsigned)(bda[0x1c] + 32 - bda[0x1a]) / 2 % 16;
}

/* What a BIOS does with a key. False: it beeps. */
static bool store(void)
{
    if (used() == 15)
        return false;
    put(0x1c, 0x1e + (bda[0x1c] - 0x1e + 2) % 32);
    return true;
}

static void fetch(void)
{
    if (used())
        put(0x1a, 0x1e + (bda[0x1a] - 0x1e + 2) % 32);
}

int main(void)
{
    /* No BIOS: nothing waits. */
    for (unsigned i = 0; i < 100; i++)
        CHECK(admit(make, 1));

    /* A thousand keys for a program that takes one each 50 ms, and for 5 s none. */
    set_up(0);
    unsigned sent = 0, taken = 0;
    for (now = 1000; sent < 1000; now += 10) {
        while (sent < 1000 && admit(make, 1)) {
            CHECK(store());
            sent++;
        }
        if (now % 50 == 0 && (now < 20000 || now > 25000)) {
            taken += used() > 0;
            fetch();
        }
    }
    CHECK(taken + used() == 1000 && now > 45000);

    /* It holds what makes keys, not the others. */
    set_up(12);
    CHECK(!admit(make, 1) && !admit(grey, 2) && admit(release, 1) && admit(shift, 1));
    /* Not more than the keyboard itself holds. */
    set_up(3);
    CHECK(!bios_keys_admit(&keys, bda, make, 1, 9, now));
    CHECK(bios_keys_admit(&keys, bda, make, 1, 8, now));

    /* A system has taken over with keys left in the buffer: one key after two seconds, after four
     * all. */
    set_up(12);
    CHECK(!admit(make, 1));
    now += 2000;
    CHECK(admit(make, 1) && !admit(make, 1));
    now += 2000;
    for (unsigned i = 0; i < 100; i++)
        CHECK(admit(make, 1));
    /* The machine starts again. */
    store();
    CHECK(!admit(make, 1));

    /* Full to the brim: it may be a BIOS. */
    set_up(15);
    CHECK(!admit(make, 1));
    now += 29999;
    CHECK(!admit(make, 1));
    now++;
    CHECK(admit(make, 1) && admit(make, 1));

    /* Nonsense there. */
    for (unsigned i = 0; i < 0x10000; i++) {
        memset(&keys, 0, sizeof keys);
        put(0x1a, i * 40503u);
        put(0x1c, i * 30011u);
        put(0x80, i * 7u);
        put(0x82, i * 13u);
        admit(make, 1);
    }
    return check_result();
}
