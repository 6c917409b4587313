/*
 * ACPI tables (ACPI specification 6.0, chapter 5). The RSDP is where kernels scan for it; the
 * tables lie in the ROM area, which the memory map reserves.
 */
#include <string.h>

#include "boot/aml.h"
#include "boot/bytes.h"
#include "boot/dsdt.h"
#include "boot/layout.h"
#include "boot/loader.h"
#include "dev/acpi_ports.h"
#include "util/error.h"
#include "util/util.h"

#define HEADER_SIZE  36
#define OEM_ID       "TRIVSR"
#define OEM_TABLE_ID "TRIVISOR"
#define CREATOR_ID   "TRVS"

/* FADT, by offset */
enum {
    FADT_FACS = 36,
    FADT_DSDT = 40,
    FADT_SCI_INT = 46,
    FADT_SMI_CMD = 48,
    FADT_ACPI_ENABLE = 52,
    FADT_ACPI_DISABLE = 53,
    FADT_PM1A_EVT = 56,
    FADT_PM1A_CNT = 64,
    FADT_PM_TMR = 76,
    FADT_GPE0 = 80,
    FADT_PM1_EVT_LEN = 88,
    FADT_PM1_CNT_LEN = 89,
    FADT_PM_TMR_LEN = 91,
    FADT_GPE0_LEN = 92,
    FADT_P_LVL2_LAT = 96,
    FADT_P_LVL3_LAT = 98,
    FADT_CENTURY = 108,
    FADT_BOOT_ARCH = 109,
    FADT_FLAGS = 112,
    FADT_RESET_REG = 116,
    FADT_RESET_VALUE = 128,
    FADT_MINOR = 131,
    FADT_X_FACS = 132,
    FADT_X_DSDT = 140,
    FADT_X_PM1A_EVT = 148,
    FADT_X_PM1A_CNT = 172,
    FADT_X_PM_TMR = 208,
    FADT_X_GPE0 = 220,
    FADT_SIZE = 276, /* revision 6 */
};

#define FADT_WBINVD       BIT(0)
#define FADT_PROC_C1      BIT(2)
#define FADT_NO_SLEEP_BTN BIT(5)
#define FADT_TMR_32BIT    BIT(8)
#define FADT_RESET_SUP    BIT(10)

#define ARCH_LEGACY       BIT(0)
#define ARCH_8042         BIT(1)
#define ARCH_NO_VGA       BIT(2)

#define LATENCY_NO_C2     101 /* microseconds: more than 100 says that there is none */
#define LATENCY_NO_C3     1001

enum { SPACE_SYSTEM_MEMORY, SPACE_SYSTEM_IO };
enum { ACCESS_BYTE = 1, ACCESS_WORD, ACCESS_DWORD };

/* MADT entries */
enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_LAPIC_NMI = 4 };
#define MADT_PCAT_COMPAT BIT(0)
#define OVERRIDE_BUS     0 /* ISA */
#define INTI_CONFORMS    0
#define INTI_HIGH_LEVEL  0x000d
#define ALL_PROCESSORS   0xff

/* Tables are made in a buffer and put one after the other into the ROM area. */
struct writer {
    struct physmem *mem;
    uint32_t next;
    bool overflow;
};

static uint32_t place(struct writer *w, const void *data, size_t size, uint32_t align)
{
    uint32_t at = ALIGN_UP(w->next, align);
    if (at > ACPI_END || size > ACPI_END - at) {
        w->overflow = true;
        return 0;
    }
    physmem_write(w->mem, at, data, size);
    w->next = at + (uint32_t)size;
    return at;
}

/* Fill the header in and place the table. */
static uint32_t place_table(struct writer *w, uint8_t *table, size_t size, const char *signature,
                            uint8_t revision)
{
    memcpy(table, signature, 4);
    put32(table + 4, (uint32_t)size);
    table[8] = revision;
    table[9] = 0;
    memcpy(table + 10, OEM_ID, 6);
    memcpy(table + 16, OEM_TABLE_ID, 8);
    put32(table + 24, 1);
    memcpy(table + 28, CREATOR_ID, 4);
    put32(table + 32, 1);
    table[9] = checksum(table, size);
    return place(w, table, size, 16);
}

