/* The page-table walk, as tables of cases: each builds one translation, asks for one access, and
 * says what comes of it. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cpu/machine.h"
#include "cpu/paging.h"

#define ROOT  UINT64_C(0x10000) /* tables lie at ROOT, ROOT + 4 KiB, ... from the top down */
#define FRAME UINT64_C(0x800000)
#define OK    (~UINT32_C(0))
#define P     PTE_P
#define W     PTE_RW
#define U     PTE_US
#define NX    PTE_NX
#define READ  ACCESS_READ
#define WRITE ACCESS_WRITE
#define EXEC  ACCESS_EXEC
#define USER  ACCESS_USER

enum mode { MODE_32, MODE_PAE, MODE_4LEVEL };

struct test {
    enum mode mode;
    uint64_t upper, leaf; /* flags of the directory entry above the leaf, and of the leaf */
    uint64_t cr0, cr4, efer;
    uint32_t flags, pkru;
    unsigned access;
    uint32_t error; /* OK, or the page fault's error code */
};

static const struct test tests[] = {
    /* User/supervisor and read/write over both levels. */
    {MODE_32, P | W | U, P | W | U, 0, 0, 0, 0, 0, USER | WRITE, OK},
    {MODE_32, P | W, P | W | U, 0, 0, 0, 0, 0, USER, PF_P | PF_U},
    {MODE_32, P | W | U, P | W, 0, 0, 0, 0, 0, USER | WRITE, PF_P | PF_U | PF_W},
    {MODE_32, P | U, P | W | U, 0, 0, 0, 0, 0, USER | WRITE, PF_P | PF_U | PF_W},
    {MODE_32, P | U, P | U, 0, 0, 0, 0, 0, WRITE, OK},
    {MODE_32, P | U, P | W | U, CR0_WP, 0, 0, 0, 0, WRITE, PF_P | PF_W},
    {MODE_32, P | W | U, P | U, CR0_WP, 0, 0, 0, 0, USER, OK},
    /* Not present says nothing of what else is wrong. */
    {MODE_32, 0, P | W | U, 0, 0, 0, 0, 0, USER | WRITE, PF_U | PF_W},
    {MODE_32, P | W | U, W | U, 0, 0, 0, 0, 0, READ, 0},
    {MODE_4LEVEL, P | W | U, BIT64(45), 0, 0, EFER_NXE, 0, 0, USER | EXEC, PF_U | PF_I},
    /* 32-bit pages know no execute right: I only with SMEP. */
    {MODE_32, P | W | U, 0, 0, 0, 0, 0, 0, EXEC, 0},
    {MODE_32, P | W | U, 0, 0, CR4_SMEP, 0, 0, 0, EXEC, PF_I},
    /* Reserved bits. */
    {MODE_PAE, P | W | U, P | BIT64(45), 0, 0, 0, 0, 0, READ, PF_P | PF_RSVD},
    {MODE_PAE, P | W | U, P | BIT64(60), 0, 0, EFER_NXE, 0, 0, READ, PF_P | PF_RSVD},
    {MODE_4LEVEL, P | W | U, P | BIT64(60), 0, 0, EFER_NXE, 0, 0, READ, OK},
    {MODE_4LEVEL, P | W | U | BIT64(45), P, 0, 0, 0, 0, 0, USER, PF_P | PF_RSVD | PF_U},
    {MODE_4LEVEL, P | W | U, P | NX, 0, 0, 0, 0, 0, READ, PF_P | PF_RSVD},
    {MODE_4LEVEL, P | W | U | NX, P, 0, 0, 0, 0, 0, EXEC, PF_P | PF_RSVD},
    /* No execute. */
    {MODE_4LEVEL, P | W | U, P | NX, 0, 0, EFER_NXE, 0, 0, READ, OK},
    {MODE_4LEVEL, P | W | U, P | NX, 0, 0, EFER_NXE, 0, 0, EXEC, PF_P | PF_I},
    {MODE_4LEVEL, P | W | U | NX, P | U, 0, 0, EFER_NXE, 0, 0, EXEC | USER, PF_P | PF_I | PF_U},
    {MODE_PAE, P | W | U, P | NX, 0, 0, EFER_NXE, 0, 0, EXEC, PF_P | PF_I},
    /* SMEP and SMAP. */
    {MODE_4LEVEL, P | W | U, P | U, 0, 0, 0, 0, 0, EXEC, OK},
    {MODE_4LEVEL, P | W | U, P | U, 0, CR4_SMEP, 0, 0, 0, EXEC, PF_P | PF_I},
    {MODE_4LEVEL, P | W, P | U, 0, CR4_SMEP, 0, 0, 0, EXEC, OK},
    {MODE_4LEVEL, P | W | U, P | U, 0, CR4_SMEP, 0, 0, 0, EXEC | USER, OK},
    {MODE_4LEVEL, P | W | U, P | U, 0, CR4_SMAP, 0, 0, 0, READ, PF_P},
    {MODE_4LEVEL, P | W | U, P | W | U, 0, CR4_SMAP, 0, 0, 0, WRITE, PF_P | PF_W},
    {MODE_4LEVEL, P | W | U, P | U, 0, CR4_SMAP, 0, FLAG_AC, 0, READ, OK},
    {MODE_4LEVEL, P | W | U, P | U, 0, CR4_SMAP, 0, FLAG_AC, 0, ACCESS_IMPLICIT, PF_P},
    {MODE_4LEVEL, P | W | U, P | U, 0, CR4_SMAP, 0, 0, 0, USER, OK},
    {MODE_4LEVEL, P | W | U, P, 0, CR4_SMAP, 0, 0, 0, READ, OK},
    /* Protection keys: key 1 in bits 62..59, PKRU bit 2 no access, bit 3 no writes. */
    {MODE_4LEVEL, P | W | U, P | W | U | BIT64(59), 0, CR4_PKE, 0, 0, 4, USER, PF_P | PF_U | PF_PK},
    {MODE_4LEVEL, P | W | U, P | W | U | BIT64(59), 0, CR4_PKE, 0, 0, 4, EXEC | USER, OK},
    {MODE_4LEVEL, P | W | U, P | W | U | BIT64(59), 0, CR4_PKE, 0, 0, 8, USER, OK},
    {MODE_4LEVEL, P | W | U, P | W | U | BIT64(59), 0, CR4_PKE, 0, 0, 8, USER | WRITE,
     PF_P | PF_U | PF_W | PF_PK},
    {MODE_4LEVEL, P | W | U, P | W | U | BIT64(59), 0, CR4_PKE, 0, 0, 8, WRITE, OK},
    {MODE_4LEVEL, P | W | U, P | W | U | BIT64(59), CR0_WP, CR4_PKE, 0, 0, 8, WRITE,
     PF_P | PF_W | PF_PK},
    {MODE_4LEVEL, P | W, P | W | U | BIT64(59), 0, CR4_PKE, 0, 0, 4, WRITE, OK},
    {MODE_4LEVEL, P | W | U, P | W | U | BIT64(59), 0, 0, 0, 0, 4, USER, OK},
};

