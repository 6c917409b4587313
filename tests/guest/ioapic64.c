/* The IO-APIC: version, redirection entries, edge and level triggering with remote IRR and EOI,
 * masks, delivery to another vector while one is in service. The second UART's IRQ 3 is the line.
 */
#include "lib/guest.h"

#define UART  0x2f8
#define LEVEL 0x8000u
#define MASK  0x10000u

static volatile int count;
static bool leave_up;

static void on_irq(struct frame *f)
{
    (void)f;
    count++;
    if (!leave_up)
        outb(UART + 1, 0); /* lowers the line */
    if (count >= 3)
        outb(UART + 1, 0);
    apic_write(APIC_EOI, 0);
}

static void entry(int pin, u32 low)
{
    ioapic_write((u8)(0x11 + 2 * pin), 0);
    ioapic_write((u8)(0x10 + 2 * pin), low);
}

static void settle(void)
{
    for (volatile int i = 0; i < 2000; i++)
        continue;
    take_interrupts();
}

void guest_main(void)
{
    pic_init();
    apic_enable();
    handle(0x60, on_irq);
    handle(0x61, on_irq);
    const u32 version = ioapic_read(1);
    check("24 pins", (version >> 16 & 0xff) == 23 && (version & 0xff) >= 0x11);
    for (int i = 0; i < 24; i++)
        entry(i, MASK);
    outb(UART + 4, 0x08);
    outb(UART + 1, 0);
    entry(3, 0x60);
    printf("entry: %x\n", ioapic_read(0x16));
    outb(UART + 1, 2);
    settle();
    printf("edge: %d\n", count);
    entry(3, 0x60 | MASK);
    count = 0;
    inb(UART + 2);
    outb(UART + 1, 2);
    settle();
    printf("masked: %d\n", count);
    outb(UART + 1, 0);
    count = 0;
    leave_up = true;
    entry(3, 0x61 | LEVEL);
    inb(UART + 2);
    outb(UART + 1, 2);
    for (int i = 0; i < 5; i++)
        settle();
    printf("level, while the line is up: %d\n", count);
    printf("remote IRR after EOI with the line down: %x\n", ioapic_read(0x16) & 0x4000);
    entry(3, MASK);
    /* Logical destination. */
    apic_write(APIC_LDR, 0x01000000);
    apic_write(APIC_DFR, 0xffffffff);
    leave_up = false;
    count = 0;
    ioapic_write(0x17, 0x01000000);
    ioapic_write(0x16, 0x60 | 0x800);
    inb(UART + 2);
    outb(UART + 1, 2);
    settle();
    printf("logical destination: %d\n", count);
    ioapic_write(0x16, MASK);
    ioapic_write(0x17, 0x02000000);
    ioapic_write(0x16, 0x60 | 0x800);
    count = 0;
    inb(UART + 2);
    outb(UART + 1, 2);
    settle();
    printf("nobody's logical destination: %d\n", count);
}
