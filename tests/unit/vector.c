/* Vector instructions where the comparison with the processor cannot look: exceptions of the
 * kernel's choice, page crossings and faults midway, more thunks than their memory holds. */
#include "bare.h"
#include "cpu/xstate.h"
#include "interp/op.h"

#define RW (PTE_P | PTE_RW)

static struct bare *new_machine(void)
{
    struct bare *b = bare_new();
    struct vcpu *cpu = b->cpu;
    cpu->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    cpu->xcr0 = b->m->cpuid.xcr0_supported;
    cpu->fpu.fx.fcw = 0x37f;
    cpu->fpu.fx.mxcsr = 0x1f80;
    cpu->gpr[RSP] = BARE_STACK;
    return b;
}

static bool has_avx2(const struct bare *b)
{
    return CPUID_HAS(&b->m->cpuid, 7, 0, ebx, 5) && (b->cpu->xcr0 & 4);
}

static bool has_avx512(const struct bare *b)
{
    return CPUID_HAS(&b->m->cpuid, 7, 0, ebx, 16) && (b->cpu->xcr0 & 0xe0) == 0xe0;
}

static uint64_t lane64(const struct vcpu *cpu, unsigned reg, unsigned lane)
{
    uint64_t value;
    memcpy(&value, cpu->fpu.zmm[reg] + 8 * lane, 8);
    return value;
}

GUEST(load16, "movups (%rbx), %xmm1\n hlt\n");
GUEST(store16, "movups %xmm1, (%rbx)\n hlt\n");
GUEST(aligned16, "movaps (%rbx), %xmm1\n hlt\n");

static void test_crossing(void)
{
    struct bare *b = new_machine();
    const uint64_t first = 0x600000, second = 0x680000, at = BARE_FREE + PAGE_SIZE - 8;
    bare_map(b, BARE_FREE, first, RW);
    bare_map(b, BARE_FREE + PAGE_SIZE, second, RW);
    bare_load(b, BARE_CODE, load16);
    bare_load(b, BARE_CODE + 0x100, store16);
    bare_load(b, BARE_CODE + 0x200, aligned16);
    bare_put(b, first + PAGE_SIZE - 8, 0x1111111111111111);
    bare_put(b, second, 0x2222222222222222);
    b->cpu->gpr[RBX] = at;
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    CHECK(lane64(b->cpu, 1, 0) == 0x1111111111111111 && lane64(b->cpu, 1, 1) == 0x2222222222222222);
    memset(b->cpu->fpu.zmm[1], 0x33, 16);
    CHECK(bare_run(b, BARE_CODE + 0x100) == NO_VECTOR);
    CHECK(bare_get(b, first + PAGE_SIZE - 8) == 0x3333333333333333);
    CHECK(bare_get(b, second) == 0x3333333333333333);

    /* No part of a store happens where the second page forbids it. */
    bare_map(b, BARE_FREE + PAGE_SIZE, second, PTE_P);
    interp_flush_page(b->cpu, BARE_FREE + PAGE_SIZE);
    b->cpu->cr0 |= CR0_WP;
    memset(b->cpu->fpu.zmm[1], 0x44, 16);
    CHECK(bare_run(b, BARE_CODE + 0x100) == VEC_PF);
    CHECK(b->cpu->cr2 == BARE_FREE + PAGE_SIZE);
    CHECK(bare_get(b, first + PAGE_SIZE - 8) == 0x3333333333333333);

    b->cpu->gpr[RBX] = BARE_DATA + 8;
    CHECK(bare_run(b, BARE_CODE + 0x200) == VEC_GP);
    bare_free(b);
}

GUEST(divide, "divps %xmm2, %xmm1\n hlt\n");

