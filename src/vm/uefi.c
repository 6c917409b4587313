#include "vm/uefi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dev/flash.h"
#include "disk/file.h"
#include "util/error.h"
#include "util/util.h"

#define VARS_MAX 0x400000u

struct uefi_variables {
    struct host_file file; /* not open: nothing is kept */
    struct tv_vm *vm;
    bool failed; /* was told */
};

static void keep_change(void *opaque, const uint8_t *array, uint64_t offset, uint64_t size)
{
    struct uefi_variables *v = opaque;
    if (v->file.fd < 0)
        return;
    int error = file_write(&v->file, array + offset, size, offset);
    if (error && !v->failed && v->vm->config.notify) {
        char line[512];
        snprintf(line, sizeof line, "%s: cannot write UEFI variables: %s", v->file.path,
                 strerror(error));
        v->vm->config.notify(v->vm->config.notify_opaque, line);
    }
    v->failed = error != 0;
}

/* All of a file of variables, malloc'ed. */
static uint8_t *read_variables(const struct host_file *file, uint64_t *size, struct tv_error *err)
{
    int error = file_size(file, size);
    if (!error && (*size == 0 || *size > VARS_MAX || *size % FLASH_BLOCK)) {
        tv_fail(err, "%s: no UEFI variables: want a file of up to 4 MiB, a multiple of 4 KiB",
                file->path);
        return NULL;
    }
    uint8_t *data = error ? NULL : malloc(*size);
    if (data)
        error = file_read(file, data, *size, 0);
    else if (!error)
        error = ENOMEM;
    if (error) {
        tv_fail_errno(err, error, "%s: cannot read", file->path);
        free(data);
        return NULL;
    }
    return data;
}

static uint8_t *read_template(const char *code, uint64_t *size, struct tv_error *err)
{
    char path[4096];
    const char *mark = strrchr(code, '/');
    mark = strstr(mark ? mark : code, "CODE");
    struct host_file file;
    snprintf(path, sizeof path, "%.*sVARS%s", (int)(mark - code), code, mark + 4);
    /* With Secure Boot or not, the variables of an empty machine are the same. */
    char *secure = strstr(path, ".secboot.fd");
    if (secure)
        strcpy(secure, ".fd");
    if (file_open(&file, path, FILE_READ_ONLY | FILE_NO_LOCK, NULL, err) < 0)
        return NULL;
    uint8_t *data = read_variables(&file, size, err);
    file_close(&file);
    return data;
}

/* The VM's own file; made, with `template` in it, where there is none. */
static uint8_t *open_own(struct uefi_variables *v, const char *path, uint8_t *template,
                         uint64_t *size, struct tv_error *err)
{
    bool create = access(path, F_OK) != 0 && errno == ENOENT;
    if (file_open(&v->file, path, create ? FILE_CREATE : 0, NULL, err) < 0) {
        free(template);
        return NULL;
    }
    int error = create ? file_write(&v->file, template, *size, 0) : 0;
    if (error) {
        tv_fail_errno(err, error, "%s: cannot write", path);
        unlink(path);
        free(template);
        return NULL;
    }
    if (create)
        return template;
    uint64_t want = *size;
    free(template);
    uint8_t *data = read_variables(&v->file, size, err);
    if (data && *size != want) {
        tv_fail(err,
                "%s: has %llu bytes, but this firmware's variables take %llu; --bios names the "
                "image that they belong to",
                path, (unsigned long long)*size, (unsigned long long)want);
        free(data);
        return NULL;
    }
    return data;
}

/* Debian's images with Secure Boot wait for ever on a machine without SMM. */
static void warn_of_secure_boot(struct tv_vm *vm, const char *name)
{
    static const char *const marks[] = {".secboot.", ".ms.", ".snakeoil."};
    char line[512];
    for (size_t i = 0; i < ARRAY_SIZE(marks); i++)
        if (strstr(name, marks[i]) && vm->config.notify) {
            snprintf(line, sizeof line,
                     "%s: firmware with Secure Boot wants system management mode, which is not "
                     "there; if nothing appears, use %s",
                     name, UEFI_DEFAULT);
            vm->config.notify(vm->config.notify_opaque, line);
        }
}

int uefi_create_variables(struct tv_vm *vm, const char *code, uint64_t code_size,
                          struct tv_error *err)
{
    const char *own = vm->config.uefi_vars, *name = strrchr(code, '/');
    warn_of_secure_boot(vm, name ? name + 1 : code);
    if (!strstr(name ? name : code, "CODE")) {
        if (own)
            return tv_fail(err,
                           "%s: holds its variables itself; --uefi-vars goes with an image whose "
                           "name has CODE in it, such as " UEFI_DEFAULT,
                           code);
        return 0;
    }
    struct uefi_variables *v = calloc(1, sizeof *v);
    if (!v)
        return tv_fail(err, "out of memory");
    v->file.fd = -1;
    v->vm = vm;
    vm->uefi = v;
    uint64_t size;
    uint8_t *data = read_template(code, &size, err);
    if (data && own)
        data = open_own(v, own, data, &size, err);
    if (!data)
        return -1;
    struct flash *flash =
        flash_create(&vm->env, HIGH_RAM_BASE - code_size - size, data, size, keep_change, v);
    free(data);
    return flash ? 0 : tv_fail(err, "%s: no room for the UEFI variables below it", code);
}

void uefi_close_variables(struct tv_vm *vm)
{
    if (vm->uefi)
        file_close(&vm->uefi->file);
    free(vm->uefi);
    vm->uefi = NULL;
}
