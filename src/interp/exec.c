/* The main loop: blocks, and what happens between them. */
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "interp/core.h"
#include "interp/native.h"
#include "util/error.h"

/* ---- Modes ---- */

static bool segment_flat(const struct segment *s)
{
    return s->base == 0 && s->limit == 0xffffffff && (s->attr & SEG_WRITE) &&
           !(s->attr & (SEG_CODE | SEG_UNUSABLE | SEG_DOWN));
}

static bool debug_in_use(const struct vcpu *cpu)
{
    const struct debugger *dbg = &cpu->machine->debug;
    return (cpu->dr[7] & 0xff) || dbg->count || (dbg->single_step >> cpu->index & 1);
}

static void refresh_debug(struct vcpu *cpu)
{
    struct interp *in = cpu->interp;
    bool single = debug_in_use(cpu);
    if (!single && !in->single)
        return;
    in->single = single;
    in->watching = single;
    memcpy(in->seen_dr, cpu->dr, sizeof in->seen_dr);
    interp_flush_tlb(cpu);
}

void interp_memory_changed(struct vcpu *cpu)
{
    atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_MEMORY);
    interp_flush_blocks(cpu);
    interp_flush_tlb(cpu);
    if (cpu->interp->memory_changed)
        cpu->interp->memory_changed(cpu);
}

void interp_mode_changed(struct vcpu *cpu)
{
    struct interp *in = cpu->interp;
    if (!in)
        return;
    const struct segment *cs = &cpu->seg[CS];
    if (cpu->cr0 != in->seen_cr0 || cpu->cr3 != in->seen_cr3 || cpu->cr4 != in->seen_cr4 ||
        cpu->efer != in->seen_efer || cpu->fpu.pkru != in->seen_pkru) {
        in->seen_cr0 = cpu->cr0;
        in->seen_cr3 = cpu->cr3;
        in->seen_cr4 = cpu->cr4;
        in->seen_efer = cpu->efer;
        in->seen_pkru = cpu->fpu.pkru;
        interp_flush_tlb(cpu);
    }

    bool protected = (cpu->cr0 & CR0_PE) && !(cpu->rflags & FLAG_VM);
    if (cpu_64bit(cpu))
        in->mode = (struct code_mode){64, 64};
    else
        in->mode =
            (struct code_mode){cs->attr & SEG_DB && !(cpu->rflags & FLAG_VM) ? 32 : 16,
                               cpu->seg[SS].attr & SEG_DB && !(cpu->rflags & FLAG_VM) ? 32 : 16};
    in->ip_mask = bytes_mask(in->mode.bits / 8);
    in->stack_mask = bytes_mask(in->mode.stack_bits / 8);
    in->stack_flat = in->mode.bits == 64 || (protected && segment_flat(&cpu->seg[SS]));
    in->flat = in->mode.bits == 64 ||
               (in->stack_flat && segment_flat(&cpu->seg[DS]) && segment_flat(&cpu->seg[ES]));
    in->mode_key = (uint8_t)(in->mode.bits / 16 - 1) | (uint8_t)((in->mode.stack_bits / 16) << 2) |
                   (in->flat ? 0x20 : 0) | (protected ? 0 : 0x80);

    interp_ring_changed(cpu);

    /* Outside 64-bit mode, a block also depends on where CS lies and ends. */
    if (in->mode.bits != 64 && (cs->base != in->seen_cs_base || cs->limit != in->seen_cs_limit)) {
        in->seen_cs_base = cs->base;
        in->seen_cs_limit = cs->limit;
        interp_flush_jumps(cpu);
    }
    /* Bits 63..57 generation, 56 user, 55..48 mode; AC does not matter to fetches. */
    in->jump_key = (uint64_t)in->jump_gen << 57 | (uint64_t)(cpu->cpl == 3) << 56 |
                   (uint64_t)in->mode_key << 48;
}

void interp_flush_jumps(struct vcpu *cpu)
{
    struct interp *in = cpu->interp;
    if (++in->jump_gen == 128) {
        memset(in->jumps, 0, sizeof in->jumps);
        in->jump_gen = 1;
    }
    in->jump_key = (in->jump_key & (BIT64(57) - 1)) | (uint64_t)in->jump_gen << 57;
}

