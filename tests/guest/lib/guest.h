/*
 * What a guest kernel of these tests can use. The same library is built twice, for 32-bit protected
 * mode without paging and for 64-bit mode with the first 4 GiB identity-mapped by 2 MiB pages that
 * ring 3 may touch.
 *
 *   0x00001000  16-bit code copied by real_call() and v86 tests
 *   0x00008000  the start-up code of application processors
 *   0x00100000  the guest's image
 *   0x01000000  free for the guest
 *
 * A guest is a function guest_main(); returning from it ends the test as passed, fail() as failed.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned long word; /* as wide as a register */

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define STRINGIFY_(x) #x
#define STRINGIFY(x)  STRINGIFY_(x)

/* The loader's EAX and EBX at entry. */
extern u32 boot_magic, boot_info;

void guest_main(void);

/* Console (console.c): COM1, no interrupts. */
void putchar(char c);
void puts(const char *s); /* no newline added */
/* %s %c %d %u %x, with l, a width and 0 padding. */
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* End the test: 0 passes. */
void debug_exit(u32 value) __attribute__((noreturn));
/* Print a line and end the test as failed. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
/* Print "NAME: ok" or "NAME: WRONG"; returns `good`. */
bool check(const char *name, bool good);

void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* Descriptors (descriptors.c) */
enum {
    SEL_CODE = 0x08, /* in the order that SYSENTER, SYSEXIT, SYSCALL and SYSRET want */
    SEL_DATA = 0x10,
    SEL_USER_CODE32 = 0x1b,
    SEL_USER_DATA = 0x23,
    SEL_USER_CODE64 = 0x2b,
    SEL_TSS = 0x38, /* two entries in 64-bit mode */
    SEL_CODE16 = 0x48,
    SEL_DATA16 = 0x50,
    SEL_CODE32 = 0x58,
    SEL_FREE = 0x60, /* and up to GDT_ENTRIES */
};
#define GDT_ENTRIES 64
#ifdef __x86_64__
#define SEL_USER_CODE SEL_USER_CODE64
#else
#define SEL_USER_CODE SEL_USER_CODE32
#endif

/* Bits 8..23 of a descriptor's upper half, limit bits left out. */
enum {
    SEG_DATA_RO = 0x90,
    SEG_DATA = 0x92,
    SEG_DATA_DOWN = 0x96,
    SEG_EXEC_ONLY = 0x98,
    SEG_CODE = 0x9a,
    SEG_CONFORMING = 0x9e,
    SEG_LDT = 0x82,
    SEG_TSS16 = 0x81,
    SEG_TSS32 = 0x89,
    SEG_DPL3 = 0x60,
    SEG_PRESENT = 0x80,
    SEG_LONG = 0x2000,
    SEG_BIG = 0x4000,
    SEG_GRAN = 0x8000,
};
enum {
    GATE_CALL16 = 0x84,
    GATE_TASK = 0x85,
    GATE_INT16 = 0x86,
    GATE_TRAP16 = 0x87,
    GATE_CALL32 = 0x8c,
    GATE_INT = 0x8e,
    GATE_TRAP = 0x8f
};

struct __attribute__((packed)) table_register {
    u16 limit;
    word base;
};

struct tss32 {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    u32 eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt;
    u16 trap, iomap;
};

struct __attribute__((packed)) tss64 {
    u32 reserved;
    u64 rsp[3];
    u64 reserved2;
    u64 ist[7];
    u64 reserved3;
    u16 reserved4, iomap;
};

#ifdef __x86_64__
typedef struct tss64 tss_t;
#else
typedef struct tss32 tss_t;
#endif

extern u64 gdt[GDT_ENTRIES];
/* The running TSS with a permission bitmap for all ports behind it, all bits set (denied). */
extern struct __attribute__((packed)) tss_area {
    tss_t tss;
    u8 bitmap[8192 + 1];
} tss_area;

u64 segment(u32 base, u32 limit, u32 access);
u64 gate32(u16 selector, u32 offset, u8 type, u8 parameters);
void set_segment(u16 selector, u32 base, u32 limit, u32 access);
void load_gdt(void);
/* Fill an IDT or GDT gate in this mode's own format. */
void set_gate(void *gate, u16 selector, void *offset, u8 type, u8 ist);

/* Exceptions and interrupts (fault.c, vectors.S) */
struct frame {
#ifdef __x86_64__
    word r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax;
    word vector, error, ip, cs, flags, sp, ss;
#else
    word gs, fs, es, ds, di, si, bp, unused, bx, dx, cx, ax;
    word vector, error, ip, cs, flags, sp, ss; /* sp, ss only from an outer ring... */
    word v86_es, v86_ds, v86_fs, v86_gs;       /* ...and these only from virtual-8086 mode */
#endif
};

