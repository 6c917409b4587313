/* trivisor run: build one VM from the command line, run it, exit with its status. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <trivisor/trivisor.h>
#include <unistd.h>

#include "cli/cli.h"
#include "mgmt/vmx.h"

#define INITRDS_MAX 16
#define DRIVES_MAX  VMX_DRIVES_MAX

struct run_options {
    struct tv_config config;
    const char *initrds[INITRDS_MAX + 1];
    unsigned initrd_count;
    struct tv_drive drives[DRIVES_MAX];
    size_t vmx_drives; /* how many of them are the .vmx file's */
    struct vmx *vmx;
    const char *screenshot;
    bool stats, quiet;
};

/* "512M" and the like. False: not a size. */
static bool parse_size(const char *text, uint64_t *size)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (end == text || errno || *text == '-')
        return false;
    if (*end) {
        static const char suffixes[] = "KMGT";
        const char *at = strchr(suffixes, *end & ~0x20);
        if (!at || end[1])
            return false;
        shift = 10 * (unsigned)(at - suffixes + 1);
    }
    if (value > UINT64_MAX >> shift)
        return false;
    *size = value << shift;
    return true;
}

static bool parse_number(const char *text, long low, long high, long *value)
{
    char *end;
    errno = 0;
    *value = strtol(text, &end, 0);
    return end != text && !*end && !errno && *value >= low && *value <= high;
}

/* The place of `text` among `names`. False: it is none of them. */
static bool find_name(const char *text, const char *const *names, size_t count, unsigned *at)
{
    for (*at = 0; *at < count; ++*at)
        if (strcmp(text, names[*at]) == 0)
            return true;
    return false;
}

static bool parse_mode(const char *text, enum tv_mode *mode)
{
    static const char *const names[] = {
        [TV_MODE_AUTO] = "auto",
        [TV_MODE_INTERP] = "interp",
        [TV_MODE_BT] = "bt",
        [TV_MODE_HW] = "hw",
    };
    unsigned at;
    bool found = find_name(text, names, sizeof names / sizeof names[0], &at);
    *mode = found ? (enum tv_mode)at : *mode;
    return found;
}

static bool parse_serial(const char *text, struct tv_config *c)
{
    static const struct {
        const char *name;
        enum tv_serial serial;
        bool path;
    } kinds[] = {{"stdio", TV_SERIAL_STDIO, false},
                 {"none", TV_SERIAL_NONE, false},
                 {"pty", TV_SERIAL_PTY, false},
                 {"file:", TV_SERIAL_FILE, true},
                 {"unix:", TV_SERIAL_UNIX, true}};
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t len = strlen(kinds[i].name);
        if (strncmp(text, kinds[i].name, len) != 0 || (kinds[i].path ? !text[len] : text[len]))
            continue;
        c->serial = kinds[i].serial;
        c->serial_path = kinds[i].path ? text + len : NULL;
        return true;
    }
    return false;
}

/* "vnc", "web=HOST:PORT", ... */
static bool parse_display(const char *text, struct tv_config *c)
{
    static const char *const names[] = {"none", "vnc", "web"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t len = strlen(names[i]);
        if (strncmp(text, names[i], len) != 0 || (text[len] && (text[len] != '=' || i == 0)))
            continue;
        c->display = (enum tv_display)i;
        c->display_address = text[len] && text[len + 1] ? text + len + 1 : NULL;
        return true;
    }
    return false;
}

static bool parse_vga(const char *text, enum tv_vga *vga)
{
    static const char *const names[] = {"auto", "none", "std", "svga"};
    unsigned at;
    bool found = find_name(text, names, sizeof names / sizeof names[0], &at);
    *vga = found ? (enum tv_vga)at : *vga;
    return found;
}

static bool parse_hypervisor(const char *text, enum tv_hypervisor *hypervisor)
{
    static const char *const names[] = {"vmware", "trivisor", "none"};
    unsigned at;
    bool found = find_name(text, names, sizeof names / sizeof names[0], &at);
    *hypervisor = found ? (enum tv_hypervisor)at : *hypervisor;
    return found;
}

