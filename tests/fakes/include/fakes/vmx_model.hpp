// SPDX-License-Identifier: MIT
#pragma once
// The VMX instructions as the manual describes them, with VMCS regions keyed by physical address. [intel/vol3] 25, 31
#include <functional>
#include <lib/types.hpp>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace fakes {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

struct Invept {
    u64 type, eptp;
    friend bool operator==(Invept const&, Invept const&) = default;
};
struct Invvpid {
    u64 type;
    u16 vpid;
    u64 linear_address;
    friend bool operator==(Invvpid const&, Invvpid const&) = default;
};
struct VmcsWrite {
    u64 region;
    u64 field;
    u64 value;
    friend bool operator==(VmcsWrite const&, VmcsWrite const&) = default;
};

class VmxModel {
public:
    // --- What tests arrange and look at ---
    // Reads physical memory, so that revision identifiers are checked; without it they are not looked at.
    std::function<u32(u64 physical)> read_physical;
    u32 revision = 0;
    // What the capability MSRs allow; all zero bits mean "all types are there".
    u64 ept_vpid_capabilities = 0;
    bool may_write_read_only_fields = false; // IA32_VMX_MISC[29]
    std::set<u64> unsupported_fields;        // VMREAD and VMWRITE fail with error 12
    std::optional<u64> vmxon_region;         // in VMX operation when set
    std::optional<u64> current;              // region of the current VMCS
    std::vector<Invept> invepts;             // in order; failed ones are not recorded
    std::vector<Invvpid> invvpids;
    std::vector<u64> vmclears;
    std::vector<u64> vmptrlds;
    std::vector<VmcsWrite> writes; // successful VMWRITEs in order
    u64 vmread_count = 0;
    u64 peek(u64 region, u64 field) const;       // a pattern if never written
    void poke(u64 region, u64 field, u64 value); // also read-only fields: exit reasons, qualifications
    u64 peek(u64 field) const { return current ? peek(*current, field) : 0; }
    void poke(u64 field, u64 value);
    bool is_clear(u64 region) const;  // true between VMCLEAR and launch
    bool is_written(u64 field) const; // of the current VMCS, by VMWRITE or poke()
    // A field that a VM entry with the current VMCS, or the VM exit after it, uses and that was never written: a CPU
    // would find there what the memory held before. [intel/vol3] 25.11.3
    std::optional<u64> unwritten_field() const;
    // What an exit does to the fields that it writes and the test does not name: their values mean nothing.
    void scramble_exit_information();
    void mark_launched(u64 region) { regions_[region].is_launched = true; }

    // --- The instructions; true is VMsucceed ---
    bool vmxon(u64 region);
    void vmxoff();
    bool vmclear(u64 region);
    bool vmptrld(u64 region);
    bool vmread(u64 field, u64& value);
    bool vmwrite(u64 field, u64 value);
    bool invept(u64 type, u64 eptp, u64 reserved);
    bool invvpid(u64 type, u16 vpid, u64 reserved, u64 linear_address);

    static constexpr u64 VM_INSTRUCTION_ERROR = 0x4400;
    // What memory holds where nobody has written a field.
    static constexpr u64 unwritten_pattern = 0xa5c3'a5c3'a5c3'a5c3;

private:
    struct Region {
        bool is_launched = false;
        bool was_cleared = false;
        std::map<u64, u64> fields;
    };
    bool fail(u32 error); // VMfailValid with a current VMCS, VMfailInvalid without
    bool is_region_usable(u64 region) const;
    bool is_field_there(u64 field) const;
    std::map<u64, Region> regions_;
};

std::string field_name(u64 field); // its encoding

} // namespace fakes
