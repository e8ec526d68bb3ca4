// SPDX-License-Identifier: MIT
#include <platform/platform.hpp>

#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <memory>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using platform::Space;

constexpr u64 start_of_2026 = 1'767'225'600;

struct PlatformTest : testing::Test {
    fakes::FakeHost host;
    std::unique_ptr<platform::Platform> platform = std::make_unique<platform::Platform>(
        host, host.memory, platform::MachineFacts{start_of_2026, 2, 512 * lib::MiB, 0, 40, true});
    PlatformTest() {
        host.console_device = platform::Devices::number_of<platform::SerialPort>();
        host.deliver_to([this](platform::Event const& event) { platform->on(event); });
    }
    u32 in(u16 port, u8 size = 1) {
        u64 const data = platform->io(Space::Pio, port, size, Op::Read, 0).data;
        return static_cast<u32>(size == 4 ? data : data & ((1U << (size * 8)) - 1));
    }
    void out(u16 port, u32 value, u8 size = 1) { platform->io(Space::Pio, port, size, Op::Write, value); }
    u32 ioapic_read(u32 index) {
        platform->io(Space::Mmio, 0xfec0'0000, 4, Op::Write, index);
        return static_cast<u32>(platform->io(Space::Mmio, 0xfec0'0010, 4, Op::Read, 0).data);
    }
    void ioapic_write(u32 index, u32 value) {
        platform->io(Space::Mmio, 0xfec0'0000, 4, Op::Write, index);
        platform->io(Space::Mmio, 0xfec0'0010, 4, Op::Write, value);
    }
    void init_pics() {
        for (u16 const base : {u16{0x20}, u16{0xa0}}) {
            out(base, 0x11);
            out(base + 1, base == 0x20 ? 0x30 : 0x38);
            out(base + 1, base == 0x20 ? 4 : 2);
            out(base + 1, 1);
            out(base + 1, 0xff);
        }
    }
};

TEST_F(PlatformTest, BothWaysToConfigurationSpaceFindTheBridges) {
    out(0xcf8, 0x8000'0000, 4);
    EXPECT_EQ(in(0xcf8, 4), 0x8000'0000U);
    EXPECT_EQ(in(0xcfc, 4), 0x29c0'8086U);
    EXPECT_EQ(in(0xcfe, 2), 0x29c0U);
    EXPECT_EQ(platform->io(Space::Mmio, 0xe000'0000, 4, Op::Read, 0).data, 0x29c0'8086U);
    EXPECT_EQ(platform->io(Space::Mmio, 0xe000'0000 | 31 << 15, 4, Op::Read, 0).data, 0x2918'8086U);
    out(0xcf8, 0x8000'f808, 4);
    EXPECT_EQ(in(0xcfc, 4), 0x0601'0002U) << "an ISA bridge";
}

TEST_F(PlatformTest, TheResetRegisterAndTheConfigurationAddressDoNotMeet) {
    out(0xcf8, 0x0000'0600, 4); // would be a reset if it reached 0xcf9
    EXPECT_TRUE(host.requests.empty());
    out(0xcf8, 0x8000'f800, 4);
    out(0xcf9, 0x02);
    EXPECT_EQ(in(0xcf9), 0x02U);
    EXPECT_EQ(in(0xcf8, 4), 0x8000'f800U) << "less than a dword does not reach the address";
    out(0xcf8, 0x12);
    out(0xcfa, 0x3456, 2);
    EXPECT_EQ(in(0xcf8, 4), 0x8000'f800U);
}

TEST_F(PlatformTest, EveryWayToResetAsksForOne) {
    out(0xcf9, 0x02);
    EXPECT_TRUE(host.requests.empty());
    out(0xcf9, 0x06);
    EXPECT_EQ(host.requests.size(), 1U);
    platform->reset();
    out(0xcf9, 0x0e);
    EXPECT_EQ(host.requests.size(), 2U);
    out(0x64, 0xfe);
    EXPECT_EQ(host.requests.size(), 3U);
    out(0x92, 0x03);
    EXPECT_EQ(host.requests.size(), 4U);
    out(0x64, 0xd1);
    out(0x60, 0xfe);
    ASSERT_EQ(host.requests.size(), 5U);
    EXPECT_EQ(std::ranges::count(host.requests, platform::VmRequest::Reset), 5);
}

TEST_F(PlatformTest, S5PowersOff) {
    out(0x604, 0x2000 | 5 << 10, 2);
    EXPECT_TRUE(host.requests.empty());
    out(0x604, 0x2000, 2);
    ASSERT_EQ(host.requests.size(), 1U);
    EXPECT_EQ(host.requests[0], platform::VmRequest::PowerOff);
    EXPECT_EQ(in(0x604, 2), 1U); // SCI_EN only: SLP_EN reads as zero
}

TEST_F(PlatformTest, PmTimerCountsAt3579545Hertz) {
    EXPECT_EQ(in(0x608, 4), 0U);
    host.advance(10 * lib::nanos_per_second);
    EXPECT_EQ(in(0x608, 4), 35'795'450U);
    host.advance(1200 * lib::nanos_per_second);
    EXPECT_EQ(in(0x608, 4), static_cast<u32>(u64{1210} * 3'579'545));
}

TEST_F(PlatformTest, PowerButtonRaisesALevelSci) {
    ioapic_write(0x10 + 2 * 9, 0x8000 | 0x51); // level, vector 0x51
    platform->power_button();
    EXPECT_TRUE(host.messages.empty()); // not enabled yet
    out(0x602, 0x100, 2);
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].data, 0xc051U);
    EXPECT_EQ(in(0x600, 2), 0x100U);
    EXPECT_TRUE(platform->eoi_wanted(0x51));
    platform->end_of_interrupt(0x51);
    EXPECT_EQ(host.messages.size(), 2U); // still asserted
    out(0x600, 0x100, 2);
    platform->end_of_interrupt(0x51);
    EXPECT_EQ(host.messages.size(), 2U);
    EXPECT_EQ(in(0x600, 2), 0U);
}

TEST_F(PlatformTest, PmTimerCarryRaisesSci) {
    ioapic_write(0x10 + 2 * 9, 0x8000 | 0x51);
    out(0x602, 1, 2);
    host.advance(599 * lib::nanos_per_second); // 2^31 ticks: 599.93 s
    EXPECT_TRUE(host.messages.empty());
    host.advance(lib::nanos_per_second);
    EXPECT_EQ(host.messages.size(), 1U);
}

TEST_F(PlatformTest, TimerIrqGoesToInput2AndIrq0) {
    init_pics();
    ioapic_write(0x10 + 2 * 2, 0x30); // unmask before the PIT runs
    out(0x43, 0x34);
    out(0x40, 0xa9);
    out(0x40, 0x04); // 1193: 999.85 us
    host.advance(100'000'000);
    EXPECT_EQ(host.messages.size(), 100U);
    EXPECT_FALSE(host.intr);
    out(0x21, 0xfe);
    EXPECT_TRUE(host.intr);
    EXPECT_EQ(platform->acknowledge_interrupt(), 0x30U);
    EXPECT_FALSE(host.intr);
}

TEST_F(PlatformTest, HiddenTimerCostsNothingAndCatchesUpOnce) {
    init_pics();
    out(0x43, 0x34);
    out(0x40, 0xa9);
    out(0x40, 0x04);
    host.advance(10 * lib::nanos_per_second);
    EXPECT_EQ(host.timers_fired, 0U);
    out(0x21, 0xfe);
    EXPECT_TRUE(host.intr);
    EXPECT_EQ(platform->acknowledge_interrupt(), 0x30U);
    out(0x20, 0x20);
    EXPECT_FALSE(host.intr);
    host.advance(lib::nanos_per_second);
    EXPECT_EQ(host.timers_fired, 1000U);
}

TEST_F(PlatformTest, RequestRegisterShowsTheHiddenTimer) {
    init_pics();
    out(0x43, 0x34);
    out(0x40, 0xa9);
    out(0x40, 0x04);
    out(0x20, 0x0a); // read IRR
    EXPECT_EQ(in(0x20) & 1, 0U);
    host.advance(2'000'000);
    EXPECT_EQ(in(0x20) & 1, 1U);
}

TEST_F(PlatformTest, ExtIntEntryFollowsThePics) {
    init_pics();
    ioapic_write(0x10, 0x700); // input 0: ExtINT, unmasked
    out(0x21, 0xef);
    platform->set_irq_line(4, true);
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].data >> 8 & 7, 7U);
    EXPECT_EQ(platform->acknowledge_interrupt(), 0x34U);
    EXPECT_EQ(platform->acknowledge_interrupt(), 0x37U); // spurious
}

TEST_F(PlatformTest, GsiZeroAndBeyondAreNobodys) {
    init_pics();
    out(0x21, 0);
    platform->set_irq_line(0, true);
    platform->set_irq_line(24, true);
    platform->set_irq_line(~0U, true);
    EXPECT_FALSE(host.intr);
}

TEST_F(PlatformTest, EmptyKeyboardControllerAnswersAtOnce) {
    EXPECT_EQ(in(0x64) & 3, 0U);
    out(0x64, 0xaa);
    EXPECT_EQ(in(0x64) & 3, 1U);
    EXPECT_EQ(in(0x60), 0x55U);
    EXPECT_EQ(in(0x64) & 3, 0U);
    out(0x64, 0x60);
    out(0x60, 0x47);
    out(0x64, 0x20);
    EXPECT_EQ(in(0x60), 0x47U);
    out(0x64, 0xd3);
    out(0x60, 0x5a);
    EXPECT_EQ(in(0x64) & 0x21, 0x21U);
    EXPECT_EQ(in(0x60), 0x5aU);
    out(0x60, 0xf2); // identify: nobody is there
    EXPECT_EQ(in(0x64) & 1, 0U);
}

TEST_F(PlatformTest, SwallowsPostCodesAndShowsAnOpenA20) {
    out(0x80, 0x5a);
    out(0xed, 0);
    EXPECT_EQ(in(0x80), 0x5aU);
    EXPECT_EQ(in(0xed), 0xffU);
    EXPECT_EQ(in(0x92), 2U);
}

TEST_F(PlatformTest, EventsForNobodyAreIgnored) {
    for (u32 device = 0; device < 0x10000; device += 7)
        platform->on({1, 0, static_cast<u16>(device), platform::EventKind::Timer, 0});
    EXPECT_TRUE(host.line_changes.empty());
}

TEST_F(PlatformTest, ResetIsComplete) {
    init_pics();
    ioapic_write(0x10 + 2 * 4, 0x8034);
    out(0x3f9, 2);
    out(0x3fc, 8);
    out(0x21, 0);
    out(0x43, 0x34);
    out(0x40, 0);
    out(0x40, 1);
    platform->reset();
    EXPECT_FALSE(host.intr);
    EXPECT_TRUE(host.timers.empty());
    EXPECT_EQ(ioapic_read(0x10 + 2 * 4), 0x10000U);
    EXPECT_EQ(in(0x3f9), 0U);
    EXPECT_EQ(in(0x21), 0xffU);
    EXPECT_EQ(in(0x4d1), 2U); // the SCI stays a level
}

TEST_F(PlatformTest, TheRtcAlarmIsAnAcpiEvent) {
    ioapic_write(0x10 + 18, 0x8051); // SCI: vector 0x51, level-triggered
    auto const cmos = [this](u32 index, u32 value) {
        out(0x70, index);
        out(0x71, value);
    };
    out(0x602, 0x0400, 2); // RTC_EN
    EXPECT_EQ(in(0x602, 2), 0x0400U);
    cmos(1, 0x03);
    cmos(3, 0xff);
    cmos(5, 0xff);
    cmos(0x0b, 0x22);
    host.advance(2 * lib::nanos_per_second);
    EXPECT_TRUE(host.messages.empty());
    host.advance(2 * lib::nanos_per_second);
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].data & 0xff, 0x51U);
    EXPECT_EQ(in(0x600, 2) & 0x0400, 0x0400U); // RTC_STS
    out(0x600, 0x0400, 2);
    platform->end_of_interrupt(0x51);
    EXPECT_EQ(host.messages.size(), 1U);
}

TEST_F(PlatformTest, TheHpetReplacesPitAndRtcAndGivesTheirLinesBack) {
    auto const hpet = [this](u64 offset, u64 value) {
        platform->io(Space::Mmio, 0xfed0'0000 + offset, 8, Op::Write, value);
    };
    ioapic_write(0x10 + 4, 0x42);  // the PIT's, GSI 2
    ioapic_write(0x10 + 16, 0x48); // the RTC's
    out(0x43, 0x34);
    out(0x40, 0xa9);
    out(0x40, 0x04); // 1 kHz
    out(0x70, 0x0b);
    out(0x71, 0x42); // periodic interrupt of the RTC
    host.advance(10'000'000);
    EXPECT_GE(host.messages.size(), 10U);

    hpet(0x100, 0x4); // neither comparator is due
    hpet(0x120, 0x4);
    hpet(0x10, 3);
    host.messages.clear();
    host.advance(10'000'000);
    EXPECT_TRUE(host.messages.empty());
    u64 const now = platform->io(Space::Mmio, 0xfed0'00f0, 8, Op::Read, 0).data;
    hpet(0x108, now + 100);
    hpet(0x128, now + 200);
    host.advance(1'000'000);
    ASSERT_EQ(host.messages.size(), 2U);
    EXPECT_EQ(host.messages[0].data & 0xff, 0x42U);
    EXPECT_EQ(host.messages[1].data & 0xff, 0x48U);

    hpet(0x10, 1);
    host.messages.clear();
    host.advance(10'000'000);
    EXPECT_GE(host.messages.size(), 10U);
}

TEST_F(PlatformTest, SetUpAsFirmwareTheTimerTicks) {
    host.advance(lib::nanos_per_second);
    EXPECT_FALSE(host.intr);
    platform->set_up_as_firmware();
    EXPECT_EQ(in(0x21), 0xfaU);
    EXPECT_EQ(in(0xa1), 0xffU);
    unsigned ticks = 0;
    for (unsigned i = 0; i < 1000; i++) {
        host.advance(1'000'000);
        if (!host.intr) continue;
        ticks++;
        EXPECT_EQ(platform->acknowledge_interrupt(), 0x08);
        out(0x20, 0x20);
    }
    EXPECT_EQ(ticks, 18U);
}

} // namespace
