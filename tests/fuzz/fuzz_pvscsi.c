/* PVSCSI and the SCSI disk: registers, rings, scatter-gather lists, command descriptor blocks. */
#include "dev/pvscsi.h"
#include "device.h"

#define DEVFN PCI_DEVFN(5, 0)

enum { REGS, MSIX, CONFIG };
enum {
    STATE_PAGE = 0x10000,
    REQ = 0x11000,
    CMP = 0x12000,
    SG = 0x14000,
    SENSE = 0x15000,
    MSG = 0x16000,
    DATA = 0x30000,
    TAIL = 0x17000
};

static void create(struct fuzz_machine *f)
{
    struct pvscsi *adapter = pvscsi_create(&f->machine.env, f->pci, DEVFN);
    pvscsi_attach(adapter, fuzz_disk(1 << 20, false), "one");
    pvscsi_attach(adapter, fuzz_disk(1 << 16, true), "two");
    fuzz_bar(f, DEVFN, 0, false, 0xe0000000, 0x8000);
    fuzz_bar(f, DEVFN, 1, false, 0xe0010000, 0x1000);
    fuzz_config(f, DEVFN);
}

/* A request at the producer's place, `value` the first bytes of its command; and the kick. */
static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    uint32_t producer;
    memcpy(&producer, f->mem->ram + STATE_PAGE, 4);
    uint8_t *at = f->mem->ram + REQ + producer % 32 * 128;
    const uint64_t words[] = {op->value, op->offset & 1 ? SG : DATA, op->offset >> 8 & 0xffff,
                              SENSE, 64 | (uint64_t)(op->offset & 0x1f) << 32};
    memcpy(at, words, sizeof words);
    memcpy(at + 40, &op->value, 8);
    memcpy(at + 48, f->mem->ram + TAIL, 8); /* the rest of it */
    at[67] = op->repeat & 3;
    producer++;
    memcpy(f->mem->ram + STATE_PAGE, &producer, 4);
    bus_write(&f->machine.mmio, op->repeat & 4 ? 0xe0003014 : 0xe0004018, 4, 0);
    memcpy(f->mem->ram + STATE_PAGE + 16, f->mem->ram + STATE_PAGE + 12, op->repeat & 8 ? 0 : 4);
}

static void command(struct fuzz_list *l, uint32_t number, const uint32_t *words, unsigned count)
{
    seed_write(l, REGS, 4, 0, number);
    for (unsigned i = 0; i < count; i++)
        seed_write(l, REGS, 4, 4, words[i]);
    seed_read(l, REGS, 4, 8);
}

static void request(struct fuzz_list *l, uint64_t cdb, unsigned length, unsigned flags,
                    unsigned target)
{
    seed_op(l, OP_SPECIAL, 0, 1, target, length << 8 | flags, cdb);
    seed_disk(l);
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    static const struct {
        uint64_t cdb;
        unsigned length, flags;
    } commands[] = {
        {0x00, 0, 4},
        {0x6000000012, 96, 8},
        {0xff00800112, 255, 8},
        {0xff00830112, 255, 8},
        {0xff00b00112, 255, 8},
        {0xff00b20112, 255, 8},
        {0x25, 8, 8},
        {0x109e, 32, 8},
        {0x28, 512, 8},
        {0x01000002000028, 512, 8},
        {0x0100000300002a, 512, 16},
        {0x02000000000028, 1024, 9},
        {0x0100000000002f, 0, 4},
        {0x35, 0, 4},
        {0xff003f001a, 255, 8},
        {0xff0000003f005a, 255, 8},
        {0x10000003, 18, 8},
        {0x1000000000a0, 16, 8},
        {0x41, 512, 16},
        {0x093, 512, 16},
        {0x1800000000000042, 24, 16},
        {0x1b, 0, 4},
        {0x4d, 64, 8},
        {0xa3, 64, 8},
        {0x88, 512, 8},
        {0x8a, 512, 16},
    };
    if (index > 3)
        return false;
    uint32_t rings[132] = {1, 1, STATE_PAGE >> 12, 0};
    for (unsigned i = 0; i < 32; i++) {
        rings[4 + 2 * i] = REQ >> 12;
        rings[68 + 2 * i] = CMP >> 12;
    }
    command(l, 1, NULL, 0);
    command(l, 3, rings, 132);
    seed_write(l, REGS, 4, 0x2010, 0xf);
    seed_memory(l, SG, DATA);
    seed_memory(l, SG + 8, 256);
    seed_memory(l, SG + 16, DATA + 0x1000);
    seed_memory(l, SG + 24, index == 2 ? 256 | UINT64_C(1) << 32 : 768);
    seed_memory(l, TAIL, 0x01);
    if (index == 1) { /* an UNMAP of two ranges */
        seed_memory(l, TAIL, 40);
        seed_memory(l, DATA, 0x2000002600);
        seed_memory(l, DATA + 8, 0);
        seed_memory(l, DATA + 16, 0x0100000000000000 >> 32 << 16);
        seed_memory(l, DATA + 24, 0);
        request(l, 0x42, 40, 16, 0);
        seed_memory(l, TAIL, 1);
    }
    if (index == 3)
        seed_op(l, OP_RESET, 0, 1, FUZZ_MESSAGES, 0, 0);
    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++)
        request(l, commands[i].cdb, commands[i].length, commands[i].flags, index % 2);
    if (index == 2) {
        seed_op(l, OP_DISK, 0, 1, DISK_LATE, 0, 0);
        seed_op(l, OP_SPECIAL, 0, 1, 0, 512 << 8 | 8, 0x01000002000028);
        command(l, 6, (const uint32_t[]){0, 0, 0}, 3);
        seed_op(l, OP_SPECIAL, 0, 1, 0, 512 << 8 | 8, 0x01000002000028);
        command(l, 5, (const uint32_t[]){0, 0, 0}, 3);
        command(l, 4, NULL, 0);
        for (unsigned i = 6; i < 14; i++) {
            seed_op(l, OP_SPECIAL, 0, 1, 0, commands[i].length << 8 | commands[i].flags,
                    commands[i].cdb);
            seed_op(l, OP_DISK, 0, 1, DISK_FAILS | DISK_BACKWARDS, 0, 0);
        }
    }
    if (index == 3) {
        const uint32_t message[] = {1, 0, MSG >> 12, 0};
        command(l, 8, message, 4);
        command(l, 7, (const uint32_t[]){0x20000, 0, 0, 0x1958, 0, 0}, 6);
        command(l, 10, (const uint32_t[]){1}, 1);
        seed_write(l, MSIX, 4, 0, 0xfee00000);
        seed_write(l, MSIX, 4, 12, 1);
        seed_write(l, MSIX, 4, 12, 0);
    }
    seed_read(l, REGS, 4, 0x100c);
    seed_write(l, REGS, 4, 0x100c, 0xf);
    return true;
}

const struct fuzz_device fuzz_device = {create, special, NULL, seed};
