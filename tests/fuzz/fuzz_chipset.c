/* What every PC has: 8259, 8254 and the speaker, RTC, ports 80, 92, e9, f4 and cf9, the panic
 * device, UARTs, ACPI power management, the ISA bridge, PCI configuration space. */
#include "dev/debug_exit.h"
#include "dev/debugcon.h"
#include "dev/pic.h"
#include "dev/piix4.h"
#include "dev/pit.h"
#include "dev/port80.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev/reset_control.h"
#include "dev/rtc.h"
#include "dev/uart.h"
#include "device.h"

enum {
    PIC_1,
    PIC_2,
    ELCR,
    PIT,
    SPEAKER,
    RTC,
    PORT92,
    PORT80,
    DEBUG_E9,
    EXIT_F4,
    PANIC,
    CF8,
    UART,
    SMI,
    PM,
    ACPI,
    LOW,
    CONFIG_HOST,
    CONFIG_ISA,
    CONFIG_PM
};

static struct pic *pic;
static struct piix4_pm *pm;
static struct probe intr;
static unsigned tones;

static void on_tone(void *opaque, unsigned hz)
{
    tones++;
}

static void create(struct fuzz_machine *f)
{
    struct device_env *env = &f->machine.env;
    pic = pic_create(env, fake_line(&intr));
    struct irq_line in[16];
    for (int i = 0; i < 16; i++)
        in[i] = (struct irq_line){pic_set_irq, pic, i};
    struct pit *pit = pit_create(env, in[0]);
    pit_on_tone(pit, on_tone, NULL);
    rtc_create(env, in[8], FUZZ_RAM, UINT64_C(5) << 30);
    port92_create(env, fuzz_irq(f, 15));
    port80_create(env);
    debugcon_create(env, DEBUGCON_PORT, NULL);
    debug_exit_create(env, 0xf4, 4);
    pvpanic_create(env);
    reset_control_create(env, f->pci);
    piix4_isa_create(env, f->pci);
    pm = piix4_pm_create(env, f->pci, in[9]);
    uart_create(env, 0x3f8, in[4], NULL);
    pci_set_firmware(f->pci, physmem_extra(f->mem, 128 << 10));
    static const struct {
        uint16_t base, size;
    } ports[] = {{0x20, 2},  {0xa0, 2}, {0x4d0, 2},  {0x40, 4}, {0x61, 1},  {0x70, 4},
                 {0x92, 1},  {0x80, 1}, {0xe9, 1},   {0xf4, 4}, {0x505, 1}, {0xcf8, 8},
                 {0x3f8, 8}, {0xb2, 2}, {0x600, 64}, {0x604, 2}, {0x700, 16}};
    for (unsigned i = 0; i < sizeof ports / sizeof ports[0]; i++)
        fuzz_ports(f, ports[i].base, ports[i].size);
    fuzz_memory(f, 0xa0000, 0x60000);
    fuzz_config(f, 0);
    fuzz_config(f, PCI_DEVFN(PIIX4_SLOT, 0));
    fuzz_config(f, PCI_DEVFN(PIIX4_SLOT, 3));
}

static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    switch (op->repeat % 3) {
    case 0:
        pthread_mutex_lock(&f->machine.lock);
        if (intr.level) {
            int vector = pic_ack(pic);
            if (vector < 0 || vector > 255)
                abort();
        }
        pthread_mutex_unlock(&f->machine.lock);
        break;
    case 1:
        pthread_mutex_lock(&f->machine.lock);
        pic_set_irq(pic, op->offset & 15, op->value & 1);
        pthread_mutex_unlock(&f->machine.lock);
        break;
    default:
        pthread_mutex_lock(&f->machine.lock);
        piix4_pm_power_button(pm);
        pthread_mutex_unlock(&f->machine.lock);
    }
}

