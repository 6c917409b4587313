/* The command-line tool: a thin layer over libtrivisor. One file for each subcommand. */
#ifndef TRIVISOR_CLI_CLI_H
#define TRIVISOR_CLI_CLI_H

/* Exit statuses, as the manual page has them. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_GUEST_RESET = 3 };

/* Subcommands: argv[0] is the subcommand's name. They return the exit status. */
int cmd_run(int argc, char **argv);
int cmd_modes(int argc, char **argv);
int cmd_disk(int argc, char **argv);
int cmd_monitor(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* Print "trivisor: ..." on stderr and return EXIT_FAILED or EXIT_USAGE (with a hint at --help). */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int cli_usage_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
