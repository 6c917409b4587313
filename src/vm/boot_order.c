#include "vm/boot_order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"
#include "util/util.h"

#define WORD_MAX     64
#define MENU_WAIT_MS 5000
#define WAIT_MAX     600 /* seconds */

static const struct {
    const char *name;
    char letter;
    bool drives;
    enum tv_drive_media media;
} kinds[] = {{"floppy", 'a', true, TV_DRIVE_FLOPPY},
             {"disk", 'c', true, TV_DRIVE_DISK},
             {"cdrom", 'd', true, TV_DRIVE_CDROM},
             {"network", 'n', false, 0}};

static void add_kind_letter(struct boot_list *list, char letter)
{
    size_t length = strlen(list->kinds);
    if (!strchr(list->kinds, letter))
        list->kinds[length] = letter;
}

static void add_drive(struct boot_list *list, size_t drive)
{
    for (unsigned i = 0; i < list->count; i++)
        if (list->drives[i] == drive)
            return;
    if (list->count < DRIVES_MAX)
        list->drives[list->count++] = (uint8_t)drive;
}

/* All drives of a kind, or the one with that number. How many the kind has. */
static unsigned add_kind(const struct tv_config *c, struct boot_list *list, size_t kind,
                         unsigned number)
{
    unsigned count = 0;
    add_kind_letter(list, kinds[kind].letter);
    for (size_t i = 0; i < c->drive_count && kinds[kind].drives; i++)
        if (c->drives[i].media == kinds[kind].media && (++count == number || !number))
            add_drive(list, i);
    return count;
}

/* "disk2". 1: done; 0: no name of a device; -1: there is no such drive. */
static int add_name(const struct tv_config *c, struct boot_list *list, const char *word,
                    struct tv_error *err)
{
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        size_t length = strlen(kinds[k].name);
        if (strncmp(word, kinds[k].name, length) != 0)
            continue;
        const char *digits = word + length;
        if (strlen(digits) > 2 || digits[strspn(digits, "0123456789")] || *digits == '0')
            return 0;
        unsigned number = (unsigned)strtoul(digits, NULL, 10);
        if (number && !kinds[k].drives)
            return 0;
        unsigned count = add_kind(c, list, k, number);
        if (number > count)
            return tv_fail(err, "there is no %s; the machine has %u of the kind", word, count);
        return 1;
    }
    return 0;
}

static int add_word(const struct tv_config *c, struct boot_list *list, const char *word,
                    struct tv_error *err)
{
    int result = add_name(c, list, word, err);
    if (result)
        return result < 0 ? -1 : 0;
    if (!*word || word[strspn(word, BOOT_KINDS)])
        return tv_fail(err,
                       "boot order '%s': want letters of a (floppy), c (disk), d (CD-ROM), n "
                       "(network), or disk, cdrom, floppy (with a number for one of several), or "
                       "network; or once=, menu=, wait=",
                       word);
    for (const char *l = word; *l; l++)
        add_kind(c, list, (size_t)(strchr(BOOT_KINDS, *l) - BOOT_KINDS), 0);
    return 0;
}

static int set_menu(struct boot_choice *choice, const char *value, struct tv_error *err)
{
    static const struct {
        const char *name;
        bool on;
        bool f12;
    } values[] = {
        {"on", true, false}, {"esc", true, false}, {"f12", true, true}, {"off", false, false}};
    for (size_t i = 0; i < ARRAY_SIZE(values); i++)
        if (strcmp(value, values[i].name) == 0) {
            choice->menu = values[i].on;
            choice->menu_on_f12 = values[i].f12;
            return 0;
        }
    return tv_fail(err, "boot menu '%s': want on, off, esc or f12", value);
}

static int set_wait(struct boot_choice *choice, const char *value, struct tv_error *err)
{
    char *end;
    double seconds = strtod(value, &end);
    if (end == value || *end || !(seconds >= 0 && seconds <= WAIT_MAX))
        return tv_fail(err, "boot wait '%s': want seconds, from 0 to %d", value, WAIT_MAX);
    choice->wait_ms = (uint32_t)(seconds * 1000);
    choice->menu |= choice->wait_ms != 0;
    return 0;
}

