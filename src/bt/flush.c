/*
 * What the translator must forget, and when: translations that the guest flushed, code in pages
 * that somebody wrote to, and on other vCPUs the leave to store without a look.
 */
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bt/bt.h"
#include "direct/direct.h"

/* ---- Caches that depend on the address space ---- */

static void clear_table(const struct bt *bt, struct l1_entry *table, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        table[i] = (struct l1_entry){bt->empty_tag, bt->empty_tag};
}

static void clear_slots(struct bt *bt, unsigned context, bool write)
{
    clear_table(bt, bt->slots[context][write], SLOTS);
}

void bt_clear_l1(struct bt *bt, unsigned context)
{
    for (unsigned write = 0; write < 2; write++) {
        clear_table(bt, bt->l1[context][write], L1_ENTRIES);
        clear_slots(bt, context, write);
        memset(bt->l1_evicted[context][write], 0, sizeof bt->l1_evicted[context][write]);
        memset(bt->l1_lows[context][write], 0, sizeof bt->l1_lows[context][write]);
    }
    bt->l1_used[context] = bt->l1_low[context] = false;
}

/* Forget the lower half alone. */
static void clear_low(struct bt *bt, unsigned context)
{
    struct l1_entry empty = {bt->empty_tag, bt->empty_tag};
    for (unsigned write = 0; write < 2; write++) {
        struct l1_entry *e = bt->l1[context][write];
        for (unsigned word = 0; word < L1_ENTRIES / 64; word++) {
            uint64_t *lows = &bt->l1_lows[context][write][word];
            for (; *lows; *lows &= *lows - 1) {
                uint64_t *tag = &e[64 * word + (unsigned)__builtin_ctzll(*lows)].tag;
                *tag = *tag >> 63 ? *tag : bt->empty_tag;
            }
        }
        e = bt->slots[context][write]; /* whose addend may be used without a look */
        for (unsigned i = 0; i < SLOTS; i++)
            if (!(e[i].tag >> 63))
                e[i] = empty;
    }
    bt->l1_low[context] = false;
}

/* Slots hold copies of what is in the first-level table, or was. */
static void flush_entry(struct bt *bt, unsigned context, bool write, uint64_t page)
{
    unsigned slot = (unsigned)(page >> PAGE_SHIFT) & (L1_ENTRIES - 1);
    struct l1_entry *e = &bt->l1[context][write][slot], *slots = bt->slots[context][write];
    if (e->tag == page)
        e->tag = bt->empty_tag;
    else if (!(bt->l1_evicted[context][write][slot / 64] >> slot % 64 & 1))
        return;
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i].tag == page)
            slots[i] = (struct l1_entry){bt->empty_tag, bt->empty_tag};
}

static void flush_page(struct bt *bt, uint64_t linear)
{
    bool low = !(linear >> 63);
    for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
        if (!bt->l1_used[c] || (low && !bt->l1_low[c]))
            continue;
        flush_entry(bt, c, false, linear & PAGE_MASK);
        flush_entry(bt, c, true, linear & PAGE_MASK);
    }
    unsigned bit = bt_code_page_bit(linear);
    if (!(bt->code_pages[bit / 64] >> (bit % 64) & 1))
        return;
    bt_forget_jumps(bt, false);
    bt_forget_jumps(bt, true);
    bt_forget_spaces(bt);
    memset(bt->code_pages, 0, sizeof bt->code_pages);
}

void bt_on_flush(struct vcpu *cpu, enum flushed what, uint64_t linear)
{
    struct bt *bt = cpu->bt;
    if (bt->direct && what == FLUSHED_PAGE)
        direct_flush_page(bt->direct, linear);
    else if (bt->direct)
        bt->leave_for_user = direct_wanted(bt->direct);
    if (what == FLUSHED_PAGE) {
        flush_page(bt, linear);
        return;
    }
    bt->stats.l1_flushes++;
    for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
        if (bt->l1_used[c] && what != FLUSHED_LOW)
            bt_clear_l1(bt, c);
        else if (bt->l1_low[c])
            clear_low(bt, c);
    }
    if (what == FLUSHED_ALL)
        memset(bt->write_pages, 0, sizeof bt->write_pages);
    if (what == FLUSHED_LOW) {
        bt_switch_space(cpu);
    } else {
        bt_forget_jumps(bt, true);
        bt_forget_spaces(bt);
    }
    /* Supervisor code in the lower half, of boot loaders for one, is rare enough. */
    if (what != FLUSHED_LOW || bt->low_kernel)
        bt_forget_jumps(bt, false);
    bt->low_kernel = false;
}

static _Thread_local struct vcpu *running;

struct vcpu *bt_running(void)
{
    return running;
}

void bt_set_running(struct vcpu *cpu)
{
    running = cpu;
}

void bt_clear_writes(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    if (bt->direct)
        direct_purge_writes(bt->direct);
    for (unsigned c = 0; c < TLB_CONTEXTS; c++)
        if (bt->l1_used[c]) {
            clear_table(bt, bt->l1[c][1], L1_ENTRIES);
            clear_slots(bt, c, true);
        }
}

