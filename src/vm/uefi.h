/* UEFI firmware: where Debian's `ovmf` package has it, and its variables. */
#ifndef TRIVISOR_VM_UEFI_H
#define TRIVISOR_VM_UEFI_H

#include "dev/fw_cfg.h"
#include "vm/vm.h"

#define UEFI_PM_BASE 0xb000 /* where OVMF has the PIIX4's power management */
#define UEFI_DEFAULT "/usr/share/OVMF/OVMF_CODE_4M.fd"

/*
 * The flash of variables, below the code image `code` of `code_size` bytes that lies below 4 GiB.
 * Its contents come from config.uefi_vars, a file of the VM's own that is made from the package's
 * template where it does not exist; without that name they are gone with the VM. A code image
 * without "CODE" in its name has its variables inside, and they are gone with the VM, too. -1 with
 * `err` filled.
 */
int uefi_create_variables(struct tv_vm *vm, const char *code, uint64_t code_size,
                          struct tv_error *err);
void uefi_close_variables(struct tv_vm *vm);

#endif
