/*
 * What a monitor on the VGA shows.
 *
 * Each scan line is made as the hardware makes it: the CRTC's counters give a memory address and a
 * row of the character, the sequencer fetches the four planes there, and a shift mode (text,
 * planes, packed pairs, bytes) makes pixels of it, which the attribute controller and the DAC
 * colour. Size is in dots as the monitor gets them, so a mode of 320x200 fills 640x400 like all
 * others.
 */
#include "dev/vga.h"

#include <string.h>

#include "util/util.h"

enum { SEQ_RESET, SEQ_CLOCKING, SEQ_MAP_MASK, SEQ_CHAR_MAP };
enum { CLOCK_8_DOTS = 0x01, CLOCK_HALF = 0x08, CLOCK_SCREEN_OFF = 0x20 };
enum {
    CRTC_OVERFLOW = 0x07,
    CRTC_PRESET = 0x08,
    CRTC_MAX_SCAN = 0x09,
    CRTC_CURSOR_START = 0x0a,
    CRTC_CURSOR_END = 0x0b,
    CRTC_START = 0x0c,
    CRTC_CURSOR = 0x0e,
    CRTC_VDISPLAY_END = 0x12,
    CRTC_OFFSET = 0x13,
    CRTC_UNDERLINE = 0x14,
    CRTC_MODE = 0x17,
    CRTC_LINE_COMPARE = 0x18
};
enum { MODE_ROW0_IS_A13 = 0x01, MODE_ROW1_IS_A14 = 0x02, MODE_MA15 = 0x20, MODE_BYTE = 0x40 };
enum { GFX_MODE = 5, GFX_MISC = 6 };
enum { SHIFT_PAIRS = 0x20, SHIFT_256 = 0x40 };
enum { ATTR_MODE = 0x10, ATTR_PLANES = 0x12, ATTR_PAN = 0x13, ATTR_SELECT = 0x14 };
enum {
    ATTR_GRAPHICS = 0x01,
    ATTR_MONO = 0x02,
    ATTR_LINE_GRAPHICS = 0x04,
    ATTR_BLINK = 0x08,
    ATTR_PAN_TOP = 0x20,
    ATTR_8BIT = 0x40,
    ATTR_P54 = 0x80
};

#define ATTR_PALETTE_ON 0x20               /* in the index register */
#define UNDERLINED      0x01               /* a mono attribute, less its intensity bits */
#define FRAME_NS        UINT64_C(14285714) /* 70 Hz */
#define CURSOR_FRAMES   8
#define LOOKS_MAX       16
#define BLINK_FRAMES    16
#define MARGIN          32 /* dots beyond the right edge that panning brings in */

struct drawing {
    struct vga *vga;
    unsigned columns, dots, width, height;
    bool text, half, cursor_on, blink_on;
    uint32_t colours[256];
    uint32_t line[DISPLAY_MAX_WIDTH + MARGIN];
};

/* ---- Registers ---- */

static unsigned lines_shown(const uint8_t *c)
{
    return (c[CRTC_VDISPLAY_END] | (c[CRTC_OVERFLOW] & 0x02) << 7 |
            (c[CRTC_OVERFLOW] & 0x40) << 3) +
           1u;
}

static unsigned line_compare(const uint8_t *c)
{
    return c[CRTC_LINE_COMPARE] | (c[CRTC_OVERFLOW] & 0x10) << 4 | (c[CRTC_MAX_SCAN] & 0x40) << 3;
}

static uint32_t pair(const uint8_t *c, unsigned index)
{
    return (uint32_t)c[index] << 8 | c[index + 1];
}

/* Memory address of a count of the CRTC, in a row of a character. */
static uint32_t address(const struct vga *v, uint32_t count, unsigned row)
{
    uint8_t mode = v->crtc[CRTC_MODE];
    uint32_t at;
    if (v->crtc[CRTC_UNDERLINE] & 0x40)
        at = (count << 2 & 0xfffc) | (count >> 14 & 3);
    else if (!(mode & MODE_BYTE))
        at = (count << 1 & 0xfffe) | (count >> (mode & MODE_MA15 ? 15 : 13) & 1);
    else
        at = count & 0xffff;
    if (!(mode & MODE_ROW0_IS_A13))
        at = (at & ~0x2000u) | (row & 1) << 13;
    if (!(mode & MODE_ROW1_IS_A14))
        at = (at & ~0x4000u) | (row >> 1 & 1) << 14;
    return at;
}

