/* What the rest of the program may ask of the KVM part, besides kvm_engine itself. */
#ifndef TRIVISOR_KVM_KVM_H
#define TRIVISOR_KVM_KVM_H

#include <trivisor/trivisor.h>

/*
 * Open /dev/kvm and make sure that it can do what the engine needs. Returns a file descriptor, or
 * -1 with `err` saying what is missing and what to do about it.
 */
int kvm_open(struct tv_error *err);

/*
 * Run a loop of ring-0 code in a throw-away virtual machine and measure what an instruction costs.
 * Takes some ten milliseconds at most, whatever the host does. Returns 0, or -1 with `err` filled.
 */
int kvm_measure(double *ns_per_instruction, struct tv_error *err);

#endif
