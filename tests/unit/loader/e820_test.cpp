// SPDX-License-Identifier: MIT
#include <loader/e820.hpp>

#include <algorithm>
#include <gtest/gtest.h>
#include <numeric>
#include <vector>

namespace {

using lib::u64;

TEST(E820, IsSortedAndLeavesTheHolesOut) {
    auto const map = loader::make_e820_map(3 * lib::GiB, 5 * lib::GiB);
    ASSERT_TRUE(map);
    u64 last = 0, ram = 0;
    for (loader::E820Entry const entry : map->entries()) {
        EXPECT_GE(u64{entry.base}, last);
        last = entry.base + entry.size;
        if (entry.type == 1) {
            ram += entry.size;
            EXPECT_TRUE(last <= 0xc000'0000 || entry.base >= 4 * lib::GiB);
            EXPECT_TRUE(last <= 0x9'fc00 || entry.base >= lib::MiB);
        }
    }
    EXPECT_EQ(last, 9 * lib::GiB);
    EXPECT_EQ(ram, 8 * lib::GiB - lib::MiB + 0x9'fc00);
}

TEST(E820, SmallMachinesHaveNothingAbove4G) {
    auto const map = loader::make_e820_map(64 * lib::MiB, 0);
    ASSERT_TRUE(map);
    EXPECT_EQ(u64{map->entries().back().base}, 0xfee0'0000U);
}

TEST(E820, ConfigurationSpaceOfPciIsReserved) {
    auto const map = loader::make_e820_map(64 * lib::MiB, 0);
    ASSERT_TRUE(map);
    bool const is_there = std::ranges::any_of(map->entries(), [](loader::E820Entry const& entry) {
        return entry.base == 0xe000'0000 && entry.size == 64 * lib::MiB && entry.type == loader::e820_reserved;
    });
    EXPECT_TRUE(is_there);
}

TEST(E820, RefusesWhatDoesNotFit) {
    EXPECT_FALSE(loader::make_e820_map(0, 0));
    EXPECT_FALSE(loader::make_e820_map(0xc000'1000, 0));
    EXPECT_FALSE(loader::make_e820_map(64 * lib::MiB + 1, 0));
    EXPECT_FALSE(loader::make_e820_map(64 * lib::MiB, ~u64{0} << 12));
}

} // namespace
