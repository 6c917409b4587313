/*
 * The CPUID model. One table lists every feature that guests may be told of: where its bit is, what
 * can give it, and from which x86-64 level it belongs. Everything that is not in the table is off,
 * whatever the host has.
 *
 * docs/cpu-model.md has the reasons for what is said about speculation.
 */
#include "cpu/cpuid.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/machine.h"
#include "cpu/xstate.h"
#include "util/error.h"

enum reg { EAX, EBX, ECX, EDX };
enum source {
    HOST,     /* only where the host has it */
    SOFTWARE, /* the interpreter can do it on any host; KVM only where the host has it */
    DEVICE,   /* our own devices and MSRs: in any mode, on any host */
    ALWAYS,   /* a statement, not an ability */
};
enum { LEVEL_EXTRA = 9 }; /* beyond the levels: "host" and "max" only */

struct feature {
    const char *name; /* as in Linux's /proc/cpuinfo */
    uint32_t leaf;
    uint8_t subleaf, reg, bit, source, level;
};

static const struct feature features[] = {
    {"fpu", 1, 0, EDX, 0, HOST, 1},
    {"vme", 1, 0, EDX, 1, SOFTWARE, 1},
    {"de", 1, 0, EDX, 2, SOFTWARE, 1},
    {"pse", 1, 0, EDX, 3, SOFTWARE, 1},
    {"tsc", 1, 0, EDX, 4, SOFTWARE, 1},
    {"msr", 1, 0, EDX, 5, SOFTWARE, 1},
    {"pae", 1, 0, EDX, 6, SOFTWARE, 1},
    {"mce", 1, 0, EDX, 7, DEVICE, 1},
    {"cx8", 1, 0, EDX, 8, SOFTWARE, 1},
    {"apic", 1, 0, EDX, 9, DEVICE, 1},
    {"sep", 1, 0, EDX, 11, SOFTWARE, 1},
    {"mtrr", 1, 0, EDX, 12, DEVICE, 1},
    {"pge", 1, 0, EDX, 13, SOFTWARE, 1},
    {"mca", 1, 0, EDX, 14, DEVICE, 1},
    {"cmov", 1, 0, EDX, 15, SOFTWARE, 1},
    {"pat", 1, 0, EDX, 16, SOFTWARE, 1},
    {"pse36", 1, 0, EDX, 17, SOFTWARE, 1},
    {"clflush", 1, 0, EDX, 19, SOFTWARE, 1},
    {"mmx", 1, 0, EDX, 23, HOST, 1},
    {"fxsr", 1, 0, EDX, 24, HOST, 1},
    {"sse", 1, 0, EDX, 25, HOST, 1},
    {"sse2", 1, 0, EDX, 26, HOST, 1},
    {"pni", 1, 0, ECX, 0, HOST, 2},
    {"pclmulqdq", 1, 0, ECX, 1, HOST, LEVEL_EXTRA},
    {"ssse3", 1, 0, ECX, 9, HOST, 2},
    {"fma", 1, 0, ECX, 12, HOST, 3},
    {"cx16", 1, 0, ECX, 13, SOFTWARE, 2},
    {"pcid", 1, 0, ECX, 17, SOFTWARE, 1},
    {"sse4_1", 1, 0, ECX, 19, HOST, 2},
    {"sse4_2", 1, 0, ECX, 20, HOST, 2},
    {"x2apic", 1, 0, ECX, 21, DEVICE, 1},
    {"movbe", 1, 0, ECX, 22, SOFTWARE, 3},
    {"popcnt", 1, 0, ECX, 23, SOFTWARE, 2},
    {"tsc_deadline_timer", 1, 0, ECX, 24, DEVICE, 1},
    {"aes", 1, 0, ECX, 25, HOST, LEVEL_EXTRA},
    {"xsave", 1, 0, ECX, 26, HOST, 3},
    {"avx", 1, 0, ECX, 28, HOST, 3},
    {"f16c", 1, 0, ECX, 29, HOST, 3},
    {"rdrand", 1, 0, ECX, 30, HOST, LEVEL_EXTRA},
    {"hypervisor", 1, 0, ECX, 31, ALWAYS, 1},
    {"fsgsbase", 7, 0, EBX, 0, SOFTWARE, LEVEL_EXTRA},
    {"tsc_adjust", 7, 0, EBX, 1, DEVICE, 1},
    {"bmi1", 7, 0, EBX, 3, SOFTWARE, 3},
    {"avx2", 7, 0, EBX, 5, HOST, 3},
    {"smep", 7, 0, EBX, 7, SOFTWARE, 1},
    {"bmi2", 7, 0, EBX, 8, SOFTWARE, 3},
    {"erms", 7, 0, EBX, 9, SOFTWARE, LEVEL_EXTRA},
    {"invpcid", 7, 0, EBX, 10, SOFTWARE, 1},
    {"avx512f", 7, 0, EBX, 16, HOST, 4},
    {"avx512dq", 7, 0, EBX, 17, HOST, 4},
    {"rdseed", 7, 0, EBX, 18, HOST, LEVEL_EXTRA},
    {"adx", 7, 0, EBX, 19, SOFTWARE, LEVEL_EXTRA},
    {"zero_fcs_fds", 7, 0, EBX, 13, ALWAYS, 1},
    {"smap", 7, 0, EBX, 20, SOFTWARE, 1},
    {"avx512ifma", 7, 0, EBX, 21, HOST, LEVEL_EXTRA},
    {"clflushopt", 7, 0, EBX, 23, SOFTWARE, LEVEL_EXTRA},
    {"clwb", 7, 0, EBX, 24, SOFTWARE, LEVEL_EXTRA},
    {"avx512cd", 7, 0, EBX, 28, HOST, 4},
    {"sha_ni", 7, 0, EBX, 29, HOST, LEVEL_EXTRA},
    {"avx512bw", 7, 0, EBX, 30, HOST, 4},
    {"avx512vl", 7, 0, EBX, 31, HOST, 4},
    {"avx512vbmi", 7, 0, ECX, 1, HOST, LEVEL_EXTRA},
    {"umip", 7, 0, ECX, 2, SOFTWARE, 1},
    {"pku", 7, 0, ECX, 3, SOFTWARE, LEVEL_EXTRA},
    {"avx512_vbmi2", 7, 0, ECX, 6, HOST, LEVEL_EXTRA},
    {"gfni", 7, 0, ECX, 8, HOST, LEVEL_EXTRA},
    {"vaes", 7, 0, ECX, 9, HOST, LEVEL_EXTRA},
    {"vpclmulqdq", 7, 0, ECX, 10, HOST, LEVEL_EXTRA},
    {"avx512_vnni", 7, 0, ECX, 11, HOST, LEVEL_EXTRA},
    {"avx512_bitalg", 7, 0, ECX, 12, HOST, LEVEL_EXTRA},
    {"avx512_vpopcntdq", 7, 0, ECX, 14, HOST, LEVEL_EXTRA},
    {"rdpid", 7, 0, ECX, 22, SOFTWARE, LEVEL_EXTRA},
    {"fsrm", 7, 0, EDX, 4, SOFTWARE, LEVEL_EXTRA},
    {"avx512_vp2intersect", 7, 0, EDX, 8, HOST, LEVEL_EXTRA},
    {"avx_vnni", 7, 1, EAX, 4, HOST, LEVEL_EXTRA},
    {"avx512_bf16", 7, 1, EAX, 5, HOST, LEVEL_EXTRA},
    {"xsaveopt", 0xd, 1, EAX, 0, HOST, LEVEL_EXTRA},
    {"xsavec", 0xd, 1, EAX, 1, HOST, LEVEL_EXTRA},
    {"xgetbv1", 0xd, 1, EAX, 2, HOST, LEVEL_EXTRA},
    {"xsaves", 0xd, 1, EAX, 3, HOST, LEVEL_EXTRA},
    {"lahf_lm", 0x80000001, 0, ECX, 0, SOFTWARE, 2},
    {"abm", 0x80000001, 0, ECX, 5, SOFTWARE, 3},
    {"sse4a", 0x80000001, 0, ECX, 6, HOST, LEVEL_EXTRA},
    {"misalignsse", 0x80000001, 0, ECX, 7, HOST, LEVEL_EXTRA},
    {"3dnowprefetch", 0x80000001, 0, ECX, 8, SOFTWARE, LEVEL_EXTRA},
    {"syscall", 0x80000001, 0, EDX, 11, SOFTWARE, 1},
    {"nx", 0x80000001, 0, EDX, 20, SOFTWARE, 1},
    {"mmxext", 0x80000001, 0, EDX, 22, HOST, LEVEL_EXTRA},
    {"fxsr_opt", 0x80000001, 0, EDX, 25, HOST, LEVEL_EXTRA},
    {"pdpe1gb", 0x80000001, 0, EDX, 26, SOFTWARE, LEVEL_EXTRA},
    {"rdtscp", 0x80000001, 0, EDX, 27, SOFTWARE, LEVEL_EXTRA},
    {"lm", 0x80000001, 0, EDX, 29, SOFTWARE, 1},
    {"nonstop_tsc", 0x80000007, 0, EDX, 8, ALWAYS, 1},
    {"clzero", 0x80000008, 0, EBX, 0, SOFTWARE, LEVEL_EXTRA},
    {"xsaveerptr", 0x80000008, 0, EBX, 2, HOST, LEVEL_EXTRA},
};

