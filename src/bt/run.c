/* The engine: between translated code and everything else. */
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <x86intrin.h>

#include "bt/host.h"
#include "bt/options.h"
#include "bt/perf_map.h"
#include "direct/direct.h"
#include "interp/native.h"
#include "util/error.h"
#include "util/thread_bases.h"

/* ---- Modes ---- */

/* Which vector units would run without an exception. */
static uint8_t units(const struct vcpu *cpu)
{
    uint8_t units = 0;
    if (cpu->cr0 & CR0_TS)
        return 0;
    if (!(cpu->cr0 & CR0_EM) && (cpu->cr4 & CR4_OSFXSR))
        units |= BT_SSE;
    if (!(cpu->cr0 & CR0_EM) && (cpu->cr0 & CR0_NE) && cpu->bt->has_xsave)
        units |= BT_X87;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return units;
    if ((cpu->xcr0 & 6) == 6)
        units |= BT_AVX;
    if ((cpu->xcr0 & 0xe6) == 0xe6)
        units |= BT_AVX512;
    return units;
}

/* They stay so in real mode: a load sets the base alone. */
static bool usual_segments(const struct vcpu *cpu)
{
    const uint32_t kept = SEG_G | SEG_DB | 3u << SEG_DPL_SHIFT,
                   usual = SEG_P | SEG_S | SEG_WRITE | SEG_ACCESSED;
    uint32_t others = 0, limits = 0xffff;
    for (unsigned i = 0; i < SREGS; i++) {
        others |= (cpu->seg[i].attr & ~(kept | (i == CS ? SEG_CODE : 0))) ^ usual;
        limits = MIN(limits, cpu->seg[i].limit);
    }
    return !others && limits == 0xffff;
}

static uint16_t segmented_mode(const struct vcpu *cpu)
{
    return (!cpu_protected(cpu) && usual_segments(cpu) ? BT_USUAL : 0) | BT_SEGMENTS |
           (cpu->interp->flat ? BT_FLAT : 0) | (cpu->interp->mode.bits == 16 ? BT_16 : 0) |
           (cpu->interp->mode.bits != cpu->interp->mode.stack_bits ? BT_MIXED : 0) |
           (cpu_protected(cpu) ? 0 : BT_REAL);
}

/* The mode to translate for; 0: the interpreter runs this. */
static uint16_t current_mode(const struct vcpu *cpu)
{
    const struct interp *in = cpu->interp;
    if (in->align_check)
        return 0;
    uint16_t mode = BT_64;
    if (in->mode.bits != 64) {
        const struct segment *cs = &cpu->seg[CS];
        bool whole =
            !cs->base && cs->limit == 0xffffffff && in->mode.bits == 32 && cpu_protected(cpu);
        if (cs->base + (uint64_t)cs->limit > UINT32_MAX)
            return 0;
        mode = whole && in->flat && in->mode.stack_bits == 32 ? 0 : segmented_mode(cpu);
    }
    if (cpu->cpl == 3)
        mode |= BT_USER;
    else if (cpu->cpl)
        mode |= BT_OUTER;
    if (in->context == TLB_SUPERVISOR_AC)
        mode |= BT_AC;
    if (cpu->cpl != 3 && (cpu->cr4 & CR4_SMAP))
        mode |= BT_SMAP;
    return mode | units(cpu) | BT_VALID;
}

uint16_t bt_current_mode(const struct vcpu *cpu)
{
    return current_mode(cpu);
}

static void set_mode(struct vcpu *cpu, uint16_t mode)
{
    struct bt *bt = cpu->bt;
    const struct segment *cs = &cpu->seg[CS];
    mode &= (uint16_t)~BT_VALID;
    bool segmented = mode & BT_SEGMENTS;
    bool same_cs = segmented ? bt->cs.number && bt->cs.base == cs->base && bt->cs.limit == cs->limit
                             : !bt->cs.number;
    if (bt->mode == mode && bt->mode_number[mode] && same_cs)
        return;
    if (!segmented)
        bt->cs = (struct bt_code_segment){0, UINT32_MAX, 0};
    else if (!same_cs)
        bt_number_code_segment(bt, (uint32_t)cs->base, cs->limit);
    bt->mode = mode;
    bt_number_mode(bt);
    bt_forget_returns(bt); /* they lead to code for the other mode */
}

