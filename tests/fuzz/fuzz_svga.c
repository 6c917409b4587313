/* VMware SVGA II: registers, the FIFO, regions of guest memory, pointer images, and the VGA below.
 */
#include "dev/svga.h"
#include "dev/svga_internal.h"
#include "device.h"
#include "util/util.h"

#define DEVFN PCI_DEVFN(2, 0)
#define FB    0xe0000000u
#define FIFO  0xe8000000u

enum { PORTS, FIFO_REGS, FIFO_ALL, VRAM, VGA, WINDOW, VBE, CONFIG };

static struct svga *svga;

static void create(struct fuzz_machine *f)
{
    static const uint8_t rom[512] = {0x55, 0xaa, 1};
    svga = svga_create(&f->machine.env, f->pci, DEVFN, rom, sizeof rom);
    fuzz_display(f, &svga_display_ops, svga);
    physmem_map_low(f->mem, VGA_WINDOW, VGA_WINDOW_SIZE, NULL, NULL);
    fuzz_bar(f, DEVFN, 0, true, 0x1000, 16);
    fuzz_bar(f, DEVFN, 2, false, FIFO, 64);
    fuzz_memory(f, FIFO, SVGA_FIFO_SIZE);
    fuzz_bar(f, DEVFN, 1, false, FB, SVGA_VRAM_SIZE);
    fuzz_ports(f, 0x3b0, 0x30);
    fuzz_memory(f, VGA_WINDOW, VGA_WINDOW_SIZE);
    fuzz_ports(f, 0x1ce, 4);
    fuzz_config(f, DEVFN);
}

/* A register, a command for the FIFO, or a look. */
static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    uint32_t next;
    switch (op->repeat % 3) {
    case 0:
        bus_write(&f->machine.pio, 0x1000, 4, op->offset % (SVGA_SCRATCH_BASE + SVGA_SCRATCH + 1));
        bus_write(&f->machine.pio, 0x1001, 4, op->value);
        bus_read(&f->machine.pio, 0x1001, 4);
        break;
    case 1: { /* two words behind what is there, or one */
        const uint32_t words[] = {op->offset, (uint32_t)op->value};
        memcpy(&next, svga->fifo + 4 * SVGA_FIFO_NEXT_CMD, 4);
        for (unsigned i = 0; i < 1u + (op->size & 1); i++) {
            if (next > SVGA_FIFO_SIZE - 4)
                return;
            memcpy(svga->fifo + next, &words[i], 4);
            next += 4;
        }
        memcpy(svga->fifo + 4 * SVGA_FIFO_NEXT_CMD, &next, 4);
        break;
    }
    default:
        fuzz_look(f);
    }
}

static void set(struct fuzz_list *l, unsigned reg, uint32_t value)
{
    seed_op(l, OP_SPECIAL, 0, 4, 0, reg, value);
}

