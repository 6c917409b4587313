/*
 * Comparing with the processor: random instruction sequences run natively in a sandboxed process
 * and in an engine, from the same state; everything that ring 3 can see must be equal afterwards.
 *
 *   gen.c     makes sequences
 *   native.c  a program of its own: runs a batch of sequences on the bare processor
 *   guest.c   runs one sequence in the interpreter on a machine with the same address space
 *   main.c    compares, shrinks, reports
 *
 * 16-bit code runs in segments that begin at CODE_BASE and DATA_BASE.
 *
 * The address space, the same on both sides; nothing else is mapped below 4 GiB:
 *   CODE_BASE  two pages of code, DATA_BASE  two pages of data and stack
 */
#ifndef TRIVISOR_TESTS_DIFF_H
#define TRIVISOR_TESTS_DIFF_H

#include <stdbool.h>
#include <stdint.h>

#define CODE_BASE       0x30000000u
#define CODE_SIZE       0x2000u
#define DATA_BASE       0x10000000u
#define DATA_SIZE       0x2000u

#define SEQUENCE_MAX    24  /* instructions */
#define CODE_MAX        400 /* bytes, with the INT3 at the end */
#define BATCH           128

/* In the local descriptor table of the native side. */
#define SELECTOR_CODE16 0x07
#define SELECTOR_DATA16 0x0f

/* The selectors that Linux gives a program; the guest's GDT has the same. */
#define SELECTOR_CODE32 0x23
#define SELECTOR_DATA   0x2b
#define SELECTOR_CODE64 0x33

struct state {
    uint64_t gpr[16];
    uint64_t rip, rflags;
    uint8_t zmm[32][64];
    uint64_t k[8];
    uint8_t st[8][16];
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged */
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr;
    /* How it ended. */
    uint32_t vector;
    uint32_t error;
    uint64_t cr2;
};

struct test {
    uint8_t bits;    /* 64, 32 or 16 */
    uint16_t start;  /* offset of the first instruction in the code pages */
    uint16_t length; /* bytes of code */
    uint8_t count;   /* instructions, without the INT3 */
    uint8_t lengths[SEQUENCE_MAX];
    uint8_t code[CODE_MAX];
    uint64_t data_seed; /* what the data pages hold at first */
    struct state before;
};

struct outcome {
    bool done;
    struct state after;
    uint8_t data[DATA_SIZE];
};

/* What the two processes share. */
struct batch {
    uint32_t count;
    _Atomic uint32_t running; /* index of the test under way: who died, if the child dies */
    struct test tests[BATCH];
    struct outcome outcomes[BATCH];
};

/* xorshift64*: small, seeded, good enough. */
static inline uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    return *seed * UINT64_C(2685821657736338717);
}

/* The initial contents of the data pages. */
static inline void fill_data(uint8_t *data, uint64_t seed)
{
    for (unsigned i = 0; i < DATA_SIZE; i += 8) {
        uint64_t value = next_random(&seed);
        __builtin_memcpy(data + i, &value, 8);
    }
}

/* gen.c. `only`: a mnemonic that every instruction must have, or NULL. */
struct generator;
/* `bits`: 64, 32, 16, or the sum of those that may come up. */
struct generator *generator_create(uint64_t seed, const char *only, unsigned bits);
void generator_destroy(struct generator *g);
void generate(struct generator *g, struct test *test);
/* Rebuild a test without instruction `index`. */
void remove_instruction(struct test *test, unsigned index);

/* guest.c */
struct guest;
/* `engine`: interp or bt; `bt_off`: enum bt_option. */
struct guest *guest_create(const char *engine, uint32_t bt_off);
void guest_destroy(struct guest *g);
void guest_run(struct guest *g, const struct test *test, struct outcome *outcome);

#endif
