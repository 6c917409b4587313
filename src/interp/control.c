/* Control and debug registers, MSRs, TLB management, HLT, and what else ring 0 alone may do. */
#include "interp/system.h"

#include <inttypes.h>

#include "cpu/msr.h"

#define CR0_KNOWN                                                                                  \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD |     \
     CR0_PG)
#define CR3_PCID UINT64_C(0xfff)
#define CR3_KEEP BIT64(63)

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LME);
}

bool control_set_cr0(struct vcpu *cpu, uint64_t value)
{
    if (value >> 32)
        return false;
    value = (value & CR0_KNOWN) | CR0_ET;
    if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return false;
    bool enables = (value & CR0_PG) && !(cpu->cr0 & CR0_PG);
    bool disables = !(value & CR0_PG) && (cpu->cr0 & CR0_PG);
    if (enables && (cpu->efer & EFER_LME) && (!(cpu->cr4 & CR4_PAE) || (cpu->seg[CS].attr & SEG_L)))
        return false;
    if (disables && (cpu_64bit(cpu) || (cpu->cr4 & CR4_PCIDE)))
        return false;
    if (pae_paging(value, cpu->cr4, cpu->efer) &&
        ((value ^ cpu->cr0) & (CR0_PG | CR0_CD | CR0_NW)) && !paging_load_pdptes(cpu, cpu->cr3))
        return false;
    uint64_t changed = value ^ cpu->cr0;
    cpu->cr0 = value;
    if (enables && (cpu->efer & EFER_LME))
        cpu->efer |= EFER_LMA;
    if (disables)
        cpu->efer &= ~EFER_LMA;
    if (changed & CR0_PE)
        cpu_state_changed(cpu);
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        interp_flush_tlb(cpu);
    return true;
}

bool control_set_cr3(struct vcpu *cpu, uint64_t value)
{
    bool keep = false;
    if (cpu->efer & EFER_LMA) {
        if (cpu->cr4 & CR4_PCIDE) {
            keep = value & CR3_KEEP;
            value &= ~CR3_KEEP;
        }
        if (value >> cpu->machine->cpuid.phys_bits)
            return false;
    } else {
        value = (uint32_t)value;
        if (pae_paging(cpu->cr0, cpu->cr4, cpu->efer) && !paging_load_pdptes(cpu, value))
            return false;
    }
    cpu->cr3 = value;
    interp_switch_space(cpu, keep);
    return true;
}

bool control_set_cr4(struct vcpu *cpu, uint64_t value)
{
    uint64_t changed = value ^ cpu->cr4;
    if (value & ~cpu->machine->cpuid.cr4_supported)
        return false;
    if ((cpu->efer & EFER_LMA) && !(value & CR4_PAE))
        return false;
    if ((changed & value & CR4_PCIDE) && (!(cpu->efer & EFER_LMA) || (cpu->cr3 & CR3_PCID)))
        return false;
    if ((changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) &&
        pae_paging(cpu->cr0, value, cpu->efer) && !paging_load_pdptes(cpu, cpu->cr3))
        return false;
    cpu->cr4 = value;
    if (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PCIDE))
        interp_flush_tlb(cpu);
    return true;
}

static void finish(struct vcpu *cpu, const struct op *op)
{
    cpu->rip = interp_next_rip(cpu, op);
    interp_mode_changed(cpu);
    END_BLOCK(cpu, op);
}

/*
 * What serializing instructions do to memory (SDM vol. 3, 8.3): stores before them are seen, and
 * what is behind them has not begun. Linux counts on it where it loads CR3 (membarrier), older
 * systems put CPUID before RDTSC.
 */
static void serialize(void)
{
    __asm__ volatile("mfence; lfence" : : : "memory");
}

/* ---- MOV CR, MOV DR: `src` is the register's number, `dst` the general one ---- */

static uint64_t read_cr(struct vcpu *cpu, unsigned number)
{
    switch (number) {
    case 0:
        return cpu->cr0;
    case 2:
        return cpu->cr2;
    case 3:
        return cpu->cr3;
    case 4:
        return cpu->cr4;
    default:
        return cpu->lapic ? lapic_cr8(cpu->lapic) : 0;
    }
}

