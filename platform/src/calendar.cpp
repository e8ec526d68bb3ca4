// SPDX-License-Identifier: MIT
#include <algorithm>
#include <platform/calendar.hpp>

namespace platform {
namespace {

using lib::u32;
using lib::u64;

constexpr u64 seconds_per_day = 86'400;
constexpr u32 days_per_era = 146'097; // 400 years
constexpr u32 epoch_offset = 719'468; // days from 0000-03-01 to 1970-01-01

} // namespace

// Years start in March, so that the leap day is the last day of a year and month lengths follow (153 m + 2) / 5.
CivilTime civil_from_seconds(u64 seconds) {
    u32 const in_day = static_cast<u32>(seconds % seconds_per_day);
    u64 const days = seconds / seconds_per_day;
    u32 const shifted = static_cast<u32>((days + epoch_offset) % (u64{25} * days_per_era)); // 25 eras: 10000 years
    u32 const era = shifted / days_per_era;
    u32 const day_of_era = shifted % days_per_era;
    u32 const year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
    u32 const day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    u32 const march_month = (5 * day_of_year + 2) / 153;
    u32 const month = march_month < 10 ? march_month + 3 : march_month - 9;
    return {era * 400 + year_of_era + (month <= 2 ? 1 : 0),
            month,
            day_of_year - (153 * march_month + 2) / 5 + 1,
            in_day / 3600,
            in_day / 60 % 60,
            in_day % 60,
            static_cast<u32>((days + 4) % 7)}; // 1970-01-01 was a Thursday
}

u64 seconds_from_civil(CivilTime const& time) {
    u32 const month = std::clamp(time.month, 1U, 12U);
    u32 const year = std::clamp(time.year, 1970U, 9999U) - (month <= 2 ? 1 : 0);
    u32 const march_month = month > 2 ? month - 3 : month + 9;
    u32 const era = year / 400, year_of_era = year % 400;
    u32 const day_of_year = (153 * march_month + 2) / 5 + std::clamp(time.day, 1U, 31U) - 1;
    u32 const day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    u64 const days = u64{era} * days_per_era + day_of_era - epoch_offset;
    return days * seconds_per_day + u64{std::min(time.hour, 23U)} * 3600 + std::min(time.minute, 59U) * 60 +
           std::min(time.second, 59U);
}

} // namespace platform
