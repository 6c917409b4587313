/* The local APIC and the I/O APIC: requests, priorities, EOI, IPIs, the timer, x2APIC's rules. */
#include "dev/lapic.h"

#include "check.h"
#include "dev/ioapic.h"
#include "fake_machine.h"

#define MICROSECOND 1000u

struct fake_cpu {
    bool intr;
    unsigned nmis, inits, sipis;
    uint8_t sipi_vector;
};

static struct fake_machine m;
static struct fake_cpu cpus[2];
static struct lapics *all;
static struct lapic *apic[2];
static struct ioapic *io;

static void on_intr(void *cpu, bool asserted)
{
    ((struct fake_cpu *)cpu)->intr = asserted;
}
static void on_nmi(void *cpu)
{
    ((struct fake_cpu *)cpu)->nmis++;
}
static void on_smi(void *cpu)
{
    (void)cpu;
}
static void on_init(void *cpu)
{
    ((struct fake_cpu *)cpu)->inits++;
}
static void on_sipi(void *cpu, uint8_t vector)
{
    ((struct fake_cpu *)cpu)->sipis++;
    ((struct fake_cpu *)cpu)->sipi_vector = vector;
}

static const struct lapic_cpu_ops ops = {on_intr, on_nmi, on_smi, on_init, on_sipi};

static void setup(void)
{
    fake_machine_init(&m);
    all = lapics_create(&m.env);
    for (unsigned i = 0; i < 2; i++) {
        cpus[i] = (struct fake_cpu){0};
        apic[i] = lapic_create(all, &m.env, i, i == 0, &ops, &cpus[i]);
        lapic_mmio_write(apic[i], 0xf0, 4, 0x1ff); /* enabled, spurious vector ff */
    }
    io = ioapic_create(&m.env, all);
}

static void write(uint32_t offset, uint32_t value)
{
    lapic_mmio_write(apic[0], offset, 4, value);
}

static uint32_t read(uint32_t offset)
{
    return lapic_mmio_read(apic[0], offset, 4);
}

static void post(unsigned vector)
{
    const struct apic_message message = {
        .destination = 0, .vector = (uint8_t)vector, .asserted = true};
    CHECK(lapics_deliver(all, &message));
}

static void test_priorities(void)
{
    setup();
    post(0x41);
    post(0x52);
    CHECK(cpus[0].intr && lapic_has_interrupt(apic[0]));
    CHECK(lapic_ack(apic[0]) == 0x52);
    CHECK(!cpus[0].intr); /* 41 is of a lower class than what is in service */
    CHECK(read(0xa0) == 0x50);
    post(0x58); /* the same class waits */
    CHECK(lapic_ack(apic[0]) == -1);
    write(0xb0, 0);
    CHECK(lapic_ack(apic[0]) == 0x58);
    write(0xb0, 0);
    write(0x80, 0x40); /* TPR keeps class 4 off */
    CHECK(!cpus[0].intr && lapic_ack(apic[0]) == -1);
    CHECK(lapic_cr8(apic[0]) == 4);
    lapic_set_cr8(apic[0], 3);
    CHECK(cpus[0].intr && lapic_ack(apic[0]) == 0x41);
    write(0xb0, 0);
    CHECK(!lapic_has_interrupt(apic[0]));
    fake_machine_end(&m);
}

static void test_disabled(void)
{
    setup();
    write(0xf0, 0xff); /* disabled by software: everything is masked and nothing is taken */
    CHECK(read(0x320) & 0x10000);
    post(0x41);
    CHECK(!lapic_has_interrupt(apic[0]));
    write(0x320, 0x41);
    CHECK(read(0x320) == 0x10041);
    fake_machine_end(&m);
}

static void test_ipis(void)
{
    setup();
    write(0x310, 1u << 24);
    write(0x300, 0x4061); /* fixed, physical */
    CHECK(cpus[1].intr && lapic_ack(apic[1]) == 0x61);
    write(0x300, 0x4400); /* NMI */
    CHECK(cpus[1].nmis == 1 && cpus[0].nmis == 0);
    write(0x300, 0xc500); /* INIT, assert; then de-assert, which does nothing */
    write(0x300, 0x8500);
    CHECK(cpus[1].inits == 1);
    write(0x300, 0x4612);
    CHECK(cpus[1].sipis == 1 && cpus[1].sipi_vector == 0x12);
    write(0x300, 0x44071); /* self */
    CHECK(lapic_ack(apic[0]) == 0x71);
    write(0x300, 0xc4072);             /* all but self */
    CHECK(lapic_ack(apic[1]) == 0x72); /* above 61, which is still in service */
    fake_machine_end(&m);
}

