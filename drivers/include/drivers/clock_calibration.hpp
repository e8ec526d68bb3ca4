// SPDX-License-Identifier: MIT
#pragma once
// The frequency of the TSC, measured against a clock whose frequency is known. CPUID is only a hint to compare with:
// what it says is what the vendor meant, not what an emulator, a hypervisor below or a mistuned board does. Needs a TSC
// of constant rate. Interrupts must be off. One measurement takes about 2.5 ms; a source that does not count is left
// after a bounded number of reads.
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <optional>

#include <drivers/pm_timer.hpp>

namespace drivers {

using lib::u32;
using lib::u64;
using lib::u8;

struct ReferenceClocks {
    u64 hpet = 0; // virtual address of its registers; 0: none
    std::optional<PmTimer> pm_timer;
    bool has_pit = true;
    bool may_believe_cpuid = true; // when nothing can be measured
};

struct Calibration {
    enum class Source : u8 { Hpet, PmTimer, Pit, Cpuid };
    u64 tsc_hz = 0;
    Source source = Source::Hpet;
    u32 error_ppm = 0; // bound of the measurement's own error
    u64 cpuid_hz = 0;  // what CPUID leaf 15h or 16h, or a hypervisor's 4000_0010h, says; 0: nothing
    bool hpet_failed = false;
    bool pm_timer_failed = false;
    // CPUID is off by more than 1 %: worth a line in the log.
    bool disagrees_with_cpuid() const;
};

constexpr char const* name_of(Calibration::Source source) {
    switch (source) {
    case Calibration::Source::Hpet: return "HPET";
    case Calibration::Source::PmTimer: return "PM timer";
    case Calibration::Source::Pit: return "PIT";
    case Calibration::Source::Cpuid: return "CPUID";
    }
    return "?";
}

// Tries HPET, PM timer and PIT in this order. If none of them counts, CPUID is believed; TimedOut if it is silent.
lib::Result<Calibration> calibrate_tsc(ReferenceClocks const& clocks);

} // namespace drivers
