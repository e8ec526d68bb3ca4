// SPDX-License-Identifier: MIT
#include <loader/guest_mp_tables.hpp>

#include <gtest/gtest.h>
#include <map>
#include <vector>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// Looks for the tables and walks them as a kernel does. [mp] 4
struct MpTables : testing::Test {
    std::vector<u8> ram = std::vector<u8>(lib::MiB);
    lib::RamPiece piece{{0}, ram.size(), ram.data()};
    lib::GuestMemory memory{{&piece, 1}};

    u8 sum(u64 at, u64 size) {
        u8 total = 0;
        for (u64 i = 0; i < size; ++i)
            total = static_cast<u8>(total + ram[at + i]);
        return total;
    }
    template <typename T> T get(u64 at) { return memory.read<T>({at}).value(); }
    u64 find() {
        for (u64 at = 0xf'0000; at < lib::MiB; at += 16)
            if (get<u32>(at) == 0x5f504d5f && sum(at, 16) == 0) return at;
        return 0;
    }
};

TEST_F(MpTables, AreFoundAndSayWhatTheMadtSays) {
    ASSERT_TRUE(loader::write_mp_tables(memory, {.vcpu_count = 3, .signature = 0x800f12, .features = 0x1234}));
    u64 const pointer = find();
    ASSERT_NE(pointer, 0U);
    u64 const table = get<u32>(pointer + 4);
    ASSERT_EQ(get<u32>(table), 0x504d4350U);
    ASSERT_EQ(sum(table, get<u16>(table + 4)), 0);
    EXPECT_EQ(get<u32>(table + 36), 0xfee0'0000U);
    u64 at = table + 44;
    std::map<u8, unsigned> kinds;
    std::map<u8, u8> inputs;
    for (unsigned i = 0; i < get<u16>(table + 34); ++i) {
        u8 const type = ram[at];
        kinds[type]++;
        if (type == 0) {
            EXPECT_EQ(ram[at + 1], kinds[0] - 1);
            EXPECT_EQ(ram[at + 3], kinds[0] == 1 ? 3 : 1);
            EXPECT_EQ(get<u32>(at + 4), 0x800f12U);
            EXPECT_EQ(get<u32>(at + 8), 0x1234U);
        }
        if (type == 2) EXPECT_EQ(get<u32>(at + 4), 0xfec0'0000U);
        if (type == 3 && ram[at + 1] == 0) {
            inputs[ram[at + 5]] = ram[at + 7];
            EXPECT_EQ(get<u16>(at + 2), ram[at + 5] == 9 ? 0xd : 0);
        }
        at += type == 0 ? 20 : 8;
    }
    EXPECT_EQ(at, table + get<u16>(table + 4));
    EXPECT_EQ(kinds, (std::map<u8, unsigned>{{0, 3}, {1, 1}, {2, 1}, {3, 16}, {4, 2}}));
    EXPECT_EQ(inputs.size(), 15U);
    EXPECT_EQ(inputs[0], 2);
    EXPECT_EQ(inputs[4], 4);
    EXPECT_EQ(inputs.count(2), 0U);
}

TEST_F(MpTables, StayWithinTheirArea) {
    std::fill(ram.begin(), ram.end(), u8{0xaa});
    EXPECT_FALSE(loader::write_mp_tables(memory, {.vcpu_count = 0}));
    EXPECT_FALSE(loader::write_mp_tables(memory, {.vcpu_count = 129}));
    ASSERT_TRUE(loader::write_mp_tables(memory, {.vcpu_count = 128}));
    for (u64 at = 0; at < ram.size(); ++at)
        if (at < 0xf'0080 || at >= 0xf'1000) ASSERT_EQ(ram[at], 0xaa);
    lib::GuestMemory const nothing({});
    EXPECT_FALSE(loader::write_mp_tables(nothing, {.vcpu_count = 1}));
}

} // namespace
