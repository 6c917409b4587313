/*
 * The FIFO: a ring of words in memory that the guest writes at any time, with its bounds and
 * pointers in its first words. Each word is read once, each bound is checked at each use.
 *
 * A driver may make a command visible word by word: one that is not all there yet waits. How much
 * is copied in one go is limited, since this runs on the vCPU that asked, with the device lock
 * held; a timer goes on with the rest.
 */
#include <string.h>

#include "dev/svga_internal.h"
#include "util/util.h"

#define WORDS_MAX       (SVGA_FIFO_SIZE / 4)
#define BUDGET_BYTES    (16u << 20)
#define COMMAND_COST    512
#define GO_ON_NS        1000000
#define COMMANDS_3D     1040
#define CURSOR_SIDE_MAX 1024

enum svga_command {
    SVGA_CMD_UPDATE = 1,
    SVGA_CMD_RECT_FILL = 2,
    SVGA_CMD_RECT_COPY = 3,
    SVGA_CMD_RECT_ROP_COPY = 14,
    SVGA_CMD_DEFINE_CURSOR = 19,
    SVGA_CMD_DEFINE_ALPHA_CURSOR = 22,
    SVGA_CMD_UPDATE_VERBOSE = 25,
    SVGA_CMD_FRONT_ROP_FILL = 29,
    SVGA_CMD_FENCE = 30,
    SVGA_CMD_ESCAPE = 33,
    SVGA_CMD_DEFINE_SCREEN = 34,
    SVGA_CMD_DESTROY_SCREEN = 35,
    SVGA_CMD_DEFINE_GMRFB = 36,
    SVGA_CMD_BLIT_GMRFB_TO_SCREEN = 37,
    SVGA_CMD_BLIT_SCREEN_TO_GMRFB = 38,
    SVGA_CMD_ANNOTATION_FILL = 39,
    SVGA_CMD_ANNOTATION_COPY = 40,
    SVGA_CMD_DEFINE_GMR2 = 41,
    SVGA_CMD_REMAP_GMR2 = 42,
    SVGA_CMD_NOP = 45,
};

enum { REMAP_VIA_GMR = 1, REMAP_PPN64 = 2, REMAP_SINGLE = 4 };

/* Words of fixed arguments. */
static const uint8_t arguments[] = {
    [SVGA_CMD_UPDATE] = 4,          [SVGA_CMD_RECT_FILL] = 5,
    [SVGA_CMD_RECT_COPY] = 6,       [SVGA_CMD_RECT_ROP_COPY] = 7,
    [SVGA_CMD_DEFINE_CURSOR] = 7,   [SVGA_CMD_DEFINE_ALPHA_CURSOR] = 5,
    [SVGA_CMD_UPDATE_VERBOSE] = 5,  [SVGA_CMD_FRONT_ROP_FILL] = 6,
    [SVGA_CMD_FENCE] = 1,           [SVGA_CMD_ESCAPE] = 2,
    [SVGA_CMD_DEFINE_SCREEN] = 1,   [SVGA_CMD_DESTROY_SCREEN] = 1,
    [SVGA_CMD_DEFINE_GMRFB] = 4,    [SVGA_CMD_BLIT_GMRFB_TO_SCREEN] = 7,
    [SVGA_CMD_ANNOTATION_FILL] = 1, [SVGA_CMD_BLIT_SCREEN_TO_GMRFB] = 7,
    [SVGA_CMD_ANNOTATION_COPY] = 3, [SVGA_CMD_DEFINE_GMR2] = 2,
    [SVGA_CMD_REMAP_GMR2] = 4,
};

/* The part of the ring that holds commands, as it was at one look. */
struct ring {
    uint32_t min, max, next, stop; /* bytes */
};

static volatile uint32_t *word_at(const struct svga *s, uint32_t offset)
{
    return (volatile uint32_t *)(void *)(s->fifo + (offset & (SVGA_FIFO_SIZE - 4)));
}

uint32_t svga_fifo_reg(const struct svga *s, unsigned index)
{
    return *word_at(s, 4 * index);
}

