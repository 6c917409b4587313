/*
 * The monitor: commands to a running machine, one a line, and the socket that takes them.
 * docs/monitor.md has what users need to know.
 */
#ifndef TRIVISOR_MGMT_MONITOR_H
#define TRIVISOR_MGMT_MONITOR_H

#include <stdio.h>
#include <trivisor/trivisor.h>

#define MONITOR_WORDS 8
#define MONITOR_LINE  4096

struct monitor;

/* Take commands to `vm` on a UNIX socket at `path`, that only this user may connect to, on a
 * thread. NULL with `err` filled on failure. */
struct monitor *monitor_open(struct tv_vm *vm, const char *path, struct tv_error *err);
/* Waits for a command that is being carried out. NULL is fine. */
void monitor_close(struct monitor *monitor);

/*
 * Cut a line into words, in place. They are separated by spaces; one in double quotes may have
 * spaces in it, and quotes and backslashes behind a backslash.
 * Returns how many, or -1 with `err` filled: a quote is not closed, or there are too many.
 */
int monitor_split(char *line, const char *words[static MONITOR_WORDS], struct tv_error *err);

/* Press and release keys that are held together: "ctrl-alt-delete". Wait until the keyboard has
 * them. -1 with `err` filled: there is no such key, or the guest does not take them. */
int monitor_press(struct tv_vm *vm, const char *keys, struct tv_error *err);
/* Type a text in UTF-8, in which \n is Enter, \t Tab and \\ a backslash. */
int monitor_type(struct tv_vm *vm, const char *text, struct tv_error *err);

#endif
