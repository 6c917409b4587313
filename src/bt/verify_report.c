/* What --verify says when the engines differ. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "bt/verify.h"

/* ---- Registers ---- */

struct field {
    const char *name;
    uint32_t offset, size;
};

#define FIELD(name, member)                                                                        \
    {                                                                                              \
        name, offsetof(struct vcpu, member), sizeof((struct vcpu *)0)->member                      \
    }
#define SEGMENT(name, member)                                                                      \
    FIELD(name, member.selector), FIELD(name ".attr", member.attr),                                \
        FIELD(name ".limit", member.limit), FIELD(name ".base", member.base)
#define TABLE(name, member) FIELD(name ".base", member.base), FIELD(name ".limit", member.limit)

static const struct field fields[] =
    {
        FIELD("rax", gpr[RAX]),
        FIELD("rcx", gpr[RCX]),
        FIELD("rdx", gpr[RDX]),
        FIELD("rbx", gpr[RBX]),
        FIELD("rsp", gpr[RSP]),
        FIELD("rbp", gpr[RBP]),
        FIELD("rsi", gpr[RSI]),
        FIELD("rdi", gpr[RDI]),
        FIELD("r8", gpr[R8]),
        FIELD("r9", gpr[R9]),
        FIELD("r10", gpr[R10]),
        FIELD("r11", gpr[R11]),
        FIELD("r12", gpr[R12]),
        FIELD("r13", gpr[R13]),
        FIELD("r14", gpr[R14]),
        FIELD("r15", gpr[R15]),
        FIELD("rip", rip),
        FIELD("system flags", rflags),
        SEGMENT("es", seg[ES]),
        SEGMENT("cs", seg[CS]),
        SEGMENT("ss", seg[SS]),
        SEGMENT("ds", seg[DS]),
        SEGMENT("fs", seg[FS]),
        SEGMENT("gs", seg[GS]),
        SEGMENT("ldtr", ldtr),
        SEGMENT("tr", tr),
        TABLE("gdtr", gdtr),
        TABLE("idtr", idtr),
        FIELD("cr0", cr0),
        FIELD("cr2", cr2),
        FIELD("cr3", cr3),
        FIELD("cr4", cr4),
        FIELD("debug registers", dr),
        FIELD("efer", efer),
        FIELD("xcr0", xcr0),
        FIELD("xss", xss),
        FIELD("cpl", cpl),
        FIELD("star", star),
        FIELD("lstar", lstar),
        FIELD("cstar", cstar),
        FIELD("sfmask", sfmask),
        FIELD("kernel_gs_base", kernel_gs_base),
        FIELD("tsc_aux", tsc_aux),
        FIELD("sysenter_cs", sysenter_cs),
        FIELD("sysenter_esp", sysenter_esp),
        FIELD("sysenter_eip", sysenter_eip),
        FIELD("pat", pat),
        FIELD("misc_enable", misc_enable),
        FIELD("tsc_adjust", tsc_adjust),
        FIELD("tsc_offset", tsc_offset),
        FIELD("spec_ctrl", spec_ctrl),
        FIELD("apic_base", apic_base),
        FIELD("mtrr_def_type", mtrr_def_type),
        FIELD("mtrr_fixed", mtrr_fixed),
        FIELD("mtrr_phys", mtrr_phys),
        FIELD("mcg_status", mcg_status),
        FIELD("mce_bank", mce_bank),
        FIELD("pdpte", pdpte),
        FIELD("activity", activity),
        FIELD("interrupt shadow", int_shadow),
        FIELD("nmi blocking", nmi_blocked),
},
                          vector_fields[] = {
                              FIELD("fcw", fpu.fx.fcw),     FIELD("fsw", fpu.fx.fsw),
                              FIELD("ftw", fpu.fx.ftw),     FIELD("fop", fpu.fx.fop),
                              FIELD("fip", fpu.fx.fip),     FIELD("fdp", fpu.fx.fdp),
                              FIELD("mxcsr", fpu.fx.mxcsr), FIELD("st0", fpu.fx.st[0]),
                              FIELD("st1", fpu.fx.st[1]),   FIELD("st2", fpu.fx.st[2]),
                              FIELD("st3", fpu.fx.st[3]),   FIELD("st4", fpu.fx.st[4]),
                              FIELD("st5", fpu.fx.st[5]),   FIELD("st6", fpu.fx.st[6]),
                              FIELD("st7", fpu.fx.st[7]),   FIELD("mask registers", fpu.k),
                              FIELD("pkru", fpu.pkru),      FIELD("fcs", fpu.fcs),
                              FIELD("fds", fpu.fds),
};