static void set_reg(struct svga *s, unsigned index, uint32_t value)
{
    *word_at(s, 4 * index) = value;
}

/* Registers beyond the four pointers are there if the driver began its ring behind them. */
static bool has_reg(const struct svga *s, unsigned index)
{
    return svga_fifo_reg(s, SVGA_FIFO_MIN) >= 4 * (index + 1);
}

static bool look(const struct svga *s, struct ring *r)
{
    r->min = svga_fifo_reg(s, SVGA_FIFO_MIN);
    r->max = svga_fifo_reg(s, SVGA_FIFO_MAX);
    r->next = svga_fifo_reg(s, SVGA_FIFO_NEXT_CMD);
    r->stop = svga_fifo_reg(s, SVGA_FIFO_STOP);
    return !((r->min | r->max | r->next | r->stop) & 3) && r->min >= 16 && r->min < r->max &&
           r->max <= SVGA_FIFO_SIZE && r->next >= r->min && r->next < r->max && r->stop >= r->min &&
           r->stop < r->max;
}

static uint32_t waiting_words(const struct ring *r)
{
    uint32_t bytes = r->next >= r->stop ? r->next - r->stop : r->max - r->stop + r->next - r->min;
    return bytes / 4;
}

/* Word n from the present command's start. */
static uint32_t peek(const struct svga *s, const struct ring *r, uint32_t n)
{
    uint32_t at = r->stop + 4 * n;
    return *word_at(s, at >= r->max ? at - r->max + r->min : at);
}

static void copy_words(const struct svga *s, const struct ring *r, uint32_t first, uint32_t count,
                       uint32_t *to)
{
    for (uint32_t i = 0; i < count; i++)
        to[i] = peek(s, r, first + i);
}

static uint32_t mask_words(uint32_t width, uint32_t height, uint32_t depth)
{
    return (width * depth + 31) / 32 * height;
}

static bool known_mask_depth(uint32_t depth)
{
    return depth == 1 || depth == 8 || depth == 16 || depth == 24 || depth == 32;
}

/*
 * Words that follow the fixed arguments `a`, which for commands with a size are all there.
 * WORDS_MAX: no such command.
 */
static uint32_t payload(uint32_t command, const uint32_t *a)
{
    switch (command) {
    case SVGA_CMD_DEFINE_CURSOR:
        if (a[3] > CURSOR_SIDE_MAX || a[4] > CURSOR_SIDE_MAX || !known_mask_depth(a[5]) ||
            !known_mask_depth(a[6]))
            return WORDS_MAX;
        return mask_words(a[3], a[4], a[5]) + mask_words(a[3], a[4], a[6]);
    case SVGA_CMD_DEFINE_ALPHA_CURSOR:
        return a[3] > CURSOR_SIDE_MAX || a[4] > CURSOR_SIDE_MAX ? WORDS_MAX : a[3] * a[4];
    case SVGA_CMD_ESCAPE:
        return a[1] > SVGA_FIFO_SIZE ? WORDS_MAX : (a[1] + 3) / 4;
    case SVGA_CMD_DEFINE_SCREEN: /* its size counts itself */
        return a[0] < 28 || a[0] > 256 ? WORDS_MAX : a[0] / 4 - 1;
    case SVGA_CMD_REMAP_GMR2:
        if (a[1] & REMAP_VIA_GMR)
            return 2;
        if (a[3] > SVGA_GMR_PAGES)
            return WORDS_MAX;
        return (a[1] & REMAP_SINGLE ? 1 : a[3]) * (a[1] & REMAP_PPN64 ? 2 : 1);
    default:
        return 0;
    }
}

/* ---- Commands ---- */

static void fence(struct svga *s, uint32_t value)
{
    if (!has_reg(s, SVGA_FIFO_FENCE))
        return;
    uint32_t before = svga_fifo_reg(s, SVGA_FIFO_FENCE), flags = SVGA_IRQFLAG_ANY_FENCE;
    set_reg(s, SVGA_FIFO_FENCE, value);
    if (has_reg(s, SVGA_FIFO_FENCE_GOAL)) {
        uint32_t goal = svga_fifo_reg(s, SVGA_FIFO_FENCE_GOAL);
        if ((int32_t)(value - goal) >= 0 && (int32_t)(before - goal) < 0)
            flags |= SVGA_IRQFLAG_FENCE_GOAL;
    }
    svga_raise(s, flags);
}

