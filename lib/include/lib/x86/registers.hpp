// SPDX-License-Identifier: MIT
#pragma once
// Control registers, flags and model-specific registers, by their names in the manuals.
#include <lib/bits.hpp>

namespace lib::x86 {

// [intel/vol3] 2.5
struct Cr0 : Reg<Cr0, u64> {
    using PE = Bits<u64, 0>;
    using MP = Bits<u64, 1>;
    using EM = Bits<u64, 2>;
    using TS = Bits<u64, 3>;
    using ET = Bits<u64, 4>;
    using NE = Bits<u64, 5>;
    using WP = Bits<u64, 16>;
    using AM = Bits<u64, 18>;
    using NW = Bits<u64, 29>;
    using CD = Bits<u64, 30>;
    using PG = Bits<u64, 31>;
};
struct Cr4 : Reg<Cr4, u64> {
    using VME = Bits<u64, 0>;
    using PVI = Bits<u64, 1>;
    using TSD = Bits<u64, 2>;
    using DE = Bits<u64, 3>;
    using PSE = Bits<u64, 4>;
    using PAE = Bits<u64, 5>;
    using MCE = Bits<u64, 6>;
    using PGE = Bits<u64, 7>;
    using PCE = Bits<u64, 8>;
    using OSFXSR = Bits<u64, 9>;
    using OSXMMEXCPT = Bits<u64, 10>;
    using UMIP = Bits<u64, 11>;
    using LA57 = Bits<u64, 12>;
    using VMXE = Bits<u64, 13>;
    using SMXE = Bits<u64, 14>;
    using FSGSBASE = Bits<u64, 16>;
    using PCIDE = Bits<u64, 17>;
    using OSXSAVE = Bits<u64, 18>;
    using SMEP = Bits<u64, 20>;
    using SMAP = Bits<u64, 21>;
    using PKE = Bits<u64, 22>;
    using CET = Bits<u64, 23>;
    using PKS = Bits<u64, 24>;
};
struct Efer : Reg<Efer, u64> {
    using SCE = Bits<u64, 0>;
    using LME = Bits<u64, 8>;
    using LMA = Bits<u64, 10>;
    using NXE = Bits<u64, 11>;
    using SVME = Bits<u64, 12>;
    using LMSLE = Bits<u64, 13>;
    using FFXSR = Bits<u64, 14>;
};
struct Rflags : Reg<Rflags, u64> {
    using CF = Bits<u64, 0>;
    using PF = Bits<u64, 2>;
    using AF = Bits<u64, 4>;
    using ZF = Bits<u64, 6>;
    using SF = Bits<u64, 7>;
    using TF = Bits<u64, 8>;
    using IF = Bits<u64, 9>;
    using DF = Bits<u64, 10>;
    using OF = Bits<u64, 11>;
    using IOPL = Bits<u64, 13, 12>;
    using NT = Bits<u64, 14>;
    using RF = Bits<u64, 16>;
    using VM = Bits<u64, 17>;
    using AC = Bits<u64, 18>;
};

// [intel/vol4] table 2-2; [amd/vol2] appendix A
inline constexpr u32 IA32_TSC = 0x10;
inline constexpr u32 IA32_APIC_BASE = 0x1b;
inline constexpr u32 IA32_FEATURE_CONTROL = 0x3a;
inline constexpr u32 IA32_TSC_ADJUST = 0x3b;
inline constexpr u32 IA32_SYSENTER_CS = 0x174;
inline constexpr u32 IA32_SYSENTER_ESP = 0x175;
inline constexpr u32 IA32_SYSENTER_EIP = 0x176;
inline constexpr u32 IA32_DEBUGCTL = 0x1d9;
inline constexpr u32 IA32_ARCH_CAPABILITIES = 0x10a;
inline constexpr u32 IA32_MISC_ENABLE = 0x1a0;
inline constexpr u32 IA32_PAT = 0x277;
inline constexpr u32 IA32_TSC_DEADLINE = 0x6e0;
inline constexpr u32 IA32_X2APIC_BASE = 0x800; // + xAPIC offset / 16
inline constexpr u32 IA32_XSS = 0xda0;
inline constexpr u32 IA32_EFER = 0xc000'0080;
inline constexpr u32 IA32_STAR = 0xc000'0081;
inline constexpr u32 IA32_LSTAR = 0xc000'0082;
inline constexpr u32 IA32_CSTAR = 0xc000'0083;
inline constexpr u32 IA32_FMASK = 0xc000'0084;
inline constexpr u32 IA32_FS_BASE = 0xc000'0100;
inline constexpr u32 IA32_GS_BASE = 0xc000'0101;
inline constexpr u32 IA32_KERNEL_GS_BASE = 0xc000'0102;
inline constexpr u32 IA32_TSC_AUX = 0xc000'0103;

inline constexpr u32 INT_PENDING_MSG = 0xc001'0055;
inline constexpr u32 DE_CFG = 0xc001'1029;

inline constexpr u64 pat_at_reset = 0x0007'0406'0007'0406;
inline constexpr u64 pat_with_write_combining = 0x0007'0406'0007'0106; // in entry 1, at reset write-through

// Exception vectors. [intel/vol3] table 6-1
inline constexpr u8 exception_de = 0, exception_db = 1, exception_nmi = 2, exception_bp = 3, exception_of = 4,
                    exception_br = 5, exception_ud = 6, exception_nm = 7, exception_df = 8, exception_ts = 10,
                    exception_np = 11, exception_ss = 12, exception_gp = 13, exception_pf = 14, exception_mf = 16,
                    exception_ac = 17, exception_mc = 18, exception_xm = 19, exception_ve = 20, exception_cp = 21;
inline constexpr u8 exception_vectors = 32; // of them all, also those that have no name yet

} // namespace lib::x86
