/*
 * diff [--engine interp|bt|both] [--bt-off MASK] [--bits 64|32|16] [--count N] [--seed S]
 *      [--only MNEMONIC] [--keep-going] --native PROGRAM
 *
 * Runs N random sequences natively and in the engines and compares. The first difference is
 * shrunk, printed with both states and the code, and ends the program with status 1 (with
 * --keep-going: goes on).
 */
#include <Zydis/Zydis.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "diff.h"
#include "util/util.h"

static struct batch *batch;
static int shared_fd, command_fd = -1, reply_fd = -1;
static pid_t child = -1;
static const char *native_program;
/* Arithmetic flags that a fault shows are not compared: the translator does not keep dead ones. */
static bool lazy_flags;

/* The engines under test. */
#define SUBJECTS 2
static struct subject {
    const char *name;
    struct guest *guest;
    bool lazy;
} subjects[SUBJECTS];
static unsigned subject_count;

/* ---- The native side ---- */

#define STACK_MAX (UINT64_C(8) << 20)

/* What is mapped in the child beside the test's pages: itself, its stack, the kernel's VDSO. A
 * random address may lie there. */
static struct {
    uint64_t start, end;
} own[64];
static unsigned own_count;

static void find_own(void)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)child);
    FILE *maps = fopen(path, "r");
    own_count = 0;
    while (maps && own_count < ARRAY_SIZE(own) && fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) != 2 || start == CODE_BASE ||
            start == DATA_BASE)
            continue;
        if (strstr(line, "[stack]")) /* it grows when its neighbourhood is touched */
            start -= STACK_MAX;
        own[own_count].start = start;
        own[own_count++].end = end;
    }
    if (maps)
        fclose(maps);
}

static bool is_own(uint64_t address)
{
    for (unsigned i = 0; i < own_count; i++)
        if (address >= own[i].start && address < own[i].end)
            return true;
    return false;
}

static void start_child(void)
{
    int command[2], reply[2];
    if (pipe(command) < 0 || pipe(reply) < 0) {
        perror("pipe");
        exit(1);
    }
    child = fork();
    if (child == 0) {
        close(command[1]);
        close(reply[0]);
        char a[16], b[16], c[16];
        snprintf(a, sizeof a, "%d", shared_fd);
        snprintf(b, sizeof b, "%d", command[0]);
        snprintf(c, sizeof c, "%d", reply[1]);
        execl(native_program, native_program, a, b, c, (char *)NULL);
        perror(native_program);
        _exit(127);
    }
    close(command[0]);
    close(reply[1]);
    command_fd = command[1];
    reply_fd = reply[0];
    char byte;
    if (read(reply_fd, &byte, 1) != 1) { /* it says so when it is ready */
        fprintf(stderr, "%s does not start\n", native_program);
        exit(1);
    }
    find_own();
}

static void end_child(void)
{
    if (child < 0)
        return;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(command_fd);
    close(reply_fd);
    child = -1;
}

/* Run the batch; tests on which the child dies or hangs are left "not done". */
static void run_native(void)
{
    for (unsigned i = 0; i < batch->count; i++)
        batch->outcomes[i].done = false;
    if (child < 0)
        start_child();
    char byte = 0;
    if (write(command_fd, &byte, 1) != 1) {
        perror("write");
        exit(1);
    }
    struct pollfd ready = {.fd = reply_fd, .events = POLLIN};
    if (poll(&ready, 1, 5000) != 1 || read(reply_fd, &byte, 1) != 1)
        end_child();
}

/* Does the host run code of this kind? Not every kernel has 32-bit and 16-bit segments for its
 * programs. */
static bool host_runs(unsigned bits)
{
    batch->count = 1;
    batch->tests[0] = (struct test){.bits = (uint8_t)bits, .length = 1, .code = {0xcc}};
    struct state *s = &batch->tests[0].before;
    s->gpr[4] = (bits == 16 ? 0 : DATA_BASE) + DATA_SIZE / 2;
    s->rflags = 0x202;
    s->mxcsr = 0x1f80;
    s->fcw = 0x37f;
    run_native();
    return batch->outcomes[0].done && batch->outcomes[0].after.vector == 3;
}

/* Those kinds out of `wanted` that the host runs; says which it does not. */
static unsigned bits_of_host(unsigned wanted)
{
    unsigned can = 0;
    for (unsigned bits = 64; bits >= 16; bits /= 2) {
        if (!(wanted & bits))
            continue;
        if (host_runs(bits))
            can |= bits;
        else
            printf("this host runs no %u-bit code: left out\n", bits);
    }
    return can;
}

