/* The PIIX4 IDE controller as firmware and drivers use it, and a guest that does not play fair. */
#include <signal.h>
#include <sys/resource.h>

#include "dev/ide_internal.h"
#include "dev/piix4.h"
#include "dma_machine.h"

#define BM      0xc000
#define PRD     0x8000
#define DATA    0x30000
#define BASE    0x1f0
#define CONTROL 0x3f6

enum { ERR = ST_ERR, DRQ = ST_DRQ, DRDY = ST_DRDY, BSY = ST_BSY };
enum { ABRT = ER_ABRT, IDNF = ER_IDNF, UNC = ER_UNC };

static struct ide *ide;
static struct probe irqs[2];

static void set_config(unsigned offset, uint32_t value)
{
    bus_write(&m.pio, 0xcf8, 4, 0x80000000u | PCI_DEVFN(PIIX4_SLOT, 1) << 8 | offset);
    bus_write(&m.pio, 0xcfc, 4, value);
}

static void set_up_controller(void)
{
    set_config(PCI_BAR0 + 16, BM);
    set_config(PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
}

static unsigned status(unsigned base)
{
    return in8(&m, base + 7);
}

/* Until the drive has time; with its disk's work done. */
static unsigned wait_ready(unsigned base)
{
    disk_drain(disk);
    unsigned now = status(base);
    CHECK(!(now & BSY));
    return now;
}

static void command28(unsigned base, unsigned device, uint32_t lba, unsigned count, unsigned code)
{
    out8(&m, base + 6, device | (lba >> 24 & 15));
    out8(&m, base + 2, count);
    for (unsigned i = 0; i < 3; i++)
        out8(&m, base + 3 + i, lba >> (8 * i));
    out8(&m, base + 7, code);
}

static void read_port(unsigned base, void *to, unsigned length)
{
    for (unsigned i = 0; i < length; i += 2) {
        uint16_t word = (uint16_t)bus_read(&m.pio, base, 2);
        memcpy((uint8_t *)to + i, &word, 2);
    }
}

static void write_port(unsigned base, const void *from, unsigned length)
{
    for (unsigned i = 0; i < length; i += 4) {
        uint32_t dword;
        memcpy(&dword, (const uint8_t *)from + i, 4);
        bus_write(&m.pio, base, 4, dword);
    }
}

static void reset_channel_of(unsigned control)
{
    out8(&m, control, 4);
    out8(&m, control, 0);
}

/* ---- Programmed I/O ---- */

static void test_identify(void)
{
    uint16_t w[256];
    command28(BASE, 0xa0, 0, 0, 0xec);
    CHECK(irqs[0].level == 1);
    CHECK((wait_ready(BASE) & (DRQ | ERR)) == DRQ);
    CHECK(irqs[0].level == 0);
    read_port(BASE, w, sizeof w);
    CHECK(!(status(BASE) & DRQ));
    CHECK(w[60] == DISK_SIZE / 512 && w[61] == 0 && w[100] == DISK_SIZE / 512);
    CHECK(w[49] & 0x300 && w[83] & 0x400);
    uint8_t sum = 0;
    for (unsigned i = 0; i < sizeof w; i++)
        sum = (uint8_t)(sum + ((uint8_t *)w)[i]);
    CHECK(sum == 0 && (w[255] & 0xff) == 0xa5);
    CHECK(bus_read(&m.pio, BASE, 2) == 0); /* there is no more */

    /* A mode that is none changes nothing. */
    out8(&m, BASE + 1, 3);
    command28(BASE, 0xa0, 0, 0x46, 0xef);
    CHECK(status(BASE) & ERR && in8(&m, BASE + 1) == ABRT);
    out8(&m, BASE + 1, 3);
    command28(BASE, 0xa0, 0, 0x47, 0xef);
    command28(BASE, 0xa0, 0, 0, 0xec);
    uint16_t again[256];
    read_port(BASE, again, sizeof again);
    CHECK(again[88] == w[88] && again[63] == w[63]);
}

static unsigned power_mode(void)
{
    command28(BASE, 0xa0, 0, 0, 0xe5);
    CHECK(!(status(BASE) & ERR));
    return in8(&m, BASE + 2);
}

static void test_power(void)
{
    static const struct {
        uint8_t command, mode;
    } commands[] = {{0xe0, 0x00}, {0xe1, 0x80}, {0xe2, 0x00}, {0xe3, 0x80}, {0xe6, 0x00},
                    {0x94, 0x00}, {0x95, 0x80}, {0x96, 0x00}, {0x97, 0x80}, {0x99, 0x00}};
    uint8_t sector[512];
    uint16_t w[256];
    CHECK(power_mode() == 0xff);
    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        command28(BASE, 0xa0, 0, 12, commands[i].command);
        CHECK(!(status(BASE) & ERR) && power_mode() == commands[i].mode);
        reset_channel_of(0x3f6);
        CHECK(power_mode() == commands[i].mode); /* a reset does not make it spin */
        command28(BASE, 0xe0, 1, 1, 0x20);
        CHECK(wait_ready(BASE) & DRQ);
        read_port(BASE, sector, sizeof sector);
        CHECK(power_mode() == 0xff);
    }
    /* Advanced power management: a level that is told again. */
    out8(&m, BASE + 1, 0x05);
    command28(BASE, 0xa0, 0, 0x80, 0xef);
    CHECK(!(status(BASE) & ERR));
    command28(BASE, 0xa0, 0, 0, 0xec);
    read_port(BASE, w, sizeof w);
    CHECK((w[83] & 8) && (w[86] & 8) && w[91] == 0x80);
    out8(&m, BASE + 1, 0x05);
    command28(BASE, 0xa0, 0, 0xff, 0xef);
    CHECK(status(BASE) & ERR);
    out8(&m, BASE + 1, 0x85);
    command28(BASE, 0xa0, 0, 0, 0xef);
    command28(BASE, 0xa0, 0, 0, 0xec);
    read_port(BASE, w, sizeof w);
    CHECK(!(w[86] & 8) && w[91] == 0);
}

