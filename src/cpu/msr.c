/* Model-specific registers: one table, and code for those that do something. */
#include "cpu/msr.h"

#include <inttypes.h>
#include <string.h>

#include "cpu/machine.h"
#include "dev/lapic.h"

#define ANY_BITS      (~UINT64_C(0))

enum msr_kind {
    MTRR,      /* as STORED, and the memory types in it must exist */
    STORED,    /* a field of struct vcpu; `mask` can be written, other bits are #GP */
    CANONICAL, /* the same, and the value must be a canonical address */
    CONSTANT,  /* `mask` is the value; writes are #GP */
    IGNORED,   /* reads as `mask`, writes are swallowed */
};
enum vendor_mask { INTEL = 1, AMD = 2, BOTH = 3 };

struct msr {
    uint32_t first, count; /* consecutive registers: consecutive fields */
    uint8_t kind, vendor;
    uint16_t offset; /* in struct vcpu */
    uint64_t mask;
};

#define FIELD(f) ((uint16_t)offsetof(struct vcpu, f))

#define MTRR_CAP                                                                                   \
    (8 | BIT64(8) | BIT64(10))  /* eight variable ranges, fixed ranges, write-combining */
#define MCG_CAP (10 | BIT64(8)) /* ten banks, MCG_CTL */

static const struct msr table[] = {
    {MSR_SYSENTER_CS, 1, STORED, BOTH, FIELD(sysenter_cs), UINT64_C(0xffffffff)},
    {MSR_SYSENTER_ESP, 1, CANONICAL, BOTH, FIELD(sysenter_esp), ANY_BITS},
    {MSR_SYSENTER_EIP, 1, CANONICAL, BOTH, FIELD(sysenter_eip), ANY_BITS},
    {MSR_STAR, 1, STORED, BOTH, FIELD(star), ANY_BITS},
    {MSR_LSTAR, 1, CANONICAL, BOTH, FIELD(lstar), ANY_BITS},
    {MSR_CSTAR, 1, CANONICAL, BOTH, FIELD(cstar), ANY_BITS},
    {MSR_SFMASK, 1, STORED, BOTH, FIELD(sfmask), UINT64_C(0xffffffff)},
    {MSR_FS_BASE, 1, CANONICAL, BOTH, FIELD(seg[FS].base), ANY_BITS},
    {MSR_GS_BASE, 1, CANONICAL, BOTH, FIELD(seg[GS].base), ANY_BITS},
    {MSR_KERNEL_GS_BASE, 1, CANONICAL, BOTH, FIELD(kernel_gs_base), ANY_BITS},
    {MSR_TSC_AUX, 1, STORED, BOTH, FIELD(tsc_aux), UINT64_C(0xffffffff)},
    {MSR_MISC_ENABLE, 1, STORED, INTEL, FIELD(misc_enable), UINT64_C(0x1)},
    {MSR_SPEC_CTRL, 1, STORED, BOTH, FIELD(spec_ctrl), UINT64_C(0x87)},
    {MSR_PRED_CMD, 1, IGNORED, BOTH, 0, 0},
    {MSR_MTRR_DEF_TYPE, 1, MTRR, BOTH, FIELD(mtrr_def_type), UINT64_C(0xcff)},
    {0x200, 16, MTRR, BOTH, FIELD(mtrr_phys), UINT64_C(0x000fffffffffffff)},
    {0x250, 1, MTRR, BOTH, FIELD(mtrr_fixed[0]), ANY_BITS},
    {0x258, 2, MTRR, BOTH, FIELD(mtrr_fixed[1]), ANY_BITS},
    {0x268, 8, MTRR, BOTH, FIELD(mtrr_fixed[3]), ANY_BITS},
    {MSR_MTRRCAP, 1, CONSTANT, BOTH, 0, MTRR_CAP},
    {MSR_MCG_CAP, 1, CONSTANT, BOTH, 0, MCG_CAP},
    {MSR_MCG_STATUS, 1, STORED, BOTH, FIELD(mcg_status), ANY_BITS},
    {0x17b, 1, IGNORED, BOTH, 0, ANY_BITS},
    {0x400, 40, STORED, BOTH, FIELD(mce_bank), ANY_BITS},
    {MSR_BIOS_SIGN_ID, 1, IGNORED, BOTH, 0, UINT64_C(0x0100000000000000)},
    {0x17, 1, CONSTANT, INTEL, 0, 0},                      /* PLATFORM_ID */
    {MSR_FEATURE_CONTROL, 1, CONSTANT, INTEL, 0, 1},       /* locked, nothing enabled */
    {0xce, 1, CONSTANT, INTEL, 0, 0},                      /* PLATFORM_INFO */
    {0x140, 1, CONSTANT, INTEL, 0, 0},                     /* MISC_FEATURE_ENABLES */
    {0x1d9, 1, IGNORED, BOTH, 0, 0},                       /* DEBUGCTL */
    {0x1db, 4, CONSTANT, BOTH, 0, 0},                      /* last branch and interrupt */
    {0xc0010010, 1, IGNORED, AMD, 0, 0},                   /* SYSCFG */
    {0xc0010015, 1, IGNORED, AMD, 0, UINT64_C(0x1000000)}, /* HWCR: TSC counts at P0 frequency */
    {0xc001001a, 1, IGNORED, AMD, 0, 0},                   /* TOP_MEM */
    {0xc001001d, 1, IGNORED, AMD, 0, 0},                   /* TOP_MEM2 */
    {0xc001001f, 1, IGNORED, AMD, 0, 0},                   /* NB_CFG */
    {0xc0010020, 1, IGNORED, AMD, 0, 0},                   /* PATCH_LOADER */
    {0xc0010055, 1, IGNORED, AMD, 0, 0},                   /* INT_PENDING */
    {0xc0010058, 1, IGNORED, AMD, 0, 0},                   /* MMIO configuration base */
    {0xc0010114, 1, CONSTANT, AMD, 0, BIT64(4)},           /* VM_CR: SVM disabled */
    {0xc0011020, 3, IGNORED, AMD, 0, 0},                   /* LS_CFG, IC_CFG */
    {0xc0011023, 1, IGNORED, AMD, 0, 0},                   /* DC_CFG */
    {0xc0011029, 1, IGNORED, AMD, 0, 2},                   /* DE_CFG: LFENCE serializes */
    {0xc001102a, 1, IGNORED, AMD, 0, 0},                   /* BU_CFG2 */
};