/* ---- Comparison ---- */

#define KERNEL_ADDRESSES UINT64_C(0x7ffffffff000) /* the kernel's TASK_SIZE_MAX */

struct difference {
    char text[8192];
    size_t length;
    uint32_t undefined; /* flags that some instruction left undefined: not compared */
};

__attribute__((format(printf, 2, 3))) static void note(struct difference *d, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(d->text + d->length, sizeof d->text - d->length, fmt, ap);
    va_end(ap);
    d->length = MIN(sizeof d->text - 1, d->length + (size_t)MAX(n, 0));
}

static void compare64(struct difference *d, const char *name, int index, uint64_t native,
                      uint64_t guest)
{
    char full[32];
    if (native == guest)
        return;
    snprintf(full, sizeof full, index < 0 ? "%s" : "%s%d", name, index);
    note(d, "  %-8s native %016" PRIx64 "  guest %016" PRIx64 "\n", full, native, guest);
}

static void compare_bytes(struct difference *d, const char *name, int index, const uint8_t *native,
                          const uint8_t *guest, unsigned size)
{
    if (memcmp(native, guest, size) == 0)
        return;
    note(d, "  %s%d\n    native ", name, index);
    for (unsigned i = size; i-- > 0;)
        note(d, "%02x%s", native[i], i % 8 ? "" : " ");
    note(d, "\n    guest  ");
    for (unsigned i = size; i-- > 0;)
        note(d, "%02x%s", guest[i], i % 8 ? "" : " ");
    note(d, "\n");
}

static const char *const gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

static ZydisDecoder decoder_of(const struct test *t)
{
    ZydisDecoder decoder;
    if (t->bits == 64)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else if (t->bits == 32)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    else
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    return decoder;
}

/* The instruction at `rip`. */
static ZydisMnemonic mnemonic_at(const struct test *t, uint64_t rip)
{
    ZydisDecoder decoder = decoder_of(t);
    ZydisDecodedInstruction i;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t at = rip - t->start - (t->bits == 16 ? 0 : CODE_BASE);
    if (at >= t->length ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, t->code + at, t->length - at, &i, operands)))
        return ZYDIS_MNEMONIC_INVALID;
    return i.mnemonic;
}

/* Which of two operands that both fault is reported depends on the processor. */
static bool has_two_operands(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_CMPSB || m == ZYDIS_MNEMONIC_CMPSW || m == ZYDIS_MNEMONIC_CMPSD ||
           m == ZYDIS_MNEMONIC_CMPSQ;
}

static bool is_popa(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_POPA || m == ZYDIS_MNEMONIC_POPAD;
}

/* Flags that the sequence's instructions leave undefined, by Zydis's tables. */
static uint32_t undefined_flags(const struct test *t)
{
    ZydisDecoder decoder = decoder_of(t);
    uint32_t undefined = 0;
    for (unsigned at = 0; at + 1 < t->length;) {
        ZydisDecodedInstruction i;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        if (!ZYAN_SUCCESS(
                ZydisDecoderDecodeFull(&decoder, t->code + at, t->length - at, &i, operands)))
            break;
        if (i.cpu_flags)
            undefined |= i.cpu_flags->undefined;
        at += i.length;
    }
    return undefined;
}

/* Has the sequence an instruction with a write mask? */
static bool has_masked(const struct test *t)
{
    ZydisDecoder decoder = decoder_of(t);
    ZydisDecodedInstruction i;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    for (unsigned at = 0; at + 1 < t->length; at += i.length) {
        if (!ZYAN_SUCCESS(
                ZydisDecoderDecodeFull(&decoder, t->code + at, t->length - at, &i, operands)))
            return false;
        switch (i.mnemonic) {
        case ZYDIS_MNEMONIC_MASKMOVDQU:
        case ZYDIS_MNEMONIC_MASKMOVQ:
        case ZYDIS_MNEMONIC_VMASKMOVDQU:
        case ZYDIS_MNEMONIC_VMASKMOVPS:
        case ZYDIS_MNEMONIC_VMASKMOVPD:
        case ZYDIS_MNEMONIC_VPMASKMOVD:
        case ZYDIS_MNEMONIC_VPMASKMOVQ:
            return true;
        default:
            break;
        }
        if (i.avx.mask.reg > ZYDIS_REGISTER_K0 && i.avx.mask.reg <= ZYDIS_REGISTER_K7)
            return true;
    }
    return false;
}

