/*
 * Control transfers that load CS: far JMP, CALL and RET, IRET, INT n, and the fast system calls.
 *
 * Each one reads and checks everything first (interp_raise names `op`, whose place is only known
 * while vcpu.rip is the block's), then changes registers, then ends the block.
 */
#include "interp/system.h"

#define FORM_MEMORY 2 /* aux2 bit: the far pointer is in memory */

static void finish(struct vcpu *cpu)
{
    interp_mode_changed(cpu);
}

static void check_target(struct vcpu *cpu, const struct op *op, descriptor code, uint64_t rip)
{
    if (cpu_long_mode(cpu) && desc_l(code)) {
        if (!is_canonical(rip))
            interp_raise_error(cpu, op, VEC_GP, 0);
    } else if (rip > segment_of(0, code).limit) {
        interp_raise_error(cpu, op, VEC_GP, 0);
    }
}

/* L and D together mean nothing in long mode. */
static void check_long_code(struct vcpu *cpu, const struct op *op, uint16_t selector, descriptor d)
{
    if (cpu_long_mode(cpu) && desc_l(d) && desc_db(d))
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
}

/* ---- JMP and CALL ---- */

struct far_target {
    uint16_t selector;
    uint64_t offset;
};

static struct far_target far_operand(struct vcpu *cpu, const struct op *op)
{
    if (!(op->aux2 & FORM_MEMORY))
        return (struct far_target){(uint16_t)(op->imm >> 32), (uint32_t)op->imm};
    uint64_t at =
        interp_linear(cpu, op, op->seg, op_effective_address(cpu, op), op->size + 2u, false);
    return (struct far_target){.offset = interp_load(cpu, op, at, op->size),
                               .selector = (uint16_t)interp_load(cpu, op, at + op->size, 2)};
}

/* Privilege checks of a direct transfer to code. */
static void check_direct(struct vcpu *cpu, const struct op *op, uint16_t selector, descriptor d)
{
    bool bad = desc_conforming(d) ? desc_dpl(d) > cpu->cpl
                                  : (selector & 3u) > cpu->cpl || desc_dpl(d) != cpu->cpl;
    if (bad)
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
    check_long_code(cpu, op, selector, d);
    if (!desc_present(d))
        interp_raise_error(cpu, op, VEC_NP, selector & ~3u);
}

struct call_gate {
    uint16_t selector;
    uint64_t offset;
    unsigned params, size;
    descriptor code;
    uint64_t code_address;
};

static struct call_gate read_call_gate(struct vcpu *cpu, const struct op *op, uint16_t selector,
                                       descriptor d, uint64_t address, bool is_call)
{
    uint32_t error = selector & ~3u;
    if (desc_dpl(d) < cpu->cpl || desc_dpl(d) < (selector & 3u))
        interp_raise_error(cpu, op, VEC_GP, error);
    if (!desc_present(d))
        interp_raise_error(cpu, op, VEC_NP, error);
    struct call_gate g = {.selector = (uint16_t)(d >> 16),
                          .offset = (d & 0xffff) | (d >> 32 & 0xffff0000),
                          .params = d >> 32 & 31,
                          .size = desc_type(d) == SYS_CALL ? 4 : 2};
    if (g.size == 2)
        g.offset &= 0xffff;
    if (cpu_long_mode(cpu)) {
        if ((selector & ~7u) + 15 > (selector & 4 ? cpu->ldtr.limit : cpu->gdtr.limit))
            interp_raise_error(cpu, op, VEC_GP, error);
        uint64_t high = interp_load_system(cpu, op, address + 8, 8);
        if (high >> 40 & 0x1f)
            interp_raise_error(cpu, op, VEC_GP, error);
        g.offset |= high << 32;
        g.size = 8;
        g.params = 0;
    }
    if (selector_null(g.selector))
        interp_raise_error(cpu, op, VEC_GP, 0);
    g.code = descriptor_need(cpu, op, g.selector, VEC_GP, 0, &g.code_address);
    uint32_t code_error = g.selector & ~3u;
    bool inward_allowed = is_call || desc_conforming(g.code);
    if (!desc_is_code(g.code) ||
        (inward_allowed ? desc_dpl(g.code) > cpu->cpl : desc_dpl(g.code) != cpu->cpl))
        interp_raise_error(cpu, op, VEC_GP, code_error);
    if (cpu_long_mode(cpu) && (!desc_l(g.code) || desc_db(g.code)))
        interp_raise_error(cpu, op, VEC_GP, code_error);
    if (!desc_present(g.code))
        interp_raise_error(cpu, op, VEC_NP, code_error);
    return g;
}

