/* What the files of the SVGA II adapter share. Names of registers, commands and capabilities are
 * those of VMware's public header. Device lock held everywhere. */
#ifndef TRIVISOR_DEV_SVGA_INTERNAL_H
#define TRIVISOR_DEV_SVGA_INTERNAL_H

#include "dev/svga.h"

#define SVGA_VRAM_SIZE    (32u << 20)
#define SVGA_FIFO_SIZE    (512u << 10)
#define SVGA_GMRS         64
#define SVGA_GMR_PAGES    65536u /* of all regions together */
#define SVGA_SCRATCH      64
#define SVGA_PALETTE_REGS 768
#define SVGA_CURSOR_MAX   64

enum svga_register {
    SVGA_REG_ID,
    SVGA_REG_ENABLE,
    SVGA_REG_WIDTH,
    SVGA_REG_HEIGHT,
    SVGA_REG_MAX_WIDTH,
    SVGA_REG_MAX_HEIGHT,
    SVGA_REG_DEPTH,
    SVGA_REG_BITS_PER_PIXEL,
    SVGA_REG_PSEUDOCOLOR,
    SVGA_REG_RED_MASK,
    SVGA_REG_GREEN_MASK,
    SVGA_REG_BLUE_MASK,
    SVGA_REG_BYTES_PER_LINE,
    SVGA_REG_FB_START,
    SVGA_REG_FB_OFFSET,
    SVGA_REG_VRAM_SIZE,
    SVGA_REG_FB_SIZE,
    SVGA_REG_CAPABILITIES,
    SVGA_REG_MEM_START,
    SVGA_REG_MEM_SIZE,
    SVGA_REG_CONFIG_DONE,
    SVGA_REG_SYNC,
    SVGA_REG_BUSY,
    SVGA_REG_GUEST_ID,
    SVGA_REG_CURSOR_ID,
    SVGA_REG_CURSOR_X,
    SVGA_REG_CURSOR_Y,
    SVGA_REG_CURSOR_ON,
    SVGA_REG_HOST_BITS_PER_PIXEL,
    SVGA_REG_SCRATCH_SIZE,
    SVGA_REG_MEM_REGS,
    SVGA_REG_NUM_DISPLAYS,
    SVGA_REG_PITCHLOCK,
    SVGA_REG_IRQMASK,
    SVGA_REG_NUM_GUEST_DISPLAYS,
    SVGA_REG_DISPLAY_ID,
    SVGA_REG_DISPLAY_IS_PRIMARY,
    SVGA_REG_DISPLAY_POSITION_X,
    SVGA_REG_DISPLAY_POSITION_Y,
    SVGA_REG_DISPLAY_WIDTH,
    SVGA_REG_DISPLAY_HEIGHT,
    SVGA_REG_GMR_ID,
    SVGA_REG_GMR_DESCRIPTOR,
    SVGA_REG_GMR_MAX_IDS,
    SVGA_REG_GMR_MAX_DESCRIPTOR_LENGTH,
    SVGA_REG_TRACES,
    SVGA_REG_GMRS_MAX_PAGES,
    SVGA_REG_MEMORY_SIZE,
    SVGA_REGS,

    SVGA_PALETTE_BASE = 1024,
    SVGA_SCRATCH_BASE = SVGA_PALETTE_BASE + SVGA_PALETTE_REGS,
};

enum svga_capability {
    SVGA_CAP_RECT_FILL = 0x00000001,
    SVGA_CAP_RECT_COPY = 0x00000002,
    SVGA_CAP_CURSOR = 0x00000020,
    SVGA_CAP_CURSOR_BYPASS = 0x00000040,
    SVGA_CAP_CURSOR_BYPASS_2 = 0x00000080,
    SVGA_CAP_8BIT_EMULATION = 0x00000100,
    SVGA_CAP_ALPHA_CURSOR = 0x00000200,
    SVGA_CAP_EXTENDED_FIFO = 0x00008000,
    SVGA_CAP_PITCHLOCK = 0x00020000,
    SVGA_CAP_IRQMASK = 0x00040000,
    SVGA_CAP_GMR = 0x00100000,
    SVGA_CAP_TRACES = 0x00200000,
    SVGA_CAP_GMR2 = 0x00400000,
    SVGA_CAP_SCREEN_OBJECT_2 = 0x00800000,
};

/* The FIFO's first words are registers. */
enum svga_fifo_register {
    SVGA_FIFO_MIN,
    SVGA_FIFO_MAX,
    SVGA_FIFO_NEXT_CMD,
    SVGA_FIFO_STOP,
    SVGA_FIFO_CAPABILITIES,
    SVGA_FIFO_FLAGS,
    SVGA_FIFO_FENCE,
    SVGA_FIFO_3D_HWVERSION,
    SVGA_FIFO_PITCHLOCK,
    SVGA_FIFO_CURSOR_ON,
    SVGA_FIFO_CURSOR_X,
    SVGA_FIFO_CURSOR_Y,
    SVGA_FIFO_CURSOR_COUNT,
    SVGA_FIFO_CURSOR_LAST_UPDATED,
    SVGA_FIFO_RESERVED,
    SVGA_FIFO_CURSOR_SCREEN_ID,
    SVGA_FIFO_GUEST_3D_HWVERSION = 288,
    SVGA_FIFO_FENCE_GOAL,
    SVGA_FIFO_BUSY,
    SVGA_FIFO_NUM_REGS,
};

