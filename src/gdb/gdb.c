/*
 * The protocol side: packets, commands, and one thread that owns the socket.
 *
 * States: "stopped" (all vCPUs parked; commands are answered) and "running" (only an interrupt byte
 * from the debugger or a stop of a vCPU ends it). gdb_vcpu_stopped() comes from the VM's supervisor
 * and wakes the thread through a pipe, so that one poll() sees both.
 */
#include "gdb/gdb.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cpu/paging.h"
#include "util/error.h"

#define PACKET_MAX 16384 /* payload bytes of one packet, either way */

struct gdb_stub {
    struct machine *machine;
    struct gdb_vm_ops ops;
    void *vm;
    int listener, client;
    int wake[2]; /* a byte: 'S' a vCPU stopped, 'Q' the VM ends */
    char *unix_path;
    pthread_t thread;
    bool thread_started;
    bool running;
    bool no_ack;
    bool ended;       /* 'Q' was seen */
    unsigned current; /* vCPU of g, G, m and so on (H packets) */
    char in[PACKET_MAX + 1];
    size_t in_length;
    char out[2 * PACKET_MAX + 8];
    size_t out_length;
};

/* ---- Sending ---- */

static void send_all(struct gdb_stub *s, const char *data, size_t length)
{
    while (length > 0 && s->client >= 0) {
        ssize_t n = send(s->client, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* the read side sees the end */
        data += n;
        length -= (size_t)n;
    }
}

static void begin_reply(struct gdb_stub *s)
{
    s->out[0] = '$';
    s->out_length = 1;
}

__attribute__((format(printf, 2, 3))) static void put(struct gdb_stub *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t room = sizeof s->out - 4 - s->out_length;
    int n = vsnprintf(s->out + s->out_length, room, fmt, ap);
    va_end(ap);
    if (n > 0)
        s->out_length += MIN((size_t)n, room - 1);
}

static void put_hex(struct gdb_stub *s, const void *data, size_t length)
{
    for (size_t i = 0; i < length; i++)
        put(s, "%02x", ((const uint8_t *)data)[i]);
}

static void end_reply(struct gdb_stub *s)
{
    uint8_t sum = 0;
    for (size_t i = 1; i < s->out_length; i++)
        sum += (uint8_t)s->out[i];
    char tail[4];
    snprintf(tail, sizeof tail, "#%02x", sum);
    memcpy(s->out + s->out_length, tail, 3);
    send_all(s, s->out, s->out_length + 3);
}

static void reply(struct gdb_stub *s, const char *text)
{
    begin_reply(s);
    put(s, "%s", text);
    end_reply(s);
}

/* ---- Parsing ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool parse_hex(const char **p, uint64_t *value)
{
    const char *start = *p;
    *value = 0;
    for (int digit; (digit = hex_digit(**p)) >= 0; (*p)++)
        *value = *value << 4 | (unsigned)digit;
    return *p != start;
}

static bool expect(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

/* "addr,length" as many packets have it. */
static bool parse_range(const char **p, uint64_t *address, uint64_t *length)
{
    return parse_hex(p, address) && expect(p, ',') && parse_hex(p, length);
}

static bool parse_bytes(const char *p, uint8_t *out, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        int high = hex_digit(p[2 * i]);
        int low = high < 0 ? -1 : hex_digit(p[2 * i + 1]);
        if (low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* A thread ID: vCPU n is thread n + 1; "-1" is all (returned as -1), "0" any. */
static bool parse_thread(const struct gdb_stub *s, const char **p, int *thread)
{
    uint64_t value;
    if (**p == '-') {
        *p += 2;
        *thread = -1;
        return true;
    }
    if (!parse_hex(p, &value) || value > s->machine->vcpu_count)
        return false;
    *thread = (int)value;
    return true;
}

static struct vcpu *current_vcpu(const struct gdb_stub *s)
{
    return s->machine->vcpus[s->current];
}

static void state_changed(struct gdb_stub *s)
{
    for (unsigned i = 0; i < s->machine->vcpu_count; i++) {
        cpu_state_changed(s->machine->vcpus[i]);
        if (s->ops.state_changed)
            s->ops.state_changed(s->machine->vcpus[i]);
    }
}

/* ---- Stop replies ---- */

static void put_stop(struct gdb_stub *s, int number, const char *why)
{
    begin_reply(s);
    put(s, "T%02xthread:%x;%s", (unsigned)number, s->current + 1, why);
    end_reply(s);
}

/* Empty the pipe without waiting. True: a vCPU had stopped by itself. */
static bool take_wakes(struct gdb_stub *s)
{
    struct pollfd fd = {.fd = s->wake[0], .events = POLLIN};
    bool stopped = false;
    char what;
    while (poll(&fd, 1, 0) > 0 && read(s->wake[0], &what, 1) == 1) {
        if (what == 'Q') {
            s->ended = true;
            break;
        }
        stopped = true;
    }
    return stopped;
}

static void report_stop(struct gdb_stub *s)
{
    const struct debugger *d = &s->machine->debug;
    char why[64] = "";
    s->current = d->hit_vcpu;
    s->running = false;
    if (!d->hit_step) {
        static const char *const names[] = {[DEBUG_BREAK] = "hwbreak",
                                            [DEBUG_WATCH_WRITE] = "watch",
                                            [DEBUG_WATCH_READ] = "rwatch",
                                            [DEBUG_WATCH_ACCESS] = "awatch"};
        if (d->hit_point.kind == DEBUG_BREAK)
            snprintf(why, sizeof why, "hwbreak:;");
        else
            snprintf(why, sizeof why, "%s:%" PRIx64 ";", names[d->hit_point.kind],
                     d->hit_point.address);
    }
    put_stop(s, 5, why);
}

/* ---- Commands ---- */

static void read_registers(struct gdb_stub *s)
{
    begin_reply(s);
    for (unsigned i = 0; i < gdb_register_count(s->machine); i++) {
        uint8_t buf[16];
        gdb_read_register(current_vcpu(s), i, buf);
        put_hex(s, buf, gdb_register_size(s->machine, i));
    }
    end_reply(s);
}

static void write_registers(struct gdb_stub *s, const char *p)
{
    for (unsigned i = 0; i < gdb_register_count(s->machine) && *p; i++) {
        uint8_t buf[16];
        unsigned size = gdb_register_size(s->machine, i);
        if (!parse_bytes(p, buf, size)) {
            reply(s, "E01");
            return;
        }
        gdb_write_register(current_vcpu(s), i,
                           buf); /* those that cannot be written keep their values */
        p += 2 * size;
    }
    state_changed(s);
    reply(s, "OK");
}

static void read_register(struct gdb_stub *s, const char *p)
{
    uint64_t number;
    uint8_t buf[16];
    if (!parse_hex(&p, &number) || number > UINT32_MAX ||
        !gdb_read_register(current_vcpu(s), (unsigned)number, buf)) {
        reply(s, "E01");
        return;
    }
    begin_reply(s);
    put_hex(s, buf, gdb_register_size(s->machine, (unsigned)number));
    end_reply(s);
}

static void write_register(struct gdb_stub *s, const char *p)
{
    uint64_t number;
    uint8_t buf[16];
    if (!parse_hex(&p, &number) || number >= gdb_register_count(s->machine) || !expect(&p, '=') ||
        !parse_bytes(p, buf, gdb_register_size(s->machine, (unsigned)number)) ||
        !gdb_write_register(current_vcpu(s), (unsigned)number, buf)) {
        reply(s, "E01");
        return;
    }
    state_changed(s);
    reply(s, "OK");
}

static void read_memory(struct gdb_stub *s, const char *p)
{
    uint64_t address, length;
    static const char error[] = "E14";
    uint8_t buf[PACKET_MAX / 2];
    if (!parse_range(&p, &address, &length)) {
        reply(s, "E01");
        return;
    }
    length = paging_debug_read(current_vcpu(s), address, buf, MIN(length, sizeof buf));
    if (length == 0) {
        reply(s, error);
        return;
    }
    begin_reply(s);
    put_hex(s, buf, length);
    end_reply(s);
}

static void store_memory(struct gdb_stub *s, uint64_t address, const uint8_t *data, uint64_t length)
{
    if (paging_debug_write(current_vcpu(s), address, data, length) != length) {
        reply(s, "E14");
        return;
    }
    state_changed(s);
    reply(s, "OK");
}

static void write_memory(struct gdb_stub *s, const char *p, bool binary)
{
    uint64_t address, length;
    uint8_t buf[PACKET_MAX];
    if (!parse_range(&p, &address, &length) || !expect(&p, ':') || length > sizeof buf) {
        reply(s, "E01");
        return;
    }
    size_t left = s->in_length - (size_t)(p - s->in);
    if (binary) {
        uint64_t n = 0;
        for (; n < length && left > 0; n++, p++, left--) {
            if (*p == '}' && left > 1) { /* escaped: the next byte XOR 0x20 */
                p++;
                left--;
                buf[n] = (uint8_t)(*p ^ 0x20);
            } else {
                buf[n] = (uint8_t)*p;
            }
        }
        if (n != length) {
            reply(s, "E01");
            return;
        }
    } else if (left < 2 * length || !parse_bytes(p, buf, length)) {
        reply(s, "E01");
        return;
    }
    store_memory(s, address, buf, length);
}

/* Z and z: type 0 and 1 breakpoints (the same to us: memory is never patched), 2 write, 3 read, 4
 * access watchpoint. */
static void set_point(struct gdb_stub *s, const char *p, bool insert)
{
    struct debugger *d = &s->machine->debug;
    static const enum debug_kind kinds[] = {DEBUG_BREAK, DEBUG_BREAK, DEBUG_WATCH_WRITE,
                                            DEBUG_WATCH_READ, DEBUG_WATCH_ACCESS};
    uint64_t type, address, length;
    if (!parse_hex(&p, &type) || type >= ARRAY_SIZE(kinds)) {
        reply(s, "");
        return;
    }
    if (!expect(&p, ',') || !parse_range(&p, &address, &length)) {
        reply(s, "E01");
        return;
    }
    struct debug_point point = {kinds[type], address, type < 2 ? 1 : length};
    unsigned at = 0;
    while (at < d->count &&
           (d->points[at].kind != point.kind || d->points[at].address != point.address ||
            d->points[at].length != point.length))
        at++;
    if (insert && at == d->count) {
        if (d->count == DEBUG_POINTS_MAX) {
            reply(s, "E1c");
            return;
        }
        d->points[d->count++] = point;
    } else if (!insert && at < d->count) {
        d->points[at] = d->points[--d->count];
    }
    for (unsigned i = 0; i < s->machine->vcpu_count; i++)
        atomic_fetch_or(&s->machine->vcpus[i]->attention, ATT_DEBUG);
    reply(s, "OK");
}

/* Run: `step` has a bit for each vCPU that is to stop after one instruction, `frozen` one for each
 * that does not run at all. */
static void go(struct gdb_stub *s, uint64_t step, uint64_t frozen)
{
    /* A stop that was overtaken by an interrupt is no longer news. */
    take_wakes(s);
    s->machine->debug.single_step = step;
    s->machine->debug.frozen = frozen;
    for (unsigned i = 0; i < s->machine->vcpu_count; i++)
        atomic_fetch_or(&s->machine->vcpus[i]->attention, ATT_DEBUG);
    s->running = true;
    s->ops.resume(s->vm);
}

/*
 * vCont;action[:thread];...: the leftmost action for a thread counts; a thread with none stays as
 * it is. That is how gdb steps one vCPU over a breakpoint that it has lifted without another one
 * running through there.
 */
static void continue_threads(struct gdb_stub *s, const char *p)
{
    uint64_t step = 0, decided = 0;
    while (expect(&p, ';')) {
        char action = *p++;
        int thread = -1;
        if (action == 'C' || action == 'S') {
            uint64_t ignored_signal;
            parse_hex(&p, &ignored_signal);
        } else if (action != 'c' && action != 's') {
            reply(s, "E01");
            return;
        }
        if (expect(&p, ':') && !parse_thread(s, &p, &thread)) {
            reply(s, "E01");
            return;
        }
        uint64_t whom = thread <= 0 ? ~UINT64_C(0) : BIT64(thread - 1);
        if (action == 's' || action == 'S')
            step |= whom & ~decided;
        decided |= whom;
    }
    go(s, step, ~decided);
}

static void continue_current(struct gdb_stub *s, const char *p, bool step)
{
    uint64_t address;
    if (parse_hex(&p, &address)) {
        uint8_t bytes[8];
        memcpy(bytes, &address, 8);
        gdb_write_register(current_vcpu(s), gdb_pc_register(s->machine), bytes);
        state_changed(s);
    }
    go(s, step ? BIT64(s->current) : 0, 0);
}

static void monitor(struct gdb_stub *s, const char *hex)
{
    char command[128] = "", text[6000];
    size_t length = MIN(strlen(hex) / 2, sizeof command - 1);
    if (!parse_bytes(hex, (uint8_t *)command, length)) {
        reply(s, "E01");
        return;
    }
    if (strcmp(command, "info registers") == 0) {
        cpu_print(current_vcpu(s), text, sizeof text);
    } else if (strcmp(command, "reset") == 0) {
        s->ops.reset(s->vm);
        snprintf(text, sizeof text, "reset when the machine runs on\n");
    } else if (strcmp(command, "quit") == 0) {
        s->ops.quit(s->vm);
        snprintf(text, sizeof text, "ending\n");
    } else {
        snprintf(text, sizeof text, "commands: info registers, reset, quit\n");
    }
    begin_reply(s);
    put_hex(s, text, strlen(text));
    end_reply(s);
}

static void thread_list(struct gdb_stub *s)
{
    begin_reply(s);
    put(s, "m");
    for (unsigned i = 0; i < s->machine->vcpu_count; i++)
        put(s, "%s%x", i ? "," : "", i + 1);
    end_reply(s);
}

static void thread_info(struct gdb_stub *s, const char *p)
{
    static const char *const names[] = {[ACTIVITY_RUNNING] = "running",
                                        [ACTIVITY_HALTED] = "halted",
                                        [ACTIVITY_WAIT_SIPI] = "waiting for SIPI",
                                        [ACTIVITY_SHUTDOWN] = "shut down"};
    int thread;
    char text[64];
    if (!parse_thread(s, &p, &thread) || thread < 1) {
        reply(s, "E01");
        return;
    }
    snprintf(text, sizeof text, "CPU#%d [%s]", thread - 1,
             names[s->machine->vcpus[thread - 1]->activity]);
    begin_reply(s);
    put_hex(s, text, strlen(text));
    end_reply(s);
}

static void transfer_features(struct gdb_stub *s, const char *p)
{
    uint64_t offset, length;
    const char *xml = gdb_target_xml(s->machine);
    size_t size = strlen(xml);
    if (strncmp(p, "target.xml:", 11) != 0) {
        reply(s, "E00");
        return;
    }
    p += 11;
    if (!parse_range(&p, &offset, &length)) {
        reply(s, "E01");
        return;
    }
    begin_reply(s);
    if (offset >= size) {
        put(s, "l");
    } else {
        size_t n = MIN(MIN(length, size - offset), PACKET_MAX - 1);
        put(s, "%c%.*s", offset + n < size ? 'm' : 'l', (int)n, xml + offset);
    }
    end_reply(s);
}

static bool starts(const char *text, const char *prefix, const char **rest)
{
    size_t length = strlen(prefix);
    *rest = text + length;
    return strncmp(text, prefix, length) == 0;
}

static void query(struct gdb_stub *s, const char *packet)
{
    const char *rest;
    if (starts(packet, "qSupported", &rest)) {
        begin_reply(s);
        put(s,
            "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+",
            PACKET_MAX);
        end_reply(s);
    } else if (starts(packet, "qXfer:features:read:", &rest)) {
        transfer_features(s, rest);
    } else if (starts(packet, "qfThreadInfo", &rest)) {
        thread_list(s);
    } else if (starts(packet, "qsThreadInfo", &rest)) {
        reply(s, "l");
    } else if (starts(packet, "qThreadExtraInfo,", &rest)) {
        thread_info(s, rest);
    } else if (starts(packet, "qAttached", &rest)) {
        reply(s, "1");
    } else if (starts(packet, "qRcmd,", &rest)) {
        monitor(s, rest);
    } else if (strcmp(packet, "qC") == 0) {
        begin_reply(s);
        put(s, "QC%x", s->current + 1);
        end_reply(s);
    } else if (strcmp(packet, "QStartNoAckMode") == 0) {
        reply(s, "OK");
        s->no_ack = true;
    } else {
        reply(s, "");
    }
}

static void select_thread(struct gdb_stub *s, const char *p)
{
    int thread;
    p++; /* g, c: we have one current thread for both */
    if (!parse_thread(s, &p, &thread)) {
        reply(s, "E01");
        return;
    }
    if (thread > 0)
        s->current = (unsigned)thread - 1;
    reply(s, "OK");
}

static void detach(struct gdb_stub *s)
{
    close(s->client);
    s->client = -1;
    if (s->running)
        s->ops.pause(s->vm);
    s->machine->debug.count = 0;
    go(s, 0, 0);
}

static void handle(struct gdb_stub *s)
{
    const char *packet = s->in, *rest = s->in + 1;
    int thread;
    switch (packet[0]) {
    case '?':
        put_stop(s, 5, "");
        break;
    case 'g':
        read_registers(s);
        break;
    case 'G':
        write_registers(s, rest);
        break;
    case 'p':
        read_register(s, rest);
        break;
    case 'P':
        write_register(s, rest);
        break;
    case 'm':
        read_memory(s, rest);
        break;
    case 'M':
        write_memory(s, rest, false);
        break;
    case 'X':
        write_memory(s, rest, true);
        break;
    case 'Z':
        set_point(s, rest, true);
        break;
    case 'z':
        set_point(s, rest, false);
        break;
    case 'H':
        select_thread(s, rest);
        break;
    case 'T':
        reply(s, parse_thread(s, &rest, &thread) && thread > 0 ? "OK" : "E01");
        break;
    case 'c':
        continue_current(s, rest, false);
        break;
    case 's':
        continue_current(s, rest, true);
        break;
    case 'C':
    case 'S':
        continue_current(s, strchr(rest, ';') ? strchr(rest, ';') + 1 : "", packet[0] == 'S');
        break;
    case 'q':
    case 'Q':
        query(s, packet);
        break;
    case 'v':
        if (strcmp(packet, "vCont?") == 0)
            reply(s, "vCont;c;C;s;S");
        else if (strncmp(packet, "vCont", 5) == 0)
            continue_threads(s, packet + 5);
        else
            reply(s, "");
        break;
    case 'D':
        reply(s, "OK");
        detach(s);
        break;
    case 'k':
        close(s->client);
        s->client = -1;
        s->ops.quit(s->vm);
        break;
    default:
        reply(s, "");
        break;
    }
}

/* ---- The connection ---- */

struct receiver {
    char buf[4096];
    size_t at, length;
};

/* The next byte, or -1 at the end of the connection. */
static int next_byte(struct gdb_stub *s, struct receiver *r)
{
    if (r->at == r->length) {
        ssize_t n;
        do
            n = recv(s->client, r->buf, sizeof r->buf, 0);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
            return -1;
        r->length = (size_t)n;
        r->at = 0;
    }
    return (unsigned char)r->buf[r->at++];
}

/* Read the rest of a packet after its '$' into s->in. False: the connection ended. */
static bool read_packet(struct gdb_stub *s, struct receiver *r)
{
    for (;;) {
        uint8_t sum = 0;
        int c;
        s->in_length = 0;
        while ((c = next_byte(s, r)) >= 0 && c != '#') {
            sum += (uint8_t)c;
            if (s->in_length < PACKET_MAX)
                s->in[s->in_length++] = (char)c;
        }
        s->in[s->in_length] = 0;
        int high = next_byte(s, r), low = next_byte(s, r);
        if (c < 0 || high < 0 || low < 0)
            return false;
        if (s->no_ack)
            return true;
        bool good = (hex_digit((char)high) << 4 | hex_digit((char)low)) == sum;
        send_all(s, good ? "+" : "-", 1);
        if (good)
            return true;
        while ((c = next_byte(s, r)) >= 0 && c != '$')
            ;
        if (c < 0)
            return false;
    }
}

static void interrupt(struct gdb_stub *s)
{
    if (!s->running)
        return;
    s->ops.pause(s->vm);
    /* A vCPU may have stopped by itself at the same moment: then that is the reason. */
    if (take_wakes(s)) {
        report_stop(s);
        return;
    }
    s->running = false;
    put_stop(s, 2, "");
}

static void serve_byte(struct gdb_stub *s, struct receiver *r, int c)
{
    if (c < 0) {
        detach(s);
    } else if (c == 0x03) {
        interrupt(s);
    } else if (c == '$') {
        if (!read_packet(s, r))
            detach(s);
        else
            handle(s);
    } else if (c == '-') {
        send_all(s, s->out, s->out_length + 3);
    }
}

static void serve(struct gdb_stub *s)
{
    struct receiver r = {.at = 0, .length = 0};
    s->no_ack = false;
    while (s->client >= 0 && !s->ended) {
        if (r.at < r.length) {
            serve_byte(s, &r, next_byte(s, &r));
            continue;
        }
        struct pollfd fds[2] = {{.fd = s->client, .events = POLLIN},
                                {.fd = s->wake[0], .events = POLLIN}};
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents) {
            char what = 0;
            if (read(s->wake[0], &what, 1) == 1 && what == 'Q')
                s->ended = true;
            else if (s->running)
                report_stop(s);
        }
        if (!s->ended && fds[0].revents)
            serve_byte(s, &r, next_byte(s, &r));
    }
    if (s->client >= 0) {
        if (s->running)
            reply(s, "W00");
        close(s->client);
        s->client = -1;
    }
}

static void *stub_main(void *opaque)
{
    struct gdb_stub *s = opaque;
    while (!s->ended) {
        struct pollfd fds[2] = {{.fd = s->listener, .events = POLLIN},
                                {.fd = s->wake[0], .events = POLLIN}};
        if (poll(fds, 2, -1) < 0)
            continue;
        char what = 0;
        if (fds[1].revents && read(s->wake[0], &what, 1) == 1) {
            if (what == 'Q')
                break;
            go(s, 0, 0); /* stopped after its debugger had gone */
        }
        if (!fds[0].revents)
            continue;
        s->client = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        if (s->client < 0)
            continue;
        if (s->running) { /* a debugger that comes back finds the machine stopped, as gdb expects */
            s->ops.pause(s->vm);
            s->running = false;
        }
        serve(s);
    }
    return NULL;
}

/* ---- Life ---- */

static int listen_unix(struct gdb_stub *s, const char *path, struct tv_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return tv_fail(err, "--gdb unix:%s: the path is too long", path);
    strcpy(address.sun_path, path);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(s->listener, 1) < 0)
        return tv_fail_errno(err, errno, "--gdb unix:%s: cannot listen", path);
    s->unix_path = strdup(path);
    return 0;
}

static int listen_tcp(struct gdb_stub *s, const char *text, struct tv_error *err)
{
    char host[256];
    const char *colon = strrchr(text, ':');
    if (!colon || !colon[1] || (size_t)(colon - text) >= sizeof host)
        return tv_fail(err, "--gdb %s: want HOST:PORT or unix:PATH", text);
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    int error = getaddrinfo(host[0] ? host : "localhost", colon + 1, &hints, &found);
    if (error)
        return tv_fail(err, "--gdb %s: %s", text, gai_strerror(error));
    int on = 1;
    s->listener = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool bad = s->listener < 0 || bind(s->listener, found->ai_addr, found->ai_addrlen) < 0 ||
               listen(s->listener, 1) < 0;
    error = errno;
    freeaddrinfo(found);
    return bad ? tv_fail_errno(err, error, "--gdb %s: cannot listen", text) : 0;
}

struct gdb_stub *gdb_create(struct machine *m, const char *address, const struct gdb_vm_ops *ops,
                            void *vm, struct tv_error *err)
{
    struct gdb_stub *s = calloc(1, sizeof *s);
    if (!s) {
        tv_fail(err, "out of memory");
        return NULL;
    }
    s->machine = m;
    s->ops = *ops;
    s->vm = vm;
    s->client = s->listener = s->wake[0] = s->wake[1] = -1;
    int status = strncmp(address, "unix:", 5) == 0 ? listen_unix(s, address + 5, err)
                                                   : listen_tcp(s, address, err);
    if (status == 0 && pipe(s->wake) < 0)
        status = tv_fail_errno(err, errno, "--gdb: cannot create a pipe");
    if (status == 0) {
        int error = pthread_create(&s->thread, NULL, stub_main, s);
        if (error)
            status = tv_fail_errno(err, error, "--gdb: cannot create a thread");
        s->thread_started = !error;
    }
    if (status < 0) {
        gdb_destroy(s);
        return NULL;
    }
    return s;
}

static void wake(struct gdb_stub *s, char what)
{
    while (write(s->wake[1], &what, 1) < 0 && errno == EINTR)
        ;
}

void gdb_vcpu_stopped(struct gdb_stub *s, unsigned vcpu)
{
    s->machine->debug.hit_vcpu = vcpu;
    wake(s, 'S');
}

void gdb_destroy(struct gdb_stub *s)
{
    if (!s)
        return;
    if (s->thread_started) {
        wake(s, 'Q');
        pthread_join(s->thread, NULL);
    }
    if (s->listener >= 0)
        close(s->listener);
    if (s->unix_path)
        unlink(s->unix_path);
    for (unsigned i = 0; i < 2; i++)
        if (s->wake[i] >= 0)
            close(s->wake[i]);
    free(s->unix_path);
    free(s);
}
