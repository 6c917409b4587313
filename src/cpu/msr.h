/* Model-specific registers, from one table. */
#ifndef TRIVISOR_CPU_MSR_H
#define TRIVISOR_CPU_MSR_H

#include <stdbool.h>
#include <stdint.h>

struct vcpu;

/* RDMSR and WRMSR without the privilege check. False: the guest gets #GP(0). APIC registers are
 * included. */
bool msr_read(struct vcpu *cpu, uint32_t index, uint64_t *value);
bool msr_write(struct vcpu *cpu, uint32_t index, uint64_t value);

/* The list of MSRs with state, for the KVM engine, snapshots and the debugger. */
const uint32_t *msr_list(unsigned *count);

#endif
