/* virtio block and entropy devices: both interfaces, rings, chains and indirect tables. */
#include "dev/virtio.h"
#include "dev/virtio_blk.h"
#include "dev/virtio_rng.h"
#include "device.h"

#define BLK    PCI_DEVFN(4, 0)
#define RNG    PCI_DEVFN(5, 0)
#define COMMON 0xe0004000u

enum { MODERN, LEGACY, MSIX, CONFIG, RNG_MODERN, RNG_LEGACY, RNG_CONFIG };
enum {
    DESC = 0x10000,
    AVAIL = 0x14000,
    USED = 0x15000,
    TABLE = 0x18000,
    HEADER = 0x20000,
    STATUS = 0x21000,
    DATA = 0x30000,
    QUEUE = 16
};
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

static void create(struct fuzz_machine *f)
{
    virtio_blk_create(&f->machine.env, f->pci, BLK, fuzz_disk(1 << 20, false), "serial", 2);
    virtio_rng_create(&f->machine.env, f->pci, RNG);
    fuzz_bar(f, BLK, 4, false, COMMON, 0x4000);
    fuzz_bar(f, BLK, 0, true, 0xc000, 64);
    fuzz_bar(f, BLK, 1, false, 0xe0000000, 0x1000);
    fuzz_config(f, BLK);
    fuzz_bar(f, RNG, 4, false, COMMON + 0x4000, 0x4000);
    fuzz_bar(f, RNG, 0, true, 0xc100, 64);
    fuzz_config(f, RNG);
}

/* Offer a chain once more: `offset` its head; or a descriptor. */
static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    uint8_t *ram = f->mem->ram;
    if (op->repeat & 1) {
        uint8_t *d = ram + (op->repeat & 2 ? TABLE : DESC) + op->offset % QUEUE * 16;
        const uint64_t addresses[] = {DATA, HEADER, STATUS, TABLE, FUZZ_RAM - 16, DESC, USED, 0};
        uint64_t address = addresses[op->value & 7] + (op->value >> 8 & 0xff0);
        uint64_t rest = op->value >> 20;
        memcpy(d, &address, 8);
        memcpy(d + 8, &rest, 8);
        return;
    }
    uint16_t index, head = (uint16_t)op->offset;
    memcpy(&index, ram + AVAIL + 2, 2);
    memcpy(ram + AVAIL + 4 + 2 * (index % QUEUE), &head, 2);
    index++;
    memcpy(ram + AVAIL + 2, &index, 2);
    if (op->repeat & 2)
        bus_write(&f->machine.pio, 0xc010, 2, op->value);
    else
        bus_write(&f->machine.mmio, COMMON + 0x3000 + (op->value & 0x1ffc), 2, op->value & 3);
}

static void descriptor(struct fuzz_list *l, uint32_t table, unsigned i, uint64_t address,
                       uint32_t length, unsigned flags, unsigned next)
{
    seed_memory(l, table + 16 * i, address);
    seed_memory(l, table + 16 * i + 8, length | (uint64_t)flags << 32 | (uint64_t)next << 48);
}

static void modern(struct fuzz_list *l, unsigned range, unsigned features)
{
    seed_write(l, range, 1, 20, 0);
    seed_write(l, range, 1, 20, 3);
    seed_write(l, range, 4, 8, 0);
    seed_write(l, range, 4, 12, features);
    seed_write(l, range, 4, 8, 1);
    seed_write(l, range, 4, 12, 1);
    seed_write(l, range, 1, 20, 11);
    seed_write(l, range, 2, 22, 0);
    seed_write(l, range, 2, 24, QUEUE);
    seed_write(l, range, 4, 32, DESC);
    seed_write(l, range, 4, 36, 0);
    seed_write(l, range, 4, 40, AVAIL);
    seed_write(l, range, 4, 48, USED);
    seed_write(l, range, 2, 28, 1);
    seed_write(l, range, 1, 20, 15);
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    static const struct {
        uint32_t type, length;
        uint64_t sector;
        bool in;
    } requests[] = {{0, 512, 1, true}, {1, 512, 2, false}, {4, 0, 0, false},
                    {8, 20, 0, true},  {11, 16, 0, false}, {13, 16, 0, false}};
    if (index > 4)
        return false;
    bool entropy = index == 3;
    if (index == 2) {
        seed_write(l, LEGACY, 1, 18, 3);
        seed_write(l, LEGACY, 4, 4, 0x6000);
        seed_write(l, LEGACY, 2, 14, 0);
        seed_write(l, LEGACY, 4, 8, DESC >> 12);
        seed_write(l, LEGACY, 1, 18, 7);
    } else {
        modern(l, entropy ? RNG_MODERN : MODERN,
               index == 1   ? 1u << VIRTIO_F_INDIRECT | 1u << VIRTIO_F_EVENT_INDEX
               : index == 4 ? 0x30006ff6
                            : 1u << VIRTIO_F_ANY_LAYOUT);
    }
    if (index == 1) {
        seed_op(l, OP_RESET, 0, 1, FUZZ_MESSAGES, 0, 0);
        seed_write(l, MODERN, 2, 26, 1);
        seed_write(l, MODERN, 2, 16, 0);
    }
    for (unsigned i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        uint32_t table = index == 1 ? TABLE : DESC;
        seed_memory(l, HEADER, requests[i].type);
        seed_memory(l, HEADER + 8, requests[i].sector);
        seed_memory(l, DATA + 8, 1);
        if (entropy) {
            descriptor(l, DESC, 0, DATA, 64, WRITE, 0);
        } else {
            descriptor(l, table, 0, HEADER, 16, NEXT, 1);
            descriptor(l, table, 1, DATA, requests[i].length, NEXT | (requests[i].in ? WRITE : 0),
                       2);
            descriptor(l, table, 2, STATUS, 1, WRITE, 0);
            if (index == 1)
                descriptor(l, DESC, 0, TABLE, 48, INDIRECT, 0);
        }
        seed_op(l, OP_SPECIAL, 0, 1, index == 2 ? 2 : 0, 0, 0);
        if (entropy)
            seed_write(l, RNG_MODERN, 2, 0x3000, 0);
        seed_op(l, OP_DISK, 0, 1, index == 4 ? DISK_FAILS : DISK_AT_ONCE, 0, 0);
    }
    seed_read(l, MODERN, 1, 0x1000);
    seed_write(l, MSIX, 4, 0, 0xfee00000);
    seed_write(l, MSIX, 4, 28, 1);
    seed_write(l, MSIX, 4, 28, 0);
    seed_read(l, MODERN, 4, 0x2000);
    seed_write(l, MODERN, 1, 0x2020, 1);
    return true;
}

const struct fuzz_device fuzz_device = {create, special, NULL, seed};
