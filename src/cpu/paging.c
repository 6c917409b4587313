/*
 * The page-table walk. All modes are one loop over levels; a table of shapes says how many levels
 * there are, how wide an entry is and which levels can map a page.
 *
 * Accessed and dirty bits are set with compare-and-exchange on the entry in guest RAM, as another
 * processor may be changing it; where it has changed, the walk starts over. They are set once the
 * whole walk has shown that the access is allowed, upper levels included.
 */
#include "cpu/paging.h"

#include <string.h>

#include "cpu/machine.h"

#define PTE_ADDRESS UINT64_C(0x000ffffffffff000)
#define LEVELS_MAX  4

struct shape {
    uint8_t levels;
    uint8_t entry_size;
    uint8_t index_bits[LEVELS_MAX]; /* from the top level down */
    uint8_t large; /* bit n: the level n steps from the bottom may map a large page */
};

static const struct shape shape_32 = {2, 4, {10, 10}, 2};
static const struct shape shape_pae = {2, 8, {9, 9}, 2};
static const struct shape shape_4level = {4, 8, {9, 9, 9, 9}, 2 | 4};

struct walk {
    uint64_t entries[LEVELS_MAX];
    uint64_t addresses[LEVELS_MAX];
    unsigned depth; /* entries read; the last one maps the page */
};

/* Page tables outside RAM read as all ones, as nothing answers there. */
static uint64_t read_entry(const struct physmem *mem, uint64_t gpa, unsigned size)
{
    const uint8_t *host = physmem_host(mem, gpa, size);
    if (!host)
        return ~UINT64_C(0);
    if (size == 4)
        return __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
    return __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED);
}

