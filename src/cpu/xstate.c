#include "cpu/xstate.h"

#include <cpuid.h>
#include <pthread.h>
#include <string.h>

static struct xstate_component components[XSTATE_COMPONENTS];
static uint64_t host_mask;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* What we hold in struct fpu. */
#define KNOWN                                                                                      \
    (BIT64(XSTATE_X87) | BIT64(XSTATE_SSE) | BIT64(XSTATE_AVX) | BIT64(XSTATE_OPMASK) |            \
     BIT64(XSTATE_ZMM_HI256) | BIT64(XSTATE_HI16_ZMM) | BIT64(XSTATE_PKRU))

static void read_host(void)
{
    uint32_t a = 0, b, c = 0, d = 0;
    if (__get_cpuid_count(1, 0, &a, &b, &c, &d) && (c >> 27 & 1)) {
        __cpuid_count(0xd, 0, a, b, c, d);
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        host_mask = (low | (uint64_t)high << 32) & KNOWN;
    } else {
        host_mask = 3;
    }
    components[XSTATE_X87] = (struct xstate_component){0, 160, false};
    components[XSTATE_SSE] = (struct xstate_component){160, 256, false};
    uint32_t end = XSAVE_AREA_START;
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
        if (!(host_mask >> i & 1))
            continue;
        __cpuid_count(0xd, i, a, b, c, d);
        components[i] = (struct xstate_component){b, a, c >> 1 & 1};
        end = MAX(end, a + b);
    }
    if (!components[XSTATE_PKRU]
             .size) /* protection keys need nothing of the host: the next free place */
        components[XSTATE_PKRU] = (struct xstate_component){ALIGN_UP(end, 64u), 8, false};
}

const struct xstate_component *xstate_component(unsigned number)
{
    pthread_once(&once, read_host);
    return &components[number];
}

uint64_t xstate_host_mask(void)
{
    pthread_once(&once, read_host);
    return host_mask;
}

size_t xstate_size(uint64_t xcr0)
{
    size_t size = XSAVE_AREA_START;
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++)
        if (xcr0 >> i & 1)
            size = MAX(size, (size_t)xstate_component(i)->offset + xstate_component(i)->size);
    return size;
}

void xstate_put(const struct vcpu *cpu, unsigned component, void *to)
{
    const struct fpu *f = &cpu->fpu;
    uint8_t *p = to;
    switch (component) {
    case XSTATE_X87:
        memcpy(p, &f->fx, 24);
        memcpy(p + 32, f->fx.st, sizeof f->fx.st);
        break;
    case XSTATE_SSE:
        for (unsigned i = 0; i < 16; i++)
            memcpy(p + 16 * i, f->zmm[i], 16);
        break;
    case XSTATE_AVX:
        for (unsigned i = 0; i < 16; i++)
            memcpy(p + 16 * i, f->zmm[i] + 16, 16);
        break;
    case XSTATE_OPMASK:
        memcpy(p, f->k, sizeof f->k);
        break;
    case XSTATE_ZMM_HI256:
        for (unsigned i = 0; i < 16; i++)
            memcpy(p + 32 * i, f->zmm[i] + 32, 32);
        break;
    case XSTATE_HI16_ZMM:
        memcpy(p, f->zmm[16], 16 * 64);
        break;
    case XSTATE_PKRU:
        memset(p, 0, 8);
        memcpy(p, &f->pkru, 4);
        break;
    default:
        break;
    }
}

void xstate_get(struct vcpu *cpu, unsigned component, const void *from)
{
    struct fpu *f = &cpu->fpu;
    const uint8_t *p = from;
    switch (component) {
    case XSTATE_X87:
        memcpy(&f->fx, p, 24);
        memcpy(f->fx.st, p + 32, sizeof f->fx.st);
        f->fcs = f->fds = 0;
        break;
    case XSTATE_SSE:
        for (unsigned i = 0; i < 16; i++)
            memcpy(f->zmm[i], p + 16 * i, 16);
        break;
    case XSTATE_AVX:
        for (unsigned i = 0; i < 16; i++)
            memcpy(f->zmm[i] + 16, p + 16 * i, 16);
        break;
    case XSTATE_OPMASK:
        memcpy(f->k, p, sizeof f->k);
        break;
    case XSTATE_ZMM_HI256:
        for (unsigned i = 0; i < 16; i++)
            memcpy(f->zmm[i] + 32, p + 32 * i, 32);
        break;
    case XSTATE_HI16_ZMM:
        memcpy(f->zmm[16], p, 16 * 64);
        break;
    case XSTATE_PKRU:
        memcpy(&f->pkru, p, 4);
        break;
    default:
        break;
    }
}

void xstate_init(struct vcpu *cpu, unsigned component)
{
    static const uint8_t zero[1024];
    if (component == XSTATE_X87) {
        memset(&cpu->fpu.fx, 0, 24);
        memset(cpu->fpu.fx.st, 0, sizeof cpu->fpu.fx.st);
        cpu->fpu.fx.fcw = 0x37f;
        cpu->fpu.fcs = cpu->fpu.fds = 0;
    } else {
        xstate_get(cpu, component, zero);
    }
}

bool xstate_is_initial(const struct vcpu *cpu, unsigned component)
{
    static const uint8_t zero[1024];
    uint8_t image[1024] = {0};
    xstate_put(cpu, component, image);
    if (component != XSTATE_X87)
        return memcmp(image, zero, xstate_component(component)->size) == 0;
    static const uint8_t initial_fcw[2] = {0x7f, 0x03};
    return memcmp(image, initial_fcw, 2) == 0 && memcmp(image + 2, zero, 158) == 0;
}

void xstate_save(const struct vcpu *cpu, void *image, uint64_t mask)
{
    uint8_t *p = image;
    memset(p, 0, xstate_size(mask));
    for (unsigned i = 0; i < XSTATE_COMPONENTS; i++)
        if (mask >> i & 1)
            xstate_put(cpu, i, p + xstate_component(i)->offset);
    memcpy(p + 24, &cpu->fpu.fx.mxcsr, 4);
    memcpy(p + XSAVE_HEADER, &mask, 8);
}

int xstate_load(struct vcpu *cpu, const void *image, size_t size)
{
    const uint8_t *p = image;
    uint64_t header[8];
    if (size < XSAVE_AREA_START)
        return -1;
    memcpy(header, p + XSAVE_HEADER, sizeof header);
    for (unsigned i = 0; i < XSTATE_COMPONENTS; i++) {
        const struct xstate_component *c = xstate_component(i);
        if (!c->size || c->offset + c->size > size)
            continue;
        if (header[0] >> i & 1)
            xstate_get(cpu, i, p + c->offset);
        else
            xstate_init(cpu, i);
    }
    memcpy(&cpu->fpu.fx.mxcsr, p + 24, 4);
    return 0;
}
