#include "dev/svga.h"

#include <stdlib.h>
#include <string.h>

#include "dev/svga_internal.h"
#include "util/util.h"

#define ID_2            0x90000002u
#define PORTS_SIZE      16
#define PORT_INDEX      0
#define PORT_VALUE      1
#define PORT_IRQ_STATUS 8
#define GMR_LIST_MAX    4096
#define MEMORY_SIZE     (SVGA_VRAM_SIZE + (SVGA_GMR_PAGES << PAGE_SHIFT))

static const uint32_t capabilities =
    SVGA_CAP_RECT_FILL | SVGA_CAP_RECT_COPY | SVGA_CAP_CURSOR | SVGA_CAP_CURSOR_BYPASS |
    SVGA_CAP_CURSOR_BYPASS_2 | SVGA_CAP_8BIT_EMULATION | SVGA_CAP_ALPHA_CURSOR |
    SVGA_CAP_EXTENDED_FIFO | SVGA_CAP_PITCHLOCK | SVGA_CAP_IRQMASK | SVGA_CAP_GMR |
    SVGA_CAP_TRACES | SVGA_CAP_GMR2 | SVGA_CAP_SCREEN_OBJECT_2;

void svga_odd(struct svga *s, const char *what, uint32_t value)
{
    if (log_on(s->vga.env->log, LOG_DEV))
        log_write(s->vga.env->log, LOG_DEV, "SVGA: unknown or impossible %s %#x", what, value);
}

static void update_interrupt(struct svga *s)
{
    pci_set_intx(&s->pci, s->irq_status & s->irq_mask);
}

void svga_raise(struct svga *s, uint32_t flags)
{
    s->irq_status |= flags;
    update_interrupt(s);
}

uint32_t svga_pitch(const struct svga *s)
{
    return s->pitchlock ? s->pitchlock : s->width * ((s->bpp + 7) / 8);
}

/* ---- Registers ---- */

static uint32_t depth(const struct svga *s)
{
    return s->bpp == 32 ? 24 : s->bpp;
}

/* Bits of red, green or blue in a pixel. */
static uint32_t colour_mask(const struct svga *s, unsigned index)
{
    static const uint32_t wide[] = {0xff0000, 0x00ff00, 0x0000ff};
    static const uint32_t of_16[] = {0xf800, 0x07e0, 0x001f};
    static const uint32_t of_15[] = {0x7c00, 0x03e0, 0x001f};
    switch (s->bpp) {
    case 8:
        return 0;
    case 15:
        return of_15[index];
    case 16:
        return of_16[index];
    default:
        return wide[index];
    }
}

