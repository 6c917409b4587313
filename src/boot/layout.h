/*
 * The first MiB as the loaders use it. Everything below EBDA_BASE is free for the guest once it has
 * taken what it was handed.
 *
 *   00000  interrupt vectors, BIOS data area at 400
 *   01000  GDT of the entry state
 *   02000  page tables of the 64-bit entry: PML4, PDPT, four page directories
 *   09000  top of the entry stack
 *   10000  boot_params / hvm_start_info / Multiboot information
 *   20000  command lines
 *   9fc00  extended BIOS data area
 *   e0000  ACPI tables
 *   f0000  what is found by scanning: RSDP, MP table, SMBIOS
 *   f8000  what the interrupt vectors point to
 *  100000  kernels
 */
#ifndef TRIVISOR_BOOT_LAYOUT_H
#define TRIVISOR_BOOT_LAYOUT_H

#define BDA_BASE         0x400u
#define BOOT_GDT         0x1000u
#define BOOT_PML4        0x2000u
#define BOOT_PDPT        0x3000u
#define BOOT_PD          0x4000u /* four of them */
#define BOOT_STACK       0x9000u
#define BOOT_INFO        0x10000u
#define BOOT_INFO_END    0x20000u
#define BOOT_STRINGS     0x20000u
#define BOOT_STRINGS_END 0x90000u
#define EBDA_BASE        0x9fc00u
#define VGA_BASE         0xa0000u
#define ACPI_BASE        0xe0000u
#define ACPI_END         0xf0000u
#define RSDP_BASE        0xf0000u
#define MPTABLE_BASE     0xf0100u
#define MPTABLE_END      0xf2000u
#define SMBIOS_BASE      0xf2000u
#define SMBIOS_END       0xf8000u
#define BIOS_STUBS       0xf8000u
#define KERNEL_BASE      0x100000u

/* Selectors in the entry GDT: Linux fixes these two numbers (__BOOT_CS, __BOOT_DS). */
#define BOOT_CS          0x10
#define BOOT_DS          0x18

/* Where the chipset's fixed registers are. */
#define IOAPIC_ADDRESS   0xfec00000u
#define HPET_ADDRESS     0xfed00000u
#define LAPIC_ADDRESS    0xfee00000u
/* Memory-mapped PCI devices: from here to the IO-APIC. */
#define PCI_WINDOW_BASE  0x80000000u /* or where RAM ends: UEFI firmware begins there */
#define PCI_WINDOW_END   0xfec00000u

#define RTC_CENTURY      0x32

#endif
