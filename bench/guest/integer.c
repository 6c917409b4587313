/* Integer code without system calls. */
#include "workload.h"

static void sieve(unsigned long n)
{
    enum { SIZE = 65536 };
    static uint8_t composite[SIZE];
    while (n--) {
        unsigned count = 0;
        memset(composite, 0, sizeof composite);
        for (unsigned i = 2; i < SIZE; i++) {
            if (composite[i])
                continue;
            count++;
            for (unsigned k = 2 * i; k < SIZE; k += i)
                composite[k] = 1;
        }
        sink += count;
    }
}

static void sort(uint32_t *a, long low, long high)
{
    while (low < high) {
        uint32_t pivot = a[(low + high) / 2];
        long i = low, j = high;
        while (i <= j) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i <= j) {
                uint32_t t = a[i];
                a[i++] = a[j];
                a[j--] = t;
            }
        }
        sort(a, low, j);
        low = i;
    }
}

static void quicksort(unsigned long n)
{
    enum { COUNT = 20000 };
    static uint32_t a[COUNT];
    uint32_t seed = 1;
    while (n--) {
        for (unsigned i = 0; i < COUNT; i++)
            a[i] = seed = seed * 1664525 + 1013904223;
        sort(a, 0, COUNT - 1);
        sink += a[COUNT / 2];
    }
}

static inline uint32_t rotate(uint32_t x, unsigned by)
{
    return x >> by | x << (32 - by);
}

static void rotates(unsigned long n)
{
    uint32_t s[8] = {1, 2, 3, 4, 5, 6, 7, 8}, w[64];
    while (n--) {
        for (unsigned i = 0; i < 16; i++)
            w[i] = s[i & 7] + i;
        for (unsigned i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18)) +
                   (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19));
        for (unsigned i = 0; i < 64; i++) {
            uint32_t t1 = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                          ((s[4] & s[5]) ^ (~s[4] & s[6])) + w[i] + 0x9e3779b9u;
            uint32_t t2 = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
                          ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
            memmove(s + 1, s, 7 * sizeof *s);
            s[4] += t1;
            s[0] = t1 + t2;
        }
    }
    sink += s[0];
}

static void crc(unsigned long n)
{
    static uint32_t table[256];
    static uint8_t data[16384];
    for (unsigned i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        table[i] = c;
    }
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    while (n--) {
        uint32_t c = ~0u;
        for (unsigned i = 0; i < sizeof data; i++)
            c = table[(c ^ data[i]) & 255] ^ c >> 8;
        sink += c;
    }
}

static void chase(unsigned long n)
{
    enum { NODES = 1 << 14 }; /* of one cache line each: 1 MiB */
    static struct node {
        struct node *next;
        uint8_t pad[56];
    } nodes[NODES];
    unsigned at = 0;
    for (unsigned i = 0; i < NODES; i++) {
        unsigned to = (at * 5 + 12345) & (NODES - 1);
        nodes[at].next = &nodes[to];
        at = to;
    }
    struct node *p = nodes;
    while (n--)
        for (unsigned i = 0; i < NODES; i++)
            p = p->next;
    sink += (uint64_t)(p - nodes);
}

/* A machine with an accumulator and a counter: one indirect branch for each of its instructions. */
static void bytecode(unsigned long n)
{
    enum { ADD, XOR, SHIFT, MUL, STORE, LOAD, DEC, LOOP, END };
    static const uint8_t program[] = {ADD, 7,     STORE, 1,    XOR,  3,   SHIFT, 5,    MUL,
                                      9,   STORE, 2,     LOAD, 1,    ADD, 1,     LOAD, 2,
                                      XOR, 8,     DEC,   0,    LOOP, 0,   END,   0};
    static const void *const labels[] = {&&add,  &&xor_, &&shift, &&mul, &&store,
                                         &&load, &&dec,  &&loop,  &&end};
    uint64_t memory[16] = {0};
    while (n--) {
        uint64_t acc = n, counter = 200;
        const uint8_t *pc = program;
        uint8_t arg;
#define NEXT                                                                                       \
    arg = pc[1];                                                                                   \
    pc += 2;                                                                                       \
    goto *labels[pc[-2]]
        NEXT;
    add:
        acc += arg;
        NEXT;
    xor_:
        acc ^= arg;
        NEXT;
    shift:
        acc = acc << arg | acc >> (64 - arg);
        NEXT;
    mul:
        acc *= arg;
        NEXT;
    store:
        memory[arg] = acc;
        NEXT;
    load:
        acc ^= memory[arg];
        NEXT;
    dec:
        counter--;
        NEXT;
    loop:
        if (counter)
            pc = program;
        NEXT;
    end:
        sink += acc;
    }
}

static __attribute__((noinline)) unsigned fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static void recursive(unsigned long n)
{
    while (n--)
        sink += fib(20);
}

const struct workload integer_workloads[] = {
    {"sieve", sieve},         {"quicksort", quicksort}, {"rotates", rotates},     {"crc32", crc},
    {"pointer-chase", chase}, {"byte-code", bytecode},  {"recursive", recursive}, {NULL, NULL}};