/* Set `bits` in the entry if it still is `old`. */
static bool update_entry(struct physmem *mem, uint64_t gpa, unsigned size, uint64_t old,
                         uint64_t bits)
{
    uint8_t *host = physmem_host_write(mem, gpa, size);
    if (!host)
        return true;
    bool done;
    if (size == 4) {
        uint32_t expected = (uint32_t)old;
        done = __atomic_compare_exchange_n((uint32_t *)host, &expected, (uint32_t)(old | bits),
                                           false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    } else {
        uint64_t expected = old;
        done = __atomic_compare_exchange_n((uint64_t *)host, &expected, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    if (done && physmem_page_flagged(mem, host))
        physmem_written(mem, host, size);
    return done;
}

/* Bits that must be zero in a present entry (SDM vol. 3, 4.4.2, 4.5.4 and table 4-3). */
static uint64_t reserved_bits(const struct vcpu *cpu, const struct shape *shape,
                              unsigned from_bottom, uint64_t entry)
{
    unsigned phys_bits = cpu->machine->cpuid.phys_bits;
    bool large = from_bottom > 0 && (entry & PTE_PS);
    if (shape->entry_size == 4) {
        if (!large || !(cpu->cr4 & CR4_PSE))
            return 0;
        /* PSE-36: bits 20..13 are address bits 39..32; bit 21 is reserved. */
        uint64_t reserved = BIT64(21);
        for (unsigned bit = 13; bit <= 20; bit++)
            if (bit - 13 + 32 >= phys_bits)
                reserved |= BIT64(bit);
        return reserved;
    }
    uint64_t reserved = ~(BIT64(phys_bits) - 1) & PTE_ADDRESS;
    if (shape == &shape_pae)
        reserved |= UINT64_C(0x7ff0000000000000);
    if (!(cpu->efer & EFER_NXE))
        reserved |= PTE_NX;
    if (from_bottom == 3)
        reserved |= PTE_PS;
    if (from_bottom == 2 && large && !CPUID_HAS(&cpu->machine->cpuid, 0x80000001, 0, edx, 26))
        reserved |= PTE_PS; /* no pages of 1 GiB */
    if (large)
        reserved |= (BIT64(12 + 9 * from_bottom) - 1) & ~UINT64_C(0x1fff);
    return reserved;
}

struct rights {
    bool writable, user, executable;
};

/* May the access use a page with these rights? (SDM vol. 3, 4.6.1) */
static bool allowed(const struct vcpu *cpu, unsigned access, struct rights r)
{
    bool user_access = access & ACCESS_USER;
    if (access & ACCESS_EXEC) {
        if (!r.executable || (user_access && !r.user))
            return false;
        return user_access || !r.user || !(cpu->cr4 & CR4_SMEP);
    }
    if (user_access)
        return r.user && (!(access & ACCESS_WRITE) || r.writable);
    if (r.user && (cpu->cr4 & CR4_SMAP) && ((access & ACCESS_IMPLICIT) || !(cpu->rflags & FLAG_AC)))
        return false;
    return !(access & ACCESS_WRITE) || r.writable || !(cpu->cr0 & CR0_WP);
}

/* Protection keys of user pages (SDM vol. 3, 4.6.2). */
static bool key_allows(const struct vcpu *cpu, unsigned access, struct rights r, uint64_t leaf)
{
    if (!(cpu->cr4 & CR4_PKE) || !(cpu->efer & EFER_LMA) || !r.user || (access & ACCESS_EXEC))
        return true;
    unsigned key = leaf >> 59 & 15;
    uint32_t bits = cpu->fpu.pkru >> (2 * key) & 3;
    if (bits & 1)
        return false;
    return !((bits & 2) && (access & ACCESS_WRITE) &&
             ((access & ACCESS_USER) || (cpu->cr0 & CR0_WP)));
}

static uint32_t error_code(const struct vcpu *cpu, unsigned access, uint32_t cause)
{
    uint32_t error = cause;
    if (access & ACCESS_WRITE)
        error |= PF_W;
    if (access & ACCESS_USER)
        error |= PF_U;
    if ((access & ACCESS_EXEC) &&
        ((cpu->cr4 & CR4_SMEP) || ((cpu->cr4 & CR4_PAE) && (cpu->efer & EFER_NXE))))
        error |= PF_I;
    return error;
}

static bool set_accessed_dirty(struct vcpu *cpu, const struct shape *shape, const struct walk *w,
                               bool write)
{
    for (unsigned i = 0; i < w->depth; i++) {
        uint64_t bits = PTE_A | (write && i == w->depth - 1 ? PTE_D : 0);
        if ((w->entries[i] & bits) != bits && !update_entry(cpu->machine->mem, w->addresses[i],
                                                            shape->entry_size, w->entries[i], bits))
            return false;
    }
    return true;
}

static void no_paging(const struct vcpu *cpu, uint64_t va, struct translation *out)
{
    *out = (struct translation){.gpa = physmem_a20(cpu->machine->mem, va),
                                .page_size = PAGE_SIZE,
                                .writable = true,
                                .executable = true,
                                .user = true};
}

/* One attempt. Returns 1: translated, 0: fault with *error, -1: an entry changed meanwhile, try
 * again. */
static int walk_once(struct vcpu *cpu, uint64_t va, unsigned access, struct translation *out,
                     uint32_t *error)
{
    const struct shape *shape = !(cpu->cr4 & CR4_PAE)  ? &shape_32
                                : cpu->efer & EFER_LMA ? &shape_4level
                                                       : &shape_pae;
    uint64_t table = cpu->cr3 & (shape == &shape_32 ? 0xfffff000u : PTE_ADDRESS);
    struct walk w = {.depth = 0};
    struct rights r = {true, true, true};
    unsigned shift = 12;
    for (unsigned i = 0; i < shape->levels; i++)
        shift += shape->index_bits[i];

    if (shape == &shape_pae) {
        uint64_t pdpte = cpu->pdpte[va >> 30 & 3];
        if (!(pdpte & PTE_P)) {
            *error = error_code(cpu, access, 0);
            return 0;
        }
        table = pdpte & PTE_ADDRESS;
    }
    for (unsigned level = 0;; level++) {
        unsigned from_bottom = shape->levels - 1u - level;
        shift -= shape->index_bits[level];
        uint64_t index = va >> shift & (BIT64(shape->index_bits[level]) - 1);
        uint64_t address = table + index * shape->entry_size;
        uint64_t entry = read_entry(cpu->machine->mem, address, shape->entry_size);
        w.addresses[level] = address;
        w.entries[level] = entry;
        w.depth = level + 1;
        if (!(entry & PTE_P)) {
            *error = error_code(cpu, access, 0);
            return 0;
        }
        if (entry & reserved_bits(cpu, shape, from_bottom, entry)) {
            *error = error_code(cpu, access, PF_P | PF_RSVD);
            return 0;
        }
        r.writable &= (entry & PTE_RW) != 0;
        r.user &= (entry & PTE_US) != 0;
        r.executable &= !(shape->entry_size == 8 && (cpu->efer & EFER_NXE) && (entry & PTE_NX));
        bool large = (shape->large >> from_bottom & 1) && (entry & PTE_PS) &&
                     (shape != &shape_32 || (cpu->cr4 & CR4_PSE));
        if (from_bottom == 0 || large)
            break;
        table = entry & (shape->entry_size == 4 ? 0xfffff000u : PTE_ADDRESS);
    }

    uint64_t leaf = w.entries[w.depth - 1];
    if (!allowed(cpu, access, r)) {
        *error = error_code(cpu, access, PF_P);
        return 0;
    }
    if (!key_allows(cpu, access, r, leaf)) {
        *error = error_code(cpu, access, PF_P | PF_PK);
        return 0;
    }
    bool write = access & ACCESS_WRITE;
    if (!(access & ACCESS_PROBE)) {
        if (!set_accessed_dirty(cpu, shape, &w, write))
            return -1;
        leaf |= write ? PTE_D : 0;
    }

    uint64_t page_size = BIT64(shift);
    uint64_t frame = leaf & PTE_ADDRESS & ~(page_size - 1);
    if (shape == &shape_32) {
        frame = leaf & 0xffffffffu & ~(page_size - 1);
        if (shift == 22)
            frame = (leaf & 0xffc00000u) | (leaf >> 13 & 0xff) << 32;
    }
    unsigned as_write = (access & (ACCESS_USER | ACCESS_IMPLICIT)) | ACCESS_WRITE;
    unsigned as_fetch = (access & ACCESS_USER) | ACCESS_EXEC;
    *out =
        (struct translation){.gpa = physmem_a20(cpu->machine->mem, frame | (va & (page_size - 1))),
                             .page_size = page_size,
                             .writable = (leaf & PTE_D) && allowed(cpu, as_write, r) &&
                                         key_allows(cpu, as_write, r, leaf),
                             .executable = allowed(cpu, as_fetch, r),
                             .user = r.user,
                             .global = (cpu->cr4 & CR4_PGE) && (leaf & PTE_G)};
    return 1;
}

bool paging_translate(struct vcpu *cpu, uint64_t va, unsigned access, struct translation *out,
                      uint32_t *error)
{
    if (!(cpu->cr0 & CR0_PG)) {
        no_paging(cpu, va, out);
        return true;
    }
    int result;
    do
        result = walk_once(cpu, va, access, out, error);
    while (result < 0);
    return result;
}

bool paging_load_pdptes(struct vcpu *cpu, uint64_t cr3)
{
    uint64_t entries[4];
    const uint64_t reserved = (~(BIT64(cpu->machine->cpuid.phys_bits) - 1)) | UINT64_C(0x1e6);
    for (unsigned i = 0; i < 4; i++) {
        entries[i] = read_entry(cpu->machine->mem, (cr3 & 0xffffffe0u) + 8 * i, 8);
        if ((entries[i] & PTE_P) && (entries[i] & reserved))
            return false;
    }
    memcpy(cpu->pdpte, entries, sizeof entries);
    return true;
}

/* Calls copy() for each page-wise piece of [va, va+len) that is mapped RAM; stops at the first that
 * is not. */
static uint64_t debug_access(struct vcpu *cpu, uint64_t va, void *buf, uint64_t len, bool write)
{
    uint64_t done = 0;
    while (done < len) {
        struct translation t;
        uint32_t error;
        uint64_t piece = MIN(len - done, PAGE_SIZE - ((va + done) & ~PAGE_MASK));
        if (!paging_translate(cpu, va + done, ACCESS_PROBE | ACCESS_READ, &t, &error)) {
            /* A user page under SMAP: the debugger may look all the same. */
            if (!paging_translate(cpu, va + done, ACCESS_PROBE | ACCESS_READ | ACCESS_USER, &t,
                                  &error))
                break;
        }
        struct physmem *mem = cpu->machine->mem;
        uint8_t *at = (uint8_t *)buf + done;
        if (!(write ? physmem_write(mem, t.gpa, at, piece) : physmem_read(mem, t.gpa, at, piece)))
            break;
        done += piece;
    }
    return done;
}

uint64_t paging_debug_read(struct vcpu *cpu, uint64_t va, void *buf, uint64_t len)
{
    return debug_access(cpu, va, buf, len, false);
}

uint64_t paging_debug_write(struct vcpu *cpu, uint64_t va, const void *buf, uint64_t len)
{
    return debug_access(cpu, va, (void *)(uintptr_t)buf, len, true);
}
