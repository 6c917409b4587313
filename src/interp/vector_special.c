/* Vector memory accesses that are not one operand: gathers, scatters, byte-masked stores. In
 * software, element by element. */
#include "interp/native.h"
#include "interp/vector.h"

struct special {
    uint8_t unit;
    uint8_t data, mask, index; /* vector register, vector or mask register, vector register */
    bool mask_is_k, scatter;
    uint8_t element, index_size; /* bytes */
    uint8_t lanes;
};

static bool lane_wanted(const struct vcpu *cpu, const struct special *s, unsigned lane)
{
    if (s->mask_is_k)
        return cpu->fpu.k[s->mask] >> lane & 1;
    return cpu->fpu.zmm[s->mask][(lane + 1) * s->element - 1] >> 7;
}

static void lane_done(struct vcpu *cpu, const struct special *s, unsigned lane)
{
    if (s->mask_is_k)
        cpu->fpu.k[s->mask] &= ~BIT64(lane);
    else
        memset(cpu->fpu.zmm[s->mask] + lane * s->element, 0, s->element);
}

static uint64_t lane_address(struct vcpu *cpu, const struct op *op, const struct special *s,
                             unsigned lane)
{
    const uint8_t *at = cpu->fpu.zmm[s->index] + lane * s->index_size;
    int64_t index = (int64_t)host_load(at, s->index_size);
    if (s->index_size == 4)
        index = (int32_t)index;
    /* op->index is unused: what op_effective_address() gives is base and displacement. */
    uint64_t offset = (op_effective_address(cpu, op) + ((uint64_t)index << op->scale_shift)) &
                      bytes_mask(op->addr_size);
    return interp_linear(cpu, op, op->seg, offset, s->element, s->scatter);
}

static void transfer(struct vcpu *cpu, const struct op *op, const struct special *s, uint64_t at,
                     uint8_t *element)
{
    /* Lanes need no alignment, even where alignment is checked. */
    unsigned step = cpu->interp->align_check ? 1 : s->element;
    uint8_t bytes[8];
    for (unsigned i = 0; s->scatter && i < s->element; i += step)
        interp_probe_write(cpu, op, at + i, step);
    for (unsigned i = 0; i < s->element; i += step) {
        if (s->scatter)
            interp_store(cpu, op, at + i, step, host_load(element + i, step));
        else
            host_store(bytes + i, step, interp_load(cpu, op, at + i, step));
    }
    if (!s->scatter)
        memcpy(element, bytes, s->element);
}

/* A fault leaves the lanes before it done and their mask bits clear: the instruction goes on there
 * when it runs again. */
static void op_gather_scatter(struct vcpu *cpu, const struct op *op)
{
    const struct special *s = (const struct special *)(uintptr_t)op->imm;
    vector_check_unit(cpu, op, s->unit);
    uint8_t *data = cpu->fpu.zmm[s->data];
    for (unsigned lane = 0; lane < s->lanes; lane++) {
        if (lane_wanted(cpu, s, lane)) {
            uint64_t at = lane_address(cpu, op, s, lane);
            uint8_t *element = data + lane * s->element;
            transfer(cpu, op, s, at, element);
        }
        lane_done(cpu, s, lane);
    }
    if (s->mask_is_k)
        cpu->fpu.k[s->mask] = 0;
    else
        memset(cpu->fpu.zmm[s->mask], 0, 64);
    if (!s->scatter)
        memset(data + s->lanes * s->element, 0, 64 - s->lanes * s->element);
    NEXT(cpu, op);
}

/* MASKMOVQ, MASKMOVDQU: bytes whose mask byte is negative go to DS:[RDI]. op->dst data, op->src
 * mask, op->size bytes. */
static void op_maskmov(struct vcpu *cpu, const struct op *op)
{
    vector_check_unit(cpu, op, op->aux);
    bool mmx = op->size == 8;
    if (mmx)
        vector_enter_mmx(cpu);
    const uint8_t *data = mmx ? cpu->fpu.fx.st[op->dst] : cpu->fpu.zmm[op->dst];
    const uint8_t *mask = mmx ? cpu->fpu.fx.st[op->src] : cpu->fpu.zmm[op->src];
    /* Processors check the whole operand, whatever the mask. */
    uint64_t linear =
        interp_linear(cpu, op, op->seg, cpu->gpr[RDI] & bytes_mask(op->addr_size), op->size, true);
    if (cpu->interp->align_check && (linear & (op->size - 1u)))
        interp_raise_error(cpu, op, VEC_AC, 0);
    interp_probe_write(cpu, op, linear, op->size);
    for (unsigned i = 0; i < op->size; i++)
        if (mask[i] & 0x80)
            interp_store(cpu, op, linear + i, 1, data[i]);
    NEXT(cpu, op);
}

