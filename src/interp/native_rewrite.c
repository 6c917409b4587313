/*
 * From the guest's bytes to the host's: the instruction with its memory operand as [RSI], its
 * general-purpose operand as RAX, and without what only other modes than 64-bit mode ignore.
 */
#include "interp/native.h"

static void rewrite_legacy(struct rewrite *r)
{
    const ZydisDecodedInstruction *insn = r->d->insn;
    for (unsigned i = 0; i < insn->raw.prefix_count; i++) {
        uint8_t prefix = insn->raw.prefixes[i].value;
        if (prefix == 0x66 || prefix == 0xf2 || prefix == 0xf3)
            *r->out++ = prefix;
    }
    bool has = insn->attributes & ZYDIS_ATTRIB_HAS_REX;
    uint8_t rex = 0x40 | (has && insn->raw.rex.W ? 8 : 0) |
                  (has && insn->raw.rex.R && !r->gpr_reg ? 4 : 0) |
                  (has && insn->raw.rex.B && !r->gpr_rm && !r->memory ? 1 : 0);
    if (rex != 0x40)
        *r->out++ = rex;
    if (insn->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        *r->out++ = 0x0f;
    if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        *r->out++ = 0x38;
    if (insn->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        *r->out++ = 0x3a;
}

static void rewrite_vex(struct rewrite *r)
{
    const ZydisDecodedInstruction *insn = r->d->insn;
    const uint8_t *from = r->d->bytes + insn->raw.vex.offset;
    uint8_t p1 = from[1], p2 = from[2];
    if (from[0] == 0xc5) {
        p1 = (from[1] & 0x80) | 0x61;
        p2 = from[1] & 0x7f;
    }
    if (r->d->mode.bits != 64) {
        p1 |= 0xe0;
        p2 |= 0x40;
        if (r->ignores_w)
            p2 &= 0x7f;
    }
    if (r->memory)
        p1 |= 0x60;
    if (r->gpr_reg)
        p1 |= 0x80;
    if (r->gpr_rm)
        p1 |= 0x20;
    const uint8_t prefix[] = {0xc4, p1, p2};
    memcpy(r->out, prefix, 3);
    r->out += 3;
}

static void rewrite_evex(struct rewrite *r)
{
    const ZydisDecodedInstruction *insn = r->d->insn;
    uint8_t p[4];
    memcpy(p, r->d->bytes + insn->raw.evex.offset, 4);
    if (r->d->mode.bits != 64) {
        p[1] |= 0xf0;
        p[2] |= 0x40;
        p[3] |= 0x08;
        if (r->ignores_w)
            p[2] &= 0x7f;
    }
    if (r->memory || r->gpr_rm)
        p[1] |= 0x60;
    if (r->gpr_reg)
        p[1] |= 0x90;
    memcpy(r->out, p, 4);
    r->out += 4;
}

/* W selects between 32-bit and 64-bit general-purpose operands, of which only 64-bit mode has the
 * latter. */
static bool w_is_operand_size(const struct rewrite *r)
{
    if (r->gpr_reg || r->gpr_rm)
        return true;
    switch (r->d->insn->mnemonic) {
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
        return true;
    default:
        return false;
    }
}

bool native_rewrite(struct rewrite *r, struct thunk_key *key)
{
    const ZydisDecodedInstruction *insn = r->d->insn;
    r->out = key->insn;
    r->ignores_w = r->d->mode.bits != 64 && w_is_operand_size(r);
    switch (insn->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        rewrite_legacy(r);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        rewrite_vex(r);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        rewrite_evex(r);
        break;
    default:
        return false;
    }
    *r->out++ = insn->opcode;
    if (insn->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
        uint8_t modrm = r->d->bytes[insn->raw.modrm.offset];
        if (r->gpr_reg)
            modrm &= 0xc7;
        if (r->gpr_rm)
            modrm &= 0xf8;
        if (r->memory)
            modrm = (modrm & 0x38) | 6; /* [RSI] */
        *r->out++ = modrm;
    }
    unsigned immediates = (insn->raw.imm[0].size + insn->raw.imm[1].size) / 8;
    memcpy(r->out, r->d->bytes + insn->length - immediates, immediates);
    /* A register in an immediate's upper half: eight of them outside 64-bit mode. */
    for (unsigned i = 0; immediates && i < insn->operand_count; i++)
        if (r->d->operands[i].encoding == ZYDIS_OPERAND_ENCODING_IS4 && r->d->mode.bits != 64)
            *r->out &= 0x7f;
    r->out += immediates;
    key->length = (uint8_t)(r->out - key->insn);
    return true;
}
