// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <loader/bios.hpp>
#include <vector>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// What the code does is tested by the guest kernel "behave", which calls it.
struct Bios : testing::Test {
    std::vector<u8> ram = std::vector<u8>(lib::MiB);
    lib::RamPiece piece{{0}, ram.size(), ram.data()};
    lib::GuestMemory memory{{&piece, 1}};
    loader::E820Map map = loader::make_e820_map(32 * lib::MiB, 0).value();

    // The linear address of interrupt `number`'s handler.
    u64 handler(u32 number) {
        u32 const vector = memory.read<u32>({number * 4}).value();
        return (u64{vector >> 16} << 4) + (vector & 0xffff);
    }
};

TEST_F(Bios, DataAreaPointsToTheEbda) {
    ASSERT_TRUE(loader::write_bios(memory, map));
    EXPECT_EQ(memory.read<u16>({0x40e}).value() << 4, 0x9'fc00);
    EXPECT_EQ(memory.read<u16>({0x413}).value(), 639);
    EXPECT_EQ(memory.read<u16>({0x400}).value(), 0x3f8);
    EXPECT_EQ(memory.read<u16>({0x41a}).value(), memory.read<u16>({0x41c}).value()) << "no key waits";
    lib::GuestMemory const nothing({});
    EXPECT_FALSE(loader::write_bios(nothing, map));
}

TEST_F(Bios, EachVectorPointsToCodeInTheReservedArea) {
    ASSERT_TRUE(loader::write_bios(memory, map));
    for (u32 number = 0; number < 256; ++number) {
        u64 const at = handler(number);
        ASSERT_GE(at, 0xf'1000U) << number;
        ASSERT_LT(at, 0xf'2000U) << number;
        ASSERT_NE(memory.read<u8>({at}).value(), 0) << number;
    }
    constexpr u8 iret = 0xcf;
    EXPECT_EQ(memory.read<u8>({handler(3)}).value(), iret) << "exceptions return";
    EXPECT_EQ(memory.read<u8>({handler(0x1c)}).value(), iret);
    EXPECT_EQ(handler(0x13), handler(0x80)) << "no disks: refused like what nobody knows";
    EXPECT_NE(handler(0x13), handler(0x15));
    EXPECT_NE(handler(0x08), handler(0x09));
    EXPECT_NE(handler(0x09), handler(0x70));
}

TEST_F(Bios, FitsAroundTheTablesOfAcpi) {
    std::fill(ram.begin(), ram.end(), u8{0xaa});
    ASSERT_TRUE(loader::write_bios(memory, map));
    for (u64 at = 0xe'0000; at < 0xf'1000; ++at)
        ASSERT_EQ(ram[at], 0xaa);
    for (u64 at = 0xf'2000; at < ram.size(); ++at)
        ASSERT_EQ(ram[at], 0xaa);
    for (u64 at = 0x500; at < 0x9'fc00; ++at)
        ASSERT_EQ(ram[at], 0xaa);
}

} // namespace
