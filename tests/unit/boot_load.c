/* What each loader leaves in RAM and in the entry state, for the smallest valid kernels. */
#include <stdlib.h>
#include <string.h>

#include "../fuzz/boot_images.h"
#include "boot/bytes.h"
#include "boot/layout.h"
#include "boot/loader.h"
#include "check.h"

#define MIB UINT64_C(0x100000)

static struct physmem *mem;
static uint8_t initrd_bytes[5000];
static struct boot_image image;
static struct boot_entry entry;
static struct tv_error err;

static const uint8_t *at(uint64_t gpa)
{
    return physmem_host(mem, gpa, 1);
}

static int load(const struct test_image *kernel, const char *append, bool with_initrd)
{
    image =
        (struct boot_image){.kernel = {"kernel", "", (uint8_t *)kernel->data, kernel->size},
                            .initrds = {{"initrd", "one two", initrd_bytes, sizeof initrd_bytes}},
                            .initrd_count = with_initrd,
                            .append = (char *)append,
                            .vcpus = 2,
                            .long_mode = true};
    err.message[0] = 0;
    int result = boot_load(&image, mem, &entry, &err);
    if (result < 0)
        fprintf(stderr, "boot_load: %s\n", err.message);
    return result;
}

static bool payload_at(uint64_t gpa, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (at(gpa)[i] != (uint8_t)(i * 7 + 1))
            return false;
    return true;
}

static void check_firmware(void)
{
    CHECK(get16(at(0x40e)) == 0x9fc0);
    CHECK(get16(at(0x413)) == 639);
    CHECK(!memcmp(at(RSDP_BASE), "RSD PTR ", 8));
    CHECK(!memcmp(at(MPTABLE_BASE), "_MP_", 4));
    CHECK(!memcmp(at(SMBIOS_BASE), "_SM_", 4));
    CHECK(get32(at(BOOT_GDT + BOOT_DS)) == 0xffff);
}

static void linux64(void)
{
    struct test_image kernel;
    test_bzimage(&kernel, 0x20f, true);
    CHECK(load(&kernel, "console=ttyS0", true) == 0);
    check_firmware();
    CHECK(entry.mode == BOOT_LONG);
    CHECK(entry.rip == TEST_BZIMAGE_PREFERRED + 0x200);
    CHECK(entry.rsi == BOOT_INFO);
    CHECK(payload_at(TEST_BZIMAGE_PREFERRED, TEST_BZIMAGE_PAYLOAD));

    const uint8_t *p = at(BOOT_INFO);
    CHECK(!memcmp(p + 0x202, "HdrS", 4));
    CHECK(p[0x1ef] == 0); /* sentinel */
    CHECK(p[0x210] == 0xff);
    CHECK((p[0x211] & 0x81) == 0x81);
    CHECK(get32(p + 0x214) == TEST_BZIMAGE_PREFERRED);
    CHECK(get64(p + 0x70) == RSDP_BASE);
    CHECK(!strcmp((const char *)at(get32(p + 0x228)), "console=ttyS0"));
    uint64_t initrd = get32(p + 0x218);
    CHECK(initrd == ((mem->low_size - sizeof initrd_bytes) & PAGE_MASK));
    CHECK(get32(p + 0x21c) == sizeof initrd_bytes);
    CHECK(!memcmp(at(initrd), initrd_bytes, sizeof initrd_bytes));

    CHECK(p[0x1e8] == 5);
    const uint8_t *map = p + 0x2d0;
    CHECK(get64(map) == 0 && get64(map + 8) == EBDA_BASE && get32(map + 16) == 1);
    CHECK(get64(map + 60) == MIB && get64(map + 68) == mem->low_size - MIB && get32(map + 76) == 1);

    /* The tables of the entry state map the first 4 GiB one to one. */
    CHECK(get64(at(BOOT_GDT + BOOT_CS)) == 0x00af9b000000ffffu);
    CHECK((get64(at(BOOT_PML4)) & PAGE_MASK) == BOOT_PDPT);
    CHECK(get64(at(BOOT_PDPT + 8)) == (BOOT_PD + PAGE_SIZE + 3));
    CHECK(get64(at(BOOT_PD + 8)) == (0x200000 | 0x83));
}

static void linux32(void)
{
    struct test_image kernel;
    test_bzimage(&kernel, 0x20f, true);
    CHECK(load(&kernel, "", false) == 0);
    CHECK(get32(at(BOOT_INFO + 0x218)) == 0 && get32(at(BOOT_INFO + 0x21c)) == 0);

    test_bzimage(&kernel, 0x20f, false);
    CHECK(load(&kernel, "", false) == 0);
    CHECK(entry.mode == BOOT_PROTECTED);
    CHECK(entry.rip == TEST_BZIMAGE_PREFERRED);
    CHECK(get64(at(BOOT_GDT + BOOT_CS)) == 0x00cf9b000000ffffu);

    /* A protocol from before relocation: 1 MiB, and 255 characters of command line. */
    test_bzimage(&kernel, 0x203, false);
    CHECK(load(&kernel, "", true) == 0);
    CHECK(entry.rip == KERNEL_BASE);
    CHECK(payload_at(KERNEL_BASE, TEST_BZIMAGE_PAYLOAD));
    char text[257];
    memset(text, 'x', 256);
    text[256] = 0;
    CHECK(load(&kernel, text, false) < 0);
    CHECK(strstr(err.message, "256") && strstr(err.message, "255"));
    text[255] = 0;
    CHECK(load(&kernel, text, false) == 0);
}

