/*
 * The KVM engine: state in and out, every kind of exit, kicks, the debugger, ring 3. Guests are a
 * few instructions long and keep to plain integer ones in ring 0: some hosts emulate that ring, and
 * not all of it.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "cpu/xstate.h"
#include "dev/lapic.h"
#include "kvm/internal.h"
#include "util/error.h"
#include "util/timer.h"

#define RAM     (UINT64_C(4) << 20)
#define CODE    0x10000
#define GDT     0x8000
#define IDT     0x9000
#define HANDLER 0xa000 /* of interrupts: HLT */
#define PML4    0x20000
#define SKIP    77

/* Guest code of 32 or 64 bits: GUEST32(name, "..."), then load(name). */
#define GUEST(bits, name, text)                                                                    \
    __asm__(".pushsection .rodata\n.code" bits "\n" #name "_start:\n" text "\n" #name              \
            "_end:\n.code64\n.popsection\n");                                                      \
    extern const uint8_t name##_start[], name##_end[]
#define load(name)                                                                                 \
    CHECK(physmem_write(machine.mem, CODE, name##_start, (uint64_t)(name##_end - name##_start)))

static struct machine machine;
static struct vcpu *cpu;
static struct tv_error err;
static pthread_mutex_t device_lock = PTHREAD_MUTEX_INITIALIZER;
static struct device_env env;
static struct lapics *lapics;

/* ---- A machine with one port range and one MMIO range that remember ---- */

static struct {
    unsigned count;
    uint64_t offset[32], value[32];
    unsigned size[32];
} written;

static uint64_t scratch_read(void *device, uint64_t offset, unsigned size)
{
    (void)device;
    return (0x1122334455667788u + offset) & bytes_mask(size);
}

static void scratch_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device;
    if (written.count == ARRAY_SIZE(written.value))
        return;
    written.offset[written.count] = offset;
    written.size[written.count] = size;
    written.value[written.count++] = value;
}

static const struct io_ops scratch = {.read = scratch_read, .write = scratch_write};

static void on_intr(void *opaque, bool asserted)
{
    (void)opaque;
    atomic_store(&cpu->intr_asserted, asserted);
    if (asserted)
        vcpu_notify(cpu, ATT_INTR);
}

static void on_nmi(void *opaque)
{
    (void)opaque;
    vcpu_notify(cpu, ATT_NMI);
}

static void ignore(void *opaque)
{
    (void)opaque;
}

static void ignore_sipi(void *opaque, uint8_t vector)
{
    (void)opaque;
    (void)vector;
}

static const struct lapic_cpu_ops lapic_ops = {
    .intr = on_intr, .nmi = on_nmi, .smi = ignore, .init = ignore, .sipi = ignore_sipi};

static void put64(uint64_t gpa, uint64_t value)
{
    CHECK(physmem_write(machine.mem, gpa, &value, sizeof value));
}

static void build_tables(void)
{
    put64(GDT + 8, UINT64_C(0x00cf9b000000ffff));  /* 08: 32-bit code */
    put64(GDT + 16, UINT64_C(0x00cf93000000ffff)); /* 10: data */
    put64(GDT + 24, UINT64_C(0x00af9b000000ffff)); /* 18: 64-bit code */
    for (unsigned v = 0; v < 256; v++)
        put64(IDT + 8 * v, UINT64_C(0x00008e0000080000) | (HANDLER + v));
    for (unsigned v = 0; v < 256; v++)
        CHECK(physmem_write(machine.mem, HANDLER + v, "\xf4", 1));
    put64(PML4, (PML4 + 0x1000) | 7);
    put64(PML4 + 0x1000, (PML4 + 0x2000) | 7);
    for (unsigned i = 0; i < 2; i++)
        put64(PML4 + 0x2000 + 8 * i, (uint64_t)i << 21 | 0x87);
}

/* 32-bit protected mode without paging, flat, at the code. */
static void reset(void)
{
    memset(&written, 0, sizeof written);
    atomic_store(&cpu->attention, 0);
    cpu_reset(cpu, false);
    lapic_init_reset(cpu->lapic);
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE;
    for (unsigned i = 0; i < SREGS; i++)
        cpu->seg[i] = (struct segment){0x10, 0x93 | SEG_DB | SEG_G, 0xffffffff, 0};
    cpu->seg[CS] = (struct segment){8, 0x9b | SEG_DB | SEG_G, 0xffffffff, 0};
    cpu->gdtr = (struct table_register){GDT, 31};
    cpu->idtr = (struct table_register){IDT, 0x7ff};
    cpu->gpr[RSP] = 0x7000;
    cpu->rip = CODE;
    cpu->activity = ACTIVITY_RUNNING;
    cpu_state_changed(cpu);
    kvm_engine.state_changed(cpu);
}

static void enter_64bit(unsigned cpl)
{
    cpu->cr0 |= CR0_PG | CR0_WP;
    cpu->cr3 = PML4;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    cpu->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    uint32_t dpl = cpl << SEG_DPL_SHIFT;
    for (unsigned i = 0; i < SREGS; i++)
        cpu->seg[i] =
            (struct segment){(uint16_t)(0x10 | cpl), 0x93 | dpl | SEG_DB | SEG_G, 0xffffffff, 0};
    cpu->seg[CS] =
        (struct segment){(uint16_t)(0x18 | cpl), 0x9b | dpl | SEG_L | SEG_G, 0xffffffff, 0};
    cpu_state_changed(cpu);
    kvm_engine.state_changed(cpu);
}

static enum vcpu_exit run(void)
{
    err.message[0] = 0;
    enum vcpu_exit exit = kvm_engine.run(cpu, &err);
    if (exit == VCPU_EXIT_ERROR)
        fprintf(stderr, "%s\n", err.message);
    return exit;
}

static void run_to_halt(void)
{
    CHECK(run() == VCPU_EXIT_HALT);
    CHECK(cpu->activity == ACTIVITY_HALTED);
}

/* ---- State ---- */

static uint64_t pattern(unsigned n)
{
    return UINT64_C(0x9e3779b97f4a7c15) * (n + 1);
}

static void fill_state(void)
{
    enter_64bit(0);
    for (unsigned i = 0; i < 16; i++)
        cpu->gpr[i] = pattern(i);
    cpu->rip = 0xffff800012345678;
    cpu_set_rflags(cpu, FLAG_ONE | FLAG_CF | FLAG_OF | FLAG_DF | FLAG_AC | FLAG_ID);
    cpu->cr2 = 0xffff812345678000;
    cpu->seg[FS].base = 0x7f0012345678;
    cpu->seg[GS].base = 0xffff888800000000;
    cpu->ldtr = (struct segment){0x38, SEG_P | SYS_LDT, 0x67, 0xffff800000001000};
    cpu->tr = (struct segment){0x40, SEG_P | SYS_TSS_BUSY, 0x2067, 0xffff800000003000};
    cpu->gdtr = (struct table_register){0xffff800000005000, 0x7f};
    cpu->idtr = (struct table_register){0xffff800000006000, 0xfff};
    for (unsigned i = 0; i < 4; i++)
        cpu->dr[i] = 0x1000 * (i + 1);
    cpu->dr[7] = 0x455;
    cpu->star = UINT64_C(0x0023001000000000);
    cpu->lstar = 0xffffffff81000000;
    cpu->cstar = 0xffffffff82000000;
    cpu->sfmask = 0x47700;
    cpu->kernel_gs_base = 0xffff999900000000;
    cpu->sysenter_cs = 0x10;
    cpu->sysenter_esp = 0xfffffe0000001000;
    cpu->sysenter_eip = 0xffffffff83000000;
    cpu->tsc_aux = 3;
    cpu->pat = 0x0007010600070106;
    cpu->fpu.fx.fcw = 0x27f;
    cpu->fpu.fx.mxcsr = 0x1fa0;
    cpu->fpu.fx.ftw = 0x81;
    cpu->fpu.fx.st[0][0] = 0x5a;
    cpu->xcr0 = cpu->machine->cpuid.xcr0_supported;
    if (cpu->xcr0 != 1)
        cpu->cr4 |= CR4_OSXSAVE;
    for (unsigned i = 0; i < 32; i++) {
        bool there = i < 16 || cpu->xcr0 >> XSTATE_HI16_ZMM & 1;
        unsigned bytes = cpu->xcr0 >> XSTATE_ZMM_HI256 & 1 ? 64
                         : cpu->xcr0 >> XSTATE_AVX & 1     ? 32
                                                           : 16;
        for (unsigned j = 0; there && j < bytes; j++)
            cpu->fpu.zmm[i][j] = (uint8_t)(i * 7 + j);
    }
    for (unsigned i = 0; i < 8 && cpu->xcr0 >> XSTATE_OPMASK & 1; i++)
        cpu->fpu.k[i] = pattern(i + 40);
}

/* What is in KVM comes back as it went in. */
static void test_round_trip(void)
{
    reset();
    fill_state();
    cpu->nmi_blocked = true;
    cpu->pending =
        (struct pending_event){.valid = true, .has_error = true, .vector = VEC_GP, .error = 0x18};
    struct vcpu *before = aligned_alloc(64, ALIGN_UP(sizeof *before, (size_t)64));
    *before = *cpu;
    CHECK(kvm_state_load(cpu, &err) == 0);
    CHECK(!cpu->pending.valid);
    struct kvm_vcpu *k = cpu->kvm;
    struct machine *m = cpu->machine;
    struct lapic *lapic = cpu->lapic;
    memset(cpu, 0xa5, sizeof *cpu);
    cpu->kvm = k;
    cpu->machine = m;
    cpu->lapic = lapic;
    cpu->index = before->index;
    cpu->wake = before->wake;
    atomic_store(&cpu->attention, 0);
    CHECK(kvm_state_store(cpu, &err) == 0);

    CHECK(memcmp(cpu->gpr, before->gpr, sizeof cpu->gpr) == 0);
    CHECK(cpu->rip == before->rip);
    CHECK(cpu_rflags(cpu) == cpu_rflags(before));
    CHECK(cpu->cr0 == before->cr0 && cpu->cr2 == before->cr2 && cpu->cr3 == before->cr3);
    CHECK(cpu->cr4 == before->cr4 && cpu->efer == before->efer);
    CHECK(before->xcr0 == 1 || cpu->xcr0 == before->xcr0);
    for (unsigned i = 0; i < SREGS; i++) {
        CHECK(cpu->seg[i].selector == before->seg[i].selector);
        CHECK(cpu->seg[i].base == before->seg[i].base);
        CHECK(cpu->seg[i].limit == before->seg[i].limit);
        CHECK(cpu->seg[i].attr == before->seg[i].attr);
    }
    CHECK(cpu->tr.base == before->tr.base && cpu->tr.attr == before->tr.attr);
    CHECK(cpu->ldtr.base == before->ldtr.base && cpu->ldtr.limit == before->ldtr.limit);
    CHECK(cpu->gdtr.base == before->gdtr.base && cpu->gdtr.limit == before->gdtr.limit);
    CHECK(cpu->idtr.base == before->idtr.base && cpu->idtr.limit == before->idtr.limit);
    CHECK(memcmp(cpu->dr, before->dr, 4 * sizeof cpu->dr[0]) == 0);
    CHECK(cpu->dr[6] == before->dr[6] && cpu->dr[7] == before->dr[7]);
    CHECK(cpu->star == before->star && cpu->lstar == before->lstar);
    CHECK(cpu->cstar == before->cstar && cpu->sfmask == before->sfmask);
    CHECK(cpu->kernel_gs_base == before->kernel_gs_base && cpu->pat == before->pat);
    CHECK(cpu->sysenter_cs == before->sysenter_cs);
    CHECK(cpu->sysenter_esp == before->sysenter_esp && cpu->sysenter_eip == before->sysenter_eip);
    CHECK(cpu->fpu.fx.fcw == before->fpu.fx.fcw && cpu->fpu.fx.ftw == before->fpu.fx.ftw);
    CHECK(cpu->fpu.fx.mxcsr == before->fpu.fx.mxcsr);
    CHECK(memcmp(cpu->fpu.fx.st[0], before->fpu.fx.st[0], 10) == 0);
    unsigned registers = before->xcr0 >> XSTATE_HI16_ZMM & 1 ? 32 : 16;
    unsigned bytes = before->xcr0 >> XSTATE_ZMM_HI256 & 1 ? 64 : 16;
    for (unsigned i = 0; i < registers; i++)
        CHECK(memcmp(cpu->fpu.zmm[i], before->fpu.zmm[i], bytes) == 0);
    if (before->xcr0 >> XSTATE_OPMASK & 1)
        CHECK(memcmp(cpu->fpu.k, before->fpu.k, sizeof cpu->fpu.k) == 0);
    CHECK(cpu->cpl == 0);
    CHECK(cpu->nmi_blocked);
    CHECK(cpu->pending.valid && cpu->pending.vector == VEC_GP && cpu->pending.has_error &&
          cpu->pending.error == 0x18);
    *cpu = *before;
    free(before);
}

/* ---- Exits ---- */

GUEST("32", ports,
      "mov $0x500, %dx; mov $0x12, %al; out %al, %dx; mov $0x3456, %ax; out %ax, %dx\n"
      "mov $0x789abcde, %eax; add $4, %dx; out %eax, %dx; in %dx, %eax; mov %eax, %ebx\n"
      "xor %eax, %eax; in %dx, %ax; hlt");

static void test_ports(void)
{
    reset();
    load(ports);
    run_to_halt();
    CHECK(written.count == 3);
    CHECK(written.size[0] == 1 && written.value[0] == 0x12 && written.offset[0] == 0);
    CHECK(written.size[1] == 2 && written.value[1] == 0x3456);
    CHECK(written.size[2] == 4 && written.value[2] == 0x789abcde && written.offset[2] == 4);
    CHECK(cpu->gpr[RBX] == 0x5566778c);
    CHECK(cpu->gpr[RAX] == 0x778c);
    CHECK(cpu->rip == CODE + (uint64_t)(ports_end - ports_start));
}

GUEST("32", strings,
      "cld; mov $0x500, %dx; mov $0x30000, %esi; mov $5, %ecx; rep outsb\n"
      "mov $0x31000, %edi; mov $3, %ecx; rep insl; hlt");

static void test_string_ports(void)
{
    reset();
    load(strings);
    CHECK(physmem_write(machine.mem, 0x30000, "abcde", 5));
    run_to_halt();
    CHECK(written.count == 5);
    for (unsigned i = 0; i < 5; i++)
        CHECK(written.value[i] == 'a' + i);
    CHECK(cpu->gpr[RSI] == 0x30005 && cpu->gpr[RDI] == 0x3100c && cpu->gpr[RCX] == 0);
    uint32_t in[3] = {0};
    CHECK(physmem_read(machine.mem, 0x31000, in, sizeof in));
    for (unsigned i = 0; i < 3; i++)
        CHECK(in[i] == 0x55667788);
}

GUEST("32", memory,
      "movl $0xd0000000, %ebx; movl $0xcafe, (%ebx); movb $7, 9(%ebx)\n"
      "movw $0x1234, 3(%ebx); mov 8(%ebx), %eax; hlt");

static void test_mmio(void)
{
    reset();
    load(memory);
    run_to_halt();
    CHECK(written.count == 3);
    CHECK(written.offset[0] == 0 && written.size[0] == 4 && written.value[0] == 0xcafe);
    CHECK(written.offset[1] == 9 && written.size[1] == 1 && written.value[1] == 7);
    CHECK(written.offset[2] == 3 && written.size[2] == 2 && written.value[2] == 0x1234);
    CHECK(cpu->gpr[RAX] == 0x55667790);
}

GUEST("32", local_apic, "mov 0xfee00030, %eax; movl $0x1ff, 0xfee000f0; mov 0xfee000f0, %ebx; hlt");

static void test_lapic_page(void)
{
    reset();
    load(local_apic);
    run_to_halt();
    CHECK(cpu->gpr[RAX] == lapic_mmio_read(cpu->lapic, 0x30, 4));
    CHECK(cpu->gpr[RBX] == 0x1ff);
}

GUEST("32", cpuid_and_msrs,
      "mov $0x40000000, %eax; cpuid; mov %ebx, %ebp; mov %ecx, %esi\n"
      "mov $0x3b, %ecx; mov $5, %eax; xor %edx, %edx; wrmsr\n"       /* TSC_ADJUST: ours */
      "mov $0xfe, %ecx; rdmsr; mov %eax, %edi\n"                     /* MTRRCAP: ours */
      "mov $0xc0000081, %ecx; mov $9, %eax; xor %edx, %edx; wrmsr\n" /* STAR: KVM's */
      "hlt");

static void test_cpuid_and_msrs(void)
{
    reset();
    load(cpuid_and_msrs);
    run_to_halt();
    CHECK(cpu->gpr[RBP] == 0x61774d56 && cpu->gpr[RSI] == 0x4d566572); /* VMwareVM */
    CHECK(cpu->tsc_adjust == 5);
    CHECK((cpu->gpr[RDI] & 0xff) == 8);
    CHECK(cpu->star == 9);
    CHECK(cpu->rip == CODE + (uint64_t)(cpuid_and_msrs_end - cpuid_and_msrs_start));
}

GUEST("32", no_such_msr, "mov $0x12345678, %ecx; rdmsr");

static void test_unknown_msr(void)
{
    reset();
    load(no_such_msr);
    run_to_halt();
    CHECK(cpu->rip == HANDLER + VEC_GP + 1);
}

GUEST("32", x2apic,
      "mov $0x1b, %ecx; rdmsr; or $0x400, %eax; wrmsr\n"
      "mov $0x808, %ecx; mov $0x20, %eax; xor %edx, %edx; wrmsr\n"
      "mov $0x802, %ecx; rdmsr; mov %eax, %ebx; mov $0x803, %ecx; rdmsr; hlt");

static void test_x2apic(void)
{
    reset();
    load(x2apic);
    run_to_halt();
    CHECK(lapic_base(cpu->lapic) & APICBASE_X2APIC);
    CHECK(lapic_cr8(cpu->lapic) == 2);
    CHECK(cpu->gpr[RBX] == 0);
    CHECK((cpu->gpr[RAX] & 0xff) == 0x14);
    CHECK(lapic_set_base(cpu->lapic, 0xfee00000 | APICBASE_BSP));
    CHECK(lapic_set_base(cpu->lapic, 0xfee00000 | APICBASE_BSP | APICBASE_ENABLE));
}

/* The guest's clock is the machine's. */
GUEST("32", clock, "rdtsc; hlt");

static void test_tsc(void)
{
    reset();
    load(clock);
    uint64_t before = cpu_read_tsc(cpu);
    run_to_halt();
    uint64_t guest = (cpu->gpr[RDX] << 32) | (uint32_t)cpu->gpr[RAX];
    CHECK(guest >= before);
    CHECK(guest <= cpu_read_tsc(cpu));
}

GUEST("32", triple, "ud2; hlt");

static void test_shutdown(void)
{
    reset();
    load(triple);
    cpu->idtr.limit = 0;
    CHECK(run() == VCPU_EXIT_SHUTDOWN);
}

/* ---- Interrupts ---- */

static void enable_apic(void)
{
    lapic_mmio_write(cpu->lapic, 0xf0, 4, 0x1ff);
}

static void post(uint8_t vector)
{
    const struct apic_message m = {.destination = 0, .vector = vector};
    CHECK(lapics_deliver(lapics, &m));
}

GUEST("32", spin, "1: inc %ecx; jmp 1b");
GUEST("32", open_late, "mov $50, %ecx; 1: dec %ecx; jnz 1b; sti; 2: inc %edx; jmp 2b");

static void test_interrupt(void)
{
    reset();
    load(spin);
    enable_apic();
    cpu->rflags |= FLAG_IF;
    post(0x51);
    run_to_halt();
    CHECK(cpu->rip == HANDLER + 0x51 + 1);
    CHECK(!(cpu->rflags & FLAG_IF));
    CHECK(!lapic_has_interrupt(cpu->lapic));

    /* The guest opens itself later. */
    reset();
    load(open_late);
    enable_apic();
    post(0x61);
    run_to_halt();
    CHECK(cpu->rip == HANDLER + 0x61 + 1);
    CHECK(cpu->gpr[RCX] == 0);

    /* One that is masked by priority waits; NMI does not. */
    reset();
    load(spin);
    enable_apic();
    lapic_set_cr8(cpu->lapic, 8);
    cpu->rflags |= FLAG_IF;
    post(0x41);
    vcpu_notify(cpu, ATT_NMI);
    run_to_halt();
    CHECK(cpu->rip == HANDLER + VEC_NMI + 1);
    CHECK(cpu->nmi_blocked);
    CHECK(!lapic_has_interrupt(cpu->lapic));
}

/* An interrupt that an access brings about comes right after its instruction, also where that
 * faults. */
static void interrupt_on_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device;
    (void)size;
    (void)value;
    post((uint8_t)(0x70 + offset));
}

