// SPDX-License-Identifier: MIT
#pragma once
// The allow-list of CPUID: which host bits may pass (`pass`), which are always set (`forced`), by leaf and subleaf.
// What no row names reads as zero. Whatever depends on the VM (topology, sizes, frequencies) is computed in
// cpuid_builder.cpp.
//
// Speculation control (IBRS, IBPB, STIBP, SSBD, ARCH_CAPABILITIES, AutoIBRS) stays off: those bits promise MSRs that
// would have to be switched per vCPU. What passes are statements without an MSR behind them, which let a guest choose
// its mitigation rightly: MD_CLEAR (VERW clears buffers, an instruction the guest executes itself), SSB_NO and BTC_NO
// (not vulnerable), LFENCE always serialising, null selectors clear their base.
#include <vm/cpuid_policy.hpp>

namespace vm::cpuid {

template <typename... Bit> consteval u32 mask(Bit... bits) { return ((u32{1} << bits) | ... | u32{0}); }

enum class Who : u8 { Both, Intel, Amd };

struct AllowedLeaf {
    u32 leaf;
    u32 subleaf;
    Who who;
    CpuidRegs pass;
    CpuidRegs forced;
};

namespace leaf1 {                         // [intel/vol2] CPUID, [amd/vol3] E.3.2
inline constexpr u32 ecx_pass = mask(0,   // SSE3
                                     1,   // PCLMULQDQ
                                     9,   // SSSE3
                                     12,  // FMA
                                     13,  // CMPXCHG16B
                                     17,  // PCID
                                     19,  // SSE4.1
                                     20,  // SSE4.2
                                     22,  // MOVBE
                                     23,  // POPCNT
                                     25,  // AESNI
                                     26,  // XSAVE
                                     28,  // AVX
                                     29,  // F16C
                                     30); // RDRAND
inline constexpr u32 X2APIC = mask(21), TSC_DEADLINE = mask(24), XSAVE = mask(26), OSXSAVE = mask(27),
                     HYPERVISOR = mask(31);
inline constexpr u32 PCID = mask(17);
inline constexpr u32 needs_avx = mask(12, 28, 29);
inline constexpr u32 edx_pass = mask(0,            // FPU
                                     1,            // VME
                                     2,            // DE
                                     3,            // PSE
                                     4,            // TSC
                                     5,            // MSR
                                     6,            // PAE
                                     7,            // MCE
                                     8,            // CX8
                                     11,           // SEP
                                     13,           // PGE
                                     15,           // CMOV
                                     16,           // PAT
                                     17,           // PSE-36
                                     19,           // CLFSH
                                     23,           // MMX
                                     24,           // FXSR
                                     25,           // SSE
                                     26,           // SSE2
                                     27);          // SS
inline constexpr u32 edx_forced = mask(9, 12, 14); // APIC, MTRR, MCA: emulated
inline constexpr u32 APIC = mask(9), HTT = mask(28);
} // namespace leaf1

namespace leaf7 {
inline constexpr u32 ebx_pass = mask(0,   // FSGSBASE
                                     3,   // BMI1
                                     5,   // AVX2
                                     6,   // FDP_EXCPTN_ONLY, a statement
                                     7,   // SMEP
                                     8,   // BMI2
                                     9,   // ERMS
                                     10,  // INVPCID
                                     13,  // FCS and FDS deprecated, a statement
                                     16,  // AVX512F
                                     17,  // AVX512DQ
                                     18,  // RDSEED
                                     19,  // ADX
                                     20,  // SMAP
                                     21,  // AVX512_IFMA
                                     23,  // CLFLUSHOPT
                                     24,  // CLWB
                                     28,  // AVX512CD
                                     29,  // SHA
                                     30,  // AVX512BW
                                     31); // AVX512VL
inline constexpr u32 TSC_ADJUST = mask(1), INVPCID = mask(10), AVX2 = mask(5);
inline constexpr u32 ebx_needs_avx512 = mask(16, 17, 21, 28, 30, 31);
inline constexpr u32 ecx_pass = mask(1,   // AVX512_VBMI
                                     2,   // UMIP
                                     3,   // PKU
                                     6,   // AVX512_VBMI2
                                     8,   // GFNI
                                     9,   // VAES
                                     10,  // VPCLMULQDQ
                                     11,  // AVX512_VNNI
                                     12,  // AVX512_BITALG
                                     14,  // AVX512_VPOPCNTDQ
                                     22,  // RDPID
                                     25,  // CLDEMOTE
                                     27,  // MOVDIRI
                                     28); // MOVDIR64B
inline constexpr u32 UMIP = mask(2), PKU = mask(3), OSPKE = mask(4), RDPID = mask(22);
inline constexpr u32 ecx_needs_avx = mask(9, 10);
inline constexpr u32 ecx_needs_avx512 = mask(1, 6, 11, 12, 14);
inline constexpr u32 edx_pass = mask(4,   // FSRM
                                     8,   // AVX512_VP2INTERSECT
                                     10,  // MD_CLEAR, a statement
                                     14,  // SERIALIZE
                                     23); // AVX512_FP16
inline constexpr u32 edx_needs_avx512 = mask(8, 23);
// Subleaf 1 EAX
inline constexpr u32 eax1_pass = mask(0,   // SHA512
                                      1,   // SM3
                                      2,   // SM4
                                      4,   // AVX-VNNI
                                      5,   // AVX512_BF16
                                      10,  // fast zero-length MOVSB
                                      11,  // fast short STOSB
                                      12,  // fast short CMPSB, SCASB
                                      23); // AVX-IFMA
inline constexpr u32 eax1_needs_avx = mask(0, 1, 2, 4, 23);
inline constexpr u32 eax1_needs_avx512 = mask(5);
} // namespace leaf7

namespace leaf80000001 {
inline constexpr u32 ecx_pass_intel = mask(0,                  // LAHF in 64-bit mode
                                           5,                  // LZCNT
                                           8);                 // PREFETCHW
inline constexpr u32 ecx_pass_amd = ecx_pass_intel | mask(6,   // SSE4A
                                                          7,   // misaligned SSE
                                                          11,  // XOP
                                                          16,  // FMA4
                                                          21,  // TBM
                                                          22); // topology extensions
inline constexpr u32 needs_avx = mask(11, 16);
inline constexpr u32 CMP_LEGACY = mask(1), TOPOLOGY_EXTENSIONS = mask(22);
inline constexpr u32 edx_pass_intel = mask(11,  // SYSCALL
                                           20,  // execute disable
                                           26,  // 1 GiB pages
                                           27,  // RDTSCP
                                           29); // long mode
// AMD repeats what leaf 1 says in bits 0-9, 12-17, 23, 24; APIC and MTRR are forced like there.
inline constexpr u32 edx_pass_amd = edx_pass_intel | mask(22, 23, 24, 30, 31) | (leaf1::edx_pass & 0x0003'f1ff);
inline constexpr u32 edx_forced_amd = mask(9, 12, 14);
inline constexpr u32 NX = mask(20), RDTSCP = mask(27), LONG_MODE = mask(29), SYSCALL = mask(11);
} // namespace leaf80000001

inline constexpr u32 all = ~u32{0};

inline constexpr AllowedLeaf allow_list[] = {
    {0x0, 0, Who::Both, {0, all, all, all}, {}}, // EAX is computed
    {0x1,
     0,
     Who::Both,
     {0x0fff'3fff, 0xffff, leaf1::ecx_pass, leaf1::edx_pass},
     {0, 0, leaf1::HYPERVISOR, leaf1::edx_forced}},
    {0x2, 0, Who::Intel, {all, all, all, all}, {}}, // cache and TLB descriptors
    {0x6, 0, Who::Both, {}, {mask(2), 0, 0, 0}},    // ARAT: our APIC timer never stops
    {0x7, 0, Who::Both, {0, leaf7::ebx_pass, leaf7::ecx_pass, leaf7::edx_pass}, {0, leaf7::TSC_ADJUST, 0, 0}},
    {0x7, 1, Who::Both, {leaf7::eax1_pass, 0, 0, 0}, {}},
    {0xd, 1, Who::Both, {mask(0, 1, 2, 3), 0, 0, 0}, {}}, // XSAVEOPT, XSAVEC, XGETBV with ECX=1, XSAVES
    {0x8000'0000, 0, Who::Amd, {0, all, all, all}, {}},   // EAX is computed
    {0x8000'0001, 0, Who::Intel, {0, 0, leaf80000001::ecx_pass_intel, leaf80000001::edx_pass_intel}, {}},
    {0x8000'0001,
     0,
     Who::Amd,
     {0x0fff'0fff, 0, leaf80000001::ecx_pass_amd, leaf80000001::edx_pass_amd},
     {0, 0, 0, leaf80000001::edx_forced_amd}},
    {0x8000'0002, 0, Who::Both, {all, all, all, all}, {}}, // brand string
    {0x8000'0003, 0, Who::Both, {all, all, all, all}, {}},
    {0x8000'0004, 0, Who::Both, {all, all, all, all}, {}},
    {0x8000'0005, 0, Who::Amd, {all, all, all, all}, {}},          // L1 caches and TLBs
    {0x8000'0006, 0, Who::Intel, {0, 0, all, 0}, {}},              // L2 cache
    {0x8000'0006, 0, Who::Amd, {all, all, all, all}, {}},          // L2, L3
    {0x8000'0008, 0, Who::Amd, {0, mask(0, 2, 26, 29), 0, 0}, {}}, // CLZERO, RstrFpErrPtrs; statements SSB_NO, BTC_NO
    {0x8000'0019, 0, Who::Amd, {all, all, 0, 0}, {}},              // TLBs for 1 GiB pages
    {0x8000'001a, 0, Who::Amd, {mask(0, 1, 2), 0, 0, 0}, {}},      // which SSE/AVX width is fast
    {0x8000'0021, 0, Who::Amd, {mask(0, 2, 6), 0, 0, 0}, {}}, // statements: no nested data bp, LFENCE, null selector
};

} // namespace vm::cpuid
