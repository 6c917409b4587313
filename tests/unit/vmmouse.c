/* VMware's absolute pointer behind the backdoor: packets, their interrupt, a driver that is slow,
 * one that asks for nonsense. */
#include "dev/vmmouse.h"

#include "check.h"
#include "fake_machine.h"

enum { DATA = 39, STATUS = 40, COMMAND = 41 };
enum { ENABLE = 0x45414552, DISABLE = 0xf5, RELATIVE = 0x4c455252, ABSOLUTE = 0x53424152 };

static struct fake_machine m;
static struct backdoor *backdoor;

static struct backdoor_call call(uint32_t command, uint32_t argument)
{
    struct backdoor_call c = {.ebx = argument, .ecx = command};
    backdoor_call(backdoor, &c);
    return c;
}

int main(void)
{
    static struct probe irq12;
    fake_machine_init(&m);
    struct i8042 *kbc =
        i8042_create(&m.env, (struct irq_line){0}, fake_line(&irq12), (struct irq_line){0});
    backdoor = backdoor_create(&m.env, &(struct backdoor_identity){0});
    struct vmmouse *mouse = vmmouse_create(&m.env, backdoor, kbc);
    CHECK(!vmmouse_move(mouse, 1, 2, 0, 0));
    CHECK(call(STATUS, 0).eax == 0xffff0000);
    out8(&m, 0x64, 0x60);
    out8(&m, 0x60, 0x02); /* both devices on, the mouse with interrupts */
    out8(&m, 0x64, 0xd4);
    out8(&m, 0x60, 0xf4);
    CHECK(in8(&m, 0x60) == 0xfa);

    call(COMMAND, ABSOLUTE); /* not before it is enabled */
    CHECK(!vmmouse_move(mouse, 1, 2, 0, 0));
    call(COMMAND, ENABLE);
    CHECK(call(DATA, 1).eax == 0x3442554a);
    call(COMMAND, ABSOLUTE);
    unsigned before = irq12.rises;
    CHECK(vmmouse_move(mouse, 0x1234, 0xffff, -1, MOUSE_LEFT | MOUSE_MIDDLE));
    CHECK(irq12.rises == before + 1);
    CHECK((in8(&m, 0x60) & 8) && in8(&m, 0x60) == 0 && in8(&m, 0x60) == 0);
    CHECK(call(STATUS, 0).eax == 4);
    struct backdoor_call c = call(DATA, 4);
    CHECK(c.eax == 0x28 && c.ebx == 0x1234 && c.ecx == 0xffff && c.edx == 0xffffffff);

    /* A driver that does not read: the last place stays, and the changes of buttons. */
    for (unsigned i = 0; i < 1000; i++)
        vmmouse_move(mouse, i, i, 0, i == 500 ? MOUSE_RIGHT : 0);
    bool right = false;
    uint32_t x = 0;
    while (call(STATUS, 0).eax) {
        c = call(DATA, 4);
        right |= c.eax == 0x10;
        x = c.ebx;
    }
    CHECK(right && x == 999);

    call(COMMAND, RELATIVE);
    CHECK(!vmmouse_move(mouse, 1, 1, 0, 0));
    call(COMMAND, ABSOLUTE);
    CHECK(call(DATA, 5).eax == 0xffffffff && call(STATUS, 0).eax == 0xffff0000);
    CHECK(call(500, 0).eax == 0xffffffff);
    call(COMMAND, ENABLE);
    call(COMMAND, DISABLE);
    CHECK(call(STATUS, 0).eax == 0xffff0000);
    fake_machine_end(&m);
    return check_result();
}