/* ---- Leaving an instruction ---- */

uint64_t interp_next_rip(const struct vcpu *cpu, const struct op *op)
{
    return next_rip(cpu, op);
}

/* The block's count was added when it was entered: take back what did not run after `op`. */
static void uncount(struct vcpu *cpu, const struct op *op, bool itself)
{
    const struct block *b = cpu->interp->block;
    if (!b || op < b->ops || op >= b->ops + b->op_count)
        return;
    unsigned done = (unsigned)(op - b->ops) - b->guards + !itself;
    if (done < b->count)
        cpu->instructions -= b->count - done;
}

void interp_sync(struct vcpu *cpu, const struct op *op)
{
    struct interp *in = cpu->interp;
    cpu->rip = (cpu->rip + op->offset) & in->ip_mask;
}

void interp_end_block(struct vcpu *cpu, const struct op *op)
{
    uncount(cpu, op, false);
}

void interp_op_leave(struct vcpu *cpu, const struct op *op)
{
    uncount(cpu, op, true);
    interp_sync(cpu, op);
}

void interp_op_guard(struct vcpu *cpu, const struct op *op)
{
    struct block *b = cpu->interp->block;
    if (*b->gen2_at != b->gen2) {
        b->gen = *b->gen_at - 1; /* stale: the main loop finds it so */
        cpu->instructions -= b->count;
        return;
    }
    NEXT(cpu, op);
}

static _Noreturn void unwind(struct vcpu *cpu, const struct op *op, struct fault fault)
{
    struct interp *in = cpu->interp;
    if (op) {
        uncount(cpu, op, true);
        interp_sync(cpu, op);
    }
    in->block = NULL;
    in->stats.faults++;
    in->head.fault = fault;
    longjmp(in->head.unwind, 1);
}

_Noreturn void interp_raise(struct vcpu *cpu, const struct op *op, enum vector vector)
{
    unwind(cpu, op, (struct fault){.vector = vector});
}

_Noreturn void interp_raise_error(struct vcpu *cpu, const struct op *op, enum vector vector,
                                  uint32_t error)
{
    unwind(cpu, op, (struct fault){.vector = vector, .has_error = true, .error = error});
}

_Noreturn void interp_page_fault(struct vcpu *cpu, const struct op *op, uint64_t address,
                                 uint32_t error)
{
    unwind(cpu, op,
           (struct fault){.vector = VEC_PF, .has_error = true, .error = error, .address = address});
}

/* ---- Between instructions ---- */

static void deliver_pending(struct vcpu *cpu)
{
    struct pending_event e = cpu->pending;
    cpu->pending.valid = false;
    enum event_kind kind = e.vector == VEC_NMI ? EVENT_NMI
                           : e.vector < 32     ? EVENT_FAULT
                                               : EVENT_INTERRUPT;
    interp_deliver(cpu, kind, e.vector, e.has_error, e.error);
}

static void wake_up(struct vcpu *cpu)
{
    if (cpu->activity == ACTIVITY_HALTED)
        cpu->activity = ACTIVITY_RUNNING;
}

/* Deliver what is due. True: something was. */
static bool deliver_external(struct vcpu *cpu, uint32_t attention)
{
    if (attention & ATT_NMI && !cpu->nmi_blocked && !cpu->int_shadow) {
        atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_NMI);
        wake_up(cpu);
        cpu->interp->stats.interrupts++;
        interp_deliver(cpu, EVENT_NMI, VEC_NMI, false, 0);
        return true;
    }
    if (!(attention & ATT_INTR) || (cpu->rflags & FLAG_IF && cpu->int_shadow))
        return false;
    /* With IF clear the bit comes back when IF is set (vcpu.intr_asserted). */
    atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_INTR);
    if (!(cpu->rflags & FLAG_IF) || !cpu->lapic)
        return false;
    int vector = lapic_ack(cpu->lapic);
    if (vector < 0)
        return false;
    wake_up(cpu);
    cpu->interp->stats.interrupts++;
    if (atomic_load(&cpu->intr_asserted))
        atomic_fetch_or(&cpu->attention, ATT_INTR);
    interp_deliver(cpu, EVENT_INTERRUPT, (uint8_t)vector, false, 0);
    return true;
}

