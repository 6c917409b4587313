#include "ui/web.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ui/web_page.h"
#include "util/util.h"

#define REQUEST_MAX 8192
#define TIMEOUT_MS  10000

struct connection {
    int fd; /* -1: free */
    uint64_t deadline;
    const uint8_t *rest; /* of the page, still to be sent; NULL: the request comes first */
    size_t rest_size;
    char head[512];
    size_t head_sent, head_size;
};

struct web {
    bool loopback;
    struct connection connections[WEB_CONNECTIONS_MAX];
};

struct web *web_create(bool loopback)
{
    struct web *w = calloc(1, sizeof *w);
    for (unsigned i = 0; w && i < WEB_CONNECTIONS_MAX; i++)
        w->connections[i].fd = -1;
    if (w)
        w->loopback = loopback;
    return w;
}

static void drop(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->rest = NULL;
}

void web_destroy(struct web *w)
{
    for (unsigned i = 0; w && i < WEB_CONNECTIONS_MAX; i++)
        drop(&w->connections[i]);
    free(w);
}

void web_add(struct web *w, int fd, uint64_t now)
{
    for (unsigned i = 0; i < WEB_CONNECTIONS_MAX; i++) {
        struct connection *c = &w->connections[i];
        if (c->fd >= 0)
            continue;
        *c = (struct connection){.fd = fd, .deadline = now + TIMEOUT_MS};
        return;
    }
    close(fd);
}

/* ---- Requests ---- */

/* A header's value, copied; empty where it is not there. Repeated ones: the first. */
static void header(const char *request, const char *name, char *value, size_t size)
{
    size_t length = strlen(name);
    *value = 0;
    for (const char *line = strstr(request, "\r\n"); line && line[2] != '\r';
         line = strstr(line + 2, "\r\n")) {
        const char *at = line + 2;
        if (strncasecmp(at, name, length) != 0 || at[length] != ':')
            continue;
        at += length + 1;
        at += strspn(at, " \t");
        size_t n = strcspn(at, "\r\n");
        while (n && isspace((unsigned char)at[n - 1]))
            n--;
        snprintf(value, size, "%.*s", (int)n, at);
        return;
    }
}

/* A name that resolves to the loopback by the attacker's DNS is not one of the loopback's own. */
static bool host_is_ours(const struct web *w, const char *host)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    if (!w->loopback)
        return *host != 0;
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        size_t n = strlen(names[i]);
        if (strncasecmp(host, names[i], n) == 0 && (!host[n] || host[n] == ':'))
            return true;
    }
    return strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.:") == strlen(host);
}

static bool origin_is_ours(const char *origin, const char *host)
{
    if (!*origin)
        return true; /* no browser */
    const char *slashes = strstr(origin, "://");
    return slashes && strcasecmp(slashes + 3, host) == 0;
}

static void answer(struct connection *c, const char *status, const char *type, const uint8_t *body,
                   size_t size)
{
    int n = snprintf(c->head, sizeof c->head,
                     "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                     "Connection: close\r\nCache-Control: no-store\r\n"
                     "Content-Security-Policy: default-src 'self' 'unsafe-inline' data: ws:; "
                     "frame-ancestors 'none'\r\n"
                     "X-Content-Type-Options: nosniff\r\n\r\n",
                     status, type, size);
    c->head_size = (size_t)n;
    c->head_sent = 0;
    c->rest = body;
    c->rest_size = size;
}

static void refuse(struct connection *c, const char *status)
{
    static const uint8_t text[] = "This is the display of a virtual machine. Open / here.\n";
    answer(c, status, "text/plain", text, sizeof text - 1);
}

/* poll() is to tell when there are that many bytes. */
static void wake_at(const struct connection *c, int bytes)
{
    setsockopt(c->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
}

/* Looks at the request without taking it. True: a WebSocket for the VNC server. */
static bool request_arrived(const struct web *w, struct connection *c)
{
    char request[REQUEST_MAX + 1], host[256], origin[256], upgrade[64];
    ssize_t n = recv(c->fd, request, REQUEST_MAX, MSG_PEEK);
    if (n <= 0) {
        drop(c);
        return false;
    }
    request[n] = 0;
    if (strlen(request) != (size_t)n) {
        drop(c);
        return false;
    }
    if (!strstr(request, "\r\n\r\n")) {
        if (n == REQUEST_MAX)
            drop(c);
        else
            wake_at(c, (int)n + 1);
        return false;
    }
    wake_at(c, 1);
    header(request, "Host", host, sizeof host);
    header(request, "Origin", origin, sizeof origin);
    header(request, "Upgrade", upgrade, sizeof upgrade);
    bool ours = host_is_ours(w, host) && origin_is_ours(origin, host);
    if (ours && strcasecmp(upgrade, "websocket") == 0 && strncmp(request, "GET ", 4) == 0)
        return true;

    if (recv(c->fd, request, (size_t)n, 0) != n) {
        drop(c);
        return false;
    }
    if (!ours)
        refuse(c, "403 Forbidden");
    else if (strncmp(request, "GET / ", 6) == 0 || strncmp(request, "GET /index.html ", 16) == 0)
        answer(c, "200 OK", "text/html; charset=utf-8", web_page, web_page_size);
    else if (strncmp(request, "GET ", 4) == 0)
        refuse(c, "404 Not Found");
    else
        refuse(c, "405 Method Not Allowed");
    return false;
}

/* Send as much as goes; the connection ends with the last byte. */
static void send_rest(struct connection *c)
{
    while (c->head_sent < c->head_size || c->rest_size) {
        bool head = c->head_sent < c->head_size;
        const void *from = head ? (const void *)(c->head + c->head_sent) : c->rest;
        size_t size = head ? c->head_size - c->head_sent : c->rest_size;
        ssize_t n = send(c->fd, from, size, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* poll() tells when it goes on, or the deadline ends it */
        if (head) {
            c->head_sent += (size_t)n;
        } else {
            c->rest += n;
            c->rest_size -= (size_t)n;
        }
    }
    shutdown(c->fd, SHUT_WR);
    drop(c);
}

/* ---- The loop ---- */

unsigned web_poll(struct web *w, struct pollfd *fds)
{
    unsigned count = 0;
    for (unsigned i = 0; i < WEB_CONNECTIONS_MAX; i++) {
        const struct connection *c = &w->connections[i];
        if (c->fd >= 0)
            fds[count++] = (struct pollfd){c->fd, c->rest ? POLLOUT : POLLIN, 0};
    }
    return count;
}

static short events_of(int fd, const struct pollfd *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (fds[i].fd == fd)
            return fds[i].revents;
    return 0;
}

int web_handle(struct web *w, const struct pollfd *fds, unsigned count, uint64_t now)
{
    for (unsigned i = 0; i < WEB_CONNECTIONS_MAX; i++) {
        struct connection *c = &w->connections[i];
        if (c->fd < 0)
            continue;
        short events = events_of(c->fd, fds, count);
        if (now >= c->deadline) {
            drop(c);
        } else if (events && !c->rest && request_arrived(w, c)) {
            int fd = c->fd;
            c->fd = -1;
            return fd;
        }
        if (c->fd >= 0 && c->rest)
            send_rest(c);
    }
    return -1;
}

int web_timeout(const struct web *w, uint64_t now)
{
    int wait = -1;
    for (unsigned i = 0; i < WEB_CONNECTIONS_MAX; i++) {
        const struct connection *c = &w->connections[i];
        if (c->fd < 0)
            continue;
        int left = c->deadline > now ? (int)(c->deadline - now) : 0;
        wait = wait < 0 ? left : MIN(wait, left);
    }
    return wait;
}
