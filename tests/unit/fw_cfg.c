/* Firmware configuration as SeaBIOS reads it, and a guest that asks for what is not there. */
#include "dev/fw_cfg.h"

#include <endian.h>
#include <stdio.h>

#include "dma_machine.h"

#define DESCRIPTOR 0x9000
#define DATA       0x30000

enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

static void select_item(unsigned item)
{
    bus_write(&m.pio, 0x510, 2, item);
}

static void set_descriptor(uint64_t at, uint32_t control, uint32_t length, uint64_t address)
{
    uint32_t words[2] = {htobe32(control), htobe32(length)};
    address = htobe64(address);
    memcpy(m.mem.ram + at, words, 8);
    memcpy(m.mem.ram + at + 8, &address, 8);
}

static void start(uint64_t at)
{
    bus_write(&m.pio, 0x514, 4, htobe32((uint32_t)(at >> 32)));
    bus_write(&m.pio, 0x518, 4, htobe32((uint32_t)at));
}

/* The control word after it. */
static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
    uint32_t word;
    set_descriptor(DESCRIPTOR, control, length, address);
    start(DESCRIPTOR);
    memcpy(&word, m.mem.ram + DESCRIPTOR, 4);
    return be32toh(word);
}

static void test_ports(void)
{
    select_item(FW_CFG_SIGNATURE);
    CHECK(in8(&m, 0x511) == 'Q' && in8(&m, 0x511) == 'E' && in8(&m, 0x511) == 'M');
    CHECK(in8(&m, 0x511) == 'U' && in8(&m, 0x511) == 0 && in8(&m, 0x511) == 0);
    CHECK(bus_read(&m.pio, 0x514, 4) == htobe32(0x51454d55));
    CHECK(bus_read(&m.pio, 0x518, 4) == htobe32(0x20434647));
    select_item(FW_CFG_ID);
    CHECK(in8(&m, 0x511) == 3);
    /* No such items; those of the architecture; those that are written to. */
    static const unsigned none[] = {0x18, 0x3f, 0x40, 0x8000, 0x8019, 0xffff, 0xbfff};
    for (unsigned i = 0; i < ARRAY_SIZE(none); i++) {
        select_item(none[i]);
        CHECK(in8(&m, 0x511) == 0);
    }
    select_item(0x4000);
    CHECK(in8(&m, 0x511) == 'Q');
    bus_write(&m.pio, 0x511, 1, 'x');
    select_item(FW_CFG_SIGNATURE);
    CHECK(in8(&m, 0x511) == 'Q');
}

static void test_directory(void)
{
    uint8_t *to = m.mem.ram + DATA;
    CHECK(dma(FW_CFG_DIRECTORY << 16 | SELECT | READ, 4 + 2 * 64, DATA) == 0);
    CHECK(to[3] == 2 && to[4 + 3] == 6 && to[4 + 5] == FW_CFG_FILES);
    CHECK(!strcmp((char *)to + 4 + 8, "etc/first") && !strcmp((char *)to + 68 + 8, "etc/second"));
    CHECK(to[64 + 4 + 5] == FW_CFG_FILES + 1);
}

/* A file that was added again keeps its number and has its new size. */
static void test_replaced(void)
{
    uint8_t *to = m.mem.ram + DATA;
    CHECK(dma(FW_CFG_DIRECTORY << 16 | SELECT | READ, 4 + 64, DATA) == 0);
    CHECK(to[3] == 32 && to[4 + 3] == 5 && !strcmp((char *)to + 4 + 8, "etc/first"));
    CHECK(dma(FW_CFG_FILES << 16 | SELECT | READ, 6, DATA) == 0 && !memcmp(to, "again", 6));
}

