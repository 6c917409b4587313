/* System instructions that are done inline, on the state in struct vcpu. */
#include "bt/translate.h"

#define SEGMENT_BASE_AT(n)                                                                         \
    (VCPU_AT(seg) + (int64_t)((n) * sizeof(struct segment)) +                                      \
     (int64_t)offsetof(struct segment, base))

#define SELECTOR_AT(n)                                                                             \
    (VCPU_AT(seg) + (int64_t)((n) * sizeof(struct segment)) +                                      \
     (int64_t)offsetof(struct segment, selector))

/* MOV from a segment or control register to a general one. */
static bool classify_mov(const struct translation_state *t, struct insn *in)
{
    uint8_t number, shift;
    const ZydisDecodedOperand *to = &in->o[0], *from = &in->o[1];
    if (to->type != ZYDIS_OPERAND_TYPE_REGISTER || !bind_reg(to->reg.value, &number, &shift))
        return false;
    if (is_class(from, ZYDIS_REGCLASS_SEGMENT))
        return true;
    return is_class(from, ZYDIS_REGCLASS_CONTROL) && t->bits == 64 &&
           !(t->bt->mode & BT_UNPRIVILEGED) &&
           (from->reg.value == ZYDIS_REGISTER_CR0 || from->reg.value == ZYDIS_REGISTER_CR2 ||
            from->reg.value == ZYDIS_REGISTER_CR3 || from->reg.value == ZYDIS_REGISTER_CR4);
}

bool bt_classify_system(const struct translation_state *t, struct insn *in)
{
    bool kernel = !(t->bt->mode & BT_UNPRIVILEGED), wide = t->bits == 64;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
        in->kind = INSN_NOP;
        return true;
    case ZYDIS_MNEMONIC_MOV:
        if (!classify_mov(t, in))
            return false;
        in->kind = INSN_SYSTEM;
        return true;
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        in->kind = INSN_SYSTEM;
        return true;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPKRU:
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        in->kind = INSN_SYSTEM;
        return true;
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_POPFD:
        if (t->segmented || (in->z.mnemonic == ZYDIS_MNEMONIC_POPFQ) != wide)
            return false;
        in->kind = INSN_SYSTEM;
        return true;
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
        break;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        if (!(t->bt->mode & BT_SMAP) || t->segmented || !kernel)
            return false;
        in->kind = INSN_ACCESS_CHECK;
        in->ends = true;
        in->target = t->rip + in->offset + in->z.length;
        return true;
    case ZYDIS_MNEMONIC_PAUSE:
        if (in->z.raw.rex.B) /* XCHG R8, RAX */
            return false;
        in->kind = t->cpu->machine->vcpu_count > 1 ? INSN_PAUSE : INSN_NOP;
        return true;
    case ZYDIS_MNEMONIC_SWAPGS:
        if (!wide)
            return false;
        break;
    case ZYDIS_MNEMONIC_PUSHFQ:
        if (!wide)
            return false;
        in->pushes = true;
        break;
    case ZYDIS_MNEMONIC_PUSHFD:
        if (wide || t->segmented)
            return false;
        in->pushes = true;
        break;
    default:
        return false;
    }
    if (!kernel)
        return false;
    in->kind = INSN_SYSTEM;
    return true;
}

/* SDM vol. 2, STI: interrupts are taken after the next instruction. Where one is pending already
 * the interpreter sees to that; one that comes later may as well have come later still. */
static void emit_sti(struct translation_state *t, const struct insn *in)
{
    struct emit *e = &t->e;
    struct bt_site *site = bt_site_new(t, in);
    site->ends = true;
    put_op(e, false, 0x80, ALU_CMP, gs_operand(VCPU_AT(intr_asserted)));
    put8(e, 0);
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_CALLOUT, .jump = put_jcc(e, CC_NE), .site = site};
    put_op(e, false, 0x81, ALU_OR, gs_operand(VCPU_AT(rflags)));
    put32(e, FLAG_IF);
}

