/*
 * String instructions. REP STOS and REP MOVS are the host's, page by page: most that kernels do
 * clear or copy some hundred bytes, or a page. Single ones, of which 32-bit systems make their
 * string functions, become a load, a store or a comparison.
 */
#include "bt/translate.h"

/* STOS and MOVS, which may be repeated; LODS, SCAS and CMPS. */
enum {
    OPCODE_MOVS = 0xa4,
    OPCODE_CMPS = 0xa6,
    OPCODE_STOS = 0xaa,
    OPCODE_LODS = 0xac,
    OPCODE_SCAS = 0xae
};

static unsigned opcode_of(const struct insn *in)
{
    return in->z.opcode & 0xfe;
}

static unsigned size_of(const struct insn *in)
{
    return in->z.opcode & 1 ? in->z.operand_width / 8u : 1;
}

bool bt_classify_string(const struct translation_state *t, struct insn *in)
{
    const uint64_t segments = ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS |
                              (t->bits == 64 ? 0 : ZYDIS_ATTRIB_HAS_SEGMENT_CS);
    uint64_t others = ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_LOCK;
    if (t->segmented)
        others |= ZYDIS_ATTRIB_HAS_REP;
    else
        others |= segments;
    if (in->z.meta.category != ZYDIS_CATEGORY_STRINGOP || (in->z.attributes & others) ||
        (in->z.address_width != t->bits && !t->segmented))
        return false;
    if (!(in->z.attributes & ZYDIS_ATTRIB_HAS_REP)) {
        in->kind = INSN_STRING_ONCE;
        return true;
    }
    in->kind = INSN_STRING;
    return opcode_of(in) == OPCODE_STOS || opcode_of(in) == OPCODE_MOVS;
}

static void call_out(struct translation_state *t, struct bt_site *site, unsigned condition)
{
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_INSTEAD, .jump = put_jcc(&t->e, condition), .site = site};
}

/* What goes downwards is the interpreter's. Flags are clobbered. */
static struct bt_site *leave_backwards(struct translation_state *t, const struct insn *in)
{
    bt_flags_clobber(t, in->live_before);
    struct bt_site *site = bt_site_new(t, in);
    put_op(&t->e, false, 0xf7, 0, gs_operand(VCPU_AT(rflags))); /* TEST */
    put32(&t->e, FLAG_DF);
    call_out(t, site, CC_NE);
    return site;
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

/* Outside 64-bit mode only the lower halves count, of which the upper ones are made zeroes. */
static void put_truncated(struct translation_state *t, bool moves)
{
    if (t->bits == 64)
        return;
    put_op(&t->e, false, 0x8b, RDI, reg_operand(RDI));
    put_op(&t->e, false, 0x8b, RCX, reg_operand(RCX));
    if (moves)
        put_op(&t->e, false, 0x8b, RSI, reg_operand(RSI));
}

/* SDM vol. 2, REP: in pieces that end where a page does, as interrupts might cut it, too. What is
 * left to the interpreter is the rest: nothing, an element that lies in two pages, DF set. */
void bt_emit_string(struct translation_state *t, struct insn *in)
{
    struct emit *e = &t->e;
    bool moves = opcode_of(in) == OPCODE_MOVS;
    unsigned size = size_of(in);
    struct operand addend = gs_operand(BT_AT(t->bt, target)),
                   count = gs_operand(BT_AT(t->bt, count));
    struct bt_site *site = leave_backwards(t, in);
    put_truncated(t, moves);
    const uint8_t *again = e->at;
    put_room(t, RDI, size, false);
    if (moves)
        put_room(t, RSI, size, true);
    put_lower(e, RCX);
    put_op(e, true, 0x85, T0, reg_operand(T0)); /* TEST */
    call_out(t, site, CC_E);
    put_store(e, T0, count);
    if (moves) {
        in->pointer = RSI;
        bt_check(t, in, RSI, 1, false, false);
        put_store(e, T1, addend);
    }
    in->pointer = RDI;
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
    put_truncated(t, moves);
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

/* `opcode`: the form for bytes of an instruction with a register and an operand in memory. */
static void put_sized(struct emit *e, unsigned size, uint8_t opcode, unsigned reg,
                      struct operand mem)
{
    if (size == 2)
        put8(e, 0x66);
    put_op(e, size == 8, size == 1 ? opcode : opcode | 1, reg, mem);
}

enum { LOAD = 0x8a, STORE = 0x88, COMPARE = 0x3a }; /* MOV r, r/m; MOV r/m, r; CMP r, r/m */

/* The segment of the source: DS, or what a prefix says. */
static unsigned source_segment(const struct insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &in->o[i];
        uint8_t base, shift;
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && bind_reg(o->mem.base, &base, &shift) &&
            base == RSI)
            return (unsigned)(o->mem.segment - ZYDIS_REGISTER_ES);
    }
    return DS;
}

static struct operand check_element(struct translation_state *t, struct insn *in, unsigned pointer,
                                    bool write)
{
    in->pointer = (uint8_t)pointer;
    bt_put_extended(&t->e, in->z.address_width, T0, reg_operand(pointer));
    if (t->segmented)
        bt_put_segment(t, in, pointer == RDI ? ES : source_segment(in), size_of(in),
                       in->z.address_width);
    return bt_check(t, in, T0, size_of(in), write, false);
}

static void advance(struct translation_state *t, const struct insn *in, unsigned pointer)
{
    if (in->z.address_width == 16)
        put8(&t->e, 0x66);
    put_lea(&t->e, in->z.address_width == 64, pointer,
            (struct operand){.kind = AT_MEM,
                             .base = (uint8_t)pointer,
                             .index = NO_REG,
                             .disp = (int32_t)size_of(in)});
}

void bt_emit_string_once(struct translation_state *t, struct insn *in)
{
    struct emit *e = &t->e;
    unsigned opcode = opcode_of(in), size = size_of(in), value = RAX;
    struct operand source = gs_operand(BT_AT(t->bt, target)), mem;
    bool compares = opcode == OPCODE_SCAS || opcode == OPCODE_CMPS;
    leave_backwards(t, in);
    if (opcode == OPCODE_LODS) {
        mem = check_element(t, in, RSI, false);
    } else if (opcode == OPCODE_MOVS || opcode == OPCODE_CMPS) {
        put_lea(e, true, T1, check_element(t, in, RSI, false));
        put_store(e, T1, source);
        mem = check_element(t, in, RDI, opcode == OPCODE_MOVS);
        value = T2;
        put_load(e, T2, source);
        put_sized(e, size, LOAD, T2, (struct operand){.kind = AT_MEM, .base = T2, .index = NO_REG});
    } else {
        mem = check_element(t, in, RDI, opcode == OPCODE_STOS);
    }
    put_sized(e, size, opcode == OPCODE_LODS ? LOAD : compares ? COMPARE : STORE, value, mem);
    if (opcode == OPCODE_LODS || value == T2)
        advance(t, in, RSI);
    if (opcode != OPCODE_LODS)
        advance(t, in, RDI);
    if (compares)
        t->flags = FLAGS_LIVE;
    t->t1_share = 0;
}
