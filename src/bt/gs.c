/* The GS base of the calling thread. */
#include <asm/prctl.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bt/gs.h"

#define HWCAP2_FSGSBASE_BIT 2

void bt_set_gs_base(const void *base)
{
    if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT)
        __asm__ volatile("wrgsbase %0" : : "r"(base));
    else
        syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}
