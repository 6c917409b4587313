/* Which instructions are executed inline, and what they do to flags. */
#include "bt/translate.h"
#include "interp/condition.h"
#include "interp/feature.h"

#define FLAGS_ALL FLAGS_ARITH

/* Instructions that run on the host as they are, with other registers and addresses. */
static bool is_generic(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_MOVBE:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_BSWAP:
    case ZYDIS_MNEMONIC_XCHG:
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_MUL:
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO:
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_MULX:
    case ZYDIS_MNEMONIC_PDEP:
    case ZYDIS_MNEMONIC_PEXT:
    case ZYDIS_MNEMONIC_RORX:
    case ZYDIS_MNEMONIC_SARX:
    case ZYDIS_MNEMONIC_SHLX:
    case ZYDIS_MNEMONIC_SHRX:
    case ZYDIS_MNEMONIC_ADCX:
    case ZYDIS_MNEMONIC_ADOX:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_LAHF:
    case ZYDIS_MNEMONIC_SAHF:
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMC:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
        return true;
    default:
        return condition_of_cmov(m) >= 0 || condition_of_set(m) >= 0;
    }
}

static bool is_register(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER;
}

static bool is_high8(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}

bool bt_good_address(const struct translation_state *t, const struct insn *in,
                     const ZydisDecodedOperand *o)
{
    if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM || o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
        return false;
    if (t->segmented)
        return o->mem.segment != ZYDIS_REGISTER_CS || t->bt->mode & BT_REAL ||
               !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
    if (in->z.address_width != t->bits && !(t->bits == 64 && in->z.address_width == 32))
        return false;
    return t->bits == 64 || o->mem.segment != ZYDIS_REGISTER_CS;
}

/* AH..BH cannot be named beside what needs REX, as our operands in memory do: swap it with the
 * lower byte for as long, if nothing else asks for that. */
static bool swap_high(struct insn *in)
{
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &in->o[i];
        uint8_t number, shift;
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !bind_reg(o->reg.value, &number, &shift))
            continue;
        uint8_t base, of_base;
        const ZydisRegister in_address = in->o[in->mem].mem.base;
        if (in->swapped || !shift || (bind_reg(in_address, &base, &of_base) && base == number))
            return false;
        in->swapped = (uint8_t)(1 + number);
    }
    return true;
}

static bool generic_operands(const struct translation_state *t, struct insn *in)
{
    const ZydisDecodedInstruction *z = &in->z;
    bool high = false, needs_rex = z->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
                                   (z->attributes & ZYDIS_ATTRIB_HAS_REX);
    unsigned in_memory = 0, absent = NO_REG;
    for (unsigned i = 0; i < z->operand_count; i++) {
        const ZydisDecodedOperand *o = &in->o[i];
        uint8_t number, shift;
        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_FLAGS)
                break;
            if (!bind_reg(o->reg.value, &number, &shift))
                return false;
            high |= is_high8(o->reg.value);
            if (host_reg(number) == NO_REG && number != absent)
                absent = number, in_memory++;
            if (host_reg(number) == NO_REG || host_reg(number) >= 8)
                needs_rex = true;
            if (o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT && host_reg(number) != number)
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (in->mem >= 0 || !bt_good_address(t, in, o))
                return false;
            in->mem = (int8_t)i;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            break;
        default:
            return false;
        }
    }
    if (high && in->mem >= 0)
        return swap_high(in);
    if (high && needs_rex)
        return false;
    return in->mem < 0 || in_memory <= 1;
}

/* A shift or rotate whose count may be zero leaves flags alone then. */
static bool count_may_be_zero(const struct insn *in)
{
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        break;
    default:
        return false;
    }
    const ZydisDecodedOperand *count = &in->o[in->z.operand_count_visible - 1];
    if (count->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return true;
    return !(count->imm.value.u & (in->z.operand_width == 64 ? 63 : 31));
}

/* Flags that the manuals call undefined are overwritten, too. */
static bool undefined_is_written(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        return true;
    default:
        return false;
    }
}

static void find_flags(struct insn *in)
{
    const ZydisAccessedFlags *f = in->z.cpu_flags;
    if (!f)
        return;
    uint32_t written = (f->modified | f->set_0 | f->set_1) & FLAGS_ALL;
    uint32_t undefined = f->undefined & FLAGS_ALL;
    in->reads = f->tested & FLAGS_ALL;
    in->touches = in->reads || written || undefined;
    in->writes = undefined_is_written(in->z.mnemonic) ? written | undefined : written & ~undefined;
    if (count_may_be_zero(in)) {
        in->writes = 0;
        in->reads = FLAGS_ALL;
    }
}