/*
 * Bytes of vector register `n` that a faulting instruction at `rip` leaves defined: a gather that
 * stopped at a fault runs again, and only its end clears what lies above the operand. This
 * processor clears that at once.
 */
static unsigned defined_bytes(const struct test *t, uint64_t rip, int n)
{
    ZydisDecoder decoder = decoder_of(t);
    ZydisDecodedInstruction i;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t at = rip - t->start - (t->bits == 16 ? 0 : CODE_BASE);
    if (at >= t->length ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, t->code + at, t->length - at, &i, operands)))
        return 64;
    bool gather = (i.meta.category == ZYDIS_CATEGORY_AVX2GATHER ||
                   i.meta.category == ZYDIS_CATEGORY_GATHER) &&
                  operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER;
    return gather && ZydisRegisterGetId(operands[0].reg.value) == n ? operands[0].size / 8 : 64;
}

static bool is_access_fault(uint32_t vector)
{
    return vector == 12 || vector == 13 || vector == 14 || vector == 17;
}

/*
 * What is left out because it is the implementation's own affair: which of several faults of one
 * instruction comes first where it has two operands in memory, or one that a mask leaves parts of
 * out (at the end of the address space, with alignment checking), the address within the page
 * that is reported for a large operand, and how many registers POPA had loaded when it faulted.
 * So is an access to what the program on the bare processor has of its own.
 */
static bool differs(const struct test *t, const struct outcome *n, const struct outcome *g,
                    struct difference *d)
{
    const struct state *a = &n->after, *b = &g->after;
    d->length = 0;
    d->text[0] = 0;
    if (b->vector == 14 && is_own(b->cr2))
        return false;
    if (is_access_fault(a->vector) && is_access_fault(b->vector) &&
        (a->vector != b->vector || a->vector == 17) &&
        (has_masked(t) || (a->rip == b->rip && has_two_operands(mnemonic_at(t, a->rip)))))
        return false;
    if ((a->vector == 17 || b->vector == 17) && has_masked(t))
        return false;
    if (is_access_fault(a->vector) && a->vector == b->vector && a->rip == b->rip &&
        is_popa(mnemonic_at(t, a->rip)))
        return false;
    d->undefined = undefined_flags(t) & 0x8d5;
    if (lazy_flags && a->vector != 3)
        d->undefined = 0x8d5;
    /* Code of 16 and 32 bits cannot see what some instructions leave in the upper halves. */
    const uint64_t visible = t->bits == 64 ? ~UINT64_C(0) : UINT32_MAX;
    const uint64_t stack = t->bits == 16 ? 0xffff : visible;
    for (int i = 0; i < 16; i++)
        if (t->bits == 64 || i < 8)
            compare64(d, gpr_names[i], -1, a->gpr[i] & visible & (i == 4 ? stack : visible),
                      b->gpr[i] & visible & (i == 4 ? stack : visible));
    compare64(d, "rip", -1, a->rip, b->rip);
    compare64(d, "rflags", -1, a->rflags & ~(uint64_t)d->undefined,
              b->rflags & ~(uint64_t)d->undefined);
    compare64(d, "vector", -1, a->vector, b->vector);
    if (a->vector == 14 && b->vector == 14) {
        /* Of a masked access hardware may report the start of the operand, not the element. */
        if ((a->cr2 >> 12 != b->cr2 >> 12 || a->cr2 - b->cr2 + 128 > 256) &&
            !has_two_operands(mnemonic_at(t, a->rip)) && !has_masked(t))
            compare64(d, "cr2", -1, a->cr2, b->cr2);
        /* Linux hides from programs which kernel pages are there: it always says "present". */
        uint32_t mask = a->cr2 >= KERNEL_ADDRESSES ? 1 : 0;
        compare64(d, "error", -1, a->error & ~mask, b->error & ~mask);
    } else if (a->vector >= 8 && a->vector <= 17 && a->vector != 16) {
        compare64(d, "error", -1, a->error, b->error);
    }
    for (int i = 0; i < (t->bits == 64 ? 32 : 8); i++)
        compare_bytes(d, "zmm", i, a->zmm[i], b->zmm[i],
                      is_access_fault(a->vector) ? defined_bytes(t, a->rip, i) : 64);
    for (int i = 0; i < 8; i++)
        compare64(d, "k", i, a->k[i], b->k[i]);
    for (int i = 0; i < 8; i++)
        compare_bytes(d, "st", i, a->st[i], b->st[i], 10);
    compare64(d, "fcw", -1, a->fcw, b->fcw);
    compare64(d, "fsw", -1, a->fsw, b->fsw);
    compare64(d, "ftw", -1, a->ftw, b->ftw);
    compare64(d, "mxcsr", -1, a->mxcsr, b->mxcsr);
    for (unsigned i = 0; i < DATA_SIZE; i++) {
        if (n->data[i] != g->data[i]) {
            unsigned at = i & ~15u;
            note(d, "  memory at %#x\n", DATA_BASE + at);
            compare_bytes(d, "    bytes", 0, n->data + at, g->data + at, 16);
            break;
        }
    }
    return d->length > 0;
}

