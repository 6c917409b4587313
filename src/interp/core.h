/*
 * The interpreter's private structures, and the fast paths that every instruction family inlines.
 *
 * Blocks. A block is found by its guest-physical address and the mode that it was decoded for. It
 * stays valid while the generation of its page (mem/physmem.h) is the one that it was decoded at.
 * On top of that lookup lies the jump cache, by virtual address: an entry is as good as an entry
 * of the instruction TLB, so whatever flushes the TLB changes `jump_key`, and with it every key.
 * The key's upper 16 bits are the mode and a generation; a canonical RIP has only 48 bits that
 * matter, so RIP xor jump_key is unique.
 *
 * TLB. Direct-mapped tables for each privilege and kind of access. A tag is the page's address with
 * a generation in its low 12 bits, so a flush is one assignment. A lookup compares the tag
 * with the page of the access's *last* byte: a page-crossing access therefore never hits. Pages
 * that need more than a plain access (MMIO, watchpoints) are never entered, and with alignment
 * checking on the tables of the user mode are replaced by one that is always empty.
 *
 * Stores look at the page's flags byte after the store. Where a store hits the page of the block
 * that runs, the next op of that (now invalid) block is overwritten with one that leaves it.
 */
#ifndef TRIVISOR_INTERP_CORE_H
#define TRIVISOR_INTERP_CORE_H

#include <string.h>

#include "cpu/engine.h"
#include "dev/lapic.h"
#include "interp/interp.h"
#include "interp/op.h"
#include "interp/rehearsal.h"

#define TLB_ENTRIES    2048
#define JUMP_ENTRIES   4096
#define HASH_ENTRIES   16384
#define ARENA_SIZE     (UINT64_C(24) << 20)
#define BLOCK_OPS      48
#define STACK_BUDGET   (256 << 10)
#define TLB_GENERATION 0xfffu

struct tlb_entry {
    uint64_t tag;
    uint64_t addend; /* host address - linear address */
};

struct tlb_write_entry {
    uint64_t tag;
    uint64_t addend;
    const uint8_t *flags; /* the page's byte in physmem.page_flags */
    uint64_t unused;
};

/* 2 MiB of a large page that is plain RAM: what the entries of its 4 KiB pages are filled from. */
#define LARGE_ENTRIES  64
#define LARGE_SHIFT    21
#define LARGE_MASK     (~((UINT64_C(1) << LARGE_SHIFT) - 1))

/* Pages of devices, which have no host address. */
#define DEVICE_ENTRIES 16

struct tlb_gpa_entry {
    uint64_t tag;
    uint64_t gpa;
};

/* What was flushed: all, one half of the address space, or the page at an address. */
enum flushed { FLUSHED_ALL, FLUSHED_LOW, FLUSHED_HIGH, FLUSHED_PAGE };

/* Which tables apply. */
enum tlb_context { TLB_SUPERVISOR, TLB_SUPERVISOR_AC, TLB_USER, TLB_CONTEXTS };

/* What a block depends on beside its bytes: struct code_mode, flatness, single steps, and whether
 * real or virtual-8086 mode leaves instructions out. */
typedef uint8_t mode_key;
#define BLOCK_DEAD 0xff /* mode of a block that was overwritten (interp_written): never found */

struct block {
    struct block *hash_next;
    const _Atomic uint32_t *gen_at; /* of the page in physmem.page_gen */
    uint32_t gen;
    uint16_t count;  /* instructions */
    uint16_t length; /* bytes of code */
    uint64_t gpa;
    uint8_t *bytes; /* what was decoded */
    /* An instruction that goes on in a second page. */
    const _Atomic uint32_t *gen2_at; /* NULL: none */
    uint32_t gen2;
    mode_key mode;
    uint8_t guards;    /* ops before the first instruction's */
    uint16_t op_count; /* all ops */
    uint16_t in_page;  /* bytes in the first page */
    uint64_t gpa2;
    struct op ops[];
};

