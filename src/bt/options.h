/* What the user can ask of the translator. */
#ifndef TRIVISOR_BT_OPTIONS_H
#define TRIVISOR_BT_OPTIONS_H

#include <stdint.h>
#include <trivisor/trivisor.h>

#define BT_TCACHE_MIN     (UINT64_C(256) << 10)
#define BT_TCACHE_MAX     (UINT64_C(1) << 30)
#define BT_TCACHE_DEFAULT (UINT64_C(64) << 20)

/* "-flags,-links", "none" or "all" to the set of enum bt_option that is off. -1 with `err`. */
int bt_parse_options(const char *list, uint32_t *off, struct tv_error *err);

#endif
