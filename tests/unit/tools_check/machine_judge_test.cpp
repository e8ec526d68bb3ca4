// SPDX-License-Identifier: MIT
#include <check/machine_check.hpp>

#include <cstring>
#include <gtest/gtest.h>
#include <string>

namespace {

using check::Answer;
using check::MachineFacts;

constexpr lib::u64 every_control = ~lib::u64{0};

MachineFacts machine(char const* vendor) {
    MachineFacts facts;
    std::memcpy(facts.vendor.data(), vendor, facts.vendor.size());
    facts.has_long_mode = facts.has_acpi_madt = facts.has_com1 = facts.are_registers_known = true;
    facts.cpus = 4;
    facts.memory = lib::GiB;
    facts.grub = Answer::Yes;
    return facts;
}

MachineFacts intel() {
    MachineFacts facts = machine("GenuineIntel");
    facts.has_vmx = true;
    facts.processor_controls = facts.secondary_controls = {true, every_control};
    return facts;
}

MachineFacts amd() {
    MachineFacts facts = machine("AuthenticAMD");
    facts.has_svm = facts.has_nested_paging = true;
    return facts;
}

struct Judged {
    explicit Judged(MachineFacts const& facts) {
        std::array<char, 4000> buffer{};
        lib::BufferSink sink(buffer);
        missing = check::judge_machine(facts, sink);
        text = sink.view();
    }
    bool says(char const* part) const { return text.find(part) != std::string::npos; }
    lib::u32 missing;
    std::string text;
};

TEST(MachineJudge, NothingIsMissingOnAGoodMachine) {
    for (auto const& facts : {intel(), amd()})
        EXPECT_EQ(Judged(facts).missing, 0U) << Judged(facts).text;
}

TEST(MachineJudge, EachThingThatIsMissingIsNamedWithItsRemedy) {
    struct Row {
        MachineFacts facts;
        void (*change)(MachineFacts&);
        char const* said;
    };
    Row const rows[] = {
        {intel(), [](MachineFacts& f) { f.has_vmx = false; }, "MISSING  VT-x: this CPU has none"},
        {amd(),
         [](MachineFacts& f) {
             f.has_svm = false;
             f.is_virtual = true;
         },
         "turn on nested virtualization on its host"},
        {intel(), [](MachineFacts& f) { f.cpus_turned_off = f.cpus_locked_off = 4; },
         "MISSING  VT-x: the firmware turned it off and locked it"},
        {amd(), [](MachineFacts& f) { f.cpus_turned_off = 4; }, "turn on \"SVM Mode\""},
        {intel(), [](MachineFacts& f) { f.secondary_controls.value &= ~(lib::u64{2} << 32); }, "MISSING  EPT"},
        {intel(), [](MachineFacts& f) { f.secondary_controls.value &= ~(lib::u64{0x80} << 32); },
         "MISSING  unrestricted guest"},
        {intel(),
         [](MachineFacts& f) {
             f.secondary_controls = {};
             f.processor_controls.value &= ~(lib::u64{1} << 63);
         },
         "MISSING  EPT"},
        {intel(),
         [](MachineFacts& f) {
             f.secondary_controls = f.processor_controls = {};
             f.ept = Answer::No;
         },
         "MISSING  EPT"},
        {amd(), [](MachineFacts& f) { f.has_nested_paging = false; }, "MISSING  nested paging"},
        {machine("CentaurHauls"), [](MachineFacts&) {}, "made by \"CentaurHauls\""},
        {amd(), [](MachineFacts& f) { f.has_acpi_madt = false; }, "MISSING  ACPI"},
        {amd(), [](MachineFacts& f) { f.memory = 48 * lib::MiB; }, "MISSING  memory: 48 MiB"},
        {amd(), [](MachineFacts& f) { f.has_com1 = false; }, "MISSING  UART"},
        {amd(),
         [](MachineFacts& f) {
             f.secure_boot = Answer::Yes;
             f.is_uefi = true;
         },
         "MISSING  Secure Boot"},
        {amd(), [](MachineFacts& f) { f.grub = Answer::No; }, "MISSING  GRUB"},
    };
    for (Row const& row : rows) {
        MachineFacts facts = row.facts;
        row.change(facts);
        Judged const judged(facts);
        EXPECT_GE(judged.missing, 1U) << row.said;
        EXPECT_TRUE(judged.says(row.said)) << judged.text;
    }
}

TEST(MachineJudge, WhatCannotBeReadIsNotCalledMissing) {
    MachineFacts facts = intel();
    facts.are_registers_known = false;
    facts.processor_controls = facts.secondary_controls = {};
    Judged const judged(facts);
    EXPECT_EQ(judged.missing, 0U) << judged.text;
    EXPECT_TRUE(judged.says("modprobe msr")) << judged.text;
}

TEST(MachineJudge, ACpuThatTheFirmwareForgotIsNoReasonNotToStart) {
    MachineFacts facts = intel();
    facts.cpus_turned_off = 1;
    Judged const judged(facts);
    EXPECT_EQ(judged.missing, 0U);
    EXPECT_TRUE(judged.says("for 1 of 4 CPUs")) << judged.text;
}

} // namespace
