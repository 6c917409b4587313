#include "cpu/cpu.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/machine.h"
#include "dev/lapic.h"

#define PAT_RESET UINT64_C(0x0007040600070406)

struct vcpu *vcpu_create(struct machine *m, unsigned index)
{
    struct vcpu *cpu = mmap(NULL, sizeof *cpu, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                            -1, 0);
    if (cpu == MAP_FAILED)
        return NULL;
    cpu->index = index;
    cpu->machine = m;
    return cpu;
}

void vcpu_destroy(struct vcpu *cpu)
{
    if (cpu)
        munmap(cpu, sizeof *cpu);
}

/* SDM vol. 3, table 9-1: what RESET and INIT do alike, then what RESET does alone. */
void cpu_reset(struct vcpu *cpu, bool init)
{
    memset(cpu->gpr, 0, sizeof cpu->gpr);
    const struct cpuid_leaf *version = cpuid_find(&cpu->machine->cpuid, 1, 0);
    cpu->gpr[RDX] = version ? version->eax : 0x600;
    cpu->rip = 0xfff0;
    cpu_set_rflags(cpu, FLAG_ONE);

    const struct segment data = {.attr = SEG_P | SEG_S | SEG_WRITE | SEG_ACCESSED, .limit = 0xffff};
    for (unsigned i = 0; i < SREGS; i++)
        cpu->seg[i] = data;
    cpu->seg[CS].selector = 0xf000;
    cpu->seg[CS].base = 0xffff0000;
    cpu->seg[CS].attr |= SEG_CODE;
    cpu->ldtr = (struct segment){.attr = SEG_P | SYS_LDT, .limit = 0xffff};
    cpu->tr = (struct segment){.attr = SEG_P | SYS_TSS_BUSY, .limit = 0xffff};
    cpu->gdtr = cpu->idtr = (struct table_register){0, 0xffff};

    /* INIT leaves the cache bits of CR0 alone. */
    cpu->cr0 = CR0_ET | (init ? cpu->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW);
    cpu->cr2 = cpu->cr3 = cpu->cr4 = 0;
    cpu->efer = 0;
    memset(cpu->dr, 0, sizeof cpu->dr);
    cpu->dr[6] = 0xffff0ff0;
    cpu->dr[7] = 0x400;
    cpu->int_shadow = 0;
    cpu->nmi_blocked = false;
    cpu->pending.valid = false;
    cpu->pending_db = 0;
    cpu->in_single_step = false;
    cpu->activity = cpu->index == 0 ? ACTIVITY_RUNNING : ACTIVITY_WAIT_SIPI;

    if (!init) {
        memset(&cpu->fpu, 0, sizeof cpu->fpu);
        cpu->fpu.fx.fcw = 0x40;
        cpu->fpu.fx.ftw = 0xff; /* all registers zero, tagged so */
        cpu->fpu.fx.mxcsr = 0x1f80;
        cpu->xcr0 = 1;
        cpu->xss = 0;
        cpu->star = cpu->lstar = cpu->cstar = cpu->sfmask = cpu->kernel_gs_base = cpu->tsc_aux = 0;
        cpu->sysenter_cs = cpu->sysenter_esp = cpu->sysenter_eip = 0;
        cpu->pat = PAT_RESET;
        cpu->misc_enable = 1; /* fast strings */
        cpu->tsc_adjust = 0;
        /* The time base starts with the machine; one offset for all keeps their TSCs in step. */
        cpu->tsc_offset = 0;
        if (cpu->lapic)
            lapic_set_tsc_offset(cpu->lapic, 0);
        cpu->spec_ctrl = 0;
        cpu->mtrr_def_type = 0;
        memset(cpu->mtrr_fixed, 0, sizeof cpu->mtrr_fixed);
        memset(cpu->mtrr_phys, 0, sizeof cpu->mtrr_phys);
        cpu->mcg_status = 0;
        memset(cpu->mce_bank, 0, sizeof cpu->mce_bank);
        cpu->instructions = 0;
    }
    cpu_state_changed(cpu);
}

void cpu_state_changed(struct vcpu *cpu)
{
    if (!(cpu->cr0 & CR0_PE))
        cpu->cpl = 0;
    else if (cpu->rflags & FLAG_VM)
        cpu->cpl = 3;
    else
        cpu->cpl = cpu->seg[SS].attr >> SEG_DPL_SHIFT & 3;
}

void cpu_print(const struct vcpu *cpu, char *buf, unsigned long size)
{
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15"};
    static const char *const segments[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    size_t at = 0;
#define PRINT(...)                                                                                 \
    do {                                                                                           \
        int n_ = snprintf(buf + at, size - at, __VA_ARGS__);                                       \
        at = MIN(size - 1, at + (size_t)MAX(n_, 0));                                               \
    } while (0)
    PRINT("cpu%u rip %016" PRIx64 " rflags %08x cpl %u%s\n", cpu->index, cpu->rip, cpu_rflags(cpu),
          cpu->cpl, cpu->activity == ACTIVITY_HALTED ? " halted" : "");
    for (unsigned i = 0; i < 16; i++)
        PRINT("%s %016" PRIx64 "%s", names[i], cpu->gpr[i], i % 4 == 3 ? "\n" : "  ");
    for (unsigned i = 0; i < SREGS; i++)
        PRINT("%s %04x base %016" PRIx64 " limit %08x attr %05x\n", segments[i],
              cpu->seg[i].selector, cpu->seg[i].base, cpu->seg[i].limit, cpu->seg[i].attr);
    PRINT("tr %04x base %016" PRIx64 " limit %08x  ldt %04x base %016" PRIx64 "\n",
          cpu->tr.selector, cpu->tr.base, cpu->tr.limit, cpu->ldtr.selector, cpu->ldtr.base);
    PRINT("gdt %016" PRIx64 "/%04x idt %016" PRIx64 "/%04x\n", cpu->gdtr.base, cpu->gdtr.limit,
          cpu->idtr.base, cpu->idtr.limit);
    PRINT("cr0 %08" PRIx64 " cr2 %016" PRIx64 " cr3 %016" PRIx64 " cr4 %08" PRIx64
          " efer %04" PRIx64 "\n",
          cpu->cr0, cpu->cr2, cpu->cr3, cpu->cr4, cpu->efer);
    PRINT("dr0 %" PRIx64 " dr1 %" PRIx64 " dr2 %" PRIx64 " dr3 %" PRIx64 " dr6 %" PRIx64
          " dr7 %" PRIx64 "\n",
          cpu->dr[0], cpu->dr[1], cpu->dr[2], cpu->dr[3], cpu->dr[6], cpu->dr[7]);
#undef PRINT
}
