/*
 * Linux/x86 boot protocol, from 2.02 (bzImage; Linux 2.4) on.
 *
 * The file is a real-mode part, which nobody runs here, and the protected-mode kernel. The setup
 * header at 0x1f1 of the first says how to load the second; a copy of the header goes into
 * boot_params, filled in as a boot loader does. Where header fields came with a later protocol
 * version than the kernel's, the values that older boot loaders assumed are used.
 */
#include <inttypes.h>

#include "boot/bytes.h"
#include "boot/layout.h"
#include "boot/linux_header.h"
#include "boot/loader.h"
#include "util/error.h"
#include "util/util.h"

/* boot_params outside the header */
enum {
    BP_EXT_MEM_K = 0x002,
    BP_ACPI_RSDP = 0x070,
    BP_VIDEO_MODE = 0x06,
    BP_VIDEO_COLUMNS = 0x07,
    BP_VIDEO_LINES = 0x0e,
    BP_VIDEO_IS_VGA = 0x0f,
    BP_VIDEO_POINTS = 0x10,
    BP_ALT_MEM_K = 0x1e0,
    BP_E820_ENTRIES = 0x1e8,
    BP_HDR_LIMIT = 0x290,
    BP_E820_TABLE = 0x2d0,
    BP_SIZE = 0x1000,
};

#define QUIET_FLAG           BIT(5)
#define XLF_KERNEL_64        BIT(0)
#define LOADER_UNDEFINED     0xff
#define VID_MODE_NORMAL      0xffff
#define ENTRY64_OFFSET       0x200

#define CMDLINE_SIZE_DEFAULT 255u

struct setup {
    const uint8_t *header; /* the file */
    uint16_t version;
    const uint8_t *payload;
    uint64_t payload_size;
    bool kernel64;
    uint64_t load;   /* where the payload goes */
    uint64_t in_use; /* end of what the kernel takes before it reads its memory map */
    uint64_t initrd_max;
    uint32_t cmdline_max;
};

bool linux_probe(const struct boot_file *file)
{
    return file->size >= HDR_VERSION && get16(file->data + HDR_BOOT_FLAG) == 0xaa55 &&
           !memcmp(file->data + HDR_MAGIC, "HdrS", 4);
}

static int parse_payload(struct setup *s, const struct boot_file *file, struct tv_error *err)
{
    const uint8_t *h = file->data;
    uint64_t setup_size = ((h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4u) + 1u) * 512u;
    if (file->size <= setup_size)
        return tv_fail(err,
                       "%s: truncated bzImage: %zu bytes, but its setup code alone is %" PRIu64,
                       file->name, file->size, setup_size);
    s->payload = h + setup_size;
    s->payload_size = file->size - setup_size;
    if (s->version >= 0x204) {
        /* In 16-byte units; the last one need not be there in full. */
        uint64_t size = (uint64_t)get32(h + HDR_SYSSIZE) * 16;
        if (size == 0)
            return tv_fail(err, "%s: corrupted bzImage: its header says that it has no code",
                           file->name);
        if (size > s->payload_size + 15)
            return tv_fail(err, "%s: truncated bzImage: %zu bytes, but its header says %" PRIu64,
                           file->name, file->size, setup_size + size);
        s->payload_size = MIN(size, s->payload_size);
    }
    return 0;
}

static int place_kernel(struct setup *s, const struct boot_file *file, const struct physmem *mem,
                        struct tv_error *err)
{
    const uint8_t *h = s->header;
    uint64_t init_size = s->version >= 0x20a ? get32(h + HDR_INIT_SIZE) : 0;
    uint64_t need = MAX(init_size, s->payload_size);

