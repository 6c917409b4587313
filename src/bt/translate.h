/* What the parts of the translator share while they make one block. */
#ifndef TRIVISOR_BT_TRANSLATE_H
#define TRIVISOR_BT_TRANSLATE_H

#include "bt/host.h"
#include "interp/native.h"

enum insn_kind {
    INSN_CALLOUT, /* the interpreter executes it */
    INSN_NOP,
    INSN_PAUSE,   /* where somebody may be waited for */
    INSN_GENERIC, /* the same instruction on host registers and memory */
    INSN_VECTOR,
    INSN_SYSTEM,
    INSN_SEGMENT,      /* loads or pushes a segment register */
    INSN_ACCESS_CHECK, /* STAC, CLAC */
    INSN_LEA,
    INSN_PUSH,
    INSN_POP,
    INSN_LEAVE,
    INSN_JCC,
    INSN_LOOP, /* LOOP, LOOPE, LOOPNE, JCXZ and its like */
    INSN_JMP,
    INSN_CALL,
    INSN_JMP_INDIRECT,
    INSN_CALL_INDIRECT,
    INSN_RET,
    INSN_STRING,      /* REP STOS, REP MOVS */
    INSN_STRING_ONCE, /* MOVS, CMPS, STOS, LODS, SCAS without a prefix */
};

struct insn {
    ZydisDecodedInstruction z;
    ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
    const uint8_t *bytes;
    uint64_t target;        /* of a direct branch */
    uint32_t reads, writes; /* arithmetic flags: used; overwritten for certain */
    uint32_t live_before, live_after;
    uint16_t offset;
    uint8_t kind;
    bool access;  /* has an inline memory access, whose check clobbers EFLAGS */
    bool touches; /* writes or reads flags at all */
    bool ends;    /* the block */
    bool pushes;
    bool bit_string; /* its bit offset reaches beyond the operand in memory */
    bool straddles;  /* goes on in the next page */
    bool may_fault;  /* the host instruction may raise a signal */
    int8_t mem;      /* explicit memory operand, -1: none */
    /* Guest registers whose shared check covers the operand, and the access to the stack. */
    uint8_t shared_base, shared_stack;
    uint8_t width;   /* of what goes to the stack, or to RIP */
    uint8_t swapped; /* the register whose second byte is an operand beside memory, plus one */
    uint8_t pointer; /* of a string instruction: the guest register whose access is checked */
    /* INSN_VECTOR: */
    uint8_t vectors; /* enum bt_vectors */
    uint8_t size;    /* of the memory operand */
    bool store, masked;
    bool x87, pointers;
    struct thunk_key key;
};

/* Where the guest's flags are. */
enum { FLAGS_LIVE = 1, FLAGS_SAVED = 2 };

/* Code out of line, emitted behind the block. */
struct cold {
    enum {
        COLD_EXIT,
        COLD_SLOW,
        COLD_SLOT,
        COLD_ATTENTION,
        COLD_INDIRECT,
        COLD_CALLOUT,
        COLD_INSTEAD,
        COLD_VECTORS,
        COLD_X87,
        COLD_SHARE
    } kind;
    uint8_t *jump; /* displacement to fill in */
    struct bt_exit *exit;
    struct bt_site *site;
    uint8_t *retry, *next; /* where to go on with the instruction; behind it */
    uint64_t rip;
    uint8_t slot, share;
    uint8_t address; /* register with the linear address */
    bool flags_live; /* wanted so at `next` */
};

/* A range of addresses around a register that is checked once. */
#define SHARES_MAX 3
struct share {
    uint8_t guest, slot;
    bool write;
    int32_t low; /* from the register's value at the block's start */
    uint16_t length;
};