static bool near_width(const struct translation_state *t, const struct insn *in)
{
    return (t->bits == 16 || !(in->z.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)) &&
           in->z.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR;
}

static bool direct_branch(struct translation_state *t, struct insn *in, uint8_t kind)
{
    if (in->o[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !near_width(t, in))
        return false;
    uint64_t target = t->rip + in->offset + in->z.length + (uint64_t)in->o[0].imm.value.s;
    target &= bytes_mask(in->width / 8u);
    if (t->bt->mode & BT_SEGMENTS ? target > bt_last_ip(t->cpu) : !is_canonical(target))
        return false;
    in->target = target;
    in->kind = kind;
    in->ends = !is_conditional(in);
    return true;
}

static bool one_operand(struct translation_state *t, struct insn *in, uint8_t kind)
{
    const ZydisDecodedOperand *o = &in->o[0];
    if (!near_width(t, in))
        return false;
    uint8_t number, shift;
    if (is_register(o)) {
        if (!bind_reg(o->reg.value, &number, &shift))
            return false;
    } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (kind == INSN_POP || !bt_good_address(t, in, o))
            return false;
        in->mem = 0;
    } else if (o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        return false;
    }
    in->kind = kind;
    return true;
}

/* Instructions on vector registers that the interpreter runs natively, too. */
static bool is_vector(struct translation_state *t, struct insn *in)
{
    static const struct {
        uint8_t mode, vectors;
    } needs[] = {[UNIT_SSE] = {BT_SSE, VECTORS_SSE},
                 [UNIT_AVX] = {BT_AVX, VECTORS_AVX},
                 [UNIT_AVX512] = {BT_AVX512, VECTORS_AVX512},
                 [UNIT_MMX] = {BT_X87, VECTORS_SAVED},
                 [UNIT_MMX_SSE] = {BT_X87 | BT_SSE, VECTORS_SSE},
                 [UNIT_X87] = {BT_X87, VECTORS_SAVED}};
    struct native_form form;
    struct op op = {0};
    bool ends;
    interp_reserve(t->cpu);
    if (!interp_decode(t->cpu, in->bytes, in->z.length, &op, &ends) || !op.fn ||
        !native_describe(&op, &form) || (form.masked && t->segmented) ||
        (t->bt->mode & needs[form.unit].mode) != needs[form.unit].mode)
        return false;
    for (unsigned i = 0; i < in->z.operand_count; i++) {
        const ZydisDecodedOperand *o = &in->o[i];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        if (in->mem >= 0 || !bt_good_address(t, in, o))
            return false;
        in->mem = (int8_t)i;
    }
    in->vectors = needs[form.unit].vectors;
    in->size = form.size;
    in->store = form.store;
    in->masked = form.masked;
    in->x87 = form.unit >= UNIT_MMX;
    in->pointers = form.pointers;
    in->key = *form.key;
    in->kind = INSN_VECTOR;
    in->may_fault = true;
    return true;
}

/* LOOPE and LOOPNE with such a prefix: interp/branch.c. */
static bool has_repeat(const struct insn *in)
{
    for (unsigned i = 0; i < in->z.raw.prefix_count; i++)
        if (in->z.raw.prefixes[i].value == 0xf2 || in->z.raw.prefixes[i].value == 0xf3)
            return true;
    return false;
}

/* With a smaller segment, calls fault before they push anything. */
static bool any_target(const struct translation_state *t, const struct insn *in)
{
    return t->bits == 64 || t->bt->cs.limit >= bytes_mask(in->width / 8u);
}

