/* The firmware configuration device: selector, data and DMA. */
#include "dev/fw_cfg.h"
#include "device.h"

enum { SELECT, DMA };
enum { CONTROL = 0x8000, DATA = 0x30000 };

static void create(struct fuzz_machine *f)
{
    static const char text[5000] = "bytes";
    struct fw_cfg *cfg = fw_cfg_create(&f->machine.env);
    fw_cfg_add_number(cfg, FW_CFG_RAM_SIZE, FUZZ_RAM, 8);
    fw_cfg_add_file(cfg, "etc/e820", text, 20);
    fw_cfg_add_file(cfg, "etc/long", text, sizeof text);
    fuzz_ports(f, 0x510, 2);
    fuzz_ports(f, 0x514, 8);
}

/* A transfer: big-endian control, length and address. */
static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    uint32_t at = op->repeat & 1 ? CONTROL : op->offset;
    const uint32_t control[] = {__builtin_bswap32(op->offset),
                                __builtin_bswap32((uint32_t)op->value)};
    const uint64_t address = __builtin_bswap64(op->repeat & 2 ? DATA : op->value >> 32);
    if (at <= FUZZ_RAM - 16) {
        memcpy(f->mem->ram + at, control, 8);
        memcpy(f->mem->ram + at + 8, &address, 8);
    }
    bus_write(&f->machine.pio, 0x514, 4, 0);
    bus_write(&f->machine.pio, 0x518, 4, __builtin_bswap32(at));
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    static const unsigned items[] = {0, 1, 3, 5, 0x19, 0x20, 0x21, 0x22, 0x4021, 0x8000, 0xffff};
    if (index > 1)
        return false;
    for (unsigned i = 0; i < sizeof items / sizeof items[0]; i++) {
        seed_write(l, SELECT, 2, 0, items[i]);
        seed_op(l, OP_READ, SELECT, 1, 40, 1, 0);
        if (index == 0)
            continue;
        seed_op(l, OP_SPECIAL, 0, 1, 3, items[i] << 16 | 8 | 2, 64);
        seed_op(l, OP_SPECIAL, 0, 1, 3, items[i] << 16 | 4, 64);
        seed_op(l, OP_SPECIAL, 0, 1, 3, 2, UINT32_MAX);
        seed_op(l, OP_SPECIAL, 0, 1, 3, 16, 64);
    }
    seed_read(l, DMA, 4, 0);
    return true;
}

const struct fuzz_device fuzz_device = {create, special, NULL, seed};
