/* Segment registers: descriptors, loads with their checks, and the instructions that look at
 * descriptors. */
#include "interp/system.h"

bool descriptor_fetch(struct vcpu *cpu, const struct op *op, uint16_t selector, descriptor *d,
                      uint64_t *address)
{
    uint64_t base = cpu->gdtr.base;
    uint32_t limit = cpu->gdtr.limit;
    if (selector & 4) {
        if (cpu->ldtr.attr & SEG_UNUSABLE)
            return false;
        base = cpu->ldtr.base;
        limit = cpu->ldtr.limit;
    }
    uint32_t offset = selector & ~7u;
    if (offset + 7 > limit)
        return false;
    uint64_t at = base + offset;
    if (!cpu_long_mode(cpu))
        at = (uint32_t)at;
    *d = interp_load_system(cpu, op, at, 8);
    if (address)
        *address = at;
    return true;
}

descriptor descriptor_need(struct vcpu *cpu, const struct op *op, uint16_t selector,
                           enum vector vector, unsigned ext, uint64_t *address)
{
    descriptor d;
    if (!descriptor_fetch(cpu, op, selector, &d, address))
        interp_raise_error(cpu, op, vector, (selector & ~3u) | ext);
    return d;
}

void descriptor_mark_accessed(struct vcpu *cpu, const struct op *op, uint64_t address,
                              descriptor *d)
{
    if (*d >> 40 & 1)
        return;
    *d |= BIT64(40);
    interp_store_system(cpu, op, address + 5, 1, *d >> 40 & 0xff);
}

struct segment segment_of(uint16_t selector, descriptor d)
{
    uint32_t limit = (uint32_t)(d & 0xffff) | (uint32_t)(d >> 32 & 0xf0000);
    uint32_t attr = (uint32_t)(d >> 40) & 0xf0ff;
    if (attr & SEG_G)
        limit = limit << 12 | 0xfff;
    return (struct segment){.selector = selector,
                            .attr = attr,
                            .limit = limit,
                            .base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000)};
}

void segment_load_real(struct vcpu *cpu, unsigned seg, uint16_t selector)
{
    struct segment *s = &cpu->seg[seg];
    s->selector = selector;
    s->base = (uint32_t)selector << 4;
    if (cpu_v86(cpu)) {
        s->limit = 0xffff;
        s->attr = SEG_P | SEG_S | SEG_WRITE | SEG_ACCESSED | 3u << SEG_DPL_SHIFT;
    } else if (seg == CS) {
        /* Real mode keeps the limit and the size that protected mode left ("unreal mode"). */
        s->attr =
            (s->attr & (SEG_G | SEG_DB)) | SEG_P | SEG_S | SEG_WRITE | SEG_ACCESSED | SEG_CODE;
    } else {
        s->attr = (s->attr & (SEG_G | SEG_DB)) | SEG_P | SEG_S | SEG_WRITE | SEG_ACCESSED;
    }
}

static void load_null(struct vcpu *cpu, unsigned seg, uint16_t selector)
{
    struct segment *s = &cpu->seg[seg];
    s->selector = selector;
    s->attr = SEG_UNUSABLE;
    /* As Intel has it and AMD since Zen 2; FS and GS matter in 64-bit mode only. */
    s->base = 0;
    s->limit = 0;
    if (seg == SS)
        s->attr |= (uint32_t)cpu->cpl << SEG_DPL_SHIFT;
}

struct segment segment_check_stack(struct vcpu *cpu, const struct op *op, uint16_t selector,
                                   unsigned cpl, enum vector vector, unsigned ext)
{
    uint64_t address;
    if (selector_null(selector))
        interp_raise_error(cpu, op, vector, ext);
    descriptor d = descriptor_need(cpu, op, selector, vector, ext, &address);
    if ((selector & 3u) != cpl || desc_dpl(d) != cpl || !desc_s(d) || desc_is_code(d) ||
        !(desc_type(d) & 2))
        interp_raise_error(cpu, op, vector, (selector & ~3u) | ext);
    if (!desc_present(d))
        interp_raise_error(cpu, op, VEC_SS, (selector & ~3u) | ext);
    descriptor_mark_accessed(cpu, op, address, &d);
    return segment_of(selector, d);
}

