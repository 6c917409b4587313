/* Host code for what uses the stack and for what leaves the block: PUSH, POP, LEAVE, branches. */
#include "bt/translate.h"
#include "interp/condition.h"

/* ---- The stack ---- */

static void move_rsp(struct translation_state *t, int32_t delta)
{
    if (t->stack_bits == 16)
        put8(&t->e, 0x66);
    put_lea(&t->e, t->bits == 64, HOST_RSP,
            (struct operand){.kind = AT_MEM, .base = HOST_RSP, .index = NO_REG, .disp = delta});
}

/* Where a push goes; push_done() then moves RSP. */
static struct operand check_push(struct translation_state *t, const struct insn *in)
{
    unsigned size = in->width / 8;
    if (in->shared_stack != NO_REG)
        return bt_shared(t, in->shared_stack, -(int32_t)size);
    put_lea(&t->e, t->bits == 64, T0,
            (struct operand){
                .kind = AT_MEM, .base = HOST_RSP, .index = NO_REG, .disp = -(int32_t)size});
    if (t->stack_bits == 16)
        bt_put_extended(&t->e, 16, T0, reg_operand(T0));
    if (t->segmented)
        bt_put_segment(t, in, SS, size, t->stack_bits);
    return bt_check(t, in, T0, size, true, true);
}

static struct operand check_top(struct translation_state *t, const struct insn *in, unsigned base)
{
    if (in->shared_stack != NO_REG)
        return bt_shared(t, in->shared_stack, 0);
    if (t->bits != 64)
        bt_put_extended(&t->e, t->stack_bits, T0, reg_operand(base));
    if (t->segmented)
        bt_put_segment(t, in, SS, in->width / 8u, t->stack_bits);
    return bt_check(t, in, t->bits == 64 ? base : T0, in->width / 8u, false, true);
}

static void put_sized(struct translation_state *t, const struct insn *in, bool store, unsigned reg,
                      struct operand rm)
{
    if (in->width == 16)
        put8(&t->e, 0x66);
    put_op(&t->e, in->width == 64, store ? 0x89 : 0x8b, reg, rm);
}

static void push_done(struct translation_state *t, const struct insn *in)
{
    if (in->shared_stack != NO_REG || t->segmented)
        move_rsp(t, -(int32_t)in->width / 8);
    else
        put_sized(t, in, false, HOST_RSP, reg_operand(T0));
}

/* Before an access that has a check of its own on the stack. */
static void stack_clobbers(struct translation_state *t, const struct insn *in)
{
    if (in->shared_stack == NO_REG || (in->mem >= 0 && in->shared_base == NO_REG))
        bt_flags_clobber(t, in->live_before);
}

/* The value of a register, immediate or memory operand in `scratch`, or where it is anyway. */
static unsigned source_value(struct translation_state *t, const struct insn *in, unsigned scratch)
{
    const ZydisDecodedOperand *o = &in->o[0];
    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        put_load_imm(&t->e, scratch,
                     t->bits == 64 ? (uint64_t)(int64_t)(int32_t)o->imm.value.s
                                   : (uint32_t)o->imm.value.s);
        return scratch;
    }
    uint8_t guest = 0, shift;
    bind_reg(o->reg.value, &guest, &shift);
    if (host_reg(guest) != NO_REG)
        return host_reg(guest);
    put_load(&t->e, scratch, gs_operand(gpr_at(guest)));
    return scratch;
}

/* Load the memory operand into bt.target: the next check needs all scratch registers. */
static void load_target(struct translation_state *t, const struct insn *in)
{
    struct operand mem = bt_memory_operand(t, in, in->width / 8u, false);
    bt_fault_point(t, in);
    bt_put_extended(&t->e, in->width, T2, mem);
    put_store(&t->e, T2, gs_operand(BT_AT(t->bt, target)));
}

void bt_emit_push_target(struct translation_state *t, struct insn *in)
{
    struct operand top = check_push(t, in);
    put_load(&t->e, T2, gs_operand(BT_AT(t->bt, target)));
    bt_fault_point(t, in);
    put_sized(t, in, true, T2, top);
    push_done(t, in);
}

void bt_emit_pop_value(struct translation_state *t, struct insn *in, unsigned to)
{
    struct operand top = check_top(t, in, HOST_RSP);
    bt_fault_point(t, in);
    put_sized(t, in, false, to, top);
}

