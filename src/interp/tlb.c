/* Guest memory as instructions see it: the TLB's fills, and every access that misses it. */
#include <pthread.h>

#include "interp/core.h"

/* Split locks and locked accesses to MMIO: one at a time in the whole process. */
static pthread_mutex_t split_lock = PTHREAD_MUTEX_INITIALIZER;

static _Noreturn void raise_non_canonical(struct vcpu *cpu, const struct op *op)
{
    /* Accesses through SS, and only they, get #SS. */
    interp_raise_error(cpu, op, op && op->seg == SS ? VEC_SS : VEC_GP, 0);
}

/* In compatibility mode descriptor tables and inner stacks may lie above 4 GiB: only outside long
 * mode are linear addresses 32 bits wide. */
static uint64_t wrap_linear(const struct vcpu *cpu, uint64_t linear)
{
    return cpu_long_mode(cpu) ? linear : (uint32_t)linear;
}

static bool is_user(const struct vcpu *cpu)
{
    return cpu->cpl == 3;
}

/* ---- Watchpoints ---- */

static unsigned dr_length(uint64_t dr7, unsigned n)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    return lengths[(dr7 >> (18 + 4 * n)) & 3];
}

static bool ranges_meet(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return a < b + blen && b < a + alen;
}

bool interp_page_watched(const struct vcpu *cpu, uint64_t linear)
{
    uint64_t page = linear & PAGE_MASK;
    for (unsigned n = 0; n < 4; n++) {
        unsigned kind = (cpu->dr[7] >> (16 + 4 * n)) & 3;
        if ((cpu->dr[7] >> (2 * n)) & 3 && (kind & 1) && (cpu->dr[n] & PAGE_MASK) == page)
            return true;
    }
    const struct debugger *dbg = &cpu->machine->debug;
    for (unsigned i = 0; i < dbg->count; i++) {
        const struct debug_point *p = &dbg->points[i];
        if (p->kind != DEBUG_BREAK && ranges_meet(page, PAGE_SIZE, p->address, p->length))
            return true;
    }
    return false;
}

static void check_watch(struct vcpu *cpu, uint64_t linear, unsigned size, bool write)
{
    for (unsigned n = 0; n < 4; n++) {
        unsigned kind = (cpu->dr[7] >> (16 + 4 * n)) & 3;
        if (!((cpu->dr[7] >> (2 * n)) & 3) || !(kind == 3 || (kind == 1 && write)))
            continue;
        unsigned len = dr_length(cpu->dr[7], n);
        if (ranges_meet(linear, size, cpu->dr[n] & ~(uint64_t)(len - 1), len))
            cpu->pending_db |= BIT(n);
    }
    const struct debugger *dbg = &cpu->machine->debug;
    for (unsigned i = 0; i < dbg->count; i++) {
        const struct debug_point *p = &dbg->points[i];
        if (p->kind == DEBUG_BREAK || (p->kind == DEBUG_WATCH_WRITE && !write) ||
            (p->kind == DEBUG_WATCH_READ && write) ||
            !ranges_meet(linear, size, p->address, p->length))
            continue;
        cpu->interp->watch_hit = true;
        cpu->interp->watch_point = *p;
        cpu->interp->watch_point.address = MAX(linear, p->address);
    }
}

/* ---- Translation ---- */

static unsigned current_pcid(const struct vcpu *cpu)
{
    return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0;
}

/* Of in->large. */
static unsigned large_index(const struct vcpu *cpu, unsigned half)
{
    return half ? 0 : 1 + current_pcid(cpu);
}

static void note_large(struct vcpu *cpu, uint64_t linear, uint64_t size)
{
    if (size <= PAGE_SIZE)
        return;
    struct interp *in = cpu->interp;
    unsigned i = large_index(cpu, linear >> 63);
    uint64_t base = linear & ~(size - 1);
    if (base < in->large[i].low)
        in->large[i].low = base;
    if (base + (size - 1) > in->large[i].high)
        in->large[i].high = base + (size - 1);
}

