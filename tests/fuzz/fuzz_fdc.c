/* The floppy controller with two drives, and the 8237 DMA controllers it moves its data through. */
#include "dev/dma8237.h"
#include "dev/fdc.h"
#include "device.h"

enum { FDC, DMA_1, DMA_2, PAGES, FDC_DIR };

static struct fdc *fdc;
static struct disk *floppy[2];

static void create(struct fuzz_machine *f)
{
    struct dma8237 *dma = dma8237_create(&f->machine.env);
    fdc = fdc_create(&f->machine.env, dma, fuzz_irq(f, 6));
    floppy[0] = fuzz_disk(1440 << 10, false);
    floppy[1] = fuzz_disk(720 << 10, true);
    fdc_attach(fdc, 0, floppy[0]);
    fdc_attach(fdc, 1, floppy[1]);
    fuzz_ports(f, 0x3f0, 6);
    fuzz_ports(f, 0, 16);
    fuzz_ports(f, 0xc0, 32);
    fuzz_ports(f, 0x80, 16);
    fuzz_ports(f, 0x3f7, 1);
}

/* Bytes of a command, the DMA channel set up for it; or another floppy. */
static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    struct bus *pio = &f->machine.pio;
    if (op->repeat & 0x80) {
        pthread_mutex_lock(&f->machine.lock);
        fdc_change_medium(fdc, op->offset & 3, op->offset & 4 ? NULL : floppy[op->value & 1]);
        pthread_mutex_unlock(&f->machine.lock);
        return;
    }
    if (op->repeat & 0x40) {
        uint32_t at = op->offset, count = (uint32_t)op->value;
        bus_write(pio, 0x0c, 1, 0);
        bus_write(pio, 0x04, 1, at & 0xff);
        bus_write(pio, 0x04, 1, at >> 8 & 0xff);
        bus_write(pio, 0x05, 1, count & 0xff);
        bus_write(pio, 0x05, 1, count >> 8 & 0xff);
        bus_write(pio, 0x81, 1, at >> 16 & 0xff);
        bus_write(pio, 0x0b, 1, (op->repeat & 0x3c) | 2);
        bus_write(pio, 0x0a, 1, 2);
        return;
    }
    for (unsigned i = 0; i < (op->repeat & 15); i++)
        bus_write(pio, 0x3f5, 1, i < 8 ? op->value >> (8 * i) & 0xff : op->offset & 0xff);
}

static void command(struct fuzz_list *l, unsigned count, uint64_t bytes, unsigned last)
{
    seed_op(l, OP_SPECIAL, 0, 1, count, last, bytes);
    seed_op(l, OP_TIME, 0, 1, 0, 0, 15000000);
    seed_disk(l);
    seed_op(l, OP_TIME, 0, 1, 0, 0, 15000000);
    seed_op(l, OP_READ, FDC, 1, 6, 5, 0);
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    if (index > 3)
        return false;
    seed_write(l, FDC, 1, 2, 0x1c | (index & 1));
    seed_write(l, FDC, 1, 2, index == 2 ? 0x14 : 0x1c);
    seed_op(l, OP_TIME, 0, 1, 0, 0, 15000000);
    command(l, 1, 0x08, 0);
    command(l, 3, 0x02df03, 0);
    command(l, 4, 0x00570013, 0);
    command(l, 2, 0x0007, 0);
    command(l, 1, 0x08, 0);
    command(l, 3, 0x02000f, 0);
    command(l, 1, 0x08, 0);
    switch (index) {
    case 0:
        seed_op(l, OP_SPECIAL, 0, 1, 0x44, 0x30000, 1023);
        command(l, 9, 0x1b120201000200e6, 0xff);
        seed_op(l, OP_SPECIAL, 0, 1, 0x48, 0x30000, 511);
        command(l, 9, 0x1b120201000200c5, 0xff);
        command(l, 2, 0x004a, 0);
        command(l, 2, 0x0004, 0);
        seed_op(l, OP_SPECIAL, 0, 1, 0x48, 0x30000, 4 * 18 - 1);
        command(l, 6, 0xf61b1202004d, 0);
        break;
    case 1:
        seed_op(l, OP_SPECIAL, 0, 1, 0x54, 0x3ff00, 1023);
        command(l, 9, 0x1b120201000200d1, 0xff);
        command(l, 9, 0x1b09020100020142, 0xff);
        command(l, 9, 0x1b090201000201e6, 0xff);
        command(l, 9, 0x12020100020016, 0xff);
        command(l, 1, 0x0e, 0);
        command(l, 1, 0x10, 0);
        command(l, 1, 0x14, 0);
        command(l, 1, 0x94, 0);
        command(l, 2, 0xff12, 0);
        command(l, 2, 0x0518, 0);
        command(l, 3, 0x05008f, 0);
        break;
    case 2: /* without DMA */
        command(l, 3, 0x03df03, 0);
        command(l, 9, 0x1b02020100000046, 0xff);
        seed_op(l, OP_READ, FDC, 1, 255, 5, 0);
        seed_op(l, OP_READ, FDC, 1, 255, 5, 0);
        command(l, 9, 0x1b02020100000045, 0xff);
        seed_op(l, OP_WRITE, FDC, 1, 255, 5, 0x55);
        seed_op(l, OP_WRITE, FDC, 1, 255, 5, 0x55);
        break;
    default: /* the rest of the DMA controllers */
        seed_write(l, DMA_1, 1, 0x0d, 0);
        seed_write(l, DMA_1, 1, 0x0f, 0);
        seed_write(l, DMA_1, 1, 0x09, 6);
        seed_write(l, DMA_1, 1, 0x08, 4);
        seed_read(l, DMA_1, 1, 0x08);
        seed_write(l, DMA_2, 1, 0x16, 0xc0);
        seed_write(l, DMA_2, 1, 0x14, 0);
        seed_write(l, PAGES, 1, 0xf, 0x12);
        seed_op(l, OP_SPECIAL, 0, 1, 0x80, 0, 1);
        seed_read(l, FDC_DIR, 1, 0);
    }
    return true;
}

const struct fuzz_device fuzz_device = {create, special, NULL, seed};
