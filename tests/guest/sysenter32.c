/* SYSENTER and SYSEXIT in 32-bit mode: selectors, stack and flags on either side, their checks. */
#include "lib/guest.h"

static volatile u32 seen[6];
static u8 inner[256];

extern u8 entry[];
asm("entry:\n"
    "mov %cs, %eax\n mov %eax, seen\n"
    "mov %ss, %eax\n mov %eax, seen+4\n"
    "mov %esp, seen+8\n"
    "pushf\n pop %eax\n mov %eax, seen+12\n"
    "mov %ebp, %ecx\n mov %edi, %edx\n sysexit\n");

void guest_main(void)
{
    if (!(cpuid(1, 0).d >> 11 & 1))
        fail("no SYSENTER");
    wrmsr(0x174, 0);
    PROBE_USER("sysenter");
    PROBE("sysexit");
    wrmsr(0x174, SEL_CODE);
    wrmsr(0x175, (u32)inner + sizeof(inner));
    wrmsr(0x176, (u32)entry);
    user_flags = 0x3202; /* IF is cleared on the way in, IOPL stays */
    TRY_USER(
        "mov $1f, %%edi; mov %%esp, %%ebp; sysenter; hlt; 1: mov %%ebp, %%ecx; mov %%edi, %%edx;"
        "mov %%cs, %%eax; mov %%eax, seen+16; mov %%ss, %%eax; mov %%eax, seen+20; int $0x80");
    user_flags = 2;
    puts("and back: ");
    print_fault();
    printf("\nin: CS %x SS %x, stack %d from the top, flags %x\n", seen[0], seen[1],
           (int)((u32)inner + sizeof(inner) - seen[2]), seen[3] & 0x3200);
    printf("out: CS %x SS %x\n", seen[4] & 0xffff, seen[5] & 0xffff);
    PROBE_USER("sysexit");
}
