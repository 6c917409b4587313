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

#include "mem/populate.h"
#include "util/error.h"
#include "util/util.h"

enum dirty_state { PAGE_WRITTEN = 1, PAGE_ECHO = 2 };

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
    pthread_mutex_init(&mem->marking, NULL);
    mem->low_size = MIN(size, LOW_RAM_MAX);
    mem->memfd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    uint64_t total = size + EXTRA_MAX;
    if (mem->memfd < 0 || ftruncate(mem->memfd, (off_t)total) < 0 ||
        fcntl(mem->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        tv_fail_errno(err, errno, "cannot create a memfd of %" PRIu64 " MiB for guest RAM",
                      size >> 20);
        goto fail;
    }
    void *ram =
        mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mem->memfd, 0);
    if (ram == MAP_FAILED) {
        tv_fail_errno(err, errno, "cannot map %" PRIu64 " MiB of guest RAM; try a smaller --memory",
                      size >> 20);
        goto fail;
    }
    mem->ram = ram;
    mem->page_flags = reserve_zeroed(total >> PAGE_SHIFT);
    mem->populated = reserve_zeroed(size / POPULATE_SIZE + 2);
    mem->page_dirty = reserve_zeroed(total >> PAGE_SHIFT);
    mem->page_gen = reserve_zeroed((total >> PAGE_SHIFT) * sizeof *mem->page_gen);
    mem->populator = populator_create();
    if (!mem->page_flags || !mem->populated || !mem->page_gen || !mem->page_dirty ||
        !mem->populator) {
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

static void populate_ahead(struct physmem *mem, uint64_t piece)
{
    uint64_t start = piece * POPULATE_SIZE;
    uint8_t not_yet = NOT_POPULATED;
    if (start < mem->size &&
        atomic_compare_exchange_strong(&mem->populated[piece], &not_yet, POPULATED_AHEAD))
        populator_ask(mem->populator, mem->ram + start, MIN(POPULATE_SIZE, mem->size - start),
                      false);
}

void physmem_populate(struct physmem *mem, const uint8_t *host)
{
    uint64_t piece = (uint64_t)(host - mem->ram) / POPULATE_SIZE, start = piece * POPULATE_SIZE;
    uint8_t was =
        atomic_exchange_explicit(&mem->populated[piece], PIECE_USED, memory_order_relaxed);
    if (piece && mem->populated[piece - 1] == PIECE_USED)
        populate_ahead(mem, piece + 1);
    else if (mem->populated[piece + 1] == PIECE_USED && piece)
        populate_ahead(mem, piece - 1);
    /* Where the host cannot or does not want to, pages come one by one. */
    if (was == NOT_POPULATED)
        madvise(mem->ram + start, MIN(POPULATE_SIZE, mem->size - start), MADV_POPULATE_WRITE);
}

void physmem_destroy(struct physmem *mem)
{
    if (!mem)
        return;
    uint64_t total = mem->size + EXTRA_MAX;
    populator_destroy(mem->populator);
    if (mem->ram)
        munmap(mem->ram, total);
    if (mem->page_flags)
        munmap((void *)mem->page_flags, total >> PAGE_SHIFT);
    if (mem->page_dirty)
        munmap((void *)mem->page_dirty, total >> PAGE_SHIFT);
    if (mem->populated)
        munmap((void *)mem->populated, mem->size / POPULATE_SIZE + 2);
    if (mem->page_gen)
        munmap((void *)mem->page_gen, (total >> PAGE_SHIFT) * sizeof *mem->page_gen);
    if (mem->memfd >= 0)
        close(mem->memfd);
    pthread_mutex_destroy(&mem->marking);
    free(mem);
}

void physmem_written(struct physmem *mem, const void *host, uint64_t len)
{
    if (!len)
        return;
    uint64_t last = physmem_page(mem, (const uint8_t *)host + len - 1);
    for (uint64_t page = physmem_page(mem, host); page <= last; page++) {
        uint8_t flags = atomic_load_explicit(&mem->page_flags[page], memory_order_relaxed);
        if (flags & PAGE_LOG) {
            atomic_store(&mem->page_dirty[page], PAGE_WRITTEN);
            atomic_fetch_and(&mem->page_flags[page], (uint8_t)~PAGE_LOG);
        }
        if (flags & PAGE_CODE) {
            /* New code of this page marks it again; until then writes to it are cheap. */
            atomic_fetch_and(&mem->page_flags[page], (uint8_t) ~(PAGE_CODE | PAGE_TOLD));
            atomic_fetch_add(&mem->page_gen[page], 1);
            if (mem->hooks.written)
                mem->hooks.written(mem->hooks.opaque, page);
        }
    }
}

static void lock_marking(struct physmem *mem)
{
    if (!mem->hooks.waiting) {
        pthread_mutex_lock(&mem->marking);
        return;
    }
    while (pthread_mutex_trylock(&mem->marking) != 0)
        mem->hooks.waiting(mem->hooks.opaque);
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
    _Atomic uint8_t *flags = &mem->page_flags[page];
    if (atomic_load_explicit(flags, memory_order_acquire) & PAGE_TOLD)
        return;
    /* Somebody else may be about to mark it: its word is not out before it is done. */
    lock_marking(mem);
    uint8_t old = atomic_fetch_or(flags, PAGE_CODE);
    if (!(old & PAGE_TOLD)) {
        if (mem->smp)
            syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
        if (mem->hooks.marked)
            mem->hooks.marked(mem->hooks.opaque, mem->ram + (page << PAGE_SHIFT));
        /* Unless it was written to meanwhile. */
        for (old = atomic_load(flags);
             old & PAGE_CODE && !atomic_compare_exchange_weak(flags, &old, old | PAGE_TOLD);)
            ;
    }
    pthread_mutex_unlock(&mem->marking);
}

/* ---- Regions ---- */

uint8_t *physmem_extra(struct physmem *mem, uint64_t size)
{
    size = ALIGN_UP(size, PAGE_SIZE);
    if (size > EXTRA_MAX - mem->extra_used)
        return NULL;
    uint8_t *at = mem->ram + mem->size + mem->extra_used;
    mem->extra_used += size;
    return at;
}

struct physmem_region *physmem_region_add(struct physmem *mem, uint8_t *host, uint64_t size,
                                          bool writable)
{
    if (mem->region_count == REGIONS_MAX)
        return NULL;
    struct physmem_region *region = &mem->regions[mem->region_count++];
    region->size = size;
    region->host = host;
    region->writable = writable;
    atomic_store(&region->base, REGION_UNMAPPED);
    return region;
}

static void tell_changed(struct physmem *mem)
{
    if (mem->changed)
        mem->changed(mem->changed_opaque);
}

void physmem_set_a20(struct physmem *mem, bool open)
{
    if (atomic_exchange(&mem->a20_closed, open ? 0 : A20_LINE) != (open ? 0 : A20_LINE))
        tell_changed(mem);
}

/* Sizes not zero; the ends may be at 2^64. */
static bool ranges_meet(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a <= b + (b_size - 1) && b <= a + (a_size - 1);
}

static bool is_free(const struct physmem *mem, const struct physmem_region *region, uint64_t base)
{
    uint64_t high_size = mem->size - mem->low_size;
    if (base & ~PAGE_MASK || base + region->size < base ||
        ranges_meet(base, region->size, 0, mem->low_size) ||
        (high_size && ranges_meet(base, region->size, HIGH_RAM_BASE, high_size)))
        return false;
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct physmem_region *other = &mem->regions[i];
        uint64_t at = atomic_load(&other->base);
        if (other != region && at != REGION_UNMAPPED &&
            ranges_meet(base, region->size, at, other->size))
            return false;
    }
    return true;
}

