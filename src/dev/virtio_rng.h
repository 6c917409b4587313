/* Virtio entropy device: the host's random numbers. */
#ifndef TRIVISOR_DEV_VIRTIO_RNG_H
#define TRIVISOR_DEV_VIRTIO_RNG_H

#include "dev/pci.h"

struct virtio_rng;

/* NULL: out of memory. */
struct virtio_rng *virtio_rng_create(struct device_env *env, struct pci_bus *bus, unsigned devfn);

#endif