static const struct field *next_difference(const struct vcpu *a, const struct vcpu *b,
                                           const struct field *table, unsigned count, unsigned *i)
{
    while (*i < count) {
        const struct field *f = &table[(*i)++];
        if (memcmp((const char *)a + f->offset, (const char *)b + f->offset, f->size))
            return f;
    }
    return NULL;
}

const char *bt_verify_first_difference(const struct vcpu *a, const struct vcpu *b, bool vectors)
{
    unsigned i = 0;
    const struct field *f = next_difference(a, b, fields, ARRAY_SIZE(fields), &i);
    i = 0;
    if (!f && vectors)
        f = next_difference(a, b, vector_fields, ARRAY_SIZE(vector_fields), &i);
    if (!f && vectors && memcmp(a->fpu.zmm, b->fpu.zmm, sizeof a->fpu.zmm))
        return "vector registers";
    return f ? f->name : NULL;
}

/* ---- The log ---- */

#define LOG(cpu, ...) log_write(&(cpu)->machine->log, LOG_VERIFY, __VA_ARGS__)

static void hex(char *out, const uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        sprintf(out + 2 * i, "%02x", bytes[i]); /* two digits and the end for each */
}

static void log_field(struct vcpu *cpu, const struct field *f, const struct vcpu *rehearsed)
{
    char a[2 * 64 + 1], b[2 * 64 + 1];
    const uint8_t *x = (const uint8_t *)rehearsed + f->offset,
                  *y = (const uint8_t *)cpu + f->offset;
    if (f->size <= 8) {
        uint64_t u = 0, v = 0;
        memcpy(&u, x, f->size);
        memcpy(&v, y, f->size);
        LOG(cpu, "  %s: interpreter %#" PRIx64 ", translator %#" PRIx64, f->name, u, v);
        return;
    }
    for (unsigned at = 0; at < f->size; at += 64) {
        unsigned n = MIN(64u, f->size - at);
        if (!memcmp(x + at, y + at, n))
            continue;
        hex(a, x + at, n);
        hex(b, y + at, n);
        LOG(cpu, "  %s byte %u: interpreter %s", f->name, at, a);
        LOG(cpu, "  %s byte %u: translator  %s", f->name, at, b);
    }
}

static void log_differences(struct vcpu *cpu, const struct vcpu *rehearsed, bool vectors)
{
    const struct field *f;
    unsigned i = 0;
    if (cpu->cc != rehearsed->cc)
        LOG(cpu, "  flags: interpreter %#x, translator %#x", rehearsed->cc, cpu->cc);
    while ((f = next_difference(cpu, rehearsed, fields, ARRAY_SIZE(fields), &i)))
        log_field(cpu, f, rehearsed);
    i = 0;
    while (vectors &&
           (f = next_difference(cpu, rehearsed, vector_fields, ARRAY_SIZE(vector_fields), &i)))
        log_field(cpu, f, rehearsed);
    const struct field zmm = {"zmm", offsetof(struct vcpu, fpu.zmm), sizeof cpu->fpu.zmm};
    if (vectors && memcmp(cpu->fpu.zmm, rehearsed->fpu.zmm, sizeof cpu->fpu.zmm))
        log_field(cpu, &zmm, rehearsed);
}

