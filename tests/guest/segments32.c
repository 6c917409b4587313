/* Segment limits: byte and page granularity, expand-down, the last byte, 16-bit stacks and address
 * wrap, elements of vectors; null and absent selectors; LAR, LSL, VERR, VERW, ARPL.
 * QEMU 7.2 checks no segment limit. */
#include "lib/guest.h"

enum { S = SEL_FREE };

static u8 area[65536 * 2 + 4096] __attribute__((aligned(4096)));
static volatile u32 seen[4];

static void limits(void)
{
    static const struct {
        const char *name;
        u32 limit, access;
        u32 good, bad; /* offsets of a byte inside and outside */
    } cases[] = {
        {"byte granular", 0xfff, SEG_DATA | SEG_BIG, 0xfff, 0x1000},
        {"limit 0", 0, SEG_DATA | SEG_BIG, 0, 1},
        {"page granular", 1, SEG_DATA | SEG_BIG | SEG_GRAN, 0x1fff, 0x2000},
        {"page granular, limit 0", 0, SEG_DATA | SEG_BIG | SEG_GRAN, 0xfff, 0x1000},
        {"expand-down", 0xfff, SEG_DATA_DOWN | SEG_BIG, 0x1000, 0xfff},
        {"expand-down, 64 KiB", 0xfff, SEG_DATA_DOWN, 0xffff, 0x10000},
        {"expand-down, page granular", 0, SEG_DATA_DOWN | SEG_BIG | SEG_GRAN, 0x1000, 0xfff},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        set_segment(S, (u32)area, cases[i].limit, cases[i].access);
        TRY("mov %0, %%fs; mov %%fs:(%1), %%al", "r"(S), "r"(cases[i].good));
        printf("%s: byte %x ", cases[i].name, cases[i].good);
        print_fault();
        TRY("mov %0, %%fs; mov %%fs:(%1), %%al", "r"(S), "r"(cases[i].bad));
        printf(", byte %x ", cases[i].bad);
        print_fault();
        TRY("mov %0, %%fs; mov %%ax, %%fs:(%1)", "r"(S),
            "r"(cases[i].access & 4 ? cases[i].bad : cases[i].good));
        puts(", word across ");
        print_fault();
        putchar('\n');
    }
    set_segment(S, (u32)area, 0xfff, SEG_DATA | SEG_BIG);
    PROBE("mov %0, %%fs; mov %%fs:-1, %%al", "r"(S));
    PROBE("mov %0, %%fs; mov %%fs:-2, %%eax", "r"(S)); /* wraps */
    PROBE("mov %0, %%fs; movq %%fs:0xff8, %%mm0; movq %%fs:0xff9, %%mm0", "r"(S));
    PROBE("mov %0, %%es; mov $0xffe, %%edi; mov $4, %%ecx; rep stosb", "r"(S));
    printf("ecx %lx, edi %lx\n", fault.frame.cx, fault.frame.di);
    set_segment(S, 0, 0xffff, SEG_CODE | SEG_BIG);
    PROBE("ljmp $0x60, $0xfffff");
}

static void stack(void)
{
    /* Ring 3 with a small stack segment, so that the handler has a good one. */
    set_segment(S, (u32)area, 0xfff, SEG_DATA | SEG_BIG | SEG_DPL3);
    PROBE_USER("mov %0, %%ss; mov $0x1000, %%esp; push %%eax; mov $0x1002, %%esp; push %%eax",
               "r"(S | 3));
    PROBE_USER("mov %0, %%ss; mov $8, %%esp; pusha", "r"(S | 3));
    PROBE_USER("mov %0, %%ss; mov $0xffe, %%esp; pop %%eax", "r"(S | 3));
    PROBE_USER("mov %0, %%ss; mov $0xffe, %%ebp; mov (%%ebp), %%eax", "r"(S | 3));
    PROBE_USER("mov %0, %%ss; mov $0x1000, %%esp; enter $0, $0; leave", "r"(S | 3));
    /* A 16-bit stack wraps in SP and leaves the upper half of ESP alone. */
    set_segment(S, (u32)area, 0xffff, SEG_DATA | SEG_DPL3);
    TRY_USER("mov %0, %%ss; mov $0x12340002, %%esp; pushw $0x5678; push $0x11223344; mov %%esp, "
             "(%1); int $0x80",
             "r"(S | 3), "b"(seen));
    puts("16-bit stack: ");
    print_fault();
    printf(", esp %x, word at 0 %x, dword at fffc %x\n", seen[0], *(u16 *)area,
           *(u32 *)(area + 0xfffc));
    PROBE_USER("mov %0, %%ss; mov $0x1, %%esp; pushw $0x5678", "r"(S | 3)); /* at 0xffff: beyond */
}