/* AMD repeats these bits of leaf 1's EDX in leaf 0x80000001's. */
#define AMD_REPEATED UINT32_C(0x0183f3ff)

/* IA32_ARCH_CAPABILITIES: not affected by any of it (SDM vol. 4; the kernel's bugs.c says what each
 * saves). */
#define ARCH_CAPABILITIES                                                                          \
    (BIT64(0) /* RDCL_NO */ | BIT64(1) /* IBRS_ALL */ | BIT64(3) /* SKIP_L1DFL */ |                \
     BIT64(4) /* SSB_NO */ | BIT64(5) /* MDS_NO */ | BIT64(6) /* PSCHANGE_MC_NO */ |               \
     BIT64(8) /* TAA_NO */ | BIT64(13) | BIT64(14) | BIT64(15) /* SBDR, FBSDP, PSDP_NO */ |        \
     BIT64(20) /* BHI_NO */ | BIT64(24) /* PBRSB_NO */ | BIT64(26) /* GDS_NO */ |                  \
     BIT64(27) /* RFDS_NO */ | BIT64(62) /* ITS_NO */)
/* Where the processor runs the guest itself, these too: RSBA, FB_CLEAR, RRSBA. They name
 * weaknesses. The bits left out name MSRs that guests do not have. */
#define ARCH_CAPABILITIES_HOST (ARCH_CAPABILITIES | BIT64(2) | BIT64(17) | BIT64(19))