static void test_set_max(void)
{
    const uint32_t native = DISK_SIZE / 512;
    uint16_t w[256];
    out8(&m, BASE + 1, 0);
    command28(BASE, 0xe0, native, 0, 0xf9);
    CHECK((status(BASE) & ERR) && in8(&m, BASE + 1) == 0x10);
    command28(BASE, 0xe0, 9, 0, 0xf9);
    CHECK(!(status(BASE) & ERR));
    command28(BASE, 0xa0, 0, 0, 0xec);
    read_port(BASE, w, sizeof w);
    CHECK(w[60] == 10 && w[100] == 10);
    command28(BASE, 0xe0, 10, 1, 0x20);
    CHECK((status(BASE) & ERR) && in8(&m, BASE + 1) == 0x10);
    command28(BASE, 0xe0, 0, 0, 0xf8); /* the native one is as it was */
    CHECK(in8(&m, BASE + 3) == ((native - 1) & 0xff) &&
          in8(&m, BASE + 4) == ((native - 1) >> 8 & 0xff));
    out8(&m, BASE + 1, 1); /* a password */
    command28(BASE, 0xe0, 9, 0, 0xf9);
    CHECK((status(BASE) & ERR) && in8(&m, BASE + 1) == ABRT);
    out8(&m, BASE + 1, 0);
    command28(BASE, 0xe0, native - 1, 0, 0xf9);
    command28(BASE, 0xe0, native - 1, 1, 0x20);
    uint8_t sector[512];
    CHECK(wait_ready(BASE) & DRQ);
    read_port(BASE, sector, sizeof sector);
}

static void test_pio(void)
{
    char sector[512];
    command28(BASE, 0xe0, 2, 3, 0x20);
    for (unsigned i = 0; i < 3; i++) {
        CHECK((wait_ready(BASE) & (DRQ | ERR)) == DRQ);
        read_port(BASE, sector, sizeof sector);
        CHECK(sector[0] == 'c' + (int)i && sector[511] == 'c' + (int)i);
    }
    CHECK(!(wait_ready(BASE) & DRQ));

    command28(BASE, 0xe0, 100, 2, 0x30);
    for (unsigned i = 0; i < 2; i++) {
        CHECK((wait_ready(BASE) & (DRQ | ERR)) == DRQ);
        memset(sector, 'X' + (int)i, sizeof sector);
        write_port(BASE, sector, sizeof sector);
    }
    CHECK(!(wait_ready(BASE) & (DRQ | ERR)));
    CHECK(stored(100 * 512) == 'X' && stored(102 * 512 - 1) == 'Y' && stored(102 * 512) == 0);

    /* Cylinder 0, head 1, sector 1 is the 64th. */
    command28(BASE, 0xa1, 1, 1, 0x20);
    CHECK((wait_ready(BASE) & (DRQ | ERR)) == DRQ);
    read_port(BASE, sector, sizeof sector);
    CHECK(sector[0] == 'a' + 63 % 26);
    command28(BASE, 0xa1, 0, 1, 0x20); /* sectors count from 1 */
    CHECK(wait_ready(BASE) & ERR && in8(&m, BASE + 1) == IDNF);
    command28(BASE, 0xe0, DISK_SIZE / 512 - 1, 2, 0x20);
    CHECK(wait_ready(BASE) & ERR && in8(&m, BASE + 1) == IDNF);
    command28(BASE, 0xe0, 0xfffffff, 0, 0x30);
    CHECK(wait_ready(BASE) & ERR && in8(&m, BASE + 1) == IDNF);
    command28(BASE, 0xa0, 0, 0, 0x77);
    CHECK(!(wait_ready(BASE) & ERR));
    command28(BASE, 0xa0, 0, 0, 0xff);
    CHECK(wait_ready(BASE) & ERR && in8(&m, BASE + 1) == ABRT);
}

