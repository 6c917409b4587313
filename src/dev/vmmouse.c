#include "dev/vmmouse.h"

#include <stdlib.h>
#include <string.h>

#include "util/util.h"

enum {
    ABSPOINTER_DATA = 39,
    ABSPOINTER_STATUS = 40,
    ABSPOINTER_COMMAND = 41,
    ABSPOINTER_RESTRICT = 86,
};

/* Arguments of ABSPOINTER_COMMAND. */
enum {
    DISABLE = 0x000000f5,
    ENABLE = 0x45414552,
    REQUEST_RELATIVE = 0x4c455252,
    REQUEST_ABSOLUTE = 0x53424152,
};

enum { LEFT = 0x20, RIGHT = 0x10, MIDDLE = 0x08 };

#define VERSION_ID   0x3442554a
#define STATUS_ERROR 0xffff0000u
#define PACKET       4
#define QUEUE_SIZE   (64 * PACKET)

struct vmmouse {
    struct device_env *env;
    struct i8042 *kbc;
    bool enabled, absolute;
    uint32_t queue[QUEUE_SIZE]; /* words, the oldest first */
    uint32_t count;
};

static void take(struct vmmouse *m, uint32_t words)
{
    m->count -= words;
    memmove(m->queue, m->queue + words, m->count * sizeof m->queue[0]);
}

static void disable(struct vmmouse *m)
{
    m->enabled = m->absolute = false;
    m->count = 0;
}

static void status(void *opaque, struct backdoor_call *c)
{
    const struct vmmouse *m = opaque;
    c->eax = m->enabled ? m->count : STATUS_ERROR;
}

/* EBX words; what is not there, or cannot be meant, is an error that a driver sees in the status.
 */
static void data(void *opaque, struct backdoor_call *c)
{
    struct vmmouse *m = opaque;
    uint32_t words = c->ebx, *to[PACKET] = {&c->eax, &c->ebx, &c->ecx, &c->edx};
    if (words == 0 || words > PACKET || words > m->count) {
        disable(m);
        c->eax = UINT32_MAX;
        return;
    }
    for (uint32_t i = 0; i < words; i++)
        *to[i] = m->queue[i];
    take(m, words);
}

static void command(void *opaque, struct backdoor_call *c)
{
    struct vmmouse *m = opaque;
    switch (c->ebx) {
    case ENABLE:
        m->enabled = true;
        m->queue[0] = VERSION_ID;
        m->count = 1;
        break;
    case DISABLE:
        disable(m);
        break;
    case REQUEST_ABSOLUTE:
        m->absolute = m->enabled;
        break;
    case REQUEST_RELATIVE:
        m->absolute = false;
        break;
    default:
        if (log_on(m->env->log, LOG_DEV))
            log_write(m->env->log, LOG_DEV, "absolute pointer: unknown command %#x", c->ebx);
        break;
    }
    c->eax = 0;
}

static void restrict_access(void *opaque, struct backdoor_call *c)
{
    c->eax = 0; /* who may call is the guest's own affair */
}

bool vmmouse_move(struct vmmouse *m, unsigned x, unsigned y, int dz, unsigned buttons)
{
    if (!m->absolute)
        return false;
    uint32_t packet[PACKET] = {(buttons & MOUSE_LEFT ? LEFT : 0) |
                                   (buttons & MOUSE_RIGHT ? RIGHT : 0) |
                                   (buttons & MOUSE_MIDDLE ? MIDDLE : 0),
                               x & 0xffff, y & 0xffff, (uint32_t)dz};
    /* A driver that is slow sees where the pointer came to, and each change of the buttons. */
    if (m->count >= QUEUE_SIZE / 2 && m->count % PACKET == 0 && dz == 0 &&
        m->queue[m->count - PACKET] == packet[0])
        m->count -= PACKET;
    if (m->count + PACKET <= QUEUE_SIZE) {
        memcpy(m->queue + m->count, packet, sizeof packet);
        m->count += PACKET;
    }
    i8042_mouse_interrupt(m->kbc);
    return true;
}

static const struct state_field fields[] = {
    STATE(struct vmmouse, enabled, 0),
    STATE(struct vmmouse, absolute, 0),
    STATE_ARRAY(struct vmmouse, queue, 0),
    STATE(struct vmmouse, count, 0),
};

static void after_load(void *opaque)
{
    struct vmmouse *m = opaque;
    m->count = MIN(m->count, (uint32_t)QUEUE_SIZE);
}

static const struct state_table table = {
    .name = "vmmouse",
    .version = 1,
    .size = sizeof(struct vmmouse),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_load = after_load,
};

struct vmmouse *vmmouse_create(struct device_env *env, struct backdoor *backdoor, struct i8042 *kbc)
{
    struct vmmouse *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->env = env;
    m->kbc = kbc;
    backdoor_add(backdoor, ABSPOINTER_DATA, data, m);
    backdoor_add(backdoor, ABSPOINTER_STATUS, status, m);
    backdoor_add(backdoor, ABSPOINTER_COMMAND, command, m);
    backdoor_add(backdoor, ABSPOINTER_RESTRICT, restrict_access, m);
    device_register(env, &table, m, free);
    return m;
}