bool physmem_region_move(struct physmem *mem, struct physmem_region *region, uint64_t base)
{
    bool fits = base == REGION_UNMAPPED || is_free(mem, region, base);
    if (!fits)
        base = REGION_UNMAPPED;
    if (atomic_load(&region->base) != base) {
        atomic_store(&region->base, base);
        tell_changed(mem);
    }
    return fits;
}

void physmem_map_low(struct physmem *mem, uint64_t gpa, uint64_t size, uint8_t *read,
                     uint8_t *write)
{
    if (!mem->low_mapped)
        for (uint64_t page = 0; page < LOW_MAP_END >> PAGE_SHIFT; page++) {
            uint8_t *ram = mem->ram + (page << PAGE_SHIFT);
            atomic_store(&mem->low_read[page], ram);
            atomic_store(&mem->low_write[page], ram);
        }
    mem->low_mapped = true;
    for (uint64_t at = 0; at < size && gpa + at < LOW_MAP_END; at += PAGE_SIZE) {
        atomic_store(&mem->low_read[(gpa + at) >> PAGE_SHIFT], read ? read + at : NULL);
        atomic_store(&mem->low_write[(gpa + at) >> PAGE_SHIFT], write ? write + at : NULL);
    }
}

void physmem_low_changed(struct physmem *mem)
{
    tell_changed(mem);
}

static uint8_t *low_page(const struct physmem *mem, uint64_t page, bool write)
{
    uint8_t *read = atomic_load_explicit(&mem->low_read[page], memory_order_relaxed);
    if (write && atomic_load_explicit(&mem->low_write[page], memory_order_relaxed) != read)
        return NULL;
    return read;
}

/* A range that begins below 1 MiB: contiguous in the host? */
static uint8_t *host_low(const struct physmem *mem, uint64_t gpa, uint64_t len, bool write)
{
    if (len > mem->low_size - gpa)
        return NULL;
    uint8_t *first = low_page(mem, gpa >> PAGE_SHIFT, write);
    if (!first)
        return NULL;
    first += gpa & ~PAGE_MASK;
    for (uint64_t at = (gpa & PAGE_MASK) + PAGE_SIZE; at < gpa + len; at += PAGE_SIZE) {
        const uint8_t *want = first + (at - gpa);
        if (at >= LOW_MAP_END)
            return mem->ram + at == want ? first : NULL;
        if (low_page(mem, at >> PAGE_SHIFT, write) != want)
            return NULL;
    }
    return first;
}

