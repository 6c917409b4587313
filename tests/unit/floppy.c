/* The DMA controllers and the floppy controller as the BIOS and Linux use them, and guests that
 * write what they like. */
#include <sched.h>

#include "dev/dma8237.h"
#include "dev/fdc.h"
#include "dma_machine.h"

#define DATA 0x20000

static struct dma8237 *dma;
static struct fdc *fdc;
static struct probe irq6;
static struct disk *floppy;
static char path[32];
static int file;
static unsigned dma_asked;

static void setup(unsigned sectors, bool read_only)
{
    dma_machine_init();
    irq6 = (struct probe){0};
    snprintf(path, sizeof path, "/tmp/floppy-XXXXXX");
    file = mkstemp(path);
    for (unsigned i = 0; i < sectors; i++) {
        char sector[512];
        memset(sector, (int)(i % 251), sizeof sector);
        CHECK(pwrite(file, sector, sizeof sector, i * 512) == sizeof sector);
    }
    struct tv_error err;
    floppy = disk_open(path, &(struct disk_options){.format = "raw", .read_only = read_only}, &err);
    if (!floppy)
        exit(1);
    dma = dma8237_create(&m.env);
    fdc = fdc_create(&m.env, dma, fake_line(&irq6));
    fdc_attach(fdc, 0, floppy);
    fdc_attach(fdc, 1, NULL);
}

static void end(void)
{
    disk_drain(floppy);
    dma_machine_end();
    disk_close(floppy);
    close(file);
    unlink(path);
}

static int on_floppy(uint64_t offset)
{
    uint8_t byte = 0;
    return pread(file, &byte, 1, (off_t)offset) == 1 ? byte : -1;
}

/* ---- The DMA controllers alone ---- */

static void on_ready(void *opaque)
{
    dma_asked++;
}

/* Channel 0..3 as drivers program it: mask, pointer, mode, address, page, count, unmask. */
static void program(unsigned channel, unsigned mode, unsigned gpa, unsigned bytes)
{
    static const unsigned page[] = {0x87, 0x83, 0x81, 0x82};
    out8(&m, 0x0a, 4 | channel);
    out8(&m, 0x0c, 0);
    out8(&m, 0x0b, mode | channel);
    out8(&m, 2 * channel, gpa & 0xff);
    out8(&m, 2 * channel, gpa >> 8 & 0xff);
    out8(&m, page[channel], gpa >> 16 & 0xff);
    out8(&m, 2 * channel + 1, (bytes - 1) & 0xff);
    out8(&m, 2 * channel + 1, (bytes - 1) >> 8 & 0xff);
    out8(&m, 0x0a, channel);
}

