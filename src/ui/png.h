/* PNG files (ISO/IEC 15948), as far as a screenshot needs them. */
#ifndef TRIVISOR_UI_PNG_H
#define TRIVISOR_UI_PNG_H

#include <stdint.h>
#include <trivisor/trivisor.h>

/*
 * Write width * height pixels of 0xRRGGBB as a true-colour image. The file appears whole or not at
 * all: it is written beside its place and renamed. Returns 0, or -1 with `err` filled.
 */
int png_write(const char *path, const uint32_t *pixels, unsigned width, unsigned height,
              struct tv_error *err);

#endif
