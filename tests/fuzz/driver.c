/*
 * Mutation with a seed, for any compiler: a bounded number of inputs in the test suite, any number
 * of seconds by hand. In a build that is instrumented (-Dfuzz=true) an input that reached something
 * new is kept and mutated further, and operands that the code compared find their way into inputs.
 *
 *   fuzz-NAME [--runs N | --seconds N] [--seed N] [--timeout SECONDS] [--save DIRECTORY] [INPUT...]
 *   fuzz-NAME --replay INPUT...
 *   fuzz-NAME --seeds DIRECTORY
 *   fuzz-NAME --distil DIRECTORY [--runs N] INPUT...
 *
 * --distil copies the N inputs that together reach the most.
 *
 * An INPUT is a file or a directory of them. Seconds are the processor's, since the machine may be
 * busy. An input that takes longer than the time-out is a failure as an abort or a sanitizer's
 * report is: it is written to crash-NAME.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "coverage.h"
#include "fuzz.h"

#define INPUTS_MAX   20000
#define HEADER       1536 /* where most mutations go, in inputs without units */
#define TIMEOUT      20
#define REPORT_AFTER 60 /* seconds */

static size_t unit = 1;

/* What sanitizers look for in a program. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "abort_on_error=1:handle_abort=0:detect_leaks=1";
}

__attribute__((visibility("default"))) const char *__ubsan_default_options(void)
{
    return "halt_on_error=1:abort_on_error=1:print_stacktrace=1";
}

struct input {
    uint8_t *data;
    size_t size;
};

static struct input inputs[INPUTS_MAX];
static unsigned input_count, first_found;
static const char *name, *save;
static unsigned timeout = TIMEOUT;
static unsigned long runs_done;

/* ---- Running one ---- */

static const uint8_t *running;
static size_t running_size;

static void write_file(const char *path, const uint8_t *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        perror(path);
    if (fd >= 0)
        close(fd);
}

/* The directory that we were started in: targets may go elsewhere. */
static char crash_path[4096];

static void on_death(int number)
{
    static const char late[] = "\nfuzz: the input takes too long\n";
    if (number != SIGABRT && write(2, late, sizeof late - 1) < 0)
        _exit(1);
    if (running)
        write_file(crash_path, running, running_size);
    signal(SIGABRT, SIG_DFL);
    abort();
}

/* Seconds of the processor's time, since the machine may be busy; and many of the clock's for one
 * that waits for ever. */
static void watch(unsigned seconds)
{
    const struct itimerval timer = {.it_value.tv_sec = seconds};
    setitimer(ITIMER_PROF, &timer, NULL);
    alarm(seconds * 10);
}

static bool run(const uint8_t *data, size_t size)
{
    /* A block of the very size, so that reading behind the end is seen. */
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        exit(1);
    memcpy(copy, data, size);
    running = data;
    running_size = size;
    watch(timeout);
    coverage_start();
    LLVMFuzzerTestOneInput(copy, size);
    bool news = coverage_stop();
    watch(0);
    running = NULL;
    free(copy);
    runs_done++;
    return news;
}

static void keep(const uint8_t *data, size_t size)
{
    if (input_count == INPUTS_MAX)
        return;
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return;
    memcpy(copy, data, size);
    inputs[input_count++] = (struct input){copy, size};
}

static void save_input(const uint8_t *data, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 0x100000001b3u;
    char path[4096];
    snprintf(path, sizeof path, "%s/%016llx", save, (unsigned long long)hash);
    write_file(path, data, size);
}

/* ---- Mutation ---- */

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
    struct comparison c;
    switch (below(11)) {
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
    case 7:
        return below(256) << 12;
    case 8:
    case 9:
        if (coverage_comparison((unsigned)below(COMPARISONS), &c))
            return below(4) ? c.a : c.a + below(3) - 1;
        return below(1024);
    default:
        return random64();
    }
}

/* Where the input has one operand of a comparison, put the other. */
static void meet_comparison(struct test_image *image)
{
    struct comparison c;
    for (unsigned tries = 0; tries < 16; tries++) {
        if (!coverage_comparison((unsigned)below(COMPARISONS), &c) || !c.size || c.size > 8)
            return;
        uint64_t from = random64() & 1 ? c.a : c.b, to = from == c.a ? c.b : c.a;
        if (c.size > image->size)
            continue;
        const uint8_t *at = memmem(image->data, image->size, &from, c.size);
        /* Not always the first place. */
        for (size_t skip = below(4); at && skip; skip--) {
            const uint8_t *next =
                memmem(at + 1, image->size - (size_t)(at + 1 - image->data), &from, c.size);
            if (!next)
                break;
            at = next;
        }
        if (at) {
            memcpy(image->data + (at - image->data), &to, c.size);
            return;
        }
    }
}