enum option_id {
    OPT_KERNEL = 256,
    OPT_INITRD,
    OPT_APPEND,
    OPT_DISK,
    OPT_CDROM,
    OPT_FLOPPY,
    OPT_BOOT,
    OPT_OPTION_ROM,
    OPT_BIOS,
    OPT_FIRMWARE,
    OPT_UEFI_VARS,
    OPT_MEMORY,
    OPT_CPUS,
    OPT_MODE,
    OPT_CPU,
    OPT_HYPERVISOR,
    OPT_SERIAL,
    OPT_DEBUG_EXIT,
    OPT_REQUIRE,
    OPT_TCACHE,
    OPT_BT_OPT,
    OPT_NO_REBOOT,
    OPT_ON_PANIC,
    OPT_VERIFY,
    OPT_STATS,
    OPT_LOG,
    OPT_SYMBOLS,
    OPT_GDB,
    OPT_DISPLAY,
    OPT_VGA,
    OPT_VNC_PASSWORD,
    OPT_KEYBOARD,
    OPT_SCREENSHOT,
    OPT_MONITOR,
    OPT_QUIET,
};

static const struct option options[] = {
    {"kernel", required_argument, NULL, OPT_KERNEL},
    {"initrd", required_argument, NULL, OPT_INITRD},
    {"append", required_argument, NULL, OPT_APPEND},
    {"disk", required_argument, NULL, OPT_DISK},
    {"cdrom", required_argument, NULL, OPT_CDROM},
    {"floppy", required_argument, NULL, OPT_FLOPPY},
    {"boot", required_argument, NULL, OPT_BOOT},
    {"option-rom", required_argument, NULL, OPT_OPTION_ROM},
    {"bios", required_argument, NULL, OPT_BIOS},
    {"firmware", required_argument, NULL, OPT_FIRMWARE},
    {"uefi-vars", required_argument, NULL, OPT_UEFI_VARS},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"cpus", required_argument, NULL, OPT_CPUS},
    {"mode", required_argument, NULL, OPT_MODE},
    {"cpu", required_argument, NULL, OPT_CPU},
    {"hypervisor", required_argument, NULL, OPT_HYPERVISOR},
    {"serial", required_argument, NULL, OPT_SERIAL},
    {"debug-exit", required_argument, NULL, OPT_DEBUG_EXIT},
    {"require", required_argument, NULL, OPT_REQUIRE},
    {"tcache", required_argument, NULL, OPT_TCACHE},
    {"bt-opt", required_argument, NULL, OPT_BT_OPT},
    {"no-reboot", no_argument, NULL, OPT_NO_REBOOT},
    {"on-panic", required_argument, NULL, OPT_ON_PANIC},
    {"verify", no_argument, NULL, OPT_VERIFY},
    {"stats", no_argument, NULL, OPT_STATS},
    {"log", required_argument, NULL, OPT_LOG},
    {"symbols", required_argument, NULL, OPT_SYMBOLS},
    {"gdb", required_argument, NULL, OPT_GDB},
    {"display", required_argument, NULL, OPT_DISPLAY},
    {"vga", required_argument, NULL, OPT_VGA},
    {"vnc-password", required_argument, NULL, OPT_VNC_PASSWORD},
    {"keyboard", required_argument, NULL, OPT_KEYBOARD},
    {"screenshot", required_argument, NULL, OPT_SCREENSHOT},
    {"monitor", required_argument, NULL, OPT_MONITOR},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {NULL, 0, NULL, 0},
};

/* One ",option" of a drive. False: unknown. */
static bool parse_drive_option(struct tv_drive *d, const char *text)
{
    if (strcmp(text, "ro") == 0)
        d->read_only = true;
    else if (strcmp(text, "snapshot") == 0)
        d->snapshot = true;
    else if (strcmp(text, "trust-paths") == 0 && d->media == TV_DRIVE_DISK)
        d->trust_paths = true;
    else if (strncmp(text, "format=", 7) == 0)
        d->format = text + 7;
    else if (d->media != TV_DRIVE_DISK || strncmp(text, "if=", 3) != 0)
        return false;
    else if (strcmp(text + 3, "ide") == 0)
        d->interface = TV_INTERFACE_IDE;
    else if (strcmp(text + 3, "pvscsi") == 0)
        d->interface = TV_INTERFACE_PVSCSI;
    else if (strcmp(text + 3, "virtio") == 0)
        d->interface = TV_INTERFACE_VIRTIO;
    else
        return false;
    return true;
}

/* The command line's CD-ROMs and floppies take the place of the .vmx file's. */
static void drop_vmx_drives(struct run_options *o, enum tv_drive_media media)
{
    size_t kept = 0;
    for (size_t i = 0; i < o->config.drive_count; i++)
        if (i >= o->vmx_drives || o->drives[i].media != media)
            o->drives[kept++] = o->drives[i];
    o->vmx_drives -= o->config.drive_count - kept;
    o->config.drive_count = kept;
}