static const struct io_ops interrupter = {.read = scratch_read, .write = interrupt_on_write};

GUEST("32", raise, "mov $0x700, %dx; out %al, %dx; 1: inc %ecx; jmp 1b");
GUEST("32", raise_and_fault,
      "mov $0x701, %dx; sti; nop; cli; out %al, %dx; mov $0x12345678, %ecx; sti; rdmsr");

static void test_interrupt_by_access(void)
{
    reset();
    load(raise);
    enable_apic();
    cpu->rflags |= FLAG_IF;
    run_to_halt();
    CHECK(cpu->rip == HANDLER + 0x70 + 1);
    uint32_t frame[3] = {0};
    CHECK(physmem_read(machine.mem, cpu->gpr[RSP], frame, sizeof frame));
    CHECK(frame[0] == CODE + 5 && frame[1] == 8);

    /* The interrupt is due at the instruction after STI, which faults: whichever comes first, the
     * other is not lost. */
    reset();
    load(raise_and_fault);
    enable_apic();
    run_to_halt();
    if (cpu->rip == HANDLER + VEC_GP + 1)
        CHECK(lapic_has_interrupt(cpu->lapic));
    else
        CHECK(cpu->rip == HANDLER + 0x71 + 1);
}

/* ---- Kicks ---- */

