/*
 * The protocol side: commands, and one thread that owns the socket. Packets are in packet.c.
 *
 * States: "stopped" (all vCPUs parked; commands are answered) and "running" (only an interrupt byte
 * from the debugger or a stop of a vCPU ends it). gdb_vcpu_stopped() comes from the VM's supervisor
 * and wakes the thread through a pipe, so that one poll() sees both.
 */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cpu/paging.h"
#include "gdb/packet.h"
#include "util/error.h"

/* A thread ID: vCPU n is thread n + 1; "-1" is all (returned as -1), "0" any. */
static bool parse_thread(const struct gdb_stub *s, const char **p, int *thread)
{
    uint64_t value;
    if (**p == '-') {
        *p += 2;
        *thread = -1;
        return true;
    }
    if (!gdb_parse_hex(p, &value) || value > s->machine->vcpu_count)
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
    gdb_begin(s);
    gdb_put(s, "T%02xthread:%x;%s", (unsigned)number, s->current + 1, why);
    gdb_end(s);
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
    gdb_begin(s);
    for (unsigned i = 0; i < gdb_register_count(s->machine); i++) {
        uint8_t buf[16];
        gdb_read_register(current_vcpu(s), i, buf);
        gdb_put_hex(s, buf, gdb_register_size(s->machine, i));
    }
    gdb_end(s);
}

static void write_registers(struct gdb_stub *s, const char *p)
{
    for (unsigned i = 0; i < gdb_register_count(s->machine) && *p; i++) {
        uint8_t buf[16];
        unsigned size = gdb_register_size(s->machine, i);
        if (!gdb_parse_bytes(p, buf, size)) {
            gdb_reply(s, "E01");
            return;
        }
        gdb_write_register(current_vcpu(s), i,
                           buf); /* those that cannot be written keep their values */
        p += 2 * size;
    }
    state_changed(s);
    gdb_reply(s, "OK");
}

static void read_register(struct gdb_stub *s, const char *p)
{
    uint64_t number;
    uint8_t buf[16];
    if (!gdb_parse_hex(&p, &number) || number > UINT32_MAX ||
        !gdb_read_register(current_vcpu(s), (unsigned)number, buf)) {
        gdb_reply(s, "E01");
        return;
    }
    gdb_begin(s);
    gdb_put_hex(s, buf, gdb_register_size(s->machine, (unsigned)number));
    gdb_end(s);
}

static void write_register(struct gdb_stub *s, const char *p)
{
    uint64_t number;
    uint8_t buf[16];
    if (!gdb_parse_hex(&p, &number) || number >= gdb_register_count(s->machine) ||
        !gdb_expect(&p, '=') ||
        !gdb_parse_bytes(p, buf, gdb_register_size(s->machine, (unsigned)number)) ||
        !gdb_write_register(current_vcpu(s), (unsigned)number, buf)) {
        gdb_reply(s, "E01");
        return;
    }
    state_changed(s);
    gdb_reply(s, "OK");
}

static void read_memory(struct gdb_stub *s, const char *p)
{
    uint64_t address, length;
    static const char error[] = "E14";
    uint8_t buf[PACKET_MAX / 2];
    if (!gdb_parse_range(&p, &address, &length)) {
        gdb_reply(s, "E01");
        return;
    }
    length = paging_debug_read(current_vcpu(s), address, buf, MIN(length, sizeof buf));
    if (length == 0) {
        gdb_reply(s, error);
        return;
    }
    gdb_begin(s);
    gdb_put_hex(s, buf, length);
    gdb_end(s);
}

static void store_memory(struct gdb_stub *s, uint64_t address, const uint8_t *data, uint64_t length)
{
    if (paging_debug_write(current_vcpu(s), address, data, length) != length) {
        gdb_reply(s, "E14");
        return;
    }
    state_changed(s);
    gdb_reply(s, "OK");
}

