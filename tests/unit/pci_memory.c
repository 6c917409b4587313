/* PCI devices with memory of their own and message-signalled interrupts. */
#include "dma_machine.h"

#define VRAM_SIZE (1u << 20)
#define OTHER     6
#define VRAM      0xd0000000u
#define TABLE     0xd8000000u
#define ROM_SIZE  8192u /* of 5000 bytes */

struct toy {
    struct pci_device pci;
    struct physmem_region *memory;
};

static struct toy toys[2];
static struct physmem *mem;

static void toy_reset(void *opaque)
{
    struct toy *toy = opaque;
    pci_device_reset(&toy->pci);
}

static const struct state_field fields[] = {PCI_DEVICE_STATE(struct toy, pci)};
static const struct state_table table = {
    .name = "toy",
    .version = 1,
    .size = sizeof(struct toy),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = toy_reset,
};

static unsigned changes;

static void map_changed(void *opaque)
{
    changes++;
}

static struct {
    uint64_t address;
    uint32_t data;
    unsigned count;
} message;

static void take_message(void *opaque, uint64_t address, uint32_t data)
{
    message.address = address;
    message.data = data;
    message.count++;
}

static void set(unsigned slot, unsigned offset, uint32_t value)
{
    bus_write(&m.pio, 0xcf8, 4, 0x80000000u | PCI_DEVFN(slot, 0) << 8 | offset);
    bus_write(&m.pio, 0xcfc, 4, value);
}

static uint32_t get(unsigned slot, unsigned offset)
{
    bus_write(&m.pio, 0xcf8, 4, 0x80000000u | PCI_DEVFN(slot, 0) << 8 | offset);
    return (uint32_t)bus_read(&m.pio, 0xcfc, 4);
}

/* Which toy's memory is there: 0 or 1; -1: neither. */
static int owner(uint64_t gpa)
{
    const uint8_t *host = physmem_host(mem, gpa, 16);
    return host == toys[0].memory->host ? 0 : host == toys[1].memory->host ? 1 : -1;
}

static void test_bars(void)
{
    set(SLOT, PCI_BAR0, 0xffffffff);
    CHECK(get(SLOT, PCI_BAR0) == (0xffffffff & ~(VRAM_SIZE - 1)));
    set(SLOT, PCI_BAR0, VRAM);
    CHECK(owner(VRAM) == -1); /* not before the command register says so */
    set(SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY);
    CHECK(owner(VRAM) == 0 && changes == 1);
    CHECK(physmem_host_write(mem, VRAM + VRAM_SIZE - 16, 16));
    CHECK(!physmem_host(mem, VRAM + VRAM_SIZE - 8, 16) && !physmem_host(mem, VRAM - 8, 16));
    CHECK(!physmem_host(mem, VRAM, UINT64_MAX) && !physmem_host(mem, VRAM, VRAM_SIZE + 1ull));

    /* On top of each other: the one that was there stays; then they change places. */
    set(OTHER, PCI_BAR0, VRAM + VRAM_SIZE);
    set(OTHER, PCI_COMMAND, PCI_COMMAND_MEMORY);
    CHECK(owner(VRAM + VRAM_SIZE) == 1);
    set(SLOT, PCI_BAR0, VRAM + VRAM_SIZE);
    CHECK(owner(VRAM) == -1 && owner(VRAM + VRAM_SIZE) == 1);
    set(OTHER, PCI_BAR0, VRAM);
    CHECK(owner(VRAM) == 1 && owner(VRAM + VRAM_SIZE) == 0);
    set(SLOT, PCI_BAR0, VRAM);
    set(OTHER, PCI_COMMAND, 0);
    CHECK(owner(VRAM) == 0 && owner(VRAM + VRAM_SIZE) == -1);

    /* On top of RAM, at address 0, at the end of the address space. */
    static const uint32_t bad[] = {0, 0x100000, RAM_SIZE - VRAM_SIZE};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        set(SLOT, PCI_BAR0, bad[i]);
        CHECK(owner(bad[i]) == -1);
        CHECK(physmem_host(mem, bad[i], 16) == mem->ram + bad[i]);
    }
    set(SLOT, PCI_BAR0, RAM_SIZE);
    CHECK(owner(RAM_SIZE) == 0);
    set(SLOT, PCI_BAR0, 0xfff00000);
    CHECK(owner(0xfff00000) == 0 && !physmem_host(mem, 0xfffffff8, 16));
}

/* The expansion ROM decodes when both its own bit and the command register's are set (PCI 3.0,
 * 6.2.5.2). */
