/* The CPUID model: what a guest is told, from the host's features through one table. */
#ifndef TRIVISOR_CPU_CPUID_H
#define TRIVISOR_CPU_CPUID_H

#include <stdbool.h>
#include <stdint.h>
#include <trivisor/trivisor.h>

struct vcpu;

struct cpuid_leaf {
    uint32_t leaf, subleaf;
    uint32_t eax, ebx, ecx, edx;
};

#define CPUID_LEAVES_MAX 128

#define APIC_TIMER_HZ    1000000000u /* the local APIC's timer before its divisor */

/*
 * The most address bits that a guest sees: enough for the largest RAM and the hole below 4 GiB. Not
 * all that the processor has: some firmware maps whatever could be there, and OVMF's images of 4
 * MiB do so in pages of 2 MiB although they plan for 1 GiB, whose tables are 512 MiB for 48 bits.
 */
#define PHYS_BITS_MAX    41u

struct cpuid_table {
    struct cpuid_leaf leaves[CPUID_LEAVES_MAX];
    unsigned count;
    uint32_t vendor; /* enum cpu_vendor */
    uint64_t xcr0_supported;
    uint64_t efer_supported, cr4_supported; /* bits that the guest may set */
    uint8_t phys_bits;                      /* MAXPHYADDR */
    uint64_t arch_capabilities;             /* Intel: MSR_ARCH_CAPABILITIES */
    bool strict;                            /* the model names a level: nothing may be missing */
};

enum cpu_vendor { VENDOR_INTEL, VENDOR_AMD };

/* Which engine will run: an engine can only offer what it can do. */
enum cpuid_engine { CPUID_FOR_INTERP, CPUID_FOR_KVM };

/*
 * Build the table for `model` (NAME[,+feat,-feat]...; "host", "max", "x86-64-v1" .. "x86-64-v4")
 * with `vcpus` processors and a TSC of `tsc_hz`. Returns 0, or -1 with `err` filled: unknown name
 * or feature, or a feature that this host or engine cannot give.
 */
int cpuid_build(struct cpuid_table *table, const char *model, enum cpuid_engine engine,
                unsigned vcpus, uint64_t tsc_hz, struct tv_error *err);

/* Who says to the guest that it is not alone, in leaves 0x40000000 and 0x40000010; nobody: the
 * hypervisor bit goes as well. After cpuid_build(). */
void cpuid_set_hypervisor(struct cpuid_table *table, enum tv_hypervisor hypervisor,
                          uint64_t tsc_hz);

/*
 * For an engine that runs guest code on the processor: take out what it cannot do, going by the
 * leaves that it says it `can`, and what is not true of this processor of the statements about
 * speculation; put in the processor's own defences. `arch_capabilities` is that MSR as the engine
 * gives it, 0 where it has none. What our own devices and MSRs give stays. Returns 0, or -1 with
 * `err` filled where the model promised it.
 */
int cpuid_limit(struct cpuid_table *table, const struct cpuid_leaf *can, unsigned count,
                uint64_t arch_capabilities, struct tv_error *err);

/* CPUID as `cpu` executes it, with the bits that follow CR4, XCR0 and the APIC ID filled in. */
struct cpuid_leaf cpuid_query(const struct vcpu *cpu, uint32_t leaf, uint32_t subleaf);

/* One feature bit of the table: CPUID_HAS(table, 7, 0, ebx, 20). */
const struct cpuid_leaf *cpuid_find(const struct cpuid_table *table, uint32_t leaf,
                                    uint32_t subleaf);
#define CPUID_HAS(table, leaf_, sub_, reg_, bit_)                                                  \
    ({                                                                                             \
        const struct cpuid_leaf *l_ = cpuid_find((table), (leaf_), (sub_));                        \
        l_ && ((l_->reg_ >> (bit_)) & 1);                                                          \
    })

#endif
