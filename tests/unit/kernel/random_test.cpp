// SPDX-License-Identifier: MIT
#include <kernel/random.hpp>

#include <array>
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>

namespace {

using lib::u64;
using lib::u8;

TEST(Random, FillsEveryByteAndKeepsToTheEnd) {
    fakes::Cpu cpu;
    u64 next = 0x0807'0605'0403'0201;
    cpu.on_rdrand = [&](u64& value) {
        value = next;
        next += 0x0808'0808'0808'0808;
        return true;
    };
    std::array<u8, 12> bytes{};
    EXPECT_EQ(kernel::random(std::span(bytes).first(11)), 11U);
    for (u8 i = 0; i < 11; i++)
        EXPECT_EQ(bytes[i], i + 1);
    EXPECT_EQ(bytes[11], 0);
}

TEST(Random, TriesAgainAFewTimesAndThenGivesUp) {
    fakes::Cpu cpu;
    int calls = 0;
    cpu.on_rdrand = [&](u64& value) {
        value = 7;
        return ++calls == 10;
    };
    std::array<u8, 16> bytes{};
    EXPECT_EQ(kernel::random(bytes), 8U) << "the second number does not come";
    EXPECT_EQ(calls, 20);
}

TEST(Random, IsThereWhereCpuidSaysSo) {
    fakes::Cpu cpu;
    u64 next = 0;
    cpu.on_rdrand = [&](u64& value) {
        value = next++;
        return true;
    };
    cpu.set_cpuid(1, {0, 0, 0, 0});
    EXPECT_FALSE(kernel::has_random());
    EXPECT_EQ(next, 0U) << "a CPU without it has no such instruction";
    cpu.set_cpuid(1, {0, 0, 1U << 30, 0});
    EXPECT_TRUE(kernel::has_random());
}

TEST(Random, ASourceThatRepeatsItselfOrIsEmptyIsNone) {
    fakes::Cpu cpu;
    cpu.set_cpuid(1, {0, 0, 1U << 30, 0});
    cpu.on_rdrand = [](u64& value) {
        value = ~u64{0};
        return true;
    };
    EXPECT_FALSE(kernel::has_random());
    cpu.on_rdrand = [](u64&) { return false; };
    EXPECT_FALSE(kernel::has_random());
}

} // namespace
