/* An interrupt line: what frees every device from every interrupt controller. */
#ifndef TRIVISOR_DEV_IRQ_H
#define TRIVISOR_DEV_IRQ_H

struct irq_line {
    void (*set)(void *controller, int pin, int level);
    void *controller;
    int pin;
};

/* Drive the line to `level` (0 or 1). An unconnected line swallows it. The device lock is held. */
static inline void irq_set(const struct irq_line *line, int level)
{
    if (line->set)
        line->set(line->controller, line->pin, level);
}

/* A short pulse: what an edge-triggered input counts as one interrupt. */
static inline void irq_pulse(const struct irq_line *line)
{
    irq_set(line, 1);
    irq_set(line, 0);
}

#endif
