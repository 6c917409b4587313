/* Every exception that an instruction can raise in 32-bit mode: vector, error code, where the
 * pushed EIP points (faults at the instruction, traps behind it) and the pushed RF. QEMU 7.2 knows
 * no INT1, takes LOCK MOV (8B) and checks no segment limit. */
#include "lib/guest.h"

static u32 buffer[4];
static const u32 bounds[2] = {5, 10};

static void divide(void)
{
    PROBE("div %b0", "q"(0), "a"(1));
    PROBE("div %w0", "r"(0), "a"(1), "d"(0));
    PROBE("div %0", "r"(1), "a"(0), "d"(1));
    PROBE("idiv %0", "r"(-1), "a"(0x80000000), "d"(-1));
    PROBE("idiv %b0", "c"(-1), "a"(0xff80));
    PROBE("aam $0", "a"(0));
    PROBE("nop; nop; divl (%0)", "b"(buffer), "a"(0), "d"(0));
}

static void traps(void)
{
    PROBE("int3");
    PROBE("into");
    PROBE("mov $0x7f, %%al; inc %%al; into", );
    PROBE(".byte 0xf1"); /* INT1 */
    PROBE("int $3");
    PROBE("int $4");
    set_idt(13, SEL_CODE, vector_stubs[0x90], GATE_INT);
    PROBE("int $13"); /* pushes no error code: a stub for vectors without one fits */
    set_idt(13, SEL_CODE, vector_stubs[13], GATE_INT);
    PROBE("bound %1, (%0)", "r"(bounds), "r"(7));
    PROBE("bound %1, (%0)", "r"(bounds), "r"(11));
    PROBE("bound %1, (%0)", "r"(bounds), "r"(4));
}

static void undefined(void)
{
    PROBE("ud2");
    PROBE(".byte 0x0f, 0xb9, 0xc0"); /* UD1 */
    PROBE(".byte 0x0f, 0xff, 0xc0"); /* UD0 */
    PROBE("lock; nop");
    PROBE(".byte 0xf0, 0x01, 0xc0"); /* LOCK ADD EAX, EAX */
    PROBE(".byte 0xf0, 0x8b, 0x03"); /* LOCK MOV */
    PROBE(".byte 0xf0, 0x39, 0x03"); /* LOCK CMP */
    PROBE("lock; addl %0, (%1)", "a"(1), "b"(buffer));
    PROBE(".byte 0x8e, 0xc8");       /* MOV CS, AX */
    PROBE(".byte 0x8c, 0xf0");       /* MOV EAX, sixth segment register */
    PROBE(".byte 0x8d, 0xc0");       /* LEA of a register */
    PROBE(".byte 0xc5, 0xc0, 0x00"); /* would be LDS of a register: a VEX prefix */
    PROBE(".byte 0x0f, 0x20, 0xc8"); /* MOV EAX, CR1 */
    PROBE(".byte 0xfe, 0xd0");       /* group 4, /2 */
    PROBE(".byte 0xff, 0xf8");       /* group 5, /7 */
    PROBE(".byte 0x0f, 0x0b, 0x90");
    PROBE(".byte 0xff, 0xd8");       /* far call of a register */
    PROBE(".byte 0x0f, 0xc7, 0xc8"); /* CMPXCHG8B of a register */
}

static void protection(void)
{
    PROBE("mov %0, %%ds", "r"(0x300));
    PROBE("mov %0, %%ds", "r"(0x304)); /* LDT selector with a null LDT */
    PROBE("mov %0, %%ss", "r"(0));
    PROBE("mov %0, %%ss", "r"(SEL_USER_DATA));
    PROBE("int $0x80");
    idt[0x81 * 8 + 5] = 0;
    PROBE("int $0x81"); /* not a gate: vector * 8 + IDT */
    idt[0x82 * 8 + 5] = 0x0e;
    PROBE("int $0x82"); /* not present */
    PROBE("ljmp $0, $0");
    PROBE("ljmp $0x10, $0");
    PROBE("ltr %w0", "r"(SEL_DATA));
    PROBE("lldt %w0", "r"(SEL_DATA));
    PROBE("lldt %w0", "r"(SEL_TSS));
    PROBE_USER("hlt");
    PROBE_USER("cli");
    PROBE_USER("in $0x60, %%al", );
    PROBE_USER("mov %%cr0, %0", "r"(0));
    PROBE_USER("int $0x20");
    PROBE_USER("int3");
    PROBE_USER("ud2");
}

static void not_present(void)
{
    set_segment(SEL_FREE, 0, 0xfffff, (SEG_DATA & ~SEG_PRESENT) | SEG_BIG | SEG_GRAN);
    set_segment(SEL_FREE + 8, 0, 0xfffff, (SEG_CODE & ~SEG_PRESENT) | SEG_BIG | SEG_GRAN);
    PROBE("mov %0, %%es", "r"(SEL_FREE));
    PROBE("mov %0, %%ss", "r"(SEL_FREE));
    PROBE("ljmp $0x68, $0");
    set_segment(SEL_FREE, 0, 0xfff, SEG_DATA | SEG_BIG);
    PROBE("mov %0, %%fs; mov %%fs:0xffc, %%eax; mov %%fs:0xffd, %%eax", "r"(SEL_FREE));
    PROBE("mov %0, %%fs; mov %%fs:0, %%eax", "r"(0));
}

static void coprocessor(void)
{
    WRITE_CR(0, READ_CR(0) | 8); /* TS */
    PROBE("fninit");
    PROBE("fwait"); /* MP clear: not affected */
    WRITE_CR(0, READ_CR(0) | 2);
    PROBE("fwait");
    WRITE_CR(0, (READ_CR(0) & ~8u) | 4); /* EM */
    PROBE("fninit");
    PROBE("fwait");
    WRITE_CR(0, READ_CR(0) & ~6u);
    PROBE("fninit");
    const u16 control = 0x37b; /* division by zero unmasked */
    PROBE("fldcw (%0); fld1; fldz; fdivrp", "r"(&control));
    PROBE("fnstsw %%ax; fnclex", );
    PROBE("fninit; fldcw (%0); fld1; fldz; fdivrp; fwait", "r"(&control));
    PROBE("fnclex; fninit");
}

void guest_main(void)
{
    divide();
    traps();
    undefined();
    protection();
    not_present();
    coprocessor();
}
