#include "guest.h"

bool acpi_sum(const void *p, size_t n)
{
    u8 sum = 0;
    for (size_t i = 0; i < n; i++)
        sum = (u8)(sum + ((const u8 *)p)[i]);
    return sum == 0;
}

static u8 *scan(u32 from, u32 to)
{
    for (u32 a = from; a < to; a += 16) {
        u8 *p = (u8 *)(word)a;
        if (!memcmp(p, "RSD PTR ", 8) && acpi_sum(p, 20))
            return p;
    }
    return NULL;
}

void *acpi_rsdp(void)
{
    u16 ebda;
    memcpy(&ebda, (void *)(word)0x40e, 2);
    void *p =
        ebda >= 0x8000 && ebda < 0xa000 ? scan((u32)ebda << 4, ((u32)ebda << 4) + 1024) : NULL;
    return p ? p : scan(0xe0000, 0x100000);
}

void *acpi_find(const char *signature)
{
    const u8 *rsdp = acpi_rsdp();
    if (!rsdp)
        return NULL;
    u64 root;
    const bool xsdt = rsdp[15] >= 2;
    if (xsdt) {
        memcpy(&root, rsdp + 24, 8);
    } else {
        u32 r;
        memcpy(&r, rsdp + 16, 4);
        root = r;
    }
    const struct acpi_header *h = (void *)(word)root;
    const unsigned size = xsdt ? 8 : 4;
    for (u32 at = sizeof(*h); at + size <= h->length; at += size) {
        u64 address = 0;
        memcpy(&address, (const u8 *)h + at, size);
        if (!memcmp((void *)(word)address, signature, 4))
            return (void *)(word)address;
    }
    return NULL;
}

u16 pm_timer_port(void)
{
    const u8 *fadt = acpi_find("FACP");
    if (!fadt)
        fail("no FADT");
    u32 port;
    memcpy(&port, fadt + 76, 4);
    return (u16)port;
}
