// SPDX-License-Identifier: MIT
#include <platform/calendar.hpp>

#include <ctime>
#include <gtest/gtest.h>

namespace {

using platform::CivilTime;

// Against the build host's C library, over all the leap rules.
TEST(Calendar, AgreesWithGmtimeForFourCenturies) {
    for (std::time_t at = 0; at < std::time_t{400} * 366 * 86'400; at += 86'399 * 7) {
        std::tm reference{};
        gmtime_r(&at, &reference);
        CivilTime const time = platform::civil_from_seconds(static_cast<lib::u64>(at));
        ASSERT_EQ(time.year, static_cast<unsigned>(reference.tm_year + 1900));
        ASSERT_EQ(time.month, static_cast<unsigned>(reference.tm_mon + 1));
        ASSERT_EQ(time.day, static_cast<unsigned>(reference.tm_mday));
        ASSERT_EQ(time.hour, static_cast<unsigned>(reference.tm_hour));
        ASSERT_EQ(time.minute, static_cast<unsigned>(reference.tm_min));
        ASSERT_EQ(time.second, static_cast<unsigned>(reference.tm_sec));
        ASSERT_EQ(time.weekday, static_cast<unsigned>(reference.tm_wday));
        ASSERT_EQ(platform::seconds_from_civil(time), static_cast<lib::u64>(at));
    }
}

TEST(Calendar, ImpossibleFieldsGiveSomeMoment) {
    constexpr auto huge = ~0U;
    EXPECT_LT(platform::seconds_from_civil({huge, huge, huge, huge, huge, huge, huge}), lib::u64{1} << 40);
    EXPECT_LT(platform::seconds_from_civil({0, 0, 0, 0, 0, 0, 0}), lib::u64{1} << 40);
    CivilTime const late = platform::civil_from_seconds(~lib::u64{0});
    EXPECT_LT(late.year, 10'001U);
    EXPECT_TRUE(late.month >= 1 && late.month <= 12 && late.day >= 1 && late.day <= 31);
}

} // namespace
