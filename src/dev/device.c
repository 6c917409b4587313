#include "dev/device.h"

#include <stdlib.h>

void device_register(struct device_env *env, const struct state_table *table, void *device,
                     void (*destroy)(void *device))
{
    if (env->device_count == DEVICES_MAX)
        abort(); /* a programming error: the machine has a fixed set of devices */
    env->devices[env->device_count].table = table;
    env->devices[env->device_count].device = device;
    env->devices[env->device_count].destroy = destroy;
    env->device_count++;
    state_reset(table, device);
}

void devices_reset(struct device_env *env)
{
    for (unsigned i = 0; i < env->device_count; i++)
        state_reset(env->devices[i].table, env->devices[i].device);
}

void devices_destroy(struct device_env *env)
{
    while (env->device_count > 0) {
        env->device_count--;
        if (env->devices[env->device_count].destroy)
            env->devices[env->device_count].destroy(env->devices[env->device_count].device);
    }
}
