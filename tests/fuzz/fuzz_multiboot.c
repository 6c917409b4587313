/* Multiboot 1 images. */
#include "fuzz_boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_boot(data, size, multiboot_probe, multiboot_load);
    return 0;
}

int fuzz_seed(unsigned index, struct test_image *image)
{
    if (index >= 2)
        return 0;
    if (index == 0)
        test_multiboot_elf(image);
    else
        test_multiboot_flat(image);
    return 1;
}
