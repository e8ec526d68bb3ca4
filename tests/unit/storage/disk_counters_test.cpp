// SPDX-License-Identifier: MIT
// What the service counts of a guest's disk.
#include "disks.hpp"

#include <gtest/gtest.h>

namespace {

using namespace storage_test;
using service::latency_steps;

[[maybe_unused]] bool const reports = [] {
    on_broken_promise = [](char const* what) { ADD_FAILURE() << what; };
    return true;
}();

constexpr u64 header_at = 0x8000, status_at = 0x8800, data_at = 0x1'0000;
constexpr u64 microsecond = World::hz / 1'000'000;

struct CountersTest : testing::Test {
    DiskWorld machine;
    World& world = machine.world;
    MachineDisk disk{2 * lib::MiB / sector, 512};
    Guest& guest = world.add_disk(8, false, 1, 0x4'0000);
    Driver driver{world, 0, 0, 64};
    u32 slot = 0;

    CountersTest() {
        machine.disks = {&disk};
        machine.prepare = [](FakeController& controller) { controller.may_share = true; };
        driver.start();
    }
    service::DiskStatistics const& said() { return world.statistics->devices[0]; }
    void add(u32 type, u64 first, u32 size) {
        u64 const header = header_at + slot % 16 * u64{32};
        driver.put_header(header, type, first);
        if (type == WRITE_ZEROES || type == DISCARD) { // one range, after the header
            guest.put<u64>(header + 16, first);
            guest.put<u64>(header + 24, size / sector);
            driver.add({{header, 32, false}, {status_at, 1, true}});
        } else if (size == 0) {
            driver.add({{header, 16, false}, {status_at, 1, true}});
        } else {
            driver.add({{header, 16, false}, {data_at, size, type == IN || type == GET_ID}, {status_at, 1, true}});
        }
        slot++;
        driver.ring();
    }
    u64 all_latencies(u32 kind) {
        u64 sum = 0;
        for (u64 const count : said().latencies[kind])
            sum += count;
        return sum;
    }
};

TEST_F(CountersTest, RequestsOfADiskInMemoryByKind) {
    world.start();
    world.run();
    for (u32 i = 0; i < 3; i++)
        add(IN, 0, 4096), world.run();
    for (u32 i = 0; i < 2; i++)
        add(OUT, 1, 512), world.run();
    add(FLUSH, 0, 0);
    add(DISCARD, 0, 1024);
    add(WRITE_ZEROES, 0, 2048);
    add(GET_ID, 0, 20);
    world.run();
    EXPECT_EQ(said().errors, 0U);
    add(7, 0, 0);         // no such request
    add(IN, 7, 1024);     // beyond the end
    add(OUT, 1'000, 512); // the same
    world.run();
    u64 const requests[] = {4, 3, 1, 2, 2}, bytes[] = {3 * 4096, 2 * 512, 0, 3072, 0};
    EXPECT_TRUE(std::ranges::equal(said().requests, requests));
    EXPECT_TRUE(std::ranges::equal(said().bytes, bytes));
    EXPECT_EQ(said().errors, 3U);
    EXPECT_EQ(said().under_way, 0U);
    EXPECT_EQ(said().most_under_way, 1U);
    EXPECT_EQ(all_latencies(0), 4U);
    EXPECT_EQ(all_latencies(1), 3U);
    EXPECT_EQ(all_latencies(2), 1U);
}

TEST_F(CountersTest, DepthAndLatencyOfAPart) {
    machine.use_disk(0, 0, lib::MiB);
    world.start();
    world.run();
    for (u32 i = 0; i < 3; i++)
        add(IN, 0, 512);
    add(FLUSH, 0, 0);
    world.run();
    EXPECT_EQ(said().under_way, 4U);
    EXPECT_EQ(said().requests[0], 0U);
    world.now += 5 * microsecond;
    machine.controller->end(0);
    machine.interrupt();
    world.run();
    EXPECT_EQ(said().under_way, 3U);
    EXPECT_EQ(said().latencies[0][3], 1U) << "below 8 us";
    world.now += 1'000'000 * microsecond;
    machine.controller->end(0, false);
    machine.interrupt();
    world.run();
    EXPECT_EQ(said().latencies[0][20], 1U) << "below 1048576 us";
    EXPECT_EQ(said().errors, 1U);
    world.now += World::hz * 3'600;
    machine.controller->end_all();
    machine.interrupt();
    world.run();
    EXPECT_EQ(said().latencies[0][latency_steps - 1], 1U);
    EXPECT_EQ(said().latencies[2][latency_steps - 1], 1U);
    EXPECT_EQ(said().under_way, 0U);
    EXPECT_EQ(said().most_under_way, 4U);
}

TEST_F(CountersTest, WhatIsDroppedIsNotUnderWay) {
    machine.use_disk(0, 0, lib::MiB);
    world.start();
    world.run();
    for (u32 i = 0; i < 6; i++) // the controller takes four
        add(OUT, 0, 512);
    world.run();
    EXPECT_EQ(said().under_way, 6U);
    world.board->devices[0].stops = 1;
    driver.stop();
    world.run();
    EXPECT_EQ(said().under_way, 0U);
    machine.controller->end_all();
    machine.interrupt();
    world.run();
    EXPECT_EQ(said().under_way, 0U);
    EXPECT_EQ(said().requests[1], 0U);
    EXPECT_EQ(world.answers[0].size(), 1U);
}

TEST_F(CountersTest, TheNextInstanceCountsOn) {
    machine.use_disk(0, 0, lib::MiB);
    world.start();
    world.run();
    add(IN, 0, 512);
    machine.settle();
    add(IN, 0, 512);
    world.run();
    EXPECT_EQ(said().under_way, 1U);
    world.start();
    world.turn();
    EXPECT_EQ(said().under_way, 1U) << "taken again";
    machine.settle();
    EXPECT_EQ(said().requests[0], 2U);
    EXPECT_EQ(said().under_way, 0U);
    EXPECT_EQ(said().most_under_way, 1U);
}

TEST(DiskCounters, StepsArePowersOfTwoOfMicroseconds) {
    service::DiskStatistics said{};
    for (u64 const hz : {u64{1'000'000}, u64{1'000'000'000}, u64{2'399'999'971}, u64{6'000'000'000}}) {
        storage::DiskCounters counters;
        counters.start(said, hz);
        EXPECT_EQ(counters.step_of(0), 0U);
        for (u32 step = 1; step < latency_steps; step++) {
            u64 const middle = (u64{3} << step) * (hz / 1'000'000) / 4; // of [2^(step-1), 2^step)
            EXPECT_EQ(counters.step_of(middle), step) << hz;
        }
        for (u64 const ticks : {u64{1} << 40, u64{1} << 62, ~u64{0} / 2})
            EXPECT_EQ(counters.step_of(ticks), latency_steps - 1);
        EXPECT_EQ(counters.step_of(~u64{0}), 0U);
    }
    storage::DiskCounters counters;
    counters.start(said, 0); // a clock that nobody measured
    EXPECT_LT(counters.step_of(~u64{0} / 2), latency_steps);
}

} // namespace
