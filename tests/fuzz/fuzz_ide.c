/* The PIIX4 IDE controller: task files, PIO and bus-master DMA, a disk and a CD-ROM. */
#include "dev/ide.h"
#include "dev/piix4.h"
#include "device.h"

#define DEVFN PCI_DEVFN(PIIX4_SLOT, 1)
#define BM    0xc000

enum { PRIMARY, SECONDARY, CONTROL_1, CONTROL_2, MASTER, CONFIG };
enum { PRD = 0x8000, DATA = 0x30000 };

static struct ide *ide;
static struct disk *disc[2];

static void create(struct fuzz_machine *f)
{
    ide = ide_create(&f->machine.env, f->pci, fuzz_irq(f, 14), fuzz_irq(f, 15));
    ide_attach(ide, 0, fuzz_disk(4 << 20, false), false);
    ide_attach(ide, 1, fuzz_disk(1 << 20, true), false);
    disc[0] = fuzz_disk(1 << 20, true);
    disc[1] = fuzz_disk(1 << 16, true);
    ide_attach(ide, 2, disc[0], true);
    fuzz_ports(f, 0x1f0, 8);
    fuzz_ports(f, 0x170, 8);
    fuzz_ports(f, 0x3f6, 1);
    fuzz_ports(f, 0x376, 1);
    fuzz_bar(f, DEVFN, 4, true, BM, 16);
    fuzz_config(f, DEVFN);
}

/* A command with all its registers; or another disc. */
static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    unsigned base = op->repeat & 1 ? 0x170 : 0x1f0;
    if (op->repeat >= 0xfc) {
        pthread_mutex_lock(&f->machine.lock);
        ide_change_medium(ide, op->offset & 3, op->offset & 4 ? NULL : disc[op->value & 1],
                          op->value & 2);
        pthread_mutex_unlock(&f->machine.lock);
        return;
    }
    bus_write(&f->machine.pio, base + 6, 1, op->value & 0xff);
    for (unsigned i = 1; i < 6; i++)
        bus_write(&f->machine.pio, base + i, 1, op->value >> (8 * i) & 0xff);
    bus_write(&f->machine.pio, base + 7, 1, op->offset & 0xff);
    if (op->repeat & 2)
        bus_write(&f->machine.pio, BM + (op->repeat & 1 ? 8 : 0), 1, op->repeat & 4 ? 9 : 1);
}

static void command(struct fuzz_list *l, unsigned how, unsigned code, unsigned device,
                    unsigned feature, unsigned count, uint32_t lba)
{
    seed_op(l, OP_SPECIAL, 0, 1, how, code,
            device | feature << 8 | (uint64_t)count << 16 | (uint64_t)lba << 24);
    seed_disk(l);
}