/* Instruction breakpoints at vcpu.rip. True: a debugger's. */
static bool check_breakpoints(struct vcpu *cpu, bool resume)
{
    uint64_t linear = interp_linear_rip(cpu);
    struct debugger *dbg = &cpu->machine->debug;
    bool stepping = dbg->single_step >> cpu->index & 1;
    for (unsigned i = 0; !stepping && i < dbg->count; i++) {
        if (dbg->points[i].kind == DEBUG_BREAK && dbg->points[i].address == linear) {
            dbg->hit_vcpu = cpu->index;
            dbg->hit_step = false;
            dbg->hit_point = dbg->points[i];
            return true;
        }
    }
    if (resume || cpu->int_shadow == 2)
        return false;
    uint64_t hits = 0;
    for (unsigned n = 0; n < 4; n++)
        if ((cpu->dr[7] >> (2 * n)) & 3 && !((cpu->dr[7] >> (16 + 4 * n)) & 3) &&
            cpu->dr[n] == linear)
            hits |= BIT(n);
    if (hits) {
        cpu->dr[6] |= hits;
        interp_raise(cpu, NULL, VEC_DB);
    }
    return false;
}

static void log_block(struct vcpu *cpu)
{
    struct event_log *log = &cpu->machine->log;
    log_write(log, LOG_EXEC, "cpu%u %04x:%016" PRIx64 " cpl %u, %u bit", cpu->index,
              cpu->seg[CS].selector, cpu->rip, cpu->cpl, cpu->interp->mode.bits);
    if (log_on(log, LOG_CPU)) {
        char text[4096];
        cpu_print(cpu, text, sizeof text);
        log_write(log, LOG_CPU, "%s", text);
    }
}

static bool verify_block(struct vcpu *cpu, const struct block *b, struct tv_error *err)
{
    uint8_t now[4096];
    const uint8_t *first = physmem_host(cpu->machine->mem, b->gpa, b->in_page);
    if (!first)
        return true;
    memcpy(now, first, b->in_page);
    if (b->in_page < b->length) {
        const uint8_t *second =
            physmem_host(cpu->machine->mem, b->gpa2, (uint64_t)(b->length - b->in_page));
        if (!second)
            return true;
        memcpy(now + b->in_page, second, b->length - b->in_page);
    }
    if (!memcmp(now, b->bytes, b->length))
        return true;
    /* Another vCPU or a device may have written it since: then it is not stale by mistake. */
    if (*b->gen_at != b->gen || (b->gen2_at && *b->gen2_at != b->gen2))
        return true;
    tv_fail(err,
            "interpreter: cached code at %04x:%" PRIx64 " (physical %" PRIx64
            ") differs from memory; please report this",
            cpu->seg[CS].selector, cpu->rip, b->gpa);
    return false;
}

/* What has to be done after an instruction or block. */
static void after_block(struct vcpu *cpu, uint8_t shadow)
{
    cpu->interp->block = NULL;
    if (shadow)
        cpu->int_shadow &= (uint8_t)~shadow;
    if (UNLIKELY(cpu->in_single_step || cpu->pending_db)) {
        if (cpu->int_shadow == 2) {
            cpu->in_single_step = false; /* held until after the instruction that follows */
            return;
        }
        interp_take_debug_trap(cpu);
        cpu->in_single_step = false;
    }
}

static bool stops_run(struct vcpu *cpu, uint32_t attention)
{
    return attention & ~(ATT_INTR | ATT_NMI | ATT_CACHES);
}

/*
 * One round: deliver what is due, or run a block (and the chain of blocks after it). Returns true
 * with `*exit` set to leave run().
 */
