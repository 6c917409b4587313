/* Virtio as drivers use it: the version 1 and the legacy interface, rings with and without indirect
 * tables and event indexes, every request of the block device, entropy; and drivers that lie. */
#include "dev/virtio.h"

#include "dev/virtio_blk.h"
#include "dev/virtio_rng.h"
#include "dma_machine.h"

#define COMMON   0xe0004000
#define ISR      (COMMON + 0x1000)
#define DEVICE   (COMMON + 0x2000)
#define NOTIFY   (COMMON + 0x3000)
#define PORTS    0xc000
#define DESC     0x10000
#define AVAIL    0x14000
#define USED     0x15000
#define TABLE    0x18000 /* an indirect table */
#define HEADER   0x20000
#define STATUS   0x21000
#define DATA     0x30000
#define QSIZE    16
#define NEXT     1
#define WRITE    2
#define INDIRECT 4

static uint16_t avail_index, used_index;
static bool legacy;
static uint64_t desc, avail, used;
static unsigned qsize;

static void set16(uint64_t gpa, unsigned value)
{
    m.mem.ram[gpa] = (uint8_t)value;
    m.mem.ram[gpa + 1] = (uint8_t)(value >> 8);
}

static unsigned get16(uint64_t gpa)
{
    return m.mem.ram[gpa] | m.mem.ram[gpa + 1] << 8;
}

static void put_desc(uint64_t table, unsigned i, uint64_t address, uint32_t length, unsigned flags,
                     unsigned next)
{
    uint8_t *d = m.mem.ram + table + 16 * i;
    memcpy(d, &address, 8);
    memcpy(d + 8, &length, 4);
    set16(table + 16 * i + 12, flags);
    set16(table + 16 * i + 14, next);
}

static uint64_t com(unsigned offset, unsigned size)
{
    return bus_read(&m.mmio, COMMON + offset, size);
}

static void set_com(unsigned offset, unsigned size, uint64_t value)
{
    bus_write(&m.mmio, COMMON + offset, size, value);
}

