/* Four processors: start-up by INIT and SIPI, IPIs to one and to all, locked counters, TLB
 * shoot-down, code changed by another processor, and what that must leave alone. */
#include "lib/guest.h"

#define CPUS 4
#define VA   0x0000200000000000ul

static volatile u32 started, done, phase, hits[CPUS], counter, plain_lock, guarded, spoilt;
static volatile u8 seen[CPUS];
static volatile u64 last_time, went_back;
static u8 frames[2][4096] __attribute__((aligned(4096)));
static u8 code[64] __attribute__((aligned(64)));
static u64 *pte;

static u32 me(void)
{
    return apic_read(APIC_ID) >> 24;
}

static void on_ipi(struct frame *f)
{
    (void)f;
    hits[me()]++;
    apic_write(APIC_EOI, 0);
}

static void on_shootdown(struct frame *f)
{
    (void)f;
    invlpg(VA);
    apic_write(APIC_EOI, 0);
    __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
}

/* RDTSCP waits until the lock has been taken. */
static void compare_clocks(void)
{
    for (int i = 0; i < 100000; i++) {
        u32 low, high, aux;
        while (__atomic_exchange_n(&plain_lock, 1, __ATOMIC_ACQUIRE))
            continue;
        asm volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux) : : "memory");
        u64 time = (u64)high << 32 | low;
        if (time < last_time)
            went_back = went_back + 1;
        last_time = time;
        __atomic_store_n(&plain_lock, 0, __ATOMIC_RELEASE);
    }
}

static void count_up(void)
{
    compare_clocks();
    for (int i = 0; i < 2000; i++) {
        asm volatile("lock; incl %0" : "+m"(counter));
        while (__atomic_exchange_n(&plain_lock, 1, __ATOMIC_ACQUIRE))
            pause_cpu();
        guarded = guarded + 1;
        __atomic_store_n(&plain_lock, 0, __ATOMIC_RELEASE);
    }
    __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
}

/* Reads that miss a translator's first-level TLB again and again, with something in XMM0. */
static bool vector_stays(void)
{
    const u64 pattern = 0x123456789abcdef0;
    u64 low, high, n = 500;
    asm volatile("movq %[pattern], %%xmm0; punpcklqdq %%xmm0, %%xmm0;"
                 "1: movl (%[a]), %%eax; movl (%[b]), %%eax; dec %[n]; jnz 1b;"
                 "movq %%xmm0, %[low]; psrldq $8, %%xmm0; movq %%xmm0, %[high]"
                 : [low] "=r"(low), [high] "=r"(high), [n] "+r"(n)
                 : [pattern] "r"(pattern), [a] "r"(8ul << 20), [b] "r"(10ul << 20)
                 : "eax", "memory");
    return low == pattern && high == pattern;
}

static void processor(unsigned n)
{
    apic_enable();
    __atomic_fetch_add(&started, 1, __ATOMIC_SEQ_CST);
    sti();
    while (phase < 1)
        pause_cpu();
    count_up();
    while (phase < 2)
        seen[n] = *(volatile u8 *)VA;
    while (phase < 3)
        pause_cpu();
    asm volatile("cpuid" : : "a"(0) : "ebx", "ecx", "edx", "memory"); /* serialize */
    if (((u32(*)(void))code)() == 0x22222222)
        __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
    while (phase < 4)
        if (!vector_stays())
            spoilt++;
    for (;;)
        asm volatile("hlt");
}

static bool wait_for(volatile u32 *v, u32 n)
{
    const u16 pm = pm_timer_port();
    const u32 start = inl(pm);
    while (*v < n && ((inl(pm) - start) & 0xffffff) < 3579545 * 4)
        pause_cpu();
    return *v >= n;
}

void guest_main(void)
{
    pic_init();
    apic_enable();
    handle(0x40, on_ipi);
    handle(0x41, on_shootdown);
    pte = pte_of((u64 *)READ_CR(3), 4, VA, 1);
    *pte = (word)frames[0] | PTE_P | PTE_W;
    frames[1][0] = 1;
    printf("processors: %u\n", cpu_count());
    for (unsigned n = 1; n < CPUS; n++)
        check("start-up", cpu_start(n, processor));
    check("all run", wait_for(&started, CPUS - 1));

    for (unsigned n = 1; n < CPUS; n++) {
        apic_icr(n, 0x4040);
        check("an IPI arrives", wait_for(&hits[n], 1) && hits[n] == 1);
    }
    apic_icr(0, 0xc4040); /* all but self */
    check("all but self",
          wait_for(&hits[1], 2) && wait_for(&hits[2], 2) && wait_for(&hits[3], 2) && !hits[0]);
    apic_icr(0, 0x84040); /* all and self */
    take_interrupts();
    check("all and self",
          wait_for(&hits[1], 3) && wait_for(&hits[2], 3) && wait_for(&hits[3], 3) && hits[0] == 1);
    apic_icr(0xff, 0x4040); /* physical broadcast */
    take_interrupts();
    check("broadcast", wait_for(&hits[1], 4) && wait_for(&hits[2], 4) && wait_for(&hits[3], 4));

    phase = 1;
    count_up();
    check("all counted", wait_for(&done, CPUS));
    printf("locked: %u, guarded: %u\n", counter, guarded);
    check("RDTSCP under the lock never goes back", !went_back);

    done = 0;
    for (volatile int i = 0; i < 20000; i++)
        continue;
    *(volatile u64 *)pte = (word)frames[1] | PTE_P | PTE_W;
    apic_icr(0, 0xc4041);
    check("shoot-down acknowledged", wait_for(&done, CPUS - 1));
    for (volatile int i = 0; i < 200000; i++)
        continue;
    check("nobody sees the old page", seen[1] == 1 && seen[2] == 1 && seen[3] == 1);

    done = 0;
    static const u8 old[] = {0xb8, 0x11, 0x11, 0x11, 0x11, 0xc3};
    memcpy(code, old, sizeof(old));
    phase = 2;
    ((u32(*)(void))code)();
    memset(code + 1, 0x22, 4);
    phase = 3;
    check("new code everywhere", wait_for(&done, CPUS - 1));

    bool right = true;
    for (u32 i = 0; i < 3000; i++) {
        memcpy(code + 1, (const void *)&i, 4);
        right &= ((u32(*)(void))code)() == i;
    }
    phase = 4;
    check("code that changes often", right);
    check("vector registers of the others", !spoilt);
}
