/*
 * Saving and restoring the vector state (SDM vol. 1, chapter 13): FXSAVE, FXRSTOR, the XSAVE
 * family, XGETBV, XSETBV, MXCSR, and the x87 instructions that only look at or replace its control
 * state.
 */
#include "interp/vector.h"

#include "cpu/xstate.h"

#define HEADER_BV       0 /* XSTATE_BV, in the header at offset 512 */
#define HEADER_XCOMP    8
#define XCOMP_COMPACTED BIT64(63)

/* ---- Checks ---- */

void vector_check_x87(struct vcpu *cpu, const struct op *op)
{
    if (cpu->cr0 & (CR0_EM | CR0_TS))
        interp_raise(cpu, op, VEC_NM);
}

void vector_check_x87_pending(struct vcpu *cpu, const struct op *op)
{
    if (!(cpu->fpu.fx.fsw & 0x80)) /* ES */
        return;
    /* With CR0.NE clear, the PC's FERR# raises IRQ 13 instead; nobody has used that since the 486.
     */
    interp_raise(cpu, op, VEC_MF);
}

void vector_check_sse(struct vcpu *cpu, const struct op *op)
{
    if ((cpu->cr0 & CR0_EM) || !(cpu->cr4 & CR4_OSFXSR))
        interp_raise(cpu, op, VEC_UD);
    if (cpu->cr0 & CR0_TS)
        interp_raise(cpu, op, VEC_NM);
}

static uint64_t operand_address(struct vcpu *cpu, const struct op *op, unsigned size, bool write)
{
    return interp_linear(cpu, op, op->seg, op_effective_address(cpu, op), size, write);
}

static void need_aligned(struct vcpu *cpu, const struct op *op, uint64_t at, unsigned alignment)
{
    if (at & (alignment - 1))
        interp_raise_error(cpu, op, VEC_GP, 0);
}

/* The x87 environment is a table of words or doublewords. */
static uint64_t environment_address(struct vcpu *cpu, const struct op *op, unsigned size,
                                    bool write)
{
    /* It is accessed from the first entry on: that one's page fault comes before the segment's end.
     */
    unsigned entry = op->size == 2 ? 2 : 4;
    uint64_t first = operand_address(cpu, op, entry, write);
    vector_check_alignment(cpu, op, first, entry);
    if (write)
        interp_probe_write(cpu, op, first, entry);
    else
        interp_load(cpu, op, first, entry);
    uint64_t at = operand_address(cpu, op, size, write);
    vector_check_alignment(cpu, op, at, op->size == 2 ? 2 : 4);
    return at;
}

/* ---- FXSAVE, FXRSTOR: op->aux is set with REX.W (64-bit FIP and FDP) ---- */

#define MXCSR_MASK 0x2ffffu

static uint32_t mxcsr_mask(const struct vcpu *cpu)
{
    /* Misaligned exception mask (bit 17) is AMD's. */
    return CPUID_HAS(&cpu->machine->cpuid, 0x80000001, 0, ecx, 7) ? MXCSR_MASK : 0xffffu;
}

/* Without REX.W the pointers are 32 bits of offset and a selector. */
static void narrow_pointers(const struct vcpu *cpu, struct fxsave *image)
{
    image->fip = (uint32_t)image->fip | (uint64_t)cpu->fpu.fcs << 32;
    image->fdp = (uint32_t)image->fdp | (uint64_t)cpu->fpu.fds << 32;
}

/* The reverse, in place, after the image was loaded. */
static void take_pointers(struct vcpu *cpu, bool wide)
{
    struct fxsave *fx = &cpu->fpu.fx;
    cpu->fpu.fcs = wide ? 0 : (uint16_t)(fx->fip >> 32);
    cpu->fpu.fds = wide ? 0 : (uint16_t)(fx->fdp >> 32);
    if (!wide) {
        fx->fip = (uint32_t)fx->fip;
        fx->fdp = (uint32_t)fx->fdp;
    }
}

static bool fast_fxsr(const struct vcpu *cpu)
{
    return (cpu->efer & EFER_FFXSR) && cpu->cpl == 0 && cpu_64bit(cpu);
}