static void put_address(uint8_t *p, uint8_t space, uint8_t bits, uint8_t access, uint64_t address)
{
    p[0] = space;
    p[1] = bits;
    p[2] = 0;
    p[3] = access;
    put64(p + 4, address);
}

static uint32_t dsdt(struct writer *w, const struct boot_image *image)
{
    uint8_t table[0x8000];
    struct aml aml;
    aml_init(&aml, table + HEADER_SIZE, sizeof table - HEADER_SIZE);
    dsdt_write(&aml, image->vcpus, image->hpet, w->mem->low_size);
    w->overflow |= aml.overflow;
    return place_table(w, table, HEADER_SIZE + aml.size, "DSDT", 2);
}

static uint32_t facs(struct writer *w)
{
    uint8_t table[64] = {0};
    memcpy(table, "FACS", 4);
    put32(table + 4, sizeof table);
    table[32] = 2; /* version */
    return place(w, table, sizeof table, 64);
}

static uint32_t fadt(struct writer *w, const struct boot_image *image, uint32_t facs_at,
                     uint32_t dsdt_at)
{
    uint8_t t[FADT_SIZE] = {0};
    put32(t + FADT_FACS, facs_at);
    put32(t + FADT_DSDT, dsdt_at);
    put16(t + FADT_SCI_INT, ACPI_SCI_IRQ);
    put32(t + FADT_SMI_CMD, ACPI_SMI_CMD);
    t[FADT_ACPI_ENABLE] = ACPI_ENABLE;
    t[FADT_ACPI_DISABLE] = ACPI_DISABLE;
    put32(t + FADT_PM1A_EVT, ACPI_PM1A_EVT);
    put32(t + FADT_PM1A_CNT, ACPI_PM1A_CNT);
    put32(t + FADT_PM_TMR, ACPI_PM_TMR);
    put32(t + FADT_GPE0, ACPI_GPE0);
    t[FADT_PM1_EVT_LEN] = ACPI_PM1A_EVT_LEN;
    t[FADT_PM1_CNT_LEN] = ACPI_PM1A_CNT_LEN;
    t[FADT_PM_TMR_LEN] = ACPI_PM_TMR_LEN;
    t[FADT_GPE0_LEN] = ACPI_GPE0_LEN;
    put16(t + FADT_P_LVL2_LAT, LATENCY_NO_C2);
    put16(t + FADT_P_LVL3_LAT, LATENCY_NO_C3);
    t[FADT_CENTURY] = RTC_CENTURY;
    put16(t + FADT_BOOT_ARCH, ARCH_LEGACY | ARCH_8042 | (image->text_mode ? 0 : ARCH_NO_VGA));
    put32(t + FADT_FLAGS,
          FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BTN | FADT_TMR_32BIT | FADT_RESET_SUP);
    put_address(t + FADT_RESET_REG, SPACE_SYSTEM_IO, 8, ACCESS_BYTE, ACPI_RESET_PORT);
    t[FADT_RESET_VALUE] = ACPI_RESET_VALUE;
    /* Where the 64-bit FACS and DSDT fields are zero, the 32-bit ones count; giving both makes
     * kernels compare them. The DSDT's is expected by all. */
    put64(t + FADT_X_DSDT, dsdt_at);
    put_address(t + FADT_X_PM1A_EVT, SPACE_SYSTEM_IO, ACPI_PM1A_EVT_LEN * 8, ACCESS_WORD,
                ACPI_PM1A_EVT);
    put_address(t + FADT_X_PM1A_CNT, SPACE_SYSTEM_IO, ACPI_PM1A_CNT_LEN * 8, ACCESS_WORD,
                ACPI_PM1A_CNT);
    put_address(t + FADT_X_PM_TMR, SPACE_SYSTEM_IO, ACPI_PM_TMR_LEN * 8, ACCESS_DWORD, ACPI_PM_TMR);
    put_address(t + FADT_X_GPE0, SPACE_SYSTEM_IO, ACPI_GPE0_LEN * 8, ACCESS_BYTE, ACPI_GPE0);
    return place_table(w, t, sizeof t, "FACP", 6);
}