static void *stop_soon(void *opaque)
{
    (void)opaque;
    const struct timespec wait = {0, 5000000};
    nanosleep(&wait, NULL);
    vcpu_notify(cpu, ATT_STOP);
    return NULL;
}

static void test_kick(void)
{
    reset();
    load(spin);
    for (unsigned i = 0; i < 10; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, stop_soon, NULL) == 0);
        CHECK(run() == VCPU_EXIT_ATTENTION);
        CHECK(cpu->rip >= CODE && cpu->rip < CODE + 4);
        pthread_join(thread, NULL);
        atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_STOP);
    }
    CHECK(cpu->gpr[RCX] > 10);
}

/* A stop that comes while a port access is under way leaves the state after the instruction. */
static void stop_on_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device;
    (void)offset;
    (void)size;
    (void)value;
    vcpu_notify(cpu, ATT_STOP);
}

static uint64_t stop_on_read(void *device, uint64_t offset, unsigned size)
{
    stop_on_write(device, offset, size, 0);
    return 0x77;
}

static const struct io_ops stopper = {.read = stop_on_read, .write = stop_on_write};

GUEST("32", stopping, "mov $0x600, %dx; in %dx, %al; mov 0xd1000000, %ebx; hlt");

static void test_stop_inside_access(void)
{
    reset();
    load(stopping);
    CHECK(run() == VCPU_EXIT_ATTENTION);
    CHECK((cpu->gpr[RAX] & 0xff) == 0x77);
    CHECK(cpu->rip == CODE + 5);
    atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_STOP);
    CHECK(run() == VCPU_EXIT_ATTENTION);
    CHECK(cpu->gpr[RBX] == 0x77);
    CHECK(cpu->rip == CODE + 11);
    atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_STOP);
    run_to_halt();
}

