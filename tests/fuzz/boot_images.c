#include "boot_images.h"

#include <string.h>

#include "boot/bytes.h"

static void pattern(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 7 + 1);
}

void test_bzimage(struct test_image *image, uint16_t protocol, bool kernel64)
{
    uint8_t *h = image->data;
    memset(image, 0, sizeof *image);
    image->size = TEST_BZIMAGE_SETUP + TEST_BZIMAGE_PAYLOAD;
    h[0x1f1] = TEST_BZIMAGE_SETUP / 512 - 1;
    put32(h + 0x1f4, TEST_BZIMAGE_PAYLOAD / 16);
    put16(h + 0x1fe, 0xaa55);
    h[0x200] = 0xeb;
    h[0x201] = 0x6a; /* the header ends at 0x26c */
    memcpy(h + 0x202, "HdrS", 4);
    put16(h + 0x206, protocol);
    h[0x211] = 1; /* LOADED_HIGH */
    put32(h + 0x214, 0x100000);
    put32(h + 0x22c, 0x7fffffff);
    put32(h + 0x230, 0x200000);
    h[0x234] = 1; /* relocatable */
    put16(h + 0x236, kernel64);
    put32(h + 0x238, 64);
    put64(h + 0x258, TEST_BZIMAGE_PREFERRED);
    put32(h + 0x260, TEST_BZIMAGE_INIT_SIZE);
    pattern(h + TEST_BZIMAGE_SETUP, TEST_BZIMAGE_PAYLOAD);
}

/* File header, two program headers, a segment of the whole file. */
static void elf(struct test_image *image, bool is64, bool with_note)
{
    uint8_t *h = image->data;
    unsigned eh = is64 ? 64 : 52, ph = is64 ? 56 : 32;
    memset(image, 0, sizeof *image);
    image->size = 512;
    pattern(h + 256, 256);
    memcpy(h, "\177ELF", 4);
    h[4] = is64 ? 2 : 1;
    h[5] = h[6] = 1;
    put16(h + 16, 2);
    put16(h + 18, is64 ? 62 : 3);
    put32(h + 20, 1);
    put32(h + 24, TEST_KERNEL_ENTRY);
    put32(h + (is64 ? 32 : 28), eh);
    put16(h + (is64 ? 54 : 42), (uint16_t)ph);
    put16(h + (is64 ? 56 : 44), with_note ? 2 : 1);

    uint8_t *p = h + eh;
    put32(p, 1); /* PT_LOAD at offset 0 */
    if (is64) {
        put64(p + 24, TEST_KERNEL_ADDRESS);
        put64(p + 32, image->size);
        put64(p + 40, TEST_KERNEL_BSS);
    } else {
        put32(p + 12, TEST_KERNEL_ADDRESS);
        put32(p + 16, (uint32_t)image->size);
        put32(p + 20, TEST_KERNEL_BSS);
    }
    if (!with_note)
        return;
    const uint32_t at = 208, size = 12 + 4 + 4;
    p += ph;
    put32(p, 4); /* PT_NOTE */
    if (is64) {
        put64(p + 8, at);
        put64(p + 32, size);
    } else {
        put32(p + 4, at);
        put32(p + 16, size);
    }
    put32(h + at, 4);
    put32(h + at + 4, 4);
    put32(h + at + 8, 18);
    memcpy(h + at + 12, "Xen", 4);
    put32(h + at + 16, TEST_KERNEL_ENTRY);
}

void test_pvh(struct test_image *image, bool is64)
{
    elf(image, is64, true);
}

static uint8_t *multiboot_header(uint8_t *p, uint32_t flags)
{
    put32(p, 0x1badb002);
    put32(p + 4, flags);
    put32(p + 8, -(0x1badb002 + flags));
    return p + 12;
}

void test_multiboot_elf(struct test_image *image)
{
    elf(image, false, false);
    multiboot_header(image->data + 128, 3);
}

void test_multiboot_flat(struct test_image *image)
{
    memset(image, 0, sizeof *image);
    image->size = 512;
    pattern(image->data, image->size);
    const uint32_t header = 64, file_start = 32; /* loading begins at byte 32 of the file */
    uint8_t *p = multiboot_header(image->data + header, 0x10003);
    put32(p, TEST_KERNEL_ADDRESS + header - file_start);
    put32(p + 4, TEST_KERNEL_ADDRESS);
    put32(p + 8, TEST_KERNEL_ADDRESS + 400);
    put32(p + 12, TEST_KERNEL_ADDRESS + TEST_KERNEL_BSS);
    put32(p + 16, TEST_KERNEL_ENTRY);
}
