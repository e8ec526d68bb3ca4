// SPDX-License-Identifier: MIT
#pragma once
// After a failed VM entry: which rule of [intel/vol3] 27.3.1 the guest state breaks, and the VMCS in words.
#include <lib/delegate.hpp>
#include <lib/format.hpp>
#include <vmx/vmcs.hpp>

namespace vmx {

// Calls `report` with each violated rule.
template <typename Report> void check_guest_state(Loaded const& vmcs, EntryControls entry, Report report);

std::string_view instruction_error_name(u32 error);
void print_vmcs(Loaded const& vmcs, lib::TextSink& sink);

namespace detail {
struct GuestStateView {
    u64 cr0, cr4, efer, rflags, rip, dr7, debugctl;
    PendingDebug pending_debug;
    u32 cs_rights, ss_rights, tr_rights, ldtr_rights;
    Interruptibility interruptibility;
    InterruptionInfo entry_info;
    u32 activity;
    bool long_mode;
};
std::size_t violated_rules(GuestStateView const& state, std::span<std::string_view> rules);
GuestStateView view(Loaded const& vmcs, EntryControls entry);
} // namespace detail

template <typename Report> void check_guest_state(Loaded const& vmcs, EntryControls entry, Report report) {
    std::array<std::string_view, 8> rules{};
    auto const count = detail::violated_rules(detail::view(vmcs, entry), rules);
    for (std::size_t i = 0; i < count; i++)
        report(rules[i]);
}

} // namespace vmx