static struct machine m;
static struct vcpu cpu;

static void put(uint64_t gpa, unsigned size, uint64_t value)
{
    CHECK(physmem_write(m.mem, gpa, &value, size));
}

static uint64_t get(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    CHECK(physmem_read(m.mem, gpa, &value, size));
    return value;
}

/* Map linear 0 by entries number 0; returns where the leaf is. `levels` down to the leaf. */
static uint64_t build(enum mode mode, unsigned levels, uint64_t upper, uint64_t leaf)
{
    unsigned size = mode == MODE_32 ? 4 : 8;
    for (unsigned i = 0; i + 1 < levels; i++)
        put(ROOT + i * PAGE_SIZE, size,
            (ROOT + (i + 1) * PAGE_SIZE) | (i + 2 == levels ? upper : P | W | U));
    uint64_t at = ROOT + (levels - 1) * PAGE_SIZE;
    put(at, size, leaf);
    return at;
}

static void set_mode(const struct test *t)
{
    cpu.cr0 = CR0_PE | CR0_PG | t->cr0;
    cpu.cr4 = t->cr4 | (t->mode == MODE_32 ? 0 : CR4_PAE);
    cpu.efer = t->efer | (t->mode == MODE_4LEVEL ? EFER_LME | EFER_LMA : 0);
    cpu.rflags = FLAG_ONE | t->flags;
    cpu.fpu.pkru = t->pkru;
    cpu.cr3 = ROOT;
    cpu.pdpte[0] = ROOT | P;
}

static void rights(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
        const struct test *t = &tests[i];
        struct translation out;
        uint32_t error = OK;
        set_mode(t);
        unsigned size = t->mode == MODE_32 ? 4 : 8;
        uint64_t at = build(t->mode, t->mode == MODE_4LEVEL ? 4 : 2, t->upper, FRAME | t->leaf);
        bool good = paging_translate(&cpu, 0x123, t->access, &out, &error);
        if ((good ? OK : error) != t->error)
            fprintf(stderr, "case %u: error %x instead of %x\n", i, good ? OK : error, t->error);
        CHECK((good ? OK : error) == t->error);
        uint64_t leaf = get(at, size);
        if (good) {
            CHECK(out.gpa == FRAME + 0x123 && out.page_size == PAGE_SIZE);
            CHECK(leaf & PTE_A);
            CHECK(!!(leaf & PTE_D) == !!(t->access & WRITE));
        } else {
            CHECK(!(leaf & (PTE_A | PTE_D)));
        }
    }
}

