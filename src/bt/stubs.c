/* Code that all blocks share: the way in, the ways out, call-outs. */
#include "bt/host.h"
#include "interp/native.h"

static void put_guest_registers(struct emit *e, bool store)
{
    for (unsigned guest = 0; guest < 16; guest++) {
        unsigned host = host_reg(guest);
        if (host == NO_REG)
            continue;
        if (store)
            put_store(e, host, gs_operand(gpr_at(guest)));
        else
            put_load(e, host, gs_operand(gpr_at(guest)));
    }
}

static void put_push(struct emit *e, unsigned reg, bool pop)
{
    if (reg & 8)
        put8(e, 0x41);
    put8(e, (uint8_t)((pop ? 0x58 : 0x50) | (reg & 7)));
}

static void put_set_in_code(struct emit *e, struct bt *bt, bool in)
{
    put_op(e, false, 0xc6, 0, gs_operand(BT_AT(bt, in_code))); /* MOV byte */
    put8(e, in);
}

/* Call a C function of the vCPU and what RSI has, on C's stack. */
static void put_call_c(struct emit *e, struct bt *bt, int64_t function)
{
    put_set_in_code(e, bt, false);
    put_store(e, RSP, gs_operand(BT_AT(bt, code_rsp)));
    put_load(e, RSP, gs_operand(BT_AT(bt, host_rsp)));
    put_load(e, RDI, gs_operand(BT_AT(bt, cpu)));
    put_op(e, false, 0xff, 2, gs_operand(function)); /* CALL */
    put_load(e, RSP, gs_operand(BT_AT(bt, code_rsp)));
}

/* Say that translated code runs again, and do what others asked for in the meantime. */
static void put_reenter(struct emit *e, struct bt *bt)
{
    uint8_t *again = e->at;
    put_set_in_code(e, bt, true);
    put_op(e, false, 0x80, ALU_CMP, gs_operand(BT_AT(bt, purge)));
    put8(e, 0);
    uint8_t *none = put_jcc(e, CC_E);
    put_push(e, RAX, false);
    put_call_c(e, bt, BT_AT(bt, purge_writes));
    put_push(e, RAX, true);
    put_target(put_jump(e), again);
    put_target(none, e->at);
}

static const uint8_t saved[] = {RBX, RBP, R12, R13, R14, R15};

/* void *enter(const void *code): runs translated code until it leaves; what it returns is what the
 * exit had in T1. */
static void put_enter(struct emit *e, struct bt *bt)
{
    for (unsigned i = 0; i < ARRAY_SIZE(saved); i++)
        put_push(e, saved[i], false);
    put_alu_imm(e, true, ALU_SUB, reg_operand(RSP), 8);
    put_store(e, RSP, gs_operand(BT_AT(bt, host_rsp)));
    put_load(e, RSP, gs_operand(BT_AT(bt, code_top)));
    put_push(e, RDI, false);
    put_reenter(e, bt);
    put_push(e, T1, true);
    put_guest_registers(e, false);
    put_op(e, false, 0xff, 4, reg_operand(T1)); /* JMP T1 */
}

/* Registers are in struct vcpu already; RAX is the result. */
static void put_leave(struct emit *e, struct bt *bt)
{
    put_load(e, RSP, gs_operand(BT_AT(bt, host_rsp)));
    put_alu_imm(e, true, ALU_ADD, reg_operand(RSP), 8);
    for (unsigned i = ARRAY_SIZE(saved); i--;)
        put_push(e, saved[i], true);
    put8(e, 0xc3);
}

static void put_leave_zero(struct emit *e, struct bt *bt)
{
    put_op(e, false, 0x33, RAX, reg_operand(RAX));
    put_leave(e, bt);
}

/* Called with the site in T1: the interpreter executes the instruction. Returns, or leaves. */
static void put_callout(struct emit *e, struct bt *bt)
{
    put_guest_registers(e, true);
    put_move(e, RSI, T1);
    put_move(e, RBX, RSP); /* our return address stays, whatever is forgotten */
    put_call_c(e, bt, BT_AT(bt, callout));
    put_move(e, RSP, RBX);
    put_alu_imm(e, false, ALU_CMP, reg_operand(RAX), GO_DONE);
    uint8_t *leaves = put_jcc(e, CC_A);
    put_reenter(e, bt);
    put_guest_registers(e, false);
    put8(e, 0xc3);
    put_target(leaves, e->at);
    put_leave_zero(e, bt);
}

/* Jumped to, for an instruction that ends its block: goes on where C says, or leaves. */
static void put_callout_end(struct emit *e, struct bt *bt)
{
    put_guest_registers(e, true);
    put_move(e, RSI, T1);
    put_call_c(e, bt, BT_AT(bt, callout_end));
    put_op(e, true, 0x85, RAX, reg_operand(RAX)); /* TEST */
    uint8_t *leaves = put_jcc(e, CC_E);
    put_store(e, RAX, gs_operand(BT_AT(bt, target)));
    put_reenter(e, bt);
    put_guest_registers(e, false);
    put_op(e, false, 0xff, 4, gs_operand(BT_AT(bt, target))); /* JMP */
    put_target(leaves, e->at);
    put_leave(e, bt);
}

