/*
 * The Bochs display interface ("dispi"): sixteen-bit registers behind an index, by which a VGA BIOS
 * or a driver sets modes of any size with 4 to 32 bits a pixel, and a linear frame buffer.
 */
#include <string.h>

#include "dev/vga.h"
#include "util/util.h"

#define ID_FIRST  0xb0c0
#define ID_LAST   0xb0c5
#define BANK_SIZE 0x10000

static bool known_depth(unsigned bpp)
{
    return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

static uint32_t pitch_of(unsigned width, unsigned bpp)
{
    return bpp == 4 ? width / 8 * 4 : width * ((bpp + 7) / 8); /* planes count as four bytes */
}

uint32_t vbe_pitch(const struct vga *v)
{
    return pitch_of(v->vbe[VBE_VIRT_WIDTH], v->vbe[VBE_BPP]);
}

/* Whether the mode's lines are all in memory. */
static bool fits(const struct vga *v)
{
    const uint16_t *r = v->vbe;
    return known_depth(r[VBE_BPP]) && r[VBE_XRES] && r[VBE_YRES] &&
           r[VBE_XRES] <= DISPLAY_MAX_WIDTH && r[VBE_YRES] <= DISPLAY_MAX_HEIGHT &&
           r[VBE_VIRT_WIDTH] >= r[VBE_XRES] && vbe_pitch(v) > 0 &&
           (uint64_t)vbe_pitch(v) * r[VBE_YRES] <= v->vram_size;
}

/* As many lines as memory has; the origin moved back until the picture is inside. */
static void settle(struct vga *v)
{
    uint16_t *r = v->vbe;
    uint32_t lines = v->vram_size / vbe_pitch(v);
    r[VBE_VIRT_HEIGHT] = (uint16_t)MIN(lines, 0xffffu);
    r[VBE_X_OFFSET] = (uint16_t)MIN(r[VBE_X_OFFSET], r[VBE_VIRT_WIDTH] - r[VBE_XRES]);
    r[VBE_Y_OFFSET] = (uint16_t)MIN(r[VBE_Y_OFFSET], r[VBE_VIRT_HEIGHT] - r[VBE_YRES]);
}

void vbe_check(struct vga *v)
{
    if (!vbe_on(v))
        return;
    if (fits(v))
        settle(v);
    else
        v->vbe[VBE_ENABLE] = 0;
}

static void enable(struct vga *v, uint16_t value)
{
    uint16_t *r = v->vbe;
    bool was_on = vbe_on(v);
    unsigned was_8bit = r[VBE_ENABLE] & VBE_DAC_8BIT;
    r[VBE_ENABLE] =
        value & (VBE_ENABLED | VBE_GET_CAPABILITIES | VBE_DAC_8BIT | VBE_LINEAR | VBE_NO_CLEAR);
    /* The palette keeps its colours when the DAC's width changes. */
    if (was_8bit != (r[VBE_ENABLE] & VBE_DAC_8BIT))
        for (unsigned i = 0; i < VGA_DAC_BYTES; i++)
            v->dac[i] = was_8bit ? v->dac[i] >> 2 : (uint8_t)(v->dac[i] << 2 | v->dac[i] >> 4);
    if (!(value & VBE_ENABLED) || was_on)
        return;

    r[VBE_BANK] = 0;
    r[VBE_VIRT_WIDTH] = r[VBE_XRES];
    r[VBE_X_OFFSET] = r[VBE_Y_OFFSET] = 0;
    if (!fits(v)) {
        if (log_on(v->env->log, LOG_DEV))
            log_write(v->env->log, LOG_DEV, "VBE: no mode of %ux%u with %u bits", r[VBE_XRES],
                      r[VBE_YRES], r[VBE_BPP]);
        r[VBE_ENABLE] &= ~VBE_ENABLED;
        return;
    }
    settle(v);
    if (!(value & VBE_NO_CLEAR)) {
        memset(v->vram, 0, (size_t)vbe_pitch(v) * r[VBE_YRES]);
        vga_written(v, v->vram, (size_t)vbe_pitch(v) * r[VBE_YRES]);
    }
}

uint16_t vbe_read(struct vga *v, unsigned index)
{
    if (index >= VBE_REGS)
        return 0;
    if (v->vbe[VBE_ENABLE] & VBE_GET_CAPABILITIES) {
        switch (index) {
        case VBE_XRES:
            return DISPLAY_MAX_WIDTH;
        case VBE_YRES:
            return DISPLAY_MAX_HEIGHT;
        case VBE_BPP:
            return 32;
        default:
            break;
        }
    }
    if (index == VBE_MEMORY_64K)
        return (uint16_t)(v->vram_size / BANK_SIZE);
    return v->vbe[index];
}

void vbe_write(struct vga *v, unsigned index, uint16_t value)
{
    uint16_t *r = v->vbe;
    v->touched = true;
    switch (index) {
    case VBE_ID:
        if (value >= ID_FIRST && value <= ID_LAST)
            r[VBE_ID] = value;
        break;
    case VBE_XRES:
    case VBE_YRES:
        if (!vbe_on(v))
            r[index] = value;
        break;
    case VBE_BPP:
        if (!vbe_on(v))
            r[index] = value ? value : 8;
        break;
    case VBE_ENABLE:
        enable(v, value);
        break;
    case VBE_BANK:
        r[index] = value & (uint16_t)(v->vram_size / BANK_SIZE - 1);
        break;
    case VBE_VIRT_WIDTH:
        if (vbe_on(v)) {
            uint16_t before = r[index];
            r[index] = value;
            if (!fits(v))
                r[index] = before;
            settle(v);
        }
        break;
    case VBE_X_OFFSET:
    case VBE_Y_OFFSET:
        r[index] = value;
        if (vbe_on(v))
            settle(v);
        break;
    default:
        break;
    }
}
