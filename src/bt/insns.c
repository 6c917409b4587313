/* Host code for each kind of instruction. */
#include "bt/translate.h"

/* ---- Guest registers in memory ---- */

/* Where a guest register is while one instruction runs. */
struct stand_in {
    uint8_t guest, host;
    bool load, store;
};

struct stand_ins {
    struct stand_in in[3];
    unsigned count;
    unsigned pool[3], pool_count;
};

static bool writes_whole(const struct insn *in, const ZydisDecodedOperand *o)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_LEA:
        return o->size >= 32 && o->actions == ZYDIS_OPERAND_ACTION_WRITE;
    default:
        return false;
    }
}

/* The host register for a register operand. */
static unsigned operand_host(struct stand_ins *s, const struct insn *in,
                             const ZydisDecodedOperand *o)
{
    uint8_t guest = 0, shift;
    bind_reg(o->reg.value, &guest, &shift);
    if (shift && in->swapped)
        return guest;
    if (shift)
        return guest + 4u; /* AH..BH, as instructions without REX name them */
    unsigned host = host_reg(guest);
    if (host != NO_REG)
        return host;
    bool store = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE, load = !writes_whole(in, o);
    for (unsigned i = 0; i < s->count; i++) {
        if (s->in[i].guest == guest) {
            s->in[i].load |= load;
            s->in[i].store |= store;
            return s->in[i].host;
        }
    }
    host = s->pool[--s->pool_count];
    s->in[s->count++] = (struct stand_in){guest, (uint8_t)host, load, store};
    return host;
}

static void load_stand_ins(struct translation_state *t, const struct stand_ins *s)
{
    for (unsigned i = 0; i < s->count; i++)
        if (s->in[i].host == T1)
            t->t1_share = 0;
    for (unsigned i = 0; i < s->count; i++)
        if (s->in[i].load)
            put_load(&t->e, s->in[i].host, gs_operand(gpr_at(s->in[i].guest)));
}

static void store_stand_ins(struct translation_state *t, const struct stand_ins *s)
{
    for (unsigned i = 0; i < s->count; i++)
        if (s->in[i].store)
            put_store(&t->e, s->in[i].host, gs_operand(gpr_at(s->in[i].guest)));
}

void bt_fault_point(struct translation_state *t, const struct insn *in)
{
    if (!in->may_fault && in->shared_base == NO_REG && in->shared_stack == NO_REG)
        return;
    t->faults[t->fault_count++] = (struct bt_fault_point){.code = bt_exec(t->bt, t->e.at),
                                                          .site = bt_site_new(t, in),
                                                          .flags_live = !(t->flags & FLAGS_SAVED)};
}

/* ---- The same instruction with other operands ---- */

static bool is_byte_register(const ZydisDecodedOperand *o)
{
    return o->size == 8 &&
           !(o->reg.value >= ZYDIS_REGISTER_AH && o->reg.value <= ZYDIS_REGISTER_BH);
}

/* Those are the default in 16-bit code, where our own wants a prefix. */
static bool has_word_operand(const struct insn *in)
{
    if (in->z.operand_width != 16)
        return false;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &in->o[i];
        if (o->size == 16 && (o->type == ZYDIS_OPERAND_TYPE_MEMORY ||
                              (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
                               ZydisRegisterGetClass(o->reg.value) != ZYDIS_REGCLASS_FLAGS)))
            return true;
    }
    return false;
}

