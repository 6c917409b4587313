/* The smallest valid kernel of each kind, built in memory: what unit tests load and fuzzers start
 * from. */
#ifndef TESTS_FUZZ_BOOT_IMAGES_H
#define TESTS_FUZZ_BOOT_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEST_IMAGE_MAX 8192

struct test_image {
    uint8_t data[TEST_IMAGE_MAX];
    size_t size;
};

#define TEST_BZIMAGE_SETUP     1536 /* bytes before the payload */
#define TEST_BZIMAGE_PAYLOAD   1024
#define TEST_BZIMAGE_PREFERRED 0x200000
#define TEST_BZIMAGE_INIT_SIZE 0x100000
#define TEST_KERNEL_ADDRESS    0x100000
#define TEST_KERNEL_ENTRY      0x100040
#define TEST_KERNEL_BSS        0x1000 /* memory size of the one segment */

/* Payloads are the byte pattern (index * 7 + 1). */
void test_bzimage(struct test_image *image, uint16_t protocol, bool kernel64);
/* An ELF file with a PVH note (32 or 64 bits). */
void test_pvh(struct test_image *image, bool is64);
void test_multiboot_elf(struct test_image *image);
/* The "a.out kludge". */
void test_multiboot_flat(struct test_image *image);

#endif
