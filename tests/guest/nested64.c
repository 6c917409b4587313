/* Exceptions while an exception or interrupt is being delivered: which become #DF, which follow one
 * another, and the EXT bit of their error codes.
 * QEMU 7.2 never sets EXT and counts gates of 8 bytes in error codes. */
#include "lib/guest.h"

#define UNMAPPED 0x0000100000000000ul

static void absent(int vector)
{
    set_idt(vector, SEL_CODE, vector_stubs[vector], GATE_INT & ~SEG_PRESENT);
}

static void present(int vector)
{
    set_idt(vector, SEL_CODE, vector_stubs[vector], GATE_INT);
}

void guest_main(void)
{
    absent(6); /* benign, then contributory: one after the other */
    PROBE("ud2");
    present(6);
    absent(3);
    PROBE("int3"); /* software: EXT is clear */
    present(3);
    absent(1);
    PROBE(".byte 0xf1");
    present(1);
    absent(0); /* contributory twice: #DF */
    PROBE("xor %%ecx, %%ecx; div %%ecx");
    present(0);
    absent(13);
    PROBE("mov %0, %%ds", "r"(0x300));
    absent(11);
    PROBE("int $0x80; mov %0, %%ds", "r"(0x300));
    present(13);
    PROBE("int3; mov %0, %%ds", "r"(0x300));
    present(11);
    absent(14); /* page fault, then contributory: #DF */
    PROBE("mov (%q0), %%al", "b"(UNMAPPED));
    present(14);

    /* A page fault for the stack of a handler: after a benign or contributory one it is a page
     * fault. */
    tss_area.tss.ist[0] = UNMAPPED + 0x1000;
    set_gate(idt + 6 * 16, SEL_CODE, vector_stubs[6], GATE_INT, 1);
    PROBE("ud2");
    present(6);
    set_gate(idt + 13 * 16, SEL_CODE, vector_stubs[13], GATE_INT, 1);
    PROBE("mov %0, %%ds", "r"(0x300));
    present(13);
    set_gate(idt + 14 * 16, SEL_CODE, vector_stubs[14], GATE_INT, 1);
    PROBE("mov (%q0), %%al", "b"(UNMAPPED)); /* page fault twice: #DF */
    present(14);

    /* An external interrupt through a gate that is not there. */
    pic_init();
    apic_enable();
    absent(0x50);
    apic_icr(0, 0x40000 | 0x50);
    PROBE("sti; nop; nop; cli");
    apic_write(APIC_EOI, 0);

    /* Beyond the limit of the table. */
    const struct table_register small = {0x20 * 16 - 1, (word)idt},
                                full = {sizeof(idt) - 1, (word)idt};
    asm volatile("lidt %0" : : "m"(small));
    PROBE("int $0x1f");
    PROBE("int $0x20");
    apic_icr(0, 0x40000 | 0x51);
    PROBE("sti; nop; nop; cli");
    asm volatile("lidt %0" : : "m"(full));
}
