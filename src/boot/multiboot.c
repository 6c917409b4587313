/*
 * Multiboot 1 (the GNU specification, version 0.6.96). The kernel is found by a header in its first
 * 8 KiB, loaded as a 32-bit ELF file or as the header itself says (the "a.out kludge"), and handed
 * an information structure in EBX, with modules after the kernel.
 */
#include <inttypes.h>

#include "boot/bytes.h"
#include "boot/elf.h"
#include "boot/layout.h"
#include "util/error.h"
#include "util/util.h"

#define HEADER_MAGIC     0x1badb002u
#define ENTRY_MAGIC      0x2badb002u
#define HEADER_SEARCH    8192u

/* Header flags. Of the low half, unknown ones forbid loading; module alignment is always given. */
#define FLAG_ALIGN       BIT(0)
#define FLAG_MEMORY_INFO BIT(1)
#define FLAG_VIDEO       BIT(2)
#define FLAG_ADDRESSES   BIT(16)
#define FLAGS_KNOWN      (FLAG_ALIGN | FLAG_MEMORY_INFO | FLAG_VIDEO)

/* Information structure, by offset, and its flags */
enum {
    MBI_FLAGS = 0,
    MBI_MEM_LOWER = 4,
    MBI_MEM_UPPER = 8,
    MBI_CMDLINE = 16,
    MBI_MODS_COUNT = 20,
    MBI_MODS = 24,
    MBI_MMAP_LENGTH = 44,
    MBI_MMAP = 48,
    MBI_LOADER_NAME = 64,
    MBI_SIZE = 116,
    MODULE_SIZE = 16,
    MAP_SIZE = 24,
    MODULES_AT = BOOT_INFO + 128,
    MAP_AT = MODULES_AT + BOOT_INITRDS_MAX * MODULE_SIZE,
};
_Static_assert(MAP_AT + MEMMAP_MAX * MAP_SIZE <= BOOT_INFO_END, "room for the boot information");

#define HAS_MEM_SIZES   BIT(0)
#define HAS_CMDLINE     BIT(2)
#define HAS_MODULES     BIT(3)
#define HAS_MMAP        BIT(6)
#define HAS_LOADER_NAME BIT(9)

/* Offset of the header in the file, or -1. */
static int64_t find_header(const struct boot_file *file)
{
    uint64_t limit = MIN(file->size, (size_t)HEADER_SEARCH);
    for (uint64_t at = 0; at + 12 <= limit; at += 4) {
        const uint8_t *h = file->data + at;
        if (get32(h) == HEADER_MAGIC && get32(h) + get32(h + 4) + get32(h + 8) == 0)
            return (int64_t)at;
    }
    return -1;
}

bool multiboot_probe(const struct boot_file *file)
{
    return find_header(file) >= 0;
}

/* The a.out kludge: the header says which part of the file goes where. */
static int load_by_header(const struct boot_file *file, uint64_t header, struct physmem *mem,
                          uint64_t *end, uint64_t *entry, struct tv_error *err)
{
    if (!range_ok(header, 32, file->size))
        return tv_fail(err, "%s: truncated Multiboot header", file->name);
    const uint8_t *h = file->data + header;
    uint64_t header_addr = get32(h + 12), load_addr = get32(h + 16), load_end = get32(h + 20),
             bss_end = get32(h + 24);
    *entry = get32(h + 28);
    if (load_addr > header_addr || header_addr - load_addr > header)
        return tv_fail(err, "%s: corrupted Multiboot header: load address %#" PRIx64, file->name,
                       load_addr);
    uint64_t offset = header - (header_addr - load_addr);
    uint64_t size = load_end ? load_end - load_addr : file->size - offset;
    if (load_end && load_end < load_addr)
        return tv_fail(err, "%s: corrupted Multiboot header: it ends before it begins", file->name);
    if (!range_ok(offset, size, file->size))
        return tv_fail(err,
                       "%s: truncated Multiboot image: its header wants %" PRIu64
                       " bytes, the file has %zu",
                       file->name, offset + size, file->size);
    *end = MAX(load_addr + size, bss_end);
    if (load_addr < KERNEL_BASE)
        return tv_fail(err,
                       "%s: would load at %#" PRIx64 ", below 1 MiB, where the boot information is",
                       file->name, load_addr);
    if (*end > mem->low_size)
        return tv_fail(err,
                       "%s: needs memory up to %#" PRIx64
                       ", more than the guest has below the PCI hole; give more with --memory",
                       file->name, *end);
    physmem_write(mem, load_addr, file->data + offset, size);
    boot_zero(mem, load_addr + size, *end - (load_addr + size));
    return 0;
}

