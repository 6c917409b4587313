/*
 * What the firmware is to boot from: config.boot, a list of words separated by commas.
 *
 *   letters        kinds of drives in their order: a floppy, c disk, d CD-ROM, n network
 *   disk, disk2    all of a kind that are left, or one by its number; also cdrom, floppy, network
 *   order=WORD     the same as WORD
 *   once=WORD      WORD first, but only until the first reset
 *   menu, menu=W   a boot menu on a key: on or esc, f12; off
 *   wait=SECONDS   how long the firmware waits for that key; the menu is on with it
 */
#ifndef TRIVISOR_VM_BOOT_ORDER_H
#define TRIVISOR_VM_BOOT_ORDER_H

#include "vm/vm.h"

#define BOOT_KINDS "acdn"

struct boot_list {
    char kinds[sizeof BOOT_KINDS];
    uint8_t drives[DRIVES_MAX]; /* numbers in config.drives: first those that are named, then the
                                   others */
    unsigned count;
};

struct boot_choice {
    bool given;                    /* an order was asked for */
    struct boot_list first, later; /* at power-up; after a reset */
    bool menu;                     /* there is one, on ESC or on F12 */
    bool menu_on_f12;
    uint32_t wait_ms; /* 0: nothing was said */
};

/* Read config.boot, with the default where it says nothing. -1 with `err` filled. */
int boot_choice_parse(const struct tv_config *config, struct boot_choice *choice,
                      struct tv_error *err);

/* The number in config.drives of "disk", "cdrom2" and the like. -1 with `err` filled. */
int boot_drive_named(const struct tv_config *config, const char *name, struct tv_error *err);
/* The same the other way: "cdrom2". */
void boot_drive_name(const struct tv_config *config, size_t drive, char *name, size_t size);

/* The list as the lines of fw_cfg's "bootorder": `size` bytes at `text`, which is large enough for
 * DRIVES_MAX paths. Returns the length; with it goes a final zero. */
size_t boot_list_print(const struct tv_vm *vm, const struct boot_list *list, char *text,
                       size_t size);

#endif
