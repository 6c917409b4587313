/* Keys that the monitor presses. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "mgmt/monitor.h"
#include "ui/input.h"
#include "ui/keymap.h"
#include "util/error.h"
#include "util/util.h"
#include "vm/screen.h"
#include "vm/vm.h"

#define PRESSED_MAX 8
#define TAKEN_MS    10000 /* how long the guest may take to take them */
#define LOOK_MS     5

/* X11's keysyms. */
static const struct {
    const char *name;
    uint32_t keysym;
} keys[] = {
    {"shift", 0xffe1}, {"ctrl", 0xffe3},       {"alt", 0xffe9},      {"altgr", 0xfe03},
    {"super", 0xffeb}, {"menu", 0xff67},       {"enter", 0xff0d},    {"esc", 0xff1b},
    {"tab", 0xff09},   {"backspace", 0xff08},  {"delete", 0xffff},   {"insert", 0xff63},
    {"home", 0xff50},  {"end", 0xff57},        {"pageup", 0xff55},   {"pagedown", 0xff56},
    {"left", 0xff51},  {"up", 0xff52},         {"right", 0xff53},    {"down", 0xff54},
    {"space", ' '},    {"minus", '-'},         {"capslock", 0xffe5}, {"numlock", 0xff7f},
    {"print", 0xff61}, {"scrolllock", 0xff14}, {"pause", 0xff13},    {"f1", 0xffbe},
    {"f2", 0xffbf},    {"f3", 0xffc0},         {"f4", 0xffc1},       {"f5", 0xffc2},
    {"f6", 0xffc3},    {"f7", 0xffc4},         {"f8", 0xffc5},       {"f9", 0xffc6},
    {"f10", 0xffc7},   {"f11", 0xffc8},        {"f12", 0xffc9},
};

static uint32_t keysym_of(const char *name, size_t length)
{
    if (length == 1 && *name > ' ' && *name <= '~')
        return (uint32_t)*name;
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (strlen(keys[i].name) == length && strncasecmp(name, keys[i].name, length) == 0)
            return keys[i].keysym;
    return 0;
}

/* NULL with `err` filled. */
static const struct keymap *layout_of(const struct tv_vm *vm, struct tv_error *err)
{
    const char *name = vm->config.keyboard ? vm->config.keyboard : "us";
    const struct keymap *layout = keymap_find(name);
    if (!layout)
        tv_fail(err, "keyboard layout '%s': want one of %s", name, keymap_names());
    return layout;
}

/* A keyboard beside the viewers'. NULL with `err` filled. */
static struct input *open_keyboard(struct tv_vm *vm, const struct keymap *layout,
                                   struct tv_error *err)
{
    struct input *input = input_create(&screen_input_ops, vm, layout);
    if (!input)
        tv_fail(err, "out of memory");
    return input;
}

/* Let go what is held, and wait until the machine's keyboard has taken all of it. */
static int close_keyboard(struct input *input, struct tv_error *err)
{
    bool taken = false;
    input_leave(input, input);
    for (unsigned waited = 0; !(taken = input_flush(input)) && waited < TAKEN_MS; waited += LOOK_MS)
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
    input_destroy(input);
    return taken ? 0 : tv_fail(err, "the guest does not take keys; some are lost");
}

int monitor_press(struct tv_vm *vm, const char *text, struct tv_error *err)
{
    uint8_t codes[PRESSED_MAX];
    unsigned count = 0;
    uint32_t keysym = 0;
    const struct keymap *layout = layout_of(vm, err);
    if (!layout)
        return -1;
    for (const char *at = text; *at;) {
        size_t length = strcspn(at, "-");
        keysym = keysym_of(at, length);
        codes[count] = keymap_place(layout, keysym).code;
        if (!codes[count])
            return tv_fail(err,
                           "'%.*s' is no key; keys are characters and names: ctrl, f1, enter, "
                           "minus, ... (docs/monitor.md lists them)",
                           (int)length, at);
        if (++count == PRESSED_MAX)
            return tv_fail(err, "'%s': at most %d keys together", text, PRESSED_MAX - 1);
        at += length;
        at += *at == '-';
    }
    struct input *input = open_keyboard(vm, layout, err);
    if (!input)
        return -1;
    if (count == 1) /* a character, with the shift that it takes; else the keys themselves */
        input_keysym(input, input, keysym, true);
    for (unsigned i = 0; i < count && count > 1; i++)
        input_scancode(input, input, codes[i], true);
    return close_keyboard(input, err);
}

/* The next character of a text; 0 at its end and where it is not UTF-8. */
static uint32_t next_character(const char **text)
{
    const uint8_t *p = (const uint8_t *)*text;
    unsigned more = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : 4;
    uint32_t c = more == 0 ? *p : *p & (0x3fu >> more);
    for (unsigned i = 0; i < more; i++) {
        if (more == 4 || *++p >> 6 != 2)
            return 0;
        c = c << 6 | (*p & 0x3f);
    }
    *text = (const char *)p + 1;
    return c;
}

/* Latin-1 is itself, the rest has a prefix; keys that make control characters have names. */
static uint32_t keysym_of_character(uint32_t c)
{
    return c == '\n' ? 0xff0d : c == '\t' ? 0xff09 : c < 0x100 ? c : 0x1000000 | c;
}

int monitor_type(struct tv_vm *vm, const char *text, struct tv_error *err)
{
    const struct keymap *layout = layout_of(vm, err);
    struct input *input = layout ? open_keyboard(vm, layout, err) : NULL;
    if (!input)
        return -1;
    for (uint32_t c; *text && (c = next_character(&text));) {
        if (c == '\\' && *text && strchr("nt\\", *text)) {
            c = *text == 'n' ? '\n' : *text == 't' ? '\t' : '\\';
            text++;
        }
        input_keysym(input, input, keysym_of_character(c), true);
        input_keysym(input, input, keysym_of_character(c), false);
    }
    int result = close_keyboard(input, err);
    return *text ? tv_fail(err, "the text is not UTF-8") : result;
}
