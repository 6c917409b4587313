/* What guests ask VMware's backdoor about the machine, command by command. */
#include "dev/backdoor.h"

#include <time.h>

#include "check.h"
#include "fake_machine.h"
#include "util/util.h"

#define MAGIC 0x564d5868

enum {
    GETMHZ = 1,
    GETVERSION = 10,
    GETHWVERSION = 17,
    GETUUID = 19,
    GETMEMSIZE = 20,
    GETTIME = 23,
    GETHZ = 45,
    GETTIMEFULL = 46,
    GETTIMEFULL_WITH_LAG = 55,
    GET_VCPU_INFO = 68,
    STEALCLOCK = 91,
};

static struct fake_machine m;
static struct backdoor *backdoor;

/* As Linux calls it: all ones in EBX, and here in all that may answer. */
static struct backdoor_call call(uint32_t command)
{
    struct backdoor_call c = {MAGIC, UINT32_MAX, command, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    backdoor_call(backdoor, &c);
    return c;
}

static void test_identity(void)
{
    struct backdoor_call c = call(GETVERSION);
    CHECK(c.eax == 6 && c.ebx == MAGIC && c.ecx == 4);
    c = call(GETHWVERSION);
    CHECK(c.eax >= 7 && c.eax < 0x100 && c.ebx == MAGIC);
    m.mem.size = UINT64_C(5) << 30;
    CHECK(call(GETMEMSIZE).eax == 5 << 10);
}

static void test_frequencies(void)
{
    struct backdoor_call c = call(GETHZ);
    CHECK(((uint64_t)c.ebx << 32 | c.eax) == UINT64_C(5000000123));
    CHECK(c.ecx == 1000000000);
    CHECK(call(GETMHZ).eax == 5000);
}

static void test_vcpu_info(void)
{
    CHECK(call(GET_VCPU_INFO).eax == BIT(3)); /* bit 31: the command is unknown */
}

/* time() is of the last tick, and may be a second behind for as long. */
static uint64_t seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec;
}

/* Between `before` and now. */
static bool is_now(uint64_t before, uint64_t seconds, uint32_t microseconds)
{
    return seconds >= before && seconds <= seconds_now() && microseconds < 1000000;
}

static void test_time(void)
{
    const uint64_t before = seconds_now();
    struct backdoor_call c = call(GETTIME);
    CHECK(is_now(before, c.eax, c.ebx) && c.ecx == 1000000 && c.edx == 0);
    c = call(GETTIMEFULL);
    CHECK(c.eax == MAGIC && is_now(before, (uint64_t)c.esi << 32 | c.edx, c.ebx));
    CHECK(c.ecx == 1000000 && c.edi == UINT32_MAX);
    c = call(GETTIMEFULL_WITH_LAG);
    CHECK(c.eax == MAGIC && is_now(before, (uint64_t)c.esi << 32 | c.edx, c.ebx));
    CHECK(c.ecx == 1000000 && c.edi == 0);
}

/* Only EAX answers: Linux looks at EBX after GETHZ, at EAX after the others. */
static void test_unknown(void)
{
    static const uint32_t commands[] = {0, 2, GETUUID, STEALCLOCK, 127, 128, 0xffff};
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
        struct backdoor_call c = call(commands[i]);
        CHECK(c.eax == UINT32_MAX && c.ebx == UINT32_MAX && c.ecx == commands[i]);
    }
    CHECK(call(GETVERSION | 0xabcd0000).eax == 6); /* the command is CX */
}

int main(void)
{
    fake_machine_init(&m);
    backdoor = backdoor_create(&m.env, &(struct backdoor_identity){5000000123, 1000000000, true});
    test_identity();
    test_frequencies();
    test_vcpu_info();
    test_time();
    test_unknown();
    fake_machine_end(&m);

    fake_machine_init(&m);
    backdoor = backdoor_create(&m.env, &(struct backdoor_identity){5000000123, 1000000000, false});
    CHECK(call(GET_VCPU_INFO).eax == 0);
    fake_machine_end(&m);
    return check_result();
}
