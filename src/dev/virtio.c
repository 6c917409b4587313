#include "dev/virtio.h"

#include <string.h>

#include "util/util.h"

/* BAR 4: a page for each structure. */
#define MODERN_BAR         4
#define MODERN_SIZE        0x4000
#define PART_SIZE          0x1000
#define NOTIFY_MULTIPLIER  4
#define MSIX_BAR           1
#define LEGACY_BAR         0
#define LEGACY_SIZE        128
#define LEGACY_PAGE_SHIFT  12
#define CAP_VENDOR         0x09

#define STATUS_DRIVER_OK   0x04
#define STATUS_FEATURES_OK 0x08
#define STATUS_NEEDS_RESET 0x40
#define NO_VECTOR          0xffff

enum part { PART_COMMON, PART_ISR, PART_DEVICE, PART_NOTIFY };

/* The common configuration structure. */
enum common_register {
    COMMON_DEVICE_FEATURE_SELECT = 0,
    COMMON_DEVICE_FEATURE = 4,
    COMMON_DRIVER_FEATURE_SELECT = 8,
    COMMON_DRIVER_FEATURE = 12,
    COMMON_CONFIG_VECTOR = 16,
    COMMON_QUEUES = 18,
    COMMON_STATUS = 20,
    COMMON_GENERATION = 21,
    COMMON_QUEUE_SELECT = 22,
    COMMON_QUEUE_SIZE = 24,
    COMMON_QUEUE_VECTOR = 26,
    COMMON_QUEUE_ENABLE = 28,
    COMMON_QUEUE_NOTIFY_OFFSET = 30,
    COMMON_QUEUE_DESCRIPTORS = 32, /* 64 bits each, low half first */
    COMMON_QUEUE_AVAILABLE = 40,
    COMMON_QUEUE_USED = 48,
    COMMON_SIZE = 56,
};

enum legacy_register {
    LEGACY_DEVICE_FEATURES = 0,
    LEGACY_DRIVER_FEATURES = 4,
    LEGACY_QUEUE_PAGE = 8,
    LEGACY_QUEUE_SIZE = 12,
    LEGACY_QUEUE_SELECT = 14,
    LEGACY_NOTIFY = 16,
    LEGACY_STATUS = 18,
    LEGACY_ISR = 19,
    LEGACY_CONFIG_VECTOR = 20, /* these two only while MSI-X is on */
    LEGACY_QUEUE_VECTOR = 22,
};

/* ---- What both interfaces do ---- */

static void start_over(struct virtio_device *dev)
{
    dev->generation++;
    if (dev->ops->reset)
        dev->ops->reset(dev);
    dev->driver_features = 0;
    dev->feature_select = dev->driver_feature_select = 0;
    dev->status = dev->isr = 0;
    dev->queue_select = 0;
    dev->config_vector = NO_VECTOR;
    dev->legacy = false;
    for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++) {
        dev->enabled[q] = false;
        dev->size[q] = VIRTIO_QUEUE_SIZE;
        dev->vector[q] = NO_VECTOR;
        dev->descriptors[q] = dev->available[q] = dev->used[q] = 0;
        dev->next_available[q] = dev->next_used[q] = dev->told_used[q] = dev->taken[q] = 0;
    }
    pci_set_intx(&dev->pci, false);
}

static void set_status(struct virtio_device *dev, uint8_t value)
{
    if (value == 0) {
        start_over(dev);
        return;
    }
    value = (uint8_t)((value & ~STATUS_NEEDS_RESET) | (dev->status & STATUS_NEEDS_RESET));
    bool known = !(dev->driver_features & ~dev->features);
    bool modern = dev->legacy || virtio_has(dev, VIRTIO_F_VERSION_1);
    if (!(dev->status & STATUS_FEATURES_OK) && !(known && modern))
        value &= (uint8_t)~STATUS_FEATURES_OK;
    bool starts = (value & ~dev->status) & STATUS_DRIVER_OK;
    dev->status = value;
    if (!starts)
        return;
    for (unsigned q = 0; q < dev->queues; q++)
        if (dev->enabled[q])
            dev->ops->notify(dev, q);
}

static void notify(struct virtio_device *dev, unsigned queue)
{
    if (queue < dev->queues && dev->enabled[queue] && (dev->status & STATUS_DRIVER_OK))
        dev->ops->notify(dev, queue);
}

