/* The i8042: self-test, interface tests, configuration byte, echo of both output buffers with their
 * interrupts, keyboard identification and reset. */
#include "lib/guest.h"

static volatile int hits[2];

static void on_keyboard(struct frame *f)
{
    (void)f;
    hits[0]++;
    inb(0x60);
    pic_eoi(1);
}

static bool ready(void)
{
    for (int i = 0; i < 100000; i++)
        if (!(inb(0x64) & 2))
            return true;
    return false;
}

static int reply(void)
{
    for (int i = 0; i < 100000; i++)
        if (inb(0x64) & 1)
            return inb(0x60);
    return -1;
}

static void command(u8 c)
{
    ready();
    outb(0x64, c);
}

static int keyboard(u8 c)
{
    ready();
    outb(0x60, c);
    return reply();
}

void guest_main(void)
{
    pic_init();
    command(0xad);
    command(0xa7);
    while (inb(0x64) & 1)
        inb(0x60);
    command(0xaa);
    printf("self-test: %x\n", (unsigned)reply());
    command(0xab);
    printf("keyboard interface: %x\n", (unsigned)reply());
    command(0x60);
    ready();
    outb(0x60, 0x30); /* both off, no interrupts, no translation */
    command(0x20);
    printf("configuration: %x\n", (unsigned)reply());
    command(0xae);
    printf("identify: %x", (unsigned)keyboard(0xf2));
    printf(" %x", (unsigned)reply());
    printf(" %x\n", (unsigned)reply());
    printf("echo: %x\n", (unsigned)keyboard(0xee));
    printf("reset: %x", (unsigned)keyboard(0xff));
    printf(" %x\n", (unsigned)reply());
    command(0xd2);
    ready();
    outb(0x60, 0x5a);
    printf("as if from the keyboard: %x\n", (unsigned)reply());
    command(0xd3);
    ready();
    outb(0x60, 0xa5);
    ready();
    printf("as if from the mouse: status %x, ", inb(0x64) & 0x21u);
    printf("%x\n", (unsigned)reply());
    command(0x60);
    ready();
    outb(0x60, 0x01);
    handle(0x21, on_keyboard);
    pic_unmask(1);
    command(0xd2);
    ready();
    outb(0x60, 0x11);
    for (int i = 0; i < 1000 && !hits[0]; i++)
        take_interrupts();
    printf("IRQ 1: %d\n", hits[0]);
}
