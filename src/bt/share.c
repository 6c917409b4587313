/*
 * Checks that several accesses share. Where a block makes more than one access at constant
 * distances from what a register held when the block was entered, their range is checked there,
 * once; each access then only loads the page's addend. The check fails where the range crosses a
 * page or the page is not in the first-level TLB: then a plain translation of the same block runs,
 * which checks each access.
 *
 * What is in a slot when the block is entered stays there until it ends, unless C code runs that
 * flushes or purges it. An empty slot's addend makes any access raise a signal, and the interpreter
 * then executes the instruction.
 */
#include "bt/translate.h"

#define RANGE_MAX  2048
#define OFFSET_MAX (1 << 20)

struct base {
    bool known; /* the register is what it was at entry plus `delta` */
    bool write;
    int64_t delta, low, high;
    unsigned count;
};

static bool add(struct base *b, int64_t disp, unsigned size, bool write)
{
    if (!b->known)
        return false;
    int64_t low = b->delta + disp, high = low + (int64_t)size;
    if (low < -OFFSET_MAX || high > OFFSET_MAX)
        return false;
    if (b->count) {
        low = MIN(low, b->low);
        high = MAX(high, b->high);
        if (high - low > RANGE_MAX)
            return false;
    }
    b->low = low;
    b->high = high;
    b->write |= write;
    b->count++;
    return true;
}

static unsigned access_size(const struct insn *in)
{
    if (in->kind == INSN_VECTOR)
        return in->size;
    return in->o[in->mem].size / 8u;
}

/* The explicit operand: base and displacement without index or segment. */
static void note_operand(struct insn *in, struct base bases[16])
{
    const ZydisDecodedOperand *o = &in->o[in->mem];
    uint8_t base, shift;
    in->shared_base = NO_REG;
    if (in->kind == INSN_LEA || in->swapped || in->pointers || in->bit_string ||
        in->z.address_width != 64 || o->mem.index != ZYDIS_REGISTER_NONE ||
        o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS ||
        !bind_reg(o->mem.base, &base, &shift))
        return;
    bool write = in->kind == INSN_VECTOR ? in->store : o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    if (add(&bases[base], o->mem.disp.has_displacement ? o->mem.disp.value : 0, access_size(in),
            write))
        in->shared_base = base;
}

static void note_stack(struct insn *in, struct base bases[16])
{
    bool push = in->kind == INSN_PUSH || in->kind == INSN_CALL || in->kind == INSN_CALL_INDIRECT ||
                in->pushes;
    in->shared_stack = NO_REG;
    unsigned base = in->kind == INSN_LEAVE ? RBP : RSP;
    if (add(&bases[base], push ? -8 : 0, 8, push))
        in->shared_stack = (uint8_t)base;
}

static bool uses_stack(const struct insn *in)
{
    return in->kind == INSN_PUSH || in->kind == INSN_POP || in->kind == INSN_LEAVE ||
           in->kind == INSN_CALL || in->kind == INSN_CALL_INDIRECT || in->kind == INSN_RET ||
           in->pushes;
}

/* Does the instruction add a constant to a register? */
static bool adds_constant(const struct insn *in, unsigned *reg, int64_t *by)
{
    uint8_t number, shift, base;
    const ZydisDecodedOperand *a = &in->o[0], *b = &in->o[1];
    if (a->type != ZYDIS_OPERAND_TYPE_REGISTER || a->size != 64 ||
        !bind_reg(a->reg.value, &number, &shift))
        return false;
    *reg = number;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        if (b->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return false;
        *by = (int64_t)(int32_t)b->imm.value.s;
        if (in->z.mnemonic == ZYDIS_MNEMONIC_SUB)
            *by = -*by;
        return true;
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
        *by = in->z.mnemonic == ZYDIS_MNEMONIC_INC ? 1 : -1;
        return true;
    case ZYDIS_MNEMONIC_LEA:
        if (b->mem.index != ZYDIS_REGISTER_NONE || !bind_reg(b->mem.base, &base, &shift) ||
            base != number || in->z.address_width != 64)
            return false;
        *by = b->mem.disp.has_displacement ? b->mem.disp.value : 0;
        return true;
    default:
        return false;
    }
}

static void note_writes(const struct insn *in, struct base bases[16])
{
    unsigned reg;
    int64_t by;
    if (is_string(in))
        bases[RSI].known = bases[RDI].known = bases[RCX].known = bases[RAX].known = false;
    if (adds_constant(in, &reg, &by)) {
        bases[reg].delta += by;
        return;
    }
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &in->o[i];
        uint8_t number, shift;
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
            !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) ||
            !bind_reg(o->reg.value, &number, &shift))
            continue;
        bool moves_stack = number == RSP && o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
                           (in->kind == INSN_PUSH || in->kind == INSN_POP || in->pushes);
        if (moves_stack)
            bases[RSP].delta += in->kind == INSN_POP ? 8 : -8;
        else
            bases[number].known = false;
    }
}