/* Translated STAC and CLAC change nothing but the flag. */
static void sync_mode(struct vcpu *cpu)
{
    if (cpu->cpl == 3 || !(cpu->cr4 & CR4_SMAP) ||
        !(cpu->rflags & FLAG_AC) == (cpu->interp->context != TLB_SUPERVISOR_AC))
        return;
    interp_mode_changed(cpu);
    set_mode(cpu, current_mode(cpu));
}

/* ---- Call-outs ---- */

/* LAHF and SETO AL as one word, from and to the architecture's places. */
static void flags_to_cpu(struct vcpu *cpu)
{
    cpu->cc = flags_from_ax((uint32_t)cpu->bt->flags & 0xffff);
}

static void flags_from_cpu(struct vcpu *cpu)
{
    cpu->bt->flags = ax_from_flags(cpu->cc);
}

static void op_next(struct vcpu *cpu, const struct op *op)
{
    cpu->bt->fell_through = true;
}

static void op_invalid(struct vcpu *cpu, const struct op *op)
{
    interp_raise(cpu, NULL, VEC_UD);
}

/* Room for one, or the one that is used again at once. */
static struct bt_op *new_op(struct bt *bt)
{
    const struct bt_segment *s = &bt->segments[bt->segment];
    return s->data_used + sizeof(struct bt_op) <= bt->segment_data
               ? bt_cache_data(bt, sizeof(struct bt_op))
               : &bt->spare_op;
}

static const struct op *decode_op(struct vcpu *cpu, struct bt_site *site, const uint8_t *bytes,
                                  unsigned length)
{
    bool ends;
    struct bt_op *o = site->op ? site->op : new_op(cpu->bt);
    memset(o, 0, sizeof *o);
    o->flushes = cpu->interp->stats.arena_flushes;
    interp_decode(cpu, bytes, length, &o->ops[0], &ends);
    if (!o->ops[0].fn)
        o->ops[0].fn = op_invalid;
    o->ops[1].fn = op_next;
    site->op = o == &cpu->bt->spare_op ? NULL : o;
    return o->ops;
}

/* Its tail is compared each time: what is mapped there, and what it holds, may be another. NULL:
 * it is not in RAM. */
static const struct op *straddler_op(struct vcpu *cpu, struct bt_site *site)
{
    uint64_t next = (site->block->rip | ~PAGE_MASK) + 1;
    if (site->block->mode & BT_SEGMENTS)
        return NULL;
    if (!(site->block->mode & BT_64))
        next = (uint32_t)next;
    if (!is_canonical(next))
        return NULL;
    uint64_t gpa = interp_fetch_translate(cpu, next);
    const uint8_t *host = physmem_host(cpu->machine->mem, gpa, PAGE_SIZE);
    if (!host)
        return NULL;
    const struct bt_block *b = site->block;
    if (b->tail && !b->dead && b->tail->linear == next && b->tail->gpa == (gpa & PAGE_MASK))
        bt_note_page(cpu->bt, b->mode & BT_USER, b->tail); /* found inline next time */
    unsigned head = site->length;
    struct bt_op *o = site->op;
    if (o && o->flushes == cpu->interp->stats.arena_flushes && o->ops[0].length > head &&
        !memcmp(o->tail, host, o->ops[0].length - head))
        return o->ops;
    interp_reserve(cpu);
    uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
    memcpy(bytes, site->block->bytes, head);
    memcpy(bytes + head, host, sizeof bytes - head);
    const struct op *op = decode_op(cpu, site, bytes, sizeof bytes);
    if (site->op)
        memcpy(site->op->tail, bytes + head, sizeof bytes - head);
    return op;
}

static const struct op *site_op(struct vcpu *cpu, struct bt_site *site)
{
    if (site->op && site->op->flushes == cpu->interp->stats.arena_flushes)
        return site->op->ops;
    interp_reserve(cpu);
    return decode_op(cpu, site, site->block->bytes + site->offset, site->length);
}

/* The guest's vector registers to where C code expects them. */
static void save_vectors(struct bt *bt)
{
    if (bt->vector_live)
        bt->vectors_save();
    if (bt->x87_live)
        bt_x87_save(bt->cpu);
}