/*
 * Where RET goes when nothing is left on the stack: the address that says so goes back there. And
 * the lookup of an address in T0, with flags saved.
 */
static void put_lookups(struct emit *e, struct bt *bt)
{
    uint8_t *bottom = e->at;
    put_lea(e, true, RSP,
            (struct operand){.kind = AT_MEM, .base = RSP, .index = NO_REG, .disp = -8});
    bt->lookup_stub = e->at;
    uint8_t *miss = bt_put_jump_lookup(e, bt, false);
    put_op(e, false, 0xff, 4, gs_base_operand(T1, BT_AT(bt, jumps) + 8));
    put_target(miss, e->at);
    put_store(e, T0, gs_operand(VCPU_AT(rip)));
    put_load_imm(e, T1, BT_OUT_RETURN);
    put_target(put_jump(e), bt->exit_saved);
    *(uint64_t *)(uintptr_t)bt->code_top = (uintptr_t)bt_exec(bt, bottom);
}

/* Called with the site in T1 and the linear address in bt.linear. Returns with that in T0 after a
 * fill; five bytes further on where the interpreter executed the instruction; or leaves. */
static void put_slow(struct emit *e, struct bt *bt)
{
    put_guest_registers(e, true);
    put_move(e, RSI, T1);
    put_move(e, RBX, RSP);
    put_call_c(e, bt, BT_AT(bt, slow));
    put_move(e, RSP, RBX);
    put_alu_imm(e, false, ALU_CMP, reg_operand(RAX), GO_DONE);
    uint8_t *leaves = put_jcc(e, CC_A);
    uint8_t *retries = put_jcc(e, CC_NE);
    put_alu_imm(e, true, ALU_ADD, (struct operand){.kind = AT_MEM, .base = RSP, .index = NO_REG},
                5);
    put_target(retries, e->at);
    put_reenter(e, bt);
    put_guest_registers(e, false);
    put_load(e, T0, gs_operand(BT_AT(bt, linear)));
    put8(e, 0xc3);
    put_target(leaves, e->at);
    put_leave_zero(e, bt);
}

/* ---- Vector registers ---- */

/* MOVUPS or VMOVUPS of `size` bytes between register n and its place in struct vcpu. */
static void put_vector_move(struct emit *e, unsigned n, unsigned size, bool store)
{
    put8(e, 0x65);
    if (size == 64) {
        put8(e, 0x62);
        put8(e, (uint8_t)((~n >> 3 & 1) << 7 | 0x60 | (~n >> 4 & 1) << 4 | 1));
        put8(e, 0x7c);
        put8(e, 0x48);
    } else if (size == 32) {
        put8(e, 0xc4);
        put8(e, (uint8_t)((~n >> 3 & 1) << 7 | 0x61));
        put8(e, 0x7c);
    } else {
        if (n & 8)
            put8(e, 0x44);
        put8(e, 0x0f);
    }
    put8(e, store ? 0x11 : 0x10);
    put_modrm(e, n & 7, gs_operand(VCPU_AT(fpu.zmm) + 64 * (int64_t)n));
}

static void put_mask_move(struct emit *e, unsigned n, bool store)
{
    put8(e, 0x65);
    put8(e, 0xc4);
    put8(e, 0xe1);
    put8(e, 0xf8);
    put8(e, store ? 0x91 : 0x90);
    put_modrm(e, n, gs_operand(VCPU_AT(fpu.k) + 8 * (int64_t)n));
}

static void put_vectors(struct emit *e, enum bt_vectors level, bool store)
{
    bool avx512 = thunks_host() == HOST_AVX512;
    unsigned size = level == VECTORS_SSE ? 16 : avx512 ? 64 : 32;
    for (unsigned n = 0; n < (level == VECTORS_AVX512 ? 32u : 16u); n++)
        put_vector_move(e, n, size, store);
    for (unsigned n = 0; level == VECTORS_AVX512 && n < 8; n++)
        put_mask_move(e, n, store);
}

static void put_mxcsr(struct emit *e, unsigned digit, int64_t at)
{
    put8(e, 0x65);
    put8(e, 0x0f);
    put8(e, 0xae);
    put_modrm(e, digit, gs_operand(at));
}
#define LDMXCSR 2
#define STMXCSR 3

static void put_set_vector_live(struct emit *e, struct bt *bt, unsigned level)
{
    put_op(e, false, 0xc6, 0, gs_operand(BT_AT(bt, vector_live)));
    put8(e, (uint8_t)level);
}