static void note_global(struct interp *in, uint64_t linear, bool global)
{
    in->local_high |= linear >> 63 && !global;
    in->global_low |= !(linear >> 63) && global;
}

/* What lies around a byte of a large page at `gpa` is RAM from end to end, of which nothing is
 * watched: one entry will do for the 2 MiB. */
static void enter_large(struct vcpu *cpu, unsigned context, bool write, uint64_t linear,
                        const struct translation *t, const uint8_t *host)
{
    struct interp *in = cpu->interp;
    uint64_t base = t->gpa & LARGE_MASK;
    if (t->page_size <= PAGE_SIZE || in->watching ||
        !physmem_is_plain(cpu->machine->mem, base, UINT64_C(1) << LARGE_SHIFT) ||
        (cpu->lapic && (lapic_mmio_address(cpu->lapic) & LARGE_MASK) == base))
        return;
    *large_entry(in, context, write, linear) = (struct tlb_entry){
        (linear & LARGE_MASK) | in->tlb_tag[linear >> 63], (uint64_t)(uintptr_t)host - linear};
}

/* One page's part of an access: where it is, and whether it may stay in the TLB. */
struct place {
    uint8_t *host; /* NULL: MMIO at gpa */
    uint64_t gpa;
};

static void enter(struct vcpu *cpu, unsigned context, bool write, uint64_t linear, uint8_t *host)
{
    struct interp *in = cpu->interp;
    struct physmem *mem = cpu->machine->mem;
    physmem_use(mem, host);
    in->stats.tlb_fills++;
    unsigned slot = tlb_slot(in, linear);
    uint64_t tag = (linear & PAGE_MASK) | in->tlb_tag[linear >> 63];
    uint64_t addend = (uint64_t)(uintptr_t)host - linear;
    if (write)
        in->write_tlb[context][slot] = (struct tlb_write_entry){
            tag, addend, (const uint8_t *)&mem->page_flags[physmem_page(mem, host)], 0};
    else
        in->read_tlb[context][slot] = (struct tlb_entry){tag, addend};
}

/* False: it faults with `*error`. */
static bool try_translate(struct vcpu *cpu, uint64_t linear, unsigned access, struct place *out,
                          uint32_t *error)
{
    struct interp *in = cpu->interp;
    unsigned context = access & ACCESS_IMPLICIT ? TLB_SUPERVISOR : in->context;
    const struct tlb_entry *large = large_entry(in, context, access & ACCESS_WRITE, linear);
    if (large_hit(in, large, linear) && !in->watching) {
        out->host = (uint8_t *)(uintptr_t)(linear + large->addend);
        enter(cpu, context, access & ACCESS_WRITE, linear, out->host);
        return true;
    }
    uint64_t tag = (linear & PAGE_MASK) | in->tlb_tag[linear >> 63];
    struct tlb_gpa_entry *device = device_entry(in, context, access & ACCESS_WRITE, linear);
    if (device->tag == tag && !in->watching) {
        *out = (struct place){NULL, device->gpa | (linear & ~PAGE_MASK)};
        return true;
    }
    struct translation t;
    if (!paging_translate(cpu, linear, access, &t, error))
        return false;

    struct place place = {physmem_host_any(cpu->machine->mem, t.gpa, 1, access & ACCESS_WRITE),
                          t.gpa};
    if (cpu->lapic && (t.gpa & PAGE_MASK) == lapic_mmio_address(cpu->lapic))
        place.host = NULL;
    *out = place;
    if (in->watching && interp_page_watched(cpu, linear))
        return true;
    note_large(cpu, linear, t.page_size);
    note_global(in, linear, t.global);
    if (!place.host) {
        *device = (struct tlb_gpa_entry){tag, t.gpa & PAGE_MASK};
        return true;
    }
    enter_large(cpu, context, access & ACCESS_WRITE, linear, &t, place.host);
    enter(cpu, context, access & ACCESS_WRITE, linear, place.host);
    return true;
}

