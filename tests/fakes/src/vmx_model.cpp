// SPDX-License-Identifier: MIT
#include <fakes/vmx_model.hpp>

#include <stdexcept>

namespace fakes {
namespace {

// VM-instruction error numbers. [intel/vol3] 31.4
enum Error : u32 {
    VmclearBadAddress = 2,
    VmclearVmxonPointer = 3,
    VmptrldBadAddress = 9,
    VmptrldVmxonPointer = 10,
    VmptrldBadRevision = 11,
    UnsupportedField = 12,
    ReadOnlyField = 13,
    VmxonInRoot = 15,
    BadInvalidation = 28,
};

// The encoding of a field: bit 0 access type, 11:10 type, 14:13 width. [intel/vol3] 25.11.2
constexpr bool is_high_access(u64 field) { return (field & 1) != 0; }
constexpr u64 type_of(u64 field) { return (field >> 10) & 3; }
constexpr u64 width_of(u64 field) { return (field >> 13) & 3; }
constexpr u64 cut_to_width(u64 field, u64 value) {
    switch (width_of(field)) {
    case 0: return value & 0xffff;
    case 2: return value & 0xffff'ffff;
    default: return value;
    }
}

} // namespace

u64 VmxModel::peek(u64 region, u64 field) const {
    auto const found = regions_.find(region);
    if (found == regions_.end()) return cut_to_width(field, unwritten_pattern);
    auto const value = found->second.fields.find(field);
    return value == found->second.fields.end() ? cut_to_width(field, unwritten_pattern) : value->second;
}

void VmxModel::poke(u64 region, u64 field, u64 value) { regions_[region].fields[field] = cut_to_width(field, value); }

void VmxModel::poke(u64 field, u64 value) {
    if (!current) throw std::logic_error("the test pokes a VMCS field but no VMCS is current");
    poke(*current, field, value);
}

bool VmxModel::is_clear(u64 region) const {
    auto const found = regions_.find(region);
    return found != regions_.end() && found->second.was_cleared && !found->second.is_launched;
}

bool VmxModel::fail(u32 error) {
    if (current) regions_[*current].fields[VM_INSTRUCTION_ERROR] = error;
    return false;
}

bool VmxModel::is_region_usable(u64 region) const { return region % lib::page_size == 0 && region >> 52 == 0; }

bool VmxModel::vmxon(u64 region) {
    if (vmxon_region) return fail(VmxonInRoot);
    if (!is_region_usable(region)) return false;
    if (read_physical && read_physical(region) != revision) return false;
    vmxon_region = region;
    current.reset();
    return true;
}

void VmxModel::vmxoff() {
    vmxon_region.reset();
    current.reset();
}

bool VmxModel::vmclear(u64 region) {
    if (!is_region_usable(region)) return fail(VmclearBadAddress);
    if (region == vmxon_region) return fail(VmclearVmxonPointer);
    regions_[region].is_launched = false;
    regions_[region].was_cleared = true;
    vmclears.push_back(region);
    if (current == region) current.reset();
    return true;
}

bool VmxModel::vmptrld(u64 region) {
    if (!is_region_usable(region)) return fail(VmptrldBadAddress);
    if (region == vmxon_region) return fail(VmptrldVmxonPointer);
    if (read_physical && read_physical(region) != revision) return fail(VmptrldBadRevision);
    current = region;
    regions_.try_emplace(region);
    vmptrlds.push_back(region);
    return true;
}

bool VmxModel::is_field_there(u64 field) const {
    bool const is_well_formed =
        field >> 15 == 0 && (field & 1U << 12) == 0 && (!is_high_access(field) || width_of(field) == 1);
    return is_well_formed && !unsupported_fields.contains(field & ~u64{1});
}

bool VmxModel::vmread(u64 field, u64& value) {
    vmread_count++;
    if (!current) return false;
    if (!is_field_there(field)) return fail(UnsupportedField);
    if (!is_written(field & ~u64{1}))
        throw std::logic_error("VMREAD of VMCS field " + field_name(field) + ", which nobody has written");
    u64 const whole = peek(*current, field & ~u64{1});
    value = is_high_access(field) ? whole >> 32 : whole;
    return true;
}

bool VmxModel::vmwrite(u64 field, u64 value) {
    if (!current) return false;
    if (!is_field_there(field)) return fail(UnsupportedField);
    if (type_of(field) == 1 && !may_write_read_only_fields) return fail(ReadOnlyField);
    u64& stored = regions_[*current].fields[field & ~u64{1}];
    if (is_high_access(field))
        stored = (stored & 0xffff'ffff) | value << 32;
    else
        stored = cut_to_width(field, value);
    writes.push_back({*current, field, value});
    return true;
}

// IA32_VMX_EPT_VPID_CAP: bits 25 and 26 are INVEPT's types 1 and 2, bits 40 to 43 INVVPID's types 0 to 3.
bool VmxModel::invept(u64 type, u64 eptp, u64 reserved) {
    bool const has_type = ept_vpid_capabilities == 0 || (ept_vpid_capabilities >> (24 + type) & 1) != 0;
    if (type < 1 || type > 2 || !has_type) return fail(BadInvalidation);
    // Single-context needs a pointer that entry would accept: 4-level walk, no reserved bit.
    if (reserved != 0 || (type == 1 && (eptp & 0x38) != 0x18)) return fail(BadInvalidation);
    invepts.push_back({type, eptp});
    return true;
}

bool VmxModel::invvpid(u64 type, u16 vpid, u64 reserved, u64 linear_address) {
    bool const has_type = ept_vpid_capabilities == 0 || (ept_vpid_capabilities >> (40 + type) & 1) != 0;
    if (type > 3 || !has_type) return fail(BadInvalidation);
    if (reserved != 0 || (type != 2 && vpid == 0)) return fail(BadInvalidation);
    bool const is_canonical = (linear_address >> 47) == 0 || (linear_address >> 47) == 0x1'ffff;
    if (type == 0 && !is_canonical) return fail(BadInvalidation);
    invvpids.push_back({type, vpid, linear_address});
    return true;
}

} // namespace fakes
