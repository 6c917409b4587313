/*
 * Code whose segments are not flat: 16-bit code, real and virtual-8086 mode. An access looks at the
 * limit; at the attributes once in a block, or where real mode has set them all never. Real mode's
 * loads of segment registers are inline.
 */
#include "bt/translate.h"

/* Attributes that allow a segment's use up to its limit. Of CS they allow reading, and all in real
 * mode. */
static void check_attributes(struct translation_state *t, const struct insn *in, unsigned number)
{
    struct emit *e = &t->e;
    uint32_t good = SEG_P | SEG_S | SEG_WRITE, bad = SEG_UNUSABLE;
    if (number != CS)
        bad |= SEG_CODE | SEG_DOWN;
    struct bt_site *site = bt_site_new(t, in);
    site->ends = true; /* the rest of the block takes it for checked */
    put_load32(e, T1, gs_operand(bt_segment_at(number) + (int64_t)offsetof(struct segment, attr)));
    put_alu_imm(e, false, ALU_AND, reg_operand(T1), (int32_t)(good | bad));
    put_alu_imm(e, false, ALU_CMP, reg_operand(T1), (int32_t)good);
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_CALLOUT, .jump = put_jcc(e, CC_NE), .site = site};
}

void bt_put_segment(struct translation_state *t, const struct insn *in, unsigned number,
                    unsigned size, unsigned bits)
{
    struct emit *e = &t->e;
    t->t1_share = 0;
    if (!(t->segments_checked >> number & 1))
        check_attributes(t, in, number);
    t->segments_checked |= (uint8_t)(1 << number);
    uint8_t *beyond = NULL;
    if (!(t->bt->mode & BT_USUAL) || bits != 16) {
        unsigned last = size > 1 ? T2 : T0;
        if (size > 1)
            put_lea(e, true, T2,
                    (struct operand){
                        .kind = AT_MEM, .base = T0, .index = NO_REG, .disp = (int32_t)size - 1});
        put_load32(e, T1,
                   gs_operand(bt_segment_at(number) + (int64_t)offsetof(struct segment, limit)));
        put_alu(e, ALU_CMP, last, reg_operand(T1));
        beyond = put_jcc(e, CC_A);
    } else if (size > 1) { /* it may only wrap */
        put_alu_imm(e, false, ALU_CMP, reg_operand(T0), (int32_t)(0x10000 - size));
        beyond = put_jcc(e, CC_A);
    }
    if (beyond)
        t->colds[t->cold_count++] =
            (struct cold){.kind = COLD_INSTEAD, .jump = beyond, .site = bt_site_new(t, in)};
    put_op(e, false, ALU_ADD << 3 | 3, T0,
           gs_operand(bt_segment_at(number) + (int64_t)offsetof(struct segment, base)));
}

/* ---- Segment registers ---- */

static bool is_general(const ZydisDecodedOperand *o)
{
    uint8_t number, shift;
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && bind_reg(o->reg.value, &number, &shift);
}

/* Of the register that is loaded or pushed. */
static unsigned number_of(const struct insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_LES:
        return ES;
    case ZYDIS_MNEMONIC_LDS:
        return DS;
    case ZYDIS_MNEMONIC_LSS:
        return SS;
    case ZYDIS_MNEMONIC_LFS:
        return FS;
    case ZYDIS_MNEMONIC_LGS:
        return GS;
    default:
        return (unsigned)(in->o[0].reg.value - ZYDIS_REGISTER_ES);
    }
}

static bool good_operands(const struct translation_state *t, struct insn *in)
{
    const bool base_alone = t->bt->mode & BT_USUAL; /* is what a load changes */
    const ZydisDecodedOperand *from = &in->o[1];
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        return is_class(&in->o[0], ZYDIS_REGCLASS_SEGMENT) && in->width == 16;
    case ZYDIS_MNEMONIC_POP:
        return base_alone && is_class(&in->o[0], ZYDIS_REGCLASS_SEGMENT);
    case ZYDIS_MNEMONIC_MOV:
        if (!base_alone || !is_class(&in->o[0], ZYDIS_REGCLASS_SEGMENT) ||
            in->o[0].reg.value == ZYDIS_REGISTER_CS)
            return false;
        if (is_general(from))
            return true;
        break;
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES:
    case ZYDIS_MNEMONIC_LSS:
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
        if (!base_alone || in->z.operand_width != 16)
            return false;
        break;
    default:
        return false;
    }
    in->mem = 1;
    return from->type == ZYDIS_OPERAND_TYPE_MEMORY && bt_good_address(t, in, from);
}

bool bt_classify_segment(const struct translation_state *t, struct insn *in)
{
    if (t->bits != 16 || !good_operands(t, in))
        return false;
    in->kind = INSN_SEGMENT;
    in->pushes = in->z.mnemonic == ZYDIS_MNEMONIC_PUSH;
    return !(t->bt->verify && casts_shadow(in)); /* its rehearsal ends there */
}

static struct operand selector_of(unsigned number)
{
    return gs_operand(bt_segment_at(number) + (int64_t)offsetof(struct segment, selector));
}

/* SDM vol. 3, 20.1.1: the selector in T2. */
static void put_load_real(struct emit *e, unsigned number)
{
    put8(e, 0x66);
    put_store32(e, T2, selector_of(number));
    put_op(e, false, 0xc1, 4, reg_operand(T2)); /* SHL */
    put8(e, 4);
    put_store(e, T2, gs_operand(bt_segment_at(number) + (int64_t)offsetof(struct segment, base)));
}

void bt_emit_segment(struct translation_state *t, struct insn *in)
{
    struct emit *e = &t->e;
    const unsigned number = number_of(in);
    bt_flags_clobber(t, in->live_before);
    if (in->z.mnemonic == ZYDIS_MNEMONIC_PUSH) {
        bt_put_extended(e, 16, T2, selector_of(number));
        put_store(e, T2, gs_operand(BT_AT(t->bt, target)));
        bt_emit_push_target(t, in);
        return;
    }
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_POP:
        bt_emit_pop_value(t, in, T2);
        bt_emit_pop_done(t, in);
        bt_put_extended(e, 16, T2, reg_operand(T2));
        break;
    case ZYDIS_MNEMONIC_MOV:
        bt_put_extended(e, 16, T2,
                        in->mem >= 0 ? bt_memory_operand(t, in, 2, false)
                                     : reg_operand(host_reg(general_register(&in->o[1]))));
        break;
    default:
        put_load32(e, T2, bt_memory_operand(t, in, 4, false));
        put8(e, 0x66);
        put_op(e, false, 0x8b, host_reg(general_register(&in->o[0])), reg_operand(T2));
        put_op(e, false, 0xc1, 5, reg_operand(T2)); /* SHR */
        put8(e, 16);
    }
    put_load_real(e, number);
    t->t1_share = 0;
}