#define VECTOR_NONE (-1)
#define VECTOR_DONE 0x80 /* INT 80h ends a stretch of user code that went well */

extern struct fault {
    int vector; /* VECTOR_NONE: nothing happened */
    word error, cr2;
    struct frame frame;
    word handler_sp; /* the handler's stack pointer behind (above) the frame */
} fault;

extern struct resume {
    word ip, sp, bp; /* where to go on after an exception */
    word probe;      /* what the reported RIP is relative to */
} resume;

extern u8 idt[256 * 2 * sizeof(word)];
extern void (*handlers[256])(struct frame *);
extern u8 vector_stubs[256][16];
extern u8 kernel_stack_top[]; /* what SP0 of the TSS points at */

void load_idt(void);
void set_idt(int vector, u16 selector, void *offset, u8 type);
void handle(int vector, void (*handler)(struct frame *));
/* Print what the last probe did: "ok", or "#GP(0010) +2", plus RF where set and CR2. */
void print_fault(void);
/* Asm text ("%%" stands for one, a newline for "; ") and ": ". */
void put_asm(const char *text);
void report(const char *text); /* that, and print_fault() */

#ifdef __x86_64__
#define SP_  "%%rsp"
#define BP_  "%%rbp"
#define MOV_ "movq"
#define PUSH_ALL_                                                                                  \
    "push %%rax\n push %%rcx\n push %%rdx\n push %%rbx\n push %%rbp\n push %%rsi\n push %%rdi\n"   \
    "push %%r8\n push %%r9\n push %%r10\n push %%r11\n push %%r12\n push %%r13\n push %%r14\n"     \
    "push %%r15\n"
#define POP_ALL_                                                                                   \
    "pop %%r15\n pop %%r14\n pop %%r13\n pop %%r12\n pop %%r11\n pop %%r10\n pop %%r9\n"           \
    "pop %%r8\n pop %%rdi\n pop %%rsi\n pop %%rbp\n pop %%rbx\n pop %%rdx\n pop %%rcx\n"           \
    "pop %%rax\n"
#define TO_USER_                                                                                   \
    "mov user_data_selector, %%ds\n mov user_data_selector, %%es\n"                                \
    "pushq $0x23\n pushq resume+8\n pushq user_flags\n pushq user_code_selector\n pushq $88f\n"    \
    "iretq\n"
#else
#define SP_       "%%esp"
#define BP_       "%%ebp"
#define MOV_      "movl"
#define PUSH_ALL_ "pusha\n"
#define POP_ALL_  "popa\n"
#define TO_USER_                                                                                   \
    "mov user_data_selector, %%ds\n mov user_data_selector, %%es\n"                                \
    "pushl $0x23\n pushl resume+4\n pushl user_flags\n pushl user_code_selector\n pushl $88f\n"    \
    "iret\n"
#endif

#define WORD_AT_(n) "resume+" STRINGIFY(n *__SIZEOF_LONG__) "\n"
#define ARM_                                                                                       \
    MOV_ " $89f, " WORD_AT_(0) MOV_ " " SP_ ", " WORD_AT_(1) MOV_ " " BP_ ", " WORD_AT_(2) MOV_    \
        " $88f, " WORD_AT_(3)
#define DISARM_                                                                                    \
    "89: " MOV_ " $0, resume\n" MOV_ " resume+" STRINGIFY(1 * __SIZEOF_LONG__) ", " SP_ "\n"

/*
 * Run instructions that may fault; what happened is in `fault`. They may change any general
 * register: all are put back, as are the stack pointer, the flags, CS, DS, ES and SS. `...` are
 * input operands as for GCC's extended asm, in registers: "a"(1), "r"(pointer).
 */
#define TRY(insn, ...)                                                                             \
    ({                                                                                             \
        fault.vector = VECTOR_NONE;                                                                \
        asm volatile(PUSH_ALL_ ARM_ "88: " insn "\n" DISARM_ POP_ALL_                              \
                     :                                                                             \
                     : __VA_ARGS__                                                                 \
                     : "memory", "cc");                                                            \
    })

/* The same at CPL 3, on the same stack; EFLAGS there are user_flags. */
extern word user_flags, user_code_selector, user_data_selector;
#define TRY_USER(insn, ...)                                                                        \
    ({                                                                                             \
        fault.vector = VECTOR_NONE;                                                                \
        asm volatile(PUSH_ALL_ ARM_ TO_USER_ "88: " insn "\n int $0x80\n" DISARM_ POP_ALL_         \
                     :                                                                             \
                     : __VA_ARGS__                                                                 \
                     : "memory", "cc");                                                            \
    })

/* Run, and print the instructions and the outcome as one line. */
#define PROBE(insn, ...)                                                                           \
    ({                                                                                             \
        TRY(insn, __VA_ARGS__);                                                                    \
        report(insn);                                                                              \
    })
