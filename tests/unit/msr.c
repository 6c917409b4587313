/* The MSRs: what can be read, written and must fault, on both vendors' processors. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cpu/machine.h"
#include "cpu/msr.h"

#define CANONICAL     UINT64_C(0xffff800000001000)
#define NOT_CANONICAL UINT64_C(0x0000900000001000)

static struct machine machine;
static struct vcpu *cpu;

static void reset(uint32_t vendor)
{
    struct tv_error err = {""};
    CHECK(cpuid_build(&machine.cpuid, "host", CPUID_FOR_INTERP, 1, 2000000000, &err) == 0);
    machine.cpuid.vendor = vendor;
    vclock_init(&machine.clock);
    memset(cpu, 0, sizeof *cpu);
    cpu->machine = &machine;
    cpu_reset(cpu, false);
}

static uint64_t get(uint32_t index)
{
    uint64_t value = 0xdead;
    CHECK(msr_read(cpu, index, &value));
    return value;
}

static bool faults(uint32_t index)
{
    uint64_t value;
    return !msr_read(cpu, index, &value);
}

static void test_addresses(void)
{
    static const uint32_t addresses[] = {MSR_SYSENTER_ESP,  MSR_SYSENTER_EIP, MSR_LSTAR,
                                         MSR_CSTAR,         MSR_FS_BASE,      MSR_GS_BASE,
                                         MSR_KERNEL_GS_BASE};
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
        CHECK(msr_write(cpu, addresses[i], CANONICAL + i));
        CHECK(!msr_write(cpu, addresses[i], NOT_CANONICAL));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++)
        CHECK(get(addresses[i]) == CANONICAL + i);
    CHECK(cpu->seg[FS].base == get(MSR_FS_BASE) && cpu->lstar == get(MSR_LSTAR));
}

static void test_efer(void)
{
    CHECK(msr_write(cpu, MSR_EFER, EFER_SCE | EFER_LME | EFER_NXE));
    CHECK(get(MSR_EFER) == (EFER_SCE | EFER_LME | EFER_NXE));
    CHECK(!msr_write(cpu, MSR_EFER, BIT64(1)));
    CHECK(!msr_write(cpu, MSR_EFER, BIT64(12))); /* no SVM */
    CHECK(!msr_write(cpu, MSR_EFER, BIT64(63)));
    /* LMA follows the paging mode, and LME cannot change under paging. */
    CHECK(msr_write(cpu, MSR_EFER, EFER_LME | EFER_LMA));
    CHECK(!(get(MSR_EFER) & EFER_LMA));
    cpu->cr0 |= CR0_PG | CR0_PE;
    cpu->efer |= EFER_LMA;
    CHECK(!msr_write(cpu, MSR_EFER, EFER_LMA));
    CHECK(msr_write(cpu, MSR_EFER, EFER_LME | EFER_SCE));
    CHECK(get(MSR_EFER) == (EFER_LME | EFER_LMA | EFER_SCE));
    cpu->cr0 = 0;
    cpu->efer = 0;
}

static void test_pat(void)
{
    CHECK(get(MSR_PAT) == UINT64_C(0x0007040600070406));
    CHECK(msr_write(cpu, MSR_PAT, UINT64_C(0x0001050607040001)));
    CHECK(!msr_write(cpu, MSR_PAT, 2));
    CHECK(!msr_write(cpu, MSR_PAT, UINT64_C(3) << 56));
    CHECK(!msr_write(cpu, MSR_PAT, 8));
    CHECK(get(MSR_PAT) == UINT64_C(0x0001050607040001));
}

static void test_mtrrs(void)
{
    uint64_t cap = get(MSR_MTRRCAP);
    CHECK((cap & 0xff) == 8);
    CHECK(!msr_write(cpu, MSR_MTRRCAP, cap));
    uint64_t mask = ((BIT64(machine.cpuid.phys_bits) - 1) & ~UINT64_C(0xfffffff)) | 0x800;
    for (uint32_t i = 0; i < 2 * (cap & 0xff); i++) {
        CHECK(msr_write(cpu, 0x200 + i, i % 2 ? mask : 6));
        CHECK(get(0x200 + i) == (i % 2 ? mask : 6));
    }
    static const uint32_t fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                     0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
    for (unsigned i = 0; i < ARRAY_SIZE(fixed); i++)
        CHECK(msr_write(cpu, fixed[i], UINT64_C(0x0606060606060606) - (i & 1)));
    for (unsigned i = 0; i < ARRAY_SIZE(fixed); i++)
        CHECK(cpu->mtrr_fixed[i] == UINT64_C(0x0606060606060606) - (i & 1));
    CHECK(msr_write(cpu, MSR_MTRR_DEF_TYPE, 0xc06));
    CHECK(!msr_write(cpu, MSR_MTRR_DEF_TYPE, 0x100));
    /* A memory type that does not exist, and reserved bits. */
    CHECK(!msr_write(cpu, MSR_MTRR_DEF_TYPE, 0xc02));
    CHECK(!msr_write(cpu, 0x250, 2));
    CHECK(!msr_write(cpu, 0x200, 7));
    CHECK(!msr_write(cpu, 0x200, 0x106));
    CHECK(!msr_write(cpu, 0x201, 0x400));
    CHECK(!msr_write(cpu, 0x201, BIT64(machine.cpuid.phys_bits)));
    CHECK(faults(0x210));
}