static void put_legacy(struct translation_state *t, const struct insn *in, unsigned reg,
                       unsigned opcode_reg, struct operand rm, bool force_rex)
{
    const ZydisDecodedInstruction *z = &in->z;
    struct emit *e = &t->e;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        uint8_t prefix = z->raw.prefixes[i].value;
        if ((prefix == 0x66 && t->bits != 16) || prefix == 0xf2 || prefix == 0xf3 || prefix == 0xf0)
            put8(e, prefix);
    }
    if (t->bits == 16 && has_word_operand(in))
        put8(e, 0x66);
    uint8_t opcode = z->opcode;
    /* INC and DEC outside 64-bit code have the opcodes of REX. */
    if (t->bits != 64 && z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (opcode & 0xf0) == 0x40) {
        put_op(e, false, 0xff, opcode >> 3 & 1, reg_operand(opcode_reg));
        return;
    }
    if (z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && opcode == 0x82)
        opcode = 0x80; /* its twin outside 64-bit mode */
    uint8_t rex = (z->attributes & ZYDIS_ATTRIB_HAS_REX) && z->raw.rex.W ? 8 : 0;
    bool modrm = z->attributes & ZYDIS_ATTRIB_HAS_MODRM;
    if (modrm)
        rex |= rex_bits(reg, rm);
    else if (opcode_reg != NO_REG)
        rex |= opcode_reg >> 3;
    if (rex || force_rex)
        put8(e, 0x40 | rex);
    if (z->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        put8(e, 0x0f);
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        put8(e, 0x38);
    if (z->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        put8(e, 0x3a);
    if (opcode_reg != NO_REG)
        opcode = (uint8_t)((opcode & 0xf8) | (opcode_reg & 7));
    put8(e, opcode);
    if (modrm)
        put_modrm(e, reg, rm);
}

static void put_vex(struct translation_state *t, const struct insn *in, unsigned reg, unsigned vvvv,
                    struct operand rm)
{
    const ZydisDecodedInstruction *z = &in->z;
    static const uint8_t pp[] = {0, 1, 2, 3};
    struct emit *e = &t->e;
    uint8_t rex = rex_bits(reg, rm);
    bool wide = t->bits == 64 && z->raw.vex.W;
    put8(e, 0xc4);
    put8(e, (uint8_t)((~rex & 7) << 5 | z->raw.vex.m_mmmm));
    put8(e, (uint8_t)(wide << 7 | (~vvvv & 15) << 3 | z->raw.vex.L << 2 | pp[z->raw.vex.pp & 3]));
    put8(e, z->opcode);
    put_modrm(e, reg, rm);
}

static void put_immediates(struct translation_state *t, const struct insn *in)
{
    unsigned n = (in->z.raw.imm[0].size + in->z.raw.imm[1].size) / 8u;
    memcpy(t->e.at, in->bytes + in->z.length - n, n);
    t->e.at += n;
}

/* XCHG of a register's two lower bytes. */
static void put_swap(struct translation_state *t, const struct insn *in)
{
    if (!in->swapped)
        return;
    const unsigned low = in->swapped - 1u;
    put8(&t->e, 0x86);
    put8(&t->e, (uint8_t)(0xc0 | (low + 4) << 3 | low));
}

/* `mem`: the host operand of the guest's memory operand. */
static void put_same(struct translation_state *t, const struct insn *in, struct stand_ins *s,
                     struct operand mem)
{
    const ZydisDecodedInstruction *z = &in->z;
    unsigned reg = z->raw.modrm.reg, opcode_reg = NO_REG, vvvv = 0;
    struct operand rm = mem;
    bool force_rex = false;
    for (unsigned i = 0; i < z->operand_count_visible; i++) {
        const ZydisDecodedOperand *o = &in->o[i];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        if (o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
            o->encoding == ZYDIS_OPERAND_ENCODING_NONE)
            continue;
        unsigned host;
        switch (o->encoding) {
        case ZYDIS_OPERAND_ENCODING_MODRM_REG:
            reg = host = operand_host(s, in, o);
            break;
        case ZYDIS_OPERAND_ENCODING_MODRM_RM:
            host = operand_host(s, in, o);
            rm = reg_operand(host);
            break;
        case ZYDIS_OPERAND_ENCODING_OPCODE:
            opcode_reg = host = operand_host(s, in, o);
            break;
        case ZYDIS_OPERAND_ENCODING_NDSNDD:
            vvvv = host = operand_host(s, in, o);
            break;
        default:
            continue;
        }
        force_rex |= is_byte_register(o) && host >= 4;
    }
    load_stand_ins(t, s);
    put_swap(t, in);
    bt_fault_point(t, in);
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        put_vex(t, in, reg, vvvv, rm);
    else
        put_legacy(t, in, reg, opcode_reg, rm, force_rex);
    put_immediates(t, in);
    put_swap(t, in);
    store_stand_ins(t, s);
}

/* Flags before an instruction that may use, merge or replace them. */
static void flags_before(struct translation_state *t, const struct insn *in)
{
    if (in->touches && (in->reads || (in->live_after & ~in->writes)))
        bt_flags_need(t);
}

static void flags_after(struct translation_state *t, const struct insn *in)
{
    if (in->touches && (in->z.cpu_flags->modified | in->z.cpu_flags->set_0 |
                        in->z.cpu_flags->set_1 | in->z.cpu_flags->undefined) &
                           FLAGS_ARITH)
        t->flags = FLAGS_LIVE;
}

/* The instruction as the interpreter's thunk has it, with [RSI] and RAX replaced. */
static void put_thunk(struct translation_state *t, const struct insn *in, bool gpr_reg, bool gpr_rm,
                      unsigned gpr, struct operand mem)
{
    struct emit *e = &t->e;
    const uint8_t *from = in->key.insn, *end = from + in->key.length;
    uint8_t rex = in->mem >= 0 ? rex_bits(0, mem) : 0;
    if (gpr_reg)
        rex |= (uint8_t)((gpr & 8) >> 1);
    if (gpr_rm)
        rex |= (uint8_t)((gpr & 8) >> 3);
    if (in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
        while (*from == 0x66 || *from == 0xf2 || *from == 0xf3)
            put8(e, *from++);
        if ((*from & 0xf0) == 0x40)
            rex |= *from++;
        if (rex)
            put8(e, 0x40 | rex);
        unsigned opcode = *from != 0x0f ? 1 : from[1] == 0x38 || from[1] == 0x3a ? 3 : 2;
        memcpy(e->at, from, opcode);
        e->at += opcode;
        from += opcode;
    } else {
        unsigned head = in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? 4 : 5;
        memcpy(e->at, from, head);
        e->at[1] ^= (uint8_t)(rex << 5); /* R, X and B are inverted */
        e->at += head;
        from += head;
    }
    if (from == end)
        return;
    mem.long_disp = in->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    uint8_t modrm = *from++;
    unsigned reg = gpr_reg ? gpr & 7 : modrm >> 3 & 7;
    if (in->mem >= 0)
        put_modrm(e, reg, mem);
    else
        put8(e, (uint8_t)(0xc0 | reg << 3 | (gpr_rm ? gpr & 7 : modrm & 7)));
    memcpy(e->at, from, (size_t)(end - from));
    e->at += end - from;
}

struct operand bt_memory_operand(struct translation_state *t, const struct insn *in, unsigned size,
                                 bool write)
{
    const ZydisDecodedOperand *o = &in->o[in->mem];
    if (in->shared_base == NO_REG)
        return bt_check(t, in, bt_address(t, in, size), size, write, false);
    return bt_shared(t, in->shared_base,
                     o->mem.disp.has_displacement ? (int32_t)o->mem.disp.value : 0);
}

static void check_vectors(struct translation_state *t)
{
    t->vectors_checked = true;
    put_op(&t->e, false, 0x80, ALU_CMP, gs_operand(BT_AT(t->bt, vector_live)));
    put8(&t->e, t->vectors);
    uint8_t *jump = put_jcc(&t->e, CC_B);
    t->colds[t->cold_count++] = (struct cold){.kind = COLD_VECTORS, .jump = jump, .retry = t->e.at};
}

static void check_x87(struct translation_state *t)
{
    t->t1_share = 0;
    t->x87_checked = true;
    put_op(&t->e, false, 0x80, ALU_CMP, gs_operand(BT_AT(t->bt, x87_live)));
    put8(&t->e, 0);
    uint8_t *jump = put_jcc(&t->e, CC_E);
    t->colds[t->cold_count++] = (struct cold){.kind = COLD_X87, .jump = jump, .retry = t->e.at};
}

/* Whoever stores the x87 pointers wants those of the last instruction that sets them; the data
 * pointer stays where an instruction has no operand in memory. */
static void put_pointers(struct translation_state *t, const struct insn *in, unsigned address)
{
    struct bt_site *site = bt_site_new(t, in);
    bt_put_site(t, T2, site, 0);
    put_store(&t->e, T2, gs_operand(BT_AT(t->bt, x87_last)));
    if (in->mem < 0)
        return;
    const ZydisDecodedOperand *o = &in->o[in->mem];
    put_store(&t->e, T2, gs_operand(BT_AT(t->bt, x87_data_site)));
    put_store(&t->e, address, gs_operand(BT_AT(t->bt, x87_data)));
    site->segment = (uint8_t)(o->mem.segment - ZYDIS_REGISTER_ES);
}

static void emit_vector(struct translation_state *t, struct insn *in)
{
    struct stand_ins s = {.pool = {T2}, .pool_count = 1};
    struct operand mem = {0};
    bool check = in->vectors && !t->vectors_checked, check_stack = in->x87 && !t->x87_checked;
    if ((in->mem >= 0 && in->shared_base == NO_REG) || check || check_stack)
        bt_flags_clobber(t, in->live_before);
    if (check_stack)
        check_x87(t);
    if (check)
        check_vectors(t);
    if (in->mem >= 0)
        mem = bt_memory_operand(t, in, in->size, in->store);
    flags_before(t, in);
    bool gpr_reg = false, gpr_rm = false;
    unsigned gpr = 0;
    for (unsigned i = 0; i < in->z.operand_count_visible; i++) {
        const ZydisDecodedOperand *o = &in->o[i];
        uint8_t guest, shift;
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !bind_reg(o->reg.value, &guest, &shift) ||
            (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_REG &&
             o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM))
            continue;
        gpr = operand_host(&s, in, o);
        gpr_reg = o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
        gpr_rm = !gpr_reg;
    }
    load_stand_ins(t, &s);
    bt_fault_point(t, in);
    put_thunk(t, in, gpr_reg, gpr_rm, gpr, mem);
    if (in->pointers)
        put_pointers(t, in, mem.base);
    store_stand_ins(t, &s);
    flags_after(t, in);
}

