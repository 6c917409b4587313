/*
 * Formats that are not ours and disks elsewhere, through libnbd: a URI is connected to as it is;
 * for a file, a qemu-nbd of our own serves it on a socket that only we have. libnbd is loaded when
 * it is first needed, so that nothing depends on it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk/image.h"
#include "util/error.h"
#include "util/util.h"

#define TRANSFER (UINT64_C(4) << 20)

extern char **environ;

/* What we use of libnbd(3), whose ABI is stable. */
struct nbd_library {
    void *dl;
    void *(*create)(void);
    void (*close)(void *);
    const char *(*get_error)(void);
    int (*get_errno)(void);
    int (*connect_uri)(void *, const char *);
    int (*connect_systemd_socket_activation)(void *, char **);
    int64_t (*get_size)(void *);
    int (*is_read_only)(void *);
    int (*can_flush)(void *);
    int (*can_trim)(void *);
    int (*can_zero)(void *);
    int (*pread)(void *, void *, size_t, uint64_t, uint32_t);
    int (*pwrite)(void *, const void *, size_t, uint64_t, uint32_t);
    int (*flush)(void *, uint32_t);
    int (*trim)(void *, uint64_t, uint64_t, uint32_t);
    int (*zero)(void *, uint64_t, uint64_t, uint32_t);
};

struct nbd {
    struct image image;
    struct nbd_library lib;
    pthread_mutex_t lock; /* a connection's simple calls are one at a time */
    void *handle;
    bool can_flush, can_trim, can_zero;
};

static int library_load(struct nbd_library *lib, struct tv_error *err)
{
    const struct {
        const char *name;
        void *to;
    } symbols[] = {
        {"nbd_create", &lib->create},
        {"nbd_close", &lib->close},
        {"nbd_get_error", &lib->get_error},
        {"nbd_get_errno", &lib->get_errno},
        {"nbd_connect_uri", &lib->connect_uri},
        {"nbd_connect_systemd_socket_activation", &lib->connect_systemd_socket_activation},
        {"nbd_get_size", &lib->get_size},
        {"nbd_is_read_only", &lib->is_read_only},
        {"nbd_can_flush", &lib->can_flush},
        {"nbd_can_trim", &lib->can_trim},
        {"nbd_can_zero", &lib->can_zero},
        {"nbd_pread", &lib->pread},
        {"nbd_pwrite", &lib->pwrite},
        {"nbd_flush", &lib->flush},
        {"nbd_trim", &lib->trim},
        {"nbd_zero", &lib->zero},
    };
    lib->dl = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!lib->dl)
        return tv_fail(err, "images of this kind need libnbd; install the package libnbd0");
    for (size_t i = 0; i < ARRAY_SIZE(symbols); i++) {
        void *symbol = dlsym(lib->dl, symbols[i].name);
        if (!symbol)
            return tv_fail(err, "libnbd.so.0 has no %s; a newer version is needed",
                           symbols[i].name);
        memcpy(symbols[i].to, &symbol, sizeof symbol);
    }
    return 0;
}

/* With the lock. */
static int nbd_error(struct nbd *nbd)
{
    int error = nbd->lib.get_errno();
    return error == ENOSPC || error == EPERM || error == EROFS ? error : EIO;
}

static int nbd_read(struct image *image, uint64_t offset, struct iov_cursor *cursor,
                    uint64_t length)
{
    struct nbd *nbd = container_of(image, struct nbd, image);
    int error = 0;
    while (length && !error) {
        struct iovec iov;
        uint64_t n;
        if (!iov_slice(cursor, &iov, 1, MIN(length, TRANSFER), &n))
            return EINVAL;
        pthread_mutex_lock(&nbd->lock);
        if (nbd->lib.pread(nbd->handle, iov.iov_base, n, offset, 0) != 0)
            error = nbd_error(nbd);
        pthread_mutex_unlock(&nbd->lock);
        iov_advance(cursor, n);
        offset += n;
        length -= n;
    }
    return error;
}

