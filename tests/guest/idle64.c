/* Halted processors leave the host's alone, whatever others do meanwhile to code that these have
 * run. run.py --idle looks at the time that the VMM took. QEMU's is no measure. */
#include "lib/guest.h"

#define TICKS 200 /* of 10 ms */

static volatile unsigned ticks;
static volatile bool halted;

static void on_pit(struct frame *f)
{
    (void)f;
    ticks++;
    pic_eoi(0);
}

static __attribute__((noinline, aligned(4096))) void sleeper(unsigned n)
{
    (void)n;
    apic_enable();
    halted = true;
    for (;;)
        asm volatile("cli; hlt");
}

void guest_main(void)
{
    pic_init();
    apic_enable();
    apic_write(APIC_LINT0, 0x700); /* the 8259s through here */
    handle(0x20, on_pit);
    check("start-up", cpu_start(1, sleeper));
    while (!halted)
        asm volatile("pause");
    outb(0x43, 0x34);
    outb(0x40, 11932 & 0xff);
    outb(0x40, 11932 >> 8);
    pic_unmask(0);
    while (ticks < TICKS) {
        /* The byte behind sleeper(), in its page of code. */
        volatile u8 *code = (volatile u8 *)sleeper + 2048;
        *code = (u8)ticks;
        apic_icr(1, 0x4040); /* wakes its thread, not a processor with interrupts off */
        asm volatile("sti; hlt; cli");
    }
    check("ticks", ticks >= TICKS);
}
