/* The CPUID models: they build, agree with themselves, and refuse what they cannot give. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cpu/machine.h"
#include "cpu/xstate.h"

static struct machine machine;
static struct vcpu *cpu;
static struct tv_error err;

static int build(const char *model, unsigned vcpus)
{
    err.message[0] = 0;
    if (cpuid_build(&machine.cpuid, model, CPUID_FOR_INTERP, vcpus, 2500000000, &err) < 0)
        return -1;
    cpuid_set_hypervisor(&machine.cpuid, TV_HYPERVISOR_VMWARE, 2500000000);
    return 0;
}

static void check_table(const struct cpuid_table *t, unsigned vcpus)
{
    CHECK(t->count > 10 && t->count <= CPUID_LEAVES_MAX);
    uint32_t max = cpuid_find(t, 0, 0)->eax, max_ext = cpuid_find(t, 0x80000000, 0)->eax;
    for (unsigned i = 0; i < t->count; i++) {
        const struct cpuid_leaf *l = &t->leaves[i];
        CHECK(cpuid_find(t, l->leaf, l->subleaf) == l); /* no leaf twice */
        if (l->leaf < 0x40000000)
            CHECK(l->leaf <= max);
        else if (l->leaf >= 0x80000000)
            CHECK(l->leaf <= max_ext);
    }
    /* What no guest may see: VMX, MWAIT, SVM, SGX, TSX, CET, LA57, performance counters. */
    CHECK(!CPUID_HAS(t, 1, 0, ecx, 5) && !CPUID_HAS(t, 1, 0, ecx, 3));
    CHECK(!CPUID_HAS(t, 0x80000001, 0, ecx, 2));
    CHECK(!CPUID_HAS(t, 7, 0, ebx, 2) && !CPUID_HAS(t, 7, 0, ebx, 4) &&
          !CPUID_HAS(t, 7, 0, ebx, 11));
    CHECK(!CPUID_HAS(t, 7, 0, ecx, 7) && !CPUID_HAS(t, 7, 0, ecx, 16) &&
          !CPUID_HAS(t, 7, 0, edx, 20));
    CHECK(!cpuid_find(t, 0xa, 0) || cpuid_find(t, 0xa, 0)->eax == 0);
    CHECK(CPUID_HAS(t, 1, 0, ecx, 31)); /* hypervisor */
    CHECK(cpuid_find(t, 0x40000000, 0)->eax == 0x40000010);
    const struct cpuid_leaf *timing = cpuid_find(t, 0x40000010, 0);
    CHECK(timing->eax == 2500000 && timing->ebx == 1000000 && timing->ecx == 0);
    CHECK((cpuid_find(t, 1, 0)->ebx >> 16 & 0xff) == vcpus);
    CHECK(cpuid_find(t, 0xb, 1)->ebx == vcpus);
    CHECK(UINT32_C(1) << cpuid_find(t, 0xb, 1)->eax >= vcpus);
    /* Whoever says AVX-512 has the state for it, and so on. */
    CHECK(!CPUID_HAS(t, 1, 0, ecx, 28) || (t->xcr0_supported & BIT64(XSTATE_AVX)));
    CHECK(!CPUID_HAS(t, 7, 0, ebx, 16) || (t->xcr0_supported & BIT64(XSTATE_HI16_ZMM)));
    CHECK(!CPUID_HAS(t, 1, 0, ecx, 26) == !(t->cr4_supported & CR4_OSXSAVE));
    CHECK(!CPUID_HAS(t, 7, 0, ebx, 20) == !(t->cr4_supported & CR4_SMAP));
    CHECK(!(t->cr4_supported & (CR4_LA57 | BIT64(13) | BIT64(23))));
    CHECK(!(t->efer_supported & BIT64(12)));
    /* More of them than RAM needs, and firmware that maps them all has no memory for its tables. */
    CHECK(t->phys_bits >= 36 && t->phys_bits <= 41);
    CHECK((cpuid_find(t, 0x80000008, 0)->eax & 0xff) == t->phys_bits);
}