/* Page number n of a REMAP command. */
static bool page_number(const struct svga *s, const struct ring *r, const uint32_t *a, uint32_t n,
                        uint64_t *page)
{
    uint32_t words = a[1] & REMAP_PPN64 ? 2 : 1;
    if (a[1] & REMAP_SINGLE)
        n = 0;
    *page = 0;
    if (a[1] & REMAP_VIA_GMR) {
        uint32_t id = peek(s, r, 5), offset = peek(s, r, 6);
        return svga_gmr_read(s, id, offset + (uint64_t)n * words * 4, page, words * 4);
    }
    *page = peek(s, r, 5 + n * words);
    if (words == 2)
        *page |= (uint64_t)peek(s, r, 6 + n * words) << 32;
    return true;
}

/* region, flags, first page, number of pages */
static void remap(struct svga *s, const struct ring *r, const uint32_t *a)
{
    uint64_t page;
    for (uint32_t n = 0; n < MIN(a[3], SVGA_GMR_PAGES) && page_number(s, r, a, n, &page); n++)
        if (a[2] + (uint64_t)n < SVGA_GMR_PAGES)
            svga_gmr_set_page(s, a[0], a[2] + n, page);
}

static void define_screen(struct svga *s, const struct ring *r, uint32_t count)
{
    uint32_t words[64];
    copy_words(s, r, 1, MIN(count, ARRAY_SIZE(words)), words);
    svga_screen_define(s, words, count);
}

static void define_cursor(struct svga *s, const struct ring *r, const uint32_t *a, bool alpha)
{
    static const uint32_t most = 2 * SVGA_CURSOR_MAX * SVGA_CURSOR_MAX;
    uint32_t first = alpha ? 6 : 8, pixels[2 * SVGA_CURSOR_MAX * SVGA_CURSOR_MAX];
    uint32_t count =
        alpha ? a[3] * a[4] : mask_words(a[3], a[4], a[5]) + mask_words(a[3], a[4], a[6]);
    if (a[3] > SVGA_CURSOR_MAX || a[4] > SVGA_CURSOR_MAX || count > most) {
        svga_odd(s, "size of the pointer", a[3]);
        return;
    }
    copy_words(s, r, first, count, pixels);
    if (alpha)
        svga_cursor_alpha(s, a, pixels);
    else
        svga_cursor_masks(s, a, pixels, pixels + mask_words(a[3], a[4], a[5]));
}

/* Carry one out; returns how many bytes it moved. */
static uint32_t execute(struct svga *s, const struct ring *r, uint32_t command, const uint32_t *a,
                        uint32_t size)
{
    switch (command) {
    case SVGA_CMD_RECT_FILL:
        return svga_rect_fill(s, a[0], a + 1);
    case SVGA_CMD_FRONT_ROP_FILL:
        return svga_rect_fill(s, a[0], a + 1);
    case SVGA_CMD_RECT_COPY:
    case SVGA_CMD_RECT_ROP_COPY:
        return svga_rect_copy(s, a);
    case SVGA_CMD_DEFINE_CURSOR:
    case SVGA_CMD_DEFINE_ALPHA_CURSOR:
        define_cursor(s, r, a, command == SVGA_CMD_DEFINE_ALPHA_CURSOR);
        return 0;
    case SVGA_CMD_FENCE:
        fence(s, a[0]);
        return 0;
    case SVGA_CMD_DEFINE_SCREEN:
        define_screen(s, r, size - 1);
        return 0;
    case SVGA_CMD_DESTROY_SCREEN:
        s->screen_on = s->screen_on && a[0] != 0;
        return 0;
    case SVGA_CMD_DEFINE_GMRFB:
        s->gmrfb_id = a[0];
        s->gmrfb_offset = a[1];
        s->gmrfb_pitch = a[2];
        s->gmrfb_format = a[3];
        return 0;
    case SVGA_CMD_BLIT_GMRFB_TO_SCREEN:
        return svga_blit_to_screen(s, a);
    case SVGA_CMD_BLIT_SCREEN_TO_GMRFB:
        return svga_blit_from_screen(s, a);
    case SVGA_CMD_DEFINE_GMR2:
        svga_gmr_define(s, a[0], a[1]);
        return SVGA_GMR_PAGES;
    case SVGA_CMD_REMAP_GMR2:
        remap(s, r, a);
        return 64 * MIN(a[3], SVGA_GMR_PAGES);
    default: /* updates: viewers look for themselves; escapes, annotations: nothing to do */
        return 0;
    }
}

