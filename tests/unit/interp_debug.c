/* Debug registers, single steps, and a debugger's points. */
#include "bare.h"

GUEST(program, "movq $1, %rax\n"     /* 0 */
               "movq %rax, (%rbx)\n" /* 7 */
               "incq %rax\n"         /* 10 */
               "movq (%rbx), %rcx\n" /* 13 */
               "incq %rax\n"         /* 16 */
               "hlt\n");

static struct bare *new_machine(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE, program);
    b->cpu->gpr[RBX] = BARE_DATA;
    return b;
}

static void test_registers(void)
{
    struct bare *b = new_machine();
    struct vcpu *cpu = b->cpu;
    /* A data breakpoint is a trap after the store. */
    cpu->dr[0] = BARE_DATA;
    cpu->dr[7] = 0x400 | 1 | 1 << 16 | 3 << 18;
    CHECK(bare_run(b, BARE_CODE) == VEC_DB);
    CHECK(bare_fault_rip(b, false) == BARE_CODE + 10);
    CHECK((cpu->dr[6] & 0xf) == 1 && cpu->gpr[RAX] == 1);
    /* Writes only: the load does not trap. */
    cpu->gpr[RSP] = BARE_STACK;
    CHECK(bare_run(b, BARE_CODE + 10) == NO_VECTOR);
    /* Reads and writes, a byte within the operand. */
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[1] = BARE_DATA + 5;
    cpu->dr[7] = 0x400 | 8 | 3 << 20;
    CHECK(bare_run(b, BARE_CODE + 10) == VEC_DB);
    CHECK(bare_fault_rip(b, false) == BARE_CODE + 16 && (cpu->dr[6] & 0xf) == 2);
    /* An instruction breakpoint is a fault; RF passes it once. */
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[2] = BARE_CODE + 10;
    cpu->dr[7] = 0x400 | 0x10;
    cpu->gpr[RSP] = BARE_STACK;
    CHECK(bare_run(b, BARE_CODE) == VEC_DB);
    CHECK(bare_fault_rip(b, false) == BARE_CODE + 10 && (cpu->dr[6] & 0xf) == 4);
    cpu->rflags |= FLAG_RF;
    CHECK(bare_run(b, BARE_CODE + 10) == NO_VECTOR);
    CHECK(cpu->gpr[RAX] == 3);
    /* None: nothing of it stays behind. */
    cpu->dr[7] = 0x400;
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    bare_free(b);
}

static void test_single_step(void)
{
    struct bare *b = new_machine();
    b->cpu->rflags |= FLAG_TF;
    CHECK(bare_run(b, BARE_CODE) == VEC_DB);
    CHECK(bare_fault_rip(b, false) == BARE_CODE + 7);
    CHECK(b->cpu->dr[6] & BIT(14));
    bare_free(b);
}

static void test_debugger(void)
{
    struct bare *b = new_machine();
    struct debugger *dbg = &b->m->debug;
    struct tv_error err;
    b->cpu->rip = BARE_CODE;
    dbg->points[0] = (struct debug_point){DEBUG_BREAK, BARE_CODE + 10, 1};
    dbg->points[1] = (struct debug_point){DEBUG_WATCH_READ, BARE_DATA + 4, 2};
    dbg->count = 2;
    CHECK(interp_engine.run(b->cpu, &err) == VCPU_EXIT_DEBUG);
    CHECK(b->cpu->rip == BARE_CODE + 10 && !dbg->hit_step);
    CHECK(dbg->hit_point.kind == DEBUG_BREAK);
    /* Step over it, as a debugger does. */
    dbg->single_step = 1;
    CHECK(interp_engine.run(b->cpu, &err) == VCPU_EXIT_DEBUG);
    CHECK(b->cpu->rip == BARE_CODE + 13 && dbg->hit_step);
    dbg->single_step = 0;
    CHECK(interp_engine.run(b->cpu, &err) == VCPU_EXIT_DEBUG);
    CHECK(b->cpu->rip == BARE_CODE + 16 && !dbg->hit_step);
    CHECK(dbg->hit_point.kind == DEBUG_WATCH_READ);
    dbg->count = 0;
    CHECK(interp_engine.run(b->cpu, &err) == VCPU_EXIT_HALT);
    CHECK(b->cpu->gpr[RAX] == 3);
    bare_free(b);
}

GUEST(branches, "1: incq %rax\n" /* 0 */
                "popfq\n"        /* 3 */
                "jmp 1b\n");     /* 4 */

/* A single step ends at a branch whose target is at hand, too. */
static void test_step_branch(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE, branches);
    b->cpu->gpr[RAX] = 0;
    for (unsigned i = 0; i < 3; i++)
        bare_put(b, BARE_STACK - 24 + 8 * i, FLAG_ONE | (i == 2 ? FLAG_TF : 0));
    b->cpu->gpr[RSP] = BARE_STACK - 24;
    CHECK(bare_run(b, BARE_CODE) == VEC_DB);
    CHECK(bare_fault_rip(b, false) == BARE_CODE && b->cpu->gpr[RAX] == 3);
    bare_free(b);
}

/* interp_step() carries out one instruction, and counts it. */
static void test_step(void)
{
    struct bare *b = new_machine();
    const unsigned ends[] = {7, 10, 13, 16, 19};
    b->cpu->rip = BARE_CODE;
    for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
        uint64_t before = b->cpu->instructions;
        interp_step(b->cpu);
        CHECK(b->cpu->rip == BARE_CODE + ends[i]);
        CHECK(b->cpu->instructions == before + 1);
    }
    bare_free(b);
}

int main(void)
{
    test_registers();
    test_single_step();
    test_debugger();
    test_step();
    test_step_branch();
    return check_result();
}
