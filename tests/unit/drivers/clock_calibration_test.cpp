// SPDX-License-Identifier: MIT
#include <drivers/clock_calibration.hpp>

#include <fakes/cpu.hpp>
#include <gtest/gtest.h>

namespace {

using drivers::Calibration;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u64 hpet_base = 0xfed0'0000;
constexpr u16 pm_port = 0xb008;

// A machine whose time passes only by reading: each access costs some TSC ticks.
struct Machine {
    fakes::Cpu cpu;
    u64 tsc_hz;
    u64 now = 12'345; // TSC
    u64 port_cost = 3'000;
    u64 mmio_cost = 1'500;
    u64 reads = 0;
    std::function<u64()> extra_cost = [] { return u64{0}; };

    u64 hpet_period = 69'841'279; // 14.318180 MHz
    bool hpet_runs = true;
    bool hpet_enabled = false;
    bool pm_runs = true;
    bool pit_runs = true;
    u8 port_b = 0xf2;
    u64 pit_start = 0;
    u16 pit_latch = 0;
    bool pit_high = false;

    explicit Machine(u64 hz) : tsc_hz(hz) {
        cpu.on_rdtsc = [this] { return now += 20; };
        cpu.add_mmio(hpet_base, 0x400,
                     {.load = [this](u64 offset, unsigned) { return hpet(offset); },
                      .store = [this](u64, unsigned, u64 value) { hpet_enabled = (value & 1) != 0; },
                      .widths = 4});
        cpu.add_ports(pm_port, 4, {.in = [this](u16, unsigned) { return pm_timer(); }, .out = {}});
        cpu.add_ports(0x42, 2,
                      {.in = [this](u16, unsigned) { return pit_in(); },
                       .out = [this](u16 offset, unsigned, u32 value) { pit_out(offset, value); }});
        cpu.add_ports(0x61, 1,
                      {.in = [this](u16, unsigned) { return u32{port_b}; },
                       .out = [this](u16, unsigned, u32 value) { port_b = static_cast<u8>(value); }});
    }
    u64 ticks(u64 hz) const { return static_cast<u64>(static_cast<lib::u128>(now) * hz / tsc_hz); }
    // The device answers in the middle of the access.
    template <typename Action> u64 access(u64 cost, Action action) {
        reads++;
        now += cost / 2;
        u64 const value = action();
        now += cost - cost / 2 + extra_cost();
        return value;
    }
    u64 hpet(u64 offset) {
        return access(mmio_cost, [&]() -> u64 {
            if (offset == 0) return 0x8086'a201;
            if (offset == 4) return hpet_period;
            if (offset == 0xf0 && hpet_runs && hpet_enabled)
                return static_cast<u32>(ticks(1'000'000'000'000'000 / hpet_period) + 0xffff'ff00);
            return 0;
        });
    }
    u32 pm_timer() {
        return static_cast<u32>(
            access(port_cost, [&] { return pm_runs ? (ticks(3'579'545) + 0xff'ff00) & 0xff'ffff : 0xffff'ffff; }));
    }
    u32 pit_in() {
        return static_cast<u32>(access(port_cost, [&]() -> u64 {
            pit_high = !pit_high;
            return pit_high ? pit_latch & 0xff : pit_latch >> 8;
        }));
    }
    void pit_out(u16 offset, u32 value) {
        access(port_cost, [&]() -> u64 {
            if (offset == 1 && value == 0xb4) pit_start = ticks(1'193'182);
            if (offset == 1 && value == 0x80)
                pit_latch = pit_runs ? static_cast<u16>(0 - (ticks(1'193'182) - pit_start)) : u16{0};
            return 0;
        });
    }
    drivers::ReferenceClocks all() {
        return {.hpet = hpet_base, .pm_timer = drivers::PmTimer::at_port(pm_port, false)};
    }
    u64 elapsed_microseconds() const { return now * 1'000'000 / tsc_hz; }
    u64 ppm_off(u64 measured) const {
        return (measured > tsc_hz ? measured - tsc_hz : tsc_hz - measured) * 1'000'000 / tsc_hz;
    }
};

TEST(ClockCalibration, PrefersTheHpet) {
    Machine machine(2'893'202'123);
    auto const result = drivers::calibrate_tsc(machine.all());
    ASSERT_TRUE(result);
    EXPECT_EQ(result->source, Calibration::Source::Hpet);
    EXPECT_LE(machine.ppm_off(result->tsc_hz), 50U);
    EXPECT_LE(machine.ppm_off(result->tsc_hz), result->error_ppm + 5);
    EXPECT_LE(machine.elapsed_microseconds(), 3'000U);
}

TEST(ClockCalibration, UsesThePmTimerAcrossItsWrap) {
    Machine machine(3'500'000'000);
    auto clocks = machine.all();
    clocks.hpet = 0;
    auto const result = drivers::calibrate_tsc(clocks);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->source, Calibration::Source::PmTimer);
    EXPECT_LE(machine.ppm_off(result->tsc_hz), 100U);
    EXPECT_LE(machine.ppm_off(result->tsc_hz), result->error_ppm + 5);
}

TEST(ClockCalibration, UsesThePitAndGivesPort61Back) {
    Machine machine(3'500'000'000);
    auto const result = drivers::calibrate_tsc({});
    ASSERT_TRUE(result);
    EXPECT_EQ(result->source, Calibration::Source::Pit);
    EXPECT_LE(machine.ppm_off(result->tsc_hz), 250U);
    EXPECT_LE(machine.ppm_off(result->tsc_hz), result->error_ppm + 5);
    EXPECT_LE(machine.elapsed_microseconds(), 3'000U);
    EXPECT_EQ(machine.port_b, 0x02);
}

TEST(ClockCalibration, IsRightForSlowAndFastTscs) {
    for (u64 const hz : {100'000'000ULL, 999'999'937ULL, 5'700'000'000ULL}) {
        for (unsigned source = 0; source < 3; source++) {
            Machine machine(hz);
            // An emulator that counts instructions: an access costs next to nothing.
            if (hz == 100'000'000) machine.port_cost = machine.mmio_cost = 8;
            auto clocks = machine.all();
            if (source > 0) clocks.hpet = 0;
            if (source > 1) clocks.pm_timer.reset();
            auto const result = drivers::calibrate_tsc(clocks);
            ASSERT_TRUE(result) << hz << ' ' << source;
            EXPECT_LE(machine.ppm_off(result->tsc_hz), 500U) << hz << ' ' << source;
        }
    }
}

TEST(ClockCalibration, StaysRightWhenSomeReadsAreInterrupted) {
    Machine machine(3'000'000'000);
    machine.extra_cost = [&] { return machine.reads % 7 == 3 ? u64{60'000} : u64{0}; };
    auto clocks = machine.all();
    clocks.hpet = 0;
    auto const result = drivers::calibrate_tsc(clocks);
    ASSERT_TRUE(result);
    EXPECT_LE(machine.ppm_off(result->tsc_hz), 200U);
}

TEST(ClockCalibration, LeavesDeadClocksForTheNextOne) {
    Machine machine(3'000'000'000);
    machine.hpet_runs = false;
    machine.pm_runs = false;
    auto const result = drivers::calibrate_tsc(machine.all());
    ASSERT_TRUE(result);
    EXPECT_EQ(result->source, Calibration::Source::Pit);
    EXPECT_TRUE(result->hpet_failed);
    EXPECT_TRUE(result->pm_timer_failed);
    EXPECT_LE(machine.ppm_off(result->tsc_hz), 500U);
}

TEST(ClockCalibration, GivesUpWhenNothingCounts) {
    Machine machine(3'000'000'000);
    machine.hpet_runs = machine.pm_runs = machine.pit_runs = false;
    EXPECT_EQ(drivers::calibrate_tsc(machine.all()).error(), lib::Errc::TimedOut);
    EXPECT_LE(machine.reads, 200'000U);
}

TEST(ClockCalibration, DoesNotTrustAnHpetWithAnImpossiblePeriod) {
    for (u64 const period : {0ULL, 99'999ULL, 100'000'001ULL, 0xffff'ffffULL}) {
        Machine machine(3'000'000'000);
        machine.hpet_period = period == 0 ? 1 : period;
        auto const result = drivers::calibrate_tsc(machine.all());
        ASSERT_TRUE(result);
        EXPECT_EQ(result->source, Calibration::Source::PmTimer) << period;
    }
}

TEST(ClockCalibration, ReportsThatCpuidSaysSomethingElse) {
    Machine machine(100'000'000);
    machine.port_cost = machine.mmio_cost = 8;
    machine.cpu.set_cpuid(0, {0x16, 0, 0, 0});
    machine.cpu.set_cpuid(0x15, {2, 292, 0, 0}); // no crystal frequency
    machine.cpu.set_cpuid(0x16, {3'500, 0, 0, 0});
    auto const result = drivers::calibrate_tsc(machine.all());
    ASSERT_TRUE(result);
    EXPECT_EQ(result->cpuid_hz, 3'500'000'000U);
    EXPECT_TRUE(result->disagrees_with_cpuid());
}

TEST(ClockCalibration, AgreesWithCpuidLeaf15) {
    Machine machine(2'400'000'000);
    machine.cpu.set_cpuid(0, {0x16, 0, 0, 0});
    machine.cpu.set_cpuid(0x15, {2, 200, 24'000'000, 0});
    auto const result = drivers::calibrate_tsc(machine.all());
    ASSERT_TRUE(result);
    EXPECT_EQ(result->cpuid_hz, 2'400'000'000U);
    EXPECT_FALSE(result->disagrees_with_cpuid());
}

TEST(ClockCalibration, BelievesCpuidWhenNothingCounts) {
    Machine machine(2'000'000'000);
    machine.hpet_runs = machine.pm_runs = machine.pit_runs = false;
    machine.cpu.set_cpuid(0, {0x16, 0, 0, 0});
    machine.cpu.set_cpuid(0x15, {2, 200, 24'000'000, 0});
    auto const result = drivers::calibrate_tsc(machine.all());
    ASSERT_TRUE(result);
    EXPECT_EQ(result->source, Calibration::Source::Cpuid);
    EXPECT_EQ(result->tsc_hz, 2'400'000'000U);
    auto clocks = machine.all();
    clocks.may_believe_cpuid = false; // the user has named a clock
    EXPECT_FALSE(drivers::calibrate_tsc(clocks));
}

TEST(ClockCalibration, BelievesAHypervisorsLeafFirst) {
    Machine machine(2'000'000'000);
    machine.hpet_runs = machine.pm_runs = machine.pit_runs = false;
    machine.cpu.set_cpuid(0, {0x16, 0, 0, 0});
    machine.cpu.set_cpuid(0x16, {3'500, 0, 0, 0});
    machine.cpu.set_cpuid(0x4000'0000, {0x4000'0010, 0, 0, 0});
    machine.cpu.set_cpuid(0x4000'0010, {1'999'999, 0, 0, 0});
    EXPECT_EQ(drivers::calibrate_tsc(machine.all())->tsc_hz, 3'500'000'000U) << "no hypervisor";
    machine.cpu.set_cpuid(1, {0, 0, 1U << 31, 0});
    EXPECT_EQ(drivers::calibrate_tsc(machine.all())->tsc_hz, 1'999'999'000U);
    machine.cpu.set_cpuid(0x4000'0000, {0x4000'000f, 0, 0, 0});
    EXPECT_EQ(drivers::calibrate_tsc(machine.all())->tsc_hz, 3'500'000'000U) << "a hypervisor without the leaf";
}

TEST(PmTimer, MasksTo24BitsUnlessItHas32) {
    fakes::Cpu cpu;
    cpu.add_ports(pm_port, 4, {.in = [](u16, unsigned) { return 0x1234'5678U; }, .out = {}});
    cpu.add_mmio(0xfed8'0808, 4, {.load = [](u64, unsigned) { return u64{0x1234'5678}; }, .store = {}, .widths = 4});
    EXPECT_EQ(drivers::PmTimer::at_port(pm_port, false).read(), 0x34'5678U);
    EXPECT_EQ(drivers::PmTimer::at_memory(0xfed8'0808, true).read(), 0x1234'5678U);
}

} // namespace
