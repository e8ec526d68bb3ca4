// SPDX-License-Identifier: MIT
#include <drivers/clock_calibration.hpp>

#include <algorithm>
#include <array>
#include <drivers/hpet.hpp>
#include <drivers/pit.hpp>
#include <lib/x86/instructions.hpp>

namespace drivers {
namespace {

using lib::Errc;
using lib::i64;

constexpr u64 femtoseconds_per_second = 1'000'000'000'000'000;
constexpr u64 window_femtoseconds = 2'400'000'000'000; // 2.4 ms
constexpr unsigned samples_per_end = 16;
constexpr unsigned attempts = 3;
constexpr u32 good_error_ppm = 500;
// A counter that has not moved after so many reads stands still: a read takes 100 ns at the least.
constexpr u32 most_reads_without_tick = 20'000;
constexpr u32 most_reads = 400'000;

// a * b / c without the compiler's 128-bit division, which a freestanding image lacks.
constexpr u64 multiply_divide(u64 a, u64 b, u64 c) {
    lib::u128 product = lib::u128{a} * b;
    u64 quotient = 0;
    lib::u128 rest = 0;
    for (unsigned i = 0; i < 128; i++) {
        rest = rest << 1 | static_cast<u64>(product >> 127);
        product <<= 1;
        quotient <<= 1;
        if (rest >= c) {
            rest -= c;
            quotient |= 1;
        }
    }
    return quotient;
}
static_assert(multiply_divide(1ULL << 40, 1ULL << 40, 1ULL << 50) == 1ULL << 30);

// One look at the reference: its count, and the TSC before and after.
struct Sample {
    u64 before;
    u64 after;
    u32 count;
    u64 cost() const { return after - before; }
    u64 middle() const { return before + cost() / 2; }
};

struct HpetClock {
    Hpet& hpet;
    u32 mask() const { return 0xffff'ffff; }
    u64 period() const { return hpet.period_femtoseconds(); }
    Sample sample() {
        u64 const before = lib::x86::rdtsc();
        u32 const count = hpet.read();
        return {before, lib::x86::rdtsc(), count};
    }
};

struct PmTimerClock {
    PmTimer timer;
    u32 mask() const { return timer.mask(); }
    u64 period() const { return femtoseconds_per_second / PmTimer::hz; }
    Sample sample() {
        u64 const before = lib::x86::rdtsc();
        u32 const count = timer.read();
        return {before, lib::x86::rdtsc(), count};
    }
};

struct PitClock {
    Pit& pit;
    u32 mask() const { return 0xffff; }
    u64 period() const { return femtoseconds_per_second / Pit::hz; }
    Sample sample() {
        u64 const before = lib::x86::rdtsc();
        pit.latch();
        u64 const after = lib::x86::rdtsc();
        return {before, after, pit.read_latched()};
    }
};

using Cluster = std::array<Sample, samples_per_end>;

template <typename Clock> void take_samples(Clock& clock, Cluster& cluster) {
    for (auto& sample : cluster)
        sample = clock.sample();
}

// When the tick `cluster[0].count` began, in 1/256 TSC ticks after cluster[0].before, and how far that may be off.
//
// A count c seen at time t began in (t - period, t]. Every sample says this of its own count, and so, some periods
// away, of the first one's: what all of them agree on is far narrower than a tick.
struct Edge {
    i64 at;
    u64 error;
};
Edge locate(Cluster const& cluster, u32 mask, u64 period_256) {
    u64 cheapest = cluster[0].cost();
    for (auto const& sample : cluster)
        cheapest = std::min(cheapest, sample.cost());
    i64 lowest = 0;
    i64 highest = 0;
    u64 reading = 0;
    bool is_first = true;
    for (auto const& sample : cluster) {
        if (sample.cost() > 2 * cheapest) continue; // interrupted by firmware or a hypervisor below
        u64 const ticks = (sample.count - cluster[0].count) & mask;
        auto const end =
            static_cast<i64>((sample.middle() - cluster[0].before) * 256) - static_cast<i64>(ticks * period_256);
        auto const begin = end - static_cast<i64>(period_256);
        lowest = is_first ? begin : std::max(lowest, begin);
        highest = is_first ? end : std::min(highest, end);
        reading = std::max(reading, sample.cost() * 256 / 2);
        is_first = false;
    }
    auto const spread = static_cast<u64>(highest > lowest ? highest - lowest : lowest - highest);
    // Half the reading's cost is the same at both ends and cancels out; what is left is its jitter, half of that again.
    return {(lowest + highest) / 2, spread / 2 + (reading - std::min(reading, cheapest * 256 / 2))};
}

struct Measured {
    u64 tsc_hz;
    u32 error_ppm;
};

template <typename Clock> lib::Result<Measured> measure_once(Clock& clock) {
    u32 const mask = clock.mask();
    auto const target = static_cast<u32>(window_femtoseconds / clock.period());
    Cluster start;
    Cluster end;
    take_samples(clock, start);
    u32 passed = 0;
    for (u32 reads = 0; passed < target; reads++) {
        passed = (clock.sample().count - start[0].count) & mask;
        if ((passed == 0 && reads > most_reads_without_tick) || reads > most_reads) return lib::fail(Errc::TimedOut);
    }
    take_samples(clock, end);
    u64 const ticks = (end[0].count - start[0].count) & mask;
    u64 const tsc = end[0].before - start[0].before;
    // Counts that jump are no clock.
    if (ticks == 0 || ticks < target || ticks > u64{8} * target || tsc == 0 || tsc > u64{1} << 48)
        return lib::fail(Errc::Io);
    u64 const period_256 = tsc * 256 / ticks;
    Edge const first = locate(start, mask, period_256);
    Edge const last = locate(end, mask, period_256);
    auto const elapsed_256 = static_cast<u64>(static_cast<i64>(tsc * 256) + last.at - first.at);
    u64 const hz_256 = multiply_divide(elapsed_256, femtoseconds_per_second, ticks * clock.period());
    u64 const error = (first.error + last.error) * 1'000'000 / elapsed_256;
    return Measured{hz_256 / 256, static_cast<u32>(std::min<u64>(error, 1'000'000))};
}

// The best of a few windows: a disturbed one is seen by its error, and only then is there another.
template <typename Clock> lib::Result<Measured> measure(Clock clock) {
    Measured best{0, ~u32{0}};
    for (unsigned i = 0; i < attempts && best.error_ppm > good_error_ppm; i++) {
        auto const measured = measure_once(clock);
        if (!measured) return lib::fail(measured.error());
        if (measured->error_ppm < best.error_ppm) best = *measured;
    }
    if (best.tsc_hz < 1'000'000) return lib::fail(Errc::Io);
    return best;
}

// [intel/vol2] CPUID leaves 15h (crystal and ratio) and 16h (base frequency in MHz). Hypervisors have a leaf of their
// own, in kHz, which VMware began with and others took over.
u64 cpuid_frequency() {
    constexpr u32 hypervisor_bit = 31, hypervisor_leaves = 0x4000'0000, frequency_leaf = 0x4000'0010;
    if ((lib::x86::cpuid(1).ecx >> hypervisor_bit & 1) != 0) {
        u32 const last = lib::x86::cpuid(hypervisor_leaves).eax;
        if (last >= frequency_leaf && last < hypervisor_leaves + 0x100)
            if (u32 const khz = lib::x86::cpuid(frequency_leaf).eax; khz != 0) return u64{khz} * 1000;
    }
    u32 const highest = lib::x86::cpuid(0).eax;
    if (highest >= 0x15) {
        auto const leaf = lib::x86::cpuid(0x15);
        if (leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0) return multiply_divide(leaf.ecx, leaf.ebx, leaf.eax);
    }
    return highest >= 0x16 ? u64{lib::x86::cpuid(0x16).eax & 0xffff} * 1'000'000 : 0;
}

lib::Result<Measured> measure_hpet(u64 base) {
    Hpet hpet(base);
    if (auto const started = hpet.start(); !started) return lib::fail(started.error());
    return measure(HpetClock{hpet});
}

lib::Result<Measured> measure_pit() {
    Pit pit;
    pit.start();
    auto const measured = measure(PitClock{pit});
    pit.stop();
    return measured;
}

Calibration& set(Calibration& result, Measured const& measured, Calibration::Source source) {
    result.tsc_hz = measured.tsc_hz;
    result.error_ppm = measured.error_ppm;
    result.source = source;
    return result;
}

} // namespace

bool Calibration::disagrees_with_cpuid() const {
    u64 const difference = cpuid_hz > tsc_hz ? cpuid_hz - tsc_hz : tsc_hz - cpuid_hz;
    return cpuid_hz != 0 && difference > tsc_hz / 100;
}

lib::Result<Calibration> calibrate_tsc(ReferenceClocks const& clocks) {
    Calibration result;
    result.cpuid_hz = cpuid_frequency();
    if (clocks.hpet != 0) {
        if (auto const measured = measure_hpet(clocks.hpet)) return set(result, *measured, Calibration::Source::Hpet);
        result.hpet_failed = true;
    }
    if (clocks.pm_timer) {
        if (auto const measured = measure(PmTimerClock{*clocks.pm_timer}))
            return set(result, *measured, Calibration::Source::PmTimer);
        result.pm_timer_failed = true;
    }
    if (clocks.has_pit)
        if (auto const measured = measure_pit()) return set(result, *measured, Calibration::Source::Pit);
    // Base frequencies are rounded to 100 MHz by some.
    constexpr u32 cpuid_error_ppm = 10'000;
    if (clocks.may_believe_cpuid && result.cpuid_hz >= 1'000'000)
        return set(result, {result.cpuid_hz, cpuid_error_ppm}, Calibration::Source::Cpuid);
    return lib::fail(Errc::TimedOut);
}

} // namespace drivers