static void push_return(struct vcpu *cpu, const struct op *op, struct stack *s, unsigned size)
{
    stack_push(s, size, cpu->seg[CS].selector);
    stack_push(s, size, interp_next_rip(cpu, op));
}

static void call_inner(struct vcpu *cpu, const struct op *op, struct call_gate *g)
{
    unsigned cpl = desc_dpl(g->code);
    uint16_t ss_selector;
    uint64_t sp;
    tss_inner_stack(cpu, op, cpl, 0, &ss_selector, &sp);
    struct segment ss;
    struct stack s;
    if (cpu_long_mode(cpu)) {
        ss = (struct segment){.selector = (uint16_t)cpl,
                              .attr = SEG_UNUSABLE | cpl << SEG_DPL_SHIFT};
        s = (struct stack){.cpu = cpu,
                           .op = op,
                           .sp = sp,
                           .mask = ~UINT64_C(0),
                           .flat64 = true,
                           .system = true,
                           .vector = VEC_SS};
    } else {
        ss = segment_check_stack(cpu, op, ss_selector, cpl, VEC_TS, 0);
        s = stack_of(cpu, op, &ss, sp, cpl, ss_selector & ~3u);
    }
    struct stack old = stack_current(cpu, op);
    uint64_t params[31];
    for (unsigned i = 0; i < g->params; i++)
        params[i] = stack_pop(&old, g->size);
    check_target(cpu, op, g->code, g->offset);
    stack_push(&s, g->size, cpu->seg[SS].selector);
    stack_push(&s, g->size, cpu->gpr[RSP]);
    for (unsigned i = g->params; i-- > 0;)
        stack_push(&s, g->size, params[i]);
    push_return(cpu, op, &s, g->size);

    descriptor_mark_accessed(cpu, op, g->code_address, &g->code);
    cpu->rip = g->offset;
    segment_set_cs(cpu, g->selector, g->code, cpl);
    cpu->seg[SS] = ss;
    cpu->gpr[RSP] = s.flat64           ? s.sp
                    : s.mask == 0xffff ? (cpu->gpr[RSP] & ~UINT64_C(0xffff)) | (s.sp & 0xffff)
                                       : (uint32_t)s.sp;
}

static void through_call_gate(struct vcpu *cpu, const struct op *op, uint16_t selector,
                              descriptor d, uint64_t address, bool is_call)
{
    struct call_gate g = read_call_gate(cpu, op, selector, d, address, is_call);
    if (is_call && !desc_conforming(g.code) && desc_dpl(g.code) < cpu->cpl) {
        call_inner(cpu, op, &g);
        return;
    }
    check_target(cpu, op, g.code, g.offset);
    struct stack s = stack_current(cpu, op);
    if (is_call)
        push_return(cpu, op, &s, g.size);
    descriptor_mark_accessed(cpu, op, g.code_address, &g.code);
    if (is_call)
        stack_commit(&s);
    cpu->rip = g.offset;
    segment_set_cs(cpu, g.selector, g.code, cpu->cpl);
}

static void through_task_gate(struct vcpu *cpu, const struct op *op, uint16_t selector,
                              descriptor d, bool is_call)
{
    if (desc_dpl(d) < cpu->cpl || desc_dpl(d) < (selector & 3u))
        interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
    if (!desc_present(d))
        interp_raise_error(cpu, op, VEC_NP, selector & ~3u);
    task_switch(cpu, op, (uint16_t)(d >> 16), is_call ? TASK_CALL : TASK_JMP,
                interp_next_rip(cpu, op), false, 0, 0);
}

