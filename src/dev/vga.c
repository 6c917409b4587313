/*
 * VGA registers, at ports 0x3b4 to 0x3da.
 *
 * Nothing is computed when a register is written: the memory path and the drawing look at the
 * registers themselves. Only the input status register has a notion of time, from the CRTC's timing
 * and the guest's clock.
 */
#include "dev/vga.h"

#include <string.h>

#include "util/util.h"

enum { SEQ_CLOCKING = 1 };
enum { CRTC_OVERFLOW = 7, CRTC_VRETRACE_END = 0x11 };
enum { MISC_COLOUR = 0x01 };

#define ATTR_INDEX_MASK   0x3f /* with bit 5, palette address source */
#define CRTC_PROTECT      0x80
#define CRTC_LINE_COMPARE 0x10
#define STATUS_BLANK      0x01
#define STATUS_RETRACE    0x08
#define DAC_FOR_READ      3
#define DAC_FOR_WRITE     0

/* Bits that exist. */
static const uint8_t seq_bits[VGA_SEQ_REGS] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};
static const uint8_t gfx_bits[VGA_GFX_REGS] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03,
                                               0x7b, 0x0f, 0x0f, 0xff};
static const uint8_t attr_bits[VGA_ATTR_REGS] = {0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
                                                 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
                                                 0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f};

/* ---- Input status ---- */

/* Where the beam is, from the guest's time. */
static uint8_t input_status_1(const struct vga *v)
{
    const uint8_t *c = v->crtc;
    unsigned dots = v->seq[SEQ_CLOCKING] & 1 ? 8 : 9;
    uint64_t dot_hz = (v->misc >> 2 & 3) == 1 ? 28322000 : 25175000;
    if (v->seq[SEQ_CLOCKING] & 8)
        dot_hz /= 2;
    uint64_t line_ns = (c[0] + UINT64_C(5)) * dots * 1000000000u / dot_hz;
    unsigned lines = (c[6] | (c[7] & 1) << 8 | (c[7] & 0x20) << 4) + 2u;
    unsigned shown = (c[0x12] | (c[7] & 2) << 7 | (c[7] & 0x40) << 3) + 1u;
    unsigned retrace = c[0x10] | (c[7] & 4) << 6 | (c[7] & 0x80) << 2;
    unsigned retrace_lines = (c[0x11] - retrace) & 15;
    if (lines < 100) { /* not programmed: some frame rate */
        line_ns = 31778;
        lines = 525;
        shown = retrace = 480;
        retrace_lines = 2;
    }

    uint64_t in_frame = vclock_ns(v->env->clock) % (line_ns * lines);
    unsigned line = (unsigned)(in_frame / line_ns);
    uint8_t status = 0;
    if (line >= shown ||
        in_frame % line_ns * (c[0] + UINT64_C(5)) >= line_ns * (c[1] + UINT64_C(1)))
        status |= STATUS_BLANK;
    if (line >= retrace && line - retrace < MAX(retrace_lines, 1u))
        status |= STATUS_RETRACE;
    return status;
}

/* ---- DAC ---- */

static uint8_t dac_read_data(struct vga *v)
{
    uint8_t value = v->dac[3 * v->dac_read + v->dac_part];
    if (++v->dac_part == 3) {
        v->dac_part = 0;
        v->dac_read++;
    }
    return value;
}

static void dac_write_data(struct vga *v, uint8_t value)
{
    uint8_t bits = v->vbe[VBE_ENABLE] & VBE_DAC_8BIT ? 0xff : 0x3f;
    v->dac[3 * v->dac_write + v->dac_part] = value & bits;
    if (++v->dac_part == 3) {
        v->dac_part = 0;
        v->dac_write++;
    }
}

uint32_t vga_dac_colour(const struct vga *v, unsigned index)
{
    const uint8_t *c = &v->dac[3 * (index & v->dac_mask)];
    if (v->vbe[VBE_ENABLE] & VBE_DAC_8BIT)
        return (uint32_t)c[0] << 16 | (uint32_t)c[1] << 8 | c[2];
    uint32_t colour = 0;
    for (int i = 0; i < 3; i++) /* the top bits repeat below, so that 63 is 255 */
        colour = colour << 8 | (uint32_t)(c[i] & 63) << 2 | (c[i] & 63) >> 4;
    return colour;
}

/* ---- Ports ---- */

/* The CRTC and the input status answer at 0x3b_ or at 0x3d_. */
static bool other_decode(const struct vga *v, unsigned port)
{
    unsigned group = port & 0x3f0;
    return (group == 0x3b0 && (v->misc & MISC_COLOUR)) ||
           (group == 0x3d0 && !(v->misc & MISC_COLOUR));
}

