/*
 * The instructions that thunks execute: binding them, and everything that has to happen in C before
 * and after. See native.h for the idea and thunk.c for the code that runs.
 *
 * Memory operands. Where the operand lies in one page of RAM, the thunk works on it in place: that
 * keeps the processor's own alignment rules and single-copy atomicity. Else (two pages, MMIO,
 * watchpoints) it works on a copy that is as misaligned as the original, loaded before and stored
 * after, with all faults raised before the thunk runs. With a write mask (AVX-512, VMASKMOV) only
 * the bytes of active elements count as accessed.
 */
#include <signal.h>
#include <stddef.h>

#include "interp/insn_traits.h"
#include "interp/native.h"

enum masking {
    MASK_NONE,       /* every byte of the operand is accessed */
    MASK_ELEMENTS,   /* element n if mask bit n is set */
    MASK_COMPRESSED, /* as many elements as mask bits are set, from the first */
    MASK_ANY,        /* everything if any mask bit is set */
    MASK_SIGNS,      /* element n if element n of a vector register is negative (VMASKMOV) */
};

struct native {
    thunk_fn *thunk;
    uint32_t generation;
    uint8_t unit;    /* enum vector_unit */
    uint8_t size;    /* of the memory operand in bytes */
    uint8_t align;   /* that it must have, less one */
    uint8_t natural; /* the same where EFLAGS.AC asks for it */
    bool load, store, legacy;
    bool pointers;         /* sets FIP, FDP and FOP */
    uint8_t masking, mask; /* and the register that holds it */
    uint8_t element, elements;
    uint16_t fop;
    struct thunk_key key;
};

static const struct native *native_of(const struct op *op)
{
    return (const struct native *)(uintptr_t)op->imm;
}

/* ---- Executing ---- */

void vector_check_unit_slow(struct vcpu *cpu, const struct op *op, enum vector_unit unit)
{
    bool legacy = unit != UNIT_AVX && unit != UNIT_AVX512;
    uint64_t xcr0 = unit == UNIT_AVX512 ? 0xe6 : 6;
    if (unit == UNIT_X87)
        vector_check_x87(cpu, op);
    else if (legacy && (cpu->cr0 & CR0_EM))
        interp_raise(cpu, op, VEC_UD);
    if ((unit == UNIT_SSE || unit == UNIT_MMX_SSE) && !(cpu->cr4 & CR4_OSFXSR))
        interp_raise(cpu, op, VEC_UD);
    if (!legacy && (!(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & xcr0) != xcr0))
        interp_raise(cpu, op, VEC_UD);
    if (cpu->cr0 & CR0_TS)
        interp_raise(cpu, op, VEC_NM);
    if (unit >= UNIT_MMX)
        vector_check_x87_pending(cpu, op);
}

static _Noreturn void raise_signal(struct vcpu *cpu, const struct op *op, const struct native *n,
                                   int number)
{
    if (number == SIGFPE && n->unit == UNIT_MMX_SSE)
        vector_enter_mmx(cpu); /* it comes before the conversion */
    if (number == SIGFPE && (cpu->cr4 & CR4_OSXMMEXCPT))
        interp_raise(cpu, op, VEC_XM);
    if (number == SIGFPE || number == SIGILL)
        interp_raise(cpu, op, VEC_UD);
    interp_raise_error(cpu, op, VEC_GP, 0);
}

static inline void run(struct vcpu *cpu, const struct op *op, const struct native *n, void *memory)
{
    struct thunks *t = cpu->interp->thunks;
    thunk_fn *thunk = n->thunk;
    if (UNLIKELY(n->generation != thunks_generation(t)))
        thunk = thunks_get(t, &n->key);
    thunks_enter(t);
    int raised = thunk(cpu, memory);
    if (UNLIKELY(raised))
        raise_signal(cpu, op, n, raised);
}

static inline void *read_hit(struct vcpu *cpu, uint64_t linear, unsigned size)
{
    struct interp *in = cpu->interp;
    const struct tlb_entry *e = &in->rd[tlb_slot(in, linear)];
    return tlb_hit(in, e->tag, linear, size) ? (void *)(uintptr_t)(linear + e->addend) : NULL;
}

