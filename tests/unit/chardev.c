/* The serial back ends, through real files, sockets and a pseudo-terminal. */
#include "ui/chardev.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "check.h"

static struct {
    pthread_mutex_t lock;
    uint8_t bytes[4096];
    size_t count, room;
    int carrier, breaks, writable;
} front = {.lock = PTHREAD_MUTEX_INITIALIZER, .room = sizeof front.bytes};
static volatile int quits;

static size_t front_room(void *opaque)
{
    pthread_mutex_lock(&front.lock);
    size_t room = front.room - front.count;
    pthread_mutex_unlock(&front.lock);
    return room;
}

static void front_receive(void *opaque, const uint8_t *bytes, size_t count)
{
    pthread_mutex_lock(&front.lock);
    memcpy(front.bytes + front.count, bytes, count);
    front.count += count;
    pthread_mutex_unlock(&front.lock);
}

static void front_break(void *opaque)
{
    pthread_mutex_lock(&front.lock);
    front.breaks++;
    pthread_mutex_unlock(&front.lock);
}

static void front_carrier(void *opaque, int present)
{
    pthread_mutex_lock(&front.lock);
    front.carrier = present;
    pthread_mutex_unlock(&front.lock);
}

static void front_writable(void *opaque)
{
    pthread_mutex_lock(&front.lock);
    front.writable++;
    pthread_mutex_unlock(&front.lock);
}

static const struct chardev_front ops = {.room = front_room,
                                         .receive = front_receive,
                                         .line_break = front_break,
                                         .writable = front_writable,
                                         .carrier = front_carrier};

static void on_quit(void *opaque)
{
    quits++;
}

/* Wait up to five seconds. */
#define EVENTUALLY(cond)                                                                           \
    do {                                                                                           \
        int tries_ = 0;                                                                            \
        for (; tries_ < 500; tries_++) {                                                           \
            pthread_mutex_lock(&front.lock);                                                       \
            int ok_ = (cond);                                                                      \
            pthread_mutex_unlock(&front.lock);                                                     \
            if (ok_)                                                                               \
                break;                                                                             \
            usleep(10000);                                                                         \
        }                                                                                          \
        CHECK(tries_ < 500);                                                                       \
    } while (0)

static int received(const char *text)
{
    return front.count == strlen(text) && !memcmp(front.bytes, text, front.count);
}

static void clear_front(void)
{
    pthread_mutex_lock(&front.lock);
    front.count = 0;
    front.room = sizeof front.bytes;
    front.carrier = front.breaks = front.writable = 0;
    pthread_mutex_unlock(&front.lock);
}

static int reads(int fd, const char *text)
{
    char buf[256];
    size_t have = 0, want = strlen(text);
    while (have < want) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 5000) <= 0)
            return 0;
        ssize_t n = read(fd, buf + have, want - have);
        if (n <= 0)
            return 0;
        have += (size_t)n;
    }
    return !memcmp(buf, text, want);
}

