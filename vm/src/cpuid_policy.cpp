// SPDX-License-Identifier: MIT
// The leaves whose answer depends on the subleaf or on the state of the asking vCPU.
#include <algorithm>
#include <lib/checksum.hpp>
#include <vm/cpuid_allow_list.hpp>
#include <vm/cpuid_policy.hpp>

namespace vm {

CpuidRegs CpuidPolicy::lookup_special(Slot slot, u32 subleaf, CpuidDynamic const& dynamic) const {
    // Intel answers for leaves beyond its ranges with the data of the highest basic leaf, AMD with zeros.
    if (slot.kind == Kind::OutOfRange) {
        if (vendor_ == CpuVendor::Amd) return {};
        slot = slots_[max_basic_];
    }
    CpuidRegs result = rows_[slot.row];
    switch (slot.kind) {
    case Kind::Plain: return result;
    case Kind::Indexed: return subleaf < slot.count ? rows_[slot.row + subleaf] : CpuidRegs{};
    case Kind::Features:
        result = features(dynamic.apic_id, dynamic.apic_enabled);
        result.ecx |= (dynamic.cr4 & cr4::OSXSAVE) != 0 ? cpuid::leaf1::OSXSAVE : 0;
        return result;
    case Kind::Structured:
        if (subleaf >= slot.count) return {};
        result = rows_[slot.row + subleaf];
        if (subleaf == 0 && (dynamic.cr4 & cr4::PKE) != 0) result.ecx |= cpuid::leaf7::OSPKE;
        return result;
    case Kind::Topology:
        result = subleaf < slot.count ? rows_[slot.row + subleaf] : CpuidRegs{};
        result.ecx |= subleaf & 0xff;
        result.edx = dynamic.apic_id;
        return result;
    case Kind::Xsave: return lookup_xsave(slot, subleaf, dynamic);
    case Kind::AmdTopology: return {dynamic.apic_id, dynamic.apic_id & 0xff, 0, 0};
    case Kind::OutOfRange: break; // the highest basic leaf is always a leaf
    }
    return {};
}

CpuidRegs CpuidPolicy::kvm_leaf(u32 offset) const {
    // [linux/kvm-cpuid] KVM_FEATURE_NOP_IO_DELAY, CLOCKSOURCE2, CLOCKSOURCE_STABLE_BIT
    constexpr u32 kvm_features = bit(1) | bit(3) | bit(24);
    switch (offset) {
    case 0: return {kvm_base + kvm_last, 0x4b4d'564b, 0x564b'4d56, 0x4d}; // "KVMKVMKVM"
    case 1: return {kvm_features, 0, 0, 0};
    case kvm_last: return rows_[slots_[hypervisor_group + kvm_last].row]; // the rates, as at 40000010h
    default: return {};
    }
}

CpuidRegs CpuidPolicy::features(u32 apic_id, bool apic_enabled) const {
    static_assert(cpuid::leaf1::OSXSAVE == bit(osxsave_bit));
    CpuidRegs result = rows_[slots_[features_leaf].row];
    result.ebx |= apic_id << 24;
    if (!apic_enabled) result.edx &= ~cpuid::leaf1::APIC;
    return result;
}

CpuidRegs CpuidPolicy::lookup_xsave(Slot slot, u32 subleaf, CpuidDynamic const& dynamic) const {
    if (subleaf >= slot.count) return {};
    CpuidRegs result = rows_[slot.row + subleaf];
    if (subleaf == 0) result.ebx = xsave_size(dynamic.xcr0);
    bool const compacted = (xsave_features_ & 0xa) != 0; // XSAVEC or XSAVES
    if (subleaf == 1 && compacted) result.ebx = compacted_size(dynamic.xcr0 | dynamic.xss);
    return result;
}

u64 CpuidPolicy::digest() const {
    lib::Checksum checksum;
    for (CpuidRegs const& row : rows_)
        for (u32 const word : {row.eax, row.ebx, row.ecx, row.edx})
            checksum.add_number(word);
    for (u64 const word : {rules_.cr4, rules_.efer, rules_.xcr0, rules_.xss, u64{rules_.physical_bits},
                           u64{static_cast<u8>(vendor_)}, u64{crystal_.hz}, u64{crystal_.multiplier}})
        checksum.add_number(word);
    return checksum.value();
}

namespace {
constexpr u32 legacy_and_header = 512 + 64;
}

u32 CpuidPolicy::xsave_size(u64 components) const {
    u32 size = legacy_and_header;
    if (xsave_rows_ == 0) return 0;
    for (u32 component = 2; component < xsave_components; ++component) {
        CpuidRegs const& area = rows_[xsave_rows_ + component];
        if ((components & bit(component)) != 0 && (area.ecx & 1) == 0) size = std::max(size, area.eax + area.ebx);
    }
    return size;
}

u32 CpuidPolicy::compacted_size(u64 components) const {
    u32 size = legacy_and_header;
    if (xsave_rows_ == 0) return 0;
    for (u32 component = 2; component < xsave_components; ++component) {
        CpuidRegs const& area = rows_[xsave_rows_ + component];
        if ((components & bit(component)) == 0) continue;
        if ((area.ecx & 2) != 0) size = (size + 63) & ~u32{63};
        size += area.eax;
    }
    return size;
}

} // namespace vm