/* FILE[,if=...][,ro][,snapshot][,format=...]: options from the end, so that a file's name may have
 * commas in it. Cuts optarg into pieces. */
static int add_drive(struct run_options *o, const char *option, enum tv_drive_media media)
{
    if (media != TV_DRIVE_DISK)
        drop_vmx_drives(o, media);
    if (o->config.drive_count == DRIVES_MAX)
        return cli_usage_error("%s: at most %d drives are possible", option, DRIVES_MAX);
    struct tv_drive *d = &o->drives[o->config.drive_count++];
    *d = (struct tv_drive){.media = media, .path = optarg, .read_only = media == TV_DRIVE_CDROM};
    char *comma;
    while ((comma = strrchr(optarg, ',')) && parse_drive_option(d, comma + 1))
        *comma = 0;
    if (comma && access(optarg, F_OK) != 0)
        return cli_usage_error("%s: unknown option '%s': want %sro, snapshot or format=NAME",
                               option, comma + 1,
                               media == TV_DRIVE_DISK ? "if=ide, if=pvscsi, if=virtio, " : "");
    if (!*optarg || strcmp(optarg, "none") == 0)
        d->path = NULL;
    if (!d->path && media == TV_DRIVE_DISK)
        return cli_usage_error("%s: no file given", option);
    return EXIT_OK;
}

/* FILE[,slot=N]. Cuts optarg into pieces. */
static int set_option_rom(struct tv_config *c)
{
    char *comma = strrchr(optarg, ',');
    long slot = 0;
    if (comma && strncmp(comma + 1, "slot=", 5) == 0) {
        if (!parse_number(comma + 6, 1, 31, &slot))
            return cli_usage_error("--option-rom slot '%s': want a number from 1 to 31", comma + 6);
        *comma = 0;
    }
    c->option_rom = optarg;
    c->option_rom_slot = (unsigned)slot;
    return EXIT_OK;
}

