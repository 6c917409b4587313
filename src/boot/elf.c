#include "boot/elf.h"

#include <inttypes.h>

#include "boot/bytes.h"
#include "boot/layout.h"
#include "util/error.h"
#include "util/util.h"

enum { EM_386 = 3, EM_X86_64 = 62, ET_EXEC = 2, ET_DYN = 3 };
enum { EHDR32_SIZE = 52, EHDR64_SIZE = 64, PHDR32_SIZE = 32, PHDR64_SIZE = 56 };

bool elf_magic(const struct boot_file *file)
{
    return file->size >= 4 && !memcmp(file->data, "\177ELF", 4);
}

int elf_open(struct elf *elf, const struct boot_file *file, struct tv_error *err)
{
    const uint8_t *h = file->data;
    *elf = (struct elf){.file = file};
    if (file->size < EHDR32_SIZE || (h[4] == 2 && file->size < EHDR64_SIZE))
        return tv_fail(err, "%s: truncated ELF file: no complete file header", file->name);
    if ((h[4] != 1 && h[4] != 2) || h[5] != 1)
        return tv_fail(err, "%s: not a little-endian 32- or 64-bit ELF file", file->name);
    elf->is64 = h[4] == 2;
    unsigned type = get16(h + 16), machine = get16(h + 18);
    if (machine != EM_386 && machine != EM_X86_64)
        return tv_fail(err, "%s: an ELF file for another processor (machine %u), not x86",
                       file->name, machine);
    if (type != ET_EXEC && type != ET_DYN)
        return tv_fail(err, "%s: not an executable ELF file (type %u)", file->name, type);
    elf->entry = elf->is64 ? get64(h + 24) : get32(h + 24);
    elf->ph_offset = elf->is64 ? get64(h + 32) : get32(h + 28);
    elf->ph_size = get16(h + (elf->is64 ? 54 : 42));
    elf->ph_count = get16(h + (elf->is64 ? 56 : 44));
    if (elf->ph_size < (elf->is64 ? PHDR64_SIZE : PHDR32_SIZE))
        return tv_fail(err, "%s: corrupted ELF file: program headers of %u bytes", file->name,
                       elf->ph_size);
    if (!range_ok(elf->ph_offset, (uint64_t)elf->ph_size * elf->ph_count, file->size))
        return tv_fail(err, "%s: truncated ELF file: its program headers are not all there",
                       file->name);
    return 0;
}

int elf_segment(const struct elf *elf, unsigned index, struct elf_segment *out,
                struct tv_error *err)
{
    const uint8_t *p = elf->file->data + elf->ph_offset + (uint64_t)index * elf->ph_size;
    if (elf->is64)
        *out = (struct elf_segment){.type = get32(p),
                                    .offset = get64(p + 8),
                                    .vaddr = get64(p + 16),
                                    .paddr = get64(p + 24),
                                    .file_size = get64(p + 32),
                                    .mem_size = get64(p + 40),
                                    .align = get64(p + 48)};
    else
        *out = (struct elf_segment){.type = get32(p),
                                    .offset = get32(p + 4),
                                    .vaddr = get32(p + 8),
                                    .paddr = get32(p + 12),
                                    .file_size = get32(p + 16),
                                    .mem_size = get32(p + 20),
                                    .align = get32(p + 28)};
    if (out->type != ELF_PT_LOAD && out->type != ELF_PT_NOTE)
        return 0;
    if (!range_ok(out->offset, out->file_size, elf->file->size))
        return tv_fail(err,
                       "%s: truncated ELF file: segment %u wants %" PRIu64 " bytes at %" PRIu64
                       ", the file has %zu",
                       elf->file->name, index, out->file_size, out->offset, elf->file->size);
    if (out->type == ELF_PT_LOAD && out->mem_size < out->file_size)
        return tv_fail(err, "%s: corrupted ELF file: segment %u is larger than its memory",
                       elf->file->name, index);
    return 0;
}

int elf_load(const struct elf *elf, struct physmem *mem, uint64_t *end, struct tv_error *err)
{
    const char *name = elf->file->name;
    *end = 0;
    for (unsigned i = 0; i < elf->ph_count; i++) {
        struct elf_segment s;
        if (elf_segment(elf, i, &s, err) < 0)
            return -1;
        if (s.type != ELF_PT_LOAD || !s.mem_size)
            continue;
        if (s.paddr < KERNEL_BASE)
            return tv_fail(err,
                           "%s: segment %u would load at %#" PRIx64
                           ", below 1 MiB, where the boot information is",
                           name, i, s.paddr);
        if (!range_ok(s.paddr, s.mem_size, mem->low_size))
            return tv_fail(err,
                           "%s: segment %u (%" PRIu64 " bytes at %#" PRIx64
                           ") does not fit the guest's %" PRIu64
                           " MiB of memory below the PCI hole; give more with --memory",
                           name, i, s.mem_size, s.paddr, mem->low_size >> 20);
        physmem_write(mem, s.paddr, elf->file->data + s.offset, s.file_size);
        boot_zero(mem, s.paddr + s.file_size, s.mem_size - s.file_size);
        *end = MAX(*end, s.paddr + s.mem_size);
    }
    if (!*end)
        return tv_fail(err, "%s: an ELF file with nothing to load", name);
    return 0;
}

/* Notes: name size, descriptor size, type, then both padded to four bytes (also in 64-bit files as
 * everybody makes them). */
static const uint8_t *find_note(const uint8_t *notes, uint64_t len, const char *name, uint32_t type,
                                uint32_t *size)
{
    size_t name_len = strlen(name) + 1;
    while (len >= 12) {
        uint64_t name_size = get32(notes), desc_size = get32(notes + 4);
        uint64_t desc = 12 + ALIGN_UP(name_size, UINT64_C(4));
        uint64_t next = desc + ALIGN_UP(desc_size, UINT64_C(4));
        if (!range_ok(desc, desc_size, len))
            return NULL;
        if (get32(notes + 8) == type && name_size == name_len &&
            !memcmp(notes + 12, name, name_len)) {
            *size = (uint32_t)desc_size;
            return notes + desc;
        }
        if (next > len)
            return NULL;
        notes += next;
        len -= next;
    }
    return NULL;
}

const uint8_t *elf_note(const struct elf *elf, const char *name, uint32_t type, uint32_t *size)
{
    for (unsigned i = 0; i < elf->ph_count; i++) {
        struct elf_segment s;
        if (elf_segment(elf, i, &s, NULL) < 0 || s.type != ELF_PT_NOTE)
            continue;
        const uint8_t *note = find_note(elf->file->data + s.offset, s.file_size, name, type, size);
        if (note)
            return note;
    }
    return NULL;
}
