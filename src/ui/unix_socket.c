/* The back end that listens on a unix socket, for one client at a time. */
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ui/backend.h"
#include "util/error.h"

/* A socket that a dead process left behind is in the way; one that answers is somebody else's. */
static bool stale(const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool refused =
        connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int unix_open(struct chardev *dev, const char *path, struct tv_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path)
        return tv_fail(err, "--serial unix: no socket name; use unix:PATH");
    if (strlen(path) >= sizeof address.sun_path)
        return tv_fail(err, "%s: too long for a socket's name (at most %zu bytes)", path,
                       sizeof address.sun_path - 1);
    strcpy(address.sun_path, path);

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return tv_fail_errno(err, errno, "cannot create a socket");
    if (stale(&address))
        unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0) {
        int error = errno;
        close(fd);
        return tv_fail_errno(err, error, "%s: cannot listen there", path);
    }
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
