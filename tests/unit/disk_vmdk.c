/* VMDK through the disk layer: what is written is read, in every kind, alone and in chains, by many
 * requests at once; and what a power cut leaves behind. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "disk/tools.h"
#include "disk_sync.h"

#define SIZE (UINT64_C(96) << 20) /* three grain tables */

static char dir[64];
static struct tv_error err;
static uint64_t state = 1;

static uint64_t random64(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static const char *in_dir(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void clean(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/*", dir);
    CHECK(system(command) == 0);
}

static void sound(const char *path)
{
    struct vmdk_check check = {0};
    CHECK(vmdk_check(path, &check, &err) == 0);
    CHECK(check.errors == 0);
}

/* Random requests against a copy in memory. */
static void exercise(struct disk *disk, char *model, unsigned requests)
{
    static char buffer[1 << 20];
    for (unsigned i = 0; i < requests; i++) {
        uint64_t most = random64() % 4 ? 16 : sizeof buffer / 512;
        uint64_t n = (1 + random64() % most) * 512, at = random64() % (SIZE / 512) * 512;
        n = at + n > SIZE ? SIZE - at : n;
        switch (random64() % 8) {
        case 0:
            CHECK(disk_do(disk, DISK_WRITE_ZEROES, false, at, NULL, n) == 0);
            memset(model + at, 0, n);
            break;
        case 1:
            CHECK(disk_do(disk, DISK_FLUSH, false, 0, NULL, 0) == 0);
            break;
        case 2:
        case 3:
            CHECK(disk_do(disk, DISK_READ, false, at, buffer, n) == 0);
            CHECK(!memcmp(buffer, model + at, n));
            break;
        default:
            pattern_fill(buffer, at, n, i);
            CHECK(disk_do(disk, DISK_WRITE, random64() % 16 == 0, at, buffer, n) == 0);
            memcpy(model + at, buffer, n);
        }
    }
}

static void same(struct disk *disk, const char *model)
{
    static char buffer[1 << 20];
    unsigned wrong = 0;
    for (uint64_t at = 0; at < SIZE; at += sizeof buffer) {
        CHECK(disk_do(disk, DISK_READ, false, at, buffer, sizeof buffer) == 0);
        wrong += memcmp(buffer, model + at, sizeof buffer) != 0;
    }
    CHECK(wrong == 0);
}

static void test_kinds(char *model)
{
    for (const char *const *type = vmdk_types; *type; type++) {
        if (!strcmp(*type, "streamOptimized"))
            continue;
        const char *path = in_dir("kind.vmdk");
        struct vmdk_create create = {.type = *type, .size = SIZE};
        CHECK(vmdk_create(path, &create, &err) == 0);
        CHECK(vmdk_create(path, &create, &err) != 0); /* never over another */
        memset(model, 0, SIZE);
        for (int round = 0; round < 2; round++) {
            struct disk *disk =
                disk_open(path, &(struct disk_options){.threads_only = round}, &err);
            CHECK(disk && disk_size(disk) == SIZE);
            same(disk, model);
            exercise(disk, model, 80);
            same(disk, model);
            disk_close(disk);
            sound(path);
        }
        clean();
    }
}

static void test_chain(char *model, bool zeroed)
{
    struct vmdk_create create = {.size = SIZE};
    CHECK(vmdk_create(in_dir("base.vmdk"), &create, &err) == 0);
    memset(model, 0, SIZE);
    struct disk *disk = disk_open(in_dir("base.vmdk"), NULL, &err);
    exercise(disk, model, 80);
    disk_close(disk);
    create = (struct vmdk_create){.parent = in_dir("base.vmdk"), .zeroed_grains = zeroed};
    CHECK(vmdk_create(in_dir("one.vmdk"), &create, &err) == 0);
    disk = disk_open(in_dir("one.vmdk"), NULL, &err);
    same(disk, model);
    exercise(disk, model, 80);
    disk_close(disk);
    create.parent = in_dir("one.vmdk");
    CHECK(vmdk_create(in_dir("two.vmdk"), &create, &err) == 0);
    disk = disk_open(in_dir("two.vmdk"), NULL, &err);
    exercise(disk, model, 80);
    same(disk, model);
    disk_close(disk);
    sound(in_dir("two.vmdk"));
    CHECK(disk_commit(in_dir("two.vmdk"), NULL, NULL, &err) == 0);
    disk = disk_open(in_dir("one.vmdk"), &(struct disk_options){.snapshot = true}, &err);
    same(disk, model);
    char *copy = malloc(SIZE);
    memcpy(copy, model, SIZE);
    exercise(disk, copy, 80); /* into a temporary overlay */
    same(disk, copy);
    disk_close(disk);
    free(copy);
    disk = disk_open(in_dir("one.vmdk"), NULL, &err);
    same(disk, model);
    disk_close(disk);
    /* A write to the base cuts off what stands on it. */
    disk = disk_open(in_dir("base.vmdk"), NULL, &err);
    CHECK(disk_do(disk, DISK_WRITE, false, 0, model, 512) == 0);
    CHECK(!disk_open(in_dir("base.vmdk"), NULL, &err) && strstr(err.message, "in use"));
    disk_close(disk);
    CHECK(!disk_open(in_dir("one.vmdk"), NULL, &err) && strstr(err.message, "CID"));
    clean();
}

/* Requests side by side, of which many allocate the same grains. */
enum { DEPTH = 32 };
static void test_parallel(char *model)
{
    static struct disk_sync many[DEPTH];
    static struct iovec iov[DEPTH];
    struct vmdk_create create = {.size = SIZE};
    CHECK(vmdk_create(in_dir("base.vmdk"), &create, &err) == 0);
    create.parent = in_dir("base.vmdk");
    CHECK(vmdk_create(in_dir("parallel.vmdk"), &create, &err) == 0);
    struct disk *disk = disk_open(in_dir("parallel.vmdk"), NULL, &err);
    pattern_fill(model, 0, SIZE, 5);
    for (uint64_t round = 0; round < 60; round++) {
        for (unsigned i = 0; i < DEPTH; i++) {
            uint64_t at = (round * DEPTH + i) * 20 * 512;
            iov[i] = (struct iovec){model + at, 20 * 512};
            many[i] = (struct disk_sync){.request = {.op = DISK_WRITE,
                                                     .offset = at,
                                                     .length = 20 * 512,
                                                     .iov = &iov[i],
                                                     .iov_count = 1,
                                                     .done = disk_sync_done,
                                                     .opaque = &many[i]},
                                         .lock = PTHREAD_MUTEX_INITIALIZER,
                                         .cond = PTHREAD_COND_INITIALIZER};
            disk_submit(disk, &many[i].request);
        }
        disk_drain(disk);
        for (unsigned i = 0; i < DEPTH; i++)
            CHECK(many[i].finished && !many[i].error);
    }
    uint64_t written = UINT64_C(60) * DEPTH * 20 * 512;
    memset(model + written, 0, SIZE - written);
    same(disk, model);
    disk_close(disk);
    sound(in_dir("parallel.vmdk"));
    clean();
}

int main(void)
{
    snprintf(dir, sizeof dir, "/tmp/disk-vmdk-XXXXXX");
    CHECK(mkdtemp(dir));
    char *model = malloc(SIZE);
    test_kinds(model);
    test_chain(model, false);
    test_chain(model, true);
    test_parallel(model);
    free(model);
    rmdir(dir);
    return check_result();
}
