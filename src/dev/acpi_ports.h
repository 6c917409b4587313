/*
 * Where the ACPI fixed hardware sits in the port I/O space. The PIIX4 model programs itself to
 * these values at power-up, since there may be no firmware that would, and the ACPI tables name
 * them.
 */
#ifndef TRIVISOR_DEV_ACPI_PORTS_H
#define TRIVISOR_DEV_ACPI_PORTS_H

/* PIIX4 function 3 puts its 64-byte block of registers here. */
#define ACPI_PM_BASE      0x600
#define ACPI_PM_SIZE      0x40

#define ACPI_PM1A_EVT     0x600 /* 4 bytes: PM1_STS and PM1_EN, 16 bits each */
#define ACPI_PM1A_EVT_LEN 4
#define ACPI_PM1A_CNT     0x604 /* 2 bytes */
#define ACPI_PM1A_CNT_LEN 2
#define ACPI_PM_TMR       0x608 /* 4 bytes, 32 bits wide (FADT flag TMR_VAL_EXT) */
#define ACPI_PM_TMR_LEN   4
#define ACPI_PM_TMR_HZ    3579545
#define ACPI_GPE0         0x620 /* 4 bytes: GPE0_STS and GPE0_EN, 16 bits each */
#define ACPI_GPE0_LEN     4

/* The SMBus host's 16 registers. */
#define ACPI_SMBUS_BASE   0x700
#define ACPI_SMBUS_SIZE   0x10

#define ACPI_SMI_CMD      0xb2
#define ACPI_ENABLE       0xf1 /* value written to SMI_CMD: sets SCI_EN */
#define ACPI_DISABLE      0xf0
#define ACPI_SCI_IRQ      9 /* level-triggered; MADT override: active high, level */

/* Sleep type of S5 (soft off) in PM1_CNT.SLP_TYP, for both bytes of the \_S5 package: that of the 82371AB, which BIOSes write
 * without a look at the tables. */
#define ACPI_S5_SLP_TYP   0

/* The FADT's reset register: a byte written to an I/O port. */
#define ACPI_RESET_PORT   0xcf9
#define ACPI_RESET_VALUE  6

/* PCI INTA..INTD (after the slot swizzle) are wired to these IO-APIC pins, and to the 8259 through
 * PIRQRC[A:D] of the PIIX4. Pin number for slot d, pin p (0 = INTA): PCI_GSI_BASE + (d + p) % 4. */
#define PCI_GSI_BASE      16

#endif
