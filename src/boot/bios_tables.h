/* The ACPI and SMBIOS tables of firmware.c in the form in which firmware takes them over: files and
 * a script that says where pointers and checksums are (etc/table-loader). */
#ifndef TRIVISOR_BOOT_BIOS_TABLES_H
#define TRIVISOR_BOOT_BIOS_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <trivisor/trivisor.h>

struct physmem;

struct bios_file {
    const char *name;
    uint8_t *data; /* free() */
    size_t size;
};

#define BIOS_FILES_MAX 8

/* Make the files for a machine with this RAM and processors of `mhz`. Their number, or -1 with
 * `err` filled. `text_mode`: it has a VGA. */
int bios_tables_build(const struct physmem *mem, unsigned vcpus, unsigned mhz, bool text_mode,
                      struct bios_file *files, struct tv_error *err);

#endif