struct translation_state {
    struct vcpu *cpu;
    struct bt *bt;
    struct bt_block *block;
    struct emit e;
    uint64_t rip;
    struct bt_page *tail;     /* where the block's only instruction goes on */
    unsigned bits;            /* 64, 32 or 16 */
    unsigned stack_bits;      /* the same of the stack */
    bool segmented;           /* accesses look at segments; not with BT_FLAT in 32-bit code */
    uint8_t segments_checked; /* in this block: bits */
    unsigned context;
    unsigned flags;  /* FLAGS_* */
    uint8_t vectors; /* enum bt_vectors: what the block needs */
    bool vectors_checked, x87_checked;
    uint8_t base_slots[17]; /* by base register: the slot of accesses off it; 0: none yet */
    struct share shares[SHARES_MAX];
    unsigned share_count;
    uint8_t t1_share; /* T1 holds the addend of this slot, plus one; 0: of none */
    unsigned fault_count;
    struct bt_fault_point faults[BLOCK_INSNS * 2];
    const uint8_t *code; /* where the block's begins */
    unsigned reloc_count;
    struct bt_reloc relocs[BLOCK_INSNS * 8];
    unsigned count, cold_count;
    unsigned cold_open; /* the first cold of the instruction under way */
    struct insn insns[BLOCK_INSNS];
    struct cold colds[BLOCK_INSNS * 8];
};

static inline bool is_class(const ZydisDecodedOperand *o, ZydisRegisterClass class)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o->reg.value) == class;
}

/* The guest register of an operand that is a general one. */
static inline unsigned general_register(const ZydisDecodedOperand *o)
{
    uint8_t number = 0, shift;
    bind_reg(o->reg.value, &number, &shift);
    return number;
}

/* relocate.c: what depends on where the block is, noted so that it can be copied */

/* Load a linear address that moves with the guest's code. */
void bt_put_rip(struct translation_state *t, unsigned reg, uint64_t rip);
/* Load a site's address, or'ed with `bits` (below 4). */
void bt_put_site(struct translation_state *t, unsigned reg, const struct bt_site *site,
                 unsigned bits);
/* Make a jump or call go to a stub. */
void bt_put_to_stub(struct translation_state *t, uint8_t *displacement, const uint8_t *stub);
/* The 32 bits just emitted: a site's offset in bt.data. */
void bt_note_site_offset(struct translation_state *t);

/* Does the instruction branch or not? */
static inline bool is_conditional(const struct insn *in)
{
    return in->kind == INSN_JCC || in->kind == INSN_LOOP;
}

/* Does it keep interrupts away until the next instruction is done? */
static inline bool casts_shadow(const struct insn *in)
{
    return (in->kind == INSN_SYSTEM && in->z.mnemonic == ZYDIS_MNEMONIC_STI) ||
           (in->kind == INSN_SEGMENT && in->o[0].reg.value == ZYDIS_REGISTER_SS &&
            in->z.mnemonic != ZYDIS_MNEMONIC_PUSH);
}

/* classify.c */
void bt_classify(struct translation_state *t, struct insn *in);
/* An address that bt_address() can compute. */
bool bt_good_address(const struct translation_state *t, const struct insn *in,
                     const ZydisDecodedOperand *o);

/* access.c: guest memory */

/* EFLAGS are about to be clobbered: save them if anything in `live` is wanted later. */
void bt_flags_clobber(struct translation_state *t, uint32_t live);
/* The next host instruction uses or merges flags. */
void bt_flags_need(struct translation_state *t);
struct bt_site *bt_site_new(struct translation_state *t, const struct insn *in);
/* The register that holds the linear address of the instruction's memory operand, of `size` bytes:
 * T0, or a guest's. Clobbers T0, T1, T2; flags only where a segment base is added. */
unsigned bt_address(struct translation_state *t, const struct insn *in, unsigned size);
/* The same of the offset in its segment, without flags and T2. */
unsigned bt_offset(struct translation_state *t, const struct insn *in);
/* Check an access of `size` bytes at the linear address in `reg`, the instruction's memory operand
 * or (`stack`) something on the stack. Returns the host operand; T1 holds the addend, T2 is free
 * again. */
struct operand bt_check(struct translation_state *t, const struct insn *in, unsigned reg,
                        unsigned size, bool write, bool stack);

/* What an access does when its check fails. Behind it comes what to do when the interpreter has
 * executed the instruction. */
