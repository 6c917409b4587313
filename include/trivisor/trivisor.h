/*
 * libtrivisor: a virtual machine monitor for x86 as a library.
 *
 * A VM is built from a configuration, started, waited for and destroyed. No function prints or
 * exits; a failing one returns -1 or NULL and leaves a one-line message in the caller's struct
 * tv_error. Functions may be called from any thread unless they say otherwise.
 */
#ifndef TRIVISOR_TRIVISOR_H
#define TRIVISOR_TRIVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TV_API __attribute__((visibility("default")))

struct tv_error {
    char message[1024];
};

enum tv_mode { TV_MODE_AUTO, TV_MODE_INTERP, TV_MODE_BT, TV_MODE_HW };

enum tv_serial { TV_SERIAL_NONE, TV_SERIAL_STDIO, TV_SERIAL_FILE, TV_SERIAL_PTY, TV_SERIAL_UNIX };

/* Who looks at the screen, and what draws it. TV_VGA_AUTO: a standard VGA where there is a display
 * or no kernel is given, else none. */
enum tv_display { TV_DISPLAY_NONE, TV_DISPLAY_VNC, TV_DISPLAY_WEB };
enum tv_vga { TV_VGA_AUTO, TV_VGA_NONE, TV_VGA_STD, TV_VGA_SVGA };

/* Whose signature the guest finds in CPUID (docs/cpu-model.md says what follows from it). */
enum tv_hypervisor { TV_HYPERVISOR_VMWARE, TV_HYPERVISOR_TRIVISOR, TV_HYPERVISOR_NONE };

/* What a guest panic (reported through the pvpanic device) does. */
enum tv_panic { TV_PANIC_NOTIFY, TV_PANIC_EXIT };

enum tv_drive_media { TV_DRIVE_DISK, TV_DRIVE_CDROM, TV_DRIVE_FLOPPY };
enum tv_drive_interface { TV_INTERFACE_IDE, TV_INTERFACE_PVSCSI, TV_INTERFACE_VIRTIO };

struct tv_drive {
    enum tv_drive_media media;
    enum tv_drive_interface interface; /* of a disk */
    const char *path;                  /* NULL: an empty CD-ROM or floppy drive */
    const char *format;                /* NULL: found out */
    bool read_only;
    bool snapshot;    /* what is written is lost at the end */
    bool trust_paths; /* the image may name files in other directories as its parts */
};

/* All strings are copied. Zero everywhere is a valid configuration (128 MiB, one vCPU, auto, no
 * serial). */
struct tv_config {
    uint64_t memory_size; /* bytes, a multiple of 1 MiB */
    unsigned vcpus;
    enum tv_mode mode;
    enum tv_mode require;  /* fail rather than run in another mode; TV_MODE_AUTO: no requirement */
    const char *cpu_model; /* NAME[,+feat,-feat]; NULL: "host" */
    enum tv_hypervisor hypervisor;
    const char *kernel, *append;
    const char *const *initrds;    /* NULL-terminated; more than one only for Multiboot modules */
    const struct tv_drive *drives; /* copied */
    size_t drive_count;
    const char *bios; /* BIOS image; NULL: Debian's SeaBIOS. Without a kernel the BIOS boots */
    bool uefi;        /* `bios` is UEFI firmware; NULL: Debian's OVMF */
    bool firmware;    /* it boots the kernel, if there is one, as with `bios` and `uefi` */
    /* UEFI's variables: the VM's own file, made where it does not exist; NULL: gone with the VM. */
    const char *uefi_vars;
    /* What the firmware boots from: words such as "cda", "disk2", "once=cdrom", "menu", separated
     * by commas (docs/firmware.md); NULL: the disk, then the CD-ROM. */
    const char *boot;
    const char *option_rom;   /* a PCI option ROM; NULL: none */
    unsigned option_rom_slot; /* whose function 0 has it; 0: the entropy device's */
    enum tv_serial serial;
    const char *serial_path; /* FILE, UNIX */
    int debug_exit_port;     /* 0: none */
    bool no_reboot;          /* a reset ends the VM */
    bool verify;
    bool count; /* mode bt counts what it executes, for tv_vm_print_stats(): slower */
    enum tv_panic on_panic;
    /* One-line notices of a running VM (a guest panic), from any thread; may be NULL. */
    void (*notify)(void *opaque, const char *message);
    void *notify_opaque;
    uint64_t tcache;    /* bytes of translation cache for each vCPU in mode bt; 0: the default */
    const char *bt_opt; /* -NAME,...: optimizations that mode bt leaves out; "none": all; NULL */
    enum tv_vga vga;
    enum tv_display display;
    const char *display_address;   /* HOST:PORT; NULL: the loopback, first free port */
    const char *vnc_password;      /* file with the password; "none": nobody needs one; NULL */
    const char *vnc_password_text; /* the password itself; counts where vnc_password is NULL */
    const char *name;              /* the machine's, for its viewers; NULL: "Trivisor" */
    const char *keyboard;          /* the guest's keyboard layout; NULL: "us" */
    bool screenshot;               /* tv_vm_screenshot() will be called: have a VGA */
    const char *log;               /* ITEMS:FILE */
    /* Mode bt: a file that tells the host's perf the names of translated code; "": where perf looks
     * for it; NULL: none. */
    const char *perf_map;
    const char *symbols; /* for it: names of guest addresses, as in System.map; NULL: none */
    const char *monitor; /* a UNIX socket that takes the commands of tv_vm_command(); NULL: none */
    const char *gdb;     /* HOST:PORT: wait for a debugger before the first instruction */
};

