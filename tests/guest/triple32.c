/* A triple fault: an IDT with nothing in it. The exit status tells (3 under --no-reboot). */
#include "lib/guest.h"

void guest_main(void)
{
    static const struct table_register nothing = {0, 0};
    puts("before\n");
    asm volatile("lidt %0; ud2" : : "m"(nothing));
    for (volatile int i = 0; i < 10000000; i++)
        continue;
    fail("still running");
}