static const struct msr *find(const struct vcpu *cpu, uint32_t index)
{
    unsigned vendor = cpu->machine->cpuid.vendor == VENDOR_AMD ? AMD : INTEL;
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++)
        if (index - table[i].first < table[i].count && (table[i].vendor & vendor))
            return &table[i];
    return NULL;
}

static uint64_t *field_of(struct vcpu *cpu, const struct msr *m, uint32_t index)
{
    return (uint64_t *)((char *)cpu + m->offset) + (index - m->first);
}

/* ---- Registers that do something ---- */

static bool is_apic(uint32_t index)
{
    return (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST) || index == MSR_TSC_DEADLINE;
}

static bool pat_valid(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = value >> (8 * i) & 0xff;
        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

static bool memory_type_valid(uint64_t type)
{
    return type < 7 && type != 2 && type != 3;
}

/* SDM vol. 3, 11.11.2: bases and masks end where physical addresses do. */
static bool mtrr_valid(const struct vcpu *cpu, uint32_t index, uint64_t value)
{
    if (index == MSR_MTRR_DEF_TYPE)
        return memory_type_valid(value & 0xff);
    if (index >= 0x200 && index <= 0x20f) {
        if (value >> cpu->machine->cpuid.phys_bits)
            return false;
        return index & 1 ? !(value & 0x7ff) : !(value & 0xf00) && memory_type_valid(value & 0xff);
    }
    for (unsigned i = 0; i < 8; i++)
        if (!memory_type_valid(value >> (8 * i) & 0xff))
            return false;
    return true;
}

static bool write_efer(struct vcpu *cpu, uint64_t value)
{
    if (value & ~cpu->machine->cpuid.efer_supported)
        return false;
    if (((value ^ cpu->efer) & EFER_LME) && (cpu->cr0 & CR0_PG))
        return false;
    cpu->efer = (value & ~EFER_LMA) | (cpu->efer & EFER_LMA);
    return true;
}

/* A new TSC moves TSC_ADJUST by as much, as real processors do (SDM vol. 3, 17.17.3). */
static void set_tsc(struct vcpu *cpu, uint64_t offset)
{
    cpu->tsc_adjust += offset - cpu->tsc_offset;
    cpu->tsc_offset = offset;
    if (cpu->lapic)
        lapic_set_tsc_offset(cpu->lapic, (int64_t)offset);
}

static bool read_active(struct vcpu *cpu, uint32_t index, uint64_t *value, bool *known)
{
    *known = true;
    if (is_apic(index))
        return cpu->lapic && lapic_msr_read(cpu->lapic, index, value);
    switch (index) {
    case MSR_TSC:
        *value = cpu_read_tsc(cpu);
        return true;
    case MSR_TSC_ADJUST:
        *value = cpu->tsc_adjust;
        return true;
    case MSR_APICBASE:
        *value = cpu->lapic ? lapic_base(cpu->lapic) : cpu->apic_base;
        return true;
    case MSR_EFER:
        *value = cpu->efer;
        return true;
    case MSR_ARCH_CAPABILITIES:
        *value = cpu->machine->cpuid.arch_capabilities;
        return CPUID_HAS(&cpu->machine->cpuid, 7, 0, edx, 29);
    case MSR_PAT:
        *value = cpu->pat;
        return true;
    case MSR_XSS:
        *value = cpu->xss;
        return true;
    default:
        *known = false;
        return false;
    }
}

static bool write_active(struct vcpu *cpu, uint32_t index, uint64_t value, bool *known)
{
    *known = true;
    if (is_apic(index))
        return cpu->lapic && lapic_msr_write(cpu->lapic, index, value);
    switch (index) {
    case MSR_TSC:
        set_tsc(cpu, value - vclock_tsc(&cpu->machine->clock));
        return true;
    case MSR_TSC_ADJUST:
        set_tsc(cpu, cpu->tsc_offset + (value - cpu->tsc_adjust));
        return true;
    case MSR_APICBASE:
        return cpu->lapic && !(value >> cpu->machine->cpuid.phys_bits) &&
               lapic_set_base(cpu->lapic, value);
    case MSR_EFER:
        return write_efer(cpu, value);
    case MSR_PAT:
        if (!pat_valid(value))
            return false;
        cpu->pat = value;
        return true;
    case MSR_XSS:
        return value == 0; /* no supervisor components */
    default:
        *known = false;
        return false;
    }
}

static bool read_msr(struct vcpu *cpu, uint32_t index, uint64_t *value)
{
    bool known;
    bool ok = read_active(cpu, index, value, &known);
    if (known)
        return ok;
    const struct msr *m = find(cpu, index);
    if (!m)
        return false;
    *value = m->kind == CONSTANT || m->kind == IGNORED ? m->mask : *field_of(cpu, m, index);
    return true;
}

static bool write_msr(struct vcpu *cpu, uint32_t index, uint64_t value)
{
    bool known;
    bool ok = write_active(cpu, index, value, &known);
    if (known)
        return ok;
    const struct msr *m = find(cpu, index);
    if (!m || m->kind == CONSTANT)
        return false;
    if (m->kind == IGNORED)
        return true;
    if ((value & ~m->mask) || (m->kind == CANONICAL && !is_canonical(value)))
        return false;
    if (m->kind == MTRR && !mtrr_valid(cpu, index, value))
        return false;
    *field_of(cpu, m, index) = value;
    return true;
}

bool msr_read(struct vcpu *cpu, uint32_t index, uint64_t *value)
{
    bool ok = read_msr(cpu, index, value);
    if (log_on(&cpu->machine->log, LOG_MSR))
        log_write(&cpu->machine->log, LOG_MSR, "cpu%u rdmsr %08x = %" PRIx64 "%s", cpu->index,
                  index, ok ? *value : 0, ok ? "" : " #GP");
    return ok;
}

bool msr_write(struct vcpu *cpu, uint32_t index, uint64_t value)
{
    bool ok = write_msr(cpu, index, value);
    if (log_on(&cpu->machine->log, LOG_MSR))
        log_write(&cpu->machine->log, LOG_MSR, "cpu%u wrmsr %08x = %" PRIx64 "%s", cpu->index,
                  index, value, ok ? "" : " #GP");
    return ok;
}

const uint32_t *msr_list(unsigned *count)
{
    static const uint32_t list[] = {
        MSR_TSC,
        MSR_TSC_ADJUST,
        MSR_SYSENTER_CS,
        MSR_SYSENTER_ESP,
        MSR_SYSENTER_EIP,
        MSR_PAT,
        MSR_STAR,
        MSR_LSTAR,
        MSR_CSTAR,
        MSR_SFMASK,
        MSR_KERNEL_GS_BASE,
        MSR_TSC_AUX,
        MSR_MISC_ENABLE,
        MSR_SPEC_CTRL,
        MSR_MTRR_DEF_TYPE,
        0x200,
        0x201,
        0x202,
        0x203,
        0x204,
        0x205,
        0x206,
        0x207,
        0x208,
        0x209,
        0x20a,
        0x20b,
        0x20c,
        0x20d,
        0x20e,
        0x20f,
        0x250,
        0x258,
        0x259,
        0x268,
        0x269,
        0x26a,
        0x26b,
        0x26c,
        0x26d,
        0x26e,
        0x26f,
        MSR_MCG_STATUS,
    };
    *count = ARRAY_SIZE(list);
    return list;
}
