// SPDX-License-Identifier: MIT
// Nested page tables as the CPU walks them: 4 KiB, 2 MiB and 1 GiB pages.
#include "support/machine_memory.hpp"

#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <svm/npt.hpp>

namespace {

using kernel::Rights;
using lib::GiB;
using lib::GuestPhys;
using lib::HostPhys;
using lib::MiB;
using lib::page_size;
using lib::u64;
using Table = svm::NptTable;

constexpr u64 present = 1, writable = 2, user = 4, large = 1U << 7, no_execute = u64{1} << 63;

constexpr auto no_flush = [] {};

struct Found {
    u64 host;
    unsigned level;
    Rights rights;
};

// [amd/vol2] 5.3.3, 15.25.5
std::optional<Found> walk(Table const& table, u64 at) {
    HostPhys frame = table.root();
    bool can_write = true, can_execute = true;
    for (unsigned level = 4;; level--) {
        unsigned const shift = 12 + 9 * (level - 1);
        u64 const entry = kernel::phys_to_virt<u64>(frame)[at >> shift & 511];
        if ((entry & present) == 0) return std::nullopt;
        EXPECT_NE(entry & user, 0U) << "every nested walk is a user access";
        can_write = can_write && (entry & writable) != 0;
        can_execute = can_execute && (entry & no_execute) == 0;
        u64 const address = entry & 0x000f'ffff'ffff'f000;
        if (level > 1 && (entry & large) == 0) {
            EXPECT_LE(level, 4U);
            frame = HostPhys{address};
            continue;
        }
        EXPECT_LT(level, 4U) << "no page has 512 GiB";
        u64 const offset = (u64{1} << shift) - 1;
        EXPECT_EQ(address & offset, 0U) << "reserved bits, or PAT, of a large page";
        return Found{address | (at & offset), level, kernel::make_rights(can_write, can_execute)};
    }
}

class NptTest : public ::testing::Test {
protected:
    fakes::Cpu cpu;
    u64 free = support::give_memory();
    std::unique_ptr<Table> make(unsigned largest) {
        auto table = std::make_unique<Table>(kernel::TableFormat{.largest_level = largest});
        EXPECT_TRUE(table->create_root());
        return table;
    }
};

TEST_F(NptTest, MapsWithTheLargestPagesTheCpuHas) {
    for (unsigned const largest : {1U, 2U, 3U}) {
        auto const table = make(largest);
        ASSERT_TRUE(table->map({GuestPhys{0}, HostPhys{4 * GiB}, GiB + 2 * MiB + page_size, Rights::All}, no_flush));
        EXPECT_EQ(walk(*table, 0x12345)->level, largest);
        EXPECT_EQ(walk(*table, GiB - 1)->host, 5 * GiB - 1);
        EXPECT_EQ(walk(*table, GiB + 1)->level, largest == 1 ? 1U : 2U);
        EXPECT_EQ(walk(*table, GiB + 2 * MiB + 7)->host, 5 * GiB + 2 * MiB + 7);
        EXPECT_EQ(walk(*table, GiB + 2 * MiB + 7)->level, 1U);
        EXPECT_FALSE(walk(*table, GiB + 2 * MiB + page_size));
    }
    EXPECT_EQ(kernel::memory_use().free, free);
}

TEST_F(NptTest, AgreesWithAModelAndReturnsEveryFrame) {
    {
        auto const table = make(3);
        std::map<u64, std::pair<u64, Rights>> model; // page -> host page
        std::mt19937_64 random(7);
        constexpr u64 window = 4096;
        for (int i = 0; i < 400; i++) {
            u64 const at = random() % 4 == 0 ? random() % (window / 512) * 512 : random() % window;
            u64 const count = random() % 3 == 0 ? 512 : 1 + random() % 30;
            if (random() % 3 == 0) {
                ASSERT_TRUE(table->unmap({GuestPhys{at * page_size}, count * page_size}, no_flush));
                for (u64 page = at; page < at + count; page++)
                    model.erase(page);
                continue;
            }
            u64 const to = random() % 2 == 0 ? at + 512 * (random() % 1000) : random() % 1'000'000;
            auto const rights = static_cast<Rights>(random() % 4);
            ASSERT_TRUE(
                table->map({GuestPhys{at * page_size}, HostPhys{to * page_size}, count * page_size, rights}, no_flush));
            for (u64 page = at; page < at + count; page++)
                model[page] = {to + page - at, rights};
        }
        for (u64 page = 0; page < window + 600; page++) {
            auto const found = walk(*table, page * page_size + 9);
            auto const expected = model.find(page);
            ASSERT_EQ(found.has_value(), expected != model.end()) << page;
            if (!found) continue;
            ASSERT_EQ(found->host, expected->second.first * page_size + 9) << page;
            ASSERT_EQ(found->rights, expected->second.second) << page;
        }
    }
    EXPECT_EQ(kernel::memory_use().free, free);
}

} // namespace
