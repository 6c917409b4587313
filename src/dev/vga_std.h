/*
 * The "standard VGA" of Bochs and QEMU: PCI 1234:1111, a VGA with linear modes. The drivers are the
 * VGA BIOS vgabios-stdvga.bin, Linux's bochs-drm, and whatever knows plain VGA or VESA.
 *
 *   BAR 0  frame buffer
 *   BAR 2  registers: EDID at 0, VGA ports 3c0..3df at 400, the display interface at 500
 */
#ifndef TRIVISOR_DEV_VGA_STD_H
#define TRIVISOR_DEV_VGA_STD_H

#include "dev/pci.h"
#include "dev/vga.h"

#define VGA_STD_MEMORY (16u << 20)

struct vga_std;

/* `rom`: its BIOS, for the expansion ROM; NULL: none. NULL when out of memory; the machine cannot
 * be used then. */
struct vga_std *vga_std_create(struct device_env *env, struct pci_bus *pci, unsigned devfn,
                               const void *rom, size_t rom_size);
struct vga *vga_std_core(struct vga_std *std);
extern const struct display_ops vga_std_display_ops; /* the adapter is the struct vga_std */

#endif