/* AMD's statements of the same kind: */
#define AMD_EXT_FEATURE_NO     (BIT(26) /* SSB_NO */ | BIT(29) /* BTC_NO */)
#define AMD_21_EAX                                                                                 \
    (BIT(0) /* no nested data breakpoints */ | BIT(2) /* LFENCE serializes */ |                    \
     BIT(6) /* null selector clears base */ | BIT(8) /* automatic IBRS */ | BIT(29) /* SRSO_NO */)
#define AMD_21_ECX       (BIT(1) | BIT(2)) /* TSA_SQ_NO, TSA_L1_NO */
#define INTEL_7_EDX      (BIT(26) /* SPEC_CTRL */ | BIT(29) /* ARCH_CAPABILITIES */)

/* The processor's defences, for guests that it runs itself: MD_CLEAR, SPEC_CTRL, STIBP, SSBD; IBPB,
 * IBRS, STIBP, always-on IBRS and STIBP, IBRS preferred, SSBD, IBPB_RET. */
#define INTEL_7_EDX_HOST (BIT(10) | BIT(26) | BIT(27) | BIT(31))
#define AMD_8_EBX_HOST                                                                             \
    (BIT(12) | BIT(14) | BIT(15) | BIT(16) | BIT(17) | BIT(18) | BIT(24) | BIT(30))

