/* The back end that records output in a file. There is no input. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "ui/backend.h"
#include "util/error.h"

static int file_open(struct chardev *dev, const char *path, struct tv_error *err)
{
    if (!path || !*path)
        return tv_fail(err, "--serial file: no file name; use file:PATH");
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
    if (fd < 0)
        return tv_fail_errno(err, errno, "%s: cannot write the serial output there", path);
    backend_set_output(dev, fd, false, true);
    return 0;
}

static void file_close(struct chardev *dev)
{
    if (dev->out_fd >= 0)
        close(dev->out_fd);
}

static void no_input(struct chardev *dev)
{
    dev->in_fd = -1;
}

const struct backend_ops file_backend = {
    .carrier_at_start = true, .open = file_open, .close = file_close, .input_ended = no_input};
