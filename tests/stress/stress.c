/*
 * stress SECONDS [PART...]: what tries a VMM's caches of code and translations, all at once, each part
 * checking itself. Static, so that it runs on the host and alone in a guest. One line for each
 * part, status 0 if all are right.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

static const char *part = "main";
static struct timespec until;

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    printf("FAILED %s: %s\n", part, text);
    fflush(stdout);
    _exit(1);
}

static bool time_is_up(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > until.tv_sec ||
           (now.tv_sec == until.tv_sec && now.tv_nsec >= until.tv_nsec);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void *pages(unsigned count, int protection)
{
    void *p = mmap(NULL, count * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        fail("mmap: %s", strerror(errno));
    return p;
}

/* Run this thread on one CPU, where there are as many. */
static void pin(unsigned cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* ---- Code that changes ---- */

typedef uint32_t answer_fn(void);

/* MOV EAX, value; RET. */
static void put_answer(uint8_t *at, uint32_t value)
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

/* This thread's own code: whole functions, immediates, opcodes, and an instruction just ahead. */
static uint64_t self_modifying(void)
{
    uint8_t *code = pages(4, PROT_READ | PROT_WRITE | PROT_EXEC);
    uint64_t seed = 88172645463325252, rounds = 0;
    /* MOV EAX, 1; MOV byte [RIP + 1], DIL; MOV EAX, 0 (the immediate is what was stored); RET */
    static const uint8_t ahead[] = {0x40, 0x88, 0x3d, 1, 0, 0, 0, 0xb8, 0, 0, 0, 0, 0xc3};
    for (; rounds % 256 || !time_is_up(); rounds++) {
        uint32_t value = (uint32_t)next_random(&seed);
        uint8_t *at = code + next_random(&seed) % (4 * PAGE - 64);
        put_answer(at, value);
        uint32_t got = ((answer_fn *)(uintptr_t)at)();
        if (got != value)
            fail("new function: %#x, not %#x", got, value);
        memcpy(at + 1, &(uint32_t){~value}, 4);
        got = ((answer_fn *)(uintptr_t)at)();
        if (got != ~value)
            fail("new immediate: %#x, not %#x", got, ~value);
        memcpy(at, ahead, sizeof ahead);
        got = ((uint32_t(*)(uint32_t))(uintptr_t)at)(value & 0xff);
        if (got != (value & 0xff))
            fail("store just ahead: %#x, not %#x", got, value & 0xff);
    }
    return rounds;
}

static uint8_t *cross_code;
static _Atomic uint32_t cross_published, cross_written;
static _Atomic bool cross_stop;

static void *cross_writer(void *arg)
{
    (void)arg;
    pin(1);
    for (uint32_t n = 1; !cross_stop; n++) {
        atomic_store(&cross_written, n);
        atomic_store_explicit((_Atomic uint32_t *)(void *)(cross_code + 4), n,
                              memory_order_release);
        atomic_store(&cross_published, n);
        if (n % 64 == 0)
            usleep(50);
    }
    return NULL;
}

/* One thread changes an aligned immediate while another calls it: never older than what was
 * announced before the call, never newer than what was written after. */
static uint64_t cross_modifying(void)
{
    cross_code = pages(1, PROT_READ | PROT_WRITE | PROT_EXEC);
    put_answer(cross_code + 3, 0);
    pthread_t writer;
    pin(0);
    if (pthread_create(&writer, NULL, cross_writer, NULL))
        fail("no thread");
    uint64_t rounds = 0;
    for (; rounds % 256 || !time_is_up(); rounds++) {
        uint32_t low = atomic_load(&cross_published), eax = 0, ebx, ecx = 0, edx;
        __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
        uint32_t got = ((answer_fn *)(uintptr_t)(cross_code + 3))();
        uint32_t high = atomic_load(&cross_written);
        if (got < low || got > high)
            fail("%u, not from %u to %u", got, low, high);
    }
    cross_stop = true;
    pthread_join(writer, NULL);
    return rounds;
}

/* ---- Processes ---- */

static uint64_t checksum(const uint64_t *words, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum = (sum << 7 | sum >> 57) + words[i];
    return sum;
}

/* Children write to what they share with their parent by copy-on-write; nobody sees the others. */
static uint64_t fork_storm(void)
{
    enum { WORDS = 16 * PAGE / 8, CHILDREN = 6 };
    uint64_t *words = pages(16, PROT_READ | PROT_WRITE), seed = 12345, rounds = 0;
    for (size_t i = 0; i < WORDS; i++)
        words[i] = next_random(&seed);
    uint64_t sum = checksum(words, WORDS);
    for (; !time_is_up(); rounds++) {
        pid_t children[CHILDREN];
        for (unsigned c = 0; c < CHILDREN; c++) {
            children[c] = fork();
            if (children[c] < 0)
                fail("fork: %s", strerror(errno));
            if (children[c] > 0)
                continue;
            if (checksum(words, WORDS) != sum)
                _exit(1);
            for (size_t i = c; i < WORDS; i += 37)
                words[i] += c + 1;
            sched_yield();
            for (size_t i = c; i < WORDS; i += 37)
                words[i] -= c + 1;
            _exit(checksum(words, WORDS) == sum ? (int)(c + 10) : 2);
        }
        for (unsigned c = 0; c < CHILDREN; c++) {
            int status;
            if (waitpid(children[c], &status, 0) != children[c] || !WIFEXITED(status) ||
                WEXITSTATUS(status) != (int)(c + 10))
                fail("child %u ended with %#x", c, status);
        }
        if (checksum(words, WORDS) != sum)
            fail("the parent's memory changed");
    }
    return rounds;
}

static uint64_t exec_storm(void)
{
    uint64_t rounds = 0;
    for (; !time_is_up(); rounds++) {
        char number[16];
        snprintf(number, sizeof number, "%u", (unsigned)(rounds % 50));
        pid_t child = fork();
        if (child == 0) {
            execl("/proc/self/exe", "stress", "child", number, (char *)NULL);
            _exit(99);
        }
        int status;
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
            WEXITSTATUS(status) != (int)(rounds % 50) + 7)
            fail("child ended with %#x", status);
    }
    return rounds;
}

