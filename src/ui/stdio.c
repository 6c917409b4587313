/*
 * The back end that is the user's terminal.
 *
 * A terminal is put into raw mode, and into its old mode again when the back end is closed or a
 * signal ends the process. The signal handler needs the old mode, so there is one static copy:
 * a process has only one controlling terminal, and a second back end on stdio is refused.
 *
 * Ctrl-A is the escape key: X quits, H helps, A is Ctrl-A itself, B or C sends a break. Where stdin
 * is not a terminal, its bytes go to the guest as they are.
 *
 * The files that the process was started with must not be made non-blocking, since others share
 * their descriptions. So the terminal or pipe is opened anew by its name in /proc, and where that
 * is refused the thread writes, in small portions, when poll says that it can.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "ui/backend.h"
#include "util/error.h"
#include "util/util.h"

#define CTRL_A        1
#define SMALL_PORTION 256

static const char help[] = "\r\nCtrl-A X  quit\r\n"
                           "Ctrl-A B  send a break\r\n"
                           "Ctrl-A A  send Ctrl-A\r\n"
                           "Ctrl-A H  this help\r\n";

static const int fatal_signals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGABRT,
                                    SIGPIPE, SIGSEGV, SIGBUS,  SIGILL,  SIGFPE};

static struct {
    atomic_bool used;
    volatile sig_atomic_t raw;
    struct termios old;
    struct sigaction old_actions[ARRAY_SIZE(fatal_signals)];
    bool hooked[ARRAY_SIZE(fatal_signals)];
} terminal;

/* Async-signal-safe. */
static void restore_terminal(void)
{
    if (terminal.raw) {
        terminal.raw = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal.old);
    }
}

static void on_fatal_signal(int sig)
{
    restore_terminal();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* Signals that the program handles itself are left alone. */
static void hook_signals(void)
{
    struct sigaction action = {.sa_handler = on_fatal_signal, .sa_flags = SA_ONSTACK};
    for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++) {
        sigaction(fatal_signals[i], NULL, &terminal.old_actions[i]);
        terminal.hooked[i] = !(terminal.old_actions[i].sa_flags & SA_SIGINFO) &&
                             terminal.old_actions[i].sa_handler == SIG_DFL;
        if (terminal.hooked[i])
            sigaction(fatal_signals[i], &action, NULL);
    }
}

static void unhook_signals(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++)
        if (terminal.hooked[i])
            sigaction(fatal_signals[i], &terminal.old_actions[i], NULL);
}

static void make_raw(void)
{
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &terminal.old) < 0)
        return;
    raw = terminal.old;
    cfmakeraw(&raw);
    terminal.raw = 1;
    hook_signals();
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

static void open_output(struct chardev *dev)
{
    struct stat st;
    if (fstat(STDOUT_FILENO, &st) < 0)
        return; /* closed: output is lost */
    if (S_ISSOCK(st.st_mode)) {
        backend_set_output(dev, dup(STDOUT_FILENO), true, true);
        return;
    }
    if (S_ISREG(st.st_mode)) {
        backend_set_output(dev, dup(STDOUT_FILENO), false, true);
        return;
    }
    int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0) {
        backend_set_output(dev, fd, false, true);
        return;
    }
    dev->write_max = SMALL_PORTION;
    backend_set_output(dev, dup(STDOUT_FILENO), false, false);
}

static int stdio_open(struct chardev *dev, const char *path, struct tv_error *err)
{
    if (atomic_exchange(&terminal.used, true))
        return tv_fail(err, "--serial stdio: another virtual machine of this process has it");
    dev->claimed = true;
    open_output(dev);
    dev->in_fd = fcntl(STDIN_FILENO, F_GETFD) < 0 ? -1 : STDIN_FILENO;
    if (isatty(STDIN_FILENO))
        make_raw();
    dev->typing = terminal.raw;
    return 0;
}

static void stdio_close(struct chardev *dev)
{
    if (!dev->claimed)
        return;
    if (terminal.raw) {
        restore_terminal();
        unhook_signals();
    }
    if (dev->out_fd >= 0)
        close(dev->out_fd);
    atomic_store(&terminal.used, false);
}

static size_t filter(struct chardev *dev, uint8_t *bytes, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t key = bytes[i];
        if (!dev->escape) {
            if (key == CTRL_A)
                dev->escape = true;
            else
                bytes[kept++] = key;
            continue;
        }
        dev->escape = false;
        switch (key) {
        case 'x':
        case 'X':
            if (dev->quit)
                dev->quit(dev->quit_opaque);
            break;
        case 'h':
        case 'H':
        case '?':
            chardev_write(dev, help, sizeof help - 1);
            break;
        case 'a':
        case 'A':
        case CTRL_A:
            bytes[kept++] = CTRL_A;
            break;
        case 'b':
        case 'B':
        case 'c':
        case 'C':
            if (dev->front->line_break)
                dev->front->line_break(dev->front_opaque);
            break;
        default:
            break;
        }
    }
    return kept;
}

/* End of input is not the end of the VM. */
static void input_ended(struct chardev *dev)
{
    dev->in_fd = -1;
}

const struct backend_ops stdio_backend = {
    .carrier_at_start = true,
    .open = stdio_open,
    .close = stdio_close,
    .filter = filter,
    .input_ended = input_ended,
};
