/* VGA: what is on the screen in each family of modes, dot by dot; memory access through the planes;
 * registers; the Bochs display interface. */
#include "dev/vga.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fake_machine.h"
#include "util/util.h"

#define VRAM_SIZE (4u << 20)

struct adapter {
    struct vga vga;
};

static const struct state_field fields[] = {VGA_STATE(struct adapter, vga)};
static void after_reset(void *opaque)
{
    vga_after_reset(&((struct adapter *)opaque)->vga);
}
static const struct state_table table = {.name = "vga",
                                         .version = 1,
                                         .size = sizeof(struct adapter),
                                         .fields = fields,
                                         .field_count = ARRAY_SIZE(fields),
                                         .after_reset = after_reset};

static bool refresh(void *opaque, struct display *display, struct display_linear *linear)
{
    return vga_refresh(&((struct adapter *)opaque)->vga, display, linear);
}
static const struct display_ops display_ops = {refresh};

static struct fake_machine m;
static struct adapter adapter;
static struct display *display;
static uint8_t vram[VRAM_SIZE] __attribute__((aligned(8)));

/* The registers that a BIOS sets for a mode. */
struct mode {
    uint8_t misc, seq[5], crtc[25], gfx[9], attr[21];
};

#define EGA_PALETTE 0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f
#define COUNTING    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15

static const struct mode mode04 = {0x63,
                                   {3, 0x09, 3, 0, 2},
                                   {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00,
                                    0xc1, 0,    0,    0,    0,    0,    0,    0x9c, 0x8e,
                                    0x8f, 0x14, 0x00, 0x96, 0xb9, 0xa2, 0xff},
                                   {0, 0, 0, 0, 0, 0x30, 0x0f, 0, 0xff},
                                   {0,    0x13, 0x15, 0x17, 2,    4, 6, 7, 0x10, 0x11, 0x12,
                                    0x13, 0x14, 0x15, 0x16, 0x17, 1, 0, 3, 0,    0}};
static const struct mode mode06 = {
    0x63,
    {3, 1, 1, 0, 6},
    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00, 0xc1, 0,    0,   0,
     0,    0,    0,    0x9c, 0x8e, 0x8f, 0x28, 0x00, 0x96, 0xb9, 0xc2, 0xff},
    {0, 0, 0, 0, 0, 0, 0x0d, 0, 0xff},
    {0,    0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17, 0x17,
     0x17, 0x17, 0x17, 0x17, 0x17, 1,    0,    1,    0,    0}};
static const struct mode mode0d = {0x63,
                                   {3, 0x09, 0x0f, 0, 6},
                                   {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0x00,
                                    0xc0, 0,    0,    0,    0,    0,    0,    0x9c, 0x8e,
                                    0x8f, 0x14, 0x00, 0x96, 0xb9, 0xe3, 0xff},
                                   {0, 0, 0, 0, 0, 0, 5, 0x0f, 0xff},
                                   {EGA_PALETTE, 1, 0, 0x0f, 0, 0}};
static const struct mode mode12 = {0xe3,
                                   {3, 1, 0x0f, 0, 6},
                                   {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0x00,
                                    0x40, 0,    0,    0,    0,    0,    0,    0xea, 0x8c,
                                    0xdf, 0x28, 0x00, 0xe7, 0x04, 0xe3, 0xff},
                                   {0, 0, 0, 0, 0, 0, 5, 0x0f, 0xff},
                                   {EGA_PALETTE, 1, 0, 0x0f, 0, 0}};