void bt_emit_pop_done(struct translation_state *t, const struct insn *in)
{
    move_rsp(t, (int32_t)in->width / 8);
}

static void emit_push(struct translation_state *t, struct insn *in)
{
    stack_clobbers(t, in);
    if (in->mem >= 0) {
        load_target(t, in);
        bt_emit_push_target(t, in);
        return;
    }
    struct operand top = check_push(t, in);
    unsigned value = source_value(t, in, T2);
    bt_fault_point(t, in);
    put_sized(t, in, true, value, top);
    push_done(t, in);
}

static void emit_pop(struct translation_state *t, struct insn *in)
{
    stack_clobbers(t, in);
    struct operand top = check_top(t, in, HOST_RSP);
    uint8_t guest = 0, shift;
    bind_reg(in->o[0].reg.value, &guest, &shift);
    unsigned host = host_reg(guest);
    bt_fault_point(t, in);
    put_sized(t, in, false, host == NO_REG ? T2 : host, top);
    if (host == NO_REG)
        put_store(&t->e, T2, gs_operand(gpr_at(guest)));
    if (guest != RSP)
        bt_emit_pop_done(t, in);
}

static void emit_leave(struct translation_state *t, struct insn *in)
{
    stack_clobbers(t, in);
    struct operand top = check_top(t, in, RBP);
    bt_fault_point(t, in);
    put_sized(t, in, false, T2, top);
    if (t->stack_bits == 16)
        put8(&t->e, 0x66);
    put_lea(&t->e, t->bits == 64, HOST_RSP,
            (struct operand){
                .kind = AT_MEM, .base = RBP, .index = NO_REG, .disp = (int32_t)in->width / 8});
    put_sized(t, in, false, RBP, reg_operand(T2));
}

/* ---- Branches ---- */

void bt_emit_exit(struct translation_state *t, uint8_t *jump, uint64_t target)
{
    struct bt_block *b = t->block;
    struct bt_exit *exit = &b->exits[b->exit_count++];
    *exit = (struct bt_exit){.from = b,
                             .target = target,
                             .jump = jump,
                             .mode = b->mode,
                             .flags_live = !(t->flags & FLAGS_SAVED),
                             .crosses = ((b->cs_base + target) ^ bt_linear(b)) & PAGE_MASK};
    t->colds[t->cold_count++] = (struct cold){.kind = COLD_EXIT, .jump = jump, .exit = exit};
}

uint8_t *bt_put_jump_lookup(struct emit *e, const struct bt *bt, bool ac)
{
    put_op(e, false, 0x8b, T1, reg_operand(T0));
    put_op(e, false, 0xc1, 5, reg_operand(T1)); /* SHR */
    put8(e, 12);
    put_op(e, false, 0x33, T1, reg_operand(T0));
    put_alu_imm(e, false, ALU_AND, reg_operand(T1), JUMP_CACHE - 1);
    put_op(e, false, 0xc1, 4, reg_operand(T1)); /* SHL */
    put8(e, 4);
    put_move(e, T2, T0);
    put_alu(e, ALU_XOR, T2, gs_operand(BT_AT(bt, jump_keys[ac])));
    put_alu(e, ALU_CMP, T2, gs_base_operand(T1, BT_AT(bt, jumps)));
    return put_jcc(e, CC_NE);
}

static bool host_returns(const struct translation_state *t)
{
    return !(t->cpu->machine->bt_off & BT_OFF_RETURNS) && !(t->block->mode & (BT_AC | BT_SEGMENTS));
}

static struct bt_site *branch_site(struct translation_state *t, const struct insn *in, int undo)
{
    struct bt_site *site = bt_site_new(t, in);
    site->undo = undo;
    site->ends = true;
    return site;
}

static void put_attention(struct translation_state *t, struct bt_site *site)
{
    put_op(&t->e, false, 0x83, ALU_CMP, gs_operand(VCPU_AT(attention)));
    put8(&t->e, 0);
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_INDIRECT, .jump = put_jcc(&t->e, CC_NE), .site = site};
}