static void map(void)
{
    config_write(PCI_BAR0, PORTS);
    config_write(PCI_BAR0 + 4, 0xe0000000);
    config_write(PCI_BAR0 + 16, COMMON);
    config_write(PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void clear_rings(void)
{
    memset(m.mem.ram + DESC, 0, DATA - DESC);
    avail_index = used_index = 0;
}

/* As a driver of version 1 starts, accepting `features`. */
static void start(uint64_t features)
{
    map();
    clear_rings();
    legacy = false;
    desc = DESC, avail = AVAIL, used = USED, qsize = QSIZE;
    set_com(20, 1, 0);
    CHECK(com(20, 1) == 0);
    set_com(20, 1, 3);
    for (unsigned half = 0; half < 2; half++) {
        set_com(8, 4, half);
        set_com(12, 4, features >> (32 * half) & 0xffffffff);
    }
    set_com(20, 1, 0xb);
    CHECK(com(20, 1) == 0xb);
    set_com(22, 2, 0);
    CHECK(com(24, 2) == VIRTIO_QUEUE_SIZE);
    set_com(24, 2, QSIZE);
    set_com(32, 8, DESC);
    set_com(40, 4, AVAIL);
    set_com(44, 4, 0);
    set_com(48, 8, USED);
    set_com(28, 2, 1);
    set_com(20, 1, 0xf);
}

static void start_legacy(void)
{
    map();
    clear_rings();
    legacy = true;
    desc = 0x40000, avail = desc + VIRTIO_QUEUE_SIZE * 16, used = 0x43000;
    qsize = VIRTIO_QUEUE_SIZE;
    memset(m.mem.ram + desc, 0, 0x8000);
    out8(&m, PORTS + 18, 0);
    out8(&m, PORTS + 18, 3);
    CHECK(bus_read(&m.pio, PORTS, 4) & BIT(9));
    bus_write(&m.pio, PORTS + 4, 4, 0);
    bus_write(&m.pio, PORTS + 14, 2, 0);
    CHECK(bus_read(&m.pio, PORTS + 12, 2) == VIRTIO_QUEUE_SIZE);
    bus_write(&m.pio, PORTS + 8, 4, desc >> 12);
    out8(&m, PORTS + 18, 7);
}

static void offer(unsigned head)
{
    set16(avail + 4 + 2 * (avail_index % qsize), head);
    set16(avail + 2, ++avail_index);
}

static void kick(void)
{
    if (legacy)
        bus_write(&m.pio, PORTS + 16, 2, 0);
    else
        bus_write(&m.mmio, NOTIFY, 2, 0);
    disk_drain(disk);
}

/* Take one used entry; returns its length, or -1 if there is none. */
static long take(unsigned *head)
{
    if (get16(used + 2) == used_index)
        return -1;
    uint32_t entry[2];
    memcpy(entry, m.mem.ram + used + 4 + 8 * (used_index++ % qsize), 8);
    *head = entry[0];
    return entry[1];
}

static void put_header(uint32_t type, uint64_t sector)
{
    const uint32_t header[2] = {type, 0};
    memcpy(m.mem.ram + HEADER, header, 8);
    memcpy(m.mem.ram + HEADER + 8, &sector, 8);
    m.mem.ram[STATUS] = 0xee;
}

/* A whole request with `length` bytes at DATA, in two buffers. Returns its status. */
static unsigned request(uint32_t type, uint64_t sector, uint32_t length, bool in)
{
    unsigned head = 99, flags = NEXT | (in ? WRITE : 0);
    put_header(type, sector);
    put_desc(desc, 0, HEADER, 16, NEXT, length ? 1 : 3);
    put_desc(desc, 1, DATA, length / 2, flags, 2);
    put_desc(desc, 2, DATA + 0x8000, length - length / 2, flags, 3);
    put_desc(desc, 3, STATUS, 1, WRITE, 0);
    offer(0);
    kick();
    long written = take(&head);
    CHECK(head == 0 && written >= 1);
    return m.mem.ram[STATUS];
}

#define MODERN (BIT64(VIRTIO_F_VERSION_1) | BIT64(9))

static void test_identity(void)
{
    CHECK(config_read(0) == 0x10011af4 && config_read(PCI_SUBSYSTEM_VENDOR) == 0x00021af4);
    unsigned types = 0;
    for (unsigned c = config_read(PCI_CAPABILITIES) & 0xff; c; c = config_read(c) >> 8 & 0xff)
        types |= (config_read(c) & 0xff) == 9 ? BIT(config_read(c) >> 24) : 1;
    CHECK(types == 0x1f);
    map();
    CHECK(bus_read(&m.mmio, DEVICE, 4) == DISK_SIZE / 512);
    CHECK(bus_read(&m.pio, PORTS + 20, 4) == DISK_SIZE / 512);
    /* Features that were not offered are not accepted; version 1 has to be. */
    set_com(20, 1, 0);
    set_com(8, 4, 0);
    set_com(12, 4, 1);
    set_com(20, 1, 0xb);
    CHECK(com(20, 1) == 3);
    set_com(12, 4, 0);
    set_com(20, 1, 0xb);
    CHECK(com(20, 1) == 3);
}

static void test_requests(void)
{
    CHECK(request(0, 1, 1024, true) == 0);
    CHECK(m.mem.ram[DATA] == 'b' && m.mem.ram[DATA + 511] == 'b' &&
          m.mem.ram[DATA + 0x8000] == 'c');
    CHECK(line.level == 1);
    CHECK((legacy ? in8(&m, PORTS + 19) : bus_read(&m.mmio, ISR, 1)) == 1 && line.level == 0);
    memset(m.mem.ram + DATA, 'X', 512);
    memset(m.mem.ram + DATA + 0x8000, 'Y', 512);
    CHECK(request(1, 100, 1024, false) == 0);
    CHECK(stored(51200) == 'X' && stored(51200 + 1023) == 'Y' && stored(51200 + 1024) == 0);
    CHECK(request(4, 0, 0, false) == 0);
    /* The identity, in 20 bytes. */
    CHECK(request(8, 0, 20, true) == 0 && !memcmp(m.mem.ram + DATA, "serial", 7));
    /* Errors. */
    CHECK(request(0, DISK_SIZE / 512, 512 * 2, true) == 1);
    CHECK(request(0, UINT64_MAX, 1024, true) == 1);
    CHECK(request(0, 0, 1000, true) == 1);
    CHECK(request(77, 0, 512, true) == 2);
    /* Discard and write zeroes: a list of one range. */
    uint8_t range[16] = {100, 0, 0, 0, 0, 0, 0, 0, 1};
    memcpy(m.mem.ram + DATA, range, 8);
    memcpy(m.mem.ram + DATA + 0x8000, range + 8, 8);
    CHECK(request(13, 0, 16, false) == 0);
    CHECK(stored(51200) == 0 && stored(51200 + 512) == 'Y');
    m.mem.ram[DATA + 1] = 0xff;
    CHECK(request(11, 0, 16, false) == 1);
    m.mem.ram[DATA + 0x8000 + 4] = 0x80;
    CHECK(request(13, 0, 16, false) == 2);
}

static void test_indirect(void)
{
    unsigned head;
    start(MODERN | BIT64(VIRTIO_F_INDIRECT) | BIT64(VIRTIO_F_EVENT_INDEX));
    put_header(0, 0);
    put_desc(TABLE, 0, HEADER, 16, NEXT, 1);
    put_desc(TABLE, 1, DATA, 4096, NEXT | WRITE, 2);
    put_desc(TABLE, 2, STATUS, 1, WRITE, 0);
    put_desc(desc, 5, TABLE, 48, INDIRECT, 0);
    /* The driver wants to hear of the second one. */
    set16(avail + 4 + 2 * QSIZE, 1);
    offer(5);
    kick();
    CHECK(take(&head) == 4097 && head == 5 && m.mem.ram[DATA + 512] == 'b' && line.level == 0);
    CHECK(get16(used + 4 + 8 * QSIZE) == 1); /* where the device wants to hear of the next */
    offer(5);
    kick();
    CHECK(take(&head) == 4097 && line.level == 1);
    bus_read(&m.mmio, ISR, 1);
    /* Around the ring, several at once. */
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 13; i++)
            offer(5);
        kick();
        for (unsigned i = 0; i < 13; i++)
            CHECK(take(&head) == 4097);
        CHECK(take(&head) == -1);
    }
    bus_read(&m.mmio, ISR, 1);
}

