/*
 * The register file that gdb sees. A processor with long mode shows the 64-bit one in every mode,
 * since gdb cannot change its mind about a target; the feature names and the order within each are
 * the ones that gdb's manual prescribes ("i386 Features").
 */
#include <string.h>

#include "gdb/gdb.h"

enum register_kind {
    KIND_GPR,
    KIND_RIP,
    KIND_FLAGS,
    KIND_SEGMENT,
    KIND_ST,
    KIND_X87,
    KIND_XMM,
    KIND_MXCSR,
    KIND_BASE,
    KIND_CONTROL,
};

enum { CONTROL_CR0, CONTROL_CR2, CONTROL_CR3, CONTROL_CR4, CONTROL_CR8, CONTROL_EFER };

/* Each list is made into the description and into the table below. Core lists come in gdb's order,
 * which is not the processor's. */
// clang-format off
#define GPRS64(X) \
    X("rax", RAX) X("rbx", RBX) X("rcx", RCX) X("rdx", RDX) X("rsi", RSI) X("rdi", RDI) \
    X("rbp", RBP) X("rsp", RSP) X("r8", R8) X("r9", R9) X("r10", R10) X("r11", R11) \
    X("r12", R12) X("r13", R13) X("r14", R14) X("r15", R15)
#define GPRS32(X) \
    X("eax", RAX) X("ecx", RCX) X("edx", RDX) X("ebx", RBX) X("esp", RSP) X("ebp", RBP) \
    X("esi", RSI) X("edi", RDI)
#define SEGMENTS(X) X("cs", CS) X("ss", SS) X("ds", DS) X("es", ES) X("fs", FS) X("gs", GS)
#define EIGHT(X)    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define SIXTEEN(X)  EIGHT(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define X87(X) \
    X("fctrl", 0) X("fstat", 1) X("ftag", 2) X("fiseg", 3) X("fioff", 4) X("foseg", 5) \
    X("fooff", 6) X("fop", 7)
#define CONTROLS(X) \
    X("cr0", CONTROL_CR0) X("cr2", CONTROL_CR2) X("cr3", CONTROL_CR3) X("cr4", CONTROL_CR4) \
    X("cr8", CONTROL_CR8) X("efer", CONTROL_EFER)

#define XML_REG64(name, index)  "<reg name=\"" name "\" bitsize=\"64\" type=\"int64\"/>"
#define XML_REG32(name, index)  "<reg name=\"" name "\" bitsize=\"32\" type=\"int32\"/>"
#define XML_ST(n)               "<reg name=\"st" #n "\" bitsize=\"80\" type=\"i387_ext\"/>"
#define XML_X87(name, index) \
    "<reg name=\"" name "\" bitsize=\"32\" type=\"int\" group=\"float\"/>"
#define XML_XMM(n)              "<reg name=\"xmm" #n "\" bitsize=\"128\" type=\"vec128\"/>"
#define XML_CONTROL(name, index) \
    "<reg name=\"" name "\" bitsize=\"64\" type=\"int64\" group=\"system\"/>"

#define XML_HEAD(architecture) \
    "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>" \
    "<architecture>" architecture "</architecture>" \
    "<feature name=\"org.gnu.gdb.i386.core\">" \
    "<flags id=\"i386_eflags\" size=\"4\">" \
    XML_FLAG("CF", "0") XML_FLAG("", "1") XML_FLAG("PF", "2") XML_FLAG("AF", "4") \
    XML_FLAG("ZF", "6") XML_FLAG("SF", "7") XML_FLAG("TF", "8") XML_FLAG("IF", "9") \
    XML_FLAG("DF", "10") XML_FLAG("OF", "11") XML_FLAG("NT", "14") XML_FLAG("RF", "16") \
    XML_FLAG("VM", "17") XML_FLAG("AC", "18") XML_FLAG("VIF", "19") XML_FLAG("VIP", "20") \
    XML_FLAG("ID", "21") "</flags>"
#define XML_FLAG(name, bit) \
    "<field name=\"" name "\" start=\"" bit "\" end=\"" bit "\"/>"
#define XML_REST_OF_CORE \
    "<reg name=\"eflags\" bitsize=\"32\" type=\"i386_eflags\"/>" \
    SEGMENTS(XML_REG32) EIGHT(XML_ST) X87(XML_X87) "</feature>"
