// SPDX-License-Identifier: MIT
#pragma once
// The wall clock of an MC146818 with its CMOS memory. [motorola/mc146818]
// Not supported: setting it, alarms, time zones (the clock is taken to run on UTC).
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace drivers {

// Seconds since 1970-01-01 00:00:00. `century_register` is the FADT's, 0 if there is none: years below 70 are then
// 20xx. TimedOut if the clock never holds still, BadFormat if what it says is no date. Up to some ms when an update is
// under way.
lib::Result<lib::u64> read_wall_clock(lib::u8 century_register);

} // namespace drivers
