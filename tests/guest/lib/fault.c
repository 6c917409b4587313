#include "guest.h"

struct fault fault;
struct resume resume;
u8 idt[256 * 2 * sizeof(word)] __attribute__((aligned(16)));
void (*handlers[256])(struct frame *);
word user_flags = 2, user_code_selector = SEL_USER_CODE, user_data_selector = SEL_USER_DATA;

static const char *const names[] = {
    [0] = "#DE",  [1] = "#DB",  [2] = "NMI",  [3] = "#BP",  [4] = "#OF",  [5] = "#BR",
    [6] = "#UD",  [7] = "#NM",  [8] = "#DF",  [10] = "#TS", [11] = "#NP", [12] = "#SS",
    [13] = "#GP", [14] = "#PF", [16] = "#MF", [17] = "#AC", [18] = "#MC", [19] = "#XM",
};
#define VECTORS_WITH_ERROR 0x27d00u
#define FLAG_RF            0x10000u

void set_idt(int vector, u16 selector, void *offset, u8 type)
{
    set_gate(idt + vector * 2 * (int)sizeof(word), selector, offset, type, 0);
}

void load_idt(void)
{
    for (int i = 0; i < 256; i++)
        set_idt(i, SEL_CODE, vector_stubs[i], GATE_INT);
    set_idt(VECTOR_DONE, SEL_CODE, vector_stubs[VECTOR_DONE], GATE_INT | SEG_DPL3);
    const struct table_register r = {sizeof(idt) - 1, (word)idt};
    asm volatile("lidt %0" : : "m"(r));
}

void handle(int vector, void (*handler)(struct frame *))
{
    handlers[vector] = handler;
}

/* From vectors.S; false: return from the interrupt, true: go on where `resume` says. */
bool dispatch(struct frame *f);
bool dispatch(struct frame *f)
{
    if (handlers[f->vector]) {
        handlers[f->vector](f);
        return false;
    }
    fault.vector = (int)f->vector;
    fault.error = f->error;
    fault.cr2 = READ_CR(2);
    const bool outer = sizeof(word) == 8 || (f->cs & 3) || (f->flags & 0x20000);
    memcpy(&fault.frame, f, outer ? sizeof(*f) : offsetof(struct frame, sp));
    if (!outer)
        fault.frame.sp = (word)&f->sp;
    fault.handler_sp = outer ? (word)(f + 1) : (word)&f->sp;
    if (!resume.ip) {
        puts("unexpected ");
        print_fault();
        fail(" at %lx", f->ip);
    }
    return true;
}

void print_fault(void)
{
    const int v = fault.vector;
    if (v == VECTOR_NONE || v == VECTOR_DONE) {
        puts("ok");
        return;
    }
    if ((unsigned)v < ARRAY_SIZE(names) && names[v])
        puts(names[v]);
    else
        printf("vector %02x", (unsigned)v);
    if (v < 32 && (VECTORS_WITH_ERROR >> v & 1))
        printf("(%lx)", fault.error);
    if (v == 14)
        printf(" cr2=%lx", fault.cr2);
    const long offset = (long)(fault.frame.ip - resume.probe);
    if (offset >= -64 && offset < 256)
        printf(" +%ld", offset);
    else
        printf(" ip=%lx", fault.frame.ip);
    if ((fault.frame.flags & FLAG_RF) && v != 8) /* for an abort it is not laid down */
        puts(" rf");
}

void put_asm(const char *name)
{
    for (; *name; name++) {
        if (name[0] == '%' && name[1] == '%')
            continue;
        if (*name == '\n')
            puts("; ");
        else
            putchar(*name);
    }
    puts(": ");
}

void report(const char *name)
{
    put_asm(name);
    print_fault();
    putchar('\n');
}
