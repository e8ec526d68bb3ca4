// SPDX-License-Identifier: MIT
#include "kernel/kernel_cpu.hpp"
#include "support/machine_memory.hpp"

#include <kernel/page_table.hpp>
#include <map>
#include <random>

namespace {

using kernel::HostPhys;
using kernel::HostVirt;
using kernel::MemoryType;
using kernel::PageEntry;
using kernel::PageTable;
using kernel::Rights;
using lib::GiB;
using lib::MiB;
using lib::page_size;
using lib::u64;

struct Leaf {
    PageEntry entry;
    unsigned level;
};

class PageTableTest : public KernelCpu {
protected:
    PageTableTest() { support::give_memory(); }
    static PageTable make(bool pages_1g = true) {
        return *PageTable::create({.no_execute = true, .pages_1g = pages_1g});
    }
    // Every leaf by its virtual address (sign-extended), found by walking the entries themselves.
    static std::map<u64, Leaf> leaves(PageTable const& table) {
        std::map<u64, Leaf> found;
        collect(table.root(), 4, 0, found);
        return found;
    }
    static void collect(HostPhys at, unsigned level, u64 virt, std::map<u64, Leaf>& found) {
        for (u64 i = 0; i < 512; i++) {
            PageEntry const entry = kernel::phys_to_virt<PageEntry>(at)[i];
            if (!entry.get<PageEntry::Present>()) continue;
            u64 address = virt | i << (12 + 9 * (level - 1));
            if (level == 4 && i >= 256) address |= 0xffff'0000'0000'0000;
            if (level == 1 || entry.get<PageEntry::Large>())
                found[address] = {entry, level};
            else
                collect(entry.address(), level - 1, address, found);
        }
    }
};

constexpr HostVirt base{0xffff'8000'0000'0000};

TEST_F(PageTableTest, UsesTheLargestPagesThatFit) {
    PageTable table = make();
    ASSERT_TRUE(table.map(base + GiB - 2 * MiB - page_size, HostPhys{3 * GiB - 2 * MiB - page_size},
                          GiB + 4 * MiB + 2 * page_size, Rights::ReadWrite));
    std::map<unsigned, unsigned> by_level;
    for (auto const& [virt, leaf] : leaves(table))
        by_level[leaf.level]++;
    EXPECT_EQ(by_level, (std::map<unsigned, unsigned>{{1, 2}, {2, 2}, {3, 1}}));
    EXPECT_EQ(table.translate(base + GiB + 0x1234567)->value, 3 * GiB + 0x1234567);
    EXPECT_EQ(table.translate(base + GiB - 1)->value, 3 * GiB - 1);
}

TEST_F(PageTableTest, KeepsTo2MOrSmallerWhereTheCpuHasNo1G) {
    PageTable table = make(false);
    ASSERT_TRUE(table.map(base, HostPhys{0}, GiB, Rights::ReadWrite));
    auto const found = leaves(table);
    EXPECT_EQ(found.size(), 512U);
    for (auto const& [virt, leaf] : found)
        EXPECT_EQ(leaf.level, 2U);
}

TEST_F(PageTableTest, PhysicalAlignmentCountsToo) {
    PageTable table = make();
    ASSERT_TRUE(table.map(base, HostPhys{page_size}, 4 * MiB, Rights::Read));
    EXPECT_EQ(leaves(table).size(), 1024U);
    EXPECT_EQ(table.translate(base + 2 * MiB)->value, 2 * MiB + page_size);
}

TEST_F(PageTableTest, SplitsALargePageAndKeepsItsRights) {
    PageTable table = make();
    ASSERT_TRUE(table.map(base, HostPhys{4 * GiB}, GiB, Rights::ReadWrite, MemoryType::Uncached));
    ASSERT_TRUE(table.map(base + 6 * MiB + page_size, HostPhys{0x7000}, page_size, Rights::ReadExecute));
    auto const found = leaves(table);
    EXPECT_EQ(found.size(), 511U + 512U);
    for (auto const& [virt, leaf] : found) {
        if (virt == base.value + 6 * MiB + page_size) {
            EXPECT_EQ(leaf.entry.address().value, 0x7000U);
            continue;
        }
        EXPECT_EQ(table.translate(HostVirt{virt})->value, virt - base.value + 4 * GiB);
        EXPECT_TRUE(leaf.entry.get<PageEntry::Writable>());
        EXPECT_TRUE(leaf.entry.get<PageEntry::NoExecute>());
        EXPECT_TRUE(leaf.entry.get<PageEntry::CacheDisable>());
        EXPECT_EQ(leaf.entry.get<PageEntry::Large>(), leaf.level > 1);
    }
}

TEST_F(PageTableTest, NothingIsEverWritableAndExecutable) {
    PageTable table = make();
    std::mt19937_64 random(11);
    std::map<u64, u64> model; // page -> physical
    for (int i = 0; i < 300; i++) {
        u64 const at = random() % 2048;
        u64 const to = random() % 3 == 0 ? at : random() % 100'000;
        u64 const pages = random() % 3 == 0 ? 512 : 1 + random() % 20;
        ASSERT_TRUE(table.map(base + at * page_size, HostPhys{to * page_size}, pages * page_size,
                              static_cast<Rights>(random() % 3)));
        for (u64 page = 0; page < pages; page++)
            model[at + page] = to + page;
    }
    for (auto const& [page, to] : model)
        EXPECT_EQ(table.translate(base + page * page_size + 5)->value, to * page_size + 5);
    for (auto const& [virt, leaf] : leaves(table)) {
        EXPECT_FALSE(leaf.entry.get<PageEntry::Writable>() && !leaf.entry.get<PageEntry::NoExecute>())
            << std::hex << virt;
        EXPECT_TRUE(leaf.entry.get<PageEntry::Accessed>() && leaf.entry.get<PageEntry::Dirty>());
        EXPECT_EQ(leaf.entry.raw & 4, 0U) << "user";
    }
}

TEST_F(PageTableTest, UnmapsOnePageOfALargeOne) {
    PageTable table = make();
    ASSERT_TRUE(table.map(base, HostPhys{0}, 2 * MiB, Rights::Read));
    table.unmap_page(base + 5 * page_size);
    EXPECT_FALSE(table.translate(base + 5 * page_size + 8));
    EXPECT_TRUE(table.translate(base + 4 * page_size));
    EXPECT_EQ(cpu.invlpg_addresses, (std::vector<u64>{base.value + 5 * page_size}));
}

TEST_F(PageTableTest, RefusesCrookedRequests) {
    PageTable table = make();
    EXPECT_FALSE(table.map(base + 1, HostPhys{0}, page_size, Rights::Read));
    EXPECT_FALSE(table.map(base, HostPhys{1}, page_size, Rights::Read));
    EXPECT_FALSE(table.translate(base));
    ASSERT_TRUE(table.map(base, HostPhys{0}, 1, Rights::Read)); // sizes are rounded up
    EXPECT_TRUE(table.translate(base + page_size - 1));
    EXPECT_FALSE(table.translate(base + page_size));
}

TEST_F(PageTableTest, DoesNotTranslateNonCanonicalAddresses) {
    PageTable table = make();
    ASSERT_TRUE(table.map(base, HostPhys{0}, page_size, Rights::Read));
    EXPECT_FALSE(table.translate(HostVirt{base.value & 0x0000'ffff'ffff'ffff})); // touching it would be #GP
    EXPECT_FALSE(table.translate(HostVirt{base.value ^ (u64{1} << 60)}));
}

TEST_F(PageTableTest, FailsCleanlyWithoutMemory) {
    PageTable table = make();
    support::MemoryShortage const shortage(2);
    EXPECT_FALSE(table.map(base, HostPhys{0}, page_size, Rights::Read)); // needs three tables
    EXPECT_FALSE(table.translate(base));
    EXPECT_FALSE(PageTable::create({true, true}));
}

TEST_F(PageTableTest, DevicesAndStacksGetPlacesOfTheirOwn) {
    kernel::set_kernel_page_table(make());
    auto const a = kernel::map_device(HostPhys{0xfed0'0ff0}, 0x20); // over a page's end
    auto const b = kernel::map_device(HostPhys{0xfee0'0000}, 0x1000);
    ASSERT_TRUE(a && b);
    EXPECT_EQ(a->value % page_size, 0xff0U);
    PageTable const& table = kernel::kernel_page_table();
    EXPECT_EQ(table.translate(*a)->value, 0xfed0'0ff0U);
    EXPECT_EQ(table.translate(*a + 0x1f)->value, 0xfed0'100fU);
    EXPECT_EQ(table.translate(*b)->value, 0xfee0'0000U);
    auto const leaf = leaves(table).at(b->value);
    EXPECT_TRUE(leaf.entry.get<PageEntry::CacheDisable>() && leaf.entry.get<PageEntry::NoExecute>());
    EXPECT_TRUE(leaf.entry.get<PageEntry::WriteThrough>()); // PAT entry 3
    auto const framebuffer = kernel::map_device(HostPhys{0x8000'0000}, 0x1000, MemoryType::WriteCombining);
    auto const combining = leaves(table).at(framebuffer->value);
    EXPECT_FALSE(combining.entry.get<PageEntry::CacheDisable>()); // PAT entry 1
    EXPECT_TRUE(combining.entry.get<PageEntry::WriteThrough>());

    auto const top = kernel::allocate_stack(2);
    auto const next = kernel::allocate_stack(2);
    ASSERT_TRUE(top && next);
    EXPECT_TRUE(table.translate(*top - 1) && table.translate(*top - 2 * page_size));
    EXPECT_FALSE(table.translate(*top - 2 * page_size - 1)) << "guard page";
    EXPECT_FALSE(table.translate(*next - 2 * page_size - 1)) << "guard page";
}

} // namespace
