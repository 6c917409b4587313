/* Two local APICs, as pages and as MSRs, and the IO-APIC. */
#include <stdlib.h>

#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "device.h"

enum { IOAPIC, PAGE_0, PAGE_1, MSR_0, MSR_1 };

static struct lapics *all;
static struct lapic *apic[2];
static struct ioapic *io;

static void on_intr(void *cpu, bool asserted)
{
}
static void on_nmi(void *cpu)
{
}
static void on_sipi(void *cpu, uint8_t vector)
{
}
/* As a vCPU does it. */
static void on_init(void *cpu)
{
    lapic_init_reset(apic[cpu == &apic[1]]);
}
static const struct lapic_cpu_ops ops = {on_intr, on_nmi, on_nmi, on_init, on_sipi};

#define PAGE(n)                                                                                    \
    static uint64_t read_page##n(uint64_t offset, unsigned size)                                   \
    {                                                                                              \
        return lapic_mmio_read(apic[n], (uint32_t)offset, size > 4 ? 4 : size);                    \
    }                                                                                              \
    static void write_page##n(uint64_t offset, unsigned size, uint64_t value)                      \
    {                                                                                              \
        lapic_mmio_write(apic[n], (uint32_t)offset, size > 4 ? 4 : size, (uint32_t)value);         \
    }                                                                                              \
    static uint64_t read_msr##n(uint64_t offset, unsigned size)                                    \
    {                                                                                              \
        uint64_t value = 0;                                                                        \
        lapic_msr_read(apic[n], offset == 0x100 ? 0x6e0 : 0x800 + (uint32_t)offset, &value);       \
        return value;                                                                              \
    }                                                                                              \
    static void write_msr##n(uint64_t offset, unsigned size, uint64_t value)                       \
    {                                                                                              \
        lapic_msr_write(apic[n], offset == 0x100 ? 0x6e0 : 0x800 + (uint32_t)offset, value);       \
    }
PAGE(0)
PAGE(1)

static void create(struct fuzz_machine *f)
{
    struct device_env *env = &f->machine.env;
    all = lapics_create(env);
    for (unsigned i = 0; i < 2; i++)
        apic[i] = lapic_create(all, env, i, i == 0, &ops, &apic[i]);
    io = ioapic_create(env, all);
    fuzz_memory(f, 0xfec00000, 0x100);
    fuzz_calls(f, 0x1000, read_page0, write_page0);
    fuzz_calls(f, 0x1000, read_page1, write_page1);
    fuzz_calls(f, 0x101, read_msr0, write_msr0);
    fuzz_calls(f, 0x101, read_msr1, write_msr1);
}

static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    struct lapic *a = apic[op->offset & 1];
    const struct apic_message message = {
        (uint32_t)(op->value >> 32), op->offset & 2, op->offset >> 4 & 7,
        (uint8_t)op->value,          op->offset & 4, op->offset & 8};
    switch (op->repeat % 8) {
    case 0: {
        int vector = lapic_ack(a);
        if (vector < -1 || vector > 255)
            abort();
        break;
    }
    case 1:
        lapic_set_base(a, op->value);
        break;
    case 2:
        lapic_set_cr8(a, op->value & 15);
        break;
    case 3:
        lapic_init_reset(a);
        break;
    case 4:
        pthread_mutex_lock(&f->machine.lock);
        lapics_deliver(all, &message);
        pthread_mutex_unlock(&f->machine.lock);
        break;
    case 5:
        pthread_mutex_lock(&f->machine.lock);
        ioapic_set_irq(io, (int)(op->value % 24), op->offset & 1);
        pthread_mutex_unlock(&f->machine.lock);
        break;
    case 6:
        lapic_set_tsc_offset(a, (int64_t)op->value);
        break;
    default:
        pthread_mutex_lock(&f->machine.lock);
        lapics_set_extint(all, op->value & 1);
        pthread_mutex_unlock(&f->machine.lock);
    }
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    static const uint32_t registers[] = {0x20,  0x30,  0x80,  0xd0,  0xe0,  0x280, 0x2f0, 0x320,
                                         0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0, 0x3f0};
    if (index > 3)
        return false;
    for (unsigned i = 0; i < 2; i++) {
        if (index == 1)
            seed_op(l, OP_SPECIAL, 0, 1, 1, i, 0xfee00c00 | (i ? 0 : 0x100));
        seed_write(l, (index == 1 ? MSR_0 : PAGE_0) + i, 4, index == 1 ? 0xf : 0xf0, 0x1ff);
    }
    for (unsigned pin = 0; pin < 24; pin++) {
        seed_write(l, IOAPIC, 4, 0, 0x10 + 2 * pin);
        seed_write(l, IOAPIC, 4, 0x10, (0x30 + pin) | (pin & 1 ? 0x8000 : 0) | (pin & 7) << 8);
        seed_write(l, IOAPIC, 4, 0, 0x11 + 2 * pin);
        seed_write(l, IOAPIC, 4, 0x10, (pin & 1) << 24);
        seed_op(l, OP_SPECIAL, 0, 1, 5, 1, pin);
        seed_op(l, OP_SPECIAL, 0, 1, 0, pin & 1, 0);
    }
    if (index == 1) {
        for (unsigned i = 0; i < 16; i++)
            seed_write(l, MSR_0, 4, registers[i] >> 4, 0x20030);
        seed_write(l, MSR_0, 4, 0x30, 0x100004031);
        seed_write(l, MSR_0, 4, 0x32, 0x40040);
        seed_write(l, MSR_0, 8, 0x100, 5000000);
    } else {
        for (unsigned i = 0; i < 16; i++)
            seed_write(l, PAGE_0, 4, registers[i], index == 2 ? 0x20030 : 0x10031);
        seed_write(l, PAGE_0, 4, 0x310, 0x1000000);
        for (unsigned mode = 0; mode < 8; mode++)
            seed_write(l, PAGE_0, 4, 0x300, 0x4040 | mode << 8 | (index & 1) << 18);
    }
    seed_op(l, OP_TIME, 0, 1, 0, 0, 10000000);
    seed_op(l, OP_SPECIAL, 0, 1, 0, 0, 0);
    seed_write(l, PAGE_0, 4, 0xb0, 0);
    return true;
}

const struct fuzz_device fuzz_device = {create, special, NULL, seed};
