/* A Linux kernel that firmware boots: --kernel together with --bios or --firmware. */
#ifndef TRIVISOR_VM_FW_KERNEL_H
#define TRIVISOR_VM_FW_KERNEL_H

#include "dev/fw_cfg.h"
#include "vm/vm.h"

#define FW_KERNEL_ROM "genroms/linuxboot_dma.bin" /* the name of a BIOS's option ROM in fw_cfg */

/* The kernel goes through firmware rather than straight into RAM. */
static inline bool fw_kernel_wanted(const struct tv_config *c)
{
    return c->kernel && (c->bios || c->uefi || c->firmware);
}

/* Put config.kernel, its initrd and command line where firmware looks for them, with the option ROM
 * that a BIOS needs for it. -1 with `err` filled. */
int fw_kernel_add(const struct tv_vm *vm, struct fw_cfg *cfg, struct tv_error *err);

#endif
