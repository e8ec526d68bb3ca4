// SPDX-License-Identifier: MIT
#pragma once
// The Gregorian calendar in whole seconds since 1970, without leap seconds.
#include <lib/types.hpp>

namespace platform {

struct CivilTime {
    lib::u32 year, month, day; // month and day from 1
    lib::u32 hour, minute, second;
    lib::u32 weekday; // 0: Sunday
};

// `seconds` before the year 10000; later ones wrap to a year below 10000 that the caller can still show.
CivilTime civil_from_seconds(lib::u64 seconds);
// Fields may be out of range (a guest writes what it likes); the answer is then some moment, and nothing overflows.
lib::u64 seconds_from_civil(CivilTime const& time);

} // namespace platform
