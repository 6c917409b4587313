/* PCI configuration, interrupt routing, power management, and the chipset's odd ports. */
#include "check.h"
#include "dev/debug_exit.h"
#include "dev/debugcon.h"
#include "dev/piix4.h"
#include "dev/port80.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev/reset_control.h"
#include "fake_machine.h"
#include "util/util.h"

static struct fake_machine m;
static struct probe pic[16], ioapic[4], sci, a20;
static struct pci_bus *bus;
static struct piix4_pm *pm;

/* A device of the test's own: one I/O and one memory BAR. */
struct toy {
    struct pci_device pci;
    uint64_t last;
};
static struct toy toy;

static uint64_t toy_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0xabcd0000 + offset;
}

static void toy_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    toy.last = value;
}

static const struct io_ops toy_ops = {toy_read, toy_write, 4};
static const struct state_field toy_fields[] = {PCI_DEVICE_STATE(struct toy, pci),
                                                STATE(struct toy, last, 0)};
static void toy_reset(void *opaque)
{
    pci_device_reset(&toy.pci);
}
static const struct state_table toy_table = {.name = "toy",
                                             .version = 1,
                                             .size = sizeof(struct toy),
                                             .fields = toy_fields,
                                             .field_count = ARRAY_SIZE(toy_fields),
                                             .after_reset = toy_reset};

static void setup(void)
{
    fake_machine_init(&m);
    m.mem.low_size = m.mem.size = 16 << 20;
    struct pci_wiring wiring;
    for (unsigned i = 0; i < 16; i++)
        pic[i] = (struct probe){0}, wiring.pic[i] = fake_line(&pic[i]);
    for (unsigned i = 0; i < 4; i++)
        ioapic[i] = (struct probe){0}, wiring.ioapic[i] = fake_line(&ioapic[i]);
    sci = a20 = (struct probe){0};
    bus = pci_create(&m.env, &wiring);
    reset_control_create(&m.env, bus);
    piix4_isa_create(&m.env, bus);
    pm = piix4_pm_create(&m.env, bus, fake_line(&sci));

    static const struct pci_identity identity = {.name = "toy",
                                                 .vendor = 0x1234,
                                                 .device = 0x5678,
                                                 .class_code = 0xff0000,
                                                 .interrupt_pin = 1};
    toy = (struct toy){0};
    pci_device_init(bus, &toy.pci, PCI_DEVFN(3, 0), &identity);
    pci_add_bar(&toy.pci, 0, true, 32, &toy_ops, &toy);
    pci_add_bar(&toy.pci, 1, false, 4096, &toy_ops, &toy);
    CHECK(pci_add_capability(&toy.pci, 5, 14) == 0x40);
    CHECK(pci_add_capability(&toy.pci, 9, 8) == 0x50);
    device_register(&m.env, &toy_table, &toy, NULL);
}

static void out32(unsigned port, uint32_t value)
{
    bus_write(&m.pio, port, 4, value);
}

static uint32_t in32(unsigned port)
{
    return (uint32_t)bus_read(&m.pio, port, 4);
}

static void out16(unsigned port, unsigned value)
{
    bus_write(&m.pio, port, 2, value);
}

static unsigned in16(unsigned port)
{
    return (unsigned)bus_read(&m.pio, port, 2);
}

static uint32_t config(unsigned devfn, unsigned reg)
{
    out32(0xcf8, 0x80000000 | devfn << 8 | (reg & 0xfc));
    return in32(0xcfc);
}

static void set_config(unsigned devfn, unsigned reg, uint32_t value)
{
    out32(0xcf8, 0x80000000 | devfn << 8 | (reg & 0xfc));
    out32(0xcfc, value);
}

static void test_configuration(void)
{
    setup();
    out32(0xcf8, 0x80000000);
    CHECK(in32(0xcf8) == 0x80000000);
    CHECK(in32(0xcfc) == 0x12378086);
    CHECK(in16(0xcfe) == 0x1237 && in8(&m, 0xcfd) == 0x80);
    CHECK(config(PCI_DEVFN(1, 0), 0) == 0x71108086);
    CHECK(config(PCI_DEVFN(1, 0), 0x0c) & 0x00800000); /* multifunction */
    CHECK(config(PCI_DEVFN(1, 3), 0) == 0x71138086);
    CHECK(config(PCI_DEVFN(7, 0), 0) == 0xffffffff);
    out32(0xcf8, 0x80010000); /* bus 1 */
    CHECK(in32(0xcfc) == 0xffffffff);
    out32(0xcf8, 0);
    CHECK(in32(0xcfc) == 0xffffffff);
    set_config(0, 0, 0);
    CHECK(config(0, 0) == 0x12378086);
    /* A capability list: the second was linked in front. */
    unsigned t = PCI_DEVFN(3, 0);
    CHECK((config(t, 0x34) & 0xff) == 0x50);
    CHECK((config(t, 0x50) & 0xffff) == 0x4009 && (config(t, 0x40) & 0xffff) == 0x0005);
    fake_machine_end(&m);
}