static void test_dma(void)
{
    setup(2880, false);
    uint8_t buffer[600];
    bool end_of_count;
    memset(buffer, 0x5a, sizeof buffer);
    CHECK(in8(&m, 0x0f) == 0xff); /* all masked */
    CHECK(dma8237_transfer(dma, 3, buffer, 8, true, &end_of_count) == 0);

    dma8237_attach(dma, 3, on_ready, NULL);
    dma8237_request(dma, 3, true);
    CHECK((in8(&m, 0x08) & 0xf0) == 0x80);
    program(3, 0x44, DATA, 512);
    CHECK(dma_asked == 1);
    CHECK(dma8237_transfer(dma, 3, buffer, 500, true, &end_of_count) == 500 && !end_of_count);
    out8(&m, 0x0c, 0);
    unsigned low = in8(&m, 7);
    CHECK((low | in8(&m, 7) << 8) == 11);
    CHECK(dma8237_transfer(dma, 3, buffer, 500, true, &end_of_count) == 12 && end_of_count);
    CHECK(m.mem.ram[DATA + 511] == 0x5a && m.mem.ram[DATA + 512] == 0);
    CHECK(in8(&m, 0x08) == 0x88 && in8(&m, 0x08) == 0x80); /* reading takes the terminal count */
    CHECK(in8(&m, 0x0f) == 0xff);
    CHECK(dma8237_transfer(dma, 3, buffer, 8, true, &end_of_count) == 0);

    /* The other direction is refused; auto-init begins anew; the page does not count on. */
    program(3, 0x58, 0x2fffe, 4);
    memcpy(m.mem.ram + 0x2fffe, "ab", 2);
    memcpy(m.mem.ram + 0x20000, "cd", 2);
    CHECK(dma8237_transfer(dma, 3, buffer, 4, true, &end_of_count) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(dma8237_transfer(dma, 3, buffer, 600, false, &end_of_count) == 4 && end_of_count);
        CHECK(memcmp(buffer, "abcd", 4) == 0);
    }
    /* Downwards; verify; a disabled controller; memory that is not there. */
    program(3, 0x64, DATA + 1, 2);
    CHECK(dma8237_transfer(dma, 3, "xy", 2, true, &end_of_count) == 2);
    CHECK(m.mem.ram[DATA] == 'y' && m.mem.ram[DATA + 1] == 'x');
    program(3, 0x40, DATA, 2);
    CHECK(dma8237_transfer(dma, 3, "pq", 2, true, &end_of_count) == 2 && end_of_count);
    CHECK(m.mem.ram[DATA] == 'y');
    program(3, 0x44, DATA, 2);
    out8(&m, 0x08, 4);
    CHECK(dma8237_transfer(dma, 3, "pq", 2, true, &end_of_count) == 0);
    out8(&m, 0x08, 0);

    /* Words: channel 5, address and count in words, the page's lowest bit does not count. */
    out8(&m, 0xda, 0);
    out8(&m, 0xd6, 0x49);
    out8(&m, 0xc4, 0x00), out8(&m, 0xc4, 0x80); /* word 8000: byte 10000 */
    out8(&m, 0x8b, 0x03);
    out8(&m, 0xc6, 1), out8(&m, 0xc6, 0);
    out8(&m, 0xd4, 1);
    memcpy(m.mem.ram + 0x30000, "word", 4);
    CHECK(dma8237_transfer(dma, 5, buffer, 600, false, &end_of_count) == 4 && end_of_count);
    CHECK(memcmp(buffer, "word", 4) == 0 && in8(&m, 0xd0) == 2);
    CHECK(in8(&m, 0x8b) == 3);
    end();
}

/* ---- The controller ---- */

static void send(const uint8_t *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        CHECK((in8(&m, 0x3f4) & 0xc0) == 0x80);
        out8(&m, 0x3f5, bytes[i]);
    }
}
#define SEND(...) send((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static uint8_t answer[16];

static unsigned receive(void)
{
    unsigned count = 0;
    while ((in8(&m, 0x3f4) & 0xd0) == 0xd0 && count < sizeof answer)
        answer[count++] = (uint8_t)in8(&m, 0x3f5);
    return count;
}

static void await(unsigned mask, unsigned value)
{
    for (int i = 0; i < 2000000 && (in8(&m, 0x3f4) & mask) != value; i++)
        sched_yield();
    CHECK((in8(&m, 0x3f4) & mask) == value);
}

/* What a command with data answered: ST0 << 16 | ST1 << 8 | ST2. */
static uint32_t data_result(void)
{
    await(0xf0, 0xd0);
    CHECK(irq6.level);
    CHECK(receive() == 7 && !irq6.level);
    return (uint32_t)(answer[0] << 16 | answer[1] << 8 | answer[2]);
}

static bool id_is(unsigned c, unsigned h, unsigned r)
{
    return answer[3] == c && answer[4] == h && answer[5] == r && answer[6] == 2;
}

