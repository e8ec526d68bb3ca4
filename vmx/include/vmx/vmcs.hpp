// SPDX-License-Identifier: MIT
#pragma once
// The VMCS: fields as types, reachable only through the proof that the VMCS is loaded. Each declaration's width and
// read-only-ness are checked against its encoding when it is compiled. [intel/vol3] 25.11.2, appendix B
#include <concepts>
#include <lib/assert.hpp>
#include <lib/bits.hpp>
#include <lib/result.hpp>
#include <lib/x86/instructions.hpp>
#include <vmx/controls.hpp>

namespace vmx {

void vmcs_field_type_does_not_match_its_encoding(); // never defined: reached only by a wrong declaration

enum class FieldAccess : u8 { ReadOnly, ReadWrite };

template <typename T> constexpr unsigned raw_width() {
    if constexpr (std::is_integral_v<T>)
        return sizeof(T);
    else
        return sizeof(typename T::Raw);
}

template <typename T, FieldAccess A> struct Field {
    u16 encoding;
    consteval explicit Field(u16 e) : encoding(e) {
        constexpr unsigned bytes[] = {2, 8, 4, 8};
        if (bytes[(e >> 13) & 3] != raw_width<T>()) vmcs_field_type_does_not_match_its_encoding();
        if ((((e >> 10) & 3) == 1) != (A == FieldAccess::ReadOnly)) vmcs_field_type_does_not_match_its_encoding();
    }
};
template <typename T> using Rw = Field<T, FieldAccess::ReadWrite>;
template <typename T> using Ro = Field<T, FieldAccess::ReadOnly>;

// [intel/vol3] table 25-9
struct Eptp : Reg<Eptp, u64> {
    using MemoryType = Bits<u64, 2, 0, u8>;
    using WalkLengthMinusOne = Bits<u64, 5, 3, u8>;
    static constexpr u64 frame_mask = 0x000f'ffff'ffff'f000;
};
// [intel/vol3] 28.2 format of exit reason
struct ExitReasonField : Reg<ExitReasonField, u32> {
    using Basic = Bits<u32, 15, 0, u16>;
    using EntryFailure = Bits<u32, 31>;
};
// [intel/vol3] 25.8.3, 25.9.2, 25.9.3
struct InterruptionInfo : Reg<InterruptionInfo, u32> {
    using Vector = Bits<u32, 7, 0, u8>;
    using Type = Bits<u32, 10, 8, u8>;
    using HasErrorCode = Bits<u32, 11>;
    using NmiUnblocking = Bits<u32, 12>;
    using Valid = Bits<u32, 31>;
    static constexpr u8 external = 0, nmi = 2, hardware_exception = 3, software_interrupt = 4, privileged_exception = 5,
                        software_exception = 6;
};
// [intel/vol3] 25.4.2
struct Interruptibility : Reg<Interruptibility, u32> {
    using BlockingBySti = Bits<u32, 0>;
    using BlockingByMovSs = Bits<u32, 1>;
    using BlockingByNmi = Bits<u32, 3>;
    static constexpr u32 shadow = 3;
};
struct PendingDebug : Reg<PendingDebug, u64> {
    using SingleStep = Bits<u64, 14>;
};
struct GuestInterruptStatus : Reg<GuestInterruptStatus, u16> {
    using Requesting = Bits<u16, 7, 0, u8>; // RVI
    using Servicing = Bits<u16, 15, 8, u8>; // SVI
};

namespace field {
inline constexpr Rw<u16> VPID{0x0000}, POSTED_INTERRUPT_VECTOR{0x0002};
inline constexpr Rw<u16> GUEST_ES{0x0800}, GUEST_CS{0x0802}, GUEST_SS{0x0804}, GUEST_DS{0x0806}, GUEST_FS{0x0808},
    GUEST_GS{0x080a}, GUEST_LDTR{0x080c}, GUEST_TR{0x080e};
inline constexpr Rw<GuestInterruptStatus> GUEST_INTERRUPT_STATUS{0x0810};
inline constexpr Rw<u16> HOST_ES{0x0c00}, HOST_CS{0x0c02}, HOST_SS{0x0c04}, HOST_DS{0x0c06}, HOST_FS{0x0c08},
    HOST_GS{0x0c0a}, HOST_TR{0x0c0c};

inline constexpr Rw<u64> MSR_BITMAP{0x2004}, TSC_OFFSET{0x2010}, VIRTUAL_APIC_ADDRESS{0x2012},
    APIC_ACCESS_ADDRESS{0x2014}, POSTED_INTERRUPT_DESCRIPTOR{0x2016};
inline constexpr Rw<Eptp> EPT_POINTER{0x201a};
inline constexpr Rw<u64> EOI_EXIT_BITMAP_0{0x201c}, EOI_EXIT_BITMAP_1{0x201e}, EOI_EXIT_BITMAP_2{0x2020},
    EOI_EXIT_BITMAP_3{0x2022}, XSS_EXITING_BITMAP{0x202c}, TSC_MULTIPLIER{0x2032};
inline constexpr Ro<u64> GUEST_PHYSICAL_ADDRESS{0x2400};
inline constexpr Rw<u64> VMCS_LINK_POINTER{0x2800}, GUEST_DEBUGCTL{0x2802}, GUEST_PAT{0x2804}, GUEST_EFER{0x2806},
    GUEST_PDPTE0{0x280a}, GUEST_PDPTE1{0x280c}, GUEST_PDPTE2{0x280e}, GUEST_PDPTE3{0x2810};
inline constexpr Rw<u64> HOST_PAT{0x2c00}, HOST_EFER{0x2c02};

inline constexpr Rw<PinControls> PIN_CONTROLS{0x4000};
inline constexpr Rw<CpuControls> CPU_CONTROLS{0x4002};
inline constexpr Rw<u32> EXCEPTION_BITMAP{0x4004}, PAGE_FAULT_MASK{0x4006}, PAGE_FAULT_MATCH{0x4008},
    CR3_TARGET_COUNT{0x400a};
inline constexpr Rw<ExitControls> EXIT_CONTROLS{0x400c};
inline constexpr Rw<u32> EXIT_MSR_STORE_COUNT{0x400e}, EXIT_MSR_LOAD_COUNT{0x4010};
inline constexpr Rw<EntryControls> ENTRY_CONTROLS{0x4012};
inline constexpr Rw<u32> ENTRY_MSR_LOAD_COUNT{0x4014};
inline constexpr Rw<InterruptionInfo> ENTRY_INTERRUPTION_INFO{0x4016};
inline constexpr Rw<u32> ENTRY_EXCEPTION_ERROR_CODE{0x4018}, ENTRY_INSTRUCTION_LENGTH{0x401a}, TPR_THRESHOLD{0x401c};
inline constexpr Rw<CpuControls2> CPU_CONTROLS2{0x401e};
inline constexpr Rw<u32> PLE_GAP{0x4020}, PLE_WINDOW{0x4022};

inline constexpr Ro<u32> VM_INSTRUCTION_ERROR{0x4400};
inline constexpr Ro<ExitReasonField> EXIT_REASON{0x4402};
inline constexpr Ro<InterruptionInfo> EXIT_INTERRUPTION_INFO{0x4404};
inline constexpr Ro<u32> EXIT_INTERRUPTION_ERROR_CODE{0x4406};
inline constexpr Ro<InterruptionInfo> IDT_VECTORING_INFO{0x4408};
inline constexpr Ro<u32> IDT_VECTORING_ERROR_CODE{0x440a}, EXIT_INSTRUCTION_LENGTH{0x440c},
    EXIT_INSTRUCTION_INFO{0x440e};

inline constexpr Rw<u32> GUEST_ES_LIMIT{0x4800}, GUEST_CS_LIMIT{0x4802}, GUEST_SS_LIMIT{0x4804}, GUEST_DS_LIMIT{0x4806},
    GUEST_FS_LIMIT{0x4808}, GUEST_GS_LIMIT{0x480a}, GUEST_LDTR_LIMIT{0x480c}, GUEST_TR_LIMIT{0x480e},
    GUEST_GDTR_LIMIT{0x4810}, GUEST_IDTR_LIMIT{0x4812};
inline constexpr Rw<u32> GUEST_ES_RIGHTS{0x4814}, GUEST_CS_RIGHTS{0x4816}, GUEST_SS_RIGHTS{0x4818},
    GUEST_DS_RIGHTS{0x481a}, GUEST_FS_RIGHTS{0x481c}, GUEST_GS_RIGHTS{0x481e}, GUEST_LDTR_RIGHTS{0x4820},
    GUEST_TR_RIGHTS{0x4822};
inline constexpr Rw<Interruptibility> GUEST_INTERRUPTIBILITY{0x4824};
inline constexpr Rw<u32> GUEST_ACTIVITY_STATE{0x4826}, GUEST_SYSENTER_CS{0x482a}, PREEMPTION_TIMER_VALUE{0x482e};
inline constexpr Rw<u32> HOST_SYSENTER_CS{0x4c00};

inline constexpr Rw<u64> CR0_MASK{0x6000}, CR4_MASK{0x6002}, CR0_SHADOW{0x6004}, CR4_SHADOW{0x6006};
inline constexpr Ro<u64> EXIT_QUALIFICATION{0x6400}, GUEST_LINEAR_ADDRESS{0x640a};
inline constexpr Rw<u64> GUEST_CR0{0x6800}, GUEST_CR3{0x6802}, GUEST_CR4{0x6804}, GUEST_ES_BASE{0x6806},
    GUEST_CS_BASE{0x6808}, GUEST_SS_BASE{0x680a}, GUEST_DS_BASE{0x680c}, GUEST_FS_BASE{0x680e}, GUEST_GS_BASE{0x6810},
    GUEST_LDTR_BASE{0x6812}, GUEST_TR_BASE{0x6814}, GUEST_GDTR_BASE{0x6816}, GUEST_IDTR_BASE{0x6818}, GUEST_DR7{0x681a},
    GUEST_RSP{0x681c}, GUEST_RIP{0x681e}, GUEST_RFLAGS{0x6820};
inline constexpr Rw<PendingDebug> GUEST_PENDING_DEBUG{0x6822};
inline constexpr Rw<u64> GUEST_SYSENTER_ESP{0x6824}, GUEST_SYSENTER_EIP{0x6826};
inline constexpr Rw<u64> HOST_CR0{0x6c00}, HOST_CR3{0x6c02}, HOST_CR4{0x6c04}, HOST_FS_BASE{0x6c06},
    HOST_GS_BASE{0x6c08}, HOST_TR_BASE{0x6c0a}, HOST_GDTR_BASE{0x6c0c}, HOST_IDTR_BASE{0x6c0e},
    HOST_SYSENTER_ESP{0x6c10}, HOST_SYSENTER_EIP{0x6c12}, HOST_RSP{0x6c14}, HOST_RIP{0x6c16};
} // namespace field

[[noreturn]] void vmcs_access_failed(u16 encoding); // a bug of ours: panics

// Proof that a VMCS is current on this CPU; fields are reachable only through it.
class Loaded {
public:
    static lib::Result<Loaded> load(lib::HostPhys region) {
        if (!lib::x86::vmptrld(region.value)) return lib::fail(lib::Errc::BadState);
        return Loaded{};
    }
    // For the owner of a VMCS that is known to be current still.
    static Loaded still_loaded() { return Loaded{}; }

    template <typename T, FieldAccess A> T read(Field<T, A> f) const {
        [[clang::uninitialized]] u64 value;
        if (!lib::x86::vmread(f.encoding, value)) [[unlikely]]
            vmcs_access_failed(f.encoding);
        if constexpr (std::is_integral_v<T>)
            return static_cast<T>(value);
        else
            return T{{static_cast<typename T::Raw>(value)}};
    }
    template <typename T, std::same_as<T> V> void write(Rw<T> f, V value) {
        u64 raw;
        if constexpr (std::is_integral_v<T>)
            raw = value;
        else
            raw = value.raw;
        if (!lib::x86::vmwrite(f.encoding, raw)) [[unlikely]]
            vmcs_access_failed(f.encoding);
    }

private:
    Loaded() = default;
};

} // namespace vmx
