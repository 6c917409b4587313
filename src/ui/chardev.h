/*
 * A character device: the host's end of a serial line. The front end is a UART or a debug port, the
 * back end a terminal, a file, a pseudo-terminal or a socket.
 *
 * One thread for each back end reads from the host and writes what could not be written at once. It
 * calls the front end with no lock held. The front end may call chardev_write() and
 * chardev_receive_ready() from any thread and with the device lock held: they never wait.
 */
#ifndef TRIVISOR_UI_CHARDEV_H
#define TRIVISOR_UI_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <trivisor/trivisor.h>

struct chardev;

/* What the back end tells the front end; all called by the back end's thread, without locks. */
struct chardev_front {
    /* How many bytes the front end takes now. 0: not before chardev_receive_ready(). */
    size_t (*room)(void *front);
    /* At most as many bytes as room() said. */
    void (*receive)(void *front, const uint8_t *bytes, size_t count);
    /* The line is held in the break condition; may be NULL. */
    void (*line_break)(void *front);
    /* chardev_write() came up short earlier and has space again; may be NULL. */
    void (*writable)(void *front);
    /* A client came (1) or left (0): the carrier; may be NULL. */
    void (*carrier)(void *front, int present);
};

/*
 * Open a back end. `path` is for TV_SERIAL_FILE (created or truncated) and TV_SERIAL_UNIX (listens
 * there; one client at a time, the next may come when it has gone). `quit` is called, by the back
 * end's thread, when the user types Ctrl-A X on stdio. NULL with `err` filled on failure.
 * TV_SERIAL_NONE gives a back end that swallows everything.
 */
struct chardev *chardev_open(enum tv_serial kind, const char *path, void (*quit)(void *opaque),
                             void *opaque, struct tv_error *err);
/* Write what is queued as far as the host takes it within a short time, end the thread, restore the
 * terminal. The device lock is not held; NULL is fine. */
void chardev_close(struct chardev *dev);
/* The path that a user connects to: of the pty's slave or of the socket. Else NULL. */
const char *chardev_name(const struct chardev *dev);

/* Connect the front end and begin to read. Once, before any vCPU runs. */
void chardev_attach(struct chardev *dev, const struct chardev_front *front, void *opaque);
/* Queue bytes for the host; returns how many were taken. Fewer than `count` only where the host's
 * reader is slow: writable() follows. With nobody at the other end, bytes are taken and lost. */
size_t chardev_write(struct chardev *dev, const void *bytes, size_t count);
/* The front end has room again. */
void chardev_receive_ready(struct chardev *dev);

#endif
