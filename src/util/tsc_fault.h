#ifndef TRIVISOR_UTIL_TSC_FAULT_H
#define TRIVISOR_UTIL_TSC_FAULT_H

#include <stdbool.h>

/* Does RDTSC fault in a process that asked for it (PR_SET_TSC)? Tried once: there are hypervisors
 * under which the host's kernel believes so and the processor does not do it. */
bool host_faults_tsc(void);

#endif
