/*
 * bench SECONDS [NAME...]: run workloads for about SECONDS each and print "RESULT name nanoseconds"
 * of one round. bench pair SECONDS: the time of one process that computes, and of two at once.
 * bench data MIB: compressible data on standard output.
 */
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

volatile uint64_t sink;
const char *own_path;

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Without CPUID instructions of the C compiler's support code next to ours: direct execution keeps
 * away from pages that have any. */
static bool has_avx2(void)
{
    char line[4096];
    bool found = false;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && !found && fgets(line, sizeof line, file))
        found = strstr(line, " avx2 ") != NULL;
    if (file)
        fclose(file);
    return found;
}

static void measure(const struct workload *w, double seconds)
{
    printf("RUNNING %s\n", w->name);
    fflush(stdout);
    unsigned long n = 1;
    for (;;) {
        double start = now();
        w->run(n);
        double elapsed = now() - start;
        if (elapsed >= seconds * 0.8) {
            printf("RESULT %s %.2f\n", w->name, elapsed * 1e9 / (double)n);
            fflush(stdout);
            return;
        }
        double factor = elapsed > 0 ? seconds / elapsed : 100;
        n = (unsigned long)((double)n * (factor > 100 ? 100 : factor < 1.1 ? 1.1 : factor)) + 1;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double two_at_once(const struct workload *w, unsigned long n)
{
    double start = now();
    for (int i = 0; i < 2; i++) {
        if (!fork()) {
            w->run(n);
            _exit(0);
        }
    }
    while (wait(NULL) > 0)
        continue;
    return now() - start;
}

/* The median of some rounds: a host's neighbours take a processor away now and then. */
static void pair(double seconds)
{
    const struct workload *w = &integer_workloads[1];
    unsigned long n = 1;
    double ratios[7], one;
    do {
        n *= 2;
        double start = now();
        w->run(n);
        one = now() - start;
    } while (one < seconds);
    for (unsigned i = 0; i < 7; i++) {
        double start = now();
        w->run(n);
        one = now() - start;
        ratios[i] = two_at_once(w, n) / one;
    }
    qsort(ratios, 7, sizeof ratios[0], by_value);
    printf("RESULT pair %.3f\n", ratios[3]);
}

static void put_data(unsigned long mib)
{
    static char line[256];
    uint64_t seed = 88172645463325252u;
    for (unsigned long done = 0; done < mib << 20;) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        int n = snprintf(line, sizeof line, "%lu entry %llx of the list, count %llu\n", done,
                         (unsigned long long)seed & 0xffffff, (unsigned long long)seed % 1000);
        fwrite(line, 1, (size_t)n, stdout);
        done += (unsigned long)n;
    }
}

int main(int argc, char **argv)
{
    own_path = argv[0];
    if (argc > 1 && strcmp(argv[1], "nothing") == 0)
        return 0;
    if (argc > 2 && strcmp(argv[1], "pair") == 0)
        return pair(atof(argv[2])), 0;
    if (argc > 2 && strcmp(argv[1], "data") == 0)
        return put_data(strtoul(argv[2], NULL, 10)), 0;
    const struct workload *const groups[] = {integer_workloads, float_workloads, kernel_workloads};
    double seconds = argc > 1 ? atof(argv[1]) : 0.5;
    for (unsigned g = 0; g < 3; g++) {
        for (const struct workload *w = groups[g]; w->name; w++) {
            int wanted = argc <= 2;
            for (int i = 2; i < argc; i++)
                wanted |= strcmp(argv[i], w->name) == 0;
            if (wanted && !(strcmp(w->name, "matrix-avx") == 0 && !has_avx2()))
                measure(w, seconds);
        }
    }
    return 0;
}
