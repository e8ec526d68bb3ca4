// SPDX-License-Identifier: MIT
#include <platform/rtc.hpp>

#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <memory>

namespace {

using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using platform::Rtc;

constexpr u64 second = lib::nanos_per_second;
constexpr u64 end_of_1999 = 946'684'799; // 1999-12-31 23:59:59, a Friday

struct RtcTest : testing::Test {
    fakes::FakeHost host;
    std::unique_ptr<Rtc> rtc;
    RtcTest() { start(end_of_1999); }
    void start(u64 wall_clock) {
        host.facts = {wall_clock, 4, 2 * lib::GiB, 6 * lib::GiB, 40, true};
        rtc = std::make_unique<Rtc>(host.plug());
        host.deliver_to([this](platform::Event const& event) { rtc->on(event); });
    }
    u8 get(u8 index) {
        rtc->io({0, index, 0, 1, Op::Write, 0});
        return static_cast<u8>(rtc->io({1, 0, 0, 1, Op::Read, 0}).data);
    }
    void set(u8 index, u8 value) {
        rtc->io({0, index, 0, 1, Op::Write, 0});
        rtc->io({1, value, 0, 1, Op::Write, 0});
    }
    // Century, year, month, day, hour, minute, second as the guest sees them.
    std::vector<u8> clock() { return {get(0x32), get(9), get(8), get(7), get(4), get(2), get(0)}; }
    using Shown = std::vector<u8>;
};

TEST_F(RtcTest, RollsOverTheCentury) {
    EXPECT_EQ(clock(), (Shown{0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59}));
    EXPECT_EQ(get(6), 6);
    host.advance(second - 1);
    EXPECT_EQ(get(0), 0x59);
    host.advance(1);
    EXPECT_EQ(clock(), (Shown{0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00}));
    EXPECT_EQ(get(6), 7);
    host.advance(59 * 86'400 * second);
    EXPECT_EQ(clock(), (Shown{0x20, 0x00, 0x02, 0x29, 0x00, 0x00, 0x00})); // 2000 was a leap year
}

TEST_F(RtcTest, BinaryAndTwelveHours) {
    set(0x0b, 0x06);
    EXPECT_EQ(clock(), (Shown{19, 99, 12, 31, 23, 59, 59}));
    set(0x0b, 0x00);
    EXPECT_EQ(get(4), 0x91); // 11 pm
    host.advance(second);
    EXPECT_EQ(get(4), 0x12); // midnight is 12 am
    host.advance(12 * 3600 * second);
    EXPECT_EQ(get(4), 0x92);
}

TEST_F(RtcTest, UpdateInProgressWarnsBeforeEachSecond) {
    EXPECT_EQ(get(0x0a), 0x26);
    host.advance(second - 244'001);
    EXPECT_EQ(get(0x0a) & 0x80, 0);
    host.advance(1);
    EXPECT_EQ(get(0x0a) & 0x80, 0x80);
    host.advance(244'000);
    EXPECT_EQ(get(0x0a) & 0x80, 0);
}

TEST_F(RtcTest, SetFreezesAndSetsTheClock) {
    set(0x0b, 0x82);
    host.advance(10 * second);
    EXPECT_EQ(get(0), 0x59);
    EXPECT_EQ(get(0x0a) & 0x80, 0);
    for (auto const& [index, value] :
         {std::pair<u8, u8>{0x32, 0x20}, {9, 0x24}, {8, 0x02}, {7, 0x28}, {4, 0x23}, {2, 0x59}, {0, 0x58}})
        set(index, value);
    set(0x0b, 0x02);
    host.advance(2 * second);
    EXPECT_EQ(clock(), (Shown{0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00}));
}

TEST_F(RtcTest, SettingTheTimeAsLinuxDoes) {
    set(0x0b, 0x82);
    set(0x0a, 0x76); // divider in reset
    set(9, 0x26);
    set(0x32, 0x20);
    set(0, 0x30);
    set(0x0b, 0x02);
    host.advance(5 * second);
    EXPECT_EQ(get(0), 0x30); // the divider still stands
    set(0x0a, 0x26);
    host.advance(second / 2 - 1);
    EXPECT_EQ(get(0), 0x30);
    host.advance(1); // the first update half a second after the release
    EXPECT_EQ(get(0), 0x31);
}

TEST_F(RtcTest, WritingARunningClockKeepsThePhase) {
    host.advance(second / 4);
    set(2, 0x10);
    EXPECT_EQ(get(2), 0x10);
    EXPECT_EQ(get(0), 0x59);
    host.advance(second * 3 / 4);
    EXPECT_EQ(get(2), 0x11);
}

TEST_F(RtcTest, WeekdayIsTheGuestsToChoose) {
    set(6, 2);
    EXPECT_EQ(get(6), 2);
    host.advance(second);
    EXPECT_EQ(get(6), 3);
}

TEST_F(RtcTest, UpdateEndedInterruptOncePerRead) {
    set(0x0b, 0x12);
    host.advance(second - 1);
    EXPECT_FALSE(host.line(8));
    host.advance(1);
    EXPECT_TRUE(host.line(8));
    host.advance(100 * second);
    EXPECT_EQ(host.timers_fired, 1U); // nobody reads C: nothing runs
    EXPECT_EQ(get(0x0c) & 0x90, 0x90);
    EXPECT_FALSE(host.line(8));
    EXPECT_EQ(get(0x0c), 0);
    host.advance(second);
    EXPECT_TRUE(host.line(8));
}

TEST_F(RtcTest, AlarmMatchesWithWildcards) {
    set(5, 0x00);
    set(3, 0x01);
    set(1, 0x30);
    set(0x0b, 0x22);
    host.advance(91 * second - 1);
    EXPECT_FALSE(host.line(8));
    host.advance(1); // 00:01:30
    EXPECT_TRUE(host.line(8));
    EXPECT_EQ(get(0x0c) & 0xa0, 0xa0);
    set(5, 0xff);
    set(3, 0xc0);
    set(1, 0x15);
    host.advance(45 * second);
    EXPECT_EQ(get(0x0c) & 0xa0, 0xa0); // any minute, second 15
    EXPECT_EQ(host.timers_fired, 2U);
}

TEST_F(RtcTest, AlarmOfTomorrowNeedsOneTimer) {
    set(5, 0x23);
    set(3, 0x59);
    set(1, 0x58);
    set(0x0b, 0x22);
    host.advance(86'399 * second);
    EXPECT_TRUE(host.line(8));
    EXPECT_EQ(host.timers_fired, 1U);
}

TEST_F(RtcTest, AlarmFlagIsSetWithoutItsInterrupt) {
    set(5, 0x00);
    set(3, 0x00);
    set(1, 0x05);
    host.advance(3600 * second);
    EXPECT_EQ(get(0x0c), 0x30 | 0x40);
    EXPECT_FALSE(host.line(8));
    EXPECT_EQ(host.timers_armed, 0U);
}

TEST_F(RtcTest, ImpossibleAlarmNeverComes) {
    set(5, 0x24);
    set(3, 0xbf);
    set(1, 0x0a);
    set(0x0b, 0x22);
    EXPECT_TRUE(host.timers.empty());
}

TEST_F(RtcTest, PeriodicInterruptHasItsRate) {
    for (auto const [rate, hz] : {std::pair{u8{0x26}, 1024U}, std::pair{u8{0x23}, 8192U}}) { // 8192 Hz is the fastest
        set(0x0a, rate);
        get(0x0c);
        set(0x0b, 0x42);
        unsigned count = 0;
        u64 const end = host.clock + second;
        while (!host.timers.empty() && host.timers.begin()->second.deadline <= end) {
            host.advance_to(host.timers.begin()->second.deadline);
            ASSERT_TRUE(host.line(8));
            ASSERT_EQ(get(0x0c) & 0xc0, 0xc0);
            count++;
        }
        EXPECT_EQ(count, hz);
    }
    set(0x0a, 0x20);
    EXPECT_TRUE(host.timers.empty());
}

TEST_F(RtcTest, RatesOneAndTwoAreSlow) {
    get(0x0c);
    set(0x0a, 0x21); // 256 Hz, not 32768
    set(0x0b, 0x42);
    host.advance(3'906'249);
    EXPECT_FALSE(host.line(8));
    host.advance(1);
    EXPECT_TRUE(host.line(8));
}

TEST_F(RtcTest, MemoryIsKeptAndTellsItsSize) {
    EXPECT_EQ(get(0x15) | get(0x16) << 8, 640);
    EXPECT_EQ(get(0x17) | get(0x18) << 8, 0xffff);
    EXPECT_EQ(static_cast<u64>(get(0x34) | get(0x35) << 8) * 65'536 + (16 << 20), u64{2} << 30);
    EXPECT_EQ(static_cast<u64>(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16) * 65'536, u64{6} << 30);
    EXPECT_EQ(get(0x5f), 3);
    EXPECT_EQ(get(0x0d), 0x80);
    set(0x0d, 0);
    EXPECT_EQ(get(0x0d), 0x80);
    set(0x0f, 0x0a);
    rtc->reset();
    EXPECT_EQ(get(0x0f), 0x0a);
}

TEST_F(RtcTest, UpperBankIsMemoryToo) {
    rtc->io({2, 0x8a, 0, 1, Op::Write, 0});
    rtc->io({3, 0x77, 0, 1, Op::Write, 0});
    EXPECT_EQ(rtc->io({3, 0, 0, 1, Op::Read, 0}).data, 0x77U);
    EXPECT_EQ(get(0x0a) & 0x7f, 0x26);
    EXPECT_EQ(static_cast<u8>(rtc->io({0, 0, 0, 1, Op::Read, 0}).data), 0xff);
}

TEST_F(RtcTest, NonsenseTimesAreHarmless) {
    for (u32 value = 0; value < 256; value++) {
        set(0x0b, value & 1 ? 0x82 : 0x86);
        for (int const index : {0, 2, 4, 6, 7, 8, 9, 0x32})
            set(static_cast<u8>(index), static_cast<u8>(value));
        set(0x0b, static_cast<u8>(value & 0x7f));
        host.advance(second);
        clock();
        get(0x0c);
    }
}

TEST_F(RtcTest, ResetClearsEnablesAndLetsTheClockRun) {
    set(0x0b, 0x72);
    host.advance(second);
    EXPECT_TRUE(host.line(8));
    rtc->reset();
    EXPECT_FALSE(host.line(8));
    EXPECT_EQ(get(0x0b), 0x02);
    EXPECT_EQ(get(0), 0x00);
    EXPECT_TRUE(host.timers.empty());
}

struct RtcAlarmTest : RtcTest {
    unsigned alarms = 0;
    void count() { alarms++; }
    RtcAlarmTest() {
        start(end_of_1999);
        rtc->listen(lib::Delegate<void()>::to<&RtcAlarmTest::count>(*this));
    }
};

TEST_F(RtcAlarmTest, IsToldOnceForEachAlarmThatInterrupts) {
    set(1, 0x05);
    set(3, 0x00);
    set(5, 0x00);
    host.advance(10 * second);
    EXPECT_EQ(alarms, 0U); // not enabled
    get(0x0c);
    set(0x0b, 0x22);
    host.advance(86'400 * second);
    EXPECT_EQ(alarms, 1U);
    host.advance(86'400 * second);
    EXPECT_EQ(alarms, 1U); // register C was not read
    get(0x0c);
    host.advance(86'400 * second);
    EXPECT_EQ(alarms, 2U);
}

TEST_F(RtcAlarmTest, IsToldWhileAnotherInterruptIsUp) {
    set(1, 0x05);
    set(3, 0x00);
    set(5, 0x00);
    set(0x0b, 0x32); // the update interrupt comes first, and nobody reads register C
    host.advance(2 * second);
    EXPECT_TRUE(host.line(8));
    EXPECT_EQ(alarms, 0U);
    host.advance(10 * second);
    EXPECT_EQ(alarms, 1U);
}

} // namespace
