/* Two cascaded 8259A interrupt controllers: ports 0x20/0x21, 0xa0/0xa1, ELCR 0x4d0/0x4d1. */
#ifndef TRIVISOR_DEV_PIC_H
#define TRIVISOR_DEV_PIC_H

#include "dev/device.h"

struct pic;

/* `output`: the INTR pin of the master. */
struct pic *pic_create(struct device_env *env, struct irq_line output);
/* Input line `irq` 0..15 (2 is the cascade: ignored). `pic` is the struct pic: this is the `set` of
 * an irq_line. Device lock held. */
void pic_set_irq(void *pic, int irq, int level);
/* Interrupt acknowledge cycle: returns the vector. Without a request it is the spurious vector of
 * IRQ 7. `pic` is the struct pic. Device lock held. */
int pic_ack(void *pic);
/* Does `irq` ask for service, or would but for a better one, since it has not been acknowledged? */
bool pic_waits(const struct pic *pic, unsigned irq);
/* Who hears of each interrupt of the master's that was acknowledged. Device lock held. */
void pic_on_ack(struct pic *pic, void (*taken)(void *opaque, unsigned irq), void *opaque);

#endif