static uint32_t fetch(const struct vga *v, uint32_t at)
{
    return ((const uint32_t *)(const void *)v->vram)[at & 0xffff];
}

/* The sixteen attributes' colours, or all 256 of the DAC. */
static void set_colours(struct drawing *d)
{
    const struct vga *v = d->vga;
    uint8_t mode = v->attr[ATTR_MODE], select = v->attr[ATTR_SELECT];
    if ((v->gfx[GFX_MODE] & SHIFT_256) && !d->text) {
        for (unsigned i = 0; i < 256; i++)
            d->colours[i] = vga_dac_colour(v, i);
        return;
    }
    for (unsigned i = 0; i < 16; i++) {
        unsigned index = v->attr[i & v->attr[ATTR_PLANES] & 15];
        if (mode & ATTR_P54)
            index = (index & 0x0f) | (select & 0x0f) << 4;
        else
            index = (index & 0x3f) | (select & 0x0c) << 4;
        d->colours[i] = vga_dac_colour(v, index);
    }
}

/* ---- Text ---- */

/* Plane 2 address of a character map: the three bits of each of the two selects. */
static uint32_t font_base(uint8_t map, bool a)
{
    unsigned select = a ? (map >> 2 & 3) | (map >> 3 & 4) : (map & 3) | (map >> 2 & 4);
    return (select & 3) << 14 | (select >> 2) << 13;
}

static bool cursor_in_row(const struct vga *v, unsigned row)
{
    uint8_t start = v->crtc[CRTC_CURSOR_START], end = v->crtc[CRTC_CURSOR_END];
    return !(start & 0x20) && row >= (start & 31u) && row <= (end & 31u);
}

static void text_line(struct drawing *d, uint32_t count, unsigned row)
{
    const struct vga *v = d->vga;
    uint8_t mode = v->attr[ATTR_MODE];
    uint32_t font[2] = {font_base(v->seq[SEQ_CHAR_MAP], false),
                        font_base(v->seq[SEQ_CHAR_MAP], true)};
    /* The cursor's skew moves it to the right. */
    uint32_t cursor = (pair(v->crtc, CRTC_CURSOR) + (v->crtc[CRTC_CURSOR_END] >> 5 & 3)) & 0xffff;
    bool cursor_row = d->cursor_on && cursor_in_row(v, row);
    bool underline_row = (mode & ATTR_MONO) && row == (v->crtc[CRTC_UNDERLINE] & 31u);
    unsigned scale = d->half ? 2 : 1;
    uint32_t *to = d->line;

    for (unsigned column = 0; column <= d->columns; column++) {
        uint32_t word = fetch(v, address(v, count + column, 0));
        uint8_t glyph = (uint8_t)word, attr = (uint8_t)(word >> 8);
        unsigned fore = attr & 15, back = attr >> 4;
        uint8_t bits = (uint8_t)(fetch(v, font[attr >> 3 & 1] + glyph * 32u + row) >> 16);
        bool ninth = (mode & ATTR_LINE_GRAPHICS) && (glyph & 0xe0) == 0xc0 && (bits & 1);

        if (mode & ATTR_BLINK) {
            back &= 7;
            if ((attr & 0x80) && !d->blink_on)
                fore = back;
        }
        if ((underline_row && (attr & 0x77) == UNDERLINED) ||
            (cursor_row && ((count + column) & 0xffff) == cursor)) {
            bits = 0xff;
            ninth = true;
        }
        uint32_t ink = d->colours[fore], paper = d->colours[back];
        for (unsigned dot = 0; dot < d->dots; dot++) {
            bool set = dot < 8 ? bits >> (7 - dot) & 1 : ninth;
            for (unsigned i = 0; i < scale; i++)
                *to++ = set ? ink : paper;
        }
    }
}