static void rights(void)
{
    static const struct {
        const char *name;
        u64 descriptor;
    } cases[] = {
        {"data, DPL 0", 0x00cf92000000ffff},
        {"data, DPL 3", 0x00cff2000000ffff},
        {"read-only, DPL 3", 0x0040f00000001234},
        {"code, DPL 3", 0x00cffa000000ffff},
        {"execute-only, DPL 3", 0x00cff8000000ffff},
        {"conforming, DPL 0", 0x00cf9e000000ffff},
        {"TSS 32 busy, DPL 3", 0x0000eb0000000067},
        {"TSS 16, DPL 3", 0x0000e1000000002b},
        {"LDT, DPL 3", 0x0000e2000000ffff},
        {"call gate, DPL 3", 0x0000ec0000080000},
        {"interrupt gate, DPL 3", 0x0000ee0000080000},
        {"task gate, DPL 3", 0x0000e50000080000},
        {"type 8, DPL 3", 0x0000e80000080000},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        gdt[S >> 3] = cases[i].descriptor;
        printf("%s:", cases[i].name);
        for (int ring = 0; ring < 4; ring += 3) {
            if (ring)
                TRY_USER("movl $1, (%0); lar %1, %%ecx; jnz 1f; mov %%ecx, (%0); 1: movl $1, "
                         "4(%0); lsl %1, %%ecx;"
                         "jnz 1f; mov %%ecx, 4(%0); 1: verr %w1; setz 8(%0); verw %w1; setz 12(%0)",
                         "b"(seen), "d"(S | 3));
            else
                TRY("movl $1, (%0); lar %1, %%ecx; jnz 1f; mov %%ecx, (%0); 1: movl $1, 4(%0); lsl "
                    "%1, %%ecx;"
                    "jnz 1f; mov %%ecx, 4(%0); 1: verr %w1; setz 8(%0); verw %w1; setz 12(%0)",
                    "b"(seen), "d"(S));
            printf(" ring %d LAR %x LSL %x VERR %x VERW %x", ring, seen[0] & ~0xf0000u, seen[1],
                   seen[2] & 1, seen[3] & 1);
        }
        putchar('\n');
    }
    u32 z;
    asm volatile("xor %0, %0; lar %1, %%ecx; setz %b0" : "=&q"(z) : "r"(0) : "ecx", "cc");
    printf("LAR of a null selector: %u\n", z);
    asm volatile("xor %0, %0; verr %w1; setz %b0" : "=&q"(z) : "r"(0x7ff8) : "cc");
    printf("VERR beyond the table: %u\n", z);
    for (u32 i = 0; i < 4; i++) {
        u32 to = 0x40 | i, flag;
        asm volatile("xor %1, %1; arpl %w2, %w0; setz %b1" : "+r"(to), "=&q"(flag) : "r"(2) : "cc");
        printf("ARPL %u, 2: %x %u\n", i, to, flag);
    }
}

