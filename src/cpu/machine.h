/* What a vCPU sees of the machine around it: memory, I/O, time, its siblings, the debugger. */
#ifndef TRIVISOR_CPU_MACHINE_H
#define TRIVISOR_CPU_MACHINE_H

#include "cpu/cpu.h"
#include "cpu/cpuid.h"
#include "mem/bus.h"
#include "mem/physmem.h"
#include "util/clock.h"
#include "util/log.h"

#define VCPUS_MAX        64

#define DEBUG_POINTS_MAX 64

enum debug_kind { DEBUG_BREAK, DEBUG_WATCH_WRITE, DEBUG_WATCH_READ, DEBUG_WATCH_ACCESS };

/* Breakpoints and watchpoints of a debugger, by linear address. Changed only while all vCPUs are
 * parked. */
struct debug_point {
    enum debug_kind kind;
    uint64_t address;
    uint64_t length;
};

struct debugger {
    struct debug_point points[DEBUG_POINTS_MAX];
    unsigned count;
    uint64_t single_step; /* bit n: vCPU n stops after one instruction */
    uint64_t frozen;      /* bit n: vCPU n stays parked while others run */
    /* What stopped a vCPU (engine returned VCPU_EXIT_DEBUG): */
    unsigned hit_vcpu;
    bool hit_step; /* single-step, not a point */
    struct debug_point
        hit_point; /* else this one; for a watchpoint `address` is that of the access */
};

struct machine {
    struct physmem *mem;
    struct bus pio, mmio;
    struct vclock clock;
    struct event_log log;
    struct cpuid_table cpuid; /* what guests see */
    struct debugger debug;
    struct vcpu *vcpus[VCPUS_MAX];
    unsigned vcpu_count;
    uint64_t tcache;  /* bytes of translation cache for each vCPU; 0: the default */
    uint32_t bt_off;  /* optimizations that the translator leaves out: enum bt_option */
    struct perf_map *perf_map; /* of translated code; NULL: none */
    /* See register_port.h; NULL: there is none. Any vCPU's thread, no lock held. */
    void (*register_port)(void *opaque, uint64_t *gpr);
    void *register_port_opaque;
    bool count;                /* --stats: translated code counts what it executes */
    bool verify; /* --verify: check cached code against memory before it runs, translated code
                    against the interpreter */
};

/* Port I/O and MMIO as engines do it: with logging. */
uint32_t machine_in(struct machine *m, uint16_t port, unsigned size);
void machine_out(struct machine *m, uint16_t port, unsigned size, uint32_t value);
uint64_t machine_mmio_read(struct machine *m, uint64_t gpa, unsigned size);
void machine_mmio_write(struct machine *m, uint64_t gpa, unsigned size, uint64_t value);

/* The guest-visible TSC of a vCPU: time base plus TSC_ADJUST and offset. */
uint64_t cpu_read_tsc(const struct vcpu *cpu);

#endif
