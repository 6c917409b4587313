/*
 * The floppy disk controller, an 82077AA in AT mode, with two drives: ports 3f2 to 3f5 and 3f7,
 * IRQ 6, DMA channel 2. What medium is in a drive follows from the image's size.
 */
#ifndef TRIVISOR_DEV_FDC_H
#define TRIVISOR_DEV_FDC_H

#include "dev/device.h"
#include "dev/dma8237.h"
#include "disk/disk.h"

#define FDC_DRIVES 2

struct fdc;

/* NULL: out of memory. */
struct fdc *fdc_create(struct device_env *env, struct dma8237 *dma, struct irq_line irq6);
/* The kind of drive, as the CMOS has it, that an image of `bytes` wants: 1 (360 KiB) to 5
 * (2.88 MiB). 0: no floppy has that size. */
uint8_t fdc_drive_type(uint64_t bytes);
/* The size of the medium that an image of `bytes` is the beginning of: its own, or the smallest one
 * of a 3.5" drive for high density that holds it; 0: none does. */
uint64_t fdc_medium_size(uint64_t bytes);
/* Put a drive there, before any vCPU runs. The disk, of a size that a floppy has, stays the
 * caller's; NULL: no medium. */
void fdc_attach(struct fdc *fdc, unsigned unit, struct disk *disk);
/* Another medium, or none. Device lock held; false: no such drive, no floppy's size, or the drive
 * is at work. The old disk may be closed when this returns true. */
bool fdc_change_medium(struct fdc *fdc, unsigned unit, struct disk *disk);

#endif