/* ---- Debugger ---- */

GUEST("32", steps, "nop; inc %eax; inc %ebx; movl $1, 0x30000; nop; nop; hlt");

static void test_debugger(void)
{
    struct debugger *dbg = &machine.debug;
    reset();
    load(steps);
    dbg->single_step = 1;
    for (unsigned i = 0; i < 3; i++) {
        CHECK(run() == VCPU_EXIT_DEBUG);
        CHECK(dbg->hit_step && dbg->hit_vcpu == 0);
        CHECK(cpu->rip == CODE + 1 + i);
        CHECK(!(cpu->rflags & FLAG_TF));
    }
    dbg->single_step = 0;
    run_to_halt();
}

static void test_many_breakpoints(void)
{
    struct debugger *dbg = &machine.debug;
    reset();
    load(steps);
    for (unsigned i = 0; i < 6; i++)
        dbg->points[i] = (struct debug_point){DEBUG_BREAK, CODE + 100 + i, 1};
    dbg->points[3].address = CODE + 2;
    dbg->count = 6;
    CHECK(run() == VCPU_EXIT_DEBUG);
    CHECK(cpu->rip == CODE + 2 && !dbg->hit_step && dbg->hit_point.address == CODE + 2);
    dbg->count = 0;
    vcpu_notify(cpu, ATT_DEBUG);
    run_to_halt();
}

