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
    site->mnemonic = (uint16_t)in->z.mnemonic;
    site->ends = in->ends;
    site->straddles = in->straddles;
    site->masked = in->masked;
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

/* 32-bit code: unless FS or GS is a writable data segment of 4 GiB, the interpreter does it. */
static void check_segment(struct translation_state *t, const struct insn *in, unsigned number)
{
    struct emit *e = &t->e;
    const uint32_t kind = SEG_UNUSABLE | SEG_P | SEG_S | SEG_CODE | SEG_DOWN | SEG_WRITE;
    struct bt_site *site = bt_site_new(t, in);
    put_alu_imm(e, false, ALU_CMP,
                gs_operand(bt_segment_at(number) + (int64_t)offsetof(struct segment, limit)), -1);
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_INSTEAD, .jump = put_jcc(e, CC_NE), .site = site};
    put_load32(e, T1, gs_operand(bt_segment_at(number) + (int64_t)offsetof(struct segment, attr)));
    put_alu_imm(e, false, ALU_AND, reg_operand(T1), (int32_t)kind);
    put_alu_imm(e, false, ALU_CMP, reg_operand(T1), SEG_P | SEG_S | SEG_WRITE);
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_INSTEAD, .jump = put_jcc(e, CC_NE), .site = site};
}

unsigned bt_offset(struct translation_state *t, const struct insn *in)
{
    t->t1_share = 0;
    const ZydisDecodedOperand *o = &in->o[in->mem];
    const ZydisDecodedInstruction *z = &in->z;
    struct emit *e = &t->e;
    bool wide = z->address_width == 64;
    /* See fill_memory() in interp/decode.c. */
    bool no_base = z->raw.modrm.mod == 0 && z->raw.modrm.rm == 4 && z->raw.sib.base == 5 &&
                   (z->attributes & ZYDIS_ATTRIB_HAS_SIB);
    int64_t disp = no_base                        ? z->raw.disp.value
                   : o->mem.disp.has_displacement ? o->mem.disp.value
                                                  : 0;
    unsigned result = T0;
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
        uint64_t address = t->rip + in->offset + z->length + (uint64_t)disp;
        bt_put_rip(t, T0, wide ? address : (uint32_t)address);
    } else {
        unsigned base = no_base ? NO_REG : component(t, o->mem.base, T0);
        unsigned index = component(t, o->mem.index, T1);
        if (index == NO_REG && base == NO_REG) {
            put_load_imm(
                e, T0, wide ? (uint64_t)disp : (uint32_t)disp & bytes_mask(z->address_width / 8u));
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
            if (z->address_width == 16)
                bt_put_extended(e, 16, T0, reg_operand(T0));
        }
    }
    return result;
}

unsigned bt_address(struct translation_state *t, const struct insn *in, unsigned size)
{
    struct emit *e = &t->e;
    const ZydisDecodedOperand *o = &in->o[in->mem];
    unsigned result = bt_offset(t, in);
    if (t->segmented) {
        bt_put_segment(t, in, (unsigned)(o->mem.segment - ZYDIS_REGISTER_ES), size,
                       in->z.address_width);
    } else if (o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS) {
        unsigned number = (unsigned)(o->mem.segment - ZYDIS_REGISTER_ES);
        if (result != T0)
            put_move(e, T0, result);
        if (t->bits == 32)
            check_segment(t, in, number);
        put_op(e, t->bits == 64, ALU_ADD << 3 | 3, T0,
               gs_operand(bt_segment_at(number) + (int64_t)offsetof(struct segment, base)));
        result = T0;
    }
    return result;
}

/*
 * Which slot an access uses. Accesses that are likely to meet the same page share one: those off
 * the stack pointer, off one register in a block, and at fixed addresses in one page.
 */
enum { STACK_SLOT = 0, FIRST_SLOT = SLOTS / 2 }; /* between them: share.c's */

static unsigned slot_of(struct translation_state *t, const struct insn *in, bool stack)
{
    const ZydisDecodedOperand *o = in->mem >= 0 && !stack ? &in->o[in->mem] : NULL;
    uint8_t base = RSP, shift;
    if (o && !bind_reg(o->mem.base, &base, &shift)) {
        uint64_t at = (uint64_t)o->mem.disp.value;
        if (o->mem.base == ZYDIS_REGISTER_RIP)
            at += t->rip + in->offset + in->z.length;
        if (o->mem.index == ZYDIS_REGISTER_NONE)
            return FIRST_SLOT + (unsigned)(at >> PAGE_SHIFT) % (SLOTS - FIRST_SLOT);
        base = 16;
    }
    if (is_string(in))
        base = in->pointer;
    if (base == RSP && !bt_share_of(t, RSP))
        return STACK_SLOT;
    if (!t->base_slots[base])
        t->base_slots[base] = (uint8_t)(FIRST_SLOT + t->bt->next_slot++ % (SLOTS - FIRST_SLOT));
    return t->base_slots[base];
}

