// SPDX-License-Identifier: MIT
#pragma once
// Guest-physical space of one VM by nested paging.
#include <svm/avic.hpp>
#include <svm/capabilities.hpp>
#include <svm/npt.hpp>
#include <svm/tlb.hpp>
#include <vm/address_space.hpp>

namespace svm {

class NptSpace final : public vm::AddressSpace {
public:
    explicit NptSpace(Capabilities const& capabilities)
        : has_avic_(capabilities.has_avic), table_({.largest_level = largest_level(capabilities)}),
          table_with_apic_({.largest_level = largest_level(capabilities)}) {}
    ~NptSpace() override;
    lib::Result<void> create();
    lib::HostPhys root() const { return table_.root(); }
    // The same with a page at the xAPIC's address, for vCPUs whose accesses there are AVIC's: the CPU wants them
    // allowed, and does not use the page. The others' shall fault.
    lib::HostPhys root_with_apic() const { return table_with_apic_.root(); }
    // nullptr: the CPU has no AVIC.
    AvicTables* avic() { return has_avic_ ? &avic_ : nullptr; }
    lib::Result<void> map(vm::GuestMapping const& mapping) override;
    lib::Result<void> unmap(lib::GuestPhys at, lib::u64 size) override;
    lib::u64 table_bytes() const override { return table_.table_bytes() + table_with_apic_.table_bytes(); }

private:
    static unsigned largest_level(Capabilities const& capabilities) {
        return capabilities.has_pages_1g ? 3U : capabilities.has_pages_2m ? 2U : 1U;
    }
    bool has_avic_;
    NptTable table_;
    NptTable table_with_apic_; // empty without AVIC
    lib::HostPhys apic_access_page_{};
    AvicTables avic_;
};

} // namespace svm