static void write_memory(struct gdb_stub *s, const char *p, bool binary)
{
    uint64_t address, length;
    uint8_t buf[PACKET_MAX];
    if (!gdb_parse_range(&p, &address, &length) || !gdb_expect(&p, ':') || length > sizeof buf) {
        gdb_reply(s, "E01");
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
            gdb_reply(s, "E01");
            return;
        }
    } else if (left < 2 * length || !gdb_parse_bytes(p, buf, length)) {
        gdb_reply(s, "E01");
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
    if (!gdb_parse_hex(&p, &type) || type >= ARRAY_SIZE(kinds)) {
        gdb_reply(s, "");
        return;
    }
    if (!gdb_expect(&p, ',') || !gdb_parse_range(&p, &address, &length)) {
        gdb_reply(s, "E01");
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
            gdb_reply(s, "E1c");
            return;
        }
        d->points[d->count++] = point;
    } else if (!insert && at < d->count) {
        d->points[at] = d->points[--d->count];
    }
    for (unsigned i = 0; i < s->machine->vcpu_count; i++)
        atomic_fetch_or(&s->machine->vcpus[i]->attention, ATT_DEBUG);
    gdb_reply(s, "OK");
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
    while (gdb_expect(&p, ';')) {
        char action = *p++;
        int thread = -1;
        if (action == 'C' || action == 'S') {
            uint64_t ignored_signal;
            gdb_parse_hex(&p, &ignored_signal);
        } else if (action != 'c' && action != 's') {
            gdb_reply(s, "E01");
            return;
        }
        if (gdb_expect(&p, ':') && !parse_thread(s, &p, &thread)) {
            gdb_reply(s, "E01");
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
    if (gdb_parse_hex(&p, &address)) {
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
    if (!gdb_parse_bytes(hex, (uint8_t *)command, length)) {
        gdb_reply(s, "E01");
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
    gdb_begin(s);
    gdb_put_hex(s, text, strlen(text));
    gdb_end(s);
}

static void thread_list(struct gdb_stub *s)
{
    gdb_begin(s);
    gdb_put(s, "m");
    for (unsigned i = 0; i < s->machine->vcpu_count; i++)
        gdb_put(s, "%s%x", i ? "," : "", i + 1);
    gdb_end(s);
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
        gdb_reply(s, "E01");
        return;
    }
    snprintf(text, sizeof text, "CPU#%d [%s]", thread - 1,
             names[s->machine->vcpus[thread - 1]->activity]);
    gdb_begin(s);
    gdb_put_hex(s, text, strlen(text));
    gdb_end(s);
}

static void transfer_features(struct gdb_stub *s, const char *p)
{
    uint64_t offset, length;
    const char *xml = gdb_target_xml(s->machine);
    size_t size = strlen(xml);
    if (strncmp(p, "target.xml:", 11) != 0) {
        gdb_reply(s, "E00");
        return;
    }
    p += 11;
    if (!gdb_parse_range(&p, &offset, &length)) {
        gdb_reply(s, "E01");
        return;
    }
    gdb_begin(s);
    if (offset >= size) {
        gdb_put(s, "l");
    } else {
        size_t n = MIN(MIN(length, size - offset), PACKET_MAX - 1);
        gdb_put(s, "%c%.*s", offset + n < size ? 'm' : 'l', (int)n, xml + offset);
    }
    gdb_end(s);
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
        gdb_begin(s);
        gdb_put(
            s,
            "PacketSize=%x;qXfer:features:read+;vContSupported+;QStartNoAckMode+;swbreak+;hwbreak+",
            PACKET_MAX);
        gdb_end(s);
    } else if (starts(packet, "qXfer:features:read:", &rest)) {
        transfer_features(s, rest);
    } else if (starts(packet, "qfThreadInfo", &rest)) {
        thread_list(s);
    } else if (starts(packet, "qsThreadInfo", &rest)) {
        gdb_reply(s, "l");
    } else if (starts(packet, "qThreadExtraInfo,", &rest)) {
        thread_info(s, rest);
    } else if (starts(packet, "qAttached", &rest)) {
        gdb_reply(s, "1");
    } else if (starts(packet, "qRcmd,", &rest)) {
        monitor(s, rest);
    } else if (strcmp(packet, "qC") == 0) {
        gdb_begin(s);
        gdb_put(s, "QC%x", s->current + 1);
        gdb_end(s);
    } else if (strcmp(packet, "QStartNoAckMode") == 0) {
        gdb_reply(s, "OK");
        s->no_ack = true;
    } else {
        gdb_reply(s, "");
    }
}

static void select_thread(struct gdb_stub *s, const char *p)
{
    int thread;
    p++; /* g, c: we have one current thread for both */
    if (!parse_thread(s, &p, &thread)) {
        gdb_reply(s, "E01");
        return;
    }
    if (thread > 0)
        s->current = (unsigned)thread - 1;
    gdb_reply(s, "OK");
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
        gdb_reply(s, parse_thread(s, &rest, &thread) && thread > 0 ? "OK" : "E01");
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
            gdb_reply(s, "vCont;c;C;s;S");
        else if (strncmp(packet, "vCont", 5) == 0)
            continue_threads(s, packet + 5);
        else
            gdb_reply(s, "");
        break;
    case 'D':
        gdb_reply(s, "OK");
        detach(s);
        break;
    case 'k':
        close(s->client);
        s->client = -1;
        s->ops.quit(s->vm);
        break;
    default:
        gdb_reply(s, "");
        break;
    }
}

/* ---- The connection ---- */

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
        if (!gdb_read_packet(s, r))
            detach(s);
        else
            handle(s);
    } else if (c == '-') {
        gdb_send(s, s->out, s->out_length + 3);
    }
}

static void serve(struct gdb_stub *s)
{
    struct receiver r = {.at = 0, .length = 0};
    s->no_ack = false;
    while (s->client >= 0 && !s->ended) {
        if (r.at < r.length) {
            serve_byte(s, &r, gdb_next_byte(s, &r));
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
            serve_byte(s, &r, gdb_next_byte(s, &r));
    }
    if (s->client >= 0) {
        if (s->running)
            gdb_reply(s, "W00");
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