static void op_fxsave(struct vcpu *cpu, const struct op *op)
{
    vector_check_x87(cpu, op);
    struct fxsave image;
    uint64_t at = operand_address(cpu, op, 512, true);
    need_aligned(cpu, op, at, 16);
    interp_load_bytes(cpu, op, at, &image, sizeof image); /* what is not written keeps its value */
    memcpy(&image, &cpu->fpu.fx, 24);
    memcpy(image.st, cpu->fpu.fx.st, sizeof image.st);
    image.mxcsr = cpu->fpu.fx.mxcsr;
    image.mxcsr_mask = mxcsr_mask(cpu);
    if (!op->aux)
        narrow_pointers(cpu, &image);
    unsigned xmms = cpu_64bit(cpu) ? 16 : 8;
    if (!fast_fxsr(cpu))
        for (unsigned i = 0; i < xmms; i++)
            memcpy(image.xmm[i], cpu->fpu.zmm[i], 16);
    interp_store_bytes(cpu, op, at, &image, sizeof image);
    NEXT(cpu, op);
}

static void op_fxrstor(struct vcpu *cpu, const struct op *op)
{
    vector_check_x87(cpu, op);
    struct fxsave image;
    uint64_t at = operand_address(cpu, op, 512, false);
    need_aligned(cpu, op, at, 16);
    interp_load_bytes(cpu, op, at, &image, sizeof image);
    if (image.mxcsr & ~mxcsr_mask(cpu))
        interp_raise_error(cpu, op, VEC_GP, 0);
    memcpy(&cpu->fpu.fx, &image, 24);
    take_pointers(cpu, op->aux);
    memcpy(cpu->fpu.fx.st, image.st, sizeof image.st);
    cpu->fpu.fx.mxcsr = image.mxcsr;
    unsigned xmms = cpu_64bit(cpu) ? 16 : 8;
    if (!fast_fxsr(cpu))
        for (unsigned i = 0; i < xmms; i++)
            memcpy(cpu->fpu.zmm[i], image.xmm[i], 16);
    vector_normalize_fsw(cpu);
    NEXT(cpu, op);
}

void vector_set_top(struct vcpu *cpu, unsigned top)
{
    struct fxsave *fx = &cpu->fpu.fx;
    unsigned turn = (top - (fx->fsw >> 11)) & 7;
    uint8_t st[8][16];
    for (unsigned i = 0; i < 8; i++)
        memcpy(st[i], fx->st[(i + turn) & 7], 16);
    memcpy(fx->st, st, sizeof st);
    fx->fsw = (uint16_t)((fx->fsw & ~0x3800u) | top << 11);
}

void vector_enter_mmx(struct vcpu *cpu)
{
    vector_set_top(cpu, 0);
    cpu->fpu.fx.ftw = 0xff;
}

/* ES and B follow from the unmasked exception flags. */
void vector_normalize_fsw(struct vcpu *cpu)
{
    struct fxsave *fx = &cpu->fpu.fx;
    fx->fsw &= 0x7f7f;
    if (fx->fsw & ~fx->fcw & 0x3f)
        fx->fsw |= 0x8080;
}

/* ---- The XSAVE family ---- */

static void check_xsave(struct vcpu *cpu, const struct op *op)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        interp_raise(cpu, op, VEC_UD);
    if (cpu->cr0 & CR0_TS)
        interp_raise(cpu, op, VEC_NM);
}

static uint64_t requested(const struct vcpu *cpu, bool supervisor)
{
    uint64_t mask = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
    return mask & (cpu->xcr0 | (supervisor ? cpu->xss : 0));
}

static uint64_t in_use(const struct vcpu *cpu, uint64_t mask)
{
    uint64_t used = 0;
    for (unsigned i = 0; i < XSTATE_COMPONENTS; i++)
        if ((mask >> i & 1) && !xstate_is_initial(cpu, i))
            used |= BIT64(i);
    /* The initial MXCSR belongs to SSE's initial state as far as XINUSE goes. */
    if ((mask & BIT64(XSTATE_SSE)) && cpu->fpu.fx.mxcsr != 0x1f80)
        used |= BIT64(XSTATE_SSE);
    return used;
}

