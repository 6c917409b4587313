/*
 * A guest that writes and reads what it likes, where it likes, at any time: nothing may crash, and
 * under the sanitizers nothing may be out of bounds or undefined. The seed is fixed.
 */
#include <stdlib.h>

#include "check.h"
#include "dev/debug_exit.h"
#include "dev/debugcon.h"
#include "dev/i8042.h"
#include "dev/pic.h"
#include "dev/piix4.h"
#include "dev/pit.h"
#include "dev/port80.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev/reset_control.h"
#include "dev/rtc.h"
#include "dev/uart.h"
#include "fake_machine.h"
#include "util/util.h"

static const struct {
    uint16_t base, size;
} ports[] = {
    {0x20, 2},  {0xa0, 2},  {0x4d0, 2}, {0x40, 4}, {0x61, 1},   {0x60, 1},
    {0x64, 1},  {0x70, 2},  {0x92, 1},  {0x80, 1}, {0xe9, 1},   {0xf4, 4},
    {0x505, 1}, {0x3f8, 8}, {0xcf8, 8}, {0xb2, 2}, {0x600, 64}, {0x700, 16},
};

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 400000;
    static struct fake_machine m;
    static struct probe line;
    fake_machine_init(&m);
    m.mem.low_size = m.mem.size = 64 << 20;
    struct irq_line irq = fake_line(&line);

    struct pic *pic = pic_create(&m.env, irq);
    struct irq_line inputs[16];
    struct pci_wiring wiring = {0};
    for (int i = 0; i < 16; i++)
        wiring.pic[i] = inputs[i] = (struct irq_line){pic_set_irq, pic, i};
    pit_create(&m.env, inputs[0]);
    rtc_create(&m.env, inputs[8], 64 << 20, 0);
    struct port92 *p92 = port92_create(&m.env, irq);
    struct i8042 *kbc =
        i8042_create(&m.env, inputs[1], inputs[12], (struct irq_line){port92_set_kbc_a20, p92, 0});
    port80_create(&m.env);
    debugcon_create(&m.env, DEBUGCON_PORT, NULL);
    debug_exit_create(&m.env, 0xf4, 4);
    pvpanic_create(&m.env);
    struct pci_bus *pci = pci_create(&m.env, &wiring);
    reset_control_create(&m.env, pci);
    piix4_isa_create(&m.env, pci);
    struct piix4_pm *pm = piix4_pm_create(&m.env, pci, inputs[9]);
    uart_create(&m.env, 0x3f8, inputs[4], NULL);

    for (unsigned i = 0; i < rounds; i++) {
        uint64_t r = rnd(), value = rnd();
        unsigned range = r % ARRAY_SIZE(ports), size = 1u << (r >> 8) % 3;
        unsigned port = ports[range].base + (unsigned)(r >> 16) % ports[range].size;
        if ((r >> 32) % 4 == 0)
            value &= 0x8000ffff; /* likelier to select a PCI device */
        if ((r >> 40) & 1)
            bus_write(&m.pio, port, size, value);
        else
            bus_read(&m.pio, port, size);
        if ((r >> 44) % 8 == 0)
            fake_advance(&m, value >> (40 + (r >> 48) % 20));
        if ((r >> 50) % 16 == 0 && line.level) {
            int vector = pic_ack(pic);
            CHECK(vector >= 0 && vector <= 255);
        }
        if ((r >> 56) == 0) {
            uint8_t codes[2] = {0xe0, (uint8_t)value};
            i8042_key(kbc, codes, 1 + (value >> 8) % 2);
            i8042_mouse(kbc, (int)value, (int)(value >> 20), (int)(value >> 40), (unsigned)r);
            piix4_pm_power_button(pm);
        }
        if (r >> 48 == 0)
            devices_reset(&m.env);
    }
    fake_machine_end(&m);
    return check_result();
}
