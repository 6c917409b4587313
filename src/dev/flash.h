/*
 * A parallel NOR flash with Intel's command set (CFI command set 1), one byte wide, for the
 * variables of UEFI firmware. Every access is one of registers: the firmware copies the variables
 * to RAM once and seldom comes back.
 */
#ifndef TRIVISOR_DEV_FLASH_H
#define TRIVISOR_DEV_FLASH_H

#include "dev/device.h"

#define FLASH_BLOCK 4096u /* what an erase command erases */

struct flash;

/* Called when a series of changes is complete: bytes [offset, offset + size) of the array changed.
 * Device lock held. */
typedef void flash_changed(void *opaque, const uint8_t *array, uint64_t offset, uint64_t size);

/*
 * A flash of `size` bytes (a multiple of FLASH_BLOCK) at guest-physical `base`. Its array has
 * `contents` at first; it survives resets. `changed` may be NULL. NULL: out of memory, or the place
 * is taken.
 */
struct flash *flash_create(struct device_env *env, uint64_t base, const void *contents,
                           uint64_t size, flash_changed *changed, void *opaque);

#endif