static inline void *write_hit(struct vcpu *cpu, uint64_t linear, unsigned size,
                              const uint8_t **flags)
{
    struct interp *in = cpu->interp;
    const struct tlb_write_entry *e = &in->wr[tlb_slot(in, linear)];
    *flags = e->flags;
    return tlb_hit(in, e->tag, linear, size) ? (void *)(uintptr_t)(linear + e->addend) : NULL;
}

struct bounce {
    _Alignas(64) uint8_t bytes[192];
};

/* An unmasked x87 exception other than the inexact result keeps a store from happening. */
static bool store_happened(const struct vcpu *cpu, const struct native *n)
{
    const struct fxsave *fx = &cpu->fpu.fx;
    return n->unit != UNIT_X87 || !(fx->fsw & 0x80) || !(fx->fsw & ~fx->fcw & 0x1f);
}

/* The operand is in two pages, in MMIO or watched. */
static void run_bounced(struct vcpu *cpu, const struct op *op, const struct native *n,
                        uint64_t linear, unsigned misalignment)
{
    struct bounce b;
    uint8_t *at = b.bytes + misalignment;
    if (n->store)
        interp_probe_write(cpu, op, linear, n->size);
    if (n->load)
        interp_load_bytes(cpu, op, linear, at, n->size);
    run(cpu, op, n, at);
    if (n->store && store_happened(cpu, n))
        interp_store_bytes(cpu, op, linear, at, n->size);
}

static void check_alignment(struct vcpu *cpu, const struct op *op, const struct native *n)
{
    uint64_t base = cpu->interp->mode.bits == 64 && op->seg < FS ? 0 : cpu->seg[op->seg].base;
    if (UNLIKELY((addr_offset(cpu, op) + base) & n->align) &&
        !(n->legacy && (cpu->fpu.fx.mxcsr & BIT(17))))
        interp_raise_error(cpu, op, VEC_GP, 0);
}

static uint64_t operand(struct vcpu *cpu, const struct op *op, const struct native *n)
{
    check_alignment(cpu, op, n); /* before the segment's end */
    /* An 80-bit operand is accessed as eight bytes and two: a fault of the first comes before the
     * end of the segment. */
    if (n->size == 10 && UNLIKELY(cpu->interp->mode.bits != 64) &&
        addr_offset(cpu, op) + 9 > cpu->seg[op->seg].limit) {
        uint64_t first = addr_any(cpu, op, 8, n->store);
        if (n->store)
            interp_probe_write(cpu, op, first, 8);
        else
            interp_load(cpu, op, first, 8);
    }
    uint64_t linear = addr_any(cpu, op, n->size, n->store);
    if (UNLIKELY(cpu->interp->align_check) && (linear & n->natural) &&
        (cpu->interp->mode.bits != 64 ||
         (is_canonical(linear) && is_canonical(linear + n->size - 1))))
        interp_raise_error(cpu, op, VEC_AC, 0);
    return linear;
}

static inline void run_memory(struct vcpu *cpu, const struct op *op, const struct native *n)
{
    uint64_t linear = operand(cpu, op, n);
    unsigned misalignment = linear & 63;
    if (LIKELY(!(linear & n->align))) {
        if (!n->store) {
            void *host = read_hit(cpu, linear, n->size);
            if (UNLIKELY(!host)) {
                interp_host(cpu, op, linear, n->size, false);
                host = read_hit(cpu, linear, n->size);
            }
            if (LIKELY(host))
                return run(cpu, op, n, host);
        } else {
            const uint8_t *flags;
            void *host = write_hit(cpu, linear, n->size, &flags);
            if (UNLIKELY(!host)) {
                interp_probe_write(cpu, op, linear, n->size);
                host = write_hit(cpu, linear, n->size, &flags);
            }
            if (LIKELY(host)) {
                run(cpu, op, n, host);
                if (UNLIKELY(*(const volatile uint8_t *)flags))
                    interp_written(cpu, op, host, n->size);
                return;
            }
        }
    } else {
        misalignment = 0; /* MXCSR.MM allows what the host's own settings may not */
    }
    run_bounced(cpu, op, n, linear, misalignment);
}

