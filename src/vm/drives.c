#include "vm/drives.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "dev/fdc.h"
#include "dev/ide.h"
#include "dev/pvscsi.h"
#include "dev/rtc.h"
#include "dev/virtio_blk.h"
#include "util/error.h"
#include "vm/boot_order.h"
#include "vm/fw_kernel.h"

/* The first CD-ROM is the secondary master, as systems and people expect. */
#define CDROM_UNIT          2

/* CMOS: what drives there are. */
#define CMOS_FLOPPIES       0x10
#define CMOS_EQUIPMENT      0x14
#define FLOPPY_1440         4
#define EQUIPMENT_FPU_MOUSE 0x06

/* Where the drive is, as firmware's boot order names it. */
static void name_drive(struct tv_vm *vm, size_t i, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void name_drive(struct tv_vm *vm, size_t i, const char *fmt, ...)
{
    char *path = vm->drive_paths[i];
    va_list ap;
    va_start(ap, fmt);
    int length = snprintf(path, DRIVE_PATH_MAX, "/pci@i0cf8/");
    vsnprintf(path + length, DRIVE_PATH_MAX - (size_t)length, fmt, ap);
    va_end(ap);
}

/* The first disk to say so pauses the machine, with its message. */
static void no_space(void *opaque, const char *message)
{
    struct tv_vm *vm = opaque;
    pthread_mutex_lock(&vm->lock);
    bool known = vm->out_of_space;
    vm->out_of_space = true;
    pthread_mutex_unlock(&vm->lock);
    if (known)
        return;
    if (vm->config.notify)
        vm->config.notify(vm->config.notify_opaque, message);
    vm_request(vm, REQUEST_NO_SPACE);
}

/* `disk` NULL: the drive has no medium. */
static int open_image(struct tv_vm *vm, const struct tv_drive *d, struct disk **disk,
                      struct tv_error *err)
{
    *disk = NULL;
    if (!d->path)
        return 0;
    struct disk_options options = {.read_only = d->read_only,
                                   .snapshot = d->snapshot,
                                   .trust_paths = d->trust_paths,
                                   .format = d->format                   ? d->format
                                             : d->media == TV_DRIVE_DISK ? NULL
                                                                         : "raw",
                                   .no_space = no_space,
                                   .opaque = vm};
    struct stat st;
    if (d->media == TV_DRIVE_FLOPPY && stat(d->path, &st) == 0)
        options.at_least = fdc_medium_size((uint64_t)st.st_size);
    *disk = disk_open(d->path, &options, err);
    return *disk ? 0 : -1;
}

/* The next free place for a disk or a CD-ROM on the two IDE channels; -1: none. */
static int ide_unit(unsigned taken, enum tv_drive_media media)
{
    if (media == TV_DRIVE_CDROM && !(taken & 1u << CDROM_UNIT))
        return CDROM_UNIT;
    for (int unit = 0; unit < IDE_UNITS; unit++)
        if (!(taken & 1u << unit))
            return unit;
    return -1;
}

static int attach_ide(struct tv_vm *vm, struct pci_bus *pci, struct tv_error *err)
{
    struct ide *ide = vm->ide = ide_create(&vm->env, pci, vm->isa_irq(vm, 14), vm->isa_irq(vm, 15));
    if (!ide)
        return tv_fail(err, "out of memory");
    unsigned taken = 0;
    /* CD-ROMs choose first: their place is a fixed one. */
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < vm->config.drive_count; i++) {
            const struct tv_drive *d = &vm->config.drives[i];
            enum tv_drive_media now = pass == 0 ? TV_DRIVE_CDROM : TV_DRIVE_DISK;
            if (d->media != now || d->interface != TV_INTERFACE_IDE)
                continue;
            int unit = ide_unit(taken, d->media);
            if (unit < 0)
                return tv_fail(err, "%s: IDE has room for %d drives; use if=pvscsi or if=virtio",
                               d->path ? d->path : "CD-ROM", IDE_UNITS);
            taken |= 1u << unit;
            vm->drive_units[i] = (uint8_t)unit;
            ide_attach(ide, (unsigned)unit, vm->disks[i], d->media == TV_DRIVE_CDROM);
            name_drive(vm, i, "ide@1,1/drive@%d/disk@%d", unit / 2, unit % 2);
        }
    return 0;
}

static int check_floppy(const struct tv_drive *d, const struct disk *disk, struct tv_error *err)
{
    if (!disk || fdc_drive_type(disk_size(disk)))
        return 0;
    return tv_fail(err, "%s: no floppy has %" PRIu64 " bytes; want a raw image of at most 2880 KiB",
                   d->path, disk_size(disk));
}

