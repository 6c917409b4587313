/*
 * VMDK images. One file a concern: vmdk_descriptor.c the text, vmdk_sparse.c the tables of a sparse
 * extent, vmdk_grain.c transfers and allocation, vmdk_compress.c compressed grains, vmdk.c an image
 * of extents and its parents, vmdk_create.c, vmdk_check.c.
 *
 * Writing order. What the guest writes goes to the host file at once; a new grain's table entry is
 * kept in memory until a flush, which syncs the data, writes the grain tables, syncs, and writes
 * the redundant tables (which the next sync covers). So an entry on the host's disk never points at
 * data that is not there, and of a table and its copy one is always whole.
 */
#ifndef TRIVISOR_DISK_VMDK_H
#define TRIVISOR_DISK_VMDK_H

#include <pthread.h>
#include <stdatomic.h>

#include "disk/image.h"
#include "disk/vmdk_format.h"

enum vmdk_extent_kind { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO };

/* One line of a descriptor's extent list. */
struct vmdk_extent_line {
    char access[12], type[12];
    uint64_t sectors, offset;
    char *file; /* NULL for ZERO */
};

struct vmdk_descriptor {
    uint32_t version, cid, parent_cid;
    char create_type[40], adapter[20];
    char *parent_hint; /* NULL: none */
    struct vmdk_extent_line *lines;
    unsigned line_count;
    char *text;          /* as it is in the file, NUL-terminated */
    size_t cid_at;       /* where in the text the CID's digits start */
    unsigned cid_digits; /* how many there are */
};

/* Parse `text` (taken over). `path` and `base`, the text's offset in that file, are for messages.
 */
int vmdk_descriptor_parse(struct vmdk_descriptor *d, char *text, const char *path, uint64_t base,
                          struct tv_error *err);
void vmdk_descriptor_free(struct vmdk_descriptor *d);
/* The text with `key` (at the start of a line) set to `value`, added below the version where it is
 * missing, removed where `value` is NULL. The caller's; NULL: out of memory. */
char *vmdk_descriptor_set(const char *text, const char *key, const char *value);
uint32_t vmdk_new_cid(void);

struct grain_table {
    struct grain_table *next_dirty;
    uint32_t index; /* in the grain directory */
    bool dirty;     /* on the extent's list */
    bool placed;    /* got its place in the file lately: the directory on disk does not have it */
    _Atomic uint32_t entries[];
};

/* Grains that somebody is allocating. */
struct grain_claim {
    uint64_t first, last;
    struct grain_claim *next;
};

struct vmdk_extent {
    enum vmdk_extent_kind kind;
    bool writable;
    uint64_t start, length; /* bytes of the disk */
    struct host_file file;
    uint64_t file_offset; /* flat: where it begins */

    /* sparse */
    struct vmdk_header header;
    uint64_t header_offset; /* of the header in force: the first, or a footer */
    uint64_t grain;         /* bytes */
    uint64_t grains;
    uint32_t gtes, tables_count;
    uint32_t *gd, *rgd; /* rgd: NULL if there is none */
    _Atomic(struct grain_table *) *tables;
    pthread_mutex_t lock; /* guards what follows, table loads and `dirty` of tables */
    pthread_cond_t claim_ended;
    struct grain_claim *claims;
    struct grain_table *dirty;
    uint64_t next_grain; /* offset in the file where the next new grain goes */
    uint64_t file_end;   /* how long the file is; it grows ahead of next_grain */
    bool unclean;        /* the header says so */
    pthread_mutex_t flush_lock;
    struct grain_cache *cache; /* of compressed grains */
};

struct vmdk {
    struct image image;
    struct vmdk_descriptor descriptor;
    struct host_file file;      /* the descriptor's, where it has one of its own */
    uint64_t descriptor_offset; /* in that file, or in the extent's */
    uint64_t descriptor_room;   /* bytes; 0: no limit */
    bool embedded;
    struct vmdk_extent *extents;
    unsigned extent_count;
    _Atomic bool changed; /* the CID was changed */
    _Atomic int failed; /* a sync failed: what was written may be lost, so every later one fails */
    pthread_mutex_t lock; /* the first change */
};

struct image *vmdk_open(const char *path, const struct disk_options *options, unsigned depth,
                        struct tv_error *err);
