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

static u8 physical(u32 address)
{
    u8 value;
    asm volatile("movb (%1), %0" : "=q"(value) : "r"(address) : "memory");
    return value;
}

/* Pointers go from 4 GiB to 0. */
static void wrapping(void)
{
    u8 *top = frames[1];
    *pte32_of(root, 0xfffff000, 1) = (u32)top | PTE_P | PTE_W;
    invlpg(0xfffff000);
    for (unsigned i = 0; i < 4096; i++)
        top[i] = (u8)(i * 3), frames[0][i] = 0;
    CASE("rep stosb; ud2", "a"(0x55), "D"(0xfffffff0), "c"(32), "S"(0));
    printf("%x %x %x\n", top[4080], top[4095], physical(15));
    CASE("rep stosl; ud2", "a"(0x66666666), "D"(0xffffffe0), "c"(12), "S"(0));
    CASE("rep movsb; ud2", "S"(0xffffff80), "D"(VA + 0x10), "c"(144));
    printf("%x %x %x\n", frames[0][0x10], frames[0][0x10 + 127], frames[0][0x10 + 128]);
    CASE("stosl; ud2", "a"(0x77777777), "D"(0xfffffffc), "c"(0), "S"(0));
    CASE("lodsb; ud2", "S"(0xffffffff), "D"(0), "c"(0));
    CASE("movsw; ud2", "S"(0xfffffffe), "D"(0xfffffffe), "c"(0));
    CASE("scasb; ud2", "a"(0x77), "D"(0xffffffff), "c"(0), "S"(0));
    printf("equal: %lx\n", fault.frame.flags >> 6 & 1);
    CASE("cmpsl; ud2", "S"(0xfffffffc), "D"(0xfffffff8), "c"(0));
    CASE("std; lodsb; ud2", "S"(0), "D"(0), "c"(0));
    printf("al %x\n", (u8)fault.frame.ax);
}

/* What is not repeated: each size, its result and flags, and the registers. */
static void single(void)
{
    for (unsigned i = 0; i < 4096; i++)
        frames[0][i] = (u8)(i * 5), frames[1][i] = (u8)(i * 7);
    for (unsigned i = 0; i < 3; i++) {
        u32 s = VA + 0x100 + i, d = VA + 0x1100 + i;
        CASE("lodsb; lodsw; lodsl; ud2", "a"(0x11223344), "S"(s), "D"(d), "c"(0));
        printf("eax %lx\n", fault.frame.ax);
        CASE("stosb; stosw; stosl; ud2", "a"(0x11223344), "S"(s), "D"(d), "c"(0));
        printf("%x %x\n", *(u32 *)(frames[1] + 0x100 + i), *(u32 *)(frames[1] + 0x104 + i));
        CASE("movsb; movsw; movsl; ud2", "S"(s), "D"(d), "c"(0));
        printf("%x %x\n", *(u32 *)(frames[1] + 0x100 + i), *(u32 *)(frames[1] + 0x104 + i));
        CASE("scasb; scasw; scasl; ud2", "a"(0x80000000), "S"(s), "D"(d), "c"(0));
        printf("flags %lx\n", fault.frame.flags & 0x8d5);
        CASE("cmpsb; cmpsw; cmpsl; ud2", "S"(s), "D"(d), "c"(0));
        printf("flags %lx\n", fault.frame.flags & 0x8d5);
        CASE("stc; lodsb; jnc 1f; stosb; jnc 1f; movsb; jnc 1f; ud2; 1: hlt", "S"(s), "D"(d),
             "c"(0));
    }
    CASE("std; lodsl; stosl; movsl; ud2", "S"(VA + 0x200), "D"(VA + 0x1200), "c"(0));
    CASE("lodsl", "S"(VA + 0x1ffe), "D"(0), "c"(0));
    CASE("movsl", "S"(VA + 0x200), "D"(VA + 0x1ffe), "c"(0));
    CASE("movsl; ud2", "S"(VA + 0xffe), "D"(VA + 0xffd), "c"(0));
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
    wrapping();
    single();
    crossing();
    map(0, PTE_P | PTE_W | PTE_U);
    alignment();
}