static void test_rom(void)
{
    enum { ROM = 0xd4000000u, ENABLE = 1 };
    CHECK(get(SLOT, PCI_ROM_BAR) == 0);
    set(SLOT, PCI_COMMAND, 0);
    set(SLOT, PCI_ROM_BAR, 0xfffffffe);
    CHECK(get(SLOT, PCI_ROM_BAR) == (0xffffffff & ~(ROM_SIZE - 1)));
    set(SLOT, PCI_ROM_BAR, ROM);
    set(SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY);
    CHECK(!physmem_host(mem, ROM, 4));
    set(SLOT, PCI_COMMAND, 0);
    set(SLOT, PCI_ROM_BAR, ROM | 0x7fe | ENABLE);
    CHECK(get(SLOT, PCI_ROM_BAR) == (ROM | ENABLE) && !physmem_host(mem, ROM, 4));
    set(SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY);
    const uint8_t *rom = physmem_host(mem, ROM, ROM_SIZE);
    CHECK(rom && rom[0] == 0x55 && rom[1] == 0xaa && rom[4999] == 7 && rom[5000] == 0xff);
    CHECK(!physmem_host_write(mem, ROM, 4) && !physmem_host(mem, ROM + ROM_SIZE, 4));
    set(OTHER, PCI_ROM_BAR, 0xffffffff);
    CHECK(get(OTHER, PCI_ROM_BAR) == 0); /* which has none */
    CHECK(pci_device_at(pci, PCI_DEVFN(SLOT, 0)) == &toys[0].pci);
    CHECK(!pci_device_at(pci, PCI_DEVFN(SLOT, 1)));
    set(SLOT, PCI_ROM_BAR, ROM);
    CHECK(!physmem_host(mem, ROM, 4));
}

/* A 64-bit BAR goes everywhere, but not around the end. */
static void test_wide(void)
{
    set(OTHER, PCI_COMMAND, PCI_COMMAND_MEMORY);
    set(OTHER, PCI_BAR0, 0);
    set(OTHER, PCI_BAR0 + 8, 0x10000000);
    set(OTHER, PCI_BAR0 + 12, 0x20);
    CHECK(toys[1].pci.bars[2].mapped && bus_read(&m.mmio, 0x2010000000, 4) == 0x77);
    unsigned ranges = m.mmio.count;
    set(OTHER, PCI_BAR0 + 8, 0xffffffff);
    set(OTHER, PCI_BAR0 + 12, 0xffffffff);
    CHECK((get(OTHER, PCI_BAR0 + 8) & 15) == 4);
    CHECK(!toys[1].pci.bars[2].mapped && m.mmio.count == ranges - 1);
    set(OTHER, PCI_BAR0 + 12, 0x00100000);
    set(OTHER, PCI_BAR0 + 8, 0);
    CHECK(!toys[1].pci.bars[2].mapped);
    set(OTHER, PCI_BAR0 + 12, 0x000fffff);
    set(OTHER, PCI_BAR0 + 8, 0xfffff000);
    CHECK(toys[1].pci.bars[2].mapped);
    set(OTHER, PCI_BAR0 + 12, 0);
    set(OTHER, PCI_BAR0 + 8, 0);
}

static void notify(unsigned vector, bool want)
{
    pthread_mutex_lock(&m.lock);
    CHECK(pci_notify(&toys[0].pci, vector) == want);
    pthread_mutex_unlock(&m.lock);
}

static void set_vector(unsigned vector, uint32_t address, uint32_t data, uint32_t control)
{
    uint32_t entry[4] = {address, 0, data, control};
    for (unsigned i = 0; i < 4; i++)
        bus_write(&m.mmio, TABLE + vector * 16 + i * 4, 4, entry[i]);
}

