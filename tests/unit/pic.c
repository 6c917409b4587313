#include "dev/pic.h"

#include "check.h"
#include "fake_machine.h"

static struct fake_machine m;
static struct pic *pic;
static struct probe intr;

static void setup(unsigned icw4)
{
    fake_machine_init(&m);
    intr = (struct probe){0};
    pic = pic_create(&m.env, fake_line(&intr));
    out8(&m, 0x20, 0x11), out8(&m, 0x21, 0x30), out8(&m, 0x21, 4), out8(&m, 0x21, icw4);
    out8(&m, 0xa0, 0x11), out8(&m, 0xa1, 0x38), out8(&m, 0xa1, 2), out8(&m, 0xa1, 1);
}

static void pulse(int irq)
{
    pic_set_irq(pic, irq, 1);
    pic_set_irq(pic, irq, 0);
}

static void test_priorities(void)
{
    setup(1);
    pulse(5);
    pulse(3);
    CHECK(intr.level);
    CHECK(pic_ack(pic) == 0x33);
    CHECK(!intr.level); /* 5 is below 3, which is in service */
    pulse(1);
    CHECK(pic_ack(pic) == 0x31);
    out8(&m, 0x20, 0x0b);
    CHECK(in8(&m, 0x20) == 0x0a);
    out8(&m, 0x20, 0x20); /* ends 1 */
    CHECK(in8(&m, 0x20) == 0x08);
    CHECK(!intr.level);
    out8(&m, 0x20, 0x63); /* specific: 3 */
    CHECK(intr.level);
    CHECK(pic_ack(pic) == 0x35);
    out8(&m, 0x20, 0x20);
    CHECK(!intr.level);
    CHECK(pic_ack(pic) == 0x37); /* spurious */
    CHECK(in8(&m, 0x20) == 0);   /* and not in service */
    fake_machine_end(&m);
}

static void test_masks(void)
{
    setup(1);
    out8(&m, 0x21, 0xff);
    CHECK(in8(&m, 0x21) == 0xff);
    pulse(4);
    CHECK(!intr.level);
    out8(&m, 0x20, 0x0a);
    CHECK(in8(&m, 0x20) == 0x10); /* latched all the same */
    out8(&m, 0x21, 0);
    CHECK(pic_ack(pic) == 0x34);

    /* Special mask: what is in service and masked lets lower ones through. */
    pulse(6);
    CHECK(!intr.level);
    out8(&m, 0x21, 0x10);
    out8(&m, 0x20, 0x68);
    CHECK(intr.level);
    CHECK(pic_ack(pic) == 0x36);
    out8(&m, 0x20, 0x20); /* non-specific: skips the masked 4 */
    out8(&m, 0x20, 0x0b);
    CHECK(in8(&m, 0x20) == 0x10);
    fake_machine_end(&m);
}

static void test_cascade(void)
{
    setup(1);
    pulse(12);
    CHECK(pic_ack(pic) == 0x3c);
    pulse(8); /* better, but the master has its IR2 in service */
    CHECK(!intr.level);
    out8(&m, 0x20, 0x62);
    CHECK(intr.level);
    CHECK(pic_ack(pic) == 0x38);
    out8(&m, 0xa0, 0x20), out8(&m, 0x20, 0x20);
    CHECK(!intr.level);
    out8(&m, 0xa0, 0x20);
    fake_machine_end(&m);

    setup(0x11); /* special fully nested: the slave nests */
    pulse(12);
    CHECK(pic_ack(pic) == 0x3c);
    pulse(8);
    CHECK(intr.level);
    CHECK(pic_ack(pic) == 0x38);
    pulse(5); /* but what is below IR2 waits */
    CHECK(!intr.level);
    fake_machine_end(&m);

    setup(1); /* the request goes away between INTR and the acknowledge */
    out8(&m, 0x4d1, 0x04);
    pic_set_irq(pic, 10, 1);
    CHECK(intr.level);
    pic_set_irq(pic, 10, 0);
    CHECK(!intr.level);
    CHECK(pic_ack(pic) == 0x37);
    fake_machine_end(&m);
}

static void test_level(void)
{
    setup(1);
    out8(&m, 0x4d0, 0xff);
    CHECK(in8(&m, 0x4d0) == 0xf8);
    out8(&m, 0x4d1, 0xff);
    CHECK(in8(&m, 0x4d1) == 0xde);
    pic_set_irq(pic, 5, 1);
    CHECK(pic_ack(pic) == 0x35);
    out8(&m, 0x20, 0x20);
    CHECK(intr.level); /* still asserted: again */
    CHECK(pic_ack(pic) == 0x35);
    pic_set_irq(pic, 5, 0);
    out8(&m, 0x20, 0x20);
    CHECK(!intr.level);
    fake_machine_end(&m);

    setup(1); /* an edge counts once */
    pic_set_irq(pic, 5, 1);
    CHECK(pic_ack(pic) == 0x35);
    out8(&m, 0x20, 0x20);
    CHECK(!intr.level);
    fake_machine_end(&m);
}

static void test_rotation(void)
{
    setup(1);
    out8(&m, 0x20, 0xc3); /* 3 is the lowest */
    pulse(3), pulse(4);
    CHECK(pic_ack(pic) == 0x34);
    out8(&m, 0x20, 0xa0); /* EOI: now 4 is the lowest */
    pulse(5), pulse(4);
    CHECK(pic_ack(pic) == 0x35);
    out8(&m, 0x20, 0xe5); /* specific EOI with rotation */
    CHECK(pic_ack(pic) == 0x33);
    out8(&m, 0x20, 0x20);
    CHECK(pic_ack(pic) == 0x34);
    fake_machine_end(&m);

    setup(3); /* automatic EOI, rotating */
    out8(&m, 0x20, 0x80);
    pulse(0), pulse(1);
    CHECK(pic_ack(pic) == 0x30);
    pulse(0);
    CHECK(pic_ack(pic) == 0x31);
    CHECK(pic_ack(pic) == 0x30);
    out8(&m, 0x20, 0x0b);
    CHECK(in8(&m, 0x20) == 0);
    fake_machine_end(&m);
}

static void test_poll(void)
{
    setup(1);
    out8(&m, 0x20, 0x0c);
    CHECK(in8(&m, 0x20) == 0);
    pulse(6);
    out8(&m, 0x20, 0x0c);
    CHECK(in8(&m, 0x20) == 0x86);
    CHECK(!intr.level);
    out8(&m, 0x20, 0x0b);
    CHECK(in8(&m, 0x20) == 0x40);
    fake_machine_end(&m);
}

static unsigned taken;
static void on_ack(void *opaque, unsigned irq)
{
    (void)opaque;
    taken = taken * 10 + irq;
}

static void test_waiting(void)
{
    setup(0);
    pic_on_ack(pic, on_ack, NULL);
    CHECK(!pic_waits(pic, 1));
    pulse(3);
    pulse(1);
    CHECK(pic_waits(pic, 1) && pic_waits(pic, 3));
    pic_ack(pic);
    CHECK(!pic_waits(pic, 1) && pic_waits(pic, 3) && taken == 1);
    out8(&m, 0x20, 0x20);
    pic_ack(pic);
    CHECK(!pic_waits(pic, 3) && taken == 13);
    pulse(4);
    out8(&m, 0x21, 0x10);
    CHECK(!pic_waits(pic, 4));
    fake_machine_end(&m);
}

int main(void)
{
    test_priorities();
    test_masks();
    test_cascade();
    test_level();
    test_rotation();
    test_poll();
    test_waiting();
    return check_result();
}