struct jump_entry {
    uint64_t key;
    struct block *block;
};

struct interp_stats {
    uint64_t decoded, revived, lookups, jump_misses, arena_flushes;
    uint64_t tlb_fills, tlb_flushes, slow_accesses, smc_stops, faults, interrupts;
};

struct interp {
    struct interp_head head;

    /* Current mode, recomputed by interp_mode_changed(). */
    struct tlb_entry *rd;
    struct tlb_write_entry *wr;
    uint64_t tlb_tag[2]; /* generations, by the address's half: see tlb.c */
    uint64_t jump_key;
    uint64_t ip_mask;
    uint64_t stack_mask;
    uintptr_t stack_floor; /* below it, ops return to the main loop instead of calling on */
    uintptr_t chain_floor; /* the same, where blocks may follow one another */
    struct block *block;   /* that runs */
    struct tlb_gpa_entry *ex;
    struct code_mode mode;
    mode_key mode_key;
    uint8_t context;
    bool flat;       /* DS, ES, SS and CS have base 0 and limit 4 GiB (or 64-bit mode) */
    bool stack_flat; /* the same of SS alone */
    bool align_check;
    bool single;        /* blocks of one instruction: debugger or debug registers are in use */
    bool watching;      /* data breakpoints or watchpoints exist */
    bool flush_pending; /* the arena is full */
    uint16_t jump_gen;

    /* What the caches were filled under. */
    uint64_t seen_cr0, seen_cr3, seen_cr4, seen_efer, seen_cs_base;
    uint64_t seen_dr[8];
    uint32_t seen_cs_limit, seen_cs_attr, seen_pkru;

    /* A read-modify-write that cannot work in place works here. */
    uint64_t bounce[2];
    uint64_t bounce_linear;
    unsigned bounce_size;
    bool bounce_locked;
    uint8_t bounce_flag; /* never zero */

    /* A debugger's watchpoint was hit by the current instruction. */
    bool watch_hit;
    struct debug_point watch_point;

    /* Where large pages were entered: in the upper half, and in the lower one by PCID. */
    struct {
        uint64_t low, high;
    } large[1 + (1 << 12)];
    bool local_high;            /* the upper half has entries that are not global */
    bool global_low;            /* the lower half has had global ones */
    uint16_t generations;       /* given out so far */
    uint64_t wraps;             /* how often they started anew */
    uint16_t pcid_tag[1 << 12]; /* generation of each PCID's lower half; 0: nothing is kept */

    ZydisDecoder decoders[(ZYDIS_MACHINE_MODE_MAX_VALUE + 1) * 3]; /* by mode and stack width */
    uint32_t decoders_ready;

    struct rehearsal *rehearsal; /* NULL: this is for real */
    uint64_t string_limit; /* iterations until a repeated string instruction leaves; 0: many */

    /* The translator's: after a flush. */
    void (*flushed)(struct vcpu *cpu, enum flushed what, uint64_t linear);
    void (*memory_changed)(struct vcpu *cpu); /* other code caches are to go too; may be NULL */

    struct interp_stats stats;
    struct thunks *thunks; /* of the vector unit: native.h */
    uint8_t *arena;
    uint64_t arena_used;
    struct block *hash[HASH_ENTRIES];
    struct jump_entry jumps[JUMP_ENTRIES];
    struct tlb_entry read_tlb[TLB_CONTEXTS][TLB_ENTRIES];
    struct tlb_write_entry write_tlb[TLB_CONTEXTS][TLB_ENTRIES];
    struct tlb_gpa_entry exec_tlb[TLB_CONTEXTS][TLB_ENTRIES];
    struct tlb_entry large_tlb[TLB_CONTEXTS][2][LARGE_ENTRIES];       /* for reading, for writing */
    struct tlb_gpa_entry device_tlb[TLB_CONTEXTS][2][DEVICE_ENTRIES]; /* the same */
    struct tlb_entry empty_read[TLB_ENTRIES];
    struct tlb_write_entry empty_write[TLB_ENTRIES];
};

