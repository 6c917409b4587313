/* VMware's backdoor: an IN that answers in all registers, only with its magic number; the version,
 * the frequencies, which are CPUID's, and what else systems ask; the absolute pointer's handshake
 * as its drivers do it. */
#include "lib/guest.h"

#define MAGIC      0x564d5868
#define PORT       0x5658
#define VERSION_ID 0x3442554a

enum {
    GETVERSION = 10,
    GETHZ = 45,
    VCPU_INFO = 68,
    DATA = 39,
    STATUS = 40,
    COMMAND = 41,
    RESTRICT = 86
};

struct answer {
    u32 eax, ebx, ecx, edx;
};

static struct answer call(u32 magic, u32 command, u32 argument)
{
    struct answer a;
    u32 esi = 0x12345678, edi = 0x9abcdef0;
    asm volatile("inl %%dx, %%eax"
                 : "=a"(a.eax), "=b"(a.ebx), "=c"(a.ecx), "=d"(a.edx), "+S"(esi), "+D"(edi)
                 : "a"(magic), "b"(argument), "c"(command), "d"(PORT));
    return a;
}

void guest_main(void)
{
    struct answer a = call(MAGIC, GETVERSION, 0);
    check("version", a.eax == 6 && a.ebx == MAGIC);
    a = call(MAGIC + 1, GETVERSION, 5);
    check("another number in EAX: an empty port",
          a.eax == 0xffffffff && a.ebx == 5 && a.ecx == GETVERSION);
    a = call(MAGIC, 120, 5);
    check("an unknown command", a.eax == 0xffffffff);
    check("the pointer is off", (call(MAGIC, STATUS, 0).eax & 0xffff0000) == 0xffff0000);

    a = call(MAGIC, GETHZ, 0xffffffff);
    const struct cpuid timing = cpuid(0x40000010, 0);
    check("the TSC's frequency", ((u64)a.ebx << 32 | a.eax) == (u64)timing.a * 1000);
    check("the APIC timer's frequency", a.ecx / 1000 == timing.b && timing.b);
    check("no hypercalls but the port", cpuid(0x40000000, 0).b == 0x61774d56 && timing.c == 0);
    check("x2APIC without interrupt remapping", (call(MAGIC, VCPU_INFO, 0).eax & 0x80000008) == 8);

    call(MAGIC, COMMAND, 0x45414552);
    check("enabled: one word waits", call(MAGIC, STATUS, 0).eax == 1);
    check("the version of the pointer", call(MAGIC, DATA, 1).eax == VERSION_ID);
    call(MAGIC, RESTRICT, 1);
    call(MAGIC, COMMAND, 0x53424152);
    check("absolute: nothing waits", call(MAGIC, STATUS, 0).eax == 0);
    check("taking what is not there is an error",
          call(MAGIC, DATA, 4).eax == 0xffffffff &&
              (call(MAGIC, STATUS, 0).eax & 0xffff0000) == 0xffff0000);
    call(MAGIC, COMMAND, 0xf5);
    check("off again", (call(MAGIC, STATUS, 0).eax & 0xffff0000) == 0xffff0000);
}
