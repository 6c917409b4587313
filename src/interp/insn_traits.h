/* Properties of vector instructions that the manual's tables have and Zydis's do not: lists. */
#ifndef TRIVISOR_INTERP_INSN_TRAITS_H
#define TRIVISOR_INTERP_INSN_TRAITS_H

#include <Zydis/Zydis.h>
#include <stdbool.h>

/* Does it look at MXCSR? */
bool insn_uses_mxcsr(const ZydisDecodedInstruction *insn);
/* 16-byte operands of legacy instructions must be aligned, but for these. */
bool insn_may_be_misaligned(ZydisMnemonic mnemonic);
/* Operands of VEX and EVEX instructions need not be aligned, but for these. */
bool insn_must_be_aligned(ZydisMnemonic mnemonic);
/* A masked element's fault counts all the same. */
bool insn_no_fault_suppression(ZydisExceptionClass exception_class);
/* The mask has a bit for each byte, but these need all eight around it. */
bool insn_works_on_groups(ZydisMnemonic mnemonic);

#endif
