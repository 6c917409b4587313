/* Files that cannot be booted: each gives one line that names the file and says why. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../fuzz/boot_images.h"
#include "boot/bytes.h"
#include "boot/loader.h"
#include "check.h"

#define MIB UINT64_C(0x100000)

static struct physmem *mem;
static char directory[] = "/tmp/trivisor-boot-XXXXXX";
static char path[64], initrd_path[64];

static void write_file(const char *name, const void *data, size_t size)
{
    FILE *f = fopen(name, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size);
    if (f)
        fclose(f);
}

/* Open and load; the message must have `file` and `text` in it. "" for text: it must work. */
static void boots(const char *kernel, const char *initrd, const char *file, const char *text)
{
    const char *initrds[] = {initrd, NULL};
    const struct boot_config config = {
        .kernel = kernel, .initrds = initrds, .vcpus = 1, .long_mode = true};
    struct tv_error err = {""};
    struct boot_entry entry;
    struct boot_image *image = boot_open(&config, mem, &err);
    if (image)
        boot_load(image, mem, &entry, &err);
    boot_image_free(image);
    bool right = *text ? strstr(err.message, file) && strstr(err.message, text) : !*err.message;
    if (!right)
        fprintf(stderr, "got '%s' instead of '%s'\n", err.message, text);
    CHECK(right);
    CHECK(!strchr(err.message, '\n'));
}

static void bytes(const void *data, size_t size, const char *text)
{
    write_file(path, data, size);
    boots(path, NULL, path, text);
}

static void patched(const struct test_image *image, size_t offset, uint64_t value, size_t width,
                    const char *text)
{
    struct test_image copy = *image;
    memcpy(copy.data + offset, &value, width);
    bytes(copy.data, copy.size, text);
}

static void files(void)
{
    struct test_image good;
    test_bzimage(&good, 0x20f, true);
    write_file(path, good.data, good.size);
    boots(path, NULL, path, "");
    boots("/nonexistent/kernel", NULL, "/nonexistent/kernel", "No such file");
    boots(directory, NULL, directory, "is a directory");
    boots(path, "/nonexistent/initrd", "/nonexistent/initrd", "No such file");
    boots(path, directory, directory, "is a directory");
    write_file(initrd_path, "", 0);
    boots(path, initrd_path, initrd_path, "empty");
    CHECK(truncate(initrd_path, 1 << 30) == 0);
    boots(path, initrd_path, initrd_path, "larger than the guest's memory");
    CHECK(truncate(initrd_path, 15 << 20) == 0);
    boots(path, initrd_path, initrd_path, "no room");
    CHECK(truncate(path, 1 << 30) == 0);
    boots(path, NULL, path, "larger than the guest's memory");
    if (geteuid() != 0) {
        chmod(path, 0);
        boots(path, NULL, path, "Permission denied");
        chmod(path, 0600);
    }
    bytes("", 0, "empty");
    bytes("hello, world", 12, "not a kernel that can be booted");
    bytes("\x1f\x8b\x08", 3, "gzip");
    bytes("070701000", 9, "cpio");
    bytes("MZ..", 4, "EFI");
}

static void bzimages(void)
{
    struct test_image k;
    test_bzimage(&k, 0x20f, true);
    bytes(k.data, 0x240, "truncated bzImage");
    bytes(k.data, TEST_BZIMAGE_SETUP, "truncated bzImage");
    bytes(k.data, k.size - 100, "truncated bzImage");
    patched(&k, 0x206, 0x201, 2, "too old");
    patched(&k, 0x211, 0, 1, "zImage");
    patched(&k, 0x1f4, 0, 4, "no code");
    patched(&k, 0x1f4, UINT32_MAX, 4, "truncated bzImage");
    patched(&k, 0x230, 0, 4, "alignment");
    patched(&k, 0x230, 3, 4, "alignment");
    patched(&k, 0x258, UINT64_MAX - 0x1000, 8, "preferred address");
    patched(&k, 0x258, 0xfffff000, 8, "give it more with --memory");
    patched(&k, 0x260, UINT32_MAX, 4, "give it more with --memory");
}

static void elves(void)
{
    struct test_image k;
    test_pvh(&k, true);
    bytes(k.data, 40, "neither a PVH note");
    bytes(k.data, k.size - 1, "truncated ELF");
    patched(&k, 18, 183, 2, "neither a PVH note"); /* an ARM kernel */
    patched(&k, 64 + 24, 0x1000, 8, "below 1 MiB");
    patched(&k, 64 + 24, UINT64_MAX - 10, 8, "does not fit");
    patched(&k, 64 + 40, UINT64_MAX, 8, "does not fit");
    patched(&k, 64 + 40, 1, 8, "larger than its memory");
    patched(&k, 64 + 32, UINT64_MAX, 8, "truncated ELF");
    patched(&k, 208 + 4, 2, 4, "no entry point");
    patched(&k, 208 + 16, 0x500000, 4, "outside what was loaded");
    patched(&k, 64, 0, 4, "nothing to load");
}

static void multiboots(void)
{
    struct test_image k;
    test_multiboot_flat(&k);
    bytes(k.data, 80, "truncated Multiboot header");
    bytes(k.data, 300, "truncated Multiboot image");
    patched(&k, 76, 0, 4, "corrupted Multiboot header");
    patched(&k, 76, 0xffffffff, 4, "corrupted Multiboot header");
    patched(&k, 84, 1, 4, "ends before it begins");
    patched(&k, 88, 0xffffffff, 4, "--memory");
    patched(&k, 92, 0x10, 4, "outside what was loaded");
    patched(&k, 64, 0, 4, "not a kernel that can be booted");
    uint8_t unknown[8];
    put32(unknown, 0x10023);
    put32(unknown + 4, -(0x1badb002 + 0x10023));
    patched(&k, 68, get64(unknown), 8, "something unknown");
    put32(unknown, 3);
    put32(unknown + 4, -(0x1badb002 + 3));
    patched(&k, 68, get64(unknown), 8, "neither ELF");

    test_multiboot_elf(&k);
    patched(&k, 52 + 12, 0x8000, 4, "below 1 MiB");
    patched(&k, 18, 40, 2, "another processor");
    patched(&k, 44, 0xffff, 2, "program headers");
    patched(&k, 42, 1, 2, "program headers");

    struct test_image k64;
    test_pvh(&k64, true);
    memcpy(k64.data + 256, k.data + 128, 12); /* the Multiboot header */
    patched(&k64, 208 + 8, 17, 4, "64-bit");  /* no longer the note that was looked for */
}

int main(void)
{
    struct tv_error err;
    mem = physmem_create(16 * MIB, false, &err);
    CHECK(mem && mkdtemp(directory));
    snprintf(path, sizeof path, "%s/kernel", directory);
    snprintf(initrd_path, sizeof initrd_path, "%s/initrd", directory);
    files();
    bzimages();
    elves();
    multiboots();
    unlink(path);
    unlink(initrd_path);
    rmdir(directory);
    physmem_destroy(mem);
    return check_result();
}
