/* Finding out what an image is, and opening it. */
#include "disk/image.h"

#include <stdlib.h>
#include <string.h>

#include "disk/vmdk.h"
#include "util/error.h"
#include "util/util.h"

static const struct {
    const char *format;
    unsigned offset, length;
    const char *magic;
} magics[] = {
    {"vmdk", 0, 4, "KDMV"},
    {"vmdk", 0, 4, "COWD"},
    {"vmdk", 0, 21, "# Disk DescriptorFile"},
    {"qcow2", 0, 4, "QFI\xfb"},
    {"qed", 0, 4, "QED\0"},
    {"vhdx", 0, 8, "vhdxfile"},
    {"vpc", 0, 8, "conectix"},
    {"vdi", 0x40, 4, "\x7f\x10\xda\xbe"},
};

const char *image_probe(const void *head, size_t size)
{
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        if (magics[i].offset + magics[i].length <= size &&
            !memcmp((const char *)head + magics[i].offset, magics[i].magic, magics[i].length))
            return magics[i].format;
    }
    return "raw";
}

bool image_is_uri(const char *path)
{
    return !strncmp(path, "nbd://", 6) || !strncmp(path, "nbds://", 7) ||
           !strncmp(path, "nbd+unix://", 11) || !strncmp(path, "nbds+unix://", 12);
}

static int probe_file(const char *path, const char **format, struct tv_error *err)
{
    struct host_file file;
    char head[DISK_SECTOR] = {0};
    uint64_t size;
    if (file_open(&file, path, FILE_READ_ONLY | FILE_NO_LOCK, NULL, err) != 0)
        return -1;
    int error = file_size(&file, &size);
    if (!error)
        error = file_read(&file, head, (size_t)MIN(size, sizeof head), 0);
    file_close(&file);
    if (error)
        return tv_fail_errno(err, error, "%s: offset 0: cannot read", path);
    *format = image_probe(head, (size_t)MIN(size, sizeof head));
    return 0;
}

struct image *image_open(const char *path, const struct disk_options *options, struct tv_error *err)
{
    struct disk_options own = {0};
    if (options)
        own = *options;
    bool snapshot = own.snapshot && !own.read_only;
    if (snapshot)
        own.read_only = true;
    options = &own;
    const char *format = image_is_uri(path) ? "nbd" : options->format;
    if (!format && probe_file(path, &format, err) != 0)
        return NULL;
    struct image *image = NULL;
    if (!strcmp(format, "raw"))
        image = raw_open(path, options, !options->format, err);
    else if (!strcmp(format, "vmdk"))
        image = vmdk_open(path, options, 0, err);
    else
        image = nbd_image_open(path, format, options, err);
    if (!image)
        return NULL;
    image->format = image->format ? image->format : image->ops->format;
    image->path = strdup(path);
    if (!image->path) {
        tv_fail(err, "%s: out of memory", path);
        image_close(image);
        return NULL;
    }
    if (snapshot && (image = overlay_open(image, err))) {
        image->path = strdup(path);
        if (!image->path) {
            tv_fail(err, "%s: out of memory", path);
            image_close(image);
            return NULL;
        }
    }
    return image;
}

void image_close(struct image *image)
{
    if (!image)
        return;
    if (!image->read_only)
        image->ops->flush(image);
    char *path = image->path;
    image->ops->close(image);
    free(path);
}
