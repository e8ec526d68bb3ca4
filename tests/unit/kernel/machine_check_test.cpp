// SPDX-License-Identifier: MIT
// Machine checks: what the banks hold decides who goes on.
#include "kernel/kernel_cpu.hpp"

#include <cstdio>
#include <kernel/log.hpp>
#include <kernel/machine_check.hpp>
#include <kernel/panic.hpp>
#include <kernel/traps.hpp>
#include <kernel/user_context.hpp>
#include <string>

extern "C" void trap_dispatch(kernel::TrapFrame& frame);
extern "C" char const trap_from_user_saved[];

namespace {

using kernel::MachineCheck;
using lib::bit;
using lib::u32;
using lib::u64;

constexpr u64 VAL = bit(63), OVER = bit(62), UC = bit(61), EN = bit(60), MISCV = bit(59), ADDRV = bit(58),
              PCC = bit(57);
constexpr u64 RIPV = bit(0), EIPV = bit(1), MCIP = bit(2);
constexpr u64 memory_error = VAL | UC | EN | MISCV | ADDRV | 0x134;

class StringSink final : public lib::TextSink {
public:
    void write(std::string_view part) override { text += part; }
    std::string text;
};

class MachineChecks : public KernelCpu {
protected:
    void SetUp() override {
        use_cpu(0x0005'0654, 4);
        kernel::set_log_sink(&log);
    }
    void TearDown() override { kernel::set_log_sink(nullptr); }
    void use_cpu(u32 signature, u32 banks) {
        cpu.set_cpuid(1, {signature, 0, 0, 1U << 7 | 1U << 14});
        kernel::detect_cpu_features();
        cpu.populate_read_only_msr(0x179, banks | bit(8));
        cpu.populate_msr(0x17a, 0);
        cpu.populate_msr(0x17b, 0);
        for (u32 i = 0; i < banks; i++) {
            cpu.populate_msr(0x400 + i * 4, 0);
            // No bank takes anything but zero as its status. [intel/vol3] 17.3.2.2
            cpu.hook_msr(
                0x401 + i * 4, [this, i] { return status[i]; },
                [this, i](u64 value) { return value == 0 && ((status[i] = 0), true); });
        }
    }
    void report(u32 bank, u64 value, u64 global) {
        status[bank] = value;
        cpu.populate_msr(0x402 + bank * 4, 0x1234'5000);
        cpu.populate_msr(0x403 + bank * 4, 0x86);
        cpu.populate_msr(0x17a, global);
    }
    std::string text(MachineCheck const& check) {
        StringSink sink;
        check.print(sink);
        return sink.text;
    }

    u64 status[32] = {};
    StringSink log;
};

TEST_F(MachineChecks, AreTurnedOnWithAllTheirBanks) {
    kernel::enable_machine_checks();
    EXPECT_EQ(cpu.cr4 & bit(6), bit(6));
    EXPECT_EQ(kernel::machine_check_cr4(), bit(6));
    EXPECT_EQ(cpu.peek_msr(0x17b), ~u64{0});
    for (u32 i = 0; i < 4; i++)
        EXPECT_EQ(cpu.peek_msr(0x400 + i * 4), ~u64{0});
    EXPECT_EQ(log.text, "");
}

TEST_F(MachineChecks, OldBanksAreLeftToTheFirmware) {
    cpu.set_cpuid(0, {7, 0x6874'7541, 0x444d'4163, 0x6974'6e65});
    use_cpu(0x0010'0f42, 6); // family 10h: bank 4 reports what the GART does by design
    kernel::enable_machine_checks();
    EXPECT_EQ(cpu.cr4 & bit(6), bit(6));
    EXPECT_EQ(cpu.peek_msr(0x410), 0U);
}

TEST_F(MachineChecks, WithoutBanksTheBitIsSetAllTheSame) {
    cpu.set_cpuid(1, {0x0005'0654, 0, 0, 1U << 7});
    cpu.remove_msr(0x179);
    kernel::enable_machine_checks();
    EXPECT_EQ(cpu.cr4 & bit(6), bit(6));
}

TEST_F(MachineChecks, WhatIsLeftFromBeforeTheStartIsSaidAndForgotten) {
    report(2, memory_error, 0);
    kernel::enable_machine_checks();
    EXPECT_NE(log.text.find("a machine check from before the start: MCG_STATUS 0x0; bank 2 status 0xbc00000000000134 "
                            "address 0x12345000 misc 0x86"),
              std::string::npos)
        << log.text;
    EXPECT_EQ(status[2], 0U);
}

TEST_F(MachineChecks, ARestartableOneIsRecoverable) {
    report(1, memory_error, RIPV | EIPV | MCIP);
    auto const check = MachineCheck::take();
    EXPECT_EQ(check.kind(), MachineCheck::Kind::Recoverable);
    EXPECT_EQ(status[1], 0U);
    EXPECT_EQ(cpu.peek_msr(0x17a), 0U) << "MCIP: the next one would be a reset";
    EXPECT_EQ(text(check), "MCG_STATUS 0x7; bank 1 status 0xbc00000000000134 address 0x12345000 misc 0x86");
}

TEST_F(MachineChecks, LostStateIsFatal) {
    for (auto const [value, global] : {std::pair{memory_error | PCC, RIPV | MCIP}, std::pair{memory_error, MCIP},
                                       std::pair{memory_error | OVER, RIPV | MCIP}, std::pair{u64{0}, MCIP}}) {
        report(3, value, global);
        EXPECT_EQ(MachineCheck::take().kind(), MachineCheck::Kind::Fatal);
        EXPECT_EQ(status[3], value) << "the firmware may look at it after the reset";
        EXPECT_EQ(cpu.peek_msr(0x17a), 0U);
    }
}

TEST_F(MachineChecks, AnotherCpusIsNoneOfThisOne) {
    cpu.populate_msr(0x17a, RIPV | MCIP);
    EXPECT_EQ(MachineCheck::take().kind(), MachineCheck::Kind::Elsewhere);
    report(0, VAL | EN, RIPV | MCIP); // corrected
    EXPECT_EQ(MachineCheck::take().kind(), MachineCheck::Kind::Elsewhere);
    EXPECT_EQ(status[0], 0U);
}

TEST_F(MachineChecks, AnotherCpusDoesNotStopMullion) {
    cpu.populate_msr(0x17a, RIPV | MCIP);
    kernel::TrapFrame frame{};
    frame.vector = 18;
    trap_dispatch(frame);
    EXPECT_EQ(cpu.peek_msr(0x17a), 0U);
}

TEST_F(MachineChecks, OneInRing3IsLeftToWhatEnteredRing3) {
    report(1, memory_error, RIPV | MCIP);
    kernel::UserContext context;
    kernel::this_cpu().tables.tss.rsp[0] = context.stack_for_traps();
    kernel::TrapFrame frame{};
    frame.vector = 18;
    frame.rip = 0x1000'1234;
    frame.cs = kernel::user_code_selector;
    frame.rflags = 0x40202; // AC opens user pages to ring 0
    frame.rsp = 0x2fff'0000;
    frame.ss = kernel::user_data_selector;
    frame.r15 = 15;
    trap_dispatch(frame);
    EXPECT_EQ(context.frame.vector, 18U);
    EXPECT_EQ(context.frame.rip, 0x1000'1234U);
    EXPECT_EQ(context.frame.rsp, 0x2fff'0000U);
    EXPECT_EQ(context.frame.cs, kernel::user_code_selector);
    EXPECT_EQ(context.frame.r15, 15U);
    EXPECT_EQ(frame.rip, reinterpret_cast<u64>(trap_from_user_saved));
    EXPECT_EQ(frame.rsp, reinterpret_cast<u64>(&context));
    EXPECT_EQ(frame.cs, kernel::code_selector);
    EXPECT_EQ(frame.ss, kernel::data_selector);
    EXPECT_EQ(frame.rflags, 2U);
    EXPECT_EQ(status[1], memory_error) << "Service::run() looks at the banks";
    kernel::this_cpu().tables.tss.rsp[0] = 0;
}

TEST_F(PanicTest, AMachineCheckInMullionItselfIsAPanicWithTheBanks) {
    cpu.populate_read_only_msr(0x179, 2);
    cpu.populate_msr(0x17a, RIPV | MCIP);
    cpu.populate_msr(0x401, 0);
    cpu.populate_msr(0x405, memory_error);
    cpu.populate_msr(0x406, 0);
    cpu.populate_msr(0x407, 0);
    kernel::TrapFrame frame{};
    frame.vector = 18;
    EXPECT_DEATH(trap_dispatch(frame), "PANIC on CPU 0: machine check .#MC.: MCG_STATUS 0x5; bank 1 status");
}

} // namespace