/* And back, for the rest of a block that needs them. The last thing before translated code. */
static void load_vectors(struct bt *bt, const struct bt_site *site, int result)
{
    if (result == GO_LEAVE)
        return;
    if (site->block->x87)
        bt_x87_load(bt->cpu);
    if (site->block->vectors)
        bt->vectors_load[site->block->vectors]();
}

static int run_op(struct vcpu *cpu, struct bt_site *site)
{
    struct bt *bt = cpu->bt;
    uint64_t rip = site->block->rip + site->offset;
    cpu->rip = rip;
    flags_to_cpu(cpu);
    const struct op *op = site->straddles ? straddler_op(cpu, site) : site_op(cpu, site);
    if (!op) {
        interp_run_block(cpu);
        flags_from_cpu(cpu);
        return GO_LEAVE;
    }
    bt->fell_through = false;
    op->fn(cpu, op);
    flags_from_cpu(cpu);
    if (bt->fell_through)
        cpu->rip = (rip + op->length) & cpu->interp->ip_mask;
    if (UNLIKELY(cpu->pending_db))
        interp_take_debug_trap(cpu);
    if (!bt->fell_through || site->ends || cpu->int_shadow || (cpu->rflags & FLAG_TF) ||
        site->block->dead || current_mode(cpu) != (bt->mode | BT_VALID) ||
        atomic_load_explicit(&cpu->attention, memory_order_relaxed))
        return GO_LEAVE;
    return GO_DONE;
}

WITH_VECTORS_LIVE static int do_callout(struct vcpu *cpu, struct bt_site *site)
{
    cpu->bt->stats.callouts += !site->straddles;
    cpu->bt->stats.by_mnemonic[site->mnemonic] += !site->straddles;
    save_vectors(cpu->bt);
    sync_mode(cpu);
    int result = run_op(cpu, site);
    load_vectors(cpu->bt, site, result);
    return result == GO_DONE ? GO_ON : result;
}

/* The second level of the TLB misses, too. */
int bt_slow(struct vcpu *cpu, struct bt_site *site)
{
    struct bt *bt = cpu->bt;
    uint64_t linear = bt->linear;
    int result = GO_RETRY;
    save_vectors(bt);
    sync_mode(cpu);
    /* What a masked access touches only the interpreter knows. */
    uint8_t *host = site->masked || (linear & ~PAGE_MASK) + site->size > PAGE_SIZE
                        ? NULL
                        : interp_tlb_host(cpu, linear, site->write);
    if (!host || (site->write && physmem_page_flagged(cpu->machine->mem, host))) {
        bt->stats.slow_ops++;
        result = run_op(cpu, site);
    } else {
        struct interp *in = cpu->interp;
        bt_l1_enter(bt, in->context, site->write, linear, (uint64_t)(uintptr_t)host - linear);
    }
    load_vectors(bt, site, result);
    return result;
}

static void set_tsc_delta(struct vcpu *cpu)
{
    cpu->bt->tsc_delta = cpu->tsc_offset - cpu->machine->clock.host_base;
}

/* ---- Finding code ---- */

/* May there be code at vcpu.rip, in bt.mode? */
static bool good_target(const struct vcpu *cpu)
{
    const struct bt *bt = cpu->bt;
    return bt->mode & BT_SEGMENTS ? cpu->rip <= bt_last_ip(cpu) : is_canonical(cpu->rip);
}

/* The block at vcpu.rip. NULL: let the interpreter run what is there. */
static struct bt_block *find_block(struct vcpu *cpu, bool plain)
{
    struct bt *bt = cpu->bt;
    uint64_t rip = cpu->rip;
    bt->stats.lookups++;
    if (!good_target(cpu))
        return NULL;
    uint64_t linear = bt->cs.base + rip, gpa = interp_fetch_translate(cpu, linear);
    struct bt_page *page = bt_page_get(cpu, linear, gpa);
    if (!page)
        return NULL;
    struct bt_block *b = bt_block_find(bt, page, rip, bt->mode, plain);
    if (!b) {
        uint64_t start = __rdtsc(), blocks = bt->stats.blocks;
        b = bt_translate(cpu, page, plain);
        *(bt->stats.blocks == blocks ? &bt->stats.reuse_ticks : &bt->stats.translate_ticks) +=
            __rdtsc() - start;
    }
    if (!b)
        return NULL;
    bt_note_page(bt, bt->mode & BT_USER, page);
    if (plain || cpu->machine->bt_off & BT_OFF_JUMPS)
        return b;
    *bt_jump_cache_slot(bt, rip) = (struct jump_cache_entry){bt_key_of(bt, rip), b->entry_saved};
    return b;
}

