/* What the loaders of the several kernel formats share. They work on bytes in memory and know no
 * files, so that a fuzzer can feed them. */
#ifndef TRIVISOR_BOOT_LOADER_H
#define TRIVISOR_BOOT_LOADER_H

#include <stddef.h>

#include "boot/boot.h"
#include "mem/physmem.h"

struct boot_file {
    char *name; /* for messages */
    char *args; /* a module's arguments; "" where there are none */
    uint8_t *data;
    size_t size;
};

#define BOOT_INITRDS_MAX 64

struct boot_image {
    struct boot_file kernel;
    struct boot_file initrds[BOOT_INITRDS_MAX];
    unsigned initrd_count;
    char *append;
    unsigned vcpus, mhz;
    bool long_mode, hpet, text_mode;
};

/* ---- The memory map that guests are told ---- */

/* Type numbers of E820; PVH and Multiboot use the same. */
enum memmap_type { MEMMAP_RAM = 1, MEMMAP_RESERVED = 2 };

struct memmap_range {
    uint64_t base, size;
    enum memmap_type type;
};

#define MEMMAP_MAX 8

/* Fills up to MEMMAP_MAX ranges in ascending order; returns how many. */
unsigned memmap_build(const struct physmem *mem, struct memmap_range *ranges);

/* ---- Placing things ---- */

/* A growing run of strings at BOOT_STRINGS. */
struct boot_strings {
    uint32_t next;
};
/* Copy "a b" (or just `a` where `b` is empty) into guest memory; its address, or 0: no room. */
uint32_t boot_strings_add(struct boot_strings *strings, struct physmem *mem, const char *a,
                          const char *b);

/* Zero part of low RAM and tell the engines. The range must be RAM. */
void boot_zero(struct physmem *mem, uint64_t gpa, uint64_t len);

/* ---- The formats. Each *_probe says whether the bytes are meant to be of its kind; each *_load
 * checks everything it uses and fills RAM. ---- */

bool linux_probe(const struct boot_file *file);
int linux_load(const struct boot_image *image, struct physmem *mem, struct boot_entry *entry,
               struct tv_error *err);

bool pvh_probe(const struct boot_file *file);
int pvh_load(const struct boot_image *image, struct physmem *mem, struct boot_entry *entry,
             struct tv_error *err);

bool multiboot_probe(const struct boot_file *file);
int multiboot_load(const struct boot_image *image, struct physmem *mem, struct boot_entry *entry,
                   struct tv_error *err);

/* ---- Firmware's tables ---- */

/* Everything that firmware would have left below 1 MiB: data areas, ACPI, MP table, SMBIOS. */
int firmware_build(const struct boot_image *image, struct physmem *mem, struct tv_error *err);
int acpi_build(const struct boot_image *image, struct physmem *mem, struct tv_error *err);
void mptable_build(const struct boot_image *image, struct physmem *mem);
void smbios_build(const struct boot_image *image, struct physmem *mem);
/* GDT and page tables that the entry state refers to. */
void entry_tables_build(struct physmem *mem, enum boot_mode mode);

#endif
