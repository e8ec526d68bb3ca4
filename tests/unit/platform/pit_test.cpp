// SPDX-License-Identifier: MIT
#include <platform/pit.hpp>

#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using platform::Pit;
using platform::PitClock;

struct PitTest : testing::Test {
    fakes::FakeHost host;
    Pit pit{host.plug()};
    PitTest() {
        host.deliver_to([this](platform::Event const& event) { pit.on(event); });
        to_tick(1000);
    }
    void out(u32 port, u32 value) { pit.io({port, value, Pit::Counters, 1, Op::Write, 0}); }
    u8 in(u32 port) { return static_cast<u8>(pit.io({port, 0, Pit::Counters, 1, Op::Read, 0}).data); }
    void out61(u8 value) { pit.io({0, value, Pit::SystemControl, 1, Op::Write, 0}); }
    u8 in61() { return static_cast<u8>(pit.io({0, 0, Pit::SystemControl, 1, Op::Read, 0}).data); }
    void to_tick(u64 tick) { host.advance_to(PitClock::moment(tick).value); }
    u64 tick() { return PitClock::ticks(host.now()); }
    void ticks(u64 count) { to_tick(tick() + count); }
    // Control word and count; the counting element has the count when this returns.
    void program(u32 channel, u32 mode, u16 count, bool bcd = false) {
        out(3, channel << 6 | 0x30 | mode << 1 | (bcd ? 1U : 0U));
        out(channel, count & 0xff);
        out(channel, count >> 8);
        ticks(1);
    }
    u16 count(u32 channel) {
        out(3, channel << 6);
        u16 const low = in(channel);
        return static_cast<u16>(low | in(channel) << 8);
    }
    bool out2() { return (in61() & 0x20) != 0; }
};

