#include "boot/bios_tables.h"

#include <stdlib.h>
#include <string.h>

#include "boot/bytes.h"
#include "boot/layout.h"
#include "boot/loader.h"
#include "util/error.h"
#include "util/util.h"

#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE   "etc/acpi/rsdp"
#define NAME_SIZE   56
#define HEADER_SIZE 36
#define SCRIPT_MAX  64

enum { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };
enum { RSDP_CHECKSUM = 8, RSDP_RSDT = 16, RSDP_XSDT = 24, RSDP_CHECKSUM2 = 32, RSDP_SIZE = 36 };
enum { TABLE_LENGTH = 4, TABLE_CHECKSUM = 9, FADT_FACS = 36, FADT_DSDT = 40, FADT_X_DSDT = 140 };
enum { SMBIOS_ANCHOR_SIZE = 31, SMBIOS_LENGTH = 22, SMBIOS_ADDRESS = 24 };

struct command {
    uint32_t what;
    union {
        struct {
            char file[NAME_SIZE];
            uint32_t align;
            uint8_t zone;
        } allocate;
        struct {
            char file[NAME_SIZE], target[NAME_SIZE];
            uint32_t offset;
            uint8_t size;
        } pointer;
        struct {
            char file[NAME_SIZE];
            uint32_t offset, start, length;
        } checksum;
        uint8_t pad[124];
    };
} __attribute__((packed));

struct script {
    struct command commands[SCRIPT_MAX];
    unsigned count;
    uint8_t *tables, *rsdp;
    size_t size;
};

static struct command *next(struct script *s, uint32_t what)
{
    struct command *c = &s->commands[MIN(s->count, SCRIPT_MAX - 1u)];
    s->count++;
    c->what = what;
    return c;
}

static void allocate(struct script *s, const char *file, uint32_t align, uint8_t zone)
{
    struct command *c = next(s, ALLOCATE);
    strcpy(c->allocate.file, file);
    c->allocate.align = align;
    c->allocate.zone = zone;
}

/* The field holds an address in the tables' area: make it an offset, to be added to. */
static void pointer(struct script *s, const char *file, uint8_t *data, uint32_t offset,
                    uint8_t size)
{
    uint64_t value = 0;
    memcpy(&value, data + offset, size);
    if (!value)
        return;
    value -= ACPI_BASE;
    memcpy(data + offset, &value, size);
    struct command *c = next(s, ADD_POINTER);
    strcpy(c->pointer.file, file);
    strcpy(c->pointer.target, TABLES_FILE);
    c->pointer.offset = offset;
    c->pointer.size = size;
}

static void sum(struct script *s, const char *file, uint8_t *data, uint32_t offset, uint32_t start,
                uint32_t length)
{
    data[offset] = 0;
    struct command *c = next(s, ADD_CHECKSUM);
    strcpy(c->checksum.file, file);
    c->checksum.offset = offset;
    c->checksum.start = start;
    c->checksum.length = length;
}

/* RSDT or XSDT, with what it names. */
static void root_table(struct script *s, uint32_t at, unsigned bytes)
{
    uint32_t length = get32(s->tables + at + TABLE_LENGTH);
    for (uint32_t e = at + HEADER_SIZE; e < at + length; e += bytes) {
        uint32_t table = get32(s->tables + e) - ACPI_BASE;
        if (bytes == 4 && memcmp(s->tables + table, "FACP", 4) == 0) {
            pointer(s, TABLES_FILE, s->tables, table + FADT_FACS, 4);
            pointer(s, TABLES_FILE, s->tables, table + FADT_DSDT, 4);
            pointer(s, TABLES_FILE, s->tables, table + FADT_X_DSDT, 8);
            sum(s, TABLES_FILE, s->tables, table + TABLE_CHECKSUM, table,
                get32(s->tables + table + TABLE_LENGTH));
        }
        pointer(s, TABLES_FILE, s->tables, e, (uint8_t)bytes);
    }
    sum(s, TABLES_FILE, s->tables, at + TABLE_CHECKSUM, at, length);
}

static void write_script(struct script *s)
{
    uint32_t rsdt = get32(s->rsdp + RSDP_RSDT) - ACPI_BASE;
    uint32_t xsdt = get32(s->rsdp + RSDP_XSDT) - ACPI_BASE;
    allocate(s, TABLES_FILE, 64, ZONE_HIGH);
    allocate(s, RSDP_FILE, 16, ZONE_FSEG);
    root_table(s, rsdt, 4);
    root_table(s, xsdt, 8);
    pointer(s, RSDP_FILE, s->rsdp, RSDP_RSDT, 4);
    pointer(s, RSDP_FILE, s->rsdp, RSDP_XSDT, 8);
    sum(s, RSDP_FILE, s->rsdp, RSDP_CHECKSUM, 0, 20);
    sum(s, RSDP_FILE, s->rsdp, RSDP_CHECKSUM2, 0, RSDP_SIZE);
}

static uint8_t *copy(const void *data, size_t size)
{
    uint8_t *to = malloc(size);
    return to ? memcpy(to, data, size) : NULL;
}

int bios_tables_build(const struct physmem *mem, unsigned vcpus, unsigned mhz, bool text_mode,
                      struct bios_file *files, struct tv_error *err)
{
    /* The same tables as without firmware, made in memory of their own and cut out of it. */
    struct physmem *scratch = physmem_create(UINT64_C(2) << 20, false, err);
    if (!scratch)
        return -1;
    uint64_t size = scratch->size, low_size = scratch->low_size;
    const struct boot_image image = {.vcpus = vcpus, .mhz = mhz, .text_mode = text_mode};
    scratch->size = mem->size; /* what the tables tell of; only the first MiB is written to */
    scratch->low_size = mem->low_size;
    int result = firmware_build(&image, scratch, err);
    scratch->size = size;
    scratch->low_size = low_size;

    struct script s = {.size = ACPI_END - ACPI_BASE};
    unsigned n = 0;
    const uint8_t *anchor = scratch->ram + SMBIOS_BASE;
    s.tables = copy(scratch->ram + ACPI_BASE, s.size);
    s.rsdp = copy(scratch->ram + RSDP_BASE, RSDP_SIZE);
    if (result == 0 && s.tables && s.rsdp) {
        while (s.size > 64 && !s.tables[s.size - 1])
            s.size--;
        s.size = ALIGN_UP(s.size, (size_t)64);
        write_script(&s);
        files[n++] = (struct bios_file){TABLES_FILE, s.tables, s.size};
        files[n++] = (struct bios_file){RSDP_FILE, s.rsdp, RSDP_SIZE};
        size_t commands = s.count * sizeof s.commands[0];
        files[n++] = (struct bios_file){"etc/table-loader", copy(s.commands, commands), commands};
        files[n++] = (struct bios_file){"etc/smbios/smbios-anchor",
                                        copy(anchor, SMBIOS_ANCHOR_SIZE), SMBIOS_ANCHOR_SIZE};
        size_t length = get16(anchor + SMBIOS_LENGTH);
        uint32_t at = get32(anchor + SMBIOS_ADDRESS);
        files[n++] =
            (struct bios_file){"etc/smbios/smbios-tables", copy(scratch->ram + at, length), length};
    } else {
        free(s.tables);
        free(s.rsdp);
        if (result == 0)
            tv_fail(err, "out of memory");
    }
    physmem_destroy(scratch);
    return n ? (int)n : -1;
}
