/* Reset through port CF9: a write that does not raise bit 2 does nothing. */
#include "lib/guest.h"

void guest_main(void)
{
    outb(0xcf9, 0x02);
    puts("armed\n");
    outb(0xcf9, 0x06);
    for (volatile int i = 0; i < 10000000; i++)
        continue;
    fail("still running");
}
