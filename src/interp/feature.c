#include "interp/feature.h"

#include "util/util.h"

enum { EAX, EBX, ECX, EDX };

struct feature_bit {
    uint32_t leaf;
    uint8_t subleaf, reg, bit;
};

/* clang-format off */
#define L1D(bit)  {1, 0, EDX, bit}
#define L1C(bit)  {1, 0, ECX, bit}
#define L7B(bit)  {7, 0, EBX, bit}
#define L7C(bit)  {7, 0, ECX, bit}
#define L7D(bit)  {7, 0, EDX, bit}
#define L71A(bit) {7, 1, EAX, bit}
#define LDA(bit)  {13, 1, EAX, bit}
#define L81C(bit) {0x80000001, 0, ECX, bit}
#define L81D(bit) {0x80000001, 0, EDX, bit}
#define L88B(bit) {0x80000008, 0, EBX, bit}
#define NEVER     {0xffffffff, 0, EAX, 0}
/* clang-format on */
#define AVX       L1C(28)
#define AVX512F   L7B(16)
#define AVX512VL  L7B(31)
#define SET(name) ZYDIS_ISA_SET_##name

/* The three vector lengths of one AVX-512 extension. */
#define AVX512(name, ...)                                                                          \
    [SET(AVX512_##name##_128)] = {__VA_ARGS__, AVX512VL},                                          \
    [SET(AVX512_##name##_256)] = {__VA_ARGS__, AVX512VL},                                          \
    [SET(AVX512_##name##_512)] = {__VA_ARGS__, AVX512F}

/* By Zydis ISA set: all that are needed; leaf 0 ends the list. A set that is absent needs none. */
static const struct feature_bit isa_features[ZYDIS_ISA_SET_MAX_VALUE + 1][3] = {
    [SET(ADOX_ADCX)] = {L7B(19)},
    [SET(AES)] = {L1C(25)},
    [SET(AMD)] = {NEVER},
    [SET(AMD3DNOW)] = {L81D(31)},
    [SET(AMD_INVLPGB)] = {NEVER},
    [SET(AMX_BF16)] = {NEVER},
    [SET(AMX_INT8)] = {NEVER},
    [SET(AMX_TILE)] = {NEVER},
    [SET(AVX)] = {AVX},
    [SET(AVX2)] = {L7B(5)},
    [SET(AVX2GATHER)] = {L7B(5)},
    [SET(AVX512BW_128)] = {L7B(30), AVX512VL},
    [SET(AVX512BW_128N)] = {L7B(30)},
    [SET(AVX512BW_256)] = {L7B(30), AVX512VL},
    [SET(AVX512BW_512)] = {L7B(30)},
    [SET(AVX512BW_KOP)] = {L7B(30)},
    [SET(AVX512CD_128)] = {L7B(28), AVX512VL},
    [SET(AVX512CD_256)] = {L7B(28), AVX512VL},
    [SET(AVX512CD_512)] = {L7B(28)},
    [SET(AVX512DQ_128)] = {L7B(17), AVX512VL},
    [SET(AVX512DQ_128N)] = {L7B(17)},
    [SET(AVX512DQ_256)] = {L7B(17), AVX512VL},
    [SET(AVX512DQ_512)] = {L7B(17)},
    [SET(AVX512DQ_KOP)] = {L7B(17)},
    [SET(AVX512DQ_SCALAR)] = {L7B(17)},
    [SET(AVX512ER_512)] = {NEVER},
    [SET(AVX512ER_SCALAR)] = {NEVER},
    [SET(AVX512F_128)] = {AVX512F, AVX512VL},
    [SET(AVX512F_128N)] = {AVX512F},
    [SET(AVX512F_256)] = {AVX512F, AVX512VL},
    [SET(AVX512F_512)] = {AVX512F},
    [SET(AVX512F_KOP)] = {AVX512F},
    [SET(AVX512F_SCALAR)] = {AVX512F},
    [SET(AVX512PF_512)] = {NEVER},
    [SET(AVX512_4FMAPS_512)] = {NEVER},
    [SET(AVX512_4FMAPS_SCALAR)] = {NEVER},
    [SET(AVX512_4VNNIW_512)] = {NEVER},
    AVX512(BF16, L71A(5)),
    AVX512(BITALG, L7C(12)),
    AVX512(FP16, L7D(23)),
    [SET(AVX512_FP16_128N)] = {L7D(23)},
    [SET(AVX512_FP16_SCALAR)] = {L7D(23)},
    AVX512(GFNI, L7C(8)),
    AVX512(IFMA, L7B(21)),
    AVX512(VAES, L7C(9)),
    AVX512(VBMI2, L7C(6)),
    AVX512(VBMI, L7C(1)),
    AVX512(VNNI, L7C(11)),
    AVX512(VP2INTERSECT, L7D(8)),
    AVX512(VPCLMULQDQ, L7C(10)),
    AVX512(VPOPCNTDQ, L7C(14)),
    [SET(AVXAES)] = {AVX, L1C(25)},
    [SET(AVX_GFNI)] = {AVX, L7C(8)},
    [SET(AVX_VNNI)] = {L71A(4)},
    [SET(BMI1)] = {L7B(3)},
    [SET(BMI2)] = {L7B(8)},
    [SET(CLFLUSHOPT)] = {L7B(23)},
    [SET(CLFSH)] = {L1D(19)},
    [SET(CLWB)] = {L7B(24)},
    [SET(CLZERO)] = {L88B(0)},
    [SET(CMOV)] = {L1D(15)},
    [SET(CMPXCHG16B)] = {L1C(13)},
    [SET(ENQCMD)] = {NEVER},
    [SET(F16C)] = {L1C(29)},
    [SET(FCMOV)] = {L1D(15)},
    [SET(FMA)] = {L1C(12)},
    [SET(FMA4)] = {L81C(16)},
    [SET(FXSAVE)] = {L1D(24)},
    [SET(FXSAVE64)] = {L1D(24)},
    [SET(GFNI)] = {L7C(8)},
    [SET(HRESET)] = {NEVER},
    [SET(INVPCID)] = {L7B(10)},
    [SET(KEYLOCKER)] = {NEVER},
    [SET(KEYLOCKER_WIDE)] = {NEVER},
    [SET(LWP)] = {NEVER},
    [SET(LZCNT)] = {L81C(5)},
    [SET(MCOMMIT)] = {NEVER},
    [SET(MONITOR)] = {L1C(3)},
    [SET(MONITORX)] = {L81C(29)},
    [SET(MOVBE)] = {L1C(22)},
    [SET(PADLOCK_ACE)] = {NEVER},
    [SET(PADLOCK_PHE)] = {NEVER},
    [SET(PADLOCK_PMM)] = {NEVER},
    [SET(PADLOCK_RNG)] = {NEVER},
    [SET(PCLMULQDQ)] = {L1C(1)},
    [SET(PCONFIG)] = {NEVER},
    [SET(PENTIUMMMX)] = {L1D(23)},
    [SET(PKU)] = {L7C(3)},
    [SET(POPCNT)] = {L1C(23)},
    [SET(PT)] = {NEVER},
    [SET(RDPID)] = {L7C(22)},
    [SET(RDPRU)] = {L88B(4)},
    [SET(RDRAND)] = {L1C(30)},
    [SET(RDSEED)] = {L7B(18)},
    [SET(RDTSCP)] = {L81D(27)},
    [SET(RDWRFSGS)] = {L7B(0)},
    [SET(RTM)] = {L7B(11)},
    [SET(SERIALIZE)] = {L7D(14)},
    [SET(SGX)] = {NEVER},
    [SET(SGX_ENCLV)] = {NEVER},
    [SET(SHA)] = {L7B(29)},
    [SET(SMAP)] = {L7B(20)},
    [SET(SMX)] = {NEVER},
    [SET(SNP)] = {NEVER},
    [SET(SSE)] = {L1D(25)},
    [SET(SSE2)] = {L1D(26)},
    [SET(SSE2MMX)] = {L1D(26)},
    [SET(SSE3)] = {L1C(0)},
    [SET(SSE3X87)] = {L1C(0)},
    [SET(SSE4)] = {L1C(19)},
    [SET(SSE42)] = {L1C(20)},
    [SET(SSE4A)] = {L81C(6)},
    [SET(SSEMXCSR)] = {L1D(25)},
    [SET(SSE_PREFETCH)] = {L1D(25)},
    [SET(SSSE3)] = {L1C(9)},
    [SET(SSSE3MMX)] = {L1C(9)},
    [SET(SVM)] = {L81C(2)},
    [SET(TBM)] = {L81C(21)},
    [SET(TDX)] = {NEVER},
    [SET(TSX_LDTRK)] = {NEVER},
    [SET(UINTR)] = {NEVER},
    [SET(VAES)] = {AVX, L7C(9)},
    [SET(VMFUNC)] = {NEVER},
    [SET(VPCLMULQDQ)] = {AVX, L7C(10)},
    [SET(VTX)] = {L1C(5)},
    [SET(WAITPKG)] = {L7C(5)},
    [SET(X87)] = {L1D(0)},
    [SET(XOP)] = {L81C(11)},
    [SET(XSAVE)] = {L1C(26)},
    [SET(XSAVEC)] = {LDA(1)},
    [SET(XSAVEOPT)] = {LDA(0)},
    [SET(XSAVES)] = {LDA(3)},
};

/* Where the ISA set says too little. */
static const struct {
    ZydisMnemonic mnemonic;
    struct feature_bit need;
} mnemonic_features[] = {
    {ZYDIS_MNEMONIC_CMPXCHG8B, L1D(8)},
    {ZYDIS_MNEMONIC_MOVDIRI, L7C(27)},
    {ZYDIS_MNEMONIC_MOVDIR64B, L7C(28)},
};

static bool has_bit(const struct cpuid_table *table, const struct feature_bit *need)
{
    const struct cpuid_leaf *l = cpuid_find(table, need->leaf, need->subleaf);
    if (!l)
        return false;
    const uint32_t regs[4] = {l->eax, l->ebx, l->ecx, l->edx};
    return regs[need->reg] >> need->bit & 1;
}

bool feature_offered(const struct cpuid_table *table, const ZydisDecodedInstruction *insn)
{
    for (unsigned i = 0; i < ARRAY_SIZE(mnemonic_features); i++)
        if (mnemonic_features[i].mnemonic == insn->mnemonic &&
            !has_bit(table, &mnemonic_features[i].need))
            return false;
    const struct feature_bit *need = isa_features[insn->meta.isa_set];
    for (unsigned n = 0; n < ARRAY_SIZE(isa_features[0]) && need[n].leaf; n++)
        if (!has_bit(table, &need[n]))
            return false;
    return true;
}