/* Offset of component `i` in a compacted image of `components`; *end is after the last. */
static uint32_t compacted_offset(uint64_t components, unsigned component, uint32_t *end)
{
    uint32_t at = XSAVE_AREA_START, found = 0;
    for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
        const struct xstate_component *c = xstate_component(i);
        if (!(components >> i & 1))
            continue;
        if (c->aligned)
            at = ALIGN_UP(at, 64u);
        if (i == component)
            found = at;
        at += c->size;
    }
    *end = at;
    return component < 2 ? xstate_component(component)->offset : found;
}

enum xsave_kind { XSAVE_PLAIN, XSAVE_OPT, XSAVE_COMPACT, XSAVE_SUPERVISOR };

/* Copy one component's registers into `image`. Outside 64-bit mode xmm8 and up (and so on) do not
 * exist. */
static void save_component(const struct vcpu *cpu, const struct op *op, unsigned i, uint8_t *at)
{
    uint8_t full[1024];
    uint32_t size = xstate_component(i)->size;
    xstate_put(cpu, i, full);
    if (i == XSTATE_X87) {
        struct fxsave image;
        memcpy(&image, full, 24);
        if (!op->aux)
            narrow_pointers(cpu, &image);
        memcpy(at, &image, 24);
        memcpy(at + 32, full + 32, 128);
        return;
    }
    bool half = !cpu_64bit(cpu) && (i == XSTATE_SSE || i == XSTATE_AVX || i == XSTATE_ZMM_HI256);
    memcpy(at, full, half ? size / 2 : size);
}

static void xsave(struct vcpu *cpu, const struct op *op, enum xsave_kind kind)
{
    check_xsave(cpu, op);
    if (kind == XSAVE_SUPERVISOR && cpu->cpl != 0)
        interp_raise_error(cpu, op, VEC_GP, 0);
    bool compact = kind >= XSAVE_COMPACT;
    uint64_t mask = requested(cpu, kind == XSAVE_SUPERVISOR);
    uint64_t used = in_use(cpu, mask);
    uint64_t write = kind == XSAVE_PLAIN ? mask : used;
    uint8_t image[4096];
    uint32_t size = (uint32_t)xstate_size(mask);
    if (compact)
        compacted_offset(mask, 0, &size);
    uint64_t at = operand_address(cpu, op, size, true);
    need_aligned(cpu, op, at, 64);
    interp_load_bytes(cpu, op, at, image,
                      size); /* components that are not written keep their bytes */

    for (unsigned i = 0; i < XSTATE_COMPONENTS; i++) {
        uint32_t end;
        if (write >> i & 1)
            save_component(
                cpu, op, i,
                image + (compact ? compacted_offset(mask, i, &end) : xstate_component(i)->offset));
    }
    bool mxcsr = kind == XSAVE_PLAIN ? mask & (BIT64(XSTATE_SSE) | BIT64(XSTATE_AVX))
                                     : write & (BIT64(XSTATE_SSE) | BIT64(XSTATE_AVX));
    if (mxcsr) {
        uint32_t words[2] = {cpu->fpu.fx.mxcsr, mxcsr_mask(cpu)};
        memcpy(image + 24, words, 8);
    }
    uint64_t bv, xcomp = XCOMP_COMPACTED | mask;
    memcpy(&bv, image + XSAVE_HEADER, 8);
    bv = compact ? used : (bv & ~mask) | used;
    memcpy(image + XSAVE_HEADER + HEADER_BV, &bv, 8);
    if (compact)
        memcpy(image + XSAVE_HEADER + HEADER_XCOMP, &xcomp, 8);
    interp_store_bytes(cpu, op, at, image, size);
}

#define XSAVE_OP(name, kind)                                                                       \
    static void name(struct vcpu *cpu, const struct op *op)                                        \
    {                                                                                              \
        xsave(cpu, op, kind);                                                                      \
        NEXT(cpu, op);                                                                             \
    }
