/* Linux bzImages. */
#include "fuzz_boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_boot(data, size, linux_probe, linux_load);
    return 0;
}

int fuzz_seed(unsigned index, struct test_image *image)
{
    static const struct {
        uint16_t protocol;
        bool kernel64;
    } kinds[] = {{0x20f, true}, {0x20f, false}, {0x206, false}, {0x203, false}};
    if (index >= sizeof kinds / sizeof kinds[0])
        return 0;
    test_bzimage(image, kinds[index].protocol, kinds[index].kernel64);
    return 1;
}
