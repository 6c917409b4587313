/*
 * The boot loader is the option ROM linuxboot_dma.bin, which SeaBIOS takes from fw_cfg and treats
 * as a boot device: it copies four items of fw_cfg to the addresses in four others and jumps to the
 * kernel's real-mode code. UEFI firmware takes the same items for a file system of its own and
 * starts the kernel by its EFI stub.
 */
#include "vm/fw_kernel.h"

#include <stdlib.h>
#include <string.h>

#include "boot/linux_header.h"
#include "disk/file.h"
#include "util/error.h"
#include "util/util.h"

enum {
    ITEM_KERNEL_ADDRESS = 0x07,
    ITEM_KERNEL_SIZE = 0x08,
    ITEM_INITRD_ADDRESS = 0x0a,
    ITEM_INITRD_SIZE = 0x0b,
    ITEM_KERNEL = 0x11,
    ITEM_INITRD = 0x12,
    ITEM_CMDLINE_ADDRESS = 0x13,
    ITEM_CMDLINE_SIZE = 0x14,
    ITEM_CMDLINE = 0x15,
    ITEM_SETUP_ADDRESS = 0x16,
    ITEM_SETUP_SIZE = 0x17,
    ITEM_SETUP = 0x18,
};

#define LOADER_ROM      0xb0
#define SETUP_BASE      0x10000u
#define CMDLINE_BASE    0x20000u
#define CMDLINE_MAX     0x8000u
#define KERNEL_BASE     0x100000u
#define FIRMWARE_TABLES 0x100000u /* at the end of RAM: not for the initrd */
#define FILE_MAX        (UINT64_C(1) << 30)
#define ROM_MAX         0x10000u
#define ROM_FILE        "/usr/share/qemu/linuxboot_dma.bin"

static uint32_t field(const uint8_t *at, unsigned bytes)
{
    uint32_t value = 0;
    memcpy(&value, at, bytes);
    return value;
}

static void set_field(uint8_t *at, uint32_t value, unsigned bytes)
{
    memcpy(at, &value, bytes);
}

static bool add_blob(struct fw_cfg *cfg, unsigned address_item, unsigned size_item, unsigned item,
                     uint32_t address, const void *data, uint64_t size)
{
    return fw_cfg_add_number(cfg, address_item, address, 4) &&
           fw_cfg_add_number(cfg, size_item, size, 4) && fw_cfg_add(cfg, item, data, size);
}

static int add_initrd(const struct tv_vm *vm, struct fw_cfg *cfg, uint8_t *setup,
                      struct tv_error *err)
{
    const char *const *initrds = vm->config.initrds;
    if (!initrds || !initrds[0])
        return 0;
    if (initrds[1])
        return tv_fail(err, "%s: through firmware a kernel gets one initrd", initrds[1]);
    uint64_t size;
    uint8_t *data = file_read_all(initrds[0], 1, FILE_MAX, &size, err);
    if (!data)
        return -1;
    uint64_t max = field(setup + HDR_VERSION, 2) >= 0x203 ? field(setup + HDR_INITRD_MAX, 4)
                                                          : INITRD_MAX_DEFAULT;
    uint64_t low = vm->machine.mem->low_size;
    uint64_t top = MIN(max + 1, low > FIRMWARE_TABLES ? low - FIRMWARE_TABLES : 0);
    int result = 0;
    if (size > top || top - size < 2 * (uint64_t)KERNEL_BASE) {
        result = tv_fail(err, "%s: no room for the initrd; give more with --memory", initrds[0]);
    } else {
        uint32_t base = (uint32_t)ALIGN_DOWN(top - size, PAGE_SIZE);
        set_field(setup + HDR_RAMDISK_IMAGE, base, 4);
        set_field(setup + HDR_RAMDISK_SIZE, (uint32_t)size, 4);
        if (!add_blob(cfg, ITEM_INITRD_ADDRESS, ITEM_INITRD_SIZE, ITEM_INITRD, base, data, size))
            result = tv_fail(err, "out of memory");
    }
    free(data);
    return result;
}

static int add_parts(const struct tv_vm *vm, struct fw_cfg *cfg, uint8_t *file, uint64_t size,
                     struct tv_error *err)
{
    const char *name = vm->config.kernel;
    const char *append = vm->config.append ? vm->config.append : "";
    uint64_t sectors = file[HDR_SETUP_SECTS] ? file[HDR_SETUP_SECTS] : 4;
    uint64_t setup_size = (sectors + 1) * 512, cmdline_size = strlen(append) + 1;
    if (memcmp(file + HDR_MAGIC, "HdrS", 4) != 0 || field(file + HDR_VERSION, 2) < 0x202 ||
        !(file[HDR_LOADFLAGS] & LOADED_HIGH))
        return tv_fail(err,
                       "%s: firmware boots Linux bzImages only; without --bios and --firmware, "
                       "others are loaded as well",
                       name);
    if (setup_size >= size || setup_size > CMDLINE_BASE - SETUP_BASE)
        return tv_fail(err, "%s: truncated bzImage", name);
    if (cmdline_size > CMDLINE_MAX)
        return tv_fail(err, "%s: the kernel command line is too long", name);
    file[HDR_TYPE_OF_LOADER] = LOADER_ROM;
    file[HDR_LOADFLAGS] |= CAN_USE_HEAP;
    set_field(file + HDR_HEAP_END, CMDLINE_BASE - SETUP_BASE - 0x200, 2);
    set_field(file + HDR_CMDLINE, CMDLINE_BASE, 4);
    if (add_initrd(vm, cfg, file, err) < 0)
        return -1;
    bool ok = add_blob(cfg, ITEM_SETUP_ADDRESS, ITEM_SETUP_SIZE, ITEM_SETUP, SETUP_BASE, file,
                       setup_size) &&
              add_blob(cfg, ITEM_CMDLINE_ADDRESS, ITEM_CMDLINE_SIZE, ITEM_CMDLINE, CMDLINE_BASE,
                       append, cmdline_size) &&
              add_blob(cfg, ITEM_KERNEL_ADDRESS, ITEM_KERNEL_SIZE, ITEM_KERNEL, KERNEL_BASE,
                       file + setup_size, size - setup_size);
    return ok ? 0 : tv_fail(err, "out of memory");
}

static int add_rom(struct fw_cfg *cfg, struct tv_error *err)
{
    uint64_t size;
    uint8_t *rom = file_read_all(ROM_FILE, 512, ROM_MAX, &size, err);
    if (!rom)
        return tv_fail(err,
                       "%s: a BIOS needs it to boot with --kernel; install the package "
                       "'qemu-system-data', or leave out --bios",
                       ROM_FILE);
    bool ok = fw_cfg_add_file(cfg, FW_KERNEL_ROM, rom, size);
    free(rom);
    return ok ? 0 : tv_fail(err, "out of memory");
}

int fw_kernel_add(const struct tv_vm *vm, struct fw_cfg *cfg, struct tv_error *err)
{
    uint64_t size;
    uint8_t *file = file_read_all(vm->config.kernel, HDR_ALIGNMENT, FILE_MAX, &size, err);
    if (!file)
        return -1;
    int result = add_parts(vm, cfg, file, size, err);
    free(file);
    return result == 0 && !vm->config.uefi ? add_rom(cfg, err) : result;
}
