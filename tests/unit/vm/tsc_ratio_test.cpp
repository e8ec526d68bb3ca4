// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <vm/tsc_ratio.hpp>

namespace {

using lib::u64;
using vm::TscRatio;

TEST(TscRatio, EqualRatesChangeNothing) {
    auto const ratio = TscRatio::of(3'500'000'000, 3'500'000'000);
    ASSERT_TRUE(ratio);
    EXPECT_TRUE(ratio->is_one());
    EXPECT_EQ(ratio->to_guest(~u64{0}), ~u64{0});
    EXPECT_EQ(ratio->to_host_ticks(~u64{0}), ~u64{0});
}

TEST(TscRatio, DoublesAndHalves) {
    auto const faster = *TscRatio::of(2'000'000'000, 1'000'000'000);
    EXPECT_EQ(faster.multiplier(), u64{2} << 48);
    EXPECT_EQ(faster.to_guest(1'000'000'007), 2'000'000'014U);
    auto const slower = *TscRatio::of(500'000'000, 1'000'000'000);
    EXPECT_EQ(slower.to_guest(1'000'000'007), 500'000'003U);
}

TEST(TscRatio, HostTicksAreNeverTooFewAndHardlyTooMany) {
    for (auto const& [guest, host] : {std::pair<u64, u64>{2'893'437'111, 100'000'000},
                                      {100'000'000, 2'893'437'111},
                                      {1'000'000, 4'000'000'000},
                                      {3'000'000'001, 3'000'000'000}}) {
        auto const ratio = *TscRatio::of(guest, host);
        for (u64 ticks = 1; ticks < u64{1} << 50; ticks = ticks * 3 + 1) {
            u64 const wait = ratio.to_host_ticks(ticks);
            EXPECT_GE(ratio.to_guest(wait) + 1, ticks) << guest << ' ' << host;
            long double const exact =
                static_cast<long double>(ticks) * static_cast<long double>(host) / static_cast<long double>(guest);
            EXPECT_LE(static_cast<long double>(wait), exact * (1 + 0x1p-35L) + 3) << guest << ' ' << host;
        }
    }
}

TEST(TscRatio, AFarDeadlineSaturates) {
    EXPECT_EQ(TscRatio::of(1'000'000, 4'000'000'000)->to_host_ticks(~u64{0} - 1), ~u64{0});
}

TEST(TscRatio, RefusesWhatTheHardwareCannotMultiplyBy) {
    EXPECT_FALSE(TscRatio::of(0, 1'000'000'000));
    EXPECT_FALSE(TscRatio::of(1'000'000'000, 0));
    EXPECT_FALSE(TscRatio::of(1'000'000, 4'096'000'000));
    EXPECT_TRUE(TscRatio::of(1'000'000, 4'095'000'000));
}

} // namespace
