/*
 * The firmware tables: signatures, checksums, links. With a directory as argument, the ACPI tables
 * are also written there, for iasl to look at.
 */
#include <stdlib.h>
#include <string.h>

#include "boot/bytes.h"
#include "boot/layout.h"
#include "boot/loader.h"
#include "check.h"
#include "dev/acpi_ports.h"

static struct physmem *mem;

static const uint8_t *at(uint64_t gpa)
{
    const uint8_t *p = physmem_host(mem, gpa, 1);
    if (!p)
        abort();
    return p;
}

static void dump(const char *directory, const uint8_t *table)
{
    if (!directory)
        return;
    char path[4096];
    snprintf(path, sizeof path, "%s/%.4s.aml", directory, (const char *)table);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(table, 1, get32(table + 4), f) == get32(table + 4));
    if (f)
        fclose(f);
}

static const uint8_t *table(uint64_t gpa, const char *signature, const char *directory)
{
    const uint8_t *t = at(gpa);
    CHECK(gpa >= ACPI_BASE && gpa + get32(t + 4) <= ACPI_END);
    CHECK(!memcmp(t, signature, 4));
    CHECK(checksum(t, get32(t + 4)) == 0);
    dump(directory, t);
    return t;
}

static void acpi(unsigned vcpus, bool text_mode, const char *directory)
{
    const uint8_t *rsdp = at(RSDP_BASE);
    CHECK(!memcmp(rsdp, "RSD PTR ", 8));
    CHECK(checksum(rsdp, 20) == 0 && checksum(rsdp, 36) == 0);
    const uint8_t *rsdt = table(get32(rsdp + 16), "RSDT", directory);
    const uint8_t *xsdt = table(get64(rsdp + 24), "XSDT", directory);
    CHECK(get32(rsdt + 4) == 36 + 3 * 4 && get32(xsdt + 4) == 36 + 3 * 8);
    for (unsigned i = 0; i < 3; i++)
        CHECK(get32(rsdt + 36 + i * 4) == get64(xsdt + 36 + i * 8));

    const uint8_t *fadt = table(get64(xsdt + 36), "FACP", directory);
    CHECK(get32(fadt + 56) == ACPI_PM1A_EVT && get64(fadt + 148 + 4) == ACPI_PM1A_EVT);
    CHECK(get32(fadt + 64) == ACPI_PM1A_CNT && get32(fadt + 76) == ACPI_PM_TMR);
    CHECK(get16(fadt + 46) == 9 && !(get16(fadt + 109) & 4) == text_mode); /* no VGA */
    const uint8_t *facs = at(get32(fadt + 36));
    CHECK(!memcmp(facs, "FACS", 4) && get32(fadt + 36) % 64 == 0);
    table(get64(fadt + 140), "DSDT", directory);

    const uint8_t *madt = table(get64(xsdt + 44), "APIC", directory);
    CHECK(get32(madt + 36) == LAPIC_ADDRESS);
    unsigned lapics = 0, ioapics = 0;
    for (const uint8_t *p = madt + 44; p < madt + get32(madt + 4); p += p[1]) {
        CHECK(p[1] >= 6);
        if (p[1] < 6)
            break;
        if (p[0] == 0)
            CHECK(p[3] == lapics++);
        if (p[0] == 1)
            CHECK(get32(p + 4) == IOAPIC_ADDRESS && ioapics++ == 0);
    }
    CHECK(lapics == vcpus && ioapics == 1);
    table(get64(xsdt + 52), "HPET", directory);
}

static void mp_table(unsigned vcpus)
{
    const uint8_t *p = at(MPTABLE_BASE);
    CHECK(!memcmp(p, "_MP_", 4) && checksum(p, 16) == 0);
    const uint8_t *t = at(get32(p + 4));
    CHECK(!memcmp(t, "PCMP", 4) && checksum(t, get16(t + 4)) == 0);
    unsigned entries = 0, processors = 0;
    const uint8_t *e = t + 44;
    for (; e < t + get16(t + 4); e += e[0] == 0 ? 20 : 8, entries++)
        processors += e[0] == 0;
    CHECK(e == t + get16(t + 4));
    CHECK(entries == get16(t + 34) && processors == vcpus);
}

static void smbios(unsigned mhz)
{
    const uint8_t *e = at(SMBIOS_BASE);
    CHECK(!memcmp(e, "_SM_", 4) && checksum(e, 31) == 0 && checksum(e + 16, 15) == 0);
    const uint8_t *e3 = at(SMBIOS_BASE + 0x20);
    CHECK(!memcmp(e3, "_SM3_", 5) && checksum(e3, 24) == 0);
    CHECK(get64(e3 + 16) == get32(e + 24));
    const uint8_t *p = at(get32(e + 24)), *end = p + get16(e + 22);
    unsigned count = 0;
    uint8_t last = 0;
    while (p < end) {
        last = p[0];
        count++;
        if (last == 4)
            CHECK(get16(p + 20) == mhz && get16(p + 22) == mhz);
        p += p[1];
        while (p < end - 1 && get16(p))
            p++;
        p += 2;
    }
    CHECK(p == end && last == 127 && count == get16(e + 28));
}

int main(int argc, char **argv)
{
    struct tv_error err = {""};
    mem = physmem_create(4 << 20, false, &err);
    CHECK(mem != NULL);
    static const unsigned counts[] = {64, 1, 2};
    for (unsigned i = 0; mem && i < 3; i++) {
        const struct boot_image image = {
            .vcpus = counts[i], .mhz = 2500, .hpet = true, .text_mode = i % 2};
        CHECK(firmware_build(&image, mem, &err) == 0);
        acpi(counts[i], image.text_mode, argc > 1 ? argv[1] : NULL);
        mp_table(counts[i]);
        smbios(image.mhz);
        CHECK(get16(at(4 * 0x15 + 2)) == 0xf000 && *at(0xf0000u + get16(at(4 * 0x15))) == 0xb4);
        CHECK(*at(0xf0000u + get16(at(4 * 0x10))) == 0xcf); /* IRET */
    }
    physmem_destroy(mem);
    return check_result();
}
