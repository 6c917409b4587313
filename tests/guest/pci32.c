/* PCI configuration mechanism 1: the bus is enumerated, absent functions read as ones, byte and
 * word accesses, what a read-only register does. */
#include "lib/guest.h"

static u32 read(unsigned device, unsigned function, unsigned reg)
{
    outl(0xcf8, 0x80000000 | device << 11 | function << 8 | (reg & 0xfc));
    return inl(0xcfc);
}

void guest_main(void)
{
    unsigned found = 0, bridges = 0;
    bool host = false, isa = false, pm = false;
    for (unsigned d = 0; d < 32; d++) {
        const unsigned functions = read(d, 0, 12) >> 16 & 0x80 ? 8 : 1;
        for (unsigned f = 0; f < functions; f++) {
            const u32 id = read(d, f, 0);
            if (id == 0xffffffff)
                continue;
            found++;
            bridges += read(d, f, 8) >> 24 == 6;
            host |= d == 0 && id == 0x12378086;
            isa |= (id == 0x70008086 || id == 0x71108086) && read(d, f, 8) >> 16 == 0x0601;
            pm |= id == 0x71138086;
        }
    }
    check("host bridge 8086:1237 or ISA bridge", host || isa);
    check("ISA bridge", isa);
    check("power management 8086:7113", pm);
    check("at least three functions, a bridge among them", found >= 3 && bridges);
    check("an absent device reads as ones", read(31, 0, 0) == 0xffffffff);
    const u32 id = read(0, 0, 0);
    outl(0xcf8, 0x80000000);
    check("bytes",
          inb(0xcfc) == (id & 0xff) && inb(0xcfd) == (id >> 8 & 0xff) && inb(0xcff) == id >> 24);
    check("words", inw(0xcfc) == (id & 0xffff) && inw(0xcfe) == id >> 16);
    outl(0xcfc, 0);
    check("the ID is read-only", inl(0xcfc) == id);
    check("the address reads back", inl(0xcf8) == 0x80000000);
    outl(0xcf8, 0);
    check("without the enable bit nothing answers", inl(0xcfc) != id);
}
