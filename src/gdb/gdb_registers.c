/*
 * The register file that gdb sees: always the 64-bit one, since a processor with long mode has it
 * in every mode; the feature names and the order within each are the ones that gdb's manual
 * prescribes ("i386 Features").
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

#define GPRS(X)                                                                                    \
    X("rax", RAX)                                                                                  \
    X("rbx", RBX) X("rcx", RCX) X("rdx", RDX) X("rsi", RSI) X("rdi", RDI) X("rbp", RBP)            \
        X("rsp", RSP) X("r8", R8) X("r9", R9) X("r10", R10) X("r11", R11) X("r12", R12)            \
            X("r13", R13) X("r14", R14) X("r15", R15)
#define SEGMENTS(X) X("cs", CS) X("ss", SS) X("ds", DS) X("es", ES) X("fs", FS) X("gs", GS)
#define EIGHT(X)    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define SIXTEEN(X)  EIGHT(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
/* FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP */
#define X87(X)                                                                                     \
    X("fctrl", 0)                                                                                  \
    X("fstat", 1) X("ftag", 2) X("fiseg", 3) X("fioff", 4) X("foseg", 5) X("fooff", 6) X("fop", 7)
enum { CONTROL_CR0, CONTROL_CR2, CONTROL_CR3, CONTROL_CR4, CONTROL_CR8, CONTROL_EFER };
#define CONTROLS(X)                                                                                \
    X("cr0", CONTROL_CR0)                                                                          \
    X("cr2", CONTROL_CR2) X("cr3", CONTROL_CR3) X("cr4", CONTROL_CR4) X("cr8", CONTROL_CR8)        \
        X("efer", CONTROL_EFER)

const char gdb_target_xml[] =
    "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
    "<architecture>i386:x86-64</architecture>"
    "<feature name=\"org.gnu.gdb.i386.core\">"
    "<flags id=\"i386_eflags\" size=\"4\">"
    "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
    "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
    "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
    "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
    "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
    "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
    "<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/>"
    "<field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>"
    "<field name=\"ID\" start=\"21\" end=\"21\"/></flags>"
#define XML_GPR(name, index) "<reg name=\"" name "\" bitsize=\"64\" type=\"int64\"/>"
    GPRS(XML_GPR) "<reg name=\"rip\" bitsize=\"64\" type=\"code_ptr\"/>"
                  "<reg name=\"eflags\" bitsize=\"32\" type=\"i386_eflags\"/>"
#define XML_SEGMENT(name, index) "<reg name=\"" name "\" bitsize=\"32\" type=\"int32\"/>"
    SEGMENTS(XML_SEGMENT)
#define XML_ST(n) "<reg name=\"st" #n "\" bitsize=\"80\" type=\"i387_ext\"/>"
        EIGHT(XML_ST)
#define XML_X87(name, index) "<reg name=\"" name "\" bitsize=\"32\" type=\"int\" group=\"float\"/>"
            X87(XML_X87) "</feature><feature name=\"org.gnu.gdb.i386.sse\">"
                         "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" "
                         "type=\"ieee_double\" count=\"2\"/>"
                         "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" "
                         "type=\"int16\" count=\"8\"/>"
                         "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" "
                         "type=\"int64\" count=\"2\"/>"
                         "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field "
                         "name=\"v2_double\" type=\"v2d\"/>"
                         "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" "
                         "type=\"v8i16\"/>"
                         "<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" "
                         "type=\"v2i64\"/>"
                         "<field name=\"uint128\" type=\"uint128\"/></union>"
#define XML_XMM(n) "<reg name=\"xmm" #n "\" bitsize=\"128\" type=\"vec128\"/>"
    SIXTEEN(XML_XMM) "<reg name=\"mxcsr\" bitsize=\"32\" type=\"int\" group=\"vector\"/>"
                     "</feature><feature name=\"org.gnu.gdb.i386.segments\">"
                     "<reg name=\"fs_base\" bitsize=\"64\" type=\"int\"/><reg name=\"gs_base\" "
                     "bitsize=\"64\" type=\"int\"/>"
                     "</feature><feature name=\"org.trivisor.system\">"
#define XML_CONTROL(name, index)                                                                   \
    "<reg name=\"" name "\" bitsize=\"64\" type=\"int64\" group=\"system\"/>"
    CONTROLS(XML_CONTROL) "</feature></target>";

static const struct {
    uint8_t kind, index, size;
} registers[] = {
#define ENTRY_GPR(name, index) {KIND_GPR, index, 8},
    GPRS(ENTRY_GPR){KIND_RIP, 0, 8},
    {KIND_FLAGS, 0, 4},
#define ENTRY_SEGMENT(name, index) {KIND_SEGMENT, index, 4},
    SEGMENTS(ENTRY_SEGMENT)
#define ENTRY_ST(n) {KIND_ST, n, 10},
        EIGHT(ENTRY_ST)
#define ENTRY_X87(name, index) {KIND_X87, index, 4},
            X87(ENTRY_X87)
#define ENTRY_XMM(n) {KIND_XMM, n, 16},
                SIXTEEN(ENTRY_XMM){KIND_MXCSR, 0, 4},
    {KIND_BASE, FS, 8},
    {KIND_BASE, GS, 8},
#define ENTRY_CONTROL(name, index) {KIND_CONTROL, index, 8},
    CONTROLS(ENTRY_CONTROL)};

unsigned gdb_register_count(void)
{
    return ARRAY_SIZE(registers);
}

unsigned gdb_register_size(unsigned number)
{
    return number < ARRAY_SIZE(registers) ? registers[number].size : 0;
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
    if (number >= ARRAY_SIZE(registers))
        return false;
    unsigned index = registers[number].index;
    uint64_t value = 0;
    switch (registers[number].kind) {
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
    memcpy(buf, &value, registers[number].size);
    return true;
}

bool gdb_write_register(struct vcpu *cpu, unsigned number, const uint8_t *buf)
{
    if (number >= ARRAY_SIZE(registers))
        return false;
    unsigned index = registers[number].index;
    uint64_t value = 0;
    memcpy(&value, buf, MIN(registers[number].size, 8));
    switch (registers[number].kind) {
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
            return memcmp(now, buf, registers[number].size) == 0;
        }
    }
}
