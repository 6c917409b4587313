/*
 * The 16550A serial port.
 *
 * The transmitter is as fast as the back end: a byte written leaves at once, so THRE falls and
 * rises within the write (drivers count on the edge of the interrupt that this makes). Where the
 * back end is slow, bytes wait in the FIFO and THRE stays low until it says that it has space. The
 * receiver takes no more than it has room for, so that no input is lost, and an overrun happens
 * only in loopback. Nor does it take any before the guest listens (has the receive interrupt on, or
 * polls LSR and nothing else): drivers empty the FIFO when they start, and a script that is piped
 * into the console would lose its beginning. The receive time-out is four character times of guest
 * time, as in the chip.
 */
#include "dev/uart.h"

#include <stdlib.h>
#include <string.h>

#include "util/util.h"

#define FIFO_SIZE 16
#define CLOCK_HZ  115200 /* bit rate with divisor 1 */

enum uart_register { DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

enum { IER_RX = 1, IER_TX = 2, IER_LINE = 4, IER_MODEM = 8 };
enum {
    IIR_NONE = 1,
    IIR_LINE = 6,
    IIR_RX = 4,
    IIR_TIMEOUT = 12,
    IIR_TX = 2,
    IIR_MODEM = 0,
    IIR_FIFOS = 0xc0
};
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4, FCR_KEPT = 0xc9 };
enum { LCR_BREAK = 0x40, LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16, MCR_BITS = 31 };
enum {
    LSR_DATA = 1,
    LSR_OVERRUN = 2,
    LSR_PARITY = 4,
    LSR_FRAMING = 8,
    LSR_BREAK = 16,
    LSR_THRE = 32,
    LSR_TEMT = 64,
    LSR_FIFO_ERROR = 128
};
#define LSR_ERRORS      (LSR_OVERRUN | LSR_PARITY | LSR_FRAMING | LSR_BREAK)
#define LSR_PER_BYTE    (LSR_PARITY | LSR_FRAMING | LSR_BREAK)
/* Input lines CTS, DSR, RI, DCD in bits 4..7 of MSR; what changed since the last read in 0..3. */
#define MSR_CTS         0x10
#define MSR_DSR         0x20
#define MSR_RI          0x40
#define MSR_DCD         0x80
#define MSR_RI_TRAILED  0x04

/* So many reads of LSR with no byte sent in between are a loop that waits for input. */
#define POLLS_LISTENING 32

static const uint8_t trigger_levels[4] = {1, 4, 8, 14};

struct uart {
    struct device_env *env;
    struct irq_line irq;
    struct chardev *line;
    struct timer timeout;
    bool carrier; /* somebody is at the other end: drives CTS, DSR and DCD */

    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
    uint16_t divisor;
    bool tx_interrupt;      /* THRE interrupt: pending until IIR is read or THR written */
    bool timeout_interrupt; /* characters have been waiting for too long */
    bool stalled;           /* the back end has no space for tx[] */
    uint8_t rx[FIFO_SIZE];
    uint8_t rx_error[FIFO_SIZE]; /* LSR bits that come with each byte */
    uint8_t rx_head, rx_count;
    uint8_t tx[FIFO_SIZE];
    uint8_t tx_count;
    uint8_t polls; /* reads of LSR since the last byte sent, up to POLLS_LISTENING */
};

