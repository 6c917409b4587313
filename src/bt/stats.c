/* What --stats prints. */
#include <inttypes.h>

#include "bt/bt.h"
#include "direct/direct.h"

/* The instructions that were called out for most. */
static void print_callouts(const struct bt_stats *s, FILE *out)
{
    uint64_t below = UINT64_MAX;
    fprintf(out, "  called out for:");
    for (unsigned n = 0; n < 12; n++) {
        unsigned most = 0;
        for (unsigned i = 1; i < ARRAY_SIZE(s->by_mnemonic); i++)
            if (s->by_mnemonic[i] < below && s->by_mnemonic[i] > s->by_mnemonic[most])
                most = i;
        below = s->by_mnemonic[most];
        if (!below)
            break;
        fprintf(out, " %s %" PRIu64, ZydisMnemonicGetString((ZydisMnemonic)most), below);
    }
    fprintf(out, "\n");
}

static void print_direct(const struct direct_stats *s, FILE *out)
{
    fprintf(out,
            "  direct execution: %" PRIu64 " processes, %" PRIu64 " runs in %.3f s, %" PRIu64
            " faults that mapped %" PRIu64 " pages, %" PRIu64 " that were the guest's, %" PRIu64
            " system calls, %" PRIu64 " kicks, %" PRIu64 " emulated, %" PRIu64
            " validations, %" PRIu64 " demotions\n",
            s->stubs, s->runs, (double)s->ns / 1e9, s->fills, s->pages, s->refused, s->syscalls,
            s->kicks, s->emulated, s->validations, s->demotions);
}

static void print_counts(const struct vcpu *cpu, FILE *out)
{
    const struct bt_stats *s = &cpu->bt->stats;
    uint64_t chained = s->blocks_run > s->entries ? s->blocks_run - s->entries : 0;
    uint64_t misses = s->fills + s->slow_ops;
    fprintf(out,
            "  executed: %" PRIu64 " instructions, %" PRIu64 " blocks (%" PRIu64
            " of them chained or found inline), %" PRIu64 " memory accesses (%" PRIu64
            " tlb hits); instructions of ring 3 that run directly are not in it, and counting "
            "slows translated code down\n",
            cpu->instructions, s->blocks_run, chained, s->accesses,
            s->accesses > misses ? s->accesses - misses : 0);
}

static void print_translation(const struct machine *m, const struct bt_stats *s, FILE *out)
{
    double second = (double)m->clock.tsc_hz;
    fprintf(out,
            "  translation took %.4f s, %.0f ns and %.1f bytes of code for an instruction, %.1f "
            "instructions a block; copying and moving took %.4f s\n",
            (double)s->translate_ticks / second,
            s->instructions ? (double)s->translate_ticks / second * 1e9 / (double)s->instructions
                            : 0,
            s->instructions ? (double)s->code_bytes / (double)s->instructions : 0,
            s->blocks ? (double)s->instructions / (double)s->blocks : 0,
            (double)s->reuse_ticks / second);
}

static uint64_t segments_used(const struct bt *bt, bool data)
{
    uint64_t sum = 0;
    for (unsigned n = 0; n < bt->segment_count; n++)
        sum += data ? bt->segments[n].data_used : bt->segments[n].code_used;
    return sum;
}

static void print_memory(const struct bt *bt, FILE *out)
{
    fprintf(out,
            "  memory: %" PRIu64 " KiB of code and %" PRIu64
            " KiB of data about it in a cache of %" PRIu64 " KiB, tables of %zu KiB\n",
            segments_used(bt, false) >> 10, segments_used(bt, true) >> 10,
            (bt->segment_code + bt->segment_data) * bt->segment_count >> 10, sizeof *bt >> 10);
}

void bt_print_stats(struct machine *m, FILE *out)
{
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        const struct vcpu *cpu = m->vcpus[i];
        if (!cpu->bt)
            continue;
        const struct bt_stats *s = &cpu->bt->stats;
        fprintf(
            out,
            "vcpu %u: translated %" PRIu64 " blocks of %" PRIu64 " instructions to %" PRIu64
            " bytes; %" PRIu64 " more were copied and %" PRIu64 " moved from other addresses\n"
            "  control: %" PRIu64 " entries, %" PRIu64 " lookups, %" PRIu64
            " indirect misses, %" PRIu64 " links, %" PRIu64 " unlinks\n"
            "  tlb: %" PRIu64 " misses filled, %" PRIu64 " flushes\n"
            "  call-outs: %" PRIu64 " for instructions (%" PRIu64 " quick), %" PRIu64
            " for accesses (devices, page-crossing, to pages with code), %" PRIu64
            " for instructions in two pages; %" PRIu64 " interpreter rounds\n"
            "  dropped: %" PRIu64 " blocks written to, %" PRIu64 " parts of the cache evicted\n",
            i, s->blocks, s->instructions, s->code_bytes, s->copies, s->moves, s->entries,
            s->lookups, s->jump_misses, s->links, s->unlinks, s->fills, s->l1_flushes, s->callouts,
            s->quick, s->slow_ops, s->straddlers, s->interp_rounds, s->invalidated, s->evictions);
        print_translation(m, s, out);
        print_memory(cpu->bt, out);
        if (m->count)
            print_counts(cpu, out);
        if (cpu->bt->direct)
            print_direct(direct_stats(cpu->bt->direct), out);
        print_callouts(s, out);
        if (cpu->bt->verify)
            bt_verify_print(cpu, out);
    }
    fprintf(
        out,
        "The interpreter, which walks page tables for the translator (instructions: of both):\n");
    interp_engine.print_stats(m, out);
}
