#include "fuzz_boot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/layout.h"

#define GUEST_MEMORY (8u << 20)
#define KERNEL_NAME  "kernel-under-test"
#define INITRD_NAME  "initrd-under-test"

static void require(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "fuzz_boot: %s\n", what);
    abort();
}

void fuzz_boot(const uint8_t *data, size_t size, bool (*probe)(const struct boot_file *),
               int (*load)(const struct boot_image *, struct physmem *, struct boot_entry *,
                           struct tv_error *))
{
    static struct physmem *mem;
    struct tv_error err = {""};
    if (!mem)
        mem = physmem_create(GUEST_MEMORY, false, &err);
    require(mem != NULL, err.message);

    /* Exactly as large as the input, so that the address sanitizer sees any byte past its end. */
    uint8_t *kernel = malloc(size ? size : 1);
    require(kernel != NULL, "out of memory");
    if (size)
        memcpy(kernel, data, size);
    uint8_t initrd[100] = "initrd";
    struct boot_image image = {
        .kernel = {KERNEL_NAME, "", kernel, size},
        .initrds = {{INITRD_NAME, "args", initrd, sizeof initrd}},
        .initrd_count = 1,
        .append = "console=ttyS0",
        .vcpus = 2,
        .long_mode = true,
    };
    struct boot_entry entry = {0};
    if (probe(&image.kernel)) {
        if (load(&image, mem, &entry, &err) == 0) {
            require(entry.rip >= KERNEL_BASE && entry.rip < mem->low_size, "entry outside RAM");
            require(entry.protocol != NULL, "no protocol");
        } else {
            require(strstr(err.message, KERNEL_NAME) || strstr(err.message, INITRD_NAME),
                    "the message names no file");
            require(!strchr(err.message, '\n'), "more than one line");
        }
    }
    free(kernel);
}
