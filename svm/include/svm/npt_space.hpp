#pragma once
// Guest-physical space of one VM by nested paging.
#include <svm/capabilities.hpp>
#include <svm/npt.hpp>
#include <svm/tlb.hpp>
#include <vm/stage_two.hpp>

namespace svm {

class NptSpace final : public vm::AddressSpace {
public:
    explicit NptSpace(Capabilities const& capabilities)
        : table_(capabilities.has_pages_1g   ? 3U
                 : capabilities.has_pages_2m ? 2U
                                             : 1U) {}
    // Nobody may find the dead tables in a TLB.
    ~NptSpace() override { flush_everywhere(); }
    lib::Result<void> create() { return table_.create_root(); }
    lib::HostPhys root() const { return table_.root(); }
    lib::Result<void> map(lib::GuestPhys at, lib::HostPhys to, lib::u64 size, vm::MemoryRights rights) override {
        return table_.map(at, to, size, rights);
    }
    lib::Result<void> unmap(lib::GuestPhys at, lib::u64 size) override {
        TRY(table_.unmap(at, size));
        flush_everywhere();
        return {};
    }
    lib::u64 table_bytes() const override { return table_.table_bytes(); }

private:
    vm::StageTwoTable<NptEntry> table_;
};

} // namespace svm
