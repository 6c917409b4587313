/*
 * A BIOS keeps 15 keys for the program that asks it for them (INT 16h) and drops what does not fit.
 * It takes them from the keyboard at once, so the keyboard never looks busy: who pastes a line into
 * a boot loader would lose most of it. So keys wait here until that buffer, which is in the BIOS
 * data area, has room. Where the buffer does not move any more, an operating system has taken over,
 * and nothing waits.
 */
#ifndef TRIVISOR_VM_BIOS_KEYS_H
#define TRIVISOR_VM_BIOS_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#define BIOS_DATA_AREA 0x400
#define BIOS_DATA_SIZE 0x100

/* Zeroed at first. */
struct bios_keys {
    uint16_t head, tail; /* as they were last seen */
    uint64_t since;      /* when they moved, in ms of the caller's clock */
    bool probed;         /* a key was let through since then */
    bool ignored;        /* nobody uses the buffer */
};

/* May these scan codes of set 1 go to the keyboard now, where `pending` bytes wait already? `bda`:
 * the BIOS data area as it is. */
bool bios_keys_admit(struct bios_keys *keys, const uint8_t bda[static BIOS_DATA_SIZE],
                     const uint8_t *scancodes, unsigned count, unsigned pending, uint64_t now_ms);

#endif