#define EFER_AUTOIBRS BIT64(21)

static struct cpuid_leaf host_leaf(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_leaf l = {.leaf = leaf, .subleaf = subleaf};
    uint32_t max = __get_cpuid_max(leaf & 0x80000000, NULL);
    if (leaf <= max)
        __cpuid_count(leaf, subleaf, l.eax, l.ebx, l.ecx, l.edx);
    return l;
}

static uint32_t *reg_of(struct cpuid_leaf *l, unsigned reg)
{
    uint32_t *const regs[] = {&l->eax, &l->ebx, &l->ecx, &l->edx};
    return regs[reg];
}

const struct cpuid_leaf *cpuid_find(const struct cpuid_table *table, uint32_t leaf,
                                    uint32_t subleaf)
{
    for (unsigned i = 0; i < table->count; i++)
        if (table->leaves[i].leaf == leaf && table->leaves[i].subleaf == subleaf)
            return &table->leaves[i];
    return NULL;
}

static struct cpuid_leaf *find_or_add(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < t->count; i++)
        if (t->leaves[i].leaf == leaf && t->leaves[i].subleaf == subleaf)
            return &t->leaves[i];
    if (t->count == CPUID_LEAVES_MAX)
        abort(); /* the tables below are too long for the array: a programming error */
    t->leaves[t->count] = (struct cpuid_leaf){.leaf = leaf, .subleaf = subleaf};
    return &t->leaves[t->count++];
}

static void add_leaf(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf, uint32_t a, uint32_t b,
                     uint32_t c, uint32_t d)
{
    struct cpuid_leaf *l = find_or_add(t, leaf, subleaf);
    l->eax = a;
    l->ebx = b;
    l->ecx = c;
    l->edx = d;
}

static bool host_has(const struct feature *f)
{
    struct cpuid_leaf l = host_leaf(f->leaf, f->subleaf);
    return *reg_of(&l, f->reg) >> f->bit & 1;
}

static bool can_give(const struct feature *f, enum cpuid_engine engine)
{
    if (f->source == ALWAYS || f->source == DEVICE ||
        (f->source == SOFTWARE && engine == CPUID_FOR_INTERP))
        return true;
    return host_has(f);
}

static void set_feature(struct cpuid_table *t, const struct feature *f, bool on)
{
    uint32_t *reg = reg_of(find_or_add(t, f->leaf, f->subleaf), f->reg);
    *reg = on ? *reg | BIT(f->bit) : *reg & ~BIT(f->bit);
}

static const struct feature *feature_named(const char *name, size_t length)
{
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
        if (strlen(features[i].name) == length && memcmp(features[i].name, name, length) == 0)
            return &features[i];
    return NULL;
}

/* The level that a model's name stands for, or 0. */
static unsigned model_level(const char *name, size_t length)
{
    static const struct {
        const char *name;
        unsigned level;
    } models[] = {{"host", LEVEL_EXTRA}, {"max", LEVEL_EXTRA}, {"x86-64-v1", 1},
                  {"x86-64-v2", 2},      {"x86-64-v3", 3},     {"x86-64-v4", 4}};
    for (unsigned i = 0; i < ARRAY_SIZE(models); i++)
        if (strlen(models[i].name) == length && memcmp(models[i].name, name, length) == 0)
            return models[i].level;
    return 0;
}

