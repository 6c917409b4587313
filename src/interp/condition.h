/* The sixteen conditions of Jcc, CMOVcc and SETcc, numbered as their opcodes are. */
#ifndef TRIVISOR_INTERP_CONDITION_H
#define TRIVISOR_INTERP_CONDITION_H

#include <Zydis/Zydis.h>
#include <stdbool.h>

#include "cpu/x86.h"

#define FOR_CONDITIONS(M)                                                                          \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)

static inline __attribute__((always_inline)) bool condition(uint32_t cc, unsigned n)
{
    bool less = (cc >> 7 ^ cc >> 11) & 1; /* SF != OF */
    bool result;
    switch (n >> 1) {
    case 0:
        result = cc & FLAG_OF;
        break;
    case 1:
        result = cc & FLAG_CF;
        break;
    case 2:
        result = cc & FLAG_ZF;
        break;
    case 3:
        result = cc & (FLAG_CF | FLAG_ZF);
        break;
    case 4:
        result = cc & FLAG_SF;
        break;
    case 5:
        result = cc & FLAG_PF;
        break;
    case 6:
        result = less;
        break;
    default:
        result = less || (cc & FLAG_ZF);
    }
    return result ^ (n & 1);
}

/* The condition's number, or -1 for other instructions. */
int condition_of_jump(ZydisMnemonic mnemonic);
int condition_of_cmov(ZydisMnemonic mnemonic);
int condition_of_set(ZydisMnemonic mnemonic);

#endif
