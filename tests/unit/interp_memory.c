/* The TLB, and accesses that cross pages, miss RAM or fault midway. */
#include "bare.h"
#include "interp/op.h"

#define RW (PTE_P | PTE_RW)

GUEST(load8, "movq (%rbx), %rax\n hlt\n");
GUEST(store8, "movq %rax, (%rbx)\n hlt\n");
GUEST(add8, "addq %rax, (%rbx)\n hlt\n");
GUEST(lock_add8, "lock addq %rax, (%rbx)\n hlt\n");
GUEST(xchg8, "xchgq %rax, (%rbx)\n hlt\n");

enum { LOAD = 0, STORE = 0x100, ADD = 0x200, LOCK_ADD = 0x300, XCHG = 0x400 };

static struct bare *new_machine(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE + LOAD, load8);
    bare_load(b, BARE_CODE + STORE, store8);
    bare_load(b, BARE_CODE + ADD, add8);
    bare_load(b, BARE_CODE + LOCK_ADD, lock_add8);
    bare_load(b, BARE_CODE + XCHG, xchg8);
    return b;
}

static int access8(struct bare *b, unsigned kind, uint64_t linear, uint64_t rax)
{
    b->cpu->gpr[RSP] = BARE_STACK;
    b->cpu->gpr[RBX] = linear;
    b->cpu->gpr[RAX] = rax;
    return bare_run(b, BARE_CODE + kind);
}

/* Two pages that are far apart in RAM. */
static void test_crossing(void)
{
    struct bare *b = new_machine();
    const uint64_t first = 0x600000, second = 0x680000, at = BARE_FREE + PAGE_SIZE - 3;
    bare_map(b, BARE_FREE, first, RW);
    bare_map(b, BARE_FREE + PAGE_SIZE, second, RW);
    for (int round = 0; round < 2; round++) {
        CHECK(access8(b, STORE, at, 0x8877665544332211) == NO_VECTOR);
        CHECK(bare_get(b, first + PAGE_SIZE - 8) >> 40 == 0x332211);
        CHECK((bare_get(b, second) & 0xffffffffff) == 0x8877665544);
        CHECK(access8(b, LOAD, at, 0) == NO_VECTOR);
        CHECK(b->cpu->gpr[RAX] == 0x8877665544332211);
        CHECK(access8(b, ADD, at, 0x0101010101010101) == NO_VECTOR);
        CHECK(access8(b, LOCK_ADD, at, 0x0101010101010101) == NO_VECTOR);
        CHECK(access8(b, XCHG, at, 5) == NO_VECTOR);
        CHECK(b->cpu->gpr[RAX] == 0x8a79685746352413);
        CHECK(access8(b, LOAD, at, 0) == NO_VECTOR && b->cpu->gpr[RAX] == 5);
    }

    /* The second page is read-only: nothing of a store happens. */
    bare_map(b, BARE_FREE + PAGE_SIZE, second, PTE_P);
    interp_flush_page(b->cpu, BARE_FREE + PAGE_SIZE);
    const unsigned kinds[] = {STORE, ADD, LOCK_ADD, XCHG};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        uint64_t before = bare_get(b, first + PAGE_SIZE - 8);
        CHECK(access8(b, kinds[i], at, 0x1234567890abcdef) == VEC_PF);
        CHECK(bare_fault_error(b) == (PF_P | PF_W));
        CHECK(b->cpu->cr2 == BARE_FREE + PAGE_SIZE);
        CHECK(bare_fault_rip(b, true) == BARE_CODE + kinds[i]);
        CHECK(bare_get(b, first + PAGE_SIZE - 8) == before);
        CHECK(b->cpu->gpr[RAX] == 0x1234567890abcdef);
    }
    bare_free(b);
}

static void test_accessed_dirty(void)
{
    struct bare *b = new_machine();
    bare_map(b, BARE_FREE, 0x600000, RW);
    CHECK(access8(b, LOAD, BARE_FREE, 0) == NO_VECTOR);
    CHECK((bare_pte(b, BARE_FREE) & (PTE_A | PTE_D)) == PTE_A);
    CHECK(access8(b, STORE, BARE_FREE, 0) == NO_VECTOR);
    CHECK((bare_pte(b, BARE_FREE) & (PTE_A | PTE_D)) == (PTE_A | PTE_D));
    bare_free(b);
}

