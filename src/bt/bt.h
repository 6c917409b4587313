/*
 * The binary translator's structures. docs/translator.md tells how the parts work together.
 *
 * A vCPU's translator state (struct bt) is mapped within 2 GiB of its struct vcpu. While translated
 * code runs, the GS base is the address of struct vcpu, and both are addressed with 32-bit
 * displacements from it.
 */
#ifndef TRIVISOR_BT_BT_H
#define TRIVISOR_BT_BT_H

#include "interp/core.h"

#define L1_ENTRIES      512
#define SLOTS           128
#define JUMP_CACHE      4096
#define PAGE_ID_ENTRIES 2048
#define CODE_PAGE_BITS  8192
#define WRITE_PAGE_BITS 32768
#define MODES_MAX       16
#define BLOCK_HASH      262144
#define PAGE_HASH       8192
#define SEGMENTS_MAX    32
#define BLOCK_INSNS     64
#define TEMPLATES       262144
#define SPACES          16
#define SPACE_PAGES     128
#define CODE_SEGMENTS   1024

/* Entry of the first-level TLB. */
struct l1_entry {
    uint64_t tag;    /* linear address of the page */
    uint64_t addend; /* host address - linear address */
};

struct jump_cache_entry {
    uint64_t key; /* RIP xor one of bt.jump_keys */
    const void *code;
};

/* What a block was translated for: bits of its mode. */
enum bt_mode {
    BT_64 = 1,   /* 64-bit mode; else flat 32-bit code, or BT_SEGMENTS */
    BT_USER = 2, /* CPL 3 */
    BT_AC = 4,   /* supervisor with SMAP on and EFLAGS.AC set */
    BT_SSE = 8,  /* CR0, CR4 and XCR0 let these units run */
    BT_AVX = 16,
    BT_AVX512 = 32,
    BT_X87 = 64,
    BT_SMAP = 128,     /* supervisor with SMAP on: AC matters */
    BT_SEGMENTS = 256, /* not all segments are flat: CS has a base and a limit */
    BT_FLAT = 512,     /* with BT_SEGMENTS: the others are */
    BT_16 = 1024,      /* with BT_SEGMENTS: code of 16 bits */
    BT_REAL = 2048,    /* with BT_SEGMENTS: real or virtual-8086 mode */
    BT_USUAL = 4096,   /* with BT_REAL: segments have the attributes that real mode gives them, and
                        * limits   of 64 KiB or more */
    BT_OUTER = 8192,   /* CPL 1 or 2: supervisor to pages, but not privileged */
    BT_MIXED = 16384,  /* with BT_SEGMENTS: the stack has the other width, 32 or 16 bits */
    BT_VALID = 32768,  /* translated code can run at all */
};

/* Of modes whose CPL is not 0. */
#define BT_UNPRIVILEGED (BT_USER | BT_OUTER)

/* Optimizations that can be switched off: names in options.c. */
enum bt_option {
    BT_OFF_FLAGS = 1,    /* flags that nobody reads are not kept for faults */
    BT_OFF_LINKS = 2,    /* blocks jump to each other */
    BT_OFF_JUMPS = 4,    /* indirect branches look up their target inline */
    BT_OFF_BLOCKS = 8,   /* blocks of more than one instruction */
    BT_OFF_INLINE = 16,  /* instructions other than call-outs */
    BT_OFF_SHARE = 32,   /* accesses that share a check */
    BT_OFF_RETURNS = 64, /* RET as the host's RET */
    BT_OFF_DIRECT = 128, /* ring-3 code that computes runs directly */
    BT_OFF_COPY = 256,   /* code that is mapped elsewhere, too, is translated once */
};

/* Which vector registers are live in the host's: the first 16's low halves; all of the first 16;
 * all, and the mask registers. */
enum bt_vectors { VECTORS_SAVED, VECTORS_SSE, VECTORS_AVX, VECTORS_AVX512 };

struct bt_block;

/* A page of code, as mapped: all blocks that were made from it. */
struct bt_page {
    struct bt_page *hash_next, *physical_next;
    uint64_t linear, gpa;
    uint64_t index; /* of the page in physmem.page_gen */
    uint32_t id;    /* never zero */
    uint32_t gen;   /* that the blocks are valid for */
    struct bt_block *blocks;
    struct bt_block *tails; /* blocks whose only instruction starts in the page before */
    /* Writes beside its blocks' bytes, and how many of them it keeps its blocks for: see
     * bt_page_written(). */
    uint32_t beside, patience;
};

