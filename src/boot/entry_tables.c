/* GDT and page tables of the state in which a kernel starts. */
#include "boot/layout.h"
#include "boot/loader.h"
#include "cpu/x86.h"

/* Flat segments, accessed; the TSS has base 0 and the smallest limit, for those who look at TR. */
#define GDT_CODE32 0x00cf9b000000ffffull
#define GDT_CODE64 0x00af9b000000ffffull
#define GDT_DATA   0x00cf93000000ffffull
#define GDT_TSS    0x00008b0000000067ull

void entry_tables_build(struct physmem *mem, enum boot_mode mode)
{
    const uint64_t gdt[] = {0, 0, mode == BOOT_LONG ? GDT_CODE64 : GDT_CODE32, GDT_DATA, GDT_TSS};
    physmem_write(mem, BOOT_GDT, gdt, sizeof gdt);

    boot_zero(mem, BOOT_PML4, BOOT_PD + 4 * PAGE_SIZE - BOOT_PML4);
    if (mode != BOOT_LONG)
        return;
    uint64_t pml4e = BOOT_PDPT | PTE_P | PTE_RW;
    physmem_write(mem, BOOT_PML4, &pml4e, sizeof pml4e);
    for (uint64_t gib = 0; gib < 4; gib++) {
        uint64_t pdpte = (BOOT_PD + gib * PAGE_SIZE) | PTE_P | PTE_RW;
        physmem_write(mem, BOOT_PDPT + gib * 8, &pdpte, sizeof pdpte);
        for (uint64_t i = 0; i < 512; i++) {
            uint64_t pde = (gib << 30 | i << 21) | PTE_P | PTE_RW | PTE_PS;
            physmem_write(mem, BOOT_PD + gib * PAGE_SIZE + i * 8, &pde, sizeof pde);
        }
    }
}
