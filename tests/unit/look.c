/* How long a thread looks for what it waits for. */
#include "util/look.h"

#include "check.h"
#include "util/clock.h"
#include "util/processors.h"

#define LONG  UINT64_C(10000000)
#define SHORT UINT64_C(100000)

int main(void)
{
    struct look look = {0};
    _Atomic uint32_t word = 2;
    CHECK(host_processors() >= 1);
    look_for(&look, &word, 1); /* ends, although the bit never comes */

    /* Short waits, but longer than it looks: it looks for longer. The host may make one long. */
    for (int i = 0; i < 100 && look.ns < SHORT; i++)
        look_learn(&look, host_ns() - SHORT);
    CHECK(look.ns >= SHORT || host_processors() == 1);
    look_for(&look, &word, 2);
    look_for(&look, &word, 1);

    look_learn(&look, host_ns() - LONG);
    CHECK(look.ns == 0);
    return check_result();
}
