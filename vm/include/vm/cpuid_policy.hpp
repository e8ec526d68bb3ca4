// SPDX-License-Identifier: MIT
#pragma once
// CPUID as a guest sees it, by allow-list: a bit of the host reaches the guest only when vm/cpuid_allow_list.hpp names
// it. Everything that can be known when a VM is created is computed then; a lookup is one table access for most leaves.
// Not offered: VMX/SVM, MONITOR/MWAIT, performance counters, thermal and power management beyond ARAT, TSX, SGX, PT,
// CET, AMX, MPX, 5-level paging, resource directors, and for now the speculation-control MSRs (see the allow-list).
#include <array>
#include <lib/delegate.hpp>
#include <vm/control_registers.hpp>

namespace vm {

struct CpuidRegs {
    u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
    friend constexpr bool operator==(CpuidRegs const&, CpuidRegs const&) = default;
};
using CpuidReader = lib::Delegate<CpuidRegs(u32 leaf, u32 subleaf)>;

enum class CpuVendor : u8 { Intel, Amd };

// The vendor that decides between the two rule books; Hygon counts as AMD, everything else as Intel.
CpuVendor vendor_of(CpuidRegs const& leaf0);

// The clock behind leaf 15h and the local-APIC timer: TSC = hz * multiplier, with the smallest multiplier that lets hz
// fit the 32 bits of ECX. A whole multiplier keeps timer arithmetic free of fractions.
struct CrystalClock {
    u32 hz = 0;
    u32 multiplier = 1;
};
constexpr CrystalClock crystal_of(u64 tsc_hz) {
    u64 const multiplier = (tsc_hz >> 32) + 1;
    return {static_cast<u32>(tsc_hz / multiplier), static_cast<u32>(multiplier)};
}

// What this machine and its backend can give. A switch that is on still needs the host's CPUID bit where there is one,
// except tsc_deadline and x2apic, which are emulated.
struct PlatformFacts {
    u64 tsc_hz = 0; // measured, never taken from the host's CPUID
    u32 vcpu_count = 1;
    u64 xcr0_allowed =
        xcr0::X87 | xcr0::SSE | xcr0::AVX | xcr0::AVX512; // what the world switch saves; 0: no XSAVE at all
    u64 xss_allowed = 0;
    bool invariant_tsc = false; // the host's TSC is usable as a clock: constant, never stops, in step on all CPUs
    bool x2apic = true;
    bool tsc_deadline = true;
    bool invpcid = false; // Intel: the execution control exists and is set
    bool rdtscp = false;  // RDTSCP, RDPID and IA32_TSC_AUX
    bool xsaves = false;
    bool pku = false; // adds PKRU to what XCR0 may enable
};

// What changes while the VM runs.
struct CpuidDynamic {
    u64 cr4 = 0;
    u64 xcr0 = 1;
    u64 xss = 0;
    u32 apic_id = 0;
    bool apic_enabled = true; // IA32_APIC_BASE bit 11: cleared, leaf 1 hides the APIC
};

class CpuidPolicy {
public:
    static CpuidPolicy create(CpuidReader host, PlatformFacts const& facts);

    CpuidRegs lookup(u32 leaf, u32 subleaf, CpuidDynamic const& dynamic) const {
        u32 const offset = leaf & 0x3fff'ffff;
        if (offset < group_size) [[likely]] {
            Slot const slot = slots_[(leaf >> 30) * group_size + offset];
            if (slot.kind == Kind::Plain) [[likely]]
                return rows_[slot.row];
            return lookup_special(slot, subleaf, dynamic);
        }
        if (leaf - kvm_base <= kvm_last) return kvm_leaf(leaf - kvm_base);
        return lookup_special(slots_[out_of_range_], subleaf, dynamic);
    }

    // Leaf 1 without OSXSAVE, which follows CR4 and so changes without an exit.
    CpuidRegs features(u32 apic_id, bool apic_enabled) const;
    static constexpr u32 features_leaf = 1;
    static constexpr u32 osxsave_bit = 27; // of leaf 1 ECX