enum svga_fifo_capability {
    SVGA_FIFO_CAP_FENCE = 0x001,
    SVGA_FIFO_CAP_PITCHLOCK = 0x004,
    SVGA_FIFO_CAP_CURSOR_BYPASS_3 = 0x010,
    SVGA_FIFO_CAP_ESCAPE = 0x020,
    SVGA_FIFO_CAP_RESERVE = 0x040,
    SVGA_FIFO_CAP_SCREEN_OBJECT = 0x080,
    SVGA_FIFO_CAP_GMR2 = 0x100,
    SVGA_FIFO_CAP_SCREEN_OBJECT_2 = 0x200,
};

enum svga_irq {
    SVGA_IRQFLAG_ANY_FENCE = 1,
    SVGA_IRQFLAG_FIFO_PROGRESS = 2,
    SVGA_IRQFLAG_FENCE_GOAL = 4,
};

#define SVGA_GMR_NULL        0xffffffffu
#define SVGA_GMR_FRAMEBUFFER 0xfffffffeu

struct svga {
    struct vga vga; /* its memory is the frame buffer */
    struct pci_device pci;
    struct timer more; /* goes on with a long FIFO */
    uint8_t *fifo;     /* SVGA_FIFO_SIZE bytes, which the guest writes at any time */

    uint32_t index, id, enable, width, height, bpp, pitchlock, config_done, guest_id;
    uint32_t cursor_id, cursor_x, cursor_y, cursor_on, irq_mask, irq_status, gmr_id, traces;
    uint32_t num_guest_displays, display_id;
    uint32_t scratch[SVGA_SCRATCH];
    uint8_t palette[SVGA_PALETTE_REGS];

    /* The one screen object: where it is in the frame buffer. */
    bool screen_on;
    uint32_t screen_width, screen_height, screen_offset, screen_pitch;
    /* What the blits take for the other side. */
    uint32_t gmrfb_id, gmrfb_offset, gmrfb_pitch, gmrfb_format;
    /* Pages of region i: pool[gmr_start[i]] and on, gmr_count[i] of them. */
    uint32_t gmr_start[SVGA_GMRS], gmr_count[SVGA_GMRS], gmr_used;
    uint64_t gmr_pool[SVGA_GMR_PAGES];
    /* The pointer's image as 0xAARRGGBB. */
    uint32_t image_width, image_height, image_hot_x, image_hot_y;
    uint32_t image[SVGA_CURSOR_MAX * SVGA_CURSOR_MAX];

    bool image_changed, cursor_shown; /* towards the display */
};

static inline bool svga_shown(const struct svga *s)
{
    return s->enable == 1 && (s->screen_on || (s->width && s->height));
}

/* Bytes from line to line of the picture without a screen object. */
uint32_t svga_pitch(const struct svga *s);
void svga_raise(struct svga *s, uint32_t flags);
void svga_odd(struct svga *s, const char *what, uint32_t value);

/* svga_fifo.c: the driver has set the FIFO up; carry out what is in it. True: some is left for
 * later. */
void svga_fifo_start(struct svga *s);
bool svga_fifo_run(struct svga *s);
uint32_t svga_fifo_reg(const struct svga *s, unsigned index);

/* svga_gmr.c */
void svga_gmr_define(struct svga *s, uint32_t id, uint32_t pages);
void svga_gmr_set_page(struct svga *s, uint32_t id, uint32_t index, uint64_t page);
/* The list at a page of guest memory, as of the first version of the interface; 0: none. */
void svga_gmr_from_list(struct svga *s, uint32_t id, uint32_t page);
bool svga_gmr_read(const struct svga *s, uint32_t id, uint64_t offset, void *to, uint32_t size);
bool svga_gmr_write(struct svga *s, uint32_t id, uint64_t offset, const void *from, uint32_t size);
/* Make what a snapshot says harmless. */
void svga_gmr_check(struct svga *s);

/* svga_screen.c: `words` are the command's arguments. Returns how many bytes were copied. */
void svga_screen_define(struct svga *s, const uint32_t *words, unsigned count);
uint32_t svga_blit_to_screen(struct svga *s, const uint32_t *words);
uint32_t svga_blit_from_screen(struct svga *s, const uint32_t *words);
uint32_t svga_rect_copy(struct svga *s, const uint32_t *words);
uint32_t svga_rect_fill(struct svga *s, uint32_t colour, const uint32_t *words);
void svga_screen_check(struct svga *s);

/* svga_cursor.c: masks come line by line, each padded to 32 bits. */
void svga_cursor_alpha(struct svga *s, const uint32_t *words, const uint32_t *pixels);
void svga_cursor_masks(struct svga *s, const uint32_t *words, const uint32_t *and_mask,
                       const uint32_t *xor_mask);
void svga_cursor_show(struct svga *s, struct display *display);

#endif