/* Division by zero: the flag is set, the destination is not, and #XM or #UD follows. */
static void test_simd_exception(void)
{
    struct bare *b = new_machine();
    struct vcpu *cpu = b->cpu;
    bare_load(b, BARE_CODE, divide);
    const float ones[4] = {1, 1, 1, 1};
    memcpy(cpu->fpu.zmm[1], ones, 16);
    memset(cpu->fpu.zmm[2], 0, 64);
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR); /* masked: infinity */
    CHECK(cpu->fpu.fx.mxcsr == 0x1f84 && (uint32_t)lane64(cpu, 1, 0) == 0x7f800000);

    for (int handled = 0; handled < 2; handled++) {
        cpu->gpr[RSP] = BARE_STACK;
        cpu->cr4 = handled ? cpu->cr4 | CR4_OSXMMEXCPT : cpu->cr4 & ~CR4_OSXMMEXCPT;
        memcpy(cpu->fpu.zmm[1], ones, 16);
        cpu->fpu.fx.mxcsr = 0x1d80; /* ZE not masked */
        CHECK(bare_run(b, BARE_CODE) == (handled ? VEC_XM : VEC_UD));
        CHECK(bare_fault_rip(b, false) == BARE_CODE);
        CHECK(cpu->fpu.fx.mxcsr == 0x1d84 && !memcmp(cpu->fpu.zmm[1], ones, 16));
    }
    /* The test's own unit was not touched. */
    volatile float one = 1, zero = 0;
    CHECK(one / zero > 1e30f && __builtin_ia32_stmxcsr() >> 7 == 0x3f);
    bare_free(b);
}

GUEST(reciprocal, "fld1\n fldz\n fdivrp\n nop\n fwait\n hlt\n");

/* An x87 exception waits for the next instruction; its pointers are the guest's. */
static void test_x87_exception(void)
{
    struct bare *b = new_machine();
    struct vcpu *cpu = b->cpu;
    bare_load(b, BARE_CODE, reciprocal);
    cpu->cr0 |= CR0_NE;
    cpu->fpu.fx.fcw = 0x37b; /* ZM not set */
    CHECK(bare_run(b, BARE_CODE) == VEC_MF);
    CHECK(bare_fault_rip(b, false) == BARE_CODE + 7);
    CHECK(cpu->fpu.fx.fip == BARE_CODE + 4);
    CHECK((cpu->fpu.fx.fsw & 0x84) == 0x84);
    CHECK(cpu->fpu.fcs == cpu->seg[CS].selector);
    bare_free(b);
}

GUEST(disabled, "paddd %xmm1, %xmm2\n hlt\n");
GUEST(disabled_avx, "vpaddd %xmm1, %xmm2, %xmm2\n hlt\n");

static void test_disabled(void)
{
    struct bare *b = new_machine();
    struct vcpu *cpu = b->cpu;
    bare_load(b, BARE_CODE, disabled);
    bare_load(b, BARE_CODE + 0x100, disabled_avx);
    uint64_t cr0 = cpu->cr0, cr4 = cpu->cr4, xcr0 = cpu->xcr0;
    cpu->cr0 = cr0 | CR0_TS;
    CHECK(bare_run(b, BARE_CODE) == VEC_NM);
    cpu->cr0 = cr0 | CR0_EM | CR0_TS;
    CHECK(bare_run(b, BARE_CODE) == VEC_UD);
    cpu->cr0 = cr0;
    cpu->cr4 = cr4 & ~CR4_OSFXSR;
    CHECK(bare_run(b, BARE_CODE) == VEC_UD);
    cpu->cr4 = cr4;
    if (has_avx2(b)) {
        CHECK(bare_run(b, BARE_CODE + 0x100) == NO_VECTOR);
        cpu->xcr0 = 3;
        CHECK(bare_run(b, BARE_CODE + 0x100) == VEC_UD);
        cpu->xcr0 = xcr0;
        cpu->cr4 = cr4 & ~CR4_OSXSAVE;
        CHECK(bare_run(b, BARE_CODE + 0x100) == VEC_UD);
    }
    bare_free(b);
}

GUEST(gather, "vpgatherdd %ymm2, (%rbx,%ymm1,1), %ymm0\n hlt\n");

/* A gather that faults keeps what it has done and can go on. */
static void test_gather_restart(void)
{
    struct bare *b = new_machine();
    struct vcpu *cpu = b->cpu;
    if (!has_avx2(b)) {
        bare_free(b);
        return;
    }
    bare_load(b, BARE_CODE, gather);
    bare_map(b, BARE_FREE, 0x600000, RW);
    for (unsigned i = 0; i < 8; i++) {
        uint32_t index = i < 3 ? 4 * i : (uint32_t)PAGE_SIZE + 4 * i;
        memcpy(cpu->fpu.zmm[1] + 4 * i, &index, 4);
        bare_put(b, 0x600000 + 4 * i, 0x100 + i);
    }
    memset(cpu->fpu.zmm[2], 0xff, 32);
    cpu->gpr[RBX] = BARE_FREE;
    CHECK(bare_run(b, BARE_CODE) == VEC_PF);
    CHECK(cpu->cr2 == BARE_FREE + PAGE_SIZE + 12);
    CHECK(lane64(cpu, 0, 0) == 0x0000010100000100);
    CHECK(lane64(cpu, 2, 0) == 0 && lane64(cpu, 2, 1) == 0xffffffff00000000);

    bare_map(b, BARE_FREE + PAGE_SIZE, 0x680000, RW);
    interp_flush_page(cpu, BARE_FREE + PAGE_SIZE);
    cpu->gpr[RSP] = BARE_STACK;
    memset(cpu->fpu.zmm[0], 0xee, 8); /* must not be read again */
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    CHECK(lane64(cpu, 0, 0) == 0xeeeeeeeeeeeeeeee && lane64(cpu, 2, 1) == 0);
    bare_free(b);
}

