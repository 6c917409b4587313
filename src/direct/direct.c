/*
 * Running ring-3 code in a stub, and deciding when.
 *
 * The guest's registers travel in the signal frame that the stub returns from. Whatever ends a run
 * leaves the vCPU before the instruction that did it, so that the interpreter can execute it: no
 * semantics are written twice.
 */
#include "direct/direct.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "cpu/machine.h"
#include "cpu/paging.h"
#include "cpu/xstate.h"
#include "direct/internal.h"
#include "interp/system.h"
#include "util/clock.h"

/* Selectors of ring 3 on the host, and on any Linux guest. */
#define USER_CS      0x33
#define USER_SS      0x2b

#define UC_FLAGS     7 /* XSAVE image; SS is valid, and restored whatever it is */
#define AUTODISARM   (1U << 31)
/* Flags that ring 3 can change, but for the arithmetic ones and TF. */
#define FLAGS_FREE   (FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID)

#define MS           UINT64_C(1000000)
/* Promote what enters the kernel less often than this, at so many interrupts in a row. */
#define STRETCH_NS   100000
#define STREAK       2
/* A stub that runs so long at a time goes where the host has a processor for it. */
#define ROAM_NS 500000

/* Demote what lost more than half of what it gained, over two windows in a row. */
#define WINDOW_NS    (20 * MS)
#define EMULATE_NS   5000 /* what the interpreter does after a run, and the change of engines */
#define HOLD_NS      (100 * MS)
#define TRAPS_JUDGED 256 /* also where it does nothing but touch pages */
#define COOL_FIRST   (50 * MS)
#define COOL_MAX     (5000 * MS)

/* ---- Address spaces ---- */

static uint64_t space_of(const struct vcpu *cpu)
{
    return cpu->cr3 & UINT64_C(0x000ffffffffff000);
}

static void end_stub(struct space *s)
{
    stub_end(&s->stub);
    space_free_pages(s);
}

static struct space *find_space(struct direct *d, uint64_t cr3)
{
    if (d->current && d->current->cr3 == cr3)
        return d->current;
    for (unsigned i = 0; i < SPACES_MAX; i++)
        if (d->spaces[i].cr3 == cr3)
            return d->current = &d->spaces[i];
    return NULL;
}

static struct space *get_space(struct direct *d, uint64_t cr3)
{
    struct space *s = find_space(d, cr3);
    if (s)
        return s;
    s = &d->spaces[0];
    for (unsigned i = 1; i < SPACES_MAX; i++)
        if (d->spaces[i].used < s->used)
            s = &d->spaces[i];
    end_stub(s);
    *s = (struct space){.cr3 = cr3};
    return d->current = s;
}

static bool has_stub(const struct space *s)
{
    return s->stub.pid != 0;
}

/* What the stub says lies at `address` on its stack; NULL: it lies elsewhere. */
static void *on_stack(const struct stub *stub, uint64_t address, uint64_t size)
{
    uint64_t offset = address - stub->base;
    if (offset < STUB_STACK || offset > STUB_SIZE - size || offset % 8)
        return NULL;
    return stub->shared + offset;
}

static ucontext_t *frame_of(const struct stub *stub)
{
    /* Not all of it: the kernel's is shorter than the C library's. */
    return on_stack(stub, stub_report(stub)->context, offsetof(ucontext_t, uc_sigmask) + 8);
}

/* Let the stub run from `rip`, where nothing is or code of ours: the signal that ends it. 0: it is
 * gone. */
static uint32_t run_from(const struct space *s, uint64_t rip)
{
    struct stub stub = s->stub;
    ucontext_t *uc = frame_of(&stub);
    if (!uc)
        return 0;
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)rip;
    stub_control(&stub)->frame = stub_report(&stub)->context;
    stub_follow(&stub);
    return stub_resume(&stub) ? stub_report(&stub)->signal : 0;
}

/* What a run costs in which the guest does nothing: a fault at the first instruction. */
static uint64_t measure_trap(const struct space *s)
{
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < 5; i++) {
        uint64_t start = host_ns();
        if (!run_from(s, 0))
            return 0;
        uint64_t took = host_ns() - start;
        best = MIN(best, took);
    }
    return best;
}