static uint8_t take_isr(struct virtio_device *dev)
{
    uint8_t isr = dev->isr;
    dev->isr = 0;
    pci_set_intx(&dev->pci, false);
    return isr;
}

static uint16_t valid_vector(const struct virtio_device *dev, uint16_t vector)
{
    return vector < dev->pci.msix_vectors ? vector : NO_VECTOR;
}

static void set_features(struct virtio_device *dev, unsigned half, uint32_t value)
{
    if (half > 1 || (dev->status & STATUS_FEATURES_OK))
        return;
    unsigned shift = 32 * half;
    dev->driver_features &= ~(UINT64_C(0xffffffff) << shift);
    dev->driver_features |= (uint64_t)value << shift;
}

static uint32_t read_config(const struct virtio_device *dev, uint64_t offset, unsigned size)
{
    uint32_t value = 0;
    if (offset + size <= dev->ops->config_size)
        memcpy(&value, dev->config + offset, size);
    return value;
}

static void write_config(struct virtio_device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        if (offset + i < dev->ops->config_size && dev->ops->config_write)
            dev->ops->config_write(dev, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

/* ---- Version 1 ---- */

static uint64_t read_queue_register(const struct virtio_device *dev, unsigned offset)
{
    unsigned q = dev->queue_select;
    if (q >= dev->queues)
        return 0; /* a size of 0: no such queue */
    switch (offset) {
    case COMMON_QUEUE_SIZE:
        return dev->size[q];
    case COMMON_QUEUE_VECTOR:
        return dev->vector[q];
    case COMMON_QUEUE_ENABLE:
        return dev->enabled[q];
    case COMMON_QUEUE_NOTIFY_OFFSET:
        return q;
    case COMMON_QUEUE_DESCRIPTORS:
        return (uint32_t)dev->descriptors[q];
    case COMMON_QUEUE_DESCRIPTORS + 4:
        return dev->descriptors[q] >> 32;
    case COMMON_QUEUE_AVAILABLE:
        return (uint32_t)dev->available[q];
    case COMMON_QUEUE_AVAILABLE + 4:
        return dev->available[q] >> 32;
    case COMMON_QUEUE_USED:
        return (uint32_t)dev->used[q];
    case COMMON_QUEUE_USED + 4:
        return dev->used[q] >> 32;
    default:
        return 0;
    }
}

static uint64_t read_common(const struct virtio_device *dev, unsigned offset)
{
    switch (offset) {
    case COMMON_DEVICE_FEATURE_SELECT:
        return dev->feature_select;
    case COMMON_DEVICE_FEATURE:
        return dev->feature_select < 2 ? (uint32_t)(dev->features >> (32 * dev->feature_select))
                                       : 0;
    case COMMON_DRIVER_FEATURE_SELECT:
        return dev->driver_feature_select;
    case COMMON_DRIVER_FEATURE:
        return dev->driver_feature_select < 2
                   ? (uint32_t)(dev->driver_features >> (32 * dev->driver_feature_select))
                   : 0;
    case COMMON_CONFIG_VECTOR:
        return dev->config_vector;
    case COMMON_QUEUES:
        return dev->queues;
    case COMMON_STATUS:
        return dev->status;
    case COMMON_GENERATION:
        return 0; /* the configuration changes by the driver's own writes alone */
    case COMMON_QUEUE_SELECT:
        return dev->queue_select;
    default:
        return read_queue_register(dev, offset);
    }
}

static void set_half(uint64_t *address, unsigned half, uint64_t value)
{
    uint64_t mask = UINT64_C(0xffffffff) << (32 * half);
    *address = (*address & ~mask) | (value << (32 * half) & mask);
}

static bool valid_size(uint64_t size)
{
    return size && size <= VIRTIO_QUEUE_SIZE && !(size & (size - 1));
}

static void write_queue_register(struct virtio_device *dev, unsigned offset, uint64_t value)
{
    unsigned q = dev->queue_select;
    if (q >= dev->queues)
        return;
    if (offset == COMMON_QUEUE_VECTOR) {
        dev->vector[q] = valid_vector(dev, (uint16_t)value);
        return;
    }
    if (dev->enabled[q]) /* what a queue is does not change under it */
        return;
    switch (offset) {
    case COMMON_QUEUE_SIZE:
        if (valid_size(value))
            dev->size[q] = (uint16_t)value;
        break;
    case COMMON_QUEUE_ENABLE:
        dev->enabled[q] = value == 1;
        break;
    case COMMON_QUEUE_DESCRIPTORS:
    case COMMON_QUEUE_DESCRIPTORS + 4:
        set_half(&dev->descriptors[q], (offset & 4) / 4, value);
        break;
    case COMMON_QUEUE_AVAILABLE:
    case COMMON_QUEUE_AVAILABLE + 4:
        set_half(&dev->available[q], (offset & 4) / 4, value);
        break;
    case COMMON_QUEUE_USED:
    case COMMON_QUEUE_USED + 4:
        set_half(&dev->used[q], (offset & 4) / 4, value);
        break;
    }
}

static void write_common(struct virtio_device *dev, unsigned offset, uint64_t value)
{
    switch (offset) {
    case COMMON_DEVICE_FEATURE_SELECT:
        dev->feature_select = (uint32_t)value;
        break;
    case COMMON_DRIVER_FEATURE_SELECT:
        dev->driver_feature_select = (uint32_t)value;
        break;
    case COMMON_DRIVER_FEATURE:
        set_features(dev, dev->driver_feature_select, (uint32_t)value);
        break;
    case COMMON_CONFIG_VECTOR:
        dev->config_vector = valid_vector(dev, (uint16_t)value);
        break;
    case COMMON_STATUS:
        set_status(dev, (uint8_t)value);
        break;
    case COMMON_QUEUE_SELECT:
        dev->queue_select = (uint16_t)value;
        break;
    default:
        write_queue_register(dev, offset, value);
        break;
    }
}

static uint64_t modern_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_device *dev = opaque;
    unsigned at = offset % PART_SIZE;
    switch ((enum part)(offset / PART_SIZE)) {
    case PART_COMMON:
        return at < COMMON_SIZE ? read_common(dev, at) & bytes_mask(size) : 0;
    case PART_ISR:
        return at == 0 ? take_isr(dev) : 0;
    case PART_DEVICE:
        return read_config(dev, at, size);
    case PART_NOTIFY:
        break;
    }
    return 0;
}

static void modern_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_device *dev = opaque;
    unsigned at = offset % PART_SIZE;
    switch ((enum part)(offset / PART_SIZE)) {
    case PART_COMMON:
        if (at < COMMON_SIZE)
            write_common(dev, at, value);
        break;
    case PART_ISR:
        break;
    case PART_DEVICE:
        write_config(dev, at, size, value);
        break;
    case PART_NOTIFY:
        notify(dev, at / NOTIFY_MULTIPLIER);
        break;
    }
}

