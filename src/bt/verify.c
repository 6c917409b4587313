/*
 * --verify: each block runs in the interpreter first, as a rehearsal that leaves no trace, and then
 * in the translator, whose state and stores must be what the rehearsal came to.
 *
 * The translated block may be left early, because of the outside world or because it changed
 * itself. Then it is compared with a rehearsal that stops at the same instruction. What cannot be
 * done twice is done by the translator alone; blocks end before such an instruction, so that all
 * others are compared. RF is not: translated code has it clear, as nobody debugs.
 */
#include "bt/verify.h"

#include <stdlib.h>
#include <string.h>

#include "bt/bt.h"
#include "util/error.h"

/* Ops up to one that ends a block of the interpreter's. */
struct part {
    uint16_t first;  /* index of the op; behind the last one is one that leaves */
    uint16_t offset; /* of its code in the block */
    uint16_t length;
};

struct bt_shadow {
    unsigned count, op_count;
    bool vectors; /* vector or x87 state may be touched */
    bool strings; /* has a repeated string instruction */
    struct part *parts;
    struct op *ops;
};

/* ---- What happens once only ---- */

bool bt_verify_stops(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT:
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_WRMSR:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_MWAIT:
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_INVPCID:
        return true;
    default:
        return false;
    }
}

/* MOV to a control register flushes; CR8 is the local APIC's. */
static bool writes_control(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
    return z->mnemonic == ZYDIS_MNEMONIC_LMSW ||
           (z->mnemonic == ZYDIS_MNEMONIC_MOV && o[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (ZydisRegisterGetClass(o[0].reg.value) == ZYDIS_REGCLASS_CONTROL ||
             ZydisRegisterGetClass(o[0].reg.value) == ZYDIS_REGCLASS_DEBUG)) ||
           (z->mnemonic == ZYDIS_MNEMONIC_MOV && o[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            o[1].reg.value == ZYDIS_REGISTER_CR8);
}

static void op_once(struct vcpu *cpu, const struct op *op)
{
    rehearsal_once(cpu);
}

/* The bases of FS and GS are registers like others. */
static bool is_plain_msr(uint64_t index)
{
    return index == MSR_FS_BASE || index == MSR_GS_BASE || index == MSR_KERNEL_GS_BASE;
}

static void op_msr(struct vcpu *cpu, const struct op *op)
{
    if (!is_plain_msr((uint32_t)cpu->gpr[RCX]))
        rehearsal_once(cpu);
    op_fn *fn = (op_fn *)(uintptr_t)op[2].imm;
    return fn(cpu, op);
}

/* ---- The block as the interpreter has it ---- */

static bool integer_only(const ZydisDecodedInstruction *z)
{
    switch (z->meta.isa_ext) {
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
    case ZYDIS_ISA_EXT_SMAP:
        return true;
    default:
        return false;
    }
}

/* Decode one instruction of a part. False: the part ends behind it. */
static bool add_op(struct vcpu *cpu, const struct bt_block *b, struct op *ops, struct bt_shadow *s,
                   struct part *p)
{
    const uint8_t *bytes = b->bytes + p->offset + p->length;
    unsigned left = (unsigned)(b->length - p->offset - p->length);
    struct op *op = &ops[s->op_count++];
    memset(op, 0, sizeof *op);
    op->offset = p->length;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
    bool ends = false;
    enum decoded got = interp_decode_only(cpu, bytes, left, &z, o);
    unsigned length = got == DECODED ? interp_decode(cpu, bytes, left, op, &ends) : 0;
    if (!length || !op->fn) { /* raises something, or goes on in the next page */
        op->fn = op_once;
        p->length = (uint16_t)(p->length + (length ? length : left));
        return false;
    }
    p->length = (uint16_t)(p->length + length);
    s->vectors |= !integer_only(&z);
    s->strings |= op->flags & OP_REP && z.meta.category == ZYDIS_CATEGORY_STRINGOP;
    if (z.mnemonic == ZYDIS_MNEMONIC_RDMSR || z.mnemonic == ZYDIS_MNEMONIC_WRMSR) {
        ops[s->op_count].imm = 0; /* where the part ends; behind it: */
        ops[s->op_count + 1].imm = (uintptr_t)op->fn;
        op->fn = op_msr;
        return false;
    }
    if (bt_verify_stops(z.mnemonic) || writes_control(&z, o)) {
        op->fn = op_once;
        return false;
    }
    return !ends;
}

static struct bt_shadow *make_shadow(struct vcpu *cpu, const struct bt_block *b)
{
    interp_reserve(cpu);
    struct op ops[BLOCK_INSNS * 3 + 2];
    struct part parts[BLOCK_INSNS];
    struct bt_shadow made = {0};
    unsigned at = 0;
    while (at < b->length && made.count < BLOCK_INSNS) {
        struct part *p = &parts[made.count++];
        *p = (struct part){.first = (uint16_t)made.op_count, .offset = (uint16_t)at};
        while (add_op(cpu, b, ops, &made, p) && at + p->length < b->length)
            ;
        struct op *leave = &ops[made.op_count];
        uint64_t second = leave[1].imm;
        memset(leave, 0, 2 * sizeof *leave);
        leave->fn = interp_op_leave;
        leave->offset = p->length;
        leave[1].imm = second;
        made.op_count += 2;
        at += p->length;
    }
    struct bt_shadow *s = interp_block_alloc(cpu, sizeof *s);
    *s = made;
    s->parts = interp_block_alloc(cpu, s->count * sizeof *s->parts);
    memcpy(s->parts, parts, s->count * sizeof *s->parts);
    s->ops = interp_block_alloc(cpu, s->op_count * sizeof *s->ops);
    memcpy(s->ops, ops, s->op_count * sizeof *s->ops);
    return s;
}

static struct bt_shadow *shadow_of(struct vcpu *cpu, struct bt_block *b)
{
    uint64_t flushes = cpu->interp->stats.arena_flushes;
    if (!b->shadow || b->shadow_flushes != flushes) {
        b->shadow = make_shadow(cpu, b);
        b->shadow_flushes = cpu->interp->stats.arena_flushes;
    }
    return b->shadow;
}

/* ---- State ---- */

#define FRONT_END     offsetof(struct vcpu, attention)
#define MIDDLE        offsetof(struct vcpu, seg)
#define MIDDLE_LENGTH (offsetof(struct vcpu, fpu) - MIDDLE)

static void copy_state(struct vcpu *to, const struct vcpu *from, bool vectors)
{
    memcpy((void *)to, (const void *)from, FRONT_END);
    memcpy((char *)to + MIDDLE, (const char *)from + MIDDLE, MIDDLE_LENGTH);
    if (vectors)
        to->fpu = from->fpu;
    to->activity = from->activity;
    to->int_shadow = from->int_shadow;
    to->nmi_blocked = from->nmi_blocked;
    to->pending = from->pending;
    to->pending_db = from->pending_db;
}

static bool same_state(const struct vcpu *a, const struct vcpu *b, bool vectors, bool flags)
{
    if (memcmp(a, b, offsetof(struct vcpu, cc)) || (flags && a->cc != b->cc) ||
        a->rflags != b->rflags || a->activity != b->activity || a->int_shadow != b->int_shadow ||
        a->nmi_blocked != b->nmi_blocked)
        return false;
    if (!memcmp((const char *)a + MIDDLE, (const char *)b + MIDDLE, MIDDLE_LENGTH) &&
        (!vectors || !memcmp(&a->fpu, &b->fpu, sizeof a->fpu)))
        return true;
    return !bt_verify_first_difference(a, b, vectors);
}

/* ---- Running ---- */

/*
 * The translated block left at this op. If it had done a piece of it before, that is a repeated
 * string instruction, and as many iterations are done here.
 */
static void run_piece(struct vcpu *cpu, const struct op *op)
{
    uint64_t done = cpu->gpr[RCX] - cpu->bt->verify->acted.gpr[RCX];
    if (!done || done > PAGE_SIZE)
        return;
    cpu->interp->string_limit = done;
    cpu->rip -= op->offset; /* ops count from there */
    op->fn(cpu, op);
}

/* Run the ops of `b`; up to the instruction at `stop`, if that is not 0. */
static void run_ops(struct vcpu *cpu, const struct bt_block *b, const struct bt_shadow *s,
                    uint64_t stop)
{
    uint64_t mask = cpu->interp->ip_mask;
    uint16_t mode = bt_current_mode(cpu);
    for (unsigned i = 0; i < s->count; i++) {
        const struct part *p = &s->parts[i];
        struct op *ops = &s->ops[p->first];
        if (cpu->rip != ((b->rip + p->offset) & mask))
            return;
        if (stop && cpu->rip == stop)
            return run_piece(cpu, ops);
        uint64_t into = stop - cpu->rip;
        struct op *patched = NULL, kept;
        for (unsigned n = 0; stop && into < p->length && ops[n].fn != interp_op_leave; n++)
            if (ops[n].offset == into)
                patched = &ops[n];
        if (patched) {
            kept = *patched;
            patched->fn = interp_op_leave;
        }
        uint8_t shadow = cpu->int_shadow;
        cpu->bt->verify->patched = patched;
        if (patched)
            cpu->bt->verify->kept = kept;
        ops[0].fn(cpu, ops);
        if (patched)
            *patched = kept;
        cpu->bt->verify->patched = NULL;
        if (shadow)
            cpu->int_shadow &= (uint8_t)~shadow;
        if (cpu->pending_db)
            rehearsal_once(cpu);
        if (patched && cpu->rip == stop)
            run_piece(cpu, patched);
        if (patched || cpu->int_shadow == 2 || bt_current_mode(cpu) != mode)
            return;
    }
}

static int rehearse(struct vcpu *cpu, const struct bt_block *b, const struct bt_shadow *s,
                    uint64_t stop)
{
    struct interp *in = cpu->interp;
    struct bt_verify *v = cpu->bt->verify;
    rehearsal_set(cpu, v->rehearsal);
    memcpy(&v->unwind, &in->head.unwind, sizeof v->unwind);
    int jumped = setjmp(in->head.unwind);
    if (!jumped)
        run_ops(cpu, b, s, stop);
    memcpy(&in->head.unwind, &v->unwind, sizeof v->unwind);
    if (v->patched)
        *v->patched = v->kept;
    v->patched = NULL;
    in->string_limit = 0;
    in->head.delivering = -1;
    rehearsal_undo(v->rehearsal);
    v->rehearsed_fault = in->head.fault;
    copy_state(&v->rehearsed, cpu, s->vectors);
    v->rehearsed.rflags &= ~FLAG_RF;
    copy_state(cpu, &v->before, s->vectors);
    rehearsal_set(cpu, NULL);
    return jumped;
}

static int act(struct vcpu *cpu, const struct bt_block *b, struct bt_exit **exit, bool *go_on)
{
    struct interp *in = cpu->interp;
    struct bt_verify *v = cpu->bt->verify;
    memcpy(&v->unwind, &in->head.unwind, sizeof v->unwind);
    int jumped = setjmp(in->head.unwind);
    if (!jumped)
        *go_on = bt_run_block(cpu, b, exit);
    memcpy(&in->head.unwind, &v->unwind, sizeof v->unwind);
    cpu->rflags &= ~FLAG_RF;
    return jumped;
}

static bool same_fault(const struct fault *a, const struct fault *b)
{
    return a->vector == b->vector && a->has_error == b->has_error && a->error == b->error &&
           (a->vector != VEC_PF || a->address == b->address);
}

/*
 * The rehearsal's page walks set accessed and dirty bits, in entries that the block itself stored
 * too; what they cached keeps the translator from walking again. Set those bits here, then. False:
 * something else differs.
 */
static bool settle_walks(const struct rehearsal *r)
{
    const struct rehearsal_store *s;
    while ((s = rehearsal_difference(r))) {
        uint8_t walked[8];
        const uint8_t *after = r->after + s->at;
        if (s->length != 4 && s->length != 8)
            return false;
        memcpy(walked, s->host, s->length);
        walked[0] |= after[0] & (PTE_A | PTE_D);
        if (memcmp(walked, after, s->length))
            return false;
        s->host[0] = after[0];
    }
    return true;
}

/* The translated block was left early: does a rehearsal up to there come to the same? */
static bool same_up_to_here(struct vcpu *cpu, struct bt_block *b)
{
    struct bt_verify *v = cpu->bt->verify;
    const struct bt_shadow *s = shadow_of(cpu, b); /* decoding may have dropped the other */
    uint64_t stop = cpu->rip;
    if (stop - b->rip >= b->length)
        return false;
    copy_state(&v->acted, cpu, s->vectors);
    /* What the translator stored is a part of what the rehearsal did. */
    struct rehearsal *r = v->rehearsal;
    v->rehearsal = r == &v->rehearsals[0] ? &v->rehearsals[1] : &v->rehearsals[0];
    rehearsal_undo(r);
    copy_state(cpu, &v->before, s->vectors);
    int jumped = rehearse(cpu, b, s, stop);
    for (unsigned i = 0; i < r->count; i++)
        memcpy(r->stores[i].host, r->after + r->stores[i].at, r->stores[i].length);
    copy_state(cpu, &v->acted, s->vectors);
    interp_mode_changed(cpu);
    v->early++;
    return !jumped && same_state(cpu, &v->rehearsed, s->vectors, false) &&
           settle_walks(v->rehearsal);
}

/* Is an instruction that lies in two pages still the one that was translated? Else the interpreter
 * runs what is there now. */
static bool tail_is_there(const struct bt *bt, const struct bt_block *b)
{
    unsigned entry = b->tail ? (unsigned)(b->tail->linear >> PAGE_SHIFT) % PAGE_ID_ENTRIES : 0;
    return !b->tail || bt->page_id[!!(b->mode & BT_USER)][entry] == b->tail->id;
}

/* A rehearsal went further than the block did. If that part walked through page-table entries that
 * it had stored itself, these have lost their accessed and dirty bits again: walk once more. */
static void forget_walks(struct vcpu *cpu, const struct rehearsal *r)
{
    if (r->count)
        interp_flush_tlb(cpu);
}

bool bt_verify_block(struct vcpu *cpu, struct bt_block *b, struct bt_exit **exit)
{
    struct bt_verify *v = cpu->bt->verify;
    const struct bt_shadow *s = shadow_of(cpu, b);
    bool dead_flags = !(cpu->machine->bt_off & BT_OFF_FLAGS), vectors = s->vectors,
         strings = s->strings, go_on = true;
    copy_state(&v->before, cpu, s->vectors);
    int rehearsed = tail_is_there(cpu->bt, b) ? rehearse(cpu, b, s, 0) : REHEARSAL_ONCE;
    if (rehearsed == REHEARSAL_ONCE)
        forget_walks(cpu, v->rehearsal);
    int acted = act(cpu, b, exit, &go_on);
    if (rehearsed == REHEARSAL_ONCE) {
        v->once++;
    } else {
        const struct rehearsal *whole = v->rehearsal;
        v->compared++;
        v->strings += strings;
        v->tails += b->tail != NULL;
        bool same = (rehearsed != 0) == (acted != 0) &&
                    same_state(cpu, &v->rehearsed, vectors, !acted || !dead_flags) &&
                    (!acted || same_fault(&cpu->interp->head.fault, &v->rehearsed_fault)) &&
                    settle_walks(v->rehearsal);
        v->first = same ? NULL : bt_verify_first_difference(cpu, &v->rehearsed, vectors);
        if (!same && (acted || !same_up_to_here(cpu, b))) {
            bt_verify_report(cpu, b, vectors, rehearsed != 0, acted != 0);
            return false;
        }
        if (!same)
            forget_walks(cpu, whole);
    }
    if (acted)
        longjmp(cpu->interp->head.unwind, acted);
    return go_on;
}

/* ---- Life ---- */

int bt_verify_create(struct vcpu *cpu, struct tv_error *err)
{
    struct bt_verify *v = aligned_alloc(64, ALIGN_UP(sizeof *v, UINT64_C(64)));
    if (!v)
        return tv_fail(err, "out of memory for --verify");
    memset((void *)v, 0, sizeof *v);
    v->rehearsal = &v->rehearsals[0];
    cpu->bt->verify = v;
    return 0;
}

void bt_verify_free(struct bt *bt)
{
    free(bt->verify);
    bt->verify = NULL;
}

bool bt_verify_failed(const struct vcpu *cpu, struct tv_error *err)
{
    const struct bt_verify *v = cpu->bt->verify;
    if (v->failed)
        tv_fail(err, "%s", v->message);
    return v->failed;
}

void bt_verify_print(const struct vcpu *cpu, FILE *out)
{
    const struct bt_verify *v = cpu->bt->verify;
    fprintf(out,
            "  verify: %llu blocks compared, %llu of them left early, %llu with repeated string "
            "instructions, %llu in two pages; %llu run once only (devices, time, flushes)\n",
            (unsigned long long)v->compared, (unsigned long long)v->early,
            (unsigned long long)v->strings, (unsigned long long)v->tails,
            (unsigned long long)v->once);
}
