// SPDX-License-Identifier: MIT
// Work that one CPU gives another, which answers late or never.
#include "kernel/kernel_cpu.hpp"

#include <cstdio>
#include <kernel/apic.hpp>
#include <kernel/calls.hpp>
#include <kernel/log.hpp>
#include <kernel/panic.hpp>
#include <kernel/traps.hpp>
#include <string>

namespace {

using lib::u64;

constexpr u64 hz = 1'000'000'000;

class StringSink final : public lib::TextSink {
public:
    void write(std::string_view part) override { text += part; }
    std::string text;
};

class Calls : public PanicTest {
protected:
    void SetUp() override {
        cpu.tsc_step = 0;
        kernel::start_clock(hz, 0);
        PanicTest::SetUp();
        second_cpu();
        kernel::set_log_sink(&log);
        kernel::set_log_level(kernel::LogLevel::Info);
    }
    void TearDown() override {
        kernel::set_log_sink(nullptr);
        PanicTest::TearDown();
    }
    auto kicks() const {
        return std::ranges::count(cpu.msr_writes,
                                  fakes::MsrWrite{0x830, 0x31ULL << 32 | 0x4000 | kernel::vectors::kick});
    }
    // Each time that CPU 0 looks for the answer, `step` passes; CPU 1 takes its interrupt after `looks` of them.
    void second_answers_after(unsigned looks, u64 step) {
        cpu.on_pause = [this, looks, step, seen = 0U]() mutable {
            cpu.tsc += step;
            if (++seen == looks) as_cpu(second_cpu(), [] { kernel::run_calls(); });
        };
    }
    void call() { kernel::run_on(1, lib::Delegate<void()>::to<&Calls::count>(*this)); }
    void count() { ran_on.push_back(kernel::this_cpu().index); }

    StringSink log;
    std::vector<lib::u32> ran_on;
};
using CallsDeathTest = Calls;

TEST_F(Calls, RunOnTheOtherCpuAndKickItOnce) {
    second_answers_after(10, hz / 1000);
    call();
    EXPECT_EQ(ran_on, std::vector<lib::u32>{1});
    EXPECT_EQ(kicks(), 1);
    EXPECT_EQ(log.text, "");
}

TEST_F(Calls, ALateCpuIsKickedAgainAndNamed) {
    second_answers_after(36, hz / 10); // 3.6 s
    call();
    EXPECT_EQ(ran_on, std::vector<lib::u32>{1});
    EXPECT_EQ(kicks(), 1 + 3);
    EXPECT_NE(log.text.find("CPU 1 (APIC id 0x31) does not answer"), std::string::npos);
    EXPECT_EQ(log.text.find("does not answer"), log.text.rfind("does not answer")) << "said once";
}

TEST_F(Calls, AMachineThatStoodStillIsNoLateCpu) {
    second_answers_after(3, 3600 * hz); // each look an hour after the last: a suspended virtual machine
    call();
    EXPECT_EQ(ran_on, std::vector<lib::u32>{1});
}

TEST_F(CallsDeathTest, ACpuThatNeverAnswersIsNamedInThePanic) {
    cpu.on_pause = [this] { cpu.tsc += hz / 10; };
    EXPECT_DEATH(call(), "PANIC on CPU 0: CPU 1 .APIC id 0x31. has not answered for 60 s");
}

TEST_F(CallsDeathTest, CallsToAllNameTheOneThatIsMissing) {
    cpu.on_pause = [this] { cpu.tsc += hz / 10; };
    EXPECT_DEATH(kernel::wait_for_other_cpus(), "CPU 1 .APIC id 0x31. has not answered for 60 s");
}

} // namespace
