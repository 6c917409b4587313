#include <asm/prctl.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/thread_bases.h"

#define HWCAP2_FSGSBASE_BIT 2

bool host_keeps_bases(void)
{
    return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT;
}

void set_gs_base(const void *base)
{
    if (host_keeps_bases())
        __asm__ volatile("wrgsbase %0" : : "r"(base));
    else
        syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}