static bool interp_must_run(const struct vcpu *cpu)
{
    const struct interp *in = cpu->interp;
    return atomic_load_explicit(&cpu->attention, memory_order_acquire) || cpu->pending.valid ||
           cpu->activity != ACTIVITY_RUNNING || cpu->int_shadow || (cpu->rflags & FLAG_TF) ||
           in->single || (cpu->dr[7] & 0xff) || cpu->bt->log;
}

const void *bt_next_code(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    uint16_t mode = current_mode(cpu);
    if (!mode || interp_must_run(cpu) || bt->verify || (bt->leave_for_user && cpu->cpl == 3))
        return NULL;
    cpu->rflags &= ~FLAG_RF; /* nobody debugs */
    if (mode != (bt->mode | BT_VALID))
        save_vectors(bt);
    set_mode(cpu, mode);
    const struct jump_cache_entry *e = bt_jump_cache_slot(bt, cpu->rip);
    if (e->key == bt_key_of(bt, cpu->rip))
        return e->code;
    save_vectors(bt);
    const struct bt_block *b = find_block(cpu, false);
    return b ? b->entry_saved : NULL;
}

const void *bt_callout_end_slow(struct vcpu *cpu, struct bt_site *site)
{
    cpu->bt->stats.straddlers += site->straddles;
    do_callout(cpu, site);
    if (site->mnemonic == ZYDIS_MNEMONIC_WRMSR)
        set_tsc_delta(cpu);
    return bt_next_code(cpu);
}

/* An indirect branch to an address that is none faults at the branch: go back there, where the
 * interpreter does it again. False: the address is one. */
static bool undo_branch(struct vcpu *cpu, const struct bt_site *site)
{
    if (good_target(cpu))
        return false;
    uint64_t mask = cpu->interp->stack_mask, rsp = cpu->gpr[RSP];
    cpu->gpr[RSP] = (rsp & ~mask) | ((rsp - (uint64_t)(int64_t)site->undo) & mask);
    cpu->rip = site->block->rip + site->offset;
    return true;
}

/* ---- The loop ---- */

typedef uintptr_t enter_fn(const void *code);

bool bt_run_block(struct vcpu *cpu, const struct bt_block *b, struct bt_exit **exit)
{
    struct bt *bt = cpu->bt;
    flags_from_cpu(cpu);
    bt->stats.entries++;
    uintptr_t out = ((enter_fn *)(uintptr_t)bt->enter)(b->entry_saved);
    atomic_store_explicit(&bt->in_code, false, memory_order_release);
    save_vectors(bt);
    sync_mode(cpu);
    flags_to_cpu(cpu);
    if (out & (BT_OUT_INDIRECT | BT_OUT_RETURN)) {
        const void *site = out & BT_OUT_RETURN ? bt->data + bt->ret_site
                                               : (const uint8_t *)(out - BT_OUT_INDIRECT);
        bt->stats.jump_misses++;
        if (undo_branch(cpu, site))
            return false;
    } else if (out) {
        *exit = (struct bt_exit *)out;
        cpu->rip = (*exit)->target;
    }
    return true;
}

static void run_translated(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    struct bt_block *b = find_block(cpu, false);
    while (b) {
        struct bt_exit *exit = NULL;
        cpu->rflags &= ~FLAG_RF; /* nobody debugs */
        if (UNLIKELY(bt->verify) ? !bt_verify_block(cpu, b, &exit) : !bt_run_block(cpu, b, &exit))
            break;
        if (interp_must_run(cpu) || (bt->leave_for_user && cpu->cpl == 3))
            return;
        uint16_t mode = current_mode(cpu);
        if (!mode)
            return;
        set_mode(cpu, mode);
        uint64_t evictions = bt->stats.evictions;
        b = find_block(cpu, exit && exit->plain);
        if (b && exit && bt->stats.evictions == evictions)
            bt_link(cpu, exit, b);
    }
    bt->needs_interp = true;
}

/* ---- Direct execution ---- */

