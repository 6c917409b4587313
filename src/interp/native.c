/*
 * Vector and x87 instructions by native execution: same instruction set, so the host's own unit is
 * the semantics.
 *
 * For each instruction a thunk is made when it is decoded: code that loads just the registers that
 * the instruction names from struct vcpu, executes the instruction with its memory operand
 * redirected to a pointer, and stores what it wrote. The instruction keeps its encoding and its
 * register numbers; only ModRM's memory form (and RSP as an operand) is patched:
 *
 *   thunk(cpu, memory):  push callee-saved registers that serve as operands
 *                        mov P, rdi / mov M, rsi        two registers that the instruction does not
 * use load vector, mask, general registers; MXCSR or the x87 state the instruction, memory operand
 * = [M] store the same; LAHF and SETO where it sets flags pop, ret
 *
 * All vector registers are caller-saved in the C ABI, so nothing else has to be kept. Thunks live
 * in a memfd that is mapped twice, once writable and once executable, and die with the decoded
 * blocks that point to them.
 *
 * The memory operand is guest RAM itself where interp_host() allows it, else a bounce buffer with
 * the same misalignment.
 *
 * Unmasked SIMD exceptions never reach the host: with any of them unmasked the instruction runs
 * with all masked, on a saved state; where a flag that is not masked comes up, the state is put
 * back and the guest gets its #XM.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/xstate.h"
#include "interp/native.h"
#include "interp/vector.h"

#define ARENA_BYTES (UINT64_C(96) << 20)
#define THUNK_MAX   1024
#define BOUNCE_MAX  128

typedef uint32_t thunk_fn(struct vcpu *cpu, void *memory);

struct native {
    uint8_t *write, *execute; /* two views of the same pages */
    size_t used;
};

struct native_op {
    thunk_fn *thunk;
    uint16_t size;     /* bytes of the memory operand; 0: none */
    uint8_t alignment; /* that the memory operand must have; 1: none */
    uint8_t unit;
    bool reads, writes; /* the memory operand */
    bool flags;         /* the thunk returns AH and OF as LAHF and SETO give them */
    bool mxcsr;         /* may raise SIMD exceptions */
    bool mmx;           /* also touches MMX registers */
    bool pointers;      /* x87: sets FIP, FDP, FOP */
    uint16_t fop;
    /* Masked memory: elements of `element` bytes, by the bits of k[mask] or the sign bits of a
     * vector register. */
    uint8_t element, mask_k, mask_vector;
    bool proven; /* has run once: the host's processor knows the instruction */
    bool packed; /* compress and expand: the elements lie one after the other */
};

#define NO_MASK 0xff

/* ---- Assembling ---- */

struct assembler {
    uint8_t *at, *end;
};