    s->load = KERNEL_BASE;
    uint64_t runs_at = s->load;
    if (s->version >= 0x205 && h[HDR_RELOCATABLE]) {
        uint64_t alignment = get32(h + HDR_ALIGNMENT);
        if (alignment == 0 || (alignment & (alignment - 1)) || alignment > BIT(30))
            return tv_fail(err, "%s: corrupted bzImage: kernel alignment %#" PRIx64, file->name,
                           alignment);
        uint64_t preferred = s->version >= 0x20a ? get64(h + HDR_PREF_ADDRESS) : 0;
        if (preferred >= HIGH_RAM_BASE)
            return tv_fail(err, "%s: corrupted bzImage: preferred address %#" PRIx64, file->name,
                           preferred);
        s->load = ALIGN_UP(MAX(preferred, KERNEL_BASE), alignment);
        runs_at = s->load;
    } else if (s->version >= 0x20a) {
        /* Unpacks itself to where it must run. */
        runs_at = MAX(get64(h + HDR_PREF_ADDRESS), KERNEL_BASE);
    }
    if (!range_ok(runs_at, need, mem->low_size))
        return tv_fail(err,
                       "%s: this kernel needs memory up to %#" PRIx64
                       " to start; give it more with --memory",
                       file->name, runs_at + need);
    if (!range_ok(s->load, s->payload_size, mem->low_size))
        return tv_fail(err, "%s: too large for the guest's memory; give more with --memory",
                       file->name);
    s->in_use = MAX(runs_at + need, s->load + s->payload_size);
    return 0;
}

static int parse(struct setup *s, const struct boot_file *file, const struct physmem *mem,
                 struct tv_error *err)
{
    const uint8_t *h = file->data;
    *s = (struct setup){.header = h};
    if (file->size < HDR_FIXED_END)
        return tv_fail(err, "%s: truncated bzImage: its setup header is not complete", file->name);
    s->version = get16(h + HDR_VERSION);
    if (s->version < 0x202)
        return tv_fail(err, "%s: boot protocol %u.%02u is too old (2.02, Linux 2.4, is the oldest)",
                       file->name, s->version >> 8, s->version & 0xff);
    if (!(h[HDR_LOADFLAGS] & LOADED_HIGH))
        return tv_fail(err, "%s: a zImage (it loads below 1 MiB); only bzImages can be booted",
                       file->name);
    s->initrd_max = s->version >= 0x203 ? get32(h + HDR_INITRD_MAX) : INITRD_MAX_DEFAULT;
    s->cmdline_max = s->version >= 0x206 ? get32(h + HDR_CMDLINE_SIZE) : CMDLINE_SIZE_DEFAULT;
    s->kernel64 = s->version >= 0x20c && (get16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64);
    if (parse_payload(s, file, err) < 0 || place_kernel(s, file, mem, err) < 0)
        return -1;
    if (s->kernel64 && s->payload_size <= ENTRY64_OFFSET)
        return tv_fail(err, "%s: truncated bzImage: no 64-bit entry point", file->name);
    return 0;
}

/* All initrds one after the other, each padded to four bytes: Linux unpacks cpio archives in a row.
 */
static int load_initrds(const struct boot_image *image, const struct setup *s, struct physmem *mem,
                        uint8_t *params, struct tv_error *err)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < image->initrd_count; i++)
        total = ALIGN_UP(total, UINT64_C(4)) + image->initrds[i].size;
    if (!total)
        return 0;
    uint64_t top = MIN(s->initrd_max + 1, mem->low_size);
    if (total > top || ALIGN_DOWN(top - total, PAGE_SIZE) < s->in_use)
        return tv_fail(err,
                       "%s: no room for the initrd (%" PRIu64 " bytes) between the kernel's end at "
                       "%#" PRIx64 " and %#" PRIx64 "; give more with --memory",
                       image->initrds[0].name, total, s->in_use, top);
    uint64_t base = ALIGN_DOWN(top - total, PAGE_SIZE), at = base;
    for (unsigned i = 0; i < image->initrd_count; i++) {
        const struct boot_file *file = &image->initrds[i];
        uint64_t aligned = ALIGN_UP(at, UINT64_C(4));
        boot_zero(mem, at, aligned - at);
        physmem_write(mem, aligned, file->data, file->size);
        at = aligned + file->size;
    }
    put32(params + HDR_RAMDISK_IMAGE, (uint32_t)base);
    put32(params + HDR_RAMDISK_SIZE, (uint32_t)total);
    return 0;
}

