/* IRETD of 32-bit code in its common forms and just beside them; SYSENTER and SYSEXIT again and
 * again, with the segments that they leave; POPFD. */
#include "lib/guest.h"

static volatile u32 seen[8];

/* IRETD with the frame of the operands, to the label 1 in ring 0 or 3. */
#define IRET(flags, cs)      "push $" #flags "; push $" #cs "; push $1f; iret; 1: "
#define IRET3(ss, flags, cs) "mov %%esp, %%edx; push $" #ss "; push %%edx; " IRET(flags, cs)

static void same_ring(void)
{
    PROBE(IRET(2, 8));
    PROBE(IRET(0x102, 8) "nop; nop"); /* TF: #DB after the first NOP */
    PROBE(IRET(2, 0));                /* no CS */
    PROBE(IRET(2, 0x10));             /* data as CS */
    PROBE(IRET(2, 0x1ff8));           /* beyond the GDT */
    PROBE(IRET(2, 0xc));              /* no LDT */
    TRY(IRET(0x200ad7, 8) "pushf; pop %%eax; mov %%eax, (%0); push $2; popf", "b"(seen));
    printf("flags: %x\n", seen[0]);
    TRY(IRET(2, 0x48) ".code16; mov %%cs, %%ax; mov %%eax, (%%ebx); ljmpl $8, $2f; .code32; 2:",
        "b"(seen));
    print_fault();
    printf("\n");
}

static void outer_ring(void)
{
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(SEL_DATA));
    TRY(IRET3(
            0x23, 2,
            0x1b) "mov $0x23, %%eax; mov %%ds, %%ecx; mov %%eax, %%ds; mov %%ecx, (%0); "
                  "mov %%cs, %%eax; mov %%eax, 4(%0); mov %%ss, %%eax; mov %%eax, 8(%0); int $0x80",
        "b"(seen));
    printf("IRET drops ring 0's data segments: DS %x, CS %x, SS %x\n", seen[0] & 0xffff,
           seen[1] & 0xffff, seen[2] & 0xffff);
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(SEL_USER_DATA));
    PROBE(IRET3(0x23, 2, 0x1b) "int $0x80");
    PROBE(IRET3(0x23, 0x102, 0x1b) "nop; int $0x80");
    PROBE(IRET3(0, 2, 0x1b) "int $0x80");
    PROBE(IRET3(0x10, 2, 0x1b) "int $0x80");
    PROBE(IRET3(0x23, 2, 0x1b) "cli");
    PROBE(IRET3(0x23, 0x3002, 0x1b) "cli; sti; int $0x80"); /* IOPL 3 */
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(SEL_DATA));
}

static u8 inner[256];
static volatile u32 sum;
extern u8 sys_entry[];
asm("sys_entry:\n"
    "add %eax, sum\n pushf\n andl $0x200, (%esp)\n pop %eax\n"
    "mov %ebp, %ecx\n mov %edi, %edx\n sysexit\n");

static void system_calls(void)
{
    if (!(cpuid(1, 0).d >> 11 & 1))
        fail("no SYSENTER");
    wrmsr(0x174, SEL_CODE);
    wrmsr(0x175, (u32)inner + sizeof inner);
    wrmsr(0x176, (u32)sys_entry);
    user_flags = 0x202;
    TRY_USER("mov $1000, %%esi; xor %%ebx, %%ebx;"
             "2: mov %%esi, %%eax; mov $1f, %%edi; mov %%esp, %%ebp; sysenter; 1: or %%eax, %%ebx;"
             "dec %%esi; jnz 2b; mov %%ebx, seen; pushf; pop %%eax; mov %%eax, seen+4; int $0x80");
    user_flags = 2;
    print_fault();
    printf("\nsum %u, IF in ring 0: %x, and after it: %x\n", sum, seen[0], seen[1] & 0x200);
    wrmsr(0x174, 3); /* null, but for its RPL */
    PROBE_USER("sysenter");
    PROBE("sysexit");
}

static void flags(void)
{
    static const u32 values[] = {0, 0x8d5, 0x200, 0x400, 0x3000, 0x4000, 0x200000, 0x10000};
    for (unsigned ring = 0; ring < 4; ring += 3) {
        printf("ring %u:", ring);
        for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
#define RUN "push %1; popf; pushf; pop %%eax; mov %%eax, (%0); push $2; popf"
            if (ring)
                TRY_USER(RUN, "b"(seen), "c"(values[i]));
            else
                TRY(RUN, "b"(seen), "c"(values[i]));
            printf(" %x", seen[0]);
        }
        printf("\n");
    }
}

void guest_main(void)
{
    same_ring();
    outer_ring();
    system_calls();
    flags();
}
