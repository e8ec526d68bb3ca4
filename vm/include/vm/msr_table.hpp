// SPDX-License-Identifier: MIT
#pragma once
// The allow-list of MSRs and its index. Values that guests read without expecting #GP but that mean nothing here are
// constants.
#include <vm/msr_policy.hpp>

namespace vm::msr {

inline constexpr u64 all_bits = ~u64{0};
constexpr u8 at(MsrSlot slot, unsigned offset = 0) { return static_cast<u8>(static_cast<unsigned>(slot) + offset); }
constexpr u8 at(HardwareMsr which) { return static_cast<u8>(which); }

inline constexpr u64 mtrr_variable_count = 8;
inline constexpr u64 mtrr_capabilities = mtrr_variable_count | bit(8) | bit(10); // fixed ranges, write combining

// Fast strings on; branch trace and PEBS storage say unavailable. What software may write is kept and changes nothing,
// CPUID neither: fast strings, thermal control, FERR#, prefetchers, SpeedStep, MONITOR, CPUID limit, xTPR, execute
// disable, turbo. [intel/vol4] 2.1 and table 2-2, IA32_MISC_ENABLE
inline constexpr u64 misc_enable_reset = bit(0) | bit(11) | bit(12);
inline constexpr u64 misc_enable_writable = bit(0) | bit(3) | bit(9) | bit(10) | bit(16) | bit(18) | bit(19) | bit(20) |
                                            bit(22) | bit(23) | bit(34) | bit(37) | bit(38) | bit(39);
// LBR and BTF may be asked for. They stay 0: no branch is recorded, and TF steps instruction by instruction.
inline constexpr u64 debugctl_ignored = bit(0) | bit(1);
// AMD: SYSCFG says which MTRRs and top-of-memory registers count. Not bit 19, with which fixed MTRRs get more bits.
inline constexpr u64 syscfg_writable = bit(18) | bit(20) | bit(21) | bit(22);
// The current ratio, and the highest one: ten times a bus of 100 MHz. Some systems divide by it.
inline constexpr u64 perf_status = u64{10} << 8 | u64{10} << 40;

using R = MsrRead;
using W = MsrWrite;
namespace need = msr_need;

inline constexpr MsrRule rules[] = {
    // index, read, write, slot or register, needs, writable, reset, how many in a row
    {0, R::Fault, W::Fault, 0, 0, 0, 0, 0}, // entry 0 of the index: not ours
    {IA32_TSC, R::Tsc, W::Tsc, 0, 0, all_bits, 0},
    {IA32_PLATFORM_ID, R::Constant, W::Fault, 0, need::Intel, 0, 0},
    {IA32_APIC_BASE, R::ApicBase, W::ApicBase, 0, 0, all_bits, 0},
    {IA32_FEATURE_CONTROL, R::Constant, W::Fault, 0, need::Intel, 0, 1}, // locked, with VMX and SMX off
    {IA32_TSC_ADJUST, R::Stored, W::TscAdjust, at(MsrSlot::TscAdjust), 0, all_bits, 0},
    {IA32_BIOS_SIGN_ID, R::Microcode, W::Microcode, 0, 0, 0, 0},
    {MSR_PLATFORM_INFO, R::Constant, W::Fault, 0, need::Intel, 0, 0}, // no CPUID faulting, no ratios
    {IA32_MTRRCAP, R::Constant, W::Fault, 0, 0, 0, mtrr_capabilities},
    {MSR_MISC_FEATURES_ENABLES, R::Stored, W::Stored, at(MsrSlot::MiscFeatures), need::Intel, 0, 0},
    {IA32_SYSENTER_CS, R::Hardware, W::SysenterCs, at(HardwareMsr::SysenterCs), 0, 0xffff'ffff, 0},
    {IA32_SYSENTER_ESP, R::Hardware, W::Canonical, at(HardwareMsr::SysenterEsp), 0, all_bits, 0},
    {IA32_SYSENTER_EIP, R::Hardware, W::Canonical, at(HardwareMsr::SysenterEip), 0, all_bits, 0},
    {IA32_MCG_CAP, R::Constant, W::Fault, 0, 0, 0, 0}, // no banks
    {IA32_MCG_STATUS, R::Stored, W::Stored, at(MsrSlot::McgStatus), 0, 7, 0},
    {IA32_MISC_ENABLE, R::Stored, W::Stored, at(MsrSlot::MiscEnable), need::Intel, misc_enable_writable,
     misc_enable_reset},
    {IA32_DEBUGCTL, R::Constant, W::Ignored, 0, 0, debugctl_ignored, 0},
    {IA32_MTRR_PHYSBASE0, R::Stored, W::MtrrVariable, at(MsrSlot::MtrrVariable), 0, 0, 0, 16}, // base, mask, base, ...
    {IA32_MTRR_FIX64K_00000, R::Stored, W::MtrrFixed, at(MsrSlot::MtrrFixed, 0), 0, all_bits, 0},
    {IA32_MTRR_FIX16K_80000, R::Stored, W::MtrrFixed, at(MsrSlot::MtrrFixed, 1), 0, all_bits, 0},
    {IA32_MTRR_FIX16K_A0000, R::Stored, W::MtrrFixed, at(MsrSlot::MtrrFixed, 2), 0, all_bits, 0},
    {IA32_MTRR_FIX4K_C0000, R::Stored, W::MtrrFixed, at(MsrSlot::MtrrFixed, 3), 0, all_bits, 0, 8},
    {IA32_PAT, R::Hardware, W::Pat, at(HardwareMsr::Pat), 0, all_bits, 0},
    {IA32_MTRR_DEF_TYPE, R::Stored, W::MtrrDefType, at(MsrSlot::MtrrDefType), 0, 0xcff, 0},
    {IA32_TSC_DEADLINE, R::TscDeadline, W::TscDeadline, 0, need::TscDeadline, all_bits, 0},
    {IA32_XSS, R::Hardware, W::Xss, at(HardwareMsr::Xss), need::Xsaves, 0, 0},
    {IA32_EFER, R::Hardware, W::Efer, at(HardwareMsr::Efer), 0, 0, 0},
    {IA32_STAR, R::Hardware, W::Masked, at(HardwareMsr::Star), 0, all_bits, 0},
    {IA32_LSTAR, R::Hardware, W::Canonical, at(HardwareMsr::Lstar), 0, all_bits, 0},
    {IA32_CSTAR, R::Hardware, W::Canonical, at(HardwareMsr::Cstar), 0, all_bits, 0},
    {IA32_FMASK, R::Hardware, W::Masked, at(HardwareMsr::Fmask), 0, 0xffff'ffff, 0},
    {IA32_FS_BASE, R::Hardware, W::Canonical, at(HardwareMsr::FsBase), 0, all_bits, 0},
    {IA32_GS_BASE, R::Hardware, W::Canonical, at(HardwareMsr::GsBase), 0, all_bits, 0},
    {IA32_KERNEL_GS_BASE, R::Hardware, W::Canonical, at(HardwareMsr::KernelGsBase), 0, all_bits, 0},
    {IA32_TSC_AUX, R::Hardware, W::TscAux, at(HardwareMsr::TscAux), need::TscAux, 0xffff'ffff, 0},
    // AMD, of which operating systems read some without expecting #GP
    {SYSCFG, R::Stored, W::Stored, at(MsrSlot::Syscfg), need::Amd, syscfg_writable, 0},
    // TLB caching off, INVD as WBINVD, flush filter off, FERR# ignored, SSE off; bit 24: the TSC runs at P0 speed
    {HWCR, R::Stored, W::Stored, at(MsrSlot::Hwcr), need::Amd, bit(3) | bit(4) | bit(6) | bit(8) | bit(15), bit(24)},
    {TOP_MEM, R::Constant, W::Fault, 0, need::Amd, 0, 0},
    {TOP_MEM2, R::Constant, W::Fault, 0, need::Amd, 0, 0},
    {NB_CFG, R::Constant, W::Ignored, 0, need::Amd, bit(46),
     0}, // extended configuration by port CF8h, which we have not
    {INT_PENDING, R::Constant, W::Constant, 0, need::Amd, 0, 0}, // no C1E message
    {MMIO_CFG_BASE, R::Constant, W::Fault, 0, need::Amd, 0, 0},
    {VM_CR, R::Constant, W::Ignored, 0, need::Amd, bit(3) | bit(4), bit(3) | bit(4)}, // SVM disabled and locked
    // Not LS_CFG: Linux takes its presence for a working switch of speculative store bypass.
    {DE_CFG, R::DeCfg, W::DeCfg, 0, need::Amd, 0, 0},
    // Every CPU of the vendor has these, and systems use them without asking CPUID (docs/decisions/msrs.md). What they
    // would control is not there: counters count nothing and stay 0, so that Linux finds that out and does without.
    {IA32_P5_MC_ADDR, R::Constant, W::Ignored, 0, 0, all_bits, 0, 2}, // and IA32_P5_MC_TYPE: no error was seen
    {EBL_CR_POWERON, R::Constant, W::Ignored, 0, 0, all_bits, 0},
    {IA32_BIOS_UPDT_TRIG, R::Fault, W::Ignored, 0, need::Intel, all_bits, 0}, // an update changes nothing
    {IA32_PMC0, R::Constant, W::Ignored, 0, need::Intel, all_bits, 0, 2},
    {MSR_FSB_FREQ, R::Constant, W::Fault, 0, need::Intel, 0, 0},
    {MSR_PKG_CST_CONFIG_CONTROL, R::Constant, W::Ignored, 0, need::Intel, all_bits, bit(15)}, // locked
    {MSR_BBL_CR_CTL3, R::Constant, W::Ignored, 0, need::Intel, all_bits, bit(0) | bit(8)},    // the L2 cache is on
    {IA32_PERFEVTSEL0, R::Constant, W::Ignored, 0, need::Intel, all_bits, 0, 2},
    {IA32_PERF_STATUS, R::Constant, W::Ignored, 0, need::Intel, all_bits, perf_status},
    {IA32_PERF_CTL, R::Constant, W::Ignored, 0, need::Intel, all_bits, 0},
    {MSR_LASTBRANCH_FROM_IP, R::Constant, W::Ignored, 0, 0, all_bits, 0, 4}, // and to, and the last exception's
    {MSR_RAPL_POWER_UNIT, R::Constant, W::Fault, 0, need::Intel, 0, 0},
    {MSR_PKG_ENERGY_STATUS, R::Constant, W::Fault, 0, need::Intel, 0, 0},
    {MSR_DRAM_ENERGY_STATUS, R::Constant, W::Fault, 0, need::Intel, 0, 0},
    {MSR_PP0_ENERGY_STATUS, R::Constant, W::Fault, 0, need::Intel, 0, 0},
    {MSR_PP1_ENERGY_STATUS, R::Constant, W::Fault, 0, need::Intel, 0, 0},
    {PERF_CTL0, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0, 4},
    {PERF_CTR0, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0, 4},
    {CLK_CTL, R::Constant, W::Ignored, 0, need::Amd, all_bits, bit(29)},
    {PATCH_LOADER, R::Fault, W::Ignored, 0, need::Amd, all_bits, 0}, // an update changes nothing
    {MC0_CTL_MASK, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0, 7},
    // P-state limit, control, status and definitions, all of P-states that are not defined: HWCR says that the TSC runs
    // at P0's speed, and OpenBSD, NetBSD and Haiku look there for it. [amd/bkdg-10h] MSRC001_0061 to MSRC001_0068
    {PSTATE_LIMIT, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0, 11},
    {SMM_ADDR, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0, 2}, // and SMM_MASK: no memory is set aside for SMM
    {IC_CFG, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0},      // switches for errata of old families
    {DC_CFG, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0},
    {TW_CFG, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0},
    {BU_CFG2, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0},
    {EX_CFG, R::Constant, W::Ignored, 0, need::Amd, all_bits, 0},
    // The two that the leaf 40000101h promises; bit 0 of the second one turns its clock on.
    {KVM_WALL_CLOCK_NEW, R::Stored, W::KvmWallClock, at(MsrSlot::KvmWallClock), 0, ~u64{3}, 0},
    {KVM_SYSTEM_TIME_NEW, R::Stored, W::KvmSystemTime, at(MsrSlot::KvmSystemTime), 0, ~u64{2}, 0},
};

// Direct index: one byte per MSR number in each populated 4096-number block, 0 where there is none.
struct Index {
    u8 low[0x1000]{};
    u8 syscall[0x200]{};
    u8 amd[0x200]{};
    u8 amd_more[0x80]{};
    u8 kvm[2]{}; // from KVM_WALL_CLOCK_NEW on
};
consteval Index make_index() {
    Index index;
    u8 number = 0;
    for (MsrRule const& rule : rules) {
        for (u32 i = 0; i < rule.count; ++i) {
            u32 const block = rule.index >> 12;
            u32 const offset = (rule.index & 0xfff) + i;
            if (block == 0) index.low[offset] = number;
            if (block == 0xc'0000) index.syscall[offset] = number;
            if (block == 0xc'0010) index.amd[offset] = number;
            if (block == 0xc'0011) index.amd_more[offset] = number;
            if (block == KVM_WALL_CLOCK_NEW >> 12) index.kvm[rule.index + i - KVM_WALL_CLOCK_NEW] = number;
        }
        ++number;
    }
    return index;
}
inline constexpr Index index_of = make_index();

} // namespace vm::msr