static void through_system(struct vcpu *cpu, const struct op *op, uint16_t selector, descriptor d,
                           uint64_t address, bool is_call)
{
    switch (desc_type(d)) {
    case SYS_CALL16:
        if (cpu_long_mode(cpu))
            break;
        __attribute__((fallthrough));
    case SYS_CALL:
        through_call_gate(cpu, op, selector, d, address, is_call);
        return;
    case SYS_TASK:
        if (cpu_long_mode(cpu))
            break;
        through_task_gate(cpu, op, selector, d, is_call);
        return;
    case SYS_TSS:
    case SYS_TSS16:
        if (cpu_long_mode(cpu))
            break;
        if (desc_dpl(d) < cpu->cpl || desc_dpl(d) < (selector & 3u))
            interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
        task_switch(cpu, op, selector, is_call ? TASK_CALL : TASK_JMP, interp_next_rip(cpu, op),
                    false, 0, 0);
        return;
    default:
        break;
    }
    interp_raise_error(cpu, op, VEC_GP, selector & ~3u);
}

static void transfer(struct vcpu *cpu, const struct op *op, bool is_call)
{
    struct far_target t = far_operand(cpu, op);
    struct stack s = stack_current(cpu, op);
    if (!cpu_protected(cpu)) {
        if (t.offset > 0xffff && t.offset > cpu->seg[CS].limit)
            interp_raise_error(cpu, op, VEC_GP, 0);
        if (is_call) {
            push_return(cpu, op, &s, op->size);
            stack_commit(&s);
        }
        cpu->rip = t.offset;
        segment_load_real(cpu, CS, t.selector);
        return;
    }
    uint64_t address;
    if (selector_null(t.selector))
        interp_raise_error(cpu, op, VEC_GP, 0);
    descriptor d = descriptor_need(cpu, op, t.selector, VEC_GP, 0, &address);
    if (!desc_s(d)) {
        through_system(cpu, op, t.selector, d, address, is_call);
        return;
    }
    if (!desc_is_code(d))
        interp_raise_error(cpu, op, VEC_GP, t.selector & ~3u);
    check_direct(cpu, op, t.selector, d);
    check_target(cpu, op, d, t.offset);
    if (is_call)
        push_return(cpu, op, &s, op->size);
    descriptor_mark_accessed(cpu, op, address, &d);
    if (is_call)
        stack_commit(&s);
    cpu->rip = t.offset;
    segment_set_cs(cpu, t.selector, d, cpu->cpl);
}

static void op_jmp_far(struct vcpu *cpu, const struct op *op)
{
    transfer(cpu, op, false);
    finish(cpu);
    END_BLOCK(cpu, op);
}

static void op_call_far(struct vcpu *cpu, const struct op *op)
{
    transfer(cpu, op, true);
    finish(cpu);
    END_BLOCK(cpu, op);
}

/* ---- RET and IRET ---- */

struct return_frame {
    uint64_t rip;
    uint16_t cs;
    uint32_t flags;
};

/* The code segment that a return goes to, checked. */
static descriptor return_code(struct vcpu *cpu, const struct op *op, const struct return_frame *f,
                              uint64_t *address)
{
    if (selector_null(f->cs))
        interp_raise_error(cpu, op, VEC_GP, 0);
    descriptor d = descriptor_need(cpu, op, f->cs, VEC_GP, 0, address);
    unsigned rpl = f->cs & 3;
    bool bad = !desc_is_code(d) || rpl < cpu->cpl ||
               (desc_conforming(d) ? desc_dpl(d) > rpl : desc_dpl(d) != rpl);
    if (bad)
        interp_raise_error(cpu, op, VEC_GP, f->cs & ~3u);
    check_long_code(cpu, op, f->cs, d);
    if (!desc_present(d))
        interp_raise_error(cpu, op, VEC_NP, f->cs & ~3u);
    return d;
}

