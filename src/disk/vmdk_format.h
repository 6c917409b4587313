/* VMDK as it is on disk: VMware's Virtual Disk Format 5.0. All is little-endian; sectors of 512
 * bytes. */
#ifndef TRIVISOR_DISK_VMDK_FORMAT_H
#define TRIVISOR_DISK_VMDK_FORMAT_H

#include <stdint.h>

#define VMDK_MAGIC         0x564d444bu /* "KDMV" */
#define VMDK_NO_CID        0xffffffffu
#define VMDK_GD_AT_END     UINT64_MAX
#define VMDK_GTES_PER_GT   512u
#define VMDK_GRAIN_SECTORS 128u
#define VMDK_GTE_ZEROED    1u /* under VMDK_ZEROED_GTES: a grain of zeroes whatever the parent has */

enum vmdk_header_flags {
    VMDK_NEWLINE_TEST = 1u << 0,
    VMDK_REDUNDANT = 1u << 1,
    VMDK_ZEROED_GTES = 1u << 2,
    VMDK_COMPRESSED = 1u << 16,
    VMDK_MARKERS = 1u << 17,
};

struct vmdk_header {
    uint32_t magic, version, flags;
    uint64_t capacity, grain_size, descriptor_offset, descriptor_size;
    uint32_t gtes_per_gt;
    uint64_t rgd_offset, gd_offset, overhead;
    uint8_t unclean_shutdown;
    char newline_test[4]; /* "\n \r\n": shows a transfer as text */
    uint16_t compression; /* 1: RFC 1951 deflate in a zlib stream */
    uint8_t pad[433];
} __attribute__((packed));
_Static_assert(sizeof(struct vmdk_header) == 512, "a VMDK header is one sector");

/* streamOptimized: what precedes everything after the descriptor. With `size` it is a grain,
 * `value` its first sector; without, `value` is how many sectors of metadata follow. */
struct vmdk_marker {
    uint64_t value;
    uint32_t size, type;
} __attribute__((packed));
#define VMDK_GRAIN_MARKER                                                                          \
    12 /* bytes of a grain's marker; the data stands in the place of `type`                        \
        */

enum vmdk_marker_type { VMDK_MARK_EOS, VMDK_MARK_GT, VMDK_MARK_GD, VMDK_MARK_FOOTER };

#endif
