/*
 * A message goes in steps, each a call with its type in the upper half of ECX and the channel in
 * that of EDX: its size, its bytes four at a time, then the size and the bytes of the reply, and
 * the guest's word that it has got it. The upper half of ECX in the answer says how that went. The
 * cookies in ESI and EDI keep one process of the guest out of another's channel.
 *
 * The port for many bytes at once (0x5659) is not offered: MESSAGE_STATUS_HB stays clear, and then
 * drivers do without it.
 */
#include "dev/guest_rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "util/util.h"

#define MESSAGE       30
#define CHANNELS      8
#define MESSAGE_MAX   4096u
#define IDLE_NS       UINT64_C(30000000000) /* after that a channel may be taken for another */
#define LOG_MAX       400
#define PROTOCOL_RPCI 0x49435052u
#define PROTOCOL_TCLO 0x4f4c4354u /* the host asks; this one never does */
#define FLAG_COOKIE   0x80000000u

enum type { OPEN, SEND_SIZE, SEND_PAYLOAD, RECEIVE_SIZE, RECEIVE_PAYLOAD, RECEIVE_STATUS, CLOSE };
enum status { FAILED = 0, SUCCESS = 0x01, DO_RECEIVE = 0x02, CLOSED = 0x04 };

enum phase {
    CHANNEL_CLOSED,
    CHANNEL_IDLE,
    CHANNEL_SENDING,
    CHANNEL_REPLIED, /* the guest may ask for the reply's size */
    CHANNEL_RECEIVING,
};

struct channel {
    uint8_t phase; /* enum phase */
    uint32_t protocol, cookie[2];
    uint32_t size, position; /* of the message that goes one way or the other */
    uint64_t used;           /* guest time of the last call */
    uint8_t message[MESSAGE_MAX];
};

struct guest_rpc {
    struct device_env *env;
    struct channel channels[CHANNELS];
};

static void finish(struct backdoor_call *c, unsigned status)
{
    c->ecx = (c->ecx & 0xffff) | (uint32_t)status << 16;
}

/* ---- Requests ---- */

static void reply(struct channel *ch, const char *text)
{
    ch->size = (uint32_t)strlen(text);
    ch->position = 0;
    memcpy(ch->message, text, ch->size);
    ch->phase = CHANNEL_REPLIED;
}

static void request_log(struct guest_rpc *rpc, struct channel *ch, const char *text, uint32_t size)
{
    if (log_on(rpc->env->log, LOG_DEV)) {
        char line[LOG_MAX + 1];
        uint32_t n = MIN(size, (uint32_t)LOG_MAX);
        for (uint32_t i = 0; i < n; i++)
            line[i] = text[i] >= ' ' && text[i] < 0x7f ? text[i] : '.';
        line[n] = '\0';
        log_write(rpc->env->log, LOG_DEV, "the guest logs: %s", line);
    }
    reply(ch, "1 ");
}

static void request_info_get(struct guest_rpc *rpc, struct channel *ch, const char *text,
                             uint32_t size)
{
    reply(ch, "0 No value found");
}

static const struct {
    const char *name;
    void (*run)(struct guest_rpc *rpc, struct channel *ch, const char *text, uint32_t size);
} requests[] = {{"log", request_log}, {"info-get", request_info_get}};

static void carry_out(struct guest_rpc *rpc, struct channel *ch)
{
    if (ch->protocol != PROTOCOL_RPCI) { /* a reply to what nobody asked */
        ch->phase = CHANNEL_IDLE;
        return;
    }
    const char *text = (const char *)ch->message;
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        size_t n = strlen(requests[i].name);
        if (ch->size < n || memcmp(text, requests[i].name, n) != 0 ||
            (ch->size > n && text[n] != ' ' && text[n] != '\0'))
            continue;
        size_t skip = MIN(n + 1, (size_t)ch->size);
        requests[i].run(rpc, ch, text + skip, ch->size - (uint32_t)skip);
        return;
    }
    reply(ch, "0 Unknown command");
}

/* ---- Channels ---- */

/* One that is closed or, where all are open, the one that nobody has used for longest. */
static struct channel *find_free(struct guest_rpc *rpc)
{
    struct channel *oldest = &rpc->channels[0];
    for (unsigned i = 0; i < CHANNELS; i++) {
        struct channel *ch = &rpc->channels[i];
        if (ch->phase == CHANNEL_CLOSED)
            return ch;
        if (ch->used < oldest->used)
            oldest = ch;
    }
    return vclock_ns(rpc->env->clock) - oldest->used >= IDLE_NS ? oldest : NULL;
}

static void open_channel(struct guest_rpc *rpc, struct backdoor_call *c)
{
    uint32_t protocol = c->ebx & ~FLAG_COOKIE;
    struct channel *ch = find_free(rpc);
    uint32_t cookie[2] = {0, 0};
    if (!ch || (protocol != PROTOCOL_RPCI && protocol != PROTOCOL_TCLO) ||
        ((c->ebx & FLAG_COOKIE) && getrandom(cookie, sizeof cookie, 0) != sizeof cookie)) {
        finish(c, FAILED);
        return;
    }
    ch->phase = CHANNEL_IDLE;
    ch->protocol = protocol;
    memcpy(ch->cookie, cookie, sizeof cookie);
    ch->size = ch->position = 0;
    ch->used = vclock_ns(rpc->env->clock);
    c->edx = (c->edx & 0xffff) | (uint32_t)(ch - rpc->channels) << 16;
    if (c->ebx & FLAG_COOKIE) {
        c->esi = cookie[0];
        c->edi = cookie[1];
    }
    finish(c, SUCCESS);
}

