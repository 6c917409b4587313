/* trivisor: the entry point picks the subcommand. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <trivisor/trivisor.h>

#include "cli/cli.h"

static const char help[] =
    "usage: trivisor run [VM.vmx] OPTION... | disk VERB | monitor | modes | version\n"
    "  --kernel FILE       Linux bzImage, PVH ELF or Multiboot image to start\n"
    "  --initrd FILE       initial RAM disk (Multiboot: a module; may be repeated)\n"
    "  --append TEXT       kernel command line\n"
    "  --memory SIZE       guest RAM, with K, M, G or T (default 128M)\n"
    "  --cpus N            number of processors (default 1)\n"
    "  --mode MODE         auto (default: the fastest measured), bt, interp or hw\n"
    "  --require MODE      fail rather than run in another mode\n"
    "  --tcache SIZE       translation cache of a CPU in bt (64M); --bt-opt LIST\n"
    "  --cpu NAME[,+F,-F]  host, max, x86-64-v1 .. v4; --hypervisor vmware or none\n"
    "  --serial WHERE      COM1: stdio (Ctrl-A H helps), none, pty, file:P, unix:P\n"
    "  --display WHERE     none, vnc, web, with =HOST:PORT; --vga, --screenshot FILE\n"
    "  --monitor PATH      a socket for commands: trivisor monitor PATH help\n"
    "  --debug-exit PORT   a guest write of v to PORT ends with status (v<<1)|1\n"
    "  --no-reboot         a guest reset or triple fault ends with status 3\n"
    "  --on-panic ACTION   a guest panic: notify (default) or exit (status 4)\n"
    "  --verify            check cached code; in bt, compare with the interpreter\n"
    "  --stats             print the engine's counters at the end\n"
    "  --log ITEMS:FILE    int,cr,msr,cpuid,io,mmio,exec,cpu,dev,reset,verify or all\n"
    "  --gdb HOST:PORT     wait for gdb before the first instruction\n"
    "  --quiet             no line at start that says which mode runs\n"
    "trivisor modes shows what this host offers, what was measured, what auto picks.\n"
    "Exit status: 0 guest power-off, 1 error, 2 bad usage, 3 reset under --no-reboot.\n"
    "See trivisor(1).\n";

int cli_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("trivisor: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return EXIT_FAILED;
}

int cli_usage_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("trivisor: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs(" (see trivisor --help)\n", stderr);
    va_end(ap);
    return EXIT_USAGE;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {{"run", cmd_run},
                {"modes", cmd_modes},
                {"disk", cmd_disk},
                {"monitor", cmd_monitor},
                {"version", cmd_version}};

static int finish(int status)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return cli_fail("cannot write to standard output");
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return cli_usage_error("no command given");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        fputs(help, stdout);
        return finish(EXIT_OK);
    }
    if (strcmp(argv[1], "--version") == 0)
        return finish(cmd_version(1, argv + 1));
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        if (commands[i].run != cmd_disk && argc > 2 &&
            (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0)) {
            fputs(help, stdout);
            return finish(EXIT_OK);
        }
        return finish(commands[i].run(argc - 1, argv + 1));
    }
    return cli_usage_error("unknown command '%s'", argv[1]);
}
