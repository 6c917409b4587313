/* Listening on TCP addresses that a user gives. */
#ifndef TRIVISOR_UI_TCP_H
#define TRIVISOR_UI_TCP_H

#include <stdbool.h>
#include <trivisor/trivisor.h>

struct tcp_listener {
    int fd;
    char name[128]; /* the address that it got: "127.0.0.1:5900" */
    bool loopback;  /* only this host reaches it */
};

/*
 * Listen at "HOST:PORT", "[HOST]:PORT", "HOST" or ":PORT"; NULL: the loopback. Without a port it is
 * the first free one from `port` to port + 99; port 0 lets the system choose. The socket does not
 * block. Returns 0, or -1 with `err` filled; `what` names the use in the message.
 */
int tcp_listen(struct tcp_listener *listener, const char *address, unsigned port, const char *what,
               struct tv_error *err);

#endif
