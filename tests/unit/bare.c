#include "bare.h"

#define PML4    UINT64_C(0x10000)
#define IDT     UINT64_C(0x30000)
#define TABLES  UINT64_C(0x100000)
#define ADDRESS UINT64_C(0x000ffffffffff000)

uint64_t bare_get(struct bare *b, uint64_t gpa)
{
    uint64_t value = 0;
    CHECK(physmem_read(b->m->mem, gpa, &value, sizeof value));
    return value;
}

void bare_put(struct bare *b, uint64_t gpa, uint64_t value)
{
    CHECK(physmem_write(b->m->mem, gpa, &value, sizeof value));
}

static uint64_t entry_address(struct bare *b, uint64_t linear)
{
    uint64_t table = PML4;
    for (int level = 3; level > 0; level--) {
        uint64_t at = table + 8 * (linear >> (12 + 9 * level) & 511);
        if (!(bare_get(b, at) & PTE_P)) {
            bare_put(b, at, b->next_table | PTE_P | PTE_RW | PTE_US);
            b->next_table += PAGE_SIZE;
        }
        table = bare_get(b, at) & ADDRESS;
    }
    return table + 8 * (linear >> 12 & 511);
}

void bare_map(struct bare *b, uint64_t linear, uint64_t gpa, uint64_t flags)
{
    bare_put(b, entry_address(b, linear), flags ? gpa | flags : 0);
}

uint64_t bare_pte(struct bare *b, uint64_t linear)
{
    return bare_get(b, entry_address(b, linear));
}

static void set_gate(struct bare *b, unsigned vector)
{
    uint64_t handler = BARE_HANDLER + 16 * vector;
    bare_put(b, IDT + 16 * vector,
             (handler & 0xffff) | 8 << 16 | UINT64_C(0x8e00) << 32 |
                 (handler >> 16 & 0xffff) << 48);
    bare_put(b, IDT + 16 * vector + 8, handler >> 32);
    CHECK(physmem_write(b->m->mem, handler, "\xf4", 1));
}

struct bare *bare_new(void)
{
    struct tv_error err = {0};
    struct bare *b = calloc(1, sizeof *b);
    b->m = calloc(1, sizeof *b->m);
    b->m->mem = physmem_create(BARE_RAM, true, &err);
    pthread_mutex_init(&b->lock, NULL);
    bus_init(&b->m->mmio, &b->lock);
    bus_init(&b->m->pio, &b->lock);
    CHECK(!cpuid_build(&b->m->cpuid, "host", CPUID_FOR_INTERP, 1, 1000000000, &err));
    b->next_table = TABLES;
    for (uint64_t at = 0; at < UINT64_C(8) << 20; at += PAGE_SIZE)
        bare_map(b, at, at, PTE_P | PTE_RW | PTE_US);
    for (unsigned v = 0; v < 256; v++)
        set_gate(b, v);
    /* A GDT for the gates: null, code, data. */
    bare_put(b, 0x31000 + 8, UINT64_C(0x00af9b000000ffff));
    bare_put(b, 0x31000 + 16, UINT64_C(0x00cf93000000ffff));

    struct vcpu *cpu = b->cpu = vcpu_create(b->m, 0);
    CHECK(cpu);
    b->m->vcpus[0] = cpu;
    b->m->vcpu_count = 1;
    cpu->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_NE | CR0_ET;
    cpu->cr3 = PML4;
    cpu->cr4 = CR4_PAE;
    cpu->efer = EFER_LME | EFER_LMA | EFER_NXE;
    cpu->rflags = FLAG_ONE;
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[7] = 0x400;
    cpu->xcr0 = 1;
    cpu->idtr = (struct table_register){IDT, 0xfff};
    cpu->gdtr = (struct table_register){0x31000, 23};
    cpu->seg[CS] = (struct segment){8, 0x9b | SEG_L | SEG_G, 0xffffffff, 0};
    for (unsigned s = 0; s < SREGS; s++)
        if (s != CS)
            cpu->seg[s] = (struct segment){16, 0x93 | SEG_DB | SEG_G, 0xffffffff, 0};
    cpu->gpr[RSP] = BARE_STACK;
    CHECK(!interp_engine.vcpu_init(cpu, &err));
    return b;
}

struct vcpu *bare_second_cpu(struct bare *b, uint64_t stack)
{
    struct tv_error err = {0};
    struct vcpu *cpu = vcpu_create(b->m, b->m->vcpu_count);
    CHECK(cpu);
    memcpy(cpu, b->cpu, sizeof *cpu);
    cpu->interp = NULL;
    cpu->index = b->m->vcpu_count;
    cpu->gpr[RSP] = stack;
    b->m->vcpus[b->m->vcpu_count++] = cpu;
    CHECK(!interp_engine.vcpu_init(cpu, &err));
    return cpu;
}

void bare_free(struct bare *b)
{
    for (unsigned i = 0; i < b->m->vcpu_count; i++) {
        interp_engine.vcpu_fini(b->m->vcpus[i]);
        vcpu_destroy(b->m->vcpus[i]);
    }
    physmem_destroy(b->m->mem);
    free(b->m);
    free(b);
}

int bare_run(struct bare *b, uint64_t rip)
{
    struct tv_error err = {0};
    struct vcpu *cpu = b->cpu;
    cpu->activity = ACTIVITY_RUNNING;
    cpu->rip = rip;
    enum vcpu_exit exit = interp_engine.run(cpu, &err);
    CHECK(exit == VCPU_EXIT_HALT);
    if (cpu->rip > BARE_HANDLER && cpu->rip <= BARE_HANDLER + 16 * 256)
        return (int)((cpu->rip - BARE_HANDLER) / 16);
    return NO_VECTOR;
}

uint64_t bare_fault_rip(struct bare *b, bool has_error)
{
    return bare_get(b, b->cpu->gpr[RSP] + (has_error ? 8 : 0));
}

uint64_t bare_fault_error(struct bare *b)
{
    return bare_get(b, b->cpu->gpr[RSP]);
}
