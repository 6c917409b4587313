/*
 * VMware's SVGA II adapter, PCI 15ad:0405, in two dimensions; below it a VGA with the Bochs display
 * interface, for firmware and until a driver enables it.
 *
 *   BAR 0  ports: index at 0, value at 1, interrupt status at 8; all 32 bits wide
 *   BAR 1  frame buffer
 *   BAR 2  FIFO of commands
 *
 *   svga.c         registers, interrupt, the picture
 *   svga_fifo.c    the FIFO and its commands
 *   svga_gmr.c     guest memory regions: pages of guest RAM under a number
 *   svga_screen.c  screen objects, and copies between them and guest memory
 *   svga_cursor.c  pointer images
 */
#ifndef TRIVISOR_DEV_SVGA_H
#define TRIVISOR_DEV_SVGA_H

#include "dev/pci.h"
#include "dev/vga.h"

struct svga;

/* `rom`: its BIOS, for the expansion ROM; NULL: none. NULL when out of memory; the machine cannot
 * be used then. */
struct svga *svga_create(struct device_env *env, struct pci_bus *pci, unsigned devfn,
                         const void *rom, size_t rom_size);
struct vga *svga_core(struct svga *svga);
extern const struct display_ops svga_display_ops; /* the adapter is the struct svga */

#endif