/* ---- Bus master ---- */

static void set_prd(unsigned n, uint32_t address, uint32_t flags_size)
{
    uint32_t entry[2] = {address, flags_size};
    memcpy(m.mem.ram + PRD + 8 * n, entry, 8);
}

static void run_dma(unsigned code, uint32_t lba, unsigned count, unsigned direction)
{
    out8(&m, BM, 0);
    out8(&m, BM + 2, 0x66);
    bus_write(&m.pio, BM + 4, 4, PRD);
    command28(BASE, 0xe0, lba, count, code);
    out8(&m, BM, direction | 1);
    disk_drain(disk);
}

#define LAST 0x80000000u

static void test_dma(void)
{
    /* Two pieces, the second one in the middle of a sector. */
    memset(m.mem.ram + DATA, 0, 0x4000);
    set_prd(0, DATA, 700);
    set_prd(1, DATA + 0x1000, LAST | 324);
    unsigned rises = irqs[0].rises;
    run_dma(0xc8, 1, 2, 8);
    CHECK(in8(&m, BM + 2) == 0x64 && irqs[0].rises == rises + 1);
    CHECK(!(status(BASE) & (BSY | ERR | DRQ)));
    CHECK(m.mem.ram[DATA] == 'b' && m.mem.ram[DATA + 699] == 'c' && m.mem.ram[DATA + 700] == 0);
    CHECK(m.mem.ram[DATA + 0x1000] == 'c' && m.mem.ram[DATA + 0x1000 + 324] == 0);

    memset(m.mem.ram + DATA, 'W', 1024);
    set_prd(0, DATA, LAST | 1024);
    run_dma(0xca, 200, 2, 0);
    CHECK(in8(&m, BM + 2) == 0x64 && !(status(BASE) & ERR));
    CHECK(stored(200 * 512) == 'W' && stored(202 * 512 - 1) == 'W' && stored(202 * 512) == 0);
}

static void bad_dma(unsigned code, unsigned direction)
{
    run_dma(code, 0, 4, direction);
    CHECK(in8(&m, BM + 2) & 2);
    CHECK(!(in8(&m, BM + 2) & 1));
    CHECK((status(BASE) & (BSY | DRQ | ERR)) == ERR);
}

static void test_wrong_prds(void)
{
    set_prd(0, DATA, LAST | 1024); /* too short */
    bad_dma(0xc8, 8);
    set_prd(0, RAM_SIZE - 1024, LAST | 2048); /* beyond memory */
    bad_dma(0xc8, 8);
    set_prd(0, 0xfffffffe, LAST);
    bad_dma(0xca, 0);
    set_prd(0, DATA, LAST | 2048); /* the wrong direction */
    bad_dma(0xc8, 0);
    bad_dma(0xca, 8);
    CHECK(stored(0) == 'a');
    /* No table at all: its address is checked. */
    out8(&m, BM, 0);
    bus_write(&m.pio, BM + 4, 4, 0xfffffffc);
    command28(BASE, 0xe0, 0, 1, 0xc8);
    out8(&m, BM, 9);
    CHECK(status(BASE) & ERR);
    /* Not a bus master. */
    set_config(PCI_COMMAND, PCI_COMMAND_IO);
    bad_dma(0xc8, 8);
    set_config(PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MASTER);
    /* All of memory holds a table without an end: the disk's size ends it. */
    for (unsigned n = 0; n < 8192; n++)
        set_prd(n, DATA + 0x20000, 2);
    run_dma(0xc8, 0, 1, 8);
    CHECK(!(status(BASE) & (ERR | BSY)));
}