/* Large pages: what size they have, and which address bits are reserved. */
static void large(void)
{
    static const struct {
        enum mode mode;
        unsigned levels;
        uint64_t cr4, leaf, va, gpa, page_size;
        uint32_t error;
    } cases[] = {
        {MODE_32, 1, CR4_PSE, 0x400000 | PTE_PS, 0x3fffff, 0x7fffff, 4 << 20, OK},
        {MODE_32, 1, CR4_PSE, 0x400000 | PTE_PS | BIT64(13), 0, 0x100400000, 4 << 20, OK},
        {MODE_32, 1, CR4_PSE, 0x400000 | PTE_PS | BIT64(21), 0, 0, 0, PF_P | PF_RSVD},
        {MODE_PAE, 1, 0, 0x400000 | PTE_PS, 0x1fffff, 0x5fffff, 2 << 20, OK},
        {MODE_PAE, 1, 0, 0x400000 | PTE_PS | BIT64(13), 0, 0, 0, PF_P | PF_RSVD},
        {MODE_PAE, 1, 0, 0x400000 | PTE_PS | BIT64(12), 0, 0x400000, 2 << 20, OK}, /* PAT */
        {MODE_4LEVEL, 3, 0, 0x400000 | PTE_PS, 0x1fffff, 0x5fffff, 2 << 20, OK},
        {MODE_4LEVEL, 2, 0, 0x40000000 | PTE_PS, 0x3fffffff, 0x7fffffff, 1 << 30, OK},
        {MODE_4LEVEL, 2, 0, 0x40000000 | PTE_PS | BIT64(29), 0, 0, 0, PF_P | PF_RSVD},
        {MODE_4LEVEL, 1, 0, 0x40000000 | PTE_PS, 0, 0, 0, PF_P | PF_RSVD},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct test t = {.mode = cases[i].mode, .cr4 = cases[i].cr4};
        struct translation out;
        uint32_t error = OK;
        set_mode(&t);
        build(t.mode, cases[i].levels, P | W | U, cases[i].leaf | P | W);
        bool good = paging_translate(&cpu, cases[i].va, READ, &out, &error);
        CHECK((good ? OK : error) == cases[i].error);
        if (good)
            CHECK(out.gpa == cases[i].gpa && out.page_size == cases[i].page_size);
    }
    /* Without CR4.PSE the bit means nothing: a page table. */
    struct test t = {.mode = MODE_32};
    struct translation out;
    uint32_t error;
    set_mode(&t);
    build(MODE_32, 2, P | W | PTE_PS, FRAME | P);
    CHECK(paging_translate(&cpu, 0, READ, &out, &error) && out.gpa == FRAME);
    /* Without pages of 1 GiB in CPUID theirs is reserved. */
    t.mode = MODE_4LEVEL;
    set_mode(&t);
    build(MODE_4LEVEL, 2, P | W | U, 0x40000000 | PTE_PS | P);
    m.cpuid.leaves[0].edx = 0;
    CHECK(!paging_translate(&cpu, 0, READ, &out, &error) && error == (PF_P | PF_RSVD));
    m.cpuid.leaves[0].edx = BIT(26);
}

static void other(void)
{
    struct test t = {.mode = MODE_4LEVEL};
    struct translation out;
    uint32_t error;
    set_mode(&t);
    /* A probe leaves no trace; a read says whether a write needs a walk of its own for D. */
    uint64_t at = build(MODE_4LEVEL, 4, P | W, FRAME | P | W);
    CHECK(paging_translate(&cpu, 0, WRITE | ACCESS_PROBE, &out, &error));
    CHECK(get(at, 8) == (FRAME | P | W));
    CHECK(paging_translate(&cpu, 0, READ, &out, &error) && !out.writable);
    CHECK(paging_translate(&cpu, 0, WRITE, &out, &error) && out.writable);
    CHECK(get(ROOT, 8) & PTE_A);
    /* A table outside RAM reads as all ones: reserved bits. */
    put(ROOT, 8, UINT64_C(0xff000000) << 4 | P | W);
    CHECK(!paging_translate(&cpu, 0, READ, &out, &error) && error == (PF_P | PF_RSVD));

    /* PDPTEs are checked when they are loaded, and then used from registers. */
    t.mode = MODE_PAE;
    set_mode(&t);
    put(0x5000, 8, ROOT | P);
    for (unsigned i = 1; i < 4; i++)
        put(0x5000 + 8 * i, 8, 0);
    CHECK(paging_load_pdptes(&cpu, 0x5000) && cpu.pdpte[0] == (ROOT | P));
    put(0x5000, 8, ROOT | P | W);
    CHECK(!paging_load_pdptes(&cpu, 0x5000) && cpu.pdpte[0] == (ROOT | P));
    put(0x5000, 8, W); /* not present: nothing is reserved */
    CHECK(paging_load_pdptes(&cpu, 0x5000));
    CHECK(!paging_translate(&cpu, 0, READ, &out, &error) && error == 0);
}

int main(void)
{
    struct tv_error err = {0};
    m.mem = physmem_create(UINT64_C(16) << 20, false, &err);
    m.cpuid.phys_bits = 40;
    m.cpuid.leaves[0] = (struct cpuid_leaf){.leaf = 0x80000001, .edx = BIT(26)};
    m.cpuid.count = 1;
    cpu.machine = &m;
    rights();
    large();
    other();
    physmem_destroy(m.mem);
    return check_result();
}