static void emit(struct assembler *a, const void *bytes, size_t count)
{
    if ((size_t)(a->end - a->at) >= count)
        memcpy(a->at, bytes, count);
    a->at += count;
}
#define EMIT(a, ...)                                                                               \
    emit((a), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void emit32(struct assembler *a, uint32_t value)
{
    emit(a, &value, 4);
}

/* ModRM and displacement of [base + offset]; `base` is not RSP or R12. */
static void emit_operand(struct assembler *a, unsigned reg, unsigned base, size_t offset)
{
    EMIT(a, (uint8_t)(0x80 | (reg & 7) << 3 | (base & 7)));
    emit32(a, (uint32_t)offset);
}

static uint8_t rex(bool w, unsigned reg, unsigned base)
{
    return (uint8_t)(0x40 | w << 3 | (reg >> 3 & 1) << 2 | (base >> 3 & 1));
}

static void emit_gpr(struct assembler *a, bool store, unsigned reg, unsigned base, size_t offset)
{
    EMIT(a, rex(true, reg, base), store ? 0x89 : 0x8b);
    emit_operand(a, reg, base, offset);
}

/* 0F AE /n with a memory operand: LDMXCSR 2, STMXCSR 3, FXSAVE64 0, FXRSTOR64 1. */
static void emit_0fae(struct assembler *a, unsigned n, bool wide, unsigned base, size_t offset)
{
    EMIT(a, rex(wide, 0, base), 0x0f, 0xae);
    emit_operand(a, n, base, offset);
}

/* A whole vector register, as wide as the host has them. */
static void emit_vector(struct assembler *a, bool store, unsigned reg, unsigned base, size_t offset)
{
    uint64_t host = xstate_host_mask();
    uint8_t opcode = store ? 0x7f : 0x6f;
    if (host >> XSTATE_ZMM_HI256 & 1) {
        uint8_t p0 =
            (uint8_t)(0x41 | !(reg >> 3 & 1) << 7 | !(base >> 3 & 1) << 5 | !(reg >> 4 & 1) << 4);
        EMIT(a, 0x62, p0, 0xfe, 0x48, opcode); /* VMOVDQU64 */
    } else if (host >> XSTATE_AVX & 1) {
        EMIT(a, 0xc4, (uint8_t)(0x41 | !(reg >> 3 & 1) << 7 | !(base >> 3 & 1) << 5), 0x7e,
             opcode); /* VMOVDQU */
    } else {
        EMIT(a, rex(false, reg, base), 0x0f, store ? 0x11 : 0x10); /* MOVUPS */
    }
    emit_operand(a, reg, base, offset);
}

static void emit_mask(struct assembler *a, bool store, unsigned reg, unsigned base, size_t offset)
{
    EMIT(a, 0xc4, (uint8_t)(0xc1 | !(base >> 3 & 1) << 5), 0xf8, store ? 0x91 : 0x90); /* KMOVQ */
    emit_operand(a, reg, base, offset);
}

#define HOST_MXCSR 0x1f80

static void emit_host_mxcsr(struct assembler *a)
{
    EMIT(a, 0x68, HOST_MXCSR & 0xff, HOST_MXCSR >> 8, 0, 0); /* push */
    EMIT(a, 0x0f, 0xae, 0x14, 0x24);                         /* ldmxcsr [rsp] */
    EMIT(a, 0x48, 0x8d, 0x64, 0x24, 0x08);                   /* lea rsp, [rsp+8]: keeps the flags */
}

/* ---- What an instruction uses ---- */

struct usage {
    uint32_t vectors_in, vectors_out; /* bit n: zmm n */
    uint8_t masks_in, masks_out;
    uint16_t gprs_in, gprs_out;
    bool mmx, writes_flags, reads_flags;
    const ZydisDecodedOperand *memory;
};

static void note_register(struct usage *u, const ZydisDecodedOperand *o)
{
    ZydisRegister r = o->reg.value;
    bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    int id = ZydisRegisterGetId(r);
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
        u->vectors_in |= BIT(id);
        u->vectors_out |= writes ? BIT(id) : 0;
        break;
    case ZYDIS_REGCLASS_MASK:
        u->masks_in |= (uint8_t)BIT(id);
        u->masks_out |= (uint8_t)(writes ? BIT(id) : 0);
        break;
    case ZYDIS_REGCLASS_MMX:
        u->mmx = true;
        break;
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64: {
        uint8_t number, shift;
        bind_reg(r, &number, &shift);
        u->gprs_in |= (uint16_t)BIT(number);
        u->gprs_out |= (uint16_t)(writes ? BIT(number) : 0);
        break;
    }
    default:
        break;
    }
}

/* Instructions that work on four consecutive registers name only the first. */
static void note_register_list(struct usage *u, const ZydisDecodedInstruction *insn)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_VP2INTERSECTD:
    case ZYDIS_MNEMONIC_VP2INTERSECTQ: /* two mask registers, an even one and the next */
        u->masks_in |= (uint8_t)((u->masks_out & 0x55) << 1 | (u->masks_out & 0xaa) >> 1);
        u->masks_out |= (uint8_t)((u->masks_out & 0x55) << 1 | (u->masks_out & 0xaa) >> 1);
        break;
    default:
        break;
    }
}

static struct usage usage_of(const struct decode *d)
{
    struct usage u = {0};
    const ZydisDecodedInstruction *insn = d->insn;
    for (unsigned i = 0; i < insn->operand_count; i++) {
        const ZydisDecodedOperand *o = &d->operands[i];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
            note_register(&u, o);
        else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type == ZYDIS_MEMOP_TYPE_MEM)
            u.memory = o;
    }
    if (insn->avx.mask.reg > ZYDIS_REGISTER_K0 && insn->avx.mask.reg <= ZYDIS_REGISTER_K7)
        u.masks_in |= (uint8_t)BIT(insn->avx.mask.reg - ZYDIS_REGISTER_K0);
    note_register_list(&u, insn);
    if (insn->cpu_flags) {
        const ZydisAccessedFlags *f = insn->cpu_flags;
        u.writes_flags = (f->modified | f->set_0 | f->set_1 | f->undefined) & FLAGS_ARITH;
        u.reads_flags = f->tested & FLAGS_ARITH;
    }
    return u;
}

/* ---- The instruction's new bytes ---- */

struct patched {
    uint8_t bytes[20];
    unsigned length;
};

static bool is_prefix(uint8_t b)
{
    static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
                                       0x66, 0x67, 0xf0, 0xf2, 0xf3};
    for (unsigned i = 0; i < sizeof prefixes; i++)
        if (b == prefixes[i])
            return true;
    return false;
}