/* The offset of the page's entry in a first-level table to T1. */
static void put_index(struct emit *e, unsigned reg)
{
    if (__builtin_cpu_supports("bmi2")) { /* RORX T1d, reg, 8 */
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
}

#define TAG    ((int64_t)offsetof(struct l1_entry, tag))
#define ADDEND ((int64_t)offsetof(struct l1_entry, addend))

/* Jump (returned) unless the entry at `at` is for the access. T2 is the offset in the page. */
static uint8_t *put_compare(struct emit *e, struct operand at, unsigned reg, unsigned size)
{
    put_load(e, T2, at);
    put_alu(e, ALU_XOR, T2, reg_operand(reg));
    put_alu_imm(e, true, ALU_CMP, reg_operand(T2), (int32_t)(PAGE_SIZE - size));
    return put_jcc(e, CC_A);
}

static int64_t table_at(const struct translation_state *t, bool write)
{
    return BT_AT(t->bt, l1[t->context][write]);
}

static int64_t slot_at(const struct translation_state *t, bool write, unsigned slot)
{
    return BT_AT(t->bt, slots[t->context][write][slot]);
}

/*
 * Most accesses of a program meet the page that they met before: the slot's address is fixed, so
 * the check is not on the way from the address to the data. The kernel's wander: they look into the
 * table at once.
 */
struct operand bt_check(struct translation_state *t, const struct insn *in, unsigned reg,
                        unsigned size, bool write, bool stack)
{
    struct emit *e = &t->e;
    struct bt_site *site = bt_site_new(t, in);
    unsigned slot = slot_of(t, in, stack);
    t->t1_share = 0;
    bool fixed = stack || slot == STACK_SLOT ||
                 (in->mem >= 0 && in->o[in->mem].mem.base == ZYDIS_REGISTER_RIP);
    site->size = (uint8_t)size;
    site->write = write;
    struct cold cold = {.kind = COLD_SLOW, .site = site, .address = (uint8_t)reg, .retry = e->at};
    if (t->bt->mode & (BT_USER | BT_SEGMENTS) || fixed) {
        int64_t at = slot_at(t, write, slot);
        cold.kind = COLD_SLOT;
        cold.slot = (uint8_t)slot;
        cold.jump = put_compare(e, gs_operand(at + TAG), reg, size);
        put_load(e, T1, gs_operand(at + ADDEND));
        cold.retry = e->at;
    } else {
        put_index(e, reg);
        cold.jump = put_compare(e, gs_base_operand(T1, table_at(t, write) + TAG), reg, size);
        put_load(e, T1, gs_base_operand(T1, table_at(t, write) + ADDEND));
    }
    t->colds[t->cold_count++] = cold;
    return mem_operand(reg, T1);
}

void bt_emit_cold_access(struct translation_state *t, const struct cold *c)
{
    struct emit *e = &t->e;
    uint8_t *misses = c->jump, *retry = c->retry;
    bool write = c->site->write;
    if (c->kind == COLD_SLOT) {
        int64_t slot = slot_at(t, write, c->slot), table = table_at(t, write);
        retry = e->at;
        put_index(e, c->address);
        misses = put_compare(e, gs_base_operand(T1, table + TAG), c->address, c->site->size);
        put_alu(e, ALU_XOR, T2, reg_operand(c->address)); /* the tag again */
        put_load(e, T1, gs_base_operand(T1, table + ADDEND));
        put_store(e, T2, gs_operand(slot + TAG));
        put_store(e, T1, gs_operand(slot + ADDEND));
        put_target(put_jump(e), c->retry);
    }
    put_target(misses, e->at);
    put_store(e, c->address, gs_operand(BT_AT(t->bt, linear)));
    bt_put_site(t, T1, c->site, 0);
    bt_put_to_stub(t, put_call(e), t->bt->slow_stub);
    put_target(put_jump(e), retry);
}

uint8_t *bt_put_slot_compare(struct translation_state *t, bool write, unsigned slot, unsigned reg,
                             unsigned size)
{
    return put_compare(&t->e, gs_operand(slot_at(t, write, slot) + TAG), reg, size);
}

void bt_put_slot_addend(struct translation_state *t, bool write, unsigned slot)
{
    put_load(&t->e, T1, gs_operand(slot_at(t, write, slot) + ADDEND));
}

/* Fill the slot from the table, or run the plain translation. */
void bt_emit_cold_share(struct translation_state *t, const struct cold *c)
{
    struct emit *e = &t->e;
    const struct share *s = &t->shares[c->share];
    int64_t slot = slot_at(t, s->write, s->slot), table = table_at(t, s->write);
    put_index(e, c->address);
    uint8_t *misses = put_compare(e, gs_base_operand(T1, table + TAG), c->address, s->length);
    put_alu(e, ALU_XOR, T2, reg_operand(c->address));
    put_load(e, T1, gs_base_operand(T1, table + ADDEND));
    put_store(e, T2, gs_operand(slot + TAG));
    put_store(e, T1, gs_operand(slot + ADDEND));
    put_target(put_jump(e), c->retry);
    put_target(misses, e->at);
    struct bt_exit *exit = &t->block->exits[0]; /* to the plain translation */
    uint8_t *jump = put_jump(e);
    if (!exit->stub) {
        exit->jump = jump;
        exit->stub = e->at;
        bt_write_exit_stub(t->bt, exit);
        e->at += EXIT_STUB;
    }
    put_target(jump, exit->jump == jump ? exit->stub : exit->jump - 1);
}
