// SPDX-License-Identifier: MIT
#pragma once
// MSRs by allow-list: what vm/msr_table.hpp does not name is #GP, and so is a reserved bit. Values without an effect
// are kept here per vCPU; those with one go through MsrHooks, already validated. Not offered: performance counters,
// machine-check banks, speculation control, VMX/SVM, SGX, PT, RDT, power management.
#include <array>
#include <span>
#include <vm/control_registers.hpp>
#include <vm/cpuid_policy.hpp>

namespace vm {

enum class MsrResult : u8 { Done, GeneralProtection };

namespace msr { // names and numbers as in [intel/vol4] 2.1 and [amd/vol2] appendix A
inline constexpr u32 IA32_P5_MC_ADDR = 0x0, IA32_TSC = 0x10, IA32_PLATFORM_ID = 0x17, IA32_APIC_BASE = 0x1b,
                     EBL_CR_POWERON = 0x2a, IA32_FEATURE_CONTROL = 0x3a, IA32_TSC_ADJUST = 0x3b,
                     IA32_BIOS_UPDT_TRIG = 0x79, IA32_BIOS_SIGN_ID = 0x8b, IA32_PMC0 = 0xc1, MSR_FSB_FREQ = 0xcd,
                     MSR_PLATFORM_INFO = 0xce, MSR_PKG_CST_CONFIG_CONTROL = 0xe2, IA32_MTRRCAP = 0xfe,
                     MSR_BBL_CR_CTL3 = 0x11e, MSR_MISC_FEATURES_ENABLES = 0x140, IA32_PERFEVTSEL0 = 0x186,
                     IA32_PERF_STATUS = 0x198, IA32_PERF_CTL = 0x199, MSR_LASTBRANCH_FROM_IP = 0x1db,
                     MSR_RAPL_POWER_UNIT = 0x606, MSR_PKG_ENERGY_STATUS = 0x611, MSR_DRAM_ENERGY_STATUS = 0x619,
                     MSR_PP0_ENERGY_STATUS = 0x639, MSR_PP1_ENERGY_STATUS = 0x641, IA32_SYSENTER_CS = 0x174,
                     IA32_SYSENTER_ESP = 0x175, IA32_SYSENTER_EIP = 0x176, IA32_MCG_CAP = 0x179,
                     IA32_MCG_STATUS = 0x17a, IA32_MISC_ENABLE = 0x1a0, IA32_DEBUGCTL = 0x1d9,
                     IA32_MTRR_PHYSBASE0 = 0x200, IA32_MTRR_PHYSMASK7 = 0x20f, IA32_MTRR_FIX64K_00000 = 0x250,
                     IA32_MTRR_FIX16K_80000 = 0x258, IA32_MTRR_FIX16K_A0000 = 0x259, IA32_MTRR_FIX4K_C0000 = 0x268,
                     IA32_MTRR_FIX4K_F8000 = 0x26f, IA32_PAT = 0x277, IA32_MTRR_DEF_TYPE = 0x2ff,
                     IA32_TSC_DEADLINE = 0x6e0, IA32_X2APIC_FIRST = 0x800, IA32_X2APIC_LAST = 0x8ff, IA32_XSS = 0xda0,
                     KVM_WALL_CLOCK_NEW = 0x4b56'4d00, KVM_SYSTEM_TIME_NEW = 0x4b56'4d01, IA32_EFER = 0xc000'0080,
                     IA32_STAR = 0xc000'0081, IA32_LSTAR = 0xc000'0082, IA32_CSTAR = 0xc000'0083,
                     IA32_FMASK = 0xc000'0084, IA32_FS_BASE = 0xc000'0100, IA32_GS_BASE = 0xc000'0101,
                     IA32_KERNEL_GS_BASE = 0xc000'0102, IA32_TSC_AUX = 0xc000'0103, PERF_CTL0 = 0xc001'0000,
                     PERF_CTR0 = 0xc001'0004, SYSCFG = 0xc001'0010, HWCR = 0xc001'0015, TOP_MEM = 0xc001'001a,
                     CLK_CTL = 0xc001'001b, TOP_MEM2 = 0xc001'001d, NB_CFG = 0xc001'001f, PATCH_LOADER = 0xc001'0020,
                     MC0_CTL_MASK = 0xc001'0044, INT_PENDING = 0xc001'0055, MMIO_CFG_BASE = 0xc001'0058,
                     PSTATE_LIMIT = 0xc001'0061, SMM_ADDR = 0xc001'0112, VM_CR = 0xc001'0114, IC_CFG = 0xc001'1021,
                     DC_CFG = 0xc001'1022, TW_CFG = 0xc001'1023, DE_CFG = 0xc001'1029, BU_CFG2 = 0xc001'102a,
                     EX_CFG = 0xc001'102c;
} // namespace msr

// MSRs whose value lives in the hardware state of the vCPU (VMCS, VMCB or the real register): the backend keeps them.
enum class HardwareMsr : u8 {
    Efer,
    Pat,
    Star,
    Lstar,
    Cstar,
    Fmask,
    FsBase,
    GsBase,
    KernelGsBase,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    TscAux,
    Xss,
};

// The vCPU behind the policy. Every value that arrives here is architecturally valid.
class MsrHooks {
public:
    virtual u64 read_hardware(HardwareMsr which) = 0;
    virtual void write_hardware(HardwareMsr which, u64 value) = 0;
    virtual u64 cr0() = 0;
    virtual u64 guest_tsc() = 0;
    virtual void shift_tsc(u64 delta) = 0; // the guest's TSC jumps by `delta`, modulo 2^64; re-arm its timer
    virtual u64 read_tsc_deadline() = 0;
    virtual void write_tsc_deadline(u64 value) = 0;
    virtual u64 read_apic_base() = 0;
    virtual MsrResult write_apic_base(u64 value) = 0;
    // KVM's clock, to guest memory at `at` if there is any. The guest has moved its TSC by `tsc_moved`.
    virtual void publish_time(u64 at, u64 tsc_moved) = 0;
    virtual void publish_wall_clock(u64 at) = 0;
    virtual MsrResult read_x2apic(u32 index, u64& value) = 0;
    virtual MsrResult write_x2apic(u32 index, u64 value) = 0;

protected:
    ~MsrHooks() = default;
};

// What the table needs to know of a VM; the same for all its vCPUs.
struct MsrFacts {
    CpuVendor vendor = CpuVendor::Intel;
    bool tsc_deadline = true;
    bool tsc_aux = false;
    bool xsaves = false;
    bool lfence_serialising = false; // AMD: the host's DE_CFG bit 1 is set
    ControlRegisterRules rules{};
    u32 microcode_revision = 0; // the host's: guests look for errata fixes by it
};
MsrFacts msr_facts_of(CpuidPolicy const& cpuid);

// One MSR as VcpuState keeps it.
struct SavedMsr {
    static constexpr std::size_t most = 64;
    u32 index, reserved;
    u64 value;
};

// What a vCPU stores of MSRs that have no effect, or whose effect is elsewhere.
enum class MsrSlot : u8 {
    TscAdjust,
    MiscEnable,
    McgStatus,
    MiscFeatures,
    Syscfg,
    Hwcr,
    KvmWallClock,
    KvmSystemTime,
    MtrrDefType,
    MtrrFixed,                     // eleven
    MtrrVariable = MtrrFixed + 11, // eight pairs base, mask
    Count = MtrrVariable + 16,
};

struct MsrState {
    std::array<u64, static_cast<std::size_t>(MsrSlot::Count)> slots{};
    u64& operator[](MsrSlot slot) { return slots[static_cast<std::size_t>(slot)]; }
    u64 const& operator[](MsrSlot slot) const { return slots[static_cast<std::size_t>(slot)]; }
};

enum class MsrRead : u8 { Fault, Constant, Stored, Hardware, Tsc, TscDeadline, ApicBase, Microcode, DeCfg };
enum class MsrWrite : u8 {
    Fault,
    Constant, // writing what is read is allowed, anything else is not
    Ignored,  // the same, but bits in the mask may be written and stay as they are
    Stored,   // bits outside the mask must keep their value
    TscAdjust,
    Tsc,
    TscDeadline,
    ApicBase,
    MtrrDefType,
    MtrrFixed,
    MtrrVariable,
    Efer,
    Pat,
    Canonical,
    Masked, // hardware register: bits outside the mask are #GP
    TscAux,
    SysenterCs,
    Xss,
    Microcode,
    DeCfg,
    KvmWallClock,
    KvmSystemTime,
};

// Who has it: every bit named must be among the VM's.
namespace msr_need {
inline constexpr u8 Intel = 1, Amd = 2, TscDeadline = 4, TscAux = 8, Xsaves = 16;
}

struct MsrRule {
    u32 index;
    MsrRead read;
    MsrWrite write;
    u8 where; // MsrSlot or HardwareMsr
    u8 needs;
    u64 writable;
    u64 reset;
    u8 count = 1; // MSRs in a row that share the rule; their slots follow each other
};

class MsrPolicy {
public:
    MsrPolicy() = default;
    MsrPolicy(MsrFacts const& facts, MsrHooks& hooks);

