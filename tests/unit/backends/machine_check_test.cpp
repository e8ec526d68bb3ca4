// SPDX-License-Identifier: MIT
// A machine check that strikes while a guest runs, from the exit to the end of the VM, on both vendors' machines.
// [intel/vol3] 17.3, [amd/vol2] 9.3
#include "backends/guest.hpp"

#include <cstdlib>
#include <kernel/log.hpp>
#include <kernel/page_table.hpp>
#include <kernel/panic.hpp>
#include <string>

namespace backends {
namespace {

constexpr u32 MCG_CAP = 0x179, MCG_STATUS = 0x17a, MC1_STATUS = 0x405, MC1_ADDR = 0x406;
constexpr u64 RIPV = 1, MCIP = 4;
constexpr u64 memory_error = u64{0xb4} << 56 | 0x134; // VAL, UC, EN, ADDRV
constexpr u64 lost_state = u64{2} << 56;              // PCC

class StringSink final : public lib::TextSink {
public:
    void write(std::string_view part) override { text += part; }
    std::string text;
};

template <typename Machine> class MachineCheckOfAGuest : public Machine {
protected:
    void SetUp() override {
        this->start();
        kernel::set_log_sink(&log);
        kernel::set_log_level(kernel::LogLevel::Info);
        this->cpu.populate_read_only_msr(MCG_CAP, 2);
        this->cpu.populate_msr(0x401, 0);
        this->cpu.populate_msr(MC1_ADDR, 0x1234'5000);
        // No bank takes anything but zero as its status. [intel/vol3] 17.3.2.2
        this->cpu.hook_msr(
            MC1_STATUS, [this] { return status; }, [this](u64 value) { return value == 0 && ((status = 0), true); });
        report(0);
    }
    void TearDown() override { kernel::set_log_sink(nullptr); }
    void report(u64 bank) {
        status = bank;
        this->cpu.populate_msr(MCG_STATUS, RIPV | MCIP);
    }
    bool has_logged(std::string_view text) const { return log.text.find(text) != std::string::npos; }
    StringSink log;
    u64 status = 0;
};
using Machines = ::testing::Types<Intel, Amd>;
TYPED_TEST_SUITE(MachineCheckOfAGuest, Machines);

TYPED_TEST(MachineCheckOfAGuest, WhatCanBeContainedEndsThatVmOnly) {
    auto neighbour =
        vm::Vm::create({.name = "other", .memory = 4 * lib::MiB, .vcpu_count = 1}, *this->backend, this->platform);
    ASSERT_TRUE(neighbour);
    EXPECT_TRUE((*neighbour)->ram().scrub(~u64{0}));
    (*neighbour)->start();
    this->report(memory_error);
    EXPECT_EQ(this->play({{Cause::MachineCheck}}), RunResult::Stopped);
    EXPECT_EQ(this->machine().end_reason(), vm::EndReason::Crash);
    EXPECT_NE(this->machine().end_text().find("machine check"), std::string_view::npos);
    EXPECT_TRUE(this->has_logged("while a guest ran: MCG_STATUS 0x5; bank 1 status 0xb400000000000134 address "
                                 "0x12345000"))
        << this->log.text;
    EXPECT_EQ(this->status, 0U) << "free for the next";
    EXPECT_EQ(this->cpu.peek_msr(MCG_STATUS), 0U) << "MCIP: the next one would be a reset";
    EXPECT_EQ((*neighbour)->state(), vm::VmState::Running);
    EXPECT_EQ(this->guest().exit_counts()[static_cast<unsigned>(vm::ExitReason::MachineCheck)], 1U);
}

TYPED_TEST(MachineCheckOfAGuest, AnotherCpusLeavesTheGuestAsItWas) {
    u64 const begin = this->guest().rip();
    EXPECT_EQ(this->play({{Cause::MachineCheck}}), RunResult::Work);
    EXPECT_EQ(this->arrived(1), Event{}) << "the guest hears nothing of it";
    EXPECT_EQ(this->guest().rip(), begin);
    EXPECT_EQ(this->machine().state(), vm::VmState::Running);
    EXPECT_EQ(this->cpu.peek_msr(MCG_STATUS), 0U);
    EXPECT_TRUE(this->has_logged("no bank has anything"));
}

TYPED_TEST(MachineCheckOfAGuest, WhatItCutOffIsDeliveredAgain) {
    for (Event const& event : {interrupt(0x51), non_maskable(), fault(14, 3)}) {
        this->report(0);
        EXPECT_EQ(this->play({{Cause::MachineCheck, event}}), RunResult::Work);
        EXPECT_EQ(this->arrived(1), event);
    }
}

TYPED_TEST(MachineCheckOfAGuest, LostStateIsTheMachinesEnd) {
    ::testing::GTEST_FLAG(death_test_style) = "fast";
    kernel::set_panic_end([] { std::_Exit(3); });
    kernel::set_kernel_page_table(*kernel::PageTable::create({true, true})); // for the backtrace
    this->report(memory_error | lost_state);
    EXPECT_EXIT(this->play({{Cause::MachineCheck}}), testing::ExitedWithCode(3), "");
}

} // namespace
} // namespace backends