/* Returns EXIT_OK, or EXIT_USAGE having said why. */
static int parse_option(struct run_options *o, int id)
{
    struct tv_config *c = &o->config;
    long number;
    switch (id) {
    case OPT_KERNEL:
        c->kernel = optarg;
        return EXIT_OK;
    case OPT_INITRD:
        if (o->initrd_count == INITRDS_MAX)
            return cli_usage_error("--initrd: at most %d are possible", INITRDS_MAX);
        o->initrds[o->initrd_count++] = optarg;
        return EXIT_OK;
    case OPT_APPEND:
        c->append = optarg;
        return EXIT_OK;
    case OPT_DISK:
        return add_drive(o, "--disk", TV_DRIVE_DISK);
    case OPT_CDROM:
        return add_drive(o, "--cdrom", TV_DRIVE_CDROM);
    case OPT_FLOPPY:
        return add_drive(o, "--floppy", TV_DRIVE_FLOPPY);
    case OPT_BOOT:
        c->boot = optarg;
        return EXIT_OK;
    case OPT_OPTION_ROM:
        return set_option_rom(c);
    case OPT_BIOS:
        c->bios = optarg;
        return EXIT_OK;
    case OPT_FIRMWARE:
        if (strcmp(optarg, "bios") != 0 && strcmp(optarg, "uefi") != 0)
            return cli_usage_error("--firmware '%s': want bios or uefi", optarg);
        c->firmware = true;
        c->uefi = optarg[0] == 'u';
        return EXIT_OK;
    case OPT_UEFI_VARS:
        c->uefi_vars = optarg;
        return EXIT_OK;
    case OPT_MEMORY:
        if (!parse_size(optarg, &c->memory_size) || !c->memory_size)
            return cli_usage_error("--memory '%s': want a size such as 512M or 4G", optarg);
        return EXIT_OK;
    case OPT_CPUS:
        if (!parse_number(optarg, 1, 64, &number))
            return cli_usage_error("--cpus '%s': want a number from 1 to 64", optarg);
        c->vcpus = (unsigned)number;
        return EXIT_OK;
    case OPT_MODE:
        if (!parse_mode(optarg, &c->mode))
            return cli_usage_error("--mode '%s': want auto, bt, interp or hw", optarg);
        return EXIT_OK;
    case OPT_REQUIRE:
        if (!parse_mode(optarg, &c->require) || c->require == TV_MODE_AUTO)
            return cli_usage_error("--require '%s': want bt, interp or hw", optarg);
        return EXIT_OK;
    case OPT_TCACHE:
        if (!parse_size(optarg, &c->tcache) || !c->tcache)
            return cli_usage_error("--tcache '%s': want a size such as 32M", optarg);
        return EXIT_OK;
    case OPT_BT_OPT:
        c->bt_opt = optarg;
        return EXIT_OK;
    case OPT_CPU:
        c->cpu_model = optarg;
        return EXIT_OK;
    case OPT_HYPERVISOR:
        if (!parse_hypervisor(optarg, &c->hypervisor))
            return cli_usage_error("--hypervisor '%s': want vmware, trivisor or none", optarg);
        return EXIT_OK;
    case OPT_SERIAL:
        if (!parse_serial(optarg, c))
            return cli_usage_error("--serial '%s': want stdio, none, file:PATH, pty or unix:PATH",
                                   optarg);
        return EXIT_OK;
    case OPT_DEBUG_EXIT:
        if (!parse_number(optarg, 1, 0xffff, &number))
            return cli_usage_error("--debug-exit '%s': want a port from 1 to 0xffff", optarg);
        c->debug_exit_port = (int)number;
        return EXIT_OK;
    case OPT_NO_REBOOT:
        c->no_reboot = true;
        return EXIT_OK;
    case OPT_ON_PANIC:
        if (strcmp(optarg, "notify") != 0 && strcmp(optarg, "exit") != 0)
            return cli_usage_error("--on-panic '%s': want notify or exit", optarg);
        c->on_panic = optarg[0] == 'e' ? TV_PANIC_EXIT : TV_PANIC_NOTIFY;
        return EXIT_OK;
    case OPT_VERIFY:
        c->verify = true;
        return EXIT_OK;
    case OPT_STATS:
        o->stats = c->count = true;
        return EXIT_OK;
    case OPT_LOG:
        if (strcmp(optarg, "perfmap") == 0)
            c->perf_map = "";
        else if (strncmp(optarg, "perfmap:", 8) == 0)
            c->perf_map = optarg + 8;
        else
            c->log = optarg;
        return EXIT_OK;
    case OPT_SYMBOLS:
        c->symbols = optarg;
        return EXIT_OK;
    case OPT_GDB:
        c->gdb = optarg;
        return EXIT_OK;
    case OPT_DISPLAY:
        if (!parse_display(optarg, c))
            return cli_usage_error("--display '%s': want none, vnc[=HOST:PORT] or web[=HOST:PORT]",
                                   optarg);
        return EXIT_OK;
    case OPT_VGA:
        if (!parse_vga(optarg, &c->vga))
            return cli_usage_error("--vga '%s': want std, svga or none", optarg);
        return EXIT_OK;
    case OPT_VNC_PASSWORD:
        c->vnc_password = optarg;
        c->vnc_password_text = NULL;
        return EXIT_OK;
    case OPT_KEYBOARD:
        c->keyboard = optarg;
        return EXIT_OK;
    case OPT_SCREENSHOT:
        o->screenshot = optarg;
        c->screenshot = true;
        return EXIT_OK;
    case OPT_MONITOR:
        c->monitor = optarg;
        return EXIT_OK;
    case OPT_QUIET:
        o->quiet = true;
        return EXIT_OK;
    default:
        return EXIT_USAGE;
    }
}

static bool is_vmx(const char *name)
{
    size_t length = strlen(name);
    return length > 4 && strcasecmp(name + length - 4, ".vmx") == 0;
}

/* Begin with the machine that the file describes. */
static int take_vmx(struct run_options *o, const char *path)
{
    struct tv_error err = {""};
    o->vmx = vmx_open(path, &err);
    if (!o->vmx)
        return cli_fail("%s", err.message);
    o->config = *vmx_config(o->vmx);
    o->vmx_drives = o->config.drive_count;
    memcpy(o->drives, o->config.drives, o->config.drive_count * sizeof *o->drives);
    return EXIT_OK;
}

