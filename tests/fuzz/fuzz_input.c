/* The keyboard controller with keyboard and mouse, VMware's backdoor and its pointer. */
#include "cpu/register_port.h"
#include "dev/guest_rpc.h"
#include "dev/i8042.h"
#include "dev/port92.h"
#include "dev/vmmouse.h"
#include "device.h"

enum { DATA, COMMAND };

static struct i8042 *kbc;
static struct backdoor *backdoor;
static struct vmmouse *mouse;

static void create(struct fuzz_machine *f)
{
    struct port92 *port92 = port92_create(&f->machine.env, fuzz_irq(f, 15));
    kbc = i8042_create(&f->machine.env, fuzz_irq(f, 1), fuzz_irq(f, 12),
                       (struct irq_line){port92_set_kbc_a20, port92, 0});
    const struct backdoor_identity identity = {f->machine.clock.tsc_hz, 1000000000, true};
    backdoor = backdoor_create(&f->machine.env, &identity);
    mouse = vmmouse_create(&f->machine.env, backdoor, kbc);
    guest_rpc_create(&f->machine.env, backdoor);
    fuzz_ports(f, 0x60, 1);
    fuzz_ports(f, 0x64, 1);
}

static void special(struct fuzz_machine *f, const struct fuzz_op *op)
{
    const uint8_t codes[] = {0xe0, (uint8_t)op->value, (uint8_t)(op->value >> 8)};
    struct backdoor_call c = {0x564d5868, (uint32_t)op->value,         op->offset,
                              0x5658,     (uint32_t)(op->value >> 32), op->repeat};
    if (op->repeat % 4 == 0) {
        backdoor_call(backdoor, &c);
        return;
    }
    pthread_mutex_lock(&f->machine.lock);
    if (op->repeat % 4 == 1)
        i8042_key(kbc, codes + (op->offset & 1), 1 + (op->offset >> 1) % 2);
    else if (op->repeat % 4 == 2)
        i8042_mouse(kbc, (int)op->value, (int)op->offset, (int)(op->value >> 32), op->size);
    else
        vmmouse_move(mouse, op->value & 0xffff, op->offset & 0xffff, (int)(op->value >> 32),
                     op->size);
    i8042_leds(kbc);
    pthread_mutex_unlock(&f->machine.lock);
}

static void call(struct fuzz_list *l, unsigned number, uint64_t argument)
{
    seed_op(l, OP_SPECIAL, 0, 1, 0, number, argument);
}

static bool seed(struct fuzz_list *l, unsigned index)
{
    static const uint8_t commands[] = {0x20, 0x60, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xad, 0xae, 0xc0,
                                       0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xdd, 0xdf, 0xe0, 0xf0, 0xfe};
    static const uint8_t both[] = {0xff, 0xf6, 0xf5, 0xf4, 0xf3, 0x14, 0xf2, 0xf0, 0x02, 0xee,
                                   0xed, 0x07, 0xfe, 0xeb, 0xea, 0xe9, 0xe8, 0x03, 0xe7, 0xe6};
    static const uint8_t identity[] = {1, 10, 17, 19, 20, 23, 45, 46, 55, 68, 91}; /* backdoor */
    switch (index) {
    case 0:
        for (unsigned i = 0; i < sizeof commands; i++) {
            seed_write(l, COMMAND, 1, 0, commands[i]);
            seed_write(l, DATA, 1, 0, 0x47);
            seed_op(l, OP_READ, DATA, 1, 3, 0, 0);
        }
        break;
    case 1:
    case 2:
        for (unsigned i = 0; i < sizeof both; i++) {
            if (index == 2)
                seed_write(l, COMMAND, 1, 0, 0xd4);
            seed_write(l, DATA, 1, 0, both[i]);
            seed_op(l, OP_TIME, 0, 1, 0, 0, 2000000);
            seed_op(l, OP_READ, DATA, 1, 3, 0, 0);
            seed_op(l, OP_SPECIAL, 0, 1, index, 2, 0x1c);
        }
        break;
    case 3:
        for (unsigned i = 0; i < sizeof identity; i++)
            call(l, identity[i], 0);
        call(l, 41, 0x45414552);
        call(l, 40, 0);
        call(l, 39, 1);
        call(l, 41, 0x53424152);
        for (unsigned i = 0; i < 5; i++)
            seed_op(l, OP_SPECIAL, 0, 1, 3, i * 99, i * 77);
        call(l, 40, 0);
        call(l, 39, 4);
        call(l, 39, 200);
        call(l, 41, 0x4c455252);
        call(l, 41, 0xf5);
        break;
    default:
        return false;
    }
    return true;
}

const struct fuzz_device fuzz_device = {create, special, NULL, seed};