void bt_emit_cold_access(struct translation_state *t, const struct cold *c);

/* Compare with a slot: the jump that is taken unless it is for the page of all `size` bytes; and
 * load its addend to T1. */
uint8_t *bt_put_slot_compare(struct translation_state *t, bool write, unsigned slot, unsigned reg,
                             unsigned size);
void bt_put_slot_addend(struct translation_state *t, bool write, unsigned slot);
void bt_emit_cold_share(struct translation_state *t, const struct cold *c);

/* segments.c */

/* With BT_SEGMENTS: make the offset in T0, of 16 or 32 `bits`, a linear address. Where the segment
 * does not allow the access the interpreter does it. Clobbers T1, T2, flags. */
void bt_put_segment(struct translation_state *t, const struct insn *in, unsigned number,
                    unsigned size, unsigned bits);
static inline int64_t bt_segment_at(unsigned number)
{
    return VCPU_AT(seg) + (int64_t)(number * sizeof(struct segment));
}
bool bt_classify_segment(const struct translation_state *t, struct insn *in);
void bt_emit_segment(struct translation_state *t, struct insn *in);

/* share.c */
void bt_find_shares(struct translation_state *t);
const struct share *bt_share_of(const struct translation_state *t, unsigned guest);
void bt_emit_share_checks(struct translation_state *t);
/* The host operand at `disp` from a register whose range was checked. */
struct operand bt_shared(struct translation_state *t, unsigned guest, int32_t disp);

/* system.c */
bool bt_classify_system(const struct translation_state *t, struct insn *in);
void bt_emit_system(struct translation_state *t, struct insn *in);

/* string.c */
bool bt_classify_string(const struct translation_state *t, struct insn *in);
static inline bool is_string(const struct insn *in)
{
    return in->kind == INSN_STRING || in->kind == INSN_STRING_ONCE;
}
void bt_emit_string(struct translation_state *t, struct insn *in);
void bt_emit_string_once(struct translation_state *t, struct insn *in);

/* insns.c */
void bt_emit_insn(struct translation_state *t, struct insn *in);
/* The next host instruction is the guest's, and may raise a signal. */
void bt_fault_point(struct translation_state *t, const struct insn *in);
/* The explicit memory operand, checked here or at the block's start. */
struct operand bt_memory_operand(struct translation_state *t, const struct insn *in, unsigned size,
                                 bool write);

/* Load the lower `bits` of a register to a scratch one, and zeroes above them. */
static inline void bt_put_extended(struct emit *e, unsigned bits, unsigned to, struct operand from)
{
    if (bits != 16) {
        put_op(e, bits == 64, 0x8b, to, from);
        return;
    }
    if (from.kind == AT_GS)
        put8(e, 0x65);
    put8(e, 0x40 | rex_bits(to, from)); /* MOVZX */
    put8(e, 0x0f);
    put8(e, 0xb7);
    put_modrm(e, to, from);
}

/* An instruction pointer as it wraps around. */
static inline uint64_t bt_ip(const struct translation_state *t, uint64_t ip)
{
    return t->bits == 64 ? ip : t->bits == 32 ? (uint32_t)ip : (uint16_t)ip;
}
static inline uint64_t bt_next_ip(const struct translation_state *t, const struct insn *in)
{
    return bt_ip(t, t->rip + in->offset + in->z.length);
}

/* flow.c: the stack, and what leaves the block */
void bt_emit_flow(struct translation_state *t, struct insn *in);
void bt_emit_push_target(struct translation_state *t, struct insn *in); /* push bt.target */
/* Load what is on top of the stack; move RSP behind it. Between them the instruction may be left to
 * the interpreter. */
void bt_emit_pop_value(struct translation_state *t, struct insn *in, unsigned to);
void bt_emit_pop_done(struct translation_state *t, const struct insn *in);
void bt_emit_exit(struct translation_state *t, uint8_t *jump, uint64_t target);

/* translate.c */
/* `jump` leaves translated code before `in`. Flags are saved, or dead. */
void bt_emit_leave(struct translation_state *t, uint8_t *jump, const struct insn *in);

#endif