static void pvh(bool is64)
{
    struct test_image kernel;
    test_pvh(&kernel, is64);
    memset(physmem_host(mem, TEST_KERNEL_ADDRESS, TEST_KERNEL_BSS), 0xcc, TEST_KERNEL_BSS);
    CHECK(load(&kernel, "a b", true) == 0);
    check_firmware();
    CHECK(entry.mode == BOOT_PROTECTED);
    CHECK(entry.rip == TEST_KERNEL_ENTRY);
    CHECK(entry.rbx == BOOT_INFO);
    CHECK(!memcmp(at(TEST_KERNEL_ADDRESS), kernel.data, kernel.size));
    CHECK(*at(TEST_KERNEL_ADDRESS + kernel.size) == 0);
    CHECK(*at(TEST_KERNEL_ADDRESS + TEST_KERNEL_BSS - 1) == 0);

    const uint8_t *p = at(BOOT_INFO);
    CHECK(get32(p) == 0x336ec578 && get32(p + 4) == 1);
    CHECK(get32(p + 12) == 1);
    const uint8_t *module = at(get64(p + 16));
    CHECK(!memcmp(at(get64(module)), initrd_bytes, sizeof initrd_bytes));
    CHECK(get64(module + 8) == sizeof initrd_bytes);
    CHECK(!strcmp((const char *)at(get64(module + 16)), "one two"));
    CHECK(!strcmp((const char *)at(get64(p + 24)), "a b"));
    CHECK(get64(p + 32) == RSDP_BASE);
    CHECK(get32(p + 48) == 5);
    const uint8_t *map = at(get64(p + 40));
    CHECK(get64(map + 8) == EBDA_BASE && get32(map + 16) == 1);
}

static void multiboot(bool flat)
{
    struct test_image kernel;
    if (flat)
        test_multiboot_flat(&kernel);
    else
        test_multiboot_elf(&kernel);
    memset(physmem_host(mem, TEST_KERNEL_ADDRESS, TEST_KERNEL_BSS), 0xcc, TEST_KERNEL_BSS);
    CHECK(load(&kernel, "a b", true) == 0);
    check_firmware();
    CHECK(entry.mode == BOOT_PROTECTED);
    CHECK(entry.rip == TEST_KERNEL_ENTRY);
    CHECK(entry.rax == 0x2badb002);
    CHECK(entry.rbx == BOOT_INFO);
    size_t loaded = flat ? 400 : kernel.size;
    CHECK(!memcmp(at(TEST_KERNEL_ADDRESS), kernel.data + (flat ? 32 : 0), loaded));
    CHECK(*at(TEST_KERNEL_ADDRESS + loaded) == 0);
    CHECK(*at(TEST_KERNEL_ADDRESS + TEST_KERNEL_BSS - 1) == 0);

    const uint8_t *p = at(BOOT_INFO);
    CHECK(get32(p) == (1 | 4 | 8 | 0x40 | 0x200));
    CHECK(get32(p + 4) == 639);
    CHECK(get32(p + 8) == (mem->low_size - MIB) >> 10);
    CHECK(!strcmp((const char *)at(get32(p + 16)), "kernel a b"));
    CHECK(get32(p + 20) == 1);
    const uint8_t *module = at(get32(p + 24));
    CHECK(get32(module) == TEST_KERNEL_ADDRESS + TEST_KERNEL_BSS);
    CHECK(get32(module + 4) == get32(module) + sizeof initrd_bytes);
    CHECK(!memcmp(at(get32(module)), initrd_bytes, sizeof initrd_bytes));
    CHECK(!strcmp((const char *)at(get32(module + 8)), "initrd one two"));
    CHECK(get32(p + 44) == 5 * 24);
    CHECK(get32(at(get32(p + 48))) == 20);
    CHECK(!strncmp((const char *)at(get32(p + 64)), "Trivisor", 8));
}

/* A guest with RAM on both sides of the PCI hole. */
static void memory_map(void)
{
    struct physmem big = {.size = UINT64_C(5) << 30, .low_size = LOW_RAM_MAX};
    struct memmap_range r[MEMMAP_MAX];
    unsigned n = memmap_build(&big, r);
    CHECK(n == 6);
    CHECK(r[3].base == MIB && r[3].base + r[3].size == LOW_RAM_MAX && r[3].type == MEMMAP_RAM);
    CHECK(r[5].base == HIGH_RAM_BASE && r[5].size == UINT64_C(2) << 30 && r[5].type == MEMMAP_RAM);
    for (unsigned i = 1; i < n; i++)
        CHECK(r[i].base >= r[i - 1].base + r[i - 1].size);
}

int main(void)
{
    mem = physmem_create(16 * MIB, false, &err);
    CHECK(mem != NULL);
    if (!mem)
        return check_result();
    for (size_t i = 0; i < sizeof initrd_bytes; i++)
        initrd_bytes[i] = (uint8_t)(i * 13 + 5);
    linux64();
    linux32();
    pvh(false);
    pvh(true);
    multiboot(false);
    multiboot(true);
    memory_map();
    physmem_destroy(mem);
    return check_result();
}