/* Clear what extends ModRM.rm and SIB, which now is [M] with M below 8; and in 32-bit code, what
 * would name registers that only 64-bit code has. */
static void patch_vex(uint8_t *b, bool memory, bool is64, bool has_gpr)
{
    if (b[0] == 0xc5) {
        if (!is64)
            b[1] |= 0xc0;
        return;
    }
    if (b[0] == 0xc4) {
        if (memory)
            b[1] |= 0x60;
        if (!is64) {
            b[1] |= 0xe0;
            b[2] |= 0x40;
            if (has_gpr)
                b[2] &= 0x7f;
        }
        return;
    }
    if (memory)
        b[1] |= 0x60;
    if (!is64) {
        b[1] |= 0xf0;
        b[2] |= 0x40;
        b[3] |= 0x08;
        if (has_gpr)
            b[2] &= 0x7f;
    }
}

static struct patched patch_instruction(const struct decode *d, const struct usage *u, unsigned m,
                                        unsigned rsp_alias)
{
    const ZydisDecodedInstruction *insn = d->insn;
    const uint8_t *b = d->bytes;
    bool is64 = d->mode.bits == 64;
    bool vex = insn->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ||
               insn->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    struct patched p = {.length = 0};
    unsigned at = 0;
    /* Of several REX prefixes only the one right before the opcode counts. */
    uint8_t rex_prefix = 0;
    for (; is_prefix(b[at]) || (!vex && is64 && (b[at] & 0xf0) == 0x40); at++) {
        bool is_rex = !is_prefix(b[at]);
        rex_prefix = is_rex ? b[at] : 0;
        if (b[at] == 0x66 || b[at] == 0xf2 || b[at] == 0xf3)
            p.bytes[p.length++] = b[at];
    }
    if (rex_prefix)
        p.bytes[p.length++] = u->memory ? rex_prefix & 0xfc : rex_prefix;
    bool has_modrm = insn->attributes & ZYDIS_ATTRIB_HAS_MODRM;
    unsigned modrm = has_modrm ? insn->raw.modrm.offset : insn->length;
    unsigned body = p.length;
    memcpy(p.bytes + p.length, b + at, modrm - at);
    p.length += modrm - at;
    if (vex)
        patch_vex(p.bytes + body, u->memory, is64, u->gprs_in);
    if (!has_modrm)
        return p;

    uint8_t value = b[modrm];
    unsigned tail = modrm + 1;
    if (insn->raw.modrm.mod != 3) {
        if (insn->attributes & ZYDIS_ATTRIB_HAS_SIB)
            tail++;
        tail += insn->raw.disp.size / 8;
        value = (uint8_t)((value & 0x38) | m);
    }
    /* RSP as a general operand: another register stands in for it. */
    for (unsigned i = 0; i < insn->operand_count_visible; i++) {
        const ZydisDecodedOperand *o = &d->operands[i];
        uint8_t number, shift;
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !bind_reg(o->reg.value, &number, &shift) ||
            number != RSP)
            continue;
        if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            value = (uint8_t)((value & 0xc7) | rsp_alias << 3);
        else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            value = (uint8_t)((value & 0xf8) | rsp_alias);
    }
    p.bytes[p.length++] = value;
    memcpy(p.bytes + p.length, b + tail, insn->length - tail);
    p.length += insn->length - tail;
    return p;
}

/* ---- The thunk ---- */

static unsigned pick(uint32_t *busy, const uint8_t *candidates, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (*busy >> candidates[i] & 1)
            continue;
        *busy |= BIT(candidates[i]);
        return candidates[i];
    }
    return candidates[0]; /* not reached: no instruction names so many registers */
}

#define CALLEE_SAVED (BIT(RBX) | BIT(RBP) | BIT(R12) | BIT(R13) | BIT(R14) | BIT(R15))

static void emit_registers(struct assembler *a, const struct usage *u, bool store, unsigned p,
                           unsigned rsp_alias)
{
    uint32_t vectors = store ? u->vectors_out : u->vectors_in;
    unsigned masks = store ? u->masks_out : u->masks_in;
    unsigned gprs = store ? u->gprs_out : u->gprs_in;
    for (unsigned i = 0; i < 32; i++)
        if (vectors >> i & 1)
            emit_vector(a, store, i, p, offsetof(struct vcpu, fpu.zmm[0]) + 64 * i);
    for (unsigned i = 0; i < 8; i++)
        if (masks >> i & 1)
            emit_mask(a, store, i, p, offsetof(struct vcpu, fpu.k[0]) + 8 * i);
    for (unsigned i = 0; i < 16; i++)
        if (gprs >> i & 1)
            emit_gpr(a, store, i == RSP ? rsp_alias : i, p, offsetof(struct vcpu, gpr[0]) + 8 * i);
}

