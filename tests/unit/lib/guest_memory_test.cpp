// SPDX-License-Identifier: MIT
#include <lib/guest_memory.hpp>

#include <array>
#include <gtest/gtest.h>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

struct GuestMemoryTest : testing::Test {
    alignas(8) std::array<u8, 16> low{}, high{};
    std::array<lib::RamPiece, 2> pieces{{{{0x1000}, 16, low.data()}, {{0x1010}, 16, high.data()}}};
    lib::GuestMemory memory{pieces};
};

TEST_F(GuestMemoryTest, LoadsAndStoresWholeValuesAtTheirAlignment) {
    ASSERT_TRUE(memory.store<u32>({0x1004}, 0x1234'5678));
    EXPECT_EQ(low[4], 0x78);
    EXPECT_EQ(memory.load<u16>({0x1006}).value(), 0x1234);
    ASSERT_TRUE(memory.store<u64>({0x1018}, ~u64{0}));
    EXPECT_EQ(high[15], 0xff);
    EXPECT_EQ(high[7], 0);
    EXPECT_EQ(memory.load<u8>({0x101f}).value(), 0xff);
}

TEST_F(GuestMemoryTest, RefusesWhatIsMisalignedOrNoRam) {
    for (u64 const at : {u64{0x1002}, u64{0x100e}, u64{0x101e}, u64{0xffc}, u64{0x1020}, ~u64{0} - 3, ~u64{0}}) {
        EXPECT_FALSE(memory.load<u32>({at})) << std::hex << at;
        EXPECT_FALSE(memory.store<u32>({at}, 1)) << std::hex << at;
    }
    EXPECT_EQ(low, (std::array<u8, 16>{}));
    EXPECT_EQ(high, (std::array<u8, 16>{}));
}

// Not the span's own address and size.
TEST_F(GuestMemoryTest, WritesTheBytesOfASpanThatMayBeWrittenThrough) {
    std::array<u8, 4> bytes{1, 2, 3, 4};
    ASSERT_TRUE(memory.write({0x1000}, std::span<u8>(bytes)));
    EXPECT_EQ(low, (std::array<u8, 16>{1, 2, 3, 4}));
}

TEST_F(GuestMemoryTest, ARangeInOnePieceReachesItsBytesAndNoOthers) {
    lib::GuestRange const range(memory, {0x1004}, 8);
    ASSERT_TRUE(range.store<u32>(0, 0x1234'5678));
    EXPECT_EQ(low[4], 0x78);
    EXPECT_EQ(range.load<u16>(2).value(), 0x1234);
    low[9] = 0xab;
    EXPECT_EQ(range.read<u32>(3).value(), 0x00ab'0012U) << "at any offset";
    for (u64 const offset : {u64{5}, u64{8}, u64{9}, ~u64{0} - 3, ~u64{0}}) {
        EXPECT_FALSE(range.read<u32>(offset)) << std::hex << offset;
        EXPECT_FALSE(range.load<u32>(offset & ~u64{3} | 8)) << std::hex << offset;
        EXPECT_FALSE(range.store<u32>(offset & ~u64{3} | 8, 1)) << std::hex << offset;
    }
}

TEST_F(GuestMemoryTest, ARangeOfTwoPiecesReachesBoth) {
    lib::GuestRange const range(memory, {0x1008}, 16);
    ASSERT_FALSE(range.is_empty());
    ASSERT_TRUE(range.store<u32>(4, 0x1111'1111));
    ASSERT_TRUE(range.store<u32>(8, 0x2222'2222));
    EXPECT_EQ(low[15], 0x11);
    EXPECT_EQ(high[0], 0x22);
    EXPECT_EQ(range.load<u16>(8).value(), 0x2222);
    EXPECT_EQ(range.read<u32>(6).value(), 0x2222'1111U) << "across the seam";
    EXPECT_FALSE(range.load<u32>(16));
    EXPECT_FALSE(range.store<u32>(16, 1)) << "RAM, but outside of the range";
    EXPECT_FALSE(range.read<u32>(13));
}

TEST_F(GuestMemoryTest, ARangeThatIsNotAllRamHasNoBytes) {
    for (u64 const at : {u64{0xff8}, u64{0x1018}, u64{0x2000}, ~u64{0} - 7}) {
        lib::GuestRange const range(memory, {at}, 16);
        EXPECT_TRUE(range.is_empty()) << std::hex << at;
        EXPECT_FALSE(range.read<u8>(0)) << std::hex << at;
        EXPECT_FALSE(range.load<u8>(8)) << std::hex << at;
        EXPECT_FALSE(range.store<u8>(8, 1)) << std::hex << at;
    }
    EXPECT_FALSE(lib::GuestRange().load<u8>(0));
    EXPECT_TRUE(lib::GuestRange(memory, {0x1000}, 0).is_empty());
}

} // namespace