XSAVE_OP(op_xsave, XSAVE_PLAIN)
XSAVE_OP(op_xsaveopt, XSAVE_OPT)
XSAVE_OP(op_xsavec, XSAVE_COMPACT)
XSAVE_OP(op_xsaves, XSAVE_SUPERVISOR)

static void restore_component(struct vcpu *cpu, const struct op *op, unsigned i,
                              const uint8_t *from)
{
    uint8_t full[1024];
    uint32_t size = xstate_component(i)->size;
    bool half = !cpu_64bit(cpu) && (i == XSTATE_SSE || i == XSTATE_AVX || i == XSTATE_ZMM_HI256);
    xstate_put(cpu, i, full);
    memcpy(full, from, half ? size / 2 : size);
    xstate_get(cpu, i, full);
    if (i == XSTATE_X87) {
        take_pointers(cpu, op->aux);
        vector_normalize_fsw(cpu);
    }
}

static void check_header(struct vcpu *cpu, const struct op *op, const uint64_t *header,
                         bool supervisor)
{
    uint64_t allowed = cpu->xcr0 | (supervisor ? cpu->xss : 0);
    bool compact = header[1] & XCOMP_COMPACTED;
    bool bad;
    if (compact)
        bad = (header[1] & ~XCOMP_COMPACTED & ~allowed) || (header[0] & ~header[1]) ||
              !CPUID_HAS(&cpu->machine->cpuid, 0xd, 1, eax, 1);
    else
        bad = supervisor || (header[0] & ~cpu->xcr0) || header[1];
    for (unsigned i = 2; i < (compact ? 8u : 3u); i++)
        bad |= header[i] != 0;
    if (bad)
        interp_raise_error(cpu, op, VEC_GP, 0);
}

static void xrstor(struct vcpu *cpu, const struct op *op, bool supervisor)
{
    check_xsave(cpu, op);
    if (supervisor && cpu->cpl != 0)
        interp_raise_error(cpu, op, VEC_GP, 0);
    uint64_t mask = requested(cpu, supervisor), header[8];
    uint8_t image[4096];
    uint64_t at = operand_address(cpu, op, XSAVE_AREA_START, false);
    need_aligned(cpu, op, at, 64);
    interp_load_bytes(cpu, op, at, image, XSAVE_AREA_START);
    memcpy(header, image + XSAVE_HEADER, sizeof header);
    check_header(cpu, op, header, supervisor);
    bool compact = header[1] & XCOMP_COMPACTED;
    uint64_t restore = mask & header[0];
    uint32_t size = (uint32_t)xstate_size(restore);
    if (compact)
        compacted_offset(header[1] & ~XCOMP_COMPACTED, 0, &size);
    if (size > XSAVE_AREA_START)
        interp_load_bytes(cpu, op, at, image, size);

    uint32_t mxcsr;
    memcpy(&mxcsr, image + 24, 4);
    bool load_mxcsr =
        compact ? restore & BIT64(XSTATE_SSE) : mask & (BIT64(XSTATE_SSE) | BIT64(XSTATE_AVX));
    if (load_mxcsr && (mxcsr & ~mxcsr_mask(cpu)))
        interp_raise_error(cpu, op, VEC_GP, 0);
    uint32_t old_pkru = cpu->fpu.pkru;
    for (unsigned i = 0; i < XSTATE_COMPONENTS; i++) {
        uint32_t end;
        if (!(mask >> i & 1))
            continue;
        if (restore >> i & 1)
            restore_component(cpu, op, i,
                              image + (compact
                                           ? compacted_offset(header[1] & ~XCOMP_COMPACTED, i, &end)
                                           : xstate_component(i)->offset));
        else
            xstate_init(cpu, i);
    }
    if (load_mxcsr)
        cpu->fpu.fx.mxcsr = mxcsr;
    else if (compact && (mask & BIT64(XSTATE_SSE)))
        cpu->fpu.fx.mxcsr = 0x1f80;
    if (cpu->fpu.pkru != old_pkru)
        interp_mode_changed(cpu);
}

