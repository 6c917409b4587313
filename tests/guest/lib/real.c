#include "guest.h"

#ifndef __x86_64__

void real_enter(void); /* real.S */

void real_call(const void *start, const void *end)
{
    memcpy((void *)REAL_CODE, start, (size_t)((const u8 *)end - (const u8 *)start));
    real_enter();
    load_gdt();
    const struct table_register r = {sizeof(idt) - 1, (word)idt};
    asm volatile("lidt %0" : : "m"(r));
}

#endif
