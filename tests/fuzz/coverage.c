#include "coverage.h"

#include <string.h>

#define EDGES  (1u << 16)
#define UNSEEN __attribute__((no_sanitize_coverage, no_sanitize("address", "undefined")))

/* The compiler's interface. */
void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_cmp1(uint8_t a, uint8_t b);
void __sanitizer_cov_trace_cmp2(uint16_t a, uint16_t b);
void __sanitizer_cov_trace_cmp4(uint32_t a, uint32_t b);
void __sanitizer_cov_trace_cmp8(uint64_t a, uint64_t b);
void __sanitizer_cov_trace_const_cmp1(uint8_t a, uint8_t b);
void __sanitizer_cov_trace_const_cmp2(uint16_t a, uint16_t b);
void __sanitizer_cov_trace_const_cmp4(uint32_t a, uint32_t b);
void __sanitizer_cov_trace_const_cmp8(uint64_t a, uint64_t b);
void __sanitizer_cov_trace_cmpf(float a, float b);
void __sanitizer_cov_trace_cmpd(double a, double b);
void __sanitizer_cov_trace_switch(uint64_t value, void *list);

static bool tracing;
static uint8_t hits[EDGES], seen[EDGES];
static uint32_t previous;
static unsigned edges;
static struct comparison compared[COMPARISONS];
static unsigned compared_count;

UNSEEN void __sanitizer_cov_trace_pc(void)
{
    if (!tracing)
        return;
    uint64_t pc = (uint64_t)(uintptr_t)__builtin_return_address(0);
    uint32_t here = (uint32_t)((pc * 0x9e3779b97f4a7c15u) >> 48);
    uint8_t *at = &hits[here ^ previous];
    *at = (uint8_t)(*at + (*at != 0xff));
    previous = here >> 1;
}

static inline UNSEEN void note(uint64_t a, uint64_t b, unsigned size)
{
    if (tracing && a != b)
        compared[compared_count++ % COMPARISONS] = (struct comparison){a, b, size};
}

#define COMPARE(name, type)                                                                        \
    UNSEEN void __sanitizer_cov_trace_##name(type a, type b)                                       \
    {                                                                                              \
        note(a, b, sizeof(type));                                                                  \
    }
COMPARE(cmp1, uint8_t)
COMPARE(cmp2, uint16_t)
COMPARE(cmp4, uint32_t)
COMPARE(cmp8, uint64_t)
COMPARE(const_cmp1, uint8_t)
COMPARE(const_cmp2, uint16_t)
COMPARE(const_cmp4, uint32_t)
COMPARE(const_cmp8, uint64_t)

UNSEEN void __sanitizer_cov_trace_cmpf(float a, float b)
{
}

UNSEEN void __sanitizer_cov_trace_cmpd(double a, double b)
{
}

UNSEEN void __sanitizer_cov_trace_switch(uint64_t value, void *list)
{
    const uint64_t *cases = list;
    /* The number of cases, the bits of the value, the cases. One of them, another each time. */
    if (cases[0])
        note(cases[2 + compared_count % cases[0]], value, (unsigned)cases[1] / 8);
}

UNSEEN void coverage_start(void)
{
    memset(hits, 0, sizeof hits);
    previous = 0;
    tracing = true;
}

/* Counts that are told apart: 1, 2, 3, 4.., 8.., 16.., 32.., 128.. */
static UNSEEN uint8_t class_of(uint8_t count)
{
    if (count <= 3)
        return (uint8_t)(1u << (count - 1));
    return count < 8 ? 8 : count < 16 ? 16 : count < 32 ? 32 : count < 128 ? 64 : 128;
}

UNSEEN bool coverage_stop(void)
{
    bool news = false;
    tracing = false;
    for (unsigned i = 0; i < EDGES; i += 8) {
        uint64_t word;
        memcpy(&word, hits + i, 8);
        for (unsigned n = i; word; n++, word >>= 8)
            if (word & 0xff) {
                uint8_t class = class_of((uint8_t)word);
                edges += !seen[n];
                news |= class & ~seen[n];
                seen[n] |= class;
            }
    }
    return news;
}

unsigned coverage_edges(void)
{
    return edges;
}

const uint8_t *coverage_hits(void)
{
    return hits;
}

bool coverage_comparison(unsigned i, struct comparison *c)
{
    if (i >= compared_count)
        return false;
    *c = compared[i];
    return true;
}
