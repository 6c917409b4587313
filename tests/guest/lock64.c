/* LOCK: where it is allowed (memory destinations of these instructions alone) and #UD elsewhere;
 * CMPXCHG, CMPXCHG8B, CMPXCHG16B and XADD's results, and a write that happens even on failure.
 * QEMU 7.2 takes LOCK before some instructions that allow none. */
#include "lib/guest.h"

static u64 m[4] __attribute__((aligned(16)));

#define ON(insn)                                                                                   \
    do {                                                                                           \
        TRY(insn, "b"(m), "a"(0ul), "c"(0ul));                                                     \
        put_asm(insn);                                                                             \
        print_fault();                                                                             \
        putchar('\n');                                                                             \
    } while (0)

static void legality(void)
{
    ON("lock; add %%ecx, (%%rbx)");
    ON("lock; adcb $1, (%%rbx)");
    ON("lock; andq $1, (%%rbx)");
    ON("lock; orw %%cx, (%%rbx)");
    ON("lock; sbb %%rcx, (%%rbx)");
    ON("lock; subl $1, (%%rbx)");
    ON("lock; xorl $1, (%%rbx)");
    ON("lock; incl (%%rbx)");
    ON("lock; decb (%%rbx)");
    ON("lock; negl (%%rbx)");
    ON("lock; notl (%%rbx)");
    ON("lock; btsl $1, (%%rbx)");
    ON("lock; btrl $1, (%%rbx)");
    ON("lock; btcl $1, (%%rbx)");
    ON("lock; xadd %%ecx, (%%rbx)");
    ON("lock; xchg %%ecx, (%%rbx)");
    ON("lock; cmpxchg %%ecx, (%%rbx)");
    ON("lock; cmpxchg8b (%%rbx)");
    ON("lock; cmpxchg16b (%%rbx)");
    ON(".byte 0xf0, 0x03, 0x0b");             /* ADD ECX, memory */
    ON(".byte 0xf0, 0x39, 0x0b");             /* CMP */
    ON(".byte 0xf0, 0x83, 0x3b, 0x00");       /* CMP imm */
    ON(".byte 0xf0, 0x85, 0x0b");             /* TEST */
    ON(".byte 0xf0, 0x0f, 0xba, 0x23, 0x01"); /* BT */
    ON(".byte 0xf0, 0x01, 0xc9");             /* ADD of registers */
    ON(".byte 0xf0, 0xff, 0xc1");             /* INC ECX */
    ON(".byte 0xf0, 0x0f, 0xb1, 0xc9");       /* CMPXCHG of registers */
    ON(".byte 0xf0, 0x87, 0xc9");             /* XCHG of registers */
    ON(".byte 0xf0, 0xd1, 0x23");             /* SHL */
    ON(".byte 0xf0, 0xff, 0x33");             /* PUSH */
    ON(".byte 0xf0, 0xa4");                   /* MOVSB */
    ON(".byte 0xf0, 0xc7, 0x03, 0, 0, 0, 0"); /* MOV imm */
}

static void results(void)
{
    m[0] = 5;
    m[1] = 6;
    u64 a = 5, d = 6;
    u8 z;
    asm volatile("lock; cmpxchg16b (%3); setz %2"
                 : "+a"(a), "+d"(d), "=q"(z)
                 : "r"(m), "b"(7ul), "c"(8ul)
                 : "memory");
    printf("CMPXCHG16B: ZF %u, %lx %lx\n", z, m[0], m[1]);
    asm volatile("lock; cmpxchg16b (%3); setz %2"
                 : "+a"(a), "+d"(d), "=q"(z)
                 : "r"(m), "b"(9ul), "c"(9ul)
                 : "memory");
    printf("and failing: ZF %u, %lx %lx, RDX:RAX %lx %lx\n", z, m[0], m[1], d, a);
    a = 0x1111111100000007;
    d = 0x2222222200000000;
    asm volatile("cmpxchg8b (%3); setz %2"
                 : "+a"(a), "+d"(d), "=q"(z)
                 : "r"(m), "b"(1ul), "c"(2ul)
                 : "memory");
    printf("CMPXCHG8B: ZF %u, %lx, RDX:RAX %lx %lx\n", z, m[0], d, a);
    a = 0xffffffff00000003;
    asm volatile("cmpxchg %%ecx, (%2); setz %1" : "+a"(a), "=q"(z) : "r"(m), "c"(4) : "memory");
    printf("CMPXCHG that fails: ZF %u, RAX %lx\n", z, a);
    u64 x = 0x100000003;
    asm volatile("lock; xaddl %k0, (%1)" : "+r"(x) : "r"(m) : "memory");
    printf("XADD: %lx, register %lx\n", m[0], x);
    x = 0xffffffffffffffff;
    asm volatile("xchg %k0, (%1)" : "+r"(x) : "r"(m) : "memory");
    printf("XCHG: %lx, register %lx\n", m[0], x);
    m[0] = 0;
    asm volatile("lock; btsq %1, (%0)" : : "r"(m), "r"(65ul) : "memory");
    printf("BTS of bit 65: %lx %lx\n", m[0], m[1]);
}

void guest_main(void)
{
    legality();
    results();
}