    MsrResult read(u32 index, u64& value);
    MsrResult write(u32 index, u64 value) {
        // What a tickless guest writes most comes first.
        if (index == msr::IA32_TSC_DEADLINE && (has_ & msr_need::TscDeadline) != 0) [[likely]] {
            hooks_->write_tsc_deadline(value);
            return MsrResult::Done;
        }
        if (index - msr::IA32_X2APIC_FIRST < 0x100) return hooks_->write_x2apic(index, value);
        return write_rare(index, value);
    }

    // Power-on values. INIT changes none of them: what it resets lives in hardware. [intel/vol3] table 10-1
    void reset();
    // What firmware leaves behind: write-back by default, the legacy video hole and [hole_base, 4 GiB) uncached. The
    // hole's size must be a power of two. Without it Linux takes MTRRs for disabled and gives up PAT too.
    void set_firmware_mtrrs(u64 hole_base);

    u64 tsc_adjust() const { return state_[MsrSlot::TscAdjust]; }
    MsrState const& state() const { return state_; }
    MsrState& state() { return state_; }

    // Every MSR that a guest can write and that has a value of its own; not those that are kept elsewhere: EFER and the
    // bases of FS and GS (registers), IA32_APIC_BASE, IA32_TSC_DEADLINE and x2APIC (APIC), IA32_TSC. Returns how many.
    u32 save(std::array<SavedMsr, SavedMsr::most>& out);
    // Like a write that the guest once made, without its effects on clocks: these were saved too.
    MsrResult restore(SavedMsr const& saved);

    // Null when this VM has no such MSR. The x2APIC range is not in the table.
    MsrRule const* find(u32 index) const;

private:
    u64& slot_of(MsrRule const& rule, u32 index) { return state_.slots.data()[rule.where + (index - rule.index)]; }
    static bool is_saved(MsrRule const& rule);
    bool has(MsrRule const& rule) const { return (rule.needs & ~has_) == 0; }
    MsrResult write_rare(u32 index, u64 value);
    MsrResult write_stored(u64& slot, u64 writable, u64 value);
    MsrResult write_hardware(MsrRule const& rule, u64 value);
    MsrResult write_mtrr_variable(u64& slot, bool is_mask, u64 value);
    MsrResult write_efer(u64 value);
    MsrResult write_kvm_clock(MsrRule const& rule, u64& slot, u64 value);
    void move_tsc(u64 delta);

    MsrState state_{};
    MsrHooks* hooks_ = nullptr;
    MsrFacts facts_{};
    u8 has_ = 0; // msr_need bits
    u64 de_cfg_ = 0;
};

} // namespace vm