static struct place translate(struct vcpu *cpu, const struct op *op, uint64_t linear,
                              unsigned access)
{
    struct place place;
    uint32_t error;
    if (!try_translate(cpu, linear, access, &place, &error))
        interp_page_fault(cpu, op, linear, error);
    return place;
}

static unsigned access_flags(const struct vcpu *cpu, bool write)
{
    return (write ? ACCESS_WRITE : ACCESS_READ) | (is_user(cpu) ? ACCESS_USER : 0);
}

uint8_t *interp_tlb_host(struct vcpu *cpu, uint64_t linear, bool write)
{
    struct interp *in = cpu->interp;
    unsigned slot = tlb_slot(in, linear);
    uint64_t tag = (linear & PAGE_MASK) | in->tlb_tag[linear >> 63];
    if (write && in->wr[slot].tag == tag)
        return (uint8_t *)(uintptr_t)(linear + in->wr[slot].addend);
    if (!write && in->rd[slot].tag == tag)
        return (uint8_t *)(uintptr_t)(linear + in->rd[slot].addend);
    if (in->mode.bits == 64 && !is_canonical(linear))
        return NULL;
    struct place place;
    unsigned access = access_flags(cpu, write);
    uint32_t error;
    return try_translate(cpu, linear, access, &place, &error) ? place.host : NULL;
}

uint64_t interp_fetch_translate(struct vcpu *cpu, uint64_t linear)
{
    struct interp *in = cpu->interp;
    struct tlb_gpa_entry *e = &in->ex[tlb_slot(in, linear)];
    uint64_t tag = (linear & PAGE_MASK) | in->tlb_tag[linear >> 63];
    if (e->tag == tag)
        return e->gpa | (linear & ~PAGE_MASK);
    struct translation t;
    uint32_t error;
    unsigned access = ACCESS_EXEC | (is_user(cpu) ? ACCESS_USER : 0);
    if (!paging_translate(cpu, linear, access, &t, &error))
        interp_page_fault(cpu, NULL, linear, error);
    note_large(cpu, linear, t.page_size);
    note_global(in, linear, t.global);
    *e = (struct tlb_gpa_entry){tag, t.gpa & PAGE_MASK};
    return t.gpa;
}

/* ---- Accesses by pieces within a page ---- */

static uint64_t mmio_load(struct vcpu *cpu, uint64_t gpa, unsigned size)
{
    rehearsal_once(cpu);
    if (cpu->lapic && (gpa & PAGE_MASK) == lapic_mmio_address(cpu->lapic)) {
        uint32_t offset = gpa & ~PAGE_MASK;
        if (size <= 4)
            return lapic_mmio_read(cpu->lapic, offset, size);
        return lapic_mmio_read(cpu->lapic, offset, 4) |
               (uint64_t)lapic_mmio_read(cpu->lapic, offset + 4, 4) << 32;
    }
    return machine_mmio_read(cpu->machine, gpa, size);
}

static void mmio_store(struct vcpu *cpu, uint64_t gpa, unsigned size, uint64_t value)
{
    rehearsal_once(cpu);
    if (cpu->lapic && (gpa & PAGE_MASK) == lapic_mmio_address(cpu->lapic)) {
        uint32_t offset = gpa & ~PAGE_MASK;
        lapic_mmio_write(cpu->lapic, offset, size > 4 ? 4 : size, (uint32_t)value);
        if (size > 4)
            lapic_mmio_write(cpu->lapic, offset + 4, 4, (uint32_t)(value >> 32));
        return;
    }
    machine_mmio_write(cpu->machine, gpa, size, value);
}

static void place_load(struct vcpu *cpu, struct place place, void *buf, unsigned len)
{
    if (place.host) {
        memcpy(buf, place.host, len);
        return;
    }
    uint8_t *out = buf;
    while (len) {
        unsigned n = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
        uint64_t value = mmio_load(cpu, place.gpa, n);
        memcpy(out, &value, n);
        out += n, place.gpa += n, len -= n;
    }
}

