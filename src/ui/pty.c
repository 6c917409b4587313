/*
 * The back end that is a pseudo-terminal. A terminal program opens the slave by its name, as often
 * as it likes. While nobody has it open, reads of the master fail and poll says "hung up" at once:
 * then the thread looks again every so often, and output is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "ui/backend.h"
#include "util/error.h"

static int pty_open(struct chardev *dev, const char *path, struct tv_error *err)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return tv_fail_errno(err, errno, "--serial pty: cannot get a pseudo-terminal");
    dev->listen_fd = fd; /* in_fd and out_fd are -1 while nobody is there */
    char name[128];
    if (grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof name) != 0)
        return tv_fail_errno(err, errno, "--serial pty: cannot set up the pseudo-terminal");

    /* Raw from the first byte, so that nothing is echoed back. Closing the slave again is what
     * makes poll on the master say whether somebody has it open. */
    int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios raw;
    if (slave < 0 || tcgetattr(slave, &raw) < 0) {
        int error = errno;
        if (slave >= 0)
            close(slave);
        return tv_fail_errno(err, error, "--serial pty: cannot set up %s", name);
    }
    cfmakeraw(&raw);
    tcsetattr(slave, TCSANOW, &raw);
    close(slave);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    dev->name = strdup(name);
    dev->poll_ms = LOOK_AGAIN_MS;
    return 0;
}

static void set_connected(struct chardev *dev, bool connected)
{
    if (dev->connected == connected)
        return;
    dev->connected = connected;
    dev->in_fd = connected ? dev->listen_fd : -1;
    dev->poll_ms = connected ? -1 : LOOK_AGAIN_MS;
    backend_set_output(dev, connected ? dev->listen_fd : -1, false, connected);
    backend_carrier(dev, connected);
}

static void input_ended(struct chardev *dev)
{
    set_connected(dev, false);
}

static void polled(struct chardev *dev, short events)
{
    if (!dev->connected || dev->input_waits) {
        struct pollfd fd = {.fd = dev->listen_fd, .events = POLLIN};
        bool open = poll(&fd, 1, 0) >= 0 && !(fd.revents & POLLHUP);
        set_connected(dev, open);
    } else if (events) {
        backend_deliver_input(dev);
    }
}

static void pty_close(struct chardev *dev)
{
    if (dev->listen_fd > 0)
        close(dev->listen_fd);
}

const struct backend_ops pty_backend = {
    .open = pty_open, .close = pty_close, .input_ended = input_ended, .polled = polled};