/* Copy `n` bytes into the image at `at`, moving what is there. */
static void insert(struct test_image *image, size_t at, const uint8_t *from, size_t n)
{
    if (n > TEST_IMAGE_MAX - image->size)
        return;
    memmove(image->data + at + n, image->data + at, image->size - at);
    memcpy(image->data + at, from, n);
    image->size += n;
}

static void take_out(struct test_image *image, size_t at, size_t n)
{
    memmove(image->data + at, image->data + at + n, image->size - at - n);
    image->size -= n;
}

static void mutate(struct test_image *image, const struct input *other)
{
    bool anywhere = unit > 1 || (random64() & 1) || image->size < HEADER;
    size_t at = below(anywhere ? image->size : HEADER);
    size_t room = image->size - at, width = (size_t)1 << below(4);
    size_t unit_at = at - at % unit;
    size_t units = unit > 1 ? unit * (1 + below(8)) : 1 + below(64);
    switch (below(12)) {
    case 0:
        if (room)
            image->data[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
    case 2:
    case 3: {
        uint64_t value = interesting(image->size);
        if (random64() & 3)
            at &= ~(width - 1);
        if (image->size - at >= width)
            memcpy(image->data + at, &value, width);
        break;
    }
    case 4: /* truncate */
        if (below(4) == 0)
            image->size = unit_at;
        break;
    case 5: /* extend */
        if (below(4) == 0 && unit == 1)
            image->size += below(TEST_IMAGE_MAX - image->size + 1);
        break;
    case 6: { /* move a piece */
        size_t to = below(image->size);
        to -= to % unit;
        if (units <= image->size - unit_at && units <= image->size - to)
            memmove(image->data + to, image->data + unit_at, units);
        break;
    }
    case 7: /* a piece of another input, in place of what is here */
        if (units <= image->size - unit_at && unit_at < other->size &&
            units <= other->size - unit_at)
            memcpy(image->data + unit_at, other->data + unit_at, units);
        break;
    case 8: { /* a piece of another input, in front of what is here */
        size_t from = below(other->size);
        from -= from % unit;
        if (units <= other->size - from)
            insert(image, unit_at, other->data + from, units);
        break;
    }
    case 9: /* take something out, or do it twice */
        if (units > image->size - unit_at)
            break;
        if (random64() & 1) {
            take_out(image, unit_at, units);
        } else {
            uint8_t copy[512];
            memcpy(copy, image->data + unit_at, units);
            insert(image, unit_at, copy, units);
        }
        break;
    case 10: { /* another input behind this one */
        size_t n =
            other->size < TEST_IMAGE_MAX - image->size ? other->size : TEST_IMAGE_MAX - image->size;
        if (below(4) == 0)
            insert(image, image->size, other->data, n - n % unit);
        break;
    }
    default:
        meet_comparison(image);
        break;
    }
}

/* Later finds are mutated more often than what we started from. */
static const struct input *pick(void)
{
    size_t i = below(input_count);
    if (random64() & 1 && input_count > 64)
        i = input_count - 1 - below(input_count / 4);
    return &inputs[i];
}

static uint64_t seconds_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec;
}

static void report(uint64_t seconds)
{
    printf("%s: %lu inputs in %llu s, %u branches, %u inputs kept\n", name, runs_done,
           (unsigned long long)seconds, coverage_edges(), input_count);
    fflush(stdout);
}

static void fuzz(unsigned long runs, unsigned long seconds)
{
    static struct test_image image;
    uint64_t start = seconds_now(), reported = start, now = start;
    for (unsigned i = 0; fuzz_seed(i, &image); i++) {
        run(image.data, image.size);
        keep(image.data, image.size);
    }
    first_found = input_count;
    for (unsigned i = 0; i < first_found; i++)
        run(inputs[i].data, inputs[i].size);
    for (unsigned long i = 0; seconds ? now - start < seconds : i < runs; i++) {
        const struct input *from = pick();
        image.size = from->size < TEST_IMAGE_MAX ? from->size : TEST_IMAGE_MAX;
        memcpy(image.data, from->data, image.size);
        for (size_t n = 1 + below(6); n; n--)
            mutate(&image, pick());
        if (run(image.data, image.size)) {
            keep(image.data, image.size);
            if (save)
                save_input(image.data, image.size);
        }
        now = seconds_now();
        if (seconds && now - reported >= REPORT_AFTER) {
            report(now - start);
            reported = now;
        }
    }
    /* Every length of each valid input; of a short run some. */
    size_t step = 1 + 4000 / (runs + 1);
    if (!seconds && unit == 1)
        for (unsigned s = 0; fuzz_seed(s, &image); s++)
            for (size_t size = 0; size < image.size; size += step)
                run(image.data, size);
    report(seconds_now() - start);
}