static bool broken(void)
{
    return com(20, 1) & 0x40;
}

static void test_lies(void)
{
    static const struct {
        uint64_t address;
        uint32_t length;
        unsigned flags, next;
    } bad[] = {
        {HEADER, 16, NEXT, 0},            /* a loop */
        {HEADER, 16, NEXT, QSIZE},        /* out of the table */
        {RAM_SIZE, 16, 0, 0},             /* no memory */
        {UINT64_MAX - 7, 16, 0, 0},       /* a wrap */
        {HEADER, 0xffffffff, WRITE, 0},   /* too long */
        {HEADER, 16, 0, 0},               /* no status */
        {HEADER, 16, WRITE, 0},           /* no header */
        {TABLE, 48, INDIRECT | NEXT, 1},  /* both */
        {TABLE, 47, INDIRECT, 0},         /* not a multiple */
        {TABLE, 0, INDIRECT, 0},          /* nothing */
        {TABLE, 16 * 1025, INDIRECT, 0},  /* too large */
        {RAM_SIZE - 16, 32, INDIRECT, 0}, /* no memory */
        {TABLE + 0x100, 16, INDIRECT, 0}, /* indirect from indirect */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        start(MODERN | BIT64(VIRTIO_F_INDIRECT));
        put_desc(TABLE + 0x100, 0, TABLE, 16, INDIRECT, 0);
        put_desc(desc, 0, bad[i].address, bad[i].length, bad[i].flags, bad[i].next);
        offer(0);
        kick();
        CHECK(broken());
        if (!broken())
            fprintf(stderr, "lie %u\n", i);
        CHECK(get16(used + 2) == 0);
    }
    /* More chains than entries. */
    start(MODERN);
    avail_index = QSIZE;
    offer(0);
    kick();
    CHECK(broken());
    /* A ring outside memory, or at an odd place. */
    for (unsigned i = 0; i < 6; i++) {
        start(MODERN);
        set_com(20, 1, 0);
        set_com(8, 4, 1);
        set_com(12, 4, 1);
        set_com(20, 1, 0xb);
        set_com(32, 8, DESC);
        set_com(40, 8, AVAIL);
        set_com(48, 8, USED);
        set_com(32 + 8 * (i % 3), 8, i < 3 ? RAM_SIZE - 2 : (DESC | 1));
        set_com(28, 2, 1);
        set_com(20, 1, 0xf);
        set16(AVAIL + 2, 1);
        set16(DESC | 3, 1);
        kick();
        CHECK(broken() || i < 3);
    }
}