static void test_bars(void)
{
    unsigned t = PCI_DEVFN(3, 0);
    setup();
    set_config(t, 0x10, 0xffffffff);
    CHECK(config(t, 0x10) == 0xffffffe1);
    set_config(t, 0x14, 0xffffffff);
    CHECK(config(t, 0x14) == 0xfffff000);
    set_config(t, 0x10, 0xc000);
    set_config(t, 0x14, 0xe0000000);
    CHECK(in32(0xc004) == 0xffffffff); /* not decoded yet */
    set_config(t, 0x04, 3);
    CHECK(in32(0xc004) == 0xabcd0004);
    CHECK(bus_read(&m.mmio, 0xe0000010, 4) == 0xabcd0010);
    out32(0xc000, 77);
    CHECK(toy.last == 77);
    set_config(t, 0x10, 0xd000);
    CHECK(in32(0xc004) == 0xffffffff && in32(0xd004) == 0xabcd0004);
    set_config(t, 0x10, 0x0600); /* on top of power management: that answers */
    CHECK(in32(0x608) != 0xabcd0008);
    set_config(t, 0x14, 0x00100000); /* on top of RAM */
    CHECK(bus_read(&m.mmio, 0x00100000, 4) == 0xffffffff);
    set_config(t, 0x10, 0xd000);
    CHECK(in32(0xd004) == 0xabcd0004);
    devices_reset(&m.env);
    CHECK(in32(0xd004) == 0xffffffff && config(t, 0x10) == 1);
    fake_machine_end(&m);
}

static void test_interrupts(void)
{
    setup();
    /* Slot 3, INTA: PIRQC. */
    pci_set_intx(&toy.pci, true);
    CHECK(ioapic[3].level && !ioapic[0].level);
    CHECK(config(PCI_DEVFN(3, 0), 4) & 0x00080000);
    set_config(PCI_DEVFN(1, 0), 0x60, 0x0b0b0a80);
    CHECK(pic[11].level && !pic[10].level);
    set_config(PCI_DEVFN(1, 0), 0x60, 0x0b050a80);
    CHECK(!pic[11].level && pic[5].level);
    set_config(PCI_DEVFN(3, 0), 4, 0x400); /* INTx disable */
    CHECK(!pic[5].level && !ioapic[3].level);
    set_config(PCI_DEVFN(3, 0), 4, 0);
    CHECK(pic[5].level);
    pci_set_intx(&toy.pci, false);
    CHECK(!pic[5].level && !ioapic[3].level);
    fake_machine_end(&m);
}

static void test_power_management(void)
{
    setup();
    CHECK(!(in16(ACPI_PM1A_CNT) & 1));
    out8(&m, ACPI_SMI_CMD, ACPI_ENABLE);
    CHECK(in16(ACPI_PM1A_CNT) & 1);
    CHECK(in8(&m, ACPI_SMI_CMD) == ACPI_ENABLE);
    out16(ACPI_PM1A_EVT + 2, 0x100);
    piix4_pm_power_button(pm);
    CHECK(sci.level && in16(ACPI_PM1A_EVT) == 0x100);
    out16(ACPI_PM1A_EVT, 0x100);
    CHECK(!sci.level && in16(ACPI_PM1A_EVT) == 0);
    piix4_pm_rtc_alarm(pm);
    CHECK(!sci.level && in16(ACPI_PM1A_EVT) == 0x400);
    out16(ACPI_PM1A_EVT + 2, 0x400);
    CHECK(sci.level);
    out16(ACPI_PM1A_EVT, 0x400);
    CHECK(!sci.level);
    out16(ACPI_GPE0 + 2, 4);
    piix4_pm_gpe(pm, 2, true);
    CHECK(sci.level);
    out8(&m, ACPI_GPE0, 4);
    CHECK(!sci.level);

    uint32_t before = in32(ACPI_PM_TMR);
    fake_advance(&m, 1000000000);
    CHECK(in32(ACPI_PM_TMR) - before == ACPI_PM_TMR_HZ);
    out16(ACPI_PM1A_EVT + 2, 1);
    fake_advance(&m, UINT64_C(600000000000)); /* bit 31 changes */
    CHECK(sci.level && (in16(ACPI_PM1A_EVT) & 1));
    out16(ACPI_PM1A_EVT, 1);
    CHECK(!sci.level);

    out16(ACPI_PM1A_CNT, 1 << 10 | 0x2000); /* not S5 */
    CHECK(m.poweroffs == 0);
    out16(ACPI_PM1A_CNT, ACPI_S5_SLP_TYP << 10);
    CHECK(m.poweroffs == 0);
    out16(ACPI_PM1A_CNT, ACPI_S5_SLP_TYP << 10 | 0x2000);
    CHECK(m.poweroffs == 1);
    /* The block moves, and goes away. */
    unsigned f = PCI_DEVFN(1, 3);
    set_config(f, 0x40, 0xb000);
    CHECK(in32(0xb008) == in32(0xb008) && in32(0xb008) != 0xffffffff);
    CHECK(in32(ACPI_PM_TMR) == 0xffffffff);
    set_config(f, 0x80, 0);
    CHECK(in32(0xb008) == 0xffffffff);
    devices_reset(&m.env);
    CHECK(in32(ACPI_PM_TMR) != 0xffffffff);
    fake_machine_end(&m);
}

