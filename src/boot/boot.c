/* Files in, kernel in RAM out: what does not depend on the kernel's format. */
#include "boot/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/bytes.h"
#include "boot/layout.h"
#include "boot/loader.h"
#include "util/error.h"
#include "util/util.h"

#define READ_CHUNK (1u << 20)

/* Read all of `fd`, which may be a pipe, but no more than `max` bytes. */
static int read_all(int fd, struct boot_file *file, uint64_t size_hint, uint64_t max,
                    struct tv_error *err)
{
    size_t capacity = (size_t)size_hint + 1;
    for (;;) {
        if (file->size == capacity || !file->data) {
            if (file->data)
                capacity += MAX(capacity / 2, READ_CHUNK);
            uint8_t *data = realloc(file->data, capacity);
            if (!data)
                return tv_fail(err, "%s: out of memory", file->name);
            file->data = data;
        }
        ssize_t n = read(fd, file->data + file->size, capacity - file->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return tv_fail_errno(err, errno, "%s: cannot read", file->name);
        if (n == 0)
            break;
        file->size += (size_t)n;
        if (file->size > max)
            return tv_fail(err, "%s: larger than the guest's memory (%" PRIu64 " MiB)", file->name,
                           max >> 20);
    }
    return file->size ? 0 : tv_fail(err, "%s: the file is empty", file->name);
}

static int read_file(struct boot_file *file, uint64_t max, struct tv_error *err)
{
    int fd = open(file->name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return tv_fail_errno(err, errno, "%s: cannot open", file->name);
    struct stat st;
    int result;
    if (fstat(fd, &st) < 0)
        result = tv_fail_errno(err, errno, "%s: cannot read", file->name);
    else if (S_ISDIR(st.st_mode))
        result = tv_fail(err, "%s: is a directory", file->name);
    else if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max)
        result = tv_fail(err,
                         "%s: larger than the guest's memory (%" PRIu64 " against %" PRIu64
                         " bytes); give more with --memory",
                         file->name, (uint64_t)st.st_size, max);
    else
        result =
            read_all(fd, file, S_ISREG(st.st_mode) ? (uint64_t)st.st_size : READ_CHUNK, max, err);
    close(fd);
    return result;
}

/* An initrd is "FILE" or "FILE ARGS"; a file whose name has a space in it comes first. */
static int name_initrd(struct boot_file *file, const char *spec)
{
    const char *space = strchr(spec, ' ');
    if (!space || access(spec, F_OK) == 0)
        space = spec + strlen(spec);
    file->name = strndup(spec, (size_t)(space - spec));
    file->args = strdup(space + strspn(space, " "));
    return file->name && file->args ? 0 : -1;
}

struct boot_image *boot_open(const struct boot_config *config, const struct physmem *mem,
                             struct tv_error *err)
{
    struct boot_image *image = calloc(1, sizeof *image);
    if (!image)
        goto no_memory;
    image->vcpus = config->vcpus;
    image->mhz = config->mhz;
    image->long_mode = config->long_mode;
    image->hpet = config->hpet;
    image->text_mode = config->text_mode;
    image->append = strdup(config->append ? config->append : "");
    image->kernel.name = strdup(config->kernel);
    image->kernel.args = strdup("");
    if (!image->append || !image->kernel.name || !image->kernel.args)
        goto no_memory;
    if (read_file(&image->kernel, mem->low_size, err) < 0)
        goto fail;
    for (unsigned i = 0; config->initrds && config->initrds[i]; i++) {
        if (i == BOOT_INITRDS_MAX) {
            tv_fail(err, "more than %d initrds", BOOT_INITRDS_MAX);
            goto fail;
        }
        struct boot_file *file = &image->initrds[image->initrd_count++];
        if (name_initrd(file, config->initrds[i]) < 0)
            goto no_memory;
        if (read_file(file, mem->low_size, err) < 0)
            goto fail;
    }
    return image;
no_memory:
    tv_fail(err, "out of memory");
fail:
    boot_image_free(image);
    return NULL;
}

static void free_file(struct boot_file *file)
{
    free(file->name);
    free(file->args);
    free(file->data);
}

void boot_image_free(struct boot_image *image)
{
    if (!image)
        return;
    free_file(&image->kernel);
    for (unsigned i = 0; i < image->initrd_count; i++)
        free_file(&image->initrds[i]);
    free(image->append);
    free(image);
}

uint32_t boot_strings_add(struct boot_strings *strings, struct physmem *mem, const char *a,
                          const char *b)
{
    size_t a_len = strlen(a), b_len = strlen(b);
    size_t total = a_len + (b_len && a_len) + b_len + 1;
    if (total > BOOT_STRINGS_END - strings->next)
        return 0;
    uint32_t start = strings->next, at = start;
    physmem_write(mem, at, a, a_len);
    at += (uint32_t)a_len;
    if (a_len && b_len)
        physmem_write(mem, at++, " ", 1);
    physmem_write(mem, at, b, b_len);
    at += (uint32_t)b_len;
    physmem_write(mem, at, "", 1);
    strings->next = at + 1;
    return start;
}

void boot_zero(struct physmem *mem, uint64_t gpa, uint64_t len)
{
    uint8_t *host = physmem_host_write(mem, gpa, len);
    if (!host || !len)
        return;
    memset(host, 0, len);
    physmem_written(mem, host, len);
}

static const struct {
    const char *magic;
    size_t length;
    const char *what;
} lookalikes[] = {
    {"\x1f\x8b", 2, "gzip-compressed; unpack it first (gzip -d)"},
    {"\xfd"
     "7zXZ",
     5, "xz-compressed; unpack it first (xz -d)"},
    {"\x28\xb5\x2f\xfd", 4, "zstd-compressed; unpack it first (zstd -d)"},
    {"BZh", 3, "bzip2-compressed; unpack it first (bzip2 -d)"},
    {"070701", 6, "a cpio archive: an initrd rather than a kernel"},
    {"\177ELF", 4, "an ELF file with neither a PVH note nor a Multiboot header"},
    {"MZ", 2, "an EFI or DOS program, not a Linux bzImage"},
};

static int unknown_kernel(const struct boot_file *kernel, struct tv_error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(lookalikes); i++)
        if (kernel->size >= lookalikes[i].length &&
            !memcmp(kernel->data, lookalikes[i].magic, lookalikes[i].length))
            return tv_fail(err, "%s: not a kernel that can be booted: it is %s", kernel->name,
                           lookalikes[i].what);
    return tv_fail(err,
                   "%s: not a kernel that can be booted (want a Linux bzImage, an ELF file with a "
                   "PVH note, or a Multiboot 1 image)",
                   kernel->name);
}

int boot_load(const struct boot_image *image, struct physmem *mem, struct boot_entry *entry,
              struct tv_error *err)
{
    static const struct {
        bool (*probe)(const struct boot_file *file);
        int (*load)(const struct boot_image *image, struct physmem *mem, struct boot_entry *entry,
                    struct tv_error *err);
    } formats[] = {
        {linux_probe, linux_load},
        {pvh_probe, pvh_load},
        {multiboot_probe, multiboot_load},
    };

    memset(entry, 0, sizeof *entry);
    if (mem->low_size <= KERNEL_BASE)
        return tv_fail(err, "%s: needs more than 1 MiB of guest memory; give more with --memory",
                       image->kernel.name);
    if (firmware_build(image, mem, err) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        if (!formats[i].probe(&image->kernel))
            continue;
        if (formats[i].load(image, mem, entry, err) < 0)
            return -1;
        entry_tables_build(mem, entry->mode);
        return 0;
    }
    return unknown_kernel(&image->kernel, err);
}