static int parse_options(struct run_options *o, int argc, char **argv)
{
    o->config.serial = TV_SERIAL_STDIO;
    opterr = 0;
    if (argc > 1 && is_vmx(argv[1])) {
        int status = take_vmx(o, argv[1]);
        if (status != EXIT_OK)
            return status;
        argc--;
        argv++;
    }
    int id;
    while ((id = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (id == '?')
            return cli_usage_error("run: unknown option '%s'", argv[optind - 1]);
        if (id == ':')
            return cli_usage_error("run: option '%s' wants an argument", argv[optind - 1]);
        int status = parse_option(o, id);
        if (status != EXIT_OK)
            return status;
    }
    if (optind < argc && is_vmx(argv[optind]))
        return cli_usage_error("run: '%s' has to come before all options", argv[optind]);
    if (optind < argc)
        return cli_usage_error("run: unexpected argument '%s'", argv[optind]);
    o->config.drives = o->drives;
    if (o->config.uefi_vars && !o->config.uefi)
        return cli_usage_error("run: --uefi-vars goes with --firmware uefi");
    if (!o->config.kernel && !o->config.bios && !o->config.uefi && !o->config.drive_count)
        return cli_usage_error("run: no kernel given; use --kernel FILE, or boot with --disk, "
                               "--cdrom or --floppy FILE, or name a .vmx file");
    o->config.initrds = o->initrds;
    return EXIT_OK;
}

/* While the VM has the terminal it is in raw mode, where a newline does not return the carriage. */
static void print_notice(void *opaque, const char *message)
{
    (void)opaque;
    fprintf(stderr, "trivisor: %s%s\n", message, isatty(STDERR_FILENO) ? "\r" : "");
}

struct signal_wait {
    struct tv_vm *vm;
    const char *screenshot;
    sigset_t set;
};

static void take_screenshot(struct tv_vm *vm, const char *path)
{
    struct tv_error err = {""};
    if (path && tv_vm_screenshot(vm, path, &err) < 0)
        print_notice(NULL, err.message);
}

/* SIGINT and SIGTERM end the VM in order, so that the terminal and the files are left as they
 * should be. SIGUSR1 asks for a picture of the screen. */
static void *wait_for_signal(void *opaque)
{
    struct signal_wait *wait = opaque;
    int number, error;
    while ((error = sigwait(&wait->set, &number)) == 0 && number == SIGUSR1)
        take_screenshot(wait->vm, wait->screenshot);
    if (!error && number != SIGUSR2)
        tv_vm_stop(wait->vm);
    return NULL;
}

static int run(struct run_options *o)
{
    int status;
    o->config.notify = print_notice;

    /* Blocked before any thread is created: only the waiting thread takes these. SIGUSR2 is our
     * own, to end it. */
    struct signal_wait wait;
    sigemptyset(&wait.set);
    sigaddset(&wait.set, SIGINT);
    sigaddset(&wait.set, SIGTERM);
    sigaddset(&wait.set, SIGHUP);
    sigaddset(&wait.set, SIGUSR1);
    sigaddset(&wait.set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &wait.set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is a full disk */

    struct tv_error err = {""};
    struct tv_vm *vm = tv_vm_create(&o->config, &err);
    if (!vm)
        return cli_fail("%s", err.message);
    if (!o->quiet)
        print_notice(NULL, tv_vm_mode_line(vm));
    const char *note;
    for (unsigned i = 0; !o->quiet && o->vmx && (note = vmx_notice(o->vmx, i)); i++)
        print_notice(NULL, note);
    if (!o->quiet && tv_vm_serial_name(vm)) {
        char line[512];
        snprintf(line, sizeof line, "serial port on %s", tv_vm_serial_name(vm));
        print_notice(NULL, line);
    }

    if (!o->quiet && tv_vm_display_name(vm)) {
        char line[512];
        snprintf(line, sizeof line, "display at %s", tv_vm_display_name(vm));
        print_notice(NULL, line);
    }

    wait.vm = vm;
    wait.screenshot = o->screenshot;
    pthread_t waiter;
    int error = pthread_create(&waiter, NULL, wait_for_signal, &wait);
    if (error || tv_vm_start(vm, &err) < 0) {
        status = cli_fail("%s", error ? strerror(error) : err.message);
        tv_vm_destroy(vm);
        return status;
    }

    struct tv_exit result;
    tv_vm_wait(vm, &result);
    pthread_kill(waiter, SIGUSR2);
    pthread_join(waiter, NULL);
    take_screenshot(vm, o->screenshot);
    if (o->stats)
        tv_vm_print_stats(vm, stderr);
    tv_vm_destroy(vm); /* restores the terminal: messages come after it */
    if (result.message[0])
        cli_fail("%s", result.message);
    return result.status;
}

int cmd_run(int argc, char **argv)
{
    struct run_options o = {0};
    int status = parse_options(&o, argc, argv);
    if (status == EXIT_OK)
        status = run(&o);
    vmx_close(o.vmx);
    return status;
}
