/* Reset through the keyboard controller's command FE. */
#include "lib/guest.h"

void guest_main(void)
{
    puts("before\n");
    outb(0x64, 0xfe);
    for (volatile int i = 0; i < 10000000; i++)
        continue;
    fail("still running");
}