    // The row of a leaf that depends on nothing, which is most; nullptr: lookup() knows.
    CpuidRegs const* plain(u32 leaf) const {
        u32 const offset = leaf & 0x3fff'ffff;
        if (offset >= group_size) return nullptr;
        Slot const slot = slots_[(leaf >> 30) * group_size + offset];
        return slot.kind == Kind::Plain ? &rows_[slot.row] : nullptr;
    }

    CpuVendor vendor() const { return vendor_; }
    CrystalClock crystal() const { return crystal_; }
    ControlRegisterRules const& rules() const { return rules_; }
    bool has_x2apic() const { return (rows_[slots_[1].row].ecx & (1U << 21)) != 0; }
    bool has_tsc_deadline() const { return (rows_[slots_[1].row].ecx & (1U << 24)) != 0; }
    bool has_tsc_aux() const { return tsc_aux_; }
    bool has_xsaves() const { return (xsave_features_ & 8) != 0; }
    bool has_pages_1g() const { return (lookup(0x8000'0001, 0, {}).edx & (1U << 26)) != 0; }
    u32 max_basic_leaf() const { return max_basic_; }
    u32 max_extended_leaf() const { return max_extended_; }

    // A number that is another for another answer to CPUID, as far as one vCPU can tell them apart.
    u64 digest() const;

    // Bytes that XSAVE (standard format) or XSAVES (compacted) needs for these state components.
    // [intel/vol1] 13.4.2, 13.4.3
    u32 xsave_size(u64 components) const;
    u32 compacted_size(u64 components) const;

private:
    enum class Kind : u8 {
        Plain,       // one row, the subleaf is ignored
        Indexed,     // `count` rows by subleaf, zeros behind
        Features,    // leaf 1
        Structured,  // leaf 7
        Topology,    // leaves 0Bh, 1Fh
        Xsave,       // leaf 0Dh
        AmdTopology, // leaf 8000001Eh
        OutOfRange,  // the vendor's rule for leaves that do not exist
    };
    struct Slot {
        u8 row = 0;
        u8 count = 0;
        Kind kind = Kind::OutOfRange;
        u8 reserved = 0;
    };
    static constexpr u32 group_size = 64; // leaves per range: basic, hypervisor, extended, and a dead one
    static constexpr u32 slot_count = 4 * group_size;
    static constexpr u32 out_of_range_ = 3 * group_size; // C0000000h: nothing ever lives there
    static constexpr u32 kvm_base = 0x4000'0100, kvm_last = 0x10;
    static constexpr u32 row_count = 144;
    static constexpr u32 hypervisor_group = group_size;
    static constexpr u32 extended_group = 2 * group_size;
    static constexpr u32 xsave_components = 20;
    static constexpr u32 max_cache_levels = 8;

    class Builder;

    CpuidRegs kvm_leaf(u32 offset) const;
    CpuidRegs lookup_special(Slot slot, u32 subleaf, CpuidDynamic const& dynamic) const;
    CpuidRegs lookup_xsave(Slot slot, u32 subleaf, CpuidDynamic const& dynamic) const;

    std::array<Slot, slot_count> slots_{};
    std::array<CpuidRegs, row_count> rows_{}; // row 0 is all zeros
    ControlRegisterRules rules_{};
    CrystalClock crystal_{};
    u32 max_basic_ = 0;
    u32 max_extended_ = 0;
    u32 xsave_features_ = 0; // leaf 0Dh subleaf 1 EAX
    u8 xsave_rows_ = 0;      // row of subleaf 0
    CpuVendor vendor_ = CpuVendor::Intel;
    bool tsc_aux_ = false;
};

// Leaf 40000000h: EBX, ECX, EDX spell "MullionVMM\0\0". Leaf 40000001h is zero: some guests take it for KVM's feature
// bits without a look at the signature. Leaf 40000010h: EAX = TSC kHz, EBX = local-APIC timer kHz, the layout VMware
// and KVM share.
// A second hypervisor at 40000100h, KVM: its clock (vm/kvm_clock.hpp) and nothing else.
inline constexpr char hypervisor_signature[13] = "MullionVMM\0";

} // namespace vm
