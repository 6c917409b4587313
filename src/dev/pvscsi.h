/* VMware's paravirtual SCSI adapter, as the drivers of Linux, the BSDs, Windows and SeaBIOS use it.
 */
#ifndef TRIVISOR_DEV_PVSCSI_H
#define TRIVISOR_DEV_PVSCSI_H

#include "dev/pci.h"
#include "disk/disk.h"

#define PVSCSI_TARGETS 16 /* number 7 is the adapter itself */

struct pvscsi;

/* NULL: no memory. */
struct pvscsi *pvscsi_create(struct device_env *env, struct pci_bus *bus, unsigned devfn);
/* Put `disk`, which stays the caller's, behind the next free target number. `serial` is at most 20
 * characters. Returns the number, or -1: there is no room. Before any vCPU runs. */
int pvscsi_attach(struct pvscsi *adapter, struct disk *disk, const char *serial);

#endif
