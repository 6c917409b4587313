/* The paging modes of 32-bit protected mode: two levels with 4 KiB and 4 MiB pages, PAE with 2 MiB
 * pages; rights, accessed and dirty bits, loading of the PAE directory pointers.
 * QEMU 7.2 leaves P out of the error code for reserved bits and reads the pointers at each walk. */
#include "lib/guest.h"

#define VA    0x40123000u
#define FRAME 0x1000000u

static void two_levels(void)
{
    u32 *root = page_alloc();
    for (u32 at = 0; at < 0x2000000; at += 0x400000)
        root[at >> 22] = at | PTE_PS | PTE_P | PTE_W | PTE_U;
    volatile u32 *pte = pte32_of(root, VA, 1), *pde = pte32_of(root, VA, 2);
    *pte = FRAME | PTE_P | PTE_W;
    WRITE_CR(4, READ_CR(4) | 0x10);
    WRITE_CR(3, root);
    WRITE_CR(0, READ_CR(0) | 0x80000000);
    *(volatile u32 *)FRAME = 0x12345678;
    printf("4 KiB: %x", *(volatile u32 *)VA);
    printf(", A D: PDE %x PTE %x", *pde >> 5 & 1, *pte >> 5 & 3);
    *(volatile u32 *)VA = 1;
    printf(", after a write %x\n", *pte >> 5 & 3);
    PROBE_USER("mov (%0), %%al", "b"(VA));
    *pte |= PTE_U;
    invlpg(VA);
    PROBE_USER("mov (%0), %%al; mov %%al, (%0)", "b"(VA));
    *pte &= ~(u32)PTE_W;
    invlpg(VA);
    PROBE_USER("mov %%al, (%0)", "b"(VA));
    PROBE("mov %%al, (%0)", "b"(VA));
    WRITE_CR(0, READ_CR(0) | 0x10000);
    PROBE("mov %%al, (%0)", "b"(VA));
    WRITE_CR(0, READ_CR(0) & ~0x10000ul);
    *pte = 0;
    invlpg(VA);
    PROBE("mov %%al, (%0)", "b"(VA));
    const u32 old = *pde;
    *pde = (FRAME & 0xffc00000) | PTE_PS | PTE_P | PTE_W;
    invlpg(VA);
    *(volatile u32 *)VA = 0x4444;
    check("4 MiB page", *(volatile u32 *)((FRAME & 0xffc00000) + (VA & 0x3fffff)) == 0x4444);
    printf("its A D: %x\n", *pde >> 5 & 3);
    *pde |= 1 << 21; /* reserved: bit 21 */
    invlpg(VA);
    PROBE("mov (%0), %%al", "b"(VA));
    *pde = old;
    invlpg(VA);
    WRITE_CR(0, READ_CR(0) & 0x7fffffff);
    WRITE_CR(4, READ_CR(4) & ~0x10ul);
}

static void pae(void)
{
    u64 *root = page_alloc();
    for (u32 at = 0; at < 0x2000000; at += 0x200000)
        *pte_of(root, 3, at, 2) = at | PTE_PS | PTE_P | PTE_W | PTE_U;
    volatile u64 *pte = pte_of(root, 3, VA, 1), *pde = pte_of(root, 3, VA, 2);
    *pte = FRAME | PTE_P | PTE_W | PTE_U;
    WRITE_CR(4, READ_CR(4) | 0x20);
    WRITE_CR(3, root);
    WRITE_CR(0, READ_CR(0) | 0x80000000);
    *(volatile u32 *)FRAME = 0xcafe;
    printf("PAE 4 KiB: %x", *(volatile u32 *)VA);
    printf(", A D: PDE %x PTE %x\n", (u32)*pde >> 5 & 1, (u32)*pte >> 5 & 3);
    *pte |= PTE_NX;
    invlpg(VA);
    PROBE("mov (%0), %%al", "b"(VA)); /* NXE clear: reserved */
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
    PROBE("mov (%0), %%al", "b"(VA));
    PROBE("call *%0", "b"(VA));
    PROBE_USER("call *%0", "b"(VA));
    const u64 old = *pde;
    *pde = (FRAME & 0xffe00000) | PTE_PS | PTE_P | PTE_W;
    invlpg(VA);
    *(volatile u32 *)VA = 0x2222;
    check("2 MiB page", *(volatile u32 *)((FRAME & 0xffe00000) + (VA & 0x1fffff)) == 0x2222);
    *pde = old;
    invlpg(VA);
    /* The pointers are registers: memory counts when CR3 is loaded. */
    *pte = FRAME | PTE_P | PTE_W;
    const u64 pointer = root[1];
    root[1] = 0;
    invlpg(VA);
    PROBE("mov (%0), %%al", "b"(VA));
    WRITE_CR(3, root);
    PROBE("mov (%0), %%al", "b"(VA));
    root[1] = pointer | PTE_W; /* reserved in a pointer: #GP at the load */
    PROBE("mov %0, %%cr3", "r"(root));
    root[1] = pointer;
    PROBE("mov %0, %%cr3", "r"(root));
    WRITE_CR(0, READ_CR(0) & 0x7fffffff);
    WRITE_CR(4, READ_CR(4) & ~0x20ul);
}

void guest_main(void)
{
    two_levels();
    pae();
}