static void op_xrstor(struct vcpu *cpu, const struct op *op)
{
    xrstor(cpu, op, false);
    NEXT(cpu, op);
}

static void op_xrstors(struct vcpu *cpu, const struct op *op)
{
    xrstor(cpu, op, true);
    NEXT(cpu, op);
}

static void op_xgetbv(struct vcpu *cpu, const struct op *op)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        interp_raise(cpu, op, VEC_UD);
    uint32_t index = (uint32_t)cpu->gpr[RCX];
    if (index > 1 || (index == 1 && !CPUID_HAS(&cpu->machine->cpuid, 0xd, 1, eax, 2)))
        interp_raise_error(cpu, op, VEC_GP, 0);
    uint64_t value = index == 0 ? cpu->xcr0 : in_use(cpu, cpu->xcr0);
    cpu->gpr[RAX] = (uint32_t)value;
    cpu->gpr[RDX] = value >> 32;
    NEXT(cpu, op);
}

static void op_xsetbv(struct vcpu *cpu, const struct op *op)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        interp_raise(cpu, op, VEC_UD);
    uint64_t value = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
    const uint64_t avx512 = BIT64(XSTATE_OPMASK) | BIT64(XSTATE_ZMM_HI256) | BIT64(XSTATE_HI16_ZMM);
    bool bad = cpu->cpl != 0 || (uint32_t)cpu->gpr[RCX] != 0 ||
               (value & ~cpu->machine->cpuid.xcr0_supported) || !(value & 1) ||
               ((value & BIT64(XSTATE_AVX)) && !(value & BIT64(XSTATE_SSE))) ||
               ((value & avx512) && ((value & avx512) != avx512 || !(value & BIT64(XSTATE_AVX))));
    if (bad)
        interp_raise_error(cpu, op, VEC_GP, 0);
    cpu->xcr0 = value;
    NEXT(cpu, op);
}

/* ---- MXCSR ---- */

static void check_mxcsr(struct vcpu *cpu, const struct op *op)
{
    if (op->aux2 & 2) { /* VEX form */
        if (!(cpu->cr4 & CR4_OSXSAVE) || (cpu->xcr0 & 6) != 6)
            interp_raise(cpu, op, VEC_UD);
        if (cpu->cr0 & CR0_TS)
            interp_raise(cpu, op, VEC_NM);
    } else {
        vector_check_sse(cpu, op);
    }
}

static void op_ldmxcsr(struct vcpu *cpu, const struct op *op)
{
    check_mxcsr(cpu, op);
    uint32_t value = (uint32_t)interp_load(cpu, op, operand_address(cpu, op, 4, false), 4);
    if (value & ~mxcsr_mask(cpu))
        interp_raise_error(cpu, op, VEC_GP, 0);
    cpu->fpu.fx.mxcsr = value;
    NEXT(cpu, op);
}

static void op_stmxcsr(struct vcpu *cpu, const struct op *op)
{
    check_mxcsr(cpu, op);
    interp_store(cpu, op, operand_address(cpu, op, 4, true), 4, cpu->fpu.fx.mxcsr);
    NEXT(cpu, op);
}

/* ---- x87 control ---- */

static void op_fninit(struct vcpu *cpu, const struct op *op)
{
    vector_check_x87(cpu, op);
    struct fxsave *fx = &cpu->fpu.fx;
    vector_set_top(cpu, 0);
    fx->fcw = 0x37f;
    fx->fsw = 0;
    fx->ftw = 0;
    fx->fop = 0;
    fx->fip = fx->fdp = 0;
    cpu->fpu.fcs = cpu->fpu.fds = 0;
    NEXT(cpu, op);
}

static void op_fnclex(struct vcpu *cpu, const struct op *op)
{
    vector_check_x87(cpu, op);
    cpu->fpu.fx.fsw &= 0x7f00;
    NEXT(cpu, op);
}