/* A jump out of a block to a known address. */
struct bt_exit {
    struct bt_block *from, *to; /* to: linked with, NULL: not */
    struct bt_exit *next;       /* in the target's list */
    uint64_t target;
    uint8_t *jump;   /* the 32-bit displacement of the jump (write mapping) */
    uint8_t *stub;   /* where it goes while not linked (write mapping) */
    bool flags_live; /* flags are in EFLAGS */
    bool crosses;    /* into another page */
    bool plain;      /* to the plain translation of the same block */
    uint16_t mode;   /* there */
};

/* An instruction that may call out of translated code. */
struct bt_site {
    struct bt_block *block;
    struct bt_op *op; /* decoded for the interpreter, when first needed */
    uint16_t offset;  /* in the block */
    uint16_t mnemonic;
    uint8_t length;
    uint8_t size; /* of the access that may miss; 0: a plain call-out */
    bool write;
    bool masked;     /* may access less than that */
    uint8_t segment; /* of the operand that FDP is about */
    bool straddles;  /* its bytes go on in another page: only the interpreter knows how to find them
                      */
    bool ends;       /* leave the block after it */
    int32_t undo;    /* an indirect branch moved RSP by this much before its target was looked at */
};

struct bt_op {
    struct op ops[2];
    uint8_t tail[15]; /* of an instruction that goes on in another page: its bytes there */
    uint64_t flushes; /* interp_stats.arena_flushes when decoded */
};

/* A host instruction that may raise a signal. */
struct bt_fault_point {
    const uint8_t *code; /* executable address */
    struct bt_site *site;
    bool flags_live;
};

/* What a block's code holds that depends on where the block or the guest's code is. */
struct bt_reloc {
    uint16_t at; /* in the block's code */
    uint16_t kind;
};

enum bt_reloc_kind {
    RELOC_RIP,         /* 64 bits: a linear address that moves with the guest's code */
    RELOC_SITE,        /* 64 bits: of a site of the block; the lowest two are no part of it */
    RELOC_SITE_OFFSET, /* 32 bits: from bt.data */
    RELOC_STUB,        /* 32-bit displacement to code outside of the block */
};

struct bt_block {
    struct bt_block *hash_next, *page_next, *segment_next;
    struct bt_page *page;
    struct bt_page *tail; /* where its only instruction goes on; NULL: it is in one page */
    struct bt_block *tail_next;
    struct bt_exit *in; /* linked with this block */
    uint64_t rip;
    uint32_t cs_base, cs_limit; /* of its code segment; 0 and 4 GiB without BT_SEGMENTS */
    const uint8_t *bytes;
    const uint8_t *entry_live, *entry_saved; /* executable; flags in EFLAGS, in bt.flags */
    const uint8_t *code_end;
    struct bt_exit *exits;
    struct bt_fault_point *faults;
    struct bt_reloc *relocs;
    uint32_t data_size; /* this structure and all that lies behind it for the block */
    uint16_t exit_count, fault_count, reloc_count;
    uint16_t length; /* bytes of guest code */
    uint16_t count;  /* instructions */
    uint16_t mode;
    uint8_t vectors; /* enum bt_vectors: what its instructions need */
    bool x87;
    bool plain; /* shares no checks */
    bool dead;
    bool fixed;               /* it cannot be copied to another address */
    struct bt_shadow *shadow; /* for --verify; valid while shadow_flushes is */
    uint64_t shadow_flushes;  /* interp_stats.arena_flushes when made */
    uint64_t placed;          /* bt_stats.l1_flushes when it got its address */
};

/* An address space that may be loaded again without a flush: the generation of its entries in the
 * jump cache, and what page_id held. */
struct bt_space {
    uint64_t tag; /* interp.tlb_tag[0]; 0: of none */
    uint64_t used;
    uint16_t gen, count;
    struct {
        uint16_t entry;
        uint32_t id;
    } pages[SPACE_PAGES];
};

/* A part of the cache: filled from one end, evicted as a whole. */
struct bt_segment {
    uint32_t code_used;
    uint32_t data_used;
    struct bt_block *blocks; /* dead ones, too */
};

struct bt_stats {
    uint64_t blocks, instructions, code_bytes, links, unlinks, invalidated, evictions, lookups,
        jump_misses, fills, slow_ops, callouts, straddlers, interp_rounds, faults, l1_flushes,
        entries, page_checks, quick, copies, moves;
    uint64_t translate_ticks, reuse_ticks;              /* of the host's TSC */
    uint64_t blocks_run, accesses;                      /* by translated code, if machine.count */
    uint64_t by_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* call-outs */
};

