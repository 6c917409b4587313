/*
 * 16-bit code that runs often enough to be translated, chained and found again: the same bytes
 * under two segments, segments of one base and two limits, code that changes, loops that end at a
 * limit, string instructions that wrap, loads of segment registers between accesses. QEMU 7.2
 * checks no segment limit.
 */
#include "lib/guest.h"

extern u8 hot_start[], hot_end[], hot_results[];

/* At CS = DS = ES = SS = REAL_CODE >> 4; results are words at ES:DI. #GP's vector is 13. */
asm(".code16\n"
    "hot_start:\n"
    "  mov $hot_results - hot_start, %di\n"
    "  xor %ax, %ax\n mov %ax, %fs\n"
    "  movw $fault16 - hot_start, %fs:52\n movw %cs, %fs:54\n"
    /* the same code at two CS:IP, by turns: it adds its IP */
    "  xor %dx, %dx\n mov $300, %cx\n"
    "1: lcall $0x100, $where - hot_start\n"
    "  lcall $0xf3, $where - hot_start + 0xd0\n"
    "  loop 1b\n"
    "  mov %dx, %ax\n stosw\n"
    /* it changes itself: an immediate, through another segment register */
    "  xor %dx, %dx\n mov %ds, %ax\n mov %ax, %gs\n mov $300, %cx\n"
    "2: mov %cl, %gs:changed + 2 - hot_start\n"
    "changed: add $0, %dl\n adc $0, %dh\n loop 2b\n"
    "  mov %dx, %ax\n stosw\n"
    /* segment registers between accesses: ES walks in paragraphs, with LES and POP ES too */
    "  push %es\n xor %dx, %dx\n mov $100, %cx\n mov $0x2000, %bx\n"
    "3: mov %bx, %es\n mov %cx, %es:4\n add %es:4, %dx\n"
    "  push %bx\n pop %es\n sub %cl, %es:4\n inc %bx\n"
    "  movw $8, pointer - hot_start\n mov %bx, pointer + 2 - hot_start\n"
    "  les pointer - hot_start, %si\n mov %si, %es:(%si)\n add %es:(%si), %dx\n"
    "  loop 3b\n"
    "  pop %es\n mov %dx, %ax\n stosw\n"
    /* AH and its like beside memory */
    "  mov $200, %cx\n mov $0x1234, %ax\n mov $0x5678, %dx\n movw $0x0f01, scratch - hot_start\n"
    "4: add scratch - hot_start, %ah\n xchg %dh, scratch + 1 - hot_start\n"
    "  xor %ah, scratch - hot_start\n cmp %dh, scratch - hot_start\n adc %al, %dl\n"
    "  mov %ch, %bh\n mov scratch - hot_start, %bh\n add %bh, %al\n loop 4b\n"
    "  stosw\n mov %dx, %ax\n stosw\n"
    /* LOOPE, LOOPNE, JCXZ: flags stay */
    "  mov $300, %cx\n xor %ax, %ax\n"
    "5: inc %ax\n cmp $150, %ax\n loopne 5b\n stosw\n mov %cx, %ax\n stosw\n"
    "  mov $300, %cx\n xor %dx, %dx\n"
    "6: inc %dx\n mov %dx, %ax\n shr $7, %ax\n loope 6b\n mov %dx, %ax\n stosw\n"
    "  xor %ax, %ax\n mov $100, %cx\n stc\n"
    "7: adc $1, %ax\n dec %cx\n jcxz 8f\n jmp 7b\n"
    "8: stosw\n"
    /* offsets wrap; a word at FFFF is beyond the limit, and found to be so in the middle of a loop
     */
    "  xor %ax, %ax\n mov $0xffff - 200, %bx\n mov $0x2000, %dx\n mov %dx, %gs\n"
    "9: mov %gs:(%bx), %dx\n inc %ax\n inc %bx\n jnz 9b\n stosw\n"
    "10: mov %bx, %ax\n stosw\n"
    "  mov $0xffff - 200, %si\n xor %ax, %ax\n mov $100, %cx\n push %ds\n push %gs\n pop %ds\n"
    "11: lodsb\n lodsb\n lodsb\n loop 11b\n pop %ds\n mov %si, %ax\n stosw\n"
    /* REP MOVSW ends at the limit, too: with what was done, and the rest in CX */
    "  movw $12f - hot_start, resume16 - hot_start\n"
    "  push %es\n push %gs\n pop %es\n push %di\n mov $0xff01, %di\n xor %si, %si\n mov $0x100, "
    "%cx\n"
    "  rep movsw\n"
    "12: mov %di, %ax\n pop %di\n pop %es\n stosw\n mov %cx, %ax\n stosw\n mov %si, %ax\n stosw\n"
    /* 32-bit operands and addresses: stack, return, offsets up to the limit */
    "  mov $200, %cx\n xor %edx, %edx\n"
    "13: pushl $0x12345\n popl %eax\n add %eax, %edx\n calll 14f\n addr32 mov %gs:4(,%ecx,2), %ax\n"
    "  loop 13b\n"
    "  mov %edx, %eax\n stosl\n mov %sp, %ax\n stosw\n"
    "  lret\n"
    "14: push %bp\n mov %sp, %bp\n inc %edx\n leave\n retl\n"
    "where: call 15f\n"
    "15: pop %ax\n add %ax, %dx\n lret\n"
    /* #GP: on at resume16, or behind the instruction of 9 (which is 3 bytes long) */
    "fault16: pop %bp\n pop %bp\n popf\n"
    "  jmp *resume16 - hot_start\n"
    "resume16: .word 10b - hot_start\n"
    "pointer: .long 0\n"
    "scratch: .long 0\n"
    ".align 4\n"
    "hot_results: .skip 64\n"
    "hot_end:\n"
    ".code32\n");

