/* The VGA core and the Bochs display interface, and what they look like on a monitor. */
#include "dev/vga_std.h"
#include "device.h"

#define DEVFN PCI_DEVFN(2, 0)
#define FB    0xe0000000u

enum { PORTS, WINDOW, VBE, VRAM, REGS, CONFIG };

static struct vga_std *std;

static void create(struct fuzz_machine *f)
{
    std = vga_std_create(&f->machine.env, f->pci, DEVFN, NULL, 0);
    fuzz_display(f, &vga_std_display_ops, std);
    physmem_map_low(f->mem, VGA_WINDOW, VGA_WINDOW_SIZE, NULL, NULL);
    fuzz_ports(f, 0x3b0, 0x30);
    fuzz_memory(f, VGA_WINDOW, VGA_WINDOW_SIZE);
    fuzz_ports(f, 0x1ce, 4);
    fuzz_bar(f, DEVFN, 0, false, FB, VGA_STD_MEMORY);
    fuzz_bar(f, DEVFN, 2, false, 0xe8000000, 0x1000);
    fuzz_config(f, DEVFN);
}

/* An indexed register; or a look. */
static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    static const uint16_t ports[] = {0x3c4, 0x3ce, 0x3d4, 0x3b4};
    unsigned value = op->value & 0xff;
    struct bus *pio = &f->machine.pio;
    switch (op->repeat % 4) {
    case 0:
        bus_write(pio, ports[op->size % 4], 2, (op->offset & 0x1f) | value << 8);
        break;
    case 1:
        bus_read(pio, 0x3da, 1);
        bus_write(pio, 0x3c0, 1, op->offset & 0x3f);
        bus_write(pio, 0x3c0, 1, value);
        break;
    case 2:
        bus_write(pio, 0x1ce, 2, op->offset % (VBE_REGS + 1));
        bus_write(pio, 0x1cf, 2, op->value & 0xffff);
        break;
    default:
        fuzz_look(f);
    }
}

static void indexed(struct fuzz_list *l, unsigned which, const char *hex)
{
    for (unsigned i = 0, value; sscanf(hex + 2 * i, "%2x", &value) == 1; i++)
        seed_op(l, OP_SPECIAL, 0, which == 3 ? 8 : which + 1, 0, i, value);
}

static void attributes(struct fuzz_list *l, const char *hex)
{
    for (unsigned i = 0, value; sscanf(hex + 2 * i, "%2x", &value) == 1; i++)
        seed_op(l, OP_SPECIAL, 0, 1, 1, i, value);
    seed_op(l, OP_SPECIAL, 0, 1, 1, 0x20, 0);
}

static void mode(struct fuzz_list *l, unsigned misc, const char *seq, const char *crtc,
                 const char *gfx, const char *attr)
{
    seed_write(l, PORTS, 1, 0x12, misc);
    seed_op(l, OP_SPECIAL, 0, 1, 0, 0, 3); /* sequencer out of reset */
    for (unsigned i = 0, value; sscanf(seq + 2 * i, "%2x", &value) == 1; i++)
        seed_op(l, OP_SPECIAL, 0, 1, 0, i + 1, value);
    seed_op(l, OP_SPECIAL, 0, 4, 0, 0x11, 0);
    for (unsigned i = 0, value; sscanf(crtc + 2 * i, "%2x", &value) == 1; i++)
        seed_op(l, OP_SPECIAL, 0, 4, 0, i, value);
    indexed(l, 1, gfx);
    attributes(l, attr);
}

static void vbe(struct fuzz_list *l, unsigned bpp, unsigned enable)
{
    const unsigned values[] = {0xb0c5, 64, 48, bpp};
    for (unsigned i = 0; i < 4; i++)
        seed_op(l, OP_SPECIAL, 0, 1, 2, i, values[i]);
    seed_op(l, OP_SPECIAL, 0, 1, 2, VBE_ENABLE, enable);
    seed_op(l, OP_SPECIAL, 0, 1, 2, VBE_VIRT_WIDTH, 80);
    seed_op(l, OP_SPECIAL, 0, 1, 2, VBE_Y_OFFSET, 3);
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    static const char crtc_text[] = "5f4f50825581bf1f004f0d0e000000009c8e8f281f96b9a3ff";
    static const char crtc_12[] = "5f4f508254800b3e00400000000000000000ea8cdf2800e704e3ff";
    static const char crtc_13[] = "5f4f50825480bf1f00410000000000009c8e8f284096b9a3ff";
    static const char text_attr[] = "000102030405140738393a3b3c3d3e3f0c000f0800";
    static const char graphics_attr[] = "000102030405060708090a0b0c0d0e0f41000f0000";
    switch (index) {
    case 0:
        mode(l, 0x67, "00030002", crtc_text,
             "000000000010"
             "0e00ff",
             text_attr);
        break;
    case 1: /* 16 colours */
        mode(l, 0xe3, "010f0006", crtc_12,
             "00000000000005"
             "0fff",
             graphics_attr);
        break;
    case 2: /* 256 colours */
        mode(l, 0x63, "010f000e", crtc_13,
             "0000000000400"
             "50fff",
             graphics_attr);
        break;
    case 3: /* four colours */
        mode(l, 0x63, "09030002", "2d2728902b80bf1f00c100000000000000009c8e8f140096b9a2ff",
             "0000000000300f00ff", "0013151702040607101112131415161701000300");
        break;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8: {
        static const unsigned bpp[] = {4, 8, 16, 24, 32};
        vbe(l, bpp[index - 4], VBE_ENABLED | (index & 1 ? VBE_LINEAR : VBE_DAC_8BIT));
        break;
    }
    default:
        return false;
    }
    seed_op(l, OP_WRITE, WINDOW, 4, 3, index == 0 || index == 3 ? 0x18000 : 0, 0x1f411f42);
    seed_read(l, WINDOW, 4, 5);
    seed_op(l, OP_SPECIAL, 0, 2, 0, 5, 1); /* write mode 1, raster operation, bit mask */
    seed_op(l, OP_SPECIAL, 0, 2, 0, 3, 0x0b);
    seed_op(l, OP_SPECIAL, 0, 2, 0, 8, 0x5a);
    seed_op(l, OP_WRITE, WINDOW, 2, 2, 9, 0x1234);
    seed_write(l, PORTS, 1, 0x18, 3); /* the palette */
    seed_op(l, OP_WRITE, PORTS, 1, 5, 0x19, 0x2a);
    seed_write(l, VRAM, 4, 0x100, 0xffffff);
    seed_op(l, OP_SPECIAL, 0, 1, 3, 0, 0);
    seed_op(l, OP_TIME, 0, 1, 0, 0, 16000000);
    seed_op(l, OP_SPECIAL, 0, 1, 3, 0, 0);
    return true;
}

const struct fuzz_device fuzz_device = {create, special, fuzz_look, seed};