static uint32_t read_register(struct svga *s, uint32_t index)
{
    switch (index) {
    case SVGA_REG_ID:
        return s->id;
    case SVGA_REG_ENABLE:
        return s->enable;
    case SVGA_REG_WIDTH:
    case SVGA_REG_DISPLAY_WIDTH:
        return s->width;
    case SVGA_REG_HEIGHT:
    case SVGA_REG_DISPLAY_HEIGHT:
        return s->height;
    case SVGA_REG_MAX_WIDTH:
        return DISPLAY_MAX_WIDTH;
    case SVGA_REG_MAX_HEIGHT:
        return DISPLAY_MAX_HEIGHT;
    case SVGA_REG_DEPTH:
        return depth(s);
    case SVGA_REG_BITS_PER_PIXEL:
        return s->bpp;
    case SVGA_REG_PSEUDOCOLOR:
        return s->bpp == 8;
    case SVGA_REG_RED_MASK:
    case SVGA_REG_GREEN_MASK:
    case SVGA_REG_BLUE_MASK:
        return colour_mask(s, index - SVGA_REG_RED_MASK);
    case SVGA_REG_BYTES_PER_LINE:
        return svga_pitch(s);
    case SVGA_REG_FB_START:
        return pci_get32(&s->pci, PCI_BAR0 + 4) & ~15u;
    case SVGA_REG_VRAM_SIZE:
        return s->vga.vram_size;
    case SVGA_REG_FB_SIZE:
        return (uint32_t)MIN((uint64_t)svga_pitch(s) * s->height, s->vga.vram_size);
    case SVGA_REG_CAPABILITIES:
        return capabilities;
    case SVGA_REG_MEM_START:
        return pci_get32(&s->pci, PCI_BAR0 + 8) & ~15u;
    case SVGA_REG_MEM_SIZE:
        return SVGA_FIFO_SIZE;
    case SVGA_REG_CONFIG_DONE:
        return s->config_done;
    case SVGA_REG_BUSY:
        return svga_fifo_run(s);
    case SVGA_REG_GUEST_ID:
        return s->guest_id;
    case SVGA_REG_CURSOR_ID:
        return s->cursor_id;
    case SVGA_REG_CURSOR_X:
        return s->cursor_x;
    case SVGA_REG_CURSOR_Y:
        return s->cursor_y;
    case SVGA_REG_CURSOR_ON:
        return s->cursor_on;
    case SVGA_REG_HOST_BITS_PER_PIXEL:
        return 32;
    case SVGA_REG_SCRATCH_SIZE:
        return SVGA_SCRATCH;
    case SVGA_REG_MEM_REGS:
        return SVGA_FIFO_NUM_REGS;
    case SVGA_REG_NUM_DISPLAYS:
        return 1;
    case SVGA_REG_PITCHLOCK:
        return s->pitchlock;
    case SVGA_REG_IRQMASK:
        return s->irq_mask;
    case SVGA_REG_NUM_GUEST_DISPLAYS:
        return s->num_guest_displays;
    case SVGA_REG_DISPLAY_ID:
        return s->display_id;
    case SVGA_REG_DISPLAY_IS_PRIMARY:
        return 1;
    case SVGA_REG_GMR_ID:
        return s->gmr_id;
    case SVGA_REG_GMR_MAX_IDS:
        return SVGA_GMRS;
    case SVGA_REG_GMR_MAX_DESCRIPTOR_LENGTH:
        return GMR_LIST_MAX;
    case SVGA_REG_TRACES:
        return s->traces;
    case SVGA_REG_GMRS_MAX_PAGES:
        return SVGA_GMR_PAGES;
    case SVGA_REG_MEMORY_SIZE:
        return MEMORY_SIZE;
    case SVGA_PALETTE_BASE ... SVGA_PALETTE_BASE + SVGA_PALETTE_REGS - 1:
        return s->palette[index - SVGA_PALETTE_BASE];
    case SVGA_SCRATCH_BASE ... SVGA_SCRATCH_BASE + SVGA_SCRATCH - 1:
        return s->scratch[index - SVGA_SCRATCH_BASE];
    default:
        return 0;
    }
}

static void set_enable(struct svga *s, uint32_t value)
{
    s->enable = value & 3; /* bit 1: keep the VGA's picture */
    s->vga.touched = true;
    if (!s->enable)
        s->screen_on = false;
}

