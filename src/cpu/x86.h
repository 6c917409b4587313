/* Architectural constants, named as the Intel SDM names them. */
#ifndef TRIVISOR_CPU_X86_H
#define TRIVISOR_CPU_X86_H

#include "util/util.h"

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum sreg { ES, CS, SS, DS, FS, GS, SREGS };

/* EFLAGS (SDM vol. 1, 3.4.3) */
#define FLAG_CF         BIT(0)
#define FLAG_ONE        BIT(1)
#define FLAG_PF         BIT(2)
#define FLAG_AF         BIT(4)
#define FLAG_ZF         BIT(6)
#define FLAG_SF         BIT(7)
#define FLAG_TF         BIT(8)
#define FLAG_IF         BIT(9)
#define FLAG_DF         BIT(10)
#define FLAG_OF         BIT(11)
#define FLAG_IOPL       (BIT(12) | BIT(13))
#define FLAG_NT         BIT(14)
#define FLAG_RF         BIT(16)
#define FLAG_VM         BIT(17)
#define FLAG_AC         BIT(18)
#define FLAG_VIF        BIT(19)
#define FLAG_VIP        BIT(20)
#define FLAG_ID         BIT(21)
#define FLAGS_ARITH     (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)
#define FLAG_IOPL_SHIFT 12

/* CR0 */
#define CR0_PE          BIT64(0)
#define CR0_MP          BIT64(1)
#define CR0_EM          BIT64(2)
#define CR0_TS          BIT64(3)
#define CR0_ET          BIT64(4)
#define CR0_NE          BIT64(5)
#define CR0_WP          BIT64(16)
#define CR0_AM          BIT64(18)
#define CR0_NW          BIT64(29)
#define CR0_CD          BIT64(30)
#define CR0_PG          BIT64(31)

/* CR4 */
#define CR4_VME         BIT64(0)
#define CR4_PVI         BIT64(1)
#define CR4_TSD         BIT64(2)
#define CR4_DE          BIT64(3)
#define CR4_PSE         BIT64(4)
#define CR4_PAE         BIT64(5)
#define CR4_MCE         BIT64(6)
#define CR4_PGE         BIT64(7)
#define CR4_PCE         BIT64(8)
#define CR4_OSFXSR      BIT64(9)
#define CR4_OSXMMEXCPT  BIT64(10)
#define CR4_UMIP        BIT64(11)
#define CR4_LA57        BIT64(12)
#define CR4_FSGSBASE    BIT64(16)
#define CR4_PCIDE       BIT64(17)
#define CR4_OSXSAVE     BIT64(18)
#define CR4_SMEP        BIT64(20)
#define CR4_SMAP        BIT64(21)
#define CR4_PKE         BIT64(22)

/* IA32_EFER */
#define EFER_SCE        BIT64(0)
#define EFER_LME        BIT64(8)
#define EFER_LMA        BIT64(10)
#define EFER_NXE        BIT64(11)
#define EFER_FFXSR      BIT64(14)

/* Exception vectors (SDM vol. 3, 6.15) */
enum vector {
    VEC_DE,
    VEC_DB,
    VEC_NMI,
    VEC_BP,
    VEC_OF,
    VEC_BR,
    VEC_UD,
    VEC_NM,
    VEC_DF,
    VEC_CSO,
    VEC_TS,
    VEC_NP,
    VEC_SS,
    VEC_GP,
    VEC_PF,
    VEC_MF = 16,
    VEC_AC,
    VEC_MC,
    VEC_XM,
};

/* Page-fault error code */
#define PF_P          BIT(0)
#define PF_W          BIT(1)
#define PF_U          BIT(2)
#define PF_RSVD       BIT(3)
#define PF_I          BIT(4)
#define PF_PK         BIT(5)

/* Page-table entries */
#define PTE_P         BIT64(0)
#define PTE_RW        BIT64(1)
#define PTE_US        BIT64(2)
#define PTE_PWT       BIT64(3)
#define PTE_PCD       BIT64(4)
#define PTE_A         BIT64(5)
#define PTE_D         BIT64(6)
#define PTE_PS        BIT64(7)
#define PTE_G         BIT64(8)
#define PTE_NX        BIT64(63)

/*
 * Segment attributes: bits 8..23 of a descriptor's second dword shifted down, with the limit's
 * nibble masked out, as VT-x has them; SEG_UNUSABLE stands for a null selector.
 */
#define SEG_TYPE      0x0fu
#define SEG_ACCESSED  BIT(0)
#define SEG_WRITE     BIT(1) /* data: writable; code: readable */
#define SEG_DOWN      BIT(2) /* data: expand-down; code: conforming */
#define SEG_CODE      BIT(3)
#define SEG_S         BIT(4) /* code or data, not system */
#define SEG_DPL_SHIFT 5
#define SEG_P         BIT(7)
#define SEG_AVL       BIT(12)
#define SEG_L         BIT(13)
#define SEG_DB        BIT(14)
#define SEG_G         BIT(15)
#define SEG_UNUSABLE  BIT(16)

/* System descriptor types */
enum {
    SYS_TSS16 = 1,
    SYS_LDT = 2,
    SYS_TSS16_BUSY = 3,
    SYS_CALL16 = 4,
    SYS_TASK = 5,
    SYS_INT16 = 6,
    SYS_TRAP16 = 7,
    SYS_TSS = 9,
    SYS_TSS_BUSY = 11,
    SYS_CALL = 12,
    SYS_INT = 14,
    SYS_TRAP = 15
};

/* Model-specific registers */
#define MSR_TSC               0x10
#define MSR_APICBASE          0x1b
#define MSR_FEATURE_CONTROL   0x3a
#define MSR_TSC_ADJUST        0x3b
#define MSR_SPEC_CTRL         0x48
#define MSR_PRED_CMD          0x49
#define MSR_BIOS_SIGN_ID      0x8b
#define MSR_MTRRCAP           0xfe
#define MSR_ARCH_CAPABILITIES 0x10a
#define MSR_SYSENTER_CS       0x174
#define MSR_SYSENTER_ESP      0x175
#define MSR_SYSENTER_EIP      0x176
#define MSR_MCG_CAP           0x179
#define MSR_MCG_STATUS        0x17a
#define MSR_MISC_ENABLE       0x1a0
#define MSR_PAT               0x277
#define MSR_MTRR_DEF_TYPE     0x2ff
#define MSR_TSC_DEADLINE      0x6e0
#define MSR_X2APIC_FIRST      0x800
#define MSR_X2APIC_LAST       0x8ff
#define MSR_XSS               0xda0
#define MSR_EFER              0xc0000080
#define MSR_STAR              0xc0000081
#define MSR_LSTAR             0xc0000082
#define MSR_CSTAR             0xc0000083
#define MSR_SFMASK            0xc0000084
#define MSR_FS_BASE           0xc0000100
#define MSR_GS_BASE           0xc0000101
#define MSR_KERNEL_GS_BASE    0xc0000102
#define MSR_TSC_AUX           0xc0000103

/* IA32_APIC_BASE */
#define APICBASE_BSP          BIT64(8)
#define APICBASE_X2APIC       BIT64(10)
#define APICBASE_ENABLE       BIT64(11)

/* XCR0 and XSAVE components */
enum {
    XSTATE_X87,
    XSTATE_SSE,
    XSTATE_AVX,
    XSTATE_BNDREGS,
    XSTATE_BNDCSR,
    XSTATE_OPMASK,
    XSTATE_ZMM_HI256,
    XSTATE_HI16_ZMM,
    XSTATE_PT,
    XSTATE_PKRU,
    XSTATE_COMPONENTS
};

#endif
