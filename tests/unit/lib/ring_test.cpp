// SPDX-License-Identifier: MIT
#include <lib/ring.hpp>

#include <gtest/gtest.h>
#include <numeric>
#include <vector>

namespace {

std::vector<lib::u8> count_from(lib::u8 first, std::size_t size) {
    std::vector<lib::u8> values(size);
    std::iota(values.begin(), values.end(), first);
    return values;
}

TEST(Ring, TakesWhatFits) {
    lib::Ring<lib::u8, 8> ring;
    EXPECT_EQ(ring.push_some(count_from(1, 5)), 5U);
    EXPECT_EQ(ring.push_some(count_from(6, 5)), 3U);
    EXPECT_TRUE(ring.is_full());
    EXPECT_EQ(ring.push_some(count_from(0, 1)), 0U);
    std::vector<lib::u8> out(10);
    EXPECT_EQ(ring.pop_some(out), 8U);
    out.resize(8);
    EXPECT_EQ(out, count_from(1, 8));
    EXPECT_EQ(ring.pop_some(out), 0U);
}

TEST(Ring, KeepsOrderAcrossTheWrap) {
    lib::Ring<lib::u8, 8> ring;
    lib::u8 in = 0, expected = 0;
    for (unsigned round = 0; round < 100; round++) {
        auto const values = count_from(in, round % 7 + 1);
        auto const taken = ring.push_some(values);
        in = static_cast<lib::u8>(in + taken);
        std::vector<lib::u8> out(round % 5 + 1);
        auto const got = ring.pop_some(out);
        for (lib::u32 i = 0; i < got; i++)
            ASSERT_EQ(out[i], expected++);
        if (auto const one = ring.pop()) ASSERT_EQ(*one, expected++);
    }
}

} // namespace
