/* The PVSCSI adapter and the SCSI disk behind it as drivers use them, and drivers that lie. */
#include "dev/pvscsi.h"

#include "dma_machine.h"

#define REGS       0xe0000000
#define STATE_PAGE 0x10000
#define REQ_RING   0x11000
#define CMP_RING   0x12000
#define SG         0x14000
#define SENSE      0x15000
#define DATA       0x30000
#define REQUESTS   32
#define TO_HOST    8
#define TO_DEVICE  16
#define SG_LIST    1

static uint32_t producer, consumer;

static uint32_t get32(uint64_t gpa)
{
    uint32_t value;
    memcpy(&value, m.mem.ram + gpa, 4);
    return value;
}

static void set32(uint64_t gpa, uint32_t value)
{
    memcpy(m.mem.ram + gpa, &value, 4);
}

static void set64(uint64_t gpa, uint64_t value)
{
    memcpy(m.mem.ram + gpa, &value, 8);
}

static uint32_t reg(unsigned offset)
{
    return (uint32_t)bus_read(&m.mmio, REGS + offset, 4);
}

static void set_reg(unsigned offset, uint32_t value)
{
    bus_write(&m.mmio, REGS + offset, 4, value);
}

static uint32_t command(uint32_t number, const uint32_t *data, unsigned dwords)
{
    set_reg(0, number);
    for (unsigned i = 0; i < dwords; i++)
        set_reg(4, data[i]);
    return reg(8);
}

static uint32_t setup(uint32_t req_pages, uint32_t cmp_pages, uint64_t state)
{
    uint32_t d[132] = {req_pages, cmp_pages, (uint32_t)state, (uint32_t)(state >> 32)};
    for (unsigned i = 0; i < 32; i++) {
        d[4 + 2 * i] = REQ_RING >> 12;
        d[68 + 2 * i] = CMP_RING >> 12;
    }
    return command(3, d, 132);
}