static void op_fnstcw(struct vcpu *cpu, const struct op *op)
{
    vector_check_x87(cpu, op);
    interp_store(cpu, op, operand_address(cpu, op, 2, true), 2, cpu->fpu.fx.fcw);
    NEXT(cpu, op);
}

static void op_fnstsw(struct vcpu *cpu, const struct op *op)
{
    vector_check_x87(cpu, op);
    if (op->aux2 & 1)
        interp_store(cpu, op, operand_address(cpu, op, 2, true), 2, cpu->fpu.fx.fsw);
    else
        cpu->gpr[RAX] = (cpu->gpr[RAX] & ~UINT64_C(0xffff)) | cpu->fpu.fx.fsw;
    NEXT(cpu, op);
}

static void op_fldcw(struct vcpu *cpu, const struct op *op)
{
    vector_check_x87(cpu, op);
    vector_check_x87_pending(cpu, op);
    uint16_t value = (uint16_t)interp_load(cpu, op, operand_address(cpu, op, 2, false), 2);
    cpu->fpu.fx.fcw = (value & 0x1f3f) | 0x40;
    vector_normalize_fsw(cpu);
    NEXT(cpu, op);
}

/* What were the 8087's and the 287's own: nothing today, and they do not wait for exceptions. */
static void op_fn_nothing(struct vcpu *cpu, const struct op *op)
{
    vector_check_x87(cpu, op);
    NEXT(cpu, op);
}

/* WAIT: the only one that looks at MP. */
static void op_fwait(struct vcpu *cpu, const struct op *op)
{
    if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        interp_raise(cpu, op, VEC_NM);
    vector_check_x87_pending(cpu, op);
    NEXT(cpu, op);
}

static void op_emms(struct vcpu *cpu, const struct op *op)
{
    if (cpu->cr0 & CR0_EM)
        interp_raise(cpu, op, VEC_UD);
    if (cpu->cr0 & CR0_TS)
        interp_raise(cpu, op, VEC_NM);
    vector_check_x87_pending(cpu, op);
    vector_set_top(cpu, 0);
    cpu->fpu.fx.ftw = 0;
    NEXT(cpu, op);
}

/* Empty-register tags of the full tag word; valid, zero and special are told from the register's
 * contents. */
static uint16_t full_tags(const struct fxsave *fx)
{
    uint16_t tags = 0;
    unsigned top = fx->fsw >> 11 & 7;
    for (unsigned physical = 0; physical < 8; physical++) {
        const uint8_t *st = fx->st[(physical - top) & 7];
        uint64_t mantissa;
        uint16_t exponent;
        memcpy(&mantissa, st, 8);
        memcpy(&exponent, st + 8, 2);
        exponent &= 0x7fff;
        unsigned tag = 0;
        if (!(fx->ftw >> physical & 1))
            tag = 3;
        else if (exponent == 0 && mantissa == 0)
            tag = 1;
        else if (exponent == 0 || exponent == 0x7fff || !(mantissa >> 63))
            tag = 2;
        tags |= (uint16_t)(tag << (2 * physical));
    }
    return tags;
}

/* The x87 environment: 14 bytes with 16-bit operands, 28 with 32-bit ones. */
static unsigned put_environment(const struct vcpu *cpu, const struct op *op, uint8_t *to)
{
    const struct fxsave *fx = &cpu->fpu.fx;
    bool real = !cpu_protected(cpu);
    if (op->size == 2) {
        uint16_t w[7] = {fx->fcw,      fx->fsw,           full_tags(fx), (uint16_t)fx->fip,
                         cpu->fpu.fcs, (uint16_t)fx->fdp, cpu->fpu.fds};
        if (real) {
            w[4] = (uint16_t)((fx->fip >> 4 & 0xf000) | (fx->fop & 0x7ff));
            w[6] = (uint16_t)(fx->fdp >> 4 & 0xf000);
        }
        memcpy(to, w, 14);
        return 14;
    }
    uint32_t d[7] = {fx->fcw | 0xffff0000u,
                     fx->fsw | 0xffff0000u,
                     full_tags(fx) | 0xffff0000u,
                     (uint32_t)fx->fip,
                     (uint32_t)(fx->fop & 0x7ff) << 16 | cpu->fpu.fcs,
                     (uint32_t)fx->fdp,
                     0xffff0000u | cpu->fpu.fds};
    if (real) {
        d[3] = (uint32_t)(fx->fip & 0xffff) | 0xffff0000u;
        d[4] = (uint32_t)(fx->fip >> 4 & 0x0ffff000) | (fx->fop & 0x7ff);
        d[5] = (uint32_t)(fx->fdp & 0xffff) | 0xffff0000u;
        d[6] = (uint32_t)(fx->fdp >> 4 & 0x0ffff000);
    }
    memcpy(to, d, 28);
    return 28;
}