static void test_logical_destination(void)
{
    setup();
    lapic_mmio_write(apic[0], 0xd0, 4, 0x01000000);
    lapic_mmio_write(apic[1], 0xd0, 4, 0x02000000);
    struct apic_message message = {
        .destination = 3, .logical = true, .vector = 0x45, .asserted = true};
    CHECK(lapics_deliver(all, &message));
    CHECK(lapic_ack(apic[0]) == 0x45 && lapic_ack(apic[1]) == 0x45);
    message.destination = 4;
    CHECK(!lapics_deliver(all, &message));
    fake_machine_end(&m);
}

static void test_timer(void)
{
    setup();
    write(0x3e0, 0xb);  /* divide by 1: a count is a nanosecond */
    write(0x320, 0x60); /* one-shot */
    write(0x380, 100 * MICROSECOND);
    fake_advance(&m, 40 * MICROSECOND);
    CHECK(read(0x390) == 60 * MICROSECOND);
    CHECK(!cpus[0].intr);
    fake_advance(&m, 70 * MICROSECOND);
    CHECK(read(0x390) == 0);
    CHECK(lapic_ack(apic[0]) == 0x60);
    write(0xb0, 0);
    fake_advance(&m, 200 * MICROSECOND);
    CHECK(lapic_ack(apic[0]) == -1);

    write(0x320, 0x20060); /* periodic */
    write(0x380, 10 * MICROSECOND);
    unsigned seen = 0;
    for (unsigned i = 0; i < 100; i++) {
        fake_advance(&m, MICROSECOND);
        if (lapic_ack(apic[0]) == 0x60) {
            seen++;
            write(0xb0, 0);
        }
    }
    CHECK(seen == 10);

    write(0x320, 0x40060); /* TSC deadline */
    uint64_t value;
    CHECK(
        lapic_msr_write(apic[0], 0x6e0, vclock_ns_to_tsc(&m.clock, fake_now() + 50 * MICROSECOND)));
    CHECK(lapic_msr_read(apic[0], 0x6e0, &value) && value);
    fake_advance(&m, 49 * MICROSECOND);
    CHECK(lapic_ack(apic[0]) == -1);
    fake_advance(&m, 2 * MICROSECOND);
    CHECK(lapic_ack(apic[0]) == 0x60);
    CHECK(lapic_msr_read(apic[0], 0x6e0, &value) && !value);
    fake_machine_end(&m);
}

static void test_x2apic(void)
{
    setup();
    uint64_t value;
    CHECK(!lapic_msr_read(apic[0], 0x802, &value)); /* not in that mode */
    CHECK(!lapic_set_base(apic[0], 0xfee00400));    /* x2APIC without enable */
    CHECK(lapic_set_base(apic[0], 0xfee00d00));
    CHECK(lapic_mmio_address(apic[0]) == ~UINT64_C(0));
    CHECK(lapic_msr_read(apic[0], 0x802, &value) && value == 0);
    CHECK(!lapic_msr_write(apic[0], 0x802, 1));     /* read-only */
    CHECK(!lapic_msr_write(apic[0], 0x80b, 1));     /* EOI takes 0 alone */
    CHECK(!lapic_msr_write(apic[0], 0x808, 0x100)); /* reserved bits */
    CHECK(lapic_msr_write(apic[0], 0x835, 0x5700)); /* LINT0: of these 12 and 14 are read-only */
    CHECK(lapic_msr_read(apic[0], 0x835, &value) && value == 0x0700);
    CHECK(!lapic_msr_write(apic[0], 0x835, 0x20700) && !lapic_msr_write(apic[0], 0x832, 0x4000));
    CHECK(!lapic_msr_read(apic[0], 0x80e, &value)); /* no DFR */
    CHECK(!lapic_msr_write(apic[0], 0x831, 0));     /* no second half of ICR */
    CHECK(lapic_msr_write(apic[0], 0x83f, 0x81));   /* self IPI */
    CHECK(lapic_ack(apic[0]) == 0x81);
    CHECK(lapic_msr_write(apic[0], 0x830, UINT64_C(1) << 32 | 0x4091));
    CHECK(lapic_ack(apic[1]) == 0x91);
    CHECK(!lapic_set_base(apic[0], 0xfee00900)); /* back only by way of disabled */
    CHECK(lapic_set_base(apic[0], 0xfee00100));
    CHECK(lapic_set_base(apic[0], 0xfee00900));
    fake_machine_end(&m);
}

