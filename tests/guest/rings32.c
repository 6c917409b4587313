/*
 * Rings 1 and 2: supervisor to pages, without a kernel's privileges. What is privileged, what IOPL
 * and the I/O bitmap allow, the stack that a call gate and an interrupt take, loops that are hot.
 */
#include "lib/guest.h"

enum { CODE = SEL_FREE, DATA = SEL_FREE + 8, GATE = SEL_FREE + 16 };

u32 ring_code, ring_data, ring_flags = 2;

#define TRY_RING(insn, ...)                                                                        \
    ({                                                                                             \
        fault.vector = VECTOR_NONE;                                                                \
        asm volatile(PUSH_ALL_ ARM_                                                                \
                     "mov ring_data, %%ds\n mov ring_data, %%es\n pushl ring_data\n"               \
                     "pushl resume+4\n pushl ring_flags\n pushl ring_code\n pushl $88f\n iret\n"   \
                     "88: " insn "\n int $0x80\n" DISARM_ POP_ALL_                                 \
                     :                                                                             \
                     : __VA_ARGS__                                                                 \
                     : "memory", "cc");                                                            \
    })
#define PROBE_RING(insn, ...)                                                                      \
    ({                                                                                             \
        TRY_RING(insn, __VA_ARGS__);                                                               \
        printf("ring %u: " insn ": ", ring_code & 3);                                              \
        print_fault();                                                                             \
        putchar('\n');                                                                             \
    })

static u32 seen[4];

static void enter(u32 ring)
{
    const u32 dpl = ring << 5; /* of a descriptor */
    set_segment(CODE, 0, 0xfffff, SEG_CODE | SEG_BIG | SEG_GRAN | dpl);
    set_segment(DATA, 0, 0xfffff, SEG_DATA | SEG_BIG | SEG_GRAN | dpl);
    ring_code = CODE | ring;
    ring_data = DATA | ring;
}

/* A gate to ring 0: where it came from, and flags. */
asm(".globl ring_gate\n"
    "ring_gate: mov %ss, %eax\n mov %eax, seen_gate\n mov 4(%esp), %eax\n mov %eax, seen_gate+4\n"
    "  mov 12(%esp), %eax\n mov %eax, seen_gate+8\n lret\n");
extern u8 ring_gate[];
u32 seen_gate[3];

static void privileged(void)
{
    PROBE_RING("cli");
    PROBE_RING("sti");
    PROBE_RING("hlt");
    PROBE_RING("mov %%cr0, %%eax");
    PROBE_RING("mov %%eax, %%cr3");
    PROBE_RING("mov %%dr7, %%eax");
    PROBE_RING("invlpg (%%esp)");
    PROBE_RING("clts");
    PROBE_RING("lmsw %%ax");
    PROBE_RING("rdmsr");
    PROBE_RING("in $0x61, %%al");
    PROBE_RING("pushf; popf; rdtsc; mov %%ds, %%eax; str %%ax");
    TRY_RING("pushf; orl $0x3200, (%%esp); popf; pushf; pop (%0)", "b"(seen));
    printf("ring %u: POPF leaves IF and IOPL: %x\n", ring_code & 3, seen[0] & 0x3200);
    ring_flags = 2 | (ring_code & 3) << 12;
    TRY_RING("sti; pushf; pop (%0); cli; pushf; pop 4(%0); pushf; orl $0x200, (%%esp); popf; pushf;"
             "pop 8(%0); cli",
             "b"(seen));
    printf("ring %u with its IOPL: IF %x %x %x ", ring_code & 3, seen[0] >> 9 & 1, seen[1] >> 9 & 1,
           seen[2] >> 9 & 1);
    print_fault();
    putchar('\n');
    PROBE_RING("in $0x61, %%al");
    ring_flags = 2;
}

static void hot(void)
{
    gdt[GATE >> 3] = gate32(SEL_CODE, (u32)ring_gate, GATE_CALL32 | SEG_DPL3, 0);
    TRY_RING("mov $300, %%ecx; xor %%edx, %%edx\n"
             "1: add %%ecx, (%0); push %%ecx; lcall $0x70, $0; pop %%ecx; add (%0), %%edx; call 2f;"
             "loop 1b; jmp 3f\n"
             "2: incl 4(%0); ret\n"
             "3: mov %%edx, 8(%0)",
             "b"(seen));
    printf("ring %u, hot: %x %u %x, gate: SS %x from CS %x SS %x ", ring_code & 3, seen[0], seen[1],
           seen[2], seen_gate[0] & 0xffff, seen_gate[1] & 0xffff, seen_gate[2] & 0xffff);
    print_fault();
    putchar('\n');
    memset(seen, 0, sizeof(seen));
}

void guest_main(void)
{
    for (u32 ring = 1; ring < 4; ring++) {
        enter(ring);
        memset(seen, 0, sizeof(seen));
        privileged();
        memset(seen, 0, sizeof(seen));
        hot();
    }
}
