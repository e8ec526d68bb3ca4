// SPDX-License-Identifier: MIT
#pragma once
// Clocks to compare with each other: PM timer, PIT, RTC, and what CPUID says of the TSC.
#include "runtime/runtime.hpp"

namespace guest::clock {

inline constexpr u64 pm_hz = 3'579'545, pit_hz = 1'193'182;

u32 pm_timer(); // 24 valid bits
bool has_pm_timer();
void pit_start(u8 mode, u16 count); // counter 0, binary, both bytes
u16 pit_count();                    // latched
u64 tsc_hz_by_pm(u32 milliseconds); // 0 without PM timer
u64 tsc_hz_by_cpuid();              // 0 when CPUID does not tell
u8 rtc(u8 index);
u64 tsc_hz(); // the best there is

} // namespace guest::clock
