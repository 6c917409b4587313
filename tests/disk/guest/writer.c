/*
 * What a guest does to its disks while the power may go: it writes blocks that tell their place and
 * a number, flushes now and then, and says on the console which numbers are acknowledged.
 *
 *   writer SEED SECONDS CONTROLLER...    a process for each disk, by its place in /sys
 *   writer fill CONTROLLER               write to the disk's end, as fast as it takes it, then read
 *   writer errors CONTROLLER             wait until requests fail and tell how, wait until they
 * work
 *
 * "A DISK N": all writes up to N; "F DISK N": write N by itself (it was synchronous). The blocks of
 * write N follow from SEED, DISK and N (choose()), so that the host knows them too.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK     4096
#define COUNT_MAX 16

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Where write `n` goes and how long it is, in blocks; whether it is synchronous, or a flush
 * follows.
 */
struct choice {
    uint64_t block;
    unsigned count;
    int sync, flush;
};

static struct choice choose(uint64_t seed, unsigned disk, uint32_t n, uint64_t blocks)
{
    uint64_t r = mix((seed << 8 | disk) * 0x9e3779b97f4a7c15u + n);
    struct choice c = {.block = (r >> 16) % blocks};
    c.count = r & 1 ? 1 : 1 + (unsigned)(r >> 1) % COUNT_MAX;
    if (c.count > blocks - c.block)
        c.count = (unsigned)(blocks - c.block);
    c.sync = (r >> 5) % 16 == 0;
    c.flush = (r >> 9) % 8 == 0;
    return c;
}

/* The first disk whose path in /sys goes through the driver `controller`. */
static int open_disk(const char *controller, int flags)
{
    for (unsigned attempt = 0; attempt < 100; attempt++) {
        DIR *dir = opendir("/sys/block");
        struct dirent *e;
        while (dir && (e = readdir(dir))) {
            char link[PATH_MAX], path[600];
            snprintf(path, sizeof path, "/sys/block/%s", e->d_name);
            ssize_t n = readlink(path, link, sizeof link - 1);
            link[n > 0 ? n : 0] = 0;
            if (strstr(link, controller)) {
                snprintf(path, sizeof path, "/dev/%s", e->d_name);
                int fd = open(path, flags);
                if (fd >= 0) {
                    closedir(dir);
                    return fd;
                }
            }
        }
        if (dir)
            closedir(dir);
        usleep(50000);
    }
    printf("FAILED no disk at %s\n", controller);
    exit(1);
}

static void say(const char *what, unsigned disk, uint32_t n)
{
    char line[40];
    int length = snprintf(line, sizeof line, "%s %u %u\n", what, disk, n);
    if (write(STDOUT_FILENO, line, (size_t)length) != length)
        _exit(1);
}

static void fail(unsigned disk, const char *what)
{
    printf("FAILED disk %u: %s: %s\n", disk, what, strerror(errno));
    exit(1);
}

static void work(uint64_t seed, unsigned disk, const char *controller, unsigned seconds)
{
    static char data[COUNT_MAX * BLOCK] __attribute__((aligned(BLOCK)));
    /* Through the guest's page cache and past it. */
    int fd = open_disk(controller, O_RDWR | (mix(seed + disk) & 1 ? O_DIRECT : 0));
    uint64_t size;
    if (ioctl(fd, BLKGETSIZE64, &size) != 0)
        fail(disk, "size");
    time_t end = time(NULL) + seconds;
    for (uint32_t n = 1; time(NULL) < end; n++) {
        struct choice c = choose(seed, disk, n, size / BLOCK);
        for (unsigned i = 0; i < c.count * BLOCK; i += 16) {
            uint64_t words[2] = {(c.block + i / BLOCK) << 32 | n, seed};
            memcpy(data + i, words, 16);
        }
        struct iovec iov = {data, c.count * BLOCK};
        if (pwritev2(fd, &iov, 1, (off_t)(c.block * BLOCK), c.sync ? RWF_DSYNC : 0) !=
            (ssize_t)iov.iov_len)
            fail(disk, "write");
        if (c.sync)
            say("F", disk, n);
        if (c.flush) {
            if (fdatasync(fd) != 0)
                fail(disk, "flush");
            say("A", disk, n);
        }
    }
}