void segment_load(struct vcpu *cpu, const struct op *op, unsigned seg, uint16_t selector)
{
    if (!cpu_protected(cpu)) {
        segment_load_real(cpu, seg, selector);
        return;
    }
    if (selector_null(selector)) {
        if (seg == SS && (!cpu_64bit(cpu) || cpu->cpl == 3 || (selector & 3) != cpu->cpl))
            interp_raise_error(cpu, op, VEC_GP, 0);
        load_null(cpu, seg, selector);
        return;
    }
    if (seg == SS) {
        cpu->seg[SS] = segment_check_stack(cpu, op, selector, cpu->cpl, VEC_GP, 0);
        return;
    }
    uint64_t address;
    descriptor d = descriptor_need(cpu, op, selector, VEC_GP, 0, &address);
    bool readable = desc_s(d) && (!desc_is_code(d) || (desc_type(d) & 2));
    bool conforming_code = desc_is_code(d) && desc_conforming(d);
    if (!readable ||
        (!conforming_code && (desc_dpl(d) < (selector & 3u) || desc_dpl(d) < cpu->cpl)))
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
    if (!desc_present(d))
        interp_raise_error(cpu, op, VEC_NP, selector & ~3u);
    descriptor_mark_accessed(cpu, op, address, &d);
    cpu->seg[seg] = segment_of(selector, d);
}

void segment_drop_inner(struct vcpu *cpu)
{
    static const uint8_t data[] = {ES, DS, FS, GS};
    for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
        struct segment *s = &cpu->seg[data[i]];
        if (s->attr & SEG_UNUSABLE)
            continue;
        bool conforming_code = (s->attr & SEG_CODE) && (s->attr & SEG_DOWN);
        if (!conforming_code && (s->attr >> SEG_DPL_SHIFT & 3) < cpu->cpl)
            load_null(cpu, data[i], 0);
    }
}

void segment_set_cs(struct vcpu *cpu, uint16_t selector, descriptor d, unsigned cpl)
{
    cpu->seg[CS] = segment_of((uint16_t)((selector & ~3u) | cpl), d);
    cpu->cpl = (uint8_t)cpl;
}

/* ---- Stacks ---- */

struct stack stack_of(struct vcpu *cpu, const struct op *op, const struct segment *ss, uint64_t sp,
                      unsigned cpl, uint32_t error)
{
    return (struct stack){.cpu = cpu,
                          .op = op,
                          .base = ss->base,
                          .sp = sp,
                          .mask = ss->attr & SEG_DB ? 0xffffffff : 0xffff,
                          .limit = ss->limit,
                          .attr = ss->attr,
                          .system = cpl < 3,
                          .vector = VEC_SS,
                          .error = error};
}

struct stack stack_current(struct vcpu *cpu, const struct op *op)
{
    struct stack s = stack_of(cpu, op, &cpu->seg[SS], cpu->gpr[RSP], cpu->cpl, 0);
    s.system = false; /* pushes to the stack that one is on are explicit accesses */
    if (cpu_64bit(cpu)) {
        s.flat64 = true;
        s.base = 0;
        s.mask = ~UINT64_C(0);
    } else if (cpu_v86(cpu)) {
        s.mask = 0xffff;
    }
    return s;
}

static uint64_t stack_linear(const struct stack *s, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;
    if (s->flat64) {
        if (!is_canonical(offset) || !is_canonical(last))
            interp_raise_error(s->cpu, s->op, s->vector, s->error);
        return offset;
    }
    bool down = (s->attr & (SEG_CODE | SEG_DOWN | SEG_S)) == (SEG_DOWN | SEG_S);
    bool bad = down ? offset <= s->limit || last > (s->attr & SEG_DB ? 0xffffffffu : 0xffffu)
                    : last > s->limit;
    if (bad)
        interp_raise_error(s->cpu, s->op, s->vector, s->error);
    return (uint32_t)(s->base + offset);
}

