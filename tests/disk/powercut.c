/*
 * What survives when the machine or the VMM goes down between two writes.
 *
 *   powercut kill ROUNDS [SEED]    a process that writes and flushes is killed at random
 *   powercut replay ROUNDS [SEED]  the writes of a run are recorded; for a point in the record,
 * what was synced before it is kept and of the rest any part, torn at sectors, as a power cut does
 *
 * Each block that is written carries its place and a number that grows. Afterwards every block must
 * have a number between that of the last acknowledged flush and that of the last write, and
 * `check` must find the image sound.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/disk_sync.h"
#include "disk/disk.h"
#include "disk/tools.h"

#define BLOCK  4096
#define BLOCKS 4096 /* 16 MiB */
#define SECTOR 512

/* Shared with the process that is killed. */
struct progress {
    uint32_t written[BLOCKS]; /* number of the last write that may have begun */
    uint32_t flushed[BLOCKS]; /* of the last that an acknowledged flush covers */
    uint32_t next;
};

static const struct kind {
    const char *name, *type; /* type NULL: raw */
    bool zeroed, child;
} kinds[] = {
    {"monolithicSparse", "monolithicSparse"},
    {"twoGbMaxExtentSparse", "twoGbMaxExtentSparse"},
    {"monolithicFlat", "monolithicFlat"},
    {"twoGbMaxExtentFlat", "twoGbMaxExtentFlat"},
    {"vmfs", "vmfs"},
    {"raw", NULL},
    {"version 2", "monolithicSparse", true, false},
    {"snapshot", "monolithicSparse", false, true},
    {"version 2 snapshot", "monolithicSparse", true, true},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static char dir[64], path[100], base[100];
static struct tv_error err;
static uint64_t state;
static bool have_qemu;

static uint64_t random64(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void die(const char *what, const char *detail)
{
    fprintf(stderr, "powercut: %s: %s (files in %s)\n", what, detail, dir);
    exit(1);
}

static void block_fill(char *data, uint32_t block, uint32_t number)
{
    for (unsigned i = 0; i < BLOCK; i += 8) {
        uint32_t word[2] = {block ^ 0x5a5a5a5a, number};
        memcpy(data + i, word, 8);
    }
}

static void clean(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/*", dir);
    if (system(command) != 0)
        die("cannot clean", dir);
}

static void create(const struct kind *kind)
{
    clean();
    struct vmdk_create c = {
        .type = kind->type, .size = (uint64_t)BLOCKS * BLOCK, .zeroed_grains = kind->zeroed};
    int result = 0;
    if (!kind->type)
        result = disk_create_raw(path, c.size, true, false, &err);
    if (kind->child) {
        result = vmdk_create(base, &c, &err);
        c.parent = base;
    }
    if (result != 0 || (kind->type && vmdk_create(path, &c, &err) != 0))
        die(kind->name, err.message);
}

/* Write blocks at random, flush now and then; `rounds` 0: until killed. */
static void work(struct disk *disk, struct progress *p, unsigned rounds,
                 void (*marked)(struct progress *))
{
    static char data[16 * BLOCK];
    for (unsigned i = 0; !rounds || i < rounds; i++) {
        uint32_t block = (uint32_t)(random64() % BLOCKS), count = 1 + (uint32_t)(random64() % 16);
        count = block + count > BLOCKS ? BLOCKS - block : count;
        count = random64() % 2 ? 1 : count;
        uint32_t number = ++p->next;
        for (uint32_t j = 0; j < count; j++) {
            block_fill(data + j * BLOCK, block + j, number);
            p->written[block + j] = number;
        }
        if (marked)
            marked(p);
        bool fua = random64() % 32 == 0;
        if (disk_do(disk, DISK_WRITE, fua, (uint64_t)block * BLOCK, data, count * BLOCK) != 0)
            die("a write failed", "");
        for (uint32_t j = 0; fua && j < count; j++)
            p->flushed[block + j] = number;
        if (random64() % 12 == 0) {
            /* Nothing is under way, so the flush covers all. */
            if (disk_do(disk, DISK_FLUSH, false, 0, NULL, 0) != 0)
                die("a flush failed", "");
            memcpy(p->flushed, p->written, sizeof p->flushed);
        }
        if (marked)
            marked(p);
    }
}

static void print_finding(void *opaque, const char *message)
{
    fprintf(stderr, "%s\n", message);
}

static void check_sound(const struct kind *kind)
{
    struct vmdk_check check = {0};
    if (!kind->type)
        return;
    if (vmdk_check(path, &check, &err) != 0)
        die(kind->name, err.message);
    if (check.errors) {
        check.report = print_finding;
        vmdk_check(path, &check, &err);
        die(kind->name, "check finds errors");
    }
    char command[200];
    snprintf(command, sizeof command, "qemu-img check -q -f vmdk %s >/dev/null 2>&1", path);
    if (have_qemu && strstr(kind->type, "parse") && system(command) != 0)
        die(kind->name, "qemu-img check finds errors");
}

/* `p` becomes what is there. */
static void verify(const struct kind *kind, struct progress *p)
{
    check_sound(kind);
    /* For writing: what opening after a crash repairs is part of it. */
    struct disk *disk =
        disk_open(path, &(struct disk_options){.format = kind->type ? "vmdk" : "raw"}, &err);
    if (!disk)
        die(kind->name, err.message);
    static char data[256 * BLOCK];
    static uint32_t lowest[BLOCKS], highest[BLOCKS];
    for (uint32_t first = 0; first < BLOCKS; first += 256) {
        if (disk_do(disk, DISK_READ, false, (uint64_t)first * BLOCK, data, sizeof data) != 0)
            die(kind->name, "cannot read");
        for (unsigned s = 0; s < sizeof data / SECTOR; s++) {
            uint32_t word[2], block = first + s * SECTOR / BLOCK;
            memcpy(word, data + s * SECTOR, 8);
            bool zero = word[0] == 0 && word[1] == 0;
            if ((!zero && word[0] != (block ^ 0x5a5a5a5a)) || word[1] < p->flushed[block] ||
                word[1] > p->written[block]) {
                char text[160];
                snprintf(text, sizeof text,
                         "block %u has number %u (of block %u), expected %u to %u", block, word[1],
                         word[0] ^ 0x5a5a5a5a, p->flushed[block], p->written[block]);
                die(kind->name, text);
            }
            bool first_sector = s % (BLOCK / SECTOR) == 0;
            lowest[block] = first_sector || word[1] < lowest[block] ? word[1] : lowest[block];
            highest[block] = first_sector || word[1] > highest[block] ? word[1] : highest[block];
            for (unsigned i = 8; i < SECTOR; i += 8) {
                if (memcmp(data + s * SECTOR + i, word, 8) != 0)
                    die(kind->name, "a sector is torn");
            }
        }
    }
    disk_close(disk);
    check_sound(kind);
    memcpy(p->flushed, lowest, sizeof lowest);
    memcpy(p->written, highest, sizeof highest);
}

static void kill_rounds(unsigned rounds)
{
    struct progress *p =
        mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        die("mmap", strerror(errno));
    for (unsigned i = 0; i < rounds; i++) {
        const struct kind *kind = &kinds[i / 3 % KINDS];
        if (i % 3 == 0) { /* three cuts an image */
            create(kind);
            memset(p, 0, sizeof *p);
        }
        uint64_t seed = random64();
        pid_t child = fork();
        if (child == 0) {
            state = seed;
            struct disk *disk = disk_open(
                path, &(struct disk_options){.format = kind->type ? "vmdk" : "raw"}, &err);
            if (!disk)
                die(kind->name, err.message);
            work(disk, p, 0, NULL);
        }
        usleep((useconds_t)(5000 + random64() % 150000));
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        if (!WIFSIGNALED(status))
            die(kind->name, "the writer ended by itself");
        verify(kind, p);
    }
    munmap(p, sizeof *p);
    printf("%u kills, no acknowledged flush lost\n", rounds);
}

/* The record of a run. */
struct event {
    enum { WROTE, TRUNCATED, PUNCHED, SYNCED, MARK } what;
    unsigned file;
    uint64_t offset, length;
    char *data;
};
#define FILES_MAX 4
static struct event *events;
static size_t event_count, event_room;
static char *file_names[FILES_MAX];
static unsigned file_count;
static pthread_mutex_t record_lock = PTHREAD_MUTEX_INITIALIZER;

static void record(int what, const char *name, uint64_t offset, const void *data, uint64_t length)
{
    pthread_mutex_lock(&record_lock);
    unsigned file = 0;
    while (name && file < file_count && strcmp(file_names[file], name) != 0)
        file++;
    if (name && file == file_count) {
        if (file == FILES_MAX)
            die("too many files", name);
        file_names[file_count++] = strdup(name);
    }
    if (event_count == event_room) {
        event_room = event_room * 2 + 1024;
        events = realloc(events, event_room * sizeof *events);
    }
    struct event *e = &events[event_count++];
    *e = (struct event){.what = what, .file = file, .offset = offset, .length = length};
    if (data) {
        e->data = malloc(length);
        memcpy(e->data, data, length);
    }
    pthread_mutex_unlock(&record_lock);
}

static void on_wrote(void *o, const char *name, uint64_t offset, const void *data, size_t length)
{
    record(WROTE, name, offset, data, length);
}

static void on_truncated(void *o, const char *name, uint64_t size)
{
    record(TRUNCATED, name, size, NULL, 0);
}

static void on_punched(void *o, const char *name, uint64_t offset, uint64_t length)
{
    record(PUNCHED, name, offset, NULL, length);
}

static void on_synced(void *o, const char *name)
{
    record(SYNCED, name, 0, NULL, 0);
}

static void on_mark(struct progress *p)
{
    record(MARK, NULL, 0, p, sizeof *p);
}

struct content {
    char *data;
    size_t size, room;
};

static void content_apply(struct content *c, const struct event *e, bool torn)
{
    uint64_t end = e->what == TRUNCATED ? e->offset : e->offset + e->length;
    if (e->what == SYNCED || e->what == MARK || (e->what == PUNCHED && e->offset >= c->size))
        return;
    if (end > c->room) {
        c->data = realloc(c->data, end * 2);
        c->room = end * 2;
    }
    if (end > c->size && e->what != PUNCHED) {
        memset(c->data + c->size, 0, end - c->size);
        c->size = end;
    }
    if (e->what == TRUNCATED)
        c->size = end;
    else if (e->what == PUNCHED)
        memset(c->data + e->offset, 0, (end > c->size ? c->size : end) - e->offset);
    else if (!torn || e->length < SECTOR)
        memcpy(c->data + e->offset, e->data, e->length);
    else
        for (uint64_t at = 0; at < e->length; at += SECTOR)
            if (random64() % 2)
                memcpy(c->data + e->offset + at, e->data + at,
                       e->length - at < SECTOR ? e->length - at : SECTOR);
}

static void content_load(struct content *c, const char *name)
{
    FILE *f = fopen(name, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st) != 0)
        die(name, "cannot read");
    *c = (struct content){.size = (size_t)st.st_size, .room = (size_t)st.st_size};
    c->data = malloc(c->room + 1);
    if (fread(c->data, 1, c->size, f) != c->size)
        die(name, "cannot read");
    fclose(f);
}

static void content_save(const struct content *c, const char *name)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0 || write(fd, c->data, c->size) != (ssize_t)c->size)
        die(name, "cannot write");
    close(fd);
}

