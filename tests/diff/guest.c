/*
 * Runs a sequence in an engine: a bare machine with the test's address space and, above the
 * canonical hole, an IDT whose handlers are one HLT each. Where a handler's HLT ends the run, the
 * frame that the processor pushed tells how the sequence ended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/engine.h"
#include "cpu/machine.h"
#include "diff.h"
#include "interp/interp.h"

/* Guest-physical layout of the machine's 4 MiB. */
enum {
    PML4 = 0x1000,
    PDPT_LOW = 0x2000,
    PD_LOW = 0x3000,
    PT_CODE = 0x4000,
    PT_DATA = 0x5000,
    PDPT_HIGH = 0x6000,
    PD_HIGH = 0x7000,
    PT_HIGH = 0x8000,
    IDT = 0x10000,
    GDT = 0x11000,
    TSS = 0x12000,
    HANDLERS = 0x13000,
    STACK = 0x14000,
    STACK_END = 0x16000,
    CODE = 0x20000,
    DATA = 0x24000,
};
#define HIGH UINT64_C(0xffff800000000000) /* supervisor pages: HIGH + guest-physical */

struct guest {
    struct machine machine;
    struct vcpu *cpu;
    const struct engine *engine;
    pthread_mutex_t lock;
};

static void put64(struct guest *g, uint64_t gpa, uint64_t value)
{
    physmem_write(g->machine.mem, gpa, &value, 8);
}

static void map_page(struct guest *g, uint64_t table, uint64_t va, uint64_t gpa, uint64_t flags)
{
    put64(g, table + ((va >> 12) & 511) * 8, gpa | flags);
}

static void build_tables(struct guest *g)
{
    const uint64_t user = PTE_P | PTE_RW | PTE_US;
    put64(g, PML4, PDPT_LOW | user);
    put64(g, PML4 + 256 * 8, PDPT_HIGH | PTE_P | PTE_RW);
    put64(g, PDPT_LOW + (DATA_BASE >> 30) * 8, PD_LOW | user);
    put64(g, PD_LOW + (DATA_BASE >> 21 & 511) * 8, PT_DATA | user);
    put64(g, PD_LOW + (CODE_BASE >> 21 & 511) * 8, PT_CODE | user);
    put64(g, PDPT_HIGH, PD_HIGH | PTE_P | PTE_RW);
    put64(g, PD_HIGH, PT_HIGH | PTE_P | PTE_RW);
    for (unsigned i = 0; i < 2; i++) {
        map_page(g, PT_CODE, CODE_BASE + i * 4096u, CODE + i * 4096u, user);
        map_page(g, PT_DATA, DATA_BASE + i * 4096u, DATA + i * 4096u, user | PTE_NX);
    }
    for (uint64_t page = IDT; page < STACK_END; page += 4096)
        map_page(g, PT_HIGH, page, page, PTE_P | PTE_RW);

    for (unsigned vector = 0; vector < 256; vector++) {
        uint64_t handler = HIGH + HANDLERS + vector;
        uint64_t dpl = vector == VEC_BP || vector == VEC_OF ? 3 : 0;
        put64(g, IDT + vector * 16,
              (handler & 0xffff) | 0x10u << 16 | (UINT64_C(0x8e00) | dpl << 13) << 32 |
                  (handler >> 16 & 0xffff) << 48);
        put64(g, IDT + vector * 16 + 8, handler >> 32);
        put64(g, (HANDLERS + vector) & ~7u, UINT64_C(0xf4f4f4f4f4f4f4f4)); /* HLT */
    }
    put64(g, GDT + 0x10, UINT64_C(0x00af9b000000ffff));             /* kernel code */
    put64(g, GDT + 0x18, UINT64_C(0x00cf93000000ffff));             /* kernel data */
    put64(g, GDT + 0x20, UINT64_C(0x00cffb000000ffff));             /* 32-bit user code */
    put64(g, GDT + 0x28, UINT64_C(0x00cff3000000ffff));             /* user data */
    put64(g, GDT + 0x30, UINT64_C(0x00affb000000ffff));             /* 64-bit user code */
    put64(g, TSS + 4, HIGH + STACK_END);                            /* RSP0 */
    physmem_write(g->machine.mem, TSS + 102, &(uint16_t){0x68}, 2); /* no I/O bitmap */
}

