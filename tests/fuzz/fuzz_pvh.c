/* ELF files with a PVH note. */
#include "fuzz_boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_boot(data, size, pvh_probe, pvh_load);
    return 0;
}

int fuzz_seed(unsigned index, struct test_image *image)
{
    if (index >= 2)
        return 0;
    test_pvh(image, index == 1);
    return 1;
}
