/* The same code at several linear addresses, by turns and with address spaces loaded in between:
 * whatever depends on its address does. A translator may make one translation from another. */
#include "lib/guest.h"

#define VA(n)  (0x0000100000000000ul + (n)*0x7000200000ul)
#define PLACES 12
#define ROUNDS 24

extern u8 pages[], address[], popped[], returned[], loaded[], called_out[], x87_at[], looped[],
    crossed[], behind[], divides[], division[], after_call[], pushed[], fld[];
asm(".pushsection .text\n.balign 4096\n"
    "pages:\n"
    "address: lea address(%rip), %rax; ret\n"
    "popped: call pushed\n pushed: pop %rax; ret\n"
    "returned: call 1f\n after_call: ret\n 1: mov (%rsp), %rax; ret\n"
    "loaded: mov pages(%rip), %rax; ret\n"
    "called_out: mov %rbx, %r8; xor %eax, %eax; cpuid; mov %r8, %rbx; lea called_out(%rip), %rax; "
    "ret\n"
    "x87_at: fninit\n fld: fld1; fnstenv -64(%rsp); mov -52(%rsp), %eax; ret\n"
    "looped: mov $100, %ecx\n 1: dec %ecx; jnz 1b; lea looped(%rip), %rax; ret\n"
    "crossed: mov $1, %ecx; test %ecx, %ecx; jnz behind; ud2\n"
    "divides: xor %ecx, %ecx; mov $1, %eax; cltd\n division: div %ecx; ret\n"
    ".balign 4096\n"
    "behind: lea behind(%rip), %rax; ret\n"
    ".balign 4096\n.popsection");

static const struct {
    const char *name;
    const u8 *function, *result; /* offsets from `pages` are what counts */
    u64 mask;
} functions[] = {
    {"RIP-relative address", address, address, ~0ul},
    {"pushed by CALL", popped, pushed, ~0ul},
    {"returned to", returned, after_call, ~0ul},
    {"instruction called out for", called_out, called_out, ~0ul},
    {"x87 instruction pointer", x87_at, fld, 0xffffffff},
    {"loop", looped, looped, ~0ul},
    {"jump into the next page", crossed, behind, ~0ul},
};

static unsigned wrong[sizeof(functions) / sizeof(functions[0])], wrong_load, wrong_fault;

static void at(u64 va)
{
    for (unsigned i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        u64 (*function)(void) = (u64(*)(void))(va + (u64)(functions[i].function - pages));
        u64 expected = (va + (u64)(functions[i].result - pages)) & functions[i].mask;
        wrong[i] += function() != expected;
    }
    u64 (*load)(void) = (u64(*)(void))(va + (u64)(loaded - pages));
    wrong_load += load() != *(u64 *)pages;
    TRY("call *%q0", "b"(va + (u64)(divides - pages)));
    wrong_fault += fault.vector != 0 || fault.frame.ip != va + (u64)(division - pages);
}

void guest_main(void)
{
    u64 *root = (u64 *)READ_CR(3);
    for (unsigned n = 0; n < PLACES; n++)
        for (unsigned page = 0; page < 2; page++)
            *pte_of(root, 4, VA(n) + page * 4096, 1) = ((u64)pages + page * 4096) | PTE_P | PTE_W;
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned n = 0; n <= round && n < PLACES; n++) {
            at(VA(n));
            for (unsigned i = 0; i < round % 6; i++)
                WRITE_CR(3, READ_CR(3));
        }
    for (unsigned i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        check(functions[i].name, !wrong[i]);
    check("RIP-relative load", !wrong_load);
    check("address of a fault", !wrong_fault);
}