void stack_push(struct stack *s, unsigned size, uint64_t value)
{
    uint64_t sp = (s->sp & ~s->mask) | ((s->sp - size) & s->mask);
    uint64_t linear = stack_linear(s, sp & s->mask, size);
    if (s->system)
        interp_store_system(s->cpu, s->op, linear, size, value);
    else
        interp_store(s->cpu, s->op, linear, size, value);
    s->sp = sp;
}

uint64_t stack_pop(struct stack *s, unsigned size)
{
    uint64_t linear = stack_linear(s, s->sp & s->mask, size);
    uint64_t value = interp_load(s->cpu, s->op, linear, size);
    s->sp = (s->sp & ~s->mask) | ((s->sp + size) & s->mask);
    return value;
}

void stack_commit(const struct stack *s)
{
    uint64_t *rsp = &s->cpu->gpr[RSP];
    if (s->flat64)
        *rsp = s->sp;
    else if (s->mask == 0xffff)
        *rsp = (*rsp & ~UINT64_C(0xffff)) | (s->sp & 0xffff);
    else
        *rsp = (uint32_t)s->sp;
}

void tss_inner_stack(struct vcpu *cpu, const struct op *op, unsigned cpl, unsigned ext,
                     uint16_t *ss, uint64_t *sp)
{
    uint64_t base = cpu->tr.base;
    uint32_t at, last;
    bool tss32 = (cpu->tr.attr & SEG_TYPE) >= SYS_TSS;
    if (cpu_long_mode(cpu)) {
        at = 4 + 8 * cpl;
        last = at + 7;
    } else if (tss32) {
        at = 4 + 8 * cpl;
        last = at + 5;
    } else {
        at = 2 + 4 * cpl;
        last = at + 3;
    }
    if (last > cpu->tr.limit)
        interp_raise_error(cpu, op, VEC_TS, (cpu->tr.selector & ~3u) | ext);
    if (cpu_long_mode(cpu)) {
        *sp = interp_load_system(cpu, op, base + at, 8);
        *ss = (uint16_t)cpl;
    } else if (tss32) {
        *sp = interp_load_system(cpu, op, base + at, 4);
        *ss = (uint16_t)interp_load_system(cpu, op, base + at + 4, 2);
    } else {
        *sp = interp_load_system(cpu, op, base + at, 2);
        *ss = (uint16_t)interp_load_system(cpu, op, base + at + 2, 2);
    }
}

/* ---- Operands ---- */

void bind_rm(const struct decode *d, struct op *op, unsigned index)
{
    const ZydisDecodedOperand *o = &d->operands[index];
    op->aux2 = 0;
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
        op->aux2 = OPERAND_MEMORY;
    else
        bind_reg(o->reg.value, &op->dst, &op->aux);
}

uint64_t system_read_rm(struct vcpu *cpu, const struct op *op, unsigned size)
{
    if (!(op->aux2 & OPERAND_MEMORY))
        return cpu->gpr[op->dst] & bytes_mask(size);
    return interp_load(
        cpu, op, interp_linear(cpu, op, op->seg, op_effective_address(cpu, op), size, false), size);
}

void system_write_rm(struct vcpu *cpu, const struct op *op, unsigned size, uint64_t value)
{
    if (op->aux2 & OPERAND_MEMORY)
        interp_store(cpu, op,
                     interp_linear(cpu, op, op->seg, op_effective_address(cpu, op), size, true),
                     size, value);
    else
        reg_set(cpu, op->dst, 0, size, value);
}

/* ---- Instructions ---- */

/* `imm` is the segment register's number in the ops below. */

static void op_mov_from_seg(struct vcpu *cpu, const struct op *op)
{
    /* To a register the selector is zero-extended; to memory it is always 16 bits. */
    system_write_rm(cpu, op, op->aux2 & OPERAND_MEMORY ? 2 : op->size, cpu->seg[op->imm].selector);
    NEXT(cpu, op);
}