static void op_mov_from_cr(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    uint64_t value = read_cr(cpu, op->src);
    cpu->gpr[op->dst] = cpu_64bit(cpu) ? value : (uint32_t)value;
    NEXT(cpu, op);
}

static bool write_cr(struct vcpu *cpu, unsigned number, uint64_t value)
{
    switch (number) {
    case 0:
        return control_set_cr0(cpu, value);
    case 2:
        cpu->cr2 = value;
        return true;
    case 3:
        return control_set_cr3(cpu, value);
    case 4:
        return control_set_cr4(cpu, value);
    default:
        if (value & ~UINT64_C(15))
            return false;
        if (cpu->lapic)
            lapic_set_cr8(cpu->lapic, (uint8_t)value);
        return true;
    }
}

static void op_mov_to_cr(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    uint64_t value = cpu_64bit(cpu) ? cpu->gpr[op->dst] : (uint32_t)cpu->gpr[op->dst];
    uint64_t next = interp_next_rip(cpu, op);
    if (!write_cr(cpu, op->src, value))
        interp_raise_error(cpu, op, VEC_GP, 0);
    if (op->src != 8)
        serialize();
    if (log_on(&cpu->machine->log, LOG_CR))
        log_write(&cpu->machine->log, LOG_CR, "cpu%u cr%u = %" PRIx64 " before %" PRIx64,
                  cpu->index, op->src, value, next);
    finish(cpu, op);
}

/* DR4 and DR5 are DR6 and DR7, or nothing (CR4.DE). */
static unsigned debug_register(struct vcpu *cpu, const struct op *op)
{
    unsigned number = op->src;
    need_cpl0(cpu, op);
    if (number == 4 || number == 5) {
        if (cpu->cr4 & CR4_DE)
            interp_raise(cpu, op, VEC_UD);
        number += 2;
    }
    if (cpu->dr[7] & 0x2000) { /* GD */
        cpu->dr[6] |= 0x2000;
        interp_raise(cpu, op, VEC_DB);
    }
    return number;
}

static void op_mov_from_dr(struct vcpu *cpu, const struct op *op)
{
    unsigned number = debug_register(cpu, op);
    cpu->gpr[op->dst] = cpu_64bit(cpu) ? cpu->dr[number] : (uint32_t)cpu->dr[number];
    NEXT(cpu, op);
}

static void op_mov_to_dr(struct vcpu *cpu, const struct op *op)
{
    unsigned number = debug_register(cpu, op);
    uint64_t value = cpu_64bit(cpu) ? cpu->gpr[op->dst] : (uint32_t)cpu->gpr[op->dst];
    if (number >= 6 && value >> 32)
        interp_raise_error(cpu, op, VEC_GP, 0);
    if (number == 6)
        value = (value & 0xe00f) | 0xffff0ff0;
    else if (number == 7)
        value = (value & 0xffff23ff) | 0x400;
    cpu->dr[number] = value;
    atomic_fetch_or(&cpu->attention, ATT_DEBUG);
    finish(cpu, op);
}

static void op_lmsw(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    uint64_t value = system_read_rm(cpu, op, 2) & 15;
    /* PE can be set but not cleared. */
    if (!control_set_cr0(cpu, (cpu->cr0 & ~UINT64_C(14)) | value))
        interp_raise_error(cpu, op, VEC_GP, 0);
    finish(cpu, op);
}

static void op_smsw(struct vcpu *cpu, const struct op *op)
{
    if ((cpu->cr4 & CR4_UMIP) && cpu->cpl != 0 && !cpu_real_mode(cpu))
        interp_raise_error(cpu, op, VEC_GP, 0);
    system_write_rm(cpu, op, op->aux2 & OPERAND_MEMORY ? 2 : op->size, cpu->cr0);
    NEXT(cpu, op);
}

static void op_clts(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    cpu->cr0 &= ~CR0_TS;
    finish(cpu, op);
}

