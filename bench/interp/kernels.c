/*
 * Integer kernels that run natively and, copied byte for byte, as guest code. They may refer to
 * nothing but each other and their work area: all are in one section, without jump tables, without
 * constants in memory and without vector registers (see the meson.build).
 */
#include "kernels.h"

#include <stddef.h>

#define GUEST __attribute__((section("guest"), noinline, used))

GUEST static uint32_t random32(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

GUEST uint64_t kernel_sieve(void *work)
{
    uint8_t *composite = work;
    const uint32_t n = 1u << 20;
    uint64_t count = 0;
    for (uint32_t i = 2; i < n; i++) {
        if (composite[i])
            continue;
        count++;
        for (uint32_t j = 2 * i; j < n; j += i)
            composite[j] = 1;
    }
    return count;
}

GUEST uint64_t kernel_crc(void *work)
{
    uint32_t *table = work;
    uint8_t *text = (uint8_t *)work + 4096;
    uint32_t seed = 12345, crc = ~0u;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    for (uint32_t i = 0; i < 65536; i++)
        text[i] = (uint8_t)random32(&seed);
    for (int round = 0; round < 16; round++)
        for (uint32_t i = 0; i < 65536; i++)
            crc = table[(crc ^ text[i]) & 0xff] ^ crc >> 8;
    return crc;
}

GUEST static void quicksort(uint32_t *a, long lo, long hi)
{
    while (lo < hi) {
        uint32_t pivot = a[(lo + hi) / 2];
        long i = lo, j = hi;
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
        quicksort(a, lo, j);
        lo = i;
    }
}

GUEST uint64_t kernel_quicksort(void *work)
{
    uint32_t *a = work, seed = 99;
    const long n = 200000;
    for (long i = 0; i < n; i++)
        a[i] = random32(&seed);
    quicksort(a, 0, n - 1);
    uint64_t sum = 0;
    for (long i = 0; i < n; i += 1000)
        sum = sum * 31 + a[i];
    return sum;
}

/* Open addressing: insert and look up. */
GUEST uint64_t kernel_hash(void *work)
{
    uint64_t *slot = work;
    const uint64_t mask = (1u << 18) - 1;
    uint32_t seed = 7;
    uint64_t probes = 0;
    for (int i = 0; i < 150000; i++) {
        uint64_t key = random32(&seed) | 1, h = key * 0x9e3779b97f4a7c15u >> 46;
        while (slot[h & mask] && slot[h & mask] != key) {
            h++;
            probes++;
        }
        slot[h & mask] = key;
    }
    seed = 7;
    for (int i = 0; i < 150000; i++) {
        uint64_t key = random32(&seed) | 1, h = key * 0x9e3779b97f4a7c15u >> 46;
        while (slot[h & mask] != key) {
            h++;
            probes++;
        }
    }
    return probes;
}

struct node {
    struct node *next;
    uint64_t value;
};

GUEST uint64_t kernel_chase(void *work)
{
    struct node *nodes = work;
    const uint32_t n = 1u << 16;
    uint32_t seed = 3;
    for (uint32_t i = 0; i < n; i++) {
        nodes[i].value = i;
        nodes[i].next = &nodes[(i + 1) % n];
    }
    for (uint32_t i = n - 1; i > 0; i--) {
        uint32_t j = random32(&seed) % i;
        struct node *t = nodes[i].next;
        nodes[i].next = nodes[j].next;
        nodes[j].next = t;
    }
    uint64_t sum = 0;
    const struct node *at = nodes;
    for (uint32_t i = 0; i < 8 * n; i++) {
        sum += at->value;
        at = at->next;
    }
    return sum;
}

/* A stack machine: sums i*i for i below n. */
enum { PUSH, LOAD, STORE, ADD, MUL, LESS, JUMP_IF, END };

GUEST uint64_t kernel_bytecode(void *work)
{
    int32_t *code = work;
    uint64_t *vars = (uint64_t *)work + 1024, *stack = (uint64_t *)work + 2048;
    int n = 0;
    code[n++] = LOAD, code[n++] = 1;
    code[n++] = LOAD, code[n++] = 0;
    code[n++] = LOAD, code[n++] = 0;
    code[n++] = MUL;
    code[n++] = ADD;
    code[n++] = STORE, code[n++] = 1;
    code[n++] = LOAD, code[n++] = 0;
    code[n++] = PUSH, code[n++] = 1;
    code[n++] = ADD;
    code[n++] = STORE, code[n++] = 0;
    code[n++] = LOAD, code[n++] = 0;
    code[n++] = PUSH, code[n++] = 100000;
    code[n++] = LESS;
    code[n++] = JUMP_IF, code[n++] = 0;
    code[n++] = END;

    const int32_t *pc = code;
    uint64_t *sp = stack;
    for (;;) {
        switch (*pc++) {
        case PUSH:
            *sp++ = (uint64_t)*pc++;
            break;
        case LOAD:
            *sp++ = vars[*pc++];
            break;
        case STORE:
            vars[*pc++] = *--sp;
            break;
        case ADD:
            sp--;
            sp[-1] += sp[0];
            break;
        case MUL:
            sp--;
            sp[-1] *= sp[0];
            break;
        case LESS:
            sp--;
            sp[-1] = sp[-1] < sp[0];
            break;
        case JUMP_IF:
            pc = *--sp ? code + *pc : pc + 1;
            break;
        default:
            return vars[1];
        }
    }
}

GUEST static uint64_t fibonacci(uint64_t n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

GUEST uint64_t kernel_recursion(void *work)
{
    return fibonacci(27);
}
