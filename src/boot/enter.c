/* The processor's state when the kernel starts. */
#include "boot/boot.h"

#include <string.h>

#include "boot/bytes.h"
#include "boot/layout.h"
#include "boot/loader.h"
#include "cpu/machine.h"
#include "dev/lapic.h"

#define FLAT_CODE       (SEG_G | SEG_P | SEG_S | SEG_CODE | SEG_WRITE | SEG_ACCESSED)
#define FLAT_DATA       (SEG_G | SEG_DB | SEG_P | SEG_S | SEG_WRITE | SEG_ACCESSED)

#define GDT_LIMIT       (5 * 8 - 1)
#define TSS_LIMIT       0x67
#define BOOT_TR         0x20

/* xAPIC registers that firmware sets, and their values */
#define APIC_SVR        0x0f0
#define APIC_LVT_LINT0  0x350
#define APIC_LVT_LINT1  0x360
#define SVR_ENABLED     0x1ff
#define LVT_EXTINT      0x700
#define LVT_NMI         0x400
#define LVT_MASKED      0x10000

/* MTRRs: types, and the enable bits of IA32_MTRR_DEF_TYPE and of a mask */
#define MTRR_UC         0
#define MTRR_WB         6
#define MTRR_FIXED_ON   BIT64(10)
#define MTRR_ON         BIT64(11)
#define MTRR_MASK_VALID BIT64(11)
#define MTRR_FIXED_VGA  2 /* index of the fixed MTRR of a0000..bffff */

void boot_setup_cpu(struct vcpu *cpu)
{
    /* Write-back, but for the VGA window and everything from the PCI hole to 4 GiB. A kernel
     * compares all processors' and leaves PAT off where MTRRs are. */
    for (unsigned i = 0; i < ARRAY_SIZE(cpu->mtrr_fixed); i++)
        cpu->mtrr_fixed[i] = i == MTRR_FIXED_VGA ? 0 : 0x0101010101010101ull * MTRR_WB;
    unsigned bits = cpu->machine->cpuid.phys_bits ? cpu->machine->cpuid.phys_bits : 36;
    cpu->mtrr_phys[0] = LOW_RAM_MAX | MTRR_UC;
    cpu->mtrr_phys[1] = (BIT64(bits) - 1) & ~(HIGH_RAM_BASE - LOW_RAM_MAX - 1) & PAGE_MASK;
    cpu->mtrr_phys[1] |= MTRR_MASK_VALID;
    cpu->mtrr_def_type = MTRR_ON | MTRR_FIXED_ON | MTRR_WB;

    /* Virtual wire: the 8259 interrupts the boot processor through LINT0, NMI comes by LINT1. */
    if (!cpu->lapic)
        return;
    lapic_mmio_write(cpu->lapic, APIC_SVR, 4, SVR_ENABLED);
    lapic_mmio_write(cpu->lapic, APIC_LVT_LINT0, 4,
                     cpu->index == 0 ? LVT_EXTINT : LVT_EXTINT | LVT_MASKED);
    lapic_mmio_write(cpu->lapic, APIC_LVT_LINT1, 4, LVT_NMI);
}

static const struct segment flat_data = {BOOT_DS, FLAT_DATA, UINT32_MAX, 0};

void boot_enter(struct vcpu *cpu, const struct boot_entry *entry)
{
    bool in_long_mode = entry->mode == BOOT_LONG;
    memset(cpu->gpr, 0, sizeof cpu->gpr);
    cpu->gpr[RAX] = entry->rax;
    cpu->gpr[RBX] = entry->rbx;
    cpu->gpr[RSI] = entry->rsi;
    cpu->gpr[RSP] = entry->rsp;
    cpu->rip = entry->rip;
    cpu_set_rflags(cpu, FLAG_ONE);

    for (unsigned i = 0; i < SREGS; i++)
        cpu->seg[i] = flat_data;
    cpu->seg[CS] =
        (struct segment){BOOT_CS, FLAT_CODE | (in_long_mode ? SEG_L : SEG_DB), UINT32_MAX, 0};
    cpu->tr = (struct segment){BOOT_TR, SEG_P | SYS_TSS_BUSY, TSS_LIMIT, 0};
    cpu->ldtr = (struct segment){0, SEG_UNUSABLE, 0, 0};
    cpu->gdtr = (struct table_register){BOOT_GDT, GDT_LIMIT};
    cpu->idtr = (struct table_register){0, 0};

    cpu->cr0 = CR0_PE | CR0_ET | (in_long_mode ? CR0_PG | CR0_MP | CR0_NE | CR0_WP : 0);
    cpu->cr3 = in_long_mode ? BOOT_PML4 : 0;
    cpu->cr4 = in_long_mode ? CR4_PAE : 0;
    cpu->efer = in_long_mode ? EFER_LME | EFER_LMA : 0;
    cpu->cpl = 0;
    cpu->activity = ACTIVITY_RUNNING;
    cpu_state_changed(cpu);
}