static int apply_changes(struct cpuid_table *t, const char *list, enum cpuid_engine engine,
                         struct tv_error *err)
{
    for (const char *p = list; *p == ',';) {
        p++;
        size_t length = strcspn(p, ",");
        const struct feature *f = length > 1 ? feature_named(p + 1, length - 1) : NULL;
        if (*p != '+' && *p != '-')
            return tv_fail(err, "--cpu: '%.*s': want +FEATURE or -FEATURE", (int)length, p);
        if (!f)
            return tv_fail(err, "--cpu: no feature '%.*s'; names are those of /proc/cpuinfo",
                           (int)(length - 1), p + 1);
        if (*p == '+' && !can_give(f, engine))
            return tv_fail(err, "--cpu: this host cannot give '%s' to guests in this mode",
                           f->name);
        set_feature(t, f, *p == '+');
        p += length;
    }
    return 0;
}

/* What makes no sense without something else goes with it. */
static void drop_dependents(struct cpuid_table *t)
{
    static const char *const needs[][2] = {
        {"avx", "xsave"},
        {"xsaveopt", "xsave"},
        {"xsavec", "xsave"},
        {"xsaves", "xsave"},
        {"xgetbv1", "xsave"},
        {"fma", "avx"},
        {"f16c", "avx"},
        {"avx2", "avx"},
        {"vaes", "avx"},
        {"vpclmulqdq", "avx"},
        {"avx_vnni", "avx2"},
        {"avx512f", "avx2"},
        {"avx512dq", "avx512f"},
        {"avx512cd", "avx512f"},
        {"avx512bw", "avx512f"},
        {"avx512vl", "avx512f"},
        {"avx512ifma", "avx512f"},
        {"avx512vbmi", "avx512f"},
        {"avx512_vbmi2", "avx512f"},
        {"avx512_vnni", "avx512f"},
        {"avx512_bitalg", "avx512f"},
        {"avx512_vpopcntdq", "avx512f"},
        {"avx512_vp2intersect", "avx512f"},
        {"avx512_bf16", "avx512f"},
        {"invpcid", "pcid"},
        {"pku", "xsave"},
        {"sse2", "sse"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(needs); i++) {
        const struct feature *f = feature_named(needs[i][0], strlen(needs[i][0]));
        const struct feature *base = feature_named(needs[i][1], strlen(needs[i][1]));
        if (!(*reg_of(find_or_add(t, base->leaf, base->subleaf), base->reg) >> base->bit & 1))
            set_feature(t, f, false);
    }
}

static bool has(const struct cpuid_table *t, const char *name)
{
    const struct feature *f = feature_named(name, strlen(name));
    struct cpuid_leaf *l = (struct cpuid_leaf *)cpuid_find(t, f->leaf, f->subleaf);
    return l && (*reg_of(l, f->reg) >> f->bit & 1);
}

static void add_identity(struct cpuid_table *t, unsigned vcpus)
{
    struct cpuid_leaf vendor = host_leaf(0, 0), version = host_leaf(1, 0);
    bool amd = t->vendor == VENDOR_AMD;
    add_leaf(t, 0, 0, amd ? 0xd : 0x16, vendor.ebx, vendor.ecx, vendor.edx);
    add_leaf(t, 1, 0, version.eax & 0x0fff3fff, 8u << 8 | vcpus << 16, 0, vcpus > 1 ? BIT(28) : 0);
    add_leaf(t, 0x80000000, 0, amd ? 0x80000021 : 0x80000008, amd ? vendor.ebx : 0,
             amd ? vendor.ecx : 0, amd ? vendor.edx : 0);
    for (uint32_t leaf = 0x80000002; leaf <= 0x80000006; leaf++) {
        struct cpuid_leaf l = host_leaf(leaf, 0);
        add_leaf(t, leaf, 0, l.eax, l.ebx, l.ecx, l.edx);
    }
    if (amd)
        find_or_add(t, 0x80000001, 0)->eax = version.eax & 0x0fff3fff;
}

/* One package, one core a vCPU, one thread a core; APIC IDs are the vCPUs' numbers. */
static void add_topology(struct cpuid_table *t, unsigned vcpus)
{
    unsigned shift = vcpus > 1 ? 32u - (unsigned)__builtin_clz(vcpus - 1) : 0;
    add_leaf(t, 0xb, 0, 0, 1, 0x100, 0);
    add_leaf(t, 0xb, 1, shift, vcpus, 0x201, 0);
    add_leaf(t, 0xb, 2, 0, 0, 2, 0);
    struct cpuid_leaf *size = find_or_add(t, 0x80000008, 0);
    size->eax = 48u << 8 | t->phys_bits;
    if (t->vendor == VENDOR_AMD) {
        size->ecx = (vcpus - 1) | shift << 12;
        size->ebx |= AMD_EXT_FEATURE_NO;
        if (vcpus > 1)
            find_or_add(t, 0x80000001, 0)->ecx |= BIT(1); /* CmpLegacy */
        return;
    }
    for (uint32_t sub = 0; sub < 8; sub++) {
        struct cpuid_leaf l = host_leaf(4, sub);
        if (!(l.eax & 31))
            break;
        bool shared = (l.eax >> 5 & 7) >= 3;
        add_leaf(t, 4, sub, (l.eax & 0x3fff) | (shared ? vcpus - 1 : 0) << 14 | (vcpus - 1) << 26,
                 l.ebx, l.ecx, l.edx);
    }
}

static void add_xsave(struct cpuid_table *t)
{
    struct cpuid_leaf *features1 = find_or_add(t, 0xd, 1);
    t->xcr0_supported = 0;
    if (!has(t, "xsave")) {
        features1->eax = 0;
        t->xcr0_supported = 1;
        return;
    }
    t->xcr0_supported = BIT64(XSTATE_X87) | BIT64(XSTATE_SSE);
    if (has(t, "avx"))
        t->xcr0_supported |= BIT64(XSTATE_AVX);
    if (has(t, "avx512f"))
        t->xcr0_supported |=
            BIT64(XSTATE_OPMASK) | BIT64(XSTATE_ZMM_HI256) | BIT64(XSTATE_HI16_ZMM);
    if (has(t, "pku"))
        t->xcr0_supported |= BIT64(XSTATE_PKRU);
    uint32_t size = (uint32_t)xstate_size(t->xcr0_supported);
    add_leaf(t, 0xd, 0, (uint32_t)t->xcr0_supported, size, size, 0);
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
        const struct xstate_component *c = xstate_component(i);
        if (t->xcr0_supported >> i & 1)
            add_leaf(t, 0xd, i, c->size, c->offset, c->aligned ? 2 : 0, 0);
    }
}

