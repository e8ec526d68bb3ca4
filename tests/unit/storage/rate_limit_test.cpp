// SPDX-License-Identifier: MIT
// The token bucket by itself: exact over long times, bounded at once, and sound for any numbers.
#include <gtest/gtest.h>
#include <storage/rate_limit.hpp>

namespace {

using lib::u64;
using storage::RateLimit;

constexpr u64 hz = 2'399'999'971; // a TSC that divides nothing

// Takes as much as is allowed, always at the first moment, from `begin` to `end`. Returns how many units that was.
u64 drain(RateLimit& limit, u64 begin, u64 end, u64 units) {
    u64 sum = 0;
    for (u64 now = begin; now <= end; now = std::max(now, limit.allowed_at()))
        for (; limit.allows(now); sum += units)
            limit.take(now, units);
    return sum;
}

TEST(RateLimit, NothingIsHeldWithoutALimit) {
    RateLimit none, zero(0, hz, 1);
    for (RateLimit* const limit : {&none, &zero}) {
        EXPECT_FALSE(limit->is_limited());
        limit->take(5, ~u64{0});
        EXPECT_TRUE(limit->allows(0));
    }
}

TEST(RateLimit, TheRateIsExactOverLongTimes) {
    constexpr u64 seconds = 1'000, begin = 77 * hz;
    for (u64 const rate : {u64{1}, u64{3}, u64{7}, u64{50}, u64{333}, u64{10'007}}) {
        RateLimit limit(rate, hz, 1);
        u64 const burst = std::max<u64>(rate / RateLimit::bursts_of_a_second, 1);
        u64 const taken = drain(limit, begin, begin + seconds * hz, 1);
        EXPECT_LE(taken, rate * seconds + burst + 1) << rate;
        EXPECT_GE(taken, rate * seconds + burst - 1) << rate;
    }
}

TEST(RateLimit, TheRateOfBytesIsExactAndNeverTooHigh) {
    for (u64 const rate : {u64{64 * 1024}, u64{10'000'000}, u64{1} << 30, u64{1} << 40}) {
        RateLimit limit(rate, hz, 512);
        u64 const request = rate / 64;
        u64 const taken = drain(limit, 0, 100 * hz, request);
        EXPECT_LE(taken, rate * 100 + rate / 10 + request) << rate;
        EXPECT_GE(taken, rate * 100 - rate / 5) << rate; // the price of a byte is rounded up
    }
}

TEST(RateLimit, NoMoreThanABurstIsAllowedAtOnce) {
    for (u64 const rate : {u64{1}, u64{9}, u64{10}, u64{50}, u64{1'000}, u64{10'000'000}}) {
        RateLimit limit(rate, hz, 1);
        u64 const burst = std::max<u64>(rate / RateLimit::bursts_of_a_second, 1);
        EXPECT_EQ(drain(limit, 0, 0, 1), burst) << rate;
        // However long nothing came.
        EXPECT_LE(drain(limit, 1'000 * hz, 1'000 * hz, 1), burst) << rate;
        EXPECT_GE(drain(limit, 2'000 * hz, 2'000 * hz, 1), burst - 1) << rate;
    }
}

TEST(RateLimit, WhatIsLargerThanTheBucketIsPaidOffAfterwards) {
    RateLimit limit(1'000'000, hz, 512);
    ASSERT_TRUE(limit.allows(hz));
    limit.take(hz, 5'000'000);
    u64 const again = limit.allowed_at();
    EXPECT_GE(again, hz + hz * 49 / 10);
    EXPECT_LE(again, hz + hz * 491 / 100);
    EXPECT_FALSE(limit.allows(again - 1));
    EXPECT_TRUE(limit.allows(again));
}

TEST(RateLimit, AnyNumbersLeaveATimeToGoOn) {
    for (u64 const rate : {u64{1}, u64{10'000'000}, u64{1} << 40, ~u64{0}})
        for (u64 const frequency : {u64{1}, u64{1'000'000}, hz, (u64{1} << 43) - 1})
            for (u64 const units : {u64{1}, u64{1} << 32, ~u64{0}}) {
                RateLimit limit(rate, frequency, 1);
                u64 const now = u64{1} << 60;
                for (int i = 0; i < 100 && limit.allows(now); i++)
                    limit.take(now, units);
                EXPECT_TRUE(limit.allows(std::max(limit.allowed_at(), now)));
                EXPECT_LE(limit.allowed_at(), now + (u64{1} << 51)) << "below three weeks of 1 GHz";
            }
}

} // namespace