static bool classify(struct translation_state *t, struct insn *in)
{
    ZydisMnemonic m = in->z.mnemonic;
    if (t->cpu->machine->bt_off & BT_OFF_INLINE ||
        !feature_offered(&t->cpu->machine->cpuid, &in->z))
        return false;
    if (bt_classify_segment(t, in))
        return true;
    in->mem = -1;
    switch (m) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_ENDBR32:
        in->kind = INSN_NOP; /* 0F 0D of a register is undefined, for one */
        return in->z.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT || in->z.opcode == 0x1e ||
               in->z.opcode == 0x1f;
    case ZYDIS_MNEMONIC_LEA:
        if ((in->z.address_width != t->bits && !t->segmented) ||
            (in->z.attributes & ZYDIS_ATTRIB_HAS_LOCK))
            return false;
        in->mem = 1;
        in->kind = INSN_LEA;
        return true;
    case ZYDIS_MNEMONIC_PUSH:
        return one_operand(t, in, INSN_PUSH);
    case ZYDIS_MNEMONIC_POP:
        return one_operand(t, in, INSN_POP);
    case ZYDIS_MNEMONIC_LEAVE:
        in->kind = INSN_LEAVE;
        return near_width(t, in);
    case ZYDIS_MNEMONIC_JMP:
        if (direct_branch(t, in, INSN_JMP))
            return true;
        in->ends = true;
        return in->o[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE &&
               one_operand(t, in, INSN_JMP_INDIRECT);
    case ZYDIS_MNEMONIC_CALL:
        if (direct_branch(t, in, INSN_CALL))
            return true;
        in->ends = true;
        return in->o[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE && any_target(t, in) &&
               one_operand(t, in, INSN_CALL_INDIRECT);
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        return !has_repeat(in) && direct_branch(t, in, INSN_LOOP);
    case ZYDIS_MNEMONIC_RET:
        in->ends = true;
        in->kind = INSN_RET;
        return near_width(t, in);
    default:
        break;
    }
    if (bt_classify_system(t, in))
        return true;
    if (condition_of_jump(m) >= 0)
        return direct_branch(t, in, INSN_JCC);
    if (bt_classify_string(t, in))
        return true;
    if (!is_generic(m))
        return is_vector(t, in);
    /* Others have prefixes that are more than the operand's size, or are not there in real mode. */
    if (t->segmented && (in->z.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
                         in->z.opcode_map > ZYDIS_OPCODE_MAP_0F))
        return false;
    in->kind = INSN_GENERIC;
    in->may_fault =
        m == ZYDIS_MNEMONIC_DIV || m == ZYDIS_MNEMONIC_IDIV || m == ZYDIS_MNEMONIC_CMPXCHG16B;
    /* With a register as bit offset, the operand in memory reaches beyond itself. */
    bool bit_string = m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS ||
                      m == ZYDIS_MNEMONIC_BTR || m == ZYDIS_MNEMONIC_BTC;
    if (bit_string && in->o[0].type == ZYDIS_OPERAND_TYPE_MEMORY && is_register(&in->o[1])) {
        if (t->segmented || in->z.address_width != t->bits || in->z.operand_width < 32)
            return false;
        in->bit_string = true;
    }
    return generic_operands(t, in);
}

/* MOV between the accumulator and a fixed address, as the MOV that has a ModRM byte. */
static void give_modrm(struct insn *in)
{
    static const uint8_t opcodes[] = {0x8a, 0x8b, 0x88, 0x89};
    if (in->z.mnemonic != ZYDIS_MNEMONIC_MOV || in->z.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT ||
        (in->z.opcode & 0xfc) != 0xa0)
        return;
    in->z.opcode = opcodes[in->z.opcode & 3];
    in->z.attributes |= ZYDIS_ATTRIB_HAS_MODRM;
    for (unsigned i = 0; i < 2; i++)
        in->o[i].encoding = is_register(&in->o[i]) ? ZYDIS_OPERAND_ENCODING_MODRM_REG
                                                   : ZYDIS_OPERAND_ENCODING_MODRM_RM;
}

void bt_classify(struct translation_state *t, struct insn *in)
{
    in->mem = -1;
    in->width = (uint8_t)t->bits;
    if (t->bits == 16 && in->z.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
        in->width = 32;
    give_modrm(in);
    if (classify(t, in)) {
        find_flags(in);
        bool stack = in->kind == INSN_PUSH || in->kind == INSN_POP || in->kind == INSN_LEAVE ||
                     in->kind == INSN_CALL || in->kind == INSN_CALL_INDIRECT ||
                     in->kind == INSN_RET || in->kind == INSN_JMP_INDIRECT;
        in->access = (in->mem >= 0 && in->kind != INSN_LEA) || stack || in->may_fault ||
                     in->kind == INSN_LOOP || in->kind == INSN_SYSTEM || in->kind == INSN_SEGMENT ||
                     in->kind == INSN_ACCESS_CHECK || is_string(in);
        if (in->pushes && in->kind == INSN_SYSTEM)
            in->reads = FLAGS_ALL;
        return;
    }
    in->mem = -1;
    in->may_fault = false;
    in->vectors = VECTORS_SAVED;
    in->x87 = in->pushes = false;
    in->swapped = 0;
    in->kind = INSN_CALLOUT;
    in->reads = FLAGS_ALL;
    in->writes = 0;
    in->access = true;
    in->touches = false;
    struct op op = {0};
    bool ends = false;
    interp_decode(t->cpu, in->bytes, in->z.length, &op, &ends);
    in->ends = ends || !op.fn;
}