/* A new SS holds off interrupts for one instruction. */
static void finish_load(struct vcpu *cpu, const struct op *op, unsigned seg)
{
    if (seg == SS && cpu->int_shadow == 0)
        cpu->int_shadow = 2;
    cpu->rip = interp_next_rip(cpu, op);
    interp_mode_changed(cpu);
    END_BLOCK(cpu, op);
}

static void op_mov_to_seg(struct vcpu *cpu, const struct op *op)
{
    uint16_t selector = (uint16_t)system_read_rm(cpu, op, 2);
    segment_load(cpu, op, (unsigned)op->imm, selector);
    finish_load(cpu, op, (unsigned)op->imm);
}

static void op_push_seg(struct vcpu *cpu, const struct op *op)
{
    struct stack s = stack_current(cpu, op);
    /* Intel's 32-bit push writes 16 bits, the rest of the slot stays; AMD's writes zeros there. */
    if (op->size == 4 && cpu->machine->cpuid.vendor == VENDOR_INTEL) {
        s.sp = (s.sp & ~s.mask) | ((s.sp - 4) & s.mask);
        struct stack low = s;
        low.sp = (s.sp & ~s.mask) | ((s.sp + 2) & s.mask);
        stack_push(&low, 2, cpu->seg[op->imm].selector);
    } else {
        stack_push(&s, op->size, cpu->seg[op->imm].selector);
    }
    stack_commit(&s);
    NEXT(cpu, op);
}

static void op_pop_seg(struct vcpu *cpu, const struct op *op)
{
    struct stack s = stack_current(cpu, op);
    uint16_t selector = (uint16_t)stack_pop(&s, 2);
    s.sp = (s.sp & ~s.mask) | ((s.sp + op->size - 2u) & s.mask);
    segment_load(cpu, op, (unsigned)op->imm, selector);
    stack_commit(&s);
    finish_load(cpu, op, (unsigned)op->imm);
}

/* LDS, LES, LFS, LGS, LSS: offset, then selector. */
static void op_load_far_pointer(struct vcpu *cpu, const struct op *op)
{
    unsigned size = op->size;
    uint64_t at = interp_linear(cpu, op, op->seg, op_effective_address(cpu, op), size + 2, false);
    uint64_t offset = interp_load(cpu, op, at, size);
    uint16_t selector = (uint16_t)interp_load(cpu, op, at + size, 2);
    segment_load(cpu, op, (unsigned)op->imm, selector);
    reg_set(cpu, op->dst, 0, size, offset);
    finish_load(cpu, op, (unsigned)op->imm);
}

static void store_table(struct vcpu *cpu, const struct op *op, const struct table_register *t)
{
    if ((cpu->cr4 & CR4_UMIP) && cpu->cpl != 0)
        interp_raise_error(cpu, op, VEC_GP, 0);
    unsigned size = cpu_64bit(cpu) ? 8 : 4;
    uint64_t at = interp_linear(cpu, op, op->seg, op_effective_address(cpu, op), 2 + size, true);
    interp_probe_write(cpu, op, at, 2 + size);
    interp_store(cpu, op, at, 2, t->limit);
    interp_store(cpu, op, at + 2, size, t->base);
}

static void load_table(struct vcpu *cpu, const struct op *op, struct table_register *t)
{
    need_cpl0(cpu, op);
    unsigned size = cpu_64bit(cpu) ? 8 : 4;
    uint64_t at = interp_linear(cpu, op, op->seg, op_effective_address(cpu, op), 2 + size, false);
    uint16_t limit = (uint16_t)interp_load(cpu, op, at, 2);
    uint64_t base = interp_load(cpu, op, at + 2, size);
    if (size == 8 && !is_canonical(base))
        interp_raise_error(cpu, op, VEC_GP, 0);
    if (size == 4 && op->size == 2)
        base &= 0xffffff;
    *t = (struct table_register){base, limit};
}

