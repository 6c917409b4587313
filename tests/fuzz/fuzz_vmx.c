/*
 * .vmx files: parsed. Whatever the text, there is a configuration whose parts hold together, or a
 * message of one line that names the file.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "mgmt/vmx.h"

#define NAME "directory/fuzz.vmx"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tv_error err = {""};
    struct vmx *v = vmx_parse(NAME, (const char *)data, size, &err);
    if (!v) {
        if (strncmp(err.message, NAME, sizeof NAME - 1) != 0 || strchr(err.message, '\n'))
            abort();
        return 0;
    }
    const struct tv_config *c = vmx_config(v);
    if (c->drive_count > VMX_DRIVES_MAX || c->vcpus > 64 || c->memory_size & 0xfffff)
        abort();
    for (size_t i = 0; i < c->drive_count; i++)
        if (c->drives[i].path ? strlen(c->drives[i].path) < 1 : c->drives[i].media == TV_DRIVE_DISK)
            abort();
    const char *line;
    for (unsigned i = 0; (line = vmx_notice(v, i)); i++)
        if (strchr(line, '\n') || strncmp(line, NAME ": ", sizeof NAME + 1) != 0)
            abort();
    vmx_close(v);
    return 0;
}

int fuzz_seed(unsigned index, struct test_image *image)
{
    static const char *const seeds[] = {
        ".encoding = \"windows-1252\"\nmemsize = \"64\"\nnumvcpus = \"2\"\ndisplayName = "
        "\"\xe4|22\"\n"
        "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"lsilogic\"\nscsi0:0.present = \"TRUE\"\n"
        "scsi0:0.fileName = \"a.vmdk\"\nide1:0.present = \"TRUE\"\n"
        "ide1:0.deviceType = \"cdrom-image\"\nide1:0.fileName = \"/x.iso\"\nbios.bootOrder = "
        "\"hdd\"\n",
        ".encoding = \"GBK\"\nserial0.present = T\nserial0.fileType = pipe\nserial0.fileName = s\n"
        "floppy0.present = 1 # one\nfloppy0.fileType = file\nfloppy0.fileName = f\n"
        "RemoteDisplay.vnc.enabled = on\nRemoteDisplay.vnc.ip = ::1\nsata0.present = yes\n"
        "sata0:1.present = yes\nsata0:1.fileName = d\nethernet0.present = \"TRUE\"\n",
    };
    if (index >= sizeof seeds / sizeof seeds[0])
        return 0;
    memset(image, 0, sizeof *image);
    image->size = strlen(seeds[index]);
    memcpy(image->data, seeds[index], image->size);
    return 1;
}