static void test_models(void)
{
    static const char *const models[] = {"host",      "max",       "x86-64-v1",
                                         "x86-64-v2", "x86-64-v3", "x86-64-v4"};
    for (unsigned i = 0; i < ARRAY_SIZE(models); i++) {
        for (unsigned vcpus = 1; vcpus <= VCPUS_MAX; vcpus = vcpus * 2 + 1) {
            if (build(models[i], vcpus) < 0) {
                CHECK(i >= 2 && strstr(err.message, "this host has no")); /* an old host */
                break;
            }
            check_table(&machine.cpuid, vcpus);
        }
    }
    if (build("x86-64-v1", 1) == 0) {
        CHECK(!CPUID_HAS(&machine.cpuid, 1, 0, ecx, 28));         /* AVX */
        CHECK(!CPUID_HAS(&machine.cpuid, 1, 0, ecx, 19));         /* SSE4.1 */
        CHECK(CPUID_HAS(&machine.cpuid, 0x80000001, 0, edx, 29)); /* LM */
    }
    if (build("x86-64-v2", 1) == 0) {
        CHECK(CPUID_HAS(&machine.cpuid, 1, 0, ecx, 20));
        CHECK(!CPUID_HAS(&machine.cpuid, 7, 0, ebx, 5));
    }
}

static void test_changes(void)
{
    CHECK(build("host,-smap,-x2apic", 1) == 0);
    CHECK(!CPUID_HAS(&machine.cpuid, 7, 0, ebx, 20) && !CPUID_HAS(&machine.cpuid, 1, 0, ecx, 21));
    CHECK(!(machine.cpuid.cr4_supported & CR4_SMAP));
    CHECK(build("x86-64-v1,+smep,+bmi2", 1) == 0);
    CHECK(CPUID_HAS(&machine.cpuid, 7, 0, ebx, 7) && CPUID_HAS(&machine.cpuid, 7, 0, ebx, 8));
    /* What stands on something else goes with it. */
    CHECK(build("host,-xsave", 1) == 0);
    CHECK(!CPUID_HAS(&machine.cpuid, 1, 0, ecx, 28) && !CPUID_HAS(&machine.cpuid, 7, 0, ebx, 16));
    CHECK(machine.cpuid.xcr0_supported == 1 && !(machine.cpuid.cr4_supported & CR4_OSXSAVE));
    CHECK(build("host,-avx", 1) == 0);
    CHECK(!CPUID_HAS(&machine.cpuid, 7, 0, ebx, 5) && !(machine.cpuid.xcr0_supported & 0xe4));
    CHECK(build("host,-lm", 1) == 0);
    CHECK(!(machine.cpuid.efer_supported & EFER_LME));
}

/* Whom guests find. */
static void test_hypervisors(void)
{
    static const struct {
        const char *signature;
        enum tv_hypervisor hypervisor;
    } with_leaves[] = {{"VMwareVMware", TV_HYPERVISOR_VMWARE},
                       {"TrivisorVMM", TV_HYPERVISOR_TRIVISOR}};
    const struct cpuid_table *t = &machine.cpuid;
    for (unsigned i = 0; i < ARRAY_SIZE(with_leaves); i++) {
        CHECK(cpuid_build(&machine.cpuid, "host", CPUID_FOR_INTERP, 1, 2500000000, &err) == 0);
        cpuid_set_hypervisor(&machine.cpuid, with_leaves[i].hypervisor, 2500000000);
        check_table(t, 1);
        char signature[13] = "";
        const struct cpuid_leaf *l = cpuid_find(t, 0x40000000, 0);
        memcpy(signature, (const char *)l + offsetof(struct cpuid_leaf, ebx), 12);
        CHECK(strcmp(signature, with_leaves[i].signature) == 0);
    }
    CHECK(cpuid_build(&machine.cpuid, "host", CPUID_FOR_INTERP, 1, 2500000000, &err) == 0);
    cpuid_set_hypervisor(&machine.cpuid, TV_HYPERVISOR_NONE, 2500000000);
    CHECK(!CPUID_HAS(t, 1, 0, ecx, 31));
    CHECK(!cpuid_find(t, 0x40000000, 0) && !cpuid_find(t, 0x40000010, 0));
}

