/* String instructions that fault midway, and accesses across pages: the state from which they can
 * be restarted; CMPXCHG8B; alignment checks. QEMU 7.2 takes the load of a read-modify-write for a
 * read, and has no alignment check. */
#include "lib/guest.h"

#define VA 0x40000000u

static u8 frames[2][4096] __attribute__((aligned(4096)));
static u32 *root;

static void map(unsigned n, u32 flags)
{
    *pte32_of(root, VA + n * 4096, 1) = (u32)frames[n] | flags;
    invlpg(VA + n * 4096);
}

static void show(const char *name)
{
    put_asm(name);
    print_fault();
    printf(" ecx %lx esi %lx edi %lx\n", fault.frame.cx, fault.frame.si, fault.frame.di);
}

#define CASE(insn, ...)                                                                            \
    do {                                                                                           \
        TRY(insn, __VA_ARGS__);                                                                    \
        show(insn);                                                                                \
    } while (0)

static void strings(void)
{
    static u8 from[64];
    map(1, 0);
    CASE("rep movsb", "S"(VA + 0x100), "D"(VA + 0xff0), "c"(32));
    CASE("rep movsl", "S"(VA + 0x100), "D"(VA + 0xff2),
         "c"(8)); /* the element across pages is not begun */
    CASE("rep movsl", "S"(VA + 0xff4), "D"(VA + 0x100), "c"(8));
    CASE("std; rep movsb", "S"(VA + 0x100), "D"(VA + 0x1001), "c"(8));
    CASE("rep stosw", "a"(0), "D"(VA + 0xffc), "c"(8), "S"(0));
    CASE("mov $1, %%al; repne scasb", "D"(VA + 0xff8), "c"(100), "S"(0));
    CASE("repe cmpsb", "S"(VA + 0xff8), "D"(VA + 0x10), "c"(100));
    CASE("rep lodsl", "S"(VA + 0xff0), "D"(0), "c"(100));
    CASE("xor %%ecx, %%ecx; rep movsb; xor %%eax, %%eax; ud2", "S"(VA + 0x1000),
         "D"(VA + 0x1000)); /* no count, no fault */
    CASE("mov $0x80, %%dx; rep outsb", "S"(VA + 0xffe), "D"(0), "c"(8));
    CASE("mov $0x61, %%dx; rep insb", "D"(VA + 0xffe), "S"(0), "c"(8));
    /* Restarted, it ends as if nothing had been. */
    map(1, PTE_P | PTE_W);
    for (unsigned i = 0; i < sizeof(from); i++)
        from[i] = (u8)i;
    map(1, 0);
    TRY("rep movsb", "S"(from), "D"(VA + 0xfe0), "c"(64));
    const struct frame f = fault.frame;
    map(1, PTE_P | PTE_W);
    asm volatile("rep movsb" : : "S"(f.si), "D"(f.di), "c"(f.cx) : "memory");
    check("restarted", !memcmp((void *)(VA + 0xfe0), from, 64));
}

static void crossing(void)
{
    map(1, 0);
    memset(frames[0] + 0xff0, 0x11, 16);
    PROBE("movl $0, 0xffe(%0)", "b"(VA));
    PROBE("addl $1, 0xffd(%0)", "b"(VA));
    PROBE_USER("lea 0x1002(%0), %%esp; push %%eax", "b"(VA));
    PROBE("movl $0, 0x1ffe(%0)", "b"(VA - 0x1000)); /* the first page is good... */
    PROBE("xor %%eax, %%eax; lock; cmpxchg8b 0xffc(%0)", "b"(VA));
    PROBE("fildl (%1); fistpll 0xffc(%0)", "b"(VA), "c"(frames));
    PROBE("xchg %%eax, 0xffe(%0)", "b"(VA));
    map(1, PTE_P); /* readable alone */
    WRITE_CR(0, READ_CR(0) | 0x10000);
    PROBE("movl $0, 0xffe(%0)", "b"(VA));
    PROBE("pushl 0xffe(%0)", "b"(VA));
    PROBE("popl 0xffe(%0)", "b"(VA));
    printf("nothing was written: %x\n", *(u16 *)(frames[0] + 0xffe));
    map(1, PTE_P | PTE_W);
    frames[1][0] = 0;
    frames[1][1] = 0;
    asm volatile("addl $0x01010101, 0xffe(%0)" : : "r"(VA) : "memory");
    printf("now it is: %x %x\n", *(u16 *)(frames[0] + 0xffe), *(u16 *)frames[1]);
    u32 bit;
    asm volatile("xor %0, %0; bts %1, (%2); setc %b0"
                 : "=&q"(bit)
                 : "r"(4096 * 8 + 3), "r"(VA)
                 : "memory");
    printf("BTS reaches the next page: %u %x\n", bit, frames[1][0]);
    *pte32_of(root, VA - 4096, 1) = 0;
    PROBE("bts %0, (%1)", "r"(-1), "b"(VA));
}

static void alignment(void)
{
    WRITE_CR(0, READ_CR(0) | 0x40000);
    for (int ac = 0; ac < 2; ac++) {
        user_flags = 2 | (word)ac << 18;
        printf("AC %d\n", ac);
        PROBE_USER("mov 1(%0), %%eax", "b"(VA));
        PROBE_USER("mov 2(%0), %%eax", "b"(VA));
        PROBE_USER("mov 1(%0), %%ax", "b"(VA));
        PROBE_USER("mov 1(%0), %%al", "b"(VA));
        PROBE_USER("fldl 4(%0)", "b"(VA));
        PROBE_USER("fldl 8(%0)", "b"(VA));
    }
    user_flags = 2;
    PROBE("pushf; orl $0x40000, (%%esp); popf; mov 1(%0), %%eax", "b"(VA)); /* CPL 0: never */
    WRITE_CR(0, READ_CR(0) & ~0x40000ul);
}

void guest_main(void)
{
    root = page_alloc();
    for (u32 at = 0; at < 0x2000000; at += 0x400000)
        root[at >> 22] = at | PTE_PS | PTE_P | PTE_W | PTE_U;
    WRITE_CR(4, READ_CR(4) | 0x10);
    WRITE_CR(3, root);
    map(0, PTE_P | PTE_W | PTE_U);
    map(1, PTE_P | PTE_W | PTE_U);
    WRITE_CR(0, READ_CR(0) | 0x80000000);
    asm volatile("fninit"); /* as it is at power-up, no register is empty */
    strings();
    crossing();
    map(0, PTE_P | PTE_W | PTE_U);
    alignment();
}