#define PROBE_USER(insn, ...)                                                                      \
    ({                                                                                             \
        TRY_USER(insn, __VA_ARGS__);                                                               \
        report("ring 3: " insn);                                                                   \
    })

/* 16-bit code (real.c, real.S): between `start` and `end`, run at REAL_CODE with CS = DS = ES =
 * SS = REAL_CODE >> 4 and SP = 0x6000, in real mode, until it returns by RETF. 32-bit guests only.
 * `real_data` is where a label of that code lies now. */
#define REAL_CODE 0x1000u
void real_call(const void *start, const void *end);
#define REAL_ADDRESS(start, label) ((void *)(REAL_CODE + ((u8 *)(label) - (u8 *)(start))))

/* Page tables (paging.c) */
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX (1ull << 63)
void *page_alloc(void); /* zeroed */
/* The entry for `va` at `level` (1: page table) below the 64-bit-entry table `root` of `levels`
 * levels; tables on the way are made, with P, W and U. PAE directory pointers get P alone. */
u64 *pte_of(u64 *root, int levels, u64 va, int level);
/* The same for 32-bit entries. */
u32 *pte32_of(u32 *root, u32 va, int level);

/* Processors (smp.c) */
unsigned cpu_count(void); /* from the MADT */
/* Start processor `n` (by APIC ID) running `fn` at CPL 0 on a stack of its own; false: no answer.
 */
bool cpu_start(unsigned n, void (*fn)(unsigned n));

/* Local APIC (apic.c) */
extern bool x2apic;     /* which way apic_read and apic_write go */
u32 apic_read(u32 reg); /* register offsets of the xAPIC page */
void apic_write(u32 reg, u32 value);
void apic_icr(u32 destination, u32 low);
void apic_enable(void); /* software enable, spurious vector 0xff, TPR 0, LVT masked */
void ioapic_write(u8 reg, u32 value);
u32 ioapic_read(u8 reg);
enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xa0,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR2 = 0x310,
    APIC_TIMER = 0x320,
    APIC_LINT0 = 0x350,
    APIC_LINT1 = 0x360,
    APIC_ERROR = 0x370,
    APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3e0
};

/* 8259 pair (pic.c): vectors 0x20.. and 0x28.., all masked. */
void pic_init(void);
void pic_unmask(int irq);
void pic_mask(int irq);
void pic_eoi(int irq);

/* ACPI tables (acpi.c): NULL where there is none. */
struct acpi_header {
    char signature[4];
    u32 length;
    u8 revision, checksum;
    char oem[6], oem_table[8];
    u32 oem_revision, creator, creator_revision;
};
void *acpi_rsdp(void);
void *acpi_find(const char *signature);
bool acpi_sum(const void *p, size_t n); /* adds up to zero */
u16 pm_timer_port(void);

/* Instructions */
static inline void outb(u16 port, u8 v)
{
    asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outw(u16 port, u16 v)
{
    asm volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outl(u16 port, u32 v)
{
    asm volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline u8 inb(u16 port)
{
    u8 v;
    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u16 inw(u16 port)
{
    u16 v;
    asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u32 inl(u16 port)
{
    u32 v;
    asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u64 rdtsc(void)
{
    u32 lo, hi;
    asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return lo | (u64)hi << 32;
}
static inline u64 rdmsr(u32 msr)
{
    u32 lo, hi;
    asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return lo | (u64)hi << 32;
}
static inline void wrmsr(u32 msr, u64 v)
{
    asm volatile("wrmsr" : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}
struct cpuid {
    u32 a, b, c, d;
};
static inline struct cpuid cpuid(u32 leaf, u32 sub)
{
    struct cpuid r;
    asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
    return r;
}
#define READ_CR(n)                                                                                 \
    ({                                                                                             \
        word v_;                                                                                   \
        asm volatile("mov %%cr" #n ", %0" : "=r"(v_));                                             \
        v_;                                                                                        \
    })
#define WRITE_CR(n, v) ({ asm volatile("mov %0, %%cr" #n : : "r"((word)(v)) : "memory"); })
#define READ_DR(n)                                                                                 \
    ({                                                                                             \
        word v_;                                                                                   \
        asm volatile("mov %%db" #n ", %0" : "=r"(v_));                                             \
        v_;                                                                                        \
    })
#define WRITE_DR(n, v) asm volatile("mov %0, %%db" #n : : "r"((word)(v)) : "memory")
static inline void invlpg(word address)
{
    asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}
static inline void sti(void)
{
    asm volatile("sti" : : : "memory");
}
static inline void cli(void)
{
    asm volatile("cli" : : : "memory");
}
/* Take the interrupts that are pending now. */
static inline void take_interrupts(void)
{
    asm volatile("sti; nop; nop; cli" : : : "memory");
}
static inline void pause_cpu(void)
{
    asm volatile("pause" : : : "memory");
}

#endif
