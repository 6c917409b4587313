#include "disk/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk.h"
#include "util/error.h"
#include "util/util.h"

#define IOV_BATCH  256
#define ZERO_CHUNK (1u << 20)

static int lock(struct host_file *file, struct tv_error *err)
{
    struct flock range = {.l_type = file->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(file->fd, F_OFD_SETLK, &range) == 0)
        return 0;
    if (errno == EACCES || errno == EAGAIN)
        return tv_fail(err,
                       "%s: in use by another process; end it, or open the image read-only in both",
                       file->path);
    return 0; /* a file system without locks */
}

int file_open(struct host_file *file, const char *path, unsigned flags,
              const struct file_trace *trace, struct tv_error *err)
{
    *file = (struct host_file){.fd = -1, .trace = trace, .read_only = flags & FILE_READ_ONLY};
    /* O_NONBLOCK: a FIFO or a tape is refused below, not waited for. */
    int mode = (file->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    if (flags & FILE_REGULAR)
        mode |= O_NOFOLLOW;
    if (flags & FILE_CREATE)
        mode |= O_CREAT | (flags & FILE_OVERWRITE ? 0 : O_EXCL);
    file->fd = open(path, mode, 0666);
    if (file->fd < 0 && errno == ELOOP)
        return tv_fail(err, "%s: a symbolic link; an image's parts must be files", path);
    if (file->fd < 0)
        return tv_fail_errno(err, errno, "%s: cannot %s", path,
                             flags & FILE_CREATE ? "create" : "open");
    struct stat st;
    if (fstat(file->fd, &st) != 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) ||
        (S_ISBLK(st.st_mode) && flags & (FILE_REGULAR | FILE_CREATE))) {
        close(file->fd);
        return tv_fail(err, "%s: not a regular file%s", path,
                       flags & (FILE_REGULAR | FILE_CREATE) ? "" : " or block device");
    }
    file->block_device = S_ISBLK(st.st_mode);
    file->path = strdup(path);
    if (!file->path) {
        close(file->fd);
        return tv_fail(err, "%s: out of memory", path);
    }
    if (!(flags & FILE_NO_LOCK) && lock(file, err) != 0) {
        file_close(file);
        return -1;
    }
    if (flags & FILE_OVERWRITE && file_truncate(file, 0) != 0) {
        tv_fail_errno(err, errno, "%s: cannot overwrite", path);
        file_close(file);
        return -1;
    }
    return 0;
}

void file_close(struct host_file *file)
{
    if (file->path && file->fd >= 0)
        close(file->fd);
    free(file->path);
    *file = (struct host_file){.fd = -1};
}

int file_size(const struct host_file *file, uint64_t *size)
{
    if (file->block_device)
        return ioctl(file->fd, BLKGETSIZE64, size) == 0 ? 0 : errno;
    struct stat st;
    if (fstat(file->fd, &st) != 0)
        return errno;
    *size = (uint64_t)st.st_size;
    return 0;
}

