/* Exceptions of 64-bit mode: vectors, error codes, pushed RIP and RF, CR2; stack alignment at
 * delivery; interrupt stacks; instructions that 64-bit mode has lost.
 * QEMU 7.2 takes LOCK MOV, reserved bits of CR8 and addresses that are not canonical in MSRs;
 * raises #GP for #SS and faults at the target of a branch to an address that is not canonical;
 * never sets EXT in an error code and
 * counts gates of 8 bytes there; takes LOCK INC for a read. */
#include "lib/guest.h"

#define NON_CANONICAL 0x0000800000000000ul
#define BAD_STACK     (NON_CANONICAL + 0x1000)
#define UNMAPPED      0x0000100000001234ul

static u64 buffer[4];
static u8 ist_stack[4096] __attribute__((aligned(16)));

static void faults(void)
{
    PROBE("div %q0", "r"(0ul), "a"(1ul), "d"(0ul));
    PROBE("idiv %q0", "r"(-1l), "a"(0x8000000000000000ul), "d"(-1l));
    PROBE("int3");
    PROBE("ud2");
    PROBE(".byte 0x06");                   /* PUSH ES */
    PROBE(".byte 0x27");                   /* DAA */
    PROBE(".byte 0x60");                   /* PUSHA */
    PROBE(".byte 0xce");                   /* INTO */
    PROBE(".byte 0xd6");                   /* SALC */
    PROBE(".byte 0xea, 0, 0, 0, 0, 8, 0"); /* direct far JMP */
    PROBE(".byte 0x82, 0xc0, 0x00");
    PROBE(".byte 0x0f, 0x20, 0xc8");
    PROBE(".byte 0xf0, 0x48, 0x89, 0x03"); /* LOCK MOV to memory */
    PROBE("mov %q0, %%cr8", "r"(0x10ul));
    PROBE("mov (%q0), %%al", "b"(NON_CANONICAL));
    PROBE("mov (%q0), %%al", "b"(NON_CANONICAL - 1));
    PROBE("mov -1(%%rsp,%q0), %%rax", "b"(NON_CANONICAL));
    PROBE("mov %q0, %%rbp; mov (%%rbp), %%al", "b"(NON_CANONICAL));
    PROBE("jmp *%q0", "b"(NON_CANONICAL));
    PROBE("push %q0; ret", "b"(NON_CANONICAL));
    PROBE("mov (%q0), %%al", "b"(UNMAPPED));
    PROBE("nop; mov %%al, (%q0)", "b"(UNMAPPED));
    PROBE("lock; incl (%q0)", "b"(UNMAPPED));
    PROBE("jmp *%q0", "b"(UNMAPPED));
    PROBE("prefetcht0 (%q0); clflush (%q1)", "b"(UNMAPPED), "c"(buffer));
    PROBE("invlpg (%q0)", "b"(NON_CANONICAL));
    PROBE("cmpxchg16b (%q0)", "D"((u8 *)buffer + 8));
    PROBE("mov %0, %%ds", "r"(0x300));
    PROBE("mov %0, %%ss", "r"(SEL_USER_DATA));
    PROBE("mov %0, %%ss", "r"(0)); /* a null SS is allowed at CPL 0 */
    PROBE("mov %0, %%fs", "r"(0));
    PROBE("wrmsr", "c"(0xc0000100), "a"(0), "d"(0x8000)); /* FS base, not canonical */
    PROBE("wrmsr", "c"(0xc0000082), "a"(0), "d"(0x8000)); /* LSTAR */
}

static void user(void)
{
    PROBE_USER("hlt");
    PROBE_USER("mov %%cr3, %%rax");
    PROBE_USER("rdmsr", "c"(0x10));
    PROBE_USER("int $0x20");
    PROBE_USER("mov (%q0), %%al", "b"(UNMAPPED));
    PROBE_USER("mov (%q0), %%al", "b"(NON_CANONICAL));
    PROBE_USER("mov %0, %%ss", "r"(0));
    PROBE_USER("swapgs");
    PROBE_USER("sysretq");
}

