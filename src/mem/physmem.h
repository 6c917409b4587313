/*
 * Guest-physical memory.
 *
 *   guest-physical                          host mapping of the one memfd
 *   0 .. low_size        RAM                ram + gpa
 *   low_size .. 4 GiB    PCI hole: MMIO     (bus)
 *   4 GiB .. 4 GiB+high  RAM                ram + low_size + (gpa - 4 GiB)
 *   anywhere else        regions            ram + size ..: firmware ROM, frame buffers
 *
 * low_size is at most 3 GiB. Behind RAM the memfd has an area for memory of devices
 * (physmem_extra()), which a region puts somewhere into guest-physical space and a guest may move
 * (a PCI BAR). Below 1 MiB the chipset may put other memory, or nothing, over RAM
 * (physmem_map_low()). Everything that is no memory, and every write to read-only memory, goes to
 * the MMIO bus.
 *
 * Each RAM page has a flags byte and a generation. An engine that caches decoded or translated code
 * of a page sets PAGE_CODE; whoever writes to a page with a non-zero flags byte must call
 * physmem_written() after the write, which counts the generation up (cached code is valid while the
 * generation is the one that it was made at) and marks the page dirty for the dirty log.
 */
#ifndef TRIVISOR_MEM_PHYSMEM_H
#define TRIVISOR_MEM_PHYSMEM_H

#include <pthread.h>
#include <stdatomic.h>
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
    PAGE_TOLD = 4, /* with PAGE_CODE: everybody knows of it */
};

#define LOW_MAP_END     UINT64_C(0x100000) /* what physmem_map_low() reaches */
#define REGIONS_MAX     16
#define REGION_UNMAPPED (~UINT64_C(0))
#define EXTRA_MAX       (UINT64_C(256) << 20) /* of devices' memory; address space only */

/* Memory outside RAM. All but `base` is constant once it is there. */
struct physmem_region {
    _Atomic uint64_t base; /* guest-physical, page-aligned, or REGION_UNMAPPED */
    uint64_t size;
    uint8_t *host;
    bool writable;
};

/* What an engine wants to hear of; NULL: nothing. On the thread that caused it. */
struct physmem_hooks {
    void *opaque;
    void (*marked)(void *opaque, const uint8_t *page); /* PAGE_CODE was set, bytes not read yet */
    void (*written)(void *opaque, uint64_t page);      /* a page with PAGE_CODE was written */
    /* Another thread is marking a page, and may be waiting for this one: answer it, or yield. */
    void (*waiting)(void *opaque);
    void (*logging)(
        void *opaque); /* PAGE_LOG was set on pages: forget where writes may go unseen */
    /* Fill page_dirty of the region's pages from where writes are not seen otherwise (KVM). */
    void (*sync_log)(void *opaque, const struct physmem_region *region);
};

struct physmem {
    uint8_t *ram; /* host mapping of all RAM, contiguous */
    uint64_t size;
    uint64_t low_size;           /* RAM below the PCI hole */
    int memfd;                   /* sealed against shrinking */
    _Atomic uint8_t *page_flags; /* by (host address - ram) >> PAGE_SHIFT */
    _Atomic uint32_t *page_gen;  /* the same index */
    struct physmem_hooks hooks;
    pthread_mutex_t marking; /* held while a page is being marked */
    bool smp; /* more than one vCPU: first marks of a page need a barrier everywhere */

    uint64_t extra_used;
    struct physmem_region regions[REGIONS_MAX];
    unsigned region_count;
    _Atomic uint64_t a20_closed; /* A20_LINE while the gate masks it, else 0 */
    bool low_mapped;             /* the two tables say what is below 1 MiB; else it is RAM */
    uint8_t *_Atomic low_read[LOW_MAP_END >> PAGE_SHIFT];
    uint8_t *_Atomic low_write[LOW_MAP_END >> PAGE_SHIFT];
    /* 1: written since the log was taken, 2: reported once, to be reported again. */
    _Atomic uint8_t *page_dirty;
    _Atomic uint8_t *populated; /* by POPULATE_SIZE of RAM: enum populated */
    struct populator *populator;
    /* The map changed: engines must forget translations and code. May be NULL. */
    void (*changed)(void *opaque);
    void *changed_opaque;
};

/* Allocate RAM (a multiple of 4 KiB, at least 1 MiB). Returns NULL with `err` filled on failure. */
struct physmem *physmem_create(uint64_t size, bool smp, struct tv_error *err);
void physmem_destroy(struct physmem *mem);

/*
 * The guest begins to use RAM around `host`: have the host allocate a whole piece at once. That is
 * cheaper than a fault for each page, and pages that are allocated together lie together, which
 * the processor's caches, indexed by physical address, are good for. The piece behind one that is
 * used, or before it, will be next where the guest goes through memory. Any thread.
 */
#define POPULATE_SIZE (UINT64_C(512) << 10)
enum populated { NOT_POPULATED, PIECE_USED, POPULATED_AHEAD };
void physmem_populate(struct physmem *mem, const uint8_t *host);

static inline void physmem_use(struct physmem *mem, const uint8_t *host)
{
    uint64_t offset = (uint64_t)(host - mem->ram);
    if (offset < mem->size &&
        __builtin_expect(mem->populated[offset / POPULATE_SIZE] != PIECE_USED, 0))
        physmem_populate(mem, host);
}

