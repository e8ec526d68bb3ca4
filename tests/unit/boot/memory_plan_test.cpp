// SPDX-License-Identifier: MIT
#include <boot/memory_plan.hpp>
#include <gtest/gtest.h>
#include <vector>

namespace {

using boot::MemoryRange;
using boot::MemoryType;
using lib::u32;
using lib::u64;
using lib::u8;

void put(std::vector<u8>& bytes, u64 value, unsigned width) {
    for (unsigned i = 0; i < width; i++)
        bytes.push_back(static_cast<u8>(value >> i * 8));
}

// Boot information that is a memory map and nothing else.
std::vector<u8> with_map(std::vector<MemoryRange> const& ranges) {
    std::vector<u8> bytes;
    auto const map_size = static_cast<u32>(16 + 24 * ranges.size());
    put(bytes, 8 + map_size + 8, 4);
    put(bytes, 0, 4);
    put(bytes, 6, 4);
    put(bytes, map_size, 4);
    put(bytes, 24, 4);
    put(bytes, 0, 4);
    for (auto const& range : ranges) {
        put(bytes, range.base.value, 8);
        put(bytes, range.size, 8);
        put(bytes, static_cast<u32>(range.type), 4);
        put(bytes, 0, 4);
    }
    put(bytes, 0, 4);
    put(bytes, 8, 4);
    return bytes;
}

TEST(MemoryPlan, TheFirst64KiBStayFree) {
    auto const pages = boot::pages_of({lib::HostPhys{0}, 0x9fc00, MemoryType::Available});
    EXPECT_EQ(pages.begin, 0x10000U);
    EXPECT_EQ(pages.end, 0x9f000U);
    auto const low = boot::pages_of({lib::HostPhys{0x1000}, 0x8000, MemoryType::Available});
    EXPECT_GE(low.begin, low.end);
    auto const bytes = with_map({{lib::HostPhys{0}, 0x9fc00, MemoryType::Available}});
    auto const information = boot::Multiboot2::parse(bytes);
    ASSERT_TRUE(information);
    boot::ReservedRanges reserved;
    EXPECT_EQ(boot::find_startup_page(*information, reserved).value, 0x10000U);
    reserved.add(0x10000, 0x12345);
    EXPECT_EQ(boot::find_startup_page(*information, reserved).value, 0x13000U);
}

TEST(MemoryPlan, OnlyMemoryIsMappedForCaching) {
    EXPECT_TRUE(boot::is_cacheable(MemoryType::Available));
    EXPECT_TRUE(boot::is_cacheable(MemoryType::AcpiReclaimable));
    EXPECT_TRUE(boot::is_cacheable(MemoryType::AcpiNvs));
    for (u32 const type : {2U, 5U, 0U, 7U, 20U})
        EXPECT_FALSE(boot::is_cacheable(static_cast<MemoryType>(type))) << type;
}

} // namespace
