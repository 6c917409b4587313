/*
 * What ring 3 must not notice when it runs directly: a program that computes long enough to be
 * promoted, and in between does all that ends a direct run. Prints FAILED lines, and "stress:
 * passed".
 */
#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static unsigned failures;
static volatile uint64_t sink;

static void check(bool good, const char *what)
{
    if (good)
        return;
    printf("FAILED %s\n", what);
    failures++;
}

/* Long enough for three timer interrupts, without a system call. In a page of its own: pages with
 * CPUID do not run directly on every host. */
static __attribute__((noinline, section("computing"), aligned(4096))) void compute(void)
{
    uint64_t x = sink | 1;
    for (unsigned i = 0; i < 20000000; i++)
        x = x * 6364136223846793005u + 1442695040888963407u;
    sink = x;
}

/* ---- Exceptions ---- */

static sigjmp_buf caught;
static volatile int caught_signal;
static void *volatile caught_address;
static volatile uint64_t caught_rip;

static void on_signal(int number, siginfo_t *info, void *context)
{
    caught_signal = number;
    caught_address = info->si_addr;
    caught_rip = (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    siglongjmp(caught, 1);
}

extern const uint8_t at_int3[], behind_int3[], at_int_3[], behind_int_3[], at_ud2[], at_hlt[],
    at_div[];

#define EXPECT(number, rip, what, ...)                                                             \
    do {                                                                                           \
        compute();                                                                                 \
        caught_signal = 0;                                                                         \
        if (!sigsetjmp(caught, 1)) {                                                               \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
        check(caught_signal == (number) && ((rip) == 0 || caught_rip == (uint64_t)(rip)), what);   \
    } while (0)

static void exceptions(void)
{
    EXPECT(SIGTRAP, behind_int3, "int3",
           __asm__ volatile("at_int3: int3\nbehind_int3:"
                            :
                            :
                            : "memory"));
    EXPECT(SIGTRAP, behind_int_3, "int 3",
           __asm__ volatile("at_int_3: .byte 0xcd, 3\nbehind_int_3:"
                            :
                            :
                            : "memory"));
    EXPECT(SIGILL, at_ud2, "ud2", __asm__ volatile("at_ud2: ud2" : : : "memory"));
    EXPECT(SIGSEGV, at_hlt, "hlt", __asm__ volatile("at_hlt: hlt" : : : "memory"));
    EXPECT(SIGFPE, at_div, "division by zero",
           __asm__ volatile("xor %%ecx, %%ecx\nat_div: div %%ecx"
                            :
                            :
                            : "eax", "ecx", "edx", "memory"));
    EXPECT(SIGSEGV, 0, "page fault", *(volatile char *)(uintptr_t)0x123456789000 = 1);
    check(caught_address == (void *)(uintptr_t)0x123456789000, "address of a page fault");
    EXPECT(SIGSEGV, 0, "non-canonical address",
           *(volatile char *)(uintptr_t)0x8000000000000000 = 1);
}

/* ---- Single steps ---- */

static volatile unsigned steps;

static void on_step(int number, siginfo_t *info, void *context)
{
    steps++;
}

static void single_steps(void)
{
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO}, old;
    sigaction(SIGTRAP, &action, &old);
    compute();
    steps = 0;
    __asm__ volatile("pushf\n\t"
                     "orl $0x100, (%%rsp)\n\t"
                     "popf\n\t"
                     "nop\n\t"
                     "nop\n\t"
                     "nop\n\t"
                     "pushf\n\t"
                     "andl $~0x100, (%%rsp)\n\t"
                     "popf\n\t"
                     :
                     :
                     : "memory", "cc");
    check(steps == 6, "single steps");
    sigaction(SIGTRAP, &old, NULL);
}

/* ---- What the processor tells ---- */

/* In pages of its own, which are not run directly. */
__attribute__((noinline, section(".own_pages"), aligned(4096))) static void identity(void)
{
    uint32_t a[4], b[4];
    __cpuid_count(1, 0, a[0], a[1], a[2], a[3]);
    for (unsigned i = 0; i < 4; i++) {
        compute();
        __cpuid_count(1, 0, b[0], b[1], b[2], b[3]);
        check(memcmp(a, b, sizeof a) == 0, "CPUID");
        check(b[2] >> 31 & 1, "CPUID: the hypervisor's bit");
        check(sched_getcpu() == 0, "number of the processor");
    }
    struct timespec t[2];
    uint64_t tsc[2], before = 0;
    for (unsigned i = 0; i < 2; i++) {
        clock_gettime(CLOCK_MONOTONIC, &t[i]);
        tsc[i] = __builtin_ia32_rdtsc();
        for (unsigned n = 0; n < 4; n++) {
            compute();
            uint64_t now = __builtin_ia32_rdtsc();
            check(now > before, "the TSC goes back");
            before = now;
        }
    }
    double ns = (double)(t[1].tv_sec - t[0].tv_sec) * 1e9 + (double)(t[1].tv_nsec - t[0].tv_nsec);
    double rate = (double)(tsc[1] - tsc[0]) / ns;
    check(rate > 0.1 && rate < 20, "TSC against the clock");
}

/* ---- Registers ---- */

static void registers(void)
{
    uint64_t wrong = 0;
    /* Patterns in all that an interrupt could spoil, looked at after each of many rounds. */
    __asm__ volatile("movq $0x123456789abcdef, %%r8\n\t"
                     "movq %%r8, %%r9\n\t"
                     "movq %%r8, %%r10\n\t"
                     "movq %%r8, %%r11\n\t"
                     "movq %%r8, %%r12\n\t"
                     "movq %%r8, %%r13\n\t"
                     "movq %%r8, %%r14\n\t"
                     "movq %%r8, %%xmm0\n\t"
                     "movq %%r8, %%xmm15\n\t"
                     "fninit\n\t"
                     "fldpi\n\t"
                     "movl $60000000, %%ecx\n"
                     "1:\n\t"
                     "movq %%xmm0, %%rax\n\t"
                     "xorq %%r9, %%rax\n\t"
                     "orq %%rax, %0\n\t"
                     "movq %%xmm15, %%rax\n\t"
                     "xorq %%r14, %%rax\n\t"
                     "orq %%rax, %0\n\t"
                     "movq %%r10, %%rax\n\t"
                     "xorq %%r11, %%rax\n\t"
                     "orq %%rax, %0\n\t"
                     "movq %%r12, %%rax\n\t"
                     "xorq %%r13, %%rax\n\t"
                     "orq %%rax, %0\n\t"
                     "decl %%ecx\n\t"
                     "jnz 1b\n\t"
                     : "+r"(wrong)
                     :
                     : "rax", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "xmm0", "xmm15",
                       "cc", "st");
    long double pi;
    __asm__("fstpt %0" : "=m"(pi));
    check(wrong == 0, "registers over interrupts");
    check(pi > 3.14159L && pi < 3.1416L, "x87 registers over interrupts");
}

/* What ring 3 writes with WRGSBASE, and what its kernel does for it, stays over interrupts. FS is
 * the C library's: no compute() without it. */
static void bases(void)
{
    static uint64_t here = 0x1122334455667788;
    const uint64_t values[] = {(uint64_t)(uintptr_t)&here, 0x123456789000, 0xffff800000001000, 0};
    for (unsigned i = 0; i < sizeof values / sizeof values[0]; i++) {
        uint64_t base = values[i], seen;
        if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
            __asm__ volatile("wrgsbase %0" : : "r"(base));
        else if (syscall(SYS_arch_prctl, ARCH_SET_GS, base) < 0)
            continue;
        compute();
        if (i == 0) {
            __asm__ volatile("movq %%gs:0, %0" : "=r"(seen));
            check(seen == here, "what GS points to");
        }
        compute();
        syscall(SYS_arch_prctl, ARCH_GET_GS, &seen);
        check(seen == base, "GS base");
    }
}

/* ---- Memory ---- */

static void memory(void)
{
    uint8_t *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 1, 1 << 20);
    compute();
    mprotect(p, 4096, PROT_READ);
    EXPECT(SIGSEGV, 0, "write to a read-only page", *(volatile uint8_t *)p = 2);
    check(p[0] == 1, "a read-only page");
    mprotect(p, 4096, PROT_READ | PROT_WRITE);
    p[0] = 3;
    EXPECT(SIGSEGV, 0, "execution of data", ((void (*)(void))(uintptr_t)p)());
    pid_t child = fork();
    if (child == 0) {
        for (unsigned i = 0; i < 1 << 20; i += 4096)
            p[i] = 9;
        compute();
        _exit(p[4096] == 9 ? 0 : 1);
    }
    int status = 1;
    compute();
    check(p[4096] == 1, "a page that the child wrote to");
    waitpid(child, &status, 0);
    check(status == 0, "the child");
    munmap(p + 8192, 4096);
    EXPECT(SIGSEGV, 0, "a page that is gone", sink = *(volatile uint8_t *)(p + 8192));

    uint8_t *code =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (uint32_t i = 0; i < 200; i++) {
        code[0] = 0xb8; /* MOV EAX, i; RET */
        memcpy(code + 1, &i, 4);
        code[5] = 0xc3;
        if (i % 50 == 0)
            compute();
        check(((uint32_t(*)(void))(uintptr_t)code)() == i, "changed code");
    }
}

