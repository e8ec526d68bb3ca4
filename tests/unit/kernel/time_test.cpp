// SPDX-License-Identifier: MIT
#include "kernel/kernel_cpu.hpp"
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/run_loop.hpp>
#include <kernel/time.hpp>
#include <kernel/traps.hpp>
#include <random>

namespace {

using kernel::Timer;
using kernel::TimerQueue;
using kernel::TscScale;
using lib::u128;
using lib::u64;

constexpr u64 century = 100ULL * 365 * 86'400 * lib::nanos_per_second;
constexpr u64 rates[] = {4'000'000, 15'000'000, 1'000'000'000, 2'399'987'654, 3'000'000'000, 5'100'000'001};

TEST(TscScale, IsExactToMicrosecondsInACentury) {
    for (u64 const hz : rates) {
        TscScale const scale(hz);
        u64 const ticks = static_cast<u64>(u128{century} * hz / lib::nanos_per_second);
        u64 const exact = static_cast<u64>(u128{ticks} * lib::nanos_per_second / hz);
        EXPECT_GE(scale.to_nanos(ticks), exact);
        EXPECT_LT(scale.to_nanos(ticks) - exact, 3000U) << hz;
    }
}

TEST(TscScale, IsNeverEarly) {
    std::mt19937_64 random(1);
    for (u64 const hz : rates) {
        TscScale const scale(hz);
        for (int i = 0; i < 10'000; i++) {
            u64 const time = random() % century;
            EXPECT_GE(scale.to_nanos(scale.to_ticks(time)), time) << hz << ' ' << time;
            EXPECT_LE(scale.to_nanos(scale.to_ticks(time)), time + 3000 + lib::nanos_per_second / hz) << hz;
        }
    }
}

TEST(TscScale, KeepsTheOrderOfTimes) {
    TscScale const scale(2'999'999'999);
    u64 before = 0;
    for (u64 time = 0; time < 10'000; time++) {
        u64 const ticks = scale.to_ticks(time);
        EXPECT_GE(ticks, before);
        before = ticks;
    }
    EXPECT_EQ(scale.to_ticks(0), 0U);
    EXPECT_EQ(scale.to_nanos(0), 0U);
}

struct Recorder {
    std::vector<int>* fired = nullptr;
    int number = 0;
    Timer timer{Timer::Callback::to<&Recorder::call>(*this)};
    u64 rearm_at = 0;
    unsigned calls = 0;
    void call() {
        calls++;
        if (fired != nullptr) fired->push_back(number);
        if (rearm_at != 0) kernel::arm_timer(timer, rearm_at);
    }
};

TEST(TimerQueue, GivesOutByDeadlineAndEqualOnesInOrderOfArming) {
    TimerQueue queue;
    Timer a, b, c, d;
    EXPECT_EQ(queue.next_deadline(), TimerQueue::never);
    EXPECT_TRUE(queue.arm(a, 300));
    EXPECT_TRUE(queue.arm(b, 100));
    EXPECT_FALSE(queue.arm(c, 200));
    EXPECT_FALSE(queue.arm(d, 100));
    EXPECT_EQ(queue.next_deadline(), 100U);
    EXPECT_EQ(queue.pop_due(99), nullptr);
    EXPECT_EQ(queue.pop_due(250), &b);
    EXPECT_EQ(queue.pop_due(250), &d);
    EXPECT_EQ(queue.pop_due(250), &c);
    EXPECT_EQ(queue.pop_due(250), nullptr);
    EXPECT_EQ(queue.pop_due(300), &a);
    EXPECT_EQ(queue.next_deadline(), TimerQueue::never);
}

TEST(TimerQueue, RearmsAndCancels) {
    TimerQueue queue;
    Timer a, b;
    queue.arm(a, 100);
    queue.arm(b, 200);
    EXPECT_TRUE(queue.arm(a, 300)); // the earliest changed, if only because it went away
    EXPECT_EQ(queue.next_deadline(), 200U);
    queue.cancel(b);
    queue.cancel(b);
    EXPECT_EQ(queue.next_deadline(), 300U);
    queue.cancel(a);
    EXPECT_EQ(queue.next_deadline(), TimerQueue::never);
    EXPECT_EQ(queue.pop_due(~u64{0}), nullptr);
}

TEST(TimerQueue, AgreesWithAModel) {
    TimerQueue queue;
    std::vector<Timer> timers(40);
    std::map<Timer*, u64> model;
    std::mt19937_64 random(7);
    for (int i = 0; i < 20'000; i++) {
        Timer& timer = timers[random() % timers.size()];
        if (random() % 4 == 0) {
            queue.cancel(timer);
            model.erase(&timer);
        } else if (random() % 4 != 0) {
            u64 const deadline = 1 + random() % 100;
            queue.arm(timer, deadline);
            model[&timer] = deadline;
        } else {
            u64 const now = random() % 100;
            Timer* const due = queue.pop_due(now);
            u64 earliest = TimerQueue::never;
            for (auto const& [timer_, deadline] : model)
                earliest = std::min(earliest, deadline);
            ASSERT_EQ(due != nullptr, earliest <= now);
            if (due != nullptr) {
                ASSERT_EQ(model.at(due), earliest);
                model.erase(due);
            }
        }
    }
    for (Timer& timer : timers)
        queue.cancel(timer);
}

class CpuTimers : public KernelCpu {
protected:
    void SetUp() override {
        cpu.tsc_step = 0;
        cpu.tsc = 1000;
        use_x2apic();
        ASSERT_TRUE(kernel::LocalApic::enable(kernel::cpu_features().x2apic));
    }
    // The deadline has come: the CPU forgets it and interrupts. [intel/vol3] 12.5.4.1
    void fire() {
        lib::x86::wrmsr(lib::x86::IA32_TSC_DEADLINE, 0);
        kernel::run_timers();
    }
    u64 hardware_deadline() const { return cpu.peek_msr(lib::x86::IA32_TSC_DEADLINE); }
};

TEST_F(CpuTimers, TellTheHardwareOnlyOfTheEarliest) {
    Recorder a, b;
    kernel::arm_timer(a.timer, 5000);
    EXPECT_EQ(hardware_deadline(), 5000U);
    kernel::arm_timer(b.timer, 6000);
    EXPECT_EQ(hardware_deadline(), 5000U);
    kernel::arm_timer(b.timer, 4000);
    EXPECT_EQ(hardware_deadline(), 4000U);
    kernel::cancel_timer(a.timer);
    kernel::cancel_timer(b.timer);
    fire();
    EXPECT_EQ(hardware_deadline(), 0U);
    EXPECT_EQ(a.calls + b.calls, 0U);
}

TEST_F(CpuTimers, CallBackWhatIsDueAndArmForTheNext) {
    std::vector<int> fired;
    Recorder a{&fired, 1}, b{&fired, 2}, c{&fired, 3};
    kernel::arm_timer(c.timer, 9000);
    kernel::arm_timer(b.timer, 3000);
    kernel::arm_timer(a.timer, 2000);
    cpu.tsc = 3000;
    fire();
    EXPECT_EQ(fired, (std::vector<int>{1, 2}));
    EXPECT_EQ(hardware_deadline(), 9000U);
    kernel::cancel_timer(c.timer);
}

TEST_F(CpuTimers, ADeadlineInThePastFiresByInterruptAndCannotHoldTheCpu) {
    Recorder a;
    a.rearm_at = 500; // hostile: always due
    kernel::arm_timer(a.timer, 500);
    EXPECT_EQ(a.calls, 0U); // never from inside arm_timer()
    EXPECT_EQ(hardware_deadline(), 500U);
    fire();
    EXPECT_GT(a.calls, 0U);
    EXPECT_LE(a.calls, 64U);
    EXPECT_EQ(hardware_deadline(), 500U); // the rest with the next interrupt
    a.rearm_at = 0;
    fire();
    EXPECT_EQ(hardware_deadline(), 0U);
}

TEST_F(CpuTimers, ADeadlineOfZeroIsThePastToo) {
    Recorder a;
    kernel::arm_timer(a.timer, 0);
    EXPECT_NE(hardware_deadline(), 0U); // 0 would disarm. [intel/vol3] 12.5.4.1
    fire();
    EXPECT_EQ(a.calls, 1U);
}

TEST_F(CpuTimers, AnotherCpuIsInterruptedOnlyForItsEarliest) {
    kernel::Cpu& second = second_cpu();
    auto const sent = [&] {
        return std::ranges::count(cpu.msr_writes,
                                  fakes::MsrWrite{0x830, 0x31ULL << 32 | 0x4000 | kernel::vectors::timer});
    };
    Recorder a, b;
    kernel::arm_timer_on(1, a.timer, 5000);
    EXPECT_EQ(sent(), 1);
    kernel::arm_timer_on(1, b.timer, 6000);
    EXPECT_EQ(sent(), 1);
    EXPECT_EQ(hardware_deadline(), 0U); // of this CPU
    as_cpu(second, [] { kernel::run_timers(); });
    EXPECT_EQ(hardware_deadline(), 5000U); // of that one: the fake has one APIC for both
    EXPECT_EQ(a.calls + b.calls, 0U);
    cpu.tsc = 6000;
    kernel::run_timers(); // not here
    EXPECT_EQ(a.calls + b.calls, 0U);
    as_cpu(second, [] { kernel::run_timers(); });
    EXPECT_EQ(a.calls, 1U);
    EXPECT_EQ(b.calls, 1U);
}

TEST_F(CpuTimers, ATimerMovesBetweenCpus) {
    kernel::Cpu& second = second_cpu();
    Recorder a;
    kernel::arm_timer(a.timer, 5000);
    kernel::arm_timer_on(1, a.timer, 5000);
    cpu.tsc = 5000;
    kernel::run_timers();
    EXPECT_EQ(a.calls, 0U);
    kernel::arm_timer_on(0, a.timer, 5000); // back
    as_cpu(second, [] { kernel::run_timers(); });
    EXPECT_EQ(a.calls, 0U);
    kernel::run_timers();
    EXPECT_EQ(a.calls, 1U);
}

TEST_F(CpuTimers, CallbacksArePaidByTheirPayer) {
    kernel::start_clock(1'000'000'000, 0);
    ASSERT_TRUE(kernel::start_scheduler({}));
    kernel::SchedulerEntity victim(1), payer(2);
    kernel::ScheduleSettings const settings{.allowed = kernel::CpuSet::single(0)};
    ASSERT_TRUE(kernel::scheduler().add(victim, settings));
    ASSERT_TRUE(kernel::scheduler().add(payer, settings));
    kernel::scheduler().wake(victim, 1000);
    EXPECT_EQ(kernel::scheduler().pick(0, 1000).entity, &victim);
    struct Slow {
        fakes::Cpu& cpu;
        void call() const { cpu.tsc += 700; }
    } slow{cpu};
    Timer timer(Timer::Callback::to<&Slow::call>(slow));
    timer.set_payer(&payer);
    kernel::arm_timer(timer, 2000);
    cpu.tsc = 2000;
    fire();
    EXPECT_EQ(kernel::scheduler().used(payer, cpu.tsc), 700U);
    EXPECT_EQ(kernel::scheduler().used(victim, cpu.tsc), 1000U);
    timer.set_payer(&victim); // runs here, and so pays anyway
    kernel::arm_timer(timer, 2700);
    fire();
    EXPECT_EQ(kernel::scheduler().used(payer, cpu.tsc), 700U);
    EXPECT_EQ(kernel::scheduler().used(victim, cpu.tsc), 1700U);
    kernel::scheduler().stop(0, cpu.tsc);
    ASSERT_TRUE(kernel::scheduler().remove(victim));
    ASSERT_TRUE(kernel::scheduler().remove(payer));
}

TEST_F(CpuTimers, KeepTimeFromTheGivenZero) {
    kernel::start_clock(2'000'000'000, 1000);
    cpu.tsc = 1000 + 2'000'000'000;
    EXPECT_EQ(kernel::now().value, lib::nanos_per_second);
    EXPECT_EQ(kernel::tsc_of(lib::Nanos{lib::nanos_per_second}), cpu.tsc);
    EXPECT_EQ(kernel::tsc_at_time_zero(), 1000U);
}

} // namespace