static void enable(void)
{
    out8(&m, 0x3f2, 0x00);
    CHECK(in8(&m, 0x3f4) == 0);
    out8(&m, 0x3f2, 0x1c);
    CHECK(irq6.level && in8(&m, 0x3f4) == 0x80);
    for (unsigned i = 0; i < 4; i++) {
        SEND(0x08);
        CHECK(receive() == 2 && answer[0] == (0xc0 | i) && answer[1] == 0);
        CHECK(!irq6.level);
    }
    SEND(0x08);
    CHECK(receive() == 1 && answer[0] == 0x80);
    SEND(0x03, 0xaf, 0x02);
    out8(&m, 0x3f7, 0);
}

static void seek(unsigned track, unsigned head)
{
    SEND(0x0f, (uint8_t)(head << 2), (uint8_t)track);
    CHECK(irq6.level);
    SEND(0x08);
    CHECK(receive() == 2 && answer[0] == (0x20 | head << 2) && answer[1] == track);
}

/* What Linux asks to find out which controller it has. */
static void test_identity(void)
{
    setup(2880, false);
    enable();
    SEND(0x0e);
    CHECK(receive() == 10 && answer[4] == 0xaf && answer[5] == 2 && answer[8] == 0x20);
    SEND(0x13, 0, 0x1a, 7);
    SEND(0x12, 0x80 | 0x04 | 3);
    SEND(0x94);
    CHECK(receive() == 1 && answer[0] == 0x10);
    SEND(0x18);
    CHECK(receive() == 1 && answer[0] == 0x80);
    SEND(0x10);
    CHECK(receive() == 1 && answer[0] == 0x90);
    out8(&m, 0x3f4, 0x80); /* locked: the set-up survives the reset, and no drive is polled */
    SEND(0x08);
    CHECK(receive() == 1 && answer[0] == 0x80);
    SEND(0x0e);
    CHECK(receive() == 10 && answer[7] == 0x87 && answer[8] == 0x1a && answer[9] == 7);
    SEND(0x14);
    CHECK(receive() == 1 && answer[0] == 0);
    SEND(0x04, 0x00);
    CHECK(receive() == 1 && answer[0] == 0x38);
    end();
}