/* ---- Ring 3 ---- */

GUEST("64", ring3,
      "mov $100000, %ecx; xor %eax, %eax; 1: add %rcx, %rax; dec %ecx; jnz 1b\n"
      "movq %rax, %xmm3; movq %xmm3, %rbx; mov %rbx, 0x30000; mov $0x500, %dx; mov $1, %al\n"
      "out %al, %dx; 2: jmp 2b");

static void test_ring3(void)
{
    reset();
    load(ring3);
    enter_64bit(3);
    cpu->rflags |= FLAG_IOPL; /* ports are open to it */
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, stop_soon, NULL) == 0);
    CHECK(run() == VCPU_EXIT_ATTENTION);
    pthread_join(thread, NULL);
    CHECK(cpu->cpl == 3);
    while (cpu->rip < CODE + 20) { /* a slow host */
        atomic_store(&cpu->attention, 0);
        pthread_create(&thread, NULL, stop_soon, NULL);
        CHECK(run() == VCPU_EXIT_ATTENTION);
        pthread_join(thread, NULL);
    }
    CHECK(cpu->gpr[RBX] == UINT64_C(100000) * 100001 / 2);
    uint64_t sum = 0;
    CHECK(physmem_read(machine.mem, 0x30000, &sum, 8) && sum == cpu->gpr[RBX]);
    CHECK(written.count == 1 && written.value[0] == 1);
}