static int load_cmdline(const struct boot_image *image, const struct setup *s, struct physmem *mem,
                        uint8_t *params, struct tv_error *err)
{
    size_t length = strlen(image->append);
    if (length > s->cmdline_max)
        return tv_fail(err,
                       "%s: the kernel command line has %zu characters, but this kernel takes at "
                       "most %u",
                       image->kernel.name, length, s->cmdline_max);
    struct boot_strings strings = {BOOT_STRINGS};
    uint32_t address = boot_strings_add(&strings, mem, image->append, "");
    if (!address)
        return tv_fail(err, "%s: the kernel command line is too long (%zu characters)",
                       image->kernel.name, length);
    put32(params + HDR_CMDLINE, address);
    return 0;
}

/* A VGA in mode 3: 80 by 25 characters of 16 lines. */
static void fill_screen_info(uint8_t *params)
{
    params[BP_VIDEO_MODE] = 3;
    params[BP_VIDEO_COLUMNS] = 80;
    params[BP_VIDEO_LINES] = 25;
    params[BP_VIDEO_IS_VGA] = 1;
    put16(params + BP_VIDEO_POINTS, 16);
}

static void fill_memory_map(const struct physmem *mem, uint8_t *params)
{
    struct memmap_range ranges[MEMMAP_MAX];
    unsigned count = memmap_build(mem, ranges);
    params[BP_E820_ENTRIES] = (uint8_t)count;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *e = params + BP_E820_TABLE + i * 20;
        put64(e, ranges[i].base);
        put64(e + 8, ranges[i].size);
        put32(e + 16, ranges[i].type);
    }
    /* For kernels that don't look at the above. */
    uint64_t above_1m = (mem->low_size - KERNEL_BASE) >> 10;
    put32(params + BP_ALT_MEM_K, (uint32_t)above_1m);
    put16(params + BP_EXT_MEM_K, (uint16_t)MIN(above_1m, UINT64_C(0xfc00)));
}

int linux_load(const struct boot_image *image, struct physmem *mem, struct boot_entry *entry,
               struct tv_error *err)
{
    struct setup s;
    if (parse(&s, &image->kernel, mem, err) < 0)
        return -1;

    uint8_t params[BP_SIZE] = {0};
    /* The header ends where the jump over it lands. */
    size_t header_end = HDR_MAGIC + s.header[HDR_JUMP + 1];
    header_end = MIN(MIN(header_end, (size_t)BP_HDR_LIMIT), image->kernel.size);
    if (header_end > HDR_START)
        memcpy(params + HDR_START, s.header + HDR_START, header_end - HDR_START);
    params[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    params[HDR_LOADFLAGS] =
        (uint8_t)((params[HDR_LOADFLAGS] | LOADED_HIGH | CAN_USE_HEAP) & ~QUIET_FLAG);
    put16(params + HDR_VID_MODE, VID_MODE_NORMAL);
    put16(params + HDR_HEAP_END, 0xfe00);
    put32(params + HDR_CODE32_START, (uint32_t)s.load);
    put32(params + HDR_RAMDISK_IMAGE, 0);
    put32(params + HDR_RAMDISK_SIZE, 0);
    put64(params + BP_ACPI_RSDP, RSDP_BASE);
    fill_memory_map(mem, params);
    if (image->text_mode)
        fill_screen_info(params);
    if (load_initrds(image, &s, mem, params, err) < 0 ||
        load_cmdline(image, &s, mem, params, err) < 0)
        return -1;
    physmem_write(mem, s.load, s.payload, s.payload_size);
    physmem_write(mem, BOOT_INFO, params, sizeof params);

    bool in_long_mode = s.kernel64 && image->long_mode;
    *entry = (struct boot_entry){
        .mode = in_long_mode ? BOOT_LONG : BOOT_PROTECTED,
        .protocol = in_long_mode ? "Linux 64-bit" : "Linux 32-bit",
        .rip = s.load + (in_long_mode ? ENTRY64_OFFSET : 0),
        .rsi = BOOT_INFO,
        .rsp = BOOT_STACK,
    };
    return 0;
}
