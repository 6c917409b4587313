/* The disk layer on raw images: transfers, flush, discard, errors, space running out. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "disk_sync.h"
#include "util/util.h"

static char dir[64], path[100];
static struct tv_error err;

static void make(uint64_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    close(fd);
}

static uint64_t file_length(const char *name)
{
    struct stat st;
    CHECK(stat(name, &st) == 0);
    return (uint64_t)st.st_size;
}

static void test_transfers(void)
{
    make(1 << 20);
    struct disk *disk = disk_open(path, NULL, &err);
    CHECK(disk && disk_size(disk) == 1 << 20 && !disk_read_only(disk));
    static char out[65536], in[65536];
    pattern_fill(out, 4096, sizeof out, 1);
    CHECK(disk_do(disk, DISK_WRITE, false, 4096, out, sizeof out) == 0);
    CHECK(disk_do(disk, DISK_READ, false, 4096, in, sizeof in) == 0 && !memcmp(in, out, sizeof in));
    CHECK(disk_do(disk, DISK_WRITE, true, 512, out, 512) == 0);
    CHECK(disk_do(disk, DISK_FLUSH, false, 0, NULL, 0) == 0);
    CHECK(disk_do(disk, DISK_WRITE_ZEROES, false, 8192, NULL, 4096) == 0);
    CHECK(disk_do(disk, DISK_READ, false, 4096, in, sizeof in) == 0);
    CHECK(!memcmp(in, out, 4096) && !memcmp(in + 8192, out + 8192, 4096));
    CHECK(in[4096] == 0 && !memcmp(in + 4096, in + 4097, 4095));
    CHECK(disk_do(disk, DISK_DISCARD, false, 0, NULL, 1 << 20) == 0);
    CHECK(disk_do(disk, DISK_READ, false, 4096, in, 512) == 0 && in[0] == 0);

    CHECK(disk_do(disk, DISK_READ, false, 1 << 20, in, 512) == EINVAL);
    CHECK(disk_do(disk, DISK_READ, false, (1 << 20) - 512, in, 1024) == EINVAL);
    CHECK(disk_do(disk, DISK_READ, false, UINT64_MAX - 511, in, 1024) == EINVAL);
    CHECK(disk_do(disk, DISK_READ, false, 256, in, 512) == EINVAL);
    CHECK(disk_do(disk, DISK_WRITE, false, 512, in, 100) == EINVAL);

    /* A guest must not turn a file that was guessed to be raw into something else. */
    memcpy(out, "QFI\xfb", 4);
    CHECK(disk_do(disk, DISK_WRITE, false, 0, out, 512) == EPERM);
    disk_close(disk);
    disk = disk_open(path, &(struct disk_options){.format = "raw"}, &err);
    CHECK(disk_do(disk, DISK_WRITE, false, 0, out, 512) == 0);
    disk_close(disk);
    disk_close(NULL);
}

static void test_open(void)
{
    CHECK(!disk_open("/nonexistent/x", NULL, &err) && strstr(err.message, "/nonexistent/x"));
    CHECK(!disk_open("/dev/null", NULL, &err) && strstr(err.message, "not a regular file"));
    CHECK(!disk_open(dir, NULL, &err));
    unlink(path);
    CHECK(mkfifo(path, 0666) == 0);
    CHECK(!disk_open(path, NULL, &err) && strstr(err.message, "not a regular file"));
    unlink(path);

    make(1000); /* rounded up */
    struct disk *disk = disk_open(path, &(struct disk_options){.read_only = true}, &err);
    char sector[512] = {1};
    CHECK(disk && disk_size(disk) == 1024 && disk_read_only(disk));
    CHECK(disk_do(disk, DISK_READ, false, 512, sector, 512) == 0 && !sector[0]);
    CHECK(disk_do(disk, DISK_WRITE, false, 512, sector, 512) == EROFS);
    CHECK(disk_do(disk, DISK_FLUSH, false, 0, NULL, 0) == 0);
    CHECK(!disk_open(path, NULL, &err) && strstr(err.message, "in use"));
    struct disk *second = disk_open(path, &(struct disk_options){.read_only = true}, &err);
    CHECK(second);
    disk_close(second);
    disk_close(disk);

    /* A short image of something longer; it grows when it must. */
    static char all[4096];
    disk = disk_open(path, &(struct disk_options){.at_least = sizeof all, .format = "raw"}, &err);
    CHECK(disk && disk_size(disk) == sizeof all);
    memset(all, 1, sizeof all);
    CHECK(disk_do(disk, DISK_READ, false, 0, all, sizeof all) == 0 && !memchr(all, 1, sizeof all));
    memset(sector, 2, sizeof sector);
    CHECK(file_length(path) == 1000);
    CHECK(disk_do(disk, DISK_WRITE, false, 2048, sector, sizeof sector) == 0);
    CHECK(file_length(path) == 2560);
    CHECK(disk_do(disk, DISK_READ, false, 1536, all, 2048) == 0 && !all[511] && all[512] == 2 &&
          all[1023] == 2 && !all[1024]);
    disk_close(disk);
    disk = disk_open(
        path, &(struct disk_options){.at_least = sizeof all, .read_only = true, .format = "raw"},
        &err);
    CHECK(disk && disk_do(disk, DISK_READ, false, 3584, all, 512) == 0 && !all[0] && !all[511]);
    disk_close(disk);
}