/* Bits of a descriptor that loading sets, and what stays in the hidden part. */
static void cached(void)
{
    set_segment(S, (u32)area, 0xffff, SEG_DATA);
    printf("accessed before %x", (u32)(gdt[S >> 3] >> 40 & 1));
    TRY("mov %0, %%es", "r"(S));
    printf(", after %x\n", (u32)(gdt[S >> 3] >> 40 & 1));
    area[0] = 0x77;
    u32 v;
    asm volatile(
        "mov %1, %%fs; movl $0, gdt+0x60; movl $0, gdt+0x64; movzbl %%fs:0, %0; mov %2, %%fs"
        : "=&r"(v)
        : "r"(S), "r"(0)
        : "memory");
    printf("a loaded segment outlives its descriptor: %x\n", v);
    PROBE("mov %0, %%fs", "r"(S)); /* now a null descriptor */
    PROBE("mov %0, %%gs; mov %%gs:0, %%al", "r"(3));
    PROBE("push $0; pop %%fs; mov %%fs:4, %%al");
    const struct __attribute__((packed)) {
        u32 offset;
        u16 selector;
    } far_pointer = {0x1234, SEL_DATA};
    TRY("lfs (%0), %%ecx; mov %%ecx, (%1); mov %%fs, 4(%1)", "a"(&far_pointer), "b"(seen));
    printf("LFS: %x %x\n", seen[0], seen[1] & 0xffff);
}

/* Through FS with a base, as a kernel keeps what belongs to a processor; and where it may not. */
static void based(void)
{
    static u32 data[4] = {0x1000, 7};
    set_segment(SEL_FREE, (u32)data - 0x1000, 0xfffff, SEG_DATA | SEG_BIG | SEG_GRAN);
    TRY("mov %0, %%fs; incl %%fs:0x1004; mov %%fs:0x1000, %%eax; add %%eax, %%fs:8(%%eax); stc;"
        "mov %%fs:-12(%%eax,%%ebx), %%ecx; adc %%ecx, %%fs:0x100c; pushl %%fs:0x1004; popl %%eax;"
        "mov %%eax, seen",
        "r"(SEL_FREE), "b"(16));
    printf("through FS: %x %x %x, %x", data[1], data[2], data[3], seen[0]);
    print_fault();
    putchar('\n');
    set_segment(SEL_FREE, 0, 0xfffff, SEG_DATA_RO | SEG_BIG | SEG_GRAN);
    PROBE("mov %0, %%fs; mov %%fs:(%1), %%eax; mov %%eax, %%fs:(%1)", "r"(SEL_FREE), "b"(data));
    PROBE("mov %0, %%fs; lock incl %%fs:(%1)", "r"(0), "b"(data));
    asm volatile("mov %0, %%fs" : : "r"(SEL_DATA));
}

/* Each element that the mask lets through meets the limit; none wraps. */
static void masked(void)
{
    static const struct {
        const char *name;
        bool good;
        u32 limit, at;
        u32 mask[8];
    } cases[] = {
        {"up to the limit", true, 0xfff, 0xff0, {1U << 31, 0, 0, 1U << 31}},
        {"beyond it", false, 0xfff, 0xff0, {1U << 31, 0, 0, 0, 1U << 31}},
        {"up to 64 KiB", true, 0xffff, 0xfffc, {1U << 31}},
        {"beyond 64 KiB", false, 0xffff, 0xfffc, {0, 1U << 31}},
        {"beyond 64 KiB, the first one across", false, 0xffff, 0xffff, {0, 1U << 31}},
    };
    bool avx2 = cpuid(7, 0).b >> 5 & 1;
    if (avx2) {
        WRITE_CR(4, READ_CR(4) | 0x40000);
        asm volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        set_segment(S, (u32)area, cases[i].limit, SEG_DATA | SEG_BIG);
        if (avx2)
            TRY("mov %0, %%fs; vmovdqu (%2), %%ymm0; vpmaskmovd %%fs:(%%bx), %%ymm0, %%ymm1;"
                "vpmaskmovd %%ymm1, %%ymm0, %%fs:(%%bx)",
                "r"(S), "b"(cases[i].at), "r"(cases[i].mask));
        printf("masked, %s: ", cases[i].name);
        check("as it should be", !avx2 || (fault.vector == (cases[i].good ? VECTOR_NONE : 13)));
    }
}

void guest_main(void)
{
    based();
    WRITE_CR(4, READ_CR(4) | 0x200);
    masked();
    limits();
    stack();
    rights();
    cached();
}
