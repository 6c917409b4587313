/* ELF files as boot loaders see them: program headers to load, notes to look into. */
#ifndef TRIVISOR_BOOT_ELF_H
#define TRIVISOR_BOOT_ELF_H

#include "boot/loader.h"

struct elf {
    const struct boot_file *file;
    bool is64;
    uint64_t entry;
    uint64_t ph_offset;
    unsigned ph_size, ph_count;
};

struct elf_segment {
    uint32_t type;
    uint64_t offset, vaddr, paddr, file_size, mem_size, align;
};

#define ELF_PT_LOAD 1
#define ELF_PT_NOTE 4

bool elf_magic(const struct boot_file *file);
/* Check the file header: x86, little-endian, executable, program headers inside the file. */
int elf_open(struct elf *elf, const struct boot_file *file, struct tv_error *err);
/* Program header `index`; its bytes in the file are checked to be there. */
int elf_segment(const struct elf *elf, unsigned index, struct elf_segment *out,
                struct tv_error *err);
/* Put all PT_LOAD segments at their physical addresses, from 1 MiB up in low RAM. `*end` is the
 * first free address after them. */
int elf_load(const struct elf *elf, struct physmem *mem, uint64_t *end, struct tv_error *err);
/* The descriptor of note `type` of owner `name`: a pointer into the file, or NULL. */
const uint8_t *elf_note(const struct elf *elf, const char *name, uint32_t type, uint32_t *size);

#endif