/* Write all of the disk, flush, read it back; errors are counted. */
static void fill(const char *controller)
{
    static char data[COUNT_MAX * BLOCK] __attribute__((aligned(BLOCK)));
    static char back[COUNT_MAX * BLOCK] __attribute__((aligned(BLOCK)));
    int fd = open_disk(controller, O_RDWR | O_DIRECT);
    uint64_t size, at;
    unsigned bad_writes = 0, bad_flushes = 0, bad_reads = 0, different = 0;
    if (ioctl(fd, BLKGETSIZE64, &size) != 0)
        fail(0, "size");
    printf("FILL begins\n");
    fflush(stdout);
    sleep(1);
    for (at = 0; at + sizeof data <= size; at += sizeof data) {
        memset(data, (int)(1 + at / sizeof data % 255), sizeof data);
        bad_writes += pwrite(fd, data, sizeof data, (off_t)at) != sizeof data;
    }
    bad_flushes += fdatasync(fd) != 0;
    for (at = 0; at + sizeof data <= size; at += sizeof data) {
        memset(data, (int)(1 + at / sizeof data % 255), sizeof data);
        if (pread(fd, back, sizeof back, (off_t)at) != sizeof back)
            bad_reads++;
        else
            different += memcmp(data, back, sizeof data) != 0;
    }
    printf("FILL ends: %u writes, %u flushes, %u reads failed, %u different\n", bad_writes,
           bad_flushes, bad_reads, different);
}

static const char *result(int failed)
{
    static char numbers[8][16];
    static unsigned next;
    char *text = numbers[next++ % 8];
    if (!failed || errno == EIO)
        return failed ? "EIO" : "0";
    snprintf(text, sizeof numbers[0], "error %d", errno);
    return text;
}

/* One request of each kind. */
static void report(const char *when, int direct, int buffered)
{
    static char data[COUNT_MAX * BLOCK] __attribute__((aligned(BLOCK)));
    ssize_t size = sizeof data;
    const char *read = result(pread(direct, data, sizeof data, BLOCK) != size);
    const char *write = result(pwrite(direct, data, sizeof data, 1 << 20) != size);
    const char *flush = result(fdatasync(direct) != 0);
    const char *written = result(pwrite(buffered, data, BLOCK, 2 << 20) != BLOCK);
    const char *synced = result(fsync(buffered) != 0);
    const char *back = result(pread(buffered, data, BLOCK, 3 << 20) != BLOCK);
    printf("%s: read %s, write %s, flush %s, buffered write %s, fsync %s, buffered read %s\n", when,
           read, write, flush, written, synced, back);
    fflush(stdout);
}

static void wait_for_errors(int fd, int wanted)
{
    static char sector[BLOCK] __attribute__((aligned(BLOCK)));
    for (unsigned i = 0; i < 600 && (pread(fd, sector, BLOCK, 0) != BLOCK) != wanted; i++)
        usleep(50000);
}

static void errors(const char *controller)
{
    int direct = open_disk(controller, O_RDWR | O_DIRECT), buffered = open_disk(controller, O_RDWR);
    printf("ERRORS begin\n");
    fflush(stdout);
    wait_for_errors(direct, 1);
    report("ERRORS end", direct, buffered);
    wait_for_errors(direct, 0);
    report("RECOVERED", direct, buffered);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "errors") == 0) {
        errors(argv[2]);
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "fill") == 0) {
        fill(argv[2]);
        return 0;
    }
    if (argc < 4)
        return 2;
    for (int i = 3; i < argc; i++) {
        if (fork() == 0) {
            work(strtoull(argv[1], NULL, 0), (unsigned)(i - 3), argv[i], (unsigned)atoi(argv[2]));
            return 0;
        }
    }
    while (wait(NULL) > 0)
        ;
    return 0;
}