/* ---- TLB ---- */

static void op_invlpg(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    uint64_t linear = op_effective_address(cpu, op);
    if (!cpu_64bit(cpu))
        linear = (uint32_t)(linear + cpu->seg[op->seg].base);
    else if (op->seg >= FS)
        linear += cpu->seg[op->seg].base;
    if (is_canonical(linear))
        interp_flush_page(cpu, linear);
    finish(cpu, op);
}

static void op_invpcid(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    unsigned size = cpu_64bit(cpu) ? 8 : 4;
    uint64_t type = cpu->gpr[op->dst] & bytes_mask(size);
    uint64_t at = interp_linear(cpu, op, op->seg, op_effective_address(cpu, op), 16, false);
    uint64_t pcid = interp_load(cpu, op, at, 8), linear = interp_load(cpu, op, at + 8, 8);
    bool bad = type > 3 || (type <= 1 && (pcid >> 12 || (!(cpu->cr4 & CR4_PCIDE) && pcid))) ||
               (type == 0 && !is_canonical(linear));
    if (bad)
        interp_raise_error(cpu, op, VEC_GP, 0);
    switch (type) {
    case 0:
        interp_flush_page(cpu, linear); /* where the PCID is another, one too many */
        if (pcid != (cpu->cr4 & CR4_PCIDE ? cpu->cr3 & CR3_PCID : 0))
            interp_flush_pcid(cpu, (unsigned)pcid);
        break;
    case 1:
        interp_flush_pcid(cpu, (unsigned)pcid);
        break;
    case 2:
        interp_flush_tlb(cpu);
        break;
    default:
        interp_flush_local(cpu);
    }
    finish(cpu, op);
}

static void op_wbinvd(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op); /* caches are coherent: nothing to do */
    NEXT(cpu, op);
}

/* ---- HLT, MWAIT ---- */

static void op_hlt(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    cpu->activity = ACTIVITY_HALTED;
    cpu->rip = interp_next_rip(cpu, op);
    END_BLOCK(cpu, op);
}

/* ---- MSRs, counters, CPUID ---- */

static void op_rdmsr(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    uint64_t value;
    if (!msr_read(cpu, (uint32_t)cpu->gpr[RCX], &value))
        interp_raise_error(cpu, op, VEC_GP, 0);
    cpu->gpr[RAX] = (uint32_t)value;
    cpu->gpr[RDX] = value >> 32;
    NEXT(cpu, op);
}

static void op_wrmsr(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    uint64_t value = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
    if (!msr_write(cpu, (uint32_t)cpu->gpr[RCX], value))
        interp_raise_error(cpu, op, VEC_GP, 0);
    if ((uint32_t)cpu->gpr[RCX] == MSR_APICBASE) /* whose page is no other's */
        interp_flush_tlb(cpu);
    if ((uint32_t)cpu->gpr[RCX] == MSR_EFER && log_on(&cpu->machine->log, LOG_CR))
        log_write(&cpu->machine->log, LOG_CR, "cpu%u efer = %" PRIx64, cpu->index, value);
    finish(cpu, op);
}

static void need_tsc(struct vcpu *cpu, const struct op *op)
{
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl != 0 && !cpu_real_mode(cpu))
        interp_raise_error(cpu, op, VEC_GP, 0);
}

static void op_rdtsc(struct vcpu *cpu, const struct op *op)
{
    need_tsc(cpu, op);
    uint64_t tsc = cpu_read_tsc(cpu);
    cpu->gpr[RAX] = (uint32_t)tsc;
    cpu->gpr[RDX] = tsc >> 32;
    NEXT(cpu, op);
}

static void op_rdtscp(struct vcpu *cpu, const struct op *op)
{
    need_tsc(cpu, op);
    __asm__ volatile("lfence" : : : "memory"); /* it waits for what is before it */
    uint64_t tsc = cpu_read_tsc(cpu);
    cpu->gpr[RAX] = (uint32_t)tsc;
    cpu->gpr[RDX] = tsc >> 32;
    cpu->gpr[RCX] = (uint32_t)cpu->tsc_aux;
    NEXT(cpu, op);
}