static void add_vendor_leaves(struct cpuid_table *t, uint64_t tsc_hz)
{
    if (t->vendor == VENDOR_AMD) {
        add_leaf(t, 0x80000021, 0, AMD_21_EAX, 0, AMD_21_ECX, 0);
        return;
    }
    find_or_add(t, 7, 0)->edx |= INTEL_7_EDX;
    t->arch_capabilities = ARCH_CAPABILITIES;
    uint32_t khz = (uint32_t)(tsc_hz / 1000), mhz = khz / 1000;
    add_leaf(t, 0x15, 0, 1000, khz, 1000000, 0); /* TSC = 1 MHz x kHz / 1000 */
    add_leaf(t, 0x16, 0, mhz, mhz, 100, 0);
}

static void set_supported_bits(struct cpuid_table *t)
{
    static const struct {
        const char *name;
        uint64_t cr4;
    } bits[] = {
        {"vme", CR4_VME | CR4_PVI}, {"tsc", CR4_TSD},           {"de", CR4_DE},
        {"pse", CR4_PSE},           {"pae", CR4_PAE},           {"mce", CR4_MCE},
        {"pge", CR4_PGE},           {"fxsr", CR4_OSFXSR},       {"sse", CR4_OSXMMEXCPT},
        {"umip", CR4_UMIP},         {"fsgsbase", CR4_FSGSBASE}, {"pcid", CR4_PCIDE},
        {"xsave", CR4_OSXSAVE},     {"smep", CR4_SMEP},         {"smap", CR4_SMAP},
        {"pku", CR4_PKE},
    };
    t->cr4_supported = CR4_PCE;
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
        if (has(t, bits[i].name))
            t->cr4_supported |= bits[i].cr4;
    t->efer_supported = has(t, "syscall") ? EFER_SCE : 0;
    t->efer_supported |= has(t, "lm") ? EFER_LME | EFER_LMA : 0;
    t->efer_supported |= has(t, "nx") ? EFER_NXE : 0;
    t->efer_supported |= has(t, "fxsr_opt") ? EFER_FFXSR : 0;
    t->efer_supported |= CPUID_HAS(t, 0x80000021, 0, eax, 8) ? EFER_AUTOIBRS : 0;
}

