/*
 * Runs a fuzz target without libFuzzer.
 *
 *   fuzz-X [ITERATIONS [SEED]]   mutate the valid inputs that many times
 *   fuzz-X --replay FILE...      run each file once
 *   fuzz-X --corpus DIRECTORY    write the valid inputs there, for libFuzzer to start from
 *
 * The same iterations and seed give the same inputs on every machine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define SEEDS_MAX 16
#define HEADER    1024 /* half of all changes go here: that is where the decisions are */

static uint64_t state;

static uint64_t random64(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(size_t n)
{
    return n ? (size_t)(random64() % n) : 0;
}

static uint64_t interesting(size_t size)
{
    switch (below(8)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX - below(17);
    case 2:
        return UINT64_C(1) << below(64);
    case 3:
        return (UINT64_C(1) << below(64)) - 1;
    case 4:
        return size + below(33) - 16;
    case 5:
        return 0x100000 + below(0x800000);
    case 6:
        return below(64);
    default:
        return random64();
    }
}

static void mutate(struct test_image *image, const struct test_image *other)
{
    size_t at = below(random64() & 1 ? image->size : image->size < HEADER ? image->size : HEADER);
    size_t room = image->size - at;
    static const size_t widths[] = {1, 2, 4, 8};
    switch (below(8)) {
    case 0:
        if (room)
            image->data[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
    case 2:
    case 3: {
        size_t width = widths[below(4)];
        uint64_t value = interesting(image->size);
        if (random64() & 3)
            at &= ~(width - 1);
        if (image->size - at >= width)
            memcpy(image->data + at, &value, width);
        break;
    }
    case 4: /* truncate */
        if (below(4) == 0)
            image->size = at;
        break;
    case 5: /* extend */
        if (below(4) == 0)
            image->size += below(TEST_IMAGE_MAX - image->size + 1);
        break;
    case 6: { /* move a piece */
        size_t to = below(image->size), n = below(64);
        if (n <= room && n <= image->size - to)
            memmove(image->data + to, image->data + at, n);
        break;
    }
    default: { /* a piece of another input */
        size_t n = below(128);
        if (n <= room)
            memcpy(image->data + at, other->data + at, n);
        break;
    }
    }
}

static void fuzz(unsigned long iterations, uint64_t seed)
{
    static struct test_image seeds[SEEDS_MAX], image;
    unsigned count = 0;
    while (count < SEEDS_MAX && fuzz_seed(count, &seeds[count])) {
        LLVMFuzzerTestOneInput(seeds[count].data, seeds[count].size);
        count++;
    }
    state = seed;
    for (unsigned long i = 0; i < iterations; i++) {
        image = seeds[below(count)];
        for (size_t n = 1 + below(6); n; n--)
            mutate(&image, &seeds[below(count)]);
        LLVMFuzzerTestOneInput(image.data, image.size);
    }
    /* Every length of each valid input. */
    for (unsigned s = 0; s < count; s++)
        for (size_t size = 0; size < seeds[s].size; size++)
            LLVMFuzzerTestOneInput(seeds[s].data, size);
}

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    size_t size = 0, capacity = 1 << 20, n;
    uint8_t *data = malloc(capacity);
    while (data && (n = fread(data + size, 1, capacity - size, f)) > 0) {
        size += n;
        if (size == capacity)
            data = realloc(data, capacity *= 2);
    }
    fclose(f);
    if (!data)
        return 1;
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 0;
}

static int write_corpus(const char *directory)
{
    struct test_image image;
    for (unsigned i = 0; fuzz_seed(i, &image); i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/seed%u", directory, i);
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(image.data, 1, image.size, f) != image.size || fclose(f) != 0) {
            perror(path);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "--replay")) {
        int result = 0;
        for (int i = 2; i < argc; i++)
            result |= replay(argv[i]);
        return result;
    }
    if (argc == 3 && !strcmp(argv[1], "--corpus"))
        return write_corpus(argv[2]);
    fuzz(argc > 1 ? strtoul(argv[1], NULL, 0) : 300000, argc > 2 ? strtoull(argv[2], NULL, 0) : 1);
    return 0;
}