static void real(void)
{
    real_call(hot_start, hot_end);
    u16 r[32];
    memcpy(r, REAL_ADDRESS(hot_start, hot_results), sizeof(r));
    puts("real mode:");
    for (unsigned i = 0; i < 17; i++)
        printf(" %x", r[i]);
    putchar('\n');
}

/* 16-bit protected mode: code at `code16_start`, called by far calls from 32-bit code. */
extern u8 code16_start[], code16_end[];
asm(".code16\n"
    ".balign 16\n"
    "code16_start:\n"
    /* 0: counts in AX, returns */
    "  add $1, %ax\n lretl\n"
    ".org code16_start + 8\n"
    /* 8: a jump out of a small segment, to 100h */
    "  add $1, %ax\n jmp 1f\n"
    ".org code16_start + 16\n"
    /* 16: the same by a register */
    "  add $1, %ax\n mov $0x100, %bx\n jmp *%bx\n"
    ".org code16_start + 32\n"
    /* 32: the sum of the words behind DS up to its limit: ends by #GP */
    "2: add (%si), %ax\n add $2, %si\n jmp 2b\n"
    ".org code16_start + 48\n"
    /* 48: reads and writes through CS */
    "  mov %cs:0x40, %ax\n mov %ax, %cs:0x40\n lretl\n"
    ".org code16_start + 0x40\n .word 0x4321\n"
    ".org code16_start + 0x100\n"
    "1: add $16, %ax\n lretl\n"
    "code16_end:\n"
    ".code32\n");

static u32 call16(u16 selector, u32 offset, u16 data_selector, u32 ax)
{
    const struct __attribute__((packed)) {
        u32 offset;
        u16 selector;
    } target = {offset, selector};
    u32 si = 0;
    TRY("push %%ds; push %%ds; pop %%fs; mov %w2, %%ds; lcall *%%fs:(%1); pop %%ds; mov %%eax, "
        "%%fs:seen16",
        "r"(0), "c"(&target), "d"(data_selector), "a"(ax), "S"(si));
    asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs" : : "r"(SEL_DATA));
    return fault.vector == VECTOR_NONE ? 0 : fault.vector + 1;
}
u32 seen16;