static int nbd_write(struct image *image, uint64_t offset, struct iov_cursor *cursor,
                     uint64_t length)
{
    struct nbd *nbd = container_of(image, struct nbd, image);
    int error = 0;
    while (length && !error) {
        struct iovec iov;
        uint64_t n;
        if (!iov_slice(cursor, &iov, 1, MIN(length, TRANSFER), &n))
            return EINVAL;
        pthread_mutex_lock(&nbd->lock);
        if (nbd->lib.pwrite(nbd->handle, iov.iov_base, n, offset, 0) != 0)
            error = nbd_error(nbd);
        pthread_mutex_unlock(&nbd->lock);
        iov_advance(cursor, n);
        offset += n;
        length -= n;
    }
    return error;
}

static int nbd_zero(struct image *image, uint64_t offset, uint64_t length, bool discard)
{
    struct nbd *nbd = container_of(image, struct nbd, image);
    int error = 0;
    if (discard && !nbd->can_trim)
        return 0;
    char *zeroes = discard || nbd->can_zero ? NULL : calloc(1, TRANSFER);
    if (!zeroes && !discard && !nbd->can_zero)
        return ENOMEM;
    while (length && !error) {
        uint64_t n = MIN(length, zeroes ? TRANSFER : UINT64_C(1) << 30);
        pthread_mutex_lock(&nbd->lock);
        int failed = discard  ? nbd->lib.trim(nbd->handle, n, offset, 0)
                     : zeroes ? nbd->lib.pwrite(nbd->handle, zeroes, n, offset, 0)
                              : nbd->lib.zero(nbd->handle, n, offset, 0);
        if (failed)
            error = nbd_error(nbd);
        pthread_mutex_unlock(&nbd->lock);
        offset += n;
        length -= n;
    }
    free(zeroes);
    return error;
}

static int nbd_flush(struct image *image)
{
    struct nbd *nbd = container_of(image, struct nbd, image);
    int error = 0;
    if (!nbd->can_flush)
        return 0;
    pthread_mutex_lock(&nbd->lock);
    if (nbd->lib.flush(nbd->handle, 0) != 0)
        error = nbd_error(nbd);
    pthread_mutex_unlock(&nbd->lock);
    return error;
}

static int nbd_map(struct image *image, uint64_t offset, uint64_t length, struct image_range *range)
{
    *range = (struct image_range){.length = length, .data = true};
    return 0;
}

static void nbd_close(struct image *image)
{
    struct nbd *nbd = container_of(image, struct nbd, image);
    if (nbd->handle)
        nbd->lib.close(nbd->handle); /* ends the qemu-nbd too, and waits for it */
    if (nbd->lib.dl)
        dlclose(nbd->lib.dl);
    pthread_mutex_destroy(&nbd->lock);
    free(nbd);
}

static const struct image_ops nbd_ops = {.format = "nbd",
                                         .read = nbd_read,
                                         .write = nbd_write,
                                         .zero = nbd_zero,
                                         .flush = nbd_flush,
                                         .map = nbd_map,
                                         .close = nbd_close};

static bool in_path(const char *program)
{
    char file[4096];
    for (const char *p = getenv("PATH"); p && *p;) {
        const char *end = strchrnul(p, ':');
        snprintf(file, sizeof file, "%.*s/%s", (int)(end - p), p, program);
        if (access(file, X_OK) == 0)
            return true;
        p = *end ? end + 1 : end;
    }
    return false;
}

/* The name as an argument: one that starts with '-', or that looks like a protocol, is a file too.
 */
static char *file_argument(const char *path)
{
    char *argument = malloc(strlen(path) + 3);
    if (argument)
        sprintf(argument, "%s%s", *path == '/' ? "" : "./", path);
    return argument;
}