/* Save what is live. */
static void put_vectors_save(struct emit *e, struct bt *bt)
{
    uint8_t *not_this[VECTORS_AVX512 + 1] = {NULL};
    enum bt_vectors max = thunks_host() == HOST_AVX512 ? VECTORS_AVX512
                          : thunks_host() == HOST_AVX  ? VECTORS_AVX
                                                       : VECTORS_SSE;
    uint8_t *done[VECTORS_AVX512 + 1];
    for (enum bt_vectors level = VECTORS_SSE; level <= max; level++) {
        put_op(e, false, 0x80, ALU_CMP, gs_operand(BT_AT(bt, vector_live)));
        put8(e, (uint8_t)level);
        not_this[level] = put_jcc(e, CC_NE);
        put_vectors(e, level, true);
        if (level >= VECTORS_AVX) { /* VZEROUPPER */
            put8(e, 0xc5);
            put8(e, 0xf8);
            put8(e, 0x77);
        }
        done[level] = put_jump(e);
        put_target(not_this[level], e->at);
    }
    for (enum bt_vectors level = VECTORS_SSE; level <= max; level++)
        put_target(done[level], e->at);
    put_mxcsr(e, STMXCSR, VCPU_AT(fpu.fx.mxcsr));
    put_mxcsr(e, LDMXCSR, BT_AT(bt, host_mxcsr));
    put_set_vector_live(e, bt, VECTORS_SAVED);
    put8(e, 0xc3);
}

/* Make `level` live, whatever is. */
static void put_vectors_load(struct emit *e, struct bt *bt, enum bt_vectors level)
{
    put_op(e, false, 0x80, ALU_CMP, gs_operand(BT_AT(bt, vector_live)));
    put8(e, VECTORS_SAVED);
    put8(e, 0x74); /* JE over the call */
    put8(e, 5);
    put_target(put_call(e), bt->write + ((const uint8_t *)(uintptr_t)bt->vectors_save - bt->exec));
    put_vectors(e, level, false);
    put_mxcsr(e, LDMXCSR, VCPU_AT(fpu.fx.mxcsr));
    put_set_vector_live(e, bt, level);
    put8(e, 0xc3);
}

void bt_make_stubs(struct bt *bt)
{
    struct emit e = {bt->write};
    bt->vectors_save = (void (*)(void))(uintptr_t)bt_exec(bt, e.at);
    put_vectors_save(&e, bt);
    for (enum bt_vectors level = VECTORS_SSE; level <= VECTORS_AVX512; level++) {
        if (level >= VECTORS_AVX && (int)thunks_host() < (int)level - 1)
            break;
        bt->vectors_load[level] = (void (*)(void))(uintptr_t)bt_exec(bt, e.at);
        put_vectors_load(&e, bt, level);
    }
    bt->enter = bt_exec(bt, e.at);
    put_enter(&e, bt);

    bt->exit_live = e.at;
    put_save_flags(&e, bt);
    bt->exit_saved = e.at;
    put_guest_registers(&e, true);
    put_move(&e, RAX, T1);
    put_leave(&e, bt);

    bt->callout_stub = e.at;
    put_callout(&e, bt);
    bt->callout_end_stub = e.at;
    put_callout_end(&e, bt);
    put_lookups(&e, bt);
    bt->x87_stub = e.at;
    put_guest_registers(&e, true);
    put_call_c(&e, bt, BT_AT(bt, load_x87));
    put_reenter(&e, bt);
    put_guest_registers(&e, false);
    put8(&e, 0xc3);
    bt->slow_stub = e.at;
    put_slow(&e, bt);

    /* The signal handler comes here with the site in T1: the instruction runs in the interpreter,
     * and if that raises nothing, translated code is left. */
    bt->fault_stub = bt_exec(bt, e.at);
    put_set_in_code(&e, bt, false);
    put_guest_registers(&e, true);
    put_load(&e, RSP, gs_operand(BT_AT(bt, host_rsp)));
    put_load(&e, RDI, gs_operand(BT_AT(bt, cpu)));
    put_move(&e, RSI, T1);
    put_op(&e, false, 0xff, 2, gs_operand(BT_AT(bt, callout)));
    put_leave_zero(&e, bt);

    bt->code_start = ALIGN_UP((uint64_t)(e.at - bt->write), UINT64_C(64));
}

void bt_write_exit_stub(struct bt *bt, struct bt_exit *exit)
{
    struct emit e = {exit->stub};
    uint8_t *wrong = NULL;
    if (exit->to && exit->crosses) {
        const struct bt_page *page = exit->to->page;
        if (exit->flags_live)
            put_save_flags(&e, bt);
        bool user = exit->to->mode & BT_USER;
        unsigned slot = (unsigned)(page->linear >> PAGE_SHIFT) & (PAGE_ID_ENTRIES - 1);
        put_op(&e, false, 0x81, ALU_CMP, gs_operand(BT_AT(bt, page_id[user][slot])));
        put32(&e, page->id);
        wrong = put_jcc(&e, CC_NE);
        put_target(put_jump(&e), bt->write + (exit->to->entry_saved - bt->exec));
        put_target(wrong, e.at);
    }
    put_load_imm(&e, T1, (uint64_t)(uintptr_t)exit);
    put_target(put_jump(&e), exit->flags_live && !wrong ? bt->exit_live : bt->exit_saved);
}
