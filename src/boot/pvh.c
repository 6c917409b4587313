/*
 * PVH: an ELF kernel says in a note where its 32-bit entry point is, and finds everything else
 * through struct hvm_start_info, whose address is in EBX. The interface is Xen's (its
 * public/arch-x86/hvm/start_info.h), spoken by Linux, FreeBSD and others on any hypervisor.
 */
#include <inttypes.h>

#include "boot/bytes.h"
#include "boot/elf.h"
#include "boot/layout.h"
#include "util/error.h"
#include "util/util.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

#define START_MAGIC              0x336ec578u
#define START_VERSION            1

/* struct hvm_start_info; then its module list (32 bytes each) and memory map (24 bytes each). */
enum {
    START_SIZE = 56,
    MODULE_SIZE = 32,
    MAP_SIZE = 24,
    MODULES_AT = BOOT_INFO + START_SIZE,
    MAP_AT = MODULES_AT + BOOT_INITRDS_MAX * MODULE_SIZE,
};
_Static_assert(MAP_AT + MEMMAP_MAX * MAP_SIZE <= BOOT_INFO_END, "room for the boot information");

bool pvh_probe(const struct boot_file *file)
{
    struct elf elf;
    uint32_t size;
    return elf_magic(file) && elf_open(&elf, file, NULL) == 0 &&
           elf_note(&elf, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, &size);
}

/* Modules fill low RAM from the top. */
static int load_modules(const struct boot_image *image, struct physmem *mem, uint64_t kernel_end,
                        struct boot_strings *strings, struct tv_error *err)
{
    uint64_t top = mem->low_size;
    for (unsigned i = 0; i < image->initrd_count; i++) {
        const struct boot_file *file = &image->initrds[i];
        if (file->size > top || ALIGN_DOWN(top - file->size, PAGE_SIZE) < kernel_end)
            return tv_fail(err,
                           "%s: no room for it (%zu bytes) between the kernel's end at %#" PRIx64
                           " and %#" PRIx64 "; give more with --memory",
                           file->name, file->size, kernel_end, top);
        top = ALIGN_DOWN(top - file->size, PAGE_SIZE);
        physmem_write(mem, top, file->data, file->size);
        uint8_t entry[MODULE_SIZE] = {0};
        put64(entry, top);
        put64(entry + 8, file->size);
        if (file->args[0]) {
            uint32_t args = boot_strings_add(strings, mem, file->args, "");
            if (!args)
                return tv_fail(err, "%s: its arguments are too long", file->name);
            put64(entry + 16, args);
        }
        physmem_write(mem, MODULES_AT + (uint64_t)i * MODULE_SIZE, entry, sizeof entry);
    }
    return 0;
}

int pvh_load(const struct boot_image *image, struct physmem *mem, struct boot_entry *entry,
             struct tv_error *err)
{
    const char *name = image->kernel.name;
    struct elf elf;
    uint32_t note_size = 0;
    uint64_t kernel_end;
    if (elf_open(&elf, &image->kernel, err) < 0)
        return -1;
    const uint8_t *note = elf_note(&elf, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, &note_size);
    if (!note || note_size < 4)
        return tv_fail(err, "%s: corrupted ELF file: its PVH note has no entry point", name);
    uint64_t rip = note_size >= 8 ? get64(note) : get32(note);
    if (elf_load(&elf, mem, &kernel_end, err) < 0)
        return -1;
    if (rip < KERNEL_BASE || rip >= kernel_end)
        return tv_fail(err, "%s: its PVH entry point %#" PRIx64 " is outside what was loaded", name,
                       rip);

    struct boot_strings strings = {BOOT_STRINGS};
    uint32_t cmdline = boot_strings_add(&strings, mem, image->append, "");
    if (!cmdline)
        return tv_fail(err, "%s: the kernel command line is too long (%zu characters)", name,
                       strlen(image->append));
    if (load_modules(image, mem, kernel_end, &strings, err) < 0)
        return -1;

    struct memmap_range ranges[MEMMAP_MAX];
    unsigned count = memmap_build(mem, ranges);
    for (unsigned i = 0; i < count; i++) {
        uint8_t e[MAP_SIZE] = {0};
        put64(e, ranges[i].base);
        put64(e + 8, ranges[i].size);
        put32(e + 16, ranges[i].type);
        physmem_write(mem, MAP_AT + (uint64_t)i * MAP_SIZE, e, sizeof e);
    }

    uint8_t start[START_SIZE] = {0};
    put32(start, START_MAGIC);
    put32(start + 4, START_VERSION);
    put32(start + 12, image->initrd_count);
    put64(start + 16, image->initrd_count ? MODULES_AT : 0);
    put64(start + 24, cmdline);
    put64(start + 32, RSDP_BASE);
    put64(start + 40, MAP_AT);
    put32(start + 48, count);
    physmem_write(mem, BOOT_INFO, start, sizeof start);

    *entry = (struct boot_entry){
        .mode = BOOT_PROTECTED, .protocol = "PVH", .rip = rip, .rbx = BOOT_INFO, .rsp = BOOT_STACK};
    return 0;
}