static void test_smbus(void)
{
    enum { STS, CNT = 2, CMD, ADD, DAT0, DAT1, BLK };
    const unsigned f = PCI_DEVFN(1, 3), at = ACPI_SMBUS_BASE;
    setup();
    CHECK((config(f, 0x90) & 0xffff) == (at | 1) && (config(f, 0xd0) >> 16 & 0xff) == 9);
    CHECK(in8(&m, at + STS) == 0);
    /* Each protocol with an address: nobody is there. */
    for (unsigned protocol = 0; protocol < 8; protocol++) {
        out8(&m, at + ADD, 0x50 << 1 | 1);
        out8(&m, at + CMD, 2);
        out8(&m, at + CNT, protocol << 2 | 0x40);
        CHECK(in8(&m, at + STS) == (protocol == 4 || protocol > 5 ? 0x10 : 0x04));
        CHECK(in8(&m, at + CNT) == protocol << 2);
        CHECK(!sci.level);
        out8(&m, at + STS, 0xff);
        CHECK(in8(&m, at + STS) == 0);
    }
    CHECK(in8(&m, at + CMD) == 2 && in8(&m, at + ADD) == 0xa1);
    /* The block buffer starts again where the control register is read. */
    in8(&m, at + CNT);
    for (unsigned i = 0; i < 40; i++)
        out8(&m, at + BLK, i);
    in8(&m, at + CNT);
    CHECK(in8(&m, at + BLK) == 32 && in8(&m, at + BLK) == 33);
    /* An interrupt, where it was asked for and as it is routed. */
    out8(&m, at + CNT, 0x41);
    CHECK(sci.level);
    set_config(f, 0xd0, 0x00010000);
    CHECK(!sci.level);
    set_config(f, 0xd0, 0x00090000);
    CHECK(sci.level);
    out8(&m, at + STS, 0x04);
    CHECK(!sci.level);
    out8(&m, at + CNT, 0x42); /* killed */
    CHECK(in8(&m, at + STS) == 0x10 && !sci.level);
    out8(&m, at + STS, 0x10);
    /* Off, somewhere else, gone. */
    set_config(f, 0xd0, 0);
    out8(&m, at + CNT, 0x40);
    CHECK(in8(&m, at + STS) == 0);
    set_config(f, 0x90, 0xb100);
    CHECK(in8(&m, at + CMD) == 0xff && in8(&m, 0xb100 + CMD) == 2);
    set_config(f, 0x90, ACPI_PM_BASE); /* that is taken */
    CHECK(in8(&m, 0xb100 + CMD) == 0xff);
    set_config(f, 0x90, 0xb100);
    set_config(f, 4, 0);
    CHECK(in8(&m, 0xb100 + CMD) == 0xff && in32(ACPI_PM_TMR) != 0xffffffff);
    devices_reset(&m.env);
    CHECK(in8(&m, at + CMD) == 0);
    fake_machine_end(&m);
}

static void test_odd_ports(void)
{
    setup();
    out8(&m, 0xcf9, 2);
    CHECK(m.resets == 0 && in8(&m, 0xcf9) == 2);
    out8(&m, ACPI_RESET_PORT, ACPI_RESET_VALUE);
    CHECK(m.resets == 1);
    struct port92 *p92 = port92_create(&m.env, fake_line(&a20));
    CHECK(a20.level && in8(&m, 0x92) == 2);
    port92_set_kbc_a20(p92, 0, 0);
    CHECK(a20.level);
    out8(&m, 0x92, 0);
    CHECK(!a20.level);
    port92_set_kbc_a20(p92, 0, 1);
    CHECK(a20.level);
    out8(&m, 0x92, 1);
    CHECK(m.resets == 2);
    port80_create(&m.env);
    out8(&m, 0x80, 0x42);
    CHECK(in8(&m, 0x80) == 0x42);
    debugcon_create(&m.env, DEBUGCON_PORT, NULL);
    CHECK(in8(&m, 0xe9) == 0xe9);
    for (int i = 0; i < 1000; i++)
        out8(&m, 0xe9, 'x');
    pvpanic_create(&m.env);
    CHECK(in8(&m, PVPANIC_PORT) == 3);
    out8(&m, PVPANIC_PORT, 1);
    CHECK(m.panics == 1);
    CHECK(debug_exit_create(&m.env, 0x80, 1) == NULL);
    CHECK(debug_exit_create(&m.env, 0xf4, 4) != NULL);
    out8(&m, 0xf4, 5);
    CHECK(m.exits == 1 && m.exit_status == 11);
    out32(0xf4, 0x10);
    CHECK(m.exit_status == 33);
    fake_machine_end(&m);
}

int main(void)
{
    test_configuration();
    test_bars();
    test_interrupts();
    test_power_management();
    test_smbus();
    test_odd_ports();
    return check_result();
}