static void build_thunk(struct assembler *a, const struct decode *d, const struct usage *u,
                        const struct native_op *n)
{
    static const uint8_t for_p[] = {R11, R10, R9, R8}, for_m[] = {RDI, RSI, RDX, RCX, RAX, RBX};
    uint32_t busy = u->gprs_in | BIT(RSP);
    unsigned p = pick(&busy, for_p, sizeof for_p);
    unsigned m = pick(&busy, for_m, sizeof for_m);
    unsigned rsp_alias = u->gprs_in & BIT(RSP) ? pick(&busy, for_m, sizeof for_m) : RSP;
    uint32_t saved = busy & CALLEE_SAVED;
    bool x87 = n->unit == UNIT_X87 || n->mmx;

    for (unsigned r = 0; r < 16; r++)
        if (saved >> r & 1)
            EMIT(a, rex(false, 0, r), (uint8_t)(0x50 | (r & 7)));
    EMIT(a, rex(true, RDI, p), 0x89, (uint8_t)(0xc0 | RDI << 3 | (p & 7)));
    if (m != RSI)
        EMIT(a, rex(true, RSI, m), 0x89, (uint8_t)(0xc0 | RSI << 3 | m));
    if (x87)
        emit_0fae(a, 1, true, p, offsetof(struct vcpu, fpu.fx));
    else if (n->mxcsr)
        emit_0fae(a, 2, false, p, offsetof(struct vcpu, fpu.fx.mxcsr));
    if (u->reads_flags) {
        EMIT(a, rex(false, RAX, p), 0x8b);
        emit_operand(a, RAX, p, offsetof(struct vcpu, cc));
        EMIT(a, 0x50, 0x9d); /* push rax; popf */
    }
    emit_registers(a, u, false, p, rsp_alias);

    struct patched insn = patch_instruction(d, u, m, rsp_alias);
    emit(a, insn.bytes, insn.length);

    emit_registers(a, u, true, p, rsp_alias);
    if (u->writes_flags)
        EMIT(a, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    if (x87) {
        emit_0fae(a, 0, true, p, offsetof(struct vcpu, fpu.fx));
        EMIT(a, 0xdb, 0xe3); /* fninit: pending exceptions are the guest's */
        emit_host_mxcsr(a);
    } else if (n->mxcsr) {
        emit_0fae(a, 3, false, p, offsetof(struct vcpu, fpu.fx.mxcsr));
        emit_host_mxcsr(a);
    }
    if (xstate_host_mask() >> XSTATE_AVX & 1)
        EMIT(a, 0xc5, 0xf8, 0x77); /* vzeroupper */
    for (unsigned r = 16; r-- > 0;)
        if (saved >> r & 1)
            EMIT(a, rex(false, 0, r), (uint8_t)(0x58 | (r & 7)));
    EMIT(a, 0xc3);
}

/* ---- The arena ---- */

static struct native *native_create(void)
{
    struct native *n = calloc(1, sizeof *n);
    int fd = memfd_create("thunks", MFD_CLOEXEC);
    if (!n || fd < 0 || ftruncate(fd, (off_t)ARENA_BYTES) < 0)
        goto fail;
    n->write = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    n->execute = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (n->write == MAP_FAILED || n->execute == MAP_FAILED)
        goto fail;
    close(fd);
    return n;
fail:
    abort(); /* no memory for the vector unit: nothing sensible can go on */
}

void native_destroy(struct native *n)
{
    if (!n)
        return;
    munmap(n->write, ARENA_BYTES);
    munmap(n->execute, ARENA_BYTES);
    free(n);
}

void native_reset(struct native *n)
{
    if (n)
        n->used = 0;
}

static thunk_fn *make_thunk(struct interp *in, const struct decode *d, const struct usage *u,
                            const struct native_op *n)
{
    if (!in->native)
        in->native = native_create();
    struct native *arena = in->native;
    if (arena->used + THUNK_MAX > ARENA_BYTES)
        abort(); /* the block arena, which is smaller, is flushed long before */
    struct assembler a = {arena->write + arena->used, arena->write + arena->used + THUNK_MAX};
    build_thunk(&a, d, u, n);
    if (a.at > a.end)
        abort(); /* a longer thunk than any instruction can need */
    thunk_fn *fn = (thunk_fn *)(uintptr_t)(arena->execute + arena->used);
    arena->used = ALIGN_UP((size_t)(a.at - arena->write), 16u);
    return fn;
}

/* ---- Running ---- */

void native_check_unit(struct vcpu *cpu, const struct op *op, enum native_unit unit)
{
    const uint64_t avx = BIT64(XSTATE_SSE) | BIT64(XSTATE_AVX);
    const uint64_t avx512 =
        avx | BIT64(XSTATE_OPMASK) | BIT64(XSTATE_ZMM_HI256) | BIT64(XSTATE_HI16_ZMM);
    uint64_t needed = unit == UNIT_AVX512 ? avx512 : avx;
    switch (unit) {
    case UNIT_X87:
        vector_check_x87(cpu, op);
        vector_check_x87_pending(cpu, op);
        return;
    case UNIT_MMX:
        if (cpu->cr0 & CR0_EM)
            interp_raise(cpu, op, VEC_UD);
        break;
    case UNIT_SSE:
        if ((cpu->cr0 & CR0_EM) || !(cpu->cr4 & CR4_OSFXSR))
            interp_raise(cpu, op, VEC_UD);
        break;
    default:
        if (!(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & needed) != needed || !cpu_protected(cpu))
            interp_raise(cpu, op, VEC_UD);
        break;
    }
    if (cpu->cr0 & CR0_TS)
        interp_raise(cpu, op, VEC_NM);
}

#define MXCSR_FLAGS      0x3fu
#define MXCSR_MASKS(x)   ((x) >> 7 & MXCSR_FLAGS)
#define MXCSR_ALL_MASKED 0x1f80u
#define MXCSR_BEFORE     7u /* IE, DE, ZE: found before the result is computed */

static _Noreturn void raise_simd(struct vcpu *cpu, const struct op *op)
{
    interp_raise(cpu, op, cpu->cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}

/* Run with some SIMD exception unmasked. `memory` is a bounce buffer, so that nothing is written
 * before we know. */
static uint32_t run_unmasked(struct vcpu *cpu, const struct op *op, const struct native_op *n,
                             void *memory)
{
    struct fpu saved = cpu->fpu;
    uint64_t gpr[16];
    memcpy(gpr, cpu->gpr, sizeof gpr);
    uint32_t before = saved.fx.mxcsr;
    cpu->fpu.fx.mxcsr = (before & ~MXCSR_FLAGS) | MXCSR_ALL_MASKED;
    uint32_t result = n->thunk(cpu, memory);
    uint32_t raised = cpu->fpu.fx.mxcsr & MXCSR_FLAGS;
    uint32_t unmasked = raised & ~MXCSR_MASKS(before);
    if (!unmasked) {
        cpu->fpu.fx.mxcsr = before | raised;
        return result;
    }
    if (unmasked & MXCSR_BEFORE)
        raised &= MXCSR_BEFORE;
    cpu->fpu = saved;
    cpu->fpu.fx.mxcsr = before | raised;
    memcpy(cpu->gpr, gpr, sizeof gpr);
    raise_simd(cpu, op);
}

static bool any_unmasked(const struct vcpu *cpu, const struct native_op *n)
{
    return n->mxcsr && MXCSR_MASKS(cpu->fpu.fx.mxcsr) != MXCSR_FLAGS;
}

/*
 * Zydis may decode what this processor does not: a reserved combination of bits. The first run of
 * every thunk is watched, on a copy of the state; where the processor refuses, so do we.
 */
static __thread sigjmp_buf *first_run;

static struct sigaction previous_sigill;

static void on_sigill(int number, siginfo_t *info, void *context)
{
    if (first_run)
        siglongjmp(*first_run, 1);
    /* Not ours. */
    if (previous_sigill.sa_flags & SA_SIGINFO)
        previous_sigill.sa_sigaction(number, info, context);
    else if (previous_sigill.sa_handler == SIG_DFL || previous_sigill.sa_handler == SIG_IGN)
        signal(number, SIG_DFL); /* the instruction runs again and ends the process */
    else
        previous_sigill.sa_handler(number);
}

static void install_sigill(void)
{
    struct sigaction action = {.sa_sigaction = on_sigill, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, &previous_sigill);
}

static void prove(struct vcpu *cpu, const struct op *op, struct native_op *n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_sigill);
    uint8_t scratch[BOUNCE_MAX] __attribute__((aligned(64))) = {0};
    struct fpu saved = cpu->fpu;
    uint64_t gpr[16];
    memcpy(gpr, cpu->gpr, sizeof gpr);
    sigjmp_buf here;
    bool refused = sigsetjmp(here, 1);
    if (!refused) {
        first_run = &here;
        cpu->fpu.fx.mxcsr |= MXCSR_ALL_MASKED;
        cpu->fpu.fx.fcw |= 0x3f;
        n->thunk(cpu, scratch);
    }
    first_run = NULL;
    cpu->fpu = saved;
    memcpy(cpu->gpr, gpr, sizeof gpr);
    if (refused)
        interp_raise(cpu, op, VEC_UD);
    n->proven = true;
}

static void check_unit(struct vcpu *cpu, const struct op *op, const struct native_op *n)
{
    native_check_unit(cpu, op, n->unit);
    if (n->mmx)
        vector_check_x87_pending(cpu, op);
    if (UNLIKELY(!n->proven))
        prove(cpu, op, (struct native_op *)(uintptr_t)n);
}

static uint32_t run_thunk(struct vcpu *cpu, const struct op *op, const struct native_op *n,
                          void *memory)
{
    return UNLIKELY(any_unmasked(cpu, n)) ? run_unmasked(cpu, op, n, memory)
                                          : n->thunk(cpu, memory);
}

/* What only software can do after the thunk. */
static void finish(struct vcpu *cpu, const struct op *op, const struct native_op *n,
                   uint32_t result, uint64_t offset)
{
    if (n->flags)
        cpu->cc = ((result >> 8) & 0xd5) | (result & 1) << 11;
    if (n->pointers) {
        cpu->fpu.fx.fip = (cpu->rip + op->offset) & cpu->interp->ip_mask;
        cpu->fpu.fx.fop = n->fop;
        if (n->size)
            cpu->fpu.fx.fdp = offset;
    }
}

static uint64_t memory_linear(struct vcpu *cpu, const struct op *op, const struct native_op *n,
                              uint64_t offset, unsigned size)
{
    uint64_t linear = (op->flags & OP_FLAT) && op->addr_size != 2
                          ? offset
                          : interp_linear(cpu, op, op->seg, offset, size, n->writes);
    if (n->alignment > 1 && (linear & (n->alignment - 1u)) &&
        !((cpu->fpu.fx.mxcsr >> 17 & 1) && !n->writes && n->unit == UNIT_SSE))
        interp_raise_error(cpu, op, VEC_GP, 0);
    unsigned natural = size == 10 ? 8 : size & -size;
    if (UNLIKELY(cpu->interp->align_check) && (linear & (natural - 1)))
        interp_raise_error(cpu, op, VEC_AC, 0);
    return linear;
}

static void op_registers(struct vcpu *cpu, const struct op *op)
{
    const struct native_op *n = (const struct native_op *)(uintptr_t)op->imm;
    check_unit(cpu, op, n);
    finish(cpu, op, n, run_thunk(cpu, op, n, NULL), 0);
    NEXT(cpu, op);
}

static void run_bounced(struct vcpu *cpu, const struct op *op, const struct native_op *n,
                        uint64_t linear, uint64_t offset)
{
    uint8_t buffer[BOUNCE_MAX + 64] __attribute__((aligned(64)));
    uint8_t *at = buffer + (linear & 63);
    if (n->reads)
        interp_load_bytes(cpu, op, linear, at, n->size);
    if (n->writes)
        interp_probe_write(cpu, op, linear, n->size);
    uint32_t result = run_thunk(cpu, op, n, at);
    if (n->writes)
        interp_store_bytes(cpu, op, linear, at, n->size);
    finish(cpu, op, n, result, offset);
}

static void op_memory(struct vcpu *cpu, const struct op *op)
{
    const struct native_op *n = (const struct native_op *)(uintptr_t)op->imm;
    check_unit(cpu, op, n);
    uint64_t offset = op_effective_address(cpu, op);
    uint64_t linear = memory_linear(cpu, op, n, offset, n->size);
    void *host = NULL;
    if (LIKELY(!(n->writes && any_unmasked(cpu, n)))) {
        host = interp_host(cpu, op, linear, n->size, n->writes);
        if (host && n->reads && n->writes)
            host = NULL; /* nothing of the kind is common: keep the order of checks in one place */
    }
    if (LIKELY(host != NULL))
        finish(cpu, op, n, n->writes ? n->thunk(cpu, host) : run_thunk(cpu, op, n, host), offset);
    else
        run_bounced(cpu, op, n, linear, offset);
    NEXT(cpu, op);
}

/* ---- Masked memory operands: only elements that the mask names are touched ---- */

static uint64_t element_mask(const struct vcpu *cpu, const struct native_op *n, unsigned elements)
{
    uint64_t all = elements >= 64 ? ~UINT64_C(0) : BIT64(elements) - 1;
    if (n->mask_k != NO_MASK)
        return cpu->fpu.k[n->mask_k] & all;
    uint64_t mask = 0;
    for (unsigned i = 0; i < elements; i++)
        mask |= (uint64_t)(cpu->fpu.zmm[n->mask_vector][(i + 1) * n->element - 1] >> 7) << i;
    return mask;
}

static void op_masked(struct vcpu *cpu, const struct op *op)
{
    const struct native_op *n = (const struct native_op *)(uintptr_t)op->imm;
    check_unit(cpu, op, n);
    uint8_t buffer[BOUNCE_MAX + 64] __attribute__((aligned(64))) = {0};
    unsigned elements = n->size / n->element, size = n->element;
    uint64_t mask = element_mask(cpu, n, elements);
    if (n->packed)
        mask = mask == ~UINT64_C(0) ? mask : BIT64(__builtin_popcountll(mask)) - 1;
    uint64_t offset = op_effective_address(cpu, op);
    if (n->alignment > 1)
        memory_linear(cpu, op, n, offset, n->size);
    uint64_t linear[64];
    for (unsigned i = 0; i < elements; i++) {
        if (!(mask >> i & 1))
            continue;
        uint64_t where = (offset + i * size) & bytes_mask(op->addr_size);
        linear[i] = interp_linear(cpu, op, op->seg, where, size, n->writes);
        if (n->reads)
            host_store(buffer + i * size, size, interp_load(cpu, op, linear[i], size));
        if (n->writes)
            interp_probe_write(cpu, op, linear[i], size);
    }
    uint32_t result = run_thunk(cpu, op, n, buffer);
    for (unsigned i = 0; n->writes && i < elements; i++)
        if (mask >> i & 1)
            interp_store(cpu, op, linear[i], size, host_load(buffer + i * size, size));
    finish(cpu, op, n, result, offset);
    NEXT(cpu, op);
}

/* ---- Binding ---- */

static bool is_compress_or_expand(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VEXPANDPD:
    case ZYDIS_MNEMONIC_VEXPANDPS:
    case ZYDIS_MNEMONIC_VPEXPANDB:
    case ZYDIS_MNEMONIC_VPEXPANDD:
    case ZYDIS_MNEMONIC_VPEXPANDQ:
    case ZYDIS_MNEMONIC_VPEXPANDW:
        return true;
    default:
        return false;
    }
}

