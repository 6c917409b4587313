/*
 * The HTTP side of the web display: it gives out the page, and hands WebSocket connections on,
 * their request unread, to the VNC server. Only requests whose Host and Origin are this server's
 * own get anywhere: other sites' pages in the user's browser do not.
 *
 * One thread; nothing here waits.
 */
#ifndef TRIVISOR_UI_WEB_H
#define TRIVISOR_UI_WEB_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#define WEB_CONNECTIONS_MAX 16

struct web;

/* `loopback`: the server is reached under names of the loopback only. NULL when out of memory. */
struct web *web_create(bool loopback);
void web_destroy(struct web *web);
/* A new connection; takes the descriptor, which does not block. */
void web_add(struct web *web, int fd, uint64_t now_ms);
/* Fill in what to poll (up to WEB_CONNECTIONS_MAX); returns how many. */
unsigned web_poll(struct web *web, struct pollfd *fds);
/* After the poll. Returns the descriptor of a WebSocket request for the caller to take over; call
 * again until -1. */
int web_handle(struct web *web, const struct pollfd *fds, unsigned count, uint64_t now_ms);
/* Milliseconds until web_handle() has to be called in any case; -1: not at all. */
int web_timeout(const struct web *web, uint64_t now_ms);

#endif
