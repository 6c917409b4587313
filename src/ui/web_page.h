/* The page of the web display, web_page.html, as the build embeds it. */
#ifndef TRIVISOR_UI_WEB_PAGE_H
#define TRIVISOR_UI_WEB_PAGE_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t web_page[];
extern const size_t web_page_size;

#endif
