/* When interrupts are let in: the shadow of STI and of MOV SS, CLI right after STI, POPF, IRET, HLT
 * with IF = 1, NMI and its blocking until IRET. Interrupts are the local APIC's own, sent to
 * itself. */
#include "lib/guest.h"

static word at;
static int count, nmis, depth, deepest;

static void on_interrupt(struct frame *f)
{
    at = f->ip;
    count++;
    apic_write(APIC_EOI, 0);
}

static void send(void)
{
    count = 0;
    at = 0;
    apic_icr(0, 0x40000 | 0x50); /* self, fixed, vector 50h */
    while (apic_read(APIC_ICR) & 0x1000)
        continue;
}

static void show(const char *name)
{
    put_asm(name);
    if (count)
        printf("%d, at +%ld\n", count, (long)(at - resume.probe));
    else
        puts("none\n");
}

#define CASE(insn, ...)                                                                            \
    do {                                                                                           \
        send();                                                                                    \
        TRY(insn, __VA_ARGS__);                                                                    \
        show(insn);                                                                                \
        take_interrupts();                                                                         \
    } while (0)

static void on_nmi(struct frame *f)
{
    (void)f;
    nmis++;
    if (++depth > deepest)
        deepest = depth;
    if (nmis == 1) {
        apic_icr(0, 0x40000 | 0x400); /* another, which has to wait */
        for (volatile int i = 0; i < 100; i++)
            continue;
    }
    depth--;
}

void guest_main(void)
{
    pic_init();
    apic_enable();
    handle(0x50, on_interrupt);
    CASE("nop; nop; nop; nop");
    CASE("sti; nop; nop; nop; cli");
    CASE("sti; cli; nop");
    CASE("sti; cli; sti; nop; nop; cli");
    CASE("sti; sti; sti; nop; cli"); /* only the first STI makes a shadow */
    CASE("pushf; orl $0x200, (%%esp); popf; nop; cli");
    CASE("pushf; orl $0x200, (%%esp); push %%cs; push $1f; iret; 1: nop; cli");
    CASE("mov %%ss, %%eax; pushf; orl $0x200, (%%esp); popf; mov %%eax, %%ss; nop; cli");
    CASE("mov %%ss, %%eax; sti; nop; mov %%eax, %%ds; nop; cli");
    CASE("sti; hlt; cli");
    CASE("sti; nop; 1: loop 1b; cli", "c"(3));

    handle(2, on_nmi);
    apic_icr(0, 0x40000 | 0x400);
    for (volatile int i = 0; i < 100; i++)
        continue;
    printf("NMIs with IF clear: %d, nested at most %d deep\n", nmis, deepest);
}