/* There are no performance counters: every index is one that does not exist. */
static void op_rdpmc(struct vcpu *cpu, const struct op *op)
{
    interp_raise_error(cpu, op, VEC_GP, 0);
}

static void op_cpuid(struct vcpu *cpu, const struct op *op)
{
    uint32_t leaf = (uint32_t)cpu->gpr[RAX], subleaf = (uint32_t)cpu->gpr[RCX];
    struct cpuid_leaf l = cpuid_query(cpu, leaf, subleaf);
    cpu->gpr[RAX] = l.eax;
    cpu->gpr[RBX] = l.ebx;
    cpu->gpr[RCX] = l.ecx;
    cpu->gpr[RDX] = l.edx;
    serialize();
    if (log_on(&cpu->machine->log, LOG_CPUID))
        log_write(&cpu->machine->log, LOG_CPUID, "cpu%u %08x/%x = %08x %08x %08x %08x", cpu->index,
                  leaf, subleaf, l.eax, l.ebx, l.ecx, l.edx);
    NEXT(cpu, op);
}

/* ---- FS and GS bases ---- */

static void op_swapgs(struct vcpu *cpu, const struct op *op)
{
    need_cpl0(cpu, op);
    uint64_t base = cpu->seg[GS].base;
    cpu->seg[GS].base = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
    NEXT(cpu, op);
}

/* RDFSBASE and so on: `src` is FS or GS. */
static void need_fsgsbase(struct vcpu *cpu, const struct op *op)
{
    if (!(cpu->cr4 & CR4_FSGSBASE))
        interp_raise(cpu, op, VEC_UD);
}

static void op_rdbase(struct vcpu *cpu, const struct op *op)
{
    need_fsgsbase(cpu, op);
    reg_set(cpu, op->dst, 0, op->size, cpu->seg[op->src].base);
    NEXT(cpu, op);
}

static void op_wrbase(struct vcpu *cpu, const struct op *op)
{
    need_fsgsbase(cpu, op);
    uint64_t base = cpu->gpr[op->dst] & bytes_mask(op->size);
    if (!is_canonical(base))
        interp_raise_error(cpu, op, VEC_GP, 0);
    cpu->seg[op->src].base = base;
    NEXT(cpu, op);
}

/* ---- Protection keys ---- */

static void need_pku(struct vcpu *cpu, const struct op *op)
{
    if (!(cpu->cr4 & CR4_PKE))
        interp_raise(cpu, op, VEC_UD);
    if ((uint32_t)cpu->gpr[RCX] != 0)
        interp_raise_error(cpu, op, VEC_GP, 0);
}

static void op_rdpkru(struct vcpu *cpu, const struct op *op)
{
    need_pku(cpu, op);
    cpu->gpr[RAX] = cpu->fpu.pkru;
    cpu->gpr[RDX] = 0;
    NEXT(cpu, op);
}

static void op_wrpkru(struct vcpu *cpu, const struct op *op)
{
    need_pku(cpu, op);
    if ((uint32_t)cpu->gpr[RDX] != 0)
        interp_raise_error(cpu, op, VEC_GP, 0);
    cpu->fpu.pkru = (uint32_t)cpu->gpr[RAX];
    finish(cpu, op);
}

static bool bind_cr_dr(struct decode *d, struct op *op)
{
    const ZydisDecodedOperand *a = &d->operands[0], *b = &d->operands[1];
    uint8_t shift;
    for (unsigned to = 0; to < 2; to++) {
        const ZydisDecodedOperand *control = to ? a : b, *general = to ? b : a;
        if (control->type != ZYDIS_OPERAND_TYPE_REGISTER ||
            general->type != ZYDIS_OPERAND_TYPE_REGISTER)
            return false;
        ZydisRegisterClass class = ZydisRegisterGetClass(control->reg.value);
        if (class != ZYDIS_REGCLASS_CONTROL && class != ZYDIS_REGCLASS_DEBUG)
            continue;
        bool cr = class == ZYDIS_REGCLASS_CONTROL;
        op->src = (uint8_t)ZydisRegisterGetId(control->reg.value);
        bind_reg(general->reg.value, &op->dst, &shift);
        bool exists =
            cr ? op->src == 0 || op->src == 8 || (op->src >= 2 && op->src <= 4) : op->src < 8;
        if (!exists)
            return false;
        if (to)
            op->fn = cr ? op_mov_to_cr : op_mov_to_dr;
        else
            op->fn = cr ? op_mov_from_cr : op_mov_from_dr;
        d->ends_block = to;
        return true;
    }
    return false;
}

