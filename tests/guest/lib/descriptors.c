#include "guest.h"

u64 gdt[GDT_ENTRIES] __attribute__((aligned(16)));
struct tss_area tss_area __attribute__((aligned(4096)));

u64 segment(u32 base, u32 limit, u32 access)
{
    return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
           (u64)(limit >> 16 & 15) << 48 | (u64)(base >> 24) << 56;
}

u64 gate32(u16 selector, u32 offset, u8 type, u8 parameters)
{
    return (offset & 0xffff) | (u64)selector << 16 | (u64)parameters << 32 | (u64)type << 40 |
           (u64)(offset >> 16) << 48;
}

void set_segment(u16 selector, u32 base, u32 limit, u32 access)
{
    gdt[selector >> 3] = segment(base, limit, access);
}

void set_gate(void *gate, u16 selector, void *offset, u8 type, u8 ist)
{
    u64 *g = gate;
    g[0] = gate32(selector, (u32)(word)offset, type, ist);
#ifdef __x86_64__
    g[1] = (word)offset >> 32;
#endif
}

void load_gdt(void)
{
    const u32 code =
        sizeof(word) == 8 ? SEG_CODE | SEG_LONG | SEG_GRAN : SEG_CODE | SEG_BIG | SEG_GRAN;
    const u32 code32 = SEG_CODE | SEG_BIG | SEG_GRAN, data = SEG_DATA | SEG_BIG | SEG_GRAN;
    set_segment(SEL_CODE, 0, 0xfffff, code);
    set_segment(SEL_DATA, 0, 0xfffff, data);
    set_segment(SEL_USER_CODE32, 0, 0xfffff, code32 | SEG_DPL3);
    set_segment(SEL_USER_DATA, 0, 0xfffff, data | SEG_DPL3);
    set_segment(SEL_USER_CODE64, 0, 0xfffff, code | SEG_DPL3);
    set_segment(0x30, 0, 0xfffff, data | SEG_DPL3);
    set_segment(SEL_CODE16, 0, 0xffff, SEG_CODE);
    set_segment(SEL_DATA16, 0, 0xffff, SEG_DATA);
    set_segment(SEL_CODE32, 0, 0xfffff, code32);

    memset(&tss_area, 0, sizeof(tss_t));
    memset(tss_area.bitmap, 0xff, sizeof(tss_area.bitmap));
    tss_area.tss.iomap = sizeof(tss_t);
#ifdef __x86_64__
    tss_area.tss.rsp[0] = (word)kernel_stack_top;
    gdt[(SEL_TSS >> 3) + 1] = 0;
#else
    tss_area.tss.esp0 = (word)kernel_stack_top;
    tss_area.tss.ss0 = SEL_DATA;
#endif
    set_segment(SEL_TSS, (u32)(word)&tss_area, sizeof(tss_area) - 1, SEG_TSS32);

    const struct table_register r = {sizeof(gdt) - 1, (word)gdt};
    asm volatile("lgdt %0\n"
#ifdef __x86_64__
                 "pushq $8\n pushq $1f\n lretq\n"
#else
                 "ljmp $8, $1f\n"
#endif
                 "1: mov %1, %%ds\n mov %1, %%es\n mov %1, %%ss\n mov %2, %%fs\n mov %2, %%gs\n"
                 "ltr %w3\n lldt %w2"
                 :
                 : "m"(r), "r"(SEL_DATA), "r"(0), "r"(SEL_TSS)
                 : "memory");
}