static void purge_page(struct bt *bt, const uint8_t *host_page)
{
    unsigned bit = (uintptr_t)host_page >> PAGE_SHIFT & (WRITE_PAGE_BITS - 1);
    if (!(bt->write_pages[bit / 64] >> bit % 64 & 1))
        return;
    for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
        if (!bt->l1_used[c])
            continue;
        for (unsigned i = 0; i < L1_ENTRIES; i++) {
            struct l1_entry *e = &bt->l1[c][1][i];
            if (e->tag + e->addend == (uint64_t)(uintptr_t)host_page)
                e->tag = bt->empty_tag;
        }
        clear_slots(bt, c, true);
    }
}

/* Any thread. Translated code looks at vcpu.attention by itself. */
void bt_kick(struct vcpu *cpu)
{
    if (cpu->bt && cpu->bt->direct)
        direct_kick(cpu->bt->direct);
}

static void page_written(struct vcpu *cpu, uint64_t index)
{
    bt_page_written(cpu, index);
    if (cpu->bt->direct)
        direct_page_written(cpu->bt->direct, index);
}

/* Two that mark pages may wait for each other, where one of them runs guest code directly: that is
 * stopped now, so what the other one asks for can be done. */
static void on_waiting(struct machine *m)
{
    if (running && running->machine == m && atomic_load(&running->bt->in_code) &&
        atomic_load(&running->bt->purge))
        bt_purge_writes(running);
    sched_yield();
}

/*
 * A page was marked as code: stores to it must be heard of from now on. Other vCPUs may have it in
 * their tables of where to store without a look: wait until they are outside translated code, which
 * they do not enter again before they have emptied these tables, or have done so already.
 */
static void on_mark(struct machine *m, const uint8_t *host_page)
{
    if (running && running->machine == m) {
        purge_page(running->bt, host_page);
        if (running->bt->direct)
            direct_page_marked(running->bt->direct, physmem_page(m->mem, host_page));
    }
    if (m->vcpu_count == 1)
        return;
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        struct vcpu *other = m->vcpus[i];
        if (other == running || !other->bt)
            continue;
        atomic_store(&other->bt->purge, true);
        atomic_fetch_or(&other->attention, ATT_CODE);
        bt_kick(other);
    }
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        struct bt *other = m->vcpus[i]->bt;
        if (!other || m->vcpus[i] == running)
            continue;
        for (unsigned spins = 0; atomic_load(&other->in_code) && atomic_load(&other->purge);)
            if (++spins < 1000)
                __builtin_ia32_pause();
            else
                on_waiting(m);
    }
}

/* Pages are being logged again. Nobody waits: the log allows for stores under way. */
static void on_logging(struct machine *m)
{
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        if (!m->vcpus[i]->bt)
            continue;
        atomic_store(&m->vcpus[i]->bt->purge, true);
        atomic_fetch_or(&m->vcpus[i]->attention, ATT_CODE);
    }
}

/* For another vCPU, which may sleep for long. Its lock held. */
static void note_written(struct bt *bt, uint64_t index)
{
    for (unsigned i = 0; i < bt->written_count; i++)
        if (bt->written[i] == index)
            return;
    if (bt->written_count < ARRAY_SIZE(bt->written))
        bt->written[bt->written_count++] = index;
    else
        bt->written_all = true;
}

static void on_written(struct machine *m, uint64_t index)
{
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        struct vcpu *cpu = m->vcpus[i];
        struct bt *bt = cpu->bt;
        if (!bt)
            continue;
        if (cpu == running) {
            page_written(cpu, index);
            continue;
        }
        pthread_mutex_lock(&bt->written_lock);
        note_written(bt, index);
        pthread_mutex_unlock(&bt->written_lock);
        atomic_fetch_or(&cpu->attention, ATT_CODE);
        bt_kick(cpu);
    }
}

void bt_take_written(struct vcpu *cpu)
{
    struct bt *bt = cpu->bt;
    uint64_t written[ARRAY_SIZE(bt->written)];
    pthread_mutex_lock(&bt->written_lock);
    unsigned count = bt->written_count;
    bool all = bt->written_all;
    memcpy(written, bt->written, sizeof written);
    bt->written_count = 0;
    bt->written_all = false;
    pthread_mutex_unlock(&bt->written_lock);
    if (all)
        bt_drop_all(cpu);
    if (all && bt->direct)
        direct_forget_code(bt->direct);
    for (unsigned i = 0; !all && i < count; i++)
        page_written(cpu, written[i]);
}

void bt_hear_of_memory(struct machine *m)
{
    m->mem->hooks = (struct physmem_hooks){
        .opaque = m,
        .marked = (void (*)(void *, const uint8_t *))on_mark,
        .waiting = (void (*)(void *))on_waiting,
        .written = (void (*)(void *, uint64_t))on_written,
        .logging = (void (*)(void *))on_logging,
    };
}