static void put(struct fuzz_list *l, const uint32_t *words, unsigned count)
{
    for (unsigned i = 0; i < count; i += 2)
        seed_op(l, OP_SPECIAL, 0, i + 1 < count ? 2 : 1, 1, words[i],
                i + 1 < count ? words[i + 1] : 0);
}
#define COMMAND(l, ...)                                                                            \
    put(l, (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / 4)

static void start(struct fuzz_list *l, uint32_t bpp)
{
    set(l, SVGA_REG_ID, 0x90000002);
    set(l, SVGA_REG_WIDTH, 64);
    set(l, SVGA_REG_HEIGHT, 48);
    set(l, SVGA_REG_BITS_PER_PIXEL, bpp);
    set(l, SVGA_REG_ENABLE, 1);
    static const uint32_t fifo[] = {4096, SVGA_FIFO_SIZE, 4096, 4096};
    for (unsigned i = 0; i < 4; i++)
        seed_write(l, FIFO_REGS, 4, 4 * i, fifo[i]);
    set(l, SVGA_REG_CONFIG_DONE, 1);
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    static const uint32_t depths[] = {32, 8, 16, 24, 15};
    if (index > 7)
        return false;
    start(l, index < ARRAY_SIZE(depths) ? depths[index] : 32);
    switch (index) {
    case 0: /* two dimensions */
        COMMAND(l, 1, 0, 0, 64, 48);
        COMMAND(l, 2, 0xff00ff, 1, 1, 10, 10);
        COMMAND(l, 3, 1, 1, 20, 20, 10, 10);
        COMMAND(l, 14, 1, 1, 20, 20, 10, 10, 3);
        COMMAND(l, 29, 0x1234, 2, 2, 5, 5, 3);
        COMMAND(l, 25, 0, 0, 64, 48, 1);
        COMMAND(l, 33, 1, 8, 1, 2);
        set(l, SVGA_REG_IRQMASK, 7);
        COMMAND(l, 30, 77);
        break;
    case 1: /* pointers */
        COMMAND(l, 22, 0, 1, 1, 2, 2, 0xff00ff00, 0x80808080, 0, 0xffffffff);
        COMMAND(l, 19, 0, 1, 1, 8, 2, 1, 1, 0xaa, 0x55, 0xff, 0x0f);
        COMMAND(l, 19, 0, 0, 0, 2, 1, 32, 32, 0, 0xffffff, 0xff0000, 0xffffff);
        set(l, SVGA_REG_CURSOR_ON, 1);
        break;
    case 2: /* a region of two pages by commands; blits to and from it */
    case 5:
        COMMAND(l, 41, 1, 2);
        COMMAND(l, 42, 1, 0, 0, 2, 0x40, 0x41);
        COMMAND(l, 42, 1, 6, 0, 1, 0x42, 0);
        COMMAND(l, 34, 44, 0, 3, 64, 48, 0, 0, 0xfffffffe, 0, 256, 0);
        COMMAND(l, 36, 1, 0, 64 * 4, 32 | 24 << 8);
        COMMAND(l, 37, 0, 0, 0, 16, 16, 0, 0);
        COMMAND(l, 38, 8, 8, 0, 0, 16, 16, 0);
        COMMAND(l, 36, 0xfffffffe, 4096, 64 * 4, 32 | 24 << 8);
        COMMAND(l, 37, 0, 0, 0, 16, 16, 0, 0);
        COMMAND(l, 38, 8, 8, 0, 0, 16, 16, 0);
        COMMAND(l, 39, 0xff);
        COMMAND(l, 40, 0, 0, 0);
        COMMAND(l, 35, 0);
        break;
    case 3: /* a region by a list */
        seed_memory(l, 0x50000, 0x4000000040);
        seed_memory(l, 0x50008, 0x100000200);
        set(l, SVGA_REG_GMR_ID, 2);
        set(l, SVGA_REG_GMR_DESCRIPTOR, 0x50);
        COMMAND(l, 36, 2, 0, 256, 32 | 24 << 8);
        COMMAND(l, 34, 28, 0, 2, 64, 48, 0, 0);
        COMMAND(l, 37, 0, 0, 0, 8, 8, 0, 0);
        break;
    case 6: /* the ring's end; waiting for a fence; the older pointer registers */
        seed_write(l, FIFO_REGS, 4, 4 * SVGA_FIFO_NEXT_CMD, SVGA_FIFO_SIZE - 8);
        seed_write(l, FIFO_REGS, 4, 4 * SVGA_FIFO_STOP, SVGA_FIFO_SIZE - 8);
        seed_write(l, FIFO_ALL, 4, SVGA_FIFO_SIZE - 8, 30);
        seed_write(l, FIFO_ALL, 4, SVGA_FIFO_SIZE - 4, 5);
        seed_write(l, FIFO_REGS, 4, 4 * SVGA_FIFO_NEXT_CMD, 4096);
        set(l, SVGA_REG_CURSOR_X, 7);
        set(l, SVGA_REG_CURSOR_ID, 0);
        set(l, SVGA_PALETTE_BASE, 0xff);
        set(l, SVGA_REG_PITCHLOCK, 512);
        break;
    default: /* back to a VGA */
        set(l, SVGA_REG_ENABLE, 0);
        seed_write(l, VBE, 2, 0, 1);
        seed_write(l, VBE, 2, 1, 64);
    }
    seed_write(l, VRAM, 4, 260, 0x112233);
    set(l, SVGA_REG_SYNC, 1);
    seed_op(l, OP_TIME, 0, 4, 0, 0, 2000000);
    seed_read(l, PORTS, 4, 8);
    seed_op(l, OP_SPECIAL, 0, 4, 2, 0, 0);
    return true;
}

const struct fuzz_device fuzz_device = {create, special, fuzz_look, seed};
