#include "dev/vga_std.h"

#include <stdlib.h>
#include <string.h>

#include "dev/edid.h"
#include "util/util.h"

#define REGISTERS_SIZE   4096
#define VGA_AT           0x400
#define VGA_PORTS        0x20
#define VBE_AT           0x500
#define EXTENSION_AT     0x600
#define EXTENSION_SIZE   8
#define LITTLE_ENDIAN_FB 0x1e1e1e1e
#define NATIVE_WIDTH     1024
#define NATIVE_HEIGHT    768

struct vga_std {
    struct vga vga;
    struct pci_device pci;
    uint8_t edid[EDID_SIZE];
};

/* ---- BAR 2 ---- */

static uint64_t registers_read(void *opaque, uint64_t offset, unsigned size)
{
    struct vga_std *s = opaque;
    uint32_t at = (uint32_t)offset;
    if (at < EDID_SIZE)
        return s->edid[at] | (size == 2 && at + 1 < EDID_SIZE ? s->edid[at + 1] << 8 : 0);
    if (at >= VGA_AT && at + size <= VGA_AT + VGA_PORTS) {
        uint64_t value = vga_port_read(&s->vga, 0x3c0 + at - VGA_AT);
        return size == 1 ? value : value | vga_port_read(&s->vga, 0x3c1 + at - VGA_AT) << 8;
    }
    if (at >= VBE_AT && at < VBE_AT + 2 * VBE_REGS)
        return (uint64_t)vbe_read(&s->vga, (at - VBE_AT) / 2) >> (8 * (at & 1));
    if (at >= EXTENSION_AT && at < EXTENSION_AT + EXTENSION_SIZE) {
        static const uint32_t extension[2] = {EXTENSION_SIZE, LITTLE_ENDIAN_FB};
        return extension[(at - EXTENSION_AT) / 4] >> (8 * (at & 3));
    }
    return 0;
}

static void registers_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct vga_std *s = opaque;
    uint32_t at = (uint32_t)offset;
    if (at >= VGA_AT && at + size <= VGA_AT + VGA_PORTS) {
        for (unsigned i = 0; i < size; i++)
            vga_port_write(&s->vga, 0x3c0 + at - VGA_AT + i, (uint8_t)(value >> (8 * i)));
    } else if (at >= VBE_AT && at < VBE_AT + 2 * VBE_REGS && size == 2 && !(at & 1)) {
        vbe_write(&s->vga, (at - VBE_AT) / 2, (uint16_t)value);
    } else if (at >= EXTENSION_AT && at < EXTENSION_AT + EXTENSION_SIZE) {
        /* a driver sets the byte order; there is one */
    } else if (log_on(s->vga.env->log, LOG_DEV)) {
        log_write(s->vga.env->log, LOG_DEV, "VGA: write of %#llx to register %#x",
                  (unsigned long long)value, at);
    }
}

static const struct io_ops registers_ops = {registers_read, registers_write, 2};

/* ---- The picture ---- */

static bool refresh(void *opaque, struct display *display, struct display_linear *linear)
{
    return vga_refresh(&((struct vga_std *)opaque)->vga, display, linear);
}

const struct display_ops vga_std_display_ops = {refresh};

struct vga *vga_std_core(struct vga_std *s)
{
    return &s->vga;
}

/* ---- Life ---- */

static const struct state_field fields[] = {
    VGA_STATE(struct vga_std, vga),
    PCI_DEVICE_STATE(struct vga_std, pci),
};

static void after_reset(void *opaque)
{
    struct vga_std *s = opaque;
    vga_after_reset(&s->vga);
    pci_device_reset(&s->pci);
}

static void after_load(void *opaque)
{
    struct vga_std *s = opaque;
    vga_after_load(&s->vga);
    pci_device_loaded(&s->pci);
}

static const struct state_table table = {
    .name = "vga-std",
    .version = 1,
    .size = sizeof(struct vga_std),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

static const struct pci_identity identity = {
    .name = "VGA",
    .vendor = 0x1234,
    .device = 0x1111,
    .revision = 2,
    .class_code = 0x030000,
    .subsystem_vendor = 0x1af4,
    .subsystem = 0x1100,
};

struct vga_std *vga_std_create(struct device_env *env, struct pci_bus *pci, unsigned devfn,
                               const void *rom, size_t rom_size)
{
    struct vga_std *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pci_device_init(pci, &s->pci, devfn, &identity);
    struct physmem_region *vram = pci_add_ram_bar(&s->pci, 0, PCI_BAR_PREFETCH, VGA_STD_MEMORY);
    if (!vram || (rom && !pci_add_rom(&s->pci, rom, rom_size))) {
        free(s);
        return NULL;
    }
    pci_add_bar(&s->pci, 2, false, REGISTERS_SIZE, &registers_ops, s);
    s->pci.wmask[PCI_COMMAND] |= PCI_COMMAND_IO; /* firmware takes a VGA without it for disabled */
    vga_init(&s->vga, env, vram->host, VGA_STD_MEMORY, true);
    s->vga.in_physmem = true;
    edid_build(s->edid, NATIVE_WIDTH, NATIVE_HEIGHT);
    device_register(env, &table, s, free);
    return s;
}