static void test_msix(void)
{
    unsigned cap = toys[0].pci.msix_cap;
    set(SLOT, PCI_BAR0 + 4, TABLE);
    set(SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    CHECK((get(SLOT, cap) & 0xff) == 0x11 && (get(SLOT, cap) >> 16) == 3);
    CHECK(get(SLOT, cap + 4) == 1 && get(SLOT, cap + 8) == 2049);
    notify(0, false);
    for (unsigned v = 0; v < 4; v++)
        CHECK(bus_read(&m.mmio, TABLE + v * 16 + 12, 4) == 1); /* masked since reset */
    for (unsigned v = 0; v < 4; v++)
        set_vector(v, 0xfee01000 + (v << 12), 0x40 + v, v == 3);
    set(SLOT, cap, 0x80000000);
    message.count = 0;
    notify(1, true);
    CHECK(message.count == 1 && message.address == 0xfee02000 && message.data == 0x41);
    notify(3, true); /* masked: pending, once, until the mask goes */
    notify(3, true);
    CHECK(message.count == 1 && bus_read(&m.mmio, TABLE + 2048, 4) == 8);
    bus_write(&m.mmio, TABLE + 3 * 16 + 12, 4, 0);
    CHECK(message.count == 2 && message.data == 0x43 && bus_read(&m.mmio, TABLE + 2048, 4) == 0);
    set(SLOT, cap, 0xc0000000); /* all masked */
    notify(0, true);
    notify(2, true);
    CHECK(message.count == 2 && bus_read(&m.mmio, TABLE + 2048, 4) == 5);
    set(SLOT, cap, 0x80000000);
    CHECK(message.count == 4 && message.data == 0x42);
    notify(4, true);
    notify(UINT32_MAX, true); /* there is none */
    CHECK(message.count == 4);
    set(SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY);
    notify(0, true); /* no bus master, no message */
    CHECK(message.count == 4);
    set(SLOT, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);

    /* The pin is silent meanwhile, and heard again afterwards. */
    pthread_mutex_lock(&m.lock);
    pci_set_intx(&toys[0].pci, true);
    pthread_mutex_unlock(&m.lock);
    CHECK(line.level == 0);
    set(SLOT, cap, 0);
    CHECK(line.level == 1);
    set(SLOT, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE);
    CHECK(line.level == 0);

    reset_machine();
    notify(0, false);
    CHECK(toys[0].pci.msix_table[3] == 1 && toys[0].pci.msix_pending == 0);
}

static void test_msi(void)
{
    unsigned cap = toys[0].pci.msi_cap;
    set(SLOT, PCI_COMMAND, PCI_COMMAND_MASTER);
    set(SLOT, cap + 4, 0xfee05003);
    set(SLOT, cap + 8, 0);
    set(SLOT, cap + 12, 0x51);
    set(SLOT, cap, 0xffff0000);
    CHECK(get(SLOT, cap) >> 16 == 0x81); /* one message, 64-bit */
    message.count = 0;
    notify(0, true);
    CHECK(message.count == 1 && message.address == 0xfee05000 && message.data == 0x51);
    set(SLOT, cap, 0);
    notify(0, false);
}

static void test_hostile(void)
{
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t r = rnd();
        unsigned slot = r & 1 ? SLOT : OTHER, offset = (unsigned)(r >> 8) & 0xfc;
        uint32_t value = (uint32_t)interesting();
        if (r & 2)
            offset = (unsigned)(r >> 8 & 0x1c) + 4;
        if (r & 4)
            value = (uint32_t)((r >> 16 & 7) << 20 | (r & 8 ? VRAM : 0));
        set(slot, offset, value);
        if ((r >> 24) % 4 == 0)
            bus_write(&m.mmio, ((uint64_t)get(slot, PCI_BAR0 + 4) & ~15u) + (r >> 32 & 0xfff),
                      1u << (r >> 28 & 3), rnd());
        if ((r >> 24) % 4 == 1)
            bus_read(&m.mmio, ((uint64_t)get(slot, PCI_BAR0 + 4) & ~15u) + (r >> 32 & 0xfff),
                     1u << (r >> 28 & 3));
        if ((r >> 24) % 16 == 2) {
            pthread_mutex_lock(&m.lock);
            pci_notify(&toys[0].pci, (unsigned)(r >> 40) % 6);
            pthread_mutex_unlock(&m.lock);
        }
        if (r >> 52 == 0)
            reset_machine();
        /* Two regions never share an address. */
        uint64_t a = atomic_load(&toys[0].memory->base), b = atomic_load(&toys[1].memory->base);
        CHECK(a == REGION_UNMAPPED || (a >= RAM_SIZE && a + VRAM_SIZE <= 1ull << 32));
        CHECK(a == REGION_UNMAPPED || b == REGION_UNMAPPED || a + VRAM_SIZE <= b ||
              b + VRAM_SIZE <= a);
    }
}

static uint64_t wide_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0x77;
}

static void wide_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
}

static const struct io_ops wide_ops = {wide_read, wide_write, 4};

static void add_toy(unsigned n, unsigned slot)
{
    static const struct pci_identity identity = {
        .name = "toy", .vendor = 0x1234, .device = 0x5678, .interrupt_pin = 1};
    struct pci_device *dev = &toys[n].pci;
    pci_device_init(pci, dev, PCI_DEVFN(slot, 0), &identity);
    toys[n].memory = pci_add_ram_bar(dev, 0, 0, VRAM_SIZE);
    CHECK(toys[n].memory);
    dev->wmask[PCI_COMMAND] |= PCI_COMMAND_MASTER;
    if (n == 0) {
        CHECK(pci_add_msi(dev) && pci_add_msix(dev, 1, 4));
        CHECK(!pci_add_msix(dev, 3, 33));
    } else {
        pci_add_register_bar(dev, 2, PCI_BAR_64, 4096, &wide_ops, NULL);
    }
    device_register(&m.env, &table, &toys[n], NULL);
}

int main(void)
{
    struct tv_error err;
    fake_machine_init(&m);
    mem = physmem_create(RAM_SIZE, false, &err);
    CHECK(mem);
    if (!mem)
        return 1;
    mem->changed = map_changed;
    m.env.mem = mem;
    struct pci_wiring wiring = {.msi = take_message};
    for (int i = 0; i < 4; i++)
        wiring.ioapic[i] = fake_line(&line);
    pci = pci_create(&m.env, &wiring);
    add_toy(0, SLOT);
    add_toy(1, OTHER);
    uint8_t rom[5000] = {0x55, 0xaa, [4999] = 7};
    CHECK(pci_add_rom(&toys[0].pci, rom, sizeof rom));
    test_bars();
    test_rom();
    test_wide();
    test_msix();
    test_msi();
    test_hostile();
    fake_machine_end(&m);
    physmem_destroy(mem);
    return check_result();
}