GUEST(masked_store, "vmovdqu32 %zmm1, (%rbx){%k1}\n hlt\n");
GUEST(masked_load, "vmovdqu32 (%rbx), %zmm2{%k1}{z}\n hlt\n");

/* Elements that the mask leaves out may lie where nothing is. */
static void test_fault_suppression(void)
{
    struct bare *b = new_machine();
    struct vcpu *cpu = b->cpu;
    if (!has_avx512(b)) {
        bare_free(b);
        return;
    }
    bare_load(b, BARE_CODE, masked_store);
    bare_load(b, BARE_CODE + 0x100, masked_load);
    bare_map(b, BARE_FREE, 0x600000, RW);
    memset(cpu->fpu.zmm[1], 0x77, 64);
    cpu->gpr[RBX] = BARE_FREE + PAGE_SIZE - 16; /* four elements are there */
    for (unsigned round = 0; round < 2; round++) {
        cpu->fpu.k[1] = 0x5;
        CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
        CHECK(bare_get(b, 0x600000 + PAGE_SIZE - 16) == 0x77777777);
        CHECK(bare_run(b, BARE_CODE + 0x100) == NO_VECTOR);
        CHECK(lane64(cpu, 2, 0) == 0x77777777 && lane64(cpu, 2, 2) == 0);
    }
    cpu->fpu.k[1] = 0x15;
    bare_put(b, 0x600000 + PAGE_SIZE - 16, 0);
    CHECK(bare_run(b, BARE_CODE) == VEC_PF);
    CHECK(cpu->cr2 == BARE_FREE + PAGE_SIZE && bare_get(b, 0x600000 + PAGE_SIZE - 16) == 0);
    cpu->fpu.k[1] = 0;
    cpu->gpr[RSP] = BARE_STACK;
    cpu->gpr[RBX] = BARE_FREE + 16 * PAGE_SIZE;
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    bare_free(b);
}

/* More different instructions than thunks fit: 256 immediates of PSHUFD by 64 pairs of registers.
 * Blocks whose thunks were dropped in between still work. */
static void test_many_thunks(void)
{
    struct bare *b = new_machine();
    struct vcpu *cpu = b->cpu;
    const uint8_t again[] = {0x66, 0x0f, 0x70, 0xca, 0x1b, 0xf4}; /* pshufd $0x1b, %xmm2, %xmm1 */
    physmem_write(b->m->mem, BARE_CODE, again, sizeof again);
    const uint64_t data[2] = {0x1111111122222222, 0x3333333344444444};
    memcpy(cpu->fpu.zmm[2], data, 16);
    for (unsigned pair = 0; pair < 64; pair++) {
        uint8_t code[256 * 5 + 1];
        for (unsigned i = 0; i < 256; i++) {
            const uint8_t one[] = {0x66, 0x0f, 0x70, (uint8_t)(0xc0 | pair), (uint8_t)i};
            memcpy(code + 5 * i, one, 5);
        }
        code[sizeof code - 1] = 0xf4;
        physmem_write(b->m->mem, BARE_CODE + 0x10000 + pair * 0x1000, code, sizeof code);
        CHECK(bare_run(b, BARE_CODE + 0x10000 + pair * 0x1000) == NO_VECTOR);
        memcpy(cpu->fpu.zmm[2], data, 16);
        CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
        CHECK(lane64(cpu, 1, 0) == 0x4444444433333333 && lane64(cpu, 1, 1) == 0x2222222211111111);
    }
    bare_free(b);
}

int main(void)
{
    test_crossing();
    test_simd_exception();
    test_x87_exception();
    test_disabled();
    test_gather_restart();
    test_fault_suppression();
    test_many_thunks();
    return check_result();
}
