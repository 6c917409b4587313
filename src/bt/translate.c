/* One block: decode, find where flags are wanted, emit. */
#include "bt/translate.h"
#include "bt/perf_map.h"

#include <stdlib.h>

/* Of one block, generously. */
#define CODE_MAX(instructions) (1024u + 768u * (instructions))
#define DATA_MAX(instructions) (1024u + 416u * (instructions))

static bool is_branch_out(const struct insn *in)
{
    return is_conditional(in) || in->kind == INSN_JMP || in->kind == INSN_CALL ||
           in->kind == INSN_ACCESS_CHECK;
}

/* A page whose bytes are about to be looked at: stores to it will be heard of. */
static const uint8_t *watch(struct vcpu *cpu, const struct bt_page *page)
{
    struct physmem *mem = cpu->machine->mem;
    const uint8_t *host = mem->ram + (page->index << PAGE_SHIFT);
    physmem_mark_code(mem, host);
    if (atomic_load(&mem->page_gen[page->index]) != page->gen)
        bt_page_written(cpu, page->index);
    return host;
}

/* The block's first instruction goes on in the next page: the bytes there, behind the `len` that
 * are known. Raises what fetching them does. False: the interpreter runs it. */
static bool add_tail(struct translation_state *t, uint8_t *bytes, unsigned len)
{
    struct vcpu *cpu = t->cpu;
    uint64_t next = t->rip + len;
    if (t->bt->mode & BT_SEGMENTS)
        return false;
    if (t->bits == 32 ? next >> 32 : !is_canonical(next))
        return false;
    t->tail = bt_page_get(cpu, next, interp_fetch_translate(cpu, next));
    if (!t->tail)
        return false;
    t->bt->page_in_use[1] = t->tail;
    memcpy(bytes + len, watch(cpu, t->tail), ZYDIS_MAX_INSTRUCTION_LENGTH);
    return true;
}

/* Decode from `bytes` until the block ends. */
static void decode(struct translation_state *t, uint8_t *bytes, unsigned len)
{
    unsigned offset = 0;
    t->count = 0;
    t->tail = NULL;
    unsigned max = t->cpu->machine->bt_off & BT_OFF_BLOCKS ? 1 : BLOCK_INSNS;
    while (t->count < max) {
        struct insn *in = &t->insns[t->count];
        memset((char *)in + offsetof(struct insn, bytes), 0,
               sizeof *in - offsetof(struct insn, bytes));
        enum decoded got = interp_decode_only(t->cpu, bytes + offset, len - offset, &in->z, in->o);
        if (got == DECODED_SHORT && t->count)
            break;
        if (got == DECODED_SHORT && add_tail(t, bytes, len)) {
            max = 1;
            got = interp_decode_only(t->cpu, bytes, len + ZYDIS_MAX_INSTRUCTION_LENGTH, &in->z,
                                     in->o);
            if (got != DECODED) { /* not even now */
                t->tail = NULL;
                got = DECODED_SHORT;
            }
        }
        if (t->bt->verify && t->count && got == DECODED && bt_verify_stops(in->z.mnemonic))
            break;
        in->bytes = bytes + offset;
        in->offset = (uint16_t)offset;
        in->straddles = got == DECODED_SHORT;
        if (got != DECODED) {
            memset(&in->z, 0, sizeof in->z);
            in->kind = INSN_CALLOUT;
            in->z.length = (uint8_t)MIN(len - offset, ZYDIS_MAX_INSTRUCTION_LENGTH);
            in->reads = FLAGS_ARITH;
            in->access = in->ends = true;
            in->mem = -1;
        } else {
            bt_classify(t, in);
        }
        offset += in->z.length;
        t->count++;
        if (in->ends)
            break;
    }
    /* The interpreter knows of interrupt shadows that reach into the next block. */
    struct insn *last = &t->insns[t->count - 1];
    if (t->count && casts_shadow(last)) {
        last->kind = INSN_CALLOUT;
        last->reads = FLAGS_ARITH;
        last->ends = true;
    }
}