static int attach_floppies(struct tv_vm *vm, struct tv_error *err)
{
    struct fdc *fdc = vm->fdc = fdc_create(&vm->env, vm->dma, vm->isa_irq(vm, 6));
    if (!fdc)
        return tv_fail(err, "out of memory");
    unsigned unit = 0;
    for (size_t i = 0; i < vm->config.drive_count; i++) {
        const struct tv_drive *d = &vm->config.drives[i];
        if (d->media != TV_DRIVE_FLOPPY)
            continue;
        if (unit == FDC_DRIVES)
            return tv_fail(err, "%s: there is room for %d floppy drives",
                           d->path ? d->path : "floppy", FDC_DRIVES);
        if (check_floppy(d, vm->disks[i], err) < 0)
            return -1;
        name_drive(vm, i, "isa@1/fdc@03f0/floppy@%u", unit);
        vm->drive_units[i] = (uint8_t)unit;
        fdc_attach(fdc, unit++, vm->disks[i]);
    }
    return 0;
}

/* Firmware and Linux learn the drives from the CMOS. */
static void describe_floppies(const struct tv_vm *vm, struct rtc *rtc)
{
    const struct tv_config *c = &vm->config;
    unsigned count = 0, types = 0;
    for (size_t i = 0; i < c->drive_count; i++)
        if (c->drives[i].media == TV_DRIVE_FLOPPY && count < FDC_DRIVES) {
            unsigned type = vm->disks[i] ? fdc_drive_type(disk_size(vm->disks[i])) : FLOPPY_1440;
            types |= type << (count++ ? 0 : 4);
        }
    rtc_set_cmos(rtc, CMOS_FLOPPIES, (uint8_t)types);
    rtc_set_cmos(rtc, CMOS_EQUIPMENT,
                 (uint8_t)(EQUIPMENT_FPU_MOUSE | (count ? 1 | (count - 1) << 6 : 0)));
}

/* PVSCSI and virtio: an adapter for all disks of the one, a function for each of the other. */
#define VIRTIO_FIRST 4 /* slots of disks */
#define VIRTIO_LAST  15

/* A serial number that stays the same as long as the order of the drives does. */
static void serial_of(size_t i, char *serial, size_t size)
{
    snprintf(serial, size, "TV%06zu", i);
}

static int attach_pvscsi(struct tv_vm *vm, struct pci_bus *pci, size_t i, struct tv_error *err)
{
    char serial[16];
    if (!vm->pvscsi)
        vm->pvscsi = pvscsi_create(&vm->env, pci, PCI_DEVFN(PVSCSI_SLOT, 0));
    if (!vm->pvscsi)
        return tv_fail(err, "out of memory");
    serial_of(i, serial, sizeof serial);
    int target = pvscsi_attach(vm->pvscsi, vm->disks[i], serial);
    if (target < 0)
        return tv_fail(err, "%s: PVSCSI has room for %d disks", vm->config.drives[i].path,
                       PVSCSI_TARGETS - 1);
    name_drive(vm, i, "scsi@%x/channel@0/disk@%x,0", PVSCSI_SLOT, (unsigned)target);
    return 0;
}

static int attach_virtio(struct tv_vm *vm, struct pci_bus *pci, size_t i, unsigned *slot,
                         struct tv_error *err)
{
    char serial[16];
    if (*slot > VIRTIO_LAST)
        return tv_fail(err, "%s: there is room for %d virtio disks; use if=pvscsi",
                       vm->config.drives[i].path, VIRTIO_LAST - VIRTIO_FIRST + 1);
    serial_of(i, serial, sizeof serial);
    name_drive(vm, i, "scsi@%x/disk@0,0", *slot);
    if (!virtio_blk_create(&vm->env, pci, PCI_DEVFN((*slot)++, 0), vm->disks[i], serial,
                           vm->machine.vcpu_count))
        return tv_fail(err, "out of memory");
    return 0;
}

int drives_create(struct tv_vm *vm, struct pci_bus *pci, struct rtc *rtc, struct tv_error *err)
{
    const struct tv_config *c = &vm->config;
    bool ide = !c->kernel || fw_kernel_wanted(c), floppies = false;
    unsigned slot = VIRTIO_FIRST;
    if (c->drive_count > DRIVES_MAX)
        return tv_fail(err, "%zu drives: at most %d are possible", c->drive_count, DRIVES_MAX);
    for (size_t i = 0; i < c->drive_count; i++) {
        if (open_image(vm, &c->drives[i], &vm->disks[i], err) < 0)
            return -1;
        if (c->drives[i].media == TV_DRIVE_DISK) {
            if (c->drives[i].interface == TV_INTERFACE_PVSCSI && attach_pvscsi(vm, pci, i, err) < 0)
                return -1;
            if (c->drives[i].interface == TV_INTERFACE_VIRTIO &&
                attach_virtio(vm, pci, i, &slot, err) < 0)
                return -1;
        }
        floppies |= c->drives[i].media == TV_DRIVE_FLOPPY;
        ide |= c->drives[i].media != TV_DRIVE_FLOPPY && c->drives[i].interface == TV_INTERFACE_IDE;
    }
    describe_floppies(vm, rtc);
    if (floppies && attach_floppies(vm, err) < 0)
        return -1;
    return ide ? attach_ide(vm, pci, err) : 0;
}

/* ---- While the machine runs ---- */

#define BUSY_MS      2000 /* how long a drive that is at work may be so */
#define BUSY_LOOK_MS 5

