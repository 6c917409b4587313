/*
 * Virtio over PCI, version 1.0 and later with the legacy interface beside it ("transitional"),
 * split rings.
 *
 * A device embeds a struct virtio_device, calls virtio_init() with its ops, fills in `config`, and
 * registers a state table with VIRTIO_DEVICE_STATE whose after_reset and after_load call
 * virtio_reset() and virtio_loaded(). When the driver has put something into a queue, notify()
 * takes chains of buffers with virtio_pop() until there are none, and gives each back, now or
 * later, with virtio_push(), then virtio_interrupt() once.
 *
 *   BAR 0  I/O     legacy registers
 *   BAR 1  memory  MSI-X
 *   BAR 4  memory  common configuration, ISR, device configuration, notifications: a page each
 */
#ifndef TRIVISOR_DEV_VIRTIO_H
#define TRIVISOR_DEV_VIRTIO_H

#include <sys/uio.h>

#include "dev/pci.h"

#define VIRTIO_QUEUES_MAX    16
#define VIRTIO_QUEUE_SIZE    512
#define VIRTIO_CHAIN_MAX     514 /* buffers in a chain: what a queue has, a head and a tail */
#define VIRTIO_CONFIG_SIZE   64

#define VIRTIO_F_ANY_LAYOUT  27
#define VIRTIO_F_INDIRECT    28
#define VIRTIO_F_EVENT_INDEX 29
#define VIRTIO_F_VERSION_1   32

struct virtio_device;

struct virtio_ops {
    struct pci_identity identity;
    uint64_t features; /* of the kind of device; those of the transport are added */
    unsigned queues;   /* unless the device says another number */
    unsigned config_size;
    /* The driver has put something into the queue. */
    void (*notify)(struct virtio_device *dev, unsigned queue);
    /* The driver wrote a byte of `config`; may be NULL: nothing can be written. */
    void (*config_write)(struct virtio_device *dev, unsigned offset, uint8_t value);
    /* The driver resets the device: wait for what is under way, which must push nothing more. May
     * be NULL. */
    void (*reset)(struct virtio_device *dev);
};

struct virtio_device {
    struct pci_device pci;
    struct device_env *env;
    const struct virtio_ops *ops;
    uint64_t features; /* offered */
    unsigned queues;   /* set before virtio_init(); 0 there: as ops says */
    uint8_t config[VIRTIO_CONFIG_SIZE];
    uint32_t generation; /* of the device's life between two resets */

    uint64_t driver_features; /* accepted */
    uint32_t feature_select, driver_feature_select;
    uint8_t status, isr;
    uint16_t queue_select, config_vector;
    bool legacy; /* driven through the legacy interface since the last reset */
    /* By queue. */
    bool enabled[VIRTIO_QUEUES_MAX];
    uint16_t size[VIRTIO_QUEUES_MAX], vector[VIRTIO_QUEUES_MAX];
    uint64_t descriptors[VIRTIO_QUEUES_MAX], available[VIRTIO_QUEUES_MAX], used[VIRTIO_QUEUES_MAX];
    uint16_t next_available[VIRTIO_QUEUES_MAX], next_used[VIRTIO_QUEUES_MAX];
    uint16_t told_used[VIRTIO_QUEUES_MAX]; /* next_used at the last interrupt that was considered */
    uint16_t taken[VIRTIO_QUEUES_MAX];     /* chains popped and not pushed yet */
};

#define VIRTIO_DEVICE_STATE(type, member)                                                          \
    PCI_DEVICE_STATE(type, member.pci), STATE(type, member.driver_features, 0),                    \
        STATE(type, member.feature_select, 0), STATE(type, member.driver_feature_select, 0),       \
        STATE(type, member.status, 0), STATE(type, member.isr, 0),                                 \
        STATE(type, member.queue_select, 0), STATE(type, member.config_vector, 0xffff),            \
        STATE(type, member.legacy, 0), STATE_ARRAY(type, member.enabled, 0),                       \
        STATE_ARRAY(type, member.size, VIRTIO_QUEUE_SIZE),                                         \
        STATE_ARRAY(type, member.vector, 0xffff), STATE_ARRAY(type, member.descriptors, 0),        \
        STATE_ARRAY(type, member.available, 0), STATE_ARRAY(type, member.used, 0),                 \
        STATE_ARRAY(type, member.next_available, 0), STATE_ARRAY(type, member.next_used, 0),       \
        STATE_ARRAY(type, member.told_used, 0), STATE_ARRAY(type, member.taken, 0)

/* A chain of buffers: what the device reads, then what it writes. */
struct virtio_chain {
    uint16_t head;
    unsigned out_count, in_count;
    struct iovec iov[VIRTIO_CHAIN_MAX];
};

static inline const struct iovec *virtio_in(const struct virtio_chain *chain)
{
    return chain->iov + chain->out_count;
}

void virtio_init(struct virtio_device *dev, struct device_env *env, struct pci_bus *bus,
                 unsigned devfn, const struct virtio_ops *ops);
void virtio_reset(struct virtio_device *dev);
void virtio_loaded(struct virtio_device *dev);
static inline bool virtio_has(const struct virtio_device *dev, unsigned feature)
{
    return dev->driver_features >> feature & 1;
}

/* All with the device lock held. */

/*
 * The next chain. False: none, or the driver has broken the rules, and the device has stopped until
 * it is reset.
 */
bool virtio_pop(struct virtio_device *dev, unsigned queue, struct virtio_chain *chain);
/* Give a chain back, `written` bytes of its in-buffers filled. */
void virtio_push(struct virtio_device *dev, unsigned queue, uint16_t head, uint32_t written);
/* Interrupt if the driver wants to hear of what was pushed since the last time. */
void virtio_interrupt(struct virtio_device *dev, unsigned queue);
/* The driver did something impossible: DEVICE_NEEDS_RESET. */
void virtio_broken(struct virtio_device *dev, const char *what);

#endif
