/* Two vCPUs in two threads: locked instructions, within a page and across two, and code that one
 * changes while the other runs it. */
#include <pthread.h>

#include "bare.h"

#define ROUNDS 20000

/* RBX: counters. 0: LOCK INC, 8: LOCK XADD, 16: CMPXCHG loop, 32: CMPXCHG16B loop; RSI: a counter
 * across two pages. */
GUEST(count_up, "movl $20000, %r8d\n"
                "1: lock incq (%rbx)\n"
                "movl $1, %eax\n lock xaddq %rax, 8(%rbx)\n"
                "movq 16(%rbx), %rax\n"
                "2: leaq 3(%rax), %rcx\n lock cmpxchgq %rcx, 16(%rbx)\n jnz 2b\n"
                "lock addq $5, (%rsi)\n"
                "pushq %rbx\n movq %rbx, %rdi\n"
                "movq 32(%rdi), %rax\n movq 40(%rdi), %rdx\n"
                "3: leaq 1(%rax), %rbx\n leaq 2(%rdx), %rcx\n"
                "lock cmpxchg16b 32(%rdi)\n jnz 3b\n popq %rbx\n"
                "decl %r8d\n jnz 1b\n hlt\n");

static void *run_cpu(void *arg)
{
    struct vcpu *cpu = arg;
    struct tv_error err;
    cpu->rip = BARE_CODE;
    cpu->activity = ACTIVITY_RUNNING;
    CHECK(interp_engine.run(cpu, &err) == VCPU_EXIT_HALT);
    return NULL;
}

static void run_both(struct bare *b, struct vcpu *second)
{
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, run_cpu, second));
    run_cpu(b->cpu);
    pthread_join(thread, NULL);
}

static void test_locked(void)
{
    struct bare *b = bare_new();
    const uint64_t split = BARE_FREE + PAGE_SIZE - 4;
    bare_map(b, BARE_FREE, 0x600000, PTE_P | PTE_RW);
    bare_map(b, BARE_FREE + PAGE_SIZE, 0x680000, PTE_P | PTE_RW);
    bare_load(b, BARE_CODE, count_up);
    b->cpu->gpr[RBX] = BARE_DATA;
    b->cpu->gpr[RSI] = split;
    run_both(b, bare_second_cpu(b, BARE_STACK - 0x4000));
    CHECK(bare_get(b, BARE_DATA) == 2 * ROUNDS);
    CHECK(bare_get(b, BARE_DATA + 8) == 2 * ROUNDS);
    CHECK(bare_get(b, BARE_DATA + 16) == 6 * ROUNDS);
    CHECK(bare_get(b, BARE_DATA + 32) == 2 * ROUNDS);
    CHECK(bare_get(b, BARE_DATA + 40) == 4 * ROUNDS);
    uint64_t low = bare_get(b, 0x600000 + PAGE_SIZE - 8) >> 32, high = bare_get(b, 0x680000);
    CHECK((high << 32 | low) == 10 * ROUNDS);
    bare_free(b);
}

/* EBP 0: calls the function at RDI until it returns 2. EBP 1: waits a while, then makes it so. */
GUEST(patch, "testl %ebp, %ebp\n jnz 2f\n"
             "1: incq (%rbx)\n call *%rdi\n cmpl $2, %eax\n jne 1b\n hlt\n"
             "2: cmpq $1000, (%rbx)\n jb 2b\n movb $2, 1(%rdi)\n hlt\n");
GUEST(function, "movl $1, %eax\n ret\n");

static void test_cross_modification(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE, patch);
    bare_load(b, BARE_DATA + 0x1000, function);
    b->cpu->gpr[RBX] = BARE_DATA;
    b->cpu->gpr[RDI] = BARE_DATA + 0x1000;
    struct vcpu *second = bare_second_cpu(b, BARE_STACK - 0x4000);
    second->gpr[RBP] = 1;
    run_both(b, second);
    CHECK((uint32_t)b->cpu->gpr[RAX] == 2);
    bare_free(b);
}

int main(void)
{
    test_locked();
    test_cross_modification();
    return check_result();
}