static void place_store(struct vcpu *cpu, const struct op *op, struct place place, const void *buf,
                        unsigned len)
{
    if (place.host) {
        bool rehearsal = cpu->interp->rehearsal;
        if (UNLIKELY(rehearsal))
            rehearsal_note(cpu, place.host, len);
        switch (len) { /* as single stores: other processors must not see halves */
        case 1:
        case 2:
        case 4:
        case 8:
            host_store(place.host, len, host_load(buf, len));
            break;
        default:
            memcpy(place.host, buf, len);
        }
        if (!rehearsal && physmem_page_flagged(cpu->machine->mem, place.host))
            interp_written(cpu, op, place.host, len);
        return;
    }
    const uint8_t *from = buf;
    while (len) {
        unsigned n = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
        uint64_t value = 0;
        memcpy(&value, from, n);
        mmio_store(cpu, place.gpa, n, value);
        from += n, place.gpa += n, len -= n;
    }
}

/* Checks before any translation, in the order of priority. */
static void check_access(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                         unsigned access)
{
    struct interp *in = cpu->interp;
    in->stats.slow_accesses++;
    if (in->mode.bits == 64 && (!is_canonical(linear) || !is_canonical(linear + size - 1)))
        raise_non_canonical(cpu, op);
    /* A flat segment ends at 4 GiB. */
    if (in->mode.bits != 64 && !(access & ACCESS_IMPLICIT) && linear >> 32 == 0 &&
        (linear + size - 1) >> 32)
        raise_non_canonical(cpu, op);
    if (in->align_check && !(access & ACCESS_IMPLICIT) && size <= 8 && (linear & (size - 1)))
        interp_raise_error(cpu, op, VEC_AC, 0);
}

static void load_any(struct vcpu *cpu, const struct op *op, uint64_t linear, void *buf,
                     unsigned len, unsigned access)
{
    check_access(cpu, op, linear, len, access);
    unsigned first = MIN(len, (unsigned)(PAGE_SIZE - (linear & ~PAGE_MASK)));
    uint64_t second = wrap_linear(cpu, linear + first);
    struct place a = translate(cpu, op, wrap_linear(cpu, linear), access), b = {0};
    if (first < len)
        b = translate(cpu, op, second, access);
    if (cpu->interp->watching)
        check_watch(cpu, linear, len, false);
    place_load(cpu, a, buf, first);
    if (first < len)
        place_load(cpu, b, (uint8_t *)buf + first, len - first);
}

/* In a rehearsal `wr` is empty: what a store would have found there. NULL: nothing. */
static void *rehearsal_host(struct vcpu *cpu, uint64_t linear, unsigned size)
{
    const struct interp *in = cpu->interp;
    if (LIKELY(!in->rehearsal) || in->align_check)
        return NULL;
    const struct tlb_write_entry *e = &in->write_tlb[in->context][tlb_slot(in, linear)];
    if (!tlb_hit(in, e->tag, linear, size))
        return NULL;
    void *host = (void *)(uintptr_t)(linear + e->addend);
    rehearsal_note(cpu, host, size);
    return host;
}

static void store_any(struct vcpu *cpu, const struct op *op, uint64_t linear, const void *buf,
                      unsigned len, unsigned access)
{
    void *host = access & ACCESS_IMPLICIT ? NULL : rehearsal_host(cpu, linear, len);
    if (host) {
        memcpy(host, buf, len);
        return;
    }
    check_access(cpu, op, linear, len, access);
    unsigned first = MIN(len, (unsigned)(PAGE_SIZE - (linear & ~PAGE_MASK)));
    uint64_t second = wrap_linear(cpu, linear + first);
    struct place a = translate(cpu, op, wrap_linear(cpu, linear), access), b = {0};
    if (first < len)
        b = translate(cpu, op, second, access);
    if (cpu->interp->watching)
        check_watch(cpu, linear, len, true);
    place_store(cpu, op, a, buf, first);
    if (first < len)
        place_store(cpu, op, b, (const uint8_t *)buf + first, len - first);
}

