/* Floating point and vectors as an OS meets them: #NM with TS, #MF, #XM and its SIMD error, lazy
 * saving; FXSAVE, XSAVE, XRSTOR, XSAVEOPT with their checks; FNSTENV's addresses; alignment of SSE
 * operands. */
#include "lib/guest.h"

static u8 area[4096] __attribute__((aligned(64))), other[4096] __attribute__((aligned(64)));
static const double one = 1.0, zero = 0.0;

static void lazy(void)
{
    WRITE_CR(0, READ_CR(0) | 8);
    PROBE("fld1");
    PROBE("movaps %%xmm0, %%xmm1");
    PROBE("fxsave (%q0)", "b"(area));
    PROBE("fwait");
    PROBE("clts; movaps %%xmm0, %%xmm1");
    WRITE_CR(4, READ_CR(4) & ~0x200ul);
    PROBE("movaps %%xmm0, %%xmm1");
    WRITE_CR(4, READ_CR(4) | 0x200);
}

static void exceptions(void)
{
    static const u32 unmasked = 0x1f80 & ~0x200u, masked = 0x1f80; /* division by zero */
    u32 mxcsr;
    PROBE("ldmxcsr (%q0); movsd (%q1), %%xmm0; divsd (%q2), %%xmm0", "b"(&unmasked), "c"(&one),
          "d"(&zero));
    asm volatile("stmxcsr %0" : "=m"(mxcsr));
    printf("MXCSR %x\n", mxcsr);
    WRITE_CR(4, READ_CR(4) & ~0x400ul);
    PROBE("ldmxcsr (%q0); movsd (%q1), %%xmm0; divsd (%q2), %%xmm0", "b"(&unmasked), "c"(&one),
          "d"(&zero));
    WRITE_CR(4, READ_CR(4) | 0x400);
    PROBE("ldmxcsr (%q0); movsd (%q1), %%xmm0; divsd (%q2), %%xmm0", "b"(&masked), "c"(&one),
          "d"(&zero));
    static const u32 bad = 0x10000;
    PROBE("ldmxcsr (%q0)", "b"(&bad));
    PROBE("movaps 1(%q0), %%xmm0", "b"(area));
    PROBE("movups 1(%q0), %%xmm0", "b"(area));
    PROBE("addps 8(%q0), %%xmm0", "b"(area));
    PROBE("fxsave 8(%q0)", "b"(area));
    static const u16 control = 0x37b;
    PROBE("fninit; fldcw (%q0); fld1; fldz; fdivrp; fld1", "b"(&control));
    PROBE("fnstsw %%ax; fnclex; fninit");
}

static void environment(void)
{
    asm volatile("fninit; fldl %1; fnstenv (%0); fninit" : : "r"(area), "m"(one) : "memory");
    const u32 *env = (const u32 *)area;
    printf("control %x, tags %x\n", env[0] & 0xffff, env[2] & 0xffff);
    check("tag of an empty stack but one", (env[2] & 0xffff) == 0x3fff);
    word ip;
    asm volatile("fninit; fldl %2; 1: fldz; fnstenv (%1); fninit; lea 1b(%%rip), %0"
                 : "=r"(ip)
                 : "r"(area), "m"(one)
                 : "memory");
    check("pointers: the last instruction, the last operand in memory",
          env[3] == (u32)ip && env[5] == (u32)(word)&one);
}

static void save(void)
{
    if (!(cpuid(1, 0).c >> 26 & 1))
        fail("no XSAVE");
    PROBE("xsave (%q0)", "b"(area), "a"(3), "d"(0)); /* OSXSAVE clear */
    WRITE_CR(4, READ_CR(4) | 1 << 18);
    asm volatile("xsetbv" : : "c"(0), "a"(3), "d"(0));
    check("XCR0 in CPUID's size", cpuid(0xd, 0).b == 576);
    memset(area, 0, sizeof(area));
    asm volatile("fninit; fldpi; xsave (%0)" : : "r"(area), "a"(3), "d"(0) : "memory");
    check("XSTATE_BV has x87", area[512] & 1);
    memset(other, 0, sizeof(other));
    asm volatile("xrstor (%0); xsave (%1)"
                 :
                 : "r"(other), "r"(area + 1024), "a"(3), "d"(0)
                 : "memory");
    check("XRSTOR of the initial state",
          (area[1024] | area[1025] << 8) == 0x37f && area[1028] == 0);
    asm volatile("xrstor (%0); xsave (%1)"
                 :
                 : "r"(area), "r"(area + 2048), "a"(3), "d"(0)
                 : "memory");
    check("and back: pi", !memcmp(area + 32, area + 2048 + 32, 10) && area[32 + 9] == 0x40);
    PROBE("xsave 32(%q0)", "b"(area), "a"(3), "d"(0));
    other[512] = 0x80; /* a component that is not enabled */
    PROBE("xrstor (%q0)", "b"(other), "a"(3), "d"(0));
    other[512] = 0;
    other[520] = 1; /* XCOMP_BV without compaction */
    PROBE("xrstor (%q0)", "b"(other), "a"(3), "d"(0));
    other[520] = 0;
    other[528] = 1; /* reserved bytes of the header */
    PROBE("xrstor (%q0)", "b"(other), "a"(3), "d"(0));
    other[528] = 0;
    if (cpuid(1, 0).c >> 28 & 1) {
        PROBE("vxorps %%ymm0, %%ymm0, %%ymm0"); /* XCR0 without AVX */
        asm volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
        PROBE("vxorps %%ymm0, %%ymm0, %%ymm0");
        PROBE("vmovaps 16(%q0), %%ymm0", "b"(area));
        PROBE("vaddps 4(%q0), %%ymm0, %%ymm0", "b"(area)); /* VEX operands need not be aligned */
    } else {
        fail("no AVX");
    }
    WRITE_CR(0, READ_CR(0) | 8);
    PROBE("vxorps %%ymm0, %%ymm0, %%ymm0");
    PROBE("xsave (%q0)", "b"(area), "a"(3), "d"(0));
    WRITE_CR(0, READ_CR(0) & ~8ul);
}

void guest_main(void)
{
    lazy();
    exceptions();
    environment();
    save();
}