static void test_file(const char *dir)
{
    struct tv_error err;
    char path[100], buf[16];
    snprintf(path, sizeof path, "%s/out", dir);
    struct chardev *dev = chardev_open(TV_SERIAL_FILE, path, NULL, NULL, &err);
    CHECK(dev);
    chardev_attach(dev, &ops, NULL);
    CHECK(chardev_write(dev, "hello", 5) == 5);
    chardev_close(dev);
    int fd = open(path, O_RDONLY);
    CHECK(read(fd, buf, sizeof buf) == 5 && !memcmp(buf, "hello", 5));
    close(fd);
    unlink(path);
    CHECK(!chardev_open(TV_SERIAL_FILE, "/nonexistent/x", NULL, NULL, &err));
    CHECK(strstr(err.message, "/nonexistent/x"));

    dev = chardev_open(TV_SERIAL_NONE, NULL, NULL, NULL, &err);
    chardev_attach(dev, &ops, NULL);
    CHECK(chardev_write(dev, "x", 1) == 1);
    chardev_close(dev);
    chardev_close(NULL);
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

static void test_socket(const char *dir)
{
    struct tv_error err;
    char path[100];
    snprintf(path, sizeof path, "%s/socket", dir);
    clear_front();
    for (int round = 0; round < 2; round++) {
        struct chardev *dev = chardev_open(TV_SERIAL_UNIX, path, NULL, NULL, &err);
        CHECK(dev && !strcmp(chardev_name(dev), path));
        chardev_attach(dev, &ops, NULL);
        CHECK(chardev_write(dev, "lost", 4) == 4); /* nobody is there */
        for (int client = 0; client < 2; client++) {
            clear_front();
            int fd = connect_to(path);
            EVENTUALLY(front.carrier);
            CHECK(write(fd, "typed", 5) == 5);
            EVENTUALLY(received("typed"));
            CHECK(chardev_write(dev, "answer", 6) == 6);
            CHECK(reads(fd, "answer"));
            close(fd);
            EVENTUALLY(!front.carrier);
        }
        chardev_close(dev);
    }
    CHECK(access(path, F_OK) < 0);

    /* The guest reads nothing: what a client sends waits for it, even after the client has gone. */
    struct chardev *dev = chardev_open(TV_SERIAL_UNIX, path, NULL, NULL, &err);
    clear_front();
    front.room = 0;
    chardev_attach(dev, &ops, NULL);
    int fd = connect_to(path);
    CHECK(write(fd, "kept", 4) == 4);
    EVENTUALLY(front.carrier);
    close(fd);
    usleep(50000);
    clear_front();
    chardev_receive_ready(dev);
    EVENTUALLY(received("kept"));
    /* But a next client does not have to wait for a guest that hangs. */
    clear_front();
    front.room = 0;
    fd = connect_to(path);
    CHECK(write(fd, "gone", 4) == 4);
    EVENTUALLY(front.carrier);
    close(fd);
    fd = connect_to(path);
    for (int i = 0; i < 100; i++) {
        chardev_write(dev, ".", 1);
        usleep(10000);
    }
    CHECK(reads(fd, "...."));
    close(fd);
    chardev_close(dev);
    CHECK(!chardev_open(TV_SERIAL_UNIX, "", NULL, NULL, &err));
}

/* Nothing is lost on a client that reads late; one that leaves without reading is waited for no
 * longer. */
static void test_slow_client(const char *dir)
{
    struct tv_error err;
    char path[100];
    uint8_t block[1000];
    snprintf(path, sizeof path, "%s/slow", dir);
    clear_front();
    struct chardev *dev = chardev_open(TV_SERIAL_UNIX, path, NULL, NULL, &err);
    chardev_attach(dev, &ops, NULL);
    for (int round = 0; round < 2; round++) {
        clear_front();
        int fd = connect_to(path);
        EVENTUALLY(front.carrier);
        size_t sent = 0, taken;
        do {
            for (size_t i = 0; i < sizeof block; i++)
                block[i] = (uint8_t)((sent + i) % 251);
            taken = chardev_write(dev, block, sizeof block);
            sent += taken;
        } while (taken == sizeof block && sent < 64 << 20);
        CHECK(taken < sizeof block);
        size_t got = 0, wrong = 0;
        ssize_t n = 1;
        while (round == 0 && got < sent && (n = read(fd, block, sizeof block)) > 0)
            for (ssize_t i = 0; i < n; i++)
                wrong += block[i] != got++ % 251;
        CHECK(wrong == 0 && (round || got == sent));
        close(fd);
        EVENTUALLY(front.writable && !front.carrier);
    }
    chardev_close(dev);
}

static void test_pty(void)
{
    struct tv_error err;
    clear_front();
    struct chardev *dev = chardev_open(TV_SERIAL_PTY, NULL, NULL, NULL, &err);
    CHECK(dev && chardev_name(dev));
    chardev_attach(dev, &ops, NULL);
    for (int round = 0; round < 2; round++) {
        clear_front();
        int fd = open(chardev_name(dev), O_RDWR | O_NOCTTY);
        CHECK(fd >= 0);
        EVENTUALLY(front.carrier);
        CHECK(write(fd, "ab\r", 3) == 3);
        EVENTUALLY(received("ab\r"));
        CHECK(chardev_write(dev, "x\ny", 3) == 3);
        CHECK(reads(fd, "x\ny"));
        close(fd);
        EVENTUALLY(!front.carrier);
    }
    chardev_close(dev);
}

/* stdin and stdout are a pseudo-terminal whose master the test holds. */
static void test_terminal(void)
{
    struct tv_error err;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    int old_in = dup(0), old_out = dup(1);
    dup2(slave, 0), dup2(slave, 1);

    clear_front();
    struct chardev *dev = chardev_open(TV_SERIAL_STDIO, NULL, on_quit, NULL, &err);
    CHECK(dev);
    CHECK(!chardev_open(TV_SERIAL_STDIO, NULL, NULL, NULL, &err)); /* only one */
    chardev_attach(dev, &ops, NULL);
    CHECK(write(master, "a\003\001ab", 5) == 5); /* Ctrl-C is the guest's */
    EVENTUALLY(received("a\003\001b"));
    CHECK(chardev_write(dev, "out", 3) == 3);
    CHECK(reads(master, "out"));
    CHECK(write(master, "\001c", 2) == 2);
    EVENTUALLY(front.breaks == 1);
    CHECK(write(master, "\001h", 2) == 2);
    CHECK(reads(master, "\r\nCtrl-A X"));
    /* The guest takes nothing more: the quit key works all the same, and what was typed waits. */
    pthread_mutex_lock(&front.lock);
    front.room = front.count;
    pthread_mutex_unlock(&front.lock);
    CHECK(write(master, "later\001x", 7) == 7);
    EVENTUALLY(quits == 1);
    clear_front();
    chardev_receive_ready(dev);
    EVENTUALLY(received("later"));
    chardev_close(dev);
    dup2(old_in, 0), dup2(old_out, 1);
    close(old_in), close(old_out), close(slave), close(master);
}

/* A signal that ends the process leaves the terminal as it was. */
static void test_fatal_signal(void)
{
    struct tv_error err;
    struct termios before, during, after;
    int master = posix_openpt(O_RDWR | O_NOCTTY), ready[2], status = 0;
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 && pipe(ready) == 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK(tcgetattr(slave, &before) == 0 && (before.c_lflag & ICANON));

    pid_t child = fork();
    if (child == 0) {
        dup2(slave, 0), dup2(slave, 1);
        struct chardev *dev = chardev_open(TV_SERIAL_STDIO, NULL, on_quit, NULL, &err);
        chardev_attach(dev, &ops, NULL);
        if (write(ready[1], "x", 1) == 1)
            pause();
        _exit(0);
    }
    CHECK(reads(ready[0], "x"));
    CHECK(tcgetattr(slave, &during) == 0 && !(during.c_lflag & (ICANON | ECHO | ISIG)));
    kill(child, SIGTERM);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    CHECK(tcgetattr(slave, &after) == 0 && after.c_lflag == before.c_lflag &&
          after.c_iflag == before.c_iflag && after.c_oflag == before.c_oflag);
    close(slave), close(master), close(ready[0]), close(ready[1]);
}

/* stdin and stdout are pipes. */
static void test_pipes(void)
{
    struct tv_error err;
    int in[2], out[2];
    CHECK(pipe(in) == 0 && pipe(out) == 0);
    int old_in = dup(0), old_out = dup(1);
    dup2(in[0], 0), dup2(out[1], 1);

    clear_front();
    front.room = 0;
    struct chardev *dev = chardev_open(TV_SERIAL_STDIO, NULL, on_quit, NULL, &err);
    CHECK(dev);
    chardev_attach(dev, &ops, NULL);
    CHECK(write(in[1], "\001x script", 9) == 9); /* no escapes here */
    usleep(20000);
    clear_front();
    chardev_receive_ready(dev);
    EVENTUALLY(received("\001x script"));
    CHECK(quits == 1);
    close(in[1]); /* the end of input is nothing special */
    /* A reader that does not read: nothing waits, and then nothing more is taken. */
    static char block[65536];
    size_t taken = 0, n;
    while ((n = chardev_write(dev, block, sizeof block)) > 0 && taken < 1 << 24)
        taken += n;
    CHECK(taken >= sizeof block && taken < 1 << 20);
    while (taken > 0) {
        ssize_t got = read(out[0], block, sizeof block);
        CHECK(got > 0);
        if (got <= 0)
            break;
        taken -= (size_t)got;
    }
    chardev_close(dev);
    dup2(old_in, 0), dup2(old_out, 1);
    close(old_in), close(old_out), close(in[0]), close(out[0]), close(out[1]);
}

int main(void)
{
    char dir[] = "/tmp/trivisor-chardev-XXXXXX";
    CHECK(mkdtemp(dir) != NULL);
    test_file(dir);
    test_socket(dir);
    test_slow_client(dir);
    test_pty();
    test_terminal();
    test_fatal_signal();
    test_pipes();
    rmdir(dir);
    return check_result();
}
