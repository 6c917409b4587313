/* Keyboard layouts: which key of a PC keyboard a character is on, and with which shift. */
#ifndef TRIVISOR_UI_KEYMAP_H
#define TRIVISOR_UI_KEYMAP_H

#include <stdbool.h>
#include <stdint.h>

enum key_level { KEY_ANY, KEY_PLAIN, KEY_SHIFT, KEY_ALTGR };

/* A place on the keyboard. */
struct key_place {
    uint8_t code;         /* scan code of set 1, bit 7: with prefix 0xe0; 0: none */
    enum key_level level; /* KEY_ANY: a key that is no character */
    bool letter;          /* Caps Lock exchanges plain and shifted */
};

/* Codes that are no scan codes of one key; input.c makes them. */
#define KEY_PAUSE 0xc5
#define KEY_PRINT 0xb7

struct keymap;

/* By name ("us", "de", "fr", ...); NULL: there is none of that name. */
const struct keymap *keymap_find(const char *name);
/* All names, separated by ", ": for messages. */
const char *keymap_names(void);
/*
 * Where a keysym of X11 is in this layout. What the layout does not have is looked for in the
 * others, beginning with "us": its place there is the best guess. Code 0: nowhere.
 */
struct key_place keymap_place(const struct keymap *map, uint32_t keysym);

#endif