/* SS of a return to an outer ring; null is allowed to 64-bit code outside ring 3. */
static struct segment return_stack(struct vcpu *cpu, const struct op *op, uint16_t selector,
                                   descriptor code, unsigned cpl)
{
    if (selector_null(selector) && cpu_long_mode(cpu) && desc_l(code) && cpl != 3 &&
        (selector & 3u) == cpl)
        return (struct segment){.selector = selector, .attr = SEG_UNUSABLE | cpl << SEG_DPL_SHIFT};
    return segment_check_stack(cpu, op, selector, cpl, VEC_GP, 0);
}

static void set_sp(struct vcpu *cpu, uint64_t sp, descriptor code, const struct segment *ss)
{
    if (cpu_long_mode(cpu) && desc_l(code))
        cpu->gpr[RSP] = sp;
    else if (ss->attr & SEG_DB)
        cpu->gpr[RSP] = (uint32_t)sp;
    else
        cpu->gpr[RSP] = (cpu->gpr[RSP] & ~UINT64_C(0xffff)) | (sp & 0xffff);
}

/* RET far: op->imm bytes of parameters are dropped from both stacks. */
static void op_ret_far(struct vcpu *cpu, const struct op *op)
{
    struct stack s = stack_current(cpu, op);
    unsigned size = op->size;
    struct return_frame f = {.rip = stack_pop(&s, size)};
    f.cs = (uint16_t)stack_pop(&s, size);
    if (!cpu_protected(cpu)) {
        if (f.rip > 0xffff && f.rip > cpu->seg[CS].limit)
            interp_raise_error(cpu, op, VEC_GP, 0);
        s.sp = (s.sp & ~s.mask) | ((s.sp + op->imm) & s.mask);
        stack_commit(&s);
        cpu->rip = f.rip;
        segment_load_real(cpu, CS, f.cs);
        finish(cpu);
        END_BLOCK(cpu, op);
    }
    uint64_t address;
    descriptor d = return_code(cpu, op, &f, &address);
    unsigned cpl = f.cs & 3;
    s.sp = (s.sp & ~s.mask) | ((s.sp + op->imm) & s.mask);
    if (cpl > cpu->cpl) {
        uint64_t sp = stack_pop(&s, size);
        uint16_t selector = (uint16_t)stack_pop(&s, size);
        struct segment ss = return_stack(cpu, op, selector, d, cpl);
        check_target(cpu, op, d, f.rip);
        descriptor_mark_accessed(cpu, op, address, &d);
        cpu->rip = f.rip;
        segment_set_cs(cpu, f.cs, d, cpl);
        cpu->seg[SS] = ss;
        set_sp(cpu, sp + op->imm, d, &ss);
        segment_drop_inner(cpu);
    } else {
        check_target(cpu, op, d, f.rip);
        descriptor_mark_accessed(cpu, op, address, &d);
        stack_commit(&s);
        cpu->rip = f.rip;
        segment_set_cs(cpu, f.cs, d, cpl);
    }
    finish(cpu);
    END_BLOCK(cpu, op);
}

