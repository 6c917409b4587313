/* Rings in 32-bit mode: data and code segment privilege, conforming code, call gates with
 * parameters and stack switch, IOPL, the I/O permission bitmap, IRET and RETF to an outer ring.
 * QEMU 7.2 does not check the type of the segment that data is accessed in, and reports an absent
 * inner stack segment as #TS. */
#include "lib/guest.h"

enum { S = SEL_FREE };

static volatile u32 seen[8];

static void loads(void)
{
    /* Which DPL and RPL let ring 3 load DS. */
    for (unsigned dpl = 0; dpl < 4; dpl++)
        for (unsigned rpl = 0; rpl < 4; rpl++) {
            set_segment(S, 0, 0xfffff, SEG_DATA | SEG_BIG | SEG_GRAN | dpl << 5);
            TRY("mov %0, %%ds", "r"(S | rpl));
            printf("DS, DPL %u RPL %u: ring 0 ", dpl, rpl);
            print_fault();
            TRY_USER("mov %0, %%ds", "r"(S | rpl));
            puts(", ring 3 ");
            print_fault();
            TRY_USER("mov %0, %%ss", "r"(S | rpl));
            puts(", SS ");
            print_fault();
            putchar('\n');
        }
    static const struct {
        const char *name;
        u32 access;
    } types[] = {{"read-only data", SEG_DATA_RO | SEG_DPL3},
                 {"execute-only code", SEG_EXEC_ONLY | SEG_DPL3},
                 {"readable code", SEG_CODE | SEG_DPL3},
                 {"conforming code, DPL 0", SEG_CONFORMING},
                 {"LDT", SEG_LDT | SEG_DPL3},
                 {"call gate", GATE_CALL32 | SEG_DPL3}};
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        set_segment(S, 0, 0xfffff, types[i].access | SEG_BIG | SEG_GRAN);
        TRY_USER("mov %0, %%es", "r"(S | 3));
        printf("%s: ES ", types[i].name);
        print_fault();
        TRY_USER("mov %0, %%ss", "r"(S | 3));
        puts(", SS ");
        print_fault();
        putchar('\n');
    }
    set_segment(S, 0, 0xfffff, SEG_DATA_RO | SEG_BIG | SEG_GRAN);
    PROBE("mov %0, %%es; movl $0, %%es:(%1)", "r"(S), "r"(seen));
    set_segment(S, 0, 0xfffff, SEG_CODE | SEG_BIG | SEG_GRAN);
    PROBE("mov %0, %%es; mov %%es:(%1), %%eax; movl $0, %%es:(%1)", "r"(S), "r"(seen));
    PROBE("movl $0, %%cs:(%0)", "r"(seen));
}

static void jumps(void)
{
    static const struct {
        const char *name;
        u32 access;
    } types[] = {{"code, DPL 0", SEG_CODE},
                 {"code, DPL 3", SEG_CODE | SEG_DPL3},
                 {"conforming, DPL 0", SEG_CONFORMING},
                 {"conforming, DPL 3", SEG_CONFORMING | SEG_DPL3},
                 {"data", SEG_DATA | SEG_DPL3}};
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        set_segment(S, 0, 0xfffff, types[i].access | SEG_BIG | SEG_GRAN);
        TRY("ljmp $0x60, $1f; 1:", );
        printf("far JMP to %s: ring 0 ", types[i].name);
        print_fault();
        TRY_USER("ljmp $0x63, $1f; 1: mov %%cs, %0; mov %0, (%1)", "a"(0), "b"(seen));
        puts(", ring 3 ");
        print_fault();
        if (fault.vector == VECTOR_DONE)
            printf(", CS %x", seen[0] & 0xffff);
        putchar('\n');
    }
}

extern u8 gate_target[];
asm("gate_target:\n"
    "mov %cs, %eax\n mov %eax, seen\n"
    "mov %ss, %eax\n mov %eax, seen+4\n"
    "mov %esp, %eax\n mov %eax, seen+8\n"
    "mov 8(%esp), %eax\n mov %eax, seen+12\n"  /* first parameter from the top */
    "mov 12(%esp), %eax\n mov %eax, seen+16\n" /* second */
    "mov 20(%esp), %eax\n mov %eax, seen+20\n" /* caller's SS */
    "mov 4(%esp), %eax\n mov %eax, seen+24\n"  /* caller's CS */
    "lret $8\n");