uint64_t interp_load_slow(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size)
{
    uint64_t value = 0;
    load_any(cpu, op, linear, &value, size, access_flags(cpu, false));
    return value;
}

void interp_store_slow(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                       uint64_t value)
{
    store_any(cpu, op, linear, &value, size, access_flags(cpu, true));
}

uint64_t interp_load(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size)
{
    return mem_load(cpu, op, linear, size);
}

void interp_store(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                  uint64_t value)
{
    mem_store(cpu, op, linear, size, value);
}

void interp_probe_write(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size)
{
    struct interp *in = cpu->interp;
    if (tlb_hit(in, in->wr[tlb_slot(in, linear)].tag, linear, size) ||
        rehearsal_host(cpu, linear, size))
        return;
    unsigned access = access_flags(cpu, true);
    check_access(cpu, op, linear, size, access);
    translate(cpu, op, wrap_linear(cpu, linear), access);
    if ((linear & ~PAGE_MASK) + size > PAGE_SIZE)
        translate(cpu, op, wrap_linear(cpu, ((linear + size - 1) & PAGE_MASK)), access);
}

#define SYSTEM_ACCESS ACCESS_IMPLICIT

uint64_t interp_load_system(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size)
{
    struct interp *in = cpu->interp;
    const struct tlb_entry *e = &in->read_tlb[TLB_SUPERVISOR][tlb_slot(in, linear)];
    if (tlb_hit(in, e->tag, linear, size))
        return host_load((const void *)(uintptr_t)(linear + e->addend), size);
    uint64_t value = 0;
    load_any(cpu, op, linear, &value, size, ACCESS_READ | SYSTEM_ACCESS);
    return value;
}

void interp_store_system(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                         uint64_t value)
{
    store_any(cpu, op, linear, &value, size, ACCESS_WRITE | SYSTEM_ACCESS);
}

void interp_load_bytes(struct vcpu *cpu, const struct op *op, uint64_t linear, void *buf,
                       unsigned len)
{
    struct interp *in = cpu->interp;
    const struct tlb_entry *e = &in->rd[tlb_slot(in, linear)];
    if (tlb_hit(in, e->tag, linear, len))
        memcpy(buf, (const void *)(uintptr_t)(linear + e->addend), len);
    else
        load_any(cpu, op, linear, buf, len, access_flags(cpu, false));
}

void interp_store_bytes(struct vcpu *cpu, const struct op *op, uint64_t linear, const void *buf,
                        unsigned len)
{
    struct interp *in = cpu->interp;
    const struct tlb_write_entry *e = &in->wr[tlb_slot(in, linear)];
    if (tlb_hit(in, e->tag, linear, len)) {
        void *host = (void *)(uintptr_t)(linear + e->addend);
        memcpy(host, buf, len);
        if (UNLIKELY(*(const volatile uint8_t *)e->flags))
            interp_written(cpu, op, host, len);
        return;
    }
    store_any(cpu, op, linear, buf, len, access_flags(cpu, true));
}

void *interp_host(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size, bool write)
{
    struct interp *in = cpu->interp;
    unsigned slot = tlb_slot(in, linear);
    void *rehearsed = write ? rehearsal_host(cpu, linear, size) : NULL;
    if (rehearsed)
        return rehearsed;
    for (int attempt = 0; attempt < 2; attempt++) {
        if (write && tlb_hit(in, in->wr[slot].tag, linear, size))
            return *(const volatile uint8_t *)in->wr[slot].flags
                       ? NULL
                       : (void *)(uintptr_t)(linear + in->wr[slot].addend);
        if (!write && tlb_hit(in, in->rd[slot].tag, linear, size))
            return (void *)(uintptr_t)(linear + in->rd[slot].addend);
        unsigned access = access_flags(cpu, write);
        check_access(cpu, op, linear, size, access);
        if ((linear & ~PAGE_MASK) + size > PAGE_SIZE)
            return NULL;
        translate(cpu, op, wrap_linear(cpu, linear), access);
    }
    return NULL;
}

