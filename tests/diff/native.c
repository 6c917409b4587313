/*
 * Runs batches of sequences on the bare processor. A program of its own, so that nothing but the
 * test's pages lies where the sequences look, and so that one that tramples on it hurts nobody.
 *
 * Everything goes through signals: the handler that a sequence's end (INT3, or a fault) enters
 * stores the state from its signal frame, puts the next test's state into the frame and returns
 * into it. A frame's CS selects 32- or 64-bit code.
 *
 * Usage: diff-native SHARED-FD COMMAND-FD REPLY-FD: a byte on COMMAND-FD starts a batch, one on
 * REPLY-FD ends it.
 */
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "diff.h"

static struct batch *batch;
static int command_fd, reply_fd;
static unsigned current;
static bool in_test;
static uint8_t *const code = (uint8_t *)CODE_BASE;
static uint8_t *const data = (uint8_t *)DATA_BASE;

/* Offsets of the XSAVE components in a signal frame: AVX, opmask, ZMM_Hi256, Hi16_ZMM. 0: the host
 * has none. */
static struct {
    uint32_t avx, opmask, zmm_high, zmm16;
} at;

#define XSTATE_BV 512

/* No libc below here but what compiles inline: FS is zero while tests run. */
static long raw_syscall(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

static void copy(void *to, const void *from, size_t size)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

static void clear(void *to, size_t size)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(0) : "memory");
}

static void store_state(struct state *s, const ucontext_t *uc)
{
    clear(s, sizeof *s); /* components in their initial state are left out of the frame */
    const greg_t *g = uc->uc_mcontext.gregs;
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = (uint64_t)g[greg_of[i]];
    s->rip = (uint64_t)g[REG_RIP];
    s->rflags = (uint64_t)g[REG_EFL];
    s->vector = (uint32_t)g[REG_TRAPNO];
    s->error = (uint32_t)g[REG_ERR];
    s->cr2 = (uint64_t)g[REG_CR2];

    const uint8_t *x = (const uint8_t *)uc->uc_mcontext.fpregs;
    uint64_t bv;
    copy(&bv, x + XSTATE_BV, 8);
    copy(&s->fcw, x, 2);
    copy(&s->fsw, x + 2, 2);
    s->ftw = x[4];
    copy(&s->fop, x + 6, 2);
    copy(&s->fip, x + 8, 8);
    copy(&s->fdp, x + 16, 8);
    copy(&s->mxcsr, x + 24, 4);
    copy(s->st, x + 32, 128);
    for (unsigned i = 0; i < 16; i++) {
        copy(s->zmm[i], x + 160 + 16 * i, 16);
        if (at.avx && (bv & 4))
            copy(s->zmm[i] + 16, x + at.avx + 16 * i, 16);
        if (at.zmm_high && (bv & 64))
            copy(s->zmm[i] + 32, x + at.zmm_high + 32 * i, 32);
        if (at.zmm16 && (bv & 128))
            copy(s->zmm[16 + i], x + at.zmm16 + 64 * i, 64);
    }
    if (at.opmask && (bv & 32))
        copy(s->k, x + at.opmask, 64);
}

static void load_state(const struct test *t, ucontext_t *uc)
{
    const struct state *s = &t->before;
    greg_t *g = uc->uc_mcontext.gregs;
    for (unsigned i = 0; i < 16; i++)
        g[greg_of[i]] = (greg_t)s->gpr[i];
    g[REG_RIP] = t->bits == 16 ? t->start : CODE_BASE + t->start;
    g[REG_EFL] = (greg_t)s->rflags;
    uint64_t selectors = (uint64_t)g[REG_CSGSFS];
    uint64_t cs = t->bits == 16   ? SELECTOR_CODE16
                  : t->bits == 32 ? SELECTOR_CODE32
                                  : SELECTOR_CODE64;
    uint64_t ss = t->bits == 16 ? SELECTOR_DATA16 : SELECTOR_DATA;
    selectors = (selectors & UINT64_C(0x0000ffffffff0000)) | cs | ss << 48;
    g[REG_CSGSFS] = (greg_t)selectors;
    uc->uc_flags |= 6; /* SS is there, and shall be restored as it is */
    uint16_t ds = (uint16_t)ss;
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(ds));

    uint8_t *x = (uint8_t *)uc->uc_mcontext.fpregs;
    uint64_t bv = 3;
    copy(x, &s->fcw, 2);
    copy(x + 2, &s->fsw, 2);
    x[4] = s->ftw;
    copy(x + 6, &s->fop, 2);
    copy(x + 8, &s->fip, 8);
    copy(x + 16, &s->fdp, 8);
    copy(x + 24, &s->mxcsr, 4);
    copy(x + 32, s->st, 128);
    for (unsigned i = 0; i < 16; i++) {
        copy(x + 160 + 16 * i, s->zmm[i], 16);
        if (at.avx)
            copy(x + at.avx + 16 * i, s->zmm[i] + 16, 16);
        if (at.zmm_high)
            copy(x + at.zmm_high + 32 * i, s->zmm[i] + 32, 32);
        if (at.zmm16)
            copy(x + at.zmm16 + 64 * i, s->zmm[16 + i], 64);
    }
    if (at.opmask)
        copy(x + at.opmask, s->k, 64);
    bv |= at.avx ? 4 : 0;
    bv |= at.opmask ? 32 : 0;
    bv |= at.zmm_high ? 64 : 0;
    bv |= at.zmm16 ? 128 : 0;
    copy(x + XSTATE_BV, &bv, 8);
}