/* Many requests at once, each of many pieces. */
enum { DEPTH = 64, PIECES = 300 };
static struct disk_sync many[DEPTH];
static struct iovec pieces[DEPTH][PIECES];

static void many_submit(struct disk *disk, enum disk_op op, char *data)
{
    for (int i = 0; i < DEPTH; i++) {
        for (int j = 0; j < PIECES; j++)
            pieces[i][j] = (struct iovec){data + (i * PIECES + j) * 512, 512};
        many[i] = (struct disk_sync){.request = {.op = op,
                                                 .offset = (uint64_t)i * PIECES * 512,
                                                 .length = PIECES * 512,
                                                 .iov = pieces[i],
                                                 .iov_count = PIECES,
                                                 .done = disk_sync_done,
                                                 .opaque = &many[i]},
                                     .lock = PTHREAD_MUTEX_INITIALIZER,
                                     .cond = PTHREAD_COND_INITIALIZER};
        disk_submit(disk, &many[i].request);
    }
    disk_drain(disk);
    for (int i = 0; i < DEPTH; i++)
        CHECK(many[i].finished && many[i].error == 0);
}

static void test_many(void)
{
    size_t size = (size_t)DEPTH * PIECES * 512;
    char *out = malloc(size), *in = malloc(size);
    make(size);
    struct disk *disk = disk_open(path, NULL, &err);
    pattern_fill(out, 0, size, 7);
    many_submit(disk, DISK_WRITE, out);
    many_submit(disk, DISK_READ, in);
    CHECK(!memcmp(in, out, size));
    disk_close(disk);
    free(out);
    free(in);
}

enum { LARGE = 1 << 20, HELD = 12 };
static pthread_mutex_t hold = PTHREAD_MUTEX_INITIALIZER;
static struct disk_sync held[HELD];

static void held_done(struct disk_request *request, int error)
{
    pthread_mutex_lock(&hold);
    pthread_mutex_unlock(&hold);
    disk_sync_done(request, error);
}

static struct disk_request large(enum disk_op op, uint64_t offset, struct iovec *iov, bool alone)
{
    return (struct disk_request){
        .op = op, .alone = alone, .offset = offset, .length = LARGE, .iov = iov, .iov_count = 1};
}

/* Large requests are the threads', unless there is but one, or reads that the threads cannot get
 * to. */
static void test_large(void)
{
    char *data = malloc(LARGE), *back = malloc(LARGE * HELD);
    struct iovec iov = {data, LARGE}, to = {back, LARGE}, parts[HELD];
    make(LARGE * HELD);
    struct disk *disk = disk_open(path, NULL, &err);
    for (int i = 0; i < HELD; i++) {
        pattern_fill(data, (uint64_t)i * LARGE, LARGE, 3);
        CHECK(disk_do(disk, DISK_WRITE, false, (uint64_t)i * LARGE, data, LARGE) == 0);
    }
    struct disk_request read = large(DISK_READ, 3 * LARGE, &to, false);
    struct disk_request read_alone = large(DISK_READ, 2 * LARGE, &to, true);
    struct disk_request write = large(DISK_WRITE, 2 * LARGE, &iov, false);
    CHECK(!disk_try(disk, &read) && !disk_try(disk, &write));
    if (disk_try(disk, &read_alone)) { /* else the file system always waits */
        pattern_fill(data, 2 * LARGE, LARGE, 3);
        CHECK(!memcmp(back, data, LARGE));
        pthread_mutex_lock(&hold);
        for (int i = 0; i < HELD; i++) {
            parts[i] = (struct iovec){back + (size_t)i * LARGE, LARGE};
            held[i] = (struct disk_sync){
                .request = large(DISK_READ, (uint64_t)i * LARGE, &parts[i], false),
                .lock = PTHREAD_MUTEX_INITIALIZER,
                .cond = PTHREAD_COND_INITIALIZER};
            held[i].request.done = held_done;
            held[i].request.opaque = &held[i];
            disk_submit(disk, &held[i].request);
        }
        pattern_fill(data, 3 * LARGE, LARGE, 3);
        to.iov_base = malloc(LARGE);
        CHECK(disk_try(disk, &read) && !memcmp(to.iov_base, data, LARGE));
        CHECK(!disk_try(disk, &write));
        free(to.iov_base);
        pthread_mutex_unlock(&hold);
        disk_drain(disk);
        for (int i = 0; i < HELD; i++) {
            pattern_fill(data, (uint64_t)i * LARGE, LARGE, 3);
            CHECK(held[i].finished && !held[i].error &&
                  !memcmp(back + (size_t)i * LARGE, data, LARGE));
        }
    }
    disk_close(disk);
    free(data);
    free(back);
}

