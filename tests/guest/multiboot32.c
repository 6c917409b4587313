/* What a Multiboot 1 loader hands over: magic, flags, memory, command line, modules, machine state.
 * QEMU 7.2 puts the image's own path in front of the command line. */
#include "lib/guest.h"

static const char *find(const char *in, const char *what)
{
    for (; *in; in++) {
        unsigned i = 0;
        while (what[i] && in[i] == what[i])
            i++;
        if (!what[i])
            return in;
    }
    return NULL;
}

void guest_main(void)
{
    const u32 *info = (const u32 *)boot_info;
    check("magic", boot_magic == 0x2badb002);
    check("memory", (info[0] & 1) && info[1] >= 600 && info[2] >= 100 * 1024);
    const char *line = info[0] & 4 ? (const char *)info[4] : "";
    printf("command line: %s\n", find(line, "hello=") ? find(line, "hello=") : "missing");
    const u32 *module = (const u32 *)info[6];
    check("one module", (info[0] & 8) && info[5] == 1);
    check("its text", module[1] - module[0] > 10 && !memcmp((void *)module[0], "/* What a ", 10));
    u64 top = 0;
    unsigned entries = 0;
    if (info[0] & 0x40)
        for (u32 at = info[12]; at < info[12] + info[11]; at += *(u32 *)at + 4) {
            u64 base, size;
            memcpy(&base, (void *)(at + 4), 8);
            memcpy(&size, (void *)(at + 12), 8);
            entries++;
            if (*(u32 *)(at + 20) == 1 && base + size > top)
                top = base + size;
        }
    check("memory map", entries >= 2 && top > 120 * 1048576u && top <= 128 * 1048576u);
    check("PE, no PG", (READ_CR(0) & 0x80000001) == 1);
}