static int load_elf(const struct boot_file *file, struct physmem *mem, uint64_t *end,
                    uint64_t *entry, struct tv_error *err)
{
    struct elf elf;
    if (!elf_magic(file))
        return tv_fail(err, "%s: a Multiboot image that is neither ELF nor says where to load",
                       file->name);
    if (elf_open(&elf, file, err) < 0)
        return -1;
    if (elf.is64)
        return tv_fail(err,
                       "%s: a 64-bit ELF file; Multiboot 1 loads 32-bit ones (objcopy -O "
                       "elf32-i386), or others by the addresses in their header",
                       file->name);
    *entry = elf.entry;
    return elf_load(&elf, mem, end, err);
}

static int load_modules(const struct boot_image *image, struct physmem *mem, uint64_t kernel_end,
                        struct boot_strings *strings, struct tv_error *err)
{
    uint64_t at = ALIGN_UP(kernel_end, PAGE_SIZE);
    for (unsigned i = 0; i < image->initrd_count; i++) {
        const struct boot_file *file = &image->initrds[i];
        if (!range_ok(at, file->size, mem->low_size))
            return tv_fail(
                err, "%s: no room for it (%zu bytes) at %#" PRIx64 "; give more with --memory",
                file->name, file->size, at);
        physmem_write(mem, at, file->data, file->size);
        uint32_t text = boot_strings_add(strings, mem, file->name, file->args);
        if (!text)
            return tv_fail(err, "%s: its arguments are too long", file->name);
        uint8_t entry[MODULE_SIZE] = {0};
        put32(entry, (uint32_t)at);
        put32(entry + 4, (uint32_t)(at + file->size));
        put32(entry + 8, text);
        physmem_write(mem, MODULES_AT + (uint64_t)i * MODULE_SIZE, entry, sizeof entry);
        at = ALIGN_UP(at + file->size, PAGE_SIZE);
    }
    return 0;
}

int multiboot_load(const struct boot_image *image, struct physmem *mem, struct boot_entry *entry,
                   struct tv_error *err)
{
    const struct boot_file *file = &image->kernel;
    int64_t header = find_header(file);
    if (header < 0)
        return tv_fail(err, "%s: no Multiboot header", file->name);
    uint32_t flags = get32(file->data + header + 4);
    if (flags & 0xffff & ~FLAGS_KNOWN)
        return tv_fail(err, "%s: its Multiboot header asks for something unknown (flags %#x)",
                       file->name, flags);

    uint64_t end = 0, rip = 0;
    if ((flags & FLAG_ADDRESSES ? load_by_header(file, (uint64_t)header, mem, &end, &rip, err)
                                : load_elf(file, mem, &end, &rip, err)) < 0)
        return -1;
    if (rip < KERNEL_BASE || rip >= end)
        return tv_fail(err, "%s: its entry point %#" PRIx64 " is outside what was loaded",
                       file->name, rip);

    struct boot_strings strings = {BOOT_STRINGS};
    uint32_t cmdline = boot_strings_add(&strings, mem, file->name, image->append);
    uint32_t loader = boot_strings_add(&strings, mem, "Trivisor " TRIVISOR_VERSION, "");
    if (!cmdline || !loader)
        return tv_fail(err, "%s: the kernel command line is too long (%zu characters)", file->name,
                       strlen(image->append));
    if (load_modules(image, mem, end, &strings, err) < 0)
        return -1;

    struct memmap_range ranges[MEMMAP_MAX];
    unsigned count = memmap_build(mem, ranges);
    for (unsigned i = 0; i < count; i++) {
        uint8_t e[MAP_SIZE];
        put32(e, MAP_SIZE - 4); /* the size field does not count itself */
        put64(e + 4, ranges[i].base);
        put64(e + 12, ranges[i].size);
        put32(e + 20, ranges[i].type);
        physmem_write(mem, MAP_AT + (uint64_t)i * MAP_SIZE, e, sizeof e);
    }

    uint8_t info[MBI_SIZE] = {0};
    put32(info + MBI_FLAGS, HAS_MEM_SIZES | HAS_CMDLINE | HAS_MODULES | HAS_MMAP | HAS_LOADER_NAME);
    put32(info + MBI_MEM_LOWER, EBDA_BASE >> 10);
    put32(info + MBI_MEM_UPPER, (uint32_t)((mem->low_size - KERNEL_BASE) >> 10));
    put32(info + MBI_CMDLINE, cmdline);
    put32(info + MBI_MODS_COUNT, image->initrd_count);
    put32(info + MBI_MODS, MODULES_AT);
    put32(info + MBI_MMAP_LENGTH, count * MAP_SIZE);
    put32(info + MBI_MMAP, MAP_AT);
    put32(info + MBI_LOADER_NAME, loader);
    physmem_write(mem, BOOT_INFO, info, sizeof info);

    *entry = (struct boot_entry){.mode = BOOT_PROTECTED,
                                 .protocol = "Multiboot",
                                 .rip = rip,
                                 .rax = ENTRY_MAGIC,
                                 .rbx = BOOT_INFO,
                                 .rsp = BOOT_STACK};
    return 0;
}