static void get_environment(struct vcpu *cpu, const struct op *op, const uint8_t *from)
{
    struct fxsave *fx = &cpu->fpu.fx;
    bool real = !cpu_protected(cpu);
    uint32_t v[7];
    for (unsigned i = 0; i < 7; i++) {
        v[i] = 0;
        memcpy(&v[i], from + i * (op->size == 2 ? 2u : 4u), op->size == 2 ? 2 : 4);
    }
    fx->fcw = (uint16_t)((v[0] & 0x1f3f) | 0x40);
    vector_set_top(cpu, v[1] >> 11 & 7);
    fx->fsw = (uint16_t)v[1];
    fx->ftw = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((v[2] >> (2 * i) & 3) != 3)
            fx->ftw |= (uint8_t)BIT(i);
    if (real) {
        fx->fip = (v[3] & 0xffff) | (uint64_t)(v[4] & (op->size == 2 ? 0xf000 : 0x0ffff000)) << 4;
        fx->fdp = (v[5] & 0xffff) | (uint64_t)(v[6] & (op->size == 2 ? 0xf000 : 0x0ffff000)) << 4;
        fx->fop = v[4] & 0x7ff;
    } else {
        fx->fip = v[3];
        fx->fdp = v[5];
        cpu->fpu.fcs = (uint16_t)v[4];
        cpu->fpu.fds = (uint16_t)v[6];
        fx->fop = op->size == 2 ? 0 : v[4] >> 16 & 0x7ff;
    }
    vector_normalize_fsw(cpu);
}

static void op_fnstenv(struct vcpu *cpu, const struct op *op)
{
    uint8_t image[28];
    vector_check_x87(cpu, op);
    unsigned size = put_environment(cpu, op, image);
    interp_store_bytes(cpu, op, environment_address(cpu, op, size, true), image, size);
    cpu->fpu.fx.fcw |= 0x3f;
    vector_normalize_fsw(cpu);
    NEXT(cpu, op);
}

static void op_fldenv(struct vcpu *cpu, const struct op *op)
{
    uint8_t image[28];
    vector_check_x87(cpu, op);
    vector_check_x87_pending(cpu, op);
    unsigned size = op->size == 2 ? 14 : 28;
    interp_load_bytes(cpu, op, environment_address(cpu, op, size, false), image, size);
    get_environment(cpu, op, image);
    NEXT(cpu, op);
}

static void op_fnsave(struct vcpu *cpu, const struct op *op)
{
    uint8_t image[108];
    vector_check_x87(cpu, op);
    unsigned size = put_environment(cpu, op, image);
    for (unsigned i = 0; i < 8; i++)
        memcpy(image + size + 10 * i, cpu->fpu.fx.st[i], 10);
    interp_store_bytes(cpu, op, environment_address(cpu, op, size + 80, true), image, size + 80);
    op_fninit(cpu, op);
}

static void op_frstor(struct vcpu *cpu, const struct op *op)
{
    uint8_t image[108];
    vector_check_x87(cpu, op);
    vector_check_x87_pending(cpu, op);
    unsigned size = op->size == 2 ? 14 : 28;
    interp_load_bytes(cpu, op, environment_address(cpu, op, size + 80, false), image, size + 80);
    get_environment(cpu, op, image);
    for (unsigned i = 0; i < 8; i++) {
        memset(cpu->fpu.fx.st[i], 0, 16);
        memcpy(cpu->fpu.fx.st[i], image + size + 10 * i, 10);
    }
    NEXT(cpu, op);
}

