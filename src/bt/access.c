/* Guest memory: addresses, the inline check of the first-level TLB, and flags around it. */
#include "bt/translate.h"

void bt_flags_clobber(struct translation_state *t, uint32_t live)
{
    if (live && !(t->flags & FLAGS_SAVED)) {
        put_save_flags(&t->e, t->bt);
        t->flags |= FLAGS_SAVED;
    }
    t->flags &= ~(unsigned)FLAGS_LIVE;
    if (!live)
        t->flags |= FLAGS_SAVED; /* whatever is there will do */
}

void bt_flags_need(struct translation_state *t)
{
    if (t->flags & FLAGS_LIVE)
        return;
    put_restore_flags(&t->e, t->bt);
    t->flags |= FLAGS_LIVE;
}

struct bt_site *bt_site_new(struct translation_state *t, const struct insn *in)
{
    struct bt_site *site = bt_cache_data(t->bt, sizeof *site);
    site->block = t->block;
    site->offset = in->offset;
    site->length = in->z.length;
    site->ends = in->ends;
    return site;
}

/* A guest register as address component: its host register, or `scratch` after loading it. */
static unsigned component(struct translation_state *t, ZydisRegister reg, unsigned scratch)
{
    uint8_t number, shift;
    if (!bind_reg(reg, &number, &shift))
        return NO_REG;
    unsigned host = host_reg(number);
    if (host != NO_REG)
        return host;
    put_load(&t->e, scratch, gs_operand(gpr_at(number)));
    return scratch;
}

unsigned bt_address(struct translation_state *t, const struct insn *in)
{
    const ZydisDecodedOperand *o = &in->o[in->mem];
    const ZydisDecodedInstruction *z = &in->z;
    struct emit *e = &t->e;
    bool wide = z->address_width == 64;
    bool seg = o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS;
    /* See fill_memory() in interp/decode.c. */
    bool no_base = z->raw.modrm.mod == 0 && z->raw.modrm.rm == 4 && z->raw.sib.base == 5 &&
                   (z->attributes & ZYDIS_ATTRIB_HAS_SIB);
    int64_t disp = no_base                        ? z->raw.disp.value
                   : o->mem.disp.has_displacement ? o->mem.disp.value
                                                  : 0;
    unsigned result = T0;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
        uint64_t address = t->rip + in->offset + z->length + (uint64_t)disp;
        put_load_imm(e, T0, wide ? address : (uint32_t)address);
    } else {
        unsigned base = no_base ? NO_REG : component(t, o->mem.base, T0);
        unsigned index = component(t, o->mem.index, T1);
        if (index == NO_REG && base == NO_REG) {
            put_load_imm(e, T0, wide ? (uint64_t)disp : (uint32_t)disp);
        } else if (index == NO_REG && disp == 0 && wide) {
            result = base;
        } else {
            struct operand at = {.kind = AT_MEM,
                                 .base = (uint8_t)base,
                                 .index = (uint8_t)index,
                                 .disp = (int32_t)disp,
                                 .scale_shift =
                                     o->mem.scale ? (uint8_t)__builtin_ctz(o->mem.scale) : 0};
            put_lea(e, wide, T0, at);
        }
    }
    if (seg) {
        unsigned number = (unsigned)(o->mem.segment - ZYDIS_REGISTER_ES);
        if (result != T0)
            put_move(e, T0, result);
        put_alu(e, ALU_ADD, T0,
                gs_operand(VCPU_AT(seg) + (int64_t)(number * sizeof(struct segment)) +
                           (int64_t)offsetof(struct segment, base)));
        result = T0;
    }
    return result;
}

static bool has_bmi2(void)
{
    return __builtin_cpu_supports("bmi2");
}

struct operand bt_check(struct translation_state *t, const struct insn *in, unsigned reg,
                        unsigned size, bool write, uint8_t *retry)
{
    struct emit *e = &t->e;
    struct bt *bt = t->bt;
    int64_t table = BT_AT(bt, l1[t->context][write]);
    if (has_bmi2()) {
        /* RORX T1d, reg, 8 */
        put8(e, 0xc4);
        put8(e, (uint8_t)(0x43 | (reg & 8 ? 0 : 0x20)));
        put8(e, 0x7b);
        put8(e, 0xf0);
        put8(e, (uint8_t)(0xc0 | (T1 & 7) << 3 | (reg & 7)));
        put8(e, 8);
    } else {
        put_op(e, false, 0x8b, T1, reg_operand(reg));
        put_op(e, false, 0xc1, 5, reg_operand(T1)); /* SHR */
        put8(e, 8);
    }
    put_alu_imm(e, false, ALU_AND, reg_operand(T1), (L1_ENTRIES - 1) << 4);
    put_load(e, T2, gs_base_operand(T1, table + (int64_t)offsetof(struct l1_entry, tag)));
    put_alu(e, ALU_XOR, T2, reg_operand(reg));
    put_alu_imm(e, true, ALU_CMP, reg_operand(T2), (int32_t)(PAGE_SIZE - size));
    struct bt_site *site = bt_site_new(t, in);
    site->size = (uint8_t)size;
    site->write = write;
    t->colds[t->cold_count++] = (struct cold){.kind = COLD_SLOW,
                                              .jump = put_jcc(e, CC_A),
                                              .site = site,
                                              .retry = retry,
                                              .address = (uint8_t)reg};
    put_load(e, T1, gs_base_operand(T1, table + (int64_t)offsetof(struct l1_entry, addend)));
    return mem_operand(reg, T1);
}