static void gates(void)
{
    gdt[S >> 3] = gate32(SEL_CODE, (u32)gate_target, GATE_CALL32 | SEG_DPL3, 2);
    TRY_USER("push $0x1111; push $0x2222; mov %%esp, %%ebx; lcall $0x63, $0; sub %%esp, %%ebx; mov "
             "%%ebx, (%0)",
             "S"(&seen[7]));
    puts("call gate from ring 3: ");
    print_fault();
    printf(
        ", CS %x SS %x, %d bytes on the inner stack, parameters %x %x, from CS %x SS %x, ESP %d\n",
        seen[0], seen[1], (int)((u32)kernel_stack_top - seen[2]), seen[3], seen[4], seen[6],
        seen[5], (int)seen[7]);
    gdt[S >> 3] = gate32(SEL_CODE, (u32)gate_target, GATE_CALL32, 2);
    PROBE_USER("lcall $0x63, $0");
    gdt[S >> 3] = gate32(SEL_CODE, (u32)gate_target, GATE_CALL32 | SEG_DPL3, 2);
    PROBE_USER("ljmp $0x63, $0"); /* not to an inner ring */
    gdt[S >> 3] = gate32(SEL_CODE, (u32)gate_target, (GATE_CALL32 | SEG_DPL3) & ~SEG_PRESENT, 2);
    PROBE_USER("lcall $0x63, $0");
    gdt[S >> 3] = gate32(SEL_DATA, (u32)gate_target, GATE_CALL32 | SEG_DPL3, 2);
    PROBE_USER("lcall $0x63, $0");
    gdt[S >> 3] = gate32(0, (u32)gate_target, GATE_CALL32 | SEG_DPL3, 2);
    PROBE_USER("lcall $0x63, $0");
    gdt[S >> 3] = gate32(SEL_CODE, (u32)gate_target, GATE_CALL32 | SEG_DPL3, 2);
    /* An inner stack that does not do: ring 1, so that the exception still gets in by ring 0's. */
    set_segment(S + 8, 0, 0xfffff, SEG_CODE | SEG_BIG | SEG_GRAN | 0x20);
    set_segment(S + 16, 0, 0xfffff, (SEG_DATA & ~SEG_PRESENT) | SEG_BIG | SEG_GRAN | 0x20);
    gdt[S >> 3] = gate32(S + 9, (u32)gate_target, GATE_CALL32 | SEG_DPL3, 0);
    static const u16 stacks[] = {SEL_USER_DATA, SEL_DATA, 0, 0x301, S + 17, S + 9};
    for (unsigned i = 0; i < ARRAY_SIZE(stacks); i++) {
        tss_area.tss.ss1 = stacks[i];
        printf("SS1 %x: ", stacks[i]);
        PROBE_USER("lcall $0x63, $0");
    }
}

static void io(void)
{
    PROBE_USER("in $0x61, %%al");
    tss_area.bitmap[0x61 / 8] &= (u8) ~(1u << (0x61 % 8));
    PROBE_USER("in $0x61, %%al");
    PROBE_USER("in $0x61, %%ax");
    tss_area.bitmap[0x62 / 8] &= (u8) ~(1u << (0x62 % 8));
    PROBE_USER("in $0x61, %%ax");
    PROBE_USER("in $0x60, %%ax");
    PROBE_USER("mov $0x61, %%edx; in %%dx, %%al; mov $0x64, %%dl; in %%dx, %%al");
    tss_area.bitmap[8191] = 0;
    PROBE_USER("mov $0xffff, %%edx; in %%dx, %%al");
    PROBE_USER("mov $0xffff, %%edx; in %%dx, %%ax"); /* the byte behind the bitmap counts */
    tss_area.tss.iomap = 0xffff;
    PROBE_USER("in $0x61, %%al");
    tss_area.tss.iomap = sizeof(tss_t);
    for (word iopl = 0; iopl < 4; iopl += 3) {
        user_flags = 2 | iopl << 12;
        printf("IOPL %lu\n", iopl);
        PROBE_USER("cli; sti");
        PROBE_USER("in $0x64, %%al");
        PROBE_USER("mov $0x64, %%edx; insb");
        TRY_USER("pushf; orl $0x3200, (%%esp); popf; pushf; pop (%0)", "b"(seen));
        printf("POPF of IOPL 3, IF: %x\n", seen[0] & 0x3200);
    }
    user_flags = 2;
}

static void returns(void)
{
    static u32 frame[5];
    /* DS, ES with DPL below the outer ring are made null. */
    set_segment(S, 0, 0xfffff, SEG_DATA | SEG_BIG | SEG_GRAN);
    frame[3] = (u32)frame;
    frame[4] = SEL_USER_DATA;
    TRY("mov %1, %%es; push $0x23; push resume+4; push $0x1b; push $1f; lret; 1: mov %%es, %%eax; "
        "int $0x80",
        "b"(frame), "c"(S));
    printf("RETF to ring 3: ");
    print_fault();
    printf(", ES %lx\n", fault.frame.ax & 0xffff);
    PROBE("push $0x23; push resume+4; push $0x18; push $1f; lret; 1:"); /* RPL 0: to the same ring,
                                                                           DPL 3 */
    PROBE("push $0x20; push resume+4; push $0x1b; push $1f; lret; 1:"); /* SS RPL 0 */
    PROBE("push $0; push resume+4; push $2; push $0x1b; push $1f; iret; 1:");
    PROBE("push $2; push $0x13; push $1f; iret; 1:");
    PROBE_USER("push $2; push $0x8; push $1f; iret; 1:");
    PROBE_USER("push $0x8; push $1f; lret; 1:");
}

void guest_main(void)
{
    loads();
    jumps();
    io();
    returns();
    gates();
}