static bool is_vector_masked(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_VMASKMOVPS || m == ZYDIS_MNEMONIC_VMASKMOVPD ||
           m == ZYDIS_MNEMONIC_VPMASKMOVD || m == ZYDIS_MNEMONIC_VPMASKMOVQ;
}

static bool unaligned_sse(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return true;
    default:
        return false;
    }
}

static unsigned alignment_of(const struct decode *d, unsigned unit, unsigned size)
{
    const ZydisDecodedInstruction *insn = d->insn;
    /* AMD's SHA instructions take any address. */
    bool amd_sha =
        insn->meta.isa_set == ZYDIS_ISA_SET_SHA && d->cpu->machine->cpuid.vendor == VENDOR_AMD;
    if (unit == UNIT_SSE)
        return size == 16 && !amd_sha && !unaligned_sse(insn->mnemonic) ? 16 : 1;
    ZydisExceptionClass class = insn->meta.exception_class;
    bool aligned = class == ZYDIS_EXCEPTION_CLASS_AVX1 || class == ZYDIS_EXCEPTION_CLASS_E1 ||
                   class == ZYDIS_EXCEPTION_CLASS_E1NF;
    return aligned && size >= 16 ? size : 1;
}

/* Classes of instructions that can raise no SIMD exception and do not look at MXCSR. */
static bool uses_mxcsr(const ZydisDecodedInstruction *insn)
{
    switch (insn->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_SSE4:
    case ZYDIS_EXCEPTION_CLASS_SSE5:
    case ZYDIS_EXCEPTION_CLASS_SSE7:
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_AVX4:
    case ZYDIS_EXCEPTION_CLASS_AVX5:
    case ZYDIS_EXCEPTION_CLASS_AVX6:
    case ZYDIS_EXCEPTION_CLASS_AVX7:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_K20:
    case ZYDIS_EXCEPTION_CLASS_K21:
        return false;
    default:
        return true;
    }
}

