/* The A20 gate: closed, odd megabytes are the even ones below them. The guest itself lies in an odd
 * megabyte, so a copy of it goes to where it is then found. */
#include "lib/guest.h"

#define IMAGE      0x100000u
#define IMAGE_SIZE 0x80000u
#define EVEN       0x400000u
#define ODD        0x500000u

static volatile u32 *at(u32 address)
{
    return (volatile u32 *)address;
}

static void close_keyboard_gate(void)
{
    while (inb(0x64) & 2)
        continue;
    outb(0x64, 0xd1);
    while (inb(0x64) & 2)
        continue;
    outb(0x60, 0xdd);
    while (inb(0x64) & 2)
        continue;
}

void guest_main(void)
{
    *at(EVEN) = 0x11111111;
    *at(ODD) = 0x22222222;
    *at(EVEN + 4) = *at(ODD + 4) = 0;
    check("open", *at(EVEN) == 0x11111111 && *at(ODD) == 0x22222222);
    close_keyboard_gate();
    check("port 92 keeps it open", *at(ODD) == 0x22222222);

    u32 closed;
    /* All in one piece: between the two writes to port 92 nothing else may be touched. */
    asm volatile("cld\n"
                 "xor %%edi, %%edi\n"
                 "mov %[image], %%esi\n"
                 "mov %[size], %%ecx\n"
                 "rep movsb\n"
                 "xor %%eax, %%eax\n"
                 "out %%al, $0x92\n"
                 "jmp 1f\n"
                 "1: mov %[odd], %%ecx\n"
                 "movl $0x33333333, %[odd] + 4\n"
                 "mov $2, %%al\n"
                 "out %%al, $0x92\n"
                 "jmp 2f\n"
                 "2: mov %%ecx, %[closed]\n"
                 : [closed] "=&d"(closed)
                 : [image] "i"(IMAGE), [size] "i"(IMAGE_SIZE), [odd] "m"(*at(ODD))
                 : "eax", "ecx", "esi", "edi", "memory");
    check("closed: reads", closed == 0x11111111);
    check("closed: writes", *at(EVEN + 4) == 0x33333333 && *at(ODD + 4) == 0);
    check("open again", *at(ODD) == 0x22222222);
}