static void test_reset(void)
{
    start(MODERN);
    put_header(0, 0);
    put_desc(desc, 0, HEADER, 16, NEXT, 1);
    put_desc(desc, 1, DATA, 65536, NEXT | WRITE, 2);
    put_desc(desc, 2, STATUS, 1, WRITE, 0);
    for (unsigned i = 0; i < QSIZE; i++)
        offer(0);
    bus_write(&m.mmio, NOTIFY, 2, 0);
    set_com(20, 1, 0);
    memset(m.mem.ram + DATA, 0x55, 65536); /* nothing writes there any more */
    disk_drain(disk);
    CHECK(m.mem.ram[DATA] == 0x55 && com(20, 1) == 0);
}

static void test_messages(void)
{
    start(MODERN);
    unsigned cap = config_read(PCI_CAPABILITIES) & 0xff;
    while (cap && (config_read(cap) & 0xff) != 0x11)
        cap = config_read(cap) >> 8 & 0xff;
    CHECK(cap && (config_read(cap) >> 16 & 0x7ff) == 1);
    config_write(cap, config_read(cap) | 0x80000000);
    set_com(16, 2, 0);
    set_com(26, 2, 1);
    CHECK(com(26, 2) == 1);
    set_com(26, 2, 7);
    CHECK(com(26, 2) == 0xffff);
    set_com(26, 2, 1);
    unsigned rises = line.rises;
    CHECK(request(0, 0, 1024, true) == 0 && line.rises == rises);
    /* The vector is masked since reset: it waits. */
    CHECK(bus_read(&m.mmio, 0xe0000000 + 2048, 4) == 2);
    config_write(cap, config_read(cap) & 0x7fffffff);
}

static void test_hostile(unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t r = rnd();
        switch (r % 12) {
        case 0:
            set_com((unsigned)(r >> 8) % 64, 1u << (r >> 20) % 4, interesting());
            break;
        case 1:
            bus_write(&m.pio, PORTS + (r >> 8) % 64, 1u << (r >> 20) % 3, interesting());
            break;
        case 2:
            bus_read(&m.mmio, COMMON + (r >> 8) % 0x4000, 1u << (r >> 40) % 4);
            bus_read(&m.pio, PORTS + (r >> 8) % 128, 1);
            break;
        case 3:
            bus_write(&m.mmio, DEVICE + (r >> 8) % 70, 1u << (r >> 40) % 4, r >> 44);
            break;
        case 4:
            m.mem.ram[DESC + (r >> 8) % 0x8800] = (uint8_t)(r >> 40);
            break;
        case 5:
            if ((r >> 40) % 64 == 0)
                reset_machine(), map();
            break;
        case 6:
            start(MODERN | (rnd() & (BIT64(VIRTIO_F_INDIRECT) | BIT64(VIRTIO_F_EVENT_INDEX))));
            break;
        default:
            put_header((uint32_t)(r >> 8) % 15, (r >> 30) & 1 ? interesting() : (r >> 31) % 8192);
            for (unsigned d = 0; d < 6; d++) {
                uint64_t s = rnd();
                bool odd = s % 16 == 0;
                put_desc((s >> 60) & 1 ? TABLE : DESC, d % QSIZE,
                         odd             ? interesting()
                         : d == 0        ? HEADER
                         : (s >> 50) & 1 ? TABLE
                                         : DATA + (s >> 30) % 4096 * 16,
                         odd      ? (uint32_t)interesting()
                         : d == 0 ? 16
                                  : (uint32_t)(s >> 20) % 4 * 512 + (s >> 40) % 3,
                         d == 0 && !odd ? NEXT : (unsigned)(s >> 8) % 8,
                         odd ? (unsigned)(s >> 12) % 20 : d + 1);
            }
            offer((unsigned)(r >> 8) % 3);
            bus_write(&m.mmio, NOTIFY + (r >> 50) % 3 * 4, 2, 0);
            break;
        }
    }
    disk_drain(disk);
    reset_machine();
}

