#include "mem/physmem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/membarrier.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/error.h"
#include "util/util.h"

static void *reserve_zeroed(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

struct physmem *physmem_create(uint64_t size, bool smp, struct tv_error *err)
{
    struct physmem *mem = calloc(1, sizeof *mem);
    if (!mem) {
        tv_fail(err, "out of memory");
        return NULL;
    }
    mem->size = size;
    mem->low_size = MIN(size, LOW_RAM_MAX);
    mem->memfd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (mem->memfd < 0 || ftruncate(mem->memfd, (off_t)size) < 0 ||
        fcntl(mem->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        tv_fail_errno(err, errno, "cannot create a memfd of %" PRIu64 " MiB for guest RAM",
                      size >> 20);
        goto fail;
    }
    void *ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mem->memfd, 0);
    if (ram == MAP_FAILED) {
        tv_fail_errno(err, errno, "cannot map %" PRIu64 " MiB of guest RAM; try a smaller --memory",
                      size >> 20);
        goto fail;
    }
    mem->ram = ram;
    mem->page_flags = reserve_zeroed(size >> PAGE_SHIFT);
    mem->page_gen = reserve_zeroed((size >> PAGE_SHIFT) * sizeof *mem->page_gen);
    if (!mem->page_flags || !mem->page_gen) {
        tv_fail_errno(err, errno, "cannot allocate page tables for guest RAM");
        goto fail;
    }
    /* Without the system call, the marks of two vCPUs may race as described in physmem_mark_code.
     */
    mem->smp = smp;
    if (smp && syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0) {
        tv_fail_errno(err, errno, "more than one vCPU needs the membarrier system call");
        goto fail;
    }
    return mem;
fail:
    physmem_destroy(mem);
    return NULL;
}

void physmem_destroy(struct physmem *mem)
{
    if (!mem)
        return;
    if (mem->ram)
        munmap(mem->ram, mem->size);
    if (mem->page_flags)
        munmap((void *)mem->page_flags, mem->size >> PAGE_SHIFT);
    if (mem->page_gen)
        munmap((void *)mem->page_gen, (mem->size >> PAGE_SHIFT) * sizeof *mem->page_gen);
    if (mem->memfd >= 0)
        close(mem->memfd);
    free(mem);
}

void physmem_written(struct physmem *mem, const void *host, uint64_t len)
{
    if (!len)
        return;
    uint64_t last = physmem_page(mem, (const uint8_t *)host + len - 1);
    for (uint64_t page = physmem_page(mem, host); page <= last; page++) {
        if (atomic_load_explicit(&mem->page_flags[page], memory_order_relaxed) & PAGE_CODE) {
            /* New code of this page marks it again; until then writes to it are cheap. */
            atomic_fetch_and(&mem->page_flags[page], (uint8_t)~PAGE_CODE);
            atomic_fetch_add(&mem->page_gen[page], 1);
            if (mem->hooks.written)
                mem->hooks.written(mem->hooks.opaque, page);
        }
    }
}

/*
 * A writer stores and then loads the flag; we set the flag and then load the bytes. On x86 a store
 * may be delayed past a later load, so both could miss each other, and stale code would live on. A
 * barrier on every running thread between our two steps closes the window; it runs once for each
 * marked page.
 */
void physmem_mark_code(struct physmem *mem, const void *host)
{
    uint64_t page = physmem_page(mem, host);
    if (atomic_load_explicit(&mem->page_flags[page], memory_order_relaxed) & PAGE_CODE)
        return;
    atomic_fetch_or(&mem->page_flags[page], PAGE_CODE);
    if (mem->smp)
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    if (mem->hooks.marked)
        mem->hooks.marked(mem->hooks.opaque, mem->ram + (page << PAGE_SHIFT));
}

bool physmem_read(const struct physmem *mem, uint64_t gpa, void *buf, uint64_t len)
{
    const uint8_t *host = physmem_host(mem, gpa, len);
    if (!host)
        return false;
    memcpy(buf, host, len);
    return true;
}

bool physmem_write(struct physmem *mem, uint64_t gpa, const void *buf, uint64_t len)
{
    uint8_t *host = physmem_host(mem, gpa, len);
    if (!host)
        return false;
    memcpy(host, buf, len);
    physmem_written(mem, host, len);
    return true;
}