static void test_dma(void)
{
    uint8_t *to = m.mem.ram + DATA;
    memset(to, 0xee, 64);
    CHECK(dma(FW_CFG_FILES << 16 | SELECT | READ, 10, DATA) == 0);
    CHECK(!memcmp(to, "abcdef\0\0\0\0\xee", 11)); /* zeroes behind the end */
    CHECK(dma(FW_CFG_FILES << 16 | SELECT | SKIP, 4, 0) == 0);
    CHECK(dma(READ, 2, DATA + 20) == 0 && !memcmp(to + 20, "ef\xee", 3));
    CHECK(dma(FW_CFG_FILES << 16 | SELECT, 0, 0) == 0 && in8(&m, 0x511) == 'a');
    CHECK(dma(SKIP, 0xffffffff, 0) == 0 && in8(&m, 0x511) == 0);
    CHECK(dma(SKIP, 0xffffffff, 0) == 0 && in8(&m, 0x511) == 0);
    CHECK(dma(FW_CFG_FILES << 16 | SELECT | WRITE, 1, DATA) == ERROR);
    CHECK(dma(0xffff0000 | SELECT | READ, 8, DATA) == 0 && to[0] == 0 && to[7] == 0);

    /* Addresses that are not memory, wholly or at the end. */
    CHECK(dma(FW_CFG_FILES << 16 | SELECT | READ, 6, RAM_SIZE - 3) == ERROR);
    CHECK(dma(FW_CFG_FILES << 16 | SELECT | READ, 6, UINT64_MAX - 2) == ERROR);
    CHECK(dma(FW_CFG_FILES << 16 | SELECT | READ, 0xffffffff, RAM_SIZE - 4096) == ERROR);
    CHECK(dma(FW_CFG_FILES << 16 | SELECT | READ, 0, UINT64_MAX) == 0);
    start(RAM_SIZE - 8);
    start(UINT64_MAX);
    start(UINT64_MAX - 15);
    /* Onto its own descriptor. */
    dma(FW_CFG_FILES << 16 | SELECT | READ, 64, DESCRIPTOR);
    CHECK(!memcmp(m.mem.ram + DESCRIPTOR, "\0\0\0\0ef", 6));

    /* Half an address is forgotten at a reset. */
    bus_write(&m.pio, 0x514, 4, 0xffffffff);
    reset_machine();
    set_descriptor(DESCRIPTOR, FW_CFG_FILES << 16 | SELECT | READ, 3, DATA + 40);
    bus_write(&m.pio, 0x518, 4, htobe32(DESCRIPTOR));
    CHECK(!memcmp(to + 40, "abc", 3));
}

static void test_hostile(void)
{
    for (unsigned i = 0; i < 50000; i++) {
        uint64_t r = rnd();
        unsigned port = (r & 1 ? 0x510 : 0x514) + (unsigned)(r >> 8) % 8,
                 size = 1u << (r >> 16) % 4;
        if (r >> 20 & 1)
            bus_read(&m.pio, port, size);
        else
            bus_write(&m.pio, port, size, interesting());
        if ((r >> 24) % 4 == 0) {
            uint32_t length = (uint32_t)interesting();
            dma((uint32_t)interesting() | (r >> 32 & 31), MIN(length, 1u << 17), interesting());
        }
    }
}

int main(void)
{
    dma_machine_init();
    struct fw_cfg *cfg = fw_cfg_create(&m.env);
    CHECK(fw_cfg_add_file(cfg, "etc/first", "abcdef", 6));
    CHECK(fw_cfg_add_file(cfg, "etc/second", "", 0));
    char name[57] = {[0 ... 55] = 'n'};
    CHECK(!fw_cfg_add_file(cfg, name, "x", 1));
    CHECK(!fw_cfg_add(cfg, 0x4000, "x", 1));
    test_ports();
    test_directory();
    test_dma();
    test_hostile();
    for (unsigned i = 2; i < 32; i++) {
        snprintf(name, sizeof name, "more/%u", i);
        CHECK(fw_cfg_add_file(cfg, name, "x", 1));
    }
    CHECK(fw_cfg_add_file(cfg, "more/31", "longer", 6));
    CHECK(fw_cfg_add_file(cfg, "etc/first", "again", 5));
    test_replaced();
    CHECK(!fw_cfg_add_file(cfg, "too many", "x", 1));
    dma_machine_end();
    return check_result();
}
