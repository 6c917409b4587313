/* Accesses of which a mask leaves out elements, by one instruction again and again, so that what
 * was learnt of a page is used: what is left out neither faults nor counts as written. Where the
 * processor has no AVX2 or no AVX-512 the lines are the same. */
#include "lib/guest.h"

#define VA    0x0000200000000000ul
#define NEXT  (VA + 4096)
#define WARM  4 /* times within the first page, before each case */
#define STAMP 0xabcd0000u

enum kind { AVX2_LOAD, AVX2_STORE, EVEX_LOAD, EVEX_STORE, EVEX_COMPARE };
static const char *const kinds[] = {"VPMASKMOVD from", "VPMASKMOVD to", "VMOVDQU32 from",
                                    "VMOVDQU32 to", "VPCMPD with"};

static u8 frames[2][4096] __attribute__((aligned(4096)));
static u32 mask[8], pattern[8], result[8];
static u64 *second; /* the page-table entry of the second page */

/* Eight doublewords at `at`, of which `bits` says which count. */
static void access(enum kind kind, u64 at, u32 bits)
{
    for (unsigned i = 0; i < 8; i++)
        mask[i] = bits >> i & 1 ? 1u << 31 : 0;
    if (kind <= AVX2_STORE) {
        asm volatile("vmovdqu %0, %%ymm0; vmovdqu %1, %%ymm1" : : "m"(mask), "m"(pattern));
        if (kind == AVX2_LOAD)
            TRY("vpmaskmovd (%q0), %%ymm0, %%ymm1", "r"(at));
        else
            TRY("vpmaskmovd %%ymm1, %%ymm0, (%q0)", "r"(at));
        asm volatile("vmovdqu %%ymm1, %0" : "=m"(result));
        return;
    }
    asm volatile("kmovd %0, %%k1; vmovdqu32 %1, %%ymm1" : : "r"(bits), "m"(pattern));
    if (kind == EVEX_LOAD)
        TRY("vmovdqu32 (%q0), %%ymm1%{%%k1%}%{z%}", "r"(at));
    else if (kind == EVEX_STORE)
        TRY("vmovdqu32 %%ymm1, (%q0)%{%%k1%}", "r"(at));
    else
        TRY("vpcmpd $4, (%q0), %%ymm1, %%k1%{%%k1%}", "r"(at)); /* not equal */
    asm volatile("vmovdqu32 %%ymm1, %0; kmovd %%k1, %1" : "=m"(result), "=m"(mask[0]));
}

static bool is_store(enum kind kind)
{
    return kind == AVX2_STORE || kind == EVEX_STORE;
}

/* Did the access that was just made do what it should? */
static bool moved(enum kind kind, u64 at, u32 bits)
{
    bool good = true;
    for (unsigned i = 0; i < 8; i++) {
        bool on = bits >> i & 1;
        u32 there = on ? ((u32 *)at)[i] : 0;
        if (is_store(kind))
            good &= !on || there == STAMP + i;
        else if (kind == EVEX_COMPARE)
            good &= (mask[0] >> i & 1) == on;
        else
            good &= result[i] == there;
    }
    return good;
}

static void fill(void)
{
    for (unsigned i = 0; i < sizeof frames / 4; i++)
        ((u32 *)frames)[i] = i;
}

static void with(enum kind kind)
{
    static const struct {
        const char *name;
        u64 at, rights; /* of the second page */
        u32 bits, error;
        u64 cr2; /* 0: no fault */
    } cases[] = {
        {"the end of a page", NEXT - 16, 0, 0x0f, 0, 0},
        {"the end of a page and an absent one", NEXT - 16, 0, 0x1f, 0, NEXT},
        {"nothing of an absent page", NEXT + 64, 0, 0, 0, 0},
        {"the end of an absent page", NEXT + 64, 0, 0x80, 0, NEXT + 64 + 28},
        {"nothing of a clean page", NEXT + 64, PTE_P | PTE_W, 0, 0, 0},
        {"two pages", NEXT - 16, PTE_P | PTE_W, 0x99, 0, 0},
        {"nothing of a read-only page", NEXT + 64, PTE_P, 0, 0, 0},
        {"a read-only page", NEXT + 64, PTE_P, 2, 1, NEXT + 64 + 4},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        bool faults = cases[i].cr2 && (!(cases[i].rights & PTE_P) || is_store(kind)), good = true;
        bool able = kind <= AVX2_STORE ? cpuid(7, 0).b >> 5 & 1
                                       : (cpuid(7, 0).b & 0xc0010000) == 0xc0010000;
        for (unsigned n = 0; able && n <= WARM; n++) {
            u64 at = n < WARM ? VA + 64ul * n : cases[i].at;
            fill();
            *(volatile u64 *)second = (word)frames[1] | cases[i].rights;
            invlpg(NEXT);
            access(kind, at, cases[i].bits);
            if (n < WARM || !faults)
                good &= fault.vector == VECTOR_NONE && moved(kind, at, cases[i].bits);
            else
                good &= fault.vector == 14 && fault.cr2 == cases[i].cr2 &&
                        fault.error == (cases[i].error | (is_store(kind) ? 2 : 0));
            bool touched = n == WARM && !faults && (at < NEXT ? cases[i].bits >> 4 : cases[i].bits);
            good &= touched == !!(*second & PTE_A) || faults;
            good &= (touched && is_store(kind)) == !!(*second & PTE_D);
        }
        printf("%s ", kinds[kind]);
        check(cases[i].name, good);
    }
}

void guest_main(void)
{
    u64 *root = (u64 *)READ_CR(3);
    u64 *first = pte_of(root, 4, VA, 1);
    second = pte_of(root, 4, NEXT, 1);
    *(volatile u64 *)first = (word)frames[0] | PTE_P | PTE_W;
    for (unsigned i = 0; i < 8; i++)
        pattern[i] = STAMP + i;
    WRITE_CR(0, READ_CR(0) | 0x10000);
    if (cpuid(1, 0).c >> 26 & 1) {
        WRITE_CR(4, READ_CR(4) | 0x40000);
        asm volatile("xsetbv" : : "c"(0), "a"((cpuid(7, 0).b >> 16 & 1) ? 0xe7 : 7), "d"(0));
    }
    for (enum kind kind = AVX2_LOAD; kind <= EVEX_COMPARE; kind++)
        with(kind);
}
