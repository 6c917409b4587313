/*
 * Exceptions and interrupts on their way into the guest (SDM vol. 3, chapter 6).
 *
 * Everything is read, checked and pushed before the first register changes, so that a fault on the
 * way (a missing stack page) finds the state as it was, and becomes the event that is delivered
 * instead: a double fault where the SDM's table 6-5 says so. interp_head.delivering remembers,
 * across the unwinding, what was under way.
 */
#include <inttypes.h>

#include "interp/system.h"

#define DR6_BD            BIT64(13)
#define DR6_BS            BIT64(14)
#define DR6_BT            BIT64(15)
#define DR7_GD            BIT64(13)
#define DELIVERING_BENIGN 0x100 /* an interrupt: a fault on its way is just that fault */

enum { GATE_INTERRUPT_BIT = 1 }; /* type bit 0 clear: an interrupt gate, which clears IF */

struct gate {
    uint8_t type;
    uint8_t dpl;
    bool present;
    uint16_t selector;
    uint64_t offset;
    uint8_t ist;
};

struct event {
    enum event_kind kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t return_rip;
    unsigned ext; /* bit 0 of the error codes of faults during delivery */
};

/* ---- Gates ---- */

static _Noreturn void idt_fault(struct vcpu *cpu, const struct event *e, enum vector vector)
{
    interp_raise_error(cpu, NULL, vector, e->vector * 8u + 2 + e->ext);
}

