/* REP STOS and REP MOVS in 64-bit code: across pages, up to a page that is not there, over elements
 * that lie in two pages, overlapping, backwards, with nothing to do, over code. */
#include "lib/guest.h"

#define VA    0x0000300000000000ul
#define PAGES 3u

static u8 frames[PAGES * 4096] __attribute__((aligned(4096)));

static void fill(void)
{
    for (unsigned i = 0; i < sizeof(frames); i++)
        frames[i] = (u8)(i * 7 + (i >> 8));
}

static u32 sum(void)
{
    u32 s = 0;
    for (unsigned i = 0; i < sizeof(frames); i++)
        s = (s << 5 ^ s >> 27 ^ frames[i]) * 0x9e3779b1;
    return s;
}

static void show(const char *name)
{
    put_asm(name);
    print_fault();
    printf(" cx %lx si %lx di %lx, memory %x\n", fault.frame.cx, fault.frame.si, fault.frame.di,
           sum());
}

/* UD2 shows the registers where nothing else faults. */
#define CASE(insn, di, si, cx)                                                                     \
    do {                                                                                           \
        fill();                                                                                    \
        TRY(insn "; ud2", "D"(VA + (di)), "S"(VA + (si)), "c"((u64)(cx)),                          \
            "a"(0x8877665544332211ul));                                                            \
        show(insn);                                                                                \
    } while (0)

static void all(const char *what)
{
    printf("%s\n", what);
    CASE("rep stosb", 0x10, 0, 5);
    CASE("rep stosb", 0xfff, 0, 1);
    CASE("rep stosb", 0xff0, 0, 0x1020);
    CASE("rep stosw", 0xffe, 0, 2);
    CASE("rep stosw", 0xfff, 0, 9);
    CASE("rep stosl", 0xff0, 0, 0x400);
    CASE("rep stosl", 0xffd, 0, 3);
    CASE("rep stosq", 0x1000, 0, 512);
    CASE("rep stosq", 0xff9, 0, 514);
    CASE("rep stosq", 0x18, 0, 0);
    CASE("rep stosq", 0x3000, 0, 0);
    CASE("rep movsb", 0x20, 0x1020, 0x30);
    CASE("rep movsb", 0xff0, 0x1ff8, 0x20);
    CASE("rep movsb", 0x101, 0x100, 0x40);
    CASE("rep movsb", 0x100, 0x101, 0x1800);
    CASE("rep movsw", 0xfff, 0x1803, 5);
    CASE("rep movsl", 0xff4, 0x2004, 0x40);
    CASE("rep movsq", 0x0, 0x1000, 512);
    CASE("rep movsq", 0x8, 0x0, 300);
    CASE("rep movsq", 0x7fc, 0x17f8, 0x300);
    CASE("rep movsq", 0x1000, 0x3000, 0);
    CASE("std; rep movsb", 0x1010, 0x810, 0x30);
    CASE("std; rep stosq", 0x1010, 0, 4);
    CASE("std; rep movsq", 0x1814, 0x80c, 0x180);
    CASE("std; rep movsw", 0x102f, 0x1031, 0x200);
    CASE("stosq", 0x40, 0, 3);
    CASE("movsl", 0x40, 0x1000, 3);
    CASE("rep stosb", 0x2ff0, 0, 0x20);
    CASE("rep stosq", 0x2ff4, 0, 3);
    CASE("rep movsb", 0x100, 0x2ffc, 0x10);
    CASE("rep movsq", 0x2fe0, 0x100, 8);
    CASE("mov $-1, %%rcx; rep stosb", 0x2f00, 0, 0);
}

/* The instruction's own page is written to, behind it. */
static void over_code(void)
{
    static u8 code[4096] __attribute__((aligned(4096)));
    static const u8 parts[] = {0xf3, 0xa4,                         /* rep movsb */
                               0xb8, 0x11, 0x11, 0x11, 0x11, 0xc3, /* mov $0x11111111, %eax; ret */
                               0x22, 0x22, 0x22, 0x22};
    memcpy(code, parts, sizeof(parts));
    for (unsigned i = 0; i < 3; i++) {
        u64 di = (u64)code + 3, si = (u64)code + 8, cx = 4;
        u32 result;
        asm volatile("call *%4"
                     : "+D"(di), "+S"(si), "+c"(cx), "=a"(result)
                     : "r"(code)
                     : "memory");
        printf("code behind it: %x\n", result);
        memset(code + 8, 0x33 + (int)i, 4);
    }
}

/* The instruction overwrites itself and goes on to the end of what is mapped: it is fetched once,
 * unless an interrupt comes. */
static void over_itself(const char *insn, u16 bytes, u64 value)
{
    memset(frames, 0x90, sizeof(frames));
    memcpy(frames + 0x20, &bytes, 2);
    TRY("jmp *%%rbx", "b"(VA + 0x20), "D"(VA), "c"(0x8000ul), "a"(value));
    printf("%s over itself: vector %d, at %lx, cx %lx, di %lx, there %x\n", insn, fault.vector,
           fault.frame.ip, fault.frame.cx, fault.frame.di, frames[0x20]);
}

void guest_main(void)
{
    u64 *root = (u64 *)READ_CR(3);
    for (unsigned i = 0; i < PAGES; i++)
        *pte_of(root, 4, VA + i * 4096, 1) = (u64)(frames + i * 4096) | PTE_P | PTE_W | PTE_U;
    all("in order:");
    over_itself("rep stosb", 0xaaf3, 0x9090909090909090);
    over_itself("rep stosb", 0xaaf3, 0xf4f4f4f4f4f4f4f4);
    over_itself("rep stosl", 0xabf3, 0x9090909090909090);
    all("again, with what the first time left in TLBs:");
    for (unsigned i = 0; i < PAGES; i++)
        *pte_of(root, 4, VA + i * 4096, 1) = (u64)(frames + (2 - i) * 4096) | PTE_P | PTE_W | PTE_U;
    WRITE_CR(3, READ_CR(3));
    all("the other way round:");
    over_code();
}
