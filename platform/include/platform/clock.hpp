// SPDX-License-Identifier: MIT
#pragma once
// Machine time in ticks of a fixed-rate oscillator. Seconds and the rest are converted apart, so nothing overflows in
// the 584 years of Nanos and no error adds up; all divisors are constants, which the compiler turns into multiply and
// shift.
#include <lib/types.hpp>

namespace platform {

template <lib::u64 Hertz> struct Oscillator {
    static_assert(Hertz > 0 && Hertz < 16'000'000, "the products below fit in 64 bits");

    // Rising clock edges up to and including `at`.
    static constexpr lib::u64 ticks(lib::Nanos at) {
        return at.value / lib::nanos_per_second * Hertz +
               at.value % lib::nanos_per_second * Hertz / lib::nanos_per_second;
    }
    // The first moment at which ticks() is `tick`.
    static constexpr lib::Nanos moment(lib::u64 tick) {
        return {tick / Hertz * lib::nanos_per_second + (tick % Hertz * lib::nanos_per_second + Hertz - 1) / Hertz};
    }
};

using PitClock = Oscillator<1'193'182>; // 14.31818 MHz / 12, rounded as every operating system does
using PmClock = Oscillator<3'579'545>;  // 14.31818 MHz / 4 [acpi] 4.8.3.3
using HpetClock = Oscillator<14'318'180>;
using RtcClock = Oscillator<32'768>;

} // namespace platform
