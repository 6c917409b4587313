#include "dev/virtio_rng.h"

#include <stdlib.h>
#include <sys/random.h>

#include "dev/virtio.h"
#include "util/util.h"

#define CHUNK_MAX 4096 /* bytes of an answer */

struct virtio_rng {
    struct virtio_device virtio;
    struct virtio_chain chain;
};

/* Fill what the chain has room for, up to CHUNK_MAX. Returns the bytes written. */
static uint32_t fill(struct virtio_device *dev, const struct virtio_chain *chain)
{
    uint32_t done = 0;
    for (unsigned i = 0; i < chain->in_count && done < CHUNK_MAX; i++) {
        const struct iovec *to = &virtio_in(chain)[i];
        ssize_t got = getrandom(to->iov_base, MIN(to->iov_len, (size_t)(CHUNK_MAX - done)), 0);
        if (got <= 0)
            break;
        physmem_written(dev->env->mem, to->iov_base, (uint64_t)got);
        done += (uint32_t)got;
    }
    return done;
}

static void rng_notify(struct virtio_device *dev, unsigned queue)
{
    struct virtio_rng *rng = container_of(dev, struct virtio_rng, virtio);
    while (virtio_pop(dev, queue, &rng->chain))
        virtio_push(dev, queue, rng->chain.head, fill(dev, &rng->chain));
    virtio_interrupt(dev, queue);
}

static const struct virtio_ops rng_ops = {
    .identity = {.name = "virtio-rng",
                 .vendor = 0x1af4,
                 .device = 0x1005,
                 .class_code = 0x00ff00,
                 .subsystem_vendor = 0x1af4,
                 .subsystem = 4,
                 .interrupt_pin = 1},
    .queues = 1,
    .notify = rng_notify,
};

static const struct state_field fields[] = {VIRTIO_DEVICE_STATE(struct virtio_rng, virtio)};

static void after_reset(void *opaque)
{
    struct virtio_rng *rng = opaque;
    virtio_reset(&rng->virtio);
}

static void after_load(void *opaque)
{
    struct virtio_rng *rng = opaque;
    virtio_loaded(&rng->virtio);
}

static const struct state_table table = {
    .name = "virtio-rng",
    .version = 1,
    .size = sizeof(struct virtio_rng),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

struct virtio_rng *virtio_rng_create(struct device_env *env, struct pci_bus *bus, unsigned devfn)
{
    struct virtio_rng *rng = calloc(1, sizeof *rng);
    if (!rng)
        return NULL;
    virtio_init(&rng->virtio, env, bus, devfn, &rng_ops);
    device_register(env, &table, rng, free);
    return rng;
}