bool bind_control(struct decode *d, struct op *op)
{
    static const struct {
        ZydisMnemonic mnemonic;
        op_fn *fn;
        bool ends;
    } table[] = {
        {ZYDIS_MNEMONIC_CLTS, op_clts, true},      {ZYDIS_MNEMONIC_INVLPG, op_invlpg, true},
        {ZYDIS_MNEMONIC_INVD, op_wbinvd, false},   {ZYDIS_MNEMONIC_WBINVD, op_wbinvd, false},
        {ZYDIS_MNEMONIC_HLT, op_hlt, true},        {ZYDIS_MNEMONIC_RDMSR, op_rdmsr, false},
        {ZYDIS_MNEMONIC_WRMSR, op_wrmsr, true},    {ZYDIS_MNEMONIC_RDTSC, op_rdtsc, false},
        {ZYDIS_MNEMONIC_RDTSCP, op_rdtscp, false}, {ZYDIS_MNEMONIC_RDPMC, op_rdpmc, false},
        {ZYDIS_MNEMONIC_CPUID, op_cpuid, false},   {ZYDIS_MNEMONIC_SWAPGS, op_swapgs, false},
        {ZYDIS_MNEMONIC_RDPKRU, op_rdpkru, false}, {ZYDIS_MNEMONIC_WRPKRU, op_wrpkru, true},
    };
    static const struct {
        ZydisMnemonic mnemonic;
        op_fn *fn;
        uint8_t seg;
    } bases[] = {{ZYDIS_MNEMONIC_RDFSBASE, op_rdbase, FS},
                 {ZYDIS_MNEMONIC_RDGSBASE, op_rdbase, GS},
                 {ZYDIS_MNEMONIC_WRFSBASE, op_wrbase, FS},
                 {ZYDIS_MNEMONIC_WRGSBASE, op_wrbase, GS}};
    ZydisMnemonic mnemonic = d->insn->mnemonic;
    uint8_t shift;

    if (mnemonic == ZYDIS_MNEMONIC_MOV)
        return bind_cr_dr(d, op);
    if (mnemonic == ZYDIS_MNEMONIC_LMSW || mnemonic == ZYDIS_MNEMONIC_SMSW) {
        op->fn = mnemonic == ZYDIS_MNEMONIC_LMSW ? op_lmsw : op_smsw;
        bind_rm(d, op, 0);
        d->ends_block = mnemonic == ZYDIS_MNEMONIC_LMSW;
        return true;
    }
    if (mnemonic == ZYDIS_MNEMONIC_INVPCID) {
        op->fn = op_invpcid;
        bind_reg(d->operands[0].reg.value, &op->dst, &shift);
        d->ends_block = true;
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(bases); i++) {
        if (mnemonic == bases[i].mnemonic) {
            op->fn = bases[i].fn;
            op->src = bases[i].seg;
            op->size = (uint8_t)(d->operands[0].size / 8);
            bind_reg(d->operands[0].reg.value, &op->dst, &shift);
            return true;
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        if (mnemonic == table[i].mnemonic) {
            op->fn = table[i].fn;
            d->ends_block = table[i].ends;
            return true;
        }
    }
    return false;
}

bool bind_system(struct decode *d, struct op *op)
{
    return bind_flags(d, op) || bind_control(d, op) || bind_segment(d, op) || bind_far(d, op) ||
           bind_io(d, op);
}
