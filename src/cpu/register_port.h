/* A port whose IN takes and gives general registers, as VMware's backdoor does: engines ask here
 * first when a guest reads a dword from a port. */
#ifndef TRIVISOR_CPU_REGISTER_PORT_H
#define TRIVISOR_CPU_REGISTER_PORT_H

#include <stdbool.h>
#include <stdint.h>

#define REGISTER_PORT       0x5658
#define REGISTER_PORT_MAGIC 0x564d5868u /* in EAX; without it the port is like any other */

struct machine;

/*
 * The access is for it: `gpr`, by the numbers of cpu.h, is changed, EAX included; upper halves of
 * registers become 0, as after any 32-bit write. False: the access goes to the bus.
 */
bool register_port_in(struct machine *m, uint16_t port, unsigned size, uint64_t *gpr);

#endif
