/*
 * How late interrupts are, for latency.py: local APIC timers in a guest that halts, computes or
 * makes system calls, and interrupts from one processor to another. Prints lines
 *
 *   RESULT name count median 99% maximum        (nanoseconds)
 *
 * The target is processor 0; processor 1, if there is one, sends.
 */
#include "tests/guest/lib/guest.h"

#define EFER         0xc0000080
#define TSC_DEADLINE 0x6e0
#define TIMER        0x40
#define PING         0x41
#define PONG         0x42
#define SAMPLES      800

static u64 tsc_khz, apic_khz;
static u64 samples[SAMPLES], trips[SAMPLES];

/* What the target does meanwhile. */
enum load { HALTS, COMPUTES, RING_3, SYSTEM_CALLS };
static const char *const load_names[] = {"halted", "ring-0-loop", "ring-3-loop", "system-calls"};

static volatile u64 fired, ponged;
static volatile bool sender_ready, sender_go;
static volatile enum load target_load;
volatile u64 stop; /* ends a loop in ring 3 */

static u32 random_up_to(u32 limit)
{
    static u32 state = 0x2545f491;
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state % limit;
}

static void sort(u64 *v, unsigned n)
{
    for (unsigned gap = n / 2; gap; gap /= 2)
        for (unsigned i = gap; i < n; i++)
            for (unsigned k = i; k >= gap && v[k - gap] > v[k]; k -= gap) {
                u64 t = v[k];
                v[k] = v[k - gap], v[k - gap] = t;
            }
}

static u64 ns(u64 ticks)
{
    return ticks * 1000000 / tsc_khz;
}

static void result(const char *what, const char *load, u64 *v, unsigned n)
{
    sort(v, n);
    printf("RESULT %s-%s %u %lu %lu %lu\n", what, load, n, ns(v[n / 2]), ns(v[n * 99 / 100]),
           ns(v[n - 1]));
}

static void calibrate(void)
{
    const u16 port = pm_timer_port();
    apic_write(APIC_DIVIDE, 0xb); /* by 1 */
    apic_write(APIC_TIMER, 0x10000 | TIMER);
    u32 start = inl(port);
    while (inl(port) == start)
        continue;
    start = inl(port);
    u64 tsc = rdtsc();
    apic_write(APIC_INITIAL, 0xffffffff);
    while (((inl(port) - start) & 0xffffff) < 3579545 / 20)
        continue;
    apic_khz = (0xffffffff - apic_read(APIC_CURRENT)) / 50;
    tsc_khz = (rdtsc() - tsc) / 50;
    apic_write(APIC_INITIAL, 0);
}

/* ---- The target's loads ---- */

extern u8 bench_syscall[];
asm("bench_syscall: sysretq\n");

static void on_fired(struct frame *f)
{
    (void)f;
    fired = rdtsc();
    stop = 1;
    apic_write(APIC_EOI, 0);
}

static void on_ping(struct frame *f)
{
    (void)f;
    fired = rdtsc();
    apic_icr(1, PONG);
    apic_write(APIC_EOI, 0);
}

static void on_pong(struct frame *f)
{
    (void)f;
    ponged = rdtsc();
    apic_write(APIC_EOI, 0);
}

/* Ring 3 as direct execution takes it: with the selectors that Linux has, no data segments, and
 * code in a page that has no other. */
enum { USER_SS = 0x2b, USER_CS = 0x33, USER_CODE = 16 << 20 };

extern u8 user_loop[], user_calls[], user_end[];
asm("user_loop: mov $64, %ecx; 1: dec %ecx; jnz 1b; cmpq $0, stop; je user_loop; int $0x80\n"
    "user_calls: syscall; cmpq $0, stop; je user_calls; int $0x80\n"
    "user_end:");

static void run_user(const u8 *code)
{
    TRY("xor %%ecx, %%ecx; mov %%ecx, %%ds; mov %%ecx, %%es; pushq $0x2b; pushq resume+8;"
        "pushq $0x202; pushq $0x33; push %%rax; iretq",
        "a"(USER_CODE + (word)(code - user_loop)));
}

