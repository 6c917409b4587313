#include "interp/rehearsal.h"

#include "interp/core.h"

void rehearsal_set(struct vcpu *cpu, struct rehearsal *r)
{
    if (r)
        r->count = r->used = 0;
    cpu->interp->rehearsal = r;
    interp_mode_changed(cpu);
}

void rehearsal_once(struct vcpu *cpu)
{
    if (LIKELY(!cpu->interp->rehearsal))
        return;
    cpu->interp->block = NULL;
    longjmp(cpu->interp->head.unwind, REHEARSAL_ONCE);
}

void rehearsal_note(struct vcpu *cpu, void *host, uint32_t len)
{
    struct rehearsal *r = cpu->interp->rehearsal;
    if (r->count == REHEARSAL_STORES || len > REHEARSAL_BYTES - r->used)
        rehearsal_once(cpu);
    r->stores[r->count++] = (struct rehearsal_store){host, len, r->used};
    memcpy(r->before + r->used, host, len);
    r->used += len;
}

void rehearsal_undo(struct rehearsal *r)
{
    for (unsigned i = 0; i < r->count; i++)
        memcpy(r->after + r->stores[i].at, r->stores[i].host, r->stores[i].length);
    for (unsigned i = r->count; i--;)
        memcpy(r->stores[i].host, r->before + r->stores[i].at, r->stores[i].length);
}

const struct rehearsal_store *rehearsal_difference(const struct rehearsal *r)
{
    for (unsigned i = 0; i < r->count; i++)
        if (memcmp(r->stores[i].host, r->after + r->stores[i].at, r->stores[i].length))
            return &r->stores[i];
    return NULL;
}