static const struct mode mode13 = {0x63,
                                   {3, 1, 0x0f, 0, 0x0e},
                                   {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0x00,
                                    0x41, 0,    0,    0,    0,    0,    0,    0x9c, 0x8e,
                                    0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
                                   {0, 0, 0, 0, 0, 0x40, 5, 0x0f, 0xff},
                                   {COUNTING, 0x41, 0, 0x0f, 0, 0}};

static void set_indexed(unsigned port, unsigned index, unsigned value)
{
    bus_write(&m.pio, port, 2, index | value << 8);
}

static void set_mode(const struct mode *mode)
{
    out8(&m, 0x3c2, mode->misc);
    for (unsigned i = 0; i < 5; i++)
        set_indexed(0x3c4, i, mode->seq[i]);
    set_indexed(0x3d4, 0x11, 0); /* open registers 0 to 7 */
    for (unsigned i = 0; i < 25; i++)
        set_indexed(0x3d4, i, mode->crtc[i]);
    for (unsigned i = 0; i < 9; i++)
        set_indexed(0x3ce, i, mode->gfx[i]);
    in8(&m, 0x3da);
    for (unsigned i = 0; i < 21; i++) {
        out8(&m, 0x3c0, i);
        out8(&m, 0x3c0, mode->attr[i]);
    }
    out8(&m, 0x3c0, 0x20);
    memset(vram, 0, sizeof vram);
}

/* Entry i of the palette gets red i, green i/2, blue 63-i, in six bits. */
static void set_palette(void)
{
    out8(&m, 0x3c8, 0);
    for (unsigned i = 0; i < 256; i++) {
        out8(&m, 0x3c9, i & 63);
        out8(&m, 0x3c9, i >> 2);
        out8(&m, 0x3c9, 63 - (i & 63));
    }
}

static uint32_t wide(unsigned six)
{
    return six << 2 | six >> 4;
}

static uint32_t colour(unsigned i)
{
    return wide(i & 63) << 16 | wide(i >> 2) << 8 | wide(63 - (i & 63));
}

static unsigned width, height;

static uint32_t dot(unsigned x, unsigned y)
{
    const uint32_t *pixels = display_pixels(display, &width, &height);
    return x < width && y < height ? pixels[(size_t)y * width + x] : 0xdeadbeef;
}

static bool size_is(unsigned w, unsigned h)
{
    display_refresh(display);
    display_pixels(display, &width, &height);
    return width == w && height == h;
}

static void poke(uint32_t address, unsigned value)
{
    bus_write(&m.mmio, address, 1, value);
}

static unsigned peek(uint32_t address)
{
    return (unsigned)bus_read(&m.mmio, address, 1);
}

/* ---- Rendering ---- */

static const uint32_t grey = 0xaaaaaa, blue = 0x0000aa, white = 0xffffff;

static void test_text(void)
{
    static uint8_t font[4096];
    memset(font, 0, sizeof font);
    font['A' * 16 + 0] = 0x81;
    font[0xc4 * 16 + 0] = 0x01; /* line graphics: the ninth dot repeats the eighth */
    font['B' * 16 + 15] = 0xff;
    vga_set_text_mode(&adapter.vga, font);
    out8(&m, 0x3d4, 0x0a);
    out8(&m, 0x3d5, 0x20); /* no cursor */
    bus_write(&m.mmio, 0xb8000, 2, 'A' | 0x07 << 8);
    bus_write(&m.mmio, 0xb8002, 4, 0xc4 | 0x1f << 8 | (uint32_t)'A' << 16 | 0x70u << 24);
    bus_write(&m.mmio, 0xb8000 + 160 * 24 + 158, 2, 'B' | 0x0f << 8);
    CHECK(size_is(720, 400));
    CHECK(dot(0, 0) == grey && dot(1, 0) == 0 && dot(7, 0) == grey && dot(8, 0) == 0);
    CHECK(dot(9, 0) == blue && dot(16, 0) == white && dot(17, 0) == white); /* 0xc4 */
    CHECK(dot(18, 0) == 0 && dot(19, 0) == grey && dot(25, 0) == 0 && dot(26, 0) == grey);
    CHECK(dot(0, 1) == 0);
    CHECK(dot(711, 399) == white && dot(718, 399) == white && dot(719, 399) == 0);
    CHECK(peek(0xb8000) == 'A' && peek(0xb8001) == 0x07);

    /* The cursor, lines 13 and 14 of the second cell; it blinks. */
    set_indexed(0x3d4, 0x0a, 13);
    set_indexed(0x3d4, 0x0f, 1);
    display_refresh(display);
    CHECK(dot(9, 12) == blue && dot(9, 13) == white && dot(17, 14) == white && dot(18, 13) == grey);
    fake_advance(&m, 8 * 14285714 + 1000);
    display_refresh(display);
    CHECK(dot(9, 13) == blue);

    /* Attribute bit 7: blinking or a bright background. */
    bus_write(&m.mmio, 0xb8000, 2, 'A' | 0x87 << 8);
    display_refresh(display);
    CHECK(dot(0, 0) == grey);
    fake_advance(&m, 8 * 14285714);
    display_refresh(display);
    CHECK(dot(0, 0) == 0);
    in8(&m, 0x3da);
    out8(&m, 0x3c0, 0x30);
    out8(&m, 0x3c0, 0x04);
    display_refresh(display);
    CHECK(dot(0, 0) == grey && dot(1, 0) == 0x555555);

    /* Eight dots, 50 lines. */
    set_indexed(0x3c4, 1, 1);
    set_indexed(0x3d4, 9, 0x47);
    CHECK(size_is(640, 400));
    bus_write(&m.mmio, 0xb8000 + 160, 2, 'A' | 0x0f << 8);
    display_refresh(display);
    CHECK(dot(0, 8) == white && dot(7, 8) == white && dot(8, 8) == 0);

    /* Start address and split screen: line 16 starts from 0 again. */
    set_indexed(0x3d4, 0x0d, 80);
    set_indexed(0x3d4, 0x18, 15);
    set_indexed(0x3d4, 9, 0x07);
    set_indexed(0x3d4, 7, 0x0f); /* protected but for line compare's bit 8 */
    display_refresh(display);
    CHECK(dot(0, 0) == white && dot(0, 16) == grey && dot(0, 24) == white);

    /* 40 columns: dots twice as wide. */
    vga_set_text_mode(&adapter.vga, font);
    set_indexed(0x3d4, 0x11, 0);
    set_indexed(0x3d4, 0, 0x2d);
    set_indexed(0x3d4, 1, 0x27);
    set_indexed(0x3d4, 0x13, 0x14);
    set_indexed(0x3c4, 1, 8);
    set_indexed(0x3d4, 0x0a, 0x20);
    bus_write(&m.mmio, 0xb8000 + 80, 2, 'A' | 0x07 << 8);
    CHECK(size_is(720, 400));
    CHECK(dot(0, 16) == grey && dot(1, 16) == grey && dot(2, 16) == 0 && dot(14, 16) == grey);

    /* Nothing is shown while the palette belongs to the processor. */
    in8(&m, 0x3da);
    out8(&m, 0x3c0, 0x00);
    display_refresh(display);
    CHECK(dot(0, 16) == 0);
}

static void test_cga(void)
{
    set_mode(&mode04);
    set_palette();
    poke(0xb8000, 0x1b);          /* pixels 0, 1, 2, 3 */
    poke(0xb8001, 0xe4);          /* 3, 2, 1, 0 */
    poke(0xb8000 + 0x2000, 0xff); /* the second line is in the second bank */
    CHECK(size_is(640, 400));
    static const uint8_t pixels[] = {0, 0x13, 0x15, 0x17, 0x17, 0x15, 0x13, 0};
    for (unsigned i = 0; i < 16; i++)
        CHECK(dot(i, 0) == colour(pixels[i / 2]) && dot(i, 1) == dot(i, 0));
    CHECK(dot(0, 2) == colour(0x17) && dot(7, 3) == colour(0x17) && dot(8, 2) == colour(0));

    set_mode(&mode06);
    poke(0xb8000 + 79, 0x01);
    poke(0xb8000 + 0x2000, 0x80);
    poke(0xb8000 + 80, 0x40);
    CHECK(size_is(640, 400));
    CHECK(dot(639, 1) == colour(0x17) && dot(638, 0) == colour(0));
    CHECK(dot(0, 2) == colour(0x17) && dot(1, 4) == colour(0x17) && dot(1, 3) == colour(0));
}

static void test_planar(void)
{
    set_mode(&mode12);
    set_palette();
    set_indexed(0x3c4, 2, 0x05); /* planes 0 and 2 */
    poke(0xa0000, 0x80);
    set_indexed(0x3c4, 2, 0x0f);
    poke(0xa0000 + 80 * 479 + 79, 0x01);
    CHECK(size_is(640, 480));
    CHECK(dot(0, 0) == colour(5) && dot(1, 0) == colour(0) && dot(639, 479) == colour(0x3f));
    /* Pixel panning, and the colour plane enable. */
    in8(&m, 0x3da);
    out8(&m, 0x3c0, 0x33);
    out8(&m, 0x3c0, 3);
    poke(0xa0000, 0x10);
    display_refresh(display);
    CHECK(dot(0, 0) == colour(0x3f) && dot(636, 479) == colour(0x3f));
    out8(&m, 0x3c0, 0x32);
    out8(&m, 0x3c0, 0x01);
    display_refresh(display);
    CHECK(dot(0, 0) == colour(1));

    set_mode(&mode0d);
    poke(0xa0000 + 40, 0xc0);
    CHECK(size_is(640, 400));
    CHECK(dot(0, 2) == colour(0x3f) && dot(3, 3) == colour(0x3f) && dot(4, 2) == colour(0));
}

static void test_256(void)
{
    set_mode(&mode13);
    set_palette();
    bus_write(&m.mmio, 0xa0000, 4, 0x40302010);
    bus_write(&m.mmio, 0xa0000 + 320, 8, 0x0807060504030201);
    poke(0xa0000 + 63999, 0x99);
    CHECK(size_is(640, 400));
    CHECK(dot(0, 0) == colour(0x10) && dot(1, 1) == colour(0x10) && dot(2, 0) == colour(0x20));
    CHECK(dot(7, 0) == colour(0x40) && dot(14, 2) == colour(8) && dot(639, 399) == colour(0x99));
    CHECK(bus_read(&m.mmio, 0xa0000 + 320, 8) == 0x0807060504030201);
    CHECK(peek(0xa0000 + 63999) == 0x99);

    /* Mode X: planes, bytes, 400 lines without doubling. */
    set_indexed(0x3c4, 4, 0x06);
    set_indexed(0x3d4, 0x14, 0);
    set_indexed(0x3d4, 0x17, 0xe3);
    set_indexed(0x3d4, 0x09, 0x40);
    memset(vram, 0, sizeof vram);
    set_indexed(0x3c4, 2, 0x08);
    poke(0xa0000 + 80, 7); /* plane 3 of the second line: pixel 3 */
    CHECK(size_is(640, 400));
    CHECK(dot(6, 1) == colour(7) && dot(7, 1) == colour(7) && dot(5, 1) == colour(0));
    /* The palette's mask. */
    out8(&m, 0x3c6, 0x03);
    display_refresh(display);
    CHECK(dot(6, 1) == colour(3));
    out8(&m, 0x3c6, 0xff);
}

/* ---- Memory ---- */

static uint32_t planes(unsigned address)
{
    uint32_t word;
    memcpy(&word, vram + 4 * address, 4);
    return word;
}

static void put_planes(unsigned address, uint32_t word)
{
    memcpy(vram + 4 * address, &word, 4);
}

static void test_memory(void)
{
    set_mode(&mode12);
    /* Write mode 0: set/reset for some planes, rotation, bit mask, the four functions. */
    set_indexed(0x3ce, 0, 0x02);
    set_indexed(0x3ce, 1, 0x06);
    poke(0xa0010, 0x0f);
    CHECK(planes(0x10) == 0x0f00ff0f);
    set_indexed(0x3ce, 1, 0);
    set_indexed(0x3ce, 3, 4);
    poke(0xa0010, 0x12);
    CHECK(planes(0x10) == 0x21212121);
    static const uint32_t results[] = {0xf0f0f0f0, 0x30303030, 0xf3f3f3f3, 0xc3c3c3c3};
    for (unsigned function = 0; function < 4; function++) {
        put_planes(0x20, 0x33333333);
        peek(0xa0020);
        set_indexed(0x3ce, 3, function << 3);
        poke(0xa0020, 0xf0);
        CHECK(planes(0x20) == results[function]);
    }
    set_indexed(0x3ce, 3, 0);
    put_planes(0x20, 0x12345678);
    peek(0xa0020);
    set_indexed(0x3ce, 8, 0x0f);
    poke(0xa0021, 0xff);
    CHECK(planes(0x21) == 0x1f3f5f7f);
    set_indexed(0x3ce, 8, 0xff);
    /* Write mode 1 copies latches; the map mask still counts. */
    set_indexed(0x3ce, 5, 1);
    set_indexed(0x3c4, 2, 0x0b);
    put_planes(0x22, 0xaaaaaaaa);
    peek(0xa0020);
    poke(0xa0022, 0);
    CHECK(planes(0x22) == 0x12aa5678);
    set_indexed(0x3c4, 2, 0x0f);
    /* Write mode 2: a colour. */
    set_indexed(0x3ce, 5, 2);
    poke(0xa0023, 0x09);
    CHECK(planes(0x23) == 0xff0000ff);
    /* Write mode 3: set/reset through the byte as a mask. */
    set_indexed(0x3ce, 5, 3);
    set_indexed(0x3ce, 0, 0x0c);
    peek(0xa0020);
    poke(0xa0024, 0xf0);
    CHECK(planes(0x24) == 0xf2f40608);
    /* Read mode 0 takes the plane of the read map; read mode 1 compares colours. */
    set_indexed(0x3ce, 5, 0);
    set_indexed(0x3ce, 4, 2);
    CHECK(peek(0xa0020) == 0x34);
    set_indexed(0x3ce, 5, 8);
    set_indexed(0x3ce, 2, 0x05);
    set_indexed(0x3ce, 7, 0x0f);
    put_planes(0x30, 0x00ff00f1);
    CHECK(peek(0xa0030) == 0xf1);
    set_indexed(0x3ce, 7, 0x00);
    CHECK(peek(0xa0030) == 0xff);
    /* The memory map: what is outside reads as ones and swallows writes. */
    set_indexed(0x3ce, 5, 0);
    set_indexed(0x3ce, 6, 0x0d);
    put_planes(0, 0x55555555);
    poke(0xa0000, 0);
    CHECK(peek(0xa0000) == 0xff && peek(0xb8000) == 0x55 && planes(0) == 0x55555555);
    set_indexed(0x3ce, 6, 0x09);
    CHECK(peek(0xb0000) == 0x55 && peek(0xb8000) == 0xff);
    set_indexed(0x3ce, 6, 0x01);
    CHECK(peek(0xa0000) == 0x55 && peek(0xb0000) == 0x55);
    out8(&m, 0x3c2, 0xe1); /* RAM off */
    CHECK(peek(0xa0000) == 0xff);
}

static void test_registers(void)
{
    set_mode(&mode13);
    CHECK(in8(&m, 0x3cc) == 0x63 && in8(&m, 0x3b4) == 0xff);
    out8(&m, 0x3d4, 0x13);
    CHECK(in8(&m, 0x3d4) == 0x13 && in8(&m, 0x3d5) == 0x28);
    set_indexed(0x3d4, 1, 0x20); /* protected */
    out8(&m, 0x3d4, 1);
    CHECK(in8(&m, 0x3d5) == 0x4f);
    in8(&m, 0x3da);
    out8(&m, 0x3c0, 0x30);
    CHECK(in8(&m, 0x3c1) == 0x41 && in8(&m, 0x3c0) == 0x30);
    out8(&m, 0x3c7, 5);
    CHECK(in8(&m, 0x3c7) == 3);
    set_palette();
    CHECK(in8(&m, 0x3c7) == 0);
    out8(&m, 0x3c7, 0x45);
    CHECK(in8(&m, 0x3c9) == 5 && in8(&m, 0x3c9) == 0x11 && in8(&m, 0x3c9) == 58 &&
          in8(&m, 0x3c9) == 6);
    /* The beam: a frame of 449 lines at 70 Hz, of which 400 are shown and two are retrace. */
    unsigned blank = 0, retrace = 0, samples = 14286;
    for (unsigned i = 0; i < samples; i++) {
        unsigned status = in8(&m, 0x3da);
        blank += status & 1;
        retrace += status >> 3 & 1;
        fake_advance(&m, 1000);
    }
    CHECK(blank > samples * 26 / 100 && blank < samples * 30 / 100);
    CHECK(retrace >= 60 && retrace <= 68);
    /* Mono decode. */
    out8(&m, 0x3c2, 0x62);
    out8(&m, 0x3b4, 0x13);
    CHECK(in8(&m, 0x3b5) == 0x28 && in8(&m, 0x3d5) == 0xff);
}

/* ---- VBE ---- */

static void vbe_set(unsigned index, unsigned value)
{
    bus_write(&m.pio, 0x1ce, 2, index);
    bus_write(&m.pio, 0x1cf, 2, value);
}

static unsigned vbe_get(unsigned index)
{
    bus_write(&m.pio, 0x1ce, 2, index);
    return (unsigned)bus_read(&m.pio, 0x1d0, 2);
}

static void vbe_mode(unsigned w, unsigned h, unsigned bpp)
{
    vbe_set(VBE_ENABLE, 0);
    vbe_set(VBE_XRES, w);
    vbe_set(VBE_YRES, h);
    vbe_set(VBE_BPP, bpp);
    vbe_set(VBE_ENABLE, VBE_ENABLED | VBE_LINEAR);
}

static void test_vbe(void)
{
    set_mode(&mode13);
    set_palette();
    CHECK(vbe_get(VBE_ID) == 0xb0c5 && vbe_get(VBE_MEMORY_64K) == VRAM_SIZE >> 16);
    vbe_set(VBE_ENABLE, VBE_GET_CAPABILITIES);
    CHECK(vbe_get(VBE_BPP) == 32 && vbe_get(VBE_XRES) == DISPLAY_MAX_WIDTH);

    static const struct {
        unsigned bpp, bytes;
        uint32_t value, seen;
    } depths[] = {{8, 1, 0x42, 0},
                  {15, 2, 0x7c1f, 0xff00ff},
                  {16, 2, 0x07e0, 0x00ff00},
                  {24, 3, 0x123456, 0x123456},
                  {32, 4, 0xff123456, 0x123456}};
    for (unsigned i = 0; i < ARRAY_SIZE(depths); i++) {
        vbe_mode(800, 600, depths[i].bpp);
        CHECK(vbe_get(VBE_ENABLE) & VBE_ENABLED);
        CHECK(vbe_get(VBE_VIRT_WIDTH) == 800);
        memcpy(vram + (800 * 599 + 799) * depths[i].bytes, &depths[i].value, depths[i].bytes);
        CHECK(size_is(800, 600));
        CHECK(dot(799, 599) == (i ? depths[i].seen : colour(0x42)));
        CHECK(dot(798, 599) == (i ? 0 : colour(0)));
    }
    /* Banks of 64 KiB at 0xa0000. */
    vbe_set(VBE_BANK, 3);
    bus_write(&m.mmio, 0xa0008, 4, 0xabcdef);
    uint32_t word;
    memcpy(&word, vram + 0x30008, 4);
    CHECK(word == 0xabcdef && bus_read(&m.mmio, 0xa0008, 4) == 0xabcdef);
    CHECK(peek(0xb0000) == 0xff);
    /* A wider virtual screen, scrolled. */
    vbe_set(VBE_VIRT_WIDTH, 1024);
    CHECK(vbe_get(VBE_VIRT_HEIGHT) == 1024);
    vbe_set(VBE_X_OFFSET, 100);
    vbe_set(VBE_Y_OFFSET, 50);
    word = 0x654321;
    memcpy(vram + (50 * 1024 + 100) * 4, &word, 4);
    display_refresh(display);
    CHECK(dot(0, 0) == 0x654321);
    vbe_set(VBE_Y_OFFSET, 2000);
    CHECK(vbe_get(VBE_Y_OFFSET) == 1024 - 600);
    display_refresh(display);
    /* The wide DAC. */
    vbe_set(VBE_ENABLE, VBE_ENABLED | VBE_DAC_8BIT);
    out8(&m, 0x3c8, 1);
    out8(&m, 0x3c9, 0x81);
    CHECK(adapter.vga.dac[3] == 0x81);
    /* What has no room stays off. */
    vbe_mode(4096, 4096, 32);
    CHECK(!(vbe_get(VBE_ENABLE) & VBE_ENABLED));
    vbe_mode(4, 600, 4); /* a line of no bytes */
    CHECK(!(vbe_get(VBE_ENABLE) & VBE_ENABLED));
    vbe_mode(0, 600, 32);
    CHECK(!(vbe_get(VBE_ENABLE) & VBE_ENABLED));
    /* Four planes. */
    vbe_mode(1024, 768, 4);
    CHECK(vbe_get(VBE_ENABLE) & VBE_ENABLED);
    set_indexed(0x3c4, 4, 0x06);
    set_palette();
    poke(0xa0000 + 128, 0x01);
    CHECK(size_is(1024, 768));
    CHECK(dot(7, 1) == colour(15) && dot(6, 1) == colour(0));
    vbe_set(VBE_ENABLE, 0);
    CHECK(size_is(640, 400));
}

/* ---- Damage and the picture file ---- */

static void test_damage(void)
{
    static struct display_damage damage;
    set_mode(&mode13);
    set_palette();
    struct display_viewer *viewer = display_viewer_add(display);
    CHECK(viewer);
    display_refresh(display);
    CHECK(display_take_damage(display, viewer, &damage) && damage.resized);
    display_refresh(display);
    CHECK(!display_take_damage(display, viewer, &damage));
    poke(0xa0000 + 320 * 20 + 5, 1);
    poke(0xa0000 + 320 * 20 + 9, 1);
    display_refresh(display);
    CHECK(display_take_damage(display, viewer, &damage) && !damage.resized);
    for (unsigned band = 0; band < DISPLAY_BANDS; band++)
        CHECK(band == 40 / DISPLAY_BAND ? damage.left[band] == 10 && damage.right[band] == 20
                                        : damage.left[band] == damage.right[band]);
    display_viewer_remove(display, viewer);

    struct tv_error err = {""};
    CHECK(display_screenshot(display, "vga-test.png", &err) == 0);
    uint8_t head[24] = {0};
    FILE *file = fopen("vga-test.png", "rb");
    CHECK(file && fread(head, 1, sizeof head, file) == sizeof head);
    CHECK(memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0 && head[18] == 640 >> 8 &&
          head[19] == (640 & 255) && head[22] == 400 >> 8 && head[23] == (400 & 255));
    if (file)
        fclose(file);
    remove("vga-test.png");
    CHECK(display_screenshot(display, "/nonexistent/x.png", &err) < 0 &&
          strstr(err.message, "/nonexistent/x.png"));
}

/* ---- A hostile guest ---- */

static void test_hostile(unsigned rounds)
{
    uint64_t seed = 88172645463325252u;
    static const uint16_t bases[] = {0x3b4, 0x3ba, 0x3c0, 0x3d4, 0x3da, 0x1ce};
    static const uint8_t sizes[] = {2, 1, 16, 2, 1, 4};
    for (unsigned i = 0; i < rounds; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        unsigned which = (unsigned)(seed >> 8) % 8, size = 1u << (seed >> 4 & 3);
        uint64_t value = seed * 0x9e3779b97f4a7c15;
        if (which >= 6) {
            uint64_t at = VGA_WINDOW + (value >> 40) % (VGA_WINDOW_SIZE - 8);
            if (seed >> 63)
                bus_write(&m.mmio, at, size, value);
            else
                bus_read(&m.mmio, at, size);
        } else {
            unsigned port = bases[which] + (unsigned)(seed >> 20) % sizes[which];
            if (which == 5 && (seed >> 40 & 1)) {
                static const uint8_t depths[] = {4, 8, 15, 16, 24, 32};
                if (seed >> 59 & 1)
                    vbe_set(VBE_BPP, depths[(value >> 20) % sizeof depths]);
                vbe_set((unsigned)(seed >> 24) % 12,
                        (unsigned)value & (seed >> 50 & 1 ? 0xff : 0xffff));
            } else if (seed >> 63)
                bus_write(&m.pio, port, MIN(size, 4u), value);
            else
                bus_read(&m.pio, port, MIN(size, 4u));
        }
        if (seed >> 32 & 1)
            fake_advance(&m, value >> 50);
        if (i % 64 == 0) {
            in8(&m, 0x3da);
            out8(&m, 0x3c0, 0x20);
            set_indexed(0x3c4, 0, 3);
            display_refresh(display);
        }
    }
    devices_reset(&m.env);
    display_refresh(display);
}

int main(int argc, char **argv)
{
    fake_machine_init(&m);
    vga_init(&adapter.vga, &m.env, vram, sizeof vram, true);
    device_register(&m.env, &table, &adapter, NULL);
    display = display_create(&m.lock);
    display_attach(display, &display_ops, &adapter);
    CHECK(size_is(640, 480) && dot(0, 0) == 0); /* no picture yet */
    test_text();
    test_cga();
    test_planar();
    test_256();
    test_memory();
    test_registers();
    test_vbe();
    test_damage();
    test_hostile(argc > 1 ? (unsigned)atoi(argv[1]) : 20000);
    display_destroy(display);
    fake_machine_end(&m);
    return check_result();
}
