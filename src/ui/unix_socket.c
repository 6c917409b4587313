/* The back end that listens on a unix socket, for one client at a time. */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ui/backend.h"
#include "ui/unix_listen.h"

static int unix_open(struct chardev *dev, const char *path, struct tv_error *err)
{
    int fd = unix_listen(path, 0777, "--serial unix", err);
    if (fd < 0)
        return -1;
    dev->listen_fd = dev->in_fd = fd;
    dev->name = strdup(path);
    return 0;
}

static void hang_up(struct chardev *dev)
{
    int fd = dev->in_fd;
    backend_set_output(dev, -1, true, false);
    dev->connected = false;
    dev->in_fd = dev->listen_fd;
    close(fd);
    backend_carrier(dev, 0);
}

static void polled(struct chardev *dev, short events)
{
    if (dev->connected && dev->input_waits) {
        /* What a client left behind is kept for the guest, until the next one comes. */
        struct pollfd fds[] = {{.fd = dev->in_fd}, {.fd = dev->listen_fd, .events = POLLIN}};
        if (poll(fds, 2, 0) == 2 && (fds[0].revents & (POLLHUP | POLLERR))) {
            dev->input_waits = false;
            hang_up(dev);
        }
        return;
    }
    if (!events)
        return;
    if (dev->connected) {
        backend_deliver_input(dev);
        return;
    }
    int fd = accept4(dev->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    dev->in_fd = fd;
    dev->connected = true;
    backend_set_output(dev, fd, true, true);
    backend_carrier(dev, 1);
}

static void unix_close(struct chardev *dev)
{
    if (dev->connected)
        close(dev->in_fd);
    if (dev->name) {
        close(dev->listen_fd);
        unlink(dev->name);
    }
}

const struct backend_ops unix_backend = {
    .open = unix_open, .close = unix_close, .input_ended = hang_up, .polled = polled};
