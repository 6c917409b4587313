/*
 * The local APIC of one vCPU (SDM vol. 3, chapter 10): xAPIC page and x2APIC MSRs, timer with TSC
 * deadline. Registers are accessed only by the vCPU's own thread, without the device lock;
 * interrupts may be delivered to it by any thread (the request register is atomic).
 */
#ifndef TRIVISOR_DEV_LAPIC_H
#define TRIVISOR_DEV_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "dev/device.h"

struct lapic;
struct lapics; /* all local APICs of a machine: destination matching, broadcast, lowest priority */

/* What a local APIC tells its processor. Any thread. */
struct lapic_cpu_ops {
    void (*intr)(void *cpu,
                 bool asserted); /* the INTR condition changed (priority taken into account) */
    void (*nmi)(void *cpu);
    void (*smi)(void *cpu);
    void (*init)(void *cpu);
    void (*sipi)(void *cpu, uint8_t vector);
};

enum delivery_mode {
    DELIVER_FIXED,
    DELIVER_LOWEST,
    DELIVER_SMI,
    DELIVER_NMI = 4,
    DELIVER_INIT,
    DELIVER_SIPI,
    DELIVER_EXTINT
};

/* An interrupt message, as an IO-APIC, an MSI write or an IPI forms it. */
struct apic_message {
    uint32_t destination;
    bool logical; /* destination mode */
    uint8_t mode; /* enum delivery_mode */
    uint8_t vector;
    bool level;    /* level-triggered: EOI is broadcast to the IO-APIC */
    bool asserted; /* level: assert or de-assert (INIT) */
};

struct lapics *lapics_create(struct device_env *env);
struct lapic *lapic_create(struct lapics *all, struct device_env *env, unsigned id, bool bsp,
                           const struct lapic_cpu_ops *ops, void *cpu);
/* After INIT (the ID and base stay) or power-up. */
void lapic_init_reset(struct lapic *apic);

/* Deliver a message to every local APIC that it names. Any thread. False: nobody took it. */
bool lapics_deliver(struct lapics *all, const struct apic_message *message);
/* Who hears EOIs of level-triggered vectors (the IO-APIC). */
void lapics_on_eoi(struct lapics *all, void (*eoi)(void *opaque, uint8_t vector), void *opaque);
/* Has a processor that an edge-triggered fixed message names not taken one with its vector that it
 * got before? Where one has not, `taken` is called when it does. Device lock held for both. */
bool lapics_waits(struct lapics *all, const struct apic_message *message);
void lapics_on_taken(struct lapics *all, void (*taken)(void *opaque), void *opaque);
/* Would the bootstrap processor take what the 8259 asks for, interrupts being enabled? */
bool lapics_extint_wired(const struct lapics *all);
/* The 8259's INTR output, wired to LINT0 of the bootstrap processor (virtual wire mode), and how a
 * vCPU acknowledges it (returns the vector). Device lock held for set; taken by the acknowledge. */
void lapics_set_extint(struct lapics *all, int level);
void lapics_on_extint_ack(struct lapics *all, int (*ack)(void *opaque), void *opaque);

/* Highest-priority deliverable interrupt: moves it from request to in-service. -1: none. vCPU's
 * thread. */
int lapic_ack(struct lapic *apic);
/* Is there one? Any thread. */
bool lapic_has_interrupt(struct lapic *apic);

/* CR8 = TPR[7:4]. vCPU's thread. */
uint8_t lapic_cr8(const struct lapic *apic);
void lapic_set_cr8(struct lapic *apic, uint8_t cr8);

/* IA32_APIC_BASE: false where the value is illegal (#GP). The page's address for the engine's MMIO
 * match. */
uint64_t lapic_base(const struct lapic *apic);
bool lapic_set_base(struct lapic *apic, uint64_t value);
/* Guest-physical address of the xAPIC page, or ~0 where it is disabled or in x2APIC mode. */
uint64_t lapic_mmio_address(const struct lapic *apic);

/* The xAPIC page: `offset` 0..0xfff, 32-bit registers every 16 bytes; odd accesses as hardware has
 * them. */
uint32_t lapic_mmio_read(struct lapic *apic, uint32_t offset, unsigned size);
void lapic_mmio_write(struct lapic *apic, uint32_t offset, unsigned size, uint32_t value);
/* MSRs 0x800..0x8ff and TSC_DEADLINE. False: #GP(0). `tsc` is the guest's current TSC and
 * tsc_offset what must be subtracted to get the time base (TSC_ADJUST). */
bool lapic_msr_read(struct lapic *apic, uint32_t index, uint64_t *value);
bool lapic_msr_write(struct lapic *apic, uint32_t index, uint64_t value);
/* Tell the APIC that the vCPU's TSC runs ahead of the time base by `offset` (TSC_ADJUST and TSC
 * writes). */
void lapic_set_tsc_offset(struct lapic *apic, int64_t offset);

#endif