/* In a page of its own, as the instruction is not run directly. */
__attribute__((noinline, section(".own_pages"))) static void write_pkru(uint32_t pkru)
{
    __asm__ volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0) : "memory");
}

/* A signal leaves PKRU as the kernel sets it for handlers. */
static void protection_keys(void)
{
    const int key = pkey_alloc(0, 0);
    if (key < 0) /* a kernel or a host without them */
        return;
    volatile uint8_t *p =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pkey_mprotect((void *)p, 4096, PROT_READ | PROT_WRITE, key);
    *p = 1;
    compute();
    *p = 2;
    const uint32_t no_access = UINT32_C(1) << 2 * key, no_write = UINT32_C(2) << 2 * key;
    EXPECT(SIGSEGV, 0, "write that a protection key forbids", write_pkru(no_write), *p = 3);
    check(caught_address == p, "address of a key's page fault");
    write_pkru(no_write);
    compute();
    check(*p == 2, "read that a protection key allows");
    check(pkey_get(key) == PKEY_DISABLE_WRITE, "PKRU over interrupts");
    EXPECT(SIGSEGV, 0, "read that a protection key forbids", write_pkru(no_access), sink = *p);
    write_pkru(0);
    compute();
    *p = 4;
    check(*p == 4, "a page whose protection key allows all again");
    munmap((void *)p, 4096);
    pkey_free(key);
}

int main(void)
{
    static const int signals[] = {SIGTRAP, SIGILL, SIGSEGV, SIGFPE, SIGBUS};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (unsigned round = 0; round < 2; round++) {
        exceptions();
        single_steps();
        identity();
        registers();
        bases();
        memory();
        protection_keys();
    }
    printf("stress: %s\n", failures ? "failed" : "passed");
    return failures != 0;
}