static void write_register(struct svga *s, uint32_t index, uint32_t value)
{
    switch (index) {
    case SVGA_REG_ID: /* the highest version that both know stays */
        if (value >= 0x90000000u && value <= ID_2)
            s->id = value;
        break;
    case SVGA_REG_ENABLE:
        set_enable(s, value);
        break;
    case SVGA_REG_WIDTH:
        s->width = MIN(value, (uint32_t)DISPLAY_MAX_WIDTH);
        break;
    case SVGA_REG_HEIGHT:
        s->height = MIN(value, (uint32_t)DISPLAY_MAX_HEIGHT);
        break;
    case SVGA_REG_BITS_PER_PIXEL:
        if (value == 8 || value == 15 || value == 16 || value == 24 || value == 32)
            s->bpp = value;
        else
            svga_odd(s, "number of bits in a pixel", value);
        break;
    case SVGA_REG_CONFIG_DONE:
        s->config_done = value & 1;
        if (s->config_done)
            svga_fifo_start(s);
        break;
    case SVGA_REG_SYNC:
        svga_fifo_run(s);
        break;
    case SVGA_REG_GUEST_ID:
        s->guest_id = value;
        break;
    case SVGA_REG_CURSOR_ID:
        s->cursor_id = value;
        break;
    case SVGA_REG_CURSOR_X:
        s->cursor_x = value;
        break;
    case SVGA_REG_CURSOR_Y:
        s->cursor_y = value;
        break;
    case SVGA_REG_CURSOR_ON:
        s->cursor_on = value;
        break;
    case SVGA_REG_PITCHLOCK:
        s->pitchlock = value <= DISPLAY_MAX_WIDTH * 4 ? value : 0;
        break;
    case SVGA_REG_IRQMASK:
        s->irq_mask = value;
        update_interrupt(s);
        break;
    case SVGA_REG_NUM_GUEST_DISPLAYS:
        s->num_guest_displays = value;
        break;
    case SVGA_REG_DISPLAY_ID:
        s->display_id = value;
        break;
    case SVGA_REG_GMR_ID:
        s->gmr_id = value;
        break;
    case SVGA_REG_GMR_DESCRIPTOR:
        svga_gmr_from_list(s, s->gmr_id, value);
        break;
    case SVGA_REG_TRACES:
        s->traces = value & 1;
        break;
    case SVGA_PALETTE_BASE ... SVGA_PALETTE_BASE + SVGA_PALETTE_REGS - 1:
        s->palette[index - SVGA_PALETTE_BASE] = (uint8_t)value;
        break;
    case SVGA_SCRATCH_BASE ... SVGA_SCRATCH_BASE + SVGA_SCRATCH - 1:
        s->scratch[index - SVGA_SCRATCH_BASE] = value;
        break;
    default:
        if (index >= SVGA_REGS)
            svga_odd(s, "register", index);
        break;
    }
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct svga *s = opaque;
    switch (offset) {
    case PORT_INDEX:
        return s->index;
    case PORT_VALUE:
        return read_register(s, s->index);
    case PORT_IRQ_STATUS:
        return s->irq_status;
    default:
        return 0;
    }
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct svga *s = opaque;
    switch (offset) {
    case PORT_INDEX:
        s->index = (uint32_t)value;
        break;
    case PORT_VALUE:
        write_register(s, s->index, (uint32_t)value);
        break;
    case PORT_IRQ_STATUS:
        s->irq_status &= ~(uint32_t)value;
        update_interrupt(s);
        break;
    default:
        break;
    }
}

static const struct io_ops port_ops = {port_read, port_write, 4};

/* ---- The picture ---- */

static void describe(const struct svga *s, struct display_linear *l)
{
    static const struct {
        uint8_t bpp;
        enum display_format format;
    } formats[] = {{8, DISPLAY_INDEXED8},
                   {15, DISPLAY_RGB555},
                   {16, DISPLAY_RGB565},
                   {24, DISPLAY_RGB888},
                   {32, DISPLAY_XRGB8888}};
    unsigned bpp = s->screen_on ? 32 : s->bpp;
    l->base = s->vga.vram + (s->screen_on ? s->screen_offset : 0);
    l->width = s->screen_on ? s->screen_width : s->width;
    l->height = s->screen_on ? s->screen_height : s->height;
    l->pitch = MAX(s->screen_on ? s->screen_pitch : svga_pitch(s), 1u);
    /* A pitch that is less than a line lets the last line end later. */
    size_t line = (size_t)l->width * ((bpp + 7) / 8),
           room = s->vga.vram_size - (size_t)(l->base - s->vga.vram);
    if (line > room)
        l->height = 0;
    else
        l->height = (unsigned)MIN(l->height, (room - line) / l->pitch + 1);
    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
        if (formats[i].bpp == bpp)
            l->format = formats[i].format;
    for (unsigned i = 0; i < 256 && bpp == 8; i++)
        l->palette[i] = (uint32_t)s->palette[3 * i] << 16 | (uint32_t)s->palette[3 * i + 1] << 8 |
                        s->palette[3 * i + 2];
}

static bool refresh(void *opaque, struct display *display, struct display_linear *linear)
{
    struct svga *s = opaque;
    svga_fifo_run(s);
    svga_cursor_show(s, display);
    if (!svga_shown(s))
        return vga_refresh(&s->vga, display, linear);
    describe(s, linear);
    return linear->height != 0;
}

const struct display_ops svga_display_ops = {refresh};

struct vga *svga_core(struct svga *s)
{
    return &s->vga;
}

/* ---- Life ---- */