/* Conversions from memory to a general register name no vector register. */
static bool converts_to_gpr(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_CVTSD2SI:
    case ZYDIS_MNEMONIC_CVTSS2SI:
    case ZYDIS_MNEMONIC_CVTTSD2SI:
    case ZYDIS_MNEMONIC_CVTTSS2SI:
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI:
        return true;
    default:
        return false;
    }
}

static bool unit_of(const ZydisDecodedInstruction *insn, const struct usage *u, uint8_t *unit)
{
    switch (insn->encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        *unit = UNIT_AVX512;
        return true;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        *unit = u->masks_in ? UNIT_AVX512 : UNIT_AVX;
        return u->masks_in || u->vectors_in || converts_to_gpr(insn->mnemonic) ||
               insn->mnemonic == ZYDIS_MNEMONIC_VZEROALL ||
               insn->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER;
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        break;
    default:
        return false;
    }
    if (insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && insn->opcode >= 0xd8 &&
        insn->opcode <= 0xdf) {
        *unit = UNIT_X87;
        return true;
    }
    bool to_mmx =
        insn->mnemonic == ZYDIS_MNEMONIC_CVTPS2PI || insn->mnemonic == ZYDIS_MNEMONIC_CVTTPS2PI ||
        insn->mnemonic == ZYDIS_MNEMONIC_CVTPD2PI || insn->mnemonic == ZYDIS_MNEMONIC_CVTTPD2PI;
    if (u->vectors_in || to_mmx || converts_to_gpr(insn->mnemonic)) {
        *unit = UNIT_SSE;
        return true;
    }
    *unit = UNIT_MMX;
    return u->mmx;
}

