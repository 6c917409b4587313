/* IRETQ, SYSRETQ and SYSCALL in their common forms and just beside them; bit strings in memory;
 * instructions that lie in two pages. */
#include "lib/guest.h"

#define EFER          0xc0000080
#define NON_CANONICAL 0x0000800000000000ul

static volatile u64 seen[8];

/* IRETQ with the frame of the operands, to the label 1 in ring 0 or (66 is on the way back) 3. */
#define IRET(ss, flags, cs)                                                                        \
    "mov %%rsp, %%rdx; push $" #ss "; push %%rdx; push $" #flags "; push $" #cs                    \
    "; mov $1f, %%edx; push %%rdx; iretq; 1: "

static void same_ring(void)
{
    PROBE(IRET(0x10, 2, 8));
    PROBE(IRET(0, 2, 8));                   /* a null SS is allowed there */
    PROBE(IRET(0x10, 0x102, 8) "nop; nop"); /* TF: #DB after the first NOP */
    PROBE(IRET(0x13, 2, 8));                /* RPL of SS */
    PROBE(IRET(0x23, 2, 8));
    PROBE(IRET(0x10, 2, 0));                                       /* no CS */
    PROBE(IRET(0x10, 2, 0x10));                                    /* data as CS */
    PROBE(IRET(0x10, 2, 0x1ff8));                                  /* beyond the GDT */
    PROBE(IRET(0x10, 2, 0xc));                                     /* no LDT */
    PROBE(IRET(8, 2, 8));                                          /* code as SS */
    PROBE("pushf; orl $0x4000, (%%rsp); popf; " IRET(0x10, 2, 8)); /* NT */
    PROBE("mov %%rsp, %%rdx; push $0x10; push %%rdx; push $2; push $8; push %q0; iretq",
          "b"(NON_CANONICAL));
    TRY(IRET(0x10, 0xad7, 8) "pushf; pop %%rax; mov %%rax, (%q0); push $2; popf", "b"(seen));
    printf("flags: %lx\n", seen[0]);
}

static void outer_ring(void)
{
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(SEL_DATA));
    TRY(IRET(0x23, 2, 0x2b) "mov %%ds, %%eax; mov %%eax, (%q0); mov %%cs, %%eax; mov %%eax, "
                            "8(%q0); mov %%ss, %%eax; mov %%eax, 16(%q0); int $0x80",
        "b"(seen));
    printf("IRET drops ring 0's data segments: DS %lx, CS %lx, SS %lx\n", seen[0] & 0xffff,
           seen[1] & 0xffff, seen[2] & 0xffff);
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(SEL_USER_DATA));
    PROBE(IRET(0x23, 2, 0x2b) "int $0x80");
    PROBE(IRET(0x23, 0x102, 0x2b) "nop; int $0x80");
    PROBE(IRET(0, 2, 0x2b) "int $0x80");
    PROBE(IRET(0x10, 2, 0x2b) "int $0x80");
    PROBE(IRET(0x23, 2, 0x2b) "cli");
    PROBE(IRET(0x23, 0x3002, 0x2b) "cli; sti; int $0x80"); /* IOPL 3 */
}

extern u8 returns_entry[];
asm("returns_entry:\n"
    "pushf\n pop %rax\n mov %rax, seen_flags\n mov %rbp, %r11\n mov %rdi, %rcx\n sysretq\n");
volatile u64 seen_flags;

#define SYSCALL_TO(rip, flags)                                                                     \
    "mov " rip ", %%rdi; mov $" #flags ", %%ebp; mov %%rsp, %%rbx; syscall; 1: "

static void syscall(void)
{
    wrmsr(EFER, rdmsr(EFER) | 1);
    wrmsr(0xc0000081, (u64)SEL_CODE << 32 | (u64)0x1b << 48);
    wrmsr(0xc0000082, (word)returns_entry);
    wrmsr(0xc0000084, 0x47700); /* TF, IF, DF, IOPL, NT, AC */
    user_flags = 0x3202 | 0xc01;
    PROBE_USER(SYSCALL_TO("$1f", 0x202));
    printf("SYSCALL clears: %lx\n", seen_flags & 0x47f01);
    user_flags = 2;
    PROBE_USER(SYSCALL_TO("$1f", 0x102) "nop; nop"); /* TF from SYSRET */
    user_flags = 0x102; /* stepping over SYSCALL: the handler does not step */
    TRY_USER("nop; nop; int $0x80");
    print_fault();
    user_flags = 2;
    TRY_USER("mov %q0, %%rdi; mov $2, %%ebp; syscall", "b"(NON_CANONICAL));
    printf("\nSYSRET to no address: vector %ld\n", (long)fault.vector);
}

static void bits(void)
{
    static u64 map[64];
    u64 *middle = map + 32;
    bool ok = true;
    for (int offset = -2000; offset < 2000; offset += 37) {
        int64_t wide = offset;
        u8 was, *byte = (u8 *)middle + (offset >> 3);
        asm volatile("btsq %2, %1; setc %0"
                     : "=q"(was), "+m"(*middle)
                     : "r"(wide)
                     : "memory", "cc");
        ok &= !was && *byte >> (offset & 7) & 1;
        asm volatile("lock; btrl %k2, %1; setc %0"
                     : "=q"(was), "+m"(*(u32 *)middle)
                     : "r"(offset)
                     : "memory", "cc");
        ok &= was && !(*byte >> (offset & 7) & 1);
        asm volatile("btcl %1, %0" : "+m"(*(u32 *)middle) : "r"(offset) : "memory", "cc");
        asm volatile("mov %2, %%r10; btq %%r10, %1; setc %0"
                     : "=q"(was)
                     : "m"(*middle), "r"(wide)
                     : "memory", "cc", "r10");
        ok &= was;
    }
    check("bit strings", ok);
    PROBE("bts %q1, (%q0)", "b"(map), "d"(1ul << 50));
}

static void two_pages(void)
{
    static u8 pages[3 * 4096] __attribute__((aligned(4096)));
    u8 *code = pages + 4096 - 2; /* MOV $imm32, %eax; RET */
    code[0] = 0xb8;
    code[5] = 0xc3;
    bool ok = true;
    for (u32 i = 0; i < 50; i++) {
        u32 v, want = i * 0x01010101u;
        memcpy(code + 1, &want, 4);
        asm volatile("call *%1" : "=a"(v) : "r"(code) : "memory");
        ok &= v == want;
        want ^= 0x100; /* the tail alone */
        code[2] ^= 1;
        asm volatile("call *%1" : "=a"(v) : "r"(code) : "memory");
        ok &= v == want;
    }
    check("an instruction in two pages changes", ok);
    code[2] = 0x90; /* now the first page has a one-byte tail more */
    memcpy(code, "\x0f\x1f\x40\x00\xc3", 5);
    PROBE("call *%q0", "b"(code));
}

void guest_main(void)
{
    same_ring();
    outer_ring();
    syscall();
    bits();
    two_pages();
}