static bool bind_maskmov(struct decode *d, struct op *op)
{
    op->fn = op_maskmov;
    op->dst = (uint8_t)ZydisRegisterGetId(d->operands[0].reg.value);
    op->src = (uint8_t)ZydisRegisterGetId(d->operands[1].reg.value);
    bool mmx = d->insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
    op->size = mmx ? 8 : 16;
    op->aux = mmx                                                   ? UNIT_MMX
              : d->insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? UNIT_AVX
                                                                    : UNIT_SSE;
    for (unsigned i = 0; i < d->insn->operand_count; i++) {
        const ZydisDecodedOperand *o = &d->operands[i];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.segment >= ZYDIS_REGISTER_ES &&
            o->mem.segment <= ZYDIS_REGISTER_GS)
            op->seg = (uint8_t)(o->mem.segment - ZYDIS_REGISTER_ES);
    }
    return true;
}

static unsigned vector_bytes(ZydisRegister r)
{
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_XMM:
        return 16;
    case ZYDIS_REGCLASS_YMM:
        return 32;
    default:
        return 64;
    }
}

bool bind_vector_special(struct decode *d, struct op *op)
{
    const ZydisDecodedInstruction *insn = d->insn;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return bind_maskmov(d, op);
    default:
        break;
    }
    const ZydisDecodedOperand *memory = NULL, *data = NULL, *mask = NULL;
    for (unsigned i = 0; i < insn->operand_count_visible; i++) {
        const ZydisDecodedOperand *o = &d->operands[i];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
            memory = o;
        else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
                 ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MASK)
            mask = o;
        else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !data)
            data = o;
        else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
            mask = o;
    }
    if (!memory || memory->mem.type != ZYDIS_MEMOP_TYPE_VSIB || !data || !mask)
        return false;
    static const struct {
        ZydisMnemonic mnemonic;
        uint8_t element, index;
    } kinds[] = {
        {ZYDIS_MNEMONIC_VPGATHERDD, 4, 4},  {ZYDIS_MNEMONIC_VPGATHERDQ, 8, 4},
        {ZYDIS_MNEMONIC_VPGATHERQD, 4, 8},  {ZYDIS_MNEMONIC_VPGATHERQQ, 8, 8},
        {ZYDIS_MNEMONIC_VGATHERDPS, 4, 4},  {ZYDIS_MNEMONIC_VGATHERDPD, 8, 4},
        {ZYDIS_MNEMONIC_VGATHERQPS, 4, 8},  {ZYDIS_MNEMONIC_VGATHERQPD, 8, 8},
        {ZYDIS_MNEMONIC_VPSCATTERDD, 4, 4}, {ZYDIS_MNEMONIC_VPSCATTERDQ, 8, 4},
        {ZYDIS_MNEMONIC_VPSCATTERQD, 4, 8}, {ZYDIS_MNEMONIC_VPSCATTERQQ, 8, 8},
        {ZYDIS_MNEMONIC_VSCATTERDPS, 4, 4}, {ZYDIS_MNEMONIC_VSCATTERDPD, 8, 4},
        {ZYDIS_MNEMONIC_VSCATTERQPS, 4, 8}, {ZYDIS_MNEMONIC_VSCATTERQPD, 8, 8},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (insn->mnemonic != kinds[i].mnemonic)
            continue;
        struct special *s = interp_block_alloc((struct vcpu *)(uintptr_t)d->cpu, sizeof *s);
        if (!s)
            return false;
        bool evex = insn->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
        *s = (struct special){.unit = evex ? UNIT_AVX512 : UNIT_AVX,
                              .data = (uint8_t)ZydisRegisterGetId(data->reg.value),
                              .mask = (uint8_t)ZydisRegisterGetId(mask->reg.value),
                              .index = (uint8_t)ZydisRegisterGetId(memory->mem.index),
                              .mask_is_k = evex,
                              .scatter = memory == &d->operands[0],
                              .element = kinds[i].element,
                              .index_size = kinds[i].index};
        s->lanes = (uint8_t)MIN(vector_bytes(data->reg.value) / s->element,
                                vector_bytes(memory->mem.index) / s->index_size);
        op->index = REG_NONE;
        op->imm = (uint64_t)(uintptr_t)s;
        op->fn = op_gather_scatter;
        return true;
    }
    return false;
}
