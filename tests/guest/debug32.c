/* Debug exceptions: execution, data and I/O breakpoints, what DR6 says, RF, single-step over
 * ordinary, repeated and stack-switching instructions, general detect, DR4 and DR5. QEMU 7.2 has no
 * general detect, lets STI hold back a step, and keeps reserved bits of DR6. */
#include "lib/guest.h"

static u32 area[2048] __attribute__((aligned(16)));
static volatile u32 *const data = area + 1024; /* room below it for a stack */
static int count;
static word first_ip, last_ip, dr6;
static int disarm_after;

/* Count #DB, note where, and switch TF off after so many. */
static void on_debug(struct frame *f)
{
    if (!count++)
        first_ip = f->ip;
    last_ip = f->ip;
    dr6 = READ_DR(6);
    WRITE_DR(6, 0xffff0ff0);
    if (count >= disarm_after)
        f->flags &= ~0x100ul;
    f->flags |= 0x10000; /* RF, as debuggers do for execution breakpoints */
}

static void start(void)
{
    count = 0;
    dr6 = 0;
    disarm_after = 1000;
    WRITE_DR(6, 0xffff0ff0);
}

static void show(const char *name)
{
    put_asm(name);
    printf("%d", count);
    if (count)
        printf(", first +%ld, last +%ld, DR6 %lx", (long)(first_ip - resume.probe),
               (long)(last_ip - resume.probe), dr6 & 0xe00f);
    putchar('\n');
}

/* Set TF for the instructions given; the POPF that clears it is stepped over too. */
#define STEP(insn, ...)                                                                            \
    do {                                                                                           \
        start();                                                                                   \
        TRY("pushf; orl $0x100, (%%esp); popf; " insn "; pushf; andl $~0x100, (%%esp); popf; nop", \
            __VA_ARGS__);                                                                          \
        show(insn);                                                                                \
    } while (0)

static void steps(void)
{
    STEP("nop");
    STEP("nop; nop");
    STEP("mov $3, %%ecx; mov %0, %%edi; cld; rep stosl", "r"(data));
    STEP("xor %%ecx, %%ecx; rep stosb");
    STEP("mov %%ss, %%eax; mov %%eax, %%ss; nop");
    STEP("push %%ss; pop %%ss; nop");
    STEP("jmp 1f; nop; 1: nop");
    STEP("cpuid");
    STEP("int $0x41"); /* TF is clear in the handler and comes back with IRET */
    STEP("sti; cli");
}

static void breakpoints(void)
{
    start();
    asm volatile("mov $1f, %%eax; mov %%eax, %%dr0" : : : "eax");
    WRITE_DR(7, 0x402 | 0x100);
    asm volatile("movl $1f, resume+12; nop; 1: nop; nop" : : : "memory");
    show("execution");
    start();
    WRITE_DR(7, 0x400);
    asm volatile("nop" : : : "memory");
    show("disabled");

    static const struct {
        const char *name;
        u32 dr7;
        u32 offset;
    } cases[] = {{"write, 4 bytes", 0x000d0402, 0},
                 {"write, 1 byte at 0", 0x00010402, 0},
                 {"write, 1 byte at 3", 0x00010402, 3},
                 {"write, 2 bytes at 4", 0x00050402, 4},
                 {"access, 4 bytes", 0x000f0402, 0}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        WRITE_DR(0, (word)data + cases[i].offset);
        WRITE_DR(7, cases[i].dr7);
        start();
        TRY("movl $1, (%0); nop", "b"(data));
        show(cases[i].name);
        start();
        TRY("mov (%0), %%eax; nop", "b"(data));
        show("  read");
        start();
        TRY("mov %%eax, 2(%0); nop", "b"(data));
        show("  write of bytes 2 to 5");
        start();
        TRY("xor %%eax, %%eax; cmpxchg %%ecx, (%0); nop", "b"(data), "c"(0));
        show("  CMPXCHG");
        start();
        TRY("push %%eax; mov %%esp, %%eax; mov %0, %%esp; push %%eax; mov %%eax, %%esp; pop %%eax",
            "b"(data + 1));
        show("  PUSH");
    }
    WRITE_DR(0, (word)data + 4);
    WRITE_DR(7, 0x000d0402);
    start();
    TRY("mov $4, %%ecx; mov %0, %%edi; xor %%eax, %%eax; rep stosl; nop", "b"(data));
    show("REP STOSL through it");

    WRITE_CR(4, READ_CR(4) | 8); /* DE */
    WRITE_DR(0, 0x80);
    WRITE_DR(7, 0x00020402);
    start();
    TRY("out %%al, $0x80; nop");
    show("I/O write");
    start();
    TRY("in $0x80, %%al; nop");
    show("I/O read");
    start();
    TRY("out %%al, $0xed; nop");
    show("another port");
    WRITE_DR(7, 0x400);
}

static void rest(void)
{
    handle(1, NULL);
    PROBE("mov %%db4, %%eax"); /* DE set */
    WRITE_CR(4, READ_CR(4) & ~8ul);
    PROBE("mov %%db4, %%eax");
    WRITE_DR(6, 0xffff0ff0);
    WRITE_DR(7, 0x2400); /* GD */
    TRY("mov %%db0, %%eax");
    printf("general detect: vector %d at +%ld, DR6 %lx, DR7 %lx\n", fault.vector,
           (long)(fault.frame.ip - resume.probe), READ_DR(6) & 0xe00f, READ_DR(7));
    WRITE_DR(7, 0x400);
    WRITE_DR(6, 0);
    printf("DR6 written with 0: %lx\n", READ_DR(6));
    WRITE_DR(6, 0xffffffff);
    printf("DR6 written with ones: %lx\n", READ_DR(6) | 0x10800);
    WRITE_DR(6, 0xffff0ff0);
    WRITE_DR(7, 0);
    printf("DR7 written with 0: %lx\n", READ_DR(7));
    PROBE_USER("mov %%db0, %%eax");
    user_flags = 0x102;
    PROBE_USER("nop");
    PROBE_USER("ud2"); /* the fault, not the step */
    user_flags = 2;
}

static void nothing(struct frame *f)
{
    (void)f;
}

void guest_main(void)
{
    handle(1, on_debug);
    handle(0x41, nothing);
    steps();
    breakpoints();
    rest();
}
