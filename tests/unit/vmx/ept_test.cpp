// SPDX-License-Identifier: MIT
#include "support/machine_memory.hpp"

#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <vmx/ept.hpp>
#include <vmx/ept_space.hpp>

namespace {

using kernel::Rights;
using lib::GiB;
using lib::GuestPhys;
using lib::HostPhys;
using lib::MiB;
using lib::page_size;
using lib::u64;
using vmx::EptEntry;
using Table = vmx::EptTable;

constexpr auto no_flush = [] {};

struct Found {
    u64 host;
    unsigned level;
    u64 rights;
};

// The walk of the CPU. [intel/vol3] 29.3.2
std::optional<Found> walk(Table const& table, u64 at) {
    HostPhys frame = table.root();
    u64 rights = 7;
    for (unsigned level = 4;; level--) {
        unsigned const shift = 12 + 9 * (level - 1);
        EptEntry const entry = kernel::phys_to_virt<EptEntry>(frame)[at >> shift & 511];
        rights &= entry.raw & 7;
        if ((entry.raw & 7) == 0) return std::nullopt;
        if (level == 1 || (entry.raw >> 7 & 1) != 0) {
            EXPECT_EQ(entry.raw >> 3 & 7, 6U) << "write-back";
            EXPECT_LT(level, 4U);
            u64 const offset = (u64{1} << shift) - 1;
            EXPECT_EQ(entry.raw & 0x000f'ffff'ffff'f000 & offset, 0U) << "reserved bits of a large page";
            return Found{(entry.raw & 0x000f'ffff'ffff'f000 & ~offset) | (at & offset), level, rights};
        }
        EXPECT_EQ(entry.raw & 0xef8, 0U) << "reserved bits of a table entry";
        frame = HostPhys{entry.raw & 0x000f'ffff'ffff'f000};
    }
}

class EptTest : public ::testing::Test {
protected:
    fakes::Cpu cpu;
    u64 free = support::give_memory();
    std::unique_ptr<Table> make(unsigned largest) {
        auto table = std::make_unique<Table>(kernel::TableFormat{.largest_level = largest});
        EXPECT_TRUE(table->create_root());
        return table;
    }
};

TEST_F(EptTest, MapsWithTheLargestPagesAllowed) {
    for (unsigned const largest : {1U, 2U, 3U}) {
        auto const table = make(largest);
        ASSERT_TRUE(table->map({GuestPhys{0}, HostPhys{4 * GiB}, GiB + 2 * MiB + page_size, Rights::All}, no_flush));
        EXPECT_EQ(walk(*table, 0x12345)->level, largest);
        EXPECT_EQ(walk(*table, GiB - 1)->host, 5 * GiB - 1);
        EXPECT_EQ(walk(*table, GiB + 2 * MiB + 7)->host, 5 * GiB + 2 * MiB + 7);
        EXPECT_EQ(walk(*table, GiB + 2 * MiB + 7)->level, 1U);
        EXPECT_FALSE(walk(*table, GiB + 2 * MiB + page_size));
        if (largest == 1) break; // 512 tables are enough once
    }
}

TEST_F(EptTest, RightsAreWhatWasAskedFor) {
    auto const table = make(3);
    ASSERT_TRUE(table->map({GuestPhys{0}, HostPhys{0}, page_size, Rights::Read}, no_flush));
    ASSERT_TRUE(table->map({GuestPhys{page_size}, HostPhys{0}, page_size, Rights::ReadWrite}, no_flush));
    ASSERT_TRUE(table->map({GuestPhys{2 * page_size}, HostPhys{0}, page_size, Rights::All}, no_flush));
    EXPECT_EQ(walk(*table, 0)->rights, 1U);
    EXPECT_EQ(walk(*table, page_size)->rights, 3U);
    EXPECT_EQ(walk(*table, 2 * page_size)->rights, 7U);
}

TEST_F(EptTest, SplitsOnUnmapAndKeepsTheRest) {
    auto const table = make(3);
    ASSERT_TRUE(table->map({GuestPhys{0}, HostPhys{8 * GiB}, GiB, Rights::ReadWrite}, no_flush));
    ASSERT_TRUE(table->unmap({GuestPhys{5 * MiB}, 2 * page_size}, no_flush));
    for (u64 at : {u64{0}, 4 * MiB, 5 * MiB - 1, 5 * MiB + 2 * page_size, 6 * MiB, 512 * MiB + 123, GiB - 1}) {
        ASSERT_TRUE(walk(*table, at)) << at;
        EXPECT_EQ(walk(*table, at)->host, 8 * GiB + at);
        EXPECT_EQ(walk(*table, at)->rights, 3U);
    }
    EXPECT_FALSE(walk(*table, 5 * MiB));
    EXPECT_FALSE(walk(*table, 5 * MiB + 2 * page_size - 1));
    EXPECT_EQ(table->table_bytes(), 4 * page_size);
}

TEST_F(EptTest, UnmappingNothingCostsNothing) {
    auto const table = make(3);
    ASSERT_TRUE(table->unmap({GuestPhys{0}, 64 * MiB}, no_flush));
    EXPECT_EQ(table->table_bytes(), page_size);
    EXPECT_EQ(kernel::memory_use().free, free - page_size);
}

TEST_F(EptTest, ALargePageReplacesTablesAndFreesThem) {
    auto const table = make(3);
    ASSERT_TRUE(table->map({GuestPhys{page_size}, HostPhys{0}, GiB - page_size, Rights::All}, no_flush));
    ASSERT_TRUE(table->map({GuestPhys{0}, HostPhys{GiB}, GiB, Rights::All}, no_flush));
    EXPECT_EQ(walk(*table, 7 * MiB)->host, GiB + 7 * MiB);
    EXPECT_EQ(walk(*table, 0)->level, 3U);
    EXPECT_EQ(table->table_bytes(), 2 * page_size);
}

TEST_F(EptTest, AgreesWithAModelAndReturnsEveryFrame) {
    {
        auto const table = make(3);
        std::map<u64, std::pair<u64, u64>> model; // page -> (host page, rights)
        std::mt19937_64 random(5);
        constexpr u64 window = 4096;
        for (int i = 0; i < 400; i++) {
            u64 const at = random() % 4 == 0 ? random() % (window / 512) * 512 : random() % window;
            u64 const count = random() % 3 == 0 ? 512 : 1 + random() % 30;
            if (random() % 3 == 0) {
                ASSERT_TRUE(table->unmap({GuestPhys{at * page_size}, count * page_size}, no_flush));
                for (u64 page = at; page < at + count; page++)
                    model.erase(page);
            } else {
                u64 const to = random() % 2 == 0 ? at + 512 * (random() % 1000) : random() % 1'000'000;
                auto const rights = static_cast<Rights>(random() % 4);
                ASSERT_TRUE(table->map({GuestPhys{at * page_size}, HostPhys{to * page_size}, count * page_size, rights},
                                       no_flush));
                for (u64 page = at; page < at + count; page++)
                    model[page] = {to + page - at, 1U | (kernel::is_writable(rights) ? 2U : 0U) |
                                                       (kernel::is_executable(rights) ? 4U : 0U)};
            }
        }
        for (u64 page = 0; page < window + 600; page++) {
            auto const found = walk(*table, page * page_size + 9);
            auto const expected = model.find(page);
            ASSERT_EQ(found.has_value(), expected != model.end()) << page;
            if (!found) continue;
            EXPECT_EQ(found->host, expected->second.first * page_size + 9);
            EXPECT_EQ(found->rights, expected->second.second);
        }
        EXPECT_EQ(table->table_bytes(), free - kernel::memory_use().free);
    }
    EXPECT_EQ(kernel::memory_use().free, free);
}

TEST_F(EptTest, SplitsForCodeAndOnlyThere) {
    {
        Table table({.largest_level = 3, .splits_for_code = true});
        ASSERT_TRUE(table.create_root());
        ASSERT_TRUE(table.map({GuestPhys{0}, HostPhys{8 * GiB}, GiB + 2 * MiB, Rights::All}, no_flush));
        ASSERT_TRUE(table.map({GuestPhys{2 * GiB}, HostPhys{12 * GiB}, 2 * MiB, Rights::ReadWrite}, no_flush));
        EXPECT_EQ(walk(table, 5 * MiB)->level, 3U);
        EXPECT_EQ(walk(table, 5 * MiB)->rights, 3U);
        EXPECT_EQ(walk(table, GiB + 5)->rights, 3U);
        {
            support::MemoryShortage const shortage(0); // what it takes is there already
            EXPECT_TRUE(table.split_for_code(GuestPhys{5 * MiB}));
            EXPECT_TRUE(table.split_for_code(GuestPhys{5 * MiB}));
            EXPECT_TRUE(table.split_for_code(GuestPhys{GiB + 5}));
            for (u64 at = 0; at < GiB; at += 2 * MiB)
                EXPECT_TRUE(table.split_for_code(GuestPhys{at}));
        }
        for (u64 const at : {5 * MiB, 5 * MiB + 7 * page_size, 700 * MiB + 3, GiB + 5}) {
            EXPECT_EQ(walk(table, at)->level, 1U);
            EXPECT_EQ(walk(table, at)->rights, 7U);
            EXPECT_EQ(walk(table, at)->host, 8 * GiB + at);
        }
        EXPECT_FALSE(table.split_for_code(GuestPhys{2 * GiB})) << "not executable";
        EXPECT_FALSE(table.split_for_code(GuestPhys{3 * GiB})) << "not mapped";
        EXPECT_FALSE(table.split_for_code(GuestPhys{u64{1} << 48}));
    }
    EXPECT_EQ(kernel::memory_use().free, free);
}

TEST_F(EptTest, RefusesWhatNoGuestCanHave) {
    auto const table = make(3);
    EXPECT_FALSE(table->map({GuestPhys{1}, HostPhys{0}, page_size, Rights::All}, no_flush));
    EXPECT_FALSE(table->map({GuestPhys{0}, HostPhys{1}, page_size, Rights::All}, no_flush));
    EXPECT_FALSE(table->map({GuestPhys{0}, HostPhys{0}, 100, Rights::All}, no_flush));
    EXPECT_FALSE(table->unmap({GuestPhys{0}, 100}, no_flush));
    EXPECT_FALSE(table->map({GuestPhys{u64{1} << 48}, HostPhys{0}, page_size, Rights::All}, no_flush));
    EXPECT_FALSE(table->unmap({GuestPhys{~u64{0} - 4095}, page_size}, no_flush));
    EXPECT_EQ(table->table_bytes(), page_size);
}

TEST_F(EptTest, FailsWithoutMemoryAndStillReturnsEverything) {
    for (unsigned left = 0; left < 4; left++) {
        {
            support::MemoryShortage const shortage(left);
            Table table({.largest_level = 3});
            EXPECT_EQ(table.create_root().has_value(), left > 0);
            if (left > 0)
                EXPECT_EQ(table.map({GuestPhys{0}, HostPhys{0}, page_size, Rights::All}, no_flush).has_value(),
                          left > 3);
        }
        EXPECT_EQ(kernel::memory_use().free, free) << left;
    }
}

class EptSpaceTest : public EptTest {
protected:
    EptSpaceTest() {
        cpu.cr4 |= 1 << 13;
        cpu.populate_msr(0x3a, 5);
        cpu.vmxon(0x1000);
        capabilities.ept_vpid.set<vmx::EptVpidCapabilities::Pages2m>(true);
    }
    vmx::Capabilities capabilities{};
};

TEST_F(EptSpaceTest, PointsToAFourLevelWriteBackTable) {
    {
        vmx::EptSpace space(capabilities);
        ASSERT_TRUE(space.create(true));
        EXPECT_EQ(space.pointer().raw & 0xfff, 0x1eU); // [intel/vol3] table 25-9
        EXPECT_EQ(space.table_bytes(), 4 * page_size);
        EXPECT_NE(space.apic_access_page().value, 0U);
        ASSERT_TRUE(space.map({GuestPhys{0}, HostPhys{0}, 2 * MiB, Rights::All}));
        cpu.vmx.invepts.clear();
        ASSERT_TRUE(space.unmap(GuestPhys{0}, page_size));
        EXPECT_EQ(cpu.vmx.invepts.size(), 1U);
        cpu.vmx.invepts.clear();
    }
    EXPECT_EQ(cpu.vmx.invepts.size(), 1U); // nobody finds the dead tables in a TLB
    EXPECT_EQ(kernel::memory_use().free, free);
}

} // namespace