static int start_server(struct nbd *nbd, const char *path, const char *format, bool read_only,
                        struct tv_error *err)
{
    if (!in_path("qemu-nbd"))
        return tv_fail(err, "%s: a %s image needs qemu-nbd; install the package qemu-utils", path,
                       format);
    if (access(path, read_only ? R_OK : R_OK | W_OK) != 0)
        return tv_fail_errno(err, errno, "%s: cannot open", path);
    char *file = file_argument(path);
    char *argv[] = {"qemu-nbd",
                    "--format",
                    (char *)format,
                    "--persistent",
                    "--discard=unmap",
                    "--cache=writeback",
                    read_only ? "--read-only" : "--shared=1",
                    file,
                    NULL};
    int result = file && nbd->lib.connect_systemd_socket_activation(nbd->handle, argv) == 0
                     ? 0
                     : tv_fail(err, "%s: qemu-nbd cannot serve it as %s: %s", path, format,
                               file ? nbd->lib.get_error() : "out of memory");
    free(file);
    return result;
}

struct image *nbd_image_open(const char *path, const char *format,
                             const struct disk_options *options, struct tv_error *err)
{
    struct nbd *nbd = calloc(1, sizeof *nbd);
    if (!nbd) {
        tv_fail(err, "%s: out of memory", path);
        return NULL;
    }
    pthread_mutex_init(&nbd->lock, NULL);
    nbd->image.ops = &nbd_ops;
    static const char *const formats[] = {"qcow2", "vpc", "vdi", "vhdx", "qed"};
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        if (!strcmp(formats[i], format))
            nbd->image.format = formats[i];
    }
    nbd->image.read_only = options->read_only;
    int result = library_load(&nbd->lib, err);
    if (result == 0 && !(nbd->handle = nbd->lib.create()))
        result = tv_fail(err, "%s: %s", path, nbd->lib.get_error());
    if (result == 0 && image_is_uri(path)) {
        if (nbd->lib.connect_uri(nbd->handle, path) != 0)
            result = tv_fail(err, "%s: cannot connect: %s", path, nbd->lib.get_error());
    } else if (result == 0) {
        result = start_server(nbd, path, format, options->read_only, err);
    }
    int64_t size = result == 0 ? nbd->lib.get_size(nbd->handle) : 0;
    if (result == 0 && size < 0)
        result = tv_fail(err, "%s: %s", path, nbd->lib.get_error());
    if (result == 0 && !options->read_only && nbd->lib.is_read_only(nbd->handle) > 0)
        result = tv_fail(err, "%s: the server has it read-only; open it so", path);
    if (result != 0) {
        nbd_close(&nbd->image);
        return NULL;
    }
    nbd->image.size = ALIGN_DOWN((uint64_t)size, DISK_SECTOR);
    nbd->can_flush = nbd->lib.can_flush(nbd->handle) > 0;
    nbd->can_trim = nbd->lib.can_trim(nbd->handle) > 0;
    nbd->can_zero = nbd->lib.can_zero(nbd->handle) > 0;
    return &nbd->image;
}

int nbd_image_create(const char *path, const char *format, uint64_t size, bool overwrite,
                     struct tv_error *err)
{
    if (!in_path("qemu-img"))
        return tv_fail(err, "%s: a %s image needs qemu-img; install the package qemu-utils", path,
                       format);
    if (!overwrite && access(path, F_OK) == 0)
        return tv_fail(err, "%s: is there already", path);
    char *file = file_argument(path), bytes[24];
    if (!file)
        return tv_fail(err, "%s: out of memory", path);
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)size);
    char *argv[] = {"qemu-img", "create", "-q", "-f", (char *)format, file, bytes, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    pid_t pid;
    int status = -1;
    if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) == 0)
        waitpid(pid, &status, 0);
    posix_spawn_file_actions_destroy(&actions);
    free(file);
    return status == 0 ? 0
                       : tv_fail(err, "%s: qemu-img cannot create an image of format %s there",
                                 path, format);
}
