/*
 * Images of several files that come from somewhere: descriptors with flat and sparse extents,
 * chains of parents, raw images; and names that lead elsewhere. Beside the directory of the image
 * is another with a file that no image may show or change: it is looked at after each input.
 *
 * The input: files, each a byte that chooses its name, a zero, 16 bits of length, and its bytes.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/tools.h"
#include "disk/vmdk.h"
#include "fuzz.h"
#include "util/util.h"

#define SECRET      "../out/secret"
#define MARK        "NOBODY MAY READ THIS"
#define SECRET_SIZE 65536
#define PIECE       65536
#define LOOKS       64

static const char *const names[] = {"top.vmdk", "base.vmdk", "other.vmdk", "flat.img", "s001.vmdk"};

static char directory[64];
static struct stat before;

static void leave(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (chdir("/") != 0 || system(command) != 0)
        perror(directory);
}

static void enter(void)
{
    snprintf(directory, sizeof directory, "%s/fuzz-set-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(directory) || chdir(directory) != 0 || mkdir("in", 0700) != 0 ||
        mkdir("out", 0700) != 0 || chdir("in") != 0)
        abort();
    int fd = open(SECRET, O_WRONLY | O_CREAT, 0600);
    for (unsigned at = 0; at < SECRET_SIZE; at += 64)
        if (pwrite(fd, MARK, sizeof MARK, at) != sizeof MARK)
            abort();
    if (ftruncate(fd, SECRET_SIZE) != 0 || close(fd) != 0 || stat(SECRET, &before) != 0 ||
        symlink(SECRET, "link.img") != 0 || mkfifo("fifo.img", 0600) != 0)
        abort();
    atexit(leave);
}

static void transfer(struct image *image, uint64_t offset, uint64_t length, bool write)
{
    static char data[PIECE];
    if (offset >= image->size)
        return;
    length = MIN(MIN(length, image->size - offset), PIECE);
    struct iovec iov = {.iov_base = data, .iov_len = length};
    struct iov_cursor cursor = iov_start(&iov, 1);
    if (write) {
        memset(data, 'w', length);
        image->ops->write(image, offset, &cursor, length);
        return;
    }
    memset(data, 0, length);
    if (image->ops->read(image, offset, &cursor, length) == 0 &&
        memmem(data, length, MARK, sizeof MARK))
        abort();
}

static void use(struct image *image)
{
    struct image_range range;
    uint64_t at = 0;
    for (unsigned i = 0; i < LOOKS && at < image->size; i++, at += range.length) {
        if (image->ops->map(image, at, image->size - at, &range) != 0)
            break;
        if (!range.length || range.length > image->size - at || range.length % DISK_SECTOR)
            abort();
        transfer(image, at, PIECE, false);
    }
    transfer(image, image->size - DISK_SECTOR, DISK_SECTOR, false);
    if (image->read_only)
        return;
    transfer(image, DISK_SECTOR, PIECE, true);
    transfer(image, image->size - DISK_SECTOR, DISK_SECTOR, true);
    image->ops->zero(image, 0, MIN(image->size, 3 * DISK_SECTOR), false);
    image->ops->zero(image, 0, MIN(image->size, UINT64_C(65536)), true);
    transfer(image, 0, PIECE, false);
    image->ops->flush(image);
}

static void open_and_use(const struct disk_options *options)
{
    struct tv_error err = {{0}};
    struct image *image = image_open(names[0], options, &err);
    if (!image) {
        if (!*err.message || strchr(err.message, '\n'))
            abort();
        return;
    }
    use(image);
    image_close(image);
}

static bool make_files(const uint8_t *data, size_t size)
{
    bool top = false;
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        unlink(names[i]);
    while (size >= 4) {
        const char *name = names[data[0] % ARRAY_SIZE(names)];
        size_t n = MIN((size_t)(data[2] | data[3] << 8), size - 4);
        int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || write(fd, data + 4, n) != (ssize_t)n)
            abort();
        close(fd);
        top |= data[0] % ARRAY_SIZE(names) == 0;
        data += 4 + n;
        size -= 4 + n;
    }
    return top;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tv_error err = {{0}};
    if (!*directory)
        enter();
    if (!make_files(data, size))
        return 0;
    char head[DISK_SECTOR] = {0};
    int fd = open(names[0], O_RDONLY);
    ssize_t got = read(fd, head, sizeof head);
    close(fd);
    const char *format = image_probe(head, got < 0 ? 0 : (size_t)got);
    /* The others are a server's business. */
    if (strcmp(format, "raw") != 0 && strcmp(format, "vmdk") != 0)
        format = "vmdk";
    open_and_use(&(struct disk_options){.read_only = true, .format = format});
    open_and_use(&(struct disk_options){.snapshot = true, .format = format});
    open_and_use(&(struct disk_options){.format = "raw", .read_only = true});
    if (!strcmp(format, "vmdk")) {
        open_and_use(
            &(struct disk_options){.read_only = true, .format = format, .without_parent = true});
        for (unsigned repair = 0; repair < 2; repair++)
            vmdk_check(names[0], &(struct vmdk_check){.repair = repair}, &err);
        open_and_use(&(struct disk_options){.format = format, .ignore_parent_cid = true});
        uint64_t differ;
        disk_compare(names[0], names[1], "vmdk", "vmdk", &differ, &err);
        disk_rebase(names[0], NULL, true, NULL, NULL, &err);
    } else {
        open_and_use(&(struct disk_options){0});
    }
    struct stat after;
    if (stat(SECRET, &after) != 0 || after.st_size != before.st_size ||
        after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
        after.st_mtim.tv_nsec != before.st_mtim.tv_nsec)
        abort();
    return 0;
}

