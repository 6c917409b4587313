#include "ui/unix_listen.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/error.h"

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

int unix_address(struct sockaddr_un *address, const char *path, const char *what,
                 struct tv_error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!path || !*path)
        return tv_fail(err, "%s: no socket name", what);
    if (strlen(path) >= sizeof address->sun_path)
        return tv_fail(err, "%s: too long for a socket's name (at most %zu bytes)", path,
                       sizeof address->sun_path - 1);
    strcpy(address->sun_path, path);
    return 0;
}

int unix_listen(const char *path, unsigned mode, const char *what, struct tv_error *err)
{
    struct sockaddr_un address;
    if (unix_address(&address, path, what, err) < 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return tv_fail_errno(err, errno, "cannot create a socket");
    if (stale(&address))
        unlink(path);
    /* The file gets the mode that the socket has when it is bound. */
    if (fchmod(fd, mode) < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, 8) < 0) {
        int error = errno;
        close(fd);
        return tv_fail_errno(err, error, "%s: cannot listen there", path);
    }
    return fd;
}