static struct gate read_gate(struct vcpu *cpu, const struct event *e)
{
    bool longmode = cpu_long_mode(cpu);
    unsigned size = longmode ? 16 : 8;
    uint32_t at = e->vector * size;
    if (at + size - 1 > cpu->idtr.limit)
        idt_fault(cpu, e, VEC_GP);
    uint64_t low = interp_load_system(cpu, NULL, cpu->idtr.base + at, 8);
    uint64_t high = longmode ? interp_load_system(cpu, NULL, cpu->idtr.base + at + 8, 8) : 0;
    struct gate g = {.type = desc_type(low),
                     .dpl = (uint8_t)desc_dpl(low),
                     .present = desc_present(low),
                     .selector = (uint16_t)(low >> 16),
                     .offset = (low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32,
                     .ist = longmode ? low >> 32 & 7 : 0};
    bool known =
        !desc_s(low) &&
        (g.type == SYS_INT || g.type == SYS_TRAP ||
         (!longmode && (g.type == SYS_TASK || g.type == SYS_INT16 || g.type == SYS_TRAP16)));
    if (!known)
        idt_fault(cpu, e, VEC_GP);
    if (e->kind == EVENT_SOFT_INT && g.dpl < cpu->cpl)
        idt_fault(cpu, e, VEC_GP);
    if (!g.present)
        idt_fault(cpu, e, VEC_NP);
    if (g.type == SYS_INT16 || g.type == SYS_TRAP16)
        g.offset &= 0xffff;
    return g;
}

/* The handler's code segment, checked. */
static descriptor handler_code(struct vcpu *cpu, const struct event *e, const struct gate *g)
{
    uint64_t address;
    if (selector_null(g->selector))
        interp_raise_error(cpu, NULL, VEC_GP, e->ext);
    descriptor d = descriptor_need(cpu, NULL, g->selector, VEC_GP, e->ext, &address);
    uint32_t error = (g->selector & ~3u) | e->ext;
    if (!desc_is_code(d) || desc_dpl(d) > cpu->cpl)
        interp_raise_error(cpu, NULL, VEC_GP, error);
    if (!desc_present(d))
        interp_raise_error(cpu, NULL, VEC_NP, error);
    if (cpu_long_mode(cpu) && (!desc_l(d) || desc_db(d)))
        interp_raise_error(cpu, NULL, VEC_GP, error);
    descriptor_mark_accessed(cpu, NULL, address, &d);
    return d;
}

/* What is pushed as flags: a fault's image has RF set, so that the instruction is not stopped again
 * at its breakpoint. At an instruction breakpoint itself that is the handler's choice. */
static uint32_t pushed_flags(const struct vcpu *cpu, const struct event *e)
{
    uint32_t flags = cpu_rflags(cpu);
    if (e->kind == EVENT_FAULT && (e->vector != VEC_DB || (cpu->dr[6] & DR6_BD)))
        flags |= FLAG_RF;
    return flags;
}

static void enter_handler(struct vcpu *cpu, const struct gate *g)
{
    uint32_t clear = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM;
    if (!(g->type & GATE_INTERRUPT_BIT))
        clear |= FLAG_IF;
    cpu->rflags &= ~clear;
    cpu->rip = g->offset;
}

/* ---- Long mode ---- */

static void deliver_long(struct vcpu *cpu, const struct event *e)
{
    struct gate g = read_gate(cpu, e);
    descriptor code = handler_code(cpu, e, &g);
    unsigned cpl = desc_conforming(code) ? cpu->cpl : desc_dpl(code);
    bool inner = cpl < cpu->cpl;
    uint64_t sp = cpu->gpr[RSP];
    if (g.ist) {
        uint32_t at = 28 + 8u * g.ist;
        if (at + 7 > cpu->tr.limit)
            interp_raise_error(cpu, NULL, VEC_TS, (cpu->tr.selector & ~3u) | e->ext);
        sp = interp_load_system(cpu, NULL, cpu->tr.base + at, 8);
    } else if (inner) {
        uint16_t ss;
        tss_inner_stack(cpu, NULL, cpl, e->ext, &ss, &sp);
    }
    if (!is_canonical(g.offset))
        interp_raise_error(cpu, NULL, VEC_GP, e->ext);

    struct stack s = {.cpu = cpu,
                      .sp = sp & ~UINT64_C(15),
                      .mask = ~UINT64_C(0),
                      .flat64 = true,
                      .system = inner,
                      .vector = VEC_SS,
                      .error = e->ext};
    stack_push(&s, 8, cpu->seg[SS].selector);
    stack_push(&s, 8, cpu->gpr[RSP]);
    stack_push(&s, 8, pushed_flags(cpu, e));
    stack_push(&s, 8, cpu->seg[CS].selector);
    stack_push(&s, 8, e->return_rip);
    if (e->has_error)
        stack_push(&s, 8, e->error);

    segment_set_cs(cpu, g.selector, code, cpl);
    if (inner)
        cpu->seg[SS] = (struct segment){.selector = (uint16_t)cpl,
                                        .attr = SEG_UNUSABLE | cpl << SEG_DPL_SHIFT};
    cpu->gpr[RSP] = s.sp;
    enter_handler(cpu, &g);
}

/* ---- Protected mode and virtual-8086 mode ---- */

static void push_v86_segments(struct stack *s, unsigned size)
{
    static const uint8_t order[] = {GS, FS, DS, ES};
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        stack_push(s, size, s->cpu->seg[order[i]].selector);
}

static void drop_v86_segments(struct vcpu *cpu)
{
    static const uint8_t order[] = {GS, FS, DS, ES};
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
        cpu->seg[order[i]] = (struct segment){.attr = SEG_UNUSABLE};
}

static void deliver_protected(struct vcpu *cpu, const struct event *e)
{
    struct gate g = read_gate(cpu, e);
    if (g.type == SYS_TASK) {
        task_switch(cpu, NULL, g.selector, TASK_GATE, e->return_rip, e->has_error, e->error,
                    e->ext);
        return;
    }
    descriptor code = handler_code(cpu, e, &g);
    unsigned cpl = desc_conforming(code) ? cpu->cpl : desc_dpl(code);
    bool v86 = cpu_v86(cpu);
    if (v86 && cpl != 0)
        interp_raise_error(cpu, NULL, VEC_GP, (g.selector & ~3u) | e->ext);
    bool inner = cpl < cpu->cpl;
    unsigned size = g.type >= SYS_INT ? 4 : 2;
    struct segment ss = cpu->seg[SS];
    struct stack s;
    if (inner) {
        uint16_t selector;
        uint64_t sp;
        tss_inner_stack(cpu, NULL, cpl, e->ext, &selector, &sp);
        ss = segment_check_stack(cpu, NULL, selector, cpl, VEC_TS, e->ext);
        s = stack_of(cpu, NULL, &ss, sp, cpl, (selector & ~3u) | e->ext);
        if (v86)
            push_v86_segments(&s, size);
        stack_push(&s, size, cpu->seg[SS].selector);
        stack_push(&s, size, cpu->gpr[RSP]);
    } else {
        s = stack_current(cpu, NULL);
        s.error = e->ext;
    }
    if (g.offset > segment_of(g.selector, code).limit)
        interp_raise_error(cpu, NULL, VEC_GP, e->ext);
    stack_push(&s, size, pushed_flags(cpu, e));
    stack_push(&s, size, cpu->seg[CS].selector);
    stack_push(&s, size, e->return_rip);
    if (e->has_error)
        stack_push(&s, size, e->error);

    if (v86)
        drop_v86_segments(cpu);
    cpu->rflags &= ~FLAG_VM;
    segment_set_cs(cpu, g.selector, code, cpl);
    cpu->seg[SS] = ss;
    stack_commit(&s);
    enter_handler(cpu, &g);
}

/* ---- Real mode ---- */

static void deliver_real(struct vcpu *cpu, const struct event *e)
{
    uint32_t at = e->vector * 4u;
    if (at + 3 > cpu->idtr.limit)
        interp_raise(cpu, NULL, VEC_GP);
    uint32_t entry = (uint32_t)interp_load_system(cpu, NULL, cpu->idtr.base + at, 4);
    struct stack s = stack_current(cpu, NULL);
    stack_push(&s, 2, cpu_rflags(cpu));
    stack_push(&s, 2, cpu->seg[CS].selector);
    stack_push(&s, 2, e->return_rip);
    stack_commit(&s);
    segment_load_real(cpu, CS, (uint16_t)(entry >> 16));
    cpu->rip = entry & 0xffff;
    cpu->rflags &= ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

/* INT n in virtual-8086 mode with CR4.VME, where the TSS's bitmap says so: through the program's
 * own vector table. */
bool interp_deliver_v86(struct vcpu *cpu, const struct op *op, uint8_t vector, uint64_t return_rip)
{
    if (cpu->tr.limit < 103)
        return false;
    uint16_t map = (uint16_t)interp_load_system(cpu, op, cpu->tr.base + 102, 2);
    if (map < 32 || map - 32u + vector / 8u > cpu->tr.limit ||
        (interp_load_system(cpu, op, cpu->tr.base + map - 32 + vector / 8, 1) >> (vector & 7) & 1))
        return false;
    uint32_t entry = (uint32_t)interp_load(cpu, op, vector * 4u, 4);
    struct stack s = stack_current(cpu, op);
    uint32_t flags = cpu_rflags(cpu);
    bool virtual_if = (flags & FLAG_IOPL) != FLAG_IOPL;
    if (virtual_if)
        flags = (flags & ~FLAG_IF) | FLAG_IOPL | (flags & FLAG_VIF ? FLAG_IF : 0);
    stack_push(&s, 2, flags);
    stack_push(&s, 2, cpu->seg[CS].selector);
    stack_push(&s, 2, return_rip);
    stack_commit(&s);
    segment_load_real(cpu, CS, (uint16_t)(entry >> 16));
    cpu->rip = entry & 0xffff;
    cpu->rflags &= ~(FLAG_TF | (virtual_if ? FLAG_VIF : FLAG_IF));
    interp_mode_changed(cpu);
    return true;
}

/* ---- Entry points ---- */

static void log_event(struct vcpu *cpu, const struct event *e)
{
    static const char *const kinds[] = {
        [EVENT_FAULT] = "fault", [EVENT_TRAP] = "trap",           [EVENT_SOFT_INT] = "int n",
        [EVENT_INT1] = "int1",   [EVENT_INTERRUPT] = "interrupt", [EVENT_NMI] = "nmi"};
    char detail[64] = "";
    if (e->vector == VEC_PF && e->kind == EVENT_FAULT)
        snprintf(detail, sizeof detail, " error %x cr2 %" PRIx64, e->error, cpu->cr2);
    else if (e->has_error)
        snprintf(detail, sizeof detail, " error %x", e->error);
    log_write(&cpu->machine->log, LOG_INT,
              "cpu%u %s %02x%s at %04x:%" PRIx64 " cpl %u sp %" PRIx64 " ax %" PRIx64, cpu->index,
              kinds[e->kind], e->vector, detail, cpu->seg[CS].selector, cpu->rip, cpu->cpl,
              cpu->gpr[RSP], cpu->gpr[RAX]);
}

void interp_deliver(struct vcpu *cpu, enum event_kind kind, uint8_t vector, bool has_error,
                    uint32_t error)
{
    struct interp_head *head = &cpu->interp->head;
    bool soft = kind == EVENT_SOFT_INT || kind == EVENT_INT1;
    struct event e = {.kind = kind,
                      .vector = vector,
                      .has_error = has_error,
                      .error = error,
                      .return_rip = soft ? head->return_rip : cpu->rip,
                      .ext = kind != EVENT_SOFT_INT};
    if (log_on(&cpu->machine->log, LOG_INT))
        log_event(cpu, &e);
    head->delivering = kind == EVENT_FAULT ? vector : DELIVERING_BENIGN;
    if (kind != EVENT_SOFT_INT)
        cpu->activity = ACTIVITY_RUNNING;

    if (cpu_real_mode(cpu))
        deliver_real(cpu, &e);
    else if (cpu_long_mode(cpu))
        deliver_long(cpu, &e);
    else
        deliver_protected(cpu, &e);

    head->delivering = -1;
    cpu->int_shadow = 0;
    cpu->in_single_step = false;
    if (kind == EVENT_NMI)
        cpu->nmi_blocked = true;
    interp_mode_changed(cpu);
    if (cpu->pending_db & DR6_BT) /* a task gate's TSS has T set: before its first instruction */
        interp_take_debug_trap(cpu);
}

static bool contributory(int vector)
{
    return vector == VEC_DE || (vector >= VEC_TS && vector <= VEC_GP);
}

static bool makes_double_fault(int first, int second)
{
    if (contributory(first))
        return contributory(second);
    return first == VEC_PF && (second == VEC_PF || contributory(second));
}

void interp_take_fault(struct vcpu *cpu)
{
    struct interp_head *head = &cpu->interp->head;
    struct fault f = head->fault;
    int first = head->delivering;
    head->delivering = -1;
    /* What the interrupted instruction was about to cause is gone: it runs again. */
    cpu->pending_db = 0;
    if (f.vector == VEC_PF)
        cpu->cr2 = f.address;
    if (first == VEC_DF) {
        cpu->activity = ACTIVITY_SHUTDOWN;
        return;
    }
    if (first >= 0 && makes_double_fault(first, f.vector))
        f = (struct fault){.vector = VEC_DF, .has_error = true};
    if (f.vector == VEC_DB)
        cpu->dr[7] &= ~DR7_GD;
    interp_deliver(cpu, EVENT_FAULT, f.vector, f.has_error && !cpu_real_mode(cpu), f.error);
}

void interp_take_debug_trap(struct vcpu *cpu)
{
    uint64_t hits = cpu->pending_db;
    if (cpu->in_single_step)
        hits |= DR6_BS;
    cpu->pending_db = 0;
    cpu->in_single_step = false;
    if (!hits)
        return;
    cpu->dr[6] = (cpu->dr[6] & ~UINT64_C(0xf)) | hits;
    cpu->dr[7] &= ~DR7_GD;
    interp_deliver(cpu, EVENT_TRAP, VEC_DB, false, 0);
}