/* ---- Graphics ---- */

static void put(uint32_t **to, uint32_t pixel, unsigned times)
{
    while (times--)
        *(*to)++ = pixel;
}

/* One character clock of eight dots: what the shift registers make of the four planes. */
static void graphics_line(struct drawing *d, uint32_t count, unsigned row)
{
    const struct vga *v = d->vga;
    uint8_t mode = v->gfx[GFX_MODE];
    unsigned scale = d->half ? 2 : 1;
    uint32_t *to = d->line;

    for (unsigned column = 0; column <= d->columns; column++) {
        uint32_t word = fetch(v, address(v, count + column, row));
        if (mode & SHIFT_256) {
            for (unsigned i = 0; i < 4; i++)
                put(&to, d->colours[word >> (8 * i) & 0xff], 2 * scale);
        } else if (mode & SHIFT_PAIRS) {
            /* Planes 0 and 1 in turn give the low two bits, planes 2 and 3 the high ones. */
            for (unsigned i = 0; i < 8; i++) {
                unsigned plane = i / 4, shift = 6 - 2 * (i % 4);
                unsigned low = word >> (8 * plane + shift) & 3;
                unsigned high = word >> (8 * plane + 16 + shift) & 3;
                put(&to, d->colours[low | high << 2], scale);
            }
        } else {
            for (unsigned bit = 8; bit-- > 0;) {
                unsigned index = (word >> bit & 1) | (word >> (bit + 8) & 1) << 1 |
                                 (word >> (bit + 16) & 1) << 2 | (word >> (bit + 24) & 1) << 3;
                put(&to, d->colours[index], scale);
            }
        }
    }
}

/* ---- The screen ---- */

/* Dots by which the line is moved to the left. */
static unsigned panning(const struct drawing *d)
{
    unsigned pan = d->vga->attr[ATTR_PAN];
    if (d->dots == 9)
        pan = pan >= 8 ? 0 : pan + 1;
    else
        pan &= 7;
    return d->half ? 2 * pan : pan;
}

static void draw_vga(struct drawing *d, struct display *display)
{
    const struct vga *v = d->vga;
    const uint8_t *c = v->crtc;
    unsigned max_row = c[CRTC_MAX_SCAN] & 31, repeat = c[CRTC_MAX_SCAN] & 0x80 ? 2 : 1;
    unsigned row = c[CRTC_PRESET] & 31, split = line_compare(c), pan = panning(d), repeated = 0;
    uint32_t count = pair(c, CRTC_START) + (c[CRTC_PRESET] >> 5 & 3);
    uint32_t step = c[CRTC_OFFSET] * 2u;

    for (unsigned y = 0; y < d->height; y++) {
        if (repeated == 0) {
            if (d->text)
                text_line(d, count, row);
            else
                graphics_line(d, count, row);
        }
        display_put_line(display, y, d->line + pan);
        if (y == split) {
            count = row = repeated = 0;
            if (v->attr[ATTR_MODE] & ATTR_PAN_TOP)
                pan = 0;
            continue;
        }
        if (++repeated < repeat)
            continue;
        repeated = 0;
        if (row == max_row) {
            row = 0;
            count += step;
        } else {
            row = (row + 1) & 31;
        }
    }
}

/* VBE with four planes: lines follow each other without any of the CRTC's arithmetic. */
static void draw_vbe_planes(struct drawing *d, struct display *display)
{
    const struct vga *v = d->vga;
    uint32_t line = v->vbe[VBE_VIRT_WIDTH] / 8u;
    unsigned x = v->vbe[VBE_X_OFFSET];
    const uint32_t *words = (const uint32_t *)(const void *)v->vram;
    for (unsigned y = 0; y < d->height; y++) {
        size_t at = (size_t)(y + v->vbe[VBE_Y_OFFSET]) * line;
        for (unsigned i = 0; i < d->width; i++) {
            size_t where = at + (i + x) / 8;
            uint32_t word = where < v->vram_size / 4 ? words[where] : 0;
            unsigned bit = 7 - (i + x) % 8;
            d->line[i] = d->colours[(word >> bit & 1) | (word >> (bit + 8) & 1) << 1 |
                                    (word >> (bit + 16) & 1) << 2 | (word >> (bit + 24) & 1) << 3];
        }
        display_put_line(display, y, d->line);
    }
}