static const struct io_ops modern_ops = {modern_read, modern_write, 4};

/* ---- Legacy ---- */

/* Where the device's own configuration starts. */
static unsigned legacy_config(const struct virtio_device *dev)
{
    return pci_uses_messages(&dev->pci) ? 24 : 20;
}

static uint64_t legacy_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_device *dev = opaque;
    unsigned q = dev->queue_select, config = legacy_config(dev);
    bool exists = q < dev->queues;
    if (offset >= config)
        return read_config(dev, offset - config, size);
    switch (offset) {
    case LEGACY_DEVICE_FEATURES:
        return (uint32_t)dev->features;
    case LEGACY_DRIVER_FEATURES:
        return (uint32_t)dev->driver_features;
    case LEGACY_QUEUE_PAGE:
        return exists && dev->enabled[q] ? dev->descriptors[q] >> LEGACY_PAGE_SHIFT : 0;
    case LEGACY_QUEUE_SIZE:
        return exists ? VIRTIO_QUEUE_SIZE : 0;
    case LEGACY_QUEUE_SELECT:
        return q;
    case LEGACY_STATUS:
        return dev->status;
    case LEGACY_ISR:
        return take_isr(dev);
    case LEGACY_CONFIG_VECTOR:
        return dev->config_vector;
    case LEGACY_QUEUE_VECTOR:
        return exists ? dev->vector[q] : NO_VECTOR;
    default:
        return 0;
    }
}