/* VZEROALL and VZEROUPPER name no registers. */
static void op_vzero(struct vcpu *cpu, const struct op *op)
{
    native_check_unit(cpu, op, UNIT_AVX);
    unsigned keep = op->aux ? 0 : 16;
    for (unsigned i = 0; i < (cpu_64bit(cpu) ? 16u : 8u); i++)
        memset(cpu->fpu.zmm[i] + keep, 0, 64 - keep);
    NEXT(cpu, op);
}

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

/* Instructions whose memory operand is read whole, whatever the mask says (SDM vol. 2, 2.8: classes
 * "NF"). */
static bool no_fault_suppression(ZydisExceptionClass class)
{
    switch (class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return true;
    default:
        return false;
    }
}

static void describe_mask(const struct decode *d, struct native_op *n, const struct usage *u)
{
    const ZydisDecodedInstruction *insn = d->insn;
    n->mask_k = n->mask_vector = NO_MASK;
    if (is_vector_masked(insn->mnemonic)) {
        n->mask_vector =
            (uint8_t)ZydisRegisterGetId(d->operands[1].reg.value); /* in loads and stores */
        n->element = insn->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS ||
                             insn->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD
                         ? 4
                         : 8;
        return;
    }
    if (insn->avx.mask.reg <= ZYDIS_REGISTER_K0 || insn->avx.mask.reg > ZYDIS_REGISTER_K7 ||
        insn->avx.broadcast.mode)
        return;
    if (no_fault_suppression(insn->meta.exception_class))
        return;
    n->mask_k = (uint8_t)(insn->avx.mask.reg - ZYDIS_REGISTER_K0);
    n->element = (uint8_t)(u->memory->element_size / 8);
    n->packed = is_compress_or_expand(insn->mnemonic);
}