/* ---- Read-modify-write that cannot work in place ---- */

void *interp_rmw_slow(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                      bool locked)
{
    struct interp *in = cpu->interp;
    void *host = rehearsal_host(cpu, linear, size);
    if (host)
        return host;
    unsigned access = access_flags(cpu, true);
    check_access(cpu, op, linear, size, access);
    unsigned first = MIN(size, (unsigned)(PAGE_SIZE - (linear & ~PAGE_MASK)));
    struct place a = translate(cpu, op, wrap_linear(cpu, linear), access), b = {0};
    if (first < size)
        b = translate(cpu, op, wrap_linear(cpu, linear + first), access);
    else if (a.host && !(in->watching && interp_page_watched(cpu, linear))) {
        if (UNLIKELY(in->rehearsal))
            rehearsal_note(cpu, a.host, size);
        return a.host; /* interp_rmw_done() looks at the page's flags */
    }
    locked = locked && !in->rehearsal; /* which may end while it is held */
    if (locked)
        pthread_mutex_lock(&split_lock);
    in->bounce_locked = locked;
    in->bounce_linear = linear;
    in->bounce_size = size;
    place_load(cpu, a, in->bounce, first);
    if (first < size)
        place_load(cpu, b, (uint8_t *)in->bounce + first, size - first);
    return in->bounce;
}

void interp_rmw_done(struct vcpu *cpu, const struct op *op, void *host, unsigned size)
{
    struct interp *in = cpu->interp;
    if (host != in->bounce) {
        if (!in->rehearsal && physmem_page_flagged(cpu->machine->mem, host))
            interp_written(cpu, op, host, size);
        return;
    }
    /* Cannot fault: the same addresses were translated for writing a moment ago. */
    store_any(cpu, op, in->bounce_linear, in->bounce, size, access_flags(cpu, true));
    if (in->bounce_locked)
        pthread_mutex_unlock(&split_lock);
    in->bounce_locked = false;
}

/* ---- Stores to pages that somebody watches ---- */

void interp_written(struct vcpu *cpu, const struct op *op, const void *host, unsigned len)
{
    struct interp *in = cpu->interp;
    physmem_written(cpu->machine->mem, host, len);
    struct block *b = in->block;
    if (!b || !op || op < b->ops || op >= b->ops + b->op_count - 1)
        return;
    if (*b->gen_at == b->gen && (!b->gen2_at || *b->gen2_at == b->gen2))
        return;
    /* The block is stale and will not be entered again: its next op may be overwritten. */
    struct op *next = &b->ops[op - b->ops + 1];
    next->fn = interp_op_leave;
    b->mode = BLOCK_DEAD;
    b->gen = *b->gen_at - 1;
    in->stats.smc_stops++;
}

/* ---- Flushes ---- */

static void clear_tlbs(struct interp *in)
{
    memset(in->read_tlb, 0, sizeof in->read_tlb);
    memset(in->write_tlb, 0, sizeof in->write_tlb);
    memset(in->exec_tlb, 0, sizeof in->exec_tlb);
    memset(in->large_tlb, 0, sizeof in->large_tlb);
    memset(in->device_tlb, 0, sizeof in->device_tlb);
    memset(in->pcid_tag, 0, sizeof in->pcid_tag);
    in->generations = 0;
    in->wraps++;
}

/*
 * Generations. Each half of the linear address space has one that its valid entries are tagged
 * with; another one makes them all invalid. Kernels map their half with global pages, and those
 * stay when CR3 is loaded: then only the lower half gets another generation. Each PCID keeps its
 * own.
 */
static uint16_t new_generation(struct interp *in)
{
    return ++in->generations;
}

