// SPDX-License-Identifier: MIT
#pragma once
// Guest-physical space of one VM by EPT.
#include <kernel/spinlock.hpp>
#include <vm/address_space.hpp>
#include <vmx/capabilities.hpp>
#include <vmx/ept.hpp>
#include <vmx/vmcs.hpp>

namespace vmx {

inline constexpr lib::u64 invept_single = 1, invept_all = 2;                        // [intel/vol3] 31.3 INVEPT
inline constexpr lib::u64 invvpid_address = 0, invvpid_single = 1, invvpid_all = 2; // INVVPID

class EptSpace final : public vm::AddressSpace {
public:
    explicit EptSpace(Capabilities const& capabilities)
        : table_(std::in_place, kernel::TableFormat{.largest_level = largest_level(capabilities),
                                                    .splits_for_code = capabilities.has_itlb_multihit}) {}
    ~EptSpace() override;
    // The tables' root, and the page that stands for the xAPIC's registers where the CPU virtualizes accesses to it.
    lib::Result<void> create(bool has_apic_accesses);
    lib::HostPhys apic_access_page() const { return apic_access_page_; }
    lib::Result<void> map(vm::GuestMapping const& mapping) override;
    lib::Result<void> unmap(lib::GuestPhys at, lib::u64 size) override;
    lib::u64 table_bytes() const override {
        return table_.with([](auto& table) { return table.table_bytes(); });
    }
    // A vCPU fetches an instruction at `at`, which is not executable: true when it is now.
    bool make_executable(lib::GuestPhys at) {
        return table_.with([&](auto& table) { return table.split_for_code(at); });
    }
    Eptp pointer() const {
        constexpr lib::u8 write_back = 6, levels = 4;
        Eptp eptp{{root_.value}};
        eptp.set<Eptp::MemoryType>(write_back);
        eptp.set<Eptp::WalkLengthMinusOne>(levels - 1);
        return eptp;
    }

private:
    static unsigned largest_level(Capabilities const& capabilities) {
        if (!capabilities.ept_vpid.get<EptVpidCapabilities::Pages2m>()) return 1;
        return capabilities.has_pages_1g() ? 3 : 2;
    }
    template <typename Request> lib::Result<void> change(Request const& request);
    // vCPUs change it too: make_executable().
    mutable kernel::Guarded<EptTable, kernel::LockRank::Vm> table_;
    lib::HostPhys root_{};
    lib::HostPhys apic_access_page_{};
};

} // namespace vmx