/* The size in words of the command at the front, with its fixed arguments in `a`; 0: it is not all
 * there; WORDS_MAX: it is none. */
static uint32_t command_size(const struct svga *s, const struct ring *r, uint32_t command,
                             uint32_t a[8])
{
    uint32_t there = waiting_words(r);
    if (command >= COMMANDS_3D) { /* these say their size in bytes */
        if (there < 2)
            return 0;
        uint32_t bytes = peek(s, r, 1);
        uint32_t size = bytes > SVGA_FIFO_SIZE ? WORDS_MAX : 2 + (bytes + 3) / 4;
        return size >= WORDS_MAX ? WORDS_MAX : size <= there ? size : 0;
    }
    if (command != SVGA_CMD_NOP && (command >= ARRAY_SIZE(arguments) || !arguments[command]))
        return WORDS_MAX;
    uint32_t fixed = command == SVGA_CMD_NOP ? 0 : arguments[command];
    if (there < 1 + fixed)
        return 0;
    copy_words(s, r, 1, fixed, a);
    uint32_t more = payload(command, a);
    if (more >= (r->max - r->min) / 4 - fixed - 1)
        return WORDS_MAX;
    return there >= 1 + fixed + more ? 1 + fixed + more : 0;
}

bool svga_fifo_run(struct svga *s)
{
    struct ring r;
    uint64_t spent = 0;
    bool progress = false;
    while (s->enable && s->config_done && look(s, &r) && r.next != r.stop) {
        if (spent >= BUDGET_BYTES) {
            timer_set(&s->more, vclock_ns(s->vga.env->clock) + GO_ON_NS);
            return true;
        }
        uint32_t a[8] = {0}, command = peek(s, &r, 0), size = command_size(s, &r, command, a);
        if (size == 0)
            break;
        progress = true;
        if (size == WORDS_MAX) {
            svga_odd(s, "command", command);
            set_reg(s, SVGA_FIFO_STOP, r.next); /* nobody knows where the next one begins */
            break;
        }
        spent += COMMAND_COST + (command < COMMANDS_3D ? execute(s, &r, command, a, size) : 0);
        uint32_t stop = r.stop + 4 * size;
        set_reg(s, SVGA_FIFO_STOP, stop >= r.max ? stop - r.max + r.min : stop);
    }
    if (has_reg(s, SVGA_FIFO_BUSY))
        set_reg(s, SVGA_FIFO_BUSY, 0);
    if (progress)
        svga_raise(s, SVGA_IRQFLAG_FIFO_PROGRESS);
    return false;
}

void svga_fifo_start(struct svga *s)
{
    set_reg(s, SVGA_FIFO_CAPABILITIES,
            SVGA_FIFO_CAP_FENCE | SVGA_FIFO_CAP_PITCHLOCK | SVGA_FIFO_CAP_CURSOR_BYPASS_3 |
                SVGA_FIFO_CAP_ESCAPE | SVGA_FIFO_CAP_RESERVE | SVGA_FIFO_CAP_SCREEN_OBJECT |
                SVGA_FIFO_CAP_GMR2 | SVGA_FIFO_CAP_SCREEN_OBJECT_2);
    set_reg(s, SVGA_FIFO_FLAGS, 0);
    set_reg(s, SVGA_FIFO_3D_HWVERSION, 0);
}
