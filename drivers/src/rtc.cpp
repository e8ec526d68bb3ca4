// SPDX-License-Identifier: MIT
#include <drivers/rtc.hpp>

#include <lib/x86/instructions.hpp>
#include <optional>

namespace drivers {
namespace {

using lib::Errc;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u16 index_port = 0x70;
constexpr u16 data_port = 0x71;
enum Cmos : u8 { Seconds = 0, Minutes = 2, Hours = 4, Day = 7, Month = 8, Year = 9, StatusA = 0x0a, StatusB = 0x0b };
constexpr u8 StatusA_update_in_progress = 0x80;
constexpr u8 StatusB_24_hours = 0x02;
constexpr u8 StatusB_binary = 0x04;
constexpr u8 Hours_pm = 0x80;
// An update takes 2 ms at most; a read of two ports about 2 us, in an emulator as little as 50 ns.
constexpr u32 most_polls = 100'000;
constexpr unsigned most_attempts = 8;

u8 read_cmos(u8 index) {
    lib::x86::out8(index_port, index);
    return lib::x86::in8(data_port);
}

struct Raw {
    u8 seconds, minutes, hours, day, month, year, century;
    friend bool operator==(Raw const&, Raw const&) = default;
};

bool wait_for_update_end() {
    for (u32 i = 0; i < most_polls; i++)
        if ((read_cmos(StatusA) & StatusA_update_in_progress) == 0) return true;
    return false;
}

Raw read_raw(u8 century_register) {
    return {read_cmos(Seconds),
            read_cmos(Minutes),
            read_cmos(Hours),
            read_cmos(Day),
            read_cmos(Month),
            read_cmos(Year),
            century_register != 0 ? read_cmos(century_register) : u8{0}};
}

std::optional<u32> decode(u8 value, bool is_binary) {
    if (is_binary) return value;
    if ((value & 0xf) > 9 || value >> 4 > 9) return std::nullopt;
    return static_cast<u32>((value >> 4) * 10 + (value & 0xf));
}

// Days from 1970-01-01 in the Gregorian calendar: years start in March, so that the leap day ends them.
constexpr u64 days_since_1970(u64 year, u64 month, u64 day) {
    u64 const shifted_year = month > 2 ? year : year - 1;
    u64 const shifted_month = month > 2 ? month - 3 : month + 9;
    u64 const day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    return shifted_year * 365 + shifted_year / 4 - shifted_year / 100 + shifted_year / 400 + day_of_year - 719'468;
}
static_assert(days_since_1970(1970, 1, 1) == 0);
static_assert(days_since_1970(2000, 3, 1) == 11'017);
static_assert(days_since_1970(2024, 2, 29) == 19'782);

lib::Result<u64> to_epoch(Raw const& raw, u8 status_b, bool has_century) {
    bool const is_binary = (status_b & StatusB_binary) != 0;
    bool const is_24_hours = (status_b & StatusB_24_hours) != 0;
    auto const seconds = decode(raw.seconds, is_binary);
    auto const minutes = decode(raw.minutes, is_binary);
    auto hours = decode(is_24_hours ? raw.hours : static_cast<u8>(raw.hours & ~Hours_pm), is_binary);
    auto const day = decode(raw.day, is_binary);
    auto const month = decode(raw.month, is_binary);
    auto year = decode(raw.year, is_binary);
    auto const century = decode(raw.century, is_binary);
    if (!seconds || !minutes || !hours || !day || !month || !year) return lib::fail(Errc::BadFormat);
    if (!is_24_hours) {
        if (*hours < 1 || *hours > 12) return lib::fail(Errc::BadFormat);
        *hours = *hours % 12 + ((raw.hours & Hours_pm) != 0 ? 12 : 0);
    }
    bool const is_date = *seconds <= 60 && *minutes < 60 && *hours < 24 && *day >= 1 && *day <= 31 && *month >= 1 &&
                         *month <= 12 && *year < 100;
    if (!is_date) return lib::fail(Errc::BadFormat);
    // Some boards name a century register that they do not keep.
    if (has_century && century && *century >= 19 && *century <= 29)
        *year += *century * 100;
    else
        *year += *year < 70 ? 2000 : 1900;
    if (*year < 1970) return lib::fail(Errc::BadFormat);
    return days_since_1970(*year, *month, *day) * 86'400 + *hours * 3'600 + *minutes * 60 + *seconds;
}

} // namespace

lib::Result<u64> read_wall_clock(u8 century_register) {
    u8 const century = century_register < 0x80 ? century_register : u8{0};
    // Two equal readings: an update may start right after the flag was looked at.
    for (unsigned attempt = 0; attempt < most_attempts; attempt++) {
        if (!wait_for_update_end()) return lib::fail(Errc::TimedOut);
        Raw const first = read_raw(century);
        if (!wait_for_update_end()) return lib::fail(Errc::TimedOut);
        if (read_raw(century) == first) return to_epoch(first, read_cmos(StatusB), century != 0);
    }
    return lib::fail(Errc::TimedOut);
}

} // namespace drivers