static void log_memory(struct vcpu *cpu, const struct rehearsal *r)
{
    char text[2 * 64 + 1];
    for (unsigned i = 0; i < r->count; i++) {
        const struct rehearsal_store *s = &r->stores[i];
        if (!memcmp(s->host, r->after + s->at, s->length))
            continue;
        unsigned n = MIN(64u, s->length);
        LOG(cpu, "  memory at offset %#" PRIx64 " of RAM, %u bytes:",
            (uint64_t)(s->host - cpu->machine->mem->ram), s->length);
        hex(text, r->before + s->at, n);
        LOG(cpu, "    before      %s", text);
        hex(text, r->after + s->at, n);
        LOG(cpu, "    interpreter %s", text);
        hex(text, s->host, n);
        LOG(cpu, "    translator  %s", text);
    }
}

static void log_state(struct vcpu *cpu, const struct vcpu *state, const char *title)
{
    char text[4096], *save = NULL;
    LOG(cpu, "%s:", title);
    cpu_print(state, text, sizeof text);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        LOG(cpu, "  %s", line);
}

static void log_code(struct vcpu *cpu, unsigned bits, const uint8_t *bytes, uint64_t length,
                     uint64_t address)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    if (bits == 64)
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else
        ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    for (uint64_t at = 0; at < length;) {
        ZydisDecodedInstruction z;
        ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
        char text[128] = "?", digits[2 * ZYDIS_MAX_INSTRUCTION_LENGTH + 1];
        unsigned n = 1;
        if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes + at, length - at, &z, o))) {
            n = z.length;
            ZydisFormatterFormatInstruction(&formatter, &z, o, z.operand_count_visible, text,
                                            sizeof text, address + at, NULL);
        }
        hex(digits, bytes + at, n);
        LOG(cpu, "  %016" PRIx64 "  %-30s %s", address + at, digits, text);
        at += n;
    }
}

static void describe_fault(char *out, size_t size, const struct fault *f, bool raised)
{
    if (!raised)
        snprintf(out, size, "no exception");
    else
        snprintf(out, size, "exception %u, error code %#x, address %#" PRIx64, f->vector, f->error,
                 f->vector == VEC_PF ? f->address : 0);
}

void bt_verify_report(struct vcpu *cpu, const struct bt_block *b, bool vectors, bool rehearsed,
                      bool acted)
{
    struct bt_verify *v = cpu->bt->verify;
    const struct rehearsal_store *store = rehearsal_difference(v->rehearsal);
    const char *name = bt_verify_first_difference(cpu, &v->rehearsed, vectors);
    if (!name)
        name = cpu->cc != v->rehearsed.cc ? "flags" : store ? "memory" : "the exception";
    v->failed = true;
    snprintf(v->message, sizeof v->message,
             "--verify: the translator and the interpreter differ in %s after the code at "
             "%04x:%" PRIx64 " (the log has both states); please report this",
             name, v->before.seg[CS].selector, b->rip);

    char translator[96], interpreter[96];
    describe_fault(translator, sizeof translator, &cpu->interp->head.fault, acted);
    describe_fault(interpreter, sizeof interpreter, &v->rehearsed_fault, rehearsed);
    LOG(cpu, "block %u of length %u, mode %#x, after %" PRIu64 " blocks that agreed", b->count,
        b->length, b->mode, v->compared - 1);
    LOG(cpu, "differences (interpreter: %s; translator: %s):", interpreter, translator);
    if (!acted)
        LOG(cpu,
            "  (the whole block's rehearsal differed in %s; this is one up to the translator's "
            "rip)",
            v->first ? v->first : "flags or memory");
    log_differences(cpu, &v->rehearsed, vectors);
    log_memory(cpu, v->rehearsal);
    log_state(cpu, &v->before, "before");
    log_state(cpu, &v->rehearsed, "after the interpreter");
    log_state(cpu, cpu, "after the translator");
    LOG(cpu, "guest code:");
    log_code(cpu, b->mode & BT_64 ? 64 : b->mode & BT_16 ? 16 : 32, b->bytes, b->length, b->rip);
    LOG(cpu, "host code:");
    const uint8_t *start = MIN(b->entry_live, b->entry_saved);
    log_code(cpu, 64, start, (uint64_t)(b->code_end - start), (uintptr_t)start);
    fflush(cpu->machine->log.file);
}
