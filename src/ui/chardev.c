/*
 * The part that all back ends share: the queue of bytes that the host could not take at once, and
 * the thread.
 *
 * chardev_write() tries the host first where nothing is queued and the file takes it without
 * waiting, so that output is there even if the process dies in the next moment. What is left
 * goes into the queue, which the thread empties. A full queue makes the front end wait for
 * writable(), unless nobody is at the other end.
 *
 * `lock` guards the queue and the descriptors; it is the innermost lock. The front end is called
 * without it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ui/backend.h"
#include "util/error.h"
#include "util/util.h"

#define INPUT_CHUNK  64
#define LAST_WORD_MS 500 /* how long chardev_close() waits for a slow reader */

/* ---- Output ---- */

/* How many bytes the host took; -1: the other end has gone. Lock held. */
static ssize_t host_write(struct chardev *dev, const uint8_t *bytes, size_t count)
{
    ssize_t n;
    do {
        if (dev->socket_out)
            n = send(dev->out_fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
            n = write(dev->out_fd, bytes, count);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
}

/* Move from the queue to the host. Lock held. */
static void drain(struct chardev *dev)
{
    while (dev->queued > 0) {
        size_t run = MIN(dev->queued, QUEUE_SIZE - dev->queue_head);
        if (dev->out_fd < 0) {
            dev->queued = 0;
            break;
        }
        ssize_t n = host_write(dev, dev->queue + dev->queue_head, MIN(run, dev->write_max));
        if (n < 0) {
            dev->queued = 0; /* nobody will ever read it */
            break;
        }
        if (n == 0)
            break;
        dev->queue_head = (dev->queue_head + (size_t)n) % QUEUE_SIZE;
        dev->queued -= (size_t)n;
        if (!dev->direct)
            break; /* look again whether it would block */
    }
}

size_t chardev_write(struct chardev *dev, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    size_t taken = 0;

    pthread_mutex_lock(&dev->lock);
    if (dev->out_fd < 0) {
        pthread_mutex_unlock(&dev->lock);
        return count;
    }
    if (dev->queued == 0 && dev->direct) {
        ssize_t n = host_write(dev, from, count);
        taken = n < 0 ? count : (size_t)n;
    }
    bool wake = dev->queued == 0 && taken < count;
    while (taken < count && dev->queued < QUEUE_SIZE) {
        dev->queue[(dev->queue_head + dev->queued) % QUEUE_SIZE] = from[taken++];
        dev->queued++;
    }
    if (taken < count)
        dev->short_write = true;
    pthread_mutex_unlock(&dev->lock);
    if (wake)
        chardev_receive_ready(dev);
    return taken;
}

void chardev_receive_ready(struct chardev *dev)
{
    uint64_t one = 1;
    /* It can only fail when the counter is full, and then the thread is awake anyway. */
    ssize_t n = write(dev->wake_fd, &one, sizeof one);
    (void)n;
}

void backend_set_output(struct chardev *dev, int fd, bool socket, bool direct)
{
    pthread_mutex_lock(&dev->lock);
    dev->out_fd = fd;
    dev->socket_out = socket;
    dev->direct = direct;
    bool tell = fd < 0 && dev->short_write;
    if (fd < 0) {
        dev->queued = 0;
        dev->short_write = false;
    }
    pthread_mutex_unlock(&dev->lock);
    if (tell && dev->front->writable)
        dev->front->writable(dev->front_opaque);
}

void backend_carrier(struct chardev *dev, int present)
{
    if (dev->front && dev->front->carrier)
        dev->front->carrier(dev->front_opaque, present);
}

/* ---- The thread ---- */

/* Give the front end what was typed ahead, as far as it has room. */
static void deliver_typed(struct chardev *dev)
{
    while (dev->typed_count > 0) {
        size_t room = dev->front->room(dev->front_opaque);
        size_t count = MIN(room, dev->typed_count);
        if (count == 0)
            return;
        dev->front->receive(dev->front_opaque, dev->typed, count);
        dev->typed_count -= count;
        memmove(dev->typed, dev->typed + count, dev->typed_count);
    }
}

/* What a user types is read at once, since it may be the key that ends a guest which takes nothing.
 * Where the guest is too far behind, what is typed is lost. */
static void read_typed(struct chardev *dev)
{
    uint8_t bytes[INPUT_CHUNK];
    ssize_t n = read(dev->in_fd, bytes, sizeof bytes);
    if (n > 0) {
        size_t count = dev->ops->filter(dev, bytes, (size_t)n);
        count = MIN(count, TYPED_SIZE - dev->typed_count);
        memcpy(dev->typed + dev->typed_count, bytes, count);
        dev->typed_count += count;
        deliver_typed(dev);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        dev->ops->input_ended(dev);
    }
}

void backend_deliver_input(struct chardev *dev)
{
    uint8_t bytes[INPUT_CHUNK];
    if (dev->typing) {
        read_typed(dev);
        return;
    }
    size_t room = dev->front->room(dev->front_opaque);
    if (room == 0) {
        dev->input_waits = true;
        return;
    }
    ssize_t n = read(dev->in_fd, bytes, MIN(room, sizeof bytes));
    if (n > 0)
        dev->front->receive(dev->front_opaque, bytes, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        dev->ops->input_ended(dev);
}

static void *thread_main(void *opaque)
{
    struct chardev *dev = opaque;

    for (;;) {
        pthread_mutex_lock(&dev->lock);
        bool want_output = dev->queued > 0 && dev->out_fd >= 0;
        struct pollfd fds[] = {
            {.fd = dev->wake_fd, .events = POLLIN},
            {.fd = dev->input_waits ? -1 : dev->in_fd, .events = POLLIN},
            {.fd = want_output ? dev->out_fd : -1, .events = POLLOUT},
        };
        bool stop = dev->stop;
        pthread_mutex_unlock(&dev->lock);
        if (stop)
            break;
        /* A client whose input nobody takes may leave, which its descriptor would not tell now. */
        int wait_ms = dev->input_waits && dev->ops->polled ? LOOK_AGAIN_MS : dev->poll_ms;
        if (poll(fds, ARRAY_SIZE(fds), wait_ms) < 0 && errno != EINTR)
            break;
        if (fds[0].revents) {
            uint64_t count;
            ssize_t n = read(dev->wake_fd, &count, sizeof count);
            (void)n;
            dev->input_waits = false;
            deliver_typed(dev);
        }
        if (fds[2].revents) {
            pthread_mutex_lock(&dev->lock);
            drain(dev);
            bool tell = dev->short_write && dev->queued < QUEUE_SIZE / 2;
            if (tell)
                dev->short_write = false;
            pthread_mutex_unlock(&dev->lock);
            if (tell && dev->front->writable)
                dev->front->writable(dev->front_opaque);
        }
        if (dev->ops->polled)
            dev->ops->polled(dev, fds[1].revents);
        else if (fds[1].revents)
            backend_deliver_input(dev);
    }
    return NULL;
}

/* ---- Life ---- */

void chardev_attach(struct chardev *dev, const struct chardev_front *front, void *opaque)
{
    dev->front = front;
    dev->front_opaque = opaque;
    if (dev->ops->carrier_at_start)
        backend_carrier(dev, 1);
    if (dev->in_fd < 0 && dev->out_fd < 0 && !dev->ops->polled)
        return; /* nothing to do for a thread */
    if (pthread_create(&dev->thread, NULL, thread_main, dev) == 0)
        dev->started = true;
}

/* Give a slow reader a little time for what is still queued. */
static void last_words(struct chardev *dev)
{
    for (int waited = 0; waited < LAST_WORD_MS; waited += 10) {
        struct pollfd fd = {.fd = dev->out_fd, .events = POLLOUT};
        if (dev->queued == 0 || dev->out_fd < 0)
            return;
        if (poll(&fd, 1, 10) > 0)
            drain(dev);
    }
}

void chardev_close(struct chardev *dev)
{
    if (!dev)
        return;
    if (dev->started) {
        pthread_mutex_lock(&dev->lock);
        dev->stop = true;
        pthread_mutex_unlock(&dev->lock);
        chardev_receive_ready(dev);
        pthread_join(dev->thread, NULL);
    }
    last_words(dev);
    if (dev->ops->close)
        dev->ops->close(dev);
    if (dev->wake_fd >= 0)
        close(dev->wake_fd);
    pthread_mutex_destroy(&dev->lock);
    free(dev->name);
    free(dev);
}

const char *chardev_name(const struct chardev *dev)
{
    return dev->name;
}

static const struct backend_ops *const backends[] = {
    [TV_SERIAL_NONE] = &null_backend, [TV_SERIAL_STDIO] = &stdio_backend,
    [TV_SERIAL_FILE] = &file_backend, [TV_SERIAL_PTY] = &pty_backend,
    [TV_SERIAL_UNIX] = &unix_backend,
};

struct chardev *chardev_open(enum tv_serial kind, const char *path, void (*quit)(void *opaque),
                             void *opaque, struct tv_error *err)
{
    if ((size_t)kind >= ARRAY_SIZE(backends)) {
        tv_fail(err, "serial back end %d: there is no such kind", (int)kind);
        return NULL;
    }
    struct chardev *dev = calloc(1, sizeof *dev);
    if (!dev) {
        tv_fail(err, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&dev->lock, NULL);
    dev->ops = backends[kind];
    dev->quit = quit;
    dev->quit_opaque = opaque;
    dev->in_fd = dev->out_fd = -1;
    dev->poll_ms = -1;
    dev->write_max = QUEUE_SIZE;
    dev->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (dev->wake_fd < 0) {
        tv_fail_errno(err, errno, "cannot create an event descriptor");
        chardev_close(dev);
        return NULL;
    }
    if (dev->ops->open(dev, path, err) < 0) {
        chardev_close(dev);
        return NULL;
    }
    return dev;
}
