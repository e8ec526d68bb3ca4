// SPDX-License-Identifier: MIT
#include <kernel/calls.hpp>
#include <lib/x86/instructions.hpp>
#include <vm/apic_page.hpp>
#include <vmx/ept_space.hpp>

namespace vmx {
namespace {

void flush_this_cpu() { lib::x86::invept(invept_all, {0, 0}); }

// The frames behind may belong to another VM next: no CPU may know them any more.
void flush_everywhere() {
    flush_this_cpu();
    kernel::run_on_others(lib::Delegate<void()>::to_function<flush_this_cpu>());
}

} // namespace

EptSpace::~EptSpace() {
    flush_everywhere(); // before the tables' frames are given back
    if (apic_access_page_.value != 0) kernel::free_frames(apic_access_page_, 0);
}

lib::Result<void> EptSpace::create(bool has_apic_accesses) {
    TRY(table_.with([](auto& table) { return table.create_root(); }));
    root_ = table_.with([](auto& table) { return table.root(); });
    if (!has_apic_accesses) return {};
    apic_access_page_ = TRY(kernel::allocate_zeroed_frame());
    return map(
        {lib::GuestPhys{vm::apic_base::default_address}, apic_access_page_, lib::page_size, kernel::Rights::ReadWrite});
}

template <typename Request> lib::Result<void> EptSpace::change(Request const& request) {
    auto const locked = [this](auto step) { return table_.with(step); };
    return kernel::change_table<EptTable>(locked, flush_everywhere, request);
}

lib::Result<void> EptSpace::map(vm::GuestMapping const& mapping) { return change(mapping); }

lib::Result<void> EptSpace::unmap(lib::GuestPhys at, lib::u64 size) {
    return change(kernel::Unmapping<lib::GuestPhys>{at, size});
}

} // namespace vmx