bool bind_native(struct decode *d, struct op *op)
{
    const ZydisDecodedInstruction *insn = d->insn;
    struct usage u = usage_of(d);
    uint8_t unit;
    if (!unit_of(insn, &u, &unit))
        return false;
    if (insn->mnemonic == ZYDIS_MNEMONIC_VZEROALL || insn->mnemonic == ZYDIS_MNEMONIC_VZEROUPPER) {
        op->fn = op_vzero;
        op->aux = insn->mnemonic == ZYDIS_MNEMONIC_VZEROALL;
        return true;
    }
    if (special_memory(d))
        return bind_vector_special(d, op);

    struct vcpu *cpu = (struct vcpu *)(uintptr_t)d->cpu;
    struct native_op *n = interp_block_alloc(cpu, sizeof *n);
    *n = (struct native_op){.unit = unit,
                            .alignment = 1,
                            .flags = u.writes_flags,
                            .mmx = u.mmx,
                            .mask_k = NO_MASK,
                            .mask_vector = NO_MASK,
                            .mxcsr = (unit >= UNIT_SSE || u.mmx) && uses_mxcsr(insn)};
    if (unit == UNIT_X87) {
        n->pointers =
            insn->mnemonic != ZYDIS_MNEMONIC_FFREE && insn->mnemonic != ZYDIS_MNEMONIC_FNOP;
        n->fop = (uint16_t)((insn->opcode & 7) << 8 | insn->raw.modrm.mod << 6 |
                            insn->raw.modrm.reg << 3 | insn->raw.modrm.rm);
    }
    if (u.memory) {
        n->size = (uint16_t)(u.memory->size / 8);
        if (n->size == 0 || n->size > BOUNCE_MAX)
            return false;
        n->reads = u.memory->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
        n->writes = u.memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        n->alignment = (uint8_t)alignment_of(d, unit, n->size);
        describe_mask(d, n, &u);
    }
    n->thunk = make_thunk(cpu->interp, d, &u, n);
    op->imm = (uint64_t)(uintptr_t)n;
    bool masked = n->element && (n->mask_k != NO_MASK || n->mask_vector != NO_MASK);
    op->fn = masked ? op_masked : u.memory ? op_memory : op_registers;
    return true;
}
