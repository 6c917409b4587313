/*
 * VMDK images: opened, read, written, closed, checked and repaired. Whatever the input, this ends,
 * with an error that names a file where it cannot be opened.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "disk/vmdk.h"
#include "fuzz.h"

#define NAME "fuzz.vmdk"

static char directory[64];

static void leave(void)
{
    unlink(NAME);
    if (chdir("/") == 0)
        rmdir(directory);
}

static void enter(void)
{
    snprintf(directory, sizeof directory, "%s/fuzz-vmdk-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(directory) || chdir(directory) != 0)
        abort();
    atexit(leave);
}

static void transfer(struct image *image, uint64_t offset, uint64_t length, bool write)
{
    static char data[65536];
    if (offset >= image->size)
        return;
    if (length > image->size - offset)
        length = image->size - offset;
    struct iovec iov = {.iov_base = data, .iov_len = length};
    struct iov_cursor cursor = iov_start(&iov, 1);
    if (write)
        image->ops->write(image, offset, &cursor, length);
    else
        image->ops->read(image, offset, &cursor, length);
}

static void use(bool writable)
{
    struct tv_error err = {{0}};
    struct disk_options options = {.read_only = !writable, .format = "vmdk"};
    struct image *image = image_open(NAME, &options, &err);
    if (!image) {
        if (!*err.message)
            abort();
        return;
    }
    struct image_range range;
    uint64_t at = 0;
    for (unsigned i = 0; i < 200 && at < image->size; i++, at += range.length) {
        if (image->ops->map(image, at, image->size - at, &range) != 0)
            break;
        if (!range.length || range.length > image->size - at || range.length % DISK_SECTOR)
            abort();
    }
    transfer(image, 0, 65536, false);
    transfer(image, image->size - DISK_SECTOR, DISK_SECTOR, false);
    if (writable) {
        transfer(image, 512, 8192, true);
        transfer(image, image->size - DISK_SECTOR, DISK_SECTOR, true);
        image->ops->zero(image, 0, DISK_SECTOR * 3, false);
        image->ops->zero(image, 0, image->size > 65536 ? 65536 : image->size, true);
        transfer(image, 0, 65536, false);
        image->ops->flush(image);
    }
    image_close(image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tv_error err;
    if (!*directory)
        enter();
    for (int round = 0; round < 2; round++) {
        int fd = open(NAME, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || write(fd, data, size) != (ssize_t)size)
            abort();
        close(fd);
        struct vmdk_check check = {.repair = round};
        if (round == 0)
            use(false);
        vmdk_check(NAME, &check, &err);
        use(true);
    }
    return 0;
}

/* Everything in a few sectors: 0 header, 1 descriptor, 3 and 4 directory and table, 5 and 6 their
 * copies, then grains of one sector. */
static void small_sparse(struct test_image *image, bool zeroed, bool compressed)
{
    struct vmdk_header h = {.magic = VMDK_MAGIC,
                            .version = compressed ? 3
                                       : zeroed   ? 2
                                                  : 1,
                            .flags = VMDK_NEWLINE_TEST | VMDK_REDUNDANT |
                                     (zeroed ? VMDK_ZEROED_GTES : 0) |
                                     (compressed ? VMDK_COMPRESSED | VMDK_MARKERS : 0),
                            .capacity = 100,
                            .grain_size = 1,
                            .descriptor_offset = 1,
                            .descriptor_size = 2,
                            .gtes_per_gt = 128,
                            .rgd_offset = 5,
                            .gd_offset = 3,
                            .overhead = 7,
                            .newline_test = {'\n', ' ', '\r', '\n'},
                            .compression = compressed};
    uint32_t sector = 7, four = 4, six = 6;
    memset(image, 0, sizeof *image);
    memcpy(image->data, &h, sizeof h);
    snprintf((char *)image->data + 512, 1024,
             "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
             "createType=\"%s\"\nRW 100 SPARSE \"" NAME "\"\nddb.adapterType = \"ide\"\n",
             compressed ? "streamOptimized" : "monolithicSparse");
    memcpy(image->data + 3 * 512, &four, 4);
    memcpy(image->data + 5 * 512, &six, 4);
    for (uint32_t i = 0; i < 3; i++, sector++) {
        uint8_t *at = image->data + sector * 512;
        memcpy(image->data + 4 * 512 + i * 8, &sector, 4);
        memcpy(image->data + 6 * 512 + i * 8, &sector, 4);
        if (compressed) {
            uint8_t grain[512] = {1, 2, 3};
            uLongf n = 512 - VMDK_GRAIN_MARKER;
            compress(at + VMDK_GRAIN_MARKER, &n, grain, sizeof grain);
            struct vmdk_marker m = {.value = i * 2, .size = (uint32_t)n};
            memcpy(at, &m, VMDK_GRAIN_MARKER);
        } else {
            memset(at, 'a' + (int)i, 512);
        }
    }
    if (zeroed)
        image->data[4 * 512 + 40] = image->data[6 * 512 + 40] = VMDK_GTE_ZEROED;
    image->size = sector * 512;
    if (!compressed)
        return;
    /* The directory is found by way of a footer. */
    struct vmdk_header first = h;
    first.gd_offset = VMDK_GD_AT_END;
    memcpy(image->data, &first, sizeof first);
    struct vmdk_marker footer = {.value = 1, .type = VMDK_MARK_FOOTER};
    memcpy(image->data + image->size, &footer, sizeof footer);
    memcpy(image->data + image->size + 512, &h, sizeof h);
    image->size += 3 * 512;
}

int fuzz_seed(unsigned index, struct test_image *image)
{
    static const char text[] =
        "# Disk DescriptorFile\nversion=3\nencoding=\"UTF-8\"\nCID=fffffffe\nparentCID=12345678\n"
        "createType=\"custom\"\nparentFileNameHint=\"" NAME "\"\nRW 8 ZERO\n"
        "RW 2 FLAT \"" NAME "\" 0\nRDONLY 8 SPARSE \"" NAME "\"\nddb.adapterType = \"ide\"\n";
    if (index < 3) {
        small_sparse(image, index == 1, index == 2);
        return 1;
    }
    if (index > 3)
        return 0;
    memset(image, 0, sizeof *image);
    memcpy(image->data, text, sizeof text - 1);
    image->size = 1024;
    return 1;
}
