/* The boot vCPU's registers, and what firmware sets on every processor. */
#include <string.h>

#include "boot/boot.h"
#include "boot/layout.h"
#include "check.h"
#include "cpu/machine.h"
#include "dev/lapic.h"

static unsigned state_changes;
static uint32_t apic_registers[0x400 / 4];

/* In place of the library's, so that only src/boot is under test. */
void cpu_state_changed(struct vcpu *cpu)
{
    (void)cpu;
    state_changes++;
}

void lapic_mmio_write(struct lapic *apic, uint32_t offset, unsigned size, uint32_t value)
{
    (void)apic;
    CHECK(size == 4 && offset < sizeof apic_registers);
    apic_registers[offset / 4] = value;
}

static struct machine machine;
static struct vcpu cpu;

static void flat(const struct segment *s, uint32_t attr, uint16_t selector)
{
    CHECK(s->selector == selector);
    CHECK(s->attr == attr);
    CHECK(s->base == 0 && s->limit == UINT32_MAX);
}

static void enter(enum boot_mode mode)
{
    const struct boot_entry entry = {
        .mode = mode, .rip = 0x123456, .rax = 1, .rbx = 2, .rsi = 3, .rsp = 4};
    memset(&cpu, 0xa5, sizeof cpu);
    state_changes = 0;
    boot_enter(&cpu, &entry);
    CHECK(state_changes == 1);
    CHECK(cpu.rip == 0x123456);
    CHECK(cpu.gpr[RAX] == 1 && cpu.gpr[RBX] == 2 && cpu.gpr[RSI] == 3 && cpu.gpr[RSP] == 4);
    CHECK(cpu.gpr[RBP] == 0 && cpu.gpr[RDI] == 0);
    CHECK(cpu_rflags(&cpu) == FLAG_ONE);
    for (unsigned i = 0; i < SREGS; i++)
        if (i != CS)
            flat(&cpu.seg[i], 0xc093, BOOT_DS);
    CHECK(cpu.gdtr.base == BOOT_GDT);
    CHECK(cpu.tr.attr == (SEG_P | SYS_TSS_BUSY) && cpu.tr.limit == 0x67);
    CHECK(cpu.ldtr.attr & SEG_UNUSABLE);
    CHECK(cpu.activity == ACTIVITY_RUNNING);
}

static void processor_setup(unsigned index)
{
    memset(&cpu, 0, sizeof cpu);
    cpu.machine = &machine;
    cpu.index = index;
    cpu.lapic = (struct lapic *)&machine; /* never looked into */
    machine.cpuid.phys_bits = 40;
    boot_setup_cpu(&cpu);
    CHECK(cpu.mtrr_def_type == 0xc06);
    CHECK(cpu.mtrr_phys[0] == 0xc0000000 && cpu.mtrr_phys[1] == 0xffc0000800);
    CHECK(cpu.mtrr_fixed[0] == 0x0606060606060606 && cpu.mtrr_fixed[2] == 0);
    CHECK(apic_registers[0xf0 / 4] == 0x1ff);
    CHECK(apic_registers[0x350 / 4] == (index ? 0x10700 : 0x700));
    CHECK(apic_registers[0x360 / 4] == 0x400);
}

int main(void)
{
    enter(BOOT_PROTECTED);
    flat(&cpu.seg[CS], 0xc09b, BOOT_CS);
    CHECK(cpu.cr0 == (CR0_PE | CR0_ET) && cpu.cr4 == 0 && cpu.efer == 0);
    CHECK(!cpu_long_mode(&cpu));

    enter(BOOT_LONG);
    flat(&cpu.seg[CS], 0xa09b, BOOT_CS);
    CHECK(cpu_64bit(&cpu));
    CHECK((cpu.cr0 & (CR0_PG | CR0_PE)) == (CR0_PG | CR0_PE));
    CHECK(cpu.cr3 == BOOT_PML4 && (cpu.cr4 & CR4_PAE));

    processor_setup(0);
    processor_setup(1);
    return check_result();
}
