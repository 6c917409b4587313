#include "vm/screen.h"
#include "vm/fw_kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/i8042.h"
#include "dev/pit.h"
#include "dev/svga.h"
#include "dev/vga_std.h"
#include "dev/vmmouse.h"
#include "ui/display.h"
#include "ui/input.h"
#include "ui/keymap.h"
#include "ui/vnc.h"
#include "util/clock.h"
#include "util/error.h"
#include "vm/vm.h"

#define VGA_SLOT      2
#define VGA_BIOS      "/usr/share/seabios/vgabios-stdvga.bin"
#define SVGA_BIOS     "/usr/share/seabios/vgabios-vmware.bin"
#define FONT_SIZE     4096
#define GLYPH_SIZE    16
#define BIOS_MAX      (256 * 1024)
#define PASSWORD_LINE 128

/* ---- Keyboard and mouse: from the viewers' thread to the devices ---- */

static bool send_key(void *opaque, const uint8_t *scancodes, unsigned count)
{
    struct tv_vm *vm = opaque;
    pthread_mutex_lock(&vm->device_lock);
    uint8_t bda[BIOS_DATA_SIZE];
    bool admitted = !physmem_read(vm->machine.mem, BIOS_DATA_AREA, bda, sizeof bda) ||
                    bios_keys_admit(&vm->bios_keys, bda, scancodes, count,
                                    i8042_keys_pending(vm->kbc), host_ms());
    bool taken = admitted && i8042_key(vm->kbc, scancodes, count);
    pthread_mutex_unlock(&vm->device_lock);
    return taken;
}

static unsigned keyboard_leds(void *opaque)
{
    struct tv_vm *vm = opaque;
    pthread_mutex_lock(&vm->device_lock);
    unsigned leds = i8042_leds(vm->kbc);
    pthread_mutex_unlock(&vm->device_lock);
    return leds;
}

static void send_mouse(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
    struct tv_vm *vm = opaque;
    pthread_mutex_lock(&vm->device_lock);
    i8042_mouse(vm->kbc, dx, dy, dz, buttons);
    pthread_mutex_unlock(&vm->device_lock);
}

static bool send_absolute(void *opaque, unsigned x, unsigned y, int dz, unsigned buttons)
{
    struct tv_vm *vm = opaque;
    pthread_mutex_lock(&vm->device_lock);
    bool taken = vmmouse_move(vm->vmmouse, x, y, dz, buttons);
    pthread_mutex_unlock(&vm->device_lock);
    return taken;
}

const struct input_ops screen_input_ops = {send_key, keyboard_leds, send_mouse, send_absolute};

/* ---- A text mode without firmware ---- */

/* The 8x16 font inside a VGA BIOS, found by its capital A; NULL: there is none. */
static const uint8_t *find_font(const uint8_t *bios, size_t size)
{
    static const uint8_t capital_a[GLYPH_SIZE] = {0x00, 0x00, 0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe,
                                                  0xc6, 0xc6, 0xc6, 0xc6, 0x00, 0x00, 0x00, 0x00};
    const uint8_t *at = memmem(bios, size, capital_a, sizeof capital_a);
    size_t before = 'A' * GLYPH_SIZE;
    if (!at || (size_t)(at - bios) < before || size - (size_t)(at - bios) < FONT_SIZE - before)
        return NULL;
    return at - before;
}

/* All of the file; NULL, and no message, where it is missing or cannot be a BIOS. */
static uint8_t *read_bios(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bios = file ? malloc(BIOS_MAX) : NULL;
    *size = bios ? fread(bios, 1, BIOS_MAX, file) : 0;
    if (file)
        fclose(file);
    if (*size >= 2 && bios[0] == 0x55 && bios[1] == 0xaa)
        return bios;
    free(bios);
    return NULL;
}

static int load_font(struct tv_vm *vm, const uint8_t *bios, size_t size, struct tv_error *err)
{
    const uint8_t *font = bios ? find_font(bios, size) : NULL;
    if (!font)
        return 0;
    vm->font = malloc(FONT_SIZE);
    if (!vm->font)
        return tv_fail(err, "out of memory");
    memcpy(vm->font, font, FONT_SIZE);
    return 0;
}

void screen_reset(struct tv_vm *vm)
{
    if (!vm->vga || !vm->config.kernel || fw_kernel_wanted(&vm->config))
        return;
    pthread_mutex_lock(&vm->device_lock);
    vga_set_text_mode(vm->vga, vm->font);
    pthread_mutex_unlock(&vm->device_lock);
}

/* ---- Viewers ---- */

/* The first line of the file. */
static int read_password(const char *path, char *password, size_t size, struct tv_error *err)
{
    FILE *file = fopen(path, "r");
    if (!file)
        return tv_fail_errno(err, errno, "--vnc-password: cannot open %s", path);
    bool got = fgets(password, (int)size, file);
    fclose(file);
    if (got)
        password[strcspn(password, "\r\n")] = 0;
    if (!got || !*password)
        return tv_fail(err, "--vnc-password: %s has no password in its first line", path);
    return 0;
}

