/* What an engine is to the virtual machine. */
#ifndef TRIVISOR_CPU_ENGINE_H
#define TRIVISOR_CPU_ENGINE_H

#include "cpu/machine.h"

enum vcpu_exit {
    VCPU_EXIT_ATTENTION, /* vcpu.attention has a bit that the engine does not handle itself (STOP,
                            INIT, SIPI) */
    VCPU_EXIT_HALT,      /* HLT: vcpu.activity is ACTIVITY_HALTED */
    VCPU_EXIT_SHUTDOWN,  /* triple fault: vcpu.activity is ACTIVITY_SHUTDOWN */
    VCPU_EXIT_DEBUG,     /* a debugger's point or step: machine.debug.hit_* */
    VCPU_EXIT_ERROR,     /* the engine cannot go on: its `error` says why */
};

/*
 * vcpu_init, run and state_changed run on the vCPU's thread (state_changed also on another while
 * the vCPU is parked); vcpu_fini and machine_fini after all vCPU threads have ended, also where
 * vcpu_init never ran. An engine handles ATT_INTR, ATT_NMI and ATT_DEBUG itself and leaves the
 * other bits alone; it returns as soon as one of those is set.
 */
struct engine {
    const char *name; /* as --mode has it */
    int (*machine_init)(struct machine *m, struct tv_error *err);
    void (*machine_fini)(struct machine *m);
    int (*vcpu_init)(struct vcpu *cpu, struct tv_error *err);
    void (*vcpu_fini)(struct vcpu *cpu);
    enum vcpu_exit (*run)(struct vcpu *cpu, struct tv_error *err);
    void (*kick)(struct vcpu *cpu); /* any thread: make run() look at vcpu.attention; may be NULL */
    void (*state_changed)(
        struct vcpu *cpu); /* someone replaced vcpu's state (reset, debugger): drop caches */
    /* The guest-physical map changed (physmem.h). NULL: ATT_MEMORY is set in all vCPUs instead. */
    void (*memory_changed)(struct machine *m);
    void (*print_stats)(struct machine *m, FILE *out); /* --stats */
};

extern const struct engine interp_engine; /* src/interp */
extern const struct engine bt_engine;     /* src/bt */
extern const struct engine kvm_engine;    /* src/kvm */

#endif
