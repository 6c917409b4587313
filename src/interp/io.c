/* Port I/O: IN, OUT, INS, OUTS with their permission checks. */
#include "cpu/register_port.h"
#include "interp/system.h"

/* CPL above IOPL, or virtual-8086 mode: the TSS's permission bitmap decides (SDM vol. 1, 19.5.2).
 */
static void check_permission(struct vcpu *cpu, const struct op *op, uint16_t port, unsigned size)
{
    if (cpu_real_mode(cpu))
        return;
    if (!cpu_v86(cpu) && cpu->cpl <= (cpu->rflags >> FLAG_IOPL_SHIFT & 3))
        return;
    if ((cpu->tr.attr & SEG_TYPE) < SYS_TSS || cpu->tr.limit < 103)
        interp_raise_error(cpu, op, VEC_GP, 0);
    uint32_t at = (uint32_t)interp_load_system(cpu, op, cpu->tr.base + 102, 2) + port / 8u;
    if (at + 1 > cpu->tr.limit)
        interp_raise_error(cpu, op, VEC_GP, 0);
    uint32_t bits = (uint32_t)interp_load_system(cpu, op, cpu->tr.base + at, 2);
    if (bits >> (port & 7) & ((1u << size) - 1))
        interp_raise_error(cpu, op, VEC_GP, 0);
}

/* I/O breakpoints (CR4.DE) are traps: the hit waits in pending_db. */
static void check_breakpoint(struct vcpu *cpu, uint16_t port, unsigned size)
{
    if (LIKELY(!(cpu->dr[7] & 0xff)) || !(cpu->cr4 & CR4_DE))
        return;
    static const uint8_t lengths[] = {1, 2, 8, 4};
    for (unsigned n = 0; n < 4; n++) {
        unsigned kind = cpu->dr[7] >> (16 + 4 * n) & 3,
                 length = lengths[cpu->dr[7] >> (18 + 4 * n) & 3];
        uint64_t start = cpu->dr[n] & ~(uint64_t)(length - 1);
        if ((cpu->dr[7] >> (2 * n) & 3) && kind == 2 && port < start + length &&
            start < (uint64_t)port + size)
            cpu->pending_db |= BIT64(n);
    }
}

/* An OUT may reset or stop the machine, change an interrupt line or A20: look at `attention` right
 * after it. */
static void finish(struct vcpu *cpu, const struct op *op)
{
    cpu->rip = interp_next_rip(cpu, op);
    END_BLOCK(cpu, op);
}

static uint16_t port_of(const struct vcpu *cpu, const struct op *op)
{
    return op->aux ? (uint16_t)op->imm : (uint16_t)cpu->gpr[RDX];
}

static void op_in(struct vcpu *cpu, const struct op *op)
{
    uint16_t port = port_of(cpu, op);
    if (register_port_in(cpu->machine, port, op->size, cpu->gpr)) { /* at any privilege level */
        finish(cpu, op);
        return;
    }
    check_permission(cpu, op, port, op->size);
    check_breakpoint(cpu, port, op->size);
    reg_set(cpu, RAX, 0, op->size, machine_in(cpu->machine, port, op->size));
    finish(cpu, op);
}

static void op_out(struct vcpu *cpu, const struct op *op)
{
    uint16_t port = port_of(cpu, op);
    check_permission(cpu, op, port, op->size);
    check_breakpoint(cpu, port, op->size);
    machine_out(cpu->machine, port, op->size, (uint32_t)(cpu->gpr[RAX] & bytes_mask(op->size)));
    finish(cpu, op);
}

static void advance(struct vcpu *cpu, const struct op *op, unsigned reg)
{
    int64_t step = cpu->rflags & FLAG_DF ? -(int64_t)op->size : op->size;
    reg_set(cpu, reg, 0, op->addr_size, cpu->gpr[reg] + (uint64_t)step);
}

static void ins_once(struct vcpu *cpu, const struct op *op)
{
    uint16_t port = (uint16_t)cpu->gpr[RDX];
    uint64_t at =
        interp_linear(cpu, op, ES, cpu->gpr[RDI] & bytes_mask(op->addr_size), op->size, true);
    interp_probe_write(cpu, op, at, op->size);
    interp_store(cpu, op, at, op->size, machine_in(cpu->machine, port, op->size));
    advance(cpu, op, RDI);
}

static void outs_once(struct vcpu *cpu, const struct op *op)
{
    uint16_t port = (uint16_t)cpu->gpr[RDX];
    uint64_t at =
        interp_linear(cpu, op, op->seg, cpu->gpr[RSI] & bytes_mask(op->addr_size), op->size, false);
    machine_out(cpu->machine, port, op->size, (uint32_t)interp_load(cpu, op, at, op->size));
    advance(cpu, op, RSI);
}

/* Repeats until the count is used up or somebody wants attention; then RIP stays here and the rest
 * runs later. */
static void string_io(struct vcpu *cpu, const struct op *op,
                      void (*once)(struct vcpu *, const struct op *))
{
    uint16_t port = (uint16_t)cpu->gpr[RDX];
    check_permission(cpu, op, port, op->size);
    check_breakpoint(cpu, port, op->size);
    if (!(op->flags & (OP_REP | OP_REPNE))) {
        once(cpu, op);
        finish(cpu, op);
        return;
    }
    uint64_t mask = bytes_mask(op->addr_size);
    while (cpu->gpr[RCX] & mask) {
        once(cpu, op);
        reg_set(cpu, RCX, 0, op->addr_size, cpu->gpr[RCX] - 1);
        bool more = cpu->gpr[RCX] & mask;
        if (more && (atomic_load_explicit(&cpu->attention, memory_order_relaxed) ||
                     cpu->in_single_step || cpu->pending_db)) {
            interp_sync(cpu, op);
            cpu->rflags |= FLAG_RF; /* the rest does not stop at the instruction's breakpoint */
            END_BLOCK(cpu, op);
        }
    }
    finish(cpu, op);
}

static void op_ins(struct vcpu *cpu, const struct op *op)
{
    string_io(cpu, op, ins_once);
}

static void op_outs(struct vcpu *cpu, const struct op *op)
{
    string_io(cpu, op, outs_once);
}

bool bind_io(struct decode *d, struct op *op)
{
    switch (d->insn->mnemonic) {
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_OUT: {
        bool in = d->insn->mnemonic == ZYDIS_MNEMONIC_IN;
        const ZydisDecodedOperand *port = &d->operands[in ? 1 : 0],
                                  *data = &d->operands[in ? 0 : 1];
        op->fn = in ? op_in : op_out;
        op->size = (uint8_t)(data->size / 8);
        op->aux = port->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
        op->imm = op->aux ? port->imm.value.u & 0xff : 0;
        break;
    }
    case ZYDIS_MNEMONIC_INSB:
        op->fn = op_ins;
        op->size = 1;
        break;
    case ZYDIS_MNEMONIC_INSW:
        op->fn = op_ins;
        op->size = 2;
        break;
    case ZYDIS_MNEMONIC_INSD:
        op->fn = op_ins;
        op->size = 4;
        break;
    case ZYDIS_MNEMONIC_OUTSB:
        op->fn = op_outs;
        op->size = 1;
        break;
    case ZYDIS_MNEMONIC_OUTSW:
        op->fn = op_outs;
        op->size = 2;
        break;
    case ZYDIS_MNEMONIC_OUTSD:
        op->fn = op_outs;
        op->size = 4;
        break;
    default:
        return false;
    }
    d->ends_block = true;
    return true;
}
