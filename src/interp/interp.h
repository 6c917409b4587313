/* The interpreter as other parts see it: an engine, and single steps for them to lean on. */
#ifndef TRIVISOR_INTERP_INTERP_H
#define TRIVISOR_INTERP_INTERP_H

#include "cpu/engine.h"

/* Execute exactly one instruction (or deliver one pending event), with all its consequences. */
enum vcpu_exit interp_step(struct vcpu *cpu);

#endif
