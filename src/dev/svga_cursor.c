#include <string.h>

#include "dev/svga_internal.h"
#include "util/util.h"

/* id, hot spot x and y, width, height; false: too large, nothing changes */
static bool begin(struct svga *s, const uint32_t *words)
{
    if (words[3] > SVGA_CURSOR_MAX || words[4] > SVGA_CURSOR_MAX) {
        svga_odd(s, "size of the pointer", words[3]);
        return false;
    }
    s->image_hot_x = MIN(words[1], words[3]);
    s->image_hot_y = MIN(words[2], words[4]);
    s->image_width = words[3];
    s->image_height = words[4];
    s->image_changed = true;
    return true;
}

void svga_cursor_alpha(struct svga *s, const uint32_t *words, const uint32_t *pixels)
{
    if (!begin(s, words))
        return;
    for (uint32_t i = 0; i < s->image_width * s->image_height; i++) {
        /* Colours come multiplied by alpha. */
        uint32_t alpha = pixels[i] >> 24, pixel = alpha << 24;
        for (unsigned shift = 0; alpha && shift < 24; shift += 8)
            pixel |= MIN((pixels[i] >> shift & 0xff) * 255 / alpha, 255u) << shift;
        s->image[i] = pixel;
    }
}

/* Pixel x of a line of 1, 8, 16, 24 or 32 bits each, as 0xRRGGBB. One bit: all or nothing. */
static uint32_t mask_pixel(const uint32_t *line, uint32_t x, uint32_t depth)
{
    const uint8_t *bytes = (const uint8_t *)line;
    if (depth == 1)
        return bytes[x / 8] >> (7 - x % 8) & 1 ? 0xffffff : 0;
    uint32_t value = 0;
    memcpy(&value, bytes + (size_t)x * (depth / 8), depth / 8);
    if (depth == 16)
        value = (value & 0xf800) << 8 | (value & 0x07e0) << 5 | (value & 0x001f) << 3;
    return value & 0xffffff;
}

/* ..., depth of the AND mask, depth of the XOR mask. Where AND keeps the screen and XOR changes
 * it, the pointer inverts, which no viewer can: it becomes black. */
void svga_cursor_masks(struct svga *s, const uint32_t *words, const uint32_t *and_mask,
                       const uint32_t *xor_mask)
{
    if (!begin(s, words))
        return;
    uint32_t and_line = (words[5] * s->image_width + 31) / 32;
    uint32_t xor_line = (words[6] * s->image_width + 31) / 32;
    for (uint32_t y = 0; y < s->image_height; y++) {
        for (uint32_t x = 0; x < s->image_width; x++) {
            uint32_t keep = mask_pixel(and_mask + y * and_line, x, words[5]);
            uint32_t paint = mask_pixel(xor_mask + y * xor_line, x, words[6]);
            uint32_t pixel = 0xff000000 | paint;
            if (keep)
                pixel = paint ? 0xff000000 : 0;
            s->image[y * s->image_width + x] = pixel;
        }
    }
}

static bool visible(const struct svga *s)
{
    uint32_t min = svga_fifo_reg(s, SVGA_FIFO_MIN);
    if (!svga_shown(s))
        return false;
    if (s->config_done && min > 4 * SVGA_FIFO_CURSOR_LAST_UPDATED &&
        svga_fifo_reg(s, SVGA_FIFO_CURSOR_COUNT))
        return svga_fifo_reg(s, SVGA_FIFO_CURSOR_ON) & 1;
    return s->cursor_on & 1;
}

void svga_cursor_show(struct svga *s, struct display *display)
{
    bool show = visible(s) && s->image_width && s->image_height;
    if (show == s->cursor_shown && !(show && s->image_changed))
        return;
    const struct display_cursor cursor = {s->image_width, s->image_height, s->image_hot_x,
                                          s->image_hot_y, s->image};
    display_set_cursor(display, show ? &cursor : NULL);
    s->cursor_shown = show;
    s->image_changed = false;
}
