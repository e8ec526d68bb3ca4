// SPDX-License-Identifier: MIT
#include <drivers/rtc.hpp>

#include <array>
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>

namespace {

using lib::u16;
using lib::u32;
using lib::u8;

struct FakeRtc {
    fakes::Cpu cpu;
    std::array<u8, 128> cmos{};
    u8 index = 0;
    unsigned reads = 0;
    std::function<void()> on_read = [] {};
    FakeRtc() {
        cpu.add_ports(0x70, 2,
                      {.in =
                           [this](u16, unsigned) {
                               reads++;
                               on_read();
                               return u32{cmos[index]};
                           },
                       .out = [this](u16, unsigned, u32 value) { index = value & 0x7f; }});
    }
    void set(u8 year, u8 month, u8 day, u8 hours, u8 minutes, u8 seconds, u8 status_b) {
        cmos[9] = year;
        cmos[8] = month;
        cmos[7] = day;
        cmos[4] = hours;
        cmos[2] = minutes;
        cmos[0] = seconds;
        cmos[0x0b] = status_b;
    }
};

TEST(Rtc, ReadsBcd) {
    FakeRtc rtc;
    rtc.set(0x23, 0x11, 0x14, 0x22, 0x13, 0x20, 2); // 2023-11-14 22:13:20
    EXPECT_EQ(drivers::read_wall_clock(0), 1'700'000'000U);
}

TEST(Rtc, ReadsBinaryWithACentury) {
    FakeRtc rtc;
    rtc.set(0, 2, 29, 0, 0, 0, 6);
    rtc.cmos[0x32] = 20;
    EXPECT_EQ(drivers::read_wall_clock(0x32), 951'782'400U);
}

TEST(Rtc, ReadsTwelveHourTimes) {
    FakeRtc rtc;
    rtc.set(0x70, 1, 1, 0x12, 0, 0, 0); // 12 AM
    EXPECT_EQ(drivers::read_wall_clock(0), 0U);
    rtc.cmos[4] = 0x92; // 12 PM
    EXPECT_EQ(drivers::read_wall_clock(0), 12U * 3600);
    rtc.cmos[4] = 0x91; // 11 PM
    EXPECT_EQ(drivers::read_wall_clock(0), 23U * 3600);
}

TEST(Rtc, IgnoresACenturyThatIsNotKept) {
    FakeRtc rtc;
    rtc.set(0x23, 0x11, 0x14, 0x22, 0x13, 0x20, 2);
    rtc.cmos[0x32] = 0xff;
    EXPECT_EQ(drivers::read_wall_clock(0x32), 1'700'000'000U);
    EXPECT_EQ(drivers::read_wall_clock(0xff), 1'700'000'000U);
}

TEST(Rtc, RefusesWhatIsNoDate) {
    FakeRtc rtc;
    rtc.set(0x23, 0x13, 0x14, 0, 0, 0, 2);
    EXPECT_EQ(drivers::read_wall_clock(0).error(), lib::Errc::BadFormat);
    rtc.set(0x23, 0x0a, 0x14, 0, 0, 0, 2); // no BCD
    EXPECT_EQ(drivers::read_wall_clock(0).error(), lib::Errc::BadFormat);
    rtc.set(0x23, 0x01, 0x00, 0, 0, 0, 2);
    EXPECT_EQ(drivers::read_wall_clock(0).error(), lib::Errc::BadFormat);
    rtc.set(0x23, 0x01, 0x01, 0x13, 0, 0, 0); // 13 AM
    EXPECT_EQ(drivers::read_wall_clock(0).error(), lib::Errc::BadFormat);
}

TEST(Rtc, GivesUpOnAClockThatNeverHoldsStill) {
    FakeRtc rtc;
    rtc.cmos[0x0a] = 0x80;
    EXPECT_EQ(drivers::read_wall_clock(0).error(), lib::Errc::TimedOut);
    FakeRtc spinning;
    spinning.on_read = [&] { spinning.cmos[0] = static_cast<u8>(spinning.reads % 50); };
    EXPECT_EQ(drivers::read_wall_clock(0).error(), lib::Errc::TimedOut);
}

TEST(Rtc, ReadsAgainWhenAnUpdateCameBetween) {
    FakeRtc rtc;
    rtc.set(0x70, 1, 1, 0, 0, 0x59, 2);
    rtc.on_read = [&] {
        if (rtc.reads == 3) { // after the seconds were read
            rtc.cmos[0] = 0;
            rtc.cmos[2] = 1;
        }
    };
    EXPECT_EQ(drivers::read_wall_clock(0), 60U);
}

} // namespace