/* ---- Valid sets ---- */

static void file(struct test_image *image, unsigned name, const void *data, size_t size)
{
    uint8_t *at = image->data + image->size;
    at[0] = (uint8_t)name;
    at[2] = (uint8_t)size;
    at[3] = (uint8_t)(size >> 8);
    memcpy(at + 4, data, size);
    image->size += 4 + size;
}

static void text(struct test_image *image, unsigned name, const char *cid, const char *parent,
                 const char *type, const char *rest)
{
    char out[1024];
    int n = snprintf(out, sizeof out,
                     "# Disk DescriptorFile\nversion=1\nCID=%s\nparentCID=%s\ncreateType=\"%s\"\n%s"
                     "ddb.adapterType = \"lsilogic\"\n",
                     cid, parent, type, rest);
    file(image, name, out, (size_t)n);
}

/* A sparse extent of 8 sectors in grains of one, `stored` of them there; one that has no descriptor
 * of its own unless given. */
static void sparse(struct test_image *image, unsigned name, unsigned stored, const char *descriptor)
{
    static uint8_t out[16 * 512];
    struct vmdk_header h = {.magic = VMDK_MAGIC,
                            .version = 1,
                            .flags = VMDK_NEWLINE_TEST,
                            .capacity = 8,
                            .grain_size = 1,
                            .descriptor_offset = descriptor ? 1 : 0,
                            .descriptor_size = descriptor ? 1 : 0,
                            .gtes_per_gt = 128,
                            .gd_offset = 2,
                            .overhead = 4,
                            .newline_test = {'\n', ' ', '\r', '\n'}};
    uint32_t three = 3;
    memset(out, 0, sizeof out);
    memcpy(out, &h, sizeof h);
    if (descriptor)
        memcpy(out + 512, descriptor, MIN(strlen(descriptor), (size_t)512));
    memcpy(out + 2 * 512, &three, 4);
    for (uint32_t i = 0; i < stored; i++) {
        uint32_t sector = 4 + i;
        memcpy(out + 3 * 512 + 8 * i, &sector, 4);
        memset(out + sector * 512, 'a' + (int)i, 512);
    }
    file(image, name, out, (4 + stored) * 512);
}

int fuzz_seed(unsigned index, struct test_image *image)
{
    static const char embedded[] =
        "# Disk DescriptorFile\nversion=1\nCID=%s\nparentCID=%s\ncreateType=\"monolithicSparse\"\n"
        "%sRW 8 SPARSE \"%s\"\n";
    char own[512];
    uint8_t sectors[4 * 512];
    memset(sectors, 'f', sizeof sectors);
    memset(image, 0, sizeof *image);
    switch (index) {
    case 0: /* monolithicFlat */
        text(image, 0, "11111111", "ffffffff", "monolithicFlat", "RW 4 FLAT \"flat.img\" 0\n");
        file(image, 3, sectors, sizeof sectors);
        break;
    case 1: /* extents of many kinds */
        text(image, 0, "11111111", "ffffffff", "twoGbMaxExtentSparse",
             "RW 8 SPARSE \"s001.vmdk\"\nRW 2 FLAT \"flat.img\" 1\nRW 4 ZERO\n"
             "RDONLY 1 FLAT \"flat.img\" 3\n");
        sparse(image, 4, 3, NULL);
        file(image, 3, sectors, sizeof sectors);
        break;
    case 2: /* a snapshot of a snapshot of a flat image */
        snprintf(own, sizeof own, embedded, "33333333", "22222222",
                 "parentFileNameHint=\"other.vmdk\"\n", names[0]);
        sparse(image, 0, 1, own);
        snprintf(own, sizeof own, embedded, "22222222", "11111111",
                 "parentFileNameHint=\"base.vmdk\"\n", names[2]);
        sparse(image, 2, 2, own);
        text(image, 1, "11111111", "ffffffff", "monolithicFlat", "RW 4 FLAT \"flat.img\" 0\n");
        file(image, 3, sectors, sizeof sectors);
        break;
    case 3: /* names that lead elsewhere */
        text(image, 0, "11111111", "ffffffff", "custom",
             "RW 4 FLAT \"../out/secret\" 0\nRW 4 FLAT \"link.img\" 0\n");
        break;
    case 4:
        text(image, 0, "11111111", "ffffffff", "custom", "RW 4 FLAT \"link.img\" 0\n");
        break;
    case 5:
        text(image, 0, "11111111", "ffffffff", "custom", "RW 4 FLAT \"fifo.img\" 0\n");
        break;
    case 6: /* parents that lead elsewhere, and round in circles */
        text(image, 0, "11111111", "11111111", "custom",
             "parentFileNameHint=\"../out/secret\"\nRW 4 ZERO\n");
        break;
    case 7:
        text(image, 0, "11111111", "22222222", "custom",
             "parentFileNameHint=\"base.vmdk\"\nRW 4 ZERO\n");
        text(image, 1, "22222222", "11111111", "custom",
             "parentFileNameHint=\"../in/top.vmdk\"\nRW 4 ZERO\n");
        break;
    case 8:
        text(image, 0, "11111111", "22222222", "custom",
             "parentFileNameHint=\"/dev/zero\"\nRW 4 ZERO\n");
        break;
    case 9: /* raw, with half a sector at the end */
        file(image, 0, sectors, sizeof sectors - 100);
        break;
    default:
        return 0;
    }
    return 1;
}
