/*
 * The two 8237A DMA controllers of a PC with their page registers: channels 0 to 3 move bytes, 5 to
 * 7 words; channel 4 cascades the first controller.
 *
 * A device asks with dma8237_request(), and moves data with dma8237_transfer() when it is told that
 * the channel can be served.
 */
#ifndef TRIVISOR_DEV_DMA8237_H
#define TRIVISOR_DEV_DMA8237_H

#include "dev/device.h"

#define DMA8237_CHANNELS 8

struct dma8237;

/* NULL: out of memory. */
struct dma8237 *dma8237_create(struct device_env *env);
/* The device on a channel; `ready` is called, device lock held, when the guest has opened the
 * channel while the device requests service. */
void dma8237_attach(struct dma8237 *dma, unsigned channel, void (*ready)(void *opaque),
                    void *opaque);
/* Drive DREQ. Calls nobody. */
void dma8237_request(struct dma8237 *dma, unsigned channel, bool level);
/*
 * Move up to `length` bytes (an even number on channels 5 to 7) between the device's buffer and the
 * memory that the channel points to. Returns the bytes moved: 0 if the channel is masked or set up
 * for the other direction. Sets `terminal` if the count ran out. Memory that is not there reads as
 * ones. A channel that only verifies moves nothing and counts all the same.
 */
uint32_t dma8237_transfer(struct dma8237 *dma, unsigned channel, void *buffer, uint32_t length,
                          bool to_memory, bool *terminal);

#endif