/* Some hosts accept breakpoints and PR_SET_TSC, and do nothing. */
static void try_host(struct direct *d, const struct space *s)
{
    struct stub stub = s->stub;
    uint64_t code = stub.base - (uint64_t)direct_stub_code;
    uint64_t site = code + (uint64_t)direct_stub_probe;
    d->tsc_faults = run_from(s, code + (uint64_t)direct_stub_rdtsc) == SIGSEGV;
    d->breakpoints = stub_break_at(&stub, &site, 1) && run_from(s, site) == SIGTRAP &&
                     stub_break_at(&stub, NULL, 0);
    d->host_tried = true;
}

static void new_window(struct space *s, uint64_t now)
{
    s->window = now;
    s->direct_ns = 0;
    s->traps = s->swaps = 0;
}

static bool start_stub(struct direct *d, struct space *s)
{
    struct tv_error err;
    unsigned count = 0;
    struct space *oldest = NULL;
    for (unsigned i = 0; i < SPACES_MAX; i++) {
        struct space *other = &d->spaces[i];
        count += has_stub(other);
        if (has_stub(other) && (!oldest || other->used < oldest->used))
            oldest = other;
    }
    if (count >= STUBS_MAX)
        end_stub(oldest);
    end_stub(s);
    if (!space_create_pages(s) || stub_start(&s->stub, d->cpu->machine->mem, &err) < 0) {
        end_stub(s);
        d->broken = true;
        return false;
    }
    if (!d->host_tried)
        try_host(d, s);
    d->stats.stubs++;
    s->tag = 0;
    s->trap_ns = measure_trap(s);
    new_window(s, host_ns());
    return true;
}

bool direct_wanted(const struct direct *d)
{
    uint64_t cr3 = space_of(d->cpu);
    const struct space *s = find_space((struct direct *)(uintptr_t)d, cr3);
    return s && s->streak >= STREAK && !s->held && !d->broken;
}

/* End a hold: another page may suit, and after a while the same one may. */
static void release(struct direct *d, uint64_t now)
{
    struct space *s = find_space(d, space_of(d->cpu));
    if (!s || !s->held)
        return;
    if (now - s->window > HOLD_NS) {
        space_forgive(s);
        new_window(s, now);
    }
    s->held = space_refuses(s, d->cpu->rip);
}

void direct_sample(struct direct *d, uint64_t entries)
{
    uint64_t cr3 = space_of(d->cpu), now = host_ns();
    uint64_t entered = entries - d->last_entries, took = now - d->last_ns;
    bool same = d->last_cr3 == cr3 && took < 100 * MS;
    if (same && took < MS)
        return;
    d->last_cr3 = cr3;
    d->last_entries = entries;
    d->last_ns = now;
    if (!same || d->broken)
        return;
    release(d, now);
    bool computes = entered * STRETCH_NS <= took;
    struct space *s = computes ? get_space(d, cr3) : find_space(d, cr3);
    if (!s || s->streak >= STREAK)
        return;
    s->streak = computes && now >= s->cool_until ? s->streak + 1 : 0;
}

static void demote(struct direct *d, struct space *s)
{
    s->backoff = s->backoff ? MIN(2 * s->backoff, COOL_MAX) : COOL_FIRST;
    s->cool_until = host_ns() + s->backoff;
    s->streak = 0;
    d->stats.demotions++;
}

/* At the end of a window: was it worth it? */
static void judge(struct direct *d, struct space *s, uint64_t now)
{
    if (now - s->window < WINDOW_NS)
        return;
    uint64_t runs = s->traps * s->trap_ns, lost = runs + s->traps * EMULATE_NS;
    uint64_t gained = s->direct_ns > runs ? s->direct_ns - runs : 0;
    bool bad = lost > gained / 2;
    if (bad && s->was_bad) /* once may have been for touching its pages the first time */
        demote(d, s);
    else if (lost < gained / 8)
        s->backoff = 0;
    s->was_bad = bad;
    new_window(s, now);
}

/* ---- Registers ---- */

static const int gregs_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                 REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                 REG_R12, REG_R13, REG_R14, REG_R15};

static void *vectors_of(const struct direct *d, const struct stub *stub, const ucontext_t *uc)
{
    return on_stack(stub, (uintptr_t)uc->uc_mcontext.fpregs, xstate_size(d->host_mask) + 4);
}

/* The kernel describes its image in bytes of FXSAVE's that the processor leaves alone. */
#define SOFTWARE_BYTES 464