/* The power goes after event `cut`. */
static void cut_at(const struct kind *kind, const struct content *start, size_t cut)
{
    struct content now[FILES_MAX];
    size_t synced[FILES_MAX] = {0};
    static struct progress p;
    memset(&p, 0, sizeof p);
    for (unsigned f = 0; f < file_count; f++) {
        now[f] = (struct content){.size = start[f].size, .room = start[f].size};
        now[f].data = malloc(start[f].size + 1);
        memcpy(now[f].data, start[f].data, start[f].size);
    }
    for (size_t i = 0; i < cut; i++) {
        if (events[i].what == SYNCED)
            synced[events[i].file] = i;
        else if (events[i].what == MARK)
            memcpy(&p, events[i].data, sizeof p);
    }
    unsigned keep = (unsigned)(random64() % 5); /* of four later writes, so many are there */
    for (size_t i = 0; i < cut; i++) {
        struct event *e = &events[i];
        if (e->what == MARK)
            continue;
        if (i < synced[e->file])
            content_apply(&now[e->file], e, false);
        else if (random64() % 4 < keep)
            content_apply(&now[e->file], e, random64() % 2);
    }
    for (unsigned f = 0; f < file_count; f++) {
        content_save(&now[f], file_names[f]);
        free(now[f].data);
    }
    verify(kind, &p);
}

