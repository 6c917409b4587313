#include "util/processors.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "util/util.h"

static unsigned count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find_out(void)
{
    cpu_set_t set;
    long online = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                              : sysconf(_SC_NPROCESSORS_ONLN);
    count = (unsigned)MAX(online, 1);
}

unsigned host_processors(void)
{
    pthread_once(&once, find_out);
    return count;
}
