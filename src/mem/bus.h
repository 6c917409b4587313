/*
 * An address space of device registers: the port I/O space and the memory-mapped one are each a
 * bus. A bus is a table of ranges; a range belongs to a device's struct io_ops. Unclaimed addresses
 * read as all ones and swallow writes, as on a PC.
 */
#ifndef TRIVISOR_MEM_BUS_H
#define TRIVISOR_MEM_BUS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct io_ops {
    /* `offset` from the start of the range; `size` 1, 2, 4 or 8; an access never leaves the range.
     */
    uint64_t (*read)(void *device, uint64_t offset, unsigned size);
    void (*write)(void *device, uint64_t offset, unsigned size, uint64_t value);
    /* Access sizes that the device takes; wider ones are split, low address first. 0: any up to 8.
     */
    uint8_t max_size;
};

#define BUS_RANGES_MAX 128

struct bus_range {
    uint64_t base, size;
    const struct io_ops *ops;
    void *device;
    const char *name;
};

struct bus {
    struct bus_range ranges[BUS_RANGES_MAX]; /* sorted by base, no overlap */
    unsigned count;
    pthread_mutex_t *lock; /* the machine's device lock: held during every access and change */
};

void bus_init(struct bus *bus, pthread_mutex_t *lock);

/*
 * Claim [base, base+size). Returns false if it overlaps another range or the table is full. The
 * caller holds the lock, or no vCPU runs yet.
 */
bool bus_add(struct bus *bus, uint64_t base, uint64_t size, const struct io_ops *ops, void *device,
             const char *name);
/* Give up the range that starts at `base`. The same locking. */
void bus_remove(struct bus *bus, uint64_t base);

/* Carry out one access, taking the lock. `size` is 1, 2, 4 or 8; the value is zero-extended. */
uint64_t bus_read(struct bus *bus, uint64_t addr, unsigned size);
void bus_write(struct bus *bus, uint64_t addr, unsigned size, uint64_t value);

#endif
