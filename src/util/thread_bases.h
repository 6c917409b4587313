/*
 * The FS and GS bases of host threads. Apart from the rest: <sys/auxv.h> and cpu/x86.h name
 * different things PF_W.
 */
#ifndef TRIVISOR_UTIL_THREAD_BASES_H
#define TRIVISOR_UTIL_THREAD_BASES_H

#include <stdbool.h>

/* Does the host's kernel keep what a thread writes with WRFSBASE and WRGSBASE? Where it does not,
 * the instructions may still be executed without a fault (a kernel under a hypervisor that enabled
 * them), and the next switch of threads undoes them. */
bool host_keeps_bases(void);
/* Set the calling thread's GS base. */
void set_gs_base(const void *base);

#endif
