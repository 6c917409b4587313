/*
 * VMware's backdoor: IN EAX, DX at port 0x5658 with the magic number in EAX is a call with its
 * command in CX and its argument in EBX, which answers in all registers. An engine that meets such
 * an IN calls backdoor_call() instead of the bus, whatever the privilege level.
 *
 * The table of commands is open: other devices add theirs with backdoor_add().
 */
#ifndef TRIVISOR_DEV_BACKDOOR_H
#define TRIVISOR_DEV_BACKDOOR_H

#include "dev/device.h"

#define BACKDOOR_COMMANDS 128

/* The registers of a call, in and out; the upper halves of 64-bit ones do not take part. */
struct backdoor_call {
    uint32_t eax, ebx, ecx, edx, esi, edi;
};

/* What guests ask about the machine; the same as CPUID says. */
struct backdoor_identity {
    uint64_t tsc_hz;
    uint32_t apic_hz; /* of the local APIC's timer, before its divisor */
    bool x2apic;      /* the processors have it */
};

struct backdoor;

struct backdoor *backdoor_create(struct device_env *env, const struct backdoor_identity *identity);
/* Device lock held in the call. `command` below BACKDOOR_COMMANDS. */
void backdoor_add(struct backdoor *backdoor, unsigned command,
                  void (*call)(void *device, struct backdoor_call *c), void *device);
/* Takes the device lock. */
void backdoor_call(struct backdoor *backdoor, struct backdoor_call *c);

#endif