static void set_up(void)
{
    vclock_init(&machine.clock);
    bus_init(&machine.pio, &device_lock);
    bus_init(&machine.mmio, &device_lock);
    CHECK(bus_add(&machine.pio, 0x500, 16, &scratch, NULL, "scratch"));
    CHECK(bus_add(&machine.mmio, 0xd0000000, 4096, &scratch, NULL, "scratch"));
    CHECK(bus_add(&machine.pio, 0x600, 16, &stopper, NULL, "stopper"));
    CHECK(bus_add(&machine.mmio, 0xd1000000, 4096, &stopper, NULL, "stopper"));
    CHECK(bus_add(&machine.pio, 0x700, 16, &interrupter, NULL, "interrupter"));
    CHECK(cpuid_build(&machine.cpuid, "host", CPUID_FOR_KVM, 1, machine.clock.tsc_hz, &err) == 0);
    cpuid_set_hypervisor(&machine.cpuid, TV_HYPERVISOR_VMWARE, machine.clock.tsc_hz);
    machine.mem = physmem_create(RAM, false, &err);
    cpu = aligned_alloc(64, ALIGN_UP(sizeof *cpu, (size_t)64));
    memset(cpu, 0, sizeof *cpu);
    cpu->machine = &machine;
    cpu->wake = kvm_engine.kick;
    machine.vcpus[0] = cpu;
    machine.vcpu_count = 1;
    env = (struct device_env){.pio = &machine.pio,
                              .mmio = &machine.mmio,
                              .mem = machine.mem,
                              .clock = &machine.clock,
                              .log = &machine.log,
                              .lock = &device_lock};
    env.timers = timers_create(&machine.clock, &device_lock);
    lapics = lapics_create(&env);
    cpu->lapic = lapic_create(lapics, &env, 0, true, &lapic_ops, cpu);
    build_tables();
}