static void test_flush(void)
{
    struct bare *b = new_machine();
    bare_put(b, 0x600000, 1);
    bare_put(b, 0x601000, 2);
    bare_map(b, BARE_FREE, 0x600000, RW);
    CHECK(access8(b, LOAD, BARE_FREE, 0) == NO_VECTOR && b->cpu->gpr[RAX] == 1);
    bare_map(b, BARE_FREE, 0x601000, RW);
    interp_flush_page(b->cpu, BARE_FREE + 123);
    CHECK(access8(b, LOAD, BARE_FREE, 0) == NO_VECTOR && b->cpu->gpr[RAX] == 2);
    bare_map(b, BARE_FREE, 0x600000, RW);
    interp_flush_tlb(b->cpu);
    CHECK(access8(b, LOAD, BARE_FREE, 0) == NO_VECTOR && b->cpu->gpr[RAX] == 1);
    /* More flushes than there are generations. */
    for (int i = 0; i < 10000; i++)
        interp_flush_tlb(b->cpu);
    CHECK(access8(b, LOAD, BARE_FREE, 0) == NO_VECTOR && b->cpu->gpr[RAX] == 1);
    bare_map(b, BARE_FREE, 0, 0);
    interp_flush_tlb(b->cpu);
    CHECK(access8(b, LOAD, BARE_FREE, 0) == VEC_PF && bare_fault_error(b) == 0);
    bare_free(b);
}

/* What the TLB holds for one privilege must not serve another. */
static void test_privilege(void)
{
    struct bare *b = new_machine();
    struct vcpu *cpu = b->cpu;
    bare_map(b, BARE_FREE, 0x600000, PTE_P | PTE_US);

    /* CR0.WP clear: the supervisor writes to read-only pages. */
    cpu->cr0 &= ~CR0_WP;
    CHECK(access8(b, STORE, BARE_FREE, 1) == NO_VECTOR);
    cpu->cr0 |= CR0_WP;
    CHECK(access8(b, STORE, BARE_FREE, 1) == VEC_PF && bare_fault_error(b) == (PF_P | PF_W));

    /* SMAP: the supervisor touches user pages only with EFLAGS.AC. The code's page is none. */
    bare_map(b, BARE_CODE, BARE_CODE, RW);
    for (unsigned i = 0; i < 16; i++)
        bare_map(b, BARE_STACK - i * PAGE_SIZE, BARE_STACK - i * PAGE_SIZE, RW);
    for (uint64_t at = 0; at < BARE_DATA; at += PAGE_SIZE)
        bare_map(b, at, at, RW);
    interp_flush_tlb(cpu);
    CHECK(access8(b, LOAD, BARE_FREE, 0) == NO_VECTOR);
    cpu->cr4 |= CR4_SMAP;
    CHECK(access8(b, LOAD, BARE_FREE, 0) == VEC_PF && bare_fault_error(b) == PF_P);
    cpu->rflags |= FLAG_AC;
    CHECK(access8(b, LOAD, BARE_FREE, 0) == NO_VECTOR);
    cpu->rflags &= ~FLAG_AC;
    CHECK(access8(b, LOAD, BARE_FREE, 0) == VEC_PF);
    bare_free(b);
}

static void test_canonical(void)
{
    struct bare *b = new_machine();
    CHECK(access8(b, LOAD, UINT64_C(0x0000800000000000), 0) == VEC_GP);
    CHECK(bare_fault_error(b) == 0 && bare_fault_rip(b, true) == BARE_CODE + LOAD);
    CHECK(access8(b, STORE, UINT64_C(0x00007ffffffffffc), 0) == VEC_GP);
    CHECK(access8(b, LOAD, UINT64_C(0xffff7fffffffffff), 0) == VEC_GP);
    bare_free(b);
}

/* Addresses without RAM or device read as all ones; half of an access may be one. */
static void test_no_ram(void)
{
    struct bare *b = new_machine();
    bare_map(b, BARE_FREE, 0x600000, RW);
    bare_map(b, BARE_FREE + PAGE_SIZE, BARE_RAM, RW);
    bare_put(b, 0x600000 + PAGE_SIZE - 8, 0);
    CHECK(access8(b, LOAD, BARE_FREE + PAGE_SIZE, 0) == NO_VECTOR);
    CHECK(b->cpu->gpr[RAX] == ~UINT64_C(0));
    CHECK(access8(b, LOAD, BARE_FREE + PAGE_SIZE - 4, 0) == NO_VECTOR);
    CHECK(b->cpu->gpr[RAX] == UINT64_C(0xffffffff00000000));
    CHECK(access8(b, STORE, BARE_FREE + PAGE_SIZE - 4, 0x1234567812345678) == NO_VECTOR);
    CHECK(bare_get(b, 0x600000 + PAGE_SIZE - 8) >> 32 == 0x12345678);
    CHECK(access8(b, LOCK_ADD, BARE_FREE + PAGE_SIZE, 1) == NO_VECTOR);
    bare_free(b);
}

int main(void)
{
    test_crossing();
    test_accessed_dirty();
    test_flush();
    test_privilege();
    test_canonical();
    test_no_ram();
    return check_result();
}
