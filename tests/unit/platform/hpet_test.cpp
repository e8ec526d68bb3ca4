// SPDX-License-Identifier: MIT
#include <platform/hpet.hpp>

#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <memory>

namespace {

using lib::u32;
using lib::u64;
using lib::u8;
using platform::Hpet;
using platform::HpetClock;
using platform::Op;

constexpr u64 CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0;
constexpr u64 ENABLE = 1, LEGACY = 2;
constexpr u64 LEVEL = 0x2, INT = 0x4, PERIODIC = 0x8, SET = 0x40, MODE_32 = 0x100;
constexpr u64 timer(u32 number) { return 0x100 + number * 0x20; }
constexpr u64 route(u32 gsi) { return gsi << 9; }

struct HpetTest : testing::Test {
    fakes::FakeHost host;
    std::unique_ptr<Hpet> hpet = std::make_unique<Hpet>(host.plug());
    HpetTest() {
        host.deliver_to([this](platform::Event const& event) { hpet->on(event); });
    }
    u64 get(u64 offset, u8 size = 8) {
        u64 const value = hpet->io({offset, 0, 0, size, Op::Read, 0}).data;
        return size == 8 ? value : value & ((u64{1} << (size * 8)) - 1);
    }
    void set(u64 offset, u64 value, u8 size = 8) { hpet->io({offset, value, 0, size, Op::Write, 0}); }
    void to_tick(u64 tick) { host.advance_to(HpetClock::moment(tick).value); }
};

TEST_F(HpetTest, SaysWhatItCan) {
    EXPECT_EQ(get(0), 0x0429'b17f'8086'a201U); // 69.841279 ns, three timers, 64 bits, legacy replacement
    EXPECT_EQ(get(4, 4), 69'841'279U);
    EXPECT_EQ(get(timer(0)), 0x00f0'0000'0000'0030U);
    EXPECT_EQ(get(timer(2)), 0x00f0'0800'0000'0030U);
    EXPECT_EQ(get(timer(3)), 0U);
    EXPECT_EQ(get(timer(0) + 8), ~u64{0});
    set(0, 0);
    EXPECT_EQ(get(0, 4), 0x8086'a201U);
}

TEST_F(HpetTest, TheCounterStandsUntilEnabledAndKeepsItsValue) {
    host.advance(lib::nanos_per_second);
    EXPECT_EQ(get(COUNTER), 0U);
    set(COUNTER, 0xffff'fff0, 8);
    set(CONFIG, ENABLE);
    host.advance(lib::nanos_per_second);
    EXPECT_EQ(get(COUNTER), u64{0xffff'fff0} + 14'318'180);
    set(CONFIG, 0);
    host.advance(lib::nanos_per_second);
    EXPECT_EQ(get(COUNTER), u64{0xffff'fff0} + 14'318'180);
    set(COUNTER + 4, 7, 4);
    set(COUNTER, 5, 4);
    EXPECT_EQ(get(COUNTER), 0x7'0000'0005U);
    EXPECT_EQ(get(COUNTER + 4, 8) & 0xffff'ffff, 7U); // across two registers
}

TEST_F(HpetTest, OneShotEdgeComesOnceAtItsTick) {
    set(timer(1), INT | route(20));
    set(timer(1) + 8, 1000);
    set(CONFIG, ENABLE);
    to_tick(999);
    EXPECT_EQ(host.rises(20), 0U);
    to_tick(1000);
    EXPECT_EQ(host.rises(20), 1U);
    EXPECT_EQ(get(STATUS), 0U); // edges leave no status
    to_tick(u64{1} << 34);
    EXPECT_EQ(host.rises(20), 1U);
    set(timer(1) + 8, (u64{1} << 34) + 5000); // the next edge on a line that is still up
    to_tick((u64{1} << 34) + 5000);
    EXPECT_EQ(host.rises(20), 2U);
    EXPECT_TRUE(host.timers.empty());
}

TEST_F(HpetTest, ThirtyTwoBitOneShotComesAtEachWrap) {
    set(timer(0), INT | MODE_32 | route(21));
    set(timer(0) + 8, 0x1'0000'0064);
    EXPECT_EQ(get(timer(0) + 8), 0x64U);
    set(CONFIG, ENABLE);
    to_tick(0x64);
    EXPECT_EQ(host.rises(21), 1U);
    to_tick(0x1'0000'0063);
    EXPECT_EQ(host.rises(21), 1U);
    to_tick(0x1'0000'0064);
    EXPECT_EQ(host.rises(21), 2U);
}

TEST_F(HpetTest, AComparatorInThePastWaitsForTheWrapAndOneAtThePresentFires) {
    set(CONFIG, ENABLE);
    to_tick(5000);
    set(timer(0), INT | route(20));
    set(timer(0) + 8, 4999);
    host.advance(lib::nanos_per_second);
    EXPECT_EQ(host.rises(20), 0U);
    EXPECT_TRUE(host.timers.empty());
    set(timer(0) + 8, get(COUNTER));
    EXPECT_EQ(host.rises(20), 1U);
}

// As Linux and FreeBSD program it: the first match with VALUE_SET, then the period without.
TEST_F(HpetTest, PeriodicMovesOnByItsPeriod) {
    set(CONFIG, ENABLE);
    to_tick(100);
    set(timer(0), INT | PERIODIC | SET | MODE_32 | route(20), 4);
    EXPECT_EQ(get(timer(0), 4) & SET, 0U); // reads as zero
    set(timer(0) + 8, 5100, 4);
    set(timer(0) + 8, 5000, 4);
    EXPECT_EQ(get(timer(0) + 8), 5100U);
    for (u32 i = 1; i <= 5; i++) {
        to_tick(100 + i * 5000 - 1);
        EXPECT_EQ(host.rises(20), i - 1);
        to_tick(100 + i * 5000);
        EXPECT_EQ(host.rises(20), i);
        EXPECT_EQ(get(timer(0) + 8), 5100U + i * 5000);
    }
}

TEST_F(HpetTest, ALateHostGivesOneInterruptAndKeepsThePhase) {
    set(timer(0), INT | PERIODIC | SET | route(20));
    set(timer(0) + 8, 1000);
    set(CONFIG, ENABLE);
    host.advance_late(HpetClock::moment(1'000'500).value);
    EXPECT_EQ(host.rises(20), 1U);
    EXPECT_EQ(get(timer(0) + 8), 1'001'000U);
    EXPECT_LT(host.timers_fired, 3U);
    host.advance_late(u64{1} << 62); // a hundred years: no loop over what was missed
    EXPECT_EQ(host.rises(20), 2U);
}

TEST_F(HpetTest, AShortPeriodMakesNoStorm) {
    set(timer(0), INT | PERIODIC | SET | route(20));
    set(timer(0) + 8, 1);
    set(CONFIG, ENABLE);
    host.advance(lib::nanos_per_second);
    EXPECT_LE(host.timers_fired, lib::nanos_per_second / platform::Timer::floor.value + 1);
    EXPECT_GE(host.rises(20), 1000U);
}

TEST_F(HpetTest, APeriodOfZeroMakesNoStorm) {
    set(timer(0), INT | PERIODIC | SET | MODE_32 | route(20));
    set(timer(0) + 8, 0);
    set(CONFIG, ENABLE);
    host.advance(100 * lib::nanos_per_second);
    EXPECT_LE(host.timers_fired, 2U);
    EXPECT_LE(host.rises(20), 1U);
}

TEST_F(HpetTest, LevelStaysUpUntilItsStatusIsCleared) {
    set(timer(2), INT | LEVEL | PERIODIC | SET | route(11));
    set(timer(2) + 8, 5000);
    set(CONFIG, ENABLE);
    to_tick(13'000);
    EXPECT_TRUE(host.line(11));
    EXPECT_EQ(host.rises(11), 1U);
    EXPECT_EQ(get(STATUS), 4U);
    EXPECT_TRUE(host.timers.empty()); // nothing new can happen
    set(STATUS, 3);
    EXPECT_TRUE(host.line(11));
    set(STATUS, 4);
    EXPECT_FALSE(host.line(11));
    to_tick(15'000);
    EXPECT_EQ(host.rises(11), 2U);
    set(CONFIG, 0); // the line drops, the status stays
    EXPECT_FALSE(host.line(11));
    EXPECT_EQ(get(STATUS), 4U);
}

TEST_F(HpetTest, StatusIsKeptWithoutInterrupts) {
    set(timer(1), LEVEL | route(22));
    set(timer(1) + 8, 100);
    set(CONFIG, ENABLE);
    EXPECT_TRUE(host.timers.empty());
    to_tick(200);
    EXPECT_EQ(get(STATUS), 2U);
    EXPECT_FALSE(host.line(22));
    set(timer(1), LEVEL | INT | route(22));
    EXPECT_TRUE(host.line(22));
}

TEST_F(HpetTest, LevelTimersShareALine) {
    for (u32 const number : {0U, 1U}) {
        set(timer(number), INT | LEVEL | route(23));
        set(timer(number) + 8, 100 + number * 100);
    }
    set(CONFIG, ENABLE);
    to_tick(300);
    set(STATUS, 1);
    EXPECT_TRUE(host.line(23));
    set(STATUS, 2);
    EXPECT_FALSE(host.line(23));
}

TEST_F(HpetTest, LegacyReplacementTakesTwoLinesOfItsOwn) {
    set(timer(0), INT);
    set(timer(0) + 8, 100);
    set(timer(1), INT | route(20));
    set(timer(1) + 8, 200);
    set(CONFIG, ENABLE | LEGACY);
    to_tick(300);
    EXPECT_EQ(host.rises(Hpet::legacy_lines), 1U);
    EXPECT_EQ(host.rises(Hpet::legacy_lines + 1), 1U);
    EXPECT_EQ(host.rises(20), 0U);
    EXPECT_TRUE(hpet->legacy_level(0));
    hpet->reset();
    EXPECT_FALSE(host.line(Hpet::legacy_lines));
    EXPECT_FALSE(hpet->replaces_legacy());
    EXPECT_EQ(get(COUNTER), 0U);
}

TEST_F(HpetTest, RoutesThatAreNotWiredAreNotTaken) {
    set(timer(0), INT | route(20));
    for (u32 const gsi : {0U, 2U, 4U, 11U, 19U, 24U, 31U}) {
        set(timer(0), INT | route(gsi));
        EXPECT_EQ(get(timer(0)) >> 9 & 31, 20U) << gsi;
    }
    set(timer(2), route(11));
    EXPECT_EQ(get(timer(2)) >> 9 & 31, 11U);
}

TEST_F(HpetTest, NarrowAndMisalignedWritesDoNothing) {
    set(timer(0) + 8, 0x1234, 2);
    set(timer(0) + 8, 0x12, 1);
    set(timer(0) + 6, 0x12345678, 4);
    EXPECT_EQ(get(timer(0) + 8), ~u64{0});
    EXPECT_EQ(get(2, 2), 0x8086U);
    set(timer(0) + 4, 0x1234'5678'0000'0000, 8); // the upper half of one register, the lower half of the next
    EXPECT_EQ(get(timer(0) + 8), 0xffff'ffff'1234'5678U);
}

TEST_F(HpetTest, RefusesStatesThatItCannotBeIn) {
    Hpet::State const good = hpet->save();
    auto const is_bad = [&](auto change) {
        Hpet::State bad = good;
        change(bad);
        return !hpet->restore(bad).has_value();
    };
    EXPECT_TRUE(is_bad([](Hpet::State& state) { state.base_tick = 1; }));
    EXPECT_TRUE(is_bad([](Hpet::State& state) { state.timers[1].met_until = 2; }));
    EXPECT_TRUE(is_bad([](Hpet::State& state) { state.timers[0].config = route(4); }));
    EXPECT_TRUE(is_bad([](Hpet::State& state) { state.timers[0].has_edge = 2; }));
    EXPECT_TRUE(is_bad([](Hpet::State& state) { state.lines = 1U << 26; }));
    EXPECT_TRUE(is_bad([](Hpet::State& state) { state.status = 8; }));
    EXPECT_TRUE(hpet->restore(good).has_value());
}

} // namespace
