/*
 * The VGA core: what a plain VGA and every adapter that is compatible with one have in common.
 *
 *   vga.c       registers: miscellaneous, sequencer, CRTC, graphics and attribute controllers, DAC
 *   vga_mem.c   the window at 0xa0000: planes, latches, write and read modes
 *   vga_draw.c  what the registers and the memory look like on a monitor
 *   vbe.c       the Bochs display interface (dispi): linear modes with up to 32 bits a pixel
 *
 * An adapter embeds a struct vga, calls vga_init(), lists VGA_STATE in its table, and calls the
 * functions here from its own. Device lock held in all of them.
 *
 * Memory is kept with the four planes interleaved: the byte at address a of plane p is
 * vram[4 * a + p]. So one 32-bit word is what the latches take at once. Linear modes see the same
 * bytes in sequence.
 */
#ifndef TRIVISOR_DEV_VGA_H
#define TRIVISOR_DEV_VGA_H

#include "dev/device.h"
#include "ui/display.h"

#define VGA_SEQ_REGS    5
#define VGA_CRTC_REGS   0x19
#define VGA_GFX_REGS    9
#define VGA_ATTR_REGS   0x15
#define VGA_DAC_BYTES   768
#define VBE_REGS        11

#define VGA_WINDOW      0xa0000
#define VGA_WINDOW_SIZE 0x20000
#define VGA_PLANES_SIZE 0x40000 /* what the planar modes reach */

struct vga {
    struct device_env *env;
    uint8_t *vram;
    uint32_t vram_size; /* bytes, a power of two, at least VGA_PLANES_SIZE */

    /* Registers as the guest reads them. */
    uint8_t misc, feature;
    uint8_t seq_index, seq[VGA_SEQ_REGS];
    uint8_t crtc_index, crtc[VGA_CRTC_REGS];
    uint8_t gfx_index, gfx[VGA_GFX_REGS];
    uint8_t attr_index, attr[VGA_ATTR_REGS];
    bool attr_data; /* the next write of 0x3c0 is data */
    uint8_t dac_mask, dac_read, dac_write, dac_state;
    uint8_t dac_part; /* red, green or blue comes next */
    uint8_t dac[VGA_DAC_BYTES];
    uint32_t latch;
    uint16_t vbe_index, vbe[VBE_REGS];

    bool has_vbe;
    bool in_physmem;      /* vram is a region of env->mem: it hears of writes */
    bool touched;         /* memory or registers changed since the last drawing */
    uint64_t drawn_blink; /* phase of blinking that was drawn last */
    unsigned looks;       /* without drawing, since then */
};

/* `device`: the adapter's struct; `v`: the name of its struct vga member. */
#define VGA_STATE(device, v)                                                                       \
    STATE(device, v.misc, 0), STATE(device, v.feature, 0), STATE(device, v.seq_index, 0),          \
        STATE_ARRAY(device, v.seq, 0), STATE(device, v.crtc_index, 0),                             \
        STATE_ARRAY(device, v.crtc, 0), STATE(device, v.gfx_index, 0),                             \
        STATE_ARRAY(device, v.gfx, 0), STATE(device, v.attr_index, 0),                             \
        STATE_ARRAY(device, v.attr, 0), STATE(device, v.attr_data, 0),                             \
        STATE(device, v.dac_mask, 0xff), STATE(device, v.dac_read, 0),                             \
        STATE(device, v.dac_write, 0), STATE(device, v.dac_state, 0),                              \
        STATE(device, v.dac_part, 0), STATE_ARRAY(device, v.dac, 0), STATE(device, v.latch, 0),    \
        STATE(device, v.vbe_index, 0), STATE_ARRAY(device, v.vbe, 0)

/* The memory belongs to the caller. Claims the ports of a VGA and the window at 0xa0000, and with
 * `vbe` the ports of the Bochs display interface. */
void vga_init(struct vga *vga, struct device_env *env, uint8_t *vram, uint32_t vram_size, bool vbe);
/* Device code has written to the frame buffer. */
static inline void vga_written(const struct vga *v, const void *at, size_t size)
{
    if (v->in_physmem)
        physmem_written(v->env->mem, at, size);
}
/* For the adapter's after_reset and after_load. */
void vga_after_reset(struct vga *vga);
void vga_after_load(struct vga *vga);
/* What a VGA BIOS leaves: text mode 3, its palette, and the font of 256 glyphs of 16 bytes. For a
 * kernel that is started without one. `font` may be NULL: no glyphs. */
void vga_set_text_mode(struct vga *vga, const uint8_t *font);

/* One byte of a register: `port` 0x3b0 to 0x3df. */
uint8_t vga_port_read(struct vga *vga, unsigned port);
void vga_port_write(struct vga *vga, unsigned port, uint8_t value);

/* vga_mem.c: an access to the window, offset from 0xa0000. */
uint64_t vga_mem_read(struct vga *vga, uint32_t offset, unsigned size);
void vga_mem_write(struct vga *vga, uint32_t offset, unsigned size, uint64_t value);

/* vga_draw.c: the contract of struct display_ops. */
bool vga_refresh(struct vga *vga, struct display *display, struct display_linear *linear);
/* Entry of the palette as 0xRRGGBB. */
uint32_t vga_dac_colour(const struct vga *vga, unsigned index);

/* vbe.c */
enum vbe_register {
    VBE_ID,
    VBE_XRES,
    VBE_YRES,
    VBE_BPP,
    VBE_ENABLE,
    VBE_BANK,
    VBE_VIRT_WIDTH,
    VBE_VIRT_HEIGHT,
    VBE_X_OFFSET,
    VBE_Y_OFFSET,
    VBE_MEMORY_64K,
};
enum vbe_enable {
    VBE_ENABLED = 0x01,
    VBE_GET_CAPABILITIES = 0x02,
    VBE_DAC_8BIT = 0x20,
    VBE_LINEAR = 0x40,
    VBE_NO_CLEAR = 0x80,
};
uint16_t vbe_read(struct vga *vga, unsigned index);
void vbe_write(struct vga *vga, unsigned index, uint16_t value);
/* Bytes from line to line; make loaded registers harmless. */
uint32_t vbe_pitch(const struct vga *vga);
void vbe_check(struct vga *vga);

static inline bool vbe_on(const struct vga *vga)
{
    return vga->vbe[VBE_ENABLE] & VBE_ENABLED;
}

/* Memory is a sequence of pixels, not planes. */
static inline bool vbe_linear(const struct vga *vga)
{
    return vbe_on(vga) && vga->vbe[VBE_BPP] > 4;
}

#endif