static void test_entropy(void)
{
    unsigned head;
    start(BIT64(VIRTIO_F_VERSION_1));
    put_desc(desc, 0, DATA, 64, NEXT | WRITE, 1);
    put_desc(desc, 1, DATA + 4096, 100, WRITE, 0);
    memset(m.mem.ram + DATA, 0, 8192);
    offer(0);
    kick();
    CHECK(take(&head) == 164);
    unsigned zeroes = 0;
    for (unsigned i = 0; i < 64; i++)
        zeroes += m.mem.ram[DATA + i] == 0;
    CHECK(zeroes < 16 && m.mem.ram[DATA + 64] == 0 && m.mem.ram[DATA + 4096 + 100] == 0);
}

/* Three queues: the last has its ring elsewhere and answers there. */
static void test_queues(void)
{
    unsigned head;
    start(MODERN | BIT64(12));
    CHECK(com(18, 2) == 3 && bus_read(&m.mmio, DEVICE + 34, 2) == 3);
    set_com(22, 2, 3);
    CHECK(com(24, 2) == 0);
    set_com(22, 2, 2);
    CHECK(com(24, 2) == VIRTIO_QUEUE_SIZE && com(30, 2) == 2);
    desc = DESC + 0x1000, avail = AVAIL + 0x800, used = USED + 0x800;
    set_com(24, 2, QSIZE);
    set_com(32, 8, desc);
    set_com(40, 8, avail);
    set_com(48, 8, used);
    set_com(28, 2, 1);
    put_header(0, 1);
    put_desc(desc, 0, HEADER, 16, NEXT, 1);
    put_desc(desc, 1, DATA, 512, NEXT | WRITE, 2);
    put_desc(desc, 2, STATUS, 1, WRITE, 0);
    offer(0);
    bus_write(&m.mmio, NOTIFY, 2, 0); /* another queue's */
    disk_drain(disk);
    CHECK(take(&head) == -1);
    bus_write(&m.mmio, NOTIFY + 8, 2, 2);
    disk_drain(disk);
    CHECK(take(&head) == 513 && head == 0 && m.mem.ram[DATA] == 'b' && m.mem.ram[STATUS] == 0);
    bus_write(&m.mmio, NOTIFY + 12, 2, 3);
    reset_machine();
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 20000;
    dma_machine_init();
    CHECK(virtio_blk_create(&m.env, pci, PCI_DEVFN(SLOT, 0), disk, "serial", 1));
    test_identity();
    start(MODERN);
    test_requests();
    start_legacy();
    test_requests();
    out8(&m, PORTS + 18, 0);
    test_indirect();
    test_lies();
    test_reset();
    test_messages();
    test_hostile(rounds);
    dma_machine_end();

    memset(&line, 0, sizeof line);
    dma_machine_init();
    CHECK(virtio_blk_create(&m.env, pci, PCI_DEVFN(SLOT, 0), disk, "serial", 3));
    test_queues();
    dma_machine_end();

    memset(&line, 0, sizeof line);
    dma_machine_init();
    CHECK(virtio_rng_create(&m.env, pci, PCI_DEVFN(SLOT, 0)));
    test_entropy();
    dma_machine_end();
    return check_result();
}
