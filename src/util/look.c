#include "util/look.h"

#include <sched.h>
#include <stdatomic.h>

#include "util/clock.h"
#include "util/processors.h"
#include "util/util.h"

/* Waits shorter than the maximum are worth looking for their end. */
#define MIN_NS UINT64_C(10000)
#define MAX_NS UINT64_C(200000)
#define PAUSES 16

uint64_t look_for(const struct look *look, const _Atomic uint32_t *word, uint32_t bits)
{
    uint64_t start = host_ns();
    if (!look->ns)
        return start;
    do {
        for (int i = 0; i < PAUSES; i++) {
            if (atomic_load(word) & bits)
                return start;
            __builtin_ia32_pause();
        }
        sched_yield();
    } while (host_ns() - start < look->ns);
    return start;
}

void look_learn(struct look *look, uint64_t start)
{
    uint64_t took = host_ns() - start;
    if (took > MAX_NS || host_processors() == 1)
        look->ns = 0;
    else if (took > look->ns)
        look->ns = MIN(MAX(2 * look->ns, MIN_NS), MAX_NS);
}