static void put_vectors(const struct direct *d, void *image)
{
    uint8_t mine[8192];
    uint8_t *to = image;
    size_t size = xstate_size(d->host_mask);
    xstate_save(d->cpu, mine, d->host_mask);
    memcpy(to, mine, SOFTWARE_BYTES);
    memcpy(to + XSAVE_HEADER, mine + XSAVE_HEADER, size - XSAVE_HEADER);
}

static bool put_registers(struct direct *d, struct stub *stub)
{
    const struct vcpu *cpu = d->cpu;
    ucontext_t *uc = frame_of(stub);
    void *vectors = uc ? vectors_of(d, stub, uc) : NULL;
    if (!vectors)
        return false;
    greg_t *g = uc->uc_mcontext.gregs;
    for (unsigned i = 0; i < 16; i++)
        g[gregs_of[i]] = (greg_t)cpu->gpr[i];
    g[REG_RIP] = (greg_t)cpu->rip;
    g[REG_EFL] = (greg_t)((cpu_rflags(cpu) & (FLAGS_ARITH | FLAGS_FREE)) | FLAG_IF | FLAG_ONE);
    g[REG_CSGSFS] = (greg_t)(USER_CS | (uint64_t)USER_SS << 48);
    uc->uc_flags = UC_FLAGS;
    memset(&uc->uc_sigmask, 0, 8);
    uc->uc_stack.ss_sp = (void *)(stub->base + STUB_STACK); // NOLINT
    uc->uc_stack.ss_size = STUB_SIZE - STUB_STACK;
    uc->uc_stack.ss_flags = (int)AUTODISARM;
    put_vectors(d, vectors);
    struct stub_control *c = stub_control(stub);
    c->frame = stub_report(stub)->context;
    c->fs_base = cpu->seg[FS].base;
    c->gs_base = cpu->seg[GS].base;
    return true;
}

static const uint8_t reported[4] = {DS, ES, FS, GS};

/* Ring 3 may have loaded segment registers. */
static void get_segments(struct direct *d, const struct stub *stub, const greg_t *g)
{
    struct vcpu *cpu = d->cpu;
    const volatile struct stub_report *r = stub_report(stub);
    uint64_t fs = r->fs_base, gs = r->gs_base;
    cpu->seg[FS].base = is_canonical(fs) ? fs : 0;
    cpu->seg[GS].base = is_canonical(gs) ? gs : 0;
    for (unsigned i = 0; i < ARRAY_SIZE(reported); i++) {
        uint16_t selector = r->segments[i];
        if (selector != cpu->seg[reported[i]].selector) {
            uint64_t base = cpu->seg[reported[i]].base;
            segment_load(cpu, NULL, reported[i], selector);
            if (reported[i] >= FS)
                cpu->seg[reported[i]].base = base;
        }
    }
    uint16_t ss = (uint16_t)((uint64_t)g[REG_CSGSFS] >> 48), cs = (uint16_t)g[REG_CSGSFS];
    if (ss != cpu->seg[SS].selector)
        segment_load(cpu, NULL, SS, ss);
    if (cs != cpu->seg[CS].selector) {
        uint64_t address;
        descriptor code = descriptor_need(cpu, NULL, cs, VEC_GP, 0, &address);
        segment_set_cs(cpu, cs, code, 3);
    }
}

static void get_registers(struct direct *d, const struct stub *stub, const ucontext_t *uc,
                          const void *vectors)
{
    struct vcpu *cpu = d->cpu;
    const greg_t *g = uc->uc_mcontext.gregs;
    for (unsigned i = 0; i < 16; i++)
        cpu->gpr[i] = (uint64_t)g[gregs_of[i]];
    cpu->rip = (uint64_t)g[REG_RIP];
    uint32_t flags = (uint32_t)g[REG_EFL];
    cpu_set_rflags(cpu, (cpu->rflags & ~(FLAGS_FREE | FLAG_TF)) |
                            (flags & (FLAGS_ARITH | FLAGS_FREE | FLAG_TF)));
    xstate_load(cpu, vectors, xstate_size(d->host_mask));
    get_segments(d, stub, g);
}

/* ---- Can it run? ---- */

/* Can the stub have this FS or GS? A system call sets a base below the kernel's addresses, with a
 * null selector. */
static bool base_suits(const struct stub *stub, const struct segment *seg)
{
    return !stub_control(stub)->bases_by_call || (seg->base < STUB_TASK_END && seg->selector == 0);
}