#define XML_SSE_HEAD \
    "<feature name=\"org.gnu.gdb.i386.sse\">" \
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>" \
    "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>" \
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>" \
    "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>" \
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>" \
    "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>" \
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>" \
    "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>" \
    "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>" \
    "<field name=\"v2_int64\" type=\"v2i64\"/>" \
    "<field name=\"uint128\" type=\"uint128\"/></union>"
#define XML_TAIL \
    "<reg name=\"mxcsr\" bitsize=\"32\" type=\"int\" group=\"vector\"/></feature>"
#define XML_SYSTEM \
    "<feature name=\"org.trivisor.system\">" CONTROLS(XML_CONTROL) "</feature></target>"

static const char xml64[] =
    XML_HEAD("i386:x86-64") GPRS64(XML_REG64)
    "<reg name=\"rip\" bitsize=\"64\" type=\"code_ptr\"/>"
    XML_REST_OF_CORE XML_SSE_HEAD SIXTEEN(XML_XMM) XML_TAIL
    "<feature name=\"org.gnu.gdb.i386.segments\">"
    "<reg name=\"fs_base\" bitsize=\"64\" type=\"int\"/>"
    "<reg name=\"gs_base\" bitsize=\"64\" type=\"int\"/></feature>"
    XML_SYSTEM;

static const char xml32[] =
    XML_HEAD("i386") GPRS32(XML_REG32)
    "<reg name=\"eip\" bitsize=\"32\" type=\"code_ptr\"/>"
    XML_REST_OF_CORE XML_SSE_HEAD EIGHT(XML_XMM) XML_TAIL
    XML_SYSTEM;

struct gdb_register {
    uint8_t kind, index, size;
};

#define ENTRY_GPR64(name, index)   {KIND_GPR, index, 8},
#define ENTRY_GPR32(name, index)   {KIND_GPR, index, 4},
#define ENTRY_SEGMENT(name, index) {KIND_SEGMENT, index, 4},
#define ENTRY_ST(n)                {KIND_ST, n, 10},
#define ENTRY_X87(name, index)     {KIND_X87, index, 4},
#define ENTRY_XMM(n)               {KIND_XMM, n, 16},
#define ENTRY_CONTROL(name, index) {KIND_CONTROL, index, 8},
#define ENTRIES_REST_OF_CORE \
    {KIND_FLAGS, 0, 4}, SEGMENTS(ENTRY_SEGMENT) EIGHT(ENTRY_ST) X87(ENTRY_X87)

static const struct gdb_register registers64[] = {
    GPRS64(ENTRY_GPR64)
    {KIND_RIP, 0, 8},
    ENTRIES_REST_OF_CORE
    SIXTEEN(ENTRY_XMM)
    {KIND_MXCSR, 0, 4},
    {KIND_BASE, FS, 8},
    {KIND_BASE, GS, 8},
    CONTROLS(ENTRY_CONTROL)
};

static const struct gdb_register registers32[] = {
    GPRS32(ENTRY_GPR32)
    {KIND_RIP, 0, 4},
    ENTRIES_REST_OF_CORE
    EIGHT(ENTRY_XMM)
    {KIND_MXCSR, 0, 4},
    CONTROLS(ENTRY_CONTROL)
};
// clang-format on

static bool has_long_mode(const struct machine *m)
{
    return CPUID_HAS(&m->cpuid, 0x80000001, 0, edx, 29);
}

const char *gdb_target_xml(const struct machine *m)
{
    return has_long_mode(m) ? xml64 : xml32;
}

unsigned gdb_register_count(const struct machine *m)
{
    return has_long_mode(m) ? ARRAY_SIZE(registers64) : ARRAY_SIZE(registers32);
}

static const struct gdb_register *register_of(const struct machine *m, unsigned number)
{
    if (number >= gdb_register_count(m))
        return NULL;
    return has_long_mode(m) ? &registers64[number] : &registers32[number];
}

unsigned gdb_register_size(const struct machine *m, unsigned number)
{
    const struct gdb_register *r = register_of(m, number);
    return r ? r->size : 0;
}

unsigned gdb_pc_register(const struct machine *m)
{
    return has_long_mode(m) ? 16 : 8;
}

