#include "mgmt/vmx.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "mgmt/vmx_file.h"
#include "ui/keymap.h"
#include "util/error.h"
#include "util/util.h"

#define STRINGS_MAX 64
#define MEMORY_MAX  (1 << 20) /* MB */
#define CPUS_MAX    64

struct vmx {
    struct tv_config config;
    struct tv_drive drives[VMX_DRIVES_MAX];
    char names[VMX_DRIVES_MAX][16]; /* "scsi0:1" */
    size_t drive_count;
    const char *path;
    struct vmx_file file;
    struct tv_error *err;
    char *strings[STRINGS_MAX]; /* what the configuration points to */
    unsigned string_count;
    char *notices[VMX_NOTICES_MAX];
    unsigned notice_count;
};

/* ---- Values ---- */

static const struct vmx_entry *find(const struct vmx *v, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static const struct vmx_entry *find(const struct vmx *v, const char *fmt, ...)
{
    char key[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(key, sizeof key, fmt, ap);
    va_end(ap);
    return vmx_file_find(&v->file, key);
}

static bool is(const struct vmx_entry *e, const char *value)
{
    return e && strcasecmp(e->value, value) == 0;
}

/* A message about a value. What it says of it is cut, and has no control characters. */
static int bad(const struct vmx *v, const struct vmx_entry *e, const char *want)
{
    char value[64];
    snprintf(value, sizeof value, "%s", e->value);
    for (char *c = value; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return tv_fail(v->err, "%s:%u: %.100s = \"%s\": %s", v->path, e->line, e->key, value, want);
}

static int get_bool(const struct vmx *v, const struct vmx_entry *e, bool missing, bool *value)
{
    static const char *const yes[] = {"true", "t", "yes", "y", "on", "1"};
    static const char *const no[] = {"false", "f", "no", "n", "off", "0"};
    *value = missing;
    for (size_t i = 0; e && i < ARRAY_SIZE(yes); i++) {
        *value = is(e, yes[i]);
        if (*value || is(e, no[i]))
            return 0;
    }
    return e ? bad(v, e, "want TRUE or FALSE") : 0;
}

static int get_number(const struct vmx *v, const struct vmx_entry *e, long low, long high,
                      long *value)
{
    char *end, want[64];
    errno = 0;
    *value = strtol(e->value, &end, 10);
    if (end != e->value && !*end && !errno && *value >= low && *value <= high)
        return 0;
    snprintf(want, sizeof want, "want a number from %ld to %ld", low, high);
    return bad(v, e, want);
}

/* Keep a string as long as the configuration; NULL: no memory, and `err` says so. */
static const char *keep(struct vmx *v, char *string)
{
    if (string && v->string_count < STRINGS_MAX)
        return v->strings[v->string_count++] = string;
    free(string);
    tv_fail(v->err, "%s: out of memory", v->path);
    return NULL;
}

static const char *keep_format(struct vmx *v, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static const char *keep_format(struct vmx *v, const char *fmt, ...)
{
    char *string;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&string, fmt, ap) < 0)
        string = NULL;
    va_end(ap);
    return keep(v, string);
}

static int check_text(const struct vmx *v, const struct vmx_entry *e)
{
    for (const char *c = e->value; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return bad(v, e, "a control character");
    return 0;
}

/* A file's name, relative to the .vmx. */
static int get_path(struct vmx *v, const struct vmx_entry *e, const char **path)
{
    if (check_text(v, e) < 0)
        return -1;
    const char *slash = strrchr(v->path, '/');
    if (e->value[0] == '/')
        *path = keep_format(v, "%s", e->value);
    else if (slash)
        *path = keep_format(v, "%.*s/%s", (int)(slash - v->path), v->path, e->value);
    else /* not to be taken for an address such as nbd://HOST */
        *path = keep_format(v, "%s%s", strstr(e->value, "://") ? "./" : "", e->value);
    return *path ? 0 : -1;
}

static void notice(struct vmx *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void notice(struct vmx *v, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text, *line;
    if (v->notice_count < VMX_NOTICES_MAX && vasprintf(&text, fmt, ap) >= 0) {
        if (asprintf(&line, "%s: %s", v->path, text) >= 0)
            v->notices[v->notice_count++] = line;
        free(text);
    }
    va_end(ap);
}

/* ---- The machine ---- */

static int take_machine(struct vmx *v)
{
    struct tv_config *c = &v->config;
    const struct vmx_entry *e;
    long number;
    bool on;
    if ((e = find(v, "memsize"))) {
        if (get_number(v, e, 1, MEMORY_MAX, &number) < 0)
            return -1;
        c->memory_size = (uint64_t)number << 20;
    }
    if ((e = find(v, "numvcpus"))) {
        if (get_number(v, e, 1, CPUS_MAX, &number) < 0)
            return -1;
        c->vcpus = (unsigned)number;
    }
    if ((e = find(v, "displayName"))) {
        char *name = strdup(e->value);
        for (char *at = name; at && *at; at++)
            if ((unsigned char)*at < ' ' || *at == 0x7f)
                *at = ' ';
        if (!(c->name = keep(v, name)))
            return -1;
    }
    e = find(v, "firmware");
    if (e && !is(e, "efi") && !is(e, "bios"))
        return bad(v, e, "want bios or efi");
    /* The file that "nvram" names has another product's format: ours lies beside the .vmx. */
    c->uefi = is(e, "efi");
    const char *suffix = strrchr(v->path, '.');
    int base = (int)(suffix ? suffix - v->path : (ptrdiff_t)strlen(v->path));
    if (c->uefi && !(c->uefi_vars = keep_format(v, "%.*s.uefivars", base, v->path)))
        return -1;
    if (get_bool(v, find(v, "svga.present"), true, &on) < 0)
        return -1;
    c->vga = on ? TV_VGA_SVGA : TV_VGA_STD;
    if (get_bool(v, find(v, "hypervisor.cpuid.v0"), true, &on) < 0)
        return -1;
    c->hypervisor = on ? TV_HYPERVISOR_VMWARE : TV_HYPERVISOR_NONE;
    return 0;
}

static int take_display(struct vmx *v)
{
    static const char prefix[] = "RemoteDisplay.vnc";
    struct tv_config *c = &v->config;
    const struct vmx_entry *e, *ip = find(v, "%s.ip", prefix);
    bool enabled;
    long port = 5900;
    if (get_bool(v, find(v, "%s.enabled", prefix), false, &enabled) < 0)
        return -1;
    if (!enabled)
        return 0;
    c->display = TV_DISPLAY_VNC;
    if ((e = find(v, "%s.port", prefix)) && get_number(v, e, 1, 65535, &port) < 0)
        return -1;
    if (ip && check_text(v, ip) < 0)
        return -1;
    if (e || ip) {
        const char *host = ip ? ip->value : "127.0.0.1";
        bool brackets = strchr(host, ':') && *host != '[';
        c->display_address =
            keep_format(v, "%s%s%s:%ld", brackets ? "[" : "", host, brackets ? "]" : "", port);
        if (!c->display_address)
            return -1;
    }
    if ((e = find(v, "%s.password", prefix)) &&
        !(c->vnc_password_text = keep_format(v, "%s", e->value)))
        return -1;
    e = find(v, "%s.keyMap", prefix);
    if (e && keymap_find(e->value))
        return (c->keyboard = keep_format(v, "%s", e->value)) ? 0 : -1;
    if (e && !is(e, "default"))
        notice(v, "line %u: there is no such keyboard layout, us is used", e->line);
    return 0;
}

/* ---- Serial ports ---- */

static int take_serial(struct vmx *v)
{
    struct tv_config *c = &v->config;
    bool present, connected;
    for (int port = 3; port >= 0; port--) {
        if (get_bool(v, find(v, "serial%d.present", port), false, &present) < 0)
            return -1;
        if (present && port > 0)
            notice(v, "serial%d is left out: there is one serial port, serial0", port);
    }
    if (!present)
        return 0;
    const struct vmx_entry *type = find(v, "serial0.fileType");
    const struct vmx_entry *name = find(v, "serial0.fileName");
    const struct vmx_entry *end = find(v, "serial0.pipe.endPoint");
    if (get_bool(v, find(v, "serial0.startConnected"), true, &connected) < 0)
        return -1;
    c->serial = TV_SERIAL_NONE;
    if (type && !is(type, "file") && !is(type, "pipe") && !is(type, "device") &&
        !is(type, "network") && !is(type, "none"))
        return bad(v, type, "want file, pipe, device or none");
    if (!connected || is(type, "none"))
        return 0;
    if (!is(type, "file") && !is(type, "pipe")) {
        notice(v, "serial0 is not connected: of a device or the network is not supported");
        return 0;
    }
    if (!name)
        return tv_fail(v->err, "%s:%u: serial0.fileName is missing", v->path, type->line);
    if (is(type, "pipe") && end && !is(end, "server"))
        return bad(v, end, "only \"server\" is supported: this end of the pipe is made here");
    c->serial = is(type, "file") ? TV_SERIAL_FILE : TV_SERIAL_UNIX;
    return get_path(v, name, &c->serial_path);
}

/* ---- Drives ---- */

static int add_drive(struct vmx *v, const char *name, const struct tv_drive *drive)
{
    if (v->drive_count == VMX_DRIVES_MAX)
        return tv_fail(v->err, "%s: at most %d drives are possible", v->path, VMX_DRIVES_MAX);
    snprintf(v->names[v->drive_count], sizeof v->names[0], "%s", name);
    v->drives[v->drive_count++] = *drive;
    return 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), n = strlen(end);
    return length >= n && strcasecmp(text + length - n, end) == 0;
}

/* A CD-ROM's image; without one, or not connected, the drive is empty. */
static int add_cdrom(struct vmx *v, const char *device, const struct vmx_entry *type,
                     const struct vmx_entry *name)
{
    struct tv_drive drive = {.media = TV_DRIVE_CDROM, .read_only = true};
    bool connected;
    if (get_bool(v, find(v, "%s.startConnected", device), true, &connected) < 0)
        return -1;
    bool image = is(type, "cdrom-image") || (name && ends_with(name->value, ".iso"));
    if (connected && name && image && get_path(v, name, &drive.path) < 0)
        return -1;
    if (connected && !image)
        notice(v, "%s is an empty drive: the host's CD-ROM is not supported", device);
    return add_drive(v, device, &drive);
}

static int add_disk(struct vmx *v, const char *device, const struct vmx_entry *name,
                    enum tv_drive_interface interface)
{
    const struct vmx_entry *present = find(v, "%s.present", device);
    const struct vmx_entry *mode = find(v, "%s.mode", device);
    struct tv_drive drive = {.media = TV_DRIVE_DISK, .interface = interface};
    if (!name)
        return tv_fail(v->err, "%s:%u: %s.fileName is missing", v->path, present->line, device);
    if (mode && (is(mode, "nonpersistent") || is(mode, "independent-nonpersistent")))
        drive.snapshot = true;
    else if (mode && !is(mode, "persistent") && !is(mode, "independent-persistent") &&
             !is(mode, "append") && !is(mode, "undoable"))
        return bad(v, mode, "want persistent, nonpersistent or independent- and one of them");
    return get_path(v, name, &drive.path) < 0 ? -1 : add_drive(v, device, &drive);
}

enum bus { BUS_IDE, BUS_SATA, BUS_SCSI };

/* One place of a bus. 1: a disk is there; 0: none, or a CD-ROM; -1: an error. */
static int take_place(struct vmx *v, enum bus bus, const char *device, bool controller)
{
    bool present;
    if (get_bool(v, find(v, "%s.present", device), false, &present) < 0)
        return -1;
    if (!present)
        return 0;
    const struct vmx_entry *type = find(v, "%s.deviceType", device);
    const struct vmx_entry *name = find(v, "%s.fileName", device);
    bool cdrom = is(type, "cdrom-image") || is(type, "atapi-cdrom") || is(type, "cdrom-raw");
    bool disk = !type || is(type, "disk") || is(type, "ata-hardDisk") || is(type, "scsi-hardDisk");
    if (!controller) {
        notice(v, "%s is left out: %.5s.present is not TRUE", device, device);
        return 0;
    }
    if (!cdrom && !disk)
        return bad(v, type, "want disk, ata-hardDisk, scsi-hardDisk, cdrom-image or atapi-cdrom");
    if (bus != BUS_IDE && (cdrom || bus == BUS_SATA))
        notice(v, "%s: the drive is on IDE instead", device);
    if (cdrom)
        return add_cdrom(v, device, type, name);
    int status =
        add_disk(v, device, name, bus == BUS_SCSI ? TV_INTERFACE_PVSCSI : TV_INTERFACE_IDE);
    return status < 0 ? -1 : 1;
}

static int take_bus(struct vmx *v, enum bus bus)
{
    static const struct {
        const char *name;
        int controllers, places;
        bool said; /* the controller is not there where its key is missing */
    } buses[] = {[BUS_IDE] = {"ide", 2, 2, false},
                 [BUS_SATA] = {"sata", 4, 30, true},
                 [BUS_SCSI] = {"scsi", 4, 16, true}};
    for (int i = 0; i < buses[bus].controllers; i++) {
        const char *name = buses[bus].name;
        bool controller;
        int disks = 0;
        if (get_bool(v, find(v, "%s%d.present", name, i), !buses[bus].said, &controller) < 0)
            return -1;
        for (int place = 0; place < buses[bus].places; place++) {
            char device[32];
            snprintf(device, sizeof device, "%s%d:%d", name, i, place);
            int status = take_place(v, bus, device, controller);
            if (status < 0)
                return -1;
            disks += status;
        }
        const struct vmx_entry *kind = find(v, "scsi%d.virtualDev", i);
        if (bus != BUS_SCSI || !disks || is(kind, "pvscsi"))
            continue;
        if (kind && !is(kind, "lsilogic") && !is(kind, "buslogic") && !is(kind, "lsisas1068"))
            return bad(v, kind, "want pvscsi, lsilogic, lsisas1068 or buslogic");
        notice(v, "scsi%d: the adapter is a PVSCSI instead of %s; the guest needs its driver", i,
               kind ? kind->value : "lsilogic");
    }
    return 0;
}

static int take_floppies(struct vmx *v)
{
    for (int i = 0; i < 2; i++) {
        struct tv_drive drive = {.media = TV_DRIVE_FLOPPY};
        bool present, connected;
        if (get_bool(v, find(v, "floppy%d.present", i), false, &present) < 0 ||
            get_bool(v, find(v, "floppy%d.startConnected", i), true, &connected) < 0)
            return -1;
        if (!present)
            continue;
        const struct vmx_entry *type = find(v, "floppy%d.fileType", i);
        const struct vmx_entry *name = find(v, "floppy%d.fileName", i);
        if (type && !is(type, "file") && !is(type, "device"))
            return bad(v, type, "want file or device");
        if (connected && is(type, "file") && name && get_path(v, name, &drive.path) < 0)
            return -1;
        if (connected && !is(type, "file"))
            notice(v, "floppy%d is an empty drive: the host's own is not supported", i);
        if (add_drive(v, "floppy", &drive) < 0)
            return -1;
    }
    return 0;
}

static int take_network(struct vmx *v)
{
    for (int i = 0; i < 10; i++) {
        bool present;
        if (get_bool(v, find(v, "ethernet%d.present", i), false, &present) < 0)
            return -1;
        if (present)
            notice(v, "ethernet%d is left out: there is no network yet", i);
    }
    return 0;
}

/* ---- Boot order ---- */

#define BOOT_MAX       256
#define BOOT_DELAY_MAX 600000 /* ms */

/* "scsi0:1" to the words of a boot order: "disk2,". What is no disk of the file's is left out. */
static void add_disk_word(const struct vmx *v, const char *name, size_t length, char *order)
{
    unsigned number = 0;
    for (size_t i = 0; i < v->drive_count; i++) {
        if (v->drives[i].media != TV_DRIVE_DISK)
            continue;
        number++;
        size_t at = strlen(order);
        if (strlen(v->names[i]) == length && strncasecmp(v->names[i], name, length) == 0)
            snprintf(order + at, BOOT_MAX - at, "disk%u,", number);
    }
}

static void add_disk_words(const struct vmx *v, char *order)
{
    const struct vmx_entry *e = find(v, "bios.hddOrder");
    for (const char *at = e ? e->value : ""; *at; at += strspn(at, ", ")) {
        size_t length = strcspn(at, ", ");
        add_disk_word(v, at, length, order);
        at += length;
    }
    size_t at = strlen(order);
    snprintf(order + at, BOOT_MAX - at, "disk,");
}

/* "cdrom,hdd" to "cdrom,disk,", with disks by their number where bios.hddOrder is there. */
static int take_boot_order(struct vmx *v)
{
    static const struct {
        const char *name, *word;
    } devices[] = {
        {"floppy", "floppy,"}, {"hdd", NULL}, {"cdrom", "cdrom,"}, {"ethernet", "network,"}};
    const struct vmx_entry *e = find(v, "bios.bootOrder"), *delay = find(v, "bios.bootDelay");
    char order[BOOT_MAX] = "";
    unsigned seen = 0;
    bool setup;
    for (const char *at = e ? e->value : find(v, "bios.hddOrder") ? "hdd" : ""; *at;) {
        size_t length = strcspn(at, ","), i = 0;
        while (i < ARRAY_SIZE(devices) &&
               (strlen(devices[i].name) != length || strncasecmp(at, devices[i].name, length) != 0))
            i++;
        if (i == ARRAY_SIZE(devices))
            return bad(v, e, "want floppy, hdd, cdrom and ethernet, separated by commas");
        size_t end = strlen(order);
        if (!(seen & 1u << i) && devices[i].word)
            snprintf(order + end, BOOT_MAX - end, "%s", devices[i].word);
        else if (!(seen & 1u << i))
            add_disk_words(v, order);
        seen |= 1u << i;
        at += length;
        at += strspn(at, ", ");
    }
    long ms = 0;
    if (delay && get_number(v, delay, 0, BOOT_DELAY_MAX, &ms) < 0)
        return -1;
    size_t end = strlen(order);
    if (ms)
        snprintf(order + end, BOOT_MAX - end, "menu,wait=%ld.%03ld,", ms / 1000, ms % 1000);
    if (get_bool(v, find(v, "bios.forceSetupOnce"), false, &setup) < 0)
        return -1;
    if (setup)
        notice(v, "bios.forceSetupOnce: the BIOS has no set-up; --boot menu shows its boot menu");
    if (*order)
        order[strlen(order) - 1] = 0;
    return !*order || (v->config.boot = keep_format(v, "%s", order)) ? 0 : -1;
}

/* ---- All of it ---- */

struct vmx *vmx_parse(const char *path, const char *text, size_t size, struct tv_error *err)
{
    struct vmx *v = calloc(1, sizeof *v);
    if (!v) {
        tv_fail(err, "out of memory");
        return NULL;
    }
    v->path = path;
    v->err = err;
    v->config.serial = TV_SERIAL_STDIO;
    if (vmx_file_parse(&v->file, path, text, size, err) < 0 || take_machine(v) < 0 ||
        take_display(v) < 0 || take_serial(v) < 0 || take_bus(v, BUS_SCSI) < 0 ||
        take_bus(v, BUS_SATA) < 0 || take_bus(v, BUS_IDE) < 0 || take_floppies(v) < 0 ||
        take_network(v) < 0 || take_boot_order(v) < 0) {
        vmx_close(v);
        return NULL;
    }
    v->config.drives = v->drives;
    v->config.drive_count = v->drive_count;
    v->path = NULL;
    v->err = NULL;
    return v;
}

struct vmx *vmx_open(const char *path, struct tv_error *err)
{
    FILE *file = fopen(path, "rb");
    char *text = malloc(VMX_FILE_MAX + 1);
    struct vmx *v = NULL;
    size_t size = file && text ? fread(text, 1, VMX_FILE_MAX + 1, file) : 0;
    if (!file)
        tv_fail_errno(err, errno, "cannot open %s", path);
    else if (!text)
        tv_fail(err, "out of memory");
    else if (ferror(file))
        tv_fail_errno(err, errno, "cannot read %s", path);
    else
        v = vmx_parse(path, text, size, err);
    if (file)
        fclose(file);
    free(text);
    return v;
}

void vmx_close(struct vmx *v)
{
    if (!v)
        return;
    vmx_file_free(&v->file);
    for (unsigned i = 0; i < v->string_count; i++)
        free(v->strings[i]);
    for (unsigned i = 0; i < v->notice_count; i++)
        free(v->notices[i]);
    free(v);
}

const struct tv_config *vmx_config(const struct vmx *v)
{
    return &v->config;
}

const char *vmx_notice(const struct vmx *v, unsigned index)
{
    return index < v->notice_count ? v->notices[index] : NULL;
}