/* The bus master stopped and started in mid-transfer: one transfer, one interrupt. */
static void test_restart(void)
{
    for (unsigned i = 0; i < 50; i++) {
        unsigned rises = irqs[0].rises;
        for (unsigned n = 0; n < 2; n++)
            set_prd(n, DATA + n * 0x10000, n == 1 ? LAST : 0);
        out8(&m, BM, 0);
        bus_write(&m.pio, BM + 4, 4, PRD);
        command28(BASE, 0xe0, 0, 0, 0xc8);
        for (unsigned n = 0; n < 4; n++) {
            out8(&m, BM, 9);
            out8(&m, BM, 8);
        }
        disk_drain(disk);
        CHECK(irqs[0].rises == rises + 1);
        CHECK(!(status(BASE) & (BSY | ERR)));
    }
}

/* After a reset memory is the guest's. */
static void test_reset_waits(void)
{
    for (unsigned i = 0; i < 40; i++) {
        for (unsigned n = 0; n < 2; n++)
            set_prd(n, DATA + n * 0x10000, n == 1 ? LAST : 0);
        out8(&m, BM, 0);
        bus_write(&m.pio, BM + 4, 4, PRD);
        command28(BASE, 0xe0, 0, 0, 0xc8);
        out8(&m, BM, 9);
        if (i & 1)
            reset_machine();
        else
            reset_channel_of(CONTROL);
        memset(m.mem.ram + DATA, 0xee, 0x20000);
        disk_drain(disk);
        bool same = true;
        for (unsigned at = 0; at < 0x20000; at++)
            same &= m.mem.ram[DATA + at] == 0xee;
        CHECK(same);
        CHECK(status(BASE) == 0x50 && in8(&m, BASE + 1) == 1);
        if (i & 1)
            set_up_controller();
        CHECK(irqs[0].level == 0);
    }
    /* In reset nothing is heard. */
    out8(&m, CONTROL, 4);
    CHECK(status(BASE) == BSY);
    command28(BASE, 0xe0, 0, 1, 0xec);
    CHECK(status(BASE) == BSY);
    out8(&m, CONTROL, 0);
    CHECK(status(BASE) == 0x50 && in8(&m, BASE + 2) == 1 && in8(&m, BASE + 3) == 1);
}

/* ---- Two drives on a channel ---- */

/* Unit 1 is a CD-ROM drive with nothing in it. A drive that works stays the selected one. */
static void test_selection(void)
{
    char sector[512] = "";
    set_prd(0, DATA, LAST | 512);
    out8(&m, BM, 0);
    bus_write(&m.pio, BM + 4, 4, PRD);
    command28(BASE, 0xe0, 0, 1, 0xc8);
    out8(&m, BASE + 6, 0xb0);
    CHECK((in8(&m, BASE + 6) & 0x10) == 0);
    out8(&m, BM, 9);
    CHECK(!(wait_ready(BASE) & ERR));
    CHECK(m.mem.ram[DATA] == 'a');

    command28(BASE, 0xe0, 300, 1, 0x30);
    out8(&m, BASE + 6, 0xb0);
    write_port(BASE, sector, sizeof sector);
    CHECK(!(wait_ready(BASE) & (ERR | DRQ)));

    /* The other way round: a packet that is awaited, then a write to the disk. */
    command28(BASE, 0xb0, 0, 0, 0xa0);
    CHECK(status(BASE) & DRQ);
    command28(BASE, 0xe0, 300, 1, 0x30);
    CHECK(in8(&m, BASE + 6) & 0x10);
    write_port(BASE, sector, sizeof sector);
    wait_ready(BASE);
    reset_channel_of(CONTROL);

    /* The signature of the second drive leaves it selected. */
    command28(BASE, 0xb0, 0, 0, 0xec);
    CHECK(status(BASE) & ERR);
    CHECK(in8(&m, BASE + 4) == 0x14 && in8(&m, BASE + 5) == 0xeb && in8(&m, BASE + 6) == 0xb0);
    out8(&m, BASE + 7, 0x08);
    CHECK(status(BASE) == 0 && in8(&m, BASE + 6) == 0xb0);
    out8(&m, BASE + 7, 0x90);
    CHECK(in8(&m, BASE + 6) == 0xa0 && in8(&m, BASE + 1) == 1 && in8(&m, BASE + 5) == 0);
    out8(&m, BASE + 6, 0xa0);
    status(BASE);
}

