/*
 * REP STOS and REP MOVS as the host's, page by page: most that kernels do clear or copy some
 * hundred bytes, or a page.
 */
#include "bt/translate.h"

bool bt_classify_string(const struct translation_state *t, struct insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ:
        break;
    default:
        return false;
    }
    const uint64_t others = ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS |
                            ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REPNE;
    if (t->bits != 64 || in->z.address_width != 64 ||
        in->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT ||
        in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        !(in->z.attributes & ZYDIS_ATTRIB_HAS_REP) || (in->z.attributes & others))
        return false;
    in->kind = INSN_STRING;
    return true;
}

static void call_out(struct translation_state *t, struct bt_site *site, unsigned condition)
{
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_INSTEAD, .jump = put_jcc(&t->e, condition), .site = site};
}

/* T0 down to a register's value. */
static void put_lower(struct emit *e, unsigned reg)
{
    put_alu(e, ALU_CMP, T0, reg_operand(reg));
    put8(e, (uint8_t)(0x4c | reg >> 3)); /* CMOVA T0, reg */
    put8(e, 0x0f);
    put8(e, 0x47);
    put8(e, (uint8_t)(0xc0 | (T0 & 7) << 3 | (reg & 7)));
}

/* Elements of `size` bytes from `reg` to the end of its page to T0 or, if `less`, T0 down to that.
 * Clobbers T2. */
static void put_room(struct translation_state *t, unsigned reg, unsigned size, bool less)
{
    struct emit *e = &t->e;
    unsigned to = less ? T2 : T0;
    put_op(e, false, 0x8b, to, reg_operand(reg));
    put_op(e, false, 0xf7, 2, reg_operand(to)); /* NOT */
    put_alu_imm(e, false, ALU_AND, reg_operand(to), PAGE_SIZE - 1);
    put_alu_imm(e, false, ALU_ADD, reg_operand(to), 1);
    put_op(e, false, 0xc1, 5, reg_operand(to)); /* SHR */
    put8(e, (uint8_t)__builtin_ctz(size));
    if (less)
        put_lower(e, T2);
}

/* SDM vol. 2, REP: in pieces that end where a page does, as interrupts might cut it, too. What is
 * left to the interpreter is the rest: nothing, an element that lies in two pages, DF set. */
void bt_emit_string(struct translation_state *t, struct insn *in)
{
    struct emit *e = &t->e;
    bool moves = (in->z.opcode & 0xfe) == 0xa4;
    unsigned size = in->z.opcode & 1 ? in->z.operand_width / 8u : 1;
    struct operand addend = gs_operand(BT_AT(t->bt, target)),
                   count = gs_operand(BT_AT(t->bt, count));
    bt_flags_clobber(t, in->live_before);
    struct bt_site *site = bt_site_new(t, in);
    put_op(e, false, 0xf7, 0, gs_operand(VCPU_AT(rflags))); /* TEST */
    put32(e, FLAG_DF);
    call_out(t, site, CC_NE);
    const uint8_t *again = e->at;
    put_room(t, RDI, size, false);
    if (moves)
        put_room(t, RSI, size, true);
    put_lower(e, RCX);
    put_op(e, true, 0x85, T0, reg_operand(T0)); /* TEST */
    call_out(t, site, CC_E);
    put_store(e, T0, count);
    if (moves) {
        bt_check(t, in, RSI, 1, false, false);
        put_store(e, T1, addend);
    }
    bt_check(t, in, RDI, 1, true, false);
    put_move(e, T0, RCX);
    put_load(e, RCX, count);
    put_alu(e, ALU_SUB, T0, reg_operand(RCX));
    put_alu(e, ALU_ADD, RDI, reg_operand(T1));
    if (moves)
        put_alu(e, ALU_ADD, RSI, addend);
    put8(e, 0xf3);
    if (size == 2)
        put8(e, 0x66);
    if (size == 8)
        put8(e, 0x48);
    put8(e, in->z.opcode);
    put_alu(e, ALU_SUB, RDI, reg_operand(T1));
    if (moves)
        put_alu(e, ALU_SUB, RSI, addend);
    put_move(e, RCX, T0);
    put_op(e, true, 0x85, RCX, reg_operand(RCX)); /* TEST */
    uint8_t *done = put_jcc(e, CC_E);
    if (t->bt->verify) { /* both engines must stop at the same piece */
        bt_emit_leave(t, put_jump(e), in);
    } else {
        put_op(e, false, 0x83, ALU_CMP, gs_operand(VCPU_AT(attention)));
        put8(e, 0);
        call_out(t, site, CC_NE);
        put_target(put_jump(e), again);
    }
    put_target(done, e->at);
    t->t1_share = 0;
}