uint8_t *physmem_host_special(const struct physmem *mem, uint64_t gpa, uint64_t len, bool write)
{
    if (gpa < LOW_MAP_END)
        return host_low(mem, gpa, len, write);
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct physmem_region *region = &mem->regions[i];
        uint64_t base = atomic_load_explicit(&region->base, memory_order_relaxed);
        if (base == REGION_UNMAPPED || gpa < base || gpa - base >= region->size)
            continue;
        if ((write && !region->writable) || len > region->size - (gpa - base))
            return NULL;
        return region->host + (gpa - base);
    }
    return NULL;
}

/* ---- The dirty log ---- */

unsigned physmem_take_dirty(struct physmem *mem, struct physmem_region *region, bool *dirty)
{
    uint64_t first = physmem_page(mem, region->host), pages = region->size >> PAGE_SHIFT;
    unsigned count = 0;
    bool armed = false;
    if (mem->hooks.sync_log)
        mem->hooks.sync_log(mem->hooks.opaque, region);
    for (uint64_t i = 0; i < pages; i++) {
        uint8_t state = atomic_load(&mem->page_dirty[first + i]);
        bool logged = atomic_load(&mem->page_flags[first + i]) & PAGE_LOG;
        dirty[i] = state || !logged;
        if (!dirty[i])
            continue;
        count++;
        /* Armed before it is called clean: a store from here on makes it dirty again. */
        atomic_fetch_or(&mem->page_flags[first + i], PAGE_LOG);
        atomic_store(&mem->page_dirty[first + i], logged && state == PAGE_ECHO ? 0 : PAGE_ECHO);
        armed |= !logged;
    }
    if (armed && mem->hooks.logging)
        mem->hooks.logging(mem->hooks.opaque);
    return count;
}

/* ---- Copies ---- */

static uint64_t in_page(uint64_t gpa, uint64_t len)
{
    return MIN(len, PAGE_SIZE - (gpa & ~PAGE_MASK));
}

/* All pages of a range that is not contiguous in the host. */
static bool is_memory(const struct physmem *mem, uint64_t gpa, uint64_t len, bool write)
{
    for (uint64_t piece; len; gpa += piece, len -= piece) {
        piece = in_page(gpa, len);
        if (!physmem_host_any(mem, gpa, piece, write))
            return false;
    }
    return true;
}

bool physmem_read(const struct physmem *mem, uint64_t gpa, void *buf, uint64_t len)
{
    const uint8_t *host = physmem_host(mem, gpa, len);
    if (host) {
        memcpy(buf, host, len);
        return true;
    }
    if (!is_memory(mem, gpa, len, false))
        return false;
    uint8_t *to = buf;
    for (uint64_t piece; len; gpa += piece, to += piece, len -= piece) {
        piece = in_page(gpa, len);
        host = physmem_host(mem, gpa, piece);
        if (!host)
            return false; /* moved this instant */
        memcpy(to, host, piece);
    }
    return true;
}

static void write_host(struct physmem *mem, uint8_t *host, const void *buf, uint64_t len)
{
    memcpy(host, buf, len);
    physmem_written(mem, host, len);
}

bool physmem_write(struct physmem *mem, uint64_t gpa, const void *buf, uint64_t len)
{
    uint8_t *host = physmem_host_write(mem, gpa, len);
    if (host) {
        write_host(mem, host, buf, len);
        return true;
    }
    if (!is_memory(mem, gpa, len, true))
        return false;
    const uint8_t *from = buf;
    for (uint64_t piece; len; gpa += piece, from += piece, len -= piece) {
        piece = in_page(gpa, len);
        host = physmem_host_write(mem, gpa, piece);
        if (!host)
            return false;
        write_host(mem, host, from, piece);
    }
    return true;
}

bool physmem_mmio_read(const struct physmem *mem, uint64_t gpa, void *buf, unsigned len)
{
    const uint8_t *host = physmem_host(mem, gpa, len);
    if (host)
        memcpy(buf, host, len);
    return host;
}

bool physmem_mmio_write(struct physmem *mem, uint64_t gpa, const void *buf, unsigned len)
{
    uint8_t *host = physmem_host_write(mem, gpa, len);
    /* Shadow RAM that is written while the ROM is read. */
    if (!host && gpa < LOW_MAP_END && mem->low_mapped && in_page(gpa, len) == len) {
        host = atomic_load(&mem->low_write[gpa >> PAGE_SHIFT]);
        host = host ? host + (gpa & ~PAGE_MASK) : NULL;
    }
    if (host)
        write_host(mem, host, buf, len);
    return host;
}
