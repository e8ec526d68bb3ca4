// SPDX-License-Identifier: MIT
// The places of doorbells that vCPUs find without the platform's lock: they must be those at which the platform itself
// would tell the host of a doorbell, of the same device, and no others.
#include <platform/platform.hpp>

#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <memory>
#include <vector>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using platform::Doorbells;
using platform::Op;
using platform::Space;
using What = fakes::FakeHost::ServedCall::What;

constexpr u8 set_up = 3, FEATURES_OK = 8, DRIVER_OK = 4;
constexpr u64 doorbells = 0x2000;

struct DoorbellsTest : testing::Test {
    static constexpr u64 ram_size = 0x1'0000;
    static constexpr u64 bars[] = {0xc000'0000, 0xc010'0000};
    static constexpr u16 ports[] = {0x2000, 0x2100};
    fakes::FakeHost host;
    std::vector<u64> ram = std::vector<u64>(ram_size / 8);
    lib::RamPiece piece{{0}, ram_size, reinterpret_cast<u8*>(ram.data())};
    std::unique_ptr<platform::Platform> platform;

    void SetUp() override {
        host.memory = lib::GuestMemory({&piece, 1});
        host.facts.disks = {};
        host.facts.disks[0] = host.facts.disks[1] = {1000, 2, true, false};
        platform = std::make_unique<platform::Platform>(host, host.memory, host.facts);
        for (u32 disk = 0; disk < 2; disk++) {
            set_function(disk, 0x10, bars[disk]);
            set_function(disk, 0x20, ports[disk]);
            set_function(disk, 0x04, 7); // ports, memory, bus master
        }
    }
    void set_function(u32 disk, u32 offset, u64 value) { set_slot(2 + disk, offset, value); }
    void set_slot(u32 slot, u32 offset, u64 value) {
        platform->io(Space::Mmio, 0xe000'0000 + (u64{slot} << 15) + offset, 4, Op::Write, value);
    }
    void out(u32 disk, u64 offset, u64 value, u8 size) {
        platform->io(Space::Mmio, bars[disk] + offset, size, Op::Write, value);
    }
    void enable(u32 disk, u32 queue) {
        out(disk, 22, queue, 2);
        out(disk, 24, 16, 2);
        out(disk, 32, 0x1000, 8);
        out(disk, 40, 0x2000, 8);
        out(disk, 48, 0x3000, 8);
        out(disk, 28, 1, 2);
    }
    void start(u32 disk, u32 queues = 2) {
        out(disk, 20, set_up, 1);
        out(disk, 8, 1, 4);
        out(disk, 12, 1, 4); // VERSION_1
        out(disk, 20, set_up | FEATURES_OK, 1);
        for (u32 queue = 0; queue < queues; queue++)
            enable(disk, queue);
        out(disk, 20, set_up | FEATURES_OK | DRIVER_OK, 1);
    }
    u32 at_port(u64 port, u8 size = 2) const { return platform->doorbells().at_port(port, size); }
    u32 in_memory(u64 address, u8 size = 2) const { return platform->doorbells().in_memory(address, size); }
    // Of which disk the platform tells the host when a guest writes there. An access that changes what the devices do
    // is not for this.
    u32 told_by_platform(Space space, u64 address, u8 size) {
        host.served_calls.clear();
        platform->io(space, address, size, Op::Write, 0);
        if (host.served_calls.empty()) return Doorbells::none;
        EXPECT_EQ(host.served_calls.size(), 1U);
        EXPECT_EQ(host.served_calls[0].what, What::Doorbell);
        return host.served_calls[0].device;
    }
    // Around all doorbells. What is found is right; returns how many are.
    u32 check() {
        u32 found = 0;
        auto const compare = [&](Space space, u64 at, u8 size) {
            u32 const disk = space == Space::Pio ? at_port(at, size) : in_memory(at, size);
            if (disk == Doorbells::none) return; // the platform sees to it
            found++;
            EXPECT_EQ(disk, told_by_platform(space, at, size)) << std::hex << at << " of size " << u32{size};
        };
        for (u8 const size : {u8{1}, u8{2}, u8{4}, u8{8}})
            for (u64 offset = 0; offset < 0x120; offset++) {
                compare(Space::Pio, ports[0] - 0x10 + offset, size);
                for (u64 const bar : bars)
                    compare(Space::Mmio, bar + doorbells - 0x10 + offset, size);
            }
        return found;
    }
};

TEST_F(DoorbellsTest, ThoseOfRunningQueuesAreFound) {
    start(0);
    start(1, 1);
    EXPECT_EQ(at_port(ports[0]), 0U);
    EXPECT_EQ(at_port(ports[0] + 4), 0U);
    EXPECT_EQ(at_port(ports[1]), 1U);
    EXPECT_EQ(at_port(ports[1] + 4), Doorbells::none) << "not enabled";
    EXPECT_EQ(in_memory(bars[0] + doorbells + 4), 0U);
    EXPECT_EQ(in_memory(bars[1] + doorbells), 1U);
    EXPECT_EQ(check(), 3U * 3 * 2) << "three queues, three sizes, ports and memory";
}

TEST_F(DoorbellsTest, ThoseOfANicAreFoundUnderItsNumberAfterTheDisks) {
    constexpr u32 slot = 6;
    host.facts.nics = {};
    host.facts.nics[0] = {{2, 0, 0, 0, 0, 1}, true};
    platform = std::make_unique<platform::Platform>(host, host.memory, host.facts);
    set_slot(slot, 0x10, bars[0]);
    set_slot(slot, 0x20, ports[0]);
    set_slot(slot, 0x04, 7);
    start(0);
    EXPECT_EQ(at_port(ports[0]), lib::max_disks);
    EXPECT_EQ(at_port(ports[0] + 4), lib::max_disks);
    EXPECT_EQ(in_memory(bars[0] + doorbells + 4), lib::max_disks);
    EXPECT_EQ(check(), 2U * 3 * 2) << "receiver and transmitter, three sizes, ports and memory";
    out(0, 20, 0, 1);
    EXPECT_EQ(check(), 0U);
}

TEST_F(DoorbellsTest, OtherAccessesAreNotTakenForThem) {
    start(0);
    for (u64 const offset : {1U, 2U, 3U, 8U, 16U, 32U})
        EXPECT_EQ(at_port(ports[0] + offset), Doorbells::none) << offset;
    EXPECT_EQ(at_port(ports[0] - 1), Doorbells::none);
    EXPECT_EQ(at_port(ports[0], 8), Doorbells::none);
    EXPECT_EQ(in_memory(bars[0]), Doorbells::none);
    EXPECT_EQ(in_memory(bars[0] + doorbells, 8), Doorbells::none);
}

TEST_F(DoorbellsTest, NothingIsFoundBeforeTheDriverIsReadyAndAfterAReset) {
    EXPECT_EQ(check(), 0U);
    out(0, 20, set_up, 1);
    out(0, 8, 1, 4);
    out(0, 12, 1, 4);
    out(0, 20, set_up | FEATURES_OK, 1);
    enable(0, 0);
    EXPECT_EQ(at_port(ports[0]), Doorbells::none) << "DRIVER_OK is missing";
    out(0, 20, set_up | FEATURES_OK | DRIVER_OK, 1);
    EXPECT_EQ(at_port(ports[0]), 0U);
    out(0, 20, 0, 1);
    EXPECT_EQ(check(), 0U);
    start(0);
    EXPECT_EQ(at_port(ports[0]), 0U);
    platform->reset();
    EXPECT_EQ(check(), 0U);
}

TEST_F(DoorbellsTest, NothingIsFoundAfterMisuse) {
    start(0);
    platform->served_misused(0);
    EXPECT_EQ(check(), 0U);
    start(1);
    out(1, 20, set_up, 1); // takes status bits away
    EXPECT_EQ(check(), 0U);
}

TEST_F(DoorbellsTest, NothingIsFoundWithoutTheRightToWriteMemory) {
    start(0);
    set_function(0, 0x04, 3);
    EXPECT_EQ(check(), 0U);
}

TEST_F(DoorbellsTest, TheyMoveWithTheirBars) {
    start(0);
    set_function(0, 0x20, 0x3000);
    set_function(0, 0x10, 0xc800'0000);
    EXPECT_EQ(at_port(ports[0]), Doorbells::none);
    EXPECT_EQ(in_memory(bars[0] + doorbells), Doorbells::none);
    EXPECT_EQ(at_port(0x3000), 0U);
    EXPECT_EQ(in_memory(0xc800'0000 + doorbells), 0U);
    EXPECT_EQ(told_by_platform(Space::Pio, 0x3000, 2), 0U);
    set_function(0, 0x20, ~0U); // a driver asks for the size
    set_function(0, 0x10, ~0U);
    EXPECT_EQ(at_port(0x3000), Doorbells::none);
    EXPECT_EQ(in_memory(0xc800'0000 + doorbells), Doorbells::none);
    set_function(0, 0x10, bars[0]);
    set_function(0, 0x20, ports[0]);
    set_function(0, 0x04, 4); // bus master only: nothing is decoded
    EXPECT_EQ(check(), 0U);
    set_function(0, 0x04, 6);
    for (u64 const port : {u64{0}, u64{3}, u64{0xffff}, u64{ports[0]}})
        EXPECT_EQ(at_port(port), Doorbells::none) << "they are nowhere";
    EXPECT_EQ(in_memory(bars[0] + doorbells), 0U);
}

TEST_F(DoorbellsTest, BarsThatOverlapAreLeftToThePlatform) {
    start(0);
    start(1);
    set_function(1, 0x20, ports[0]);
    EXPECT_EQ(at_port(ports[0]), Doorbells::none);
    EXPECT_EQ(told_by_platform(Space::Pio, ports[0], 2), 0U) << "the lower slot wins";
    EXPECT_EQ(in_memory(bars[1] + doorbells), 1U);
    set_function(1, 0x10, bars[0] + 0x1'0000);
    EXPECT_EQ(in_memory(bars[0] + doorbells), 0U) << "beside each other";
    EXPECT_EQ(in_memory(bars[0] + 0x1'0000 + doorbells), 1U);
    set_function(1, 0x10, bars[0]);
    EXPECT_EQ(in_memory(bars[0] + doorbells), Doorbells::none);
    set_function(1, 0x20, ports[1]);
    set_function(1, 0x10, bars[1]);
    EXPECT_EQ(check(), 4U * 3 * 2);
}

TEST_F(DoorbellsTest, ARestoredPlatformHasThem) {
    start(1);
    std::vector<u8> saved(platform->saved_size());
    ASSERT_TRUE(platform->save(saved));
    platform = std::make_unique<platform::Platform>(host, host.memory, host.facts);
    EXPECT_EQ(check(), 0U);
    ASSERT_TRUE(platform->restore(saved));
    EXPECT_EQ(at_port(ports[1]), 1U);
    EXPECT_EQ(check(), 2U * 3 * 2);
}

} // namespace