/* ---- block.c, decode.c, tlb.c, exec.c ---- */

/* The valid block at vcpu.rip in the current mode, decoded if need be. Raises what the fetch of its
 * first instruction does. */
struct block *interp_find_block(struct vcpu *cpu, bool single);
/* Decode one instruction into `op`. Returns its length, or 0 where `len` bytes are too few. */
unsigned interp_decode(struct vcpu *cpu, const uint8_t *bytes, unsigned len, struct op *op,
                       bool *ends_block);
void interp_flush_blocks(struct vcpu *cpu);
/* Make sure that one more instruction can be decoded: may drop all blocks, and with them what
 * interp_block_alloc() gave out (interp_stats.arena_flushes counts that). */
void interp_reserve(struct vcpu *cpu);
/* Decode without binding. */
enum decoded { DECODED, DECODED_SHORT, DECODED_INVALID };
enum decoded interp_decode_only(struct vcpu *cpu, const uint8_t *bytes, unsigned len,
                                ZydisDecodedInstruction *insn, ZydisDecodedOperand *operands);
/* Host address of the byte at `linear` for an access of the current privilege, by way of the TLB;
 * NULL where the access faults or needs more than a plain access. Raises nothing. */
uint8_t *interp_tlb_host(struct vcpu *cpu, uint64_t linear, bool write);

/*
 * For an engine with a loop of its own: interp_begin() before the first round, interp_unwound()
 * where interp_head.unwind brought it (true: leave with *exit), and interp_round() for one round:
 * deliver what is due, or run one decoded block (true: leave with *exit).
 */
void interp_begin(struct vcpu *cpu);
bool interp_unwound(struct vcpu *cpu, enum vcpu_exit *exit);
bool interp_round(struct vcpu *cpu, enum vcpu_exit *exit, struct tv_error *err);
/* ATT_MEMORY: forget all translations and code. Between blocks. */
void interp_memory_changed(struct vcpu *cpu);
/* Run the block at vcpu.rip where nothing is due before it (interp_round() would look). */
void interp_run_block(struct vcpu *cpu);
void interp_flush_jumps(struct vcpu *cpu);
/* Guest-physical address of the instruction byte at `linear`; raises #PF. */
uint64_t interp_fetch_translate(struct vcpu *cpu, uint64_t linear);
/* Linear address of vcpu.rip. */
uint64_t interp_linear_rip(const struct vcpu *cpu);
/* Has the page of `linear` a data breakpoint or watchpoint? */
bool interp_page_watched(const struct vcpu *cpu, uint64_t linear);

void interp_op_leave(struct vcpu *cpu, const struct op *op); /* go on at op->offset by lookup */
void interp_op_guard(struct vcpu *cpu, const struct op *op); /* check of a straddler's page */

/* Slow halves of the accessors below. */
uint64_t interp_load_slow(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size);
void interp_store_slow(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                       uint64_t value);
void interp_written(struct vcpu *cpu, const struct op *op, const void *host, unsigned len);
void *interp_rmw_slow(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size,
                      bool locked);
void interp_rmw_done(struct vcpu *cpu, const struct op *op, void *host, unsigned size);

/* ---- Going on with the next block ---- */

static inline struct jump_entry *jump_slot(struct interp *in, uint64_t rip)
{
    return &in->jumps[(rip ^ (rip >> 12)) & (JUMP_ENTRIES - 1)];
}

/*
 * Tail of every op that ends a block with nothing to look at but vcpu.attention: run the next block
 * straight away if it is at hand. The stack check is for builds without tail calls, and for ops
 * whose locals prevent them.
 */
