/* The 8259 pair: edges and masks, priorities, specific and automatic EOI, the
 * cascade, polling, reading IRR and ISR; driven by the 8254 and the second UART. */
#include "lib/guest.h"

#define UART 0x2f8 /* IRQ 3 */

static volatile int hits[16];
static volatile int last;

static void on_irq(struct frame *f)
{
    last = (int)f->vector - 0x20;
    hits[last]++;
}

static u8 read_ocw3(u16 port, u8 ocw3)
{
    outb(port, ocw3);
    return inb(port);
}

/* The UART's transmitter-empty interrupt is a line we can raise and lower at will. */
static void line(bool up)
{
    outb(UART + 1, up ? 2 : 0);
}

static void settle(void)
{
    for (volatile int i = 0; i < 2000; i++)
        continue;
}

void guest_main(void)
{
    pic_init();
    for (int i = 0; i < 16; i++)
        handle(0x20 + i, on_irq);
    outb(UART + 4, 0x08); /* OUT2 lets its interrupt through */
    line(false);
    printf("masks %x %x\n", inb(0x21), inb(0xa1));
    line(true);
    settle();
    printf("IRR %x", read_ocw3(0x20, 0x0a) & 8);
    take_interrupts();
    printf(", masked: %d\n", hits[3]);
    pic_unmask(3);
    take_interrupts();
    printf("unmasked: %d, ISR %x, IRR %x\n", hits[3], read_ocw3(0x20, 0x0b),
           read_ocw3(0x20, 0x0a) & 8);
    inb(UART + 2);
    line(false);
    line(true);
    take_interrupts();
    printf("another edge while in service: %d\n", hits[3]);
    outb(0x20, 0x63); /* specific EOI of 3 */
    take_interrupts();
    printf("after EOI: %d, ISR %x\n", hits[3], read_ocw3(0x20, 0x0b));
    pic_eoi(3);
    take_interrupts();
    printf("no edge, no interrupt: %d\n", hits[3]);

    inb(UART + 2);
    line(false);
    hits[3] = 0;

    /* IRQ 0 has priority over 3; IRQ 0 in service blocks 3, not the other way round. */
    outb(0x43, 0x30); /* counter 0, mode 0: one edge */
    outb(0x40, 0x20);
    outb(0x40, 0);
    line(true);
    for (volatile int i = 0; i < 200000 && !(read_ocw3(0x20, 0x0a) & 1); i++)
        continue;
    pic_unmask(0);
    hits[0] = 0;
    take_interrupts();
    printf("both pending: IRQ %d first, in service %x, 0: %d 3: %d\n", last, read_ocw3(0x20, 0x0b),
           hits[0], hits[3]);
    outb(0x20, 0x20);
    take_interrupts();
    printf("then IRQ %d\n", last);
    outb(0x20, 0x20);
    pic_mask(0);

    inb(UART + 2);
    line(false);
    line(true);
    take_interrupts();
    printf("in service %x", read_ocw3(0x20, 0x0b));
    outb(0x20, 0x20);
    printf(", after EOI %x\n", read_ocw3(0x20, 0x0b));

    /* Poll command. */
    inb(UART + 2);
    line(false);
    line(true);
    settle();
    printf("poll: %x\n", read_ocw3(0x20, 0x0c));
    outb(0x20, 0x0a);
    outb(0x20, 0x20);

    /* Automatic EOI. */
    pic_mask(3);
    static const struct {
        u16 port;
        u8 value;
    } words[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 3}, {0x21, 0xf7}};
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        outb(words[i].port, words[i].value);
    inb(UART + 2);
    line(false);
    line(true);
    hits[3] = 0;
    take_interrupts();
    printf("automatic EOI: %d, ISR %x\n", hits[3], read_ocw3(0x20, 0x0b));
    line(false);

    /* The slave, by the RTC's update-ended interrupt being asked for is too slow: its own poll. */
    pic_init();
    pic_unmask(8);
    printf("cascade open: %x %x\n", inb(0x21), inb(0xa1));
    outb(0x70, 0x0c);
    inb(0x71);
    outb(0x70, 0x0a);
    outb(0x71, 0x26);
    outb(0x70, 0x0b);
    outb(0x71, 0x42); /* periodic, 1024 a second */
    hits[8] = 0;
    const u64 end = rdtsc() + 4000000000u;
    while (!hits[8] && rdtsc() < end)
        take_interrupts();
    printf("IRQ 8: %d, ISR master %x slave %x\n", hits[8], read_ocw3(0x20, 0x0b),
           read_ocw3(0xa0, 0x0b));
    outb(0x70, 0x0b);
    outb(0x71, 0x02);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    printf("after both EOIs: %x %x\n", read_ocw3(0x20, 0x0b), read_ocw3(0xa0, 0x0b));
}
