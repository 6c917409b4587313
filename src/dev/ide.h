/*
 * PIIX4 function 1: two IDE channels with bus-master DMA, two drives each, hard disks (ATA-6) and
 * CD-ROMs (ATAPI, MMC). Units 0 to 3: primary master and slave, secondary master and slave.
 */
#ifndef TRIVISOR_DEV_IDE_H
#define TRIVISOR_DEV_IDE_H

#include "dev/device.h"
#include "dev/pci.h"
#include "disk/disk.h"

#define IDE_UNITS 4

struct ide;

struct ide *ide_create(struct device_env *env, struct pci_bus *bus, struct irq_line irq14,
                       struct irq_line irq15);
/* Put a drive there, before any vCPU runs. The disk stays the caller's; NULL: a CD-ROM drive
 * without a medium. */
void ide_attach(struct ide *ide, unsigned unit, struct disk *disk, bool cdrom);
/* Another medium in a CD-ROM drive, or none. Device lock held; false: the unit is no CD-ROM drive
 * or it is busy or, without `force`, its tray is locked (the guest is told of the wish). The old
 * disk may be closed when this returns true. */
bool ide_change_medium(struct ide *ide, unsigned unit, struct disk *disk, bool force);
/* Has the guest locked the tray; has it opened it? Device lock held. */
bool ide_tray_locked(const struct ide *ide, unsigned unit);
bool ide_tray_open(const struct ide *ide, unsigned unit);

#endif