int cpuid_build(struct cpuid_table *t, const char *model, enum cpuid_engine engine, unsigned vcpus,
                uint64_t tsc_hz, struct tv_error *err)
{
    memset(t, 0, sizeof *t);
    size_t length = strcspn(model, ",");
    unsigned level = model_level(model, length);
    if (!level)
        return tv_fail(err, "--cpu: no processor '%.*s'; want host, max or x86-64-v1 to x86-64-v4",
                       (int)length, model);

    struct cpuid_leaf vendor = host_leaf(0, 0);
    t->vendor = vendor.ebx == signature_INTEL_ebx ? VENDOR_INTEL : VENDOR_AMD;
    t->strict = level < LEVEL_EXTRA;
    t->phys_bits = MIN(host_leaf(0x80000008, 0).eax & 0xff, PHYS_BITS_MAX);
    if (t->phys_bits < 36)
        t->phys_bits = 40;
    add_identity(t, vcpus);
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        const struct feature *f = &features[i];
        if (level < LEVEL_EXTRA && f->level <= level && !can_give(f, engine))
            return tv_fail(err, "--cpu %.*s: this host has no '%s'", (int)length, model, f->name);
        set_feature(t, f, f->level <= level && can_give(f, engine));
    }
    if (apply_changes(t, model + length, engine, err) < 0)
        return -1;
    drop_dependents(t);
    if (t->vendor == VENDOR_AMD)
        find_or_add(t, 0x80000001, 0)->edx |= find_or_add(t, 1, 0)->edx & AMD_REPEATED;
    add_topology(t, vcpus);
    add_xsave(t);
    find_or_add(t, 7, 0)->eax = 1;
    add_vendor_leaves(t, tsc_hz);
    set_supported_bits(t);
    return 0;
}

void cpuid_set_hypervisor(struct cpuid_table *t, enum tv_hypervisor hypervisor, uint64_t tsc_hz)
{
    static const char signatures[][13] = {
        [TV_HYPERVISOR_VMWARE] = "VMwareVMware", [TV_HYPERVISOR_TRIVISOR] = "TrivisorVMM"};
    if (hypervisor == TV_HYPERVISOR_NONE) {
        set_feature(t, feature_named("hypervisor", strlen("hypervisor")), false);
        return;
    }
    uint32_t words[3]; /* 12 characters, in EBX, ECX and EDX */
    memcpy(words, signatures[hypervisor], sizeof words);
    add_leaf(t, 0x40000000, 0, 0x40000010, words[0], words[1], words[2]);
    /* TSC and APIC timer in kHz. VMware's bits for VMCALL and VMMCALL in place of the backdoor's
     * port stay clear: there is no such call here. */
    add_leaf(t, 0x40000010, 0, (uint32_t)(tsc_hz / 1000), APIC_TIMER_HZ / 1000, 0, 0);
}

static struct cpuid_leaf leaf_among(const struct cpuid_leaf *leaves, unsigned count, uint32_t leaf,
                                    uint32_t subleaf)
{
    for (unsigned i = 0; i < count; i++)
        if (leaves[i].leaf == leaf && leaves[i].subleaf == subleaf)
            return leaves[i];
    return (struct cpuid_leaf){.leaf = leaf, .subleaf = subleaf};
}