uint8_t vga_port_read(struct vga *v, unsigned port)
{
    /* SeaVGABIOS resets the flip-flop at 0x3da in the monochrome modes, too. */
    if ((port & 0x0f) == 0x0a && port != 0x3ca)
        v->attr_data = false;
    if (other_decode(v, port))
        return 0xff;
    switch (port) {
    case 0x3c0:
        return v->attr_data ? v->attr_index : 0;
    case 0x3c1:
        return (v->attr_index & 0x1f) < VGA_ATTR_REGS ? v->attr[v->attr_index & 0x1f] : 0;
    case 0x3c2:
        return 0x10; /* the monitor takes colour */
    case 0x3c4:
        return v->seq_index;
    case 0x3c5:
        return v->seq_index < VGA_SEQ_REGS ? v->seq[v->seq_index] : 0;
    case 0x3c6:
        return v->dac_mask;
    case 0x3c7:
        return v->dac_state;
    case 0x3c8:
        return v->dac_write;
    case 0x3c9:
        return dac_read_data(v);
    case 0x3ca:
        return v->feature;
    case 0x3cc:
        return v->misc;
    case 0x3ce:
        return v->gfx_index;
    case 0x3cf:
        return v->gfx_index < VGA_GFX_REGS ? v->gfx[v->gfx_index] : 0;
    case 0x3b4:
    case 0x3d4:
        return v->crtc_index;
    case 0x3b5:
    case 0x3d5:
        return v->crtc_index < VGA_CRTC_REGS ? v->crtc[v->crtc_index] : 0;
    case 0x3ba:
    case 0x3da:
        return input_status_1(v);
    default:
        return 0xff;
    }
}

static void attr_write(struct vga *v, uint8_t value)
{
    unsigned index = v->attr_index & 0x1f;
    if (!v->attr_data)
        v->attr_index = value & ATTR_INDEX_MASK;
    else if (index < VGA_ATTR_REGS)
        v->attr[index] = value & attr_bits[index];
    v->attr_data = !v->attr_data;
}

static void crtc_write(struct vga *v, uint8_t value)
{
    unsigned index = v->crtc_index;
    if (index >= VGA_CRTC_REGS)
        return;
    if (index <= CRTC_OVERFLOW && (v->crtc[CRTC_VRETRACE_END] & CRTC_PROTECT)) {
        if (index != CRTC_OVERFLOW)
            return;
        value = (v->crtc[index] & ~CRTC_LINE_COMPARE) | (value & CRTC_LINE_COMPARE);
    }
    v->crtc[index] = value;
}

void vga_port_write(struct vga *v, unsigned port, uint8_t value)
{
    if (other_decode(v, port))
        return;
    v->touched = true;
    switch (port) {
    case 0x3c0:
    case 0x3c1:
        attr_write(v, value);
        break;
    case 0x3c2:
        v->misc = value & ~0x10;
        break;
    case 0x3c4:
        v->seq_index = value & 7;
        break;
    case 0x3c5:
        if (v->seq_index < VGA_SEQ_REGS)
            v->seq[v->seq_index] = value & seq_bits[v->seq_index];
        break;
    case 0x3c6:
        v->dac_mask = value;
        break;
    case 0x3c7:
        v->dac_read = value;
        v->dac_part = 0;
        v->dac_state = DAC_FOR_READ;
        break;
    case 0x3c8:
        v->dac_write = value;
        v->dac_part = 0;
        v->dac_state = DAC_FOR_WRITE;
        break;
    case 0x3c9:
        dac_write_data(v, value);
        break;
    case 0x3ce:
        v->gfx_index = value & 15;
        break;
    case 0x3cf:
        if (v->gfx_index < VGA_GFX_REGS)
            v->gfx[v->gfx_index] = value & gfx_bits[v->gfx_index];
        break;
    case 0x3b4:
    case 0x3d4:
        v->crtc_index = value & 0x3f;
        break;
    case 0x3b5:
    case 0x3d5:
        crtc_write(v, value);
        break;
    case 0x3ba:
    case 0x3da:
        v->feature = value & 0x0b;
        break;
    default:
        break;
    }
}

/* ---- The bus ---- */

#define PORT_OPS(name, base)                                                                       \
    static uint64_t name##_read(void *vga, uint64_t offset, unsigned size)                         \
    {                                                                                              \
        return vga_port_read(vga, (base) + (unsigned)offset);                                      \
    }                                                                                              \
    static void name##_write(void *vga, uint64_t offset, unsigned size, uint64_t value)            \
    {                                                                                              \
        vga_port_write(vga, (base) + (unsigned)offset, (uint8_t)value);                            \
    }                                                                                              \
    static const struct io_ops name##_ops = {name##_read, name##_write, 1}

