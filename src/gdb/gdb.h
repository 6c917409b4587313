/*
 * The GDB remote serial protocol: a debugger for the guest's vCPUs, each one a thread. The stub's
 * thread serves one connection after another. It touches vCPU state only while the VM has parked
 * all vCPUs.
 */
#ifndef TRIVISOR_GDB_GDB_H
#define TRIVISOR_GDB_GDB_H

#include "cpu/machine.h"

struct gdb_stub;

/* What the stub asks of the VM. pause and resume return when it has happened. */
struct gdb_vm_ops {
    int (*pause)(void *vm);
    int (*resume)(void *vm);
    void (*reset)(void *vm);                 /* hardware reset */
    void (*quit)(void *vm);                  /* end the VM */
    void (*state_changed)(struct vcpu *cpu); /* the stub wrote registers, memory or breakpoints */
};

/*
 * Listen on "HOST:PORT" (or "unix:PATH") for a debugger of `m`, whose vCPUs are parked. Returns
 * NULL with `err` filled where that is not possible.
 */
struct gdb_stub *gdb_create(struct machine *m, const char *address, const struct gdb_vm_ops *ops,
                            void *vm, struct tv_error *err);

/* A vCPU stopped at a point or after a step (machine.debug.hit_*); all vCPUs are parked. Any
 * thread. */
void gdb_vcpu_stopped(struct gdb_stub *stub, unsigned vcpu);

/* The VM has ended: tell the debugger (exit status `status`), close, free. NULL is allowed. */
void gdb_destroy(struct gdb_stub *stub);

/* ---- gdb_registers.c: the register file as the target description has it ---- */

/* The target description, an XML document: x86-64 where the CPU model has long mode, else i386. */
const char *gdb_target_xml(const struct machine *m);
/* Number of registers, the size of one in bytes, and which is the program counter. */
unsigned gdb_register_count(const struct machine *m);
unsigned gdb_register_size(const struct machine *m, unsigned number);
unsigned gdb_pc_register(const struct machine *m);
/* Copy register `number` to or from `buf` (little-endian, gdb_register_size() bytes). False: there
 * is none, or it cannot be written. */
bool gdb_read_register(const struct vcpu *cpu, unsigned number, uint8_t *buf);
bool gdb_write_register(struct vcpu *cpu, unsigned number, const uint8_t *buf);

#endif
