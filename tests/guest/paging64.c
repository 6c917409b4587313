/* 4-level paging: rights of each level, accessed and dirty bits, WP, NX, SMEP, SMAP, reserved bits,
 * 4 KiB, 2 MiB and 1 GiB pages, with the page-fault error code of each.
 * QEMU 7.2 leaves P out of the error code for reserved bits, and lets AC = 1 switch SMAP off for
 * the processor's own accesses too. */
#include "lib/guest.h"

#define VA    0x0000123456789000ul
#define FRAME 0x2000000ul

static u64 *root;
static u64 *pte, *pde, *pdpte, *pml4e;
static const word flag_ac = 1 << 18;

static void set(u64 flags)
{
    *pml4e |= PTE_P | PTE_W | PTE_U;
    *pte = FRAME | flags;
    invlpg(VA);
}

static void show(const char *name)
{
    printf(" %s ", name);
    print_fault();
}

/* Read, write and execute (a RET lies there) at CPL 0 and 3. */
static void all(const char *name)
{
    *(volatile u8 *)FRAME = 0xc3;
    printf("%s:", name);
    TRY("movb (%q0), %%al", "b"(VA));
    show("r0");
    TRY("movb $0xc3, (%q0)", "b"(VA));
    show("w0");
    TRY("call *%q0", "b"(VA));
    show("x0");
    TRY_USER("movb (%q0), %%al", "b"(VA));
    show("r3");
    TRY_USER("movb $0xc3, (%q0)", "b"(VA));
    show("w3");
    TRY_USER("call *%q0", "b"(VA));
    show("x3");
    putchar('\n');
}

static void rights(void)
{
    set(0);
    all("absent");
    set(PTE_P);
    all("P");
    set(PTE_P | PTE_W);
    all("P W");
    set(PTE_P | PTE_U);
    all("P U");
    set(PTE_P | PTE_W | PTE_U);
    all("P W U");
    static const struct {
        u64 **entry;
        const char *name;
    } levels[] = {{&pde, "PDE"}, {&pdpte, "PDPTE"}, {&pml4e, "PML4E"}};
    for (unsigned i = 0; i < ARRAY_SIZE(levels); i++) {
        printf("%s without W, then without U, then absent\n", levels[i].name);
        u64 *e = *levels[i].entry;
        *e &= ~(u64)PTE_W;
        invlpg(VA);
        all("no W");
        *e = (*e | PTE_W) & ~(u64)PTE_U;
        invlpg(VA);
        all("no U");
        *e = (*e | PTE_U) & ~(u64)PTE_P;
        invlpg(VA);
        all("absent");
        *e |= PTE_P;
        invlpg(VA);
    }
    WRITE_CR(0, READ_CR(0) | 0x10000);
    set(PTE_P | PTE_U);
    all("WP, P U");
    set(PTE_P | PTE_W | PTE_NX);
    all("NX reserved while EFER.NXE is clear");
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    set(PTE_P | PTE_W | PTE_U | PTE_NX);
    all("NX");
    set(PTE_P | PTE_W | PTE_U);
    *pde |= PTE_NX;
    invlpg(VA);
    all("NX in the PDE");
    *pde &= ~PTE_NX;
    invlpg(VA);
}

/* Supervisor access to user pages. The guest's own pages are user pages too: make them not. */
static void smep_smap(void)
{
    for (int i = 0; i < 512; i++)
        *pte_of(root, 4, (u64)i << 21, 2) &= ~(u64)PTE_U;
    WRITE_CR(3, READ_CR(3));
    *(volatile u8 *)FRAME = 0xc3;
    set(PTE_P | PTE_W | PTE_U);
    WRITE_CR(4, READ_CR(4) | 1 << 20);
    PROBE("call *%q0", "b"(VA));
    PROBE("mov (%q0), %%al", "b"(VA));
    set(PTE_P | PTE_W);
    PROBE("call *%q0", "b"(VA));
    WRITE_CR(4, (READ_CR(4) & ~(1ul << 20)) | 1 << 21);
    set(PTE_P | PTE_W | PTE_U);
    PROBE("mov (%q0), %%al", "b"(VA));
    PROBE("mov %%al, (%q0)", "b"(VA));
    PROBE("call *%q0", "b"(VA));
    PROBE("stac; mov (%q0), %%al; clac; mov (%q0), %%al", "b"(VA));
    PROBE("pushf; orl %k1, (%%rsp); popf; mov (%q0), %%al", "b"(VA), "c"(flag_ac));
    /* The processor's own accesses are checked whatever AC is: a local descriptor table in a user
     * page. */
    *(volatile u64 *)FRAME = segment(0, 0xfffff, SEG_DATA | 1 | SEG_BIG | SEG_GRAN);
    set_segment(SEL_FREE, (u32)VA, 0xfff, SEG_LDT);
    gdt[(SEL_FREE >> 3) + 1] = VA >> 32;
    PROBE("lldt %w0; stac; mov %1, %%es", "b"(SEL_FREE), "c"(4));
    WRITE_CR(4, READ_CR(4) & ~(1ul << 21));
    for (int i = 0; i < 512; i++)
        *pte_of(root, 4, (u64)i << 21, 2) |= PTE_U;
    WRITE_CR(3, READ_CR(3));
    PROBE_USER("stac");
}