/* Of plain writes one at a time is done; all else goes on meanwhile, and what is queued is not
 * lost. */
static void test_mixed(void)
{
    enum { COUNT = 400, BYTES = 192 << 10 };
    static const enum disk_op ops[] = {DISK_WRITE, DISK_READ,  DISK_WRITE, DISK_FLUSH,
                                       DISK_WRITE, DISK_WRITE, DISK_READ,  DISK_WRITE_ZEROES};
    static struct disk_sync syncs[COUNT];
    static struct iovec iovs[COUNT];
    char *data = calloc(COUNT, BYTES);
    make((uint64_t)COUNT * BYTES);
    struct disk *disk = disk_open(path, NULL, &err);
    for (int i = 0; i < COUNT; i++) {
        enum disk_op op = ops[i % (int)ARRAY_SIZE(ops)];
        uint64_t offset = (uint64_t)i * BYTES;
        iovs[i] = (struct iovec){data + offset, BYTES};
        if (op == DISK_WRITE)
            pattern_fill(data + offset, offset, BYTES, 5);
        syncs[i] = (struct disk_sync){.request = {.op = op,
                                                  .fua = op == DISK_WRITE && i % 50 == 0,
                                                  .offset = op == DISK_FLUSH ? 0 : offset,
                                                  .length = op == DISK_FLUSH ? 0 : BYTES,
                                                  .iov = &iovs[i],
                                                  .iov_count = 1,
                                                  .done = disk_sync_done,
                                                  .opaque = &syncs[i]},
                                      .lock = PTHREAD_MUTEX_INITIALIZER,
                                      .cond = PTHREAD_COND_INITIALIZER};
        disk_submit(disk, &syncs[i].request);
    }
    disk_drain(disk);
    char *back = malloc(BYTES);
    for (int i = 0; i < COUNT; i++) {
        CHECK(syncs[i].finished && !syncs[i].error);
        CHECK(disk_do(disk, DISK_READ, false, (uint64_t)i * BYTES, back, BYTES) == 0);
        CHECK(!memcmp(back, data + (size_t)i * BYTES, BYTES));
    }
    disk_close(disk);
    free(back);
    free(data);
}

static _Atomic int no_space_calls;

static void on_no_space(void *opaque, const char *message)
{
    CHECK(strstr(message, path) && strstr(message, "no space"));
    no_space_calls++;
}

/* A limit of the file's size stands for a full host disk. */
static void test_no_space(void)
{
    static char data[4096] = {1}, in[4096];
    struct rlimit limit, small;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    small = (struct rlimit){.rlim_cur = 1 << 20, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    make(2 << 20);
    struct disk *disk = disk_open(path, NULL, &err);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK(disk_do(disk, DISK_WRITE, false, 1 << 20, data, sizeof data) == ENOSPC);
    CHECK(disk_do(disk, DISK_WRITE, false, 4096, data, sizeof data) == 0);
    disk_close(disk);

    /* Kept, and done when there is space again. */
    disk = disk_open(path, &(struct disk_options){.no_space = on_no_space}, &err);
    struct iovec iov = {.iov_base = data, .iov_len = sizeof data};
    struct disk_sync sync = {.request = {.op = DISK_WRITE,
                                         .offset = 1 << 20,
                                         .length = sizeof data,
                                         .iov = &iov,
                                         .iov_count = 1,
                                         .done = disk_sync_done},
                             .lock = PTHREAD_MUTEX_INITIALIZER,
                             .cond = PTHREAD_COND_INITIALIZER};
    sync.request.opaque = &sync;
    disk_submit(disk, &sync.request);
    disk_drain(disk);
    for (int i = 0; i < 500 && !no_space_calls; i++)
        usleep(10000);
    CHECK(no_space_calls == 1 && !sync.finished);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    disk_retry(disk);
    disk_drain(disk);
    CHECK(sync.finished && sync.error == 0);
    CHECK(disk_do(disk, DISK_READ, false, 1 << 20, in, sizeof in) == 0 && in[0] == 1);
    disk_close(disk);
}

int main(void)
{
    snprintf(dir, sizeof dir, "/tmp/disk-raw-XXXXXX");
    CHECK(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/image", dir);
    test_transfers();
    test_open();
    test_many();
    test_large();
    test_mixed();
    test_no_space();
    unlink(path);
    rmdir(dir);
    return check_result();
}
