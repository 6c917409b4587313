/*
 * The window at 0xa0000.
 *
 * An address goes to planes in one of three ways. Chain-4: the low two bits choose the plane.
 * Odd/even: the low bit chooses between planes 0 and 2 and planes 1 and 3. Else all four planes are
 * at one address. A read fills the latches; a write combines the byte, the latches and the graphics
 * controller's registers, in write mode 0 to 3, all planes at once.
 */
#include <string.h>

#include "dev/vga.h"
#include "util/util.h"

enum { SEQ_MAP_MASK = 2, SEQ_MEMORY_MODE = 4 };
enum { MEMORY_SEQUENTIAL = 4, MEMORY_CHAIN4 = 8 };
enum {
    GFX_SET_RESET,
    GFX_ENABLE_SET_RESET,
    GFX_COLOUR_COMPARE,
    GFX_ROTATE,
    GFX_READ_MAP,
    GFX_MODE,
    GFX_MISC,
    GFX_COLOUR_DONT_CARE,
    GFX_BIT_MASK
};
enum { MODE_READ_COMPARE = 0x08, MODE_ODD_EVEN = 0x10 };
enum { MISC_OUT_RAM = 0x02, MISC_OUT_PAGE = 0x20 };

#define OUTSIDE UINT32_MAX

/* A bit for each plane, spread to a byte for each. */
static uint32_t spread(unsigned planes)
{
    static const uint32_t bytes[16] = {0x00000000, 0x000000ff, 0x0000ff00, 0x0000ffff,
                                       0x00ff0000, 0x00ff00ff, 0x00ffff00, 0x00ffffff,
                                       0xff000000, 0xff0000ff, 0xff00ff00, 0xff00ffff,
                                       0xffff0000, 0xffff00ff, 0xffffff00, 0xffffffff};
    return bytes[planes & 15];
}

static uint32_t repeat(uint8_t byte)
{
    return byte * 0x01010101u;
}

/* The window's part that the memory map select opens; OUTSIDE for the rest. */
static uint32_t in_window(const struct vga *v, uint32_t offset)
{
    static const struct {
        uint32_t start, size;
    } maps[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};
    unsigned map = v->gfx[GFX_MISC] >> 2 & 3;
    uint32_t at = offset - maps[map].start;
    if (!(v->misc & MISC_OUT_RAM) || at >= maps[map].size)
        return OUTSIDE;
    return at;
}

/* Address in the planes when the low bit is used up as odd/even: another bit takes its place. */
static uint32_t odd_even_address(const struct vga *v, uint32_t at)
{
    bool high = v->gfx[GFX_MISC] >> 2 & 3 ? !(v->misc & MISC_OUT_PAGE) : at >> 16 & 1;
    return (at & 0xfffe) | (high ? 1 : 0);
}

static uint32_t chain4_address(uint32_t at)
{
    return (at & 0xfffc) | (at >> 16 & 3);
}

static uint32_t *word_at(struct vga *v, uint32_t address)
{
    return (uint32_t *)(void *)v->vram + (address & 0xffff);
}

/* ---- Linear: the Bochs display interface's banks of 64 KiB ---- */

static uint8_t *bank_byte(struct vga *v, uint32_t offset)
{
    if (offset >= 0x10000)
        return NULL;
    uint64_t at = (uint64_t)v->vbe[VBE_BANK] << 16 | offset;
    return at < v->vram_size ? v->vram + at : NULL;
}

/* ---- One byte through the planes ---- */

static uint8_t read_byte(struct vga *v, uint32_t offset)
{
    if (vbe_linear(v)) {
        const uint8_t *byte = bank_byte(v, offset);
        return byte ? *byte : 0xff;
    }
    uint32_t at = in_window(v, offset);
    if (at == OUTSIDE)
        return 0xff;
    unsigned plane = v->gfx[GFX_READ_MAP] & 3;
    if (v->seq[SEQ_MEMORY_MODE] & MEMORY_CHAIN4) {
        plane = at & 3;
        at = chain4_address(at);
    } else if (v->gfx[GFX_MODE] & MODE_ODD_EVEN) {
        plane = (plane & 2) | (at & 1);
        at = odd_even_address(v, at);
    }
    v->latch = *word_at(v, at);
    if (!(v->gfx[GFX_MODE] & MODE_READ_COMPARE))
        return (uint8_t)(v->latch >> (8 * plane));
    /* A bit is set where all planes that matter have the colour's bit. */
    uint32_t differs =
        (v->latch ^ spread(v->gfx[GFX_COLOUR_COMPARE])) & spread(v->gfx[GFX_COLOUR_DONT_CARE]);
    return (uint8_t) ~(differs | differs >> 8 | differs >> 16 | differs >> 24);
}