static uint8_t *madt_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    p[0] = MADT_OVERRIDE;
    p[1] = 10;
    p[2] = OVERRIDE_BUS;
    p[3] = irq;
    put32(p + 4, gsi);
    put16(p + 8, flags);
    return p + 10;
}

static uint32_t madt(struct writer *w, const struct boot_image *image)
{
    uint8_t table[HEADER_SIZE + 8 + 256 * 8 + 64] = {0};
    put32(table + HEADER_SIZE, LAPIC_ADDRESS);
    put32(table + HEADER_SIZE + 4, MADT_PCAT_COMPAT);
    uint8_t *p = table + HEADER_SIZE + 8;
    for (unsigned i = 0; i < MIN(image->vcpus, 255u); i++, p += 8) {
        p[0] = MADT_LAPIC;
        p[1] = 8;
        p[2] = (uint8_t)i; /* processor _UID, then APIC ID */
        p[3] = (uint8_t)i;
        put32(p + 4, 1); /* enabled */
    }
    p[0] = MADT_IOAPIC;
    p[1] = 12;
    p[2] = 0; /* its ID after reset; it shares no name space with local APICs since the xAPIC */
    put32(p + 4, IOAPIC_ADDRESS);
    put32(p + 8, 0);
    p += 12;
    p = madt_override(p, 0, 2, INTI_CONFORMS);
    p = madt_override(p, ACPI_SCI_IRQ, ACPI_SCI_IRQ, INTI_HIGH_LEVEL);
    p[0] = MADT_LAPIC_NMI;
    p[1] = 6;
    p[2] = ALL_PROCESSORS;
    put16(p + 3, INTI_CONFORMS);
    p[5] = 1; /* LINT1 */
    p += 6;
    return place_table(w, table, (size_t)(p - table), "APIC", 3);
}

static uint32_t hpet(struct writer *w)
{
    uint8_t t[56] = {0};
    put32(t + 36, 0x8086a201); /* vendor, legacy replacement, 64-bit, three comparators, rev 1 */
    put_address(t + 40, SPACE_SYSTEM_MEMORY, 0, 0, HPET_ADDRESS);
    put16(t + 53, 100); /* minimum tick in periodic mode */
    return place_table(w, t, sizeof t, "HPET", 1);
}

/* The same list with 32-bit (RSDT) or 64-bit (XSDT) addresses. */
static uint32_t sdt(struct writer *w, const uint32_t *tables, unsigned count, unsigned bytes)
{
    uint8_t t[HEADER_SIZE + 8 * 8] = {0};
    for (unsigned i = 0; i < count; i++)
        memcpy(t + HEADER_SIZE + i * bytes, &tables[i], sizeof tables[i]);
    return place_table(w, t, HEADER_SIZE + (size_t)count * bytes, bytes == 4 ? "RSDT" : "XSDT", 1);
}

int acpi_build(const struct boot_image *image, struct physmem *mem, struct tv_error *err)
{
    struct writer w = {.mem = mem, .next = ACPI_BASE};
    uint32_t facs_at = facs(&w), dsdt_at = dsdt(&w, image);
    uint32_t tables[4];
    unsigned count = 0;
    tables[count++] = fadt(&w, image, facs_at, dsdt_at);
    tables[count++] = madt(&w, image);
    if (image->hpet)
        tables[count++] = hpet(&w);
    uint32_t rsdt_at = sdt(&w, tables, count, 4), xsdt_at = sdt(&w, tables, count, 8);
    if (w.overflow)
        return tv_fail(err, "the ACPI tables of %u processors do not fit", image->vcpus);

    uint8_t rsdp[36] = {0};
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, OEM_ID, 6);
    rsdp[15] = 2; /* revision */
    put32(rsdp + 16, rsdt_at);
    put32(rsdp + 20, sizeof rsdp);
    put64(rsdp + 24, xsdt_at);
    rsdp[8] = checksum(rsdp, 20);
    rsdp[32] = checksum(rsdp, sizeof rsdp);
    physmem_write(mem, RSDP_BASE, rsdp, sizeof rsdp);
    return 0;
}
