/* From bytes to an op: Zydis decodes, the families bind. */
#include "interp/core.h"
#include "interp/feature.h"

bool bind_reg(ZydisRegister reg, uint8_t *number, uint8_t *shift)
{
    *shift = 0;
    if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_R15B) {
        unsigned n = reg - ZYDIS_REGISTER_AL;
        /* Zydis' order: AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8B.. */
        if (n >= 4 && n < 8) {
            *number = (uint8_t)(n - 4);
            *shift = 8;
        } else {
            *number = (uint8_t)(n < 4 ? n : n - 4);
        }
    } else if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W) {
        *number = (uint8_t)(reg - ZYDIS_REGISTER_AX);
    } else if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D) {
        *number = (uint8_t)(reg - ZYDIS_REGISTER_EAX);
    } else if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15) {
        *number = (uint8_t)(reg - ZYDIS_REGISTER_RAX);
    } else {
        return false;
    }
    return true;
}

uint64_t bind_imm(const struct decode *d, unsigned i)
{
    const ZydisDecodedOperand *o = &d->operands[i];
    /* Of a 64-bit operation, a 32-bit immediate is always sign-extended. */
    if (o->imm.is_signed)
        return (uint64_t)o->imm.value.s;
    if (d->insn->operand_width == 64 && d->insn->raw.imm[0].size == 32)
        return (uint64_t)(int64_t)(int32_t)o->imm.value.u;
    return o->imm.value.u;
}

bool bind_has_lock(const struct decode *d)
{
    return d->insn->attributes & ZYDIS_ATTRIB_HAS_LOCK;
}

enum form bind_one(const struct decode *d, struct op *op)
{
    const ZydisDecodedOperand *o = &d->operands[0];
    op->size = (uint8_t)(o->size / 8);
    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
        return bind_reg(o->reg.value, &op->dst, &op->aux) ? FORM_RR : FORM_OTHER;
    return o->type == ZYDIS_OPERAND_TYPE_MEMORY ? FORM_MR : FORM_OTHER;
}

enum form bind_two(const struct decode *d, struct op *op)
{
    const ZydisDecodedOperand *a = &d->operands[0], *b = &d->operands[1];
    enum form form = bind_one(d, op);
    if (form == FORM_OTHER)
        return form;
    switch (b->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        return bind_reg(b->reg.value, &op->src, &op->aux2) ? form : FORM_OTHER;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        op->imm = bind_imm(d, 1);
        return form == FORM_RR ? FORM_RI : FORM_MI;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return a->type == ZYDIS_OPERAND_TYPE_REGISTER ? FORM_RM : FORM_OTHER;
    default:
        return FORM_OTHER;
    }
}

static void fill_memory(const struct decode *d, struct op *op)
{
    const ZydisDecodedInstruction *insn = d->insn;
    op->base = op->index = REG_NONE;
    op->seg = DS;
    op->addr_size = insn->address_width / 8;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const ZydisDecodedOperand *o = &d->operands[i];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        uint8_t shift;
        if (!bind_reg(o->mem.base, &op->base, &shift))
            op->base = REG_NONE;
        /* A SIB byte without a base: with REX.B and 32-bit addresses Zydis 4.0.0 takes it for one
         * with a base and without a displacement. */
        bool no_base = insn->address_width != 16 && insn->raw.modrm.mod == 0 &&
                       insn->raw.modrm.rm == 4 && insn->raw.sib.base == 5 &&
                       (insn->attributes & ZYDIS_ATTRIB_HAS_SIB);
        if (no_base)
            op->base = REG_NONE;
        if (!bind_reg(o->mem.index, &op->index, &shift))
            op->index = REG_NONE;
        op->scale_shift = o->mem.scale ? (uint8_t)__builtin_ctz(o->mem.scale) : 0;
        op->disp = no_base                        ? insn->raw.disp.value
                   : o->mem.disp.has_displacement ? o->mem.disp.value
                                                  : 0;
        if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
            op->base = REG_IP;
            op->disp += op->offset + insn->length;
            op->flags |= OP_RIP_RELATIVE;
        }
        if (o->mem.segment >= ZYDIS_REGISTER_ES && o->mem.segment <= ZYDIS_REGISTER_GS)
            op->seg = (uint8_t)(o->mem.segment - ZYDIS_REGISTER_ES);
        break;
    }
    if (d->mode.bits == 64 ? op->seg < FS : d->cpu->interp->flat && op->seg < FS && op->seg != CS)
        op->flags |= OP_FLAT;
}

