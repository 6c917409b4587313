/* What a cached translation must not outlive: INVLPG, MOV CR3, CR4.PGE, INVPCID; that global pages
 * survive MOV CR3 only until INVLPG; address spaces by PCID; rights that grow need no flush. Only
 * what the architecture promises is looked at: a stale translation may or may not be there.
 * QEMU 7.2 offers no PCID and no INVPCID under TCG: the lines from there on are missing. */
#include "lib/guest.h"

#define VA 0x0000200000000000ul

static u8 frames[2][4096] __attribute__((aligned(4096)));
static u64 *root, *pte;

static u8 see(void)
{
    return *(volatile u8 *)VA;
}

static void map(int n, u64 flags)
{
    *(volatile u64 *)pte = (word)frames[n] | PTE_P | PTE_W | flags;
}

static void invpcid(u64 type, u64 pcid, u64 address)
{
    const u64 d[2] = {pcid, address};
    asm volatile("invpcid (%0), %1" : : "r"(d), "r"(type) : "memory");
}

static void flush_all(void)
{
    WRITE_CR(4, READ_CR(4) ^ 0x80);
    WRITE_CR(4, READ_CR(4) ^ 0x80);
}

/* Fill the TLB with frame 0, switch to frame 1, do `flush`, and see frame 1. */
#define FLUSHED(name, global, flush)                                                               \
    do {                                                                                           \
        map(0, global);                                                                            \
        flush_all();                                                                               \
        see();                                                                                     \
        map(1, global);                                                                            \
        flush;                                                                                     \
        check(name, see() == 1);                                                                   \
    } while (0)

/* All 512 parts of a large page, of which each has a number in its first byte, plus `added`. */
static bool parts_are(u64 large, u8 added)
{
    bool good = true;
    for (unsigned i = 0; i < 512; i++)
        good &= *(volatile u8 *)(large + ((u64)i << 12)) == (u8)(i + added);
    return good;
}

/* What was used of a large page changes with the whole of it. */
static void large_pages(void)
{
    const u64 large = VA + (2ul << 30), at[2] = {8 << 20, 10 << 20};
    volatile u64 *pde = pte_of(root, 4, large, 2);
    for (unsigned n = 0; n < 2; n++)
        for (unsigned i = 0; i < 512; i++)
            *(u8 *)(at[n] + ((u64)i << 12)) = (u8)(i + n);
    *pde = at[0] | PTE_P | PTE_W | PTE_PS;
    bool good = parts_are(large, 0);
    check("reading a large page sets A, not D", good && (*pde & (PTE_A | PTE_D)) == PTE_A);
    *(volatile u8 *)(large + 0x7001) = 1;
    check("writing another part sets D", *pde & PTE_D);
    *pde = at[1] | PTE_P | PTE_W | PTE_PS;
    invlpg(large + 0x1ff000);
    check("INVLPG of its last part drops all of them", parts_are(large, 1));
    *pde = at[0] | PTE_P | PTE_PS;
    WRITE_CR(3, READ_CR(3));
    good = parts_are(large, 0);
    TRY("movb $0, (%q0)", "b"(large + 0x9000));
    check("MOV CR3, and it is read-only", good && fault.vector == 14 && fault.error == 3);
    *pde = at[1] | PTE_P | PTE_W | PTE_PS | PTE_G;
    invlpg(large);
    good = parts_are(large, 1);
    *pde = 0;
    WRITE_CR(3, READ_CR(3));
    invlpg(large + 0x3000);
    TRY("mov (%q0), %%al", "b"(large + 0x4000));
    check("a global one goes with INVLPG", good && fault.vector == 14 && fault.error == 0);
}

static u32 version_at(u64 page)
{
    return *(volatile u32 *)(page + APIC_VERSION);
}

/* Pages of devices are cached as well: here the local APIC's, by its own address and through VA.
 * Its registers also go where IA32_APIC_BASE puts them, and what was there comes back. */
static void device_pages(void)
{
    u32 version = version_at(0xfee00000), ram = 0x12345678;
    u64 base = rdmsr(0x1b);
    *(u32 *)(frames[1] + APIC_VERSION) = ram;
    *(volatile u64 *)pte = 0xfee00000 | PTE_P | PTE_W;
    flush_all();
    bool good = version_at(VA) == version;
    map(1, 0);
    invlpg(VA);
    check("INVLPG of a device's page", good && version_at(VA) == ram);
    *(volatile u64 *)pte = 0xfee00000 | PTE_P | PTE_W;
    invlpg(VA);
    good = version_at(VA) == version;
    map(1, 0);
    WRITE_CR(3, READ_CR(3));
    check("MOV CR3 and a device's page", good && version_at(VA) == ram);
    *(volatile u64 *)pte = 0xfee00000 | PTE_P;
    flush_all();
    good = version_at(VA) == version;
    TRY("movl $0, (%q0)", "r"(VA + APIC_TPR));
    check("a device's page that was only read is still read-only", good && fault.vector == 14);
    wrmsr(0x1b, (base & 0xfff) | (word)frames[1]);
    check("the local APIC over RAM that was used", version_at((word)frames[1]) == version);
    wrmsr(0x1b, base);
    check("the RAM again", version_at((word)frames[1]) == ram && version_at(0xfee00000) == version);
}