/* ---- CD-ROM: unit 2, secondary master ---- */

#define CD 0x170

static void packet(const void *bytes, unsigned feature, unsigned limit)
{
    out8(&m, CD + 6, 0xa0);
    out8(&m, CD + 1, feature);
    out8(&m, CD + 4, limit);
    out8(&m, CD + 5, limit >> 8);
    out8(&m, CD + 7, 0xa0);
    CHECK((status(CD) & (BSY | DRQ | ERR)) == DRQ && in8(&m, CD + 2) == 1);
    write_port(CD, bytes, 12);
    disk_drain(disk);
}

static unsigned length(void)
{
    return in8(&m, CD + 4) | in8(&m, CD + 5) << 8;
}

static unsigned sense(void)
{
    uint8_t s[18];
    packet((uint8_t[12]){0x03, 0, 0, 0, 18}, 0, 0xfffe);
    CHECK(length() == 18 && in8(&m, CD + 2) == 2);
    read_port(CD, s, sizeof s);
    CHECK(!(status(CD) & (DRQ | ERR)) && in8(&m, CD + 2) == 3);
    return (unsigned)s[2] << 8 | s[12];
}

/* The additional sense code and its qualifier. */
static unsigned qualifier(void)
{
    uint8_t s[18];
    packet((uint8_t[12]){0x03, 0, 0, 0, 18}, 0, 0xfffe);
    read_port(CD, s, sizeof s);
    return (unsigned)s[12] << 8 | s[13];
}