static void test_read_write(void)
{
    setup(2880, false);
    enable();
    CHECK(in8(&m, 0x3f7) & 0x80); /* the medium is new until a step */
    seek(3, 0);
    CHECK(!(in8(&m, 0x3f7) & 0x80));
    SEND(0x4a, 0x04);
    CHECK(data_result() == 0x040000 && id_is(3, 1, 1));

    /* Two sectors, as the BIOS reads; the terminal count ends it. */
    program(2, 0x46 & 0xfc, DATA, 1024);
    SEND(0xe6, 0x00, 3, 0, 2, 2, 18, 0x1b, 0xff);
    CHECK(data_result() == 0 && id_is(3, 0, 4));
    CHECK(m.mem.ram[DATA] == (3 * 36 + 1) % 251 && m.mem.ram[DATA + 1023] == (3 * 36 + 2) % 251);
    /* A whole cylinder by multi-track. */
    program(2, 0x44, DATA, 36 * 512);
    SEND(0xe6, 0x00, 3, 0, 1, 2, 18, 0x1b, 0xff);
    CHECK(data_result() == 0x040000 && id_is(4, 0, 1));
    CHECK(m.mem.ram[DATA + 35 * 512] == (3 * 36 + 35) % 251);
    /* The channel is opened after the command. */
    out8(&m, 0x0a, 6);
    m.mem.ram[DATA] = 0;
    SEND(0x46, 0x04, 3, 1, 1, 2, 18, 0x1b, 0xff);
    for (int i = 0; i < 1000; i++)
        sched_yield();
    CHECK(!irq6.level && (in8(&m, 0x3f4) & 0xf0) == 0x10);
    program(2, 0x44, DATA, 512);
    CHECK(data_result() == 0x040000 && id_is(3, 1, 2) && m.mem.ram[DATA] == (3 * 36 + 18) % 251);
    /* Past the end of the track without a terminal count. */
    program(2, 0x44, DATA, 4096);
    SEND(0x46, 0x00, 3, 0, 18, 2, 18, 0x1b, 0xff);
    CHECK(data_result() == 0x408000 && id_is(3, 0, 18));

    /* A write that ends within the second sector: the rest is zeroes. */
    memset(m.mem.ram + DATA, 0xee, 1024);
    program(2, 0x48, DATA, 600);
    SEND(0x45, 0x00, 3, 0, 5, 2, 18, 0x1b, 0xff);
    CHECK(data_result() == 0 && id_is(3, 0, 7));
    uint64_t at = (3 * 36 + 4) * 512;
    CHECK(on_floppy(at - 1) != 0xee && on_floppy(at + 599) == 0xee && on_floppy(at + 600) == 0);

    /* Wrong cylinder, no such sector, wrong rate, no medium, no drive. */
    program(2, 0x44, DATA, 512);
    SEND(0x46, 0x00, 4, 0, 1, 2, 18, 0x1b, 0xff);
    CHECK(data_result() == 0x400410);
    SEND(0x46, 0x00, 3, 0, 19, 2, 36, 0x1b, 0xff);
    CHECK(data_result() == 0x400400);
    out8(&m, 0x3f7, 2);
    SEND(0x4a, 0x00);
    CHECK(data_result() == 0x400100);
    out8(&m, 0x3f7, 0);
    SEND(0x4a, 0x01);
    CHECK(data_result() == 0x410100);
    SEND(0x46, 0x03, 3, 0, 1, 2, 18, 0x1b, 0xff);
    CHECK(data_result() == 0x430100);
    SEND(0x07, 0x02);
    SEND(0x08);
    CHECK(receive() == 2 && answer[0] == 0x72);
    /* VERIFY, and a seek that is part of the command. */
    SEND(0x13, 0, 0x50, 0);
    SEND(0x56, 0x00, 7, 0, 1, 2, 18, 0x1b, 0xff);
    CHECK(data_result() == 0 && id_is(8, 0, 1));
    SEND(0x07, 0x00);
    CHECK(irq6.level);
    SEND(0x08);
    CHECK(receive() == 2 && answer[0] == 0x20 && answer[1] == 0);
    SEND(0xcf, 0x00, 9);
    SEND(0x08);
    CHECK(receive() == 2 && answer[0] == 0x20 && answer[1] == 9);
    end();
}

/* Without DMA each byte goes through the FIFO, and the end of the track is the end. */
static void test_pio(void)
{
    setup(1440, false);
    enable();
    out8(&m, 0x3f7, 2);
    SEND(0x03, 0xaf, 0x03);
    SEND(0x46, 0x00, 0, 0, 8, 2, 9, 0x1b, 0xff);
    for (unsigned i = 0; i < 1024; i++) {
        await(0xf0, 0xf0);
        CHECK(irq6.level);
        CHECK(in8(&m, 0x3f5) == 7 + i / 512);
    }
    CHECK(data_result() == 0x408000);
    SEND(0x45, 0x00, 0, 0, 9, 2, 9, 0x1b, 0xff);
    for (unsigned i = 0; i < 512; i++) {
        await(0xf0, 0xb0);
        out8(&m, 0x3f5, 0x77);
    }
    CHECK(data_result() == 0x408000);
    CHECK(on_floppy(8 * 512) == 0x77 && on_floppy(9 * 512 - 1) == 0x77 && on_floppy(9 * 512) == 9);

    /* A track is formatted, and one whose layout the image cannot have is not. */
    seek(1, 1);
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        SEND(0x4d, 0x04, 2, 9, 0x50, 0xf6);
        for (unsigned r = 1; r <= 9; r++) {
            const unsigned id[] = {1, 1, wrong ? 9 : r, 2};
            for (unsigned i = 0; i < 4; i++) {
                await(0xf0, 0xb0);
                out8(&m, 0x3f5, id[i]);
            }
        }
        CHECK(data_result() == (wrong ? 0x440400 : 0x040000));
    }
    CHECK(on_floppy(27 * 512 - 1) == 26 && on_floppy(27 * 512) == 0xf6);
    CHECK(on_floppy(36 * 512 - 1) == 0xf6 && on_floppy(36 * 512) == 36);
    end();
}

