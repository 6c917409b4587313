#include "vm/bios.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/bios_tables.h"
#include "dev/fw_cfg.h"
#include "dev/pci.h"
#include "dev/rtc.h"
#include "util/error.h"
#include "vm/boot_order.h"
#include "vm/fw_kernel.h"
#include "vm/uefi.h"

#define BIOS_DEFAULT  "/usr/share/seabios/bios-256k.bin"
#define BIOS_UNIT     0x1000u
#define BIOS_MIN      0x20000u
#define BIOS_MAX      0x1000000u
#define SHADOW_SIZE   0x20000u
#define SERIAL_PORT   0x3f8

/* CMOS: three boot devices in order, and the check of a floppy's signature. */
#define CMOS_BOOT_3   0x38
#define CMOS_BOOT_1_2 0x3d
#define NO_SIGNATURE  1

struct bios {
    struct fw_cfg *cfg;
    struct rtc *rtc;
    struct boot_choice choice;
};

static int read_rom(int fd, uint8_t *to, size_t size)
{
    while (size) {
        ssize_t n = read(fd, to, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        to += n;
        size -= (size_t)n;
    }
    return 0;
}

static int load_rom(struct tv_vm *vm, struct pci_bus *pci, struct tv_error *err)
{
    struct physmem *mem = vm->machine.mem;
    bool uefi = vm->config.uefi;
    const char *path = vm->config.bios ? vm->config.bios : uefi ? UEFI_DEFAULT : BIOS_DEFAULT;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tv_fail_errno(err, errno,
                             "%s: cannot open the %s image; install the package '%s' or name a "
                             "file with --bios",
                             path, uefi ? "UEFI" : "BIOS", uefi ? "ovmf" : "seabios");
    struct stat st;
    int result = -1;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < BIOS_MIN ||
        st.st_size > BIOS_MAX || st.st_size % BIOS_UNIT) {
        tv_fail(err, "%s: no BIOS image: want a file of 128 KiB to 16 MiB, a multiple of 4 KiB",
                path);
    } else {
        uint64_t size = (uint64_t)st.st_size;
        uint8_t *rom = physmem_extra(mem, size);
        struct physmem_region *region = rom ? physmem_region_add(mem, rom, size, false) : NULL;
        if (!region || !physmem_region_move(mem, region, HIGH_RAM_BASE - size)) {
            tv_fail(err, "%s: no room for the BIOS below 4 GiB", path);
        } else if (read_rom(fd, rom, size) < 0) {
            tv_fail_errno(err, errno, "%s: cannot read", path);
        } else {
            pci_set_firmware(pci, rom + size - SHADOW_SIZE);
            result = uefi ? uefi_create_variables(vm, path, size, err) : 0;
        }
    }
    close(fd);
    return result;
}

struct e820_entry {
    uint64_t base, size;
    uint32_t type;
} __attribute__((packed));

static bool add_memory_map(struct fw_cfg *cfg, const struct physmem *mem)
{
    const struct e820_entry map[] = {{0, mem->low_size, 1},
                                     {HIGH_RAM_BASE, mem->size - mem->low_size, 1}};
    unsigned count = mem->size > mem->low_size ? 2 : 1;
    return fw_cfg_add_file(cfg, "etc/e820", map, count * sizeof map[0]);
}

/* Kinds to the BIOS's device numbers: floppy 1, hard disk 2, CD-ROM 3, network 4. */
static void set_boot_kinds(struct rtc *rtc, const char *order)
{
    uint8_t nibbles[3] = {0};
    for (unsigned i = 0; i < 3 && order[i]; i++)
        nibbles[i] = (uint8_t)(strchr(BOOT_KINDS, order[i]) - BOOT_KINDS + 1);
    rtc_set_cmos(rtc, CMOS_BOOT_1_2, (uint8_t)(nibbles[0] | nibbles[1] << 4));
    rtc_set_cmos(rtc, CMOS_BOOT_3, (uint8_t)(nibbles[2] << 4 | NO_SIGNATURE));
}