static void print_test(const struct test *t)
{
    ZydisDecoder decoder = decoder_of(t);
    ZydisFormatter formatter;
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    unsigned base = t->start + (t->bits == 16 ? 0 : CODE_BASE);
    printf("%d-bit code:\n", t->bits);
    for (unsigned at = 0; at < t->length;) {
        ZydisDecodedInstruction i;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        char text[128] = "?";
        unsigned length = 1;
        if (ZYAN_SUCCESS(
                ZydisDecoderDecodeFull(&decoder, t->code + at, t->length - at, &i, operands))) {
            length = i.length;
            ZydisFormatterFormatInstruction(&formatter, &i, operands, i.operand_count_visible, text,
                                            sizeof text, base + at, NULL);
        }
        if (strcmp(text, "nop") != 0) {
            printf("  %#x  %-40s ", base + at, text);
            for (unsigned b = 0; b < length; b++)
                printf(" %02x", t->code[at + b]);
            printf("\n");
        }
        at += length;
    }
    printf("before:");
    for (int i = 0; i < 16; i++)
        printf("%s%s=%" PRIx64, i % 4 ? "  " : "\n  ", gpr_names[i], t->before.gpr[i]);
    printf("\n  rflags=%" PRIx64 " mxcsr=%x fcw=%x fsw=%x ftw=%x\n", t->before.rflags,
           t->before.mxcsr, t->before.fcw, t->before.fsw, t->before.ftw);
}

/* ---- Driving ---- */

static bool run_one(const struct subject *s, const struct test *t, struct difference *d)
{
    static struct outcome result;
    batch->count = 1;
    batch->tests[0] = *t;
    run_native();
    if (!batch->outcomes[0].done)
        return false;
    guest_run(s->guest, t, &result);
    lazy_flags = s->lazy;
    return differs(t, &batch->outcomes[0], &result, d);
}

/* Some hosts, virtual machines themselves, do not do the same each time: is the engine's `result`
 * what the processor comes to when it is asked again? */
static bool host_takes_it_back(const struct test *t, const struct outcome *result)
{
    struct difference again;
    batch->count = 1;
    batch->tests[0] = *t;
    run_native();
    return batch->outcomes[0].done && !differs(t, &batch->outcomes[0], result, &again);
}

/* Take instructions away as long as the difference stays. */
static void shrink(const struct subject *s, struct test *t, struct difference *d)
{
    for (unsigned n = t->count; n-- > 0;) {
        struct test smaller = *t;
        remove_instruction(&smaller, n);
        if (run_one(s, &smaller, d))
            *t = smaller;
    }
    run_one(s, t, d);
}

static const char *last_mnemonic(const struct test *t)
{
    ZydisDecoder decoder = decoder_of(t);
    ZydisDecodedInstruction i;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    const char *name = "?";
    for (unsigned at = 0; at + 1 < t->length; at += i.length) {
        if (!ZYAN_SUCCESS(
                ZydisDecoderDecodeFull(&decoder, t->code + at, t->length - at, &i, operands)))
            break;
        if (i.mnemonic != ZYDIS_MNEMONIC_NOP)
            name = ZydisMnemonicGetString(i.mnemonic);
    }
    return name;
}