static int ack_extint(void *opaque)
{
    (void)opaque;
    lapics_set_extint(all, 0);
    return 0x33;
}

static void test_extint(void)
{
    setup();
    lapics_on_extint_ack(all, ack_extint, NULL);
    lapics_set_extint(all, 1);
    CHECK(!lapic_has_interrupt(apic[0])); /* LINT0 is masked after reset */
    write(0x350, 0x700);
    CHECK(cpus[0].intr && lapic_ack(apic[0]) == 0x33);
    CHECK(!cpus[0].intr);
    fake_machine_end(&m);
}

static void io_write(unsigned index, uint32_t value)
{
    bus_write(&m.mmio, IOAPIC_BASE, 4, index);
    bus_write(&m.mmio, IOAPIC_BASE + 0x10, 4, value);
}

static uint32_t io_read(unsigned index)
{
    bus_write(&m.mmio, IOAPIC_BASE, 4, index);
    return (uint32_t)bus_read(&m.mmio, IOAPIC_BASE + 0x10, 4);
}

static void test_ioapic(void)
{
    setup();
    CHECK((io_read(1) >> 16 & 0xff) == IOAPIC_PINS - 1);
    CHECK(io_read(0x10 + 2 * 4) & 0x10000); /* masked after reset */
    io_write(0x10 + 2 * 4, 0x44);           /* pin 4: edge */
    ioapic_set_irq(io, 4, 1);
    ioapic_set_irq(io, 4, 1);
    CHECK(lapic_ack(apic[0]) == 0x44);
    write(0xb0, 0);
    CHECK(lapic_ack(apic[0]) == -1); /* one edge, one interrupt */

    io_write(0x10 + 2 * 9, 0x8049); /* pin 9: level */
    ioapic_set_irq(io, 9, 1);
    CHECK(io_read(0x10 + 2 * 9) & 0x4000); /* Remote IRR */
    CHECK(lapic_ack(apic[0]) == 0x49);
    write(0xb0, 0); /* still asserted: again */
    CHECK(lapic_ack(apic[0]) == 0x49);
    ioapic_set_irq(io, 9, 0);
    write(0xb0, 0);
    CHECK(lapic_ack(apic[0]) == -1);
    CHECK(!(io_read(0x10 + 2 * 9) & 0x4000));
    fake_machine_end(&m);
}

static unsigned told;
static void on_taken(void *opaque)
{
    (void)opaque;
    told++;
}

static void test_waiting(void)
{
    setup();
    lapics_on_taken(all, on_taken, NULL);
    io_write(0x10 + 2 * 2, 0x44);
    CHECK(!ioapic_waits(io, 2));
    ioapic_set_irq(io, 2, 1);
    CHECK(lapic_ack(apic[0]) == 0x44);
    CHECK(told == 0); /* nobody asked */
    write(0xb0, 0);
    ioapic_set_irq(io, 2, 0);
    ioapic_set_irq(io, 2, 1);
    CHECK(ioapic_waits(io, 2));
    CHECK(lapic_ack(apic[0]) == 0x44);
    CHECK(told == 1);
    CHECK(!ioapic_waits(io, 2));
    write(0xb0, 0);
    ioapic_set_irq(io, 2, 0);
    ioapic_set_irq(io, 2, 1);
    io_write(0x10 + 2 * 2, 0x10044); /* masked: it is nobody's any more */
    CHECK(!ioapic_waits(io, 2));
    CHECK(lapic_ack(apic[0]) == 0x44);
    CHECK(told == 1);
    fake_machine_end(&m);
}

int main(void)
{
    test_priorities();
    test_disabled();
    test_ipis();
    test_logical_destination();
    test_timer();
    test_x2apic();
    test_extint();
    test_ioapic();
    test_waiting();
    return check_result();
}