static uint8_t rotated(const struct vga *v, uint8_t byte)
{
    unsigned by = v->gfx[GFX_ROTATE] & 7;
    return (uint8_t)(byte >> by | byte << (8 - by));
}

/* What the four planes' data inputs see. */
static uint32_t combine(const struct vga *v, uint8_t byte)
{
    uint32_t data, mask = repeat(v->gfx[GFX_BIT_MASK]);
    uint32_t set_reset = spread(v->gfx[GFX_SET_RESET]);
    switch (v->gfx[GFX_MODE] & 3) {
    case 0:
        data = repeat(rotated(v, byte));
        uint32_t enabled = spread(v->gfx[GFX_ENABLE_SET_RESET]);
        data = (data & ~enabled) | (set_reset & enabled);
        break;
    case 1:
        return v->latch;
    case 2:
        data = spread(byte);
        break;
    default:
        mask &= repeat(rotated(v, byte));
        data = set_reset;
        break;
    }
    switch (v->gfx[GFX_ROTATE] >> 3 & 3) {
    case 1:
        data &= v->latch;
        break;
    case 2:
        data |= v->latch;
        break;
    case 3:
        data ^= v->latch;
        break;
    default:
        break;
    }
    return (data & mask) | (v->latch & ~mask);
}

static void write_byte(struct vga *v, uint32_t offset, uint8_t byte)
{
    if (vbe_linear(v)) {
        uint8_t *to = bank_byte(v, offset);
        if (to) {
            *to = byte;
            vga_written(v, to, 1);
        }
        return;
    }
    uint32_t at = in_window(v, offset);
    if (at == OUTSIDE)
        return;
    unsigned planes = v->seq[SEQ_MAP_MASK];
    if (v->seq[SEQ_MEMORY_MODE] & MEMORY_CHAIN4) {
        planes &= BIT(at & 3);
        at = chain4_address(at);
    } else if (!(v->seq[SEQ_MEMORY_MODE] & MEMORY_SEQUENTIAL)) {
        planes &= at & 1 ? 0xa : 0x5;
        at = odd_even_address(v, at);
    }
    uint32_t *word = word_at(v, at), mask = spread(planes);
    *word = (*word & ~mask) | (combine(v, byte) & mask);
    vga_written(v, word, sizeof *word);
}

/* ---- Accesses ---- */

/* Chain-4 with the graphics controller out of the way: bytes go in as they are. */
static bool plain_chain4(const struct vga *v)
{
    return !vbe_on(v) && (v->seq[SEQ_MEMORY_MODE] & MEMORY_CHAIN4) && v->seq[SEQ_MAP_MASK] == 0xf &&
           !(v->gfx[GFX_MODE] & 3) && !v->gfx[GFX_ROTATE] && !v->gfx[GFX_ENABLE_SET_RESET] &&
           v->gfx[GFX_BIT_MASK] == 0xff;
}

uint64_t vga_mem_read(struct vga *v, uint32_t offset, unsigned size)
{
    uint64_t value = 0;
    if (vbe_linear(v) && bank_byte(v, offset + size - 1)) {
        memcpy(&value, bank_byte(v, offset), size);
        return value;
    }
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(v, offset + i) << (8 * i);
    return value;
}

void vga_mem_write(struct vga *v, uint32_t offset, unsigned size, uint64_t value)
{
    v->touched = true;
    if (vbe_linear(v) && bank_byte(v, offset + size - 1)) {
        memcpy(bank_byte(v, offset), &value, size);
        vga_written(v, bank_byte(v, offset), size);
        return;
    }
    if (size == 4 && !(offset & 3) && plain_chain4(v)) {
        uint32_t at = in_window(v, offset);
        if (at != OUTSIDE) {
            uint32_t *word = word_at(v, chain4_address(at));
            *word = (uint32_t)value;
            vga_written(v, word, sizeof *word);
        }
        return;
    }
    for (unsigned i = 0; i < size; i++)
        write_byte(v, offset + i, (uint8_t)(value >> (8 * i)));
}