/* Blocks that the interpreter runs in a page that is not for direct execution before the translator
 * takes over. */
#define REFUSED_ROUNDS 32

/* How often ring 3 was left so far. */
static uint64_t kernel_entries(const struct vcpu *cpu)
{
    return cpu->interp->stats.faults + cpu->bt->stats.by_mnemonic[ZYDIS_MNEMONIC_SYSCALL];
}

static void sample(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    if (cpu->cpl != 3 || !bt->direct)
        return;
    direct_sample(bt->direct, kernel_entries(cpu));
    bt->leave_for_user = direct_wanted(bt->direct);
}

/* Other vCPUs wait for this one to be outside of guest code that stores without a look. */
static enum direct_exit run_directly(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    if (!bt->leave_for_user || cpu->cpl != 3 || interp_must_run(cpu))
        return DIRECT_NOT;
    atomic_store(&bt->in_code, true);
    if (atomic_load(&bt->purge))
        bt_purge_writes(cpu);
    enum direct_exit exit = direct_run(bt->direct);
    atomic_store(&bt->in_code, false);
    if (exit != DIRECT_NOT)
        interp_mode_changed(cpu);
    bt->leave_for_user = direct_wanted(bt->direct);
    return exit;
}

static enum vcpu_exit bt_run(struct vcpu *cpu, struct tv_error *err)
{
    struct bt *bt = cpu->bt;
    struct interp *in = cpu->interp;
    enum vcpu_exit exit = VCPU_EXIT_ATTENTION;
    bt_set_running(cpu);
    bt->log = log_on(&cpu->machine->log, LOG_EXEC) || log_on(&cpu->machine->log, LOG_CPU);
    set_gs_base(cpu);
    thunks_set_handler(bt_on_signal);
    bt_stacks_enter(bt);
    set_tsc_delta(cpu); /* the clock may have been stopped */
    interp_begin(cpu);
    if (setjmp(in->head.unwind)) {
        if (interp_unwound(cpu, &exit))
            return exit;
    }
    for (;;) {
        uint32_t attention = atomic_load_explicit(&cpu->attention, memory_order_acquire);
        if (attention & ATT_CODE) {
            atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_CODE);
            bt_take_written(cpu);
        }
        if (attention & ATT_MEMORY)
            interp_memory_changed(cpu);
        if (attention & ATT_INTR)
            sample(cpu);
        switch (run_directly(cpu)) {
        case DIRECT_LEFT:
            continue;
        case DIRECT_EMULATE:
            for (unsigned rounds = 0;; rounds++) {
                if (interp_round(cpu, &exit, err))
                    return exit;
                if (atomic_load(&cpu->attention) || !direct_refuses(bt->direct))
                    break;
                if (rounds == REFUSED_ROUNDS) {
                    direct_hold(bt->direct);
                    bt->leave_for_user = false;
                    break;
                }
            }
            continue;
        case DIRECT_ERROR:
            tv_fail(err, "the process that ran guest code directly was killed");
            return VCPU_EXIT_ERROR;
        case DIRECT_NOT:
            break;
        }
        uint16_t mode = current_mode(cpu);
        if (mode && !interp_must_run(cpu)) {
            set_mode(cpu, mode);
            bt->needs_interp = false;
            run_translated(cpu);
            if (!bt->needs_interp)
                continue;
            if (UNLIKELY(bt->verify) && bt_verify_failed(cpu, err))
                return VCPU_EXIT_ERROR;
        }
        bt->stats.interp_rounds++;
        if (interp_round(cpu, &exit, err))
            return exit;
    }
}

/* ---- Life ---- */

/* Address space within reach of 32-bit displacements from `cpu`. */
static struct bt *map_near(const struct vcpu *cpu)
{
    uintptr_t at = ALIGN_UP((uintptr_t)cpu, UINT64_C(1) << 20);
    for (unsigned i = 1; i < 900; i++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            uintptr_t hint = at + (uintptr_t)((int64_t)i * sign * (2 << 20));
            void *p =
                mmap((void *)hint, sizeof(struct bt), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
            if (p == (void *)hint)
                return p;
            if (p != MAP_FAILED)
                munmap(p, sizeof(struct bt));
        }
    }
    return NULL;
}

