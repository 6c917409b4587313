/* .vmx files: what they become, and one line about what is wrong with one. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "mgmt/vmx.h"
#include "mgmt/vmx_file.h"

#define PATH "/machines/a b/test.vmx"

static struct vmx *parse_at(const char *path, const char *text)
{
    struct tv_error err = {""};
    struct vmx *v = vmx_parse(path, text, strlen(text), &err);
    if (!v)
        fprintf(stderr, "%s\n", err.message);
    CHECK(v);
    return v;
}

static void fails(const char *text, size_t size, const char *words)
{
    struct tv_error err = {""};
    struct vmx *v = vmx_parse(PATH, text, size, &err);
    if (v || !strstr(err.message, words))
        fprintf(stderr, "got '%s' instead of '%s'\n", err.message, words);
    CHECK(!v && strstr(err.message, words) && strncmp(err.message, PATH ":", sizeof PATH) == 0);
    CHECK(!strchr(err.message, '\n'));
    vmx_close(v);
}

static bool same(const char *a, const char *b)
{
    if (a && b ? strcmp(a, b) == 0 : a == b)
        return true;
    fprintf(stderr, "got '%s' instead of '%s'\n", a ? a : "NULL", b ? b : "NULL");
    return false;
}

static unsigned notices(const struct vmx *v, const char *words)
{
    unsigned found = 0;
    const char *line;
    for (unsigned i = 0; (line = vmx_notice(v, i)); i++)
        found += strstr(line, words) != NULL;
    return found;
}

static void nothing(void)
{
    struct vmx *v = parse_at(PATH, "");
    if (!v)
        return;
    const struct tv_config *c = vmx_config(v);
    CHECK(!c->memory_size && !c->vcpus && !c->drive_count && !c->name && !c->boot);
    CHECK(c->serial == TV_SERIAL_STDIO && c->display == TV_DISPLAY_NONE && c->vga == TV_VGA_SVGA);
    CHECK(!vmx_notice(v, 0));
    vmx_close(v);
    vmx_close(NULL);
}

static void boot_order(void)
{
    static const char text[] = "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n"
                               "scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n"
                               "scsi0:1.present = \"TRUE\"\nscsi0:1.fileName = \"b.vmdk\"\n"
                               "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"c.vmdk\"\n"
                               "bios.hddOrder = \"ide0:0, SCSI0:1,nvme0:0\"\n"
                               "bios.bootDelay = \"2500\"\n";
    struct vmx *v = parse_at(PATH, text);
    CHECK(v && same(vmx_config(v)->boot, "disk3,disk2,disk,menu,wait=2.500"));
    vmx_close(v);
    v = parse_at(PATH, "bios.bootOrder = \"ethernet,floppy\"\nbios.forceSetupOnce = \"TRUE\"");
    CHECK(v && same(vmx_config(v)->boot, "network,floppy") && notices(v, "forceSetupOnce") == 1);
    vmx_close(v);
}

static void machine(void)
{
    static const char text[] = "\xef\xbb\xbf#!/usr/bin/vmware\r\n"
                               ".encoding = \"UTF-8\"\r\n"
                               "// a comment\n\n"
                               "config.version = \"8\"\n"
                               "MEMSIZE=\"256\"\n"
                               "memsize = 768 # the last one counts\n"
                               "  numVCPUs\t=\t\"4\"  # four\n"
                               "displayname = \"say |22hi|22 a|7cb |zz|0A#1\"\n"
                               "annotation = \"\"\n"
                               "firmware = \"BIOS\"\n"
                               "svga.present = \"false\"\n"
                               "hypervisor.cpuid.v0 = \"FALSE\"\n"
                               "bios.bootOrder = \"cdrom,hdd,CDROM\"\n"
                               "RemoteDisplay.vnc.enabled = \"TRUE\"\n"
                               "RemoteDisplay.vnc.port = \"5907\"\n"
                               "remotedisplay.vnc.ip = \"::1\"\n"
                               "remotedisplay.vnc.password = \"se|23cret\"\n"
                               "remotedisplay.vnc.keymap = \"de\"\n"
                               "serial0.present = \"TRUE\"\n"
                               "serial0.fileType = \"file\"\n"
                               "serial0.fileName = \"com 1.log\"\n"
                               "serial1.present = \"TRUE\"\n"
                               "ethernet0.present = \"TRUE\"\n"
                               "unknown:key.of-any_kind = \"x\"";
    struct vmx *v = parse_at(PATH, text);
    if (!v)
        return;
    const struct tv_config *c = vmx_config(v);
    CHECK(c->memory_size == UINT64_C(768) << 20 && c->vcpus == 4);
    CHECK(same(c->name, "say \"hi\" a|b |zz #1"));
    CHECK(c->hypervisor == TV_HYPERVISOR_NONE);
    CHECK(c->vga == TV_VGA_STD && same(c->boot, "cdrom,disk"));
    CHECK(c->display == TV_DISPLAY_VNC && same(c->display_address, "[::1]:5907"));
    CHECK(same(c->vnc_password_text, "se#cret") && !c->vnc_password && same(c->keyboard, "de"));
    CHECK(c->serial == TV_SERIAL_FILE && same(c->serial_path, "/machines/a b/com 1.log"));
    CHECK(notices(v, "") == 2 && notices(v, "serial1") == 1 && notices(v, "ethernet0") == 1);
    vmx_close(v);
}

static void drives(void)
{
    static const char text[] =
        "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"sub/a.vmdk\"\n"
        "ide0:1.present = \"FALSE\"\nide0:1.fileName = \"no.vmdk\"\n"
        "ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-image\"\n"
        "ide1:0.fileName = \"/iso/x.img\"\n"
        "ide1:1.present = \"TRUE\"\nide1:1.deviceType = \"atapi-cdrom\"\n"
        "ide1:1.fileName = \"auto detect\"\n"
        "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"lsiLogic\"\n"
        "scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"b.vmdk\"\n"
        "scsi0:0.mode = \"independent-nonpersistent\"\n"
        "scsi1.present = \"TRUE\"\nscsi1.virtualDev = \"pvscsi\"\n"
        "scsi1:15.present = \"TRUE\"\nscsi1:15.fileName = \"c.vmdk\"\n"
        "scsi1:15.deviceType = \"scsi-hardDisk\"\n"
        "scsi2:0.present = \"TRUE\"\nscsi2:0.fileName = \"left-out.vmdk\"\n"
        "sata0.present = \"TRUE\"\nsata0:29.present = \"TRUE\"\nsata0:29.fileName = \"d.vmdk\"\n"
        "floppy0.present = \"TRUE\"\nfloppy0.fileType = \"file\"\nfloppy0.fileName = \"f.img\"\n"
        "floppy0.startConnected = \"FALSE\"\n";
    static const struct tv_drive expected[] = {
        {TV_DRIVE_DISK, TV_INTERFACE_PVSCSI, "/machines/a b/b.vmdk", NULL, false, true},
        {TV_DRIVE_DISK, TV_INTERFACE_PVSCSI, "/machines/a b/c.vmdk", NULL, false, false},
        {TV_DRIVE_DISK, TV_INTERFACE_IDE, "/machines/a b/d.vmdk", NULL, false, false},
        {TV_DRIVE_DISK, TV_INTERFACE_IDE, "/machines/a b/sub/a.vmdk", NULL, false, false},
        {TV_DRIVE_CDROM, TV_INTERFACE_IDE, "/iso/x.img", NULL, true, false},
        {TV_DRIVE_CDROM, TV_INTERFACE_IDE, NULL, NULL, true, false},
        {TV_DRIVE_FLOPPY, TV_INTERFACE_IDE, NULL, NULL, false, false},
    };
    struct vmx *v = parse_at(PATH, text);
    if (!v)
        return;
    const struct tv_config *c = vmx_config(v);
    CHECK(c->drive_count == sizeof expected / sizeof expected[0]);
    for (size_t i = 0; i < c->drive_count && i < sizeof expected / sizeof expected[0]; i++) {
        const struct tv_drive *d = &c->drives[i], *want = &expected[i];
        CHECK(d->media == want->media && d->interface == want->interface);
        CHECK(d->read_only == want->read_only && d->snapshot == want->snapshot);
        CHECK(same(d->path, want->path) && !d->format);
    }
    CHECK(notices(v, "") == 4);
    CHECK(notices(v, "scsi0: the adapter is a PVSCSI instead of lsiLogic") == 1);
    CHECK(notices(v, "scsi2:0 is left out: scsi2.present") == 1);
    CHECK(notices(v, "sata0:29: the drive is on IDE") == 1 &&
          notices(v, "ide1:1 is an empty") == 1);
    vmx_close(v);
}

static void places(void)
{
    static const char text[] = "serial0.present = \"TRUE\"\nserial0.fileType = \"pipe\"\n"
                               "serial0.fileName = \"nbd://host/x\"\n";
    struct vmx *v = parse_at("here.vmx", text);
    CHECK(v && vmx_config(v)->serial == TV_SERIAL_UNIX);
    CHECK(v && same(vmx_config(v)->serial_path, "./nbd://host/x"));
    vmx_close(v);
    v = parse_at("/root.vmx", "floppy0.present = 1\nfloppy0.fileType = file\nfloppy0.filename = a");
    CHECK(v && same(vmx_config(v)->drives[0].path, "/a"));
    vmx_close(v);
    v = parse_at(PATH, "serial0.present = \"TRUE\"\nserial0.fileName = \"/dev/ttyS0\"\n");
    CHECK(v && vmx_config(v)->serial == TV_SERIAL_NONE && notices(v, "serial0") == 1);
    vmx_close(v);
    v = parse_at(PATH, "remotedisplay.vnc.enabled = true\n");
    CHECK(v && vmx_config(v)->display == TV_DISPLAY_VNC && !vmx_config(v)->display_address);
    vmx_close(v);
    v = parse_at(PATH, "remotedisplay.vnc.port = 1\nremotedisplay.vnc.enabled = true\n");
    CHECK(v && same(vmx_config(v)->display_address, "127.0.0.1:1"));
    vmx_close(v);
}

static void encodings(void)
{
    struct vmx *v =
        parse_at(PATH, "displayName = \"gr\xfc\xdf|41\"\n.encoding = \"windows-1252\"\n");
    CHECK(v && same(vmx_config(v)->name, "grüßA"));
    vmx_close(v);
    /* Trailing bytes that look like a bar. */
    v = parse_at(PATH, ".ENCODING = GBK\ndisplayName = \"\x81\x7c"
                       "41\"\n");
    CHECK(v && strstr(vmx_config(v)->name, "41"));
    vmx_close(v);
}

