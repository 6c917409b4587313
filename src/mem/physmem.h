/*
 * Guest-physical memory.
 *
 *   guest-physical                          host mapping of the one memfd
 *   0 .. low_size        RAM                ram + gpa
 *   low_size .. 4 GiB    PCI hole: MMIO     (bus)
 *   4 GiB .. 4 GiB+high  RAM                ram + low_size + (gpa - 4 GiB)
 *
 * low_size is at most 3 GiB. Everything that is not RAM goes to the MMIO bus.
 *
 * Each RAM page has a flags byte and a generation. An engine that caches decoded or translated code
 * of a page sets PAGE_CODE; whoever writes to a page with a non-zero flags byte must call
 * physmem_written() after the write, which counts the generation up (cached code is valid while the
 * generation is the one that it was made at) and marks the page dirty for the dirty log.
 */
#ifndef TRIVISOR_MEM_PHYSMEM_H
#define TRIVISOR_MEM_PHYSMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <trivisor/trivisor.h>

#define PAGE_SHIFT    12
#define PAGE_SIZE     UINT64_C(4096)
#define PAGE_MASK     (~(PAGE_SIZE - 1))

#define LOW_RAM_MAX   UINT64_C(0xc0000000)
#define HIGH_RAM_BASE UINT64_C(0x100000000)

enum page_flag {
    PAGE_CODE = 1, /* an engine holds code made from this page */
    PAGE_LOG = 2,  /* the dirty log wants to know of writes */
};

/* What an engine wants to hear of; NULL: nothing. On the thread that caused it. */
struct physmem_hooks {
    void *opaque;
    void (*marked)(void *opaque, const uint8_t *page); /* PAGE_CODE was set, bytes not read yet */
    void (*written)(void *opaque, uint64_t page);      /* a page with PAGE_CODE was written */
};

struct physmem {
    uint8_t *ram; /* host mapping of all RAM, contiguous */
    uint64_t size;
    uint64_t low_size;           /* RAM below the PCI hole */
    int memfd;                   /* sealed against shrinking */
    _Atomic uint8_t *page_flags; /* by (host address - ram) >> PAGE_SHIFT */
    _Atomic uint32_t *page_gen;  /* the same index */
    struct physmem_hooks hooks;
    bool vga_window; /* a VGA answers at 0xa0000 to 0xbffff, not RAM */
    bool smp;        /* more than one vCPU: first marks of a page need a barrier everywhere */
};

/* Allocate RAM (a multiple of 4 KiB, at least 1 MiB). Returns NULL with `err` filled on failure. */
struct physmem *physmem_create(uint64_t size, bool smp, struct tv_error *err);
void physmem_destroy(struct physmem *mem);

/* Host address of guest-physical `gpa` if all `len` bytes (no page crossing needed) are RAM, else
 * NULL. */
static inline uint8_t *physmem_host(const struct physmem *mem, uint64_t gpa, uint64_t len)
{
    if (gpa < mem->low_size) {
        if (mem->vga_window && gpa < 0xc0000 && gpa + len > 0xa0000)
            return NULL;
        return len <= mem->low_size - gpa ? mem->ram + gpa : NULL;
    }
    uint64_t high = gpa - HIGH_RAM_BASE;
    uint64_t high_size = mem->size - mem->low_size;
    if (gpa >= HIGH_RAM_BASE && high < high_size && len <= high_size - high)
        return mem->ram + mem->low_size + high;
    return NULL;
}

/* Index of a host address inside RAM into page_flags and page_gen. */
static inline uint64_t physmem_page(const struct physmem *mem, const void *host)
{
    return (uint64_t)((const uint8_t *)host - mem->ram) >> PAGE_SHIFT;
}

static inline bool physmem_page_flagged(const struct physmem *mem, const void *host)
{
    return __atomic_load_n((const uint8_t *)&mem->page_flags[physmem_page(mem, host)],
                           __ATOMIC_RELAXED) != 0;
}

/* Tell that `len` bytes at host address `host` (inside RAM) have been written. Any thread. */
void physmem_written(struct physmem *mem, const void *host, uint64_t len);

/*
 * Mark the page of `host` as one that code is made from, before its bytes are read. When this
 * returns, every write by any thread that does not see the mark is visible to the caller. Any
 * thread.
 */
void physmem_mark_code(struct physmem *mem, const void *host);

/*
 * Copy between guest-physical memory and a buffer: for devices (DMA) and loaders. Only RAM is
 * touched. Return false, having copied nothing, unless the whole range is RAM. The write keeps
 * cached code coherent. Any thread.
 */
bool physmem_read(const struct physmem *mem, uint64_t gpa, void *buf, uint64_t len);
bool physmem_write(struct physmem *mem, uint64_t gpa, const void *buf, uint64_t len);

#endif
