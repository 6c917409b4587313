/* An ELF image entered through its PVH note: the start-info block, memory map, command line,
 * module, RSDP, and the state of the processor. */
#include "lib/guest.h"

asm(".pushsection .note.pvh, \"a\", @note\n"
    ".long 4, 4, 18, 0x006e6558, start\n" /* "Xen", XEN_ELFNOTE_PHYS32_ENTRY */
    ".popsection\n");

struct start_info {
    u32 magic, version, flags, modules;
    u64 module_list, command_line, rsdp, memory_map;
    u32 memory_entries, reserved;
};

static bool same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

void guest_main(void)
{
    const struct start_info *info = (const struct start_info *)boot_info;
    check("magic", info->magic == 0x336ec578);
    check("version", info->version >= 1);
    check("command line", same((const char *)(u32)info->command_line, "one two=3"));
    check("one module", info->modules == 1);
    u64 module[2];
    memcpy(module, (const void *)(u32)info->module_list, sizeof(module));
    check("its text", module[1] > 10 && !memcmp((const void *)(u32)module[0], "/* An ELF ", 10));
    check("RSDP", !memcmp((const void *)(u32)info->rsdp, "RSD PTR ", 8) &&
                      acpi_sum((const void *)(u32)info->rsdp, 20));
    u64 ram = 0;
    for (u32 i = 0; i < info->memory_entries; i++) {
        const u32 *e = (const u32 *)((u32)info->memory_map + 24 * i);
        if (e[4] == 1)
            ram += e[2] | (u64)e[3] << 32;
    }
    check("memory", ram > 120 * 1048576u && ram <= 128 * 1048576u);
    check("PE, no PG", (READ_CR(0) & 0x80000001) == 1);
    u32 flags;
    asm volatile("pushf; pop %0" : "=r"(flags));
    check("interrupts off, no TF", !(flags & 0x300));
}
