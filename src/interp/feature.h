/* Which CPUID bit an instruction needs. */
#ifndef TRIVISOR_INTERP_FEATURE_H
#define TRIVISOR_INTERP_FEATURE_H

#include <Zydis/Zydis.h>

#include "cpu/cpuid.h"

/* Does the guest's CPUID offer the instruction? */
bool feature_offered(const struct cpuid_table *table, const ZydisDecodedInstruction *insn);

#endif
