/*
 * The monitor's socket. A client sends lines and reads, for each, what the command has to say and a
 * last line: "ok", or "error: " and why. Commands are carried out one after the other.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "mgmt/monitor.h"
#include "ui/unix_listen.h"
#include "util/error.h"
#include "util/util.h"

#define CLIENTS      8
#define PATIENCE_S   2 /* with a client that does not read */
#define FIRST_CLIENT 2 /* among what is polled: the wake-up, the listening socket, clients */

struct client {
    int fd;
    size_t length;
    char line[MONITOR_LINE];
};

struct monitor {
    struct tv_vm *vm;
    char *path;
    int wake, listener;
    pthread_t thread;
    struct client clients[CLIENTS];
    unsigned count;
};

static bool send_all(int fd, const char *bytes, size_t size)
{
    while (size) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

/* False: the client is gone. */
static bool answer(struct monitor *m, int fd, const char *line)
{
    char *text = NULL;
    size_t size = 0;
    struct tv_error err = {""};
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return false;
    if (tv_vm_command(m->vm, line, out, &err) < 0)
        fprintf(out, "error: %s\n", err.message);
    else
        fprintf(out, "ok\n");
    bool good = fclose(out) == 0 && send_all(fd, text, size);
    free(text);
    return good;
}

/* Read what is there and carry out its lines. False: the client is gone. */
static bool serve(struct monitor *m, struct client *c)
{
    ssize_t n = recv(c->fd, c->line + c->length, sizeof c->line - 1 - c->length, MSG_DONTWAIT);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    c->length += (size_t)n;
    char *end;
    while ((end = memchr(c->line, '\n', c->length))) {
        *end = 0;
        if (!answer(m, c->fd, c->line))
            return false;
        c->length -= (size_t)(end + 1 - c->line);
        memmove(c->line, end + 1, c->length);
    }
    return c->length < sizeof c->line - 1; /* a line that long is nobody's */
}

static void take_client(struct monitor *m)
{
    int fd = accept4(m->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    m->clients[m->count].fd = fd;
    m->clients[m->count++].length = 0;
}

static void *monitor_main(void *opaque)
{
    struct monitor *m = opaque;
    for (;;) {
        struct pollfd fds[FIRST_CLIENT + CLIENTS] = {
            {.fd = m->wake, .events = POLLIN},
            {.fd = m->count < CLIENTS ? m->listener : -1, .events = POLLIN}};
        for (unsigned i = 0; i < m->count; i++)
            fds[FIRST_CLIENT + i] = (struct pollfd){.fd = m->clients[i].fd, .events = POLLIN};
        if (poll(fds, FIRST_CLIENT + m->count, -1) < 0)
            continue;
        if (fds[0].revents)
            return NULL;
        for (unsigned i = m->count; i--;)
            if (fds[FIRST_CLIENT + i].revents && !serve(m, &m->clients[i])) {
                close(m->clients[i].fd);
                m->clients[i] = m->clients[--m->count];
            }
        if (fds[1].revents)
            take_client(m);
    }
}

struct monitor *monitor_open(struct tv_vm *vm, const char *path, struct tv_error *err)
{
    struct monitor *m = calloc(1, sizeof *m);
    char *copy = strdup(path);
    if (!m || !copy) {
        tv_fail(err, "out of memory");
        goto no_listener;
    }
    m->vm = vm;
    m->listener = unix_listen(path, 0600, "--monitor", err);
    if (m->listener < 0)
        goto no_listener;
    m->path = copy;
    m->wake = eventfd(0, EFD_CLOEXEC);
    int error = m->wake < 0 ? errno : pthread_create(&m->thread, NULL, monitor_main, m);
    if (!error)
        return m;
    tv_fail_errno(err, error, "--monitor: cannot create a thread");
    if (m->wake >= 0)
        close(m->wake);
    close(m->listener);
    unlink(path);
no_listener:
    free(copy);
    free(m);
    return NULL;
}

void monitor_close(struct monitor *m)
{
    if (!m)
        return;
    eventfd_write(m->wake, 1);
    pthread_join(m->thread, NULL);
    for (unsigned i = 0; i < m->count; i++)
        close(m->clients[i].fd);
    close(m->wake);
    close(m->listener);
    unlink(m->path);
    free(m->path);
    free(m);
}