static void op_sgdt(struct vcpu *cpu, const struct op *op)
{
    store_table(cpu, op, &cpu->gdtr);
    NEXT(cpu, op);
}

static void op_sidt(struct vcpu *cpu, const struct op *op)
{
    store_table(cpu, op, &cpu->idtr);
    NEXT(cpu, op);
}

static void op_lgdt(struct vcpu *cpu, const struct op *op)
{
    load_table(cpu, op, &cpu->gdtr);
    NEXT(cpu, op);
}

static void op_lidt(struct vcpu *cpu, const struct op *op)
{
    load_table(cpu, op, &cpu->idtr);
    NEXT(cpu, op);
}

static void store_selector(struct vcpu *cpu, const struct op *op, uint16_t selector)
{
    if (!cpu_protected(cpu))
        interp_raise(cpu, op, VEC_UD);
    if ((cpu->cr4 & CR4_UMIP) && cpu->cpl != 0)
        interp_raise_error(cpu, op, VEC_GP, 0);
    system_write_rm(cpu, op, op->aux2 & OPERAND_MEMORY ? 2 : op->size, selector);
}

static void op_sldt(struct vcpu *cpu, const struct op *op)
{
    store_selector(cpu, op, cpu->ldtr.selector);
    NEXT(cpu, op);
}

static void op_str(struct vcpu *cpu, const struct op *op)
{
    store_selector(cpu, op, cpu->tr.selector);
    NEXT(cpu, op);
}

/* The upper half of a 16-byte system descriptor in long mode: base bits 63..32, type 0. */
static uint64_t upper_base(struct vcpu *cpu, const struct op *op, uint16_t selector,
                           uint64_t address)
{
    uint32_t limit = selector & 4 ? cpu->ldtr.limit : cpu->gdtr.limit;
    if ((selector & ~7u) + 15 > limit)
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
    uint64_t upper = interp_load_system(cpu, op, address + 8, 8);
    if (upper >> 40 & 0x1f || !is_canonical(upper << 32))
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
    return upper << 32;
}

static void op_lldt(struct vcpu *cpu, const struct op *op)
{
    if (!cpu_protected(cpu))
        interp_raise(cpu, op, VEC_UD);
    need_cpl0(cpu, op);
    uint16_t selector = (uint16_t)system_read_rm(cpu, op, 2);
    if (selector_null(selector)) {
        cpu->ldtr = (struct segment){.selector = selector, .attr = SEG_UNUSABLE};
        NEXT(cpu, op);
    }
    uint64_t address;
    if (selector & 4)
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
    descriptor d = descriptor_need(cpu, op, selector, VEC_GP, 0, &address);
    if (desc_s(d) || desc_type(d) != SYS_LDT)
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
    if (!desc_present(d))
        interp_raise_error(cpu, op, VEC_NP, selector & ~3u);
    struct segment ldtr = segment_of(selector, d);
    if (cpu_long_mode(cpu))
        ldtr.base |= upper_base(cpu, op, selector, address);
    cpu->ldtr = ldtr;
    NEXT(cpu, op);
}

static void op_ltr(struct vcpu *cpu, const struct op *op)
{
    if (!cpu_protected(cpu))
        interp_raise(cpu, op, VEC_UD);
    need_cpl0(cpu, op);
    uint16_t selector = (uint16_t)system_read_rm(cpu, op, 2);
    uint64_t address;
    if (selector_null(selector))
        interp_raise_error(cpu, op, VEC_GP, 0);
    if (selector & 4)
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
    descriptor d = descriptor_need(cpu, op, selector, VEC_GP, 0, &address);
    bool available = desc_type(d) == SYS_TSS || (!cpu_long_mode(cpu) && desc_type(d) == SYS_TSS16);
    if (desc_s(d) || !available)
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
    if (!desc_present(d))
        interp_raise_error(cpu, op, VEC_NP, selector & ~3u);
    struct segment tr = segment_of(selector, d | BIT64(41));
    if (cpu_long_mode(cpu))
        tr.base |= upper_base(cpu, op, selector, address);
    interp_store_system(cpu, op, address + 5, 1, (d | BIT64(41)) >> 40 & 0xff);
    cpu->tr = tr;
    NEXT(cpu, op);
}