bool bind_xsave(struct decode *d, struct op *op)
{
    static const struct {
        ZydisMnemonic mnemonic;
        op_fn *fn;
        uint8_t wide; /* the ...64 form */
    } table[] = {
        {ZYDIS_MNEMONIC_FXSAVE, op_fxsave, 0},
        {ZYDIS_MNEMONIC_FXSAVE64, op_fxsave, 1},
        {ZYDIS_MNEMONIC_FXRSTOR, op_fxrstor, 0},
        {ZYDIS_MNEMONIC_FXRSTOR64, op_fxrstor, 1},
        {ZYDIS_MNEMONIC_XSAVE, op_xsave, 0},
        {ZYDIS_MNEMONIC_XSAVE64, op_xsave, 1},
        {ZYDIS_MNEMONIC_XSAVEOPT, op_xsaveopt, 0},
        {ZYDIS_MNEMONIC_XSAVEOPT64, op_xsaveopt, 1},
        {ZYDIS_MNEMONIC_XSAVEC, op_xsavec, 0},
        {ZYDIS_MNEMONIC_XSAVEC64, op_xsavec, 1},
        {ZYDIS_MNEMONIC_XSAVES, op_xsaves, 0},
        {ZYDIS_MNEMONIC_XSAVES64, op_xsaves, 1},
        {ZYDIS_MNEMONIC_XRSTOR, op_xrstor, 0},
        {ZYDIS_MNEMONIC_XRSTOR64, op_xrstor, 1},
        {ZYDIS_MNEMONIC_XRSTORS, op_xrstors, 0},
        {ZYDIS_MNEMONIC_XRSTORS64, op_xrstors, 1},
        {ZYDIS_MNEMONIC_XGETBV, op_xgetbv, 0},
        {ZYDIS_MNEMONIC_XSETBV, op_xsetbv, 0},
        {ZYDIS_MNEMONIC_LDMXCSR, op_ldmxcsr, 0},
        {ZYDIS_MNEMONIC_STMXCSR, op_stmxcsr, 0},
        {ZYDIS_MNEMONIC_VLDMXCSR, op_ldmxcsr, 0},
        {ZYDIS_MNEMONIC_VSTMXCSR, op_stmxcsr, 0},
        {ZYDIS_MNEMONIC_FDISI8087_NOP, op_fn_nothing, 0},
        {ZYDIS_MNEMONIC_FENI8087_NOP, op_fn_nothing, 0},
        {ZYDIS_MNEMONIC_FSETPM287_NOP, op_fn_nothing, 0},
        {ZYDIS_MNEMONIC_FNINIT, op_fninit, 0},
        {ZYDIS_MNEMONIC_FNCLEX, op_fnclex, 0},
        {ZYDIS_MNEMONIC_FNSTCW, op_fnstcw, 0},
        {ZYDIS_MNEMONIC_FNSTSW, op_fnstsw, 0},
        {ZYDIS_MNEMONIC_FLDCW, op_fldcw, 0},
        {ZYDIS_MNEMONIC_FWAIT, op_fwait, 0},
        {ZYDIS_MNEMONIC_EMMS, op_emms, 0},
        {ZYDIS_MNEMONIC_FEMMS, op_emms, 0},
        {ZYDIS_MNEMONIC_FNSTENV, op_fnstenv, 0},
        {ZYDIS_MNEMONIC_FLDENV, op_fldenv, 0},
        {ZYDIS_MNEMONIC_FNSAVE, op_fnsave, 0},
        {ZYDIS_MNEMONIC_FRSTOR, op_frstor, 0},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
        if (d->insn->mnemonic != table[i].mnemonic)
            continue;
        op->fn = table[i].fn;
        op->aux = table[i].wide;
        op->aux2 = (uint8_t)((d->operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY) |
                             (d->insn->attributes & ZYDIS_ATTRIB_HAS_VEX ? 2 : 0));
        return true;
    }
    return false;
}