static void op_registers(struct vcpu *cpu, const struct op *op)
{
    const struct native *n = native_of(op);
    vector_check_unit(cpu, op, n->unit);
    run(cpu, op, n, NULL);
    NEXT(cpu, op);
}

static void op_memory(struct vcpu *cpu, const struct op *op)
{
    const struct native *n = native_of(op);
    vector_check_unit(cpu, op, n->unit);
    run_memory(cpu, op, n);
    NEXT(cpu, op);
}

/* ---- Plain moves of 16 bytes, the most frequent of all: without a thunk ---- */

typedef uint64_t vector16 __attribute__((vector_size(16), aligned(1), may_alias));

/* op->dst: the register; op->src: the other one, where there is no memory operand. */
static void op_move(struct vcpu *cpu, const struct op *op)
{
    vector_check_unit(cpu, op, UNIT_SSE);
    *(vector16 *)cpu->fpu.zmm[op->dst] = *(const vector16 *)cpu->fpu.zmm[op->src];
    NEXT(cpu, op);
}

static void op_move_load(struct vcpu *cpu, const struct op *op)
{
    const struct native *n = native_of(op);
    vector_check_unit(cpu, op, UNIT_SSE);
    uint64_t linear = operand(cpu, op, n);
    const void *host = read_hit(cpu, linear, 16);
    if (LIKELY(host != NULL))
        *(vector16 *)cpu->fpu.zmm[op->dst] = *(const vector16 *)host;
    else
        run_memory(cpu, op, n);
    NEXT(cpu, op);
}

static void op_move_store(struct vcpu *cpu, const struct op *op)
{
    const struct native *n = native_of(op);
    vector_check_unit(cpu, op, UNIT_SSE);
    uint64_t linear = operand(cpu, op, n);
    const uint8_t *flags;
    void *host = write_hit(cpu, linear, 16, &flags);
    if (LIKELY(host != NULL)) {
        *(vector16 *)host = *(const vector16 *)cpu->fpu.zmm[op->dst];
        if (UNLIKELY(*(const volatile uint8_t *)flags))
            interp_written(cpu, op, host, 16);
    } else {
        run_memory(cpu, op, n);
    }
    NEXT(cpu, op);
}