static inline __attribute__((always_inline)) void interp_chain(struct vcpu *cpu)
{
    struct interp *in = cpu->interp;
    uint64_t rip = cpu->rip;
    struct jump_entry *slot = jump_slot(in, rip);
    uintptr_t sp;
    __asm__ volatile("mov %%rsp, %0" : "=r"(sp));
    if (UNLIKELY(slot->key != (rip ^ in->jump_key)) ||
        UNLIKELY(atomic_load_explicit(&cpu->attention, memory_order_relaxed)) ||
        UNLIKELY(sp < in->stack_floor))
        return;
    struct block *b = slot->block;
    if (UNLIKELY(atomic_load_explicit(b->gen_at, memory_order_relaxed) != b->gen))
        return;
    in->block = b;
    cpu->instructions += b->count;
    return b->ops[0].fn(cpu, b->ops);
}

/* CPL or EFLAGS.AC changed: the part of interp_mode_changed() that depends on them. */
static inline void interp_ring_changed(struct vcpu *cpu)
{
    struct interp *in = cpu->interp;
    bool ac = cpu->rflags & FLAG_AC;
    if (cpu->cpl == 3)
        in->context = TLB_USER;
    else
        in->context = (cpu->cr4 & CR4_SMAP) && ac ? TLB_SUPERVISOR_AC : TLB_SUPERVISOR;
    in->align_check = cpu->cpl == 3 && (cpu->cr0 & CR0_AM) && ac;
    in->rd = in->align_check ? in->empty_read : in->read_tlb[in->context];
    in->wr = in->align_check || in->rehearsal ? in->empty_write : in->write_tlb[in->context];
    in->ex = in->exec_tlb[in->context];
    in->jump_key = (in->jump_key & ~BIT64(56)) | (uint64_t)(cpu->cpl == 3) << 56;
}

static inline uint64_t next_rip(const struct vcpu *cpu, const struct op *op)
{
    return (cpu->rip + op->offset + op->length) & cpu->interp->ip_mask;
}

/* ---- Registers ---- */

static inline uint64_t *reg_file(const struct vcpu *cpu)
{
    return (uint64_t *)(uintptr_t)&cpu->gpr[0];
}

/* ---- Memory ---- */

#define TYPE1 uint8_t
#define TYPE2 uint16_t
#define TYPE4 uint32_t
#define TYPE8 uint64_t

static inline uint64_t host_load(const void *p, unsigned size)
{
    switch (size) {
    case 1: {
        uint8_t v;
        memcpy(&v, p, 1);
        return v;
    }
    case 2: {
        uint16_t v;
        memcpy(&v, p, 2);
        return v;
    }
    case 4: {
        uint32_t v;
        memcpy(&v, p, 4);
        return v;
    }
    default: {
        uint64_t v;
        memcpy(&v, p, 8);
        return v;
    }
    }
}

static inline void host_store(void *p, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        memcpy(p, &(uint8_t){(uint8_t)value}, 1);
        break;
    case 2:
        memcpy(p, &(uint16_t){(uint16_t)value}, 2);
        break;
    case 4:
        memcpy(p, &(uint32_t){(uint32_t)value}, 4);
        break;
    default:
        memcpy(p, &value, 8);
    }
}

/* Address spaces whose pages are at the same addresses do not meet in the same entries. */
static inline unsigned tlb_slot(const struct interp *in, uint64_t linear)
{
    return (unsigned)(linear >> PAGE_SHIFT ^ in->tlb_tag[linear >> 63] * 37) & (TLB_ENTRIES - 1);
}

/* The entry in large_tlb that may hold `linear`, and whether it does. */
static inline struct tlb_entry *large_entry(struct interp *in, unsigned context, bool write,
                                            uint64_t linear)
{
    unsigned slot = (unsigned)(linear >> LARGE_SHIFT ^ in->tlb_tag[linear >> 63] * 37);
    return &in->large_tlb[context][write][slot & (LARGE_ENTRIES - 1)];
}

