/* System instructions that are done inline, on the state in struct vcpu. */
#include "bt/translate.h"

#define SEGMENT_BASE_AT(n)                                                                         \
    (VCPU_AT(seg) + (int64_t)((n) * sizeof(struct segment)) +                                      \
     (int64_t)offsetof(struct segment, base))

bool bt_classify_system(const struct translation_state *t, struct insn *in)
{
    bool kernel = !(t->bt->mode & BT_USER), wide = t->bits == 64;
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_RDTSC:
        break;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        if (!(t->bt->mode & BT_SMAP))
            return false;
        in->kind = INSN_ACCESS_CHECK;
        in->ends = true;
        in->target = t->rip + in->offset + in->z.length;
        return true;
    case ZYDIS_MNEMONIC_PAUSE:
        if (t->cpu->machine->vcpu_count > 1 || in->z.raw.rex.B)
            return false;
        in->kind = INSN_NOP;
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
        if (wide || t->cpu->interp->mode.stack_bits != 32)
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

static void emit_rdtsc(struct translation_state *t)
{
    struct emit *e = &t->e;
    put8(e, 0x0f);
    put8(e, 0x31);
    put_op(e, true, 0xc1, 4, reg_operand(RDX)); /* SHL 32 */
    put8(e, 32);
    put_alu(e, ALU_OR, RDX, reg_operand(RAX));
    put_alu(e, ALU_ADD, RDX, gs_operand(BT_AT(t->bt, tsc_delta)));
    put_op(e, false, 0x8b, RAX, reg_operand(RDX));
    put_op(e, true, 0xc1, 5, reg_operand(RDX)); /* SHR 32 */
    put8(e, 32);
}

void bt_emit_system(struct translation_state *t, struct insn *in)
{
    bt_flags_clobber(t, in->live_before);
    switch (in->z.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        put_op(&t->e, false, 0x81, ALU_AND, gs_operand(VCPU_AT(rflags)));
        put32(&t->e, ~FLAG_IF);
        break;
    case ZYDIS_MNEMONIC_STI:
        emit_sti(t, in);
        break;
    case ZYDIS_MNEMONIC_SWAPGS:
        emit_swapgs(t);
        break;
    case ZYDIS_MNEMONIC_RDTSC:
        emit_rdtsc(t);
        break;
    default:
        emit_pushf(t, in);
    }
}
