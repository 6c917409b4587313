/* SMBIOS 2.8 tables with both entry points (DMTF DSP0134): the identity that guests print. */
#include <stdio.h>

#include "boot/bytes.h"
#include "boot/layout.h"
#include "boot/loader.h"
#include "util/util.h"

#define ENTRY_SIZE      31
#define ENTRY3_SIZE     24
#define ENTRY3_AT       (SMBIOS_BASE + 0x20)
#define TABLE_AT        (SMBIOS_BASE + 0x40)
#define TABLE_MAX       (SMBIOS_END - TABLE_AT)
#define UNKNOWN         2
#define STATE_SAFE      3
#define CHASSIS_OTHER   1
#define MEMORY_RAM_DIMM 9

struct smbios {
    uint8_t data[TABLE_MAX];
    size_t size, largest;
    uint16_t count;
    bool overflow;
};

/* A structure is its formatted part, then its strings, each ended by a zero byte, then one more. */
static void add(struct smbios *s, uint8_t type, uint8_t *body, uint8_t size,
                const char *const *strings, unsigned count)
{
    size_t at = s->size, need = size + 2u;
    for (unsigned i = 0; i < count; i++)
        need += strlen(strings[i]) + 1;
    if (need > sizeof s->data - at) {
        s->overflow = true;
        return;
    }
    body[0] = type;
    body[1] = size;
    put16(body + 2, s->count++);
    memcpy(s->data + at, body, size);
    at += size;
    for (unsigned i = 0; i < count; i++) {
        size_t n = strlen(strings[i]) + 1;
        memcpy(s->data + at, strings[i], n);
        at += n;
    }
    if (!count)
        s->data[at++] = 0;
    s->data[at++] = 0;
    s->largest = MAX(s->largest, at - s->size);
    s->size = at;
}

static void add_identity(struct smbios *s)
{
    static const char *const bios[] = {"Trivisor", TRIVISOR_VERSION, "01/01/2026"};
    uint8_t t0[24] = {[4] = 1, [5] = 2, [8] = 3, [20] = 0, [21] = 1, [22] = 0xff, [23] = 0xff};
    put16(t0 + 6, 0xf000);
    put64(t0 + 10, BIT64(3)); /* characteristics: not supported */
    t0[19] = 0x10;            /* describes a virtual machine */
    add(s, 0, t0, sizeof t0, bios, ARRAY_SIZE(bios));

    static const char *const system[] = {"Trivisor", "Virtual Machine", TRIVISOR_VERSION};
    uint8_t t1[27] = {[4] = 1, [5] = 2, [6] = 3, [24] = 6 /* power switch */};
    add(s, 1, t1, sizeof t1, system, ARRAY_SIZE(system));

    static const char *const chassis[] = {"Trivisor"};
    uint8_t t3[22] = {[4] = 1,           [5] = CHASSIS_OTHER, [9] = STATE_SAFE,
                      [10] = STATE_SAFE, [11] = STATE_SAFE,   [12] = UNKNOWN};
    add(s, 3, t3, sizeof t3, chassis, ARRAY_SIZE(chassis));
}

static void add_processors(struct smbios *s, unsigned vcpus, unsigned mhz)
{
    for (unsigned i = 0; i < vcpus; i++) {
        char socket[16];
        snprintf(socket, sizeof socket, "CPU %u", i);
        const char *const strings[] = {socket, "Trivisor"};
        uint8_t t4[42] = {[4] = 1,
                          [5] = 3 /* central processor */,
                          [6] = 1 /* other family */,
                          [7] = 2,
                          [24] = 0x41 /* there, enabled */,
                          [25] = 1 /* other upgrade */,
                          [35] = 1,
                          [36] = 1,
                          [37] = 1 /* cores and threads */};
        put16(t4 + 20, (uint16_t)mhz); /* at most */
        put16(t4 + 22, (uint16_t)mhz); /* now */
        put16(t4 + 26, 0xffff);        /* no cache structures */
        put16(t4 + 28, 0xffff);
        put16(t4 + 30, 0xffff);
        put16(t4 + 38, BIT(2)); /* 64-bit capable */
        put16(t4 + 40, 1);
        add(s, 4, t4, sizeof t4, strings, ARRAY_SIZE(strings));
    }
}

