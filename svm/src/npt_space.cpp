// SPDX-License-Identifier: MIT
#include <svm/npt_space.hpp>
#include <vm/apic_page.hpp>

namespace svm {

NptSpace::~NptSpace() {
    flush_everywhere(); // nobody may find the dead tables in a TLB
    if (apic_access_page_.value != 0) kernel::free_frames(apic_access_page_, 0);
}

lib::Result<void> NptSpace::create() {
    TRY(table_.create_root());
    if (!has_avic_) return {};
    TRY(avic_.create());
    TRY(table_with_apic_.create_root());
    apic_access_page_ = TRY(kernel::allocate_zeroed_frame());
    return table_with_apic_.map(
        {lib::GuestPhys{vm::apic_base::default_address}, apic_access_page_, lib::page_size, kernel::Rights::ReadWrite},
        flush_everywhere);
}

lib::Result<void> NptSpace::map(vm::GuestMapping const& mapping) {
    TRY(table_.map(mapping, flush_everywhere));
    if (has_avic_) TRY(table_with_apic_.map(mapping, flush_everywhere));
    return {};
}

lib::Result<void> NptSpace::unmap(lib::GuestPhys at, lib::u64 size) {
    TRY(table_.unmap({at, size}, flush_everywhere));
    if (has_avic_) TRY(table_with_apic_.unmap({at, size}, flush_everywhere));
    return {};
}

} // namespace svm
