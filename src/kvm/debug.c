/*
 * A debugger's points under KVM. Up to four of them are the processor's own debug registers, which
 * KVM swaps for the guest's. More, or a watchpoint that no register can hold, need a stop after
 * every instruction; then breakpoints are found by address, and watchpoints are not.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/internal.h"
#include "util/error.h"

#define REGISTERS 4
#define DR6_BS    BIT64(14)

static bool fits_register(const struct debug_point *p)
{
    if (p->kind == DEBUG_BREAK)
        return true;
    bool power = p->length == 1 || p->length == 2 || p->length == 4 || p->length == 8;
    return power && p->address % p->length == 0;
}

/* R/W and LEN of DR7 (SDM vol. 3, figure 17-1). There is no "read only": reads are "read or write".
 */
static uint64_t dr7_bits(const struct debug_point *p, unsigned n)
{
    static const uint8_t length_code[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    uint64_t rw = p->kind == DEBUG_BREAK ? 0 : p->kind == DEBUG_WATCH_WRITE ? 1 : 3;
    uint64_t len = p->kind == DEBUG_BREAK ? 0 : length_code[p->length];
    return UINT64_C(2) << (2 * n) | (rw | len << 2) << (16 + 4 * n);
}

int kvm_debug_update(struct vcpu *cpu, struct tv_error *err)
{
    struct kvm_vcpu *k = cpu->kvm;
    const struct debugger *dbg = &cpu->machine->debug;
    bool stepping = dbg->single_step >> cpu->index & 1;
    struct kvm_guest_debug want = {0};

    k->step_all = dbg->count > REGISTERS;
    for (unsigned i = 0; i < dbg->count; i++)
        k->step_all |= !fits_register(&dbg->points[i]);
    if (stepping || k->step_all) {
        want.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    } else if (dbg->count) {
        want.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        want.arch.debugreg[7] = 0x600; /* bits 9 and 10: exact match, and always set */
        for (unsigned i = 0; i < dbg->count; i++) {
            want.arch.debugreg[i] = dbg->points[i].address;
            want.arch.debugreg[7] |= dr7_bits(&dbg->points[i], i);
        }
    }
    if (memcmp(&want, &k->debug, sizeof want) == 0)
        return 0;
    if (kvm_ioctl(k->fd, KVM_SET_GUEST_DEBUG, &want) < 0)
        return tv_fail_errno(err, errno, "KVM does not set breakpoints");
    k->debug = want;
    return 0;
}

static bool break_at(const struct debugger *dbg, uint64_t pc, struct debug_point *hit)
{
    for (unsigned i = 0; i < dbg->count; i++) {
        if (dbg->points[i].kind == DEBUG_BREAK && dbg->points[i].address == pc) {
            *hit = dbg->points[i];
            return true;
        }
    }
    return false;
}

bool kvm_debug_hit(struct vcpu *cpu)
{
    struct kvm_vcpu *k = cpu->kvm;
    struct debugger *dbg = &cpu->machine->debug;
    const struct kvm_debug_exit_arch *d = &k->run->debug.arch;
    bool stepping = dbg->single_step >> cpu->index & 1;
    if (!stepping && k->step_all && !break_at(dbg, d->pc, &dbg->hit_point))
        return false;
    dbg->hit_vcpu = cpu->index;
    dbg->hit_step = stepping && (d->dr6 & DR6_BS);
    if (!stepping && !k->step_all)
        for (unsigned i = 0; i < dbg->count && i < REGISTERS; i++)
            if (d->dr6 >> i & 1)
                dbg->hit_point = dbg->points[i];
    return true;
}