/* Without an order: the hard disk, unless only another medium is there. */
static const char *default_order(const struct tv_config *c)
{
    bool disk = false, cdrom = false;
    for (size_t i = 0; i < c->drive_count; i++) {
        disk |= c->drives[i].media == TV_DRIVE_DISK;
        cdrom |= c->drives[i].media == TV_DRIVE_CDROM;
    }
    return disk ? "cda" : cdrom ? "dac" : "adc";
}

static const char *value_of(const char *word, const char *key)
{
    size_t length = strlen(key);
    return strncmp(word, key, length) == 0 && word[length] == '=' ? word + length + 1 : NULL;
}

int boot_drive_named(const struct tv_config *c, const char *name, struct tv_error *err)
{
    struct boot_list list = {.count = 0};
    int result = add_name(c, &list, name, err);
    if (result < 0)
        return -1;
    if (!list.count)
        return tv_fail(err,
                       result ? "the machine has no %s drive"
                              : "'%s': want disk, cdrom or floppy, with a number for one of "
                                "several",
                       name);
    return list.drives[0];
}

void boot_drive_name(const struct tv_config *c, size_t drive, char *name, size_t size)
{
    unsigned number = 0, kind = 0;
    for (size_t i = 0; i <= drive; i++)
        number += c->drives[i].media == c->drives[drive].media;
    while (!kinds[kind].drives || kinds[kind].media != c->drives[drive].media)
        kind++;
    snprintf(name, size, number > 1 ? "%s%u" : "%s", kinds[kind].name, number);
}

int boot_choice_parse(const struct tv_config *c, struct boot_choice *choice, struct tv_error *err)
{
    struct boot_list order = {.count = 0}, once = {.count = 0};
    *choice = (struct boot_choice){.given = false};
    for (const char *at = c->boot; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char word[WORD_MAX];
        const char *value;
        snprintf(word, sizeof word, "%.*s", (int)MIN(strcspn(at, ","), sizeof word), at);
        int result;
        if (strcmp(word, "menu") == 0)
            result = set_menu(choice, "on", err);
        else if ((value = value_of(word, "menu")))
            result = set_menu(choice, value, err);
        else if ((value = value_of(word, "wait")))
            result = set_wait(choice, value, err);
        else if ((value = value_of(word, "once")))
            result = add_word(c, &once, value, err);
        else
            result = add_word(c, &order, (value = value_of(word, "order")) ? value : word, err);
        if (result < 0)
            return -1;
    }
    if (choice->menu && !choice->wait_ms)
        choice->wait_ms = MENU_WAIT_MS;
    choice->given = *order.kinds || *once.kinds;
    if (!*order.kinds && add_word(c, &order, default_order(c), err) < 0)
        return -1;
    for (size_t i = 0; i < c->drive_count; i++)
        add_drive(&order, i);
    choice->later = choice->first = order;
    if (*once.kinds) {
        choice->first = once;
        for (const char *k = order.kinds; *k; k++)
            add_kind_letter(&choice->first, *k);
        for (unsigned i = 0; i < order.count; i++)
            add_drive(&choice->first, order.drives[i]);
    }
    return 0;
}

size_t boot_list_print(const struct tv_vm *vm, const struct boot_list *list, char *text,
                       size_t size)
{
    size_t length = 0;
    for (unsigned i = 0; i < list->count; i++) {
        const char *path = vm->drive_paths[list->drives[i]];
        size_t n = strlen(path);
        if (!n || length + n + 1 > size)
            continue;
        memcpy(text + length, path, n);
        text[length + n] = '\n';
        length += n + 1;
    }
    /* A newline between lines, a zero at the end. */
    text[length ? length - 1 : 0] = 0;
    return length;
}
