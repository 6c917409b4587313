/* VMware SVGA II: registers, the FIFO and its commands, memory regions, blits, pointer images, the
 * interrupt; and a guest that writes what it likes into all of them. */
#include "dev/svga.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "dev/svga_internal.h"
#include "fake_machine.h"
#include "util/util.h"

#define RAM_SIZE   (16u << 20)
#define PORTS      0x1000
#define FIFO_FIRST 4096

static struct fake_machine m;
static struct pci_bus *pci;
static struct svga *svga;
static struct display *display;
static struct probe line;
static uint32_t next;

static void config_write(unsigned offset, uint32_t value)
{
    bus_write(&m.pio, 0xcf8, 4, 0x80000000u | PCI_DEVFN(2, 0) << 8 | offset);
    bus_write(&m.pio, 0xcfc, 4, value);
}

static void set(unsigned index, uint32_t value)
{
    bus_write(&m.pio, PORTS, 4, index);
    bus_write(&m.pio, PORTS + 1, 4, value);
}

static uint32_t get(unsigned index)
{
    bus_write(&m.pio, PORTS, 4, index);
    return (uint32_t)bus_read(&m.pio, PORTS + 1, 4);
}

static uint32_t fifo(unsigned reg)
{
    uint32_t value;
    memcpy(&value, svga->fifo + 4 * reg, 4);
    return value;
}

static void set_fifo(unsigned reg, uint32_t value)
{
    memcpy(svga->fifo + 4 * reg, &value, 4);
}

static void put(uint32_t word)
{
    memcpy(svga->fifo + next, &word, 4);
    next = next + 4 == SVGA_FIFO_SIZE ? FIFO_FIRST : next + 4;
}

#define COMMAND(...)                                                                               \
    do {                                                                                           \
        const uint32_t words[] = {__VA_ARGS__};                                                    \
        for (unsigned i = 0; i < ARRAY_SIZE(words); i++)                                           \
            put(words[i]);                                                                         \
        set_fifo(SVGA_FIFO_NEXT_CMD, next);                                                        \
    } while (0)

static void sync(void)
{
    set(SVGA_REG_SYNC, 1);
    CHECK(get(SVGA_REG_BUSY) == 0 && fifo(SVGA_FIFO_STOP) == next);
}