static void find_liveness(struct translation_state *t)
{
    uint32_t live = FLAGS_ARITH;
    for (unsigned i = t->count; i--;) {
        struct insn *in = &t->insns[i];
        if (is_conditional(in))
            live = FLAGS_ARITH;
        in->live_after = live;
        live = (live & ~in->writes) | in->reads;
        if (in->access && t->cpu->machine->bt_off & BT_OFF_FLAGS)
            live = FLAGS_ARITH; /* a fault there shows them */
        in->live_before = live;
    }
}

/* Where the block wants to find flags when it is entered. */
static unsigned wanted_flags(const struct translation_state *t)
{
    if (!t->insns[0].live_before)
        return 0;
    if (t->share_count)
        return FLAGS_SAVED;
    for (unsigned i = 0; i < t->count; i++) {
        const struct insn *in = &t->insns[i];
        if (in->access)
            return FLAGS_SAVED;
        if (in->kind == INSN_JCC || in->touches)
            return FLAGS_LIVE;
    }
    return FLAGS_LIVE;
}

static void emit_entries(struct translation_state *t)
{
    struct bt_block *b = t->block;
    unsigned wanted = wanted_flags(t);
    const uint8_t *first = bt_exec(t->bt, t->e.at);
    if (wanted == FLAGS_LIVE)
        put_restore_flags(&t->e, t->bt);
    else if (wanted == FLAGS_SAVED)
        put_save_flags(&t->e, t->bt);
    const uint8_t *second = bt_exec(t->bt, t->e.at);
    b->entry_live = wanted == FLAGS_SAVED ? first : second;
    b->entry_saved = wanted == FLAGS_LIVE ? first : second;
    t->flags = wanted ? wanted : FLAGS_SAVED;
    bt_emit_share_checks(t);
}

/* Can control come back here without an indirect branch? */
static bool loops(const struct translation_state *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        const struct insn *in = &t->insns[i];
        if (is_branch_out(in) && in->target <= t->rip + in->offset)
            return true;
    }
    return false;
}

void bt_emit_leave(struct translation_state *t, uint8_t *jump, const struct insn *in)
{
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_ATTENTION, .jump = jump, .rip = t->rip + in->offset};
}

static void emit_attention_check(struct translation_state *t, const struct insn *in)
{
    bt_flags_clobber(t, in->live_before);
    put_op(&t->e, false, 0x83, ALU_CMP, gs_operand(VCPU_AT(attention)));
    put8(&t->e, 0);
    bt_emit_leave(t, put_jcc(&t->e, CC_NE), in);
}

static void put_count(struct translation_state *t, int64_t at, unsigned n)
{
    struct emit *e = &t->e;
    if (!n)
        return;
    put_load(e, T2, gs_operand(at));
    put_lea(e, true, T2,
            (struct operand){.kind = AT_MEM, .base = T2, .index = NO_REG, .disp = (int32_t)n});
    put_store(e, T2, gs_operand(at));
}

/* Count what follows up to the next conditional jump; without touching flags. */
static void emit_counts(struct translation_state *t, unsigned from)
{
    unsigned instructions = 0, accesses = 0;
    for (unsigned i = from; i < t->count; i++) {
        const struct insn *in = &t->insns[i];
        instructions += !in->straddles; /* the interpreter counts that one */
        if (in->kind != INSN_CALLOUT && in->kind != INSN_LEA)
            accesses += in->mem >= 0;
        accesses += in->kind == INSN_PUSH || in->kind == INSN_POP || in->kind == INSN_LEAVE ||
                    in->kind == INSN_CALL || in->kind == INSN_CALL_INDIRECT || in->kind == INSN_RET;
        if (is_conditional(in))
            break;
    }
    put_count(t, VCPU_AT(instructions), instructions);
    put_count(t, BT_AT(t->bt, stats.accesses), accesses);
    put_count(t, BT_AT(t->bt, stats.blocks_run), !from);
}

/* Is the block's tail mapped where it was? Else the interpreter runs the instruction. */
static void emit_tail_check(struct translation_state *t)
{
    struct emit *e = &t->e;
    const struct insn *in = &t->insns[0];
    struct bt_site *site = bt_site_new(t, in);
    site->straddles = site->ends = true;
    site->length = (uint8_t)(PAGE_SIZE - (t->rip & ~PAGE_MASK));
    bool user = t->bt->mode & BT_USER;
    unsigned entry = (unsigned)(t->tail->linear >> PAGE_SHIFT) & (PAGE_ID_ENTRIES - 1);
    bt_flags_clobber(t, in->live_before);
    put_op(e, false, 0x81, ALU_CMP, gs_operand(BT_AT(t->bt, page_id[user][entry])));
    put32(e, t->tail->id);
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_CALLOUT, .jump = put_jcc(e, CC_NE), .site = site};
}

