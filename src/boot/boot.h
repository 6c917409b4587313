/*
 * Starting a guest without firmware: --kernel FILE goes into RAM together with the tables that
 * firmware would have left there, and the boot vCPU begins where the kernel's own boot protocol
 * says. The files are read once and kept, so that a guest reset loads them again.
 *
 *   boot_open      reads the files and finds out what the kernel is
 *   boot_load      fills RAM; after power-up and after each reset, vCPUs parked
 *   boot_setup_cpu each vCPU after cpu_reset(): what firmware does on every processor
 *   boot_enter     vCPU 0 after that: registers as the boot protocol wants them
 */
#ifndef TRIVISOR_BOOT_BOOT_H
#define TRIVISOR_BOOT_BOOT_H

#include <stdbool.h>
#include <stdint.h>
#include <trivisor/trivisor.h>

struct physmem;
struct vcpu;

struct boot_config {
    const char *kernel;
    const char *append;         /* command line; NULL: empty */
    const char *const *initrds; /* NULL-terminated; may be NULL. "FILE ARGS" for modules */
    unsigned vcpus;
    unsigned mhz;   /* of a processor, as tables tell it */
    bool long_mode; /* the CPU model has 64-bit mode */
    bool text_mode; /* there is a VGA, in text mode 3 */
    bool hpet;      /* the machine has an HPET at 0xfed00000 */
};

/* How the boot vCPU starts. */
enum boot_mode {
    BOOT_PROTECTED, /* flat 32-bit segments, paging off */
    BOOT_LONG,      /* 64-bit mode, the first 4 GiB mapped one to one */
};

struct boot_entry {
    enum boot_mode mode;
    const char *protocol; /* "Linux 64-bit", "PVH", ...: for the log */
    uint64_t rip;
    uint64_t rax, rbx, rsi, rsp;
};

struct boot_image;

/* Read the kernel and its initrds. NULL with `err` filled for a file that cannot be read, is empty,
 * or cannot fit RAM of `mem`. All strings are copied. */
struct boot_image *boot_open(const struct boot_config *config, const struct physmem *mem,
                             struct tv_error *err);
void boot_image_free(struct boot_image *image);

/* Put kernel, initrds and firmware tables into RAM and say how to enter. May be called again (with
 * the same result) after each reset. -1 with `err` naming the file and what is wrong with it. */
int boot_load(const struct boot_image *image, struct physmem *mem, struct boot_entry *entry,
              struct tv_error *err);

/* MTRRs and the local APIC's virtual wire. */
void boot_setup_cpu(struct vcpu *cpu);

/* The boot vCPU's registers. The caller tells the engine that the state changed. */
void boot_enter(struct vcpu *cpu, const struct boot_entry *entry);

#endif