static void test_tsc(void)
{
    uint64_t before = get(MSR_TSC);
    CHECK(msr_write(cpu, MSR_TSC_ADJUST, 1000000000));
    uint64_t ahead = get(MSR_TSC);
    CHECK(ahead - before >= 1000000000 && ahead - before < 2000000000);
    CHECK(msr_write(cpu, MSR_TSC, 0));
    CHECK(get(MSR_TSC) < 1000000000);
    CHECK((int64_t)get(MSR_TSC_ADJUST) < 1000000000);
    CHECK(msr_write(cpu, MSR_TSC_ADJUST, 0));
    CHECK(get(MSR_TSC) >= before);
}

static void test_machine_check(void)
{
    unsigned banks = get(MSR_MCG_CAP) & 0xff;
    CHECK(banks == 10);
    for (uint32_t i = 0; i < 4 * banks; i++)
        CHECK(get(0x400 + i) == 0);
    CHECK(faults(0x400 + 4 * banks));
    CHECK(msr_write(cpu, 0x400, ~UINT64_C(0)));
    /* Status registers can be cleared, or set to all ones by nobody. */
    CHECK(msr_write(cpu, 0x401, 0));
}

static void test_unknown(void)
{
    static const uint32_t unknown[] = {0x2,        0x3ff,      0x480,      0xc0000fff,
                                       0xc0010000, 0xffffffff, 0x4b564d01, 0x99};
    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        CHECK(faults(unknown[i]));
        CHECK(!msr_write(cpu, unknown[i], 0));
    }
    /* Without a local APIC its registers are not there. */
    CHECK(faults(0x802) && faults(MSR_TSC_DEADLINE));
}

/* What the list names can be read and takes its own value back. */
static void test_list(void)
{
    unsigned count;
    const uint32_t *list = msr_list(&count);
    for (unsigned i = 0; i < count; i++) {
        if (list[i] == MSR_MISC_ENABLE && machine.cpuid.vendor == VENDOR_AMD)
            continue;
        CHECK(msr_write(cpu, list[i], get(list[i])));
        for (unsigned j = 0; j < i; j++)
            CHECK(list[i] != list[j]);
    }
}

/* Random accesses of a hostile guest: nothing worse than a fault. */
static void test_all_indices(void)
{
    static const uint32_t starts[] = {0, 0x40000000, 0xc0000000, 0xc0010000};
    for (unsigned i = 0; i < ARRAY_SIZE(starts); i++) {
        for (uint32_t n = 0; n < 0x2000; n++) {
            uint64_t value;
            msr_read(cpu, starts[i] + n, &value);
            msr_write(cpu, starts[i] + n, UINT64_C(0x123456789abcdef));
            msr_write(cpu, starts[i] + n, ~UINT64_C(0));
        }
    }
}

static void test_vendors(void)
{
    reset(VENDOR_INTEL);
    machine.cpuid.arch_capabilities = 1;
    for (unsigned i = 0; i < machine.cpuid.count; i++)
        if (machine.cpuid.leaves[i].leaf == 7)
            machine.cpuid.leaves[i].edx |= BIT(29);
    CHECK(get(MSR_ARCH_CAPABILITIES) & 1);
    CHECK(!msr_write(cpu, MSR_ARCH_CAPABILITIES, 0));
    CHECK(faults(0xc0011029));
    reset(VENDOR_AMD);
    CHECK(faults(MSR_ARCH_CAPABILITIES));
    CHECK(get(0xc0011029) & 2);
    CHECK(msr_write(cpu, 0xc0011029, 2));
}

int main(void)
{
    cpu = aligned_alloc(64, ALIGN_UP(sizeof *cpu, (size_t)64));
    static const uint32_t vendors[] = {VENDOR_INTEL, VENDOR_AMD};
    for (unsigned i = 0; i < ARRAY_SIZE(vendors); i++) {
        reset(vendors[i]);
        test_list();
        test_addresses();
        test_efer();
        test_pat();
        test_mtrrs();
        test_tsc();
        test_machine_check();
        test_unknown();
        test_all_indices();
    }
    test_vendors();
    free(cpu);
    return check_result();
}