static bool has_xsave(void)
{
    unsigned eax, ebx, ecx, edx;
    __asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(1), "c"(0));
    return ecx >> 27 & 1; /* OSXSAVE */
}

static void bt_vcpu_fini(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    if (bt) {
        if (cpu->machine->perf_map && bt->exec)
            perf_map_finish(cpu->machine->perf_map, bt);
        direct_destroy(bt->direct);
        bt_cache_free(bt);
        bt_stacks_free(bt);
        bt_verify_free(bt);
        free(bt->scratch);
        pthread_mutex_destroy(&bt->written_lock);
        cpu->bt = NULL;
        munmap(bt, sizeof *bt);
    }
    interp_engine.vcpu_fini(cpu);
}

static int bt_vcpu_init(struct vcpu *cpu, struct tv_error *err)
{
    if (interp_engine.vcpu_init(cpu, err) < 0)
        return -1;
    struct bt *bt = map_near(cpu);
    if (!bt) {
        interp_engine.vcpu_fini(cpu);
        return tv_fail(err, "no address space for the translator's tables");
    }
    bt->cpu = cpu;
    bt->offset = (int64_t)((uintptr_t)bt - (uintptr_t)cpu);
    bt->slow = bt_fill;
    bt->callout = do_callout;
    bt->callout_end = bt_callout_end;
    bt->purge_writes = bt_purge_writes;
    bt->load_x87 = bt_x87_load;
    bt->has_xsave = has_xsave();
    bt->host_mxcsr = __builtin_ia32_stmxcsr();
    bt->cs.limit = UINT32_MAX;
    bt->jump_gen[0] = bt->jump_gen[1] = bt->last_gen[0] = bt->last_gen[1] = 1;
    pthread_mutex_init(&bt->written_lock, NULL);
    /* A guest that could guess it would crash its own VMM with it, no more. */
    if (getrandom(&bt->empty_tag, sizeof bt->empty_tag, 0) != sizeof bt->empty_tag)
        bt->empty_tag = (uintptr_t)bt * UINT64_C(0x9e3779b97f4a7c15);
    bt->empty_tag = (bt->empty_tag & ~(UINT64_C(0xffff) << 48)) | UINT64_C(0x5a5a) << 48;
    for (unsigned c = 0; c < TLB_CONTEXTS; c++)
        bt_clear_l1(bt, c);
    uint64_t size = cpu->machine->tcache ? cpu->machine->tcache : BT_TCACHE_DEFAULT;
    if (bt_stacks_create(bt, err) < 0 || bt_cache_create(bt, size, err) < 0) {
        cpu->bt = bt;
        bt_vcpu_fini(cpu);
        return -1;
    }
    if (!(cpu->machine->bt_off & BT_OFF_DIRECT) && !cpu->machine->verify)
        bt->direct = direct_create(cpu);
    bt_make_stubs(bt);
    bt->segments[0].code_used = (uint32_t)bt->code_start;
    if (cpu->machine->perf_map)
        perf_map_stubs(cpu->machine->perf_map, bt);
    cpu->bt = bt;
    cpu->interp->flushed = bt_on_flush;
    cpu->interp->memory_changed = bt_forget_pages;
    if (cpu->machine->verify && bt_verify_create(cpu, err) < 0) {
        bt_vcpu_fini(cpu);
        return -1;
    }
    return 0;
}

static void bt_state_changed(struct vcpu *cpu)
{
    interp_engine.state_changed(cpu);
}

static int bt_machine_init(struct machine *m, struct tv_error *err)
{
    if (m->verify && m->vcpu_count > 1)
        return tv_fail(err, "--verify compares the engines on one vCPU: use --cpus 1");
    if (m->verify) /* one block at a time */
        m->bt_off |= BT_OFF_LINKS | BT_OFF_JUMPS | BT_OFF_RETURNS | BT_OFF_DIRECT;
    bt_hear_of_memory(m);
    return 0;
}

static void bt_machine_fini(struct machine *m)
{
}

const struct engine bt_engine = {
    .name = "bt",
    .machine_init = bt_machine_init,
    .machine_fini = bt_machine_fini,
    .vcpu_init = bt_vcpu_init,
    .vcpu_fini = bt_vcpu_fini,
    .run = bt_run,
    .kick = bt_kick,
    .state_changed = bt_state_changed,
    .print_stats = bt_print_stats,
};
