/*
 * VMware's absolute pointer: a queue of packets behind the backdoor, which a guest's driver reads
 * when its PS/2 mouse interrupts. Off until a driver asks for it.
 */
#ifndef TRIVISOR_DEV_VMMOUSE_H
#define TRIVISOR_DEV_VMMOUSE_H

#include "dev/backdoor.h"
#include "dev/i8042.h"

struct vmmouse;

struct vmmouse *vmmouse_create(struct device_env *env, struct backdoor *backdoor,
                               struct i8042 *kbc);
/* The pointer is at (x, y), 0 to 0xffff from the left and top; wheel and buttons as of
 * i8042_mouse(). Device lock held. False: the guest wants movements, from the PS/2 mouse. */
bool vmmouse_move(struct vmmouse *mouse, unsigned x, unsigned y, int dz, unsigned buttons);

#endif