/* With BT_SEGMENTS: where code is. */
struct bt_code_segment {
    uint32_t base, limit;
    uint16_t number; /* in keys of the jump cache; 0: of flat code */
};

struct bt {
    /* Used by translated code. */
    uint64_t flags;    /* guest flags as LAHF and SETO AL leave them in AX */
    uint64_t host_rsp; /* C's stack; translated code has one of its own, for guest CALL and RET */
    uint64_t code_rsp; /* of that stack, while C runs */
    uint64_t code_top; /* of it: holds the address of code that looks up returns */
    uint32_t ret_site; /* last RET: its site's offset in `data` */
    uint64_t linear;   /* of the access that missed */
    uint64_t jump_keys[2]; /* of code for EFLAGS.AC clear, or of no matter; and set */
    uint64_t target;       /* of an indirect call, while its return address is pushed */
    uint64_t count;        /* of a string instruction, while its addresses are checked */
    struct vcpu *cpu;
    int (*slow)(struct vcpu *cpu, struct bt_site *site);
    int (*callout)(struct vcpu *cpu, struct bt_site *site);
    const void *(*callout_end)(struct vcpu *cpu, struct bt_site *site);
    uint64_t tsc_delta; /* guest TSC - host TSC */
    void (*purge_writes)(struct vcpu *cpu);
    /* This thread is in translated code; another wants it to forget where it may store. Each sets
     * its own and then reads the other; the one that asks has a barrier run on both sides. */
    _Atomic bool in_code, purge;
    /* Ring 3 of this address space is for direct execution: leave translated code when it is
     * returned to. */
    bool leave_for_user;
    bool x87_live;       /* so are the x87 registers */
    uint8_t vector_live; /* enum bt_vectors: the guest's vector registers are the host's */
    uint32_t host_mxcsr;
    struct bt_site *x87_last;      /* that set the x87 pointers; NULL: they are in struct vcpu */
    struct bt_site *x87_data_site; /* that did so with an operand in memory, at x87_data (linear) */
    uint64_t x87_data;
    void (*load_x87)(struct vcpu *cpu);
    uint32_t page_id[2][PAGE_ID_ENTRIES]; /* by privilege: what is mapped there */
    struct l1_entry slots[TLB_CONTEXTS][2][SLOTS];
    struct l1_entry l1[TLB_CONTEXTS][2][L1_ENTRIES];
    struct jump_cache_entry jumps[JUMP_CACHE];

    /* Not used by it. */
    int64_t offset;            /* of this structure from struct vcpu */
    uint64_t empty_tag;        /* of unused entries: random, not canonical */
    struct bt_code_segment cs; /* that bt.mode goes with */
    unsigned next_slot, next_share;
    uint16_t mode;
    bool log; /* each block is logged: none runs here */
    bool has_xsave;
    bool l1_used[TLB_CONTEXTS];
    bool needs_interp; /* what is at vcpu.rip cannot be translated */
    bool fell_through; /* the op that was called out to went on with the next instruction */
    /* Generations of jump-cache keys, for user (1) and other code, and the last ones made; RIPs of
     * both are in both halves. */
    uint16_t jump_gen[2], last_gen[2];
    /* What page_id holds, to empty it: in which entries. */
    uint16_t page_ids[2][PAGE_ID_ENTRIES];
    unsigned page_id_count[2];
    /* Of the address space that is loaded: the interpreter's tag of its lower half. */
    uint64_t space_tag, space_wraps;
    uint64_t spaces_used; /* counts */
    struct bt_space spaces[SPACES];
    /* By hash of the linear page: jump-cache entries may lead there. */
    uint64_t code_pages[CODE_PAGE_BITS / 64];
    struct bt_code_segment code_segments[CODE_SEGMENTS]; /* by hash */
    uint16_t last_code_segment;
    uint8_t mode_number[BT_VALID]; /* of bt.mode in keys; 0: none yet */
    uint8_t mode_numbers;
    bool low_kernel;           /* supervisor code ran in the lower half */
    bool l1_low[TLB_CONTEXTS]; /* has entries of the lower half */
    /* By entry of a first-level table: it holds a page of the lower half; a slot may hold a page
     * that was there before. */
    uint64_t l1_lows[TLB_CONTEXTS][2][L1_ENTRIES / 64];
    uint64_t l1_evicted[TLB_CONTEXTS][2][L1_ENTRIES / 64];
    /* By hash of the host's page: a first-level write table may hold it. */
    uint64_t write_pages[WRITE_PAGE_BITS / 64];
    uint32_t next_id;
    struct bt_op spare_op; /* where a segment's data is full */

