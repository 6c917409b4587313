/*
 * Which modes this host has and how fast each is. Whether /dev/kvm opens says little: where the
 * host is a virtual machine itself, a guest's kernel may run a thousand times slower than in the
 * interpreter. So every mode runs a short loop of ring-0 code, and the fastest is taken.
 */
#include "vm/modes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/engine.h"
#include "kvm/kvm.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/util.h"

enum { INTERP, BT, HW, MODES };
static const char *const mode_names[MODES] = {"interp", "bt", "hw"};

/* ---- The loop in an engine of ours ---- */

#define CODE_AT    0x1000
#define ROUNDS     50000
#define RUNS       10 /* the best of which counts: on a busy host others run in between */
#define LOOP_INSNS 4

/* The same loop as the one that kvm/measure.c runs. */
static const uint8_t loop_code[] = {0x01, 0xd0, 0x31, 0xc2, 0x49, 0x75, 0xf9, 0xf4};

static void enter_protected_mode(struct vcpu *cpu)
{
    cpu_reset(cpu, false);
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE;
    for (unsigned i = 0; i < SREGS; i++)
        cpu->seg[i] = (struct segment){
            16, SEG_P | SEG_S | SEG_WRITE | SEG_ACCESSED | SEG_DB | SEG_G, 0xffffffff, 0};
    cpu->seg[CS].selector = 8;
    cpu->seg[CS].attr |= SEG_CODE;
    cpu->rip = CODE_AT;
    cpu->gpr[RCX] = ROUNDS;
    cpu->activity = ACTIVITY_RUNNING;
    cpu_state_changed(cpu);
}

/* A machine with nothing but RAM and a processor. */
static int measure_engine(const struct engine *engine, double *ns_per_instruction,
                          struct tv_error *err)
{
    struct machine *m = calloc(1, sizeof *m);
    struct vcpu *cpu = vcpu_create(m, 0);
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    int result = -1;
    if (!m || !cpu) {
        tv_fail(err, "out of memory");
        goto out;
    }
    m->vcpus[0] = cpu;
    m->vcpu_count = 1;
    bus_init(&m->pio, &lock);
    bus_init(&m->mmio, &lock);
    if (cpuid_build(&m->cpuid, "host", CPUID_FOR_INTERP, 1, 1000000000, err) < 0)
        goto out;
    m->mem = physmem_create(UINT64_C(1) << 20, false, err);
    if (!m->mem || engine->machine_init(m, err) < 0 || engine->vcpu_init(cpu, err) < 0)
        goto out;
    physmem_write(m->mem, CODE_AT, loop_code, sizeof loop_code);
    uint64_t best = UINT64_MAX;
    result = 0;
    for (unsigned i = 0; i < RUNS && result == 0; i++) {
        enter_protected_mode(cpu);
        uint64_t start = host_ns();
        if (engine->run(cpu, err) != VCPU_EXIT_HALT)
            result = tv_fail(err, "mode %s failed its loop", engine->name);
        best = MIN(best, host_ns() - start);
    }
    *ns_per_instruction = (double)best / ((double)ROUNDS * LOOP_INSNS);
out:
    if (cpu && cpu->interp)
        engine->vcpu_fini(cpu);
    if (m && m->mem)
        physmem_destroy(m->mem);
    vcpu_destroy(cpu);
    free(m);
    return result;
}

static int measure_interp(double *ns_per_instruction, struct tv_error *err)
{
    return measure_engine(&interp_engine, ns_per_instruction, err);
}

static int measure_bt(double *ns_per_instruction, struct tv_error *err)
{
    return measure_engine(&bt_engine, ns_per_instruction, err);
}

/* ---- Choice ---- */

static const char *const notes[MODES] = {
    "every instruction interpreted; needs nothing of the host",
    "all code translated; needs nothing of the host",
    "/dev/kvm",
};

/* Where native code takes less than this, it is native. */
#define EMULATED_NS 100

static void measure(struct tv_mode_report reports[MODES])
{
    static int (*const measures[MODES])(double *, struct tv_error *) = {measure_interp, measure_bt,
                                                                        kvm_measure};
    for (unsigned i = 0; i < MODES; i++) {
        struct tv_mode_report *r = &reports[i];
        struct tv_error err = {""};
        *r = (struct tv_mode_report){.name = mode_names[i]};
        r->available = measures[i](&r->ns_per_instruction, &err) == 0;
        if (!r->available)
            snprintf(r->detail, sizeof r->detail, "%s", err.message);
        else if (i == HW && r->ns_per_instruction > EMULATED_NS)
            snprintf(r->detail, sizeof r->detail, "/dev/kvm; the host emulates ring 0");
        else
            snprintf(r->detail, sizeof r->detail, "%s", notes[i]);
    }
}

static unsigned fastest(const struct tv_mode_report reports[MODES])
{
    unsigned best = INTERP;
    for (unsigned i = 0; i < MODES; i++)
        if (reports[i].available &&
            reports[i].ns_per_instruction < reports[best].ns_per_instruction)
            best = i;
    return best;
}

static void explain(const struct tv_mode_report reports[MODES], unsigned best, char *why,
                    size_t size)
{
    const struct tv_mode_report *hw = &reports[HW];
    const struct tv_mode_report *ours = &reports[best == HW ? BT : best];
    if (!hw->available)
        snprintf(why, size, "%s", hw->detail);
    else if (best == HW)
        snprintf(why, size, "/dev/kvm runs ring 0 at %.2g ns an instruction, %s at %.2g ns",
                 hw->ns_per_instruction, ours->name, ours->ns_per_instruction);
    else
        snprintf(why, size,
                 "/dev/kvm runs ring 0 at %.0f ns an instruction (emulated by the host), %s at "
                 "%.2g ns",
                 hw->ns_per_instruction, ours->name, ours->ns_per_instruction);
}

unsigned tv_modes_measure(struct tv_mode_report *reports, unsigned *chosen, char *why,
                          size_t why_size)
{
    measure(reports);
    *chosen = fastest(reports);
    explain(reports, *chosen, why, why_size);
    return MODES;
}

const struct engine *modes_engine(enum tv_mode mode)
{
    return mode == TV_MODE_HW ? &kvm_engine : mode == TV_MODE_BT ? &bt_engine : &interp_engine;
}

enum tv_mode modes_choose(enum tv_mode wanted, char *why, size_t size, struct tv_error *err)
{
    if (wanted == TV_MODE_INTERP || wanted == TV_MODE_BT) {
        snprintf(why, size, "%s: as asked for", modes_engine(wanted)->name);
        return wanted;
    }
    if (wanted == TV_MODE_HW) {
        struct tv_error cause;
        double ns;
        if (kvm_measure(&ns, &cause) < 0) {
            tv_fail(err, "mode hw cannot be used: %s", cause.message);
            return TV_MODE_AUTO;
        }
        snprintf(why, size, "hw: as asked for%s",
                 ns > EMULATED_NS ? ", though this host emulates ring 0: expect it to be slow"
                                  : "");
        return TV_MODE_HW;
    }
    struct tv_mode_report reports[MODES];
    char reason[400];
    measure(reports);
    unsigned best = fastest(reports);
    explain(reports, best, reason, sizeof reason);
    snprintf(why, size, "%s: %s", mode_names[best], reason);
    static const enum tv_mode modes[MODES] = {
        [INTERP] = TV_MODE_INTERP, [BT] = TV_MODE_BT, [HW] = TV_MODE_HW};
    return modes[best];
}
