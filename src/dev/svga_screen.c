#include <string.h>

#include "dev/svga_internal.h"
#include "util/util.h"

#define LINE_MAX_BYTES (DISPLAY_MAX_WIDTH * 4)

/* The picture that rectangles mean: the screen object, or else the plain frame buffer. */
struct surface {
    uint8_t *base;
    uint32_t width, height, pitch, bytes;
};

/* A rectangle and where its first pixel comes from; signed, 64 bits, so that sums do not wrap. */
struct copy {
    int64_t x, y, width, height, from_x, from_y;
};

static bool fits(const struct svga *s, uint32_t width, uint32_t height, uint32_t offset,
                 uint32_t pitch, uint32_t bytes)
{
    return width && height && width <= DISPLAY_MAX_WIDTH && height <= DISPLAY_MAX_HEIGHT &&
           pitch >= width * bytes &&
           (uint64_t)offset + (uint64_t)pitch * height <= s->vga.vram_size;
}

static bool target(const struct svga *s, struct surface *to)
{
    if (s->screen_on)
        *to = (struct surface){s->vga.vram + s->screen_offset, s->screen_width, s->screen_height,
                               s->screen_pitch, 4};
    else
        *to = (struct surface){s->vga.vram, s->width, s->height, svga_pitch(s), (s->bpp + 7) / 8};
    return fits(s, to->width, to->height, 0, to->pitch, to->bytes);
}

/* Cut the rectangle to [0, width) x [0, height). False: nothing is left. */
static bool clip(struct copy *c, uint32_t width, uint32_t height)
{
    if (c->x < 0) {
        c->width += c->x;
        c->from_x -= c->x;
        c->x = 0;
    }
    if (c->y < 0) {
        c->height += c->y;
        c->from_y -= c->y;
        c->y = 0;
    }
    c->width = MIN(c->width, (int64_t)width - c->x);
    c->height = MIN(c->height, (int64_t)height - c->y);
    return c->width > 0 && c->height > 0;
}

/* structSize, id, flags, width, height, root x and y, backing store: region, offset, pitch */
void svga_screen_define(struct svga *s, const uint32_t *words, unsigned count)
{
    enum { ID = 1, FLAGS, WIDTH, HEIGHT, ROOT_X, ROOT_Y, GMR, OFFSET, PITCH };
    uint32_t offset = 0, pitch = 0;
    if (words[ID] != 0) {
        svga_odd(s, "screen object", words[ID]);
        return;
    }
    if (count > PITCH && words[GMR] == SVGA_GMR_FRAMEBUFFER) {
        offset = words[OFFSET];
        pitch = words[PITCH];
    }
    if (words[WIDTH] <= DISPLAY_MAX_WIDTH && pitch == 0)
        pitch = words[WIDTH] * 4;
    s->screen_on = fits(s, words[WIDTH], words[HEIGHT], offset, pitch, 4);
    if (!s->screen_on) {
        svga_odd(s, "size of a screen object", words[WIDTH]);
        return;
    }
    s->screen_width = words[WIDTH];
    s->screen_height = words[HEIGHT];
    s->screen_offset = offset;
    s->screen_pitch = pitch;
}

void svga_screen_check(struct svga *s)
{
    if (!fits(s, s->screen_width, s->screen_height, s->screen_offset, s->screen_pitch, 4))
        s->screen_on = false;
}

static uint32_t from_565(uint32_t v)
{
    uint32_t r = v >> 11 & 31, g = v >> 5 & 63, b = v & 31;
    return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
}

