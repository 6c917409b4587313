/*
 * Split rings. All of them lie in guest memory, and other vCPUs write there meanwhile: every value
 * is read once, checked, and used as it was read.
 */
#include <string.h>

#include "dev/virtio.h"
#include "util/util.h"

#define DESCRIPTOR_SIZE    16
#define DESC_NEXT          1
#define DESC_WRITE         2
#define DESC_INDIRECT      4
#define AVAIL_NO_INTERRUPT 1

#define NEEDS_RESET        0x40
#define DRIVER_OK          4
#define ISR_CONFIG         2
#define ISR_QUEUE          1
#define INDIRECT_MAX       1024 /* descriptors in an indirect table */

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};

static void raise(struct virtio_device *dev, uint8_t isr, uint16_t vector)
{
    dev->isr |= isr;
    if (!pci_uses_messages(&dev->pci))
        pci_set_intx(&dev->pci, true);
    else if (vector != 0xffff)
        pci_notify(&dev->pci, vector);
}

void virtio_broken(struct virtio_device *dev, const char *what)
{
    if (log_on(dev->env->log, LOG_DEV))
        log_write(dev->env->log, LOG_DEV, "%s: the driver gave %s; stopped until reset",
                  dev->pci.name, what);
    if (dev->status & NEEDS_RESET)
        return;
    dev->status |= NEEDS_RESET;
    if (dev->status & DRIVER_OK)
        raise(dev, ISR_CONFIG, dev->config_vector);
}

/* Host address of `offset` in a ring, aligned as the ring must be; NULL: the device is broken now.
 */
static void *ring(struct virtio_device *dev, uint64_t base, uint64_t align, uint64_t size,
                  bool write)
{
    uint8_t *host = NULL;
    if (base % align == 0)
        host = write ? physmem_host_write(dev->env->mem, base, size)
                     : physmem_host(dev->env->mem, base, size);
    if (!host)
        virtio_broken(dev, "a ring that is not in memory");
    return host;
}

/* flags, index, ring[size], used_event */
static uint16_t *available(struct virtio_device *dev, unsigned queue)
{
    return ring(dev, dev->available[queue], 2, 6 + 2 * (uint64_t)dev->size[queue], false);
}

/* flags, index, {id, length}[size], avail_event */
static uint16_t *used(struct virtio_device *dev, unsigned queue)
{
    return ring(dev, dev->used[queue], 4, 6 + 8 * (uint64_t)dev->size[queue], true);
}

static bool add_buffer(struct virtio_device *dev, struct virtio_chain *chain,
                       const struct descriptor *d)
{
    bool write = d->flags & DESC_WRITE;
    if (!write && chain->in_count) {
        virtio_broken(dev, "a buffer to read after one to write");
        return false;
    }
    if (!d->length)
        return true;
    uint8_t *host = write ? physmem_host_write(dev->env->mem, d->address, d->length)
                          : physmem_host(dev->env->mem, d->address, d->length);
    unsigned count = chain->out_count + chain->in_count;
    if (!host || count == VIRTIO_CHAIN_MAX) {
        virtio_broken(dev, host ? "too many buffers in a chain" : "a buffer that is not in memory");
        return false;
    }
    chain->iov[count] = (struct iovec){host, d->length};
    if (write)
        chain->in_count++;
    else
        chain->out_count++;
    return true;
}

/* Follow a chain from `at` in a table of `count`; `*indirect` takes a reference to another table.
 */
static bool walk(struct virtio_device *dev, struct virtio_chain *chain, const uint8_t *table,
                 unsigned count, unsigned at, struct descriptor *indirect)
{
    for (unsigned steps = 0; steps < count; steps++) {
        struct descriptor d;
        if (at >= count)
            break;
        memcpy(&d, table + (size_t)at * DESCRIPTOR_SIZE, sizeof d);
        if (d.flags & DESC_INDIRECT) {
            if (!indirect || (d.flags & DESC_NEXT) || !virtio_has(dev, VIRTIO_F_INDIRECT))
                break;
            *indirect = d;
            return true;
        }
        if (!add_buffer(dev, chain, &d))
            return false;
        if (!(d.flags & DESC_NEXT))
            return true;
        at = d.next;
    }
    virtio_broken(dev, "a chain that has no end or leaves its table");
    return false;
}