static void choose(struct translation_state *t, const struct base bases[16])
{
    for (unsigned reg = 0; reg < 16 && t->share_count < SHARES_MAX; reg++) {
        unsigned guest = reg ? (reg == RSP ? 0 : reg) : RSP; /* the stack first */
        const struct base *b = &bases[guest];
        if (b->count < 2)
            continue;
        struct share *s = &t->shares[t->share_count++];
        *s = (struct share){.guest = (uint8_t)guest,
                            .slot = guest == RSP ? 0 : (uint8_t)(1 + t->bt->next_share++ % 63),
                            .write = b->write,
                            .low = (int32_t)b->low,
                            .length = (uint16_t)(b->high - b->low)};
    }
}

const struct share *bt_share_of(const struct translation_state *t, unsigned guest)
{
    for (unsigned i = 0; i < t->share_count; i++)
        if (t->shares[i].guest == guest)
            return &t->shares[i];
    return NULL;
}

void bt_find_shares(struct translation_state *t)
{
    struct base bases[16];
    t->share_count = 0;
    unsigned i;
    for (i = 0; i < t->count; i++)
        t->insns[i].shared_base = t->insns[i].shared_stack = NO_REG;
    if (t->bits != 64 || t->block->plain || t->cpu->machine->bt_off & BT_OFF_SHARE)
        return;
    for (i = 0; i < 16; i++)
        bases[i] = (struct base){.known = true};
    for (i = 0; i < t->count; i++) {
        struct insn *in = &t->insns[i];
        if (in->kind == INSN_CALLOUT)
            break;
        if (in->mem >= 0)
            note_operand(in, bases);
        if (uses_stack(in))
            note_stack(in, bases);
        note_writes(in, bases);
    }
    choose(t, bases);
    for (i = 0; i < t->count; i++) {
        struct insn *in = &t->insns[i];
        if (in->shared_base != NO_REG && !bt_share_of(t, in->shared_base))
            in->shared_base = NO_REG;
        if (in->shared_stack != NO_REG && !bt_share_of(t, in->shared_stack))
            in->shared_stack = NO_REG;
        bool checks = (in->mem >= 0 && in->kind != INSN_LEA && in->shared_base == NO_REG) ||
                      (uses_stack(in) && in->shared_stack == NO_REG);
        in->access = checks || in->may_fault || in->kind == INSN_SYSTEM ||
                     in->kind == INSN_ACCESS_CHECK || in->kind == INSN_CALLOUT || is_string(in) ||
                     in->kind == INSN_LOOP || in->kind == INSN_RET ||
                     in->kind == INSN_JMP_INDIRECT || in->kind == INSN_CALL_INDIRECT;
    }
}

/* At the block's start, with flags saved or dead. */
void bt_emit_share_checks(struct translation_state *t)
{
    struct emit *e = &t->e;
    for (unsigned i = 0; i < t->share_count; i++) {
        const struct share *s = &t->shares[i];
        unsigned reg = host_reg(s->guest);
        if (reg == NO_REG) {
            put_load(e, T0, gs_operand(gpr_at(s->guest)));
            reg = T0;
        }
        if (s->low) {
            put_lea(e, true, T0,
                    (struct operand){
                        .kind = AT_MEM, .base = (uint8_t)reg, .index = NO_REG, .disp = s->low});
            reg = T0;
        }
        uint8_t *jump = bt_put_slot_compare(t, s->write, s->slot, reg, s->length);
        t->colds[t->cold_count++] = (struct cold){.kind = COLD_SHARE,
                                                  .jump = jump,
                                                  .retry = e->at,
                                                  .share = (uint8_t)i,
                                                  .address = (uint8_t)reg};
    }
}

struct operand bt_shared(struct translation_state *t, unsigned guest, int32_t disp)
{
    struct emit *e = &t->e;
    const struct share *s = bt_share_of(t, guest);
    unsigned base = host_reg(guest);
    if (base == NO_REG) {
        put_load(e, T0, gs_operand(gpr_at(guest)));
        base = T0;
    }
    uint8_t holds = (uint8_t)(1 + s->slot);
    if (t->t1_share != holds)
        bt_put_slot_addend(t, s->write, s->slot);
    t->t1_share = holds;
    struct operand mem = mem_operand(base, T1);
    mem.disp = disp;
    return mem;
}
