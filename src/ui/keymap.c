#include "ui/keymap.h"

#include <stddef.h>
#include <string.h>
#include <uchar.h>

#include "util/util.h"

/* Keys side by side, from one scan code on. A space is a key without a character at that level; the
 * space bar itself is a key like Return. */
struct key_row {
    uint8_t first;
    const char16_t *plain, *shift, *altgr;
};

#define ROWS 5

struct keymap {
    const char *name;
    struct key_row rows[ROWS];
};

/* Rows: digits, upper, home with what is left of "1", lower with what is left of Return, 102nd. */
static const struct keymap maps[] = {
    {"us",
     {{0x02, u"1234567890-=", u"!@#$%^&*()_+", u""},
      {0x10, u"qwertyuiop[]", u"QWERTYUIOP{}", u""},
      {0x1e, u"asdfghjkl;'`", u"ASDFGHJKL:\"~", u""},
      {0x2b, u"\\zxcvbnm,./", u"|ZXCVBNM<>?", u""},
      {0x56, u"\\", u"|", u""}}},
    {"uk",
     {{0x02, u"1234567890-=", u"!\"£$%^&*()_+", u"   €"},
      {0x10, u"qwertyuiop[]", u"QWERTYUIOP{}", u""},
      {0x1e, u"asdfghjkl;'`", u"ASDFGHJKL:@¬", u"           ¦"},
      {0x2b, u"#zxcvbnm,./", u"~ZXCVBNM<>?", u""},
      {0x56, u"\\", u"|", u""}}},
    {"de",
     {{0x02, u"1234567890ß´", u"!\"§$%&/()=?`", u" ²³   {[]}\\"},
      {0x10, u"qwertzuiopü+", u"QWERTZUIOPÜ*", u"@ €        ~"},
      {0x1e, u"asdfghjklöä^", u"ASDFGHJKLÖÄ°", u""},
      {0x2b, u"#yxcvbnm,.-", u"'YXCVBNM;:_", u"       µ"},
      {0x56, u"<", u">", u"|"}}},
    {"fr",
     {{0x02, u"&é\"'(-è_çà)=", u"1234567890°+", u" ~#{[|`\\^@]}"},
      {0x10, u"azertyuiop^$", u"AZERTYUIOP¨£", u"  €        ¤"},
      {0x1e, u"qsdfghjklmù²", u"QSDFGHJKLM%", u""},
      {0x2b, u"*wxcvbn,;:!", u"µWXCVBN?./§", u""},
      {0x56, u"<", u">", u""}}},
    {"es",
     {{0x02, u"1234567890'¡", u"!\"·$%&/()=?¿", u"|@#~€¬"},
      {0x10, u"qwertyuiop`+", u"QWERTYUIOP^*", u"  €       []"},
      {0x1e, u"asdfghjklñ´º", u"ASDFGHJKLÑ¨ª", u"          {\\"},
      {0x2b, u"çzxcvbnm,.-", u"ÇZXCVBNM;:_", u"}"},
      {0x56, u"<", u">", u""}}},
    {"it",
     {{0x02, u"1234567890'ì", u"!\"£$%&/()=?^", u""},
      {0x10, u"qwertyuiopè+", u"QWERTYUIOPé*", u"  €       []"},
      {0x1e, u"asdfghjklòà\\", u"ASDFGHJKLç°|", u"         @#"},
      {0x2b, u"ùzxcvbnm,.-", u"§ZXCVBNM;:_", u""},
      {0x56, u"<", u">", u""}}},
};

