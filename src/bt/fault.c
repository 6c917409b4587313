/*
 * Signals that translated code raises: the interpreter then runs the instruction. And the stack
 * that it runs on: where CALLs without RETs have filled it, a guard page is hit, and it starts
 * anew.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "bt/host.h"
#include "util/error.h"

#define CODE_STACK   (UINT64_C(64) << 10)
#define SIGNAL_STACK (UINT64_C(64) << 10)

static const struct bt_fault_point *find_point(const struct bt *bt, const uint8_t *code)
{
    uint64_t segment = (uint64_t)(code - bt->exec) / bt->segment_code;
    for (const struct bt_block *b = bt->segments[segment].blocks; b; b = b->segment_next)
        for (unsigned n = 0; n < b->fault_count; n++)
            if (b->faults[n].code == code)
                return &b->faults[n];
    return NULL;
}

/* There is nothing left but to die of it, but not without a word. */
static void report(const struct bt *bt, int number, const uint8_t *code)
{
    uint64_t segment = (uint64_t)(code - bt->exec) / bt->segment_code;
    const struct bt_block *b = bt->segments[segment].blocks;
    while (b && !(code >= MIN(b->entry_live, b->entry_saved) && code < b->code_end))
        b = b->segment_next;
    dprintf(
        STDERR_FILENO,
        "trivisor: internal error: signal %d in the translation of guest code at 0x%" PRIx64
        " (mode 0x%x, host offset 0x%tx); --bt-opt none may avoid it, and we want to hear of it\n",
        number, b ? b->rip : 0, b ? b->mode : 0u, code - bt->exec);
}

bool bt_on_signal(int number, void *context)
{
    ucontext_t *uc = context;
    greg_t *regs = uc->uc_mcontext.gregs;
    const struct vcpu *cpu = bt_running();
    struct bt *bt = cpu ? cpu->bt : NULL;
    uint64_t size = bt ? bt->segment_code * bt->segment_count : 0;
    uintptr_t rip = (uintptr_t)regs[REG_RIP];
    if (!bt || rip < (uintptr_t)bt->exec || rip >= (uintptr_t)bt->exec + size)
        return false;
    uintptr_t fault = (uintptr_t)regs[REG_CR2], guard = (uintptr_t)bt->code_stack - PAGE_SIZE;
    if (number == SIGSEGV && fault >= guard && fault < guard + PAGE_SIZE &&
        (uintptr_t)regs[REG_RSP] < guard + 2 * PAGE_SIZE) {
        regs[REG_RSP] = (greg_t)bt->code_top;
        return true;
    }
    const struct bt_fault_point *point = find_point(bt, (const uint8_t *)rip);
    if (!point) {
        report(bt, number, (const uint8_t *)rip);
        return false;
    }
    uint32_t eflags = (uint32_t)regs[REG_EFL];
    if (point->flags_live)
        bt->flags = (eflags & 0xff) << 8 | (eflags >> 11 & 1);
    regs[REG_R11] = (greg_t)(uintptr_t)point->site;
    regs[REG_RIP] = (greg_t)(uintptr_t)bt->fault_stub;
    regs[REG_EFL] &= ~(greg_t)0x100; /* whatever it was, we do not single-step */
    return true;
}

/* ---- Stacks ---- */

int bt_stacks_create(struct bt *bt, struct tv_error *err)
{
    uint64_t size = PAGE_SIZE + CODE_STACK + SIGNAL_STACK;
    uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, PAGE_SIZE, PROT_NONE) < 0)
        return tv_fail_errno(err, errno, "no memory for the translator's stacks");
    bt->code_stack = p + PAGE_SIZE;
    bt->signal_stack = bt->code_stack + CODE_STACK;
    bt->code_top = (uintptr_t)bt->signal_stack - 64;
    bt_forget_returns(bt);
    return 0;
}

void bt_stacks_free(struct bt *bt)
{
    if (!bt->code_stack)
        return;
    stack_t old;
    if (sigaltstack(NULL, &old) == 0 && old.ss_sp == bt->signal_stack)
        sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
    munmap(bt->code_stack - PAGE_SIZE, PAGE_SIZE + CODE_STACK + SIGNAL_STACK);
}

void bt_stacks_enter(struct bt *bt)
{
    stack_t mine = {.ss_sp = bt->signal_stack, .ss_size = SIGNAL_STACK}, old;
    if (sigaltstack(NULL, &old) == 0 && old.ss_sp != bt->signal_stack)
        sigaltstack(&mine, NULL);
}
