/* trivisor monitor: send commands to a running machine. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/cli.h"
#include "ui/unix_listen.h"

/* Which argument of a command is a file's name: the machine may have another directory. */
static const struct {
    const char *command;
    int argument;
} files[] = {{"change", 2}, {"screenshot", 1}};

/* A word as the monitor reads it. Only a text to type has line breaks in it. */
static void put_word(FILE *to, const char *word)
{
    fputc('"', to);
    for (; *word; word++) {
        if (*word == '\n')
            fputs("\\\\n", to);
        else if (*word == '"' || *word == '\\')
            fprintf(to, "\\%c", *word);
        else
            fputc(*word, to);
    }
    fputc('"', to);
}

static void put_command(FILE *to, int count, char **words)
{
    for (int i = 0; i < count; i++) {
        char directory[PATH_MAX];
        bool file = false;
        for (size_t f = 0; f < sizeof files / sizeof files[0]; f++)
            file |= i == files[f].argument && strcmp(words[0], files[f].command) == 0;
        char *path = NULL;
        if (file && words[i][0] != '/' && getcwd(directory, sizeof directory) &&
            asprintf(&path, "%s/%s", directory, words[i]) < 0)
            path = NULL;
        put_word(to, path ? path : words[i]);
        free(path);
        fputc(i + 1 < count ? ' ' : '\n', to);
    }
    fflush(to);
}

/* Print what a command says. EXIT_OK, or EXIT_FAILED having said why. */
static int print_answer(FILE *from)
{
    char *line = NULL;
    size_t size = 0;
    int status = -1;
    while (status < 0 && getline(&line, &size, from) > 0) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "ok") == 0)
            status = EXIT_OK;
        else if (strncmp(line, "error: ", 7) == 0)
            status = cli_fail("%s", line + 7);
        else
            puts(line);
    }
    free(line);
    fflush(stdout);
    return status < 0 ? cli_fail("monitor: the machine has ended") : status;
}

/* Commands from standard input, until its end. */
static int converse(FILE *to, FILE *from)
{
    char *line = NULL;
    size_t size = 0;
    int status = EXIT_OK;
    bool prompt = isatty(STDIN_FILENO);
    for (;;) {
        if (prompt) {
            fputs("(trivisor) ", stdout);
            fflush(stdout);
        }
        if (getline(&line, &size, stdin) <= 0)
            break;
        fputs(line, to);
        if (!strchr(line, '\n'))
            fputc('\n', to);
        fflush(to);
        status = print_answer(from);
        if (feof(from))
            break;
    }
    free(line);
    return status;
}

int cmd_monitor(int argc, char **argv)
{
    struct sockaddr_un address;
    struct tv_error err = {""};
    if (argc < 2 || argv[1][0] == '-')
        return cli_usage_error("monitor: want the socket of run's --monitor, and a command");
    if (unix_address(&address, argv[1], "monitor", &err) < 0)
        return cli_fail("%s", err.message);
    signal(SIGPIPE, SIG_IGN);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return cli_fail("monitor: cannot reach a machine at %s: %s", argv[1], strerror(errno));
    FILE *to = fdopen(fd, "w"), *from = fdopen(dup(fd), "r");
    if (!to || !from)
        return cli_fail("monitor: %s", strerror(errno));
    int status;
    if (argc > 2) {
        put_command(to, argc - 2, argv + 2);
        status = print_answer(from);
    } else {
        status = converse(to, from);
    }
    fclose(to);
    fclose(from);
    return status;
}
