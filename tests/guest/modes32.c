/* Round trips between protected, real, unreal, virtual-8086, 64-bit and compatibility mode.
 * QEMU 7.2 checks no segment limit. */
#include "lib/guest.h"

extern u8 real_start[], real_end[], real_results[], real_int[];
extern u32 far_value;

/* 16-bit code, run at CS = DS = REAL_CODE >> 4. */
asm(".code16\n"
    "real_start:\n"
    "  mov $real_results - real_start, %di\n"
    "  mov %cs, %ax\n stosw\n"
    "  smsw %ax\n and $1, %ax\n stosw\n"
    /* an interrupt through the vector table */
    "  xor %ax, %ax\n mov %ax, %fs\n"
    "  movw $real_int - real_start, %fs:0x180\n"
    "  movw %cs, %fs:0x182\n"
    "  int $0x60\n stosw\n"
    /* 20-bit addresses: FFFF:0010 is 1 MiB with A20 open */
    "  mov $0xffff, %ax\n mov %ax, %gs\n mov %gs:0x10, %ax\n stosw\n"
    /* PUSHF keeps IOPL and NT; a 32-bit operand in 16-bit code */
    "  mov $0x12345678, %eax\n shr $16, %eax\n stosw\n"
    /* offsets beyond 0xffff fault: #GP is vector 13 */
    "  movw $1f - real_start, %fs:52\n"
    "  movw %cs, %fs:54\n"
    "  mov $0x10000, %ebx\n mov $0x7777, %ax\n"
    "2: mov %fs:(%ebx), %al\n"
    "  stosw\n jmp 3f\n"
    "1: pop %ax\n sub $2b - real_start - 0x100, %ax\n stosw\n add $4, %sp\n"
    /* unreal: a limit of 4 GiB survives the return to real mode */
    "3: lgdtl %cs:4f - real_start\n"
    "  mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n"
    "  mov $0x10, %dx\n mov %dx, %fs\n"
    "  and $0xfe, %al\n mov %eax, %cr0\n"
    "  mov $far_value, %ebx\n"
    "  mov %fs:(%ebx), %ax\n stosw\n"
    "  xor %dx, %dx\n mov %dx, %fs\n" /* a real-mode load changes the base alone */
    "  mov %fs:(%ebx), %ax\n stosw\n"
    /* string instruction with 16-bit addresses wraps */
    "  mov $0xffff, %si\n mov $2, %cx\n xor %dx, %dx\n"
    "  push %ds\n mov $0x2000, %ax\n mov %ax, %ds\n movb $0x5a, 0\n movb $0xa5, (%si)\n"
    "5: lodsb\n rol $8, %dx\n mov %al, %dl\n loop 5b\n pop %ds\n"
    "  mov %dx, %ax\n stosw\n"
    "  pushw $0x7000\n popfw\n pushfw\n pop %ax\n and $0x7000, %ax\n stosw\n pushw $2\n popfw\n"
    "  lret\n"
    "real_int:\n"
    "  pushfw\n pop %ax\n and $0x300, %ax\n or $0x42, %ax\n iret\n"
    ".align 4\n"
    "4: .word 0x1f7\n .long gdt\n"
    "real_results: .skip 32\n"
    "real_end:\n"
    ".code32\n");
u32 far_value = 0xbeef1234;

static void real(void)
{
    *(volatile u16 *)0x100000; /* the image's header */
    real_call(real_start, real_end);
    u16 r[16];
    memcpy(r, REAL_ADDRESS(real_start, real_results), sizeof(r));
    check("CS of real mode", r[0] == REAL_CODE >> 4);
    printf("PE %x, INT %x, A20 %s, 32-bit operand %x, offset 10000: IP %d\n", r[1], r[2],
           r[3] == *(u16 *)0x100000 ? "open" : "closed", r[4], r[5]);
    printf("unreal %x %x, wrap %x, flags %x\n", r[6], r[7], r[8], r[9]);
    puts("back in protected mode\n");
    PROBE("ud2");
}

/* Compatibility and 64-bit mode from 32-bit protected mode, and back. */
extern u32 long_results[12];
void go_long(u32 cr3);
asm("go_long:\n"
    "  pusha\n"
    "  mov 36(%esp), %eax\n mov %eax, %cr3\n"
    "  mov %cr4, %eax\n or $0x20, %eax\n mov %eax, %cr4\n"
    "  mov $0xc0000080, %ecx\n rdmsr\n mov %eax, long_results\n or $0x100, %eax\n wrmsr\n"
    "  rdmsr\n mov %eax, long_results+4\n"
    "  mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n"
    "  rdmsr\n mov %eax, long_results+8\n" /* LMA: compatibility mode now */
    "  mov $0x12345678, %eax\n"
    "  .byte 0x48\n .byte 0x90\n" /* DEC EAX here, REX.W NOP in 64-bit mode */
    "  mov %eax, long_results+12\n"
    "  ljmp $0x60, $1f\n"
    ".code64\n"
    "1: mov $0x1234567887654321, %rax\n"
    "  .byte 0x48\n .byte 0x90\n"
    "  rol $16, %rax\n mov %eax, long_results+16(%rip)\n"
    "  lea 1b(%rip), %rcx\n mov $1b, %edx\n sub %rdx, %rcx\n mov %ecx, long_results+20(%rip)\n"
    "  mov $-1, %eax\n shr $32, %rax\n mov %eax, long_results+24(%rip)\n" /* zero-extended */
    "  mov %cs, %eax\n mov %eax, long_results+28(%rip)\n"
    "  mov $0x8000, %r9\n mov %r9d, long_results+32(%rip)\n"
    "  push $0x08\n mov $2f, %edx\n push %rdx\n lretq\n"
    ".code32\n"
    "2: mov %cs, %eax\n mov %eax, long_results+36\n"
    "  mov %cr0, %eax\n and $0x7fffffff, %eax\n mov %eax, %cr0\n"
    "  mov $0xc0000080, %ecx\n rdmsr\n mov %eax, long_results+40\n"
    "  and $~0x100, %eax\n wrmsr\n"
    "  mov %cr4, %eax\n and $~0x20, %eax\n mov %eax, %cr4\n"
    "  popa\n ret\n");
u32 long_results[12];

static void long_mode(void)
{
    if (!(cpuid(0x80000001, 0).d >> 29 & 1))
        fail("no 64-bit mode");
    set_segment(SEL_FREE, 0, 0xfffff, SEG_CODE | SEG_LONG | SEG_GRAN);
    u64 *root = page_alloc();
    for (u32 at = 0; at < 0x1000000; at += 0x200000)
        *pte_of(root, 4, at, 2) = at | PTE_PS | PTE_P | PTE_W | PTE_U;
    go_long((u32)root);
    puts("EFER before, LME, LMA:");
    for (int i = 0; i < 12; i++)
        printf(" %x", long_results[i]);
    putchar('\n');
    PROBE("ud2");
}

void guest_main(void)
{
    real();
    long_mode();
    real();
}