static unsigned fifo_size(const struct uart *u)
{
    return u->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

/* Identification of the most urgent interrupt that is enabled. */
static uint8_t identify(const struct uart *u)
{
    if ((u->ier & IER_LINE) && (u->lsr & LSR_ERRORS))
        return IIR_LINE;
    if (u->ier & IER_RX) {
        if (u->fcr & FCR_ENABLE) {
            if (u->rx_count >= trigger_levels[u->fcr >> 6])
                return IIR_RX;
            if (u->timeout_interrupt)
                return IIR_TIMEOUT;
        } else if (u->lsr & LSR_DATA) {
            return IIR_RX;
        }
    }
    if ((u->ier & IER_TX) && u->tx_interrupt)
        return IIR_TX;
    if ((u->ier & IER_MODEM) && (u->msr & 0x0f))
        return IIR_MODEM;
    return IIR_NONE;
}

/* On a PC, OUT2 gates the interrupt; loopback cuts OUT2 off the pin. */
static void update_irq(struct uart *u)
{
    bool gate = (u->mcr & MCR_OUT2) && !(u->mcr & MCR_LOOP);
    irq_set(&u->irq, gate && identify(u) != IIR_NONE);
}

/* ---- Modem lines ---- */

static void update_modem_lines(struct uart *u)
{
    uint8_t lines;
    if (u->mcr & MCR_LOOP)
        lines = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
                (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
    else
        lines = u->carrier ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
    uint8_t changed = (lines ^ u->msr) & 0xf0;
    uint8_t deltas = changed >> 4;
    if (lines & MSR_RI)
        deltas &= ~MSR_RI_TRAILED; /* RI counts where it ends */
    u->msr = lines | (u->msr & 0x0f) | deltas;
}

/* ---- Receiver ---- */

static void arm_timeout(struct uart *u)
{
    u->timeout_interrupt = false;
    if (!(u->fcr & FCR_ENABLE) || u->rx_count == 0) {
        timer_cancel(&u->timeout);
        return;
    }
    unsigned bits = 7 + (u->lcr & 3) + (u->lcr & 4 ? 1 : 0) + (u->lcr & 8 ? 1 : 0);
    uint64_t divisor = u->divisor ? u->divisor : 1;
    timer_set(&u->timeout, vclock_ns(u->env->clock) + 4 * bits * divisor * 1000000000u / CLOCK_HZ);
}

static void on_timeout(void *opaque)
{
    struct uart *u = opaque;
    if (u->rx_count) {
        u->timeout_interrupt = true;
        update_irq(u);
    }
}

/* LSR as the byte at the FIFO's head makes it. */
static void show_head(struct uart *u)
{
    u->lsr &= ~(LSR_DATA | LSR_FIFO_ERROR);
    if (!u->rx_count)
        return;
    u->lsr |= LSR_DATA | u->rx_error[u->rx_head];
    for (unsigned i = 0; (u->fcr & FCR_ENABLE) && i < u->rx_count; i++)
        if (u->rx_error[(u->rx_head + i) % FIFO_SIZE])
            u->lsr |= LSR_FIFO_ERROR;
}

static void receive_byte(struct uart *u, uint8_t byte, uint8_t error)
{
    if (u->rx_count >= fifo_size(u)) {
        u->lsr |= LSR_OVERRUN;
        if (!(u->fcr & FCR_ENABLE)) { /* without FIFO the new byte wins */
            u->rx[u->rx_head] = byte;
            u->rx_error[u->rx_head] = error;
        }
    } else {
        unsigned at = (u->rx_head + u->rx_count) % FIFO_SIZE;
        u->rx[at] = byte;
        u->rx_error[at] = error;
        u->rx_count++;
    }
    show_head(u);
    arm_timeout(u);
}

static void clear_rx(struct uart *u)
{
    u->rx_count = 0;
    u->rx_head = 0;
    u->lsr &= ~(LSR_DATA | LSR_FIFO_ERROR);
    arm_timeout(u);
}

static uint8_t read_data(struct uart *u)
{
    uint8_t byte = u->rx[u->rx_head];
    if (u->rx_count) {
        u->rx_error[u->rx_head] = 0;
        u->rx_head = (u->rx_head + 1) % FIFO_SIZE;
        u->rx_count--;
        show_head(u);
        arm_timeout(u);
        if (u->line && !(u->mcr & MCR_LOOP))
            chardev_receive_ready(u->line);
    }
    return byte;
}

/* ---- Transmitter ---- */

static void transmit(struct uart *u)
{
    unsigned sent = 0;
    if (u->mcr & MCR_LOOP) {
        for (; sent < u->tx_count; sent++)
            receive_byte(u, u->tx[sent], 0);
    } else {
        sent = u->line ? (unsigned)chardev_write(u->line, u->tx, u->tx_count) : u->tx_count;
    }
    memmove(u->tx, u->tx + sent, u->tx_count - sent);
    u->tx_count -= sent;
    u->stalled = u->tx_count > 0;
    if (u->tx_count == 0 && !(u->lsr & LSR_THRE)) {
        u->lsr |= LSR_THRE | LSR_TEMT;
        u->tx_interrupt = true;
    }
}

static void write_data(struct uart *u, uint8_t byte)
{
    u->tx_interrupt = false;
    u->polls = 0;
    u->lsr &= ~(LSR_THRE | LSR_TEMT);
    update_irq(u);
    if (u->tx_count == fifo_size(u))
        u->tx[u->tx_count - 1] = byte; /* written without looking at THRE */
    else
        u->tx[u->tx_count++] = byte;
    if (!u->stalled)
        transmit(u);
}

/* ---- Registers ---- */

static void write_fcr(struct uart *u, uint8_t value)
{
    if ((value ^ u->fcr) & FCR_ENABLE)
        value |= FCR_CLEAR_RX | FCR_CLEAR_TX;
    if (!(value & FCR_ENABLE))
        value &= FCR_CLEAR_RX | FCR_CLEAR_TX;
    u->fcr = value & FCR_KEPT;
    if (value & FCR_CLEAR_RX) {
        clear_rx(u);
        if (u->line)
            chardev_receive_ready(u->line);
    }
    if (value & FCR_CLEAR_TX) {
        u->tx_count = 0;
        u->stalled = false;
        u->tx_interrupt = true;
        u->lsr |= LSR_THRE | LSR_TEMT;
    }
}

static void write_mcr(struct uart *u, uint8_t value)
{
    bool was_loop = u->mcr & MCR_LOOP;
    u->mcr = value & MCR_BITS;
    update_modem_lines(u);
    if (was_loop && !(u->mcr & MCR_LOOP) && u->line)
        chardev_receive_ready(u->line);
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
    struct uart *u = opaque;
    uint8_t value;

    switch (offset) {
    case DATA:
        value = u->lcr & LCR_DLAB ? (uint8_t)u->divisor : read_data(u);
        break;
    case IER:
        value = u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
        break;
    case IIR_FCR:
        value = identify(u);
        if (value == IIR_TX)
            u->tx_interrupt = false;
        if (u->fcr & FCR_ENABLE)
            value |= IIR_FIFOS;
        break;
    case LCR:
        return u->lcr;
    case MCR:
        return u->mcr;
    case LSR:
        if (u->polls < POLLS_LISTENING && ++u->polls == POLLS_LISTENING && u->line)
            chardev_receive_ready(u->line);
        value = u->lsr;
        u->lsr &= ~LSR_ERRORS;
        if (u->rx_count)
            u->rx_error[u->rx_head] = 0;
        show_head(u);
        break;
    case MSR:
        value = u->msr;
        u->msr &= 0xf0;
        break;
    default:
        return u->scr;
    }
    update_irq(u);
    return value;
}

static void uart_write(void *opaque, uint64_t offset, unsigned size, uint64_t value64)
{
    struct uart *u = opaque;
    uint8_t value = (uint8_t)value64;

    switch (offset) {
    case DATA:
        if (u->lcr & LCR_DLAB)
            u->divisor = (u->divisor & 0xff00) | value;
        else
            write_data(u, value);
        break;
    case IER:
        if (u->lcr & LCR_DLAB) {
            u->divisor = (uint16_t)(value << 8 | (u->divisor & 0xff));
            break;
        }
        /* Enabling it with an empty transmitter raises the interrupt: drivers start that way. */
        if (!(u->ier & IER_TX) && (value & IER_TX) && (u->lsr & LSR_THRE))
            u->tx_interrupt = true;
        if (!(u->ier & IER_RX) && (value & IER_RX) && u->line)
            chardev_receive_ready(u->line);
        u->ier = value & 0x0f;
        break;
    case IIR_FCR:
        write_fcr(u, value);
        break;
    case LCR:
        if ((value & ~u->lcr & LCR_BREAK) && (u->mcr & MCR_LOOP))
            receive_byte(u, 0, LSR_BREAK);
        u->lcr = value;
        break;
    case MCR:
        write_mcr(u, value);
        break;
    case SCR:
        u->scr = value;
        return;
    default: /* LSR and MSR: factory test only */
        return;
    }
    update_irq(u);
}

static const struct io_ops uart_ops = {uart_read, uart_write, 1};

/* ---- Back end ---- */

static size_t front_room(void *opaque)
{
    struct uart *u = opaque;
    pthread_mutex_lock(u->env->lock);
    bool listens = ((u->ier & IER_RX) || u->polls == POLLS_LISTENING) && !(u->mcr & MCR_LOOP);
    size_t room = listens ? fifo_size(u) - MIN(u->rx_count, fifo_size(u)) : 0;
    pthread_mutex_unlock(u->env->lock);
    return room;
}

static void front_receive(void *opaque, const uint8_t *bytes, size_t count)
{
    struct uart *u = opaque;
    pthread_mutex_lock(u->env->lock);
    for (size_t i = 0; i < count; i++)
        receive_byte(u, bytes[i], 0);
    update_irq(u);
    pthread_mutex_unlock(u->env->lock);
}

static void front_break(void *opaque)
{
    struct uart *u = opaque;
    pthread_mutex_lock(u->env->lock);
    if (!(u->mcr & MCR_LOOP)) {
        receive_byte(u, 0, LSR_BREAK);
        update_irq(u);
    }
    pthread_mutex_unlock(u->env->lock);
}

static void front_writable(void *opaque)
{
    struct uart *u = opaque;
    pthread_mutex_lock(u->env->lock);
    if (u->stalled) {
        transmit(u);
        update_irq(u);
    }
    pthread_mutex_unlock(u->env->lock);
}

static void front_carrier(void *opaque, int present)
{
    struct uart *u = opaque;
    pthread_mutex_lock(u->env->lock);
    u->carrier = present;
    update_modem_lines(u);
    update_irq(u);
    pthread_mutex_unlock(u->env->lock);
}

static const struct chardev_front front_ops = {
    .room = front_room,
    .receive = front_receive,
    .line_break = front_break,
    .writable = front_writable,
    .carrier = front_carrier,
};

static const struct state_field uart_fields[] = {
    STATE(struct uart, ier, 0),
    STATE(struct uart, fcr, 0),
    STATE(struct uart, lcr, 0),
    STATE(struct uart, mcr, 0),
    STATE(struct uart, lsr, LSR_THRE | LSR_TEMT),
    STATE(struct uart, msr, 0),
    STATE(struct uart, scr, 0),
    STATE(struct uart, divisor, 12), /* 9600 */
    STATE(struct uart, tx_interrupt, 0),
    STATE(struct uart, timeout_interrupt, 0),
    STATE(struct uart, stalled, 0),
    STATE_ARRAY(struct uart, rx, 0),
    STATE_ARRAY(struct uart, rx_error, 0),
    STATE(struct uart, rx_head, 0),
    STATE(struct uart, rx_count, 0),
    STATE_ARRAY(struct uart, tx, 0),
    STATE(struct uart, tx_count, 0),
    STATE(struct uart, polls, 0),
};

static void after_reset(void *opaque)
{
    struct uart *u = opaque;
    timer_cancel(&u->timeout);
    update_modem_lines(u);
    u->msr &= 0xf0;
    update_irq(u);
    if (u->line)
        chardev_receive_ready(u->line);
}

static void after_load(void *opaque)
{
    struct uart *u = opaque;
    bool timed_out = u->timeout_interrupt;
    arm_timeout(u);
    u->timeout_interrupt = timed_out;
    if (u->stalled)
        transmit(u);
    update_irq(u);
    if (u->line)
        chardev_receive_ready(u->line);
}

static const struct state_table uart_table = {
    .name = "uart",
    .version = 1,
    .size = sizeof(struct uart),
    .fields = uart_fields,
    .field_count = ARRAY_SIZE(uart_fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

struct uart *uart_create(struct device_env *env, uint16_t base, struct irq_line irq,
                         struct chardev *line)
{
    struct uart *u = calloc(1, sizeof *u);
    if (!u)
        return NULL;
    u->env = env;
    u->irq = irq;
    u->line = line;
    timer_init(&u->timeout, env->timers, on_timeout, u);
    bus_add(env->pio, base, 8, &uart_ops, u, "uart");
    device_register(env, &uart_table, u, free);
    if (line)
        chardev_attach(line, &front_ops, u);
    return u;
}
