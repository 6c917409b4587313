/* What the files of the KVM engine share. */
#ifndef TRIVISOR_KVM_INTERNAL_H
#define TRIVISOR_KVM_INTERNAL_H

#include <linux/kvm.h>
#include <pthread.h>
#include <sys/types.h>

#include "cpu/engine.h"
#include "kvm/kvm.h"

/* Which MSRs the processor handles itself: those that change how it runs. All others come to
 * src/cpu/msr.c. */
#define KVM_MSRS_MAX 16

/* The kick: blocked in vCPU threads, let through only inside KVM_RUN, so that it needs no handler.
 */
#define KICK_SIGNAL  (SIGRTMAX - 3)

#define KVM_SLOTS_MAX 48

struct kvm_vm {
    struct physmem *mem;
    int dev_fd, vm_fd;
    size_t run_size;
    bool has_sregs2, has_tsc_offset;
    uint32_t msrs[KVM_MSRS_MAX];
    unsigned msr_count;
    struct kvm_userspace_memory_region slots[KVM_SLOTS_MAX]; /* as KVM has them */
};

struct kvm_vcpu {
    struct kvm_vm *vm;
    int fd;
    struct kvm_run *run;
    pid_t tid;

    /* struct vcpu is newer than KVM's copy: load it before the next KVM_RUN. */
    bool dirty;
    /* The last exit's port, MMIO or MSR access finishes only at the next KVM_RUN. */
    bool unfinished;
    bool ready;           /* an interrupt can be injected right now */
    _Atomic bool running; /* in or about to enter KVM_RUN: a kick must be a signal */
    uint64_t tsc_offset;  /* as KVM has it: guest TSC less host TSC */
    bool tsc_known;
    struct kvm_guest_debug debug; /* as KVM has it */
    bool step_all;                /* more breakpoints than registers: look at each instruction */

    uint64_t runs, exits[64]; /* statistics: KVM_RUN calls, exits by reason */
};

/* ioctl() that goes on after EINTR. */
int kvm_ioctl(int fd, unsigned long request, void *arg);

/* state.c: all of struct vcpu to KVM, and back. */
int kvm_state_load(struct vcpu *cpu, struct tv_error *err);
int kvm_state_store(struct vcpu *cpu, struct tv_error *err);
/* Make the guest's TSC the one that cpu_read_tsc() tells of. */
void kvm_state_set_tsc(struct vcpu *cpu);
/* One MSR as the host sets it. */
int kvm_state_set_msr(struct vcpu *cpu, uint32_t index, uint64_t value);

/* memory.c: make KVM's memory slots those of the guest-physical map. */
int kvm_memory_update(struct kvm_vm *vm, const struct physmem *mem, struct tv_error *err);
void kvm_memory_sync_log(void *vm, const struct physmem_region *region);

/* run.c */
enum vcpu_exit kvm_run(struct vcpu *cpu, struct tv_error *err);
void kvm_kick(struct vcpu *cpu);

/* debug.c: a debugger's breakpoints, watchpoints and steps through KVM_SET_GUEST_DEBUG. */
int kvm_debug_update(struct vcpu *cpu, struct tv_error *err);
/* A debug exit: true if it is the debugger's business (machine.debug.hit_* is filled). */
bool kvm_debug_hit(struct vcpu *cpu);

#endif
