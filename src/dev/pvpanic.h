/* The pvpanic ISA device, port 0x505: the guest tells that it has panicked. */
#ifndef TRIVISOR_DEV_PVPANIC_H
#define TRIVISOR_DEV_PVPANIC_H

#include "dev/device.h"

#define PVPANIC_PORT 0x505

struct pvpanic;

struct pvpanic *pvpanic_create(struct device_env *env);

#endif