static void emit_body(struct translation_state *t)
{
    bool check = loops(t);
    if (t->tail)
        emit_tail_check(t);
    for (unsigned i = 0; i < t->count; i++) {
        struct insn *in = &t->insns[i];
        /* Where it costs nothing but itself; at the latest before the first branch back. */
        bool due = is_branch_out(in) && in->target <= t->rip + in->offset;
        /* Not in the shadow of STI or MOV SS. */
        bool shadow = i && casts_shadow(&t->insns[i - 1]);
        if (check && !shadow && (!in->live_before || (t->flags & FLAGS_SAVED) || due)) {
            emit_attention_check(t, in);
            check = false;
        }
        if (t->cpu->machine->count && (!i || is_conditional(&t->insns[i - 1])))
            emit_counts(t, i);
        bt_emit_insn(t, in);
    }
    const struct insn *last = &t->insns[t->count - 1];
    if (!last->ends) {
        bt_emit_exit(t, put_jump(&t->e), bt_next_ip(t, last));
    }
}

static void emit_cold(struct translation_state *t, const struct cold *c)
{
    struct emit *e = &t->e;
    struct bt *bt = t->bt;
    put_target(c->jump, e->at);
    switch (c->kind) {
    case COLD_EXIT:
        c->exit->stub = e->at;
        bt_write_exit_stub(bt, c->exit);
        e->at += c->exit->crosses ? EXIT_STUB_LINKED : EXIT_STUB;
        break;
    case COLD_SHARE:
        bt_emit_cold_share(t, c);
        return;
    case COLD_SLOW:
    case COLD_SLOT:
        bt_emit_cold_access(t, c);
        if (c->flags_live)
            put_restore_flags(e, bt);
        put_target(put_jump(e), c->next);
        break;
    case COLD_VECTORS:
        bt_put_to_stub(t, put_call(e),
                       bt->write +
                           ((const uint8_t *)(uintptr_t)bt->vectors_load[t->vectors] - bt->exec));
        put_target(put_jump(e), c->retry);
        break;
    case COLD_X87:
        bt_put_to_stub(t, put_call(e), bt->x87_stub);
        put_target(put_jump(e), c->retry);
        break;
    case COLD_INSTEAD:
        bt_put_site(t, T1, c->site, 0);
        bt_put_to_stub(t, put_call(e), bt->callout_stub);
        if (c->flags_live)
            put_restore_flags(e, bt);
        put_target(put_jump(e), c->next);
        break;
    case COLD_CALLOUT: /* does not return: the instruction ends the block */
        bt_put_site(t, T1, c->site, 0);
        bt_put_to_stub(t, put_jump(e), bt->callout_end_stub);
        break;
    case COLD_ATTENTION:
        bt_put_rip(t, T1, c->rip);
        put_store(e, T1, gs_operand(VCPU_AT(rip)));
        put_op(e, false, 0x33, T1, reg_operand(T1));
        bt_put_to_stub(t, put_jump(e), bt->exit_saved);
        break;
    case COLD_INDIRECT:
        put_store(e, T0, gs_operand(VCPU_AT(rip)));
        bt_put_site(t, T1, c->site, BT_OUT_INDIRECT);
        bt_put_to_stub(t, put_jump(e), bt->exit_saved);
        break;
    }
}

struct bt_block *bt_translate(struct vcpu *cpu, struct bt_page *page, bool plain)
{
    struct bt *bt = cpu->bt;
    struct translation_state *t = bt->scratch;
    if (!t) {
        t = bt->scratch = malloc(sizeof *t);
        if (!t)
            return NULL;
    }
    bt->page_in_use[0] = page;
    bt->page_in_use[1] = NULL;
    const uint8_t *host = watch(cpu, page);
    struct bt_block *known = bt_reuse(cpu, page, plain, host);
    if (known)
        return known;
    interp_reserve(cpu);