/* RSP is aligned to 16 before the frame is pushed, whatever it was. */
static void alignment(void)
{
    for (word offset = 0; offset < 16; offset += 5) {
        TRY("sub %q0, %%rsp; int3", "r"(offset));
        printf("int3 %ld bytes down: frame at 16n + %lu\n", (long)(resume.sp - fault.frame.sp),
               (word)fault.handler_sp & 15);
    }
    TRY("ud2");
    check("SS is unchanged without a change of CPL", fault.frame.ss == SEL_DATA);
    TRY_USER("ud2");
    check("SS of ring 3", fault.frame.ss == SEL_USER_DATA);
}

static word frame_address;

static void where(struct frame *f)
{
    frame_address = (word)f;
    f->ip += 2;
}

static void interrupt_stacks(void)
{
    tss_area.tss.ist[2] = (word)ist_stack + sizeof(ist_stack);
    handle(6, where);
    asm volatile("ud2");
    check("no IST: the current stack",
          frame_address < (word)ist_stack || frame_address >= (word)ist_stack + sizeof(ist_stack));
    set_gate(idt + 6 * 16, SEL_CODE, vector_stubs[6], GATE_INT, 3);
    asm volatile("ud2");
    check("IST 3: its stack, from the top",
          frame_address == (word)ist_stack + sizeof(ist_stack) - sizeof(struct frame));
    TRY_USER("ud2");
    check("IST 3 from ring 3",
          frame_address == (word)ist_stack + sizeof(ist_stack) - sizeof(struct frame));
    handle(6, NULL);
    tss_area.tss.ist[2] = BAD_STACK;
    PROBE("ud2");
    set_idt(6, SEL_CODE, vector_stubs[6], GATE_INT);
    tss_area.tss.rsp[0] = BAD_STACK;
    set_gate(idt + 12 * 16, SEL_CODE, vector_stubs[12], GATE_INT, 1);
    set_gate(idt + 13 * 16, SEL_CODE, vector_stubs[13], GATE_INT, 1);
    tss_area.tss.ist[0] = (word)ist_stack + sizeof(ist_stack);
    PROBE_USER("ud2");
    PROBE("mov %q0, %%rsp; push %%rax", "b"(BAD_STACK));
    tss_area.tss.rsp[0] = (word)kernel_stack_top;
}

static void gates(void)
{
    u64 *gate = (u64 *)(idt + 0x90 * 16);
    set_idt(0x90, SEL_CODE, vector_stubs[0x90], 0x0e);
    PROBE("int $0x90");
    set_idt(0x90, SEL_CODE32, vector_stubs[0x90], GATE_INT);
    PROBE("int $0x90"); /* not a 64-bit code segment */
    set_idt(0x90, 0, vector_stubs[0x90], GATE_INT);
    PROBE("int $0x90");
    set_idt(0x90, SEL_DATA, vector_stubs[0x90], GATE_INT);
    PROBE("int $0x90");
    set_idt(0x90, 0x300, vector_stubs[0x90], GATE_INT);
    PROBE("int $0x90");
    set_idt(0x90, SEL_USER_CODE64, vector_stubs[0x90], GATE_INT);
    PROBE("int $0x90");
    set_idt(0x90, SEL_CODE, vector_stubs[0x90], GATE_TASK);
    PROBE("int $0x90");
    set_idt(0x90, SEL_CODE, vector_stubs[0x90], GATE_INT16);
    PROBE("int $0x90");
    set_idt(0x90, SEL_CODE, vector_stubs[0x90], GATE_INT);
    gate[1] = 0x8000;
    PROBE("int $0x90");
    gate[1] = 0;
    PROBE("int $0x90");
}

void guest_main(void)
{
    faults();
    user();
    alignment();
    interrupt_stacks();
    gates();
}
