/* Listening on a UNIX socket that a user names. */
#ifndef TRIVISOR_UI_UNIX_LISTEN_H
#define TRIVISOR_UI_UNIX_LISTEN_H

#include <sys/un.h>
#include <trivisor/trivisor.h>

/* The address of a socket's name; -1 with `err` filled: it is empty or too long. `what` begins the
 * message: the option that the name was given to. */
int unix_address(struct sockaddr_un *address, const char *path, const char *what,
                 struct tv_error *err);
/*
 * Listen there. A socket that a dead process left behind is taken away, one that answers is not.
 * `mode`: who may connect, as in chmod(2), less the process's umask. Returns the socket, which does
 * not block, or -1 with `err` filled.
 */
int unix_listen(const char *path, unsigned mode, const char *what, struct tv_error *err);

#endif
