/* ACPI tables as an OS finds them: the RSDP by its scan, checksums of all tables, FADT and MADT in
 * accord with the machine. */
#include "lib/guest.h"

static bool good(const char *signature)
{
    const struct acpi_header *h = acpi_find(signature);
    return h && acpi_sum(h, h->length);
}

void guest_main(void)
{
    const u8 *rsdp = acpi_rsdp();
    if (!rsdp)
        fail("no RSDP");
    check("RSDP", acpi_sum(rsdp, 20));
    check("extended checksum", rsdp[15] < 2 || acpi_sum(rsdp, 36));
    check("FADT", good("FACP"));
    check("MADT", good("APIC"));
    const u8 *fadt = acpi_find("FACP");
    u32 facs, dsdt;
    memcpy(&facs, fadt + 36, 4);
    memcpy(&dsdt, fadt + 40, 4);
    check("FACS", !memcmp((void *)facs, "FACS", 4) && facs % 64 == 0);
    check("DSDT", acpi_sum((void *)dsdt, ((struct acpi_header *)dsdt)->length));
    const u16 pm = pm_timer_port();
    const u32 t = inl(pm);
    while (inl(pm) == t)
        pause_cpu();
    puts("PM timer: runs\n");
    printf("processors: %u\n", cpu_count());
    const u8 *madt = acpi_find("APIC");
    u32 lapic;
    memcpy(&lapic, madt + 36, 4);
    check("local APIC address", lapic == 0xfee00000 && (rdmsr(0x1b) & 0xfffff000) == lapic);
    const u32 length = ((const struct acpi_header *)madt)->length;
    bool ioapic = false, timer = false;
    for (u32 at = 44; at + 2 <= length && madt[at + 1]; at += madt[at + 1]) {
        u32 address, gsi;
        memcpy(&address, madt + at + 4, 4);
        ioapic |= madt[at] == 1 && address == 0xfec00000;
        memcpy(&gsi, madt + at + 4, 4);
        timer |= madt[at] == 2 && madt[at + 3] == 0 && gsi == 2;
    }
    check("IO-APIC", ioapic);
    check("IRQ 0 is on pin 2", timer);
}
