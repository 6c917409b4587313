/*
 * A host file that holds (part of) an image: a regular file, or a block device that the user named.
 * Transfers are whole or an error. Any number of threads may use a file at once.
 */
#ifndef TRIVISOR_DISK_FILE_H
#define TRIVISOR_DISK_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <trivisor/trivisor.h>

#include "disk/iov.h"

/* Sees what goes to the host, in order, before it does; for tests that simulate a power cut. */
struct file_trace {
    void (*wrote)(void *opaque, const char *path, uint64_t offset, const void *data, size_t length);
    void (*truncated)(void *opaque, const char *path, uint64_t size);
    void (*punched)(void *opaque, const char *path, uint64_t offset, uint64_t length);
    void (*synced)(void *opaque, const char *path);
    void *opaque;
};

struct host_file {
    int fd;
    char *path;
    bool read_only, block_device;
    bool zeroes_beyond;             /* its end, all reads as zeroes */
    const struct file_trace *trace; /* NULL in ordinary use */
};

enum file_flags {
    FILE_READ_ONLY = 1,
    FILE_REGULAR = 2, /* no block device, and no symbolic link: a name that came out of an image */
    FILE_CREATE = 4,  /* must not exist yet */
    FILE_OVERWRITE = 8, /* with FILE_CREATE: may exist, is emptied */
    FILE_NO_LOCK = 16,
};

/*
 * Open or create. A file that is open for writing is locked against every other opener that locks
 * (we, QEMU), one open for reading against writers. Returns 0, or -1 with `err`.
 */
int file_open(struct host_file *file, const char *path, unsigned flags,
              const struct file_trace *trace, struct tv_error *err);
void file_close(struct host_file *file);

/* The rest return 0 or an errno value. */
int file_size(const struct host_file *file, uint64_t *size);
/* What lies behind the end within the file's last sector reads as zeroes, what lies beyond is EIO
 * without `zeroes_beyond`. */
int file_readv(const struct host_file *file, struct iov_cursor *cursor, uint64_t length,
               uint64_t offset);
int file_writev(const struct host_file *file, struct iov_cursor *cursor, uint64_t length,
                uint64_t offset);
int file_read(const struct host_file *file, void *data, size_t length, uint64_t offset);
int file_write(const struct host_file *file, const void *data, size_t length, uint64_t offset);
int file_sync(const struct host_file *file);
int file_truncate(const struct host_file *file, uint64_t size);
/* Make a range read as zeroes, giving its space back where the host can. Never changes the size. */
int file_zero(const struct host_file *file, uint64_t offset, uint64_t length);
/* Give space back where the host can; what the range reads as afterwards is zeroes or what it was.
 */
int file_discard(const struct host_file *file, uint64_t offset, uint64_t length);
/* Where the next byte of data, or of a hole, is from `offset` on; `end` if none before it. */
uint64_t file_next_data(const struct host_file *file, uint64_t offset, uint64_t end);
uint64_t file_next_hole(const struct host_file *file, uint64_t offset, uint64_t end);
/* fsync of the directory that a created file is in, so that its name survives a power cut too. */
int file_sync_directory(const char *path);

/* All of a file of `min` to `max` bytes, malloc'ed. NULL with `err` filled. */
uint8_t *file_read_all(const char *path, uint64_t min, uint64_t max, uint64_t *size,
                       struct tv_error *err);

#endif
