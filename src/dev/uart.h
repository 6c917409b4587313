/* A 16550A serial port. */
#ifndef TRIVISOR_DEV_UART_H
#define TRIVISOR_DEV_UART_H

#include "dev/device.h"
#include "ui/chardev.h"

struct uart;

/* Claims eight ports from `base` (COM1: 0x3f8, IRQ 4). `line` may be NULL: nothing is connected.
 * The back end is closed before the UART is destroyed. */
struct uart *uart_create(struct device_env *env, uint16_t base, struct irq_line irq,
                         struct chardev *line);

#endif