    unsigned start = (unsigned)((bt->cs.base + cpu->rip) & ~PAGE_MASK);
    uint64_t len = MIN(PAGE_SIZE - start, (uint64_t)BLOCK_INSNS * 15);
    if (bt->mode & BT_SEGMENTS)
        len = MIN(len, bt_last_ip(cpu) - cpu->rip + 1);
    t->cpu = cpu;
    t->bt = bt;
    t->rip = cpu->rip;
    t->bits = bt->mode & BT_64 ? 64 : bt->mode & BT_16 ? 16 : 32;
    t->stack_bits = bt->mode & BT_MIXED ? 48 - t->bits : t->bits;
    t->segmented = bt->mode & BT_SEGMENTS && (bt->mode & (BT_FLAT | BT_16 | BT_MIXED)) != BT_FLAT;
    t->segments_checked = bt->mode & BT_USUAL ? 0xff : 0;
    t->context = bt_context(bt->mode);
    t->cold_count = 0;
    /* A copy: another processor may write while we look. */
    uint8_t bytes[BLOCK_INSNS * 15 + ZYDIS_MAX_INSTRUCTION_LENGTH];
    memcpy(bytes, host + start, len);
    decode(t, bytes, (unsigned)len);
    uint8_t *code = bt_cache_reserve(cpu, CODE_MAX(t->count), DATA_MAX(t->count));
    const struct insn *last = &t->insns[t->count - 1];
    unsigned length = last->offset + last->z.length, exits = 2;
    for (unsigned i = 0; i < t->count; i++)
        exits += is_branch_out(&t->insns[i]);
    exits += last->kind == INSN_CALL || last->kind == INSN_CALL_INDIRECT; /* the return */
    struct bt_block *b = t->block = bt_cache_data(bt, sizeof *b);
    b->page = page;
    b->tail = t->tail;
    b->rip = t->rip;
    b->cs_base = bt->cs.base;
    b->cs_limit = bt->cs.limit;
    b->mode = bt->mode;
    b->length = (uint16_t)length;
    b->count = (uint16_t)t->count;
    b->plain = plain;
    b->exits = bt_cache_data(bt, exits * sizeof *b->exits);
    /* The first one is to the plain translation, if that is needed. */
    b->exits[b->exit_count++] =
        (struct bt_exit){.from = b, .target = t->rip, .plain = true, .mode = bt->mode};
    b->bytes = memcpy(bt_cache_data(bt, length), bytes, length);

    t->e.at = code;
    t->code = code;
    t->fault_count = t->reloc_count = 0;
    b->fixed = t->bits != 64 || t->tail;
    t->vectors_checked = t->x87_checked = false;
    memset(t->base_slots, 0, sizeof t->base_slots);
    t->vectors = VECTORS_SAVED;
    for (unsigned i = 0; i < t->count; i++)
        t->vectors = MAX(t->vectors, t->insns[i].vectors), b->x87 |= t->insns[i].x87;
    b->vectors = t->vectors;
    t->t1_share = 0;
    bt_find_shares(t);
    find_liveness(t);
    emit_entries(t);
    emit_body(t);
    for (unsigned i = 0; i < t->cold_count; i++)
        emit_cold(t, &t->colds[i]);
    b->code_end = bt_exec(bt, t->e.at);
    b->fault_count = (uint16_t)t->fault_count;
    b->faults = bt_cache_data(bt, t->fault_count * sizeof t->faults[0]);
    memcpy(b->faults, t->faults, t->fault_count * sizeof t->faults[0]);
    if (!b->fixed) {
        b->reloc_count = (uint16_t)t->reloc_count;
        b->relocs = bt_cache_data(bt, t->reloc_count * sizeof t->relocs[0]);
        memcpy(b->relocs, t->relocs, t->reloc_count * sizeof t->relocs[0]);
    }
    b->data_size = bt_cache_data_end(bt) - (uint8_t *)b;
    bt_cache_commit(bt, t->e.at);
    bt_cache_add(bt, b);
    if (t->tail)
        bt_note_page(bt, bt->mode & BT_USER, t->tail);
    if (cpu->machine->perf_map)
        perf_map_block(cpu->machine->perf_map, b);
    bt->stats.blocks++;
    bt->stats.instructions += t->count;
    bt->stats.code_bytes += (uint64_t)(t->e.at - code);
    return b;
}