int main(void)
{
    int fd = kvm_open(&err);
    if (fd < 0) {
        printf("skipped: %s\n", err.message);
        return SKIP;
    }
    close(fd);
    alarm(60);
    set_up();
    if (kvm_engine.machine_init(&machine, &err) < 0 || kvm_engine.vcpu_init(cpu, &err) < 0) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    static const struct {
        const char *name;
        void (*test)(void);
    } tests[] = {
        {"state", test_round_trip},
        {"ports", test_ports},
        {"string ports", test_string_ports},
        {"MMIO", test_mmio},
        {"local APIC page", test_lapic_page},
        {"CPUID and MSRs", test_cpuid_and_msrs},
        {"unknown MSR", test_unknown_msr},
        {"x2APIC", test_x2apic},
        {"TSC", test_tsc},
        {"shutdown", test_shutdown},
        {"interrupts", test_interrupt},
        {"interrupt by an access", test_interrupt_by_access},
        {"kicks", test_kick},
        {"stop inside an access", test_stop_inside_access},
        {"single steps", test_debugger},
        {"many breakpoints", test_many_breakpoints},
        {"ring 3", test_ring3},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
        int before = check_failures;
        tests[i].test();
        if (check_failures != before)
            fprintf(stderr, "in: %s\n", tests[i].name);
    }
    kvm_engine.print_stats(&machine, stdout);
    kvm_engine.vcpu_fini(cpu);
    kvm_engine.machine_fini(&machine);
    timers_destroy(env.timers);
    devices_destroy(&env);
    physmem_destroy(machine.mem);
    free(cpu);
    return check_result();
}