struct guest *guest_create(const char *engine, uint32_t bt_off)
{
    struct guest *g = calloc(1, sizeof *g);
    struct tv_error err = {""};
    if (!g)
        return NULL;
    g->engine = strcmp(engine, "bt") ? &interp_engine : &bt_engine;
    pthread_mutex_init(&g->lock, NULL);
    vclock_init(&g->machine.clock);
    bus_init(&g->machine.pio, &g->lock);
    bus_init(&g->machine.mmio, &g->lock);
    g->machine.mem = physmem_create(4 << 20, false, &err);
    g->cpu = vcpu_create(&g->machine, 0);
    if (!g->machine.mem || !g->cpu ||
        cpuid_build(&g->machine.cpuid, "host", CPUID_FOR_INTERP, 1, g->machine.clock.tsc_hz, &err) <
            0) {
        fprintf(stderr, "cannot build a machine: %s\n", err.message);
        exit(1);
    }
    g->machine.vcpus[0] = g->cpu;
    g->machine.vcpu_count = 1;
    g->machine.bt_off = bt_off;
    if (g->engine->machine_init(&g->machine, &err) < 0 || g->engine->vcpu_init(g->cpu, &err) < 0) {
        fprintf(stderr, "cannot start %s: %s\n", g->engine->name, err.message);
        exit(1);
    }
    build_tables(g);
    return g;
}

void guest_destroy(struct guest *g)
{
    g->engine->vcpu_fini(g->cpu);
    physmem_destroy(g->machine.mem);
    vcpu_destroy(g->cpu);
    free(g);
}

static struct segment flat(uint16_t selector, uint32_t attr)
{
    return (struct segment){.selector = selector, .attr = attr, .limit = 0xffffffff, .base = 0};
}

static void load_state(struct guest *g, const struct test *t)
{
    struct vcpu *cpu = g->cpu;
    const struct state *s = &t->before;
    cpu_reset(cpu, false);
    memcpy(cpu->gpr, s->gpr, sizeof cpu->gpr);
    cpu->rip = t->bits == 16 ? t->start : CODE_BASE + t->start;
    cpu_set_rflags(cpu, (uint32_t)s->rflags);
    cpu->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    cpu->cr3 = PML4;
    cpu->cr4 = (CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE |
                CR4_UMIP | CR4_DE) &
               g->machine.cpuid.cr4_supported;
    cpu->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    cpu->xcr0 = g->machine.cpuid.xcr0_supported;
    const uint32_t data = 0xc000 | SEG_P | 3u << SEG_DPL_SHIFT | SEG_S | 3;
    const uint32_t code = SEG_G | SEG_P | 3u << SEG_DPL_SHIFT | SEG_S | 0xb;
    cpu->seg[CS] =
        t->bits == 64 ? flat(SELECTOR_CODE64, code | SEG_L) : flat(SELECTOR_CODE32, code | SEG_DB);
    cpu->seg[SS] = cpu->seg[DS] = cpu->seg[ES] = flat(SELECTOR_DATA, data);
    if (t->bits == 16) {
        const uint32_t code16 = code & ~(uint32_t)SEG_G,
                       data16 = SEG_P | 3u << SEG_DPL_SHIFT | SEG_S | 3;
        cpu->seg[CS] = (struct segment){SELECTOR_CODE16, code16, 0xffff, CODE_BASE};
        cpu->seg[SS] = cpu->seg[DS] = cpu->seg[ES] =
            (struct segment){SELECTOR_DATA16, data16, 0xffff, DATA_BASE};
    }
    cpu->seg[FS] = cpu->seg[GS] = flat(0, SEG_UNUSABLE);
    cpu->gdtr = (struct table_register){HIGH + GDT, 0x37};
    cpu->idtr = (struct table_register){HIGH + IDT, 0xfff};
    cpu->tr = (struct segment){
        .selector = 0x40, .attr = SEG_P | SYS_TSS_BUSY, .limit = 0x67, .base = HIGH + TSS};
    cpu->ldtr = (struct segment){.attr = SEG_UNUSABLE};

    memcpy(cpu->fpu.zmm, s->zmm, sizeof cpu->fpu.zmm);
    memcpy(cpu->fpu.k, s->k, sizeof cpu->fpu.k);
    memcpy(cpu->fpu.fx.st, s->st, sizeof cpu->fpu.fx.st);
    cpu->fpu.fx.fcw = s->fcw;
    cpu->fpu.fx.fsw = s->fsw;
    cpu->fpu.fx.ftw = s->ftw;
    cpu->fpu.fx.fop = s->fop;
    cpu->fpu.fx.fip = s->fip;
    cpu->fpu.fx.fdp = s->fdp;
    cpu->fpu.fx.mxcsr = s->mxcsr;
    cpu->activity = ACTIVITY_RUNNING;
    cpu_state_changed(cpu);
    g->engine->state_changed(cpu);

    uint8_t data_pages[DATA_SIZE];
    fill_data(data_pages, t->data_seed);
    physmem_write(g->machine.mem, DATA, data_pages, DATA_SIZE);
    uint8_t code_pages[CODE_SIZE];
    memset(code_pages, 0xcc, CODE_SIZE);
    memcpy(code_pages + t->start, t->code, t->length);
    physmem_write(g->machine.mem, CODE, code_pages, CODE_SIZE);
}