static void protected16(void)
{
    static u16 words[0x40];
    enum { SMALL = SEL_FREE, LARGE = SEL_FREE + 8, DATA = SEL_FREE + 16 };
    const u32 base = (u32)code16_start;
    set_segment(SMALL, base, 0x7f, SEG_CODE);
    set_segment(LARGE, base, 0xffff, SEG_CODE);
    set_segment(DATA, (u32)words, sizeof(words) - 1, SEG_DATA);
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        words[i] = (u16)(i * 3);
    u32 ax = 0, faults = 0;
    for (unsigned i = 0; i < 200; i++) { /* one base, two limits, by turns */
        faults += call16(i & 1 ? SMALL : LARGE, 8, DATA, ax) != 0;
        ax = seen16 & 0xffff;
        faults += call16(i & 1 ? LARGE : SMALL, 0, DATA, ax) != 0;
        ax = seen16 & 0xffff;
    }
    printf("16-bit segments: %x, %u faults\n", ax, faults);
    call16(SMALL, 8, DATA, 0);
    print_fault();
    printf(" at %lx:%lx\n", fault.frame.cs, fault.frame.ip);
    call16(SMALL, 16, DATA, 0);
    print_fault();
    printf(" at %lx:%lx\n", fault.frame.cs, fault.frame.ip);
    for (unsigned i = 0; i < 50; i++)
        call16(LARGE, 32, DATA, 0);
    print_fault();
    printf(" at %lx:%lx, ax %lx, si %lx\n", fault.frame.cs, fault.frame.ip, fault.frame.ax & 0xffff,
           fault.frame.si & 0xffff);
    for (unsigned i = 0; i < 50; i++)
        call16(LARGE, 48, DATA, 0);
    print_fault();
    printf(" at %lx:%lx, ax %lx\n", fault.frame.cs, fault.frame.ip, fault.frame.ax & 0xffff);
    set_segment(LARGE, base, 0xffff, SEG_EXEC_ONLY);
    call16(LARGE, 48, DATA, 0);
    print_fault();
    printf(" at %lx:%lx\n", fault.frame.cs, fault.frame.ip);
}

/* 32-bit code in a segment that ends, as systems have that keep programs from executing data; the
 * others are flat. It calls, jumps through memory, and at last leaves. */
extern u8 limited_start[];
asm("limited_start:\n"
    "  mov $200, %ecx\n"
    "1: call 2f\n lea 3f - limited_start(%edx), %eax\n push %eax\n pop seen16\n jmp *seen16\n"
    "2: add $1, %ebx\n ret\n"
    "3: dec %ecx\n jnz 1b\n"
    "  test %esi, %esi\n jnz 4f\n lret\n"
    "4: mov $0x500000, %eax\n call *%eax\n");

static void limited(void)
{
    for (u32 base = 0; base <= 0x1000; base += 0x1000)
        for (u32 leaves = 0; leaves < 2; leaves++) {
            const struct __attribute__((packed)) {
                u32 offset;
                u16 selector;
            } target = {(u32)limited_start - base, SEL_FREE};
            set_segment(SEL_FREE, base, 0x3ff, SEG_CODE | SEG_BIG | SEG_GRAN);
            TRY("lcall *(%0); mov %%ebx, seen16", "a"(&target), "d"(target.offset), "S"(leaves),
                "b"(0));
            printf("limited, base %x, leaves %u: ", base, leaves);
            if (fault.vector == VECTOR_NONE)
                printf("%u\n", seen16);
            else
                printf("vector %u at %lx:%lx, ebx %lu\n", (u32)fault.vector, fault.frame.cs,
                       fault.frame.ip - target.offset, fault.frame.bx);
        }
}

/* 32-bit code on a 16-bit stack: SP wraps, the upper half of ESP stays. */
void mixed_run(void);
u32 mixed_esp[2], mixed_sum;
asm("mixed_run: pusha\n mov %esp, mixed_esp\n mov $0x60, %eax\n mov %ax, %ss\n"
    "  mov $0x12340004, %esp\n mov $300, %ecx\n xor %edx, %edx\n"
    "1: push %ecx\n call 2f\n pop %eax\n add %eax, %edx\n push %dx\n pop %bx\n"
    "  movzx %bx, %ebx\n add %ebx, %edx\n loop 1b\n"
    "  mov %esp, mixed_esp+4\n mov %edx, mixed_sum\n"
    "  mov $0x10, %eax\n mov %ax, %ss\n mov mixed_esp, %esp\n popa\n ret\n"
    "2: push %ebp\n mov %esp, %ebp\n incl %edx\n pushl $7\n leave\n ret\n");

static void mixed(void)
{
    static u8 stack[65536] __attribute__((aligned(4096)));
    set_segment(SEL_FREE, (u32)stack, 0xffff, SEG_DATA);
    mixed_run();
    printf("16-bit stack: ESP %x, sum %x\n", mixed_esp[1], mixed_sum);
}

void guest_main(void)
{
    real();
    real();
    protected16();
    limited();
    mixed();
}