void guest_main(void)
{
    root = (u64 *)READ_CR(3);
    pte = pte_of(root, 4, VA, 1);
    frames[1][0] = 1;
    FLUSHED("INVLPG", 0, invlpg(VA));
    FLUSHED("INVLPG of another byte of the page", 0, invlpg(VA + 0xfff));
    FLUSHED("MOV CR3", 0, WRITE_CR(3, READ_CR(3)));
    FLUSHED("INVLPG of a global page", PTE_G, invlpg(VA));
    FLUSHED("CR4.PGE", PTE_G, flush_all());
    FLUSHED("CR4.PSE does no harm, INVLPG", 0, (WRITE_CR(4, READ_CR(4) ^ 0x10), invlpg(VA)));

    /* A page directory's entry, through INVLPG of an address below it. */
    u64 *pde = pte_of(root, 4, VA, 2);
    u64 *other = page_alloc();
    other[0] = (word)frames[1] | PTE_P | PTE_W;
    map(0, 0);
    flush_all();
    see();
    const u64 old = *pde;
    *(volatile u64 *)pde = (word)other | PTE_P | PTE_W | PTE_U;
    invlpg(VA);
    check("INVLPG drops paging-structure caches", see() == 1);
    *(volatile u64 *)pde = old;
    WRITE_CR(3, READ_CR(3));
    check("and MOV CR3", see() == 0);

    /* Not present to present, and more rights, need no invalidation: a fault looks again. */
    *(volatile u64 *)pte = 0;
    invlpg(VA);
    TRY("mov (%q0), %%al", "b"(VA));
    check("absent", fault.vector == 14);
    map(1, 0);
    check("absent to present", see() == 1);
    WRITE_CR(0, READ_CR(0) | 0x10000);
    *(volatile u64 *)pte = (word)frames[0] | PTE_P;
    invlpg(VA);
    see();
    TRY("movb $0, (%q0)", "b"(VA));
    check("read-only", fault.vector == 14 && fault.error == 3);
    map(0, 0);
    TRY("movb $0, (%q0)", "b"(VA));
    if (fault.vector == 14) /* a spurious fault is allowed once */
        TRY("movb $0, (%q0)", "b"(VA));
    check("read-only to writable", fault.vector == VECTOR_NONE);
    /* WP itself takes effect at once. */
    *(volatile u64 *)pte = (word)frames[0] | PTE_P;
    invlpg(VA);
    see();
    WRITE_CR(0, READ_CR(0) & ~0x10000ul);
    TRY("movb $0, (%q0)", "b"(VA));
    check("WP off", fault.vector == VECTOR_NONE);
    WRITE_CR(0, READ_CR(0) | 0x10000);
    TRY("movb $0, (%q0)", "b"(VA));
    check("WP on", fault.vector == 14);
    large_pages();
    device_pages();
    WRITE_CR(0, READ_CR(0) & ~0x10000ul);

    const bool pcid = cpuid(1, 0).c >> 17 & 1;
    if (pcid) {
        u64 *second = page_alloc();
        memcpy(second, root, 4096);
        second[VA >> 39 & 511] = 0;
        *pte_of(second, 4, VA, 1) = (word)frames[1] | PTE_P | PTE_W;
        map(0, 0);
        const word a = READ_CR(3);
        WRITE_CR(4, READ_CR(4) | 1 << 17);
        WRITE_CR(3, a | 1);
        bool good = see() == 0;
        WRITE_CR(3, (word)second | 2);
        good &= see() == 1;
        WRITE_CR(3, a | 1 | 1ul << 63);
        good &= see() == 0;
        WRITE_CR(3, (word)second | 2 | 1ul << 63);
        good &= see() == 1;
        check("PCIDs keep spaces apart", good);
        WRITE_CR(3, a | 1);
        see();
        map(1, 0);
        WRITE_CR(3, (word)second | 2 | 1ul << 63);
        WRITE_CR(3, a | 1); /* without bit 63: flushes PCID 1 */
        check("MOV CR3 flushes the PCID it loads", see() == 1);
        /* INVLPG of one address drops all of a large page, also of a space that was away meanwhile.
         */
        const u64 large = VA + (1ul << 30), at[2] = {8 << 20, 10 << 20};
        volatile u64 *large_pde = pte_of(root, 4, large, 2), *word_there = (u64 *)(large + 0x5000);
        for (unsigned i = 0; i < 2; i++)
            *(u64 *)(at[i] + 0x5000) = i;
        *large_pde = at[0] | PTE_P | PTE_W | PTE_PS;
        WRITE_CR(3, a | 1);
        good = *word_there == 0;
        WRITE_CR(3, (word)second | 2);
        see();
        WRITE_CR(3, a | 1 | 1ul << 63);
        *large_pde = at[1] | PTE_P | PTE_W | PTE_PS;
        invlpg(large);
        check("INVLPG of a large page after another PCID", good && *word_there == 1);
        printf("CR3 reads without bit 63: %lx\n", READ_CR(3) >> 63);
        if (cpuid(7, 0).b >> 10 & 1) {
            FLUSHED("INVPCID of an address", 0, invpcid(0, 1, VA));
            FLUSHED("INVPCID of a PCID", 0, invpcid(1, 1, 0));
            FLUSHED("INVPCID of all but global", 0, invpcid(3, 0, 0));
            FLUSHED("INVPCID of all", PTE_G, invpcid(2, 0, 0));
            const u64 bad[2] = {0x1000, 0};
            TRY("invpcid (%q0), %q1", "b"(bad), "c"(4ul));
            check("INVPCID type 4", fault.vector == 13);
            TRY("invpcid (%q0), %q1", "b"(bad), "c"(0ul));
            check("INVPCID reserved bits", fault.vector == 13);
        }
        TRY("mov %q0, %%cr4", "r"(READ_CR(4) & ~(1ul << 17)));
        check("PCIDE may be cleared with PCID 1", fault.vector == VECTOR_NONE);
        WRITE_CR(3, a | 1 << 3);
        TRY("mov %q0, %%cr4", "r"(READ_CR(4) | 1ul << 17));
        check("PCIDE is set with low bits in CR3", fault.vector == 13);
    }
}