/* ---- Files ---- */

static int take_file(const char *path, bool replay)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    size_t size = 0, capacity = 1 << 16, n;
    uint8_t *data = malloc(capacity);
    while (data && (n = fread(data + size, 1, capacity - size, f)) > 0) {
        size += n;
        if (size == capacity)
            data = realloc(data, capacity *= 2);
    }
    fclose(f);
    if (!data)
        return 1;
    if (replay)
        run(data, size);
    else
        keep(data, size);
    free(data);
    return 0;
}

static int take(const char *path, bool replay)
{
    DIR *directory = opendir(path);
    if (!directory)
        return errno == ENOTDIR ? take_file(path, replay) : (perror(path), 1);
    int result = 0;
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (*entry->d_name != '.')
            result |= take_file(file, replay);
    }
    closedir(directory);
    return result;
}

static int write_seeds(const char *directory)
{
    static struct test_image image;
    for (unsigned i = 0; fuzz_seed(i, &image); i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/seed%u", directory, i);
        write_file(path, image.data, image.size);
    }
    return 0;
}

static int distil(const char *directory, unsigned long wanted)
{
    static uint8_t reached[COVERAGE_EDGES];
    uint8_t(*hits)[COVERAGE_EDGES] = malloc((size_t)input_count * COVERAGE_EDGES);
    if (!hits)
        return 1;
    for (unsigned i = 0; i < input_count; i++) {
        run(inputs[i].data, inputs[i].size);
        memcpy(hits[i], coverage_hits(), COVERAGE_EDGES);
    }
    save = directory;
    for (; wanted; wanted--) {
        unsigned best = 0, most = 0;
        for (unsigned i = 0; i < input_count; i++) {
            unsigned new = 0;
            for (unsigned n = 0; n < COVERAGE_EDGES; n++)
                new += hits[i][n] && !reached[n];
            if (new > most) {
                most = new;
                best = i;
            }
        }
        if (!most)
            break;
        for (unsigned n = 0; n < COVERAGE_EDGES; n++)
            reached[n] |= hits[best][n];
        save_input(inputs[best].data, inputs[best].size);
    }
    free(hits);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned long runs = 100000, seconds = 0;
    const char *distilled = NULL;
    bool replay = false;
    int result = 0, i = 1;
    static char save_path[4096];
    name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    if (!getcwd(crash_path, sizeof crash_path - 300))
        return 1;
    snprintf(crash_path + strlen(crash_path), 300, "/crash-%s", name);
    signal(SIGALRM, on_death);
    signal(SIGPROF, on_death);
    signal(SIGABRT, on_death);
    state = 1;
    if (&fuzz_unit)
        unit = fuzz_unit;
    for (; i < argc && !strncmp(argv[i], "--", 2); i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--replay")) {
            replay = true;
            continue;
        }
        if (!strcmp(argv[i], "--seeds") && *value)
            return write_seeds(value);
        if (!strcmp(argv[i], "--runs"))
            runs = strtoul(value, NULL, 0);
        else if (!strcmp(argv[i], "--seconds"))
            seconds = strtoul(value, NULL, 0);
        else if (!strcmp(argv[i], "--seed"))
            state = strtoull(value, NULL, 0);
        else if (!strcmp(argv[i], "--timeout"))
            timeout = (unsigned)strtoul(value, NULL, 0);
        else if (!strcmp(argv[i], "--distil"))
            distilled = value;
        else if (!strcmp(argv[i], "--save") && realpath(value, save_path))
            save = save_path;
        else
            return fprintf(stderr, "%s: what is %s %s?\n", name, argv[i], value), 2;
        i++;
    }
    for (; i < argc; i++)
        result |= take(argv[i], replay);
    if (distilled && !result)
        return distil(distilled, runs);
    if (!replay && !result)
        fuzz(runs, seconds);
    return result;
}
