/* Self-modifying code, code changed by devices, and instructions that straddle pages. */
#include "bare.h"
#include "interp/op.h"

/* The store overwrites the immediate of an instruction further on in its own block. */
GUEST(within_block, "movl $0x22222222, within_block_patch - within_block_start + 0x400000 + 1\n"
                    "nop\n"
                    "within_block_patch: movl $0x11111111, %eax\n"
                    "hlt\n");

static void test_within_block(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE, within_block);
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    CHECK(b->cpu->gpr[RAX] == 0x22222222);
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    CHECK(b->cpu->gpr[RAX] == 0x22222222);
    bare_free(b);
}

/* A loop that counts up the immediate that it adds: 1 + 2 + ... + 10. */
GUEST(counting_loop, "xorl %eax, %eax\n movl $10, %ecx\n"
                     "1: counting_loop_add: addl $1, %eax\n"
                     "incb counting_loop_add - counting_loop_start + 0x400000 + 2\n"
                     "decl %ecx\n jnz 1b\n hlt\n");

static void test_loop(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE, counting_loop);
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    CHECK(b->cpu->gpr[RAX] == 55);
    bare_free(b);
}

GUEST(constant, "movl $1, %eax\n hlt\n");

static void test_device_write(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE, constant);
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR && b->cpu->gpr[RAX] == 1);
    CHECK(physmem_write(b->m->mem, BARE_CODE + 1, "\x02", 1));
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR && b->cpu->gpr[RAX] == 2);
    /* A write to the same page that changes nothing of the code. */
    CHECK(physmem_write(b->m->mem, BARE_CODE + 100, "\x02", 1));
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR && b->cpu->gpr[RAX] == 2);
    bare_free(b);
}

/* Copies a new function over an old one, byte by byte and with REP MOVSB, and calls it each time.
 */
GUEST(overwrite, "call *%rbx\n movl %eax, %r8d\n"
                 "movq %rbx, %rdi\n leaq 1f(%rip), %rsi\n movl $6, %ecx\n cld\n rep movsb\n"
                 "call *%rbx\n hlt\n"
                 "1: movl $7, %eax\n ret\n");
GUEST(old_function, "movl $5, %eax\n ret\n");

static void test_rep_movs(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE, overwrite);
    bare_load(b, BARE_DATA, old_function);
    b->cpu->gpr[RBX] = BARE_DATA;
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    CHECK(b->cpu->gpr[R8] == 5 && b->cpu->gpr[RAX] == 7);
    bare_free(b);
}

/* MOV EAX, imm32 with its first three bytes at the end of one page. */
static void test_straddle(void)
{
    static const uint8_t insn[] = {0xb8, 0x11, 0x22, 0x33, 0x44, 0xf4};
    const uint64_t rw = PTE_P | PTE_RW, first = 0x600000, second = 0x608000, other = 0x610000;
    const uint64_t rip = BARE_FREE + PAGE_SIZE - 3;
    struct bare *b = bare_new();
    bare_map(b, BARE_FREE, first, rw);
    bare_map(b, BARE_FREE + PAGE_SIZE, second, rw);
    physmem_write(b->m->mem, first + PAGE_SIZE - 3, insn, 3);
    physmem_write(b->m->mem, second, insn + 3, 3);
    CHECK(bare_run(b, rip) == NO_VECTOR && b->cpu->gpr[RAX] == 0x44332211);
    CHECK(bare_run(b, rip) == NO_VECTOR && b->cpu->gpr[RAX] == 0x44332211);

    /* The second page's bytes change, then the first's. */
    CHECK(physmem_write(b->m->mem, second + 1, "\x55", 1));
    CHECK(bare_run(b, rip) == NO_VECTOR && b->cpu->gpr[RAX] == 0x55332211);
    CHECK(physmem_write(b->m->mem, first + PAGE_SIZE - 1, "\x66", 1));
    CHECK(bare_run(b, rip) == NO_VECTOR && b->cpu->gpr[RAX] == 0x55336611);

    /* The second page is mapped to another. */
    physmem_write(b->m->mem, other, "\x99\x88\xf4", 3);
    bare_map(b, BARE_FREE + PAGE_SIZE, other, rw);
    interp_flush_page(b->cpu, BARE_FREE + PAGE_SIZE);
    CHECK(bare_run(b, rip) == NO_VECTOR && b->cpu->gpr[RAX] == 0x88996611);

    /* And gone: the fault is the second page's, at the instruction. */
    bare_map(b, BARE_FREE + PAGE_SIZE, 0, 0);
    interp_flush_page(b->cpu, BARE_FREE + PAGE_SIZE);
    b->cpu->gpr[RSP] = BARE_STACK;
    CHECK(bare_run(b, rip) == VEC_PF);
    CHECK(b->cpu->cr2 == BARE_FREE + PAGE_SIZE);
    CHECK(bare_fault_rip(b, true) == rip);
    bare_free(b);
}

/* A block that ends in front of a page, and goes on in the next one. */
static void test_page_end(void)
{
    const uint64_t rw = PTE_P | PTE_RW, rip = BARE_FREE + PAGE_SIZE - 2;
    struct bare *b = bare_new();
    bare_map(b, BARE_FREE, 0x600000, rw);
    bare_map(b, BARE_FREE + PAGE_SIZE, 0x608000, rw);
    physmem_write(b->m->mem, 0x600000 + PAGE_SIZE - 2, "\xff\xc0", 2); /* INC EAX */
    physmem_write(b->m->mem, 0x608000, "\xff\xc0\xf4", 3);
    b->cpu->gpr[RAX] = 0;
    CHECK(bare_run(b, rip) == NO_VECTOR && b->cpu->gpr[RAX] == 2);
    bare_map(b, BARE_FREE + PAGE_SIZE, 0, 0);
    interp_flush_page(b->cpu, BARE_FREE + PAGE_SIZE);
    CHECK(bare_run(b, rip) == VEC_PF && b->cpu->gpr[RAX] == 3);
    CHECK(bare_fault_rip(b, true) == BARE_FREE + PAGE_SIZE);
    bare_free(b);
}

static void test_length(void)
{
    struct bare *b = bare_new();
    uint8_t code[16];
    memset(code, 0x66, sizeof code);
    code[14] = 0x90, code[15] = 0xf4;
    CHECK(physmem_write(b->m->mem, BARE_CODE, code, sizeof code));
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    code[14] = 0x66, code[15] = 0x90;
    CHECK(physmem_write(b->m->mem, BARE_CODE, code, sizeof code));
    CHECK(bare_run(b, BARE_CODE) == VEC_GP);
    CHECK(bare_fault_rip(b, true) == BARE_CODE && bare_fault_error(b) == 0);
    bare_free(b);
}

int main(void)
{
    test_within_block();
    test_loop();
    test_device_write();
    test_rep_movs();
    test_straddle();
    test_page_end();
    test_length();
    return check_result();
}