struct vmdk *vmdk_of(struct image *image); /* NULL if it is of another format */
/* The path of a file named in `base`. The caller's. */
char *vmdk_path_beside(const char *base, const char *name);
/* Replace the descriptor's text (taken over) on disk and in memory. */
int vmdk_descriptor_store(struct vmdk *vmdk, char *text, struct tv_error *err);

/* vmdk_sparse.c. `lenient`: go on where directory entries are bad (check does). */
int sparse_open(struct vmdk_extent *extent, bool lenient, struct tv_error *err);
void sparse_close(struct vmdk_extent *extent);
int sparse_header_read(const struct host_file *file, uint64_t offset, struct vmdk_header *header,
                       struct tv_error *err);
/* 0 and the entry of a grain; or EIO where the table is damaged. */
int sparse_lookup(struct vmdk_extent *extent, uint64_t grain, uint32_t *entry);
/* As sparse_lookup where the table is in memory already; never waits. */
bool sparse_peek(struct vmdk_extent *extent, uint64_t grain, uint32_t *entry);
/* Set `count` entries from `grain` on, each `step` more than the one before. */
int sparse_set(struct vmdk_extent *extent, uint64_t grain, uint64_t count, uint32_t entry,
               uint32_t step);
/* Room for `count` grains at the end of the file; how many there was room for, and where. */
int sparse_allocate(struct vmdk_extent *extent, uint64_t count, uint64_t *offset);
int sparse_flush(struct vmdk_extent *extent);
/* After a crash: look at every table, and make the redundant ones the same. */
int sparse_recover(struct vmdk_extent *extent, struct tv_error *err);
/* Everything to disk, the file cut to its real end, and the header marked as clean. */
int sparse_finish(struct vmdk_extent *extent);
/* More room on disk. The extent must be opened anew to use it. */
int sparse_grow(struct vmdk_extent *extent, uint64_t sectors, struct tv_error *err);
bool sparse_entry_valid(const struct vmdk_extent *extent, uint32_t entry);

/* vmdk_grain.c: `offset` counts from the extent's start. */
int sparse_read(struct vmdk *vmdk, struct vmdk_extent *extent, uint64_t offset,
                struct iov_cursor *cursor, uint64_t length);
/* `cursor` NULL: zeroes. */
int sparse_write(struct vmdk *vmdk, struct vmdk_extent *extent, uint64_t offset,
                 struct iov_cursor *cursor, uint64_t length);
int sparse_zero(struct vmdk *vmdk, struct vmdk_extent *extent, uint64_t offset, uint64_t length,
                bool discard);
int sparse_map(struct vmdk *vmdk, struct vmdk_extent *extent, uint64_t offset, uint64_t length,
               struct image_range *range);
/* Read what lies under an image: its parent, or zeroes. `offset` is the disk's. */
int vmdk_read_parent(struct vmdk *vmdk, uint64_t offset, struct iov_cursor *cursor,
                     uint64_t length);

/* vmdk_compress.c */
int compressed_read(struct vmdk_extent *extent, uint64_t grain, uint32_t entry, uint64_t within,
                    struct iov_cursor *cursor, uint64_t length);
/* Unpack one grain into `out` (extent->grain bytes). */
int compressed_unpack(struct vmdk_extent *extent, uint64_t grain, uint32_t entry, void *out);
void compressed_close(struct vmdk_extent *extent);

/* vmdk_create.c */
struct vmdk_create {
    const char *type; /* createType; NULL: monolithicSparse */
    uint64_t size;    /* bytes */
    const char *adapter;
    const char *parent; /* the image that it is a snapshot of; NULL: none */
    bool zeroed_grains; /* format version 2 */
    bool preallocate;   /* flat: take the space now */
    bool overwrite;
    const struct file_trace *trace;
};
extern const char *const vmdk_types[]; /* NULL-terminated */
int vmdk_create(const char *path, const struct vmdk_create *create, struct tv_error *err);
/* Write a streamOptimized image with the contents of `from`. */
int vmdk_write_stream(const char *path, const struct vmdk_create *create, struct image *from,
                      void (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                      struct tv_error *err);

/* vmdk_check.c */
struct vmdk_check {
    bool repair;
    void (*report)(void *opaque, const char *message);
    void *opaque;
    /* Results. `notes` are what an image shows that was not closed, and is sound all the same. */
    uint64_t errors, repaired, notes, leaked, allocated, grains;
};
/* -1 with `err` where the image cannot even be looked at. */
int vmdk_check(const char *path, struct vmdk_check *check, struct tv_error *err);

#endif
