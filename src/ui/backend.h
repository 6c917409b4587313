/* What the back ends share with chardev.c. Nobody else includes this. */
#ifndef TRIVISOR_UI_BACKEND_H
#define TRIVISOR_UI_BACKEND_H

#include <pthread.h>
#include <stdbool.h>

#include "ui/chardev.h"

#define QUEUE_SIZE    65536
#define TYPED_SIZE    1024

/* How often to look for what no descriptor tells. */
#define LOOK_AGAIN_MS 200

struct backend_ops {
    bool carrier_at_start; /* somebody is always at the other end */
    /* Open files, set in_fd, and the output by backend_set_output(). Returns 0, or -1 with `err`.
     */
    int (*open)(struct chardev *dev, const char *path, struct tv_error *err);
    /* Undo open, also one that failed half-way. */
    void (*close)(struct chardev *dev);
    /* Look at typed input for the escape key; returns how many bytes are left for the guest. */
    size_t (*filter)(struct chardev *dev, uint8_t *bytes, size_t count);
    /* in_fd is at its end or broken. Sets in_fd to something else. */
    void (*input_ended)(struct chardev *dev);
    /* Takes the place of reading in_fd: after each poll, with its events. May be NULL. */
    void (*polled)(struct chardev *dev, short events);
};

struct chardev {
    const struct backend_ops *ops;
    const struct chardev_front *front;
    void *front_opaque;
    void (*quit)(void *opaque);
    void *quit_opaque;
    char *name;

    pthread_t thread;
    bool started;
    int wake_fd;
    int poll_ms; /* time-out of the thread's poll; -1: none */

    /* The thread's own. */
    int in_fd;
    bool input_waits; /* the front end has no room */
    bool typing;      /* a user types at in_fd: ops->filter sees it first */
    bool escape;      /* Ctrl-A was typed */
    bool claimed;     /* stdio: the process's terminal is ours */
    uint8_t typed[TYPED_SIZE];
    size_t typed_count;
    int listen_fd;  /* unix */
    bool connected; /* pty, unix */

    pthread_mutex_t lock;
    bool stop;
    int out_fd;       /* -1: nobody there, output is lost */
    bool socket_out;  /* use send() */
    bool direct;      /* writing to out_fd never waits */
    bool short_write; /* the front end waits for writable() */
    size_t write_max; /* bytes to write at once */
    size_t queue_head, queued;
    uint8_t queue[QUEUE_SIZE];
};

extern const struct backend_ops null_backend, stdio_backend, file_backend, pty_backend,
    unix_backend;

/* Where output goes from now on. The caller does not hold the lock. */
void backend_set_output(struct chardev *dev, int fd, bool socket, bool direct);
/* Tell the front end. */
void backend_carrier(struct chardev *dev, int present);
/* Read in_fd as far as the front end has room. The thread's. */
void backend_deliver_input(struct chardev *dev);

#endif
