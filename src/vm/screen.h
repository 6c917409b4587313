/* The screen side of a VM: its adapter, the display that is looked at, keyboard and mouse, and who
 * looks: a VNC server or a web page. */
#ifndef TRIVISOR_VM_SCREEN_H
#define TRIVISOR_VM_SCREEN_H

#include <trivisor/trivisor.h>

#include "ui/input.h"

struct tv_vm;
struct pci_bus;

/* From a keyboard and mouse to a tv_vm's devices. */
extern const struct input_ops screen_input_ops;

/* Build what the configuration asks for, after the keyboard controller. Returns 0, or -1 with
 * `err`. */
int screen_create(struct tv_vm *vm, struct pci_bus *pci, struct tv_error *err);
/* Devices have just been reset: a kernel without firmware finds a VGA in text mode. */
void screen_reset(struct tv_vm *vm);
/* Disconnect viewers; before the devices go. */
void screen_stop(struct tv_vm *vm);
/* After the devices have gone. */
void screen_destroy(struct tv_vm *vm);

#endif
