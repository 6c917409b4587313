#include "ui/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/error.h"
#include "util/util.h"

#define PORTS_TO_TRY 100
#define BACKLOG      16

/* Split "HOST:PORT"; an empty part stays empty. */
static bool split(const char *address, char *host, size_t host_size, char *port, size_t port_size)
{
    const char *colon = strrchr(address, ':');
    if (*address == '[') {
        const char *close = strchr(++address, ']');
        if (!close || (close[1] && close[1] != ':'))
            return false;
        colon = close[1] ? close + 1 : NULL;
        snprintf(host, host_size, "%.*s", (int)(close - address), address);
    } else if (colon && strchr(address, ':') != colon) { /* an IPv6 address alone */
        snprintf(host, host_size, "%s", address);
        colon = NULL;
    } else {
        snprintf(host, host_size, "%.*s", (int)(colon ? colon - address : (int)strlen(address)),
                 address);
    }
    snprintf(port, port_size, "%s", colon ? colon + 1 : "");
    return true;
}

static void set_port(struct sockaddr_storage *to, unsigned port)
{
    if (to->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)to)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)to)->sin_port = htons((uint16_t)port);
}

static bool is_loopback(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
}

/* A listening socket, or minus the error number. */
static int listen_at(const struct sockaddr_storage *at, socklen_t size)
{
    int fd = socket(at->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)at, size) < 0 || listen(fd, BACKLOG) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

static void set_name(struct tcp_listener *listener)
{
    struct sockaddr_storage at;
    socklen_t size = sizeof at;
    char host[64], port[16];
    if (getsockname(listener->fd, (struct sockaddr *)&at, &size) < 0 ||
        getnameinfo((struct sockaddr *)&at, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    snprintf(listener->name, sizeof listener->name, at.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
             host, port);
}

int tcp_listen(struct tcp_listener *listener, const char *address, unsigned port, const char *what,
               struct tv_error *err)
{
    char host[64], service[16];
    if (!address)
        address = "";
    if (strlen(address) >= sizeof host ||
        !split(address, host, sizeof host, service, sizeof service))
        return tv_fail(err, "%s '%s': want HOST:PORT", what, address);
    unsigned tries = PORTS_TO_TRY;
    if (*service) {
        char *end;
        unsigned long number = strtoul(service, &end, 10);
        if (*end || number > 0xffff)
            return tv_fail(err, "%s '%s': the port is not a number up to 65535", what, address);
        port = (unsigned)number;
        tries = 1;
    }

    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int failed = getaddrinfo(*host ? host : "127.0.0.1", NULL, &hints, &found);
    if (failed)
        return tv_fail(err, "%s '%s': %s", what, address, gai_strerror(failed));
    struct sockaddr_storage at = {0};
    socklen_t size = found->ai_addrlen;
    memcpy(&at, found->ai_addr, MIN(size, sizeof at));
    freeaddrinfo(found);

    int fd = -EADDRINUSE;
    for (unsigned i = 0; i < tries && fd == -EADDRINUSE; i++) {
        set_port(&at, port + i);
        fd = listen_at(&at, size);
    }
    if (fd < 0)
        return tv_fail_errno(err, -fd, "%s: cannot listen at %s port %u", what,
                             *host ? host : "127.0.0.1", port);
    listener->fd = fd;
    listener->loopback = is_loopback(&at);
    set_name(listener);
    return 0;
}