/* Keys that are no characters: keysym, scan code. */
static const struct {
    uint16_t keysym;
    uint8_t code;
} keys[] = {
    {0x0020, 0x39},      {0xff08, 0x0e},      /* space, BackSpace */
    {0xff09, 0x0f},      {0xfe20, 0x0f},      /* Tab, with Shift */
    {0xff0d, 0x1c},      {0xff1b, 0x01},      /* Return, Escape */
    {0xff13, KEY_PAUSE}, {0xff6b, KEY_PAUSE}, /* Pause, Break */
    {0xff14, 0x46},      {0xff15, KEY_PRINT}, /* Scroll Lock, SysRq */
    {0xff61, KEY_PRINT}, {0xffff, 0xd3},      /* Print, Delete */
    {0xff50, 0xc7},      {0xff51, 0xcb},      /* Home, Left */
    {0xff52, 0xc8},      {0xff53, 0xcd},      /* Up, Right */
    {0xff54, 0xd0},      {0xff55, 0xc9},      /* Down, Page Up */
    {0xff56, 0xd1},      {0xff57, 0xcf},      /* Page Down, End */
    {0xff63, 0xd2},      {0xff67, 0xdd},      /* Insert, Menu */
    {0xff7f, 0x45},      {0xff7e, 0xb8},      /* Num Lock, Mode switch */
    {0xff8d, 0x9c},      {0xff95, 0x47},      /* keypad: Enter, Home */
    {0xff96, 0x4b},      {0xff97, 0x48},      /* Left, Up */
    {0xff98, 0x4d},      {0xff99, 0x50},      /* Right, Down */
    {0xff9a, 0x49},      {0xff9b, 0x51},      /* Page Up, Page Down */
    {0xff9c, 0x4f},      {0xff9d, 0x4c},      /* End, Begin */
    {0xff9e, 0x52},      {0xff9f, 0x53},      /* Insert, Delete */
    {0xffaa, 0x37},      {0xffab, 0x4e},      /* * + */
    {0xffac, 0x53},      {0xffad, 0x4a},      /* separator - */
    {0xffae, 0x53},      {0xffaf, 0xb5},      /* point / */
    {0xffb0, 0x52},      {0xffb1, 0x4f},      /* 0 1 */
    {0xffb2, 0x50},      {0xffb3, 0x51},      /* 2 3 */
    {0xffb4, 0x4b},      {0xffb5, 0x4c},      /* 4 5 */
    {0xffb6, 0x4d},      {0xffb7, 0x47},      /* 6 7 */
    {0xffb8, 0x48},      {0xffb9, 0x49},      /* 8 9 */
    {0xffbe, 0x3b},      {0xffbf, 0x3c},      /* F1 .. F12 */
    {0xffc0, 0x3d},      {0xffc1, 0x3e},      {0xffc2, 0x3f}, {0xffc3, 0x40},
    {0xffc4, 0x41},      {0xffc5, 0x42},      {0xffc6, 0x43}, {0xffc7, 0x44},
    {0xffc8, 0x57},      {0xffc9, 0x58},      {0xffe1, 0x2a}, {0xffe2, 0x36}, /* Shift */
    {0xffe3, 0x1d},      {0xffe4, 0x9d},                                      /* Control */
    {0xffe5, 0x3a},      {0xffe6, 0x3a},                                      /* Caps Lock */
    {0xffe7, 0xdb},      {0xffe8, 0xdc},                                      /* Meta */
    {0xffe9, 0x38},      {0xffea, 0xb8},                                      /* Alt */
    {0xffeb, 0xdb},      {0xffec, 0xdc},                                      /* Super */
    {0xfe03, 0xb8},                                                           /* AltGr */
};

/* Dead keys are on the keys of the accents alone. */
static const struct {
    uint16_t keysym, character;
} dead[] = {
    {0xfe50, u'`'}, {0xfe51, u'´'}, {0xfe52, u'^'}, {0xfe53, u'~'}, {0xfe57, u'¨'}, {0xfe58, u'°'},
};

const struct keymap *keymap_find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_SIZE(maps); i++)
        if (strcmp(maps[i].name, name) == 0)
            return &maps[i];
    return NULL;
}

const char *keymap_names(void)
{
    return "us, uk, de, fr, es, it";
}

/* The character that a keysym stands for; 0: none. Latin-1 keysyms are their own characters. */
static char16_t character_of(uint32_t keysym)
{
    for (unsigned i = 0; i < ARRAY_SIZE(dead); i++)
        if (dead[i].keysym == keysym)
            return dead[i].character;
    if ((keysym & 0xff000000) == 0x01000000)
        keysym &= 0x00ffffff;
    if ((keysym > 0x20 && keysym < 0x100) || keysym == 0x20ac)
        return (char16_t)keysym;
    return 0;
}

/* Index in a row's string; -1: not there. */
static int index_of(const char16_t *row, char16_t character)
{
    for (int i = 0; row[i]; i++)
        if (row[i] == character)
            return i;
    return -1;
}

static bool is_letter(const struct key_row *row, int at)
{
    char16_t plain = row->plain[at], shift = row->shift[at];
    return (plain >= u'a' && plain <= u'z') || (plain >= 0xe0 && shift == plain - 0x20);
}

static struct key_place find_character(const struct keymap *map, char16_t character)
{
    for (enum key_level level = KEY_PLAIN; level <= KEY_ALTGR; level++) {
        for (unsigned i = 0; i < ROWS; i++) {
            const struct key_row *row = &map->rows[i];
            int at = index_of(level == KEY_PLAIN   ? row->plain
                              : level == KEY_SHIFT ? row->shift
                                                   : row->altgr,
                              character);
            if (at >= 0)
                return (struct key_place){(uint8_t)(row->first + at), level, is_letter(row, at)};
        }
    }
    return (struct key_place){0};
}

struct key_place keymap_place(const struct keymap *map, uint32_t keysym)
{
    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
        if (keys[i].keysym == keysym)
            return (struct key_place){keys[i].code, KEY_ANY, false};
    char16_t character = character_of(keysym);
    struct key_place place = {0};
    if (!character)
        return place;
    place = find_character(map, character);
    for (unsigned i = 0; !place.code && i < ARRAY_SIZE(maps); i++)
        place = find_character(&maps[i], character);
    return place;
}
