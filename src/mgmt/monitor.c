/* The monitor's commands. */
#include "mgmt/monitor.h"

#include <string.h>

#include "util/error.h"
#include "util/util.h"
#include "vm/drives.h"
#include "vm/vm.h"

/* ---- Words ---- */

int monitor_split(char *line, const char *words[static MONITOR_WORDS], struct tv_error *err)
{
    char *from = line, *to = line;
    int count = 0;
    for (;;) {
        from += strspn(from, " \t\r\n");
        if (!*from)
            return count;
        if (count == MONITOR_WORDS)
            return tv_fail(err, "more than %d words; put those with spaces in quotes",
                           MONITOR_WORDS);
        words[count++] = to;
        bool quoted = false;
        for (; *from && (quoted || !strchr(" \t\r\n", *from)); from++) {
            if (*from == '"')
                quoted = !quoted;
            else if (quoted && *from == '\\' && (from[1] == '"' || from[1] == '\\'))
                *to++ = *++from;
            else
                *to++ = *from;
        }
        if (quoted)
            return tv_fail(err, "a quote is not closed");
        bool last = !*from;
        *to++ = 0; /* never beyond what was read */
        if (last)
            return count;
        from++;
    }
}

/* ---- Commands ---- */

struct request {
    struct tv_vm *vm;
    const char **arguments; /* without the command's name */
    int count;
    FILE *out;
    struct tv_error *err;
};

static int cmd_info(struct request *r)
{
    struct tv_vm *vm = r->vm;
    pthread_mutex_lock(&vm->lock);
    const char *state = vm->ended             ? "ended"
                        : vm->waits_for_space ? "waits for space on the host"
                        : vm->paused          ? "paused"
                                              : "running";
    pthread_mutex_unlock(&vm->lock);
    fprintf(r->out, "name: %s\nstate: %s\nmode: %s\ncpus: %u\nmemory: %llu MiB\n", vm->config.name,
            state, vm->mode_line, vm->config.vcpus,
            (unsigned long long)(vm->config.memory_size >> 20));
    const char *display = tv_vm_display_name(vm), *serial = tv_vm_serial_name(vm);
    if (display)
        fprintf(r->out, "display: %s\n", display);
    if (serial)
        fprintf(r->out, "serial: %s\n", serial);
    drives_print(vm, r->out);
    return 0;
}

static int cmd_change(struct request *r)
{
    struct tv_drive medium = {.path = r->arguments[1]};
    bool force = false;
    for (int i = 2; i < r->count; i++) {
        const char *word = r->arguments[i];
        if (strcmp(word, "ro") == 0)
            medium.read_only = true;
        else if (strcmp(word, "snapshot") == 0)
            medium.snapshot = true;
        else if (strcmp(word, "force") == 0)
            force = true;
        else if (strncmp(word, "format=", 7) == 0)
            medium.format = word + 7;
        else
            return tv_fail(r->err, "'%s': want ro, snapshot, format=NAME or force", word);
    }
    return tv_vm_change_medium(r->vm, r->arguments[0], &medium, force, r->err);
}

static int cmd_eject(struct request *r)
{
    const struct tv_drive empty = {.path = NULL};
    if (r->count > 1 && strcmp(r->arguments[1], "force") != 0)
        return tv_fail(r->err, "'%s': want force or nothing", r->arguments[1]);
    return tv_vm_change_medium(r->vm, r->arguments[0], &empty, r->count > 1, r->err);
}

static int cmd_screenshot(struct request *r)
{
    return tv_vm_screenshot(r->vm, r->arguments[0], r->err);
}

static int cmd_key(struct request *r)
{
    for (int i = 0; i < r->count; i++)
        if (monitor_press(r->vm, r->arguments[i], r->err) < 0)
            return -1;
    return 0;
}

static int cmd_type(struct request *r)
{
    return monitor_type(r->vm, r->arguments[0], r->err);
}

static int cmd_pause(struct request *r)
{
    return tv_vm_pause(r->vm, r->err);
}

static int cmd_resume(struct request *r)
{
    return tv_vm_resume(r->vm, r->err);
}

static int cmd_reset(struct request *r)
{
    tv_vm_reset(r->vm);
    return 0;
}

static int cmd_power(struct request *r)
{
    tv_vm_power_button(r->vm);
    return 0;
}

static int cmd_quit(struct request *r)
{
    tv_vm_stop(r->vm);
    return 0;
}

static int cmd_stats(struct request *r)
{
    tv_vm_print_stats(r->vm, r->out);
    return 0;
}

static int cmd_help(struct request *r);

static const struct {
    const char *name, *arguments, *what;
    int least, most;
    int (*run)(struct request *r);
} commands[] = {
    {"info", "", "what the machine is and what is in its drives", 0, 0, cmd_info},
    {"change", "DRIVE FILE [ro] [snapshot] [format=NAME] [force]",
     "put a medium into a drive: cdrom, floppy, cdrom2, ...", 2, 6, cmd_change},
    {"eject", "DRIVE [force]", "take it out; force: although the guest has locked the tray", 1, 2,
     cmd_eject},
    {"screenshot", "FILE.png", "write what is on the screen", 1, 1, cmd_screenshot},
    {"key", "KEY[-KEY...]...", "press keys: ctrl-alt-delete, f12, a", 1, MONITOR_WORDS - 1,
     cmd_key},
    {"type", "\"TEXT\"", "type a text; \\n in it is Enter", 1, 1, cmd_type},
    {"pause", "", "stop the guest and its clock", 0, 0, cmd_pause},
    {"resume", "", "let it go on", 0, 0, cmd_resume},
    {"reset", "", "press the reset button", 0, 0, cmd_reset},
    {"power", "", "press the power button, which asks the guest to shut down", 0, 0, cmd_power},
    {"quit", "", "end the machine at once", 0, 0, cmd_quit},
    {"stats", "", "the engine's counters", 0, 0, cmd_stats},
    {"help", "", "this list", 0, 0, cmd_help},
};

static int cmd_help(struct request *r)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        fprintf(r->out, "%s%s%s\n    %s\n", commands[i].name, *commands[i].arguments ? " " : "",
                commands[i].arguments, commands[i].what);
    return 0;
}

int tv_vm_command(struct tv_vm *vm, const char *line, FILE *out, struct tv_error *err)
{
    char copy[MONITOR_LINE];
    const char *words[MONITOR_WORDS];
    if (strlen(line) >= sizeof copy)
        return tv_fail(err, "a line of more than %d bytes", MONITOR_LINE - 1);
    strcpy(copy, line);
    int count = monitor_split(copy, words, err);
    if (count <= 0)
        return count;
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (strcmp(words[0], commands[i].name) != 0)
            continue;
        if (count - 1 < commands[i].least || count - 1 > commands[i].most)
            return tv_fail(err, "want: %s%s%s", commands[i].name, *commands[i].arguments ? " " : "",
                           commands[i].arguments);
        struct request r = {vm, words + 1, count - 1, out, err};
        return commands[i].run(&r);
    }
    return tv_fail(err, "unknown command '%s'; help lists them", words[0]);
}