/* A guest that runs on the processor has its weaknesses, and needs its defences. */
static void limit_speculation(struct cpuid_table *t, const struct cpuid_leaf *can, unsigned count,
                              uint64_t arch_capabilities)
{
    struct cpuid_leaf can_7 = leaf_among(can, count, 7, 0);
    if (t->vendor == VENDOR_AMD) {
        struct cpuid_leaf can_8 = leaf_among(can, count, 0x80000008, 0);
        struct cpuid_leaf can_21 = leaf_among(can, count, 0x80000021, 0);
        struct cpuid_leaf *l = find_or_add(t, 0x80000008, 0);
        l->ebx = (l->ebx & (~AMD_EXT_FEATURE_NO | can_8.ebx)) | (can_8.ebx & AMD_8_EBX_HOST);
        l = find_or_add(t, 0x80000021, 0);
        l->eax &= can_21.eax;
        l->ecx &= can_21.ecx;
        return;
    }
    struct cpuid_leaf *l = find_or_add(t, 7, 0);
    l->edx = (l->edx & ~INTEL_7_EDX) | (can_7.edx & INTEL_7_EDX_HOST);
    t->arch_capabilities = arch_capabilities & ARCH_CAPABILITIES_HOST;
    if (t->arch_capabilities)
        l->edx |= BIT(29);
}

int cpuid_limit(struct cpuid_table *t, const struct cpuid_leaf *can, unsigned count,
                uint64_t arch_capabilities, struct tv_error *err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        const struct feature *f = &features[i];
        struct cpuid_leaf l = leaf_among(can, count, f->leaf, f->subleaf);
        bool ours = f->source == DEVICE || f->source == ALWAYS;
        if (ours || !has(t, f->name) || (*reg_of(&l, f->reg) >> f->bit & 1))
            continue;
        if (t->strict)
            return tv_fail(err, "--cpu: this mode cannot give '%s' on this host", f->name);
        set_feature(t, f, false);
    }
    drop_dependents(t);
    if (t->vendor == VENDOR_AMD)
        find_or_add(t, 0x80000001, 0)->edx &= find_or_add(t, 1, 0)->edx | ~AMD_REPEATED;
    for (unsigned i = 0; i < t->count;) {
        if (t->leaves[i].leaf == 0xd && t->leaves[i].subleaf != 1)
            t->leaves[i] = t->leaves[--t->count];
        else
            i++;
    }
    limit_speculation(t, can, count, arch_capabilities);
    add_xsave(t);
    set_supported_bits(t);
    return 0;
}

static uint32_t compacted_size(uint64_t components)
{
    uint32_t size = XSAVE_AREA_START;
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
        const struct xstate_component *c = xstate_component(i);
        if (components >> i & 1)
            size = (c->aligned ? ALIGN_UP(size, 64u) : size) + c->size;
    }
    return size;
}

struct cpuid_leaf cpuid_query(const struct vcpu *cpu, uint32_t leaf, uint32_t subleaf)
{
    bool by_subleaf = leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd;
    const struct cpuid_leaf *found =
        cpuid_find(&cpu->machine->cpuid, leaf, by_subleaf ? subleaf : 0);
    struct cpuid_leaf l = found ? *found : (struct cpuid_leaf){.leaf = leaf, .subleaf = subleaf};
    switch (leaf) {
    case 1:
        l.ebx |= cpu->index << 24;
        l.ecx |= cpu->cr4 & CR4_OSXSAVE ? BIT(27) : 0;
        break;
    case 7:
        if (subleaf == 0)
            l.ecx |= cpu->cr4 & CR4_PKE ? BIT(4) : 0;
        break;
    case 0xb:
        l.edx = cpu->index;
        l.ecx = (l.ecx & ~0xffu) | (subleaf & 0xff);
        break;
    case 0xd:
        if (subleaf == 0 && found)
            l.ebx = (uint32_t)xstate_size(cpu->xcr0);
        else if (subleaf == 1 && found && l.eax)
            l.ebx = compacted_size(cpu->xcr0 | cpu->xss);
        break;
    default:
        break;
    }
    return l;
}
