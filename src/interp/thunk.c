/*
 * Thunks: their code, the memory that it lives in, and the signals that it may raise.
 *
 * The code's memory is mapped twice, once writable and once executable, so that no page is ever
 * both. When it is full all of it is dropped and the generation changes; users compare that before
 * they call.
 *
 * An instruction may raise a signal: SIGFPE for an unmasked SIMD exception, SIGSEGV for a
 * misaligned operand, SIGILL where the host lacks what was promised. The handler recognises thunks
 * by the instruction pointer and makes them return the signal's number: up to the instruction,
 * nothing but registers that the caller does not keep has changed and the stack is balanced. Any
 * other signal goes to whoever handled it before.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "interp/native.h"

#define CODE_SIZE   (UINT32_C(1) << 20)
#define THUNK_MAX   2048 /* bytes, generously */
#define CODE_START  64   /* behind the header */
#define HASH_SIZE   4096
#define ENTRIES_MAX 8192

/* The start of the executable memory. */
struct code_header {
    uint32_t host_mxcsr;
    uint8_t give_up[12]; /* where the signal handler goes on, with RAX set */
};

struct thunk_entry {
    struct thunk_key key;
    uint32_t at, next; /* next: index + 1 */
};

struct thunks {
    uint8_t *write, *exec;
    uint32_t used, count, generation, host_mxcsr;
    uint32_t hash[HASH_SIZE];
    struct thunk_entry entries[ENTRIES_MAX];
};

/* ---- Signals ---- */

static _Thread_local const struct thunks *running;
static const int caught[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL};
static struct sigaction previous[ARRAY_SIZE(caught)];
static pthread_once_t handlers_once = PTHREAD_ONCE_INIT;

static void pass_on(int number, siginfo_t *info, void *context)
{
    unsigned i = 0;
    while (caught[i] != number)
        i++;
    const struct sigaction *old = &previous[i];
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(number, info, context);
    else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN)
        old->sa_handler(number);
    else
        signal(number, SIG_DFL); /* the instruction raises it again */
}

static _Thread_local signal_handler *first_handler;

void thunks_set_handler(signal_handler *handler)
{
    first_handler = handler;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    if (info->si_code > 0 && first_handler && first_handler(number, context))
        return;
    ucontext_t *uc = context;
    greg_t *regs = uc->uc_mcontext.gregs;
    const struct thunks *t = running;
    uintptr_t rip = (uintptr_t)regs[REG_RIP];
    if (!t || info->si_code <= 0 || rip < (uintptr_t)t->exec + CODE_START ||
        rip >= (uintptr_t)t->exec + CODE_SIZE) {
        pass_on(number, info, context);
        return;
    }
    struct vcpu *cpu = (struct vcpu *)(uintptr_t)regs[REG_RDI];
    if (number == SIGFPE)
        cpu->fpu.fx.mxcsr = uc->uc_mcontext.fpregs->mxcsr;
    uc->uc_mcontext.fpregs->mxcsr = t->host_mxcsr;
    regs[REG_RAX] = number;
    regs[REG_RIP] = (greg_t)(uintptr_t)(t->exec + offsetof(struct code_header, give_up));
}

static void install_handlers(void)
{
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    for (unsigned i = 0; i < ARRAY_SIZE(caught); i++)
        sigaction(caught[i], &action, &previous[i]);
}

void thunks_enter(const struct thunks *t)
{
    running = t;
}

/* ---- The host ---- */

static enum host_vector host;
static bool host_bw;
static pthread_once_t host_once = PTHREAD_ONCE_INIT;

static void find_host(void)
{
    __builtin_cpu_init();
    host = __builtin_cpu_supports("avx512f") ? HOST_AVX512
           : __builtin_cpu_supports("avx")   ? HOST_AVX
                                             : HOST_SSE;
    host_bw = __builtin_cpu_supports("avx512bw");
}

enum host_vector thunks_host(void)
{
    pthread_once(&host_once, find_host);
    return host;
}

/* ---- Code ---- */

struct code {
    uint8_t *at;
};

static void put(struct code *c, const void *bytes, size_t n)
{
    memcpy(c->at, bytes, n);
    c->at += n;
}
#define PUT(c, ...) put((c), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put32(struct code *c, uint32_t value)
{
    put(c, &value, 4);
}

