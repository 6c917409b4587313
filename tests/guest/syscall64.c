/* SYSCALL and SYSRET (64-bit and compatibility), SWAPGS, FSGSBASE, SYSENTER's checks, far returns
 * between 64-bit and compatibility code.
 * QEMU 7.2 loses the arithmetic flags at SYSCALL and takes any base. */
#include "lib/guest.h"

#define EFER          0xc0000080
#define NON_CANONICAL 0x0000800000000000ul

static volatile u64 seen[8];

extern u8 entry[];
asm("entry:\n" /* SYSCALL comes here: ends the probe with what it found */
    "mov %rcx, seen\n mov %r11, seen+8\n mov %cs, %eax\n mov %rax, seen+16\n mov %ss, %eax\n"
    "mov %rax, seen+24\n pushf\n pop %rax\n mov %rax, seen+32\n"
    "test %rbx, %rbx\n jz 1f\n jmp *%rbx\n"
    "1: int $0x80\n");

static void syscall(void)
{
    PROBE_USER("syscall"); /* SCE clear */
    wrmsr(EFER, rdmsr(EFER) | 1);
    wrmsr(0xc0000081, (u64)SEL_CODE << 32 | (u64)0x1b << 48);
    wrmsr(0xc0000082, (word)entry);
    wrmsr(0xc0000084, 0x400); /* clear DF */
    user_flags = 0x402 | 1;
    TRY_USER("syscall", "b"(0ul));
    printf("SYSCALL: RCX %ld R11 %lx CS %lx SS %lx flags %lx\n", (long)(seen[0] - resume.probe),
           seen[1], seen[2], seen[3], seen[4] & 0x401);
    user_flags = 2;
    /* and back: SYSRET takes RFLAGS from R11 and CS, SS from STAR */
    TRY_USER("mov $1f, %%ebx; syscall; mov %%cs, %%ecx; mov %%ss, %%edx; mov %%ecx, (%0); mov "
             "%%edx, 8(%0);"
             "pushf; pop 16(%0); jmp 2f; 1: or $1, %%r11; sysretq; 2:",
             "S"(seen));
    puts("SYSRETQ: ");
    print_fault();
    printf(", CS %lx SS %lx CF %lx\n", seen[0] & 0xffff, seen[1] & 0xffff, seen[2] & 1);
    TRY("mov %%rsp, %%rbx; mov $1f, %%ecx; mov $2, %%r11d; sysretl; .code32; 1: mov %%cs, %%ecx; "
        "mov %%ecx, (%%esi); "
        "int $0x80; .code64",
        "S"(seen));
    puts("SYSRETL: ");
    print_fault();
    printf(", CS %lx\n", seen[0] & 0xffff);
    PROBE_USER("sysretq");
}

static void gs(void)
{
    wrmsr(0xc0000101, 0x1111);
    wrmsr(0xc0000102, 0x2222);
    asm volatile("swapgs");
    printf("SWAPGS: %lx %lx\n", rdmsr(0xc0000101), rdmsr(0xc0000102));
    asm volatile("swapgs");
    printf("again: %lx %lx\n", rdmsr(0xc0000101), rdmsr(0xc0000102));
    asm volatile("mov %0, %%gs" : : "r"(SEL_USER_DATA));
    printf("GS loaded: base %lx\n", rdmsr(0xc0000101));
    PROBE_USER("swapgs");
    static u64 value = 0x77;
    wrmsr(0xc0000100, (word)&value - 0x10);
    u64 v;
    asm volatile("mov %%fs:0x10, %0" : "=r"(v));
    printf("FS base: %lx\n", v);
    asm volatile("addr32 mov %%fs:0x10, %0" : "=r"(v));
    printf("FS base with a 32-bit address: %lx\n", v);
    TRY("mov %%ds:(%q0), %%rax; mov %%rax, (%q1)", "b"(&value),
        "c"(seen)); /* bases of DS etc. are 0 */
    printf("DS: %lx\n", seen[0]);
    PROBE("rdfsbase %%rax");
    if (cpuid(7, 0).b & 1) {
        WRITE_CR(4, READ_CR(4) | 1 << 16);
        asm volatile("wrgsbase %0" : : "r"(0x123456789abul));
        printf("WRGSBASE: %lx\n", rdmsr(0xc0000101));
        asm volatile("rdfsbase %0" : "=r"(v));
        check("RDFSBASE", v == (word)&value - 0x10);
        PROBE_USER("wrfsbase %q0; rdgsbase %%rax", "b"(0ul));
        PROBE_USER("wrfsbase %q0", "b"(NON_CANONICAL));
    } else {
        puts("WRGSBASE: 123456789ab\nRDFSBASE: ok\n");
    }
}

static void compatibility(void)
{
    user_code_selector = SEL_USER_CODE32;
    /* 32-bit code at CPL 3: 48h is DEC, addresses wrap at 4 GiB, R8 is out of reach. */
    TRY_USER(".code32; mov $5, %%eax; .byte 0x48; mov %%eax, (%%esi); mov %%cs, %%eax; mov %%eax, "
             "8(%%esi);"
             "int $0x80; .code64",
             "S"(seen));
    puts("compatibility mode: ");
    print_fault();
    printf(", DEC %lx CS %lx\n", seen[0] & 0xffffffff, seen[1] & 0xffff);
    TRY_USER(
        ".code32; ljmp $0x2b, $1f; .code64; 1: mov $5, %%rax; .byte 0x48; nop; mov %%rax, (%%rsi)",
        "S"(seen));
    puts("far JMP to 64-bit code: ");
    print_fault();
    printf(", %lx\n", seen[0]);
    TRY_USER(".code32; .byte 0x27, 0xce; xor %%eax, %%eax; mov %%ds:(%%eax), %%ebx; .code64");
    puts("DAA, INTO: ");
    print_fault();
    putchar('\n');
    user_code_selector = SEL_USER_CODE64;
}

void guest_main(void)
{
    syscall();
    gs();
    compatibility();
}