static void test_errors(void)
{
    static const struct {
        const char *model, *says;
    } bad[] = {
        {"", "no processor"},          {"pentium", "x86-64-v1 to x86-64-v4"},
        {"host,smap", "+FEATURE"},     {"host,", "+FEATURE"},
        {"host,+", "no feature"},      {"host,-nosuch", "no feature 'nosuch'"},
        {"hostile", "no processor"},   {"host,+vmx", "no feature"},
        {"x86-64-v5", "no processor"}, {"host,-smap,,", "+FEATURE"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        CHECK(build(bad[i].model, 1) < 0);
        if (!strstr(err.message, bad[i].says))
            fprintf(stderr, "%s: %s\n", bad[i].model, err.message);
        CHECK(strstr(err.message, bad[i].says));
    }
}

/* What follows the processor's state. */
static void test_query(void)
{
    CHECK(build("host", 4) == 0);
    cpu->index = 3;
    cpu->xcr0 = 1;
    CHECK(cpuid_query(cpu, 1, 0).ebx >> 24 == 3);
    CHECK(cpuid_query(cpu, 0xb, 0).edx == 3 && cpuid_query(cpu, 0xb, 7).edx == 3);
    CHECK(!(cpuid_query(cpu, 1, 0).ecx & BIT(27)));
    cpu->cr4 = CR4_OSXSAVE;
    CHECK(cpuid_query(cpu, 1, 0).ecx & BIT(27));
    CHECK(cpuid_query(cpu, 1, 77).eax == cpuid_query(cpu, 1, 0).eax);
    if (machine.cpuid.xcr0_supported > 3) {
        CHECK(cpuid_query(cpu, 0xd, 0).ebx == 576);
        cpu->xcr0 = 7;
        CHECK(cpuid_query(cpu, 0xd, 0).ebx == xstate_size(7));
        CHECK(cpuid_query(cpu, 0xd, 0).ecx == xstate_size(machine.cpuid.xcr0_supported));
    }
    CHECK(cpuid_query(cpu, 7, 99).ebx == 0);
    static const uint32_t hostile[] = {0x3fffffff, 0x7fffffff, 0x8fffffff, 0xffffffff, 0x40000005};
    for (unsigned i = 0; i < ARRAY_SIZE(hostile); i++)
        cpuid_query(cpu, hostile[i], hostile[i]);
}

/* An engine that can do nothing but what every processor can. */
static void test_limit(void)
{
    const struct cpuid_leaf can[] = {{1, 0, 0, 0, BIT(0), 0x178bfbff},
                                     {0x80000001, 0, 0, 0, 1, 0x2193fbff}};
    CHECK(build("host", 1) == 0);
    CHECK(cpuid_limit(&machine.cpuid, can, ARRAY_SIZE(can), 0, &err) == 0);
    check_table(&machine.cpuid, 1);
    CHECK(!CPUID_HAS(&machine.cpuid, 1, 0, ecx, 28) && machine.cpuid.xcr0_supported == 1);
    CHECK(!CPUID_HAS(&machine.cpuid, 7, 0, ebx, 20));
    CHECK(CPUID_HAS(&machine.cpuid, 1, 0, ecx, 21)); /* x2APIC is ours */
    /* A processor that says nothing of its weaknesses has them all. */
    CHECK(machine.cpuid.arch_capabilities == 0 && !CPUID_HAS(&machine.cpuid, 7, 0, edx, 29));
    CHECK(!CPUID_HAS(&machine.cpuid, 0x80000008, 0, ebx, 29));
    CHECK(!(machine.cpuid.efer_supported & BIT64(21)));
    if (build("x86-64-v2", 1) == 0)
        CHECK(cpuid_limit(&machine.cpuid, can, ARRAY_SIZE(can), 0, &err) < 0);
}

int main(void)
{
    cpu = aligned_alloc(64, ALIGN_UP(sizeof *cpu, (size_t)64));
    memset(cpu, 0, sizeof *cpu);
    cpu->machine = &machine;
    test_models();
    test_changes();
    test_hypervisors();
    test_errors();
    test_query();
    test_limit();
    free(cpu);
    return check_result();
}