/* ---- Signals ---- */

static uint8_t *guarded;
static _Atomic uint64_t alarms, faults;

static void on_alarm(int number)
{
    (void)number;
    /* Something that would show if the interrupted code's registers were not put back. */
    volatile double x = (double)alarms;
    x = x * 1.5 + 2;
    __asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7; pxor %%xmm15, %%xmm15"
                     :
                     :
                     : "xmm0", "xmm7", "xmm15");
    alarms++;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    uint8_t *page = (uint8_t *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1));
    if (page < guarded || page >= guarded + 8 * PAGE)
        _exit(3);
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
    faults++;
}

static uint64_t signals(void)
{
    guarded = pages(8, PROT_READ | PROT_WRITE);
    struct sigaction alarm_action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct sigaction fault_action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGALRM, &alarm_action, NULL);
    sigaction(SIGSEGV, &fault_action, NULL);
    struct itimerval every = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &every, NULL);
    uint64_t rounds = 0, expected_faults = 0;
    for (; !time_is_up(); rounds++) {
        double sum = 0;
        long double wide = 0;
        for (int i = 1; i <= 3000; i++) {
            sum += (double)i * 0.5;
            wide += (long double)i * 0.25L;
        }
        if (sum != 2250750.0 || wide != 1125375.0L)
            fail("sums are %f and %Lf", sum, wide);
        uint8_t *page = guarded + rounds % 8 * PAGE;
        page[17] = (uint8_t)rounds;
        if (mprotect(page, PAGE, PROT_READ))
            fail("mprotect: %s", strerror(errno));
        expected_faults++;
        page[18] = (uint8_t)~rounds;
        if (page[17] != (uint8_t)rounds || page[18] != (uint8_t)~rounds)
            fail("the guarded page holds %u %u", page[17], page[18]);
        if (faults != expected_faults)
            fail("%llu faults, not %llu", (unsigned long long)faults,
                 (unsigned long long)expected_faults);
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    return rounds;
}

/* ---- Address spaces that change under a thread on the other CPU ---- */

enum step { REST, READ_NEW, MUST_FAULT, WRITE_FAULTS, LOOK_AGAIN, END };
static _Atomic enum step asked, done_step;
static uint8_t *shared;
static _Atomic uint32_t pattern;
static _Thread_local sigjmp_buf caught;
static _Thread_local volatile bool expecting;

static void on_probe(int number)
{
    (void)number;
    if (!expecting)
        _exit(4);
    siglongjmp(caught, 1);
}

static bool faults_at(volatile uint8_t *at, bool write)
{
    expecting = true;
    bool faulted = sigsetjmp(caught, 1);
    if (!faulted) {
        if (write)
            *at = 1;
        else
            (void)*at;
    }
    expecting = false;
    return faulted;
}

static void *other_side(void *arg)
{
    (void)arg;
    pin(1);
    for (;;) {
        enum step step;
        while ((step = atomic_load(&asked)) == REST)
            sched_yield();
        if (step == END)
            return NULL;
        volatile uint32_t *words = (volatile uint32_t *)shared;
        uint32_t p = atomic_load(&pattern);
        switch (step) {
        case READ_NEW:
        case LOOK_AGAIN:
            for (unsigned i = 0; i < 4 * PAGE / 4; i += 97)
                if (words[i] != p + i)
                    fail("word %u is %#x, not %#x", i, words[i], p + i);
            break;
        case MUST_FAULT:
            for (unsigned page = 0; page < 4; page++)
                if (!faults_at(shared + page * PAGE + 8, page & 1))
                    fail("page %u is still there", page);
            break;
        default:
            for (unsigned page = 0; page < 4; page++)
                if (!faults_at(shared + page * PAGE + 8, true))
                    fail("page %u can still be written", page);
        }
        atomic_store(&asked, REST);
        atomic_store(&done_step, step);
    }
}