static void add_memory(struct smbios *s, uint64_t size)
{
    uint16_t array = s->count;
    uint64_t kib = size >> 10, mib = size >> 20;
    uint8_t t16[23] = {
        [4] = 3 /* system board */, [5] = 3 /* system memory */, [6] = 3 /* no error correction */};
    put32(t16 + 7, kib < 0x80000000u ? (uint32_t)kib : 0x80000000u);
    put16(t16 + 11, 0xfffe); /* no error information */
    put16(t16 + 13, 1);
    put64(t16 + 15, kib < 0x80000000u ? 0 : size);
    add(s, 16, t16, sizeof t16, NULL, 0);

    static const char *const dimm[] = {"RAM 0", "Trivisor"};
    uint8_t t17[40] = {[14] = MEMORY_RAM_DIMM, [16] = 1, [18] = 7 /* RAM */, [23] = 2};
    put16(t17 + 4, array);
    put16(t17 + 6, 0xfffe);
    put16(t17 + 8, 64);
    put16(t17 + 10, 64);
    put16(t17 + 12, mib < 0x7fff ? (uint16_t)mib : 0x7fff);
    put32(t17 + 28, mib < 0x7fff ? 0 : (uint32_t)mib);
    add(s, 17, t17, sizeof t17, dimm, ARRAY_SIZE(dimm));

    uint8_t t19[31] = {[14] = 1};
    uint64_t last_kib = kib - 1;
    put32(t19 + 4, last_kib < UINT32_MAX ? 0 : UINT32_MAX);
    put32(t19 + 8, last_kib < UINT32_MAX ? (uint32_t)last_kib : UINT32_MAX);
    put16(t19 + 12, array);
    put64(t19 + 15, 0);
    put64(t19 + 23, last_kib < UINT32_MAX ? 0 : size - 1);
    add(s, 19, t19, sizeof t19, NULL, 0);

    uint8_t t32[11] = {0}; /* boot status: no errors */
    add(s, 32, t32, sizeof t32, NULL, 0);
    uint8_t t127[4] = {0};
    add(s, 127, t127, sizeof t127, NULL, 0);
}

void smbios_build(const struct boot_image *image, struct physmem *mem)
{
    struct smbios s = {.size = 0};
    add_identity(&s);
    add_processors(&s, image->vcpus, image->mhz);
    add_memory(&s, mem->size);
    if (s.overflow)
        return;

    uint8_t e[ENTRY_SIZE] = {0};
    memcpy(e, "_SM_", 4);
    e[5] = ENTRY_SIZE;
    e[6] = 2; /* 2.8 */
    e[7] = 8;
    put16(e + 8, (uint16_t)s.largest);
    memcpy(e + 16, "_DMI_", 5);
    put16(e + 22, (uint16_t)s.size);
    put32(e + 24, TABLE_AT);
    put16(e + 28, s.count);
    e[30] = 0x28;
    e[21] = checksum(e + 16, 15);
    e[4] = checksum(e, sizeof e);
    physmem_write(mem, SMBIOS_BASE, e, sizeof e);

    uint8_t e3[ENTRY3_SIZE] = {0};
    memcpy(e3, "_SM3_", 5);
    e3[6] = ENTRY3_SIZE;
    e3[7] = 3; /* 3.0 */
    e3[10] = 1;
    put32(e3 + 12, (uint32_t)s.size);
    put64(e3 + 16, TABLE_AT);
    e3[5] = checksum(e3, sizeof e3);
    physmem_write(mem, ENTRY3_AT, e3, sizeof e3);
    physmem_write(mem, TABLE_AT, s.data, s.size);
}
