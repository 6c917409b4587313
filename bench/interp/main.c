/* Million guest instructions a second of the interpreter, and its ratio to native, on integer code
 * that runs in a bare 64-bit machine with paging on. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "interp/interp.h"
#include "kernels.h"

extern const uint8_t __start_guest[], __stop_guest[];

#define CODE_AT  0x100000u
#define TABLE_AT 0x10000u
#define STACK_AT 0x1f0000u
#define WORK_AT  0x400000u
#define HALT_AT  0x1000u
#define RAM_SIZE (64u << 20)

static const struct {
    const char *name;
    kernel_fn *fn;
} kernels[] = {
    {"sieve", kernel_sieve},         {"crc", kernel_crc},     {"quicksort", kernel_quicksort},
    {"hash", kernel_hash},           {"chase", kernel_chase}, {"bytecode", kernel_bytecode},
    {"recursion", kernel_recursion},
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void put64(struct physmem *mem, uint64_t gpa, uint64_t value)
{
    physmem_write(mem, gpa, &value, sizeof value);
}

/* Identity map of all RAM with 4 KiB pages. */
static void build_tables(struct physmem *mem)
{
    uint64_t pml4 = TABLE_AT, pdpt = pml4 + PAGE_SIZE, pd = pdpt + PAGE_SIZE, pt = pd + PAGE_SIZE;
    put64(mem, pml4, pdpt | PTE_P | PTE_RW);
    put64(mem, pdpt, pd | PTE_P | PTE_RW);
    for (uint64_t i = 0; i < RAM_SIZE >> 21; i++) {
        put64(mem, pd + 8 * i, (pt + i * PAGE_SIZE) | PTE_P | PTE_RW);
        for (uint64_t j = 0; j < 512; j++)
            put64(mem, pt + i * PAGE_SIZE + 8 * j, (i << 21 | j << 12) | PTE_P | PTE_RW);
    }
}

static void start(struct vcpu *cpu, kernel_fn *fn)
{
    struct physmem *mem = cpu->machine->mem;
    memset(physmem_host(mem, WORK_AT, WORK_SIZE), 0, WORK_SIZE);
    memset(cpu->gpr, 0, sizeof cpu->gpr);
    cpu->activity = ACTIVITY_RUNNING;
    cpu->rip = CODE_AT + ((uint64_t)(uintptr_t)fn - (uint64_t)(uintptr_t)__start_guest);
    cpu->gpr[RDI] = WORK_AT;
    cpu->gpr[RSP] = STACK_AT;
    put64(mem, STACK_AT, HALT_AT);
}

static struct vcpu *build(struct machine *m, struct tv_error *err)
{
    m->mem = physmem_create(RAM_SIZE, false, err);
    struct vcpu *cpu = aligned_alloc(64, ALIGN_UP(sizeof *cpu, (size_t)64));
    if (!m->mem || !cpu)
        return NULL;
    memset(cpu, 0, sizeof *cpu);
    cpu->machine = m;
    m->vcpus[0] = cpu;
    m->vcpu_count = 1;
    build_tables(m->mem);
    physmem_write(m->mem, CODE_AT, __start_guest, (uint64_t)(__stop_guest - __start_guest));
    physmem_write(m->mem, HALT_AT, "\xf4", 1);
    cpu->cr0 = CR0_PE | CR0_PG | CR0_WP;
    cpu->cr3 = TABLE_AT;
    cpu->cr4 = CR4_PAE;
    cpu->efer = EFER_LME | EFER_LMA;
    cpu->rflags = FLAG_ONE;
    cpu->seg[CS] = (struct segment){8, 0x9b | SEG_L | SEG_G, 0xffffffff, 0};
    for (unsigned s = 0; s < SREGS; s++)
        if (s != CS)
            cpu->seg[s] = (struct segment){16, 0x93 | SEG_DB | SEG_G, 0xffffffff, 0};
    return interp_engine.vcpu_init(cpu, err) ? NULL : cpu;
}

int main(int argc, char **argv)
{
    struct machine *m = calloc(1, sizeof *m);
    struct tv_error err = {0};
    void *work = malloc(WORK_SIZE);
    if (!m || !work || cpuid_build(&m->cpuid, "host", CPUID_FOR_INTERP, 1, 1000000000, &err))
        return fprintf(stderr, "interp-bench: %s\n", err.message), 1;
    struct vcpu *cpu = build(m, &err);
    if (!cpu)
        return fprintf(stderr, "interp-bench: %s\n", err.message), 1;

    int status = 0;
    double total_time = 0;
    uint64_t total = 0;
    printf("%-12s %12s %10s %8s\n", "kernel", "instructions", "Minstr/s", "x native");
    for (unsigned i = 0; i < ARRAY_SIZE(kernels); i++) {
        if (argc > 1 && strcmp(argv[1], kernels[i].name))
            continue;
        double native = 1e9, guest = 1e9;
        uint64_t expected = 0, count = 0;
        for (int round = 0; round < 3; round++) {
            memset(work, 0, WORK_SIZE);
            double t = now();
            expected = kernels[i].fn(work);
            native = MIN(native, now() - t);

            start(cpu, kernels[i].fn);
            count = cpu->instructions;
            t = now();
            enum vcpu_exit exit = interp_engine.run(cpu, &err);
            guest = MIN(guest, now() - t);
            count = cpu->instructions - count;
            if (exit != VCPU_EXIT_HALT || cpu->gpr[RAX] != expected) {
                fprintf(stderr,
                        "%s: exit %d at %" PRIx64 ", result %" PRIx64 " instead of %" PRIx64 "\n",
                        kernels[i].name, exit, cpu->rip, cpu->gpr[RAX], expected);
                status = 1;
                break;
            }
        }
        printf("%-12s %12" PRIu64 " %10.1f %8.1f\n", kernels[i].name, count,
               (double)count / guest / 1e6, guest / native);
        total += count;
        total_time += guest;
    }
    printf("%-12s %12" PRIu64 " %10.1f\n", "all", total, (double)total / total_time / 1e6);
    interp_engine.vcpu_fini(cpu);
    physmem_destroy(m->mem);
    free(cpu);
    free(work);
    free(m);
    return status;
}
