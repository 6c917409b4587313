/*
 * The interpreter's decoded form, and what every instruction family builds on.
 *
 * A block is a run of decoded instructions (struct op) within one guest-physical page, ended by
 * anything that may change RIP, the mode or the code that follows. An op's function executes it and
 * calls the next op's function in tail position (the compiler makes that a jump), so there is no
 * central dispatch loop.
 *
 * While a block runs, vcpu.rip holds the address of the block's first instruction, not the current
 * one: an op knows its own place (`offset`). Whatever needs the true RIP calls interp_sync() first.
 * The memory accessors and interp_raise() take the op and do so themselves.
 *
 * A fault leaves by longjmp from interp_raise(); so an op makes all its memory accesses and checks
 * before its first visible effect.
 */
#ifndef TRIVISOR_INTERP_OP_H
#define TRIVISOR_INTERP_OP_H

#include <Zydis/Zydis.h>
#include <setjmp.h>

#include "cpu/machine.h"
#include "cpu/paging.h"

struct op;
typedef void op_fn(struct vcpu *cpu, const struct op *op);

#define REG_NONE 16 /* no base or index register: vcpu.zero, which follows vcpu.gpr */
#define REG_IP   17 /* vcpu.rip: base of RIP-relative operands (disp then counts from the block) */

struct op {
    op_fn *fn;
    uint64_t imm; /* immediate, moffs address, or pointer to a family's own data */
    int64_t disp;
    uint16_t offset;  /* of this instruction from the block's first */
    uint8_t length;   /* of this instruction */
    uint8_t size;     /* operand size in bytes */
    uint8_t dst, src; /* register numbers; AH..BH are 4..7 with high8 set in `flags` */
    uint8_t base, index, scale_shift;
    uint8_t seg;       /* segment of the memory operand, after overrides */
    uint8_t addr_size; /* 2, 4, 8 */
    uint8_t flags;     /* OP_* */
    uint8_t aux, aux2; /* the family's own */
};

enum op_flag {
    OP_LOCK = 1,
    OP_REP = 2,
    OP_REPNE = 4,
    OP_DST_HIGH8 = 8,
    OP_SRC_HIGH8 = 16,
    OP_RIP_RELATIVE = 32, /* base is REG_IP; disp includes the instruction's place in the block */
    OP_FLAT = 64,         /* segment base is zero and limit unchecked: 64-bit mode, not FS or GS */
};

/* Mode bits that a decoded block depends on: its key beside the address. */
struct code_mode {
    uint8_t bits;       /* 16, 32 or 64: default operand and address size */
    uint8_t stack_bits; /* 16, 32 or 64 */
};

struct interp; /* block cache, TLB, statistics: exec.c */

/*
 * The engine's private part of a vCPU. exec.c owns it; the first fields are the contract with
 * exception.c.
 */
struct fault {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t address; /* for #PF: goes to CR2 when the fault is delivered */
};

struct interp_head {
    jmp_buf unwind;      /* where interp_raise() goes */
    struct fault fault;  /* what it recorded */
    uint64_t return_rip; /* what INT n pushes: vcpu.rip stays its own, for faults on the way in */
    int delivering;      /* vector whose delivery is under way, -1: none; for double faults */
};

/* ---- Decoding ---- */

struct decode {
    const struct vcpu *cpu;
    const ZydisDecodedInstruction *insn;
    const ZydisDecodedOperand *operands; /* insn->operand_count of them, hidden ones too */
    const uint8_t *bytes;
    struct code_mode mode;
    bool ends_block; /* out: the block must end after this op */
};

/*
 * A family's binder: if the instruction is one of its own, fill `op` (fn, imm and whatever else
 * differs from what decode.c filled from the first memory operand: base, index, disp, seg, sizes)
 * and return true. Binders are asked in order; an instruction that nobody takes raises #UD.
 */
typedef bool bind_fn(struct decode *d, struct op *op);
bind_fn
    bind_integer; /* moves, ALU, shifts, bits, multiply, BCD, conditional, stack, near branches */
bind_fn bind_string;
bind_fn bind_system; /* far transfers, segments, control registers, I/O, flags, HLT, ... */
bind_fn bind_vector; /* x87, MMX, SSE, AVX, AVX-512, XSAVE family */

/* Memory for a family's own data with the lifetime of the block being decoded. */
void *interp_block_alloc(struct vcpu *cpu, size_t size);

/* ---- Running ---- */

/* Call at the end of an op's function to go on with the block: NEXT(cpu, op); */
#define NEXT(cpu, op) return (op)[1].fn((cpu), (op) + 1)
/* Call at the end of an op that ends the block, after it has set cpu->rip: END_BLOCK(cpu, op);
 * It counts the block's instructions and returns to the main loop. */
void interp_end_block(struct vcpu *cpu, const struct op *op);
#define END_BLOCK(cpu, op) return interp_end_block((cpu), (op))

/* Address of the instruction after `op`, wrapped to the mode's instruction pointer size. Valid
 * while vcpu.rip is the block's start. */