static void emit_swapgs(struct translation_state *t)
{
    struct emit *e = &t->e;
    put_load(e, T0, gs_operand(SEGMENT_BASE_AT(GS)));
    put_load(e, T1, gs_operand(VCPU_AT(kernel_gs_base)));
    put_store(e, T1, gs_operand(SEGMENT_BASE_AT(GS)));
    put_store(e, T0, gs_operand(VCPU_AT(kernel_gs_base)));
}

/* All of the flags are in use here, so the arithmetic ones have been saved. */
static void emit_pushf(struct translation_state *t, struct insn *in)
{
    struct emit *e = &t->e;
    /* The saved form: SF to CF in the second byte, OF in the first. */
    put_load32(e, T2, gs_operand(BT_AT(t->bt, flags)));
    put_op(e, false, 0x8b, T0, reg_operand(T2));
    put_op(e, false, 0xc1, 5, reg_operand(T2)); /* SHR 8 */
    put8(e, 8);
    put_alu_imm(e, false, ALU_AND, reg_operand(T2), 0xd5);
    put_alu_imm(e, false, ALU_AND, reg_operand(T0), 1);
    put_op(e, false, 0xc1, 4, reg_operand(T0)); /* SHL 11 */
    put8(e, 11);
    put_op(e, false, 0x0b, T2, reg_operand(T0));
    put_load32(e, T0, gs_operand(VCPU_AT(rflags)));
    put_alu_imm(e, false, ALU_AND, reg_operand(T0), ~(int32_t)(FLAG_VM | FLAG_RF));
    put_op(e, false, 0x0b, T2, reg_operand(T0));
    put_store(e, T2, gs_operand(BT_AT(t->bt, target)));
    bt_emit_push_target(t, in);
}

/* The interpreter does it, and the block ends, if the flag's state is `condition`. */
static void call_out_if(struct translation_state *t, const struct insn *in, unsigned condition)
{
    struct bt_site *site = bt_site_new(t, in);
    site->ends = true;
    t->colds[t->cold_count++] =
        (struct cold){.kind = COLD_CALLOUT, .jump = put_jcc(&t->e, condition), .site = site};
}

static void put_test_imm(struct emit *e, struct operand rm, uint32_t bits)
{
    put_op(e, false, 0xf7, 0, rm);
    put32(e, bits);
}

/* SDM vol. 2, POPF, where it changes nothing that the mode or the next instruction's boundary
 * depends on, and lets no interrupt in that is waiting. */
static void emit_popf(struct translation_state *t, struct insn *in)
{
    struct emit *e = &t->e;
    bool user = t->bt->mode & BT_UNPRIVILEGED;
    uint32_t plain = FLAG_DF | FLAG_ID | (user ? 0 : FLAG_IF);
    if (user) { /* with IOPL 3, IF may change */
        put_test_imm(e, gs_operand(VCPU_AT(rflags)), FLAG_IOPL);
        call_out_if(t, in, CC_NE);
    }
    bt_emit_pop_value(t, in, T2);
    put_load32(e, T0, gs_operand(VCPU_AT(rflags)));
    put_op(e, false, 0x33, T0, reg_operand(T2)); /* XOR */
    put_test_imm(e, reg_operand(T0), FLAG_TF | FLAG_NT | FLAG_AC | (user ? 0 : FLAG_IOPL));
    call_out_if(t, in, CC_NE);
    if (!user) {
        put_test_imm(e, reg_operand(T2), FLAG_IF);
        uint8_t *masked = put_jcc(e, CC_E);
        put_op(e, false, 0x80, ALU_CMP, gs_operand(VCPU_AT(intr_asserted)));
        put8(e, 0);
        call_out_if(t, in, CC_NE);
        put_target(masked, e->at);
    }
    put_alu_imm(e, false, ALU_AND, reg_operand(T0), (int32_t)plain);
    put_op(e, false, 0x31, T0, gs_operand(VCPU_AT(rflags))); /* XOR */
    if (in->live_after) {                                    /* the form of LAHF and SETO AL */
        put8(e, 0x45);                                       /* MOVZX T0d, T2b */
        put8(e, 0x0f);
        put8(e, 0xb6);
        put_modrm(e, T0, reg_operand(T2));
        put_op(e, false, 0xc1, 4, reg_operand(T0)); /* SHL 8 */
        put8(e, 8);
        put_op(e, false, 0xc1, 5, reg_operand(T2)); /* SHR 11 */
        put8(e, 11);
        put_alu_imm(e, false, ALU_AND, reg_operand(T2), 1);
        put_op(e, false, 0x0b, T0, reg_operand(T2)); /* OR */
        put_store32(e, T0, gs_operand(BT_AT(t->bt, flags)));
    }
    bt_emit_pop_done(t, in);
    t->flags = FLAGS_SAVED;
}

