/* The panic notifier: it says what it takes, and takes it while the guest goes on. */
#include "lib/guest.h"

void guest_main(void)
{
    check("panicked is supported", inb(0x505) & 1);
    outb(0x505, 1);
    puts("still running\n");
}