PORT_OPS(mono_crtc, 0x3b4);
PORT_OPS(mono_status, 0x3ba);
PORT_OPS(common, 0x3c0);
PORT_OPS(colour_crtc, 0x3d4);
PORT_OPS(colour_status, 0x3da);

static uint64_t window_read(void *vga, uint64_t offset, unsigned size)
{
    return vga_mem_read(vga, (uint32_t)offset, size);
}

static void window_write(void *vga, uint64_t offset, unsigned size, uint64_t value)
{
    vga_mem_write(vga, (uint32_t)offset, size, value);
}

static const struct io_ops window_ops = {window_read, window_write, 0};

/* The index at 0x1ce, the data at 0x1cf or, for those who want it even, 0x1d0. */
static uint64_t vbe_port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct vga *v = opaque;
    return offset == 0 ? v->vbe_index : vbe_read(v, v->vbe_index);
}

static void vbe_port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct vga *v = opaque;
    if (offset == 0)
        v->vbe_index = (uint16_t)value;
    else
        vbe_write(v, v->vbe_index, (uint16_t)value);
}

static const struct io_ops vbe_ops = {vbe_port_read, vbe_port_write, 2};

void vga_after_reset(struct vga *v)
{
    v->touched = true;
    if (v->has_vbe)
        v->vbe[VBE_ID] = 0xb0c5;
}

void vga_after_load(struct vga *v)
{
    v->seq_index &= 7;
    v->gfx_index &= 15;
    v->crtc_index &= 0x3f;
    v->dac_part %= 3;
    v->touched = true;
    vbe_check(v);
}

/* ---- Mode 3 without a BIOS ---- */

static const struct {
    uint8_t misc, seq[VGA_SEQ_REGS], crtc[VGA_CRTC_REGS], gfx[VGA_GFX_REGS], attr[VGA_ATTR_REGS];
} mode3 = {
    .misc = 0x67,
    .seq = {0x03, 0x00, 0x03, 0x00, 0x02},
    .crtc = {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
             0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
    .gfx = {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff},
    .attr = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
             0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00},
};

void vga_set_text_mode(struct vga *v, const uint8_t *font)
{
    v->misc = mode3.misc;
    memcpy(v->seq, mode3.seq, sizeof v->seq);
    memcpy(v->crtc, mode3.crtc, sizeof v->crtc);
    memcpy(v->gfx, mode3.gfx, sizeof v->gfx);
    memcpy(v->attr, mode3.attr, sizeof v->attr);
    v->attr_index = 0x20; /* the palette belongs to the screen */
    /* The colours of an EGA: bits rgbRGB, two thirds and one third. */
    for (unsigned i = 0; i < 64; i++)
        for (unsigned part = 0; part < 3; part++)
            v->dac[3 * i + part] =
                (uint8_t)((i >> (2 - part) & 1 ? 42 : 0) + (i >> (5 - part) & 1 ? 21 : 0));
    for (unsigned i = 0; i < VGA_PLANES_SIZE / 4; i++) {
        v->vram[4 * i] = ' ';
        v->vram[4 * i + 1] = 0x07;
    }
    for (unsigned glyph = 0; font && glyph < 256; glyph++)
        for (unsigned line = 0; line < 16; line++)
            v->vram[4 * (glyph * 32 + line) + 2] = font[glyph * 16 + line];
    vga_written(v, v->vram, VGA_PLANES_SIZE);
    v->touched = true;
}

void vga_init(struct vga *v, struct device_env *env, uint8_t *vram, uint32_t vram_size, bool vbe)
{
    v->env = env;
    v->vram = vram;
    v->vram_size = vram_size;
    v->has_vbe = vbe;
    bus_add(env->pio, 0x3b4, 2, &mono_crtc_ops, v, "VGA");
    bus_add(env->pio, 0x3ba, 1, &mono_status_ops, v, "VGA");
    bus_add(env->pio, 0x3c0, 16, &common_ops, v, "VGA");
    bus_add(env->pio, 0x3d4, 2, &colour_crtc_ops, v, "VGA");
    bus_add(env->pio, 0x3da, 1, &colour_status_ops, v, "VGA");
    bus_add(env->mmio, VGA_WINDOW, VGA_WINDOW_SIZE, &window_ops, v, "VGA memory");
    if (vbe)
        bus_add(env->pio, 0x1ce, 4, &vbe_ops, v, "VBE display interface");
}
