/* Encoding of host instructions, as far as the translator makes any of its own. */
#ifndef TRIVISOR_BT_EMIT_H
#define TRIVISOR_BT_EMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cpu/x86.h"

struct emit {
    uint8_t *at;
};

#define NO_REG 0xff

static inline void put8(struct emit *e, uint8_t v)
{
    *e->at++ = v;
}
static inline void put32(struct emit *e, uint32_t v)
{
    memcpy(e->at, &v, 4);
    e->at += 4;
}
static inline void put64(struct emit *e, uint64_t v)
{
    memcpy(e->at, &v, 8);
    e->at += 8;
}

/* A register or memory operand of the host. */
struct operand {
    enum { AT_REG, AT_GS, AT_MEM } kind;
    uint8_t base, index, scale_shift; /* AT_REG: base is the register; NO_REG where absent */
    int32_t disp;
    bool long_disp; /* a one-byte displacement means something else (EVEX) */
};

static inline struct operand reg_operand(unsigned reg)
{
    return (struct operand){.kind = AT_REG, .base = (uint8_t)reg};
}
/* At GS:disp, or GS:disp + index. */
static inline struct operand gs_operand(int64_t disp)
{
    return (struct operand){.kind = AT_GS, .base = NO_REG, .index = NO_REG, .disp = (int32_t)disp};
}
static inline struct operand gs_base_operand(unsigned base, int64_t disp)
{
    return (struct operand){
        .kind = AT_GS, .base = (uint8_t)base, .index = NO_REG, .disp = (int32_t)disp};
}
static inline struct operand mem_operand(unsigned base, unsigned index)
{
    return (struct operand){.kind = AT_MEM, .base = (uint8_t)base, .index = (uint8_t)index};
}

static inline uint8_t rex_bits(unsigned reg, struct operand rm)
{
    uint8_t rex = (reg & 8) >> 1;
    if (rm.base != NO_REG && (rm.base & 8))
        rex |= 1;
    if (rm.kind != AT_REG && rm.index != NO_REG && (rm.index & 8))
        rex |= 2;
    return rex;
}

/* ModRM, SIB and displacement. */
static inline void put_modrm(struct emit *e, unsigned reg, struct operand rm)
{
    uint8_t r = (uint8_t)((reg & 7) << 3);
    if (rm.kind == AT_REG) {
        put8(e, (uint8_t)(0xc0 | r | (rm.base & 7)));
        return;
    }
    if (rm.base == NO_REG) { /* SIB without a base: disp32 */
        put8(e, r | 4);
        put8(e, (uint8_t)(rm.scale_shift << 6 |
                          (rm.index == NO_REG ? 4 << 3 : (rm.index & 7) << 3) | 5));
        put32(e, (uint32_t)rm.disp);
        return;
    }
    uint8_t mod = rm.disp == 0 && (rm.base & 7) != 5                                ? 0
                  : rm.disp >= -128 && rm.disp <= 127 && !(rm.long_disp && rm.disp) ? 0x40
                                                                                    : 0x80;
    if (rm.index != NO_REG || (rm.base & 7) == 4) {
        put8(e, (uint8_t)(mod | r | 4));
        put8(e, (uint8_t)(rm.scale_shift << 6 |
                          (rm.index == NO_REG ? 4 << 3 : (rm.index & 7) << 3) | (rm.base & 7)));
    } else {
        put8(e, (uint8_t)(mod | r | (rm.base & 7)));
    }
    if (mod == 0x40)
        put8(e, (uint8_t)rm.disp);
    else if (mod == 0x80)
        put32(e, (uint32_t)rm.disp);
}

/* One-byte opcode, 32-bit or (wide) 64-bit operands. */
static inline void put_op(struct emit *e, bool wide, uint8_t opcode, unsigned reg,
                          struct operand rm)
{
    if (rm.kind == AT_GS)
        put8(e, 0x65);
    uint8_t rex = rex_bits(reg, rm) | (wide ? 8 : 0);
    if (rex)
        put8(e, 0x40 | rex);
    put8(e, opcode);
    put_modrm(e, reg, rm);
}

enum { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };

static inline void put_load(struct emit *e, unsigned reg, struct operand rm)
{
    put_op(e, true, 0x8b, reg, rm);
}
static inline void put_load32(struct emit *e, unsigned reg, struct operand rm)
{
    put_op(e, false, 0x8b, reg, rm);
}
static inline void put_store(struct emit *e, unsigned reg, struct operand rm)
{
    put_op(e, true, 0x89, reg, rm);
}
static inline void put_store32(struct emit *e, unsigned reg, struct operand rm)
{
    put_op(e, false, 0x89, reg, rm);
}
static inline void put_move(struct emit *e, unsigned to, unsigned from)
{
    put_op(e, true, 0x8b, to, reg_operand(from));
}
static inline void put_alu(struct emit *e, unsigned alu, unsigned reg, struct operand rm)
{
    put_op(e, true, (uint8_t)(alu << 3 | 3), reg, rm);
}
static inline void put_alu_imm(struct emit *e, bool wide, unsigned alu, struct operand rm,
                               int32_t imm)
{
    bool small = imm >= -128 && imm <= 127;
    put_op(e, wide, small ? 0x83 : 0x81, alu, rm);
    if (small)
        put8(e, (uint8_t)imm);
    else
        put32(e, (uint32_t)imm);
}
static inline void put_lea(struct emit *e, bool wide, unsigned reg, struct operand rm)
{
    put_op(e, wide, 0x8d, reg, rm);
}
static inline void put_load_imm(struct emit *e, unsigned reg, uint64_t value)
{
    if (value <= UINT32_MAX) {
        if (reg & 8)
            put8(e, 0x41);
        put8(e, (uint8_t)(0xb8 | (reg & 7)));
        put32(e, (uint32_t)value);
    } else if ((int64_t)value == (int32_t)value) {
        put_op(e, true, 0xc7, 0, reg_operand(reg));
        put32(e, (uint32_t)value);
    } else {
        put8(e, (uint8_t)(0x48 | (reg >> 3)));
        put8(e, (uint8_t)(0xb8 | (reg & 7)));
        put64(e, value);
    }
}

/* JMP, CALL or Jcc with a 32-bit displacement that put_target() fills in. */
static inline uint8_t *put_jump(struct emit *e)
{
    put8(e, 0xe9);
    put32(e, 0);
    return e->at - 4;
}
static inline uint8_t *put_call(struct emit *e)
{
    put8(e, 0xe8);
    put32(e, 0);
    return e->at - 4;
}
static inline uint8_t *put_jcc(struct emit *e, unsigned condition)
{
    put8(e, 0x0f);
    put8(e, (uint8_t)(0x80 | condition));
    put32(e, 0);
    return e->at - 4;
}
static inline void put_target(uint8_t *displacement, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (displacement + 4));
    memcpy(displacement, &distance, 4);
}

#define CC_B  2
#define CC_E  4
#define CC_NE 5
#define CC_A  7

#endif
