/* Self-modifying code: the next instruction, one behind on the same page, another page, across a
 * page boundary, through another mapping, by string instructions, within a loop. */
#include "lib/guest.h"

static u8 code[3 * 4096] __attribute__((aligned(4096)));
typedef u32 (*function)(void);

static u32 call(void *p)
{
    return ((function)p)();
}

/* MOV EAX, imm32; RET */
static void put(u8 *p, u32 value)
{
    p[0] = 0xb8;
    memcpy(p + 1, &value, 4);
    p[5] = 0xc3;
}

static void put_volatile(volatile u8 *p, u8 v)
{
    *p = v;
}

void guest_main(void)
{
    u32 r;
    asm volatile("movb $2, 1f+1; 1: mov $1, %%al; movzbl %%al, %0; movb $1, 1b+1"
                 : "=r"(r)
                 :
                 : "eax", "memory");
    printf("next instruction: %u\n", r);
    /* The store changes the opcode of the instruction behind it: INC to DEC. */
    asm volatile("mov $10, %0; movb $0x48, 1f; 1: .byte 0x40; movb $0x40, 1b"
                 : "=a"(r)
                 :
                 : "memory");
    printf("opcode of the next: %u\n", r);

    put(code, 0x11);
    r = call(code);
    put(code, 0x22);
    printf("same page: %x %x\n", r, call(code));
    put(code + 4093, 0x11111111); /* three bytes on one page, three on the next */
    r = call(code + 4093);
    put_volatile(code + 4096 + 1, 0x22);
    printf("across pages, second page changed: %x %x\n", r, call(code + 4093));
    put_volatile(code + 4094, 0x33);
    printf("first page changed: %x\n", call(code + 4093));

    /* A loop that changes its own immediate each time round: sum of 1..100. */
    asm volatile("xor %0, %0; mov $100, %%ecx; movl $0, 1f+1;"
                 "2: incl 1f+1; 1: mov $0, %%eax; add %%eax, %0; loop 2b"
                 : "=&b"(r)
                 :
                 : "eax", "ecx", "memory");
    printf("loop: %u\n", r);

    /* Data on the same page as code, written often, must not disturb it: with the code run in
     * between and not, and changed at the end. */
    put(code, 0x44);
    u32 sum = 0;
    for (int i = 0; i < 2000; i++) {
        code[64] = (u8)i;
        sum += call(code) + code[64];
    }
    printf("data next to code: %u", sum);
    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < 1000; i++)
            *(volatile u8 *)&code[64] = (u8)i;
        put(code, 0x100 + (u32)round);
        printf(" %x", call(code));
    }
    putchar('\n');

    u8 fresh[6];
    put(fresh, 0x55);
    asm volatile("cld; rep movsb" : : "S"(fresh), "D"(code), "c"(6) : "memory");
    printf("REP MOVSB: %x\n", call(code));
    asm volatile("rep stosb" : : "a"(0x66), "D"(code + 1), "c"(4) : "memory");
    printf("REP STOSB: %x\n", call(code));
    asm volatile("lock; cmpxchgl %1, (%2)"
                 :
                 : "a"(0x66666666), "r"(0x77), "r"(code + 1)
                 : "memory");
    printf("CMPXCHG: %x\n", call(code));
    asm volatile(
        "push %%eax; mov %%esp, %%ebx; mov %0, %%esp; push $0x88; mov %%ebx, %%esp; pop %%eax"
        :
        : "r"(code + 5)
        : "ebx", "memory");
    printf("PUSH: %x\n", call(code));

    /* The same frame at two addresses. */
    u32 *root = page_alloc();
    for (u32 at = 0; at < 0x2000000; at += 0x400000)
        root[at >> 22] = at | PTE_PS | PTE_P | PTE_W;
    *pte32_of(root, 0x40000000, 1) = (u32)code | PTE_P | PTE_W;
    WRITE_CR(4, READ_CR(4) | 0x10);
    WRITE_CR(3, root);
    WRITE_CR(0, READ_CR(0) | 0x80000000);
    put(code, 0x99);
    r = call((void *)0x40000000);
    put((u8 *)code, 0xaa);
    printf("through another mapping: %x %x", r, call((void *)0x40000000));
    put((u8 *)0x40000000, 0xbb);
    printf(" %x\n", call(code));
    /* Another frame at the same address. */
    put(code + 8192, 0xcc);
    *pte32_of(root, 0x40000000, 1) = (u32)(code + 8192) | PTE_P | PTE_W;
    invlpg(0x40000000);
    printf("another frame there: %x\n", call((void *)0x40000000));
    /* Accessed and dirty bits written by the processor into a page that holds code. */
    put(code, 0xdd);
    volatile u32 *table = (volatile u32 *)(code + 4096);
    memset(code + 4096, 0, 4096);
    put(code + 4096 + 2048, 0xee);
    root[0x50000000u >> 22] = (u32)(code + 4096) | PTE_P | PTE_W;
    table[0] = (u32)code | PTE_P | PTE_W;
    r = call(code + 4096 + 2048);
    *(volatile u8 *)0x50000040 = 1;
    printf("page table next to code: %x %x, A D %x\n", r, call(code + 4096 + 2048),
           (unsigned)(table[0] >> 5 & 3));
}
