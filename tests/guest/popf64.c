/* POPF and what it changes at which CPL and IOPL, CLD and STD; the stack in two pages, or not
 * there. */
#include "lib/guest.h"

static volatile word seen[2];

/* Every flag that it could change, alone; VIP and VIF are not its own. */
static const u32 values[] = {0,      0xd5,    0x8d5,   0x200,    0x400,    0x3000,  0x8d5 | 0x600,
                             0x4000, 0x40000, 0x80000, 0x100000, 0x200000, 0x10000, 0x2002};

/* With flags of `from` (and IOPL, if at CPL 0) before. */
#define RUN "push %q1; popf; push %q2; popf; pushf; pop %%rax; mov %%rax, (%q0)"

static void ring0(u32 from)
{
    printf("ring 0, from %x:", from);
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        seen[0] = 0;
        TRY(RUN, "b"(seen), "c"((u64)from), "d"((u64)values[i]));
        printf(" %lx", (long)seen[0]);
        asm volatile("push $2; popf" : : : "memory", "cc");
    }
    printf("\n");
}

static void ring3(u32 flags)
{
    user_flags = flags;
    printf("ring 3, from %x:", flags);
    for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
        seen[0] = 0;
        TRY_USER("push %q1; popf; pushf; pop %%rax; mov %%rax, (%q0); push $2; popf", "b"(seen),
                 "c"((u64)values[i]));
        printf(" %lx", (long)seen[0]);
    }
    printf("\n");
    user_flags = 2;
}

/* Arithmetic flags reach the instructions behind it. */
static void conditions(void)
{
    bool ok = true;
    for (u32 v = 0; v < 4096; v++) {
        u8 c, z, s, o, p;
        asm volatile("push %q5; popf; setc %0; setz %1; sets %2; seto %3; setp %4; push $2; popf"
                     : "=m"(c), "=m"(z), "=m"(s), "=m"(o), "=m"(p)
                     : "r"((u64)(v & 0x8d5))
                     : "memory", "cc");
        ok &= c == (v & 1) && z == (v >> 6 & 1) && s == (v >> 7 & 1) && o == (v >> 11 & 1) &&
              p == (v >> 2 & 1);
    }
    check("conditions", ok);
}

static void direction(void)
{
    u8 text[8] = "abcdefg";
    u8 *at = text + 3;
    asm volatile("std; stosb; cld; stosb" : "+D"(at) : "a"('x') : "memory");
    check("CLD and STD", !memcmp(text, "abxxefg", 8) && at == text + 3);
    seen[0] = 0;
    TRY_USER("std; pushf; pop %%rax; mov %%rax, (%q0); cld; pushf; pop %%rax; mov %%rax, 8(%q0)",
             "b"(seen));
    printf("ring 3: %lx %lx\n", (long)seen[0] & 0x400, (long)seen[1] & 0x400);
}

#define VA 0x0000200000000000ul

static void stacks(void)
{
    static u8 pages[2][4096] __attribute__((aligned(4096)));
    u64 cr3;
    asm volatile("mov %%cr3, %0" : "=r"(cr3));
    for (unsigned i = 0; i < 2; i++)
        *pte_of((u64 *)cr3, 4, VA + i * 4096ul, 1) = (u64)pages[i] | PTE_P | PTE_W | PTE_U;
    *pte_of((u64 *)cr3, 4, VA + 0x2000, 1) = 0;
    volatile u64 *across = (volatile u64 *)(VA + 0xffc);
    *across = 0xcc1;
    TRY("mov %%rsp, %%rdx; mov %q0, %%rsp; popf; pushf; mov (%%rsp), %%rax; mov %%rdx, %%rsp; "
        "mov %%rax, (%q1); push $2; popf",
        "b"(across), "S"(seen));
    printf("across pages: %lx\n", (long)seen[0]);
    PROBE("mov %q0, %%rsp; popf", "b"(VA + 0x2000));
    PROBE("mov %q0, %%rsp; popf", "b"(VA + 0x1ffc));
}

void guest_main(void)
{
    pic_init();
    ring0(2);
    ring0(0x3e02 | 0x8d5);
    ring3(2);
    ring3(0x3002);
    ring3(0x1202);
    conditions();
    direction();
    stacks();
}