int main(int argc, char **argv)
{
    uint64_t count = 20000, seed = 1, differences = 0, skipped = 0, unsteady = 0;
    const char *only = NULL;
    const char *engine = "both";
    uint32_t bt_off = 0;
    unsigned bits = 64 | 32 | 16;
    bool keep_going = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--keep-going") == 0)
            keep_going = true;
        else if (i + 1 < argc && strcmp(argv[i], "--engine") == 0)
            engine = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--bt-off") == 0)
            bt_off = (uint32_t)strtoul(argv[++i], NULL, 0);
        else if (i + 1 < argc && strcmp(argv[i], "--bits") == 0)
            bits = (unsigned)strtoul(argv[++i], NULL, 0);
        else if (i + 1 < argc && strcmp(argv[i], "--count") == 0)
            count = strtoull(argv[++i], NULL, 0);
        else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[++i], NULL, 0);
        else if (i + 1 < argc && strcmp(argv[i], "--only") == 0)
            only = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--native") == 0)
            native_program = argv[++i];
        else
            return fprintf(stderr, "diff: bad argument %s\n", argv[i]), 2;
    }
    if (!native_program)
        return fprintf(stderr, "diff: want --native PROGRAM\n"), 2;

    signal(SIGPIPE, SIG_IGN);
    shared_fd = memfd_create("diff", 0);
    if (shared_fd < 0 || ftruncate(shared_fd, sizeof *batch) < 0)
        return perror("memfd"), 1;
    batch = mmap(NULL, sizeof *batch, PROT_READ | PROT_WRITE, MAP_SHARED, shared_fd, 0);
    if (batch == MAP_FAILED)
        return perror("mmap"), 1;

    bits = bits_of_host(bits);
    if (!bits)
        return 77;
    static const char *const engines[] = {"interp", "bt"};
    for (unsigned i = 0; i < ARRAY_SIZE(engines); i++)
        if (strcmp(engine, engines[i]) == 0 || strcmp(engine, "both") == 0)
            subjects[subject_count++] = (struct subject){
                engines[i], guest_create(engines[i], bt_off), i == 1 && !(bt_off & 1)};
    if (!subject_count)
        return fprintf(stderr, "diff: --engine interp, bt or both\n"), 2;
    struct generator *generator = generator_create(seed, only, bits);
    static struct outcome result;
    struct difference d = {.length = 0};
    static struct test tests[BATCH];
    for (uint64_t done = 0; done < count;) {
        unsigned n = (unsigned)MIN((uint64_t)BATCH, count - done);
        for (unsigned i = 0; i < n; i++)
            generate(generator, &tests[i]);
        batch->count = n;
        memcpy(batch->tests, tests, n * sizeof tests[0]);
        run_native();
        for (unsigned i = 0; i < n; i++) {
            batch->count = n;
            if (!batch->outcomes[i].done) {
                skipped++;
                continue;
            }
            for (unsigned k = 0; k < subject_count; k++) {
                const struct subject *subject = &subjects[k];
                guest_run(subject->guest, &tests[i], &result);
                lazy_flags = subject->lazy;
                if (!differs(&tests[i], &batch->outcomes[i], &result, &d))
                    continue;
                static struct outcome rest[BATCH];
                memcpy(rest, batch->outcomes, sizeof rest);
                if (host_takes_it_back(&tests[i], &result)) {
                    unsteady++;
                    printf("the host did sequence %" PRIu64 " of seed %" PRIu64
                           " otherwise when asked again; at first:\n%s\n",
                           done + i, seed, d.text);
                    memcpy(batch->outcomes, rest, sizeof rest);
                    continue;
                }
                struct test shrunk = tests[i];
                shrink(subject, &shrunk, &d);
                differences++;
                printf("difference %" PRIu64 " in sequence %" PRIu64 " of seed %" PRIu64
                       ", engine %s (%s)\n",
                       differences, done + i, seed, subject->name, last_mnemonic(&shrunk));
                print_test(&shrunk);
                printf("after:\n%s\n", d.text);
                memcpy(batch->outcomes, rest, sizeof rest);
            }
            if (differences && !keep_going) {
                count = done + i + 1;
                break;
            }
        }
        done += n;
    }
    end_child();
    for (unsigned k = 0; k < subject_count; k++)
        guest_destroy(subjects[k].guest);
    generator_destroy(generator);
    printf("%" PRIu64 " sequences, %" PRIu64 " different, %" PRIu64 " skipped, %" PRIu64
           " unsteady on the host (seed %" PRIu64 ")\n",
           count, differences, skipped, unsteady, seed);
    return differences ? 1 : 0;
}
