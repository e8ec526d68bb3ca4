// SPDX-License-Identifier: MIT
#include <fakes/cpu.hpp>
#include <functional>
#include <gtest/gtest.h>
#include <string>
#include <vector>
#include <vmx/exit_reason.hpp>
#include <vmx/state_check.hpp>

namespace {

using lib::u64;
using vmx::detail::GuestStateView;

std::vector<std::string> violated(GuestStateView const& state) {
    std::array<std::string_view, 32> rules{};
    auto const count = vmx::detail::violated_rules(state, rules);
    return {rules.begin(), rules.begin() + static_cast<std::ptrdiff_t>(count)};
}

GuestStateView long_mode() {
    return {.cr0 = 0x8000'0031,
            .cr4 = 0x2020,
            .efer = 0xd00,
            .rflags = 0x202,
            .rip = 0xffff'8000'0000'0000,
            .dr7 = 0x400,
            .debugctl = 0,
            .pending_debug = {},
            .cs_rights = 0xa09b,
            .ss_rights = 0xc093,
            .tr_rights = 0x8b,
            .ldtr_rights = 0x1'0000,
            .interruptibility = {},
            .entry_info = {},
            .activity = 0,
            .long_mode = true};
}
GuestStateView real_mode() {
    return {.cr0 = 0x30,
            .cr4 = 0x2000,
            .efer = 0,
            .rflags = 2,
            .rip = 0xfff0,
            .dr7 = 0x400,
            .debugctl = 0,
            .pending_debug = {},
            .cs_rights = 0x9b,
            .ss_rights = 0x93,
            .tr_rights = 0x8b,
            .ldtr_rights = 0x82,
            .interruptibility = {},
            .entry_info = {},
            .activity = 0,
            .long_mode = false};
}

TEST(StateCheck, GoodStatesBreakNoRule) {
    EXPECT_EQ(violated(long_mode()), std::vector<std::string>{});
    EXPECT_EQ(violated(real_mode()), std::vector<std::string>{});
    auto protected_mode = real_mode();
    protected_mode.cr0 |= 0x8000'0001;
    protected_mode.tr_rights = 0x83; // a 16-bit TSS will do there
    EXPECT_EQ(violated(protected_mode), std::vector<std::string>{});
    protected_mode.tr_rights = 0xeb; // and so will one for user mode
    protected_mode.ldtr_rights = 0xe2;
    EXPECT_EQ(violated(protected_mode), std::vector<std::string>{});
}

TEST(StateCheck, NamesTheRuleThatIsBroken) {
    struct Case {
        char const* rule;
        GuestStateView (*base)();
        std::function<void(GuestStateView&)> spoil;
    };
    Case const cases[] = {
        {"CR0.PG without CR0.PE", real_mode, [](auto& s) { s.cr0 |= 0x8000'0000; }},
        {"IA-32e mode without CR0.PG and CR4.PAE", long_mode, [](auto& s) { s.cr4 = 0x2000; }},
        {"CR4.PCIDE outside of IA-32e mode", real_mode, [](auto& s) { s.cr4 |= 1 << 17; }},
        {"EFER.LMA differs from IA-32e mode guest", real_mode, [](auto& s) { s.efer = 0x500; }},
        {"EFER.LMA differs from EFER.LME under paging", long_mode, [](auto& s) { s.efer = 0x400; }},
        {"CR4.VMXE is clear", long_mode, [](auto& s) { s.cr4 = 0x20; }},
        {"reserved bits of RFLAGS", long_mode, [](auto& s) { s.rflags = 0; }},
        {"reserved bits of RFLAGS", long_mode, [](auto& s) { s.rflags |= 1 << 22; }},
        {"RFLAGS.VM in IA-32e mode", long_mode, [](auto& s) { s.rflags |= 1 << 17; }},
        {"external interrupt with RFLAGS.IF clear", real_mode, [](auto& s) { s.entry_info.raw = 0x8000'0020; }},
        {"upper half of DR7", long_mode, [](auto& s) { s.dr7 |= u64{1} << 32; }},
        {"CS is not a usable, present segment", long_mode, [](auto& s) { s.cs_rights &= ~0x80U; }},
        {"CS.L and CS.D both set", long_mode, [](auto& s) { s.cs_rights |= 0x4000; }},
        {"TR is unusable", long_mode, [](auto& s) { s.tr_rights |= 0x1'0000; }},
        {"TR is not a busy TSS", long_mode, [](auto& s) { s.tr_rights = 0x89; }},
        {"TR is not a busy TSS", long_mode, [](auto& s) { s.tr_rights = 0x83; }},
        {"LDTR is not an LDT", long_mode, [](auto& s) { s.ldtr_rights = 0x92; }},
        {"RIP above 4 GiB outside of 64-bit mode", real_mode, [](auto& s) { s.rip = u64{1} << 32; }},
        {"interruptibility state", long_mode, [](auto& s) { s.interruptibility.raw = 3; }},
        {"STI blocking with RFLAGS.IF clear", real_mode, [](auto& s) { s.interruptibility.raw = 1; }},
        {"pending single step differs from RFLAGS.TF in a shadow", long_mode,
         [](auto& s) {
             s.rflags |= 0x100;
             s.interruptibility.raw = 2;
         }},
        {"activity state", long_mode, [](auto& s) { s.activity = 4; }},
    };
    for (auto const& [rule, base, spoil] : cases) {
        auto state = base();
        spoil(state);
        auto const found = violated(state);
        EXPECT_EQ(found.size(), 1U) << rule;
        EXPECT_FALSE(found.empty() || found[0] != rule) << rule;
    }
}

TEST(StateCheck, StopsAtTheRoomItHas) {
    GuestStateView state{};
    state.long_mode = true;
    std::array<std::string_view, 2> rules{};
    EXPECT_EQ(vmx::detail::violated_rules(state, rules), 2U);
}

TEST(StateCheck, EveryNumberHasAName) {
    EXPECT_EQ(vmx::instruction_error_name(7), "entry with invalid control fields");
    EXPECT_EQ(vmx::instruction_error_name(28), "invalid operand to INVEPT or INVVPID");
    EXPECT_EQ(vmx::instruction_error_name(26), "entry with events blocked by MOV SS");
    EXPECT_EQ(vmx::instruction_error_name(~0U), "?");
    EXPECT_EQ(vmx::reason::name(vmx::reason::xrstors), "XRSTORS");
    EXPECT_EQ(vmx::reason::name(vmx::reason::ept_violation), "EPT violation");
    EXPECT_EQ(vmx::reason::name(vmx::reason::preemption_timer), "preemption timer");
    EXPECT_EQ(vmx::reason::name(vmx::reason::tpr_below_threshold), "TPR below threshold");
    EXPECT_EQ(vmx::reason::name(vmx::reason::invalid_guest_state), "invalid guest state");
    EXPECT_EQ(vmx::reason::name(65), "?");
}

} // namespace
