/* Real mode, 16- and 32-bit segments: address and stack sizes, limits, wrapping. */
#include "bare.h"

GUEST(real_sum, ".code16\n"
                "movw $0x1234, %ax\n pushw %ax\n popw %bx\n"
                "movw %bx, (%si)\n addw $1, 2(%bp,%si)\n"
                "movl $0x89abcdef, %eax\n pushl %eax\n popl %ecx\n"
                "call 1f\n hlt\n"
                "1: movb $7, %dh\n ret\n"
                ".code64\n");

static struct bare *new_real(void)
{
    struct bare *b = bare_new();
    struct vcpu *cpu = b->cpu;
    cpu->cr0 = CR0_ET;
    cpu->cr4 = cpu->efer = cpu->cr3 = 0;
    for (unsigned s = 0; s < SREGS; s++)
        cpu->seg[s] = (struct segment){0x4000, 0x93, 0xffff, 0x40000};
    return b;
}

static void test_real(void)
{
    struct bare *b = new_real();
    struct vcpu *cpu = b->cpu;
    bare_load(b, 0x40000, real_sum);
    cpu->seg[DS].base = 0x50000;
    cpu->gpr[RSP] = 0xdead0000; /* SP = 0: the first push wraps */
    cpu->gpr[RSI] = 0xffff0010;
    cpu->gpr[RBP] = 0xffff0100;
    bare_put(b, 0x40112, 0xffff);
    CHECK(bare_run(b, 0) == NO_VECTOR);
    CHECK((uint16_t)cpu->gpr[RBX] == 0x1234);
    CHECK((bare_get(b, 0x50010) & 0xffff) == 0x1234);
    CHECK((bare_get(b, 0x40112) & 0xffff) == 0);   /* BP addresses through SS */
    CHECK((bare_get(b, 0x4fff8) >> 48) != 0x1234); /* overwritten by the PUSHL and the CALL */
    CHECK(cpu->gpr[RCX] == 0x89abcdef);
    CHECK((cpu->gpr[RDX] >> 8 & 0xff) == 7);
    CHECK(cpu->gpr[RSP] == 0xdead0000);
    bare_free(b);
}

/* A jump over the end of a 64 KiB segment wraps IP; relative addressing by 16 bits. */
GUEST(wrap_low, ".code16\n movw $5, %cx\n hlt\n.code64\n");
GUEST(wrap_high, ".code16\n.byte 0xe9, 0x0d, 0x00\n.code64\n"); /* at fff0: to 10000 = 0 */

static void test_wrap(void)
{
    struct bare *b = new_real();
    bare_load(b, 0x40000, wrap_low);
    bare_load(b, 0x4fff0, wrap_high);
    CHECK(bare_run(b, 0xfff0) == NO_VECTOR);
    CHECK((uint16_t)b->cpu->gpr[RCX] == 5);
    CHECK(b->cpu->rip == 4);
    bare_free(b);
}

GUEST(code32, ".code32\n"
              "movl $0x11223344, (%ebx)\n"
              "movw (%ebx), %ax\n"
              "pushl $-2\n popl %ecx\n pushw $7\n popw %dx\n"
              "leal 4(%ebx,%ebx), %esi\n"
              "hlt\n"
              "nop; nop; nop\n"
              "movl %fs:4, %eax\n hlt\n" /* 0x1e */
              ".code64\n");

static void test_protected(void)
{
    struct bare *b = bare_new();
    struct vcpu *cpu = b->cpu;
    cpu->cr0 = CR0_PE | CR0_ET;
    cpu->cr4 = cpu->efer = cpu->cr3 = 0;
    for (unsigned s = 0; s < SREGS; s++)
        cpu->seg[s] = (struct segment){16, 0x93 | SEG_DB | SEG_G, 0xffffffff, 0};
    cpu->seg[CS] = (struct segment){8, 0x9b | SEG_DB | SEG_G, 0xffffffff, 0};
    bare_load(b, BARE_CODE, code32);
    for (int flat = 1; flat >= 0; flat--) {
        cpu->seg[DS].base = flat ? 0 : 0x1000;
        cpu->gpr[RBX] = BARE_DATA;
        CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
        CHECK((uint32_t)bare_get(b, BARE_DATA + cpu->seg[DS].base) == 0x11223344);
        CHECK((uint16_t)cpu->gpr[RAX] == 0x3344);
        CHECK(cpu->gpr[RCX] == 0xfffffffe && (uint16_t)cpu->gpr[RDX] == 7);
        CHECK(cpu->gpr[RSI] == 2 * BARE_DATA + 4);
        CHECK(cpu->gpr[RSP] == BARE_STACK);
    }
    bare_free(b);
}

int main(void)
{
    test_real();
    test_wrap();
    test_protected();
    return check_result();
}