static void test_cdrom(void)
{
    uint8_t data[4096];
    uint16_t w[256];
    command28(CD, 0xa0, 0, 0, 0xa1);
    CHECK(status(CD) & DRQ);
    read_port(CD, w, sizeof w);
    CHECK(w[0] == 0x85c0 && !(status(CD) & DRQ));

    packet((uint8_t[12]){0x12, 0, 0, 0, 36}, 0, 0xfffe);
    CHECK(length() == 36);
    read_port(CD, data, 36);
    CHECK(data[0] == 5 && !memcmp(data + 8, "Trivisor", 8));
    packet((uint8_t[12]){0x12, 1, 0x80, 0, 36}, 0, 0xfffe);
    CHECK(status(CD) & ERR && sense() == 0x524);
    packet((uint8_t[12]){0x25}, 0, 8);
    read_port(CD, data, 8);
    CHECK(data[2] << 8 == ((DISK_SIZE / 2048 - 1) & 0xff00) && data[6] == 8);

    /* Two sectors, one at a time. */
    packet((uint8_t[12]){0x28, 0, 0, 0, 0, 1, 0, 0, 2}, 0, 3000);
    CHECK(length() == 2048);
    read_port(CD, data, 2048);
    CHECK(data[0] == 'e' && data[2047] == 'h');
    CHECK(wait_ready(CD) & DRQ);
    read_port(CD, data, 2048);
    CHECK(data[0] == 'i' && !(wait_ready(CD) & DRQ));
    /* An answer in pieces, of an odd limit. */
    packet((uint8_t[12]){0x12, 0, 0, 0, 35}, 0, 9);
    unsigned got = 0;
    while (status(CD) & DRQ && got < 64) {
        unsigned n = length();
        CHECK(n && n <= 8);
        read_port(CD, data, n);
        got += n;
    }
    CHECK(got == 35);

    packet((uint8_t[12]){0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff}, 0, 0xfffe);
    CHECK(status(CD) & ERR && sense() == 0x521 && sense() == 0);
    packet((uint8_t[12]){0xa8, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff}, 1, 0);
    CHECK(status(CD) & ERR && sense() == 0x521);
    packet((uint8_t[12]){0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 0, 100); /* no whole block fits */
    CHECK(status(CD) & ERR && sense() == 0x524);
    packet((uint8_t[12]){0xdb}, 0, 8);
    CHECK(status(CD) & ERR && sense() == 0x520);

    /* By bus master; the answer is shorter than the buffer. */
    memset(m.mem.ram + DATA, 0, 4096);
    set_prd(0, DATA, LAST | 4096);
    bus_write(&m.pio, BM + 12, 4, PRD);
    packet((uint8_t[12]){0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 1, 0);
    out8(&m, BM + 8, 9);
    disk_drain(disk);
    CHECK(!(wait_ready(CD) & ERR) && m.mem.ram[DATA + 2047] == 'd' && !m.mem.ram[DATA + 2048]);
    out8(&m, BM + 8, 0);
    packet((uint8_t[12]){0x12, 0, 0, 0, 35}, 1, 0);
    out8(&m, BM + 8, 9);
    CHECK(!(status(CD) & ERR) && m.mem.ram[DATA] == 5 && m.mem.ram[DATA + 35] == 'a');
    out8(&m, BM + 8, 0);
}

static bool change_medium(struct disk *medium, bool force)
{
    pthread_mutex_lock(&m.lock);
    bool done = ide_change_medium(ide, 2, medium, force);
    pthread_mutex_unlock(&m.lock);
    return done;
}

static bool change(struct disk *medium)
{
    return change_medium(medium, false);
}

static unsigned media_event(void)
{
    uint8_t data[8];
    packet((uint8_t[12]){0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}, 0, 8);
    read_port(CD, data, 8);
    return (unsigned)data[4] << 8 | data[5];
}

static void test_medium(void)
{
    packet((uint8_t[12]){0x1e, 0, 0, 0, 1}, 0, 0);
    CHECK(!change(NULL)); /* locked: the guest is asked */
    CHECK(media_event() == 0x102 && media_event() == 0x002);
    packet((uint8_t[12]){0x1b, 0, 0, 0, 2}, 0, 0);
    CHECK(status(CD) & ERR && sense() == 0x553);
    packet((uint8_t[12]){0x1e}, 0, 0);
    CHECK(change(NULL));
    CHECK(media_event() == 0x300);
    packet((uint8_t[12]){0x00}, 0, 0);
    CHECK(status(CD) & ERR && qualifier() == 0x3a01); /* the tray is closed */
    packet((uint8_t[12]){0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 1, 0);
    CHECK(status(CD) & ERR && sense() == 0x23a);
    packet((uint8_t[12]){0x1b, 0, 0, 0, 2}, 0, 0);
    packet((uint8_t[12]){0x00}, 0, 0);
    CHECK(status(CD) & ERR && qualifier() == 0x3a02); /* it is open */
    CHECK(media_event() == 0x301);
    CHECK(change(disk));
    CHECK(media_event() == 0x202 && media_event() == 0x002);
    packet((uint8_t[12]){0x00}, 0, 0);
    CHECK(status(CD) & ERR && sense() == 0x628);
    packet((uint8_t[12]){0x00}, 0, 0);
    CHECK(!(status(CD) & ERR));
    packet((uint8_t[12]){0x1b, 0, 0, 0, 2}, 0, 0); /* the guest opens and closes the tray */
    packet((uint8_t[12]){0x00}, 0, 0);
    CHECK(status(CD) & ERR && sense() == 0x23a);
    packet((uint8_t[12]){0x1b, 0, 0, 0, 3}, 0, 0);
    CHECK(sense() == 0x628);
    /* Busy: the medium stays. */
    out8(&m, CD + 7, 0xa0);
    CHECK(!change(NULL));
    out8(&m, CD + 7, 0x08);
    CHECK(change(disk));
    /* With force, also out of a locked tray. */
    packet((uint8_t[12]){0x1e, 0, 0, 0, 1}, 0, 0);
    CHECK(sense() == 0x628);
    packet((uint8_t[12]){0x1e, 0, 0, 0, 1}, 0, 0);
    CHECK(ide_tray_locked(ide, 2) && !change(NULL) && change_medium(NULL, true));
    packet((uint8_t[12]){0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 1, 0);
    CHECK(status(CD) & ERR && sense() == 0x23a);
    packet((uint8_t[12]){0x1e}, 0, 0);
    CHECK(!ide_tray_locked(ide, 2) && change(disk));
}

/* ---- Errors of the disk ---- */

/* The host's file has become shorter: reads behind its end fail. */
static void test_disk_errors(void)
{
    CHECK(ftruncate(disk_file, 1 << 20) == 0);
    char sector[512];
    unsigned last = (1 << 20) / 512;
    command28(BASE, 0xe0, last - 1, 2, 0x20);
    CHECK((wait_ready(BASE) & (DRQ | ERR)) == DRQ);
    read_port(BASE, sector, sizeof sector);
    CHECK((wait_ready(BASE) & (DRQ | ERR)) == ERR && in8(&m, BASE + 1) == UNC);
    CHECK(bus_read(&m.pio, BASE, 2) == 0);

    set_prd(0, DATA, LAST | 1024);
    run_dma(0xc8, last, 2, 8);
    CHECK((wait_ready(BASE) & (DRQ | ERR)) == ERR && in8(&m, BASE + 1) == UNC);
    CHECK(in8(&m, BM + 2) == 0x64); /* the bus did its part */

    /* A write that fails has no bit of its own. */
    struct rlimit limit, small;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    small = (struct rlimit){.rlim_cur = 1 << 20, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    command28(BASE, 0xe0, last, 1, 0x30);
    write_port(BASE, sector, sizeof sector);
    CHECK((wait_ready(BASE) & (DRQ | ERR)) == ERR && in8(&m, BASE + 1) == ABRT);
    run_dma(0xca, last, 2, 0);
    CHECK((wait_ready(BASE) & (DRQ | ERR)) == ERR && in8(&m, BASE + 1) == ABRT);
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);

    CHECK(sense() == 0x628); /* the medium that test_medium() put in */
    set_prd(0, DATA, LAST | 2048);
    packet((uint8_t[12]){0x28, 0, 0, 0, (uint8_t)(last / 4 >> 8), 0, 0, 0, 1}, 0, 2048);
    CHECK((wait_ready(CD) & (DRQ | ERR)) == ERR && sense() == 0x311);
    out8(&m, BM + 8, 0);
    packet((uint8_t[12]){0x28, 0, 0, 0, (uint8_t)(last / 4 >> 8), 0, 0, 0, 1}, 1, 2048);
    out8(&m, BM + 8, 9);
    CHECK((wait_ready(CD) & (DRQ | ERR)) == ERR && sense() == 0x311);
    CHECK(ftruncate(disk_file, DISK_SIZE) == 0);

    /* A disk that is not written to. */
    struct tv_error err;
    disk_drain(disk);
    char path[] = "/tmp/ide-XXXXXX";
    int file = mkstemp(path);
    CHECK(file >= 0 && ftruncate(file, 1 << 20) == 0);
    struct disk *other =
        disk_open(path, &(struct disk_options){.format = "raw", .read_only = true}, &err);
    CHECK(other);
    pthread_mutex_lock(&m.lock);
    ide_attach(ide, 3, other, false);
    pthread_mutex_unlock(&m.lock);
    static const uint8_t writes[] = {0x30, 0x34, 0x35, 0xc5, 0xca};
    for (unsigned i = 0; i < ARRAY_SIZE(writes); i++) {
        command28(CD, 0xf0, 0, 1, writes[i]);
        CHECK((status(CD) & (DRQ | BSY | ERR)) == ERR && in8(&m, CD + 1) == ABRT);
    }
    out8(&m, CD + 6, 0xa0);
    disk_close(other);
    close(file);
    unlink(path);
    ide->channels[1].drives[1] = (struct ide_drive){0};
}

/* A snapshot that somebody made up. */
static void test_hostile_snapshot(void)
{
    for (unsigned phase = IDE_IDLE; phase <= IDE_DMA_OUT + 1; phase++) {
        struct ide_channel *ch = &ide->channels[0];
        pthread_mutex_lock(&m.lock);
        ch->phase = (uint8_t)phase;
        ch->media = true;
        ch->block = ch->length = ch->position = UINT32_MAX;
        ch->remaining = UINT64_MAX;
        ch->offset = UINT64_MAX - 511;
        ch->drives[0].heads = ch->drives[0].spt = 0;
        ch->drives[0].multiple = 255;
        ch->drives[0].regs.device = 0x10; /* the CD-ROM drive with nothing in it */
        ch->drives[1].regs.status = ST_READY | ST_DRQ;
        for (unsigned i = 0; i < m.env.device_count; i++)
            if (m.env.devices[i].device == ide)
                m.env.devices[i].table->after_load(ide);
        pthread_mutex_unlock(&m.lock);
        out8(&m, BM, 1);
        out8(&m, BM, 9);
        for (unsigned i = 0; i < 8; i++)
            bus_write(&m.pio, BASE, 4, bus_read(&m.pio, BASE, 4));
        disk_drain(disk);
        reset_channel_of(CONTROL);
        command28(BASE, 0xe0, 0, 0, 0xec);
        CHECK(status(BASE) & DRQ);
        reset_channel_of(CONTROL);
    }
    reset_machine();
    set_up_controller();
}

/* ---- A guest that does what it likes ---- */

static void test_hostile(unsigned rounds)
{
    static const struct {
        uint16_t base, size;
    } ports[] = {{0x1f0, 8}, {0x170, 8}, {0x3f6, 1}, {0x376, 1}, {BM, 16}, {0x1f0, 1}, {0x170, 1}};
    static const uint8_t codes[] = {0x20, 0x24, 0x25, 0x30, 0x34, 0x35, 0x90, 0xa0,
                                    0xa0, 0xa1, 0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xe4,
                                    0xe7, 0xe8, 0xec, 0x08, 0xef, 0xb0};
    static const uint8_t packets[] = {0x00, 0x03, 0x12, 0x1b, 0x25, 0x28, 0x28, 0x43, 0x46,
                                      0x4a, 0x51, 0x52, 0x5a, 0xa8, 0xad, 0xbd, 0xbe};
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t r = rnd();
        unsigned range = r % ARRAY_SIZE(ports), size = 1u << (r >> 8) % 3;
        unsigned base = r & 0x1000 ? 0x1f0 : 0x170;
        unsigned port = ports[range].base + (unsigned)(r >> 16) % ports[range].size;
        uint64_t value = interesting();
        if (range < 2 && port - ports[range].base == 7)
            value = codes[(r >> 24) % ARRAY_SIZE(codes)];
        if (range == 4 && (port & 7) >= 4)
            value = PRD + ((r >> 24) & 0xff0), size = 4, port &= ~3u;
        switch (r >> 32 & 15) {
        case 0:
            set_prd((unsigned)(r >> 40) % 512, (uint32_t)(r & 1 ? interesting() : rnd() % RAM_SIZE),
                    (uint32_t)interesting());
            break;
        case 1: /* all of the drive's data at once */
            for (unsigned n = 0; n < 1024 && (in8(&m, base + 7) & DRQ); n++)
                if (r & 0x2000)
                    bus_write(&m.pio, base, 2, rnd());
                else
                    bus_read(&m.pio, base, 2);
            break;
        case 2: { /* a packet */
            uint8_t p[12] = {packets[(r >> 40) % ARRAY_SIZE(packets)]};
            for (unsigned n = 1; n < 12; n++)
                p[n] = r >> (40 + n) & 1 ? (uint8_t)interesting() : 0;
            out8(&m, base + 6, r & 0x4000 ? 0xa0 : 0xb0);
            out8(&m, base + 7, 0xa0);
            write_port(base, p, 12);
            break;
        }
        case 3:
            if (r >> 40 & 1)
                out8(&m, BM + (r & 8), (unsigned)(r >> 48) & 9);
            if ((r >> 56) < 8)
                disk_drain(disk);
            break;
        case 4:
            if ((r >> 48) < 16)
                reset_machine(), set_up_controller();
            if ((r >> 48) % 64 == 1)
                change(r & 1 ? disk : NULL);
            break;
        default:
            if (r >> 40 & 1)
                bus_write(&m.pio, port, size, value);
            else
                bus_read(&m.pio, port, size);
        }
    }
    disk_drain(disk);
    CHECK(irqs[0].rises > 100 && irqs[1].rises > 100); /* not all in vain */
    CHECK(ide->channels[0].dma.under_way == 0 && ide->channels[1].dma.under_way == 0);
}

int main(int argc, char **argv)
{
    dma_machine_init();
    ide = ide_create(&m.env, pci, fake_line(&irqs[0]), fake_line(&irqs[1]));
    pthread_mutex_lock(&m.lock);
    ide_attach(ide, 0, disk, false);
    ide_attach(ide, 1, NULL, true);
    ide_attach(ide, 2, disk, true);
    pthread_mutex_unlock(&m.lock);
    set_up_controller();
    test_identify();
    test_power();
    test_set_max();
    test_pio();
    test_dma();
    test_wrong_prds();
    test_restart();
    test_reset_waits();
    test_selection();
    test_cdrom();
    test_medium();
    test_disk_errors();
    test_hostile_snapshot();
    test_hostile(argc > 1 ? (unsigned)atoi(argv[1]) : 100000);
    disk_drain(disk);
    dma_machine_end();
    return check_result();
}