    _Alignas(64) uint8_t x87_area[576]; /* XSAVE's */
    uint8_t *code_stack, *signal_stack; /* lowest address; a guard page below the first */
    uint8_t *write, *exec;              /* two mappings of the cache */
    uint64_t segment_code;
    uint8_t *data;
    uint64_t segment_data;
    uint64_t code_asked, data_asked; /* up to where the host was asked for memory: offsets */
    unsigned segment;                /* being filled */
    unsigned segment_count;
    struct bt_segment segments[SEGMENTS_MAX];
    void (*vectors_save)(void), (*vectors_load[4])(void); /* by enum bt_vectors */
    const uint8_t *enter, *exit_live, *exit_saved, *lookup_stub, *slow_stub, *x87_stub,
        *callout_stub, *callout_end_stub, *fault_stub;
    uint64_t code_start; /* behind the stubs, in segment 0 */

    struct bt_block *hash[BLOCK_HASH];
    struct bt_block *templates[TEMPLATES]; /* relocate.c */
    struct bt_page *page_in_use[2];        /* by bt_translate(): stay, with blocks or without */
    struct bt_page *pages[PAGE_HASH], *by_physical[PAGE_HASH];

    pthread_mutex_t written_lock;
    uint64_t written[64]; /* pages that others wrote to */
    unsigned written_count;
    bool written_all;

    struct direct *direct; /* NULL: switched off */
    struct bt_stats stats;
    struct translation_state *scratch; /* translate.c */
    struct bt_verify *verify;          /* verify.c; NULL: nothing is compared */
};

/* Enter a page in a first-level table. */
static inline void bt_l1_enter(struct bt *bt, unsigned context, bool write, uint64_t linear,
                               uint64_t addend)
{
    unsigned slot = linear >> PAGE_SHIFT & (L1_ENTRIES - 1);
    struct l1_entry *e = &bt->l1[context][write][slot];
    if (e->tag != bt->empty_tag)
        bt->l1_evicted[context][write][slot / 64] |= UINT64_C(1) << slot % 64;
    *e = (struct l1_entry){linear & PAGE_MASK, addend};
    if (write) {
        unsigned bit = (linear + addend) >> PAGE_SHIFT & (WRITE_PAGE_BITS - 1);
        bt->write_pages[bit / 64] |= UINT64_C(1) << bit % 64;
    }
    bt->l1_used[context] = true;
    if (!(linear >> 63)) {
        bt->l1_lows[context][write][slot / 64] |= UINT64_C(1) << slot % 64;
        bt->l1_low[context] = true;
    }
    bt->stats.fills++;
}

static inline uint64_t bt_linear(const struct bt_block *b)
{
    return b->cs_base + b->rip;
}

/* How many of a block's bytes are in its page. */
static inline unsigned bt_head(const struct bt_block *b)
{
    return MIN(b->length, (unsigned)(PAGE_SIZE - (bt_linear(b) & ~PAGE_MASK)));
}

/* The first-level TLB that code of a mode uses. */
static inline unsigned bt_context(uint16_t mode)
{
    return mode & BT_USER ? TLB_USER : mode & BT_AC ? TLB_SUPERVISOR_AC : TLB_SUPERVISOR;
}

/* A canonical RIP has 48 bits that matter: above them are the mode's number and a generation. One
 * of code with BT_SEGMENTS has 32, and above them is the segment's number. */
static inline uint64_t bt_jump_key(const struct bt *bt, uint16_t mode)
{
    bool user = mode & BT_USER;
    return (uint64_t)bt->jump_gen[user] << 52 | (uint64_t)bt->mode_number[mode] << 48 |
           (uint64_t)bt->cs.number << 32;
}

/* After bt.mode or a generation has changed. */
static inline void bt_set_jump_keys(struct bt *bt)
{
    bt->jump_keys[0] = bt_jump_key(bt, bt->mode & (uint16_t)~BT_AC);
    bt->jump_keys[1] = bt_jump_key(bt, bt->mode | BT_AC);
}

/* The jump cache's entry for an address in the current mode. */
static inline uint64_t bt_key_of(const struct bt *bt, uint64_t rip)
{
    return rip ^ bt->jump_keys[!!(bt->mode & BT_AC)];
}