static op_fn *plain_move(const struct decode *d, struct op *op)
{
    switch (d->insn->mnemonic) {
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVUPS:
        break;
    default:
        return NULL;
    }
    const ZydisDecodedOperand *a = &d->operands[0], *b = &d->operands[1];
    bool store = a->type == ZYDIS_OPERAND_TYPE_MEMORY;
    op->dst = (uint8_t)vector_register(store ? b->reg.value : a->reg.value);
    if (store)
        return op_move_store;
    if (b->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return op_move_load;
    op->src = (uint8_t)vector_register(b->reg.value);
    return op_move;
}

/* ---- Masked memory operands ---- */

/* Bit n: element n of the memory operand is accessed. */
static uint64_t active_elements(const struct vcpu *cpu, const struct native *n)
{
    uint64_t all = n->elements >= 64 ? ~UINT64_C(0) : BIT64(n->elements) - 1, signs = 0;
    if (n->masking == MASK_SIGNS) {
        for (unsigned i = 0; i < n->elements; i++)
            signs |= (uint64_t)(cpu->fpu.zmm[n->mask][(i + 1) * n->element - 1] >> 7) << i;
        return signs;
    }
    uint64_t mask = cpu->fpu.k[n->mask] & all;
    if (n->masking == MASK_COMPRESSED && mask != ~UINT64_C(0))
        return BIT64(__builtin_popcountll(mask)) - 1;
    return mask;
}

/* In segments, each element has an offset, which does not wrap, and meets the limit by itself. */
static bool by_offsets(const struct vcpu *cpu, const struct op *op)
{
    return cpu->interp->mode.bits != 64 && !(op->flags & OP_FLAT && op->addr_size != 2);
}

static uint64_t element_address(struct vcpu *cpu, const struct op *op, const struct native *n,
                                uint64_t linear, unsigned at, unsigned size)
{
    if (!by_offsets(cpu, op))
        return linear + at;
    uint64_t offset = addr_offset(cpu, op) + at;
    return interp_linear(cpu, op, op->seg, offset, size, n->store);
}

static void run_by_elements(struct vcpu *cpu, const struct op *op, const struct native *n,
                            uint64_t linear, uint64_t active)
{
    struct bounce b;
    uint8_t *at = b.bytes + (linear & 63);
    memset(b.bytes, 0, sizeof b.bytes);
    /* Elements need no alignment of their own, even where alignment is checked. */
    unsigned step = cpu->interp->align_check ? 1 : n->element;
    for (unsigned offset = 0; offset < n->size; offset += step) {
        if (!(active >> offset / n->element & 1))
            continue;
        uint64_t address = element_address(cpu, op, n, linear, offset, step);
        if (n->store)
            interp_probe_write(cpu, op, address, step);
        if (n->load)
            interp_load_bytes(cpu, op, address, at + offset, step);
    }
    run(cpu, op, n, at);
    for (unsigned offset = 0; n->store && offset < n->size; offset += step)
        if (active >> offset / n->element & 1)
            interp_store_bytes(cpu, op, element_address(cpu, op, n, linear, offset, step),
                               at + offset, step);
}

static void op_masked(struct vcpu *cpu, const struct op *op)
{
    const struct native *n = native_of(op);
    vector_check_unit(cpu, op, n->unit);
    uint64_t active = active_elements(cpu, n);
    if (active && n->masking == MASK_ANY) {
        run_memory(cpu, op, n);
        NEXT(cpu, op);
    }
    if (!active) {
        struct bounce b;
        memset(b.bytes, 0, sizeof b.bytes);
        run(cpu, op, n, b.bytes);
        NEXT(cpu, op);
    }
    if (by_offsets(cpu, op)) {
        check_alignment(cpu, op, n);
        run_by_elements(cpu, op, n, addr_offset(cpu, op), active);
        NEXT(cpu, op);
    }
    uint64_t linear = operand(cpu, op, n);
    unsigned first = (unsigned)__builtin_ctzll(active) * n->element;
    unsigned span = (64 - (unsigned)__builtin_clzll(active)) * n->element - first;
    const uint8_t *flags = NULL;
    void *host = n->store ? write_hit(cpu, linear + first, span, &flags)
                          : read_hit(cpu, linear + first, span);
    if (UNLIKELY(!host)) {
        run_by_elements(cpu, op, n, linear, active);
    } else {
        /* The bytes before the first active element may lie in another page: not accessed. */
        run(cpu, op, n, (void *)((uintptr_t)host - first));
        if (flags && UNLIKELY(*(const volatile uint8_t *)flags))
            interp_written(cpu, op, host, span);
    }
    NEXT(cpu, op);
}

/* ---- x87 and MMX ---- */

/* The thunk's FXSAVE writes the host's pointers: the guest's are kept here. */
static void run_x87(struct vcpu *cpu, const struct op *op)
{
    const struct native *n = native_of(op);
    struct fxsave *fx = &cpu->fpu.fx;
    vector_check_unit(cpu, op, n->unit);
    uint64_t fip = fx->fip, fdp = fx->fdp;
    uint16_t fop = fx->fop, fcs = cpu->fpu.fcs, fds = cpu->fpu.fds;
    if (n->pointers) {
        fip = (cpu->rip + op->offset) & cpu->interp->ip_mask;
        if (!cpu_protected(cpu)) /* where segments are mere addresses, pointers are linear */
            fip += cpu->seg[CS].base;
        fop = n->fop;
        fcs = cpu->seg[CS].selector;
    }
    if (n->size) {
        if (n->pointers) {
            fdp = op_effective_address(cpu, op);
            if (!cpu_protected(cpu))
                fdp += cpu->seg[op->seg].base;
            fds = cpu->seg[op->seg].selector;
        }
        run_memory(cpu, op, n);
    } else {
        run(cpu, op, n, NULL);
    }
    fx->fip = fip;
    fx->fdp = fdp;
    fx->fop = fop;
    cpu->fpu.fcs = fcs;
    cpu->fpu.fds = fds;
}

static void op_x87(struct vcpu *cpu, const struct op *op)
{
    run_x87(cpu, op);
    NEXT(cpu, op);
}

/* VZEROUPPER, VZEROALL: op->aux is where zeroing starts. */
static void op_vzero(struct vcpu *cpu, const struct op *op)
{
    vector_check_unit(cpu, op, UNIT_AVX);
    unsigned count = cpu_64bit(cpu) ? 16 : 8;
    for (unsigned i = 0; i < count; i++)
        memset(cpu->fpu.zmm[i] + op->aux, 0, 64u - op->aux);
    NEXT(cpu, op);
}

/* ---- What an instruction uses ---- */

static void find_masking(const struct decode *d, struct native *n, unsigned memory)
{
    const ZydisDecodedInstruction *insn = d->insn;
    const ZydisDecodedOperand *m = &d->operands[memory];
    n->element = (uint8_t)(m->element_size / 8);
    n->elements = (uint8_t)m->element_count;
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        n->element = insn->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS ||
                             insn->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD
                         ? 4
                         : 8;
        n->elements = n->size / n->element;
        n->masking = MASK_SIGNS;
        n->mask = (uint8_t)vector_register(d->operands[1].reg.value);
        return;
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
    case ZYDIS_MNEMONIC_VEXPANDPS:
    case ZYDIS_MNEMONIC_VEXPANDPD:
    case ZYDIS_MNEMONIC_VPEXPANDB:
    case ZYDIS_MNEMONIC_VPEXPANDW:
    case ZYDIS_MNEMONIC_VPEXPANDD:
    case ZYDIS_MNEMONIC_VPEXPANDQ:
        n->masking = MASK_COMPRESSED;
        break;
    default:
        n->masking = MASK_ELEMENTS;
    }
    if (insn->encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX ||
        insn->avx.mask.reg == ZYDIS_REGISTER_NONE || insn->avx.mask.reg == ZYDIS_REGISTER_K0) {
        n->masking = MASK_NONE;
        return;
    }
    /* The manual and processors have these two in a class without fault suppression, Zydis not. */
    if (insn_no_fault_suppression(insn->meta.exception_class) ||
        insn->mnemonic == ZYDIS_MNEMONIC_VDBPSADBW ||
        insn->mnemonic == ZYDIS_MNEMONIC_VCVTNE2PS2BF16) {
        n->masking = MASK_NONE;
        n->load = true; /* what a masked store leaves alone goes through a copy too */
        return;
    }
    n->mask = (uint8_t)vector_register(insn->avx.mask.reg);
    const ZydisDecodedOperand *dst = &d->operands[0];
    bool to_vector = dst->type == ZYDIS_OPERAND_TYPE_REGISTER &&
                     ZydisRegisterGetClass(dst->reg.value) != ZYDIS_REGCLASS_MASK;
    if (insn_works_on_groups(insn->mnemonic)) {
        n->masking = MASK_ANY;
        n->elements = (uint8_t)dst->element_count;
    } else if (insn->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID) {
        n->masking = MASK_ANY;
        n->elements = (uint8_t)(insn->avx.vector_length / m->element_size);
        if (insn_works_on_groups(insn->mnemonic))
            n->elements = (uint8_t)dst->element_count;
        else if (to_vector)
            n->elements = (uint8_t)MIN(n->elements, dst->element_count);
    } else if (to_vector && dst->element_count < m->element_count && dst->size == m->size) {
        /* Sums of products have operands with more and smaller elements than the result. */
        n->elements = (uint8_t)dst->element_count;
        n->element = n->size / n->elements;
    }
}