int file_readv(const struct host_file *file, struct iov_cursor *cursor, uint64_t length,
               uint64_t offset)
{
    struct iovec iov[IOV_BATCH];
    while (length) {
        uint64_t bytes;
        unsigned n = iov_slice(cursor, iov, IOV_BATCH, length, &bytes);
        if (!n)
            return EINVAL;
        ssize_t got = preadv(file->fd, iov, (int)n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        if (got == 0) { /* the end */
            if (length >= DISK_SECTOR && !file->zeroes_beyond)
                return EIO;
            iov_put(cursor, NULL, length);
            return 0;
        }
        iov_advance(cursor, (uint64_t)got);
        length -= (uint64_t)got;
        offset += (uint64_t)got;
    }
    return 0;
}

int file_writev(const struct host_file *file, struct iov_cursor *cursor, uint64_t length,
                uint64_t offset)
{
    struct iovec iov[IOV_BATCH];
    while (length) {
        uint64_t bytes;
        unsigned n = iov_slice(cursor, iov, IOV_BATCH, length, &bytes);
        if (!n)
            return EINVAL;
        if (file->trace) {
            uint64_t at = offset;
            for (unsigned i = 0; i < n; at += iov[i].iov_len, i++)
                file->trace->wrote(file->trace->opaque, file->path, at, iov[i].iov_base,
                                   iov[i].iov_len);
        }
        ssize_t put = pwritev(file->fd, iov, (int)n, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno == EDQUOT || errno == EFBIG ? ENOSPC : errno;
        if (put == 0)
            return EIO;
        iov_advance(cursor, (uint64_t)put);
        length -= (uint64_t)put;
        offset += (uint64_t)put;
    }
    return 0;
}

int file_read(const struct host_file *file, void *data, size_t length, uint64_t offset)
{
    struct iovec iov = {.iov_base = data, .iov_len = length};
    struct iov_cursor cursor = iov_start(&iov, 1);
    return file_readv(file, &cursor, length, offset);
}

int file_write(const struct host_file *file, const void *data, size_t length, uint64_t offset)
{
    struct iovec iov = {.iov_base = (void *)data, .iov_len = length};
    struct iov_cursor cursor = iov_start(&iov, 1);
    return file_writev(file, &cursor, length, offset);
}

int file_sync(const struct host_file *file)
{
    if (file->trace)
        file->trace->synced(file->trace->opaque, file->path);
    while (fdatasync(file->fd) != 0) {
        if (errno != EINTR)
            return errno;
    }
    return 0;
}

int file_truncate(const struct host_file *file, uint64_t size)
{
    if (file->trace)
        file->trace->truncated(file->trace->opaque, file->path, size);
    if (ftruncate(file->fd, (off_t)size) == 0)
        return 0;
    return errno == EDQUOT || errno == EFBIG ? ENOSPC : errno;
}

static int punch(const struct host_file *file, uint64_t offset, uint64_t length)
{
    if (file->trace)
        file->trace->punched(file->trace->opaque, file->path, offset, length);
    return fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                     (off_t)length) == 0
               ? 0
               : errno;
}

int file_zero(const struct host_file *file, uint64_t offset, uint64_t length)
{
    if (!length)
        return 0;
    int error = punch(file, offset, length);
    if (error != EOPNOTSUPP && error != ENOSYS && error != EINVAL)
        return error;
    char *zeroes = calloc(1, ZERO_CHUNK);
    if (!zeroes)
        return ENOMEM;
    for (error = 0; length && !error;) {
        size_t n = (size_t)MIN(length, (uint64_t)ZERO_CHUNK);
        error = file_write(file, zeroes, n, offset);
        offset += n;
        length -= n;
    }
    free(zeroes);
    return error;
}

int file_discard(const struct host_file *file, uint64_t offset, uint64_t length)
{
    if (!length)
        return 0;
    int error = punch(file, offset, length);
    return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL ? 0 : error;
}

static uint64_t seek(const struct host_file *file, uint64_t offset, uint64_t end, int whence)
{
    off_t at = lseek(file->fd, (off_t)offset, whence);
    if (at < 0) /* ENXIO: nothing but a hole up to the end; others: cannot tell, so all is data */
        return errno == ENXIO || whence == SEEK_HOLE ? end : offset;
    return MIN((uint64_t)at, end);
}

uint64_t file_next_data(const struct host_file *file, uint64_t offset, uint64_t end)
{
    return file->block_device ? offset : seek(file, offset, end, SEEK_DATA);
}

uint64_t file_next_hole(const struct host_file *file, uint64_t offset, uint64_t end)
{
    if (file->block_device)
        return end;
    off_t at = lseek(file->fd, (off_t)offset, SEEK_HOLE);
    if (at < 0 && errno == ENXIO)
        return offset;
    return at < 0 ? end : MIN((uint64_t)at, end);
}

int file_sync_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *directory = slash == path ? strdup("/")
                      : slash       ? strndup(path, (size_t)(slash - path))
                                    : strdup(".");
    if (!directory)
        return ENOMEM;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = 0;
    free(directory);
    if (fd < 0)
        return errno;
    if (fsync(fd) != 0 && errno != EINVAL)
        error = errno;
    close(fd);
    return error;
}

uint8_t *file_read_all(const char *path, uint64_t min, uint64_t max, uint64_t *size,
                       struct tv_error *err)
{
    struct host_file file;
    if (file_open(&file, path, FILE_READ_ONLY | FILE_NO_LOCK, NULL, err) < 0)
        return NULL;
    uint8_t *data = NULL;
    int error = file_size(&file, size);
    if (!error && (*size < min || *size > max)) {
        tv_fail(err, "%s: a size of %llu bytes cannot be right", path, (unsigned long long)*size);
        file_close(&file);
        return NULL;
    }
    if (!error && !(data = malloc(*size + 1)))
        error = ENOMEM;
    if (!error)
        error = file_read(&file, data, *size, 0);
    file_close(&file);
    if (error) {
        tv_fail_errno(err, error, "%s: cannot read", path);
        free(data);
        return NULL;
    }
    return data;
}