/* ModRM for [RDI + offset]. */
static void put_field(struct code *c, unsigned reg, size_t offset)
{
    PUT(c, (uint8_t)(0x87 | (reg & 7) << 3));
    put32(c, (uint32_t)offset);
}

#define GPR_AT(n) (offsetof(struct vcpu, gpr) + 8 * (size_t)(n))
#define ZMM_AT(n) (offsetof(struct vcpu, fpu.zmm) + 64 * (size_t)(n))
#define K_AT(n)   (offsetof(struct vcpu, fpu.k) + 8 * (size_t)(n))
#define MXCSR_AT  offsetof(struct vcpu, fpu.fx.mxcsr)
#define FX_AT     offsetof(struct vcpu, fpu.fx)
#define CC_AT     offsetof(struct vcpu, cc)

/* MOVUPS of `size` bytes between register n and its place. */
static void put_vector(struct code *c, unsigned n, unsigned size, bool store)
{
    uint8_t opcode = store ? 0x11 : 0x10;
    if (size == 64) {
        PUT(c, 0x62, (uint8_t)((~n >> 3 & 1) << 7 | 0x60 | (~n >> 4 & 1) << 4 | 1), 0x7c, 0x48,
            opcode);
    } else if (size == 32) {
        PUT(c, 0xc4, (uint8_t)((~n >> 3 & 1) << 7 | 0x61), 0x7c, opcode);
    } else {
        if (n >= 8)
            PUT(c, 0x44);
        PUT(c, 0x0f, opcode);
    }
    put_field(c, n, ZMM_AT(n));
}

static void put_mask(struct code *c, unsigned n, bool store)
{
    PUT(c, 0xc4, 0xe1, host_bw ? 0xf8 : 0x78, store ? 0x91 : 0x90);
    put_field(c, n, K_AT(n));
}

static void put_gpr(struct code *c, unsigned reg, unsigned guest, bool store)
{
    PUT(c, 0x48, store ? 0x89 : 0x8b);
    put_field(c, reg, GPR_AT(guest));
}

static void put_gprs(struct code *c, const struct thunk_key *key, unsigned set, bool store)
{
    static const uint8_t implicit[] = {RAX, RCX, RDX};
    for (unsigned i = 0; i < ARRAY_SIZE(implicit); i++)
        if (set & BIT(implicit[i]))
            put_gpr(c, implicit[i], implicit[i], store);
    if (set & GPR_EXPLICIT)
        put_gpr(c, RAX, key->gpr, store);
}

static void put_vectors(struct code *c, uint32_t set, unsigned size, bool store)
{
    for (; set; set &= set - 1)
        put_vector(c, (unsigned)__builtin_ctz(set), size, store);
}

static void put_masks(struct code *c, uint32_t set, bool store)
{
    for (; set; set &= set - 1)
        put_mask(c, (unsigned)__builtin_ctz(set), store);
}

static void put_before(struct code *c, const struct thunk_key *key)
{
    if (key->uses & THUNK_X87) {
        PUT(c, 0x48, 0x0f, 0xae); /* FXRSTOR64 */
        put_field(c, 1, FX_AT);
    } else if (key->uses & THUNK_MXCSR) {
        PUT(c, 0x0f, 0xae); /* LDMXCSR */
        put_field(c, 2, MXCSR_AT);
    }
    put_masks(c, key->k_read, false);
    put_vectors(c, key->read, key->size, false);
    if (key->uses & THUNK_FLAGS_IN) {
        PUT(c, 0x8b); /* MOV EAX, cc; PUSH RAX; POPFQ */
        put_field(c, RAX, CC_AT);
        PUT(c, 0x50, 0x9d);
    }
    put_gprs(c, key, key->gpr_read, false);
}