/* May a program at CPL with this RPL look at the segment? System types that LAR and LSL know are in
 * `types`. */
static bool visible(struct vcpu *cpu, const struct op *op, uint16_t selector, uint32_t types,
                    descriptor *d)
{
    if (selector_null(selector) || !descriptor_fetch(cpu, op, selector, d, NULL))
        return false;
    if (!desc_s(*d) && !(types >> desc_type(*d) & 1))
        return false;
    if (desc_is_code(*d) && desc_conforming(*d))
        return true;
    return desc_dpl(*d) >= cpu->cpl && desc_dpl(*d) >= (selector & 3u);
}

static void set_zf(struct vcpu *cpu, bool value)
{
    cpu->cc = value ? cpu->cc | FLAG_ZF : cpu->cc & ~FLAG_ZF;
}

#define LAR_TYPES      (BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(9) | BIT(11) | BIT(12))
#define LAR_TYPES_LONG (BIT(2) | BIT(9) | BIT(11) | BIT(12))
#define LSL_TYPES      (BIT(1) | BIT(2) | BIT(3) | BIT(9) | BIT(11))
#define LSL_TYPES_LONG (BIT(2) | BIT(9) | BIT(11))

/* `src` is the destination register in LAR and LSL, dst or memory the selector. */
static void op_lar(struct vcpu *cpu, const struct op *op)
{
    descriptor d;
    if (!cpu_protected(cpu))
        interp_raise(cpu, op, VEC_UD);
    uint16_t selector = (uint16_t)system_read_rm(cpu, op, 2);
    bool ok = visible(cpu, op, selector, cpu_long_mode(cpu) ? LAR_TYPES_LONG : LAR_TYPES, &d);
    if (ok)
        reg_set(cpu, op->src, 0, op->size, d >> 32 & 0xffff00);
    set_zf(cpu, ok);
    NEXT(cpu, op);
}

static void op_lsl(struct vcpu *cpu, const struct op *op)
{
    descriptor d;
    if (!cpu_protected(cpu))
        interp_raise(cpu, op, VEC_UD);
    uint16_t selector = (uint16_t)system_read_rm(cpu, op, 2);
    bool ok = visible(cpu, op, selector, cpu_long_mode(cpu) ? LSL_TYPES_LONG : LSL_TYPES, &d);
    if (ok)
        reg_set(cpu, op->src, 0, op->size, segment_of(selector, d).limit);
    set_zf(cpu, ok);
    NEXT(cpu, op);
}

static void op_verr(struct vcpu *cpu, const struct op *op)
{
    descriptor d;
    if (!cpu_protected(cpu))
        interp_raise(cpu, op, VEC_UD);
    uint16_t selector = (uint16_t)system_read_rm(cpu, op, 2);
    set_zf(cpu, visible(cpu, op, selector, 0, &d) && (!desc_is_code(d) || (desc_type(d) & 2)));
    NEXT(cpu, op);
}

static void op_verw(struct vcpu *cpu, const struct op *op)
{
    descriptor d;
    if (!cpu_protected(cpu))
        interp_raise(cpu, op, VEC_UD);
    uint16_t selector = (uint16_t)system_read_rm(cpu, op, 2);
    set_zf(cpu, visible(cpu, op, selector, 0, &d) && !desc_is_code(d) && (desc_type(d) & 2));
    NEXT(cpu, op);
}

static void op_arpl(struct vcpu *cpu, const struct op *op)
{
    if (!cpu_protected(cpu))
        interp_raise(cpu, op, VEC_UD);
    uint16_t value = (uint16_t)system_read_rm(cpu, op, 2);
    unsigned rpl = cpu->gpr[op->src] & 3;
    bool adjust = (value & 3u) < rpl;
    if (adjust)
        system_write_rm(cpu, op, 2, (value & ~3u) | rpl);
    set_zf(cpu, adjust);
    NEXT(cpu, op);
}