static void pics(struct fuzz_list *l, unsigned icw4)
{
    static const uint8_t icw[2][4] = {{0x11, 0x20, 4, 1}, {0x11, 0x28, 2, 1}};
    for (unsigned chip = 0; chip < 2; chip++) {
        for (unsigned i = 0; i < 4; i++)
            seed_write(l, chip, 1, i != 0, i == 3 ? icw[chip][i] | icw4 : icw[chip][i]);
        seed_write(l, chip, 1, 1, 0);
    }
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    static const uint8_t pit_modes[] = {0x30, 0x72, 0xb4, 0x36, 0x38, 0x3a, 0x35, 0xb6, 0x00, 0xe2};
    pics(l, index & 1 ? 2 : 0);
    switch (index) {
    case 0:
        for (unsigned i = 0; i < sizeof pit_modes; i++) {
            seed_write(l, PIT, 1, 3, pit_modes[i]);
            seed_write(l, PIT, 1, pit_modes[i] >> 6 & 3, 0x34);
            seed_write(l, PIT, 1, pit_modes[i] >> 6 & 3, 0x12);
            seed_write(l, SPEAKER, 1, 0, i & 3);
            seed_op(l, OP_TIME, 0, 1, 0, 0, 8000000);
            seed_op(l, OP_SPECIAL, 0, 1, 0, 0, 0);
            seed_write(l, PIC_1, 1, 0, 0x20);
        }
        break;
    case 1:
        for (unsigned i = 0; i < 0x40; i += 3) {
            seed_write(l, RTC, 1, 0, i);
            seed_read(l, RTC, 1, 1);
            seed_write(l, RTC, 1, 1, 0x26);
        }
        for (unsigned i = 0; i < 4; i++) {
            seed_write(l, RTC, 1, 0, 10 + i);
            seed_write(l, RTC, 1, 1, i == 1 ? 0x72 : 0x26);
            seed_op(l, OP_TIME, 0, 1, 1, 0, UINT64_C(3000000000));
        }
        break;
    case 2:
        for (unsigned i = 0; i < 8; i++) {
            seed_write(l, UART, 1, i, 0x83);
            seed_write(l, UART, 1, i, 3);
            seed_read(l, UART, 1, i);
        }
        seed_write(l, UART, 1, 4, 0x10); /* loop-back */
        seed_write(l, UART, 1, 2, 0xc7);
        seed_write(l, UART, 1, 1, 0x0f);
        seed_op(l, OP_WRITE, UART, 1, 20, 0, 'a');
        seed_op(l, OP_TIME, 0, 1, 0, 0, 10000000);
        seed_op(l, OP_READ, UART, 1, 20, 0, 0);
        break;
    case 3:
        seed_write(l, SMI, 1, 0, 0xf1);
        seed_write(l, PM, 2, 2, 0x521);
        seed_op(l, OP_SPECIAL, 0, 1, 2, 0, 0);
        seed_read(l, PM, 4, 0);
        seed_write(l, PM, 4, 0x20, 0xffffffff);
        seed_write(l, ACPI, 2, 0, 0x3401);
        seed_write(l, PANIC, 1, 0, 1);
        seed_write(l, EXIT_F4, 4, 0, 7);
        seed_write(l, PORT92, 1, 0, 3);
        seed_write(l, CF8, 1, 1, 6);
        break;
    case 4:
        for (unsigned i = 0x59; i < 0x60; i++) {
            seed_write(l, CONFIG_HOST, 1, i, i * 0x11);
            seed_write(l, LOW, 4, 0x1000 * i, i);
            seed_read(l, LOW, 4, 0x1000 * i);
        }
        for (unsigned i = 0; i < 4; i++)
            seed_write(l, CONFIG_ISA, 1, 0x60 + i, 10 + i);
        for (unsigned r = CONFIG_HOST; r <= CONFIG_PM; r++)
            for (unsigned i = 0; i < 256; i += 8) {
                seed_write(l, r, 4, i, 0xffffffff);
                seed_read(l, r, 4, i);
            }
        break;
    case 5: /* priorities, polling, masks */
        for (unsigned i = 0; i < 16; i++)
            seed_op(l, OP_SPECIAL, 0, 1, 1, i, 1);
        for (unsigned i = 0; i < 8; i++) {
            seed_op(l, OP_SPECIAL, 0, 1, 0, 0, 0);
            seed_write(l, PIC_1, 1, 0, i << 5 | i);
            seed_write(l, PIC_2, 1, 0, 8 | i);
            seed_read(l, PIC_2, 1, 0);
        }
        seed_write(l, ELCR, 1, 0, 0xff);
        break;
    default:
        return false;
    }
    return true;
}

const struct fuzz_device fuzz_device = {create, special, NULL, seed};