static void put_after(struct code *c, const struct thunk_key *key, const uint8_t *code_start)
{
    unsigned stored = key->size;
    if (key->uses & THUNK_EXTENDS)
        stored = thunks_host() == HOST_AVX512 ? 64 : 32;
    put_gprs(c, key, key->gpr_write, true);
    if (key->uses & THUNK_FLAGS_OUT) {
        PUT(c, 0x9c, 0x58, 0x25); /* PUSHFQ; POP RAX; AND EAX, arithmetic flags; MOV cc, EAX */
        put32(c, FLAGS_ARITH);
        PUT(c, 0x89);
        put_field(c, RAX, CC_AT);
    }
    put_vectors(c, key->write, stored, true);
    put_masks(c, key->k_write, true);
    if (key->uses & THUNK_X87) {
        PUT(c, 0x48, 0x0f, 0xae); /* FXSAVE64 */
        put_field(c, 0, FX_AT);
        PUT(c, 0xdb, 0xe3); /* FNINIT */
    } else if (key->uses & THUNK_MXCSR) {
        PUT(c, 0x0f, 0xae); /* STMXCSR */
        put_field(c, 3, MXCSR_AT);
    }
    if (key->uses & (THUNK_X87 | THUNK_MXCSR)) {
        PUT(c, 0x0f, 0xae, 0x15); /* LDMXCSR [RIP + distance to the header] */
        put32(c, (uint32_t)(code_start - (c->at + 4)));
    }
    if (key->size > 16)
        PUT(c, 0xc5, 0xf8, 0x77); /* VZEROUPPER */
    PUT(c, 0x31, 0xc0, 0xc3);     /* XOR EAX, EAX; RET */
}

/* ---- The store ---- */

static void drop_all(struct thunks *t)
{
    memset(t->hash, 0, sizeof t->hash);
    t->count = 0;
    t->used = CODE_START;
    t->generation++;
}

static uint32_t hash_of(const struct thunk_key *key)
{
    uint64_t words[sizeof *key / 8], h = 0;
    memcpy(words, key, sizeof words);
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        h = (h ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15), h ^= h >> 29;
    return (uint32_t)(h >> 40) & (HASH_SIZE - 1);
}
_Static_assert(sizeof(struct thunk_key) == 32, "no padding, whole words");

thunk_fn *thunks_get(struct thunks *t, const struct thunk_key *key)
{
    uint32_t slot = hash_of(key);
    for (uint32_t i = t->hash[slot]; i; i = t->entries[i - 1].next)
        if (!memcmp(&t->entries[i - 1].key, key, sizeof *key))
            return (thunk_fn *)(void *)(t->exec + t->entries[i - 1].at);
    if (t->count == ENTRIES_MAX || t->used + THUNK_MAX > CODE_SIZE)
        drop_all(t);
    struct code c = {t->write + t->used};
    put_before(&c, key);
    put(&c, key->insn, key->length);
    put_after(&c, key, t->write);

    t->entries[t->count] = (struct thunk_entry){*key, t->used, t->hash[slot]};
    t->hash[slot] = ++t->count;
    thunk_fn *fn = (thunk_fn *)(void *)(t->exec + t->used);
    t->used = (uint32_t)ALIGN_UP((uint64_t)(c.at - t->write), UINT64_C(16));
    return fn;
}

uint32_t thunks_generation(const struct thunks *t)
{
    return t->generation;
}

static bool map_code(struct thunks *t)
{
    int fd = memfd_create("trivisor-thunks", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = false;
    if (ftruncate(fd, CODE_SIZE) == 0) {
        t->write = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        t->exec = mmap(NULL, CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
        ok = t->write != MAP_FAILED && t->exec != MAP_FAILED;
    }
    int saved = errno;
    close(fd);
    errno = saved;
    return ok;
}

struct thunks *thunks_create(struct tv_error *err)
{
    struct thunks *t = calloc(1, sizeof *t);
    if (!t || !map_code(t)) {
        tv_fail(err, "no executable memory for the interpreter's vector unit: %s", strerror(errno));
        thunks_free(t);
        return NULL;
    }
    pthread_once(&handlers_once, install_handlers);
    struct code_header header;
    memset(&header, 0xcc, sizeof header);
    header.host_mxcsr = t->host_mxcsr = __builtin_ia32_stmxcsr();
    struct code c = {header.give_up};
    PUT(&c, 0xdb, 0xe3); /* FNINIT */
    if (thunks_host() >= HOST_AVX)
        PUT(&c, 0xc5, 0xf8, 0x77); /* VZEROUPPER */
    PUT(&c, 0xc3);
    memcpy(t->write, &header, sizeof header);
    drop_all(t);
    return t;
}

void thunks_free(struct thunks *t)
{
    if (!t)
        return;
    if (running == t)
        running = NULL;
    if (t->write && t->write != MAP_FAILED)
        munmap(t->write, CODE_SIZE);
    if (t->exec && t->exec != MAP_FAILED)
        munmap(t->exec, CODE_SIZE);
    free(t);
}
