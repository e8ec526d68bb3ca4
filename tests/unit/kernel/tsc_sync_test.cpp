// SPDX-License-Identifier: MIT
// Two CPUs, each a thread with its own fake CPU, whose TSCs run on one real clock with a distance between them.
#include <chrono>
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <kernel/log.hpp>
#include <kernel/time.hpp>
#include <kernel/tsc_sync.hpp>
#include <lib/x86/registers.hpp>
#include <thread>

namespace {

using kernel::TscProbe;
using kernel::TscSkew;
using lib::i64;
using lib::u64;

constexpr u64 second = 1'000'000'000;

u64 clock_now() { return static_cast<u64>(std::chrono::steady_clock::now().time_since_epoch().count()); }

class TscSync : public ::testing::Test {
protected:
    fakes::Cpu cpu;
    TscProbe probe;
    TscSync() { cpu.on_rdtsc = clock_now; }
    // Runs `body` on this CPU while the other answers; returns what its TSC_ADJUST is in the end.
    template <typename Body> u64 beside(i64 distance, u64 adjust, Body body) {
        u64 result = 0;
        std::thread other([&] {
            fakes::Cpu second_cpu;
            u64 now = adjust;
            second_cpu.on_rdtsc = [&] { return clock_now() + static_cast<u64>(distance) + now - adjust; };
            second_cpu.hook_msr(
                lib::x86::IA32_TSC_ADJUST, [&] { return now; },
                [&](u64 value) {
                    now = value;
                    return true;
                });
            probe.answer();
            result = now;
        });
        body();
        probe.end();
        other.join();
        return result;
    }
    TscSkew measure() { return probe.measure(second, 200, 20'000); }
};

TEST(TscAgreement, IsNoGoodNewsWhenItIsNotKnown) {
    fakes::Cpu cpu;
    kernel::start_clock(1'000'000'000, 0);
    std::array<char, 300> text{};
    lib::BufferSink sink(text);
    kernel::set_log_sink(&sink);
    kernel::log_tsc_agreement(310);
    kernel::log_tsc_agreement(8'096'000);
    kernel::set_log_sink(nullptr);
    std::string const all(sink.view());
    EXPECT_NE(all.find("] cpus: TSCs agree within 0.310 us\n"), std::string::npos) << all;
    EXPECT_NE(all.find("] warning: cpus: TSCs may be 8096 us apart, because"), std::string::npos) << all;
}

TEST_F(TscSync, TheDistanceIsMeasuredWithItsError) {
    for (i64 const distance : {i64{0}, i64{5'000'000}, i64{-70'000'000}}) {
        probe.reset();
        beside(distance, 0, [&] {
            auto const skew = measure();
            EXPECT_NE(skew.within, TscSkew::unknown);
            EXPECT_LE(std::abs(skew.ticks - distance), static_cast<i64>(skew.within) + 1);
            EXPECT_EQ(skew.is_noticeable(1'000), distance != 0);
        });
    }
}

TEST_F(TscSync, TheDistanceIsTakenAwayByTscAdjust) {
    for (i64 const distance : {i64{3'000'000}, i64{-3'000'000}}) {
        probe.reset();
        TscSkew skew; // as good as the computer that this runs on lets it be
        u64 const adjust = beside(distance, 0x1000, [&] {
            skew = measure();
            ASSERT_TRUE(probe.correct(skew, 10 * second));
            auto const after = measure();
            EXPECT_LE(std::abs(after.ticks), static_cast<i64>(skew.within + after.within) + 1);
        });
        EXPECT_EQ(static_cast<i64>(adjust - 0x1000), -skew.ticks);
        EXPECT_LE(std::abs(skew.ticks - distance), static_cast<i64>(skew.within) + 1);
    }
}

TEST_F(TscSync, ACpuThatDoesNotAnswerEndsTheMeasurement) {
    probe.reset();
    auto const skew = probe.measure(1'000'000, 10, 1'000);
    EXPECT_EQ(skew.within, TscSkew::unknown);
    EXPECT_FALSE(skew.is_noticeable(0));
    EXPECT_FALSE(probe.correct(skew, 1'000'000));
}

} // namespace