/* Jump to or call the address in T0, with flags saved: through the jump cache. */
static void put_indirect_jump(struct translation_state *t, const struct insn *in, int undo,
                              bool call)
{
    struct emit *e = &t->e;
    struct bt *bt = t->bt;
    struct bt_site *site = branch_site(t, in, undo);
    put_attention(t, site);
    uint8_t *miss = bt_put_jump_lookup(e, bt, t->block->mode & BT_AC);
    put_op(e, false, 0xff, call ? 2 : 4, gs_base_operand(T1, BT_AT(bt, jumps) + 8));
    t->colds[t->cold_count++] = (struct cold){.kind = COLD_INDIRECT, .jump = miss, .site = site};
}

/* Where the host's RET comes back to after a call, with the address that the guest's RET popped in
 * T0: not always the one that belongs here. */
static void put_landing(struct translation_state *t, const struct insn *in)
{
    uint64_t next = bt_next_ip(t, in);
    if ((int64_t)next == (int32_t)next) {
        put_alu_imm(&t->e, true, ALU_CMP, reg_operand(T0), (int32_t)next);
        t->block->fixed = true;
    } else {
        bt_put_rip(t, T1, next);
        put_alu(&t->e, ALU_CMP, T0, reg_operand(T1));
    }
    bt_put_to_stub(t, put_jcc(&t->e, CC_NE), t->bt->lookup_stub);
    t->flags = FLAGS_SAVED;
    bt_emit_exit(t, put_jump(&t->e), next);
}

static void push_return(struct translation_state *t, const struct insn *in)
{
    struct operand top = check_push(t, in);
    uint64_t next = bt_next_ip(t, in);
    if (in->width == 16) {
        put8(&t->e, 0x66);
        put_op(&t->e, false, 0xc7, 0, top);
        put8(&t->e, (uint8_t)next);
        put8(&t->e, (uint8_t)(next >> 8));
    } else if (in->width == 32 || (int64_t)next == (int32_t)next) {
        bt_fault_point(t, in);
        put_op(&t->e, in->width == 64, 0xc7, 0, top);
        put32(&t->e, (uint32_t)next);
        t->block->fixed = true;
    } else {
        bt_put_rip(t, T2, next);
        bt_fault_point(t, in);
        put_sized(t, in, true, T2, top);
    }
    push_done(t, in);
}

static void emit_call(struct translation_state *t, struct insn *in)
{
    stack_clobbers(t, in);
    push_return(t, in);
    bool returns = host_returns(t);
    bt_emit_exit(t, returns ? put_call(&t->e) : put_jump(&t->e), in->target);
    if (returns)
        put_landing(t, in);
}

/* The call faults before it pushes anything. */
static void check_canonical(struct translation_state *t, const struct insn *in)
{
    struct emit *e = &t->e;
    put_load(e, T0, gs_operand(BT_AT(t->bt, target)));
    put_op(e, true, 0xc1, 7, reg_operand(T0)); /* SAR: -1 or 0 */
    put8(e, 47);
    put_alu_imm(e, true, ALU_ADD, reg_operand(T0), 1);
    put_alu_imm(e, true, ALU_CMP, reg_operand(T0), 1);
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_CALLOUT, .jump = put_jcc(e, CC_A), .site = bt_site_new(t, in)};
}

static void emit_call_indirect(struct translation_state *t, struct insn *in)
{
    bt_flags_clobber(t, in->live_before);
    if (in->mem >= 0)
        load_target(t, in);
    else
        put_store(&t->e, source_value(t, in, T2), gs_operand(BT_AT(t->bt, target)));
    if (t->bits == 64)
        check_canonical(t, in);
    push_return(t, in);
    bt_put_extended(&t->e, in->width, T0, gs_operand(BT_AT(t->bt, target)));
    bool returns = host_returns(t);
    put_indirect_jump(t, in, -(int)in->width / 8, returns);
    if (returns)
        put_landing(t, in);
}

static void emit_jmp_indirect(struct translation_state *t, struct insn *in)
{
    bt_flags_clobber(t, in->live_before);
    if (in->mem >= 0) {
        struct operand mem = bt_memory_operand(t, in, in->width / 8u, false);
        bt_fault_point(t, in);
        bt_put_extended(&t->e, in->width, T0, mem);
    } else {
        bt_put_extended(&t->e, in->width, T0, reg_operand(source_value(t, in, T0)));
    }
    put_indirect_jump(t, in, 0, false);
}

