#include "dev/backdoor.h"

#include <stdlib.h>

#include "cpu/register_port.h"
#include "util/util.h"

#define VERSION          6
#define TYPE_WORKSTATION 4

enum { GETVERSION = 10 };

struct backdoor {
    struct device_env *env;
    struct {
        void (*call)(void *device, struct backdoor_call *c);
        void *device;
    } commands[BACKDOOR_COMMANDS];
    uint16_t last; /* command that was called last: for the debugger's view */
};

void backdoor_add(struct backdoor *b, unsigned command,
                  void (*call)(void *device, struct backdoor_call *c), void *device)
{
    b->commands[command].call = call;
    b->commands[command].device = device;
}

void backdoor_call(struct backdoor *b, struct backdoor_call *c)
{
    unsigned command = c->ecx & 0xffff;
    pthread_mutex_lock(b->env->lock);
    b->last = (uint16_t)command;
    if (command < BACKDOOR_COMMANDS && b->commands[command].call) {
        b->commands[command].call(b->commands[command].device, c);
    } else {
        c->eax = UINT32_MAX;
        if (log_on(b->env->log, LOG_DEV))
            log_write(b->env->log, LOG_DEV, "backdoor: unknown command %u", command);
    }
    pthread_mutex_unlock(b->env->lock);
}

static void get_version(void *device, struct backdoor_call *c)
{
    c->eax = VERSION;
    c->ebx = REGISTER_PORT_MAGIC;
    c->ecx = TYPE_WORKSTATION;
}

static const struct state_field fields[] = {STATE(struct backdoor, last, 0)};

static const struct state_table table = {
    .name = "backdoor",
    .version = 1,
    .size = sizeof(struct backdoor),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
};

struct backdoor *backdoor_create(struct device_env *env)
{
    struct backdoor *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->env = env;
    backdoor_add(b, GETVERSION, get_version, b);
    device_register(env, &table, b, free);
    return b;
}