/* Which flags IRET may change at privilege `cpl`. */
static uint32_t iret_mask(const struct vcpu *cpu, unsigned size)
{
    uint32_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;
    if (size > 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    if (cpu->cpl <= (cpu->rflags >> FLAG_IOPL_SHIFT & 3))
        mask |= FLAG_IF;
    if (cpu->cpl == 0)
        mask |= FLAG_IOPL | (size > 2 ? FLAG_VIF | FLAG_VIP : 0);
    return mask;
}

static void iret_real(struct vcpu *cpu, const struct op *op)
{
    struct stack s = stack_current(cpu, op);
    unsigned size = op->size;
    struct return_frame f = {.rip = stack_pop(&s, size)};
    f.cs = (uint16_t)stack_pop(&s, size);
    f.flags = (uint32_t)stack_pop(&s, size);
    if (f.rip > 0xffff && f.rip > cpu->seg[CS].limit)
        interp_raise_error(cpu, op, VEC_GP, 0);
    stack_commit(&s);
    cpu->rip = f.rip;
    segment_load_real(cpu, CS, f.cs);
    uint32_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_IF | FLAG_IOPL;
    if (size > 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    flags_write(cpu, f.flags, mask);
}

static void iret_v86(struct vcpu *cpu, const struct op *op)
{
    bool iopl3 = (cpu->rflags & FLAG_IOPL) == FLAG_IOPL;
    bool vme = (cpu->cr4 & CR4_VME) && op->size == 2;
    if (!iopl3 && !vme)
        interp_raise_error(cpu, op, VEC_GP, 0);
    struct stack s = stack_current(cpu, op);
    unsigned size = op->size;
    struct return_frame f = {.rip = stack_pop(&s, size)};
    f.cs = (uint16_t)stack_pop(&s, size);
    f.flags = (uint32_t)stack_pop(&s, size);
    uint32_t mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;
    if (size > 2)
        mask |= FLAG_RF | FLAG_AC | FLAG_ID;
    if (iopl3) {
        mask |= FLAG_IF;
    } else {
        if (((f.flags & FLAG_IF) && (cpu->rflags & FLAG_VIP)) || (f.flags & FLAG_TF))
            interp_raise_error(cpu, op, VEC_GP, 0);
        f.flags = (f.flags & ~FLAG_VIF) | (f.flags & FLAG_IF ? FLAG_VIF : 0);
        mask |= FLAG_VIF;
    }
    if (f.rip > 0xffff)
        interp_raise_error(cpu, op, VEC_GP, 0);
    stack_commit(&s);
    cpu->rip = f.rip;
    segment_load_real(cpu, CS, f.cs);
    flags_write(cpu, f.flags, mask);
}

/* To virtual-8086 mode: six more dwords lie on the stack. */
static void iret_to_v86(struct vcpu *cpu, struct stack *s, const struct return_frame *f)
{
    uint64_t sp = stack_pop(s, 4);
    uint16_t ss = (uint16_t)stack_pop(s, 4);
    uint16_t es = (uint16_t)stack_pop(s, 4);
    uint16_t ds = (uint16_t)stack_pop(s, 4);
    uint16_t fs = (uint16_t)stack_pop(s, 4);
    uint16_t gs = (uint16_t)stack_pop(s, 4);
    if (f->rip > 0xffff)
        interp_raise_error(cpu, s->op, VEC_GP, 0);
    cpu->rip = f->rip;
    cpu_set_rflags(cpu, f->flags);
    cpu->cpl = 3;
    segment_load_real(cpu, CS, f->cs);
    segment_load_real(cpu, SS, ss);
    segment_load_real(cpu, ES, es);
    segment_load_real(cpu, DS, ds);
    segment_load_real(cpu, FS, fs);
    segment_load_real(cpu, GS, gs);
    cpu->gpr[RSP] = (uint32_t)sp;
}

static void iret_protected(struct vcpu *cpu, const struct op *op)
{
    if (cpu->rflags & FLAG_NT) {
        if (cpu_long_mode(cpu))
            interp_raise_error(cpu, op, VEC_GP, 0);
        uint16_t back = (uint16_t)interp_load_system(cpu, op, cpu->tr.base, 2);
        task_switch(cpu, op, back, TASK_IRET, interp_next_rip(cpu, op), false, 0, 0);
        return;
    }
    struct stack s = stack_current(cpu, op);
    unsigned size = op->size;
    struct return_frame f = {.rip = stack_pop(&s, size)};
    f.cs = (uint16_t)stack_pop(&s, size);
    f.flags = (uint32_t)stack_pop(&s, size);
    if ((f.flags & FLAG_VM) && size == 4 && cpu->cpl == 0 && !cpu_long_mode(cpu)) {
        iret_to_v86(cpu, &s, &f);
        return;
    }
    uint64_t address;
    descriptor d = return_code(cpu, op, &f, &address);
    unsigned cpl = f.cs & 3;
    bool outer = cpl > cpu->cpl;
    uint32_t mask = iret_mask(cpu, size);
    if (outer || cpu_64bit(cpu)) { /* 64-bit mode always pops SS and RSP */
        uint64_t sp = stack_pop(&s, size);
        uint16_t selector = (uint16_t)stack_pop(&s, size);
        struct segment ss = return_stack(cpu, op, selector, d, cpl);
        check_target(cpu, op, d, f.rip);
        descriptor_mark_accessed(cpu, op, address, &d);
        cpu->rip = f.rip;
        segment_set_cs(cpu, f.cs, d, cpl);
        cpu->seg[SS] = ss;
        set_sp(cpu, sp, d, &ss);
        if (outer)
            segment_drop_inner(cpu);
    } else {
        check_target(cpu, op, d, f.rip);
        descriptor_mark_accessed(cpu, op, address, &d);
        stack_commit(&s);
        cpu->rip = f.rip;
        segment_set_cs(cpu, f.cs, d, cpl);
    }
    flags_write(cpu, f.flags, mask);
}

static void op_iret(struct vcpu *cpu, const struct op *op)
{
    if (cpu_real_mode(cpu))
        iret_real(cpu, op);
    else if (cpu_v86(cpu))
        iret_v86(cpu, op);
    else
        iret_protected(cpu, op);
    cpu->nmi_blocked = false;
    if ((cpu->rflags & FLAG_IF) && atomic_load(&cpu->intr_asserted))
        atomic_fetch_or(&cpu->attention, ATT_INTR);
    finish(cpu);
    END_BLOCK(cpu, op);
}

/* ---- INT ---- */

static void soft_interrupt(struct vcpu *cpu, const struct op *op, uint8_t vector,
                           enum event_kind kind)
{
    cpu->interp->head.return_rip = interp_next_rip(cpu, op);
    interp_sync(cpu, op);
    interp_deliver(cpu, kind, vector, false, 0);
}

static void op_int(struct vcpu *cpu, const struct op *op)
{
    if (cpu_v86(cpu)) {
        if ((cpu->cr4 & CR4_VME) &&
            interp_deliver_v86(cpu, op, (uint8_t)op->imm, interp_next_rip(cpu, op)))
            END_BLOCK(cpu, op);
        if ((cpu->rflags & FLAG_IOPL) != FLAG_IOPL)
            interp_raise_error(cpu, op, VEC_GP, 0);
    }
    soft_interrupt(cpu, op, (uint8_t)op->imm, EVENT_SOFT_INT);
    END_BLOCK(cpu, op);
}

static void op_int3(struct vcpu *cpu, const struct op *op)
{
    soft_interrupt(cpu, op, VEC_BP, EVENT_SOFT_INT);
    END_BLOCK(cpu, op);
}

static void op_into(struct vcpu *cpu, const struct op *op)
{
    if (cpu->cc & FLAG_OF)
        soft_interrupt(cpu, op, VEC_OF, EVENT_SOFT_INT);
    else
        cpu->rip = interp_next_rip(cpu, op);
    END_BLOCK(cpu, op);
}

static void op_int1(struct vcpu *cpu, const struct op *op)
{
    soft_interrupt(cpu, op, VEC_DB, EVENT_INT1);
    END_BLOCK(cpu, op);
}

/* ---- SYSCALL, SYSRET, SYSENTER, SYSEXIT ---- */

#define FLAT_CODE(dpl, extra)                                                                      \
    (SEG_G | SEG_P | (uint32_t)(dpl) << SEG_DPL_SHIFT | SEG_S | SEG_CODE | SEG_WRITE |             \
     SEG_ACCESSED | (extra))
#define FLAT_DATA(dpl)                                                                             \
    (SEG_G | SEG_DB | SEG_P | (uint32_t)(dpl) << SEG_DPL_SHIFT | SEG_S | SEG_WRITE | SEG_ACCESSED)

/* These instructions load fixed descriptors and look at no table. */
static void set_flat(struct vcpu *cpu, uint16_t cs, uint16_t ss, unsigned cpl, uint32_t size_bits)
{
    cpu->seg[CS] =
        (struct segment){.selector = cs, .attr = FLAT_CODE(cpl, size_bits), .limit = 0xffffffff};
    cpu->seg[SS] = (struct segment){.selector = ss, .attr = FLAT_DATA(cpl), .limit = 0xffffffff};
    cpu->cpl = (uint8_t)cpl;
}

static void op_syscall(struct vcpu *cpu, const struct op *op)
{
    bool intel = cpu->machine->cpuid.vendor == VENDOR_INTEL;
    if (!(cpu->efer & EFER_SCE) || !cpu_protected(cpu) || (intel && !cpu_64bit(cpu)))
        interp_raise(cpu, op, VEC_UD);
    uint16_t cs = (uint16_t)(cpu->star >> 32) & 0xfffc;
    uint64_t next = interp_next_rip(cpu, op);
    if (cpu_long_mode(cpu)) {
        cpu->gpr[RCX] = next;
        cpu->gpr[R11] = cpu_rflags(cpu) & ~FLAG_RF;
        cpu->rip = cpu_64bit(cpu) ? cpu->lstar : cpu->cstar;
        set_flat(cpu, cs, (uint16_t)(cs + 8), 0, SEG_L);
        cpu_set_rflags(cpu, cpu_rflags(cpu) & ~((uint32_t)cpu->sfmask | FLAG_RF));
    } else {
        cpu->gpr[RCX] = (uint32_t)next;
        cpu->rip = (uint32_t)cpu->star;
        set_flat(cpu, cs, (uint16_t)(cs + 8), 0, SEG_DB);
        cpu->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
    }
    finish(cpu);
    END_BLOCK(cpu, op);
}

static void op_sysret(struct vcpu *cpu, const struct op *op)
{
    bool intel = cpu->machine->cpuid.vendor == VENDOR_INTEL;
    if (!(cpu->efer & EFER_SCE) || !cpu_protected(cpu) || (intel && !cpu_64bit(cpu)))
        interp_raise(cpu, op, VEC_UD);
    need_cpl0(cpu, op);
    uint16_t base = (uint16_t)(cpu->star >> 48);
    bool to64 = op->size == 8;
    if (to64 && intel && !is_canonical(cpu->gpr[RCX]))
        interp_raise_error(cpu, op, VEC_GP, 0);
    uint16_t cs = (uint16_t)((base + (to64 ? 16 : 0)) | 3);
    uint16_t ss = (uint16_t)((base + 8) | 3);
    cpu->rip = to64 ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];
    bool longmode = cpu_long_mode(cpu);
    struct segment old_ss = cpu->seg[SS];
    set_flat(cpu, cs, ss, 3, to64 ? SEG_L : SEG_DB);
    if (!intel) { /* AMD loads the selector alone and leaves what was cached of SS (but for the
                     privilege) */
        cpu->seg[SS].base = old_ss.base;
        cpu->seg[SS].limit = old_ss.limit;
        cpu->seg[SS].attr = (old_ss.attr & ~SEG_UNUSABLE) | 3u << SEG_DPL_SHIFT;
    }
    if (longmode)
        flags_write(cpu, (uint32_t)cpu->gpr[R11], 0x3c7fd7 & ~FLAG_RF);
    else
        flags_write(cpu, FLAG_IF, FLAG_IF);
    cpu->rflags &= ~(FLAG_RF | FLAG_VM);
    finish(cpu);
    END_BLOCK(cpu, op);
}

static void op_sysenter(struct vcpu *cpu, const struct op *op)
{
    /* AMD has no SYSENTER in long mode. */
    if (cpu->machine->cpuid.vendor == VENDOR_AMD && cpu_long_mode(cpu))
        interp_raise(cpu, op, VEC_UD);
    if (cpu_real_mode(cpu) || selector_null((uint16_t)cpu->sysenter_cs))
        interp_raise_error(cpu, op, VEC_GP, 0);
    uint16_t cs = (uint16_t)cpu->sysenter_cs & 0xfffc;
    bool longmode = cpu_long_mode(cpu);
    cpu->rflags &= ~(FLAG_VM | FLAG_IF | FLAG_RF);
    set_flat(cpu, cs, (uint16_t)(cs + 8), 0, longmode ? SEG_L : SEG_DB);
    cpu->gpr[RSP] = longmode ? cpu->sysenter_esp : (uint32_t)cpu->sysenter_esp;
    cpu->rip = longmode ? cpu->sysenter_eip : (uint32_t)cpu->sysenter_eip;
    finish(cpu);
    END_BLOCK(cpu, op);
}

static void op_sysexit(struct vcpu *cpu, const struct op *op)
{
    if (cpu->machine->cpuid.vendor == VENDOR_AMD && cpu_long_mode(cpu))
        interp_raise(cpu, op, VEC_UD);
    if (!cpu_protected(cpu) || cpu->cpl != 0 || selector_null((uint16_t)cpu->sysenter_cs))
        interp_raise_error(cpu, op, VEC_GP, 0);
    bool to64 = op->size == 8;
    if (to64 && (!is_canonical(cpu->gpr[RCX]) || !is_canonical(cpu->gpr[RDX])))
        interp_raise_error(cpu, op, VEC_GP, 0);
    uint16_t base = (uint16_t)cpu->sysenter_cs & 0xfffc;
    uint16_t cs = (uint16_t)((base + (to64 ? 32 : 16)) | 3);
    cpu->rip = to64 ? cpu->gpr[RDX] : (uint32_t)cpu->gpr[RDX];
    cpu->gpr[RSP] = to64 ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];
    set_flat(cpu, cs, (uint16_t)((cs + 8) | 3), 3, to64 ? SEG_L : SEG_DB);
    finish(cpu);
    END_BLOCK(cpu, op);
}