static void describe_linear(const struct vga *v, struct display_linear *l)
{
    const uint16_t *r = v->vbe;
    uint32_t bytes = (r[VBE_BPP] + 7u) / 8;
    l->pitch = vbe_pitch(v);
    l->width = r[VBE_XRES];
    l->height = r[VBE_YRES];
    l->base = v->vram + (size_t)r[VBE_Y_OFFSET] * l->pitch + r[VBE_X_OFFSET] * bytes;
    /* The last line of a picture that begins inside a line may end beyond memory. */
    while (l->height &&
           (size_t)(l->base - v->vram) + (l->height - 1) * l->pitch + l->width * bytes >
               v->vram_size)
        l->height--;
    switch (r[VBE_BPP]) {
    case 8:
        l->format = DISPLAY_INDEXED8;
        for (unsigned i = 0; i < 256; i++)
            l->palette[i] = vga_dac_colour(v, i);
        break;
    case 15:
        l->format = DISPLAY_RGB555;
        break;
    case 16:
        l->format = DISPLAY_RGB565;
        break;
    case 24:
        l->format = DISPLAY_RGB888;
        break;
    default:
        l->format = DISPLAY_XRGB8888;
        break;
    }
}

/* Size and phase. False: there is no picture. */
static bool measure(struct drawing *d, uint64_t frame)
{
    const struct vga *v = d->vga;
    d->text = !(v->gfx[GFX_MISC] & 1);
    d->cursor_on = !(frame / CURSOR_FRAMES & 1);
    d->blink_on = !(frame / BLINK_FRAMES & 1);
    if (vbe_on(v)) {
        d->text = false;
        d->width = v->vbe[VBE_XRES];
        d->height = v->vbe[VBE_YRES];
        return true;
    }
    d->half = v->seq[SEQ_CLOCKING] & CLOCK_HALF;
    d->dots = d->text && !(v->seq[SEQ_CLOCKING] & CLOCK_8_DOTS) ? 9 : 8;
    d->columns = v->crtc[1] + 1u;
    d->width = d->columns * d->dots * (d->half ? 2 : 1);
    d->height = lines_shown(v->crtc);
    return v->crtc[0] && (v->seq[SEQ_RESET] & 3) == 3 && d->width <= DISPLAY_MAX_WIDTH;
}

bool vga_refresh(struct vga *v, struct display *display, struct display_linear *linear)
{
    uint64_t frame = vclock_ns(v->env->clock) / FRAME_NS;
    uint64_t blink = frame / CURSOR_FRAMES;
    if (vbe_linear(v)) {
        describe_linear(v, linear);
        v->touched = true; /* for when planes are shown again */
        return true;
    }
    /* The guest may write the planes through the frame buffer's BAR, too, of which nobody tells. */
    if (!v->touched && (blink == v->drawn_blink || (v->gfx[GFX_MISC] & 1)) &&
        ++v->looks < LOOKS_MAX)
        return false;
    v->looks = 0;

    struct drawing drawing, *d = &drawing;
    d->vga = v;
    if (!measure(d, frame) || !display_resize(display, d->width, d->height)) {
        display_fill(display, 0);
    } else if ((v->seq[SEQ_CLOCKING] & CLOCK_SCREEN_OFF) || !(v->attr_index & ATTR_PALETTE_ON)) {
        display_fill(display, 0);
    } else {
        set_colours(d);
        if (vbe_on(v))
            draw_vbe_planes(d, display);
        else
            draw_vga(d, display);
    }
    v->touched = false;
    v->drawn_blink = blink;
    return false;
}