/* The two-bit tags of FTAG from the abridged form: gdb only tells empty (3) from not empty. */
static uint32_t full_tag_word(uint8_t abridged)
{
    uint32_t tags = 0;
    for (unsigned i = 0; i < 8; i++)
        tags |= (abridged >> i & 1 ? 0u : 3u) << (2 * i);
    return tags;
}

static uint32_t x87_register(const struct fxsave *fx, unsigned index)
{
    switch (index) {
    case 0:
        return fx->fcw;
    case 1:
        return fx->fsw;
    case 2:
        return full_tag_word(fx->ftw);
    case 3:
        return (uint32_t)(fx->fip >> 32);
    case 4:
        return (uint32_t)fx->fip;
    case 5:
        return (uint32_t)(fx->fdp >> 32);
    case 6:
        return (uint32_t)fx->fdp;
    default:
        return fx->fop;
    }
}

static uint64_t control_register(const struct vcpu *cpu, unsigned index)
{
    switch (index) {
    case CONTROL_CR0:
        return cpu->cr0;
    case CONTROL_CR2:
        return cpu->cr2;
    case CONTROL_CR3:
        return cpu->cr3;
    case CONTROL_CR4:
        return cpu->cr4;
    case CONTROL_EFER:
        return cpu->efer;
    default:
        return 0; /* CR8 belongs to the local APIC's own thread */
    }
}

bool gdb_read_register(const struct vcpu *cpu, unsigned number, uint8_t *buf)
{
    const struct gdb_register *r = register_of(cpu->machine, number);
    if (!r)
        return false;
    unsigned index = r->index;
    uint64_t value = 0;
    switch (r->kind) {
    case KIND_GPR:
        value = cpu->gpr[index];
        break;
    case KIND_RIP:
        /* gdb has no notion of segments: in real mode it gets the linear address. */
        value = cpu->rip + (cpu_64bit(cpu) ? 0 : cpu->seg[CS].base);
        break;
    case KIND_FLAGS:
        value = cpu_rflags(cpu);
        break;
    case KIND_SEGMENT:
        value = cpu->seg[index].selector;
        break;
    case KIND_ST:
        memcpy(buf, cpu->fpu.fx.st[index], 10);
        return true;
    case KIND_X87:
        value = x87_register(&cpu->fpu.fx, index);
        break;
    case KIND_XMM:
        memcpy(buf, cpu->fpu.zmm[index], 16);
        return true;
    case KIND_MXCSR:
        value = cpu->fpu.fx.mxcsr;
        break;
    case KIND_BASE:
        value = cpu->seg[index].base;
        break;
    case KIND_CONTROL:
        value = control_register(cpu, index);
        break;
    }
    memcpy(buf, &value, r->size);
    return true;
}

bool gdb_write_register(struct vcpu *cpu, unsigned number, const uint8_t *buf)
{
    const struct gdb_register *r = register_of(cpu->machine, number);
    if (!r)
        return false;
    unsigned index = r->index;
    uint64_t value = 0;
    memcpy(&value, buf, MIN(r->size, 8));
    switch (r->kind) {
    case KIND_GPR:
        cpu->gpr[index] = value;
        return true;
    case KIND_RIP:
        cpu->rip = value - (cpu_64bit(cpu) ? 0 : cpu->seg[CS].base);
        return true;
    case KIND_FLAGS:
        /* The mode stays: VM is not a debugger's to change. */
        cpu_set_rflags(cpu, ((uint32_t)value & ~FLAG_VM) | (cpu->rflags & FLAG_VM));
        return true;
    case KIND_ST:
        memcpy(cpu->fpu.fx.st[index], buf, 10);
        return true;
    case KIND_XMM:
        memcpy(cpu->fpu.zmm[index], buf, 16);
        return true;
    case KIND_MXCSR:
        cpu->fpu.fx.mxcsr = (uint32_t)value & 0xffff;
        return true;
    case KIND_BASE:
        if (!is_canonical(value))
            return false;
        cpu->seg[index].base = value;
        return true;
    case KIND_X87:
        if (index == 0)
            cpu->fpu.fx.fcw = (uint16_t)value;
        else if (index == 1)
            cpu->fpu.fx.fsw = (uint16_t)value;
        else
            return false;
        return true;
    default:
        /* A "G" packet writes everything: what stays the same is no error. */
        {
            uint8_t now[16];
            gdb_read_register(cpu, number, now);
            return memcmp(now, buf, r->size) == 0;
        }
    }
}