enum tv_exit_reason {
    TV_EXIT_POWEROFF,     /* guest power-off: status 0 */
    TV_EXIT_DEBUG_EXIT,   /* debug-exit port: status (v << 1) | 1 */
    TV_EXIT_RESET,        /* reset under no_reboot: status 3 */
    TV_EXIT_TRIPLE_FAULT, /* the same, by a triple fault: status 3 */
    TV_EXIT_PANIC,        /* guest panic under TV_PANIC_EXIT: status 4 */
    TV_EXIT_STOPPED,      /* tv_vm_stop(): status 0 */
    TV_EXIT_ERROR,        /* the VMM could not go on: status 1 */
};

struct tv_exit {
    enum tv_exit_reason reason;
    int status;         /* what the command-line tool exits with */
    char message[1024]; /* one line for the user; empty for a plain power-off */
};

struct tv_vm;

TV_API const char *tv_version(void);

TV_API struct tv_vm *tv_vm_create(const struct tv_config *config, struct tv_error *err);
/* "interp: /dev/kvm runs ring 0 at ... (2300 ns an instruction)": which mode was chosen and why. */
TV_API const char *tv_vm_mode_line(const struct tv_vm *vm);
/* Where the pty of TV_SERIAL_PTY is, or NULL. */
TV_API const char *tv_vm_serial_name(const struct tv_vm *vm);
/* Where viewers connect: "127.0.0.1:5900", "http://127.0.0.1:5980/"; NULL: nowhere. */
TV_API const char *tv_vm_display_name(const struct tv_vm *vm);
/* Write what is on the screen as a PNG file, at any time up to tv_vm_destroy(). */
TV_API int tv_vm_screenshot(struct tv_vm *vm, const char *path, struct tv_error *err);
TV_API int tv_vm_start(struct tv_vm *vm, struct tv_error *err);
/* Wait until the VM ends. */
TV_API void tv_vm_wait(struct tv_vm *vm, struct tv_exit *out);
TV_API void tv_vm_stop(struct tv_vm *vm);
TV_API int tv_vm_pause(struct tv_vm *vm, struct tv_error *err);
TV_API int tv_vm_resume(struct tv_vm *vm, struct tv_error *err);
/*
 * Put another medium into a CD-ROM or floppy drive, or take it out (`medium->path` NULL). `drive`
 * is "cdrom", "floppy", or with a number one of several: "cdrom2". Of `medium` path, format,
 * read_only and snapshot count. A guest may have locked the tray: then it is asked to let the
 * medium go, and this fails, unless `force`.
 */
TV_API int tv_vm_change_medium(struct tv_vm *vm, const char *drive, const struct tv_drive *medium,
                               bool force, struct tv_error *err);
/* Hardware reset, and the ACPI power button. */
TV_API void tv_vm_reset(struct tv_vm *vm);
TV_API void tv_vm_power_button(struct tv_vm *vm);
/* One command of the monitor, such as "eject cdrom" ("help" lists them). What it has to say goes to
 * `out`, in lines. */
TV_API int tv_vm_command(struct tv_vm *vm, const char *line, FILE *out, struct tv_error *err);
TV_API void tv_vm_print_stats(struct tv_vm *vm, FILE *out);
/* Stops it where it still runs. */
TV_API void tv_vm_destroy(struct tv_vm *vm);

/* What `trivisor modes` prints. */
struct tv_mode_report {
    const char *name; /* "interp", "hw" */
    bool available;
    char detail[256];          /* what was measured, or why it is missing */
    double ns_per_instruction; /* of ring-0 code; 0 where not measured */
};
#define TV_MODE_REPORTS_MAX 8
/* Measure this host's modes (some milliseconds). Fills up to TV_MODE_REPORTS_MAX reports; `chosen`
 * is the index of what auto picks, `why` a short reason. Returns how many. */
TV_API unsigned tv_modes_measure(struct tv_mode_report *reports, unsigned *chosen, char *why,
                                 size_t why_size);

#ifdef __cplusplus
}
#endif

#endif