static ZydisMachineMode machine_mode(const struct vcpu *cpu)
{
    unsigned bits = cpu->interp->mode.bits;
    if (bits == 64)
        return ZYDIS_MACHINE_MODE_LONG_64;
    bool real = !(cpu->cr0 & CR0_PE) || (cpu->rflags & FLAG_VM);
    if (bits == 32)
        return ZYDIS_MACHINE_MODE_LEGACY_32;
    return real ? ZYDIS_MACHINE_MODE_REAL_16 : ZYDIS_MACHINE_MODE_LEGACY_16;
}

static void setup_decoder(const struct vcpu *cpu, ZydisMachineMode mode, ZydisDecoder *decoder)
{
    static const ZydisStackWidth widths[] = {
        [1] = ZYDIS_STACK_WIDTH_16, [2] = ZYDIS_STACK_WIDTH_32, [4] = ZYDIS_STACK_WIDTH_64};
    const struct cpuid_table *table = &cpu->machine->cpuid;
    const struct {
        ZydisDecoderMode mode;
        bool enabled;
    } modes[] = {
        /* What is not offered decodes as what older processors make of the same bytes. */
        {ZYDIS_DECODER_MODE_CET, false},
        {ZYDIS_DECODER_MODE_MPX, false},
        {ZYDIS_DECODER_MODE_CLDEMOTE, false},
        {ZYDIS_DECODER_MODE_LZCNT, CPUID_HAS(table, 0x80000001, 0, ecx, 5)},
        {ZYDIS_DECODER_MODE_TZCNT, CPUID_HAS(table, 7, 0, ebx, 3)},
        {ZYDIS_DECODER_MODE_WBNOINVD, CPUID_HAS(table, 0x80000008, 0, ebx, 9)},
        {ZYDIS_DECODER_MODE_AMD_BRANCHES, table->vendor == VENDOR_AMD},
    };
    ZydisDecoderInit(decoder, mode, widths[cpu->interp->mode.stack_bits / 16]);
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
        ZydisDecoderEnableMode(decoder, modes[i].mode, modes[i].enabled);
}

/* Set up once for each mode. */
static const ZydisDecoder *decoder_of_mode(const struct vcpu *cpu, ZydisMachineMode mode)
{
    struct interp *in = cpu->interp;
    unsigned slot = (unsigned)mode * 3 + size_log2(in->mode.stack_bits / 16);
    if (!(in->decoders_ready >> slot & 1)) {
        setup_decoder(cpu, mode, &in->decoders[slot]);
        in->decoders_ready |= BIT(slot);
    }
    return &in->decoders[slot];
}

static void op_too_long(struct vcpu *cpu, const struct op *op)
{
    interp_raise_error(cpu, op, VEC_GP, 0);
}

bool bind_integer(struct decode *d, struct op *op)
{
    return bind_mov(d, op) || bind_alu(d, op) || bind_branch(d, op) || bind_stack(d, op) ||
           bind_shift(d, op) || bind_muldiv(d, op) || bind_bits(d, op) || bind_atomic(d, op) ||
           bind_misc(d, op) || bind_bcd(d, op);
}

static ZyanStatus decode_bytes(struct vcpu *cpu, const uint8_t *bytes, unsigned len,
                               ZydisDecodedInstruction *insn, ZydisDecodedOperand *operands)
{
    ZydisMachineMode mode = machine_mode(cpu);
    /* SYSENTER and SYSEXIT are there in real and virtual-8086 mode too: they raise #GP where they
     * cannot work. */
    if (mode == ZYDIS_MACHINE_MODE_REAL_16 && len >= 2 && bytes[0] == 0x0f &&
        (bytes[1] == 0x34 || bytes[1] == 0x35))
        mode = ZYDIS_MACHINE_MODE_LEGACY_16;
    return ZydisDecoderDecodeFull(decoder_of_mode(cpu, mode), bytes, len, insn, operands);
}