/* NULL: none that this caller may use. */
static struct channel *channel_of(struct guest_rpc *rpc, const struct backdoor_call *c)
{
    uint32_t number = c->edx >> 16;
    if (number >= CHANNELS)
        return NULL;
    struct channel *ch = &rpc->channels[number];
    bool secret = ch->cookie[0] || ch->cookie[1];
    if (ch->phase == CHANNEL_CLOSED ||
        (secret && (ch->cookie[0] != c->esi || ch->cookie[1] != c->edi)))
        return NULL;
    ch->used = vclock_ns(rpc->env->clock);
    return ch;
}

static unsigned send_size(struct guest_rpc *rpc, struct channel *ch, struct backdoor_call *c)
{
    if (c->ebx > MESSAGE_MAX)
        return FAILED;
    ch->phase = CHANNEL_SENDING;
    ch->size = c->ebx;
    ch->position = 0;
    if (!ch->size)
        carry_out(rpc, ch);
    return SUCCESS;
}

static unsigned send_payload(struct guest_rpc *rpc, struct channel *ch, struct backdoor_call *c)
{
    if (ch->phase != CHANNEL_SENDING)
        return FAILED;
    uint32_t n = MIN(ch->size - ch->position, 4u);
    memcpy(ch->message + ch->position, &c->ebx, n);
    ch->position += n;
    if (ch->position == ch->size)
        carry_out(rpc, ch);
    return SUCCESS;
}

static unsigned receive_size(struct channel *ch, struct backdoor_call *c)
{
    if (ch->phase != CHANNEL_REPLIED && ch->phase != CHANNEL_RECEIVING)
        return SUCCESS;
    ch->phase = CHANNEL_RECEIVING;
    ch->position = 0;
    c->ebx = ch->size;
    c->edx = (c->edx & 0xffff) | SEND_SIZE << 16;
    return SUCCESS | DO_RECEIVE;
}

static unsigned receive_payload(struct channel *ch, struct backdoor_call *c)
{
    if (ch->phase != CHANNEL_RECEIVING || ch->position == ch->size)
        return FAILED;
    uint32_t n = MIN(ch->size - ch->position, 4u);
    c->ebx = 0;
    memcpy(&c->ebx, ch->message + ch->position, n);
    ch->position += n;
    c->edx = (c->edx & 0xffff) | SEND_PAYLOAD << 16;
    return SUCCESS;
}

static unsigned receive_status(struct channel *ch, struct backdoor_call *c)
{
    if (ch->phase != CHANNEL_RECEIVING)
        return FAILED;
    ch->phase = c->ebx & SUCCESS ? CHANNEL_IDLE : CHANNEL_REPLIED; /* it wants it again */
    return SUCCESS;
}

static void message(void *opaque, struct backdoor_call *c)
{
    struct guest_rpc *rpc = opaque;
    unsigned type = c->ecx >> 16;
    if (type == OPEN) {
        open_channel(rpc, c);
        return;
    }
    struct channel *ch = channel_of(rpc, c);
    unsigned status = FAILED;
    if (ch) {
        switch (type) {
        case SEND_SIZE:
            status = send_size(rpc, ch, c);
            break;
        case SEND_PAYLOAD:
            status = send_payload(rpc, ch, c);
            break;
        case RECEIVE_SIZE:
            status = receive_size(ch, c);
            break;
        case RECEIVE_PAYLOAD:
            status = receive_payload(ch, c);
            break;
        case RECEIVE_STATUS:
            status = receive_status(ch, c);
            break;
        case CLOSE:
            ch->phase = CHANNEL_CLOSED;
            status = SUCCESS;
            break;
        default:
            break;
        }
    }
    finish(c, status);
}

/* ---- State ---- */

#define CHANNEL_STATE(n)                                                                           \
    STATE(struct guest_rpc, channels[n].phase, CHANNEL_CLOSED),                                    \
        STATE(struct guest_rpc, channels[n].protocol, 0),                                          \
        STATE_ARRAY(struct guest_rpc, channels[n].cookie, 0),                                      \
        STATE(struct guest_rpc, channels[n].size, 0),                                              \
        STATE(struct guest_rpc, channels[n].position, 0),                                          \
        STATE(struct guest_rpc, channels[n].used, 0),                                              \
        STATE_ARRAY(struct guest_rpc, channels[n].message, 0)

static const struct state_field fields[] = {CHANNEL_STATE(0), CHANNEL_STATE(1), CHANNEL_STATE(2),
                                            CHANNEL_STATE(3), CHANNEL_STATE(4), CHANNEL_STATE(5),
                                            CHANNEL_STATE(6), CHANNEL_STATE(7)};

static void after_load(void *opaque)
{
    struct guest_rpc *rpc = opaque;
    for (unsigned i = 0; i < CHANNELS; i++) {
        struct channel *ch = &rpc->channels[i];
        ch->size = MIN(ch->size, MESSAGE_MAX);
        ch->position = MIN(ch->position, ch->size);
        if (ch->phase > CHANNEL_RECEIVING)
            ch->phase = CHANNEL_CLOSED;
    }
}

static const struct state_table table = {
    .name = "guest_rpc",
    .version = 1,
    .size = sizeof(struct guest_rpc),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_load = after_load,
};

struct guest_rpc *guest_rpc_create(struct device_env *env, struct backdoor *backdoor)
{
    struct guest_rpc *rpc = calloc(1, sizeof *rpc);
    if (!rpc)
        return NULL;
    rpc->env = env;
    backdoor_add(backdoor, MESSAGE, message, rpc);
    device_register(env, &table, rpc, free);
    return rpc;
}