static void start(void)
{
    config_write(PCI_BAR0, REGS);
    config_write(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    CHECK(command(1, NULL, 0) == 0);
    CHECK(setup(1, 1, STATE_PAGE >> 12) == 0);
    CHECK(get32(STATE_PAGE + 8) == 5 && get32(STATE_PAGE + 20) == 7);
    producer = consumer = 0;
}

static void queue(unsigned target, const uint8_t *cdb, uint64_t data, uint64_t length,
                  uint32_t flags)
{
    uint64_t at = REQ_RING + producer % REQUESTS * 128;
    memset(m.mem.ram + at, 0, 128);
    set64(at, 0x1234500 + producer);
    set64(at + 8, data);
    set64(at + 16, length);
    set64(at + 24, SENSE);
    set32(at + 32, 64);
    set32(at + 36, flags);
    memcpy(m.mem.ram + at + 40, cdb, 16);
    m.mem.ram[at + 67] = (uint8_t)target;
    set32(STATE_PAGE, ++producer);
}

struct answer {
    uint64_t context, length;
    uint32_t sense_length;
    uint16_t host, scsi;
};

static struct answer take(void)
{
    struct answer a;
    CHECK(get32(STATE_PAGE + 12) != consumer);
    memcpy(&a, m.mem.ram + CMP_RING + consumer % 128 * 32, 24);
    set32(STATE_PAGE + 16, ++consumer);
    return a;
}

/* One command from beginning to end. Returns host status << 16 | SCSI status. */
static struct answer answer;
static uint32_t run(const char *cdb, uint64_t length, uint32_t flags)
{
    uint8_t bytes[16] = {0};
    for (unsigned i = 0, value; i < 16 && sscanf(cdb, "%2x", &value) == 1; i++, cdb += 2) {
        bytes[i] = (uint8_t)value;
        while (cdb[2] == ' ')
            cdb++;
    }
    memset(m.mem.ram + SENSE, 0, 64);
    queue(0, bytes, DATA, length, flags);
    set_reg(0x4018, 0);
    disk_drain(disk);
    answer = take();
    CHECK(answer.context == 0x1234500 + producer - 1);
    return (uint32_t)answer.host << 16 | answer.scsi;
}

static uint32_t sense(void)
{
    const uint8_t *s = m.mem.ram + SENSE;
    CHECK(answer.sense_length == 18 && s[0] == 0x70);
    return (uint32_t)s[2] << 16 | (uint32_t)s[12] << 8 | s[13];
}

#define DATA_AT(i) m.mem.ram[DATA + (i)]

static void test_identity(void)
{
    start();
    CHECK(config_read(0) == 0x07c015ad);
    CHECK(run("00", 0, 4) == 2 && sense() == 0x062900); /* after the reset */
    CHECK(run("00", 0, 4) == 0);
    CHECK(run("12 00 00 00 60", 96, TO_HOST) == 0 && answer.length == 96);
    CHECK(DATA_AT(0) == 0 && !memcmp(&DATA_AT(8), "VMware  Virtual disk    2.0 ", 28));
    CHECK(run("12 01 00 00 ff", 255, TO_HOST) == 0 && answer.length == 10);
    CHECK(run("12 01 80 00 ff", 255, TO_HOST) == 0 && !memcmp(&DATA_AT(4), "serial", 6));
    CHECK(run("12 01 83 00 ff", 255, TO_HOST) == 0 && DATA_AT(3) == 44);
    CHECK(run("12 01 b0 00 ff", 255, TO_HOST) == 0 && answer.length == 64);
    CHECK(run("12 01 b1 00 ff", 255, TO_HOST) == 0 && DATA_AT(5) == 1);
    CHECK(run("12 01 b2 00 ff", 255, TO_HOST) == 0 && DATA_AT(5) == 0xe0);
    CHECK(run("12 01 c0 00 ff", 255, TO_HOST) == 2 && sense() == 0x052400);
    CHECK(run("25", 8, TO_HOST) == 0);
    CHECK(!memcmp(&DATA_AT(0), "\0\0\x1f\xff\0\0\2\0", 8));
    CHECK(run("9e 10 00 00 00 00 00 00 00 00 00 00 00 20", 32, TO_HOST) == 0);
    CHECK(answer.length == 32 && DATA_AT(6) == 0x1f && DATA_AT(14) == 0x80);
    CHECK(run("a0 00 00 00 00 00 00 00 00 10", 16, TO_HOST) == 0 && DATA_AT(3) == 8);
    CHECK(run("a3 0c 01 93 00 00 00 00 00 40", 64, TO_HOST) == 0 && DATA_AT(1) == 3);
    CHECK(run("a3 0c 00 00 00 00 00 00 02 00", 512, TO_HOST) == 0 && answer.length > 200);
    CHECK(run("5e 00 00 00 00 00 00 00 08", 8, TO_HOST) == 0 && answer.length == 8);
    CHECK(run("5e 02 00 00 00 00 00 00 08", 8, TO_HOST) == 0 && DATA_AT(1) == 8);
    CHECK(run("16", 0, 4) == 0 && run("17", 0, 4) == 0);
    CHECK(run("03 00 00 00 12", 18, TO_HOST) == 0 && DATA_AT(0) == 0x70 && DATA_AT(2) == 0);
    CHECK(run("03 01 00 00 12", 18, TO_HOST) == 0 && DATA_AT(0) == 0x72 && answer.length == 8);
    CHECK(run("ff", 0, 4) == 2 && sense() == 0x052000);
    uint8_t cdb[16] = {0};
    for (unsigned target = 1; target < 256; target += 6) {
        queue(target, cdb, 0, 0, 0);
        set_reg(0x3014, 0);
        CHECK(take().host == 0x11);
    }
}

static void test_transfers(void)
{
    start();
    run("00", 0, 4);
    CHECK(run("28 00 00 00 00 02 00 00 03", 1536, TO_HOST) == 0 && answer.length == 1536);
    CHECK(DATA_AT(0) == 'c' && DATA_AT(1535) == 'e');
    CHECK(run("08 00 00 04 01", 512, TO_HOST) == 0 && DATA_AT(0) == 'e');
    CHECK(run("a8 00 00 00 00 05 00 00 00 01", 512, TO_HOST) == 0 && DATA_AT(0) == 'f');
    CHECK(run("88 00 00 00 00 00 00 00 00 06 00 00 00 01", 512, TO_HOST) == 0);
    CHECK(DATA_AT(0) == 'g');
    /* Less room than data; more room than data; out of range; the wrong direction. */
    CHECK(run("28 00 00 00 00 02 00 00 03", 512, TO_HOST) == 0x120000);
    CHECK(run("28 00 00 00 00 02 00 00 01", 4096, TO_HOST) == 0 && answer.length == 512);
    CHECK(run("28 00 00 00 1f ff 00 00 02", 1024, TO_HOST) == 2 && sense() == 0x052100);
    CHECK(run("88 00 ff ff ff ff ff ff ff ff 00 00 00 01", 512, TO_HOST) == 2);
    CHECK(sense() == 0x052100);
    CHECK(run("28 00 00 00 00 02 00 00 01", 512, TO_DEVICE) == 0x120000);
    CHECK(run("2a 00 00 00 00 02 00 00 01", 512, TO_HOST) == 0x120000);

    memset(&DATA_AT(0), 'Z', 4096);
    CHECK(run("2a 00 00 00 00 10 00 00 01", 512, TO_DEVICE) == 0 && stored(0x10 * 512) == 'Z');
    CHECK(stored(0x11 * 512) == 'r');
    CHECK(run("8a 08 00 00 00 00 00 00 00 12 00 00 00 02", 1024, TO_DEVICE) == 0);
    CHECK(stored(0x13 * 512 + 511) == 'Z' && stored(0x14 * 512) == 'u');
    CHECK(run("35", 0, 4) == 0 && run("91", 0, 4) == 0);
    /* WRITE SAME with a pattern and with zeroes; UNMAP. */
    CHECK(run("41 00 00 00 00 20 00 01 00", 512, TO_DEVICE) == 0);
    CHECK(stored(0x20 * 512) == 'Z' && stored(0x11f * 512) == 'Z' && stored(0x120 * 512) == 0);
    CHECK(run("93 01 00 00 00 00 00 00 00 20 00 00 00 08", 0, 4) == 0 && stored(0x20 * 512) == 0);
    memset(&DATA_AT(0), 0, 40);
    DATA_AT(1) = 38, DATA_AT(3) = 32;
    DATA_AT(8 + 7) = 0x40, DATA_AT(8 + 11) = 8;
    DATA_AT(24 + 7) = 0x50, DATA_AT(24 + 11) = 8;
    CHECK(run("42 00 00 00 00 00 00 00 28", 40, TO_DEVICE) == 0);
    CHECK(stored(0x40 * 512) == 0 && stored(0x50 * 512) == 0 && stored(0x48 * 512) == 'Z');
    DATA_AT(24 + 4) = 1; /* the second range is not on the disk */
    CHECK(run("42 00 00 00 00 00 00 00 28", 40, TO_DEVICE) == 2 && sense() == 0x052100);
    CHECK(run("2f 00 00 00 00 00 00 00 08", 0, 4) == 0);

    /* A list, with a chain in it. */
    set64(SG, DATA), set32(SG + 8, 256), set32(SG + 12, 0);
    set64(SG + 16, SG + 64), set32(SG + 24, 0), set32(SG + 28, 1);
    set64(SG + 64, DATA + 0x1000), set32(SG + 72, 768), set32(SG + 76, 0);
    uint8_t cdb[16] = {0x28, 0, 0, 0, 0, 2, 0, 0, 2};
    queue(0, cdb, SG, 1024, SG_LIST | TO_HOST);
    set_reg(0x4018, 0);
    disk_drain(disk);
    CHECK(take().host == 0);
    CHECK(DATA_AT(255) == 'c' && DATA_AT(0x1000) == 'c' && DATA_AT(0x1000 + 256) == 'd');
    set64(SG + 16, SG + 16); /* a loop */
    queue(0, cdb, SG, 1024, SG_LIST | TO_HOST);
    queue(0, cdb, RAM_SIZE - 8, 1024, SG_LIST | TO_HOST);
    queue(0, cdb, RAM_SIZE - 512, 1024, TO_HOST);
    set_reg(0x4018, 0);
    CHECK(take().host == 0x1a && take().host == 0x1a && take().host == 0x1a);
}

static void test_modes(void)
{
    start();
    run("00", 0, 4);
    CHECK(run("1a 00 3f 00 ff", 255, TO_HOST) == 0 && DATA_AT(3) == 8);
    CHECK(DATA_AT(0) == answer.length - 1);
    CHECK(run("5a 08 08 00 00 00 00 00 ff", 255, TO_HOST) == 0 && answer.length == 28);
    CHECK(DATA_AT(8) == 8 && DATA_AT(10) == 4);
    memset(&DATA_AT(0), 0, 8);
    DATA_AT(10) = 0;
    CHECK(run("55 10 00 00 00 00 00 00 1c", 28, TO_DEVICE) == 0);
    CHECK(run("1a 08 08 00 ff", 255, TO_HOST) == 0 && DATA_AT(4 + 2) == 0);
    CHECK(run("1a 08 48 00 ff", 255, TO_HOST) == 0 && DATA_AT(4 + 2) == 4);
    CHECK(run("1a 08 c8 00 ff", 255, TO_HOST) == 2 && sense() == 0x053900);
    memset(&DATA_AT(0), 0, 4);
    DATA_AT(4 + 5) = 1; /* not to be changed */
    CHECK(run("15 10 00 00 18", 24, TO_DEVICE) == 2 && sense() == 0x052600);
    CHECK(run("1b 00 00 00 00", 0, 4) == 0);
    CHECK(run("08 00 00 04 01", 512, TO_HOST) == 2 && sense() == 0x020402);
    CHECK(run("1b 00 00 00 01", 0, 4) == 0);
    CHECK(run("08 00 00 04 01", 512, TO_HOST) == 0);
}

static void test_interrupts(void)
{
    start();
    set_reg(0x100c, 0xf);
    CHECK(reg(0x100c) == 0 && !line.level);
    run("00", 0, 4);
    CHECK(reg(0x100c) == 1 && !line.level);
    set_reg(0x2010, 3);
    CHECK(line.level);
    set_reg(0x100c, 1);
    CHECK(!line.level && reg(0x100c) == 0);
    run("08 00 00 04 01", 512, TO_HOST);
    CHECK(line.level);
    set_reg(0x100c, 1);
}

static void test_commands(void)
{
    start();
    uint32_t d[34] = {0};
    CHECK(command(8, NULL, 0) == ~1u); /* waits for its descriptor, so it is known */
    d[0] = 1;
    CHECK(command(8, d, 34) == 0);
    CHECK(command(10, NULL, 0) == ~1u && command(10, d, 1) == 1);
    CHECK(command(5, (uint32_t[]){0, 0, 0}, 3) == 0);
    CHECK(command(5, (uint32_t[]){99, 0, 0}, 3) == ~0u);
    CHECK(command(4, NULL, 0) == 0);
    CHECK(command(6, d, 4) == 0);
    CHECK(command(2, NULL, 0) == ~0u && command(99, NULL, 0) == ~0u);
    CHECK(command(7, (uint32_t[]){DATA, 0, 0, 0x21200000, 0x1958, 0}, 6) == 0);
    CHECK(get32(DATA + 472) == 16 && get32(DATA + 6) == 0);
    CHECK(command(7, (uint32_t[]){DATA, 0, 0, 0, 0x1234, 0}, 6) == 0 && DATA_AT(6) == 0x1a);
    CHECK(setup(0, 1, STATE_PAGE >> 12) == ~0u);
    CHECK(setup(33, 1, STATE_PAGE >> 12) == ~0u);
    CHECK(setup(1, 1, RAM_SIZE >> 12) == ~0u);
    CHECK(setup(1, 1, ~0ull) == ~0u);
    set_reg(0x4018, 0);
    set_reg(0x3014, 0);
    for (unsigned i = 0; i < 300; i++)
        set_reg(4, i);
}

/* Rings, descriptors and registers full of nonsense. */
static void test_hostile(unsigned rounds)
{
    static const uint8_t opcodes[] = {0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x25, 0x28,
                                      0x2a, 0x2f, 0x35, 0x41, 0x42, 0x55, 0x5a, 0x5e, 0x88, 0x8a,
                                      0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa3, 0xa8, 0xaa, 0xff};
    static const uint16_t regs[] = {0,      4,      4,      8,      0x100, 0x100c,
                                    0x2010, 0x3014, 0x3018, 0x4018, 0x4018};
    for (unsigned round = 0; round < rounds; round++) {
        if (round % 64 == 0)
            start();
        for (unsigned i = 0; i < 8; i++) {
            uint8_t cdb[16];
            for (unsigned b = 0; b < 16; b++)
                cdb[b] = (uint8_t)(rnd() & 3 ? 0 : rnd());
            cdb[0] = opcodes[rnd() % ARRAY_SIZE(opcodes)];
            for (unsigned e = 0; e < 16; e++) {
                set64(SG + 16 * e, rnd() & 1 ? SG : rnd() & 1 ? DATA : interesting());
                set32(SG + 16 * e + 8, (uint32_t)interesting());
                set32(SG + 16 * e + 12, rnd() % 8 == 0);
            }
            queue(rnd() & 7 ? 0 : (unsigned)rnd(), cdb, rnd() & 1 ? SG : interesting(),
                  rnd() & 1 ? rnd() % 8192 : interesting(), (uint32_t)rnd() & 0x1d);
            if (rnd() % 16 == 0)
                set64(REQ_RING + producer % REQUESTS * 128 + 24, interesting());
        }
        set_reg(0x4018, 0);
        for (unsigned i = 0; i < 4; i++) {
            unsigned offset = rnd() & 7 ? regs[rnd() % ARRAY_SIZE(regs)] : rnd() % 32768 & ~3u;
            if (rnd() & 1)
                set_reg(offset, rnd() & 1 ? (uint32_t)rnd() % 12 : (uint32_t)interesting());
            else
                reg(offset);
        }
        if (rnd() % 16 == 0)
            set32(STATE_PAGE + 4 * (unsigned)(rnd() % 8), (uint32_t)interesting());
    }
    disk_drain(disk);
}

int main(int argc, char **argv)
{
    dma_machine_init();
    struct pvscsi *adapter = pvscsi_create(&m.env, pci, PCI_DEVFN(SLOT, 0));
    CHECK(pvscsi_attach(adapter, disk, "serial") == 0);
    test_identity();
    test_transfers();
    test_modes();
    test_interrupts();
    test_commands();
    test_hostile(argc > 1 ? (unsigned)atoi(argv[1]) : 2000);
    devices_reset(&m.env);
    test_interrupts();
    disk_drain(disk);
    dma_machine_end();
    return check_result();
}