static bool round_trip(struct vcpu *cpu, bool once, enum vcpu_exit *exit, struct tv_error *err)
{
    struct interp *in = cpu->interp;
    if (cpu->activity == ACTIVITY_SHUTDOWN) {
        *exit = VCPU_EXIT_SHUTDOWN;
        return true;
    }
    uint32_t attention = atomic_load_explicit(&cpu->attention, memory_order_acquire);
    if (UNLIKELY(attention)) {
        if (!once && stops_run(cpu, attention)) {
            *exit = VCPU_EXIT_ATTENTION;
            return true;
        }
        if (attention & ATT_DEBUG) {
            atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_DEBUG);
            refresh_debug(cpu);
        }
        if (attention & ATT_MEMORY)
            interp_memory_changed(cpu);
    }
    if (UNLIKELY(cpu->pending.valid)) {
        deliver_pending(cpu);
        return false;
    }
    if (UNLIKELY(attention) && cpu->activity != ACTIVITY_WAIT_SIPI &&
        deliver_external(cpu, attention))
        return false;
    if (UNLIKELY(cpu->activity != ACTIVITY_RUNNING)) {
        *exit = VCPU_EXIT_HALT;
        return true;
    }

    bool resume = cpu->rflags & FLAG_RF;
    cpu->rflags &= ~FLAG_RF;
    if (UNLIKELY(in->single || (cpu->dr[7] & 0xff))) {
        if (memcmp(in->seen_dr, cpu->dr, sizeof in->seen_dr) || !debug_in_use(cpu))
            refresh_debug(cpu);
        if (check_breakpoints(cpu, resume)) {
            *exit = VCPU_EXIT_DEBUG;
            return true;
        }
    }
    uint8_t shadow = cpu->int_shadow;
    bool single = once || in->single || shadow || (cpu->rflags & FLAG_TF);
    cpu->in_single_step = cpu->rflags & FLAG_TF;
    if (UNLIKELY(log_on(&cpu->machine->log, LOG_EXEC) || log_on(&cpu->machine->log, LOG_CPU)))
        log_block(cpu);

    struct block *b = interp_find_block(cpu, single);
    if (UNLIKELY(cpu->machine->verify) && !verify_block(cpu, b, err)) {
        *exit = VCPU_EXIT_ERROR;
        return true;
    }
    in->stack_floor = single ? UINTPTR_MAX : in->chain_floor; /* a branch must come back, too */
    in->block = b;
    cpu->instructions += b->count;
    b->ops[0].fn(cpu, b->ops);
    after_block(cpu, shadow);
    return false;
}

/* A debugger's stop after an instruction. */
static bool debugger_stops(struct vcpu *cpu, enum vcpu_exit *exit)
{
    struct interp *in = cpu->interp;
    struct debugger *dbg = &cpu->machine->debug;
    if (in->watch_hit) {
        in->watch_hit = false;
        dbg->hit_vcpu = cpu->index;
        dbg->hit_step = false;
        dbg->hit_point = in->watch_point;
    } else if (dbg->single_step >> cpu->index & 1) {
        dbg->hit_vcpu = cpu->index;
        dbg->hit_step = true;
    } else {
        return false;
    }
    *exit = VCPU_EXIT_DEBUG;
    return true;
}

bool interp_unwound(struct vcpu *cpu, enum vcpu_exit *exit)
{
    struct interp *in = cpu->interp;
    cpu->in_single_step = false;
    cpu->int_shadow = 0;
    interp_take_fault(cpu);
    in->block = NULL;
    return in->single && debugger_stops(cpu, exit);
}

void interp_begin(struct vcpu *cpu)
{
    cpu->interp->stack_floor = cpu->interp->chain_floor = UINTPTR_MAX;
    interp_mode_changed(cpu);
    refresh_debug(cpu);
}

void interp_run_block(struct vcpu *cpu)
{
    struct block *b = interp_find_block(cpu, false);
    cpu->interp->block = b;
    cpu->instructions += b->count;
    b->ops[0].fn(cpu, b->ops);
    after_block(cpu, 0);
}

bool interp_round(struct vcpu *cpu, enum vcpu_exit *exit, struct tv_error *err)
{
    return round_trip(cpu, false, exit, err) ||
           (UNLIKELY(cpu->interp->single) && debugger_stops(cpu, exit));
}

