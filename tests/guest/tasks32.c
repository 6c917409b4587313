/* Hardware task switches: JMP, CALL, IRET, INT through a task gate, with 32- and 16-bit TSSs; busy
 * bits, NT and the back link, what is saved and loaded, TS, the errors. */
#include "lib/guest.h"

enum {
    SEL_A = SEL_FREE,
    SEL_B16 = SEL_FREE + 8,
    SEL_GATE = SEL_FREE + 16,
    SEL_BAD = SEL_FREE + 24
};

struct tss16 {
    u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags;
    u16 ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};

static struct tss32 a;
static struct tss16 b16;
static u8 stack_a[4096];
static volatile u32 seen_flags, seen_link, seen_cr0, seen_type, seen_regs;

static unsigned type(u16 selector)
{
    return gdt[selector >> 3] >> 40 & 0xff;
}

static void show(const char *what)
{
    printf("%s: main %x, A %x, B %x\n", what, type(SEL_TSS), type(SEL_A), type(SEL_B16));
}

extern u8 task_a[], task_16[], task_error[], task_jump[];
asm("task_a:\n"
    "pushf\n pop seen_flags\n"
    "mov %eax, seen_regs\n"
    "mov %cr0, %eax\n mov %eax, seen_cr0\n"
    "movzwl a, %eax\n mov %eax, seen_link\n"
    "mov gdt + 0x65, %al\n mov %al, seen_type\n"
    "mov $0x5555, %eax\n"
    "iret\n"
    "jmp task_a\n"
    "task_16:\n" /* 16-bit operands, from a 16-bit TSS: CS is 16-bit too, below 64 KiB of its base
                  */
    ".code16\n"
    "inc %ax\n"
    "iret\n"
    "jmp task_16\n"
    ".code32\n"
    "task_error:\n" /* a task that a fault with an error code entered */
    "popl seen_regs\n"
    "addl $2, tss_area + 32\n" /* step over the instruction */
    "iret\n"
    "jmp task_error\n"
    "task_jump:\n"
    "pushf\n pop seen_flags\n"
    "mov gdt + 0x3d, %al\n mov %al, seen_type\n"
    "ljmp $0x38, $0\n");

static void prepare(void)
{
    a = (struct tss32){.cr3 = 0,
                       .eip = (u32)task_a,
                       .eflags = 2,
                       .eax = 0x1234,
                       .esp = (u32)stack_a + sizeof(stack_a),
                       .cs = SEL_CODE,
                       .ss = SEL_DATA,
                       .ds = SEL_DATA,
                       .es = SEL_DATA,
                       .iomap = sizeof(a)};
    set_segment(SEL_A, (u32)&a, sizeof(a) - 1, SEG_TSS32);
}

static void calls(void)
{
    show("before");
    asm volatile("lcall $0x60, $0" : : : "memory");
    printf("CALL: flags in A %x, link %x, eax %x, TS %x, type of A %x\n", seen_flags, seen_link,
           seen_regs, seen_cr0 >> 3 & 1, seen_type & 0xff);
    show("after");
    printf("saved in A: eax %x, eip %d, flags %x, link %x\n", a.eax, (int)(a.eip - (u32)task_a),
           a.eflags, a.link);
    asm volatile("clts");
    asm volatile("lcall $0x60, $0" : : : "memory"); /* goes on behind IRET */
    printf("again: eax %x\n", seen_regs);

    gdt[SEL_GATE >> 3] = gate32(SEL_A, 0, GATE_TASK, 0);
    seen_regs = 0;
    asm volatile("lcall $0x70, $0" : : : "memory");
    printf("CALL of a task gate: eax %x\n", seen_regs);
    set_idt(0x40, SEL_A, NULL, GATE_TASK);
    seen_regs = 0;
    asm volatile("int $0x40" : : : "memory");
    printf("INT through a task gate: eax %x, flags %x\n", seen_regs, seen_flags);
    show("after");
    u32 flags;
    asm volatile("pushf; pop %0" : "=r"(flags));
    printf("NT %x, TS %lx\n", flags >> 14 & 1, READ_CR(0) >> 3 & 1);
    asm volatile("clts");
}

/* JMP leaves the old task available and sets neither NT nor a link. */
static void jumps(void)
{
    prepare();
    a.eip = (u32)task_jump;
    a.link = 0xdead;
    asm volatile("ljmp $0x60, $0" : : : "memory");
    printf("JMP: flags in A %x, link %x, main %x\n", seen_flags, a.link, seen_type & 0xff);
    show("after");
    asm volatile("clts");
}

static void sixteen(void)
{
    set_segment(SEL_BAD, (u32)task_16 & ~15u, 0xffff, SEG_CODE);
    b16 = (struct tss16){.ip = (u16)((u32)task_16 & 15),
                         .flags = 2,
                         .ax = 0x41,
                         .cs = SEL_BAD,
                         .ss = SEL_DATA16,
                         .ds = SEL_DATA,
                         .es = SEL_DATA,
                         .sp = 0x7000};
    set_segment(SEL_B16, (u32)&b16, sizeof(b16) - 1, SEG_TSS16);
    asm volatile("lcall $0x68, $0" : : : "memory");
    printf("16-bit TSS: ax %x, link %x, ip %d\n", b16.ax, b16.link,
           (int)(b16.ip - ((u32)task_16 & 15)));
    show("after");
    asm volatile("clts");
}

static void errors(void)
{
    prepare();
    gdt[SEL_A >> 3] |= 0x2ull << 40; /* busy */
    PROBE("lcall $0x60, $0");
    PROBE("ljmp $0x60, $0");
    gdt[SEL_A >> 3] &= ~(0x80ull << 40);
    PROBE("lcall $0x60, $0");
    prepare();
    gdt[SEL_A >> 3] &= ~(0x80ull << 40);
    PROBE("lcall $0x60, $0");
    set_segment(SEL_A, (u32)&a, sizeof(a) - 2, SEG_TSS32);
    PROBE("lcall $0x60, $0");
    gdt[SEL_GATE >> 3] = gate32(SEL_A, 0, GATE_TASK & ~SEG_PRESENT, 0);
    PROBE("lcall $0x70, $0");
    gdt[SEL_GATE >> 3] = gate32(SEL_DATA, 0, GATE_TASK, 0);
    PROBE("lcall $0x70, $0");
    PROBE("ltr %w0", "r"(SEL_TSS)); /* busy */
    PROBE_USER("lcall $0x60, $0");
}

/* A fault through a task gate pushes its error code on the new task's stack; #DF the same. */
static void faults(void)
{
    prepare();
    a.eip = (u32)task_error;
    set_idt(13, SEL_A, NULL, GATE_TASK);
    asm volatile("mov %0, %%ds" : : "r"(0x300));
    printf("#GP in a task of its own: error code %x\n", seen_regs);
    set_idt(13, SEL_CODE, NULL, GATE_INT & ~SEG_PRESENT);
    set_idt(8, SEL_A, NULL, GATE_TASK);
    seen_regs = 99;
    asm volatile("mov %0, %%ds" : : "r"(0x300));
    printf("#DF in a task of its own: error code %x\n", seen_regs);
    show("after");
}

void guest_main(void)
{
    prepare();
    calls();
    jumps();
    sixteen();
    errors();
    faults();
}
