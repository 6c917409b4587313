/* XSAVE components: where they lie in the standard format, and images of them (SDM vol. 1, chapter
 * 13). */
#ifndef TRIVISOR_CPU_XSTATE_H
#define TRIVISOR_CPU_XSTATE_H

#include "cpu/cpu.h"

struct xstate_component {
    uint32_t offset, size; /* in the standard format */
    bool aligned;          /* to 64 bytes in the compacted format */
};

/* Component 0..9; size 0: unknown on this host. Offsets are the host's, so that KVM's images agree.
 */
const struct xstate_component *xstate_component(unsigned number);
/* Components that this host has (bits of XCR0). */
uint64_t xstate_host_mask(void);
/* Bytes of a standard-format image for the components in `xcr0`. */
size_t xstate_size(uint64_t xcr0);

/* One component between struct vcpu and its place in an image. X87 covers the legacy area without
 * XMM and MXCSR. */
void xstate_put(const struct vcpu *cpu, unsigned component, void *to);
void xstate_get(struct vcpu *cpu, unsigned component, const void *from);
void xstate_init(struct vcpu *cpu, unsigned component);
/* Is the component in its initial state? */
bool xstate_is_initial(const struct vcpu *cpu, unsigned component);

/* A whole standard-format image with header, for the components in `mask`. The image has
 * xstate_size(mask) bytes. */
void xstate_save(const struct vcpu *cpu, void *image, uint64_t mask);
/* The reverse; components that XSTATE_BV leaves out become initial. -1: a malformed header or too
 * short. */
int xstate_load(struct vcpu *cpu, const void *image, size_t size);

#define XSAVE_HEADER     512
#define XSAVE_AREA_START 576

#endif
