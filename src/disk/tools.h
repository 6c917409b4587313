/* What `trivisor disk` does with whole images. All wait, and return 0 or -1 with `err`. */
#ifndef TRIVISOR_DISK_TOOLS_H
#define TRIVISOR_DISK_TOOLS_H

#include "disk/image.h"
#include "disk/vmdk.h"

typedef void (*disk_progress)(void *opaque, uint64_t done, uint64_t total);

/*
 * Copy an image. `format` of the copy: "raw", "vmdk" (of create->type), or another that an NBD
 * server writes. Zeroes take no space in the copy.
 */
int disk_convert(const char *from, const char *from_format, const char *to, const char *format,
                 const struct vmdk_create *create, disk_progress progress, void *opaque,
                 struct tv_error *err);
/* A new raw image of `size` bytes. */
int disk_create_raw(const char *path, uint64_t size, bool overwrite, bool preallocate,
                    struct tv_error *err);
/* `*differ`: the first byte that is not the same in both, UINT64_MAX where none. A longer image is
 * the same if the rest of it is zeroes. */
int disk_compare(const char *a, const char *b, const char *format_a, const char *format_b,
                 uint64_t *differ, struct tv_error *err);
/* Write what a snapshot has into its parent. The snapshot stays, and is empty of differences. */
int disk_commit(const char *path, disk_progress progress, void *opaque, struct tv_error *err);
/*
 * Give a snapshot another parent (NULL: none). Its contents stay as they are: what differs is
 * copied in. `unsafe`: only the name and CID of the parent are set.
 */
int disk_rebase(const char *path, const char *parent, bool unsafe, disk_progress progress,
                void *opaque, struct tv_error *err);
/* Make a disk larger; a raw one also smaller, with `shrink`. */
int disk_resize(const char *path, const char *format, uint64_t size, bool shrink,
                struct tv_error *err);

#endif
