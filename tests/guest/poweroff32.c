/* Power-off by ACPI: PM1a control with S5's sleep type, found the way an OS finds it. */
#include "lib/guest.h"

void guest_main(void)
{
    const u8 *fadt = acpi_find("FACP");
    if (!fadt)
        fail("no FADT");
    u32 dsdt, pm1a, smi;
    memcpy(&dsdt, fadt + 40, 4);
    memcpy(&smi, fadt + 48, 4);
    memcpy(&pm1a, fadt + 64, 4);
    const struct acpi_header *h = (void *)dsdt;
    check("DSDT", !memcmp(h, "DSDT", 4) && acpi_sum(h, h->length));
    if (smi && !(inw((u16)pm1a) & 1)) {
        outb((u16)smi, fadt[52]); /* ACPI_ENABLE */
        for (int i = 0; i < 1000000 && !(inw((u16)pm1a) & 1); i++)
            continue;
    }
    check("SCI_EN", inw((u16)pm1a) & 1);
    /* Name (_S5, Package () {type, ...}): 08 '_S5_' 12 length count then an integer */
    for (const u8 *p = (const u8 *)(h + 1); p < (const u8 *)h + h->length - 8; p++) {
        if (memcmp(p, "_S5_", 4) || p[4] != 0x12)
            continue;
        const u8 *q = p + 7;
        const u8 type = *q == 0x0a ? q[1] : *q; /* byte prefix, Zero or One */
        puts("good night\n");
        outw((u16)pm1a, (u16)(1 | type << 10 | 1 << 13));
        for (;;)
            pause_cpu();
    }
    fail("no _S5");
}
