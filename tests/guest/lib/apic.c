#include "guest.h"

#define APIC_BASE   0xfee00000u
#define IOAPIC_BASE 0xfec00000u
#define X2APIC_MSRS 0x800

bool x2apic;

u32 apic_read(u32 reg)
{
    if (x2apic)
        return (u32)rdmsr(X2APIC_MSRS + (reg >> 4));
    return *(volatile u32 *)(word)(APIC_BASE + reg);
}

void apic_write(u32 reg, u32 value)
{
    if (x2apic)
        wrmsr(X2APIC_MSRS + (reg >> 4), value);
    else
        *(volatile u32 *)(word)(APIC_BASE + reg) = value;
}

void apic_icr(u32 destination, u32 low)
{
    if (x2apic) {
        wrmsr(X2APIC_MSRS + (APIC_ICR >> 4), low | (u64)destination << 32);
        return;
    }
    while (apic_read(APIC_ICR) & 0x1000)
        pause_cpu();
    apic_write(APIC_ICR2, destination << 24);
    apic_write(APIC_ICR, low);
}

void apic_enable(void)
{
    static const u16 entries[] = {APIC_TIMER, APIC_LINT0, APIC_LINT1, APIC_ERROR};
    apic_write(APIC_SVR, 0x1ff);
    for (unsigned i = 0; i < ARRAY_SIZE(entries); i++)
        apic_write(entries[i], 0x10000);
    apic_write(APIC_TPR, 0);
}

void ioapic_write(u8 reg, u32 value)
{
    *(volatile u32 *)(word)IOAPIC_BASE = reg;
    *(volatile u32 *)(word)(IOAPIC_BASE + 0x10) = value;
}

u32 ioapic_read(u8 reg)
{
    *(volatile u32 *)(word)IOAPIC_BASE = reg;
    return *(volatile u32 *)(word)(IOAPIC_BASE + 0x10);
}