static void wrong(void)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"memsize = \"64\"\nmemsize = \"lots\"\n", ":2: memsize = \"lots\": want a number"},
        {"memsize = \"0\"", ":1: memsize"},
        {"memsize = \"-5\"", ":1: memsize"},
        {"memsize = \"99999999999999999999\"", ":1: memsize"},
        {"numvcpus = \"65\"", "from 1 to 64"},
        {"numvcpus = \"2|0A\"", "numvcpus = \"2?\""},
        {"firmware = \"openfirmware\"", ":1: firmware"},
        {"bios.bootOrder = \"hdd,tape\"", ":1: bios.bootOrder"},
        {"bios.bootDelay = \"soon\"", ":1: bios.bootDelay"},
        {"svga.present = \"perhaps\"", "want TRUE or FALSE"},
        {"hypervisor.cpuid.v0 = \"2\"", "want TRUE or FALSE"},
        {"just words", ":1: want key"},
        {"= \"x\"", ":1: want key"},
        {"\"a\" = \"x\"", ":1: want key"},
        {"a = \"x\n", ":1: the closing quote is missing"},
        {"a = \"x\" y", ":1: text after"},
        {"a = \"|00\"", ":1: a value has a zero byte"},
        {".encoding = \"klingon\"", ":1: .encoding 'klingon' is unknown"},
        {".encoding = GBK\n\na = \"\xff\xff\"", ":3: the text is not in the .encoding 'GBK'"},
        {"ide0:0.present = \"TRUE\"", ":1: ide0:0.fileName is missing"},
        {"ide0:0.present = \"T\"\nide0:0.fileName = \"a|0Ab\"", ":2: ide0:0.fileName"},
        {"ide0:0.present = \"T\"\nide0:0.deviceType = \"rawDisk\"", ":2: ide0:0.deviceType"},
        {"ide0:0.present = T\nide0:0.fileName = a\nide0:0.mode = odd", ":3: ide0:0.mode"},
        {"scsi0.present = T\nscsi0:1.present = T\nscsi0:1.fileName = a\nscsi0.virtualDev = ultra",
         ":4: scsi0.virtualDev"},
        {"serial0.present = T\nserial0.fileType = tape", ":2: serial0.fileType"},
        {"serial0.present = T\nserial0.fileType = file", ":2: serial0.fileName is missing"},
        {"serial0.present = T\nserial0.fileType = pipe\nserial0.fileName = a\n"
         "serial0.pipe.endPoint = client",
         ":4: serial0.pipe.endPoint"},
        {"floppy1.present = T\nfloppy1.fileType = tape", ":2: floppy1.fileType"},
        {"RemoteDisplay.vnc.enabled = T\nRemoteDisplay.vnc.port = 70000", ":2: RemoteDisplay"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        fails(cases[i].text, strlen(cases[i].text), cases[i].words);
    fails("a = \"b\"\n\0", 9, ":2: a zero byte");
}

