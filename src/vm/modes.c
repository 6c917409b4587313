#include "vm/modes.h"

#include <stdio.h>

#include "util/error.h"

unsigned tv_modes_measure(struct tv_mode_report *reports, unsigned *chosen, char *why,
                          size_t why_size)
{
    reports[0] =
        (struct tv_mode_report){.name = "interp", .available = true, .detail = "interpreter"};
    reports[1] =
        (struct tv_mode_report){.name = "hw", .available = false, .detail = "not built yet"};
    *chosen = 0;
    snprintf(why, why_size, "it is the only one");
    return 2;
}

enum tv_mode modes_choose(enum tv_mode wanted, char *why, size_t size, struct tv_error *err)
{
    if (wanted == TV_MODE_HW) {
        tv_fail(err, "mode hw is not built yet");
        return TV_MODE_AUTO;
    }
    snprintf(why, size, "interp: the only mode");
    return TV_MODE_INTERP;
}