/* Knights Corner's VEX forms of scalar instructions are nobody else's. */
static bool is_foreign(const ZydisDecodedInstruction *insn)
{
    bool foreign = insn->meta.isa_ext == ZYDIS_ISA_EXT_KNC ||
                   insn->meta.isa_ext == ZYDIS_ISA_EXT_KNCE ||
                   insn->meta.isa_ext == ZYDIS_ISA_EXT_KNCV;
    /* With a REP prefix CLZERO's opcode is another instruction's. */
    for (unsigned i = 0; insn->mnemonic == ZYDIS_MNEMONIC_CLZERO && i < insn->raw.prefix_count; i++)
        foreign |= insn->raw.prefixes[i].value == 0xf2 || insn->raw.prefixes[i].value == 0xf3;
    return foreign;
}

enum decoded interp_decode_only(struct vcpu *cpu, const uint8_t *bytes, unsigned len,
                                ZydisDecodedInstruction *insn, ZydisDecodedOperand *operands)
{
    ZyanStatus status = decode_bytes(cpu, bytes, len, insn, operands);
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return DECODED_SHORT;
    return ZYAN_SUCCESS(status) && !is_foreign(insn) ? DECODED : DECODED_INVALID;
}

unsigned interp_decode(struct vcpu *cpu, const uint8_t *bytes, unsigned len, struct op *op,
                       bool *ends_block)
{
    static bind_fn *const families[] = {bind_integer, bind_string, bind_system, bind_vector};
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZyanStatus status = decode_bytes(cpu, bytes, len, &insn, operands);
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return 0;
    if (!ZYAN_SUCCESS(status)) {
        op->fn = status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? op_too_long : NULL;
        /* Any of these bytes may have been what made it invalid: the block depends on all. */
        op->length = (uint8_t)MIN(len, ZYDIS_MAX_INSTRUCTION_LENGTH);
        *ends_block = true;
        return op->length;
    }

    struct decode d = {
        .cpu = cpu, .insn = &insn, .operands = operands, .bytes = bytes, .mode = cpu->interp->mode};
    op->length = insn.length;
    op->size = insn.operand_width / 8;
    fill_memory(&d, op);
    if (insn.attributes & ZYDIS_ATTRIB_HAS_LOCK)
        op->flags |= OP_LOCK;
    if (insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        op->flags |= OP_REP;
    if (insn.attributes & ZYDIS_ATTRIB_HAS_REPNE)
        op->flags |= OP_REPNE;

    struct op plain = *op;
    if (!is_foreign(&insn) && feature_offered(&cpu->machine->cpuid, &insn)) {
        for (unsigned i = 0; i < ARRAY_SIZE(families); i++) {
            if (families[i](&d, op)) {
                *ends_block = d.ends_block;
                return insn.length;
            }
            *op = plain; /* a binder that declines may have tried */
        }
    }
    op->fn = NULL;
    *ends_block = true;
    return insn.length;
}

/* ---- Addresses, as other families ask for them ---- */

uint64_t op_effective_address(const struct vcpu *cpu, const struct op *op)
{
    return addr_offset(cpu, op);
}

uint64_t interp_linear(struct vcpu *cpu, const struct op *op, unsigned seg, uint64_t offset,
                       unsigned size, bool write)
{
    const struct interp *in = cpu->interp;
    const struct segment *s = &cpu->seg[seg];
    enum vector vector = seg == SS ? VEC_SS : VEC_GP;
    if (in->mode.bits == 64) {
        uint64_t linear = seg >= FS ? offset + s->base : offset;
        if (!is_canonical(linear) || !is_canonical(linear + size - 1))
            interp_raise_error(cpu, op, vector, 0);
        return linear;
    }
    if ((cpu->cr0 & CR0_PE) && !(cpu->rflags & FLAG_VM)) {
        if (s->attr & SEG_UNUSABLE)
            interp_raise_error(cpu, op, vector, 0);
        bool code = s->attr & SEG_CODE, rw = s->attr & SEG_WRITE;
        if (write ? code || !rw : code && !rw)
            interp_raise_error(cpu, op, vector, 0);
    }
    uint64_t last = offset + size - 1;
    if ((s->attr & (SEG_CODE | SEG_DOWN)) == SEG_DOWN && (s->attr & SEG_S)) {
        uint64_t top = s->attr & SEG_DB ? 0xffffffff : 0xffff;
        if (offset <= s->limit || last > top)
            interp_raise_error(cpu, op, vector, 0);
    } else if (last > s->limit) {
        interp_raise_error(cpu, op, vector, 0);
    }
    return (uint32_t)(s->base + offset);
}