static int open_viewer(struct tv_vm *vm, struct tv_error *err)
{
    const struct tv_config *c = &vm->config;
    char password[PASSWORD_LINE];
    struct vnc_config vnc = {
        .address = c->display_address, .web = c->display == TV_DISPLAY_WEB, .title = c->name};
    if (c->vnc_password && strcmp(c->vnc_password, "none") == 0) {
        vnc.open_to_all = true;
    } else if (c->vnc_password) {
        if (read_password(c->vnc_password, password, sizeof password, err) < 0)
            return -1;
        vnc.password = password;
    } else {
        vnc.password = c->vnc_password_text;
    }
    vm->vnc = vnc_open(&vnc, vm->display, vm->input, err);
    explicit_bzero(password, sizeof password);
    return vm->vnc ? 0 : -1;
}

static bool create_device(struct tv_vm *vm, enum tv_vga vga, struct pci_bus *pci,
                          const uint8_t *bios, size_t size)
{
    unsigned devfn = PCI_DEVFN(VGA_SLOT, 0);
    if (vga == TV_VGA_SVGA) {
        struct svga *svga = svga_create(&vm->env, pci, devfn, bios, size);
        if (!svga)
            return false;
        vm->vga = svga_core(svga);
        display_attach(vm->display, &svga_display_ops, svga);
        return true;
    }
    struct vga_std *std = vga_std_create(&vm->env, pci, devfn, bios, size);
    if (!std)
        return false;
    vm->vga = vga_std_core(std);
    display_attach(vm->display, &vga_std_display_ops, std);
    return true;
}

/* A kernel needs no VGA BIOS; there it is only where the font comes from. */
static int create_adapter(struct tv_vm *vm, enum tv_vga vga, struct pci_bus *pci,
                          struct tv_error *err)
{
    const char *path = vga == TV_VGA_SVGA ? SVGA_BIOS : VGA_BIOS;
    size_t size;
    uint8_t *bios = read_bios(path, &size);
    if (!bios && (!vm->config.kernel || fw_kernel_wanted(&vm->config)))
        return tv_fail(err, "no VGA BIOS in %s; install the package seabios, or use --vga none",
                       path);
    int result = 0;
    if (!create_device(vm, vga, pci, bios, size))
        result = tv_fail(err, "out of memory");
    else
        result = load_font(vm, bios, size, err);
    free(bios);
    if (result == 0)
        physmem_map_low(vm->env.mem, VGA_WINDOW, VGA_WINDOW_SIZE, NULL, NULL);
    return result;
}

/* The PC speaker is heard as the viewers' bell. */
static void on_tone(void *opaque, unsigned hz)
{
    const struct tv_vm *vm = opaque;
    if (hz && vm->vnc)
        vnc_bell(vm->vnc);
}

int screen_create(struct tv_vm *vm, struct pci_bus *pci, struct tv_error *err)
{
    const struct tv_config *c = &vm->config;
    enum tv_vga vga = c->vga;
    if (vga == TV_VGA_AUTO)
        vga =
            c->kernel && c->display == TV_DISPLAY_NONE && !c->screenshot ? TV_VGA_NONE : TV_VGA_STD;
    if (vga == TV_VGA_NONE && c->display == TV_DISPLAY_NONE)
        return 0;
    const struct keymap *layout = keymap_find(c->keyboard ? c->keyboard : "us");
    if (!layout)
        return tv_fail(err, "keyboard layout '%s': want one of %s", c->keyboard, keymap_names());

    vm->display = display_create(&vm->device_lock);
    vm->input = input_create(&screen_input_ops, vm, layout);
    if (!vm->display || !vm->input)
        return tv_fail(err, "out of memory");
    if (vga != TV_VGA_NONE && create_adapter(vm, vga, pci, err) < 0)
        return -1;
    if (c->display == TV_DISPLAY_NONE)
        return 0;
    if (open_viewer(vm, err) < 0)
        return -1;
    pit_on_tone(vm->pit, on_tone, vm);
    return 0;
}

void screen_stop(struct tv_vm *vm)
{
    vnc_close(vm->vnc);
    vm->vnc = NULL;
}

void screen_destroy(struct tv_vm *vm)
{
    display_destroy(vm->display);
    input_destroy(vm->input);
    free(vm->font);
}

const char *tv_vm_display_name(const struct tv_vm *vm)
{
    return vm->vnc ? vnc_name(vm->vnc) : NULL;
}

int tv_vm_screenshot(struct tv_vm *vm, const char *path, struct tv_error *err)
{
    if (!vm->display)
        return tv_fail(err, "screenshot %s: the VM has no display; use --vga or --display", path);
    return display_screenshot(vm->display, path, err);
}
