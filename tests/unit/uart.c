#include "dev/uart.h"

#include <string.h>

#include "check.h"
#include "fake_machine.h"

#define BASE 0x3f8
enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static struct fake_machine m;
static struct probe irq4;

/* A back end in the place of the library's. */
struct chardev {
    const struct chardev_front *front;
    void *opaque;
    uint8_t written[256];
    size_t count, limit;
    unsigned ready;
};
static struct chardev line;

void chardev_attach(struct chardev *dev, const struct chardev_front *front, void *opaque)
{
    dev->front = front;
    dev->opaque = opaque;
    front->carrier(opaque, 1);
}

size_t chardev_write(struct chardev *dev, const void *bytes, size_t count)
{
    size_t n = count < dev->limit - dev->count ? count : dev->limit - dev->count;
    memcpy(dev->written + dev->count, bytes, n);
    dev->count += n;
    return n;
}

void chardev_receive_ready(struct chardev *dev)
{
    dev->ready++;
}

static void set(unsigned reg, unsigned value)
{
    out8(&m, BASE + reg, value);
}

static unsigned get(unsigned reg)
{
    return in8(&m, BASE + reg);
}

static void setup(void)
{
    fake_machine_init(&m);
    irq4 = (struct probe){0};
    line = (struct chardev){.limit = sizeof line.written};
    uart_create(&m.env, BASE, fake_line(&irq4), &line);
    set(MCR, 0x0b);
    set(IIR, 0x07); /* FIFOs on, trigger level 1 */
}

static size_t receive(const char *text)
{
    size_t room = line.front->room(line.opaque), n = strlen(text);
    n = n < room ? n : room;
    line.front->receive(line.opaque, (const uint8_t *)text, n);
    return n;
}

static void test_transmit(void)
{
    setup();
    CHECK(get(IIR) == 0xc1);
    CHECK(get(LSR) == 0x60);
    set(IER, 2);
    CHECK(irq4.level && get(IIR) == 0xc2);
    CHECK(!irq4.level && get(IIR) == 0xc1); /* reading IIR took it away */
    set(IER, 0), set(IER, 2);
    CHECK(irq4.level); /* and enabling it again brings it back */
    unsigned rises = irq4.rises;
    set(DATA, 'A');
    CHECK(irq4.rises == rises + 1 && irq4.level);
    CHECK(line.count == 1 && line.written[0] == 'A');
    set(MCR, 0x03); /* OUT2 gates the line */
    CHECK(!irq4.level);
    set(MCR, 0x0b);
    CHECK(irq4.level);

    /* The back end is full: THRE stays low until it has space. */
    line.limit = line.count;
    set(DATA, 'B'), set(DATA, 'C');
    CHECK(!(get(LSR) & 0x60));
    get(IIR);
    CHECK(!irq4.level);
    line.limit += 10;
    line.front->writable(line.opaque);
    CHECK((get(LSR) & 0x60) == 0x60 && irq4.level);
    CHECK(line.count == 3 && !memcmp(line.written, "ABC", 3));
    fake_machine_end(&m);
}

static void test_receive(void)
{
    setup();
    CHECK(receive("early") == 0); /* nobody listens */
    set(IER, 1);
    CHECK(line.ready > 0);
    CHECK(receive("xy") == 2);
    CHECK(irq4.level && get(IIR) == 0xc4 && (get(LSR) & 1));
    CHECK(get(DATA) == 'x' && irq4.level);
    CHECK(get(DATA) == 'y' && !irq4.level);
    CHECK(!(get(LSR) & 1));

    set(IIR, 0x81); /* trigger level 8 */
    CHECK(receive("abc") == 3);
    CHECK(!irq4.level);
    fake_advance(&m, 5000000); /* four characters at 9600 */
    CHECK(irq4.level && get(IIR) == 0xcc);
    CHECK(get(DATA) == 'a' && !irq4.level);
    CHECK(receive("defghi") == 6);
    CHECK(irq4.level && get(IIR) == 0xc4);
    CHECK(receive("0123456789") == 8); /* as much as there is room for */
    CHECK(receive("z") == 0);
    set(IIR, 0x83);
    CHECK(!(get(LSR) & 1) && !irq4.level);

    /* A break: an error with a zero byte. */
    set(IER, 5);
    line.front->line_break(line.opaque);
    CHECK(irq4.level && get(IIR) == 0xc6);
    CHECK((get(LSR) & 0x91) == 0x91);
    CHECK((get(LSR) & 0x91) == 0x01);
    CHECK(get(DATA) == 0);

    /* Polling without the interrupt is listening as well. */
    set(IER, 0);
    CHECK(receive("p") == 0);
    for (int i = 0; i < 100; i++)
        get(LSR);
    CHECK(receive("p") == 1);
    CHECK((get(LSR) & 1) && get(DATA) == 'p');
    fake_machine_end(&m);
}

static void test_loopback(void)
{
    setup();
    set(IER, 1);
    set(MCR, 0x1b);
    CHECK(get(MSR) >> 4 == 0xb);
    set(MCR, 0x10);
    CHECK((get(MSR) & 0xf0) == 0);
    set(MCR, 0x1f);
    CHECK((get(MSR) & 0xf0) == 0xf0);
    set(DATA, 0x5a);
    CHECK(line.count == 0);
    CHECK(get(DATA) == 0x5a);
    for (int i = 0; i < 17; i++)
        set(DATA, i);
    CHECK(get(LSR) & 2); /* overrun: the 17th is lost */
    CHECK(!(get(LSR) & 2));
    for (int i = 0; i < 16; i++)
        CHECK(get(DATA) == (unsigned)i);
    CHECK(!irq4.level); /* OUT2 does not reach the pin */
    fake_machine_end(&m);
}

static void test_registers(void)
{
    setup();
    set(SCR, 0xa5);
    CHECK(get(SCR) == 0xa5);
    set(LCR, 0x83);
    set(DATA, 0x01), set(IER, 0x00);
    CHECK(get(DATA) == 1 && get(IER) == 0);
    set(LCR, 0x03);
    set(IER, 0xff);
    CHECK(get(IER) == 0x0f);
    CHECK((get(MSR) & 0xf0) == 0xb0); /* CTS, DSR, DCD */
    CHECK((get(MSR) & 0x0f) == 0);
    set(IER, 8);
    line.front->carrier(line.opaque, 0);
    CHECK(irq4.level && (get(IIR) & 0x0f) == 0);
    CHECK(get(MSR) == 0x0b);
    CHECK(!irq4.level);
    set(IIR, 0);
    CHECK(get(IIR) == 0x01); /* without FIFOs an 8250's answer */
    devices_reset(&m.env);
    CHECK(get(IER) == 0 && get(LSR) == 0x60);
    fake_machine_end(&m);
}

int main(void)
{
    test_transmit();
    test_receive();
    test_loopback();
    test_registers();
    return check_result();
}
