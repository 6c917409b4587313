/* The flash of UEFI variables, driven as OVMF's driver does, and as a hostile guest may. */
#include "dev/flash.h"

#include "dma_machine.h"

#define BASE 0xffc00000u
#define SIZE (4 * FLASH_BLOCK)

static unsigned changes;
static uint64_t changed_at, changed_size;

static void note(void *opaque, const uint8_t *array, uint64_t offset, uint64_t size)
{
    changes++;
    changed_at = offset;
    changed_size = size;
}

static void put(uint64_t offset, unsigned value)
{
    bus_write(&m.mmio, BASE + offset, 1, value);
}

static unsigned get(uint64_t offset)
{
    return (unsigned)bus_read(&m.mmio, BASE + offset, 1);
}

/* It must be told from RAM (keeps a command), and from ROM (ignores it). */
static void test_detection(void)
{
    CHECK(get(5) == 0x21);
    put(5, 0x50);
    CHECK(get(5) == 0x21);
    put(5, 0x70);
    CHECK(get(5) == 0);
    put(5, 0xff);
    CHECK(get(5) == 0x21 && bus_read(&m.mmio, BASE, 8) == 0x2121212121212121);
    put(0, 0x98);
    CHECK(get(0x10) == 'Q' && get(0x11) == 'R' && get(0x12) == 'Y' && get(0x27) == 14);
    CHECK(get(0x2d) == 3 && get(0x2f) == 0x10 && get(0x30) == 0 && get(0xfff) == 0);
    put(0, 0x90);
    CHECK(get(0) == 0x89);
    put(0, 0xff);
}

static void test_program(void)
{
    put(0x1003, 0x10);
    put(0x1003, 0x0f);
    CHECK(get(0) == 0x80); /* ready, without errors */
    put(0x1004, 0x40);
    put(0x1004, 0x20);
    CHECK(changes == 0);
    put(0, 0xff);
    CHECK(get(0x1003) == 0x01 && get(0x1004) == 0x20); /* bits are only cleared */
    CHECK(changes == 1 && changed_at == 0x1003 && changed_size == 2);
    put(0x1fff, 0x20);
    put(0x1fff, 0xd0);
    put(0, 0xff);
    CHECK(get(0x1000) == 0xff && get(0x1fff) == 0xff && get(0xfff) == 0x21 && get(0x2000) == 0x21);
    CHECK(changes == 2 && changed_at == 0x1000 && changed_size == FLASH_BLOCK);
    put(0x1000, 0x20); /* without confirmation */
    put(0x1000, 0xff);
    CHECK(get(0) == 0xb0);
    put(0, 0x50);
    put(0, 0xff);
}

static void test_buffered(void)
{
    put(0x1100, 0xe8);
    put(0x1100, 2);
    for (unsigned i = 0; i < 3; i++)
        put(0x1100 + i, 0x30 + i);
    put(0x1100, 0xd0);
    CHECK(get(0) == 0x80);
    put(0, 0xff);
    CHECK(get(0x1100) == 0x30 && get(0x1102) == 0x32 && get(0x1103) == 0xff);
    put(0x1100, 0xe8); /* leaves the buffer's place: nothing is written */
    put(0x1100, 1);
    put(0x1200, 0);
    put(0x3000, 0);
    put(0x1200, 0xd0);
    CHECK(get(0) == 0x90);
    put(0, 0x50);
    put(0, 0xff);
    CHECK(get(0x1200) == 0xff && get(0x3000) == 0x21);
}

static void test_hostile(void)
{
    uint32_t random = 1;
    for (unsigned i = 0; i < 200000; i++) {
        static const uint8_t commands[] = {0x10, 0x20, 0x40, 0xe8, 0xd0, 0xff, 0x98, 0x60};
        random = random * 1664525 + 1013904223;
        unsigned size = 1u << (random >> 8 & 3);
        uint64_t offset = (random >> 12) % (SIZE - 7);
        bus_write(&m.mmio, BASE + offset, size,
                  random & 0x100 ? commands[random >> 28 & 7] : random);
        bus_read(&m.mmio, BASE + offset, size);
    }
    /* A reset shows the array, which is still there. */
    devices_reset(&m.env);
    put(0, 0x20);
    put(0, 0xd0);
    devices_reset(&m.env);
    CHECK(get(0) == 0xff);
}

int main(void)
{
    uint8_t contents[SIZE];
    memset(contents, 0x21, sizeof contents);
    dma_machine_init();
    CHECK(flash_create(&m.env, BASE, contents, SIZE, note, NULL));
    CHECK(!flash_create(&m.env, BASE + FLASH_BLOCK, contents, SIZE, NULL, NULL));
    test_detection();
    test_program();
    test_buffered();
    test_hostile();
    dma_machine_end();
    return check_result();
}