static unsigned bits(u64 e)
{
    return (unsigned)(e >> 5 & 3);
}

static void accessed_dirty(void)
{
    *pml4e &= ~(u64)PTE_A;
    *pdpte &= ~(u64)PTE_A;
    *pde &= ~(u64)PTE_A;
    set(PTE_P | PTE_W | PTE_U);
    WRITE_CR(3, READ_CR(3));
    printf("A D before: PML4E %u PDPTE %u PDE %u PTE %u\n", bits(*pml4e), bits(*pdpte), bits(*pde),
           bits(*pte));
    *(volatile u8 *)VA;
    printf("after a read: PML4E %u PDPTE %u PDE %u PTE %u\n", bits(*pml4e), bits(*pdpte),
           bits(*pde), bits(*pte));
    *(volatile u8 *)VA = 1;
    printf("after a write: PML4E %u PDPTE %u PDE %u PTE %u\n", bits(*pml4e), bits(*pdpte),
           bits(*pde), bits(*pte));
    set(PTE_P | PTE_U);
    TRY("movb $1, (%q0)", "b"(VA));
    printf("a write that faults: D %u\n", bits(*pte) >> 1);
    *pte = 0;
    set(PTE_P | PTE_W | PTE_U);
    TRY("mov $1, %%eax; xor %%ecx, %%ecx; lock; cmpxchg %%ecx, (%q0)", "b"(VA));
    printf("CMPXCHG that fails: A D %u\n", bits(*pte));
}

static void reserved(void)
{
    static const struct {
        const char *name;
        u64 **entry;
        u64 bit;
    } cases[] = {{"PTE 51", &pte, 1ul << 51},
                 {"PDE 51", &pde, 1ul << 51},
                 {"PDPTE 51", &pdpte, 1ul << 51},
                 {"PML4E 51", &pml4e, 1ul << 51},
                 {"PML4E PS", &pml4e, PTE_PS}};
    set(PTE_P | PTE_W | PTE_U);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        u64 old = **cases[i].entry;
        **cases[i].entry |= cases[i].bit;
        invlpg(VA);
        printf("%s: ", cases[i].name);
        PROBE("mov (%q0), %%al", "b"(VA));
        **cases[i].entry = old;
    }
    const u64 old = *pde;
    *pde = FRAME | 0x3000 | PTE_PS | PTE_P | PTE_W | PTE_U;
    invlpg(VA);
    PROBE("mov (%q0), %%al", "b"(VA));
    *pde = old;
    invlpg(VA);
}

static void sizes(void)
{
    const u64 old_pde = *pde, old_pdpte = *pdpte;
    *pde = (FRAME & ~0x1ffffful) | PTE_PS | PTE_P | PTE_W | PTE_U;
    invlpg(VA);
    *(volatile u32 *)VA = 0x22222222;
    check("2 MiB page", *(u32 *)((FRAME & ~0x1ffffful) + (VA & 0x1fffff)) == 0x22222222);
    printf("its A D: %u\n", bits(*pde));
    if (cpuid(0x80000001, 0).d >> 26 & 1) {
        *pdpte = PTE_PS | PTE_P | PTE_W | PTE_U; /* physical 0 */
        invlpg(VA);
        const u64 at = (VA & ~0x3ffffffful) + FRAME;
        *(volatile u32 *)at = 0x33333333;
        check("1 GiB page", *(u32 *)FRAME == 0x33333333);
        *pdpte = old_pdpte;
    }
    *pde = old_pde;
    WRITE_CR(3, READ_CR(3));
    /* An access across two pages of which the second is absent reports the second's address. */
    set(PTE_P | PTE_W | PTE_U);
    PROBE("mov 0xffe(%q0), %%eax", "b"(VA));
    *(volatile u16 *)(FRAME + 0xffe) = 0xaaaa;
    PROBE("movl $0x55555555, 0xffe(%q0)", "b"(VA));
    printf("nothing written: %x\n", *(u16 *)(FRAME + 0xffe));
    *(u8 *)(FRAME + 0xfff) = 0xb8; /* MOV EAX, imm32 */
    TRY("lea 0xfff(%q0), %%rax; jmp *%%rax", "b"(VA));
    puts("an instruction across pages: ");
    print_fault();
    putchar('\n');
}

void guest_main(void)
{
    root = (u64 *)READ_CR(3);
    pte = pte_of(root, 4, VA, 1);
    pde = pte_of(root, 4, VA, 2);
    pdpte = pte_of(root, 4, VA, 3);
    pml4e = pte_of(root, 4, VA, 4);
    rights();
    accessed_dirty();
    reserved();
    sizes();
    smep_smap();
}