TEST(PitClock, ConvertsExactlyForCenturies) {
    EXPECT_EQ(PitClock::ticks({0}), 0U);
    EXPECT_EQ(PitClock::ticks({u64{500} * 365 * 86'400 * lib::nanos_per_second}), u64{500} * 365 * 86'400 * 1'193'182);
    for (u64 const tick :
         {u64{1}, u64{2}, u64{838}, u64{1'193'181}, u64{1'193'182}, u64{1} << 40, (u64{1} << 44) + 7}) {
        u64 const at = PitClock::moment(tick).value;
        EXPECT_EQ(PitClock::ticks({at}), tick);
        EXPECT_EQ(PitClock::ticks({at - 1}), tick - 1);
    }
}

TEST_F(PitTest, Mode0CountsOnceAndRunsOn) {
    program(0, 0, 100);
    EXPECT_EQ(count(0), 100);
    ticks(99);
    EXPECT_EQ(count(0), 1);
    EXPECT_FALSE(host.line(2));
    ticks(1);
    EXPECT_EQ(count(0), 0);
    EXPECT_TRUE(host.line(2));
    ticks(1);
    EXPECT_EQ(count(0), 0xffff);
    ticks(70'000);
    EXPECT_EQ(host.timers_fired, 1U);
    EXPECT_TRUE(host.timers.empty());
    program(0, 0, 5);
    EXPECT_FALSE(host.line(2)); // the control word lowers OUT
}

TEST_F(PitTest, Mode0FirstByteStopsTheCount) {
    program(0, 0, 1000);
    ticks(10);
    out(0, 50);
    ticks(5000);
    EXPECT_EQ(host.rises(2), 0U);
    out(0, 0);
    ticks(51);
    EXPECT_EQ(host.rises(2), 1U);
}

TEST_F(PitTest, ZeroCounts65536Or10000) {
    program(0, 0, 0);
    ticks(1);
    EXPECT_EQ(count(0), 0xffff);
    ticks(65'535);
    EXPECT_EQ(host.rises(2), 1U);
    program(0, 0, 0, true);
    ticks(1);
    EXPECT_EQ(count(0), 0x9999);
    ticks(9'998);
    EXPECT_EQ(count(0), 0x0001);
    ticks(2);
    EXPECT_EQ(count(0), 0x9999);
}

TEST_F(PitTest, Mode2ReloadsForEver) {
    program(0, 2, 200);
    EXPECT_EQ(count(0), 200);
    ticks(199);
    EXPECT_EQ(count(0), 1);
    ticks(1);
    EXPECT_EQ(count(0), 200);
    EXPECT_EQ(host.rises(2), 1U);
    ticks(200 * 1000 + 3);
    EXPECT_EQ(count(0), 197);
    EXPECT_EQ(host.rises(2), 1001U);
}

TEST_F(PitTest, Mode2TakesANewCountAtTheEndOfThePeriod) {
    program(0, 2, 300);
    ticks(140);
    out(0, 150);
    out(0, 0);
    ticks(159);
    EXPECT_EQ(count(0), 1);
    ticks(1);
    EXPECT_EQ(count(0), 150);
    ticks(1500);
    EXPECT_EQ(count(0), 150);
    EXPECT_EQ(host.rises(2), 11U);
}

TEST_F(PitTest, Mode3IsSquareAndCountsByTwo) {
    out61(1);
    program(2, 3, 10);
    EXPECT_EQ(count(2), 10);
    EXPECT_TRUE(out2());
    ticks(4);
    EXPECT_EQ(count(2), 2);
    EXPECT_TRUE(out2());
    ticks(1);
    EXPECT_FALSE(out2());
    EXPECT_EQ(count(2), 10);
    ticks(5);
    EXPECT_TRUE(out2());
    program(2, 3, 5); // odd: high for 3, low for 2
    ticks(2);
    EXPECT_TRUE(out2());
    ticks(1);
    EXPECT_FALSE(out2());
    ticks(2);
    EXPECT_TRUE(out2());
}

TEST_F(PitTest, CountOfOneIsNoEndlessLoop) {
    program(0, 2, 1);
    host.advance(1'000'000);
    EXPECT_LT(host.rises(2), 600U);
}

TEST_F(PitTest, Mode4StrobesOnce) {
    program(0, 4, 100);
    ticks(100);
    EXPECT_EQ(host.rises(2), 0U);
    ticks(1);
    EXPECT_EQ(host.rises(2), 1U);
    ticks(200'000);
    EXPECT_EQ(host.rises(2), 1U);
}

TEST_F(PitTest, Mode1And5WaitForTheGate) {
    program(2, 1, 100);
    EXPECT_TRUE(out2());
    ticks(200);
    EXPECT_TRUE(out2());
    out61(1);
    ticks(1);
    EXPECT_FALSE(out2());
    ticks(100);
    EXPECT_TRUE(out2());
    out61(0);
    out61(1); // triggers again
    ticks(1);
    EXPECT_FALSE(out2());

    out61(0);
    program(2, 5, 3);
    out61(1);
    ticks(1 + 3);
    EXPECT_FALSE(out2());
    ticks(1);
    EXPECT_TRUE(out2());
}

TEST_F(PitTest, GatePausesMode0AndRestartsMode2) {
    out61(1);
    program(2, 0, 1000);
    ticks(100);
    out61(0);
    ticks(5000);
    EXPECT_EQ(count(2), 900);
    out61(1);
    ticks(900);
    EXPECT_TRUE(out2());

    program(2, 2, 1000);
    ticks(400);
    out61(0);
    EXPECT_TRUE(out2());
    out61(1);
    ticks(1);
    EXPECT_EQ(count(2), 1000);
}

TEST_F(PitTest, CountWrittenWhileTheGateIsLowStartsWithIt) {
    program(2, 0, 500);
    ticks(3000);
    EXPECT_EQ(count(2), 500);
    EXPECT_FALSE(out2());
    out61(1);
    ticks(499);
    EXPECT_FALSE(out2());
    ticks(1);
    EXPECT_TRUE(out2());
}

TEST_F(PitTest, LatchHoldsUntilRead) {
    program(0, 2, 1000);
    ticks(100);
    out(3, 0x00);
    ticks(100);
    out(3, 0x00); // ignored: the first latch is unread
    EXPECT_EQ(in(0), 900 & 0xff);
    ticks(100);
    EXPECT_EQ(in(0), 900 >> 8);
    EXPECT_EQ(in(0), 700 & 0xff); // unlatched again
    EXPECT_EQ(in(0), 700 >> 8);
}

TEST_F(PitTest, SingleByteAccess) {
    out(3, 0x14); // channel 0, low byte only, mode 2
    out(0, 200);
    ticks(1 + 50);
    EXPECT_EQ(in(0), 150);
    EXPECT_EQ(in(0), 150);
    out(3, 0x24); // high byte only
    out(0, 2);
    ticks(1);
    EXPECT_EQ(in(0), 2);
    out(3, 0x00);
    ticks(300);
    EXPECT_EQ(in(0), 2);
    EXPECT_EQ(in(0), 0); // 512 - 300
}

TEST_F(PitTest, ReadBackShowsStatusThenCount) {
    out(3, 0x34);
    out(3, 0xe2);                         // status of channel 0 only
    EXPECT_EQ(in(0), 0x80 | 0x40 | 0x34); // OUT high, null count
    program(0, 2, 0x1234);
    out(3, 0xc2); // both
    EXPECT_EQ(in(0), 0x80 | 0x34);
    EXPECT_EQ(in(0), 0x34);
    EXPECT_EQ(in(0), 0x12);
    EXPECT_EQ(in(3), 0xff); // the control word cannot be read
}

TEST_F(PitTest, RefreshToggles) {
    unsigned changes = 0;
    u8 last = in61() & 0x10;
    for (unsigned i = 0; i < 1000; i++) {
        ticks(18);
        u8 const now = in61() & 0x10;
        if (now != last) changes++;
        last = now;
    }
    EXPECT_EQ(changes, 1000U);
}

// What Linux does to find its TSC's rate: channel 2, mode 0, gate on, 50 ms, wait for OUT2.
TEST_F(PitTest, CalibratesLikeLinux) {
    out61(static_cast<u8>((in61() & ~0x02) | 0x01));
    u32 const latch = 1'193'182 / 20;
    u64 const start = host.clock;
    out(3, 0xb0);
    out(2, latch & 0xff);
    out(2, latch >> 8);
    while (!out2())
        host.advance(100);
    u64 const took = host.clock - start;
    EXPECT_NEAR(static_cast<double>(took), 50e6, 2000);
    EXPECT_EQ(host.timers_armed, 0U); // channel 2 needs no timer
}

TEST_F(PitTest, TenHoursOfPeriodicTicksLoseNothing) {
    program(0, 2, 11'932); // about 100 Hz
    u64 const start_tick = tick();
    host.advance(u64{10} * 3600 * lib::nanos_per_second);
    u64 const expected = (tick() - start_tick) / 11'932;
    EXPECT_EQ(host.rises(2), expected);
    EXPECT_EQ(host.timers_fired, expected);
    EXPECT_GT(expected, 3'599'000U);
}

TEST_F(PitTest, NoRateMakesMoreTimersThanTheFloorAllows) {
    for (u16 const period : {u16{2}, u16{10}, u16{100}, u16{142}}) {
        program(0, 2, period);
        std::size_t const fired = host.timers_fired, rises = host.rises(Pit::gsi);
        host.advance(lib::nanos_per_second);
        u64 const most = lib::nanos_per_second / platform::Timer::floor.value + 1;
        EXPECT_LE(host.timers_fired - fired, most);
        EXPECT_GE(host.rises(Pit::gsi) - rises, most / 2) << "it still ticks";
        EXPECT_LE(count(0), period) << "what is read counts at the programmed rate";
    }
}

// One-shot counts that the guest starts again and again, also before the last one has come to its end.
TEST_F(PitTest, ShortOneShotsKeepTheFloorToo) {
    u64 const begin = host.clock;
    std::size_t const fired = host.timers_fired;
    for (u32 i = 0; i < 10'000; i++) {
        program(0, i % 2 == 0 ? 0 : 4, static_cast<u16>(2 + i % 7));
        host.advance(3'000);
    }
    EXPECT_LE(host.timers_fired - fired, (host.clock - begin) / platform::Timer::floor.value + 1);
}

TEST_F(PitTest, RatesOfRealSystemsAreExact) {
    for (u32 const hz : {100U, 250U, 1000U, 8000U}) {
        program(0, 2, static_cast<u16>(1'193'182 / hz));
        u64 const begin = tick();
        std::size_t const rises = host.rises(Pit::gsi);
        host.advance(10 * lib::nanos_per_second);
        u64 const expected = (tick() - begin) / (1'193'182 / hz);
        EXPECT_NEAR(static_cast<double>(host.rises(Pit::gsi) - rises), static_cast<double>(expected), 1) << hz;
    }
}

TEST_F(PitTest, LateHostCoalesces) {
    program(0, 2, 1193);
    host.advance_late(lib::nanos_per_second);
    EXPECT_EQ(host.rises(2), 1U);
    u64 const next = host.timers.begin()->second.deadline;
    EXPECT_GT(next, host.clock);
    EXPECT_LE(next, host.clock + 1'000'000);
}

TEST_F(PitTest, StaleTimersAreIgnored) {
    program(0, 2, 1193);
    auto const armed = *host.timers.begin();
    program(0, 0, 50'000);
    host.clock += 2'000'000;
    pit.on({armed.second.generation, 0, 0, platform::EventKind::Timer, 0});
    EXPECT_EQ(host.rises(2), 0U);
}

TEST_F(PitTest, EarlyTimerRaisesNothing) {
    program(0, 0, 1000);
    auto const armed = *host.timers.begin();
    pit.on({armed.second.generation, 0, 0, platform::EventKind::Timer, 0});
    EXPECT_EQ(host.rises(2), 0U);
    EXPECT_EQ(host.timers.size(), 1U);
    ticks(1000);
    EXPECT_EQ(host.rises(2), 1U);
}

} // namespace