static inline struct jump_cache_entry *bt_jump_cache_slot(struct bt *bt, uint64_t rip)
{
    return &bt->jumps[((uint32_t)rip ^ (uint32_t)rip >> 12) & (JUMP_CACHE - 1)];
}

/* The last instruction pointer of the code segment that is loaded. */
static inline uint64_t bt_last_ip(const struct vcpu *cpu)
{
    return MIN((uint64_t)cpu->bt->cs.limit, cpu->interp->ip_mask);
}

/* ---- cache.c ---- */

int bt_cache_create(struct bt *bt, uint64_t size, struct tv_error *err);
void bt_cache_free(struct bt *bt);
/* Room for a block: `code` bytes of code and its data. May evict. Returns the write address. */
uint8_t *bt_cache_reserve(struct vcpu *cpu, uint64_t code, uint64_t data);
void *bt_cache_data(struct bt *bt, uint64_t size);
void bt_cache_commit(struct bt *bt, const uint8_t *end);
/* A new block, where bt_cache_reserve() made room last. */
void bt_cache_add(struct bt *bt, struct bt_block *b);
/* Behind what bt_cache_data() gave last. */
static inline const uint8_t *bt_cache_data_end(const struct bt *bt)
{
    return bt->data + bt->segment * bt->segment_data + bt->segments[bt->segment].data_used;
}
static inline const uint8_t *bt_exec(const struct bt *bt, const uint8_t *write)
{
    return bt->exec + (write - bt->write);
}

/* The page of code at `linear`, which is mapped to `gpa` now. */
struct bt_page *bt_page_get(struct vcpu *cpu, uint64_t linear, uint64_t gpa);
/* Free it, if it has no blocks. */
void bt_page_put(struct bt *bt, struct bt_page *page);
struct bt_block *bt_block_find(struct bt *bt, const struct bt_page *page, uint64_t rip,
                               uint16_t mode, bool plain);
/* Make a block known under its page, address and mode. */
void bt_block_add(struct bt *bt, struct bt_block *b);
/* The opposite: nothing leads to it any longer, but the jump cache. */
void bt_block_remove(struct vcpu *cpu, struct bt_block *b);
void bt_link(struct vcpu *cpu, struct bt_exit *exit, struct bt_block *to);
/* RAM page `index` was written: drop what no longer is what was translated. */
void bt_page_written(struct vcpu *cpu, uint64_t index);
void bt_drop_all(struct vcpu *cpu);
/* What is at guest-physical addresses changed: drop the pages as well. */
void bt_forget_pages(struct vcpu *cpu);

/* ---- stubs.c ---- */

void bt_make_stubs(struct bt *bt);
/* Room for an exit's stub, and for one that is linked across pages. */
#define EXIT_STUB        16
#define EXIT_STUB_LINKED 96
/* What an exit's jump goes to while it is not linked, or always if it crosses pages. */
void bt_write_exit_stub(struct bt *bt, struct bt_exit *exit);

/* ---- translate.c ---- */

/* Translate the block at vcpu.rip, whose page is `page`. NULL: the interpreter must run it. */
struct bt_block *bt_translate(struct vcpu *cpu, struct bt_page *page, bool plain);

/* ---- relocate.c ---- */

/* Remember a new block, and forget one that is dropped. */
void bt_template_add(struct bt *bt, struct bt_block *b);
void bt_template_drop(struct bt *bt, const struct bt_block *b);
/* A block for vcpu.rip in `page`, made from one of the same code at another linear address: that
 * one itself, or a copy. `host`: the page's bytes. NULL: there is none, translate it. */
struct bt_block *bt_reuse(struct vcpu *cpu, struct bt_page *page, bool plain, const uint8_t *host);

/* ---- fault.c ---- */

/* The stack of translated code, and one for signals that are raised on it. */
int bt_stacks_create(struct bt *bt, struct tv_error *err);
void bt_stacks_free(struct bt *bt);
/* On the vCPU's thread, before translated code runs. */
void bt_stacks_enter(struct bt *bt);
/* Return addresses on the stack may no longer be good: the next RETs look theirs up. */
static inline void bt_forget_returns(struct bt *bt)
{
    bt->code_rsp = bt->code_top;
}

bool bt_on_signal(int number, void *ucontext);

/* ---- fill.c: compiled so that vector registers stay untouched ---- */

/* An access missed: fill the first-level TLB, or do all that is in bt_slow(). */
int bt_fill(struct vcpu *cpu, struct bt_site *site);

/* ---- quick.c: so is this ---- */