static void ask(enum step step)
{
    atomic_store(&done_step, REST);
    atomic_store(&asked, step);
    while (atomic_load(&done_step) != step)
        sched_yield();
}

static void fill(uint32_t p)
{
    uint32_t *words = (uint32_t *)(void *)shared;
    for (unsigned i = 0; i < 4 * PAGE / 4; i++)
        words[i] = p + i;
    atomic_store(&pattern, p);
}

static uint64_t shoot_down(void)
{
    signal(SIGSEGV, on_probe);
    shared = pages(4, PROT_READ | PROT_WRITE);
    pthread_t other;
    pin(0);
    if (pthread_create(&other, NULL, other_side, NULL))
        fail("no thread");
    uint64_t rounds = 0, seed = 777;
    for (; !time_is_up(); rounds++) {
        fill((uint32_t)next_random(&seed));
        ask(READ_NEW);
        mprotect(shared, 4 * PAGE, PROT_READ);
        ask(WRITE_FAULTS);
        ask(LOOK_AGAIN);
        mprotect(shared, 4 * PAGE, PROT_NONE);
        ask(MUST_FAULT);
        mprotect(shared, 4 * PAGE, PROT_READ | PROT_WRITE);
        ask(LOOK_AGAIN);
        munmap(shared, 4 * PAGE);
        ask(MUST_FAULT);
        /* Others must not get the place. */
        if (mmap(shared, 4 * PAGE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != shared)
            shared = pages(4, PROT_READ | PROT_WRITE);
        if (rounds % 4 == 3) { /* other pages at the same place, in one step */
            fill((uint32_t)next_random(&seed));
            ask(READ_NEW);
            mmap(shared, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                 -1, 0);
            fill((uint32_t)next_random(&seed));
            ask(READ_NEW);
        }
    }
    atomic_store(&asked, END);
    pthread_join(other, NULL);
    return rounds;
}

/* ---- Threads ---- */

#define THREADS 4
static _Atomic uint64_t counter;
static uint64_t guarded_counter;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *counting(void *arg)
{
    uint64_t *mine = arg;
    while (!time_is_up()) {
        for (unsigned i = 0; i < 200; i++) {
            atomic_fetch_add(&counter, 1);
            pthread_mutex_lock(&mutex);
            guarded_counter++;
            pthread_mutex_unlock(&mutex);
            ++*mine;
        }
    }
    return NULL;
}

static uint64_t threads(void)
{
    pthread_t thread[THREADS];
    uint64_t mine[THREADS] = {0}, sum = 0;
    for (unsigned i = 0; i < THREADS; i++)
        if (pthread_create(&thread[i], NULL, counting, &mine[i]))
            fail("no thread");
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        sum += mine[i];
    }
    if (counter != sum || guarded_counter != sum)
        fail("counted %llu and %llu, not %llu", (unsigned long long)counter,
             (unsigned long long)guarded_counter, (unsigned long long)sum);
    return sum;
}

/* ---- All at once ---- */

static const struct {
    const char *name;
    uint64_t (*run)(void);
} parts[] = {
    {"self-modifying", self_modifying},
    {"cross-modifying", cross_modifying},
    {"fork", fork_storm},
    {"exec", exec_storm},
    {"signals", signals},
    {"shoot-down", shoot_down},
    {"threads", threads},
};
#define PARTS (sizeof parts / sizeof parts[0])

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "child") == 0)
        return atoi(argv[2]) + 7;
    int seconds = argc > 1 ? atoi(argv[1]) : 10;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    pid_t children[PARTS];
    for (unsigned i = 0; i < PARTS; i++) {
        fflush(stdout);
        children[i] = 0;
        bool wanted = argc <= 2;
        for (int n = 2; n < argc; n++)
            wanted |= strcmp(argv[n], parts[i].name) == 0;
        if (!wanted || (children[i] = fork()))
            continue;
        part = parts[i].name;
        uint64_t rounds = parts[i].run();
        printf("ok %s, %llu rounds\n", part, (unsigned long long)rounds);
        fflush(stdout);
        _exit(rounds ? 0 : 5);
    }
    bool passed = true;
    for (unsigned i = 0; i < PARTS; i++) {
        int status = -1;
        if (!children[i])
            continue;
        if (children[i] < 0 || waitpid(children[i], &status, 0) != children[i] || status != 0) {
            printf("FAILED %s: ended with status %#x\n", parts[i].name, (unsigned)status);
            passed = false;
        }
    }
    printf("stress: %s\n", passed ? "passed" : "failed");
    return !passed;
}