static void start(void)
{
    devices_reset(&m.env);
    config_write(PCI_BAR0, PORTS);
    config_write(PCI_BAR0 + 4, 0xe0000000);
    config_write(PCI_BAR0 + 8, 0xe8000000);
    config_write(PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    memset(svga->vga.vram, 0, 4u << 20);
    next = FIFO_FIRST;
    set_fifo(SVGA_FIFO_MIN, FIFO_FIRST);
    set_fifo(SVGA_FIFO_MAX, SVGA_FIFO_SIZE);
    set_fifo(SVGA_FIFO_NEXT_CMD, next);
    set_fifo(SVGA_FIFO_STOP, next);
    set(SVGA_REG_WIDTH, 800);
    set(SVGA_REG_HEIGHT, 600);
    set(SVGA_REG_BITS_PER_PIXEL, 32);
    set(SVGA_REG_ENABLE, 1);
    set(SVGA_REG_CONFIG_DONE, 1);
}

static uint32_t dot(unsigned x, unsigned y)
{
    unsigned width, height;
    display_refresh(display);
    const uint32_t *pixels = display_pixels(display, &width, &height);
    return x < width && y < height ? pixels[(size_t)y * width + x] : 0xdeadbeef;
}

static void test_registers(void)
{
    start();
    set(SVGA_REG_ID, 0x90000003);
    CHECK(get(SVGA_REG_ID) == 0x90000002);
    CHECK(get(SVGA_REG_VRAM_SIZE) == SVGA_VRAM_SIZE && get(SVGA_REG_FB_START) == 0xe0000000);
    CHECK(get(SVGA_REG_MEM_START) == 0xe8000000 && get(SVGA_REG_MEM_SIZE) == SVGA_FIFO_SIZE);
    CHECK(get(SVGA_REG_BYTES_PER_LINE) == 3200 && get(SVGA_REG_FB_SIZE) == 3200 * 600);
    CHECK(get(SVGA_REG_DEPTH) == 24 && get(SVGA_REG_RED_MASK) == 0xff0000);
    CHECK(fifo(SVGA_FIFO_CAPABILITIES) & SVGA_FIFO_CAP_GMR2);
    set(SVGA_SCRATCH_BASE + 3, 77);
    CHECK(get(SVGA_SCRATCH_BASE + 3) == 77);
    /* The frame buffer through its BAR, and on the screen. */
    uint32_t pixel = 0xff112233;
    physmem_write(m.env.mem, 0xe0000000 + 3200 * 599 + 4 * 799, &pixel, 4);
    CHECK(dot(799, 599) == 0x112233 && dot(800, 0) == 0xdeadbeef);
    set(SVGA_REG_PITCHLOCK, 4096);
    pixel = 0x445566;
    physmem_write(m.env.mem, 0xe0000000 + 4096, &pixel, 4);
    CHECK(dot(0, 1) == 0x445566);
    /* 8 bits with a palette. */
    set(SVGA_REG_PITCHLOCK, 0);
    set(SVGA_REG_BITS_PER_PIXEL, 8);
    CHECK(get(SVGA_REG_PSEUDOCOLOR) == 1 && get(SVGA_REG_BYTES_PER_LINE) == 800);
    set(SVGA_PALETTE_BASE + 3 * 9 + 1, 0x80);
    svga->vga.vram[5] = 9;
    CHECK(dot(5, 0) == 0x008000);
    /* Off: the VGA shows. */
    set(SVGA_REG_ENABLE, 0);
    vga_set_text_mode(&svga->vga, NULL);
    CHECK(dot(719, 399) == 0 && dot(720, 0) == 0xdeadbeef);
}

static void test_rectangles(void)
{
    start();
    COMMAND(2, 0x00aa00, 10, 20, 5, 5);      /* RECT_FILL */
    COMMAND(3, 10, 20, 12, 22, 5, 5);        /* RECT_COPY, overlapping */
    COMMAND(2, 0x0000bb, 798, 598, 100, 99); /* over the edge */
    COMMAND(3, 0, 0, 0xfffffff0, 0, 10, 10); /* outside: nothing */
    COMMAND(1, 0, 0, 800, 600);              /* UPDATE */
    sync();
    CHECK(dot(10, 20) == 0x00aa00 && dot(16, 26) == 0x00aa00 && dot(17, 27) == 0);
    CHECK(dot(14, 20) == 0x00aa00 && dot(15, 20) == 0 && dot(799, 599) == 0x0000bb);
    /* A command in pieces waits; a wrap goes on at the beginning. */
    COMMAND(2, 0x123456, 0, 0);
    set(SVGA_REG_SYNC, 1);
    CHECK(fifo(SVGA_FIFO_STOP) != next && dot(0, 0) == 0);
    COMMAND(1, 1);
    sync();
    CHECK(dot(0, 0) == 0x123456);
    while (next < SVGA_FIFO_SIZE - 8) {
        COMMAND(45);
        if (next % 65536 == 0)
            set(SVGA_REG_SYNC, 1);
    }
    COMMAND(2, 0x654321, 1, 0, 1, 1);
    CHECK(next < FIFO_FIRST + 100);
    sync();
    CHECK(dot(1, 0) == 0x654321);
    /* Nobody knows how long an unknown command is: the rest goes. */
    COMMAND(99, 2, 0xffffff, 0, 0, 1, 1);
    sync();
    CHECK(dot(0, 0) == 0x123456);
}

static void test_fences(void)
{
    start();
    set(SVGA_REG_IRQMASK, SVGA_IRQFLAG_FENCE_GOAL);
    set_fifo(SVGA_FIFO_FENCE_GOAL, 7);
    COMMAND(30, 5);
    sync();
    CHECK(fifo(SVGA_FIFO_FENCE) == 5 && !line.level);
    COMMAND(30, 8);
    sync();
    CHECK(fifo(SVGA_FIFO_FENCE) == 8 && line.level);
    CHECK(bus_read(&m.pio, PORTS + 8, 4) ==
          (SVGA_IRQFLAG_ANY_FENCE | SVGA_IRQFLAG_FENCE_GOAL | SVGA_IRQFLAG_FIFO_PROGRESS));
    bus_write(&m.pio, PORTS + 8, 4, SVGA_IRQFLAG_FENCE_GOAL);
    CHECK(!line.level);
}

static void test_screen(void)
{
    start();
    /* 640x480 at 64 KiB into the frame buffer; a picture in pages 0x101 and 0x100 of RAM. */
    COMMAND(34, 40, 0, 1, 640, 480, 0, 0, SVGA_GMR_FRAMEBUFFER, 0x10000, 2560);
    COMMAND(41, 3, 2);
    COMMAND(42, 3, 2, 0, 2, 0x101, 0, 0x100, 0);
    COMMAND(36, 3, 0, 2048, 32 | 24 << 8);
    uint32_t red = 0xff0000, green = 0x00ff00;
    memcpy(m.env.mem->ram + 0x101000 + 2048 + 4 * 3, &red, 4); /* line 1, pixel 3 */
    memcpy(m.env.mem->ram + 0x100000 + 4, &green, 4);          /* line 2, pixel 1 */
    COMMAND(37, 0, 0, 100, 50, 110, 53, 0);
    sync();
    CHECK(dot(103, 51) == red && dot(101, 52) == green && dot(639, 479) == 0);
    CHECK(dot(640, 0) == 0xdeadbeef);
    /* Cut at the left: the source moves along. */
    COMMAND(37, 0, 1, (uint32_t)-2, 0, 10, 1, 0);
    sync();
    CHECK(dot(1, 0) == red);
    /* And back to memory. */
    COMMAND(38, 4, 0, 103, 51, 104, 52, 0);
    sync();
    uint32_t word;
    memcpy(&word, m.env.mem->ram + 0x101000 + 4 * 4, 4);
    CHECK(word == red);
    /* Regions through the register interface: a list in a page. */
    const uint32_t list[] = {0x200, 1, 0x300, 2, 0, 0};
    memcpy(m.env.mem->ram + 0x400000, list, sizeof list);
    set(SVGA_REG_GMR_ID, 5);
    set(SVGA_REG_GMR_DESCRIPTOR, 0x400);
    CHECK(svga->gmr_count[5] == 3 && svga_gmr_read(svga, 5, 4096 + 8, &word, 4));
    CHECK(!svga_gmr_read(svga, 5, 3 * 4096 - 2, &word, 4));
    COMMAND(41, 3, 0);
    sync();
    CHECK(svga->gmr_count[3] == 0 && svga->gmr_count[5] == 3 && svga->gmr_used == 3);
    CHECK(svga->gmr_pool[svga->gmr_start[5] + 2] == 0x301);
    COMMAND(35, 0);
    sync();
    CHECK(!svga->screen_on && dot(799, 599) == 0);
}

static void test_cursor(void)
{
    start();
    COMMAND(22, 0, 1, 1, 2, 1, 0x80400000, 0x00000000);
    set(SVGA_REG_CURSOR_ON, 1);
    sync();
    display_refresh(display);
    const struct display_cursor *c = display_cursor(display);
    CHECK(c->width == 2 && c->height == 1 && c->hot_x == 1);
    CHECK(c->pixels[0] == 0x807f0000 && c->pixels[1] == 0);
    /* Masks of one bit: black, white, clear, inverted. */
    COMMAND(19, 0, 0, 0, 4, 1, 1, 1, 0x30, 0x50);
    sync();
    display_refresh(display);
    CHECK(c->pixels[0] == 0xff000000 && c->pixels[1] == 0xffffffff);
    CHECK(c->pixels[2] == 0 && c->pixels[3] == 0xff000000);
    set(SVGA_REG_CURSOR_ON, 0);
    display_refresh(display);
    CHECK(c->width == 0);
}

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* A number that is likely to be at some limit. */
static uint32_t interesting(void)
{
    static const uint32_t limits[] = {
        0,          1,          2,      4,       63,       64,       65,         799,
        800,        4095,       4096,   4097,    65535,    65536,    0x7fffffff, 0x80000000,
        0xfffffffe, 0xffffffff, 0x1fff, 2 << 20, 32 << 20, 512 << 10};
    uint64_t r = rnd();
    return r & 1 ? limits[(r >> 8) % ARRAY_SIZE(limits)] : (uint32_t)(r >> 32) >> (r >> 1 & 31);
}

static void test_hostile(unsigned rounds)
{
    static const uint8_t commands[] = {1,  2,  3,  14, 19, 22, 25, 29, 30, 33, 34,
                                       35, 36, 37, 38, 39, 40, 41, 42, 45, 99};
    start();
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t r = rnd();
        switch (r % 8) {
        case 0: {
            unsigned index = (unsigned)(r >> 8) % SVGA_REGS;
            if (index != SVGA_REG_ENABLE || r >> 60 == 0)
                set(index, interesting());
            break;
        }
        case 1:
            get((unsigned)(r >> 8) % 2048);
            break;
        case 2:
            if (r >> 58 == 0)
                set_fifo((unsigned)(r >> 8) % SVGA_FIFO_NUM_REGS, interesting());
            else
                set_fifo((unsigned)(r >> 8) % (SVGA_FIFO_SIZE / 4), interesting());
            break;
        case 3:
            display_refresh(display);
            break;
        case 4:
            if (r >> 56 == 0)
                start();
            else
                fake_advance(&m, r >> 40);
            break;
        default:
            put(commands[(r >> 8) % sizeof commands]);
            for (unsigned n = (unsigned)(r >> 16) % 12; n; n--)
                put((rnd() & 3) ? interesting() : (uint32_t)rnd() % 300);
            set_fifo(SVGA_FIFO_NEXT_CMD, next);
            set(SVGA_REG_SYNC, 1);
            break;
        }
    }
    devices_reset(&m.env);
    display_refresh(display);
}

int main(int argc, char **argv)
{
    fake_machine_init(&m);
    struct tv_error err;
    m.env.mem = physmem_create(RAM_SIZE, false, &err);
    if (!m.env.mem)
        return 1;
    struct pci_wiring wiring = {0};
    for (int i = 0; i < 4; i++)
        wiring.ioapic[i] = fake_line(&line);
    pci = pci_create(&m.env, &wiring);
    svga = svga_create(&m.env, pci, PCI_DEVFN(2, 0), NULL, 0);
    display = display_create(&m.lock);
    display_attach(display, &svga_display_ops, svga);
    test_registers();
    test_rectangles();
    test_fences();
    test_screen();
    test_cursor();
    test_hostile(argc > 1 ? (unsigned)atoi(argv[1]) : 4000);
    display_destroy(display);
    fake_machine_end(&m);
    physmem_destroy(m.env.mem);
    return check_result();
}