uint64_t interp_next_rip(const struct vcpu *cpu, const struct op *op);
/* Make vcpu.rip the address of `op`'s own instruction. After it, op offsets no longer apply: only
 * for ops that end the block or raise. */
void interp_sync(struct vcpu *cpu, const struct op *op);

/* Raise an exception at `op` (a fault: RIP is the instruction's own). Does not return. */
_Noreturn void interp_raise(struct vcpu *cpu, const struct op *op, enum vector vector);
_Noreturn void interp_raise_error(struct vcpu *cpu, const struct op *op, enum vector vector,
                                  uint32_t error);
_Noreturn void interp_page_fault(struct vcpu *cpu, const struct op *op, uint64_t address,
                                 uint32_t error);
/*
 * The same where vcpu.rip is right already (op == NULL is allowed in all of the above: it means
 * that vcpu.rip has been synced).
 */

/* ---- Memory ---- */

/* Effective address of op's memory operand, without the segment base, wrapped to the address size.
 */
uint64_t op_effective_address(const struct vcpu *cpu, const struct op *op);
/*
 * Linear address of an access of `size` bytes at `seg`:`offset` after the segment checks of the
 * current mode (limit, rights, null, canonical); raises #GP or #SS. `write` tells the kind of
 * access.
 */
uint64_t interp_linear(struct vcpu *cpu, const struct op *op, unsigned seg, uint64_t offset,
                       unsigned size, bool write);
/*
 * Loads and stores at linear addresses with the current privilege, size 1, 2, 4, 8: through the
 * TLB, page crossing and MMIO included; data breakpoints and alignment checks (EFLAGS.AC) too. They
 * raise #PF, #AC. Stores to pages with code drop what was decoded from them.
 */
uint64_t interp_load(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size);
void interp_store(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                  uint64_t value);
/* Check that a store of `size` bytes would not fault (so that later steps cannot fail midway). */
void interp_probe_write(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size);
/* The same as implicit supervisor accesses: descriptor tables, TSS, inner-privilege stacks. */
uint64_t interp_load_system(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size);
void interp_store_system(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                         uint64_t value);
/* Any length (up to 4096), for vectors and state images: all pages are checked before the first
 * byte. */
void interp_load_bytes(struct vcpu *cpu, const struct op *op, uint64_t linear, void *buf,
                       unsigned len);
void interp_store_bytes(struct vcpu *cpu, const struct op *op, uint64_t linear, const void *buf,
                        unsigned len);
/*
 * Host address for `size` bytes of RAM at `linear` if they lie in one page and no side effect is
 * due (no MMIO, no watchpoint; for a write: no page that must hear of writes); else NULL. Raises
 * #PF where the access would. For atomics and vectors.
 */
void *interp_host(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                  bool write);

/* ---- TLB and cached code ---- */

void interp_flush_tlb(struct vcpu *cpu);                   /* everything, global pages too */
void interp_flush_page(struct vcpu *cpu, uint64_t linear); /* INVLPG */
/* MOV CR3: vcpu.cr3 is the new one. `keep`: what is cached for its PCID stays valid. */
void interp_switch_space(struct vcpu *cpu, bool keep);
/* INVPCID: all that is not global, of one PCID or of all. */
void interp_flush_pcid(struct vcpu *cpu, unsigned pcid);
void interp_flush_local(struct vcpu *cpu);
/*
 * CR0, CR3, CR4, EFER, PKRU, CPL, a segment, or AC or VM in the flags changed: drop what depends on
 * it and recompute cached modes. It compares with what it saw last: where the architecture flushes
 * though nothing changed (MOV CR3 with the same value), call interp_flush_tlb() too. The op that
 * calls it ends its block.
 */
void interp_mode_changed(struct vcpu *cpu);

/* ---- Exceptions and interrupts: exception.c ---- */

enum event_kind { EVENT_FAULT, EVENT_TRAP, EVENT_SOFT_INT, EVENT_INT1, EVENT_INTERRUPT, EVENT_NMI };
/*
 * Enter the handler of `vector` through the IDT or the real-mode vector table; vcpu.rip is what is
 * pushed (the caller set it: own address for faults, next for traps). May raise in its turn; the
 * main loop then makes a double fault of it where the SDM (vol. 3, 6.15) says so.
 */
void interp_deliver(struct vcpu *cpu, enum event_kind kind, uint8_t vector, bool has_error,
                    uint32_t error);

/*
 * The main loop calls this after interp_raise() has unwound: turn the recorded fault into the event
 * that is delivered (a double fault where one was under way; ACTIVITY_SHUTDOWN for a triple fault)
 * and deliver it.
 */
void interp_take_fault(struct vcpu *cpu);
/*
 * The main loop calls this after an instruction when vcpu.pending_db is set or TF was set as it
 * began: update DR6 and deliver #DB as a trap.
 */
void interp_take_debug_trap(struct vcpu *cpu);

#endif