/* The page number says where all three parts of a ring of the fixed size are. 0 takes it away. */
static void set_queue_page(struct virtio_device *dev, unsigned q, uint32_t page)
{
    uint64_t base = (uint64_t)page << LEGACY_PAGE_SHIFT;
    if (!page) {
        start_over(dev);
        return;
    }
    if (dev->enabled[q])
        return;
    dev->size[q] = VIRTIO_QUEUE_SIZE;
    dev->descriptors[q] = base;
    dev->available[q] = base + VIRTIO_QUEUE_SIZE * 16;
    dev->used[q] = ALIGN_UP(dev->available[q] + 6 + 2 * VIRTIO_QUEUE_SIZE, PAGE_SIZE);
    dev->enabled[q] = true;
}

static void legacy_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_device *dev = opaque;
    unsigned q = dev->queue_select, config = legacy_config(dev);
    if (offset >= config) {
        write_config(dev, offset - config, size, value);
        return;
    }
    switch (offset) {
    case LEGACY_DRIVER_FEATURES:
        dev->legacy = true;
        dev->driver_features = (uint32_t)value & dev->features;
        break;
    case LEGACY_QUEUE_PAGE:
        dev->legacy = true;
        if (q < dev->queues)
            set_queue_page(dev, q, (uint32_t)value);
        break;
    case LEGACY_QUEUE_SELECT:
        dev->queue_select = (uint16_t)value;
        break;
    case LEGACY_NOTIFY:
        notify(dev, (uint16_t)value);
        break;
    case LEGACY_STATUS:
        dev->legacy = true;
        set_status(dev, (uint8_t)value);
        break;
    case LEGACY_CONFIG_VECTOR:
        dev->config_vector = valid_vector(dev, (uint16_t)value);
        break;
    case LEGACY_QUEUE_VECTOR:
        if (q < dev->queues)
            dev->vector[q] = valid_vector(dev, (uint16_t)value);
        break;
    }
}

static const struct io_ops legacy_ops = {legacy_read, legacy_write, 4};

/* ---- Making one ---- */

/* A vendor capability that tells where a structure is. */
static void add_structure(struct virtio_device *dev, uint8_t type, enum part part, uint32_t length)
{
    uint8_t size = part == PART_NOTIFY ? 20 : 16;
    unsigned cap = pci_add_capability(&dev->pci, CAP_VENDOR, size);
    if (!cap)
        return;
    uint8_t *c = dev->pci.config_reset + cap;
    const uint32_t where[3] = {(uint32_t)part * PART_SIZE, length, NOTIFY_MULTIPLIER};
    c[2] = size;
    c[3] = type;
    c[4] = MODERN_BAR;
    memcpy(c + 8, where, size - 8);
}

void virtio_init(struct virtio_device *dev, struct device_env *env, struct pci_bus *bus,
                 unsigned devfn, const struct virtio_ops *ops)
{
    dev->env = env;
    dev->ops = ops;
    if (!dev->queues)
        dev->queues = ops->queues;
    dev->features = ops->features | BIT64(VIRTIO_F_ANY_LAYOUT) | BIT64(VIRTIO_F_INDIRECT) |
                    BIT64(VIRTIO_F_EVENT_INDEX) | BIT64(VIRTIO_F_VERSION_1);
    pci_device_init(bus, &dev->pci, devfn, &ops->identity);
    dev->pci.wmask[PCI_COMMAND] |= PCI_COMMAND_MASTER;
    pci_add_bar(&dev->pci, LEGACY_BAR, true, LEGACY_SIZE, &legacy_ops, dev);
    pci_add_bar(&dev->pci, MODERN_BAR, false, MODERN_SIZE, &modern_ops, dev);
    add_structure(dev, 1, PART_COMMON, COMMON_SIZE);
    add_structure(dev, 2, PART_NOTIFY, dev->queues * NOTIFY_MULTIPLIER);
    add_structure(dev, 3, PART_ISR, 1);
    if (ops->config_size)
        add_structure(dev, 4, PART_DEVICE, ops->config_size);
    pci_add_msix(&dev->pci, MSIX_BAR, 1 + dev->queues);
}

void virtio_reset(struct virtio_device *dev)
{
    start_over(dev);
    pci_device_reset(&dev->pci);
}

void virtio_loaded(struct virtio_device *dev)
{
    for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
        if (!valid_size(dev->size[q])) {
            dev->size[q] = VIRTIO_QUEUE_SIZE;
            virtio_broken(dev, "a queue of an impossible size in its saved state");
        }
    pci_device_loaded(&dev->pci);
}