static bool suits(const struct direct *d, const struct space *s)
{
    const struct vcpu *cpu = d->cpu;
    const struct interp *in = cpu->interp;
    const uint64_t vector_bits = 0xe6;
    if (cpu->cpl != 3 || !cpu_64bit(cpu) || cpu->seg[CS].selector != USER_CS ||
        cpu->seg[SS].selector != USER_SS || !(cpu->rflags & FLAG_IF) ||
        (cpu->rflags & (FLAG_TF | FLAG_RF | FLAG_IOPL | FLAG_VM)) ||
        ((cpu->rflags & FLAG_AC) && (cpu->cr0 & CR0_AM)) || in->single || in->watching ||
        (cpu->dr[7] & 0xff) || cpu->machine->debug.count || cpu->int_shadow || cpu->pending.valid ||
        (cpu->cr0 & (CR0_TS | CR0_EM)) ||
        (cpu->cr4 & (CR4_OSFXSR | CR4_OSXSAVE | CR4_FSGSBASE)) !=
            (CR4_OSFXSR | CR4_OSXSAVE | CR4_FSGSBASE) ||
        ((cpu->xcr0 ^ d->host_mask) & vector_bits))
        return false;
    const volatile struct stub_report *r = stub_report(&s->stub);
    for (unsigned i = 0; i < ARRAY_SIZE(reported); i++)
        if (cpu->seg[reported[i]].selector != (has_stub(s) ? r->segments[i] : 0))
            return false;
    return base_suits(&s->stub, &cpu->seg[FS]) && base_suits(&s->stub, &cpu->seg[GS]);
}

/* ---- Running ---- */

/* Others know whom to kick while this holds the stub's number. */
static void set_running(struct direct *d, pid_t pid)
{
    pthread_mutex_lock(&d->kick_lock);
    d->running = pid;
    pthread_mutex_unlock(&d->kick_lock);
}

void direct_kick(struct direct *d)
{
    pthread_mutex_lock(&d->kick_lock);
    if (d->running)
        stub_kick(d->running);
    pthread_mutex_unlock(&d->kick_lock);
}

/* Where a trap of the host's has left RIP behind the instruction. */
static unsigned length_of_trap(struct direct *d, const greg_t *g)
{
    uint8_t last = 0;
    switch (g[REG_TRAPNO]) {
    case VEC_DB: /* INT1, or a breakpoint of ours */
        for (unsigned i = 0; i < STUB_SITES; i++)
            if (d->current->stub.sites[i] == (uint64_t)g[REG_RIP])
                return 0;
        return 1;
    case VEC_BP:
        paging_debug_read(d->cpu, (uint64_t)g[REG_RIP] - 1, &last, 1);
        return last == 0xcc ? 1 : 2;
    case VEC_OF:
        return 2;
    default:
        return 0;
    }
}

/* What a signal means. Registers have been taken over. */
static enum direct_exit classify(struct direct *d, uint32_t signal, const greg_t *g)
{
    struct vcpu *cpu = d->cpu;
    switch (signal) {
    case SIGUSR1:
        d->stats.kicks++;
        return DIRECT_LEFT;
    case SIGSYS:
        d->stats.syscalls++;
        if (is_canonical(cpu->rip) && !(cpu->rip >> 63)) /* else in the host's vsyscall page */
            cpu->rip -= 2;
        return DIRECT_EMULATE;
    default:
        d->stats.emulated++;
        if (g[REG_TRAPNO] == VEC_DB && (cpu->rflags & FLAG_TF)) {
            /* The instruction behind the one that set TF has run already. */
            cpu->pending_db |= BIT64(14);
            interp_take_debug_trap(cpu);
            return DIRECT_LEFT;
        }
        cpu->rip -= length_of_trap(d, g);
        return DIRECT_EMULATE;
    }
}