static void emit_ret(struct translation_state *t, struct insn *in)
{
    unsigned extra = in->o[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && in->z.operand_count_visible
                         ? in->o[0].imm.value.u & 0xffff
                         : 0;
    bt_flags_clobber(t, in->live_before);
    struct operand top = check_top(t, in, HOST_RSP);
    bt_fault_point(t, in);
    bt_put_extended(&t->e, in->width, T0, top);
    int delta = (int)(in->width / 8u + extra);
    move_rsp(t, delta);
    if (!host_returns(t)) {
        put_indirect_jump(t, in, delta, false);
        return;
    }
    struct bt_site *site = branch_site(t, in, delta);
    put_op(&t->e, false, 0xc7, 0, gs_operand(BT_AT(t->bt, ret_site)));
    put32(&t->e, (uint32_t)((uint8_t *)site - t->bt->data));
    bt_note_site_offset(t);
    put_attention(t, site);
    put8(&t->e, 0xc3);
}

/* SDM vol. 2, LOOP and JCXZ: the address size says which part of RCX counts. Flags are saved. */
static void emit_loop(struct translation_state *t, struct insn *in)
{
    struct emit *e = &t->e;
    const unsigned width = in->z.address_width;
    const ZydisMnemonic m = in->z.mnemonic;
    bool loop = m == ZYDIS_MNEMONIC_LOOP || m == ZYDIS_MNEMONIC_LOOPE || m == ZYDIS_MNEMONIC_LOOPNE;
    bt_flags_clobber(t, in->live_before);
    if (loop) {
        if (width == 16)
            put8(e, 0x66);
        put_lea(e, width == 64, RCX,
                (struct operand){.kind = AT_MEM, .base = RCX, .index = NO_REG, .disp = -1});
    }
    bt_put_extended(e, width, T2, reg_operand(RCX));
    put_op(e, true, 0x85, T2, reg_operand(T2)); /* TEST */
    uint8_t *ends = NULL;
    if (loop && m != ZYDIS_MNEMONIC_LOOP) {
        ends = put_jcc(e, CC_E);
        put_op(e, false, 0xf7, 0, gs_operand(BT_AT(t->bt, flags))); /* TEST, as LAHF left it */
        put32(e, FLAG_ZF << 8);
    }
    bool zero = !loop || m == ZYDIS_MNEMONIC_LOOPNE;
    bt_emit_exit(t, put_jcc(e, zero ? CC_E : CC_NE), in->target);
    if (ends)
        put_target(ends, e->at);
    t->t1_share = 0;
}

/* STAC and CLAC: go on in the code for the other setting. What the interpreter has computed from
 * the flag is brought up to date when it is next needed. */
static void emit_access_check(struct translation_state *t, struct insn *in)
{
    bool sets = in->z.mnemonic == ZYDIS_MNEMONIC_STAC;
    bt_flags_clobber(t, in->live_before);
    put_op(&t->e, false, 0x81, sets ? ALU_OR : ALU_AND, gs_operand(VCPU_AT(rflags)));
    put32(&t->e, sets ? FLAG_AC : ~FLAG_AC);
    bt_emit_exit(t, put_jump(&t->e), bt_next_ip(t, in));
    struct bt_exit *exit = &t->block->exits[t->block->exit_count - 1];
    exit->mode = (uint16_t)(sets ? exit->mode | BT_AC : exit->mode & ~BT_AC);
}

void bt_emit_flow(struct translation_state *t, struct insn *in)
{
    switch (in->kind) {
    case INSN_ACCESS_CHECK:
        emit_access_check(t, in);
        break;
    case INSN_PUSH:
        emit_push(t, in);
        break;
    case INSN_POP:
        emit_pop(t, in);
        break;
    case INSN_LEAVE:
        emit_leave(t, in);
        break;
    case INSN_JCC:
        bt_flags_need(t);
        bt_emit_exit(t, put_jcc(&t->e, (unsigned)condition_of_jump(in->z.mnemonic)), in->target);
        break;
    case INSN_LOOP:
        emit_loop(t, in);
        break;
    case INSN_JMP:
        bt_emit_exit(t, put_jump(&t->e), in->target);
        break;
    case INSN_CALL:
        emit_call(t, in);
        break;
    case INSN_JMP_INDIRECT:
        emit_jmp_indirect(t, in);
        break;
    case INSN_CALL_INDIRECT:
        emit_call_indirect(t, in);
        break;
    case INSN_RET:
        emit_ret(t, in);
        break;
    default:
        break;
    }
}