/* source x and y, left, top, right, bottom, screen; the source is the GMRFB */
uint32_t svga_blit_to_screen(struct svga *s, const uint32_t *words)
{
    struct surface to;
    struct copy c = {.x = (int32_t)words[2], .y = (int32_t)words[3]};
    c.width = (int32_t)words[4] - c.x;
    c.height = (int32_t)words[5] - c.y;
    c.from_x = (int32_t)words[0];
    c.from_y = (int32_t)words[1];
    uint32_t bytes = ((s->gmrfb_format & 0xff) + 7) / 8;
    if (words[6] != 0 || !s->screen_on || !target(s, &to) || !clip(&c, to.width, to.height) ||
        c.from_x < 0 || c.from_y < 0 || (bytes != 4 && bytes != 2))
        return 0;
    uint8_t line[LINE_MAX_BYTES];
    uint32_t size = (uint32_t)c.width * bytes;
    for (int64_t y = 0; y < c.height; y++) {
        uint64_t at = s->gmrfb_offset + (uint64_t)(c.from_y + y) * s->gmrfb_pitch +
                      (uint64_t)c.from_x * bytes;
        if (!svga_gmr_read(s, s->gmrfb_id, at, line, size))
            break;
        uint8_t *pixels = to.base + (size_t)(c.y + y) * to.pitch + (size_t)c.x * 4;
        if (bytes == 4)
            memcpy(pixels, line, size);
        for (int64_t x = 0; bytes == 2 && x < c.width; x++) {
            uint32_t pixel = from_565(line[2 * x] | line[2 * x + 1] << 8);
            memcpy(pixels + 4 * x, &pixel, sizeof pixel);
        }
        vga_written(&s->vga, pixels, (size_t)c.width * 4);
    }
    return size * (uint32_t)c.height;
}

/* destination x and y, left, top, right, bottom, screen; the destination is the GMRFB */
uint32_t svga_blit_from_screen(struct svga *s, const uint32_t *words)
{
    struct surface from;
    struct copy c = {.x = (int32_t)words[2], .y = (int32_t)words[3]};
    c.width = (int32_t)words[4] - c.x;
    c.height = (int32_t)words[5] - c.y;
    c.from_x = (int32_t)words[0];
    c.from_y = (int32_t)words[1];
    if (words[6] != 0 || !s->screen_on || !target(s, &from) || !clip(&c, from.width, from.height) ||
        c.from_x < 0 || c.from_y < 0 || (s->gmrfb_format & 0xff) != 32)
        return 0;
    for (int64_t y = 0; y < c.height; y++) {
        uint64_t at =
            s->gmrfb_offset + (uint64_t)(c.from_y + y) * s->gmrfb_pitch + (uint64_t)c.from_x * 4;
        if (!svga_gmr_write(s, s->gmrfb_id, at,
                            from.base + (size_t)(c.y + y) * from.pitch + (size_t)c.x * 4,
                            (uint32_t)c.width * 4))
            break;
    }
    return (uint32_t)(c.width * c.height) * 4;
}

/* source x and y, destination x and y, width, height */
uint32_t svga_rect_copy(struct svga *s, const uint32_t *words)
{
    struct surface to;
    struct copy c = {words[2], words[3], words[4], words[5], words[0], words[1]};
    if (!target(s, &to) || !clip(&c, to.width, to.height) || c.from_x >= to.width ||
        c.from_y >= to.height)
        return 0;
    c.width = MIN(c.width, to.width - c.from_x);
    c.height = MIN(c.height, to.height - c.from_y);
    uint32_t size = (uint32_t)c.width * to.bytes;
    bool upwards = c.y > c.from_y; /* the last line first, where they overlap */
    for (int64_t i = 0; i < c.height; i++) {
        int64_t y = upwards ? c.height - 1 - i : i;
        uint8_t *pixels = to.base + (size_t)(c.y + y) * to.pitch + (size_t)c.x * to.bytes;
        memmove(pixels, to.base + (size_t)(c.from_y + y) * to.pitch + (size_t)c.from_x * to.bytes,
                size);
        vga_written(&s->vga, pixels, size);
    }
    return size * (uint32_t)c.height;
}

/* x, y, width, height */
uint32_t svga_rect_fill(struct svga *s, uint32_t colour, const uint32_t *words)
{
    struct surface to;
    struct copy c = {words[0], words[1], words[2], words[3], 0, 0};
    if (!target(s, &to) || !clip(&c, to.width, to.height))
        return 0;
    for (int64_t y = 0; y < c.height; y++) {
        uint8_t *pixels = to.base + (size_t)(c.y + y) * to.pitch + (size_t)c.x * to.bytes;
        for (int64_t x = 0; x < c.width; x++)
            memcpy(pixels + (size_t)x * to.bytes, &colour, to.bytes);
        vga_written(&s->vga, pixels, (size_t)c.width * to.bytes);
    }
    return (uint32_t)(c.width * c.height) * to.bytes;
}