/* The entry in device_tlb that may hold `linear`. */
static inline struct tlb_gpa_entry *device_entry(struct interp *in, unsigned context, bool write,
                                                 uint64_t linear)
{
    return &in->device_tlb[context][write][tlb_slot(in, linear) & (DEVICE_ENTRIES - 1)];
}

static inline bool large_hit(const struct interp *in, const struct tlb_entry *e, uint64_t linear)
{
    return e->tag == ((linear & LARGE_MASK) | in->tlb_tag[linear >> 63]);
}

static inline bool tlb_hit(const struct interp *in, uint64_t tag, uint64_t linear, unsigned size)
{
    return LIKELY(tag == (((linear + size - 1) & PAGE_MASK) | in->tlb_tag[linear >> 63]));
}

static inline __attribute__((always_inline)) uint64_t
mem_load(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size)
{
    struct interp *in = cpu->interp;
    const struct tlb_entry *e = &in->rd[tlb_slot(in, linear)];
    if (tlb_hit(in, e->tag, linear, size))
        return host_load((const void *)(uintptr_t)(linear + e->addend), size);
    return interp_load_slow(cpu, op, linear, size);
}

static inline __attribute__((always_inline)) void
mem_store(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size, uint64_t value)
{
    struct interp *in = cpu->interp;
    const struct tlb_write_entry *e = &in->wr[tlb_slot(in, linear)];
    if (tlb_hit(in, e->tag, linear, size)) {
        void *host = (void *)(uintptr_t)(linear + e->addend);
        host_store(host, size, value);
        if (UNLIKELY(*(const volatile uint8_t *)e->flags))
            interp_written(cpu, op, host, size);
        return;
    }
    interp_store_slow(cpu, op, linear, size, value);
}

/*
 * Read-modify-write: mem_rmw() gives the place to work on (guest memory, or a copy of it that
 * mem_rmw_done() writes back), both write-checked.
 */
struct rmw {
    void *host;
    const volatile uint8_t *flags;
};

static inline __attribute__((always_inline)) struct rmw
mem_rmw(struct vcpu *cpu, const struct op *op, uint64_t linear, unsigned size, bool locked)
{
    struct interp *in = cpu->interp;
    const struct tlb_write_entry *e = &in->wr[tlb_slot(in, linear)];
    if (tlb_hit(in, e->tag, linear, size))
        return (struct rmw){(void *)(uintptr_t)(linear + e->addend), e->flags};
    return (struct rmw){interp_rmw_slow(cpu, op, linear, size, locked), &in->bounce_flag};
}

static inline __attribute__((always_inline)) void
mem_rmw_done(struct vcpu *cpu, const struct op *op, struct rmw m, unsigned size)
{
    if (UNLIKELY(*m.flags))
        interp_rmw_done(cpu, op, m.host, size);
}

/* Address of the memory operand in 64-bit mode without FS or GS and with 64-bit addresses. */
static inline uint64_t addr_flat(const struct vcpu *cpu, const struct op *op)
{
    const uint64_t *r = reg_file(cpu);
    return r[op->base] + (r[op->index] << op->scale_shift) + (uint64_t)op->disp;
}

/* In any mode. */
static inline uint64_t addr_offset(const struct vcpu *cpu, const struct op *op)
{
    return addr_flat(cpu, op) & bytes_mask(op->addr_size);
}

static inline uint64_t addr_any(struct vcpu *cpu, const struct op *op, unsigned size, bool write)
{
    uint64_t offset = addr_offset(cpu, op);
    if (op->flags & OP_FLAT && op->addr_size != 2 &&
        LIKELY(cpu->interp->mode.bits == 64 || offset + size - 1 <= UINT32_MAX))
        return offset;
    return interp_linear(cpu, op, op->seg, offset, size, write);
}

/* ---- Binding ---- */

/* Is the memory operand one for addr_flat()? */
static inline bool is_fast(const struct decode *d, const struct op *op)
{
    return d->mode.bits == 64 && (op->flags & OP_FLAT) && op->addr_size == 8;
}