static const struct state_field fields[] = {
    VGA_STATE(struct svga, vga),
    PCI_DEVICE_STATE(struct svga, pci),
    STATE(struct svga, index, 0),
    STATE(struct svga, id, ID_2),
    STATE(struct svga, enable, 0),
    STATE(struct svga, width, 0),
    STATE(struct svga, height, 0),
    STATE(struct svga, bpp, 32),
    STATE(struct svga, pitchlock, 0),
    STATE(struct svga, config_done, 0),
    STATE(struct svga, guest_id, 0),
    STATE(struct svga, cursor_id, 0),
    STATE(struct svga, cursor_x, 0),
    STATE(struct svga, cursor_y, 0),
    STATE(struct svga, cursor_on, 0),
    STATE(struct svga, irq_mask, 0),
    STATE(struct svga, irq_status, 0),
    STATE(struct svga, gmr_id, 0),
    STATE(struct svga, traces, 1),
    STATE(struct svga, num_guest_displays, 1),
    STATE(struct svga, display_id, 0),
    STATE_ARRAY(struct svga, scratch, 0),
    STATE_ARRAY(struct svga, palette, 0),
    STATE(struct svga, screen_on, 0),
    STATE(struct svga, screen_width, 0),
    STATE(struct svga, screen_height, 0),
    STATE(struct svga, screen_offset, 0),
    STATE(struct svga, screen_pitch, 0),
    STATE(struct svga, gmrfb_id, SVGA_GMR_NULL),
    STATE(struct svga, gmrfb_offset, 0),
    STATE(struct svga, gmrfb_pitch, 0),
    STATE(struct svga, gmrfb_format, 0),
    STATE_ARRAY(struct svga, gmr_start, 0),
    STATE_ARRAY(struct svga, gmr_count, 0),
    STATE(struct svga, gmr_used, 0),
    STATE_ARRAY(struct svga, gmr_pool, 0),
    STATE(struct svga, image_width, 0),
    STATE(struct svga, image_height, 0),
    STATE(struct svga, image_hot_x, 0),
    STATE(struct svga, image_hot_y, 0),
    STATE_ARRAY(struct svga, image, 0),
};

static void after_reset(void *opaque)
{
    struct svga *s = opaque;
    timer_cancel(&s->more);
    vga_after_reset(&s->vga);
    pci_device_reset(&s->pci);
    memset(s->fifo, 0, SVGA_FIFO_SIZE);
    svga_fifo_start(s);
}

static void after_load(void *opaque)
{
    struct svga *s = opaque;
    vga_after_load(&s->vga);
    svga_gmr_check(s);
    svga_screen_check(s);
    s->width = MIN(s->width, (uint32_t)DISPLAY_MAX_WIDTH);
    s->height = MIN(s->height, (uint32_t)DISPLAY_MAX_HEIGHT);
    s->image_width = MIN(s->image_width, (uint32_t)SVGA_CURSOR_MAX);
    s->image_height = MIN(s->image_height, (uint32_t)SVGA_CURSOR_MAX);
    s->image_changed = true;
    pci_device_loaded(&s->pci);
    update_interrupt(s);
    timer_set(&s->more, vclock_ns(s->vga.env->clock));
}

static const struct state_table table = {
    .name = "svga",
    .version = 1,
    .size = sizeof(struct svga),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

static const struct pci_identity identity = {
    .name = "SVGA II",
    .vendor = 0x15ad,
    .device = 0x0405,
    .class_code = 0x030000,
    .subsystem_vendor = 0x15ad,
    .subsystem = 0x0405,
    .interrupt_pin = 1,
};

static void on_more(void *opaque)
{
    svga_fifo_run(opaque);
}

struct svga *svga_create(struct device_env *env, struct pci_bus *pci, unsigned devfn,
                         const void *rom, size_t rom_size)
{
    struct svga *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pci_device_init(pci, &s->pci, devfn, &identity);
    pci_add_bar(&s->pci, 0, true, PORTS_SIZE, &port_ops, s);
    struct physmem_region *vram = pci_add_ram_bar(&s->pci, 1, PCI_BAR_PREFETCH, SVGA_VRAM_SIZE);
    struct physmem_region *fifo = pci_add_ram_bar(&s->pci, 2, 0, SVGA_FIFO_SIZE);
    if (!vram || !fifo || (rom && !pci_add_rom(&s->pci, rom, rom_size))) {
        free(s);
        return NULL;
    }
    s->fifo = fifo->host;
    timer_init(&s->more, env->timers, on_more, s);
    vga_init(&s->vga, env, vram->host, SVGA_VRAM_SIZE, true);
    s->vga.in_physmem = true;
    device_register(env, &table, s, free);
    return s;
}
