/* Control and model-specific registers: reserved bits, impossible combinations, unknown MSRs,
 * CPUID's consistency. Every value is put back. QEMU 7.2 checks almost none of this. */
#include "lib/guest.h"

void guest_main(void)
{
    const word cr0 = READ_CR(0), cr4 = READ_CR(4), cr3 = READ_CR(3);
    const struct {
        const char *name;
        word value;
    } cr0s[] = {{"PG without PE", cr0 & ~1ul},
                {"NW without CD", cr0 | 1ul << 29},
                {"bit 32", cr0 | 1ul << 32},
                {"PG off in 64-bit mode", cr0 & ~(1ul << 31)},
                {"ET stays", cr0 & ~0x10ul}},
      cr4s[] = {{"PAE off", cr4 & ~0x20ul},
                {"bit 31", cr4 | 1ul << 31},
                {"bit 63", cr4 | 1ul << 63}},
      cr3s[] = {{"bit 62", cr3 | 1ul << 62}, {"bit 52", cr3 | 1ul << 52}};
    for (unsigned i = 0; i < ARRAY_SIZE(cr0s); i++) {
        printf("CR0 %s: ", cr0s[i].name);
        TRY("mov %q0, %%cr0", "a"(cr0s[i].value));
        print_fault();
        putchar('\n');
    }
    printf("ET: %lx\n", READ_CR(0) >> 4 & 1);
    for (unsigned i = 0; i < ARRAY_SIZE(cr4s); i++) {
        printf("CR4 %s: ", cr4s[i].name);
        TRY("mov %q0, %%cr4", "a"(cr4s[i].value));
        print_fault();
        putchar('\n');
    }
    for (unsigned i = 0; i < ARRAY_SIZE(cr3s); i++) {
        printf("CR3 %s: ", cr3s[i].name);
        TRY("mov %q0, %%cr3", "a"(cr3s[i].value));
        print_fault();
        putchar('\n');
    }
    PROBE("mov %%cr1, %%rax");
    PROBE("mov %%cr5, %%rax");
    PROBE("mov %%cr9, %%rax");
    PROBE("rdmsr", "c"(0x12345678));
    PROBE("wrmsr", "c"(0x12345678), "a"(0), "d"(0));
    const u64 efer = rdmsr(0xc0000080);
    PROBE("wrmsr", "c"(0xc0000080), "a"((u32)efer & ~0x100u), "d"(0)); /* LME under PG */
    PROBE("wrmsr", "c"(0xc0000080), "a"((u32)efer | 2), "d"(0));
    PROBE("wrmsr", "c"(0x1b), "a"(0xfee00900), "d"(0xf0000000)); /* APIC base beyond MAXPHYADDR */
    PROBE("wrmsr", "c"(0x277), "a"(2), "d"(0));                  /* PAT type 2 */
    PROBE("wrmsr", "c"(0x277), "a"(0x00070406), "d"(0x00070406));
    PROBE("xsetbv", "c"(0), "a"(3), "d"(0)); /* OSXSAVE clear */
    PROBE("xgetbv", "c"(0));
    WRITE_CR(4, cr4 | 1 << 18);
    PROBE("xsetbv", "c"(0), "a"(2), "d"(0)); /* x87 off */
    PROBE("xsetbv", "c"(0), "a"(5), "d"(0)); /* AVX without SSE */
    PROBE("xsetbv", "c"(0), "a"(3), "d"(1)); /* unknown bit */
    PROBE("xsetbv", "c"(1), "a"(3), "d"(0));
    PROBE("xsetbv", "c"(0), "a"(3), "d"(0));
    PROBE_USER("xsetbv", "c"(0), "a"(3), "d"(0));
    check("OSXSAVE shows in CPUID", cpuid(1, 0).c >> 27 & 1);
    WRITE_CR(4, cr4);
    check("and goes again", !(cpuid(1, 0).c >> 27 & 1));
    check("basic leaves", cpuid(0, 0).a >= 7 && cpuid(0x80000000, 0).a >= 0x80000008);
    check("FPU, PSE, TSC, MSR, PAE, CX8, APIC, PGE, CMOV, PAT, FXSR, SSE2",
          (cpuid(1, 0).d & 0x0701a379) == 0x0701a379);
    check("64-bit mode, NX, SYSCALL", (cpuid(0x80000001, 0).d & 0x20100800) == 0x20100800);
    check("48 or more linear bits", (cpuid(0x80000008, 0).a >> 8 & 0xff) >= 48);
    PROBE_USER("mov %%cr8, %%rax");
    PROBE_USER("rdtsc");
    WRITE_CR(4, cr4 | 4); /* TSD */
    PROBE_USER("rdtsc");
    PROBE("rdtsc");
    WRITE_CR(4, cr4);
    PROBE_USER("rdpmc", "c"(0));
    PROBE_USER("smsw %%ax; sgdt (%q0)", "b"(0x1000ul));
    if (cpuid(7, 0).c >> 2 & 1) {
        WRITE_CR(4, cr4 | 1 << 11);
        TRY_USER("smsw %%ax");
        check("UMIP", fault.vector == 13);
        WRITE_CR(4, cr4);
    } else {
        puts("UMIP: ok\n");
    }
    /* RDPKRU: without CR4.PKE, with ECX not 0, and as it is meant. */
    bool good = true;
    if (cpuid(7, 0).c >> 3 & 1) {
        u32 low = 0, high = 1;
        TRY("rdpkru", "c"(0));
        good = fault.vector == 6;
        WRITE_CR(4, cr4 | 1 << 22);
        TRY("rdpkru", "c"(1));
        good &= fault.vector == 13;
        asm volatile("wrpkru" : : "a"(0x55555550), "c"(0), "d"(0));
        asm volatile("rdpkru" : "=a"(low), "=d"(high) : "c"(0));
        good &= low == 0x55555550 && high == 0;
        asm volatile("wrpkru" : : "a"(0), "c"(0), "d"(0));
        WRITE_CR(4, cr4);
    }
    check("RDPKRU", good);
}
