#include "dev/backdoor.h"

#include <stdlib.h>
#include <time.h>

#include "cpu/register_port.h"
#include "util/util.h"

#define VERSION          6
#define TYPE_WORKSTATION 4
#define HW_VERSION       10      /* the first generation of these machines with 64 processors */
#define MAX_TIME_LAG     1000000 /* microseconds behind which Tools set the guest's clock anew */

enum {
    GETMHZ = 1,
    GETVERSION = 10,
    GETHWVERSION = 17,
    GETMEMSIZE = 20,
    GETTIME = 23,
    GETHZ = 45,
    GETTIMEFULL = 46,
    GETTIMEFULL_WITH_LAG = 55,
    GET_VCPU_INFO = 68,
};

enum { VCPU_INFO_LEGACY_X2APIC = BIT(3) };

struct backdoor {
    struct device_env *env;
    struct {
        void (*call)(void *device, struct backdoor_call *c);
        void *device;
    } commands[BACKDOOR_COMMANDS];
    struct backdoor_identity identity;
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

static void get_hardware_version(void *device, struct backdoor_call *c)
{
    c->eax = HW_VERSION;
    c->ebx = REGISTER_PORT_MAGIC;
}

static void get_mhz(void *device, struct backdoor_call *c)
{
    const struct backdoor *b = device;
    c->eax = (uint32_t)(b->identity.tsc_hz / 1000000);
}

/* With this Linux and the BSDs measure neither clock. */
static void get_hz(void *device, struct backdoor_call *c)
{
    const struct backdoor *b = device;
    c->eax = (uint32_t)b->identity.tsc_hz;
    c->ebx = (uint32_t)(b->identity.tsc_hz >> 32);
    c->ecx = b->identity.apic_hz;
}

/* Legacy x2APIC: processors may switch to it although no interrupt remapping is there, since no
 * APIC ID has more than 8 bits. */
static void get_vcpu_info(void *device, struct backdoor_call *c)
{
    const struct backdoor *b = device;
    c->eax = b->identity.x2apic ? VCPU_INFO_LEGACY_X2APIC : 0;
}

static void get_memory_size(void *device, struct backdoor_call *c)
{
    const struct backdoor *b = device;
    c->eax = (uint32_t)(b->env->mem->size >> 20);
}

/* The host's time of day, in UTC as the guest's MC146818 has it, with which Tools correct a guest's
 * clock that stood still while the VM was paused. */
static struct timespec time_of_day(struct backdoor_call *c)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    c->ebx = (uint32_t)(now.tv_nsec / 1000);
    c->ecx = MAX_TIME_LAG;
    return now;
}

static void get_time(void *device, struct backdoor_call *c)
{
    c->eax = (uint32_t)time_of_day(c).tv_sec;
    c->edx = 0; /* minutes from UTC */
}

static void get_time_full(void *device, struct backdoor_call *c)
{
    uint64_t seconds = (uint64_t)time_of_day(c).tv_sec;
    c->eax = REGISTER_PORT_MAGIC;
    c->edx = (uint32_t)seconds;
    c->esi = (uint32_t)(seconds >> 32);
}

static void get_time_full_with_lag(void *device, struct backdoor_call *c)
{
    get_time_full(device, c);
    c->edi = 0; /* guest time is never behind: it is the host's counter */
}

static const struct state_field fields[] = {STATE(struct backdoor, last, 0)};

static const struct state_table table = {
    .name = "backdoor",
    .version = 1,
    .size = sizeof(struct backdoor),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
};

struct backdoor *backdoor_create(struct device_env *env, const struct backdoor_identity *identity)
{
    static const struct {
        unsigned command;
        void (*call)(void *device, struct backdoor_call *c);
    } own[] = {{GETMHZ, get_mhz},
               {GETVERSION, get_version},
               {GETHWVERSION, get_hardware_version},
               {GETMEMSIZE, get_memory_size},
               {GETTIME, get_time},
               {GETHZ, get_hz},
               {GETTIMEFULL, get_time_full},
               {GETTIMEFULL_WITH_LAG, get_time_full_with_lag},
               {GET_VCPU_INFO, get_vcpu_info}};
    struct backdoor *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->env = env;
    b->identity = *identity;
    for (unsigned i = 0; i < ARRAY_SIZE(own); i++)
        backdoor_add(b, own[i].command, own[i].call, b);
    device_register(env, &table, b, free);
    return b;
}