static void packet(struct fuzz_list *l, unsigned how, uint64_t first, uint32_t rest, unsigned limit)
{
    command(l, how, 0xa0, 0xa0, how & 2 ? 1 : 0, 0, limit << 8);
    for (unsigned i = 0; i < 4; i++)
        seed_write(l, SECONDARY, 2, 0, first >> (16 * i) & 0xffff);
    seed_write(l, SECONDARY, 2, 0, rest & 0xffff);
    seed_write(l, SECONDARY, 2, 0, rest >> 16);
    seed_disk(l);
    seed_op(l, OP_READ, SECONDARY, 2, 31, 0, 0);
    seed_read(l, SECONDARY, 1, 7);
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    static const uint8_t plain[] = {0x00, 0x08, 0x10, 0x27, 0x40, 0x42, 0x70, 0x90, 0x91, 0xe0,
                                    0xe1, 0xe2, 0xe3, 0xe5, 0xe6, 0xe7, 0xea, 0xef, 0xf8, 0xf5};
    static const struct {
        uint64_t first;
        uint32_t rest;
    } packets[] = {
        {0x00, 0},
        {0x1200000003, 0},
        {0x2400000012, 0},
        {0x25, 0},
        {0x0100000028, 0x01},
        {0xa8, 0x0100},
        {0x43, 0x14},
        {0x0243, 0x14},
        {0x46, 0x40},
        {0x4a, 0x08},
        {0x51, 0x22},
        {0x2a005a, 0x80},
        {0x1b, 0},
        {0x020000001b, 0},
        {0x1e, 0},
        {0x010000001e, 0},
        {0xbe, 0xf8000001},
        {0xad, 0x40},
        {0x42, 0x10},
        {0xbd, 0x08},
        {0xb9, 0},
        {0x100000014a, 0x08},
        {0x010043, 0xff},
        {0x020043, 0xff},
        {0x0152, 0x24},
        {0xad, 0x0408},
        {0x2b, 0},
        {0xbe, 0x1001},
        {0xea005a, 0x80},
    };
    seed_memory(l, PRD, DATA | UINT64_C(0x200) << 32);
    seed_memory(l, PRD + 8, (DATA + 0x1000) | UINT64_C(0x80000800) << 32);
    seed_write(l, MASTER, 4, 4, PRD);
    seed_write(l, MASTER, 4, 12, PRD);
    switch (index) {
    case 0:
        for (unsigned i = 0; i < sizeof plain; i++)
            command(l, 0, plain[i], 0xe0, 3, 1, 1);
        break;
    case 1: /* PIO */
        command(l, 0, 0xec, 0xe0, 0, 1, 0);
        seed_op(l, OP_READ, PRIMARY, 2, 255, 0, 0);
        command(l, 0, 0x20, 0xe0, 0, 1, 2);
        seed_op(l, OP_READ, PRIMARY, 4, 127, 0, 0);
        command(l, 0, 0x30, 0xe0, 0, 1, 3);
        seed_op(l, OP_WRITE, PRIMARY, 2, 255, 0, 0x1234);
        command(l, 0, 0xc6, 0xe0, 0, 2, 0);
        command(l, 0, 0xc4, 0xe0, 0, 4, 5);
        seed_op(l, OP_READ, PRIMARY, 2, 255, 0, 0);
        command(l, 0, 0x24, 0xe0, 0, 1, 5);
        command(l, 0, 0x34, 0xf0, 0, 1, 5);
        break;
    case 2: /* DMA */
        command(l, 6, 0xc8, 0xe0, 0, 5, 1);
        seed_read(l, MASTER, 1, 2);
        seed_write(l, MASTER, 1, 0, 0);
        command(l, 2, 0xca, 0xe0, 0, 5, 1);
        seed_write(l, MASTER, 1, 0, 0);
        command(l, 6, 0x25, 0xe0, 0, 5, 1);
        seed_write(l, MASTER, 1, 0, 0);
        seed_op(l, OP_DISK, 0, 1, DISK_LATE, 0, 0);
        command(l, 2, 0x35, 0xe0, 0, 5, 1);
        seed_write(l, CONTROL_1, 1, 0, 4);
        seed_write(l, CONTROL_1, 1, 0, 0);
        command(l, 2, 0x06, 0xe0, 1, 1, 1);
        break;
    case 3:
        command(l, 1, 0xa1, 0xa0, 0, 0, 0);
        for (unsigned i = 0; i < 8; i++)
            packet(l, 1, packets[i].first, packets[i].rest, 0xfffe);
        break;
    case 4:
        for (unsigned i = index == 4 ? 8 : 16; i < sizeof packets / sizeof packets[0]; i++)
            packet(l, 1, packets[i].first, packets[i].rest, 0x40);
        break;
    case 5:
        packet(l, 7, 0x28, 0x0100, 0);
        packet(l, 7, 0xa8, 0x0200, 0);
        seed_op(l, OP_SPECIAL, 0, 1, 0xff, 2, 1);
        packet(l, 1, 0x4a, 0x08, 0x40);
        packet(l, 1, 0x25, 0, 0x40);
        break;
    case 6: /* a disk that fails */
        for (unsigned i = 0; i < 4; i++) {
            static const uint8_t codes[] = {0x20, 0xc8, 0xca, 0xea};
            seed_op(l, OP_SPECIAL, 0, 1, i & 3 ? 2 : 0, codes[i], 0xe0 | 1 << 16 | 1 << 24);
            seed_op(l, OP_DISK, 0, 1, DISK_FAILS, 0, 0);
            seed_read(l, PRIMARY, 1, 1);
            seed_read(l, PRIMARY, 1, 7);
        }
        packet(l, 1, 0x28, 0x0100, 0xfffe);
        break;
    default:
        return false;
    }
    return true;
}

const struct fuzz_device fuzz_device = {create, special, NULL, seed};
