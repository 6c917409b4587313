/* The second serial port as a 16550A: divisor latch, scratch register, loopback of data and modem
 * lines, FIFO, line status, interrupt identification and its priorities. */
#include "lib/guest.h"

#define BASE 0x2f8
enum {
    DATA = BASE,
    IER = BASE + 1,
    IIR = BASE + 2,
    LCR = BASE + 3,
    MCR = BASE + 4,
    LSR = BASE + 5,
    MSR = BASE + 6,
    SCR = BASE + 7
};

static bool wait(u8 bit)
{
    for (int i = 0; i < 1000000; i++)
        if (inb(LSR) & bit)
            return true;
    return false;
}

void guest_main(void)
{
    outb(SCR, 0x5a);
    if (inb(SCR) != 0x5a)
        fail("no second serial port");
    check("scratch", inb(SCR) == 0x5a);
    outb(LCR, 0x80);
    outb(DATA, 1);
    outb(IER, 0);
    check("divisor", inb(DATA) == 1 && inb(IER) == 0);
    outb(LCR, 3);
    check("8N1", inb(LCR) == 3);
    outb(IIR, 0x07);
    check("FIFOs on", (inb(IIR) & 0xc0) == 0xc0);
    check("idle", (inb(LSR) & 0x61) == 0x60 && (inb(IIR) & 0xf) == 1);
    outb(MCR, 0x10);
    check("loopback, lines low", (inb(MSR) & 0xf0) == 0);
    outb(MCR, 0x1f);
    check("loopback, lines high", (inb(MSR) & 0xf0) == 0xf0);
    inb(MSR);
    check("deltas cleared by the read", (inb(MSR) & 0x0f) == 0);
    for (int i = 0; i < 8; i++) {
        outb(DATA, (u8)(0x30 + i));
        wait(0x40);
    }
    bool good = true;
    for (int i = 0; i < 8; i++)
        good &= wait(1) && inb(DATA) == 0x30 + i;
    check("eight bytes in order", good);
    check("empty again", !(inb(LSR) & 1));
    outb(IER, 1);
    outb(DATA, 0x77);
    wait(1);
    bool pending = false;
    for (int i = 0; i < 1000000 && !pending; i++)
        pending = (inb(IIR) & 0xf) == 4 || (inb(IIR) & 0xf) == 12;
    check("IIR: received data", pending);
    inb(DATA);
    check("and none after the read", inb(IIR) & 1);
    outb(IER, 2);
    check("IIR: transmitter empty", (inb(IIR) & 0xf) == 2);
    check("cleared by reading IIR", inb(IIR) & 1);
    outb(IER, 0);
    for (int i = 0; i < 3; i++) {
        outb(DATA, 0);
        wait(0x40);
    }
    outb(IIR, 0x03);
    check("FIFO reset", !(inb(LSR) & 1));
    outb(MCR, 0x0b);
}
