/* What mostly the kernel does. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

static void parent_id(unsigned long n)
{
    while (n--)
        syscall(SYS_getppid);
}

static void ping_pong(unsigned long n)
{
    int to[2], from[2];
    if (pipe(to) < 0 || pipe(from) < 0)
        fail("pipe");
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    char byte = 0;
    if (!child) {
        while (n-- && read(to[0], &byte, 1) == 1 && write(from[1], &byte, 1) == 1)
            continue;
        _exit(0);
    }
    while (n--)
        if (write(to[1], &byte, 1) != 1 || read(from[0], &byte, 1) != 1)
            fail("pipe");
    waitpid(child, NULL, 0);
    close(to[0]);
    close(to[1]);
    close(from[0]);
    close(from[1]);
}

static void fork_wait(unsigned long n)
{
    while (n--) {
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (!child)
            _exit(0);
        waitpid(child, NULL, 0);
    }
}

static void fork_exec(unsigned long n)
{
    while (n--) {
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (!child) {
            execl(own_path, own_path, "nothing", (char *)NULL);
            _exit(127);
        }
        waitpid(child, NULL, 0);
    }
}

static void page_faults(unsigned long n)
{
    enum { SIZE = 256 * 4096 };
    while (n--) {
        char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            fail("mmap");
        for (unsigned i = 0; i < SIZE; i += 4096)
            p[i] = 1;
        munmap(p, SIZE);
    }
}

static void protect(unsigned long n)
{
    volatile char *p =
        mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        fail("mmap");
    while (n--) {
        mprotect((void *)p, 16 * 4096, PROT_READ);
        sink += (uint64_t)p[0];
        mprotect((void *)p, 16 * 4096, PROT_READ | PROT_WRITE);
        p[0] = p[4096] = 1;
    }
    munmap((void *)p, 16 * 4096);
}

static void tmpfs(unsigned long n)
{
    char data[4096] = {1};
    while (n--) {
        int fd = open("/dev/shm/bench-file", O_CREAT | O_RDWR | O_TRUNC, 0600);
        if (fd < 0 || write(fd, data, sizeof data) != sizeof data)
            fail("/dev/shm/bench-file");
        close(fd);
        unlink("/dev/shm/bench-file");
    }
}

static void copy(unsigned long n)
{
    enum { SIZE = 1 << 20 };
    static char data[SIZE];
    int fd = open("/dev/shm/bench-copy", O_CREAT | O_RDWR | O_TRUNC, 0600);
    if (fd < 0)
        fail("/dev/shm/bench-copy");
    while (n--)
        if (pwrite(fd, data, SIZE, 0) != SIZE || pread(fd, data, SIZE, 0) != SIZE)
            fail("copy");
    close(fd);
    unlink("/dev/shm/bench-copy");
}

const struct workload kernel_workloads[] = {{"getppid", parent_id},
                                            {"pipe", ping_pong},
                                            {"fork-wait", fork_wait},
                                            {"fork-exec", fork_exec},
                                            {"page-faults", page_faults},
                                            {"mprotect", protect},
                                            {"tmpfs", tmpfs},
                                            {"copy-1M", copy},
                                            {NULL, NULL}};
