/*
 * The virtual machine: what tv_vm_create() builds and how its threads meet.
 *
 *   vCPU threads   run guest code in an engine; vcpu_thread.c
 *   timer thread   fires device timers; util/timer.c
 *   console thread reads the serial back end; ui/
 *   supervisor     carries out what others ask for and may not do themselves: reset, end, debugger
 * stops
 *
 * Locks: `lock` guards this struct's control fields and is the innermost; `device_lock` guards all
 * devices. Nobody waits for a vCPU while holding device_lock, since a vCPU may be waiting for it.
 * `park_lock` is held from parking vCPUs to releasing them by those who do both, and no vCPU takes
 * it; `media_lock` comes before device_lock.
 */
#ifndef TRIVISOR_VM_VM_H
#define TRIVISOR_VM_VM_H

#include <pthread.h>

#include "boot/boot.h"
#include "cpu/engine.h"
#include "dev/device.h"
#include "dev/lapic.h"
#include "disk/disk.h"
#include "ui/chardev.h"
#include "util/look.h"
#include "vm/bios_keys.h"

#define DRIVES_MAX     16
#define DRIVE_PATH_MAX 64

struct vcpu_thread {
    struct vcpu *cpu;
    struct tv_vm *vm;
    pthread_t thread;
    bool started;
    _Atomic bool sleeping; /* waits on vcpu.attention */
    bool parked;           /* under vm->lock */
    struct look halts;
};

enum vm_request {
    REQUEST_RESET = 1,
    REQUEST_END = 2,
    REQUEST_DEBUG_STOP = 4,
    REQUEST_NO_SPACE = 8, /* a disk's write waits for space on the host */
};

struct tv_vm {
    struct tv_config config; /* its strings are copies */
    struct machine machine;
    struct device_env env;
    pthread_mutex_t device_lock;
    const struct engine *engine;
    bool engine_ready;
    char mode_line[512];

    struct lapics *lapics;
    struct pic *pic;
    struct irq_line (*isa_irq)(struct tv_vm *vm, int irq); /* an ISA interrupt line */
    struct disk *disks[DRIVES_MAX];                        /* of config.drives; NULL: no medium */
    char drive_paths[DRIVES_MAX][DRIVE_PATH_MAX];          /* for firmware */
    struct pvscsi *pvscsi;                                 /* NULL: no disk asks for it */
    struct ide *ide;                                       /* NULL: no drive asks for it */
    struct fdc *fdc;                                       /* the same */
    uint8_t drive_units[DRIVES_MAX];                       /* CD-ROMs and floppies: at the above */
    pthread_mutex_t media_lock; /* `disks` and the names in config.drives, while vCPUs run */
    struct dma8237 *dma;
    struct ioapic *ioapic;
    struct piix4_pm *pm; /* for the power button */
    struct pit *pit;
    struct i8042 *kbc;
    struct bios_keys bios_keys; /* device lock */
    struct backdoor *backdoor;
    struct vmmouse *vmmouse;
    struct display *display; /* screen.c's: */
    struct input *input;
    struct vga *vga;
    struct vnc *vnc;
    uint8_t *font;
    struct chardev *serial;
    struct boot_image *boot;
    struct uefi_variables *uefi; /* uefi.c's; NULL: none */
    struct bios *bios;           /* bios.c's; NULL: no firmware */
    bool was_up;                 /* this is not the first power-up */
    struct gdb_stub *gdb;
    struct monitor *monitor; /* NULL: none */

    struct vcpu_thread vcpus[VCPUS_MAX];

    pthread_t supervisor;
    bool supervisor_started;
    pthread_mutex_t park_lock; /* who has it decides whether the vCPUs are parked */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned requests;                   /* enum vm_request */
    bool paused;                         /* vCPUs are to park */
    bool out_of_space;                   /* a write waits for space on the host */
    bool waits_for_space, paused_before; /* they are parked for that; and were before it */
    bool ending;                         /* all threads are to leave */
    bool ended;                          /* `exit` is valid */
    unsigned debug_vcpu;
    struct tv_exit exit;
};

/* vm.c */
void vm_request(struct tv_vm *vm, unsigned request);
/* End the VM. The first caller's reason counts. Any thread, any lock but vm->lock. */
void vm_end(struct tv_vm *vm, enum tv_exit_reason reason, int status, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* pc.c: the machine's devices and how they are wired. */
int pc_build(struct tv_vm *vm, struct tv_error *err);
/* Put the whole machine into its power-up state and the kernel into RAM. All vCPUs are parked. */
int pc_reset(struct tv_vm *vm, struct tv_error *err);
/* The ACPI power button. */
void pc_power_button(struct tv_vm *vm);

/* vcpu_thread.c */
int vcpu_threads_start(struct tv_vm *vm, struct tv_error *err);
/* Ask all vCPUs to park and wait until they have; release them: park_lock held. End and join
 * them: the supervisor's only. */
void vcpu_threads_park(struct tv_vm *vm);
void vcpu_threads_release(struct tv_vm *vm);
void vcpu_threads_join(struct tv_vm *vm);
/* What the vCPU's local APIC calls. */
extern const struct lapic_cpu_ops vcpu_lapic_ops;
void vcpu_wake(struct vcpu *cpu);

#endif