static void limits(void)
{
    size_t size = VMX_FILE_MAX + 1;
    char *text = malloc(size);
    if (!text)
        abort();
    memset(text, '\n', size);
    fails(text, size, "larger than");
    fails(text, size - 1, "more than");
    /* A key and a value as long as there can be; the message is cut. */
    memset(text, 'k', size);
    fails(text, size - 1, ":1: want key");
    memset(text, '9', size);
    memcpy(text, "memsize=", 8);
    fails(text, size - 1, ":1: memsize = \"999");
    free(text);

    char many[2048] = "scsi0.present = T\nscsi1.present = T\n";
    for (int i = 0; i < 17; i++) {
        char line[64];
        snprintf(line, sizeof line, "scsi%d:%d.present=T\nscsi%d:%d.fileName=a\n", i / 16, i % 16,
                 i / 16, i % 16);
        strcat(many, line);
    }
    fails(many, strlen(many), "at most 16 drives");
    struct tv_error err = {""};
    CHECK(!vmx_open("/nonexistent/x.vmx", &err) && strstr(err.message, "/nonexistent/x.vmx"));
    CHECK(!vmx_open("/", &err) && strstr(err.message, "/: Is a directory"));
}

int main(void)
{
    nothing();
    machine();
    boot_order();
    drives();
    places();
    encodings();
    wrong();
    limits();
    return check_result();
}
