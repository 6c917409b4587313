#include "guest.h"

static u16 mask = 0xffff;

static void write_mask(void)
{
    outb(0x21, (u8)mask);
    outb(0xa1, (u8)(mask >> 8));
}

void pic_init(void)
{
    static const struct {
        u16 port;
        u8 value;
    } words[] = {{0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x20}, {0xa1, 0x28},
                 {0x21, 4},    {0xa1, 2},    {0x21, 1},    {0xa1, 1}};
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        outb(words[i].port, words[i].value);
    mask = 0xffff;
    write_mask();
}

void pic_unmask(int irq)
{
    mask &= (u16) ~(1u << irq);
    if (irq >= 8)
        mask &= (u16)~4u;
    write_mask();
}

void pic_mask(int irq)
{
    mask |= (u16)(1u << irq);
    write_mask();
}

void pic_eoi(int irq)
{
    if (irq >= 8)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
}
