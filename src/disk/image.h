/*
 * An image as the disk layer sees it: operations that wait, called by any number of threads at
 * once. A format is one struct image_ops. Ranges are checked by the caller (disk.c): multiples of
 * DISK_SECTOR inside the image; no write reaches a read-only image.
 */
#ifndef TRIVISOR_DISK_IMAGE_H
#define TRIVISOR_DISK_IMAGE_H

#include "disk/disk.h"
#include "disk/file.h"
#include "disk/iov.h"

struct image;

/* What a range of an image is: the answer to `map`. */
struct image_range {
    uint64_t length; /* bytes that are alike, from the offset asked for */
    bool data;       /* stored somewhere; else it reads as zeroes */
    bool compressed;
    bool absent;      /* no image of the chain says anything of it */
    unsigned depth;   /* 0: in the image itself, 1: in its parent, ... */
    const char *file; /* where it is stored uncompressed; NULL if not in a file as such */
    uint64_t file_offset;
};

/* All return 0 or an errno value unless they say otherwise. */
struct image_ops {
    const char *format;
    int (*read)(struct image *image, uint64_t offset, struct iov_cursor *cursor, uint64_t length);
    int (*write)(struct image *image, uint64_t offset, struct iov_cursor *cursor, uint64_t length);
    /* Make the range read as zeroes; with `discard`, or leave it as it is. */
    int (*zero)(struct image *image, uint64_t offset, uint64_t length, bool discard);
    int (*flush)(struct image *image);
    /*
     * Whether the whole range lies in one piece of one host file, ready for a plain transfer there.
     * Never waits. May be NULL.
     */
    bool (*direct)(struct image *image, bool write, uint64_t offset, uint64_t length, int *fd,
                   uint64_t *file_offset);
    int (*map)(struct image *image, uint64_t offset, uint64_t length, struct image_range *range);
    /* Something is only in memory that the next flush would write: done in quiet moments. May be
     * NULL. */
    bool (*dirty)(struct image *image);
    void (*close)(struct image *image);
};

struct image {
    const struct image_ops *ops;
    char *path;
    const char *format; /* a constant: for people to read */
    uint64_t size;      /* bytes */
    bool read_only;
    struct image *parent; /* what shows where this one has nothing; NULL: zeroes */
};

/* NULL with `err`. `options` may be NULL. */
struct image *image_open(const char *path, const struct disk_options *options,
                         struct tv_error *err);
/* Flushes; NULL is fine. */
void image_close(struct image *image);

/* The format that the first `size` bytes of a file show; "raw" if none that we know. */
const char *image_probe(const void *head, size_t size);
bool image_is_uri(const char *path);

struct image *raw_open(const char *path, const struct disk_options *options, bool probed,
                       struct tv_error *err);
/* `under` with a temporary overlay for what is written. Takes `under`, in failure too. */
struct image *overlay_open(struct image *under, struct tv_error *err);

/* Other formats, by way of a server; and servers elsewhere, by URI. */
struct image *nbd_image_open(const char *path, const char *format,
                             const struct disk_options *options, struct tv_error *err);
/* A new image of a format that qemu-img knows. */
int nbd_image_create(const char *path, const char *format, uint64_t size, bool overwrite,
                     struct tv_error *err);

#endif
