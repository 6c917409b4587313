#include "vm/bios_keys.h"

/* In the BIOS data area; addresses count from its start. */
enum { HEAD = 0x1a, TAIL = 0x1c, START = 0x80, END = 0x82 };

#define SPARE       6    /* keys: what is on its way when the buffer is looked at */
#define PENDING_MAX 8    /* bytes */
#define PATIENCE_MS 2000 /* until a key is let through to see whether anybody takes it */
#define GIVE_UP_MS  30000

static uint16_t word(const uint8_t *bda, unsigned at)
{
    return (uint16_t)(bda[at] | bda[at + 1] << 8);
}

/* Releases and shifts take no room in the buffer. */
static bool makes_no_key(const uint8_t *scancodes, unsigned count)
{
    uint8_t last = scancodes[count - 1];
    return (last & 0x80) || last == 0x2a || last == 0x36 || last == 0x1d || last == 0x38;
}

bool bios_keys_admit(struct bios_keys *k, const uint8_t bda[static BIOS_DATA_SIZE],
                     const uint8_t *scancodes, unsigned count, unsigned pending, uint64_t now_ms)
{
    uint16_t head = word(bda, HEAD), tail = word(bda, TAIL);
    uint16_t start = word(bda, START), end = word(bda, END);
    bool valid = start < end && end <= BIOS_DATA_SIZE && !((start | end | head | tail) & 1) &&
                 head >= start && head < end && tail >= start && tail < end;
    if (!valid)
        return true;
    unsigned slots = (end - start) / 2u, used = (tail + (end - start) - head) / 2u % slots;
    if (head != k->head || tail != k->tail)
        *k = (struct bios_keys){.head = head, .tail = tail, .since = now_ms};
    if (k->ignored || makes_no_key(scancodes, count))
        return true;
    if (used + SPARE < slots)
        return pending <= PENDING_MAX;
    uint64_t waited = now_ms - k->since;
    if (waited < PATIENCE_MS)
        return false;
    if (!k->probed && used + 2 < slots) {
        k->probed = true;
        k->since = now_ms;
        return true;
    }
    k->ignored = k->probed || waited >= GIVE_UP_MS;
    return k->ignored;
}