static void test_media(void)
{
    static const struct {
        unsigned kib;
        uint8_t type;
    } sizes[] = {{360, 1}, {1200, 2}, {720, 4}, {1440, 4}, {2880, 5}, {160, 1}, {0, 0}, {1441, 0}};
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
        CHECK(fdc_drive_type(sizes[i].kib * 1024u) == sizes[i].type);
    /* A shorter image is the beginning of a medium. */
    static const unsigned media[][2] = {{160, 160},   {1, 1440},    {720, 720},
                                        {721, 1440},  {1441, 1680}, {1681, 1722},
                                        {1723, 2880}, {2880, 2880}, {2881, 0}};
    for (unsigned i = 0; i < ARRAY_SIZE(media); i++)
        CHECK(fdc_medium_size(media[i][0] * 1024u) == media[i][1] * 1024u);

    setup(5760, true);
    enable();
    out8(&m, 0x3f7, 3);
    program(2, 0x48, DATA, 512);
    SEND(0x45, 0x00, 0, 0, 36, 2, 36, 0x1b, 0xff);
    CHECK(data_result() == 0x400200);
    SEND(0x04, 0x00);
    CHECK(receive() == 1 && answer[0] == 0x78);
    CHECK(fdc_change_medium(fdc, 1, floppy) && fdc_change_medium(fdc, 0, NULL));
    CHECK(!fdc_change_medium(fdc, 1, disk) && !fdc_change_medium(fdc, 2, floppy));
    SEND(0x4a, 0x00);
    CHECK(data_result() == 0x400100);
    SEND(0x4a, 0x01);
    CHECK(data_result() == 0x010000);
    seek(5, 0);
    CHECK(in8(&m, 0x3f7) & 0x80);
    reset_machine();
    CHECK(in8(&m, 0x3f4) == 0 && !irq6.level);
    end();
}

/* A guest that writes anything anywhere, with resets in the middle of requests. */
static void test_hostile(void)
{
    static const uint16_t ports[] = {0x3f2, 0x3f4, 0x3f5, 0x3f7, 0x0a, 0x0b, 0x04, 0x05};
    static const uint8_t codes[] = {0xe6, 0x46, 0xcc, 0x45, 0xc5, 0x4d, 0x4a, 0x16, 0xd6,
                                    0x07, 0x0f, 0xcf, 0x8f, 0x08, 0x03, 0x13, 0x12, 0x04};
    setup(2880, false);
    enable();
    for (unsigned i = 0; i < 60000; i++) {
        uint64_t r = rnd();
        unsigned port = r & 1 ? 0x3f5 : ports[(r >> 8) % ARRAY_SIZE(ports)];
        if ((r >> 16) % 8 == 0)
            port = (unsigned)(r >> 20) % 0xe0;
        unsigned value = (unsigned)(r >> 32) & 0xff;
        if ((r >> 24) % 3 == 0)
            value = codes[(r >> 40) % ARRAY_SIZE(codes)];
        else if ((r >> 24) % 3 == 1)
            value &= 3;
        if (port == 0x3f2 && (r >> 48) % 8)
            value |= 0x0c;
        if (port == 0x3f4 && (r >> 48) % 8)
            value = 0;
        if ((r >> 56) % 4 == 0)
            in8(&m, port);
        else
            out8(&m, port, value);
        if ((r >> 50) % 4096 == 0)
            reset_machine();
    }
    reset_machine();
    enable();
    SEND(0x4a, 0x00);
    CHECK(data_result() == 0);
    end();
}

int main(void)
{
    test_dma();
    test_identity();
    test_read_write();
    test_pio();
    test_media();
    test_hostile();
    return check_result();
}