/* Locks held. */
static bool try_change(struct tv_vm *vm, size_t i, struct disk *disk, bool force)
{
    unsigned unit = vm->drive_units[i];
    return vm->config.drives[i].media == TV_DRIVE_FLOPPY
               ? fdc_change_medium(vm->fdc, unit, disk)
               : ide_change_medium(vm->ide, unit, disk, force);
}

/* The media lock is held. */
static int change(struct tv_vm *vm, size_t i, struct disk *disk, bool force, struct tv_error *err)
{
    bool cdrom = vm->config.drives[i].media == TV_DRIVE_CDROM;
    char name[16];
    boot_drive_name(&vm->config, i, name, sizeof name);
    for (unsigned waited = 0; waited < BUSY_MS; waited += BUSY_LOOK_MS) {
        pthread_mutex_lock(&vm->device_lock);
        bool done = try_change(vm, i, disk, force);
        bool locked = !done && cdrom && ide_tray_locked(vm->ide, vm->drive_units[i]);
        pthread_mutex_unlock(&vm->device_lock);
        if (done)
            return 0;
        if (locked)
            return tv_fail(err,
                           "%s: the guest has locked the tray and was asked to let the medium go; "
                           "try again, or use force",
                           name);
        nanosleep(&(struct timespec){.tv_nsec = BUSY_LOOK_MS * 1000000L}, NULL);
    }
    return tv_fail(err, "%s: the drive is at work; try again", name);
}

int drives_change(struct tv_vm *vm, size_t i, const struct tv_drive *medium, bool force,
                  struct tv_error *err)
{
    /* copy_config() made them. */
    struct tv_drive *drives = (struct tv_drive *)vm->config.drives;
    struct tv_drive next = drives[i];
    struct disk *disk;
    if (next.media == TV_DRIVE_DISK)
        return tv_fail(err, "a disk cannot be changed while the machine runs");
    next.read_only = medium->read_only || next.media == TV_DRIVE_CDROM;
    next.snapshot = medium->snapshot;
    next.path = medium->path ? strdup(medium->path) : NULL;
    next.format = medium->format ? strdup(medium->format) : NULL;
    if (open_image(vm, &next, &disk, err) < 0)
        goto failed;
    pthread_mutex_lock(&vm->media_lock);
    if ((next.media == TV_DRIVE_FLOPPY && check_floppy(&next, disk, err) < 0) ||
        change(vm, i, disk, force, err) < 0) {
        pthread_mutex_unlock(&vm->media_lock);
        disk_close(disk);
        goto failed;
    }
    disk_close(vm->disks[i]);
    vm->disks[i] = disk;
    free((char *)drives[i].path);
    free((char *)drives[i].format);
    drives[i] = next;
    pthread_mutex_unlock(&vm->media_lock);
    return 0;

failed:
    free((char *)next.path);
    free((char *)next.format);
    return -1;
}

/* What is to be said of a drive behind its file's name. */
static const char *condition(struct tv_vm *vm, size_t i)
{
    const struct tv_drive *d = &vm->config.drives[i];
    if (d->media != TV_DRIVE_CDROM)
        return !d->path ? "" : d->snapshot ? ", snapshot" : d->read_only ? ", read only" : "";
    pthread_mutex_lock(&vm->device_lock);
    bool open = ide_tray_open(vm->ide, vm->drive_units[i]);
    bool locked = ide_tray_locked(vm->ide, vm->drive_units[i]);
    pthread_mutex_unlock(&vm->device_lock);
    return open ? ", tray open" : locked ? ", tray locked" : "";
}

void drives_print(struct tv_vm *vm, FILE *out)
{
    pthread_mutex_lock(&vm->media_lock);
    for (size_t i = 0; i < vm->config.drive_count; i++) {
        char name[16];
        const char *path = vm->config.drives[i].path;
        boot_drive_name(&vm->config, i, name, sizeof name);
        fprintf(out, "%s: %s%s\n", name, path ? path : "empty", condition(vm, i));
    }
    pthread_mutex_unlock(&vm->media_lock);
}

bool drives_retry(struct tv_vm *vm)
{
    bool good = true;
    pthread_mutex_lock(&vm->media_lock);
    for (size_t i = 0; i < DRIVES_MAX; i++) {
        if (!vm->disks[i] || !disk_stalled(vm->disks[i]))
            continue;
        disk_retry(vm->disks[i]);
        disk_drain(vm->disks[i]);
        good &= !disk_stalled(vm->disks[i]);
    }
    pthread_mutex_unlock(&vm->media_lock);
    return good;
}

void drives_drain(struct tv_vm *vm)
{
    for (size_t i = 0; i < DRIVES_MAX; i++)
        if (vm->disks[i]) {
            disk_drain(vm->disks[i]);
            disk_give_up(vm->disks[i]);
        }
}

void drives_close(struct tv_vm *vm)
{
    for (size_t i = 0; i < DRIVES_MAX; i++) {
        disk_close(vm->disks[i]);
        vm->disks[i] = NULL;
    }
}
