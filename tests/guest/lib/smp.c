#include "guest.h"

#define START_CODE 0x8000u
#define STACK_SIZE 8192

extern u8 ap_start[], ap_start_end[];
/* For the start-up code: which processor, on what stack, doing what; it clears `go` when it has
 * them. */
extern volatile u32 ap_number, ap_taken;
extern word ap_stack, ap_cr3, ap_cr4;
extern void (*ap_function)(unsigned);
word ap_stack, ap_cr3, ap_cr4;
void (*ap_function)(unsigned);
volatile u32 ap_number, ap_taken;

static u8 stacks[16][STACK_SIZE] __attribute__((aligned(16)));

void ap_main(void);
void ap_main(void)
{
    const unsigned n = ap_number;
    void (*fn)(unsigned) = ap_function;
    const struct table_register r = {sizeof(idt) - 1, (word)idt};
    asm volatile("lidt %0" : : "m"(r));
    ap_taken = 1;
    fn(n);
    for (;;)
        asm volatile("cli; hlt");
}

unsigned cpu_count(void)
{
    const u8 *madt = acpi_find("APIC");
    if (!madt)
        fail("no MADT");
    const u32 length = ((const struct acpi_header *)madt)->length;
    unsigned n = 0;
    for (u32 at = 44; at + 2 <= length && madt[at + 1]; at += madt[at + 1])
        n += madt[at] == 0 && (madt[at + 4] & 1);
    return n;
}

static void wait(u32 us)
{
    const u16 port = pm_timer_port();
    const u32 start = inl(port);
    while (((inl(port) - start) & 0xffffff) < us * 358 / 100)
        pause_cpu();
}

bool cpu_start(unsigned n, void (*fn)(unsigned n))
{
    memcpy((void *)(word)START_CODE, ap_start, (size_t)(ap_start_end - ap_start));
    ap_number = n;
    ap_function = fn;
    ap_stack = (word)stacks[n & 15] + STACK_SIZE;
    ap_cr3 = READ_CR(3);
    ap_cr4 = READ_CR(4);
    ap_taken = 0;
    apic_icr(n, 0xc500); /* INIT, assert, level */
    wait(1000);
    for (int attempt = 0; attempt < 2; attempt++) {
        apic_icr(n, 0x600 | START_CODE >> 12);
        for (int i = 0; i < 200; i++) {
            if (ap_taken)
                return true;
            wait(500);
        }
    }
    return false;
}