/* A general-purpose register operand: its number, and the shift that selects AH..BH. */
bool bind_reg(ZydisRegister reg, uint8_t *number, uint8_t *shift);

/* Forms of two-operand instructions. */
enum form { FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORM_OTHER };
/* Fill dst, src, imm, aux (shift of dst), aux2 (of src) and size from the first two operands. */
enum form bind_two(const struct decode *d, struct op *op);
/* The same for the first operand alone: FORM_RR or FORM_MR. */
enum form bind_one(const struct decode *d, struct op *op);
/* Sign-extended immediate operand `i`. */
uint64_t bind_imm(const struct decode *d, unsigned i);
bool bind_has_lock(const struct decode *d);

bind_fn bind_mov, bind_alu, bind_shift, bind_muldiv, bind_bits, bind_bcd, bind_atomic, bind_stack,
    bind_branch, bind_misc;

/* XCHG of two registers, which 90 with REX.B is even after F3. */
op_fn *atomic_xchg_register(unsigned size);

static inline unsigned size_log2(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

/* Register operands, for ops that bind_one() and bind_two() filled. */
static inline __attribute__((always_inline)) uint64_t reg_get(const struct vcpu *cpu, unsigned reg,
                                                              unsigned shift, unsigned size)
{
    return size == 1 ? (uint8_t)(reg_file(cpu)[reg] >> shift)
                     : reg_file(cpu)[reg] & bytes_mask(size);
}

static inline __attribute__((always_inline)) void
reg_set(struct vcpu *cpu, unsigned reg, unsigned shift, unsigned size, uint64_t value)
{
    uint64_t *r = &reg_file(cpu)[reg];
    switch (size) {
    case 1:
        *r = (*r & ~(UINT64_C(0xff) << shift)) | (uint64_t)(uint8_t)value << shift;
        break;
    case 2:
        *r = (*r & ~UINT64_C(0xffff)) | (uint16_t)value;
        break;
    case 4:
        *r = (uint32_t)value;
        break;
    default:
        *r = value;
    }
}

static inline __attribute__((always_inline)) uint64_t get_dst(const struct vcpu *cpu,
                                                              const struct op *op, unsigned size)
{
    return reg_get(cpu, op->dst, op->aux, size);
}

static inline __attribute__((always_inline)) uint64_t get_src(const struct vcpu *cpu,
                                                              const struct op *op, unsigned size)
{
    return reg_get(cpu, op->src, op->aux2, size);
}

static inline __attribute__((always_inline)) void set_dst(struct vcpu *cpu, const struct op *op,
                                                          unsigned size, uint64_t value)
{
    reg_set(cpu, op->dst, op->aux, size, value);
}

static inline __attribute__((always_inline)) void set_src(struct vcpu *cpu, const struct op *op,
                                                          unsigned size, uint64_t value)
{
    reg_set(cpu, op->src, op->aux2, size, value);
}

/* Host flags as LAHF and SETO leave them in AX: to vcpu.cc. */
static inline uint32_t flags_from_ax(uint32_t ax)
{
    return ((ax >> 8) & 0xd5) | ((ax & 0xff) << 11);
}
#define CAPTURE_FLAGS "\n\tlahf\n\tseto %%al"

/* The inverse: what LOAD_FLAGS needs in AX to make the host's flags those of vcpu.cc. */
static inline uint32_t ax_from_flags(uint32_t cc)
{
    return (cc & 0xff) << 8 | ((cc >> 11) & 1);
}
#define LOAD_FLAGS                      "addb $0x7f, %%al\n\tsahf\n\t"

/* Address macros that op templates take as a parameter: F for is_fast() operands, A for any. */
#define ADDRESS_F(cpu, op, size, write) addr_flat(cpu, op)
#define ADDRESS_A(cpu, op, size, write) addr_any(cpu, op, size, write)

#endif