bool bind_far(struct decode *d, struct op *op)
{
    const ZydisDecodedOperand *o = &d->operands[0];
    ZydisMnemonic mnemonic = d->insn->mnemonic;
    d->ends_block = true;
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        if (d->insn->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
            break;
        op->fn = mnemonic == ZYDIS_MNEMONIC_JMP ? op_jmp_far : op_call_far;
        op->aux2 = 0;
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
            op->aux2 = FORM_MEMORY;
        else
            op->imm = (uint64_t)o->ptr.segment << 32 | (uint32_t)o->ptr.offset;
        /* AMD ignores REX.W here: the pointer has at most 32 bits of offset. */
        if (op->size == 8 && d->cpu->machine->cpuid.vendor == VENDOR_AMD)
            op->size = 4;
        return true;
    case ZYDIS_MNEMONIC_RET:
        if (d->insn->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
            break;
        op->fn = op_ret_far;
        op->imm = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? o->imm.value.u & 0xffff : 0;
        return true;
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        op->fn = op_iret;
        op->size = mnemonic == ZYDIS_MNEMONIC_IRET ? 2 : mnemonic == ZYDIS_MNEMONIC_IRETD ? 4 : 8;
        return true;
    case ZYDIS_MNEMONIC_INT:
        op->fn = op_int;
        op->imm = o->imm.value.u & 0xff;
        return true;
    case ZYDIS_MNEMONIC_INT3:
        op->fn = op_int3;
        return true;
    case ZYDIS_MNEMONIC_INT1:
        op->fn = op_int1;
        return true;
    case ZYDIS_MNEMONIC_INTO:
        op->fn = op_into;
        return true;
    case ZYDIS_MNEMONIC_SYSCALL:
        op->fn = op_syscall;
        return true;
    case ZYDIS_MNEMONIC_SYSRET:
        op->fn = op_sysret;
        op->size = d->insn->attributes & ZYDIS_ATTRIB_HAS_REX && (d->insn->raw.rex.W) ? 8 : 4;
        return true;
    case ZYDIS_MNEMONIC_SYSENTER:
        op->fn = op_sysenter;
        return true;
    case ZYDIS_MNEMONIC_SYSEXIT:
        op->fn = op_sysexit;
        op->size = d->insn->attributes & ZYDIS_ATTRIB_HAS_REX && (d->insn->raw.rex.W) ? 8 : 4;
        return true;
    default:
        break;
    }
    d->ends_block = false;
    return false;
}
