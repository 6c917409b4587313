/* Virtio block device. */
#ifndef TRIVISOR_DEV_VIRTIO_BLK_H
#define TRIVISOR_DEV_VIRTIO_BLK_H

#include "dev/pci.h"

struct disk;
struct virtio_blk;

/* The disk stays the caller's, who may close it once no vCPU runs any more. `serial`: its first 20
 * characters count. `queues`: one for each vCPU that is to have its own. NULL: out of memory. */
struct virtio_blk *virtio_blk_create(struct device_env *env, struct pci_bus *bus, unsigned devfn,
                                     struct disk *disk, const char *serial, unsigned queues);

#endif