static void end_batch_and_wait(void)
{
    char byte = 0;
    raw_syscall(SYS_write, reply_fd, (long)&byte, 1);
    if (raw_syscall(SYS_read, command_fd, (long)&byte, 1) != 1)
        raw_syscall(SYS_exit_group, 0, 0, 0);
}

static void handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    ucontext_t *uc = context;
    /* The return from the signal keeps NT and ID of the code that returns: ours. */
    __asm__ volatile("pushfq; andq $~0x204000, (%%rsp); popfq" : : : "memory", "cc");
    if (in_test) {
        struct outcome *o = &batch->outcomes[current];
        store_state(&o->after, uc);
        copy(o->data, data, DATA_SIZE);
        o->done = true;
        current++;
    }
    if (!in_test || current == batch->count) {
        end_batch_and_wait();
        current = 0;
    }
    in_test = true;
    batch->running = current;
    const struct test *t = &batch->tests[current];
    fill_data(data, t->data_seed);
    /* Writing through the same mapping: the IRET of the signal's return serializes. */
    /* Nothing is left of the one before, nor of what it stored there. */
    for (unsigned i = 0; i < CODE_SIZE; i += 8)
        *(uint64_t *)(code + i) = UINT64_C(0xcccccccccccccccc);
    copy(code + t->start, t->code, t->length);
    load_state(t, uc);
}

static void *map_fixed(uint32_t address, size_t size, int protection)
{
    void *p = mmap((void *)(uintptr_t)address, size, protection,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p == MAP_FAILED)
        _exit(2);
    return p;
}

static uint32_t component_offset(uint32_t component, uint32_t supported)
{
    uint32_t a, b, c, d;
    if (!(supported >> component & 1))
        return 0;
    __cpuid_count(0xd, component, a, b, c, d);
    return b;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    batch = mmap(NULL, sizeof *batch, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[1]), 0);
    command_fd = atoi(argv[2]);
    reply_fd = atoi(argv[3]);
    if (batch == MAP_FAILED)
        return 2;
    map_fixed(CODE_BASE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
    map_fixed(DATA_BASE, DATA_SIZE, PROT_READ | PROT_WRITE);
    memset(code, 0xcc, CODE_SIZE);

    uint32_t supported, b, c, d;
    __cpuid_count(0xd, 0, supported, b, c, d);
    at.avx = component_offset(2, supported);
    at.opmask = component_offset(5, supported);
    at.zmm_high = component_offset(6, supported);
    at.zmm16 = component_offset(7, supported);

    struct user_desc code16 = {
        .entry_number = 0, .base_addr = CODE_BASE, .limit = 0xffff, .contents = 2};
    struct user_desc data16 = {.entry_number = 1, .base_addr = DATA_BASE, .limit = 0xffff};
    if (syscall(SYS_modify_ldt, 1, &code16, sizeof code16) < 0 ||
        syscall(SYS_modify_ldt, 1, &data16, sizeof data16) < 0)
        return 3;

    const stack_t stack = {
        .ss_sp = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        .ss_size = 1 << 16};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigfillset(&action.sa_mask);
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        sigaction(numbers[i], &action, NULL);
    /* Make every component of the frame's image real before the first test: the frame has what is
     * in use. */
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(SELECTOR_DATA));
    syscall(SYS_arch_prctl, ARCH_SET_GS, 0);
    syscall(SYS_arch_prctl, ARCH_SET_FS, 0);
    __asm__ volatile("int3");
    return 0;
}