static enum vcpu_exit run(struct vcpu *cpu, bool once, struct tv_error *err)
{
    struct interp *in = cpu->interp;
    enum vcpu_exit exit = VCPU_EXIT_ATTENTION;
    uintptr_t sp = (uintptr_t)__builtin_frame_address(0);
    /* --verify, logs and single steps want to see every block. */
    bool chain = !once && !cpu->machine->verify && !log_on(&cpu->machine->log, LOG_EXEC) &&
                 !log_on(&cpu->machine->log, LOG_CPU);
    in->chain_floor = chain ? sp - STACK_BUDGET : UINTPTR_MAX;
    interp_mode_changed(cpu);
    refresh_debug(cpu);

    /* From here on, locals that change are not looked at after a longjmp. */
    if (setjmp(in->head.unwind)) {
        if (interp_unwound(cpu, &exit))
            return exit;
        if (once)
            return VCPU_EXIT_ATTENTION;
    }
    for (;;) {
        if (round_trip(cpu, once, &exit, err) ||
            (UNLIKELY(in->single) && debugger_stops(cpu, &exit)))
            return exit;
        if (once)
            return exit;
    }
}

enum vcpu_exit interp_step(struct vcpu *cpu)
{
    return run(cpu, true, NULL);
}

/* ---- The engine ---- */

static int interp_vcpu_init(struct vcpu *cpu, struct tv_error *err)
{
    struct interp *in = mmap(NULL, sizeof *in, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (in == MAP_FAILED)
        return tv_fail(err, "out of memory for the interpreter's caches");
    in->arena = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (in->arena == MAP_FAILED) {
        munmap(in, sizeof *in);
        return tv_fail(err, "out of memory for the interpreter's decoded code");
    }
    in->thunks = thunks_create(err);
    if (!in->thunks) {
        munmap(in->arena, ARENA_SIZE);
        munmap(in, sizeof *in);
        return -1;
    }
    in->head.delivering = -1;
    in->bounce_flag = 1;
    in->jump_gen = 1;
    cpu->interp = in;
    interp_flush_tlb(cpu);
    return 0;
}

static void interp_vcpu_fini(struct vcpu *cpu)
{
    if (!cpu->interp)
        return;
    thunks_free(cpu->interp->thunks);
    munmap(cpu->interp->arena, ARENA_SIZE);
    munmap(cpu->interp, sizeof *cpu->interp);
    cpu->interp = NULL;
}

static enum vcpu_exit interp_run(struct vcpu *cpu, struct tv_error *err)
{
    return run(cpu, false, err);
}

static void interp_state_changed(struct vcpu *cpu)
{
    if (!cpu->interp)
        return;
    cpu->interp->head.delivering = -1;
    interp_flush_tlb(cpu);
    interp_mode_changed(cpu);
}

static void interp_print_stats(struct machine *m, FILE *out)
{
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        const struct vcpu *cpu = m->vcpus[i];
        if (!cpu->interp)
            continue;
        const struct interp_stats *s = &cpu->interp->stats;
        fprintf(out,
                "vcpu %u: %" PRIu64 " instructions, %" PRIu64 " interrupts, %" PRIu64 " faults\n"
                "  blocks: %" PRIu64 " decoded, %" PRIu64 " found unchanged, %" PRIu64
                " lookups, %" PRIu64 " jump-cache misses, %" PRIu64
                " left by self-modification, %" PRIu64 " cache flushes\n"
                "  tlb: %" PRIu64 " fills, %" PRIu64 " flushes, %" PRIu64 " slow accesses\n",
                i, cpu->instructions, s->interrupts, s->faults, s->decoded, s->revived, s->lookups,
                s->jump_misses, s->smc_stops, s->arena_flushes, s->tlb_fills, s->tlb_flushes,
                s->slow_accesses);
    }
}

static int interp_machine_init(struct machine *m, struct tv_error *err)
{
    return 0;
}

static void interp_machine_fini(struct machine *m)
{
}

const struct engine interp_engine = {
    .name = "interp",
    .machine_init = interp_machine_init,
    .machine_fini = interp_machine_fini,
    .vcpu_init = interp_vcpu_init,
    .vcpu_fini = interp_vcpu_fini,
    .run = interp_run,
    .state_changed = interp_state_changed,
    .print_stats = interp_print_stats,
};