static bool segment_register(const ZydisDecodedOperand *o, uint64_t *seg)
{
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || o->reg.value < ZYDIS_REGISTER_ES ||
        o->reg.value > ZYDIS_REGISTER_GS)
        return false;
    *seg = o->reg.value - ZYDIS_REGISTER_ES;
    return true;
}

static bool bind_mov_seg(struct decode *d, struct op *op)
{
    if (segment_register(&d->operands[1], &op->imm)) {
        bind_rm(d, op, 0);
        op->fn = op_mov_from_seg;
        op->size = (uint8_t)(d->operands[0].size / 8);
        return true;
    }
    if (!segment_register(&d->operands[0], &op->imm) || op->imm == CS)
        return false;
    bind_rm(d, op, 1);
    op->fn = op_mov_to_seg;
    d->ends_block = true;
    return true;
}

bool bind_segment(struct decode *d, struct op *op)
{
    static const struct {
        ZydisMnemonic mnemonic;
        op_fn *fn;
        int8_t rm, reg; /* operand numbers, -1: none */
    } table[] = {
        {ZYDIS_MNEMONIC_SGDT, op_sgdt, 0, -1}, {ZYDIS_MNEMONIC_SIDT, op_sidt, 0, -1},
        {ZYDIS_MNEMONIC_LGDT, op_lgdt, 0, -1}, {ZYDIS_MNEMONIC_LIDT, op_lidt, 0, -1},
        {ZYDIS_MNEMONIC_SLDT, op_sldt, 0, -1}, {ZYDIS_MNEMONIC_STR, op_str, 0, -1},
        {ZYDIS_MNEMONIC_LLDT, op_lldt, 0, -1}, {ZYDIS_MNEMONIC_LTR, op_ltr, 0, -1},
        {ZYDIS_MNEMONIC_VERR, op_verr, 0, -1}, {ZYDIS_MNEMONIC_VERW, op_verw, 0, -1},
        {ZYDIS_MNEMONIC_LAR, op_lar, 1, 0},    {ZYDIS_MNEMONIC_LSL, op_lsl, 1, 0},
        {ZYDIS_MNEMONIC_ARPL, op_arpl, 0, 1},
    };
    static const struct {
        ZydisMnemonic mnemonic;
        uint8_t seg;
    } far_loads[] = {{ZYDIS_MNEMONIC_LDS, DS},
                     {ZYDIS_MNEMONIC_LES, ES},
                     {ZYDIS_MNEMONIC_LFS, FS},
                     {ZYDIS_MNEMONIC_LGS, GS},
                     {ZYDIS_MNEMONIC_LSS, SS}};
    ZydisMnemonic mnemonic = d->insn->mnemonic;
    uint8_t shift;

    if (mnemonic == ZYDIS_MNEMONIC_MOV)
        return bind_mov_seg(d, op);
    if (mnemonic == ZYDIS_MNEMONIC_PUSH && segment_register(&d->operands[0], &op->imm)) {
        op->fn = op_push_seg;
        return true;
    }
    if (mnemonic == ZYDIS_MNEMONIC_POP && segment_register(&d->operands[0], &op->imm)) {
        op->fn = op_pop_seg;
        d->ends_block = true;
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(far_loads); i++) {
        if (mnemonic == far_loads[i].mnemonic) {
            op->imm = far_loads[i].seg;
            bind_reg(d->operands[0].reg.value, &op->dst, &shift);
            op->fn = op_load_far_pointer;
            d->ends_block = true;
            return true;
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        if (mnemonic != table[i].mnemonic)
            continue;
        op->fn = table[i].fn;
        if (table[i].reg >= 0)
            bind_reg(d->operands[table[i].reg].reg.value, &op->src, &shift);
        if (table[i].reg == 0)
            op->size = (uint8_t)(d->operands[0].size / 8);
        bind_rm(d, op, (unsigned)table[i].rm);
        return true;
    }
    return false;
}
