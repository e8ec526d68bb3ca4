// SPDX-License-Identifier: MIT
#include "support/machine_memory.hpp"

#include <algorithm>
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <vm/guest_ram.hpp>

namespace {

using lib::MiB;
using lib::u64;
using lib::u8;
using vm::GuestPhys;
using vm::GuestRam;

class GuestRamTest : public ::testing::Test {
protected:
    fakes::Cpu cpu;
    u64 free = support::give_memory();
};

TEST_F(GuestRamTest, IsZeroedWhateverWasThere) {
    {
        GuestRam ram;
        ASSERT_TRUE(ram.allocate(4 * MiB, 0));
        std::fill_n(ram.pointer(GuestPhys{0}, 2 * MiB), 2 * MiB, u8{0xee});
    }
    EXPECT_EQ(kernel::memory_use().free, free);
    GuestRam ram;
    ASSERT_TRUE(ram.allocate(4 * MiB, 0));
    EXPECT_FALSE(ram.scrub(3 * MiB)) << "in pieces, and not only whole blocks";
    EXPECT_TRUE(ram.scrub(3 * MiB));
    EXPECT_TRUE(ram.scrub(3 * MiB)) << "there is no more";
    for (u64 at = 0; at < 4 * MiB; at += 2 * MiB) {
        u8 const* const bytes = ram.pointer(GuestPhys{at}, 2 * MiB);
        EXPECT_TRUE(std::all_of(bytes, bytes + 2 * MiB, [](u8 byte) { return byte == 0; }));
    }
}

TEST_F(GuestRamTest, ACopyHasTheSameContentsAndNothingElse) {
    GuestRam from, to;
    ASSERT_TRUE(from.allocate(4 * MiB, 0));
    ASSERT_TRUE(to.allocate(4 * MiB, 0));
    for (u64 at = 0; at < 4 * MiB; at += 2 * MiB) {
        u8* const bytes = from.pointer(GuestPhys{at}, 2 * MiB);
        for (u64 i = 0; i < 2 * MiB; i++)
            bytes[i] = static_cast<u8>(at / MiB + i * 7 + i / 4096);
        std::fill_n(to.pointer(GuestPhys{at}, 2 * MiB), 2 * MiB, u8{0xee});
    }
    EXPECT_FALSE(to.copy(from, 3 * MiB)) << "in pieces, and not only whole granules";
    EXPECT_TRUE(to.copy(from, 3 * MiB));
    EXPECT_TRUE(to.copy(from, 3 * MiB)) << "there is no more";
    EXPECT_TRUE(to.scrub(0)) << "a guest may run in it";
    for (u64 at = 0; at < 4 * MiB; at += 2 * MiB) {
        u8 const* const bytes = from.pointer(GuestPhys{at}, 2 * MiB);
        EXPECT_TRUE(std::equal(bytes, bytes + 2 * MiB, to.pointer(GuestPhys{at}, 2 * MiB)));
    }
}

TEST_F(GuestRamTest, PointersStayInside) {
    GuestRam ram;
    ASSERT_TRUE(ram.allocate(2 * MiB, 0));
    EXPECT_NE(ram.pointer(GuestPhys{0}, 2 * MiB), nullptr);
    EXPECT_EQ(ram.pointer(GuestPhys{0}, 2 * MiB + 1), nullptr);
    EXPECT_NE(ram.pointer(GuestPhys{2 * MiB - 1}, 1), nullptr);
    EXPECT_EQ(ram.pointer(GuestPhys{2 * MiB - 1}, 2), nullptr);
    EXPECT_EQ(ram.pointer(GuestPhys{2 * MiB}, 0), nullptr);
    EXPECT_EQ(ram.pointer(GuestPhys{1}, ~u64{0}), nullptr);
    EXPECT_EQ(ram.pointer(GuestPhys{~u64{0}}, 2), nullptr);
    std::array<u8, 8> bytes{};
    EXPECT_TRUE(ram.read(GuestPhys{2 * MiB - 8}, bytes));
    EXPECT_FALSE(ram.read(GuestPhys{2 * MiB - 7}, bytes));
    EXPECT_FALSE(ram.read(GuestPhys{~u64{0} - 3}, bytes));
}

TEST_F(GuestRamTest, BlocksAreSortedAndCoverEverythingOnce) {
    GuestRam ram;
    ASSERT_TRUE(ram.allocate(32 * MiB, 0));
    EXPECT_EQ(ram.size(), 32 * MiB);
    EXPECT_EQ(ram.size_below_hole(), 32 * MiB);
    EXPECT_EQ(ram.size_above_hole(), 0U);
    u64 next = 0;
    for (auto const& block : ram.blocks()) {
        EXPECT_EQ(block.base.value, next);
        EXPECT_EQ(block.host.value % GuestRam::granule, 0U);
        next += block.size;
    }
    EXPECT_EQ(next, 32 * MiB);
}

TEST_F(GuestRamTest, ReadsOverBlocksThatAreNotNeighbours) {
    GuestRam ram;
    ASSERT_TRUE(ram.allocate(8 * MiB, 0));
    for (u64 at = 2 * MiB; at < 8 * MiB; at += 2 * MiB) {
        *ram.pointer(GuestPhys{at - 1}, 1) = 0x11;
        *ram.pointer(GuestPhys{at}, 1) = 0x22;
        std::array<u8, 2> bytes{};
        EXPECT_TRUE(ram.read(GuestPhys{at - 1}, bytes));
        EXPECT_EQ(bytes, (std::array<u8, 2>{0x11, 0x22}));
    }
}

TEST_F(GuestRamTest, KeepsNothingWhenMemoryIsShort) {
    GuestRam ram;
    EXPECT_EQ(ram.allocate(1024 * MiB, 0).error(), lib::Errc::NoMemory);
    EXPECT_EQ(kernel::memory_use().free, free);
    EXPECT_EQ(ram.size(), 0U);
    EXPECT_EQ(ram.pointer(GuestPhys{0}, 1), nullptr);
    EXPECT_FALSE(ram.allocate(0, 0));
    EXPECT_FALSE(ram.allocate(3 * MiB, 0));
    EXPECT_TRUE(ram.allocate(2 * MiB, 0)); // and can be tried again
}

} // namespace