/* Alignment, less one, that a processor wants with alignment checking: of an element where there is
 * a mask, and at most of 16 bytes. VMASKMOV wants none. */
static unsigned natural_alignment(const struct native *n)
{
    switch (n->masking) {
    case MASK_SIGNS:
        return 0;
    case MASK_ELEMENTS:
    case MASK_COMPRESSED:
        return n->element - 1u;
    default:
        return n->size == 10 ? 7 : MIN(n->size & -n->size, 16) - 1u;
    }
}

static bool note_memory(const struct decode *d, struct native *n, unsigned i)
{
    const ZydisDecodedOperand *o = &d->operands[i];
    const ZydisDecodedInstruction *insn = d->insn;
    if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN || o->mem.type != ZYDIS_MEMOP_TYPE_MEM)
        return false;
    n->size = (uint8_t)(o->size / 8);
    n->load = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    n->store = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    n->legacy = insn->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    /* AMD's SHA instructions take any address. */
    bool amd_sha =
        insn->meta.isa_set == ZYDIS_ISA_SET_SHA && d->cpu->machine->cpuid.vendor == VENDOR_AMD;
    if (n->legacy ? n->size == 16 && !insn_may_be_misaligned(insn->mnemonic) && !amd_sha
                  : insn_must_be_aligned(insn->mnemonic))
        n->align = n->size - 1;
    find_masking(d, n, i);
    n->natural = (uint8_t)natural_alignment(n);
    return n->size > 0 && n->size <= 64;
}