/* Run until something other than a page to map comes up. */
static enum direct_exit run_stub(struct direct *d, struct space *s)
{
    struct vcpu *cpu = d->cpu;
    struct stub *stub = &s->stub;
    ucontext_t *uc = NULL; /* of the signal that it waits in, once it has run */
    void *vectors = NULL;
    for (;;) {
        set_running(d, stub->pid);
        bool due = atomic_load(&cpu->attention) != 0;
        bool there = due || stub_resume(stub);
        set_running(d, 0);
        if (due && uc)
            get_registers(d, stub, uc, vectors);
        if (due)
            return DIRECT_LEFT;
        if (!there)
            return DIRECT_ERROR;
        uc = frame_of(stub);
        vectors = uc ? vectors_of(d, stub, uc) : NULL;
        if (!vectors) { /* guest code has found and called the handler: it gets no further */
            end_stub(s);
            return DIRECT_EMULATE;
        }
        const greg_t *g = uc->uc_mcontext.gregs;
        uint32_t signal = stub_report(stub)->signal;
        stub_control(stub)->frame = stub_report(stub)->context;
        bool page_fault = signal == SIGSEGV && g[REG_TRAPNO] == VEC_PF;
        if (stub_owns(stub, (uint64_t)g[REG_RIP], 1)) {
            /* It went there itself; what it may have mapped goes with the process. */
            get_registers(d, stub, uc, vectors);
            end_stub(s);
            return DIRECT_EMULATE;
        }
        if (page_fault && space_fill(d, s, (uint64_t)g[REG_CR2], (uint32_t)g[REG_ERR])) {
            /* Returns from this signal with the registers that it has. */
            stub_control(stub)->fs_base = stub_report(stub)->fs_base;
            stub_control(stub)->gs_base = stub_report(stub)->gs_base;
            if (++s->traps % TRAPS_JUDGED && !atomic_load(&cpu->attention))
                continue;
            get_registers(d, stub, uc, vectors);
            return DIRECT_LEFT;
        }
        d->stats.refused += page_fault;
        get_registers(d, stub, uc, vectors);
        return classify(d, signal, g);
    }
}

enum direct_exit direct_run(struct direct *d)
{
    struct vcpu *cpu = d->cpu;
    if (!direct_wanted(d) || atomic_load(&cpu->attention))
        return DIRECT_NOT;
    struct space *s = d->current;
    if (!has_stub(s) && !start_stub(d, s))
        return DIRECT_NOT;
    if (!suits(d, s)) {
        demote(d, s);
        return DIRECT_NOT;
    }
    s->used = ++d->clock;
    const struct interp *in = cpu->interp;
    if (s->tag != in->tlb_tag[0] || s->wraps != in->wraps || s->pkru != cpu->fpu.pkru) {
        bool same = space_validate(d, s);
        s->tag = in->tlb_tag[0];
        s->wraps = in->wraps;
        s->pkru = cpu->fpu.pkru;
        if (!same) { /* another program, whose page tables are where this one's were */
            s->streak = 0;
            s->backoff = 0;
            return DIRECT_NOT;
        }
    }
    bool failed;
    if (!stub_flush(&s->stub, &failed) || !put_registers(d, &s->stub)) {
        end_stub(s);
        return DIRECT_NOT;
    }
    if (s->roams)
        stub_roam(&s->stub);
    else
        stub_follow(&s->stub);
    uint64_t start = host_ns(), fills = d->stats.fills;
    d->stats.runs++;
    enum direct_exit exit = run_stub(d, s);
    uint64_t took = host_ns() - start;
    s->roams = took / (1 + d->stats.fills - fills) > ROAM_NS;
    d->stats.ns += took;
    s->traps++;
    s->direct_ns += took;
    judge(d, s, start + took);
    return exit;
}

void direct_hold(struct direct *d)
{
    if (d->current)
        d->current->held = true;
}

bool direct_refuses(const struct direct *d)
{
    const struct vcpu *cpu = d->cpu;
    return cpu->cpl == 3 && d->current && d->current->cr3 == space_of(cpu) &&
           space_refuses(d->current, cpu->rip);
}

/* ---- Life ---- */

struct direct *direct_create(struct vcpu *cpu)
{
    struct direct *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->mapped = calloc((cpu->machine->mem->size >> PAGE_SHIFT) / 64 + 1, sizeof *d->mapped);
    if (!d->mapped) {
        free(d);
        return NULL;
    }
    d->cpu = cpu;
    d->host_mask = xstate_host_mask();
    d->broken = xstate_size(d->host_mask) > 8192 - XSAVE_AREA_START;
    pthread_mutex_init(&d->kick_lock, NULL);
    return d;
}

void direct_destroy(struct direct *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < SPACES_MAX; i++)
        end_stub(&d->spaces[i]);
    pthread_mutex_destroy(&d->kick_lock);
    free(d->mapped);
    free(d);
}

const struct direct_stats *direct_stats(const struct direct *d)
{
    return &d->stats;
}
