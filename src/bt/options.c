/* --bt-opt: which optimizations the translator leaves out. */
#include "bt/options.h"

#include <string.h>

#include "bt/bt.h"
#include "util/error.h"

static const struct {
    const char *name;
    uint32_t bit;
} options[] = {
    {"flags", BT_OFF_FLAGS},     {"links", BT_OFF_LINKS},   {"jumps", BT_OFF_JUMPS},
    {"blocks", BT_OFF_BLOCKS},   {"inline", BT_OFF_INLINE}, {"share", BT_OFF_SHARE},
    {"returns", BT_OFF_RETURNS}, {"direct", BT_OFF_DIRECT}, {"copy", BT_OFF_COPY},
};

static uint32_t find(const char *name, size_t length)
{
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
            return options[i].bit;
    return 0;
}

int bt_parse_options(const char *list, uint32_t *off, struct tv_error *err)
{
    *off = 0;
    if (strcmp(list, "all") == 0)
        return 0;
    if (strcmp(list, "none") == 0) {
        for (unsigned i = 0; i < ARRAY_SIZE(options); i++)
            *off |= options[i].bit;
        return 0;
    }
    for (const char *p = list;; p++) {
        size_t length = strcspn(p, ",");
        uint32_t bit = *p == '-' ? find(p + 1, length - 1) : 0;
        if (!bit)
            return tv_fail(err,
                           "--bt-opt %s: want all, none, or a list of -flags, -links, -jumps, "
                           "-blocks, -inline, -share, -returns, -direct, -copy",
                           list);
        *off |= bit;
        p += length;
        if (!*p)
            return 0;
    }
}