static bool get_chain(struct virtio_device *dev, unsigned queue, struct virtio_chain *chain)
{
    unsigned size = dev->size[queue];
    const uint8_t *table = ring(dev, dev->descriptors[queue], 16, size * DESCRIPTOR_SIZE, false);
    struct descriptor indirect = {0};
    chain->out_count = chain->in_count = 0;
    if (!table || !walk(dev, chain, table, size, chain->head, &indirect))
        return false;
    if (!(indirect.flags & DESC_INDIRECT))
        return true;
    unsigned count = indirect.length / DESCRIPTOR_SIZE;
    if (indirect.length % DESCRIPTOR_SIZE || !count || count > INDIRECT_MAX) {
        virtio_broken(dev, "an indirect table of an impossible size");
        return false;
    }
    table = physmem_host(dev->env->mem, indirect.address, indirect.length);
    if (!table) {
        virtio_broken(dev, "an indirect table that is not in memory");
        return false;
    }
    return walk(dev, chain, table, count, 0, NULL);
}

/* Is there an entry? With event indexes, ask to be told of the next one, then look again. */
static bool something_there(struct virtio_device *dev, unsigned queue, const uint16_t *avail)
{
    uint16_t next = dev->next_available[queue];
    if (__atomic_load_n(&avail[1], __ATOMIC_ACQUIRE) != next)
        return true;
    if (!virtio_has(dev, VIRTIO_F_EVENT_INDEX))
        return false;
    uint16_t *u = used(dev, queue);
    if (!u)
        return false;
    uint16_t *event = u + 2 + 4 * dev->size[queue];
    __atomic_store_n(event, next, __ATOMIC_SEQ_CST);
    physmem_written(dev->env->mem, event, sizeof *event);
    return __atomic_load_n(&avail[1], __ATOMIC_SEQ_CST) != next;
}

bool virtio_pop(struct virtio_device *dev, unsigned queue, struct virtio_chain *chain)
{
    if (!dev->enabled[queue] || (dev->status & (DRIVER_OK | NEEDS_RESET)) != DRIVER_OK)
        return false;
    const uint16_t *avail = available(dev, queue);
    if (!avail || !something_there(dev, queue, avail))
        return false;
    unsigned size = dev->size[queue];
    uint16_t next = dev->next_available[queue];
    uint16_t ahead = __atomic_load_n(&avail[1], __ATOMIC_ACQUIRE) - next;
    if (ahead > size || dev->taken[queue] >= size) {
        virtio_broken(dev, "more chains than a queue has entries");
        return false;
    }
    chain->head = __atomic_load_n(&avail[2 + next % size], __ATOMIC_RELAXED);
    if (!get_chain(dev, queue, chain))
        return false;
    dev->next_available[queue] = next + 1;
    dev->taken[queue]++;
    return true;
}

void virtio_push(struct virtio_device *dev, unsigned queue, uint16_t head, uint32_t written)
{
    if (dev->taken[queue])
        dev->taken[queue]--;
    if (!dev->enabled[queue] || (dev->status & NEEDS_RESET))
        return;
    uint16_t *u = used(dev, queue);
    if (!u)
        return;
    const uint32_t entry[2] = {head, written};
    uint16_t *slot = u + 2 + 4 * (dev->next_used[queue] % dev->size[queue]);
    memcpy(slot, entry, sizeof entry);
    physmem_written(dev->env->mem, slot, sizeof entry);
    dev->next_used[queue]++;
    __atomic_store_n(&u[1], dev->next_used[queue], __ATOMIC_RELEASE);
    physmem_written(dev->env->mem, &u[1], sizeof u[1]);
}

void virtio_interrupt(struct virtio_device *dev, unsigned queue)
{
    if (!dev->enabled[queue] || (dev->status & (DRIVER_OK | NEEDS_RESET)) != DRIVER_OK)
        return;
    const uint16_t *avail = available(dev, queue);
    if (!avail)
        return;
    uint16_t now = dev->next_used[queue], before = dev->told_used[queue];
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* our index is out before we look at the wish */
    bool wanted;
    if (virtio_has(dev, VIRTIO_F_EVENT_INDEX)) {
        uint16_t event = __atomic_load_n(&avail[2 + dev->size[queue]], __ATOMIC_RELAXED);
        wanted = (uint16_t)(now - event - 1) < (uint16_t)(now - before);
    } else {
        wanted =
            now != before && !(__atomic_load_n(&avail[0], __ATOMIC_RELAXED) & AVAIL_NO_INTERRUPT);
    }
    dev->told_used[queue] = now;
    if (wanted)
        raise(dev, ISR_QUEUE, dev->vector[queue]);
}