static void replay_rounds(unsigned rounds)
{
    static const struct file_trace trace = {
        .wrote = on_wrote, .truncated = on_truncated, .punched = on_punched, .synced = on_synced};
    unsigned cuts = 0;
    for (size_t k = 0; k < KINDS; k++) {
        const struct kind *kind = &kinds[k];
        static struct progress p;
        struct content start[FILES_MAX];
        char copy[200];
        memset(&p, 0, sizeof p);
        create(kind);
        snprintf(copy, sizeof copy, "cp -r %s %s.start", dir, dir);
        if (system(copy) != 0)
            die("cp", dir);
        struct disk *disk = disk_open(
            path, &(struct disk_options){.format = kind->type ? "vmdk" : "raw", .trace = &trace},
            &err);
        if (!disk)
            die(kind->name, err.message);
        work(disk, &p, 150, on_mark);
        disk_close(disk);
        for (unsigned f = 0; f < file_count; f++) {
            snprintf(copy, sizeof copy, "%s.start%s", dir, file_names[f] + strlen(dir));
            content_load(&start[f], copy);
        }
        for (unsigned i = 0; i < rounds; i++, cuts++)
            cut_at(kind, start, 1 + random64() % event_count);
        for (unsigned f = 0; f < file_count; f++) {
            free(start[f].data);
            free(file_names[f]);
        }
        for (size_t i = 0; i < event_count; i++)
            free(events[i].data);
        event_count = file_count = 0;
        snprintf(copy, sizeof copy, "rm -rf %s.start", dir);
        if (system(copy) != 0)
            die("rm", dir);
    }
    free(events);
    printf("%u power cuts, no acknowledged flush lost\n", cuts);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: powercut kill|replay ROUNDS [SEED]\n");
        return 2;
    }
    state = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
    have_qemu = system("qemu-img --version >/dev/null 2>&1") == 0;
    snprintf(dir, sizeof dir, "/tmp/powercut-XXXXXX");
    if (!mkdtemp(dir))
        die("mkdtemp", dir);
    snprintf(path, sizeof path, "%s/disk.vmdk", dir);
    snprintf(base, sizeof base, "%s/base.vmdk", dir);
    if (!strcmp(argv[1], "kill"))
        kill_rounds((unsigned)atoi(argv[2]));
    else
        replay_rounds((unsigned)atoi(argv[2]));
    clean();
    rmdir(dir);
    return 0;
}