static void prepare_ring_3(void)
{
    memcpy((void *)USER_CODE, user_loop, (size_t)(user_end - user_loop));
    set_segment(USER_SS, 0, 0xfffff, SEG_DATA | SEG_DPL3 | SEG_BIG | SEG_GRAN);
    set_segment(USER_CS, 0, 0xfffff, SEG_CODE | SEG_DPL3 | SEG_LONG | SEG_GRAN);
    wrmsr(EFER, rdmsr(EFER) | 1);
    wrmsr(0xc0000081, (u64)SEL_CODE << 32 | (u64)(USER_SS - 8) << 48);
    wrmsr(0xc0000082, (word)bench_syscall);
    wrmsr(0xc0000084, 0x600);
    if (!(cpuid(1, 0).c >> 26 & 1) || !(cpuid(7, 0).b & 1))
        return;
    WRITE_CR(4, READ_CR(4) | 1 << 9 | 1 << 16 | 1 << 18); /* OSFXSR, FSGSBASE, OSXSAVE */
    asm volatile("xsetbv" : : "c"(0), "a"(cpuid(0xd, 0).a & 0xe7), "d"(0));
}

/* Until `stop`; interrupts are taken. */
static void be_busy(enum load load)
{
    switch (load) {
    case HALTS:
        for (cli(); !stop; cli())
            asm volatile("sti; hlt");
        sti();
        break;
    case COMPUTES:
        sti();
        while (!stop)
            for (unsigned i = 0; i < 64; i++)
                asm volatile("" : "+r"(i));
        break;
    case RING_3:
        run_user(user_loop);
        break;
    case SYSTEM_CALLS:
        run_user(user_calls);
        break;
    }
    cli();
}

/* ---- Timers ---- */

static void timer(enum load load, bool deadline)
{
    handle(TIMER, on_fired);
    apic_write(APIC_TIMER, (deadline ? 0x40000 : 0) | TIMER);
    const unsigned n = load == HALTS ? SAMPLES : SAMPLES / 2;
    for (unsigned i = 0; i < n; i++) {
        const u64 us = 200 + random_up_to(1000);
        fired = stop = 0;
        const u64 due = rdtsc() + us * tsc_khz / 1000;
        if (deadline)
            wrmsr(TSC_DEADLINE, due);
        else
            apic_write(APIC_INITIAL, (u32)(us * apic_khz / 1000));
        be_busy(load);
        samples[i] = fired > due ? fired - due : 0;
    }
    apic_write(APIC_TIMER, 0x10000);
    result(deadline ? "deadline" : "one-shot", load_names[load], samples, n);
}

/* ---- From processor to processor ---- */

static void delay(u64 us)
{
    for (u64 end = rdtsc() + us * tsc_khz / 1000; rdtsc() < end;)
        pause_cpu();
}

static void sender(unsigned n)
{
    (void)n;
    apic_enable();
    sender_ready = true;
    for (;;) {
        while (!sender_go)
            pause_cpu();
        sti();
        delay(20000); /* what computes is found to do so */
        for (unsigned i = 0; i < SAMPLES / 2; i++) {
            delay(100 + random_up_to(300));
            ponged = 0;
            const u64 sent = rdtsc();
            apic_icr(0, PING);
            while (!ponged)
                pause_cpu();
            samples[i] = fired - sent;
            trips[i] = ponged - sent;
        }
        cli();
        stop = 1;
        apic_icr(0, TIMER); /* and if it halts */
        sender_go = false;
    }
}

static void interrupts(enum load load)
{
    handle(PING, on_ping);
    handle(PONG, on_pong);
    stop = 0;
    sender_go = true;
    be_busy(load);
    while (sender_go)
        pause_cpu();
    take_interrupts(); /* what came after the loop had ended */
    result("ipi", load_names[load], samples, SAMPLES / 2);
    result("round-trip", load_names[load], trips, SAMPLES / 2);
}

void guest_main(void)
{
    static const enum load loads[] = {HALTS, COMPUTES, RING_3, SYSTEM_CALLS};
    pic_init();
    apic_enable();
    calibrate();
    prepare_ring_3();
    const bool deadline = cpuid(1, 0).c >> 24 & 1;
    for (unsigned i = 0; i < ARRAY_SIZE(loads); i++) {
        timer(loads[i], false);
        if (deadline)
            timer(loads[i], true);
    }
    if (cpu_count() < 2)
        return;
    handle(TIMER, on_fired);
    if (!cpu_start(1, sender))
        fail("processor 1 does not start");
    while (!sender_ready)
        pause_cpu();
    for (unsigned i = 0; i < ARRAY_SIZE(loads); i++)
        interrupts(loads[i]);
}