struct classes {
    bool mmx, vector, mask;
};

static bool note_gpr(struct native *n, struct rewrite *r, const ZydisDecodedOperand *o, bool read,
                     bool write)
{
    uint8_t number, shift, set = GPR_EXPLICIT;
    if (!bind_reg(o->reg.value, &number, &shift) || shift)
        return false;
    if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
        if (number != RAX && number != RCX && number != RDX)
            return false;
        set = (uint8_t)BIT(number);
    } else {
        r->gpr_reg |= o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG;
        r->gpr_rm |= o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
        if (n->key.gpr != GPR_NONE || (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_REG &&
                                       o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM))
            return false;
        n->key.gpr = number;
    }
    if (read)
        n->key.gpr_read |= set;
    if (write)
        n->key.gpr_write |= set;
    return true;
}

static bool note_register(struct native *n, struct rewrite *r, struct classes *c,
                          const ZydisDecodedOperand *o)
{
    bool read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    bool write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    unsigned number = vector_register(o->reg.value);
    switch (ZydisRegisterGetClass(o->reg.value)) {
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
        c->vector = true;
        /* Also what is only written: much of it is written in part. */
        n->key.read |= BIT(number);
        if (write)
            n->key.write |= BIT(number);
        return true;
    case ZYDIS_REGCLASS_MASK:
        c->mask = true;
        n->key.k_read |= (uint8_t)BIT(number);
        if (write)
            n->key.k_write |= (uint8_t)BIT(number);
        return true;
    case ZYDIS_REGCLASS_X87:
        return true;
    case ZYDIS_REGCLASS_MMX:
        c->mmx = true;
        return true;
    case ZYDIS_REGCLASS_FLAGS:
        n->key.uses |= (read ? THUNK_FLAGS_IN : 0) | (write ? THUNK_FLAGS_OUT : 0);
        return true;
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return note_gpr(n, r, o, read, write);
    default:
        return o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN; /* x87 status, MXCSR */
    }
}

static bool choose_unit(const struct decode *d, struct native *n, struct classes *c)
{
    const ZydisDecodedInstruction *insn = d->insn;
    bool x87 = insn->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
               insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (insn->opcode & 0xf8) == 0xd8;
    /* Conversions from memory to a general or MMX register name no vector register. */
    c->vector |= insn_uses_mxcsr(insn);
    if (!c->mmx && !x87 && c->vector && insn_uses_mxcsr(insn))
        n->key.uses |= THUNK_MXCSR;
    if (insn->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) {
        if (!x87 && !c->mmx && !c->vector)
            return false;
        n->unit = x87 ? UNIT_X87 : !c->mmx ? UNIT_SSE : c->vector ? UNIT_MMX_SSE : UNIT_MMX;
        n->key.size = 16;
        if (x87 || c->mmx)
            n->key.uses |= THUNK_X87;
        return true;
    }
    if (!c->vector && !c->mask)
        return false;
    /* Real and virtual-8086 mode have no VEX. */
    if (!cpu_protected(d->cpu))
        return false;
    bool avx512 = insn->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || c->mask;
    if (thunks_host() < (avx512 ? HOST_AVX512 : HOST_AVX))
        return false;
    n->unit = avx512 ? UNIT_AVX512 : UNIT_AVX;
    n->key.size = avx512 ? 64 : 32;
    n->key.uses |= THUNK_EXTENDS;
    return true;
}