static void emit_rdtsc(struct translation_state *t, const struct insn *in)
{
    struct emit *e = &t->e;
    if (t->bt->mode & BT_UNPRIVILEGED) {
        put_test_imm(&t->e, gs_operand(VCPU_AT(cr4)), CR4_TSD);
        call_out_if(t, in, CC_NE);
    }
    /* RDTSCP waits for what is before it; guests compare the clocks of two processors so. */
    if (in->z.mnemonic == ZYDIS_MNEMONIC_RDTSCP) {
        put8(e, 0x0f); /* LFENCE */
        put8(e, 0xae);
        put8(e, 0xe8);
    }
    put8(e, 0x0f);
    put8(e, 0x31);
    put_op(e, true, 0xc1, 4, reg_operand(RDX)); /* SHL 32 */
    put8(e, 32);
    put_alu(e, ALU_OR, RDX, reg_operand(RAX));
    put_alu(e, ALU_ADD, RDX, gs_operand(BT_AT(t->bt, tsc_delta)));
    put_op(e, false, 0x8b, RAX, reg_operand(RDX));
    put_op(e, true, 0xc1, 5, reg_operand(RDX)); /* SHR 32 */
    put8(e, 32);
    if (in->z.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
        put_load32(e, RCX, gs_operand(VCPU_AT(tsc_aux)));
}

/* Linux reads it for every page that a driver is to read or write. */
static void emit_rdpkru(struct translation_state *t, const struct insn *in)
{
    struct emit *e = &t->e;
    put_test_imm(&t->e, gs_operand(VCPU_AT(cr4)), CR4_PKE);
    call_out_if(t, in, CC_E);
    put_op(e, false, 0x85, RCX, reg_operand(RCX)); /* TEST */
    call_out_if(t, in, CC_NE);
    put_load32(e, RAX, gs_operand(VCPU_AT(fpu.pkru)));
    put_op(e, false, 0x31, RDX, reg_operand(RDX)); /* XOR */
}

/* T0's low half. */
static void put_word_to_guest(struct emit *e, unsigned guest)
{
    unsigned host = host_reg(guest);
    put8(e, 0x66);
    if (host == NO_REG)
        put_store32(e, T0, gs_operand(gpr_at(guest)));
    else
        put_op(e, false, 0x8b, host, reg_operand(T0));
}

static void put_to_guest(struct emit *e, bool wide, unsigned guest, struct operand from)
{
    unsigned host = host_reg(guest);
    put_op(e, wide, 0x8b, host == NO_REG ? T0 : host, from);
    if (host == NO_REG)
        put_store(e, T0, gs_operand(gpr_at(guest)));
}

static void emit_mov(struct translation_state *t, const struct insn *in)
{
    struct emit *e = &t->e;
    unsigned guest = general_register(&in->o[0]);
    ZydisRegister from = in->o[1].reg.value;
    switch (from) {
    case ZYDIS_REGISTER_CR0:
        put_to_guest(e, true, guest, gs_operand(VCPU_AT(cr0)));
        break;
    case ZYDIS_REGISTER_CR2:
        put_to_guest(e, true, guest, gs_operand(VCPU_AT(cr2)));
        break;
    case ZYDIS_REGISTER_CR3:
        put_to_guest(e, true, guest, gs_operand(VCPU_AT(cr3)));
        break;
    case ZYDIS_REGISTER_CR4:
        put_to_guest(e, true, guest, gs_operand(VCPU_AT(cr4)));
        break;
    default:
        put8(e, 0x65); /* MOVZX T0d, GS:word */
        put8(e, 0x44);
        put8(e, 0x0f);
        put8(e, 0xb7);
        put_modrm(e, T0, gs_operand(SELECTOR_AT((unsigned)(from - ZYDIS_REGISTER_ES))));
        if (in->o[0].size == 16)
            put_word_to_guest(e, guest);
        else
            put_to_guest(e, false, guest, reg_operand(T0));
    }
}

static void emit_base(struct translation_state *t, const struct insn *in)
{
    struct emit *e = &t->e;
    ZydisMnemonic m = in->z.mnemonic;
    bool wide = in->o[0].size == 64;
    unsigned guest = general_register(&in->o[0]), host = host_reg(guest);
    int64_t base = m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_WRFSBASE
                       ? SEGMENT_BASE_AT(FS)
                       : SEGMENT_BASE_AT(GS);
    put_test_imm(&t->e, gs_operand(VCPU_AT(cr4)), CR4_FSGSBASE);
    call_out_if(t, in, CC_E);
    if (m == ZYDIS_MNEMONIC_RDFSBASE || m == ZYDIS_MNEMONIC_RDGSBASE) {
        put_to_guest(e, wide, guest, gs_operand(base));
        return;
    }
    put_op(e, wide, 0x8b, T0, host == NO_REG ? gs_operand(gpr_at(guest)) : reg_operand(host));
    if (wide) {
        put_move(e, T1, T0);
        put_op(e, true, 0xc1, 7, reg_operand(T1)); /* SAR: -1 or 0 */
        put8(e, 47);
        put_alu_imm(e, true, ALU_ADD, reg_operand(T1), 1);
        put_alu_imm(e, true, ALU_CMP, reg_operand(T1), 1);
        call_out_if(t, in, CC_A);
    }
    put_store(e, T0, gs_operand(base));
}

void bt_emit_system(struct translation_state *t, struct insn *in)
{
    if (in->z.mnemonic == ZYDIS_MNEMONIC_MOV) {
        emit_mov(t, in);
        return;
    }
    bt_flags_clobber(t, in->live_before);
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        emit_base(t, in);
        break;
    case ZYDIS_MNEMONIC_CLI:
        put_op(&t->e, false, 0x81, ALU_AND, gs_operand(VCPU_AT(rflags)));
        put32(&t->e, ~FLAG_IF);
        break;
    case ZYDIS_MNEMONIC_STI:
        emit_sti(t, in);
        break;
    case ZYDIS_MNEMONIC_CLD:
        put_op(&t->e, false, 0x81, ALU_AND, gs_operand(VCPU_AT(rflags)));
        put32(&t->e, ~FLAG_DF);
        break;
    case ZYDIS_MNEMONIC_STD:
        put_op(&t->e, false, 0x81, ALU_OR, gs_operand(VCPU_AT(rflags)));
        put32(&t->e, FLAG_DF);
        break;
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
        emit_popf(t, in);
        break;
    case ZYDIS_MNEMONIC_SWAPGS:
        emit_swapgs(t);
        break;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        emit_rdtsc(t, in);
        break;
    case ZYDIS_MNEMONIC_RDPKRU:
        emit_rdpkru(t, in);
        break;
    default:
        emit_pushf(t, in);
    }
}
