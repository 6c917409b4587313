/*
 * Native execution of the instructions that compute with vector, mask, MMX and x87 registers.
 *
 * The host is of the guest's own architecture, so its execution units are the reference: for each
 * distinct instruction a small function (a thunk) is generated that loads the guest's registers
 * that the instruction names, executes it with its memory operand redirected to [RSI] and a
 * general-purpose operand to RAX, and stores the registers back. Everything that a processor checks
 * before it executes (control registers, segments, pages, alignment) native.c checks in C.
 */
#ifndef TRIVISOR_INTERP_NATIVE_H
#define TRIVISOR_INTERP_NATIVE_H

#include "interp/vector.h"
#include "util/error.h"

/* Runs the instruction. 0, or the signal that it raised; then no register has changed but MXCSR. */
typedef int thunk_fn(struct vcpu *cpu, void *memory);

#define GPR_NONE 16

/* All that a thunk depends on, so that equal instructions share one. */
struct thunk_key {
    uint8_t insn[16]; /* the instruction as the host executes it */
    uint8_t length;
    uint8_t gpr;  /* explicit general-purpose operand that RAX stands for; GPR_NONE */
    uint8_t uses; /* enum thunk_uses */
    uint8_t size; /* of the vector registers: 16, 32, 64 */
    uint8_t gpr_read, gpr_write; /* implicit ones, bits RAX, RCX, RDX; bit 7: the explicit one */
    uint8_t k_read, k_write;
    uint32_t read, write; /* vector registers */
};

enum thunk_uses {
    THUNK_X87 = 1,   /* the whole x87 state, MMX included */
    THUNK_MXCSR = 2, /* computes under the guest's MXCSR */
    THUNK_FLAGS_IN = 4,
    THUNK_FLAGS_OUT = 8,
    THUNK_EXTENDS = 16, /* writes zeros above the vector length (VEX, EVEX) */
};

#define GPR_EXPLICIT 0x80

/* A vCPU's thunks. */
struct thunks;
struct thunks *thunks_create(struct tv_error *err);
void thunks_free(struct thunks *t);

/* The thunk for `key`, generated if need be. Older thunks may become invalid: see generation. */
thunk_fn *thunks_get(struct thunks *t, const struct thunk_key *key);
/* Changes when all thunks given out so far have become invalid. */
uint32_t thunks_generation(const struct thunks *t);
/* Tell the signal handler that this thread is about to run thunks of `t`. */
void thunks_enter(const struct thunks *t);

/* Has this host the registers that the instruction needs? */
enum host_vector { HOST_SSE, HOST_AVX, HOST_AVX512 };
enum host_vector thunks_host(void);

/* An instruction that does nothing but run its thunk on registers and at most one operand of RAM.
 */
struct native_form {
    const struct thunk_key *key;
    uint8_t unit; /* enum vector_unit */
    uint8_t size; /* of the memory operand, 0: none */
    bool store;
    bool masked;   /* what the mask leaves out is not accessed */
    bool pointers; /* x87: sets FIP, FDP and FOP */
};
/* False: more than that has to be done. */
bool native_describe(const struct op *op, struct native_form *form);

/* Let `handler` see signals raised on this thread first: true where it has dealt with one. */
typedef bool signal_handler(int number, void *ucontext);
void thunks_set_handler(signal_handler *handler);

bind_fn bind_vector_special; /* vector_special.c */

/* native_rewrite.c */
struct rewrite {
    const struct decode *d;
    bool memory, gpr_reg, gpr_rm; /* which fields of ModRM to replace */
    bool ignores_w;               /* in VEX and EVEX, outside 64-bit mode */
    uint8_t *out;
};
/* Fill insn and length. False: an encoding that no host has. */
bool native_rewrite(struct rewrite *r, struct thunk_key *key);

/* What an instruction needs of the control registers. */
enum vector_unit { UNIT_SSE, UNIT_AVX, UNIT_AVX512, UNIT_MMX, UNIT_MMX_SSE, UNIT_X87 };

/* Raise what is due before the instruction: #UD, #NM, #MF. */
void vector_check_unit_slow(struct vcpu *cpu, const struct op *op, enum vector_unit unit);

static inline void vector_check_unit(struct vcpu *cpu, const struct op *op, enum vector_unit unit)
{
    static const struct {
        uint64_t cr0, cr4, xcr0;
        uint16_t fsw;
    } needs[] = {
        [UNIT_SSE] = {CR0_EM | CR0_TS, CR4_OSFXSR, 0, 0},
        [UNIT_AVX] = {CR0_TS, CR4_OSXSAVE, 6, 0},
        [UNIT_AVX512] = {CR0_TS, CR4_OSXSAVE, 0xe6, 0},
        [UNIT_MMX] = {CR0_EM | CR0_TS, 0, 0, 0x80},
        [UNIT_MMX_SSE] = {CR0_EM | CR0_TS, CR4_OSFXSR, 0, 0x80},
        [UNIT_X87] = {CR0_EM | CR0_TS, 0, 0, 0x80},
    };
    if (LIKELY(!(cpu->cr0 & needs[unit].cr0) && !(~cpu->cr4 & needs[unit].cr4) &&
               !(~cpu->xcr0 & needs[unit].xcr0) && !(cpu->fpu.fx.fsw & needs[unit].fsw)))
        return;
    vector_check_unit_slow(cpu, op, unit);
}

/* Number of a vector, mask or MMX register. */
static inline unsigned vector_register(ZydisRegister reg)
{
    return (unsigned)ZydisRegisterGetId(reg);
}

#endif