int bios_set_boot_order(struct tv_vm *vm, bool again, struct tv_error *err)
{
    static const char kernel[] = "/rom@" FW_KERNEL_ROM "\n";
    const struct tv_config *c = &vm->config;
    const struct boot_choice *choice = &vm->bios->choice;
    const struct boot_list *list = again ? &choice->later : &choice->first;
    char text[sizeof kernel + DRIVES_MAX * (DRIVE_PATH_MAX + 1)] = "";
    size_t length = 0;
    set_boot_kinds(vm->bios->rtc, list->kinds);
    if (c->kernel && !c->uefi)
        length = (size_t)stpcpy(text, kernel) - (size_t)text;
    /* UEFI firmware has an order of its own in variables that are kept. */
    if (!c->uefi || !c->uefi_vars || choice->given)
        length += boot_list_print(vm, list, text + length, sizeof text - length);
    return !length || fw_cfg_add_file(vm->bios->cfg, "bootorder", text, length)
               ? 0
               : tv_fail(err, "out of memory");
}

/* What the BIOS's keyboard service returns; for F12 as a terminal sends it, something else. */
enum { SCAN_ESC = 0x01, SCAN_F12 = 0x86, SCAN_F12_SERIAL = 0x58 };

static bool add_menu(struct fw_cfg *cfg, const struct boot_choice *choice, bool screen)
{
    static const char f12[] = "\nPress F12 for boot menu.\n\n";
    const uint64_t wait = choice->wait_ms, key = !choice->menu_on_f12 ? SCAN_ESC
                                                 : screen             ? SCAN_F12
                                                                      : SCAN_F12_SERIAL;
    bool ok = fw_cfg_add_number(cfg, FW_CFG_BOOT_MENU, choice->menu, 2);
    if (!choice->menu)
        return ok;
    ok = ok && fw_cfg_add_file(cfg, "etc/boot-menu-wait", &wait, sizeof wait) &&
         fw_cfg_add_file(cfg, "etc/boot-menu-key", &key, sizeof key);
    return ok &&
           (!choice->menu_on_f12 || fw_cfg_add_file(cfg, "etc/boot-menu-message", f12, sizeof f12));
}

int bios_create(struct tv_vm *vm, struct pci_bus *pci, struct rtc *rtc, struct tv_error *err)
{
    const struct tv_config *c = &vm->config;
    const struct physmem *mem = vm->machine.mem;
    if (load_rom(vm, pci, err) < 0)
        return -1;
    struct fw_cfg *cfg = fw_cfg_create(&vm->env);
    vm->bios = calloc(1, sizeof *vm->bios);
    if (!cfg || !vm->bios)
        return tv_fail(err, "out of memory");
    vm->bios->cfg = cfg;
    vm->bios->rtc = rtc;
    if (boot_choice_parse(c, &vm->bios->choice, err) < 0)
        return -1;
    bool ok = fw_cfg_add_number(cfg, FW_CFG_RAM_SIZE, mem->low_size, 8) &&
              fw_cfg_add_number(cfg, FW_CFG_NOGRAPHIC, vm->vga == NULL, 2) &&
              fw_cfg_add_number(cfg, FW_CFG_CPUS, c->vcpus, 2) &&
              fw_cfg_add_number(cfg, FW_CFG_CPUS_MAX, c->vcpus, 2) &&
              add_menu(cfg, &vm->bios->choice, vm->vga) && add_memory_map(cfg, mem);
    /* The ACPI tables' PCI window ends at 4 GiB. */
    static const char no_high_bars[] = "0";
    const uint64_t port = SERIAL_PORT;
    /* Nobody sees a screen: the BIOS and what it boots show theirs on the serial port. */
    if (!vm->vga)
        ok = ok && fw_cfg_add_file(cfg, "etc/sercon-port", &port, sizeof port);

    if (ok && c->kernel && fw_kernel_add(vm, cfg, err) < 0)
        return -1;
    if (c->uefi)
        ok = ok &&
             fw_cfg_add_file(cfg, "opt/ovmf/X-PciMmio64Mb", no_high_bars, sizeof no_high_bars - 1);

    struct bios_file files[BIOS_FILES_MAX];
    int count = bios_tables_build(mem, c->vcpus, (unsigned)(vm->machine.clock.tsc_hz / 1000000),
                                  vm->vga != NULL, files, err);
    if (count < 0)
        return -1;
    for (int i = 0; i < count; i++) {
        ok = ok && files[i].data &&
             fw_cfg_add_file(cfg, files[i].name, files[i].data, files[i].size);
        free(files[i].data);
    }
    return ok ? 0 : tv_fail(err, "out of memory");
}