static void flush_half(struct vcpu *cpu, unsigned half)
{
    struct interp *in = cpu->interp;
    if (in->generations >= TLB_GENERATION - 1) {
        clear_tlbs(in);
        in->tlb_tag[!half] = new_generation(in);
        in->pcid_tag[current_pcid(cpu)] = (uint16_t)in->tlb_tag[0];
    }
    in->tlb_tag[half] = new_generation(in);
    in->large[large_index(cpu, half)].low = ~UINT64_C(0);
    in->large[large_index(cpu, half)].high = 0;
    if (half)
        in->local_high = false;
    else
        in->pcid_tag[current_pcid(cpu)] = (uint16_t)in->tlb_tag[0];
}

static void tell_flushed(struct vcpu *cpu, enum flushed what, uint64_t linear)
{
    interp_flush_jumps(cpu);
    cpu->interp->stats.tlb_flushes += what != FLUSHED_PAGE;
    if (cpu->interp->flushed)
        cpu->interp->flushed(cpu, what, linear);
}

void interp_flush_tlb(struct vcpu *cpu)
{
    struct interp *in = cpu->interp;
    if (!in)
        return;
    memset(in->pcid_tag, 0, sizeof in->pcid_tag);
    flush_half(cpu, 0);
    flush_half(cpu, 1);
    tell_flushed(cpu, FLUSHED_ALL, 0);
}

void interp_flush_local(struct vcpu *cpu)
{
    struct interp *in = cpu->interp;
    if (!in)
        return;
    memset(in->pcid_tag, 0, sizeof in->pcid_tag);
    flush_half(cpu, 0);
    if (in->local_high)
        flush_half(cpu, 1);
    tell_flushed(cpu, FLUSHED_ALL, 0);
}

void interp_flush_pcid(struct vcpu *cpu, unsigned pcid)
{
    struct interp *in = cpu->interp;
    if (!in)
        return;
    if (pcid != current_pcid(cpu)) {
        in->pcid_tag[pcid] = 0;
        return;
    }
    flush_half(cpu, 0);
    tell_flushed(cpu, FLUSHED_LOW, 0);
    if (in->local_high) {
        flush_half(cpu, 1);
        tell_flushed(cpu, FLUSHED_HIGH, 0);
    }
}

void interp_switch_space(struct vcpu *cpu, bool keep)
{
    struct interp *in = cpu->interp;
    if (!in)
        return;
    in->seen_cr3 = cpu->cr3;
    uint16_t kept = in->pcid_tag[current_pcid(cpu)];
    if (keep && kept)
        in->tlb_tag[0] = kept;
    else
        flush_half(cpu, 0);
    tell_flushed(cpu, FLUSHED_LOW, 0);
    if (in->local_high) {
        flush_half(cpu, 1);
        tell_flushed(cpu, FLUSHED_HIGH, 0);
    }
}

void interp_flush_page(struct vcpu *cpu, uint64_t linear)
{
    struct interp *in = cpu->interp;
    if (!in)
        return;
    unsigned half = linear >> 63;
    if (!half && in->global_low) { /* it goes from the entries of all PCIDs */
        memset(in->pcid_tag, 0, sizeof in->pcid_tag);
        in->pcid_tag[current_pcid(cpu)] = (uint16_t)in->tlb_tag[0];
    }
    unsigned large = large_index(cpu, half);
    if (linear >= in->large[large].low && linear <= in->large[large].high) {
        flush_half(cpu, half);
        tell_flushed(cpu, half ? FLUSHED_HIGH : FLUSHED_LOW, 0);
        return;
    }
    unsigned slot = tlb_slot(in, linear);
    for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
        in->read_tlb[c][slot].tag = 0;
        in->write_tlb[c][slot].tag = 0;
        in->exec_tlb[c][slot].tag = 0;
        for (unsigned write = 0; write < 2; write++)
            device_entry(in, c, write, linear)->tag = 0;
    }
    tell_flushed(cpu, FLUSHED_PAGE, linear);
}