/* BT and so on of memory with a register, which holds an offset of any size and sign. */
static void emit_bit_string(struct translation_state *t, struct insn *in)
{
    struct emit *e = &t->e;
    bool wide = in->z.operand_width == 64, write = in->z.mnemonic != ZYDIS_MNEMONIC_BT;
    unsigned size = in->z.operand_width / 8u, address = bt_address(t, in, size);
    uint8_t guest = 0, shift;
    bind_reg(in->o[1].reg.value, &guest, &shift);
    struct operand offset =
        host_reg(guest) == NO_REG ? gs_operand(gpr_at(guest)) : reg_operand(host_reg(guest));
    put_op(e, true, wide ? 0x8b : 0x63, T1, offset); /* MOV, MOVSXD */
    put_op(e, false, 0x8b, T2, reg_operand(T1));
    put_alu_imm(e, false, ALU_AND, reg_operand(T2), wide ? 63 : 31);
    put_store(e, T2, gs_operand(BT_AT(t->bt, target)));
    put_op(e, true, 0xc1, 7, reg_operand(T1)); /* SAR */
    put8(e, wide ? 6 : 5);
    struct operand at = mem_operand(address, T1);
    at.scale_shift = wide ? 3 : 2;
    put_lea(e, t->bits == 64, T0, at);
    struct operand mem = bt_check(t, in, T0, size, write, false);
    flags_before(t, in);
    put_load(e, T2, gs_operand(BT_AT(t->bt, target)));
    if (in->z.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        put8(e, 0xf0);
    put8(e, 0x40 | rex_bits(T2, mem) | (wide ? 8 : 0));
    put8(e, 0x0f);
    put8(e, in->z.opcode);
    put_modrm(e, T2, mem);
    flags_after(t, in);
}

static void emit_generic(struct translation_state *t, struct insn *in)
{
    if (in->bit_string) {
        bt_flags_clobber(t, in->live_before);
        emit_bit_string(t, in);
        return;
    }
    struct stand_ins s = {.pool = {T0, T1, T2}, .pool_count = 3};
    struct operand mem = {0};
    if (in->mem >= 0) {
        const ZydisDecodedOperand *o = &in->o[in->mem];
        if (in->shared_base == NO_REG)
            bt_flags_clobber(t, in->live_before);
        mem = bt_memory_operand(t, in, o->size / 8u, o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
        s = (struct stand_ins){.pool = {T2}, .pool_count = 1};
    }
    flags_before(t, in);
    put_same(t, in, &s, mem);
    flags_after(t, in);
}

static void emit_lea(struct translation_state *t, struct insn *in)
{
    struct stand_ins s = {.pool = {T2}, .pool_count = 1};
    unsigned address = bt_offset(t, in);
    unsigned host = operand_host(&s, in, &in->o[0]);
    load_stand_ins(t, &s);
    if (in->z.operand_width == 16)
        put8(&t->e, 0x66);
    put_op(&t->e, in->z.operand_width == 64, 0x8b, host, reg_operand(address));
    store_stand_ins(t, &s);
}

static void emit_callout(struct translation_state *t, struct insn *in)
{
    if (!(t->bt->mode & BT_USUAL))
        t->segments_checked = 0; /* it may load one */
    bt_flags_clobber(t, in->live_before);
    bt_put_site(t, T1, bt_site_new(t, in), 0);
    if (in->ends)
        bt_put_to_stub(t, put_jump(&t->e), t->bt->callout_end_stub);
    else
        bt_put_to_stub(t, put_call(&t->e), t->bt->callout_stub);
    t->flags = FLAGS_SAVED;
}

void bt_emit_insn(struct translation_state *t, struct insn *in)
{
    t->cold_open = t->cold_count;
    if (in->kind == INSN_SYSTEM || in->kind == INSN_CALLOUT)
        t->t1_share = 0;
    switch (in->kind) {
    case INSN_NOP:
        return;
    case INSN_PAUSE:
        put8(&t->e, 0xf3);
        put8(&t->e, 0x90);
        return;
    case INSN_GENERIC:
        emit_generic(t, in);
        break;
    case INSN_SYSTEM:
        bt_emit_system(t, in);
        break;
    case INSN_SEGMENT:
        bt_emit_segment(t, in);
        break;
    case INSN_VECTOR:
        emit_vector(t, in);
        break;
    case INSN_STRING:
        bt_emit_string(t, in);
        break;
    case INSN_STRING_ONCE:
        bt_emit_string_once(t, in);
        break;
    case INSN_LEA:
        emit_lea(t, in);
        break;
    case INSN_ACCESS_CHECK:
    case INSN_PUSH:
    case INSN_POP:
    case INSN_LEAVE:
    case INSN_JCC:
    case INSN_LOOP:
    case INSN_JMP:
    case INSN_CALL:
    case INSN_JMP_INDIRECT:
    case INSN_CALL_INDIRECT:
    case INSN_RET:
        bt_emit_flow(t, in);
        break;
    default:
        emit_callout(t, in);
    }
    for (unsigned i = t->cold_open; i < t->cold_count; i++) {
        t->colds[i].next = t->e.at;
        t->colds[i].flags_live = t->flags & FLAGS_LIVE;
    }
}