/* Does the processor push an error code for this vector? */
static bool has_error(unsigned vector)
{
    return vector == VEC_DF || (vector >= VEC_TS && vector <= VEC_PF) || vector == VEC_AC;
}

static void store_state(struct guest *g, struct state *s)
{
    const struct vcpu *cpu = g->cpu;
    memset(s, 0, sizeof *s);
    memcpy(s->gpr, cpu->gpr, sizeof s->gpr);
    s->vector = (uint32_t)(cpu->rip - 1 - (HIGH + HANDLERS));
    if (s->vector > 255) {
        s->vector = 0x10000 | cpu->activity; /* it ended in some other way */
        s->rip = cpu->rip;
        return;
    }
    uint64_t frame[6] = {0}; /* error code, RIP, CS, RFLAGS, RSP, SS */
    physmem_read(g->machine.mem, STACK_END - 40 - (has_error(s->vector) ? 8 : 0),
                 frame + !has_error(s->vector), 40 + (has_error(s->vector) ? 8 : 0));
    s->error = (uint32_t)frame[0];
    s->rip = frame[1];
    s->rflags = frame[3];
    s->gpr[RSP] = frame[4];
    s->cr2 = cpu->cr2;
    memcpy(s->zmm, cpu->fpu.zmm, sizeof s->zmm);
    memcpy(s->k, cpu->fpu.k, sizeof s->k);
    memcpy(s->st, cpu->fpu.fx.st, sizeof s->st);
    s->fcw = cpu->fpu.fx.fcw;
    s->fsw = cpu->fpu.fx.fsw;
    s->ftw = cpu->fpu.fx.ftw;
    s->fop = cpu->fpu.fx.fop;
    s->fip = cpu->fpu.fx.fip;
    s->fdp = cpu->fpu.fx.fdp;
    s->mxcsr = cpu->fpu.fx.mxcsr;
}

void guest_run(struct guest *g, const struct test *t, struct outcome *o)
{
    struct tv_error err;
    load_state(g, t);
    g->engine->run(g->cpu, &err);
    store_state(g, &o->after);
    physmem_read(g->machine.mem, DATA, o->data, DATA_SIZE);
    o->done = true;
}
