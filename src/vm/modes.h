/* Which engines this host has, how fast each is, and which one to take. */
#ifndef TRIVISOR_VM_MODES_H
#define TRIVISOR_VM_MODES_H

#include <stddef.h>
#include <trivisor/trivisor.h>

#include "cpu/engine.h"

/*
 * Choose the mode for `wanted` (auto: the fastest measured). `why` gets one line, "interp: ...".
 * Returns the mode, or TV_MODE_AUTO with `err` filled where the wanted one cannot be used.
 */
enum tv_mode modes_choose(enum tv_mode wanted, char *why, size_t size, struct tv_error *err);

/* The engine of a mode other than TV_MODE_AUTO. */
const struct engine *modes_engine(enum tv_mode mode);

#endif