/* Memory accesses that are not one plain operand: vector_special.c. */
static bool special_memory(const struct decode *d)
{
    for (unsigned i = 0; i < d->insn->operand_count; i++)
        if (d->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            d->operands[i].mem.type != ZYDIS_MEMOP_TYPE_MEM)
            return true;
    return d->insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
           d->insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
           d->insn->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

bool bind_native(struct decode *d, struct op *op)
{
    const ZydisDecodedInstruction *insn = d->insn;
    if (special_memory(d))
        return bind_vector_special(d, op);
    if (insn->mnemonic == ZYDIS_MNEMONIC_VZEROALL || insn->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER) {
        op->fn = op_vzero;
        op->aux = insn->mnemonic == ZYDIS_MNEMONIC_VZEROALL ? 0 : 16;
        return cpu_protected(d->cpu);
    }
    struct native n = {.key = {.gpr = GPR_NONE}};
    struct rewrite r = {.d = d};
    struct classes c = {0};
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const ZydisDecodedOperand *o = &d->operands[i];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (r.memory || !note_memory(d, &n, i))
                return false;
            r.memory = true;
        } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !note_register(&n, &r, &c, o)) {
            return false;
        }
    }
    if (insn->mnemonic == ZYDIS_MNEMONIC_VP2INTERSECTD ||
        insn->mnemonic == ZYDIS_MNEMONIC_VP2INTERSECTQ) {
        unsigned pair = vector_register(d->operands[0].reg.value) & ~1u;
        n.key.k_read |= (uint8_t)(3u << pair);
        n.key.k_write |= (uint8_t)(3u << pair);
    }
    if (!choose_unit(d, &n, &c) || !native_rewrite(&r, &n.key))
        return false;
    /* Its 64-bit form is not taken for the 32-bit one where there is none. */
    if ((insn->mnemonic == ZYDIS_MNEMONIC_VPINSRD || insn->mnemonic == ZYDIS_MNEMONIC_VPEXTRD) &&
        d->mode.bits != 64 && insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && insn->raw.vex.W)
        return false;
    n.pointers = n.unit == UNIT_X87 && insn->mnemonic != ZYDIS_MNEMONIC_FFREE &&
                 insn->mnemonic != ZYDIS_MNEMONIC_FNOP;
    n.fop = (uint16_t)((insn->opcode & 7) << 8 | d->bytes[insn->raw.modrm.offset]);

    struct native *kept = interp_block_alloc((struct vcpu *)(uintptr_t)d->cpu, sizeof *kept);
    if (!kept)
        return false;
    n.thunk = thunks_get(d->cpu->interp->thunks, &n.key);
    n.generation = thunks_generation(d->cpu->interp->thunks);
    *kept = n;
    op->imm = (uintptr_t)kept;
    op->fn = n.key.uses & THUNK_X87 ? op_x87
             : !n.size              ? op_registers
             : n.masking            ? op_masked
                                    : op_memory;
    op_fn *move = plain_move(d, op);
    if (move)
        op->fn = move;
    return true;
}

bool native_describe(const struct op *op, struct native_form *form)
{
    if (op->fn != op_registers && op->fn != op_memory && op->fn != op_masked && op->fn != op_move &&
        op->fn != op_move_load && op->fn != op_move_store && op->fn != op_x87)
        return false;
    const struct native *n = native_of(op);
    *form = (struct native_form){
        .key = &n->key,
        .unit = n->unit,
        .size = n->size,
        .store = n->store,
        .masked = op->fn == op_masked,
        .pointers = n->pointers,
    };
    return true;
}