/* An instruction that ends its block. Returns the code to go on with, NULL: leave. */
const void *bt_callout_end(struct vcpu *cpu, struct bt_site *site);

/* ---- fill.c again ---- */

/* Another vCPU marked a page as code: look again before each store. */
void bt_purge_writes(struct vcpu *cpu);
/* The x87 registers to and from struct vcpu. */
void bt_x87_load(struct vcpu *cpu);
void bt_x87_save(struct vcpu *cpu);

/* ---- verify.c: --verify ---- */

int bt_verify_create(struct vcpu *cpu, struct tv_error *err);
void bt_verify_free(struct bt *bt);
/* Must a block end before this instruction, so that what comes before it can be compared? */
bool bt_verify_stops(ZydisMnemonic mnemonic);
/* Run a block in both engines. False: they differ, or the interpreter has to go on; as
 * bt_run_block(). Raises what the block does. */
bool bt_verify_block(struct vcpu *cpu, struct bt_block *b, struct bt_exit **exit);
/* Did they differ? Then with `err` filled. */
bool bt_verify_failed(const struct vcpu *cpu, struct tv_error *err);
void bt_verify_print(const struct vcpu *cpu, FILE *out);

/* ---- run.c ---- */

/* What translated code leaves with: a struct bt_exit, or a struct bt_site with BT_OUT_INDIRECT set
 * after an indirect branch to vcpu.rip, or BT_OUT_RETURN after the RET of bt.ret_site; or 0. */
enum { BT_OUT_INDIRECT = 1, BT_OUT_RETURN = 2 };

enum { GO_RETRY = 0, GO_ON = 0, GO_DONE = 1, GO_LEAVE = 2 };
/* Of functions that are entered while the guest's vector registers are in the host's and that save
 * them: the compiler uses none before. */
#define WITH_VECTORS_LIVE __attribute__((target("general-regs-only"), noinline))
WITH_VECTORS_LIVE int bt_slow(struct vcpu *cpu, struct bt_site *site);
WITH_VECTORS_LIVE const void *bt_callout_end_slow(struct vcpu *cpu, struct bt_site *site);
/* Code for vcpu.rip in whatever mode is the current one, with flags in bt.flags and in vcpu.cc;
 * NULL: the main loop has to look. */
const void *bt_next_code(struct vcpu *cpu);
/* The vCPU whose thread this is, NULL elsewhere. */
struct vcpu *bt_running(void);
/* enum bt_mode; 0: the interpreter runs this. */
uint16_t bt_current_mode(const struct vcpu *cpu);
/* Run translated code from the start of `b` until it leaves, with the state in struct vcpu before
 * and after. *exit: how it left, if by a branch to a known address. False: the interpreter must go
 * on. */
bool bt_run_block(struct vcpu *cpu, const struct bt_block *b, struct bt_exit **exit);

/* ---- flush.c ---- */

/* This thread runs this vCPU. */
void bt_set_running(struct vcpu *cpu);
/* Forget the translations of one context. */
void bt_clear_l1(struct bt *bt, unsigned context);
void bt_on_flush(struct vcpu *cpu, enum flushed what, uint64_t linear); /* interp.flushed */
void bt_clear_writes(struct vcpu *cpu); /* what bt_purge_writes() does, without vector registers */
void bt_take_written(struct vcpu *cpu); /* pages that others have written to */
void bt_hear_of_memory(struct machine *m); /* set physmem.hooks */
void bt_kick(struct vcpu *cpu);            /* the engine's */

/* ---- spaces.c: which code is where in linear addresses ---- */

/* Of a linear address in bt.code_pages. */
unsigned bt_code_page_bit(uint64_t linear);
/* Enter bt.mode: its code gets a number in keys of the jump cache. */
void bt_number_mode(struct bt *bt);
/* So does its code segment. */
void bt_number_code_segment(struct bt *bt, uint32_t base, uint32_t limit);
/* `page` is mapped at its linear address now. */
void bt_note_page(struct bt *bt, bool user, const struct bt_page *page);
/* Forget where code is, of user or other modes; user: in the address space that is loaded. */
void bt_forget_jumps(struct bt *bt, bool user);
/* And in those that are not. */
void bt_forget_spaces(struct bt *bt);
/* CR3 was loaded: forget, or remember, the lower half. */
void bt_switch_space(struct vcpu *cpu);

/* ---- stats.c ---- */
void bt_print_stats(struct machine *m, FILE *out);

extern const struct engine bt_engine;

#endif
