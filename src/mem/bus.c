#include "mem/bus.h"

#include <string.h>

#include "util/util.h"

void bus_init(struct bus *bus, pthread_mutex_t *lock)
{
    memset(bus, 0, sizeof *bus);
    bus->lock = lock;
}

/* Index of the first range that ends after `addr`; bus->count if there is none. */
static unsigned find(const struct bus *bus, uint64_t addr)
{
    unsigned low = 0, high = bus->count;
    while (low < high) {
        unsigned mid = (low + high) / 2;
        const struct bus_range *r = &bus->ranges[mid];
        if (r->base + (r->size - 1) < addr)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

bool bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct io_ops *ops, void *device,
             const char *name)
{
    if (bus->count == BUS_RANGES_MAX || size == 0)
        return false;
    unsigned at = find(bus, base);
    if (at < bus->count && bus->ranges[at].base <= base + (size - 1))
        return false;
    memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->count - at) * sizeof bus->ranges[0]);
    bus->ranges[at] = (struct bus_range){base, size, ops, device, name};
    bus->count++;
    return true;
}

void bus_remove(struct bus *bus, uint64_t base)
{
    unsigned at = find(bus, base);
    if (at == bus->count || bus->ranges[at].base != base)
        return;
    bus->count--;
    memmove(&bus->ranges[at], &bus->ranges[at + 1], (bus->count - at) * sizeof bus->ranges[0]);
}

/* The range that holds all of [addr, addr+size), or NULL. */
static const struct bus_range *range_of(const struct bus *bus, uint64_t addr, unsigned size)
{
    unsigned at = find(bus, addr);
    if (at == bus->count)
        return NULL;
    const struct bus_range *r = &bus->ranges[at];
    if (addr < r->base || size > r->size || addr - r->base > r->size - size)
        return NULL;
    return r;
}

static uint64_t read_locked(struct bus *bus, uint64_t addr, unsigned size)
{
    const struct bus_range *r = range_of(bus, addr, size);
    if (r && (r->ops->max_size == 0 || size <= r->ops->max_size))
        return r->ops->read(r->device, addr - r->base, size) & bytes_mask(size);
    if (size == 1)
        return 0xff;
    /* Wider than the device or across a range's end: the chipset splits it. */
    unsigned half = size / 2;
    uint64_t low = read_locked(bus, addr, half);
    return low | read_locked(bus, addr + half, half) << (half * 8);
}

static void write_locked(struct bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
    const struct bus_range *r = range_of(bus, addr, size);
    if (r && (r->ops->max_size == 0 || size <= r->ops->max_size)) {
        r->ops->write(r->device, addr - r->base, size, value & bytes_mask(size));
        return;
    }
    if (size == 1)
        return;
    unsigned half = size / 2;
    write_locked(bus, addr, half, value & bytes_mask(half));
    write_locked(bus, addr + half, half, value >> (half * 8));
}

uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size)
{
    pthread_mutex_lock(bus->lock);
    uint64_t value = read_locked(bus, addr, size);
    pthread_mutex_unlock(bus->lock);
    return value;
}

void bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
    pthread_mutex_lock(bus->lock);
    write_locked(bus, addr, size, value);
    pthread_mutex_unlock(bus->lock);
}