#define A20_LINE UINT64_C(0x100000)

/* What the processor puts on the bus for `gpa`, behind the A20 gate. Only engines ask: DMA and the
 * walk of page tables (nobody pages with the gate closed) do not pass it. */
static inline uint64_t physmem_a20(const struct physmem *mem, uint64_t gpa)
{
    return gpa & ~atomic_load_explicit(&mem->a20_closed, memory_order_relaxed);
}
/* Open or close the gate: a change of the map. Device lock held, or no vCPU runs. */
void physmem_set_a20(struct physmem *mem, bool open);

/* The rest of the two functions below. */
uint8_t *physmem_host_special(const struct physmem *mem, uint64_t gpa, uint64_t len, bool write);

static inline uint8_t *physmem_host_any(const struct physmem *mem, uint64_t gpa, uint64_t len,
                                        bool write)
{
    if (gpa < mem->low_size) {
        if (gpa < LOW_MAP_END && mem->low_mapped)
            return physmem_host_special(mem, gpa, len, write);
        return len <= mem->low_size - gpa ? mem->ram + gpa : NULL;
    }
    uint64_t high = gpa - HIGH_RAM_BASE;
    uint64_t high_size = mem->size - mem->low_size;
    if (gpa >= HIGH_RAM_BASE && high < high_size)
        return len <= high_size - high ? mem->ram + mem->low_size + high : NULL;
    return mem->region_count ? physmem_host_special(mem, gpa, len, write) : NULL;
}

/* Is [gpa, gpa + len) RAM, one piece of the host's, for reading and writing? */
static inline bool physmem_is_plain(const struct physmem *mem, uint64_t gpa, uint64_t len)
{
    return (gpa >= LOW_MAP_END || !mem->low_mapped) &&
           !atomic_load_explicit(&mem->a20_closed, memory_order_relaxed) &&
           (gpa < mem->low_size || gpa >= HIGH_RAM_BASE) &&
           physmem_host_any(mem, gpa, len, true) != NULL;
}

/* Host address of guest-physical `gpa` if all `len` bytes (no page crossing needed) are memory that
 * can be read, else NULL. */
static inline uint8_t *physmem_host(const struct physmem *mem, uint64_t gpa, uint64_t len)
{
    return physmem_host_any(mem, gpa, len, false);
}

/* The same for memory that can be both read and written there: not ROM. */
static inline uint8_t *physmem_host_write(const struct physmem *mem, uint64_t gpa, uint64_t len)
{
    return physmem_host_any(mem, gpa, len, true);
}

/*
 * Memory for a device, zeroed, page-aligned, there until physmem_destroy(). Before the first vCPU
 * runs. NULL: EXTRA_MAX is used up.
 */
uint8_t *physmem_extra(struct physmem *mem, uint64_t size);
/* Make a region of (part of) such memory, not mapped yet. The sizes are multiples of 4 KiB. NULL:
 * too many. Before the first vCPU runs. */
struct physmem_region *physmem_region_add(struct physmem *mem, uint8_t *host, uint64_t size,
                                          bool writable);
/*
 * Map a region at `base`, or nowhere with REGION_UNMAPPED. False, and then it is mapped nowhere: it
 * would lie over RAM or another region. Device lock held, or no vCPU runs yet. Other vCPUs see it
 * at their next block of code.
 */
bool physmem_region_move(struct physmem *mem, struct physmem_region *region, uint64_t base);
/*
 * What is at [gpa, gpa + size) below 1 MiB: where reads and writes go. NULL: to the MMIO bus. The
 * same locking. physmem_low_changed() has to follow after a series of these.
 */
void physmem_map_low(struct physmem *mem, uint64_t gpa, uint64_t size, uint8_t *read,
                     uint8_t *write);
void physmem_low_changed(struct physmem *mem);

/*
 * The dirty log of a region, for displays. The first call turns it on. Sets dirty[i] for every page
 * i of the region that may have been written since the last call and counts them; a page is
 * reported once more the next time, since a store may be under way while the log is taken. Bytes
 * are to be read after the call. Any one thread, device lock held or not.
 */
unsigned physmem_take_dirty(struct physmem *mem, struct physmem_region *region, bool *dirty);

/* For hooks.sync_log: the page was written. */
static inline void physmem_note_dirty(struct physmem *mem, const uint8_t *page)
{
    atomic_store(&mem->page_dirty[(uint64_t)(page - mem->ram) >> PAGE_SHIFT], 1);
}

/* Index of a host address inside the memfd into page_flags and page_gen. */
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
 * Copy between guest-physical memory and a buffer: for devices (DMA) and loaders. Only memory is
 * touched. Return false, having copied nothing, unless the whole range is memory (that can be
 * written). The write keeps cached code coherent. Any thread.
 */
bool physmem_read(const struct physmem *mem, uint64_t gpa, void *buf, uint64_t len);
bool physmem_write(struct physmem *mem, uint64_t gpa, const void *buf, uint64_t len);

/* An access that engines did not do themselves, of memory all the same: true if it was. */
bool physmem_mmio_read(const struct physmem *mem, uint64_t gpa, void *buf, unsigned len);
bool physmem_mmio_write(struct physmem *mem, uint64_t gpa, const void *buf, unsigned len);

#endif
