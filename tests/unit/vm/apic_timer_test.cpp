// SPDX-License-Identifier: MIT
#include "vm/fake_apic_bus.hpp"

#include <gtest/gtest.h>
#include <random>

namespace {

using Mode = vm::ApicTimer::Mode;
using vm::u32;
using vm::u64;

struct ApicTimerTest : ::testing::Test {
    FakeApicBus host;
    vm::ApicTimer timer{host, 1, 0};
};

constexpr u32 divide_by_1 = 0xb;

TEST_F(ApicTimerTest, DivideRegisterCodes) {
    u32 const codes[] = {0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa, 0xb};
    u64 const divisors[] = {2, 4, 8, 16, 32, 64, 128, 1};
    for (unsigned i = 0; i < 8; ++i) {
        timer.reset();
        timer.set_divide(codes[i]);
        timer.set_initial_count(100);
        EXPECT_EQ(host.armed, host.now + 100 * divisors[i]) << i;
    }
}

TEST_F(ApicTimerTest, ResetDividesByTwo) {
    timer.set_initial_count(10);
    EXPECT_EQ(host.armed, host.now + 20);
    timer.set_divide(0); // the same value: nothing moves
    EXPECT_EQ(host.armed, host.now + 20);
}

TEST_F(ApicTimerTest, OneShotCountsDownAndFiresOnce) {
    timer.set_divide(divide_by_1);
    timer.set_initial_count(1000);
    EXPECT_EQ(timer.current_count(), 1000U);
    host.now += 1;
    EXPECT_EQ(timer.current_count(), 999U);
    host.now += 998;
    EXPECT_EQ(timer.current_count(), 1U);
    EXPECT_FALSE(timer.expire()) << "early calls change nothing";
    EXPECT_TRUE(timer.is_running());
    host.now += 1;
    EXPECT_EQ(timer.current_count(), 0U);
    EXPECT_TRUE(timer.expire());
    EXPECT_FALSE(timer.expire());
    EXPECT_EQ(timer.current_count(), 0U);
}

TEST_F(ApicTimerTest, InitialCountZeroStops) {
    timer.set_initial_count(5);
    timer.set_initial_count(0);
    EXPECT_FALSE(host.armed);
    host.now += 100;
    EXPECT_FALSE(timer.expire());
}

TEST_F(ApicTimerTest, PeriodicKeepsItsPhaseAndCoalesces) {
    timer.set_divide(divide_by_1);
    timer.set_mode(Mode::Periodic);
    u64 const start = host.now;
    timer.set_initial_count(100);
    host.now = start + 130; // late
    EXPECT_TRUE(timer.expire());
    EXPECT_EQ(host.armed, start + 200);
    EXPECT_EQ(timer.current_count(), 70U);
    host.now = start + 1050; // nine ticks at once
    EXPECT_EQ(timer.current_count(), 50U);
    EXPECT_TRUE(timer.expire());
    EXPECT_FALSE(timer.expire());
    EXPECT_EQ(host.armed, start + 1100);
    host.now = start + 1100; // exactly
    EXPECT_TRUE(timer.expire());
    EXPECT_EQ(host.armed, start + 1200);
}

TEST_F(ApicTimerTest, PeriodicStormIsHeldBack) {
    vm::ApicTimer guarded(host, 1, 5000);
    guarded.set_divide(divide_by_1);
    guarded.set_mode(Mode::Periodic);
    u64 const start = host.now;
    guarded.set_initial_count(1);
    EXPECT_EQ(host.armed, start + 5000);
    host.now = start + 5000;
    EXPECT_TRUE(guarded.expire());
    EXPECT_EQ(host.armed, start + 10000);
    guarded.set_initial_count(7000); // slower than the guard: untouched
    EXPECT_EQ(host.armed, host.now + 7000);
}

TEST_F(ApicTimerTest, DeadlineMode) {
    timer.write_deadline(host.now + 50);
    EXPECT_FALSE(host.armed) << "ignored outside its mode";
    timer.set_mode(Mode::Deadline);
    timer.write_deadline(host.now + 50);
    EXPECT_EQ(host.armed, host.now + 50);
    EXPECT_EQ(timer.deadline(), host.now + 50);
    EXPECT_EQ(timer.current_count(), 0U);
    timer.set_initial_count(77);
    EXPECT_EQ(host.armed, host.now + 50) << "the initial count is ignored";
    host.now += 50;
    EXPECT_TRUE(timer.expire());
    EXPECT_EQ(timer.deadline(), 0U);
    timer.write_deadline(1);
    EXPECT_TRUE(timer.expire()) << "the past is due";
    timer.write_deadline(~u64{0});
    EXPECT_FALSE(timer.expire());
    timer.write_deadline(0);
    EXPECT_FALSE(host.armed);
    EXPECT_FALSE(timer.expire());
}

TEST_F(ApicTimerTest, LeavingDeadlineModeDisarms) {
    timer.set_mode(Mode::Deadline);
    timer.write_deadline(host.now + 50);
    timer.set_mode(Mode::OneShot);
    EXPECT_FALSE(host.armed);
    EXPECT_FALSE(timer.is_running());
    timer.set_initial_count(10);
    timer.set_mode(Mode::Periodic);
    EXPECT_TRUE(timer.is_running()) << "one-shot and periodic share the count";
    timer.set_mode(Mode::Deadline);
    EXPECT_FALSE(timer.is_running());
}

TEST_F(ApicTimerTest, ChangingTheDivisorKeepsTheCount) {
    timer.set_divide(divide_by_1);
    timer.set_initial_count(1000);
    host.now += 400;
    timer.set_divide(1); // by 4
    EXPECT_EQ(timer.current_count(), 600U);
    EXPECT_EQ(host.armed, host.now + 2400);
}

TEST_F(ApicTimerTest, TscJumpsDoNotDisturbCounts) {
    timer.set_divide(divide_by_1);
    timer.set_initial_count(1000);
    for (u64 jump : {u64{12345}, ~u64{0} - 500, ~u64{0} - 2'000'000, u64{1} << 63}) {
        host.now += jump;
        timer.tsc_shifted(jump);
        EXPECT_EQ(timer.current_count(), 1000U);
        ASSERT_TRUE(host.armed);
        EXPECT_GT(*host.armed, host.now) << "never looks past because the TSC wraps";
    }
    timer.set_mode(Mode::Deadline);
    timer.write_deadline(500);
    host.now = 400;
    EXPECT_FALSE(timer.expire());
    host.now = 600;
    timer.tsc_shifted(200);
    EXPECT_TRUE(timer.expire());
}

TEST_F(ApicTimerTest, ReservedModeDoesNothing) {
    timer.set_mode(Mode::Reserved);
    timer.set_initial_count(5);
    timer.write_deadline(5);
    EXPECT_FALSE(host.armed);
    EXPECT_EQ(timer.current_count(), 0U);
}

// Against a model that counts crystal ticks one at a time.
TEST(ApicTimerModel, MatchesATickingCounter) {
    std::mt19937_64 random(7);
    for (unsigned round = 0; round < 300; ++round) {
        FakeApicBus host;
        host.now = random();
        u32 const multiplier = 1 + static_cast<u32>(random() % 3);
        vm::ApicTimer timer(host, multiplier, 0);
        bool const periodic = (random() & 1) != 0;
        timer.set_mode(periodic ? Mode::Periodic : Mode::OneShot);
        u32 const shift = static_cast<u32>(random() % 4);
        timer.set_divide(shift == 0 ? divide_by_1 : shift - 1);
        u32 const initial = 1 + static_cast<u32>(random() % 20);
        timer.set_initial_count(initial);
        u32 count = initial;
        unsigned expected = 0, fired = 0;
        for (u64 tick = 1; tick < 600; ++tick) {
            ++host.now;
            if (tick % (u64{multiplier} << shift) == 0 && count != 0 && --count == 0) {
                ++expected;
                if (periodic) count = initial;
            }
            if (host.armed && *host.armed == host.now && timer.expire()) ++fired;
            ASSERT_EQ(timer.current_count(), count) << round << " at " << tick;
            ASSERT_EQ(fired, expected);
        }
    }
}

} // namespace
