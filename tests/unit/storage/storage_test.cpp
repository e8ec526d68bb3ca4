// SPDX-License-Identifier: MIT
// Queues, their doorbells and interrupts; turns among disks; what the board says and how it changes.
#include "driver.hpp"

#include <gtest/gtest.h>

namespace {

using namespace storage_test;

constexpr u64 header_at = 0x8000, status_at = 0x8400, data_at = 0x9000;
constexpr u64 sectors = 64;

// Puts request `number` of several at their own places; all of one data buffer.
void add_request(Guest& guest, Driver& driver, u32 number, u32 type, u64 first, u32 size = 512) {
    u64 const header = header_at + number % 64 * u64{16};
    driver.put_header(header, type, first);
    guest.put<u8>(status_at + number % 64, untouched);
    driver.add({{header, 16, false}, {data_at, size, type == IN}, {status_at + number % 64, 1, true}});
}

struct StorageTest : testing::Test {
    World world;

    // Serves one write of `value` to sector `first`.
    void write(u32 device, Driver& driver, u64 first, u8 value) {
        Guest& guest = *world.guests[device];
        guest.fill(data_at, value, 512);
        add_request(guest, driver, 0, OUT, first);
        driver.ring();
        world.run();
        ASSERT_TRUE(driver.has_used());
        EXPECT_EQ(driver.next_used().written, 1U);
        EXPECT_EQ(guest.get<u8>(status_at), OK);
        EXPECT_TRUE(guest.medium_is(first, value));
    }
};

TEST_F(StorageTest, IndicesWrapAround) {
    Guest& guest = world.add_disk(sectors);
    Driver driver(world, 0);
    for (bool const has_event_index : {false, true}) {
        driver.start(has_event_index);
        world.start();
        world.run();
        u32 const before = world.interrupts[0][0];
        for (u32 i = 0; i < 70'000; i += 4) {
            for (u32 j = 0; j < 4; j++)
                add_request(guest, driver, i + j, FLUSH, 0);
            guest.put<u16>(driver.used_event(), driver.used_index); // an interrupt for the first one
            driver.ring();
            world.run();
            for (u32 j = 0; j < 4; j++) {
                ASSERT_TRUE(driver.has_used());
                driver.next_used();
                ASSERT_EQ(guest.get<u8>(status_at + (i + j) % 64), OK);
            }
            ASSERT_FALSE(driver.has_used());
        }
        EXPECT_EQ(world.interrupts[0][0] - before, 70'000U / 4);
    }
    EXPECT_EQ(world.misuses[0], 0U);
}

TEST_F(StorageTest, DriverThatWantsNoInterruptGetsNone) {
    Guest& guest = world.add_disk(sectors);
    Driver driver(world, 0);
    driver.start();
    guest.put<u16>(driver.available(), 1); // NO_INTERRUPT
    world.start();
    world.run();
    write(0, driver, 1, 0x11);
    EXPECT_EQ(world.interrupts[0][0], 0U);
    guest.put<u16>(driver.available(), 0);
    write(0, driver, 1, 0x22);
    EXPECT_EQ(world.interrupts[0][0], 1U);
}

TEST_F(StorageTest, EventIndexSaysForWhichRequestTheDriverWaits) {
    Guest& guest = world.add_disk(sectors);
    Driver driver(world, 0);
    driver.start(true);
    guest.put<u16>(driver.used_event(), 2); // for the third
    world.start();
    world.run();
    for (u32 i = 0; i < 5; i++) {
        write(0, driver, 1, 0x11);
        EXPECT_EQ(world.interrupts[0][0], i < 2 ? 0U : 1U);
    }
}

TEST_F(StorageTest, DoorbellIsAskedForOnlyBeforeSleep) {
    Guest& guest = world.add_disk(8 * lib::MiB / sector, false, 1, 0x8'0000);
    Driver driver(world, 0);
    driver.start(true);
    world.start();
    world.run();
    EXPECT_EQ(guest.get<u16>(driver.avail_event()), 0);
    for (u32 i = 0; i < 5; i++)
        add_request(guest, driver, i, OUT, 0, 0x6'0000);
    driver.ring();
    world.turn();
    EXPECT_TRUE(world.has_more);
    EXPECT_EQ(guest.get<u16>(driver.avail_event()), 0); // it works: the driver need not ring
    world.run();
    EXPECT_EQ(driver.device_index(), 5);
    EXPECT_EQ(guest.get<u16>(driver.avail_event()), 5);
}

TEST_F(StorageTest, RequestOfADriverThatSawNoNeedToRingIsServed) {
    Guest& guest = world.add_disk(8 * lib::MiB / sector, false, 1, 0x8'0000);
    Driver driver(world, 0);
    driver.start(true);
    world.start();
    world.run();
    for (u32 i = 0; i < 3; i++)
        add_request(guest, driver, i, OUT, 0, 0x6'0000);
    driver.ring();
    world.turn();
    ASSERT_TRUE(world.has_more);
    add_request(guest, driver, 3, OUT, 0); // without a doorbell
    world.run();
    EXPECT_EQ(driver.device_index(), 4);
}

TEST_F(StorageTest, DisksAndVmsAreApart) {
    world.add_disk(sectors);
    world.add_disk(sectors);
    Driver first(world, 0), second(world, 1);
    first.start();
    second.start();
    world.start();
    world.run();
    write(0, first, 1, 0x11);
    write(1, second, 2, 0x22);
    EXPECT_TRUE(world.guests[0]->medium_is(0, 0));
    EXPECT_TRUE(world.guests[0]->medium_is(2, 0, sectors - 2));
    EXPECT_TRUE(world.guests[1]->medium_is(0, 0, 2));
    EXPECT_TRUE(world.guests[1]->medium_is(3, 0, sectors - 3));
    EXPECT_TRUE(world.guests[1]->is_filled(data_at, 0x22, 512));
    EXPECT_EQ(world.interrupts[0][0], 1U);
    EXPECT_EQ(world.interrupts[1][0], 1U);
}

TEST_F(StorageTest, MisuseOfOneDiskLeavesTheOtherAlone) {
    world.add_disk(sectors);
    world.add_disk(sectors);
    Driver first(world, 0), second(world, 1);
    first.start();
    second.start();
    world.start();
    world.run();
    first.make_available(99); // no such descriptor
    first.ring();
    write(1, second, 2, 0x22);
    EXPECT_EQ(world.misuses[0], 1U);
    EXPECT_EQ(world.misuses[1], 0U);
}

TEST_F(StorageTest, MoreThanTheRingHasRoomForIsMisuse) {
    Guest& guest = world.add_disk(sectors);
    Driver driver(world, 0);
    driver.start();
    world.start();
    world.run();
    guest.put<u16>(driver.available() + 2, 17);
    driver.ring();
    EXPECT_EQ(world.run(), 1U);
    EXPECT_EQ(world.misuses[0], 1U);
}

TEST_F(StorageTest, EndlessRequestsOfOneDiskDoNotHoldUpAnother) {
    Guest& busy = world.add_disk(8 * lib::MiB / sector, false, 1, 0x8'0000);
    world.add_disk(sectors);
    Driver first(world, 0), second(world, 1);
    first.start();
    second.start();
    world.start();
    world.run();
    u32 number = 0;
    auto const refill = [&] {
        while (first.has_used())
            first.next_used();
        while (static_cast<u16>(first.available_index - first.used_index) < 5)
            add_request(busy, first, number++, OUT, 0, 0x6'0000);
    };
    refill();
    first.ring();
    for (u32 i = 0; i < 20; i++) {
        u16 const served = first.device_index();
        add_request(*world.guests[1], second, 0, OUT, 3);
        second.ring();
        world.turn();
        ASSERT_TRUE(world.has_more);
        ASSERT_TRUE(second.has_used()) << "turn " << i;
        second.next_used();
        ASSERT_LE(static_cast<u16>(first.device_index() - served), 3); // 1 MiB
        refill();
    }
}

TEST_F(StorageTest, QueuesOfADiskTakeTurns) {
    Guest& guest = world.add_disk(8 * lib::MiB / sector, false, 2, 0x8'0000);
    Driver first(world, 0, 0), second(world, 0, 1);
    first.start();
    second.start();
    world.start();
    world.run();
    for (u32 i = 0; i < 5; i++)
        add_request(guest, first, i, OUT, 0, 0x6'0000);
    add_request(guest, second, 5, OUT, 0);
    first.ring();
    world.turn();
    EXPECT_FALSE(second.has_used());
    world.turn();
    EXPECT_TRUE(second.has_used());
    world.run();
    EXPECT_EQ(first.device_index(), 5);
    EXPECT_EQ(world.interrupts[0][1], 1U);
}

// A driver that adds a request with each interrupt, as fast as they are served.
TEST_F(StorageTest, SmallRequestsEndATurnToo) {
    struct Restless final : public storage::Host {
        World& world;
        Driver& driver;
        u32 added = 0;
        Restless(World& w, Driver& d) : world(w), driver(d) {}
        void interrupt(u32, u32) override {
            for (; static_cast<u16>(driver.available_index - driver.device_index()) < 8; added++)
                add_request(*world.guests[0], driver, added, FLUSH, 0);
        }
        void misuse(u32) override { FAIL(); }
        void stopped(u32, u32) override { FAIL(); }
        void log(std::string_view) override {}
        u64 ticks() override { return 0; }
        u64 ticks_per_second() const override { return World::hz; }
        u8* ram_window(u32 device) override { return world.ram_window(device); }
        u8* medium_window(u32 device) override { return world.medium_window(device); }
    };
    world.add_disk(sectors);
    Driver driver(world, 0);
    driver.start();
    Restless host(world, driver);
    storage::Storage storage(host, *world.board, *world.records, *world.statistics);
    host.interrupt(0, 0);
    EXPECT_TRUE(storage.turn(service::event_board));
    EXPECT_EQ(driver.device_index(), storage::BlockDevice::turn_budget / storage::BlockDevice::request_cost);
    EXPECT_TRUE(storage.turn(0));
    EXPECT_EQ(driver.device_index(), 2 * storage::BlockDevice::turn_budget / storage::BlockDevice::request_cost);
}

TEST_F(StorageTest, QueueThatStopsWithARequestInWorkForgetsIt) {
    Guest& guest = world.add_disk(8 * lib::MiB / sector, false, 1, 0x8'0000);
    Driver driver(world, 0);
    driver.start();
    world.start();
    world.run();
    driver.put_header(header_at, OUT, 0);
    guest.fill(data_at, 0x33, 0x6'0000);
    driver.add({{header_at, 16, false},
                {data_at, 0x6'0000, false},
                {data_at, 0x6'0000, false},
                {data_at, 0x6'0000, false},
                {status_at, 1, true}});
    driver.ring();
    world.turn();
    ASSERT_TRUE(world.has_more);
    driver.stop();
    guest.put<u8>(status_at, untouched);
    world.run();
    EXPECT_EQ(guest.get<u8>(status_at), untouched);
    EXPECT_EQ(driver.device_index(), 0);
    driver.start();
    world.run();
    write(0, driver, 5, 0x44);
}

TEST_F(StorageTest, QueueGoesOnWhileTheBoardChanges) {
    Guest& guest = world.add_disk(8 * lib::MiB / sector, false, 1, 0x8'0000);
    Driver driver(world, 0);
    driver.start();
    world.start();
    world.run();
    for (u32 i = 0; i < 4; i++)
        add_request(guest, driver, i, OUT, 0, 0x6'0000);
    driver.ring();
    world.turn();
    ASSERT_TRUE(world.has_more);
    world.add_disk(sectors);
    Driver other(world, 1);
    other.start();
    world.run();
    EXPECT_EQ(driver.device_index(), 4);
    write(1, other, 1, 0x55);
}

TEST_F(StorageTest, DiskThatGoesIsNotTouchedAndAnotherMayComeInItsPlace) {
    Guest& guest = world.add_disk(sectors);
    Driver driver(world, 0);
    driver.start();
    world.start();
    world.run();
    write(0, driver, 1, 0x11);
    service::DeviceEntry const entry = world.board->devices[0];
    world.board->devices[0] = {};
    world.change_board();
    world.run();
    EXPECT_EQ(world.lines, 2U);
    add_request(guest, driver, 0, OUT, 2);
    driver.ring();
    world.run();
    EXPECT_EQ(driver.device_index(), 1);
    world.board->devices[0] = entry;
    world.board->devices[0].is_read_only = 1;
    driver.start();
    world.run();
    add_request(guest, driver, 0, OUT, 2);
    driver.ring();
    world.run();
    EXPECT_EQ(guest.get<u8>(status_at), IOERR);
}

TEST_F(StorageTest, DeviceThatMakesNoSenseIsLeftOut) {
    world.add_disk(sectors);
    Driver driver(world, 0);
    driver.start();
    service::DeviceEntry const good = world.board->devices[0];
    auto const expect_ignored = [&](auto change, int line = __builtin_LINE()) {
        world.board->devices[0] = good;
        change(world.board->devices[0]);
        world.start();
        world.run();
        add_request(*world.guests[0], driver, 0, FLUSH, 0);
        driver.ring();
        world.run();
        EXPECT_FALSE(driver.has_used()) << line;
        driver.available_index--;
        world.guests[0]->put<u16>(driver.available() + 2, driver.available_index);
        EXPECT_EQ(world.misuses[0], 0U);
    };
    using Entry = service::DeviceEntry;
    expect_ignored([](Entry& e) { e.queue_count = 0; });
    expect_ignored([](Entry& e) { e.queue_count = service::max_device_queues + 1; });
    expect_ignored([](Entry& e) { e.queue_count = ~0U; });
    expect_ignored([](Entry& e) { e.ram_area_count = 0; });
    expect_ignored([](Entry& e) { e.ram_area_count = service::max_ram_areas + 1; });
    expect_ignored([](Entry& e) { e.ram[1].base = e.ram[0].base; });
    expect_ignored([](Entry& e) { e.ram[1].base = 0x8000; });
    expect_ignored([](Entry& e) { e.ram[1].base = 0x2'0001; });
    expect_ignored([](Entry& e) { e.ram[1].base = ~u64{0} - 4095; });
    expect_ignored([](Entry& e) { e.ram[1].size = ~u64{0}; });
    expect_ignored([](Entry& e) { e.ram[1].size = 0; });
    expect_ignored([](Entry& e) { e.ram[1].size = service::max_guest_phys; });
    expect_ignored([](Entry& e) { e.medium_size = 0; });
    expect_ignored([](Entry& e) { e.medium_size = 513; });
    expect_ignored([](Entry& e) { e.medium_size = service::max_medium + 512; });
    expect_ignored([](Entry& e) { e.kind = static_cast<service::DeviceKind>(7); });
    world.board->devices[0] = good;
    world.start();
    world.run();
    write(0, driver, 1, 0x11);
}

TEST_F(StorageTest, QueueThatMakesNoSenseIsMisuse) {
    world.add_disk(sectors, false, 2);
    Driver driver(world, 0), other(world, 0, 1);
    using Entry = service::QueueEntry;
    void (*const changes[])(Entry&) = {[](Entry& e) { e.size = 3; },
                                       [](Entry& e) { e.size = 128; },
                                       [](Entry& e) { e.descriptors++; },
                                       [](Entry& e) { e.available = 0x401; },
                                       [](Entry& e) { e.used = 0x1'0000; },
                                       [](Entry& e) { e.used = ~u64{3}; },
                                       [](Entry& e) { e.descriptors = Guest::high_area - 16; }};
    u32 expected = 0;
    for (auto const change : changes) {
        driver.start();
        other.start();
        change(driver.entry());
        world.start();
        world.run();
        EXPECT_EQ(world.misuses[0], ++expected);
        add_request(*world.guests[0], other, 0, FLUSH, 0); // the whole device needs a reset
        other.ring();
        world.run();
        EXPECT_FALSE(other.has_used());
    }
    driver.start();
    world.run();
    write(0, driver, 1, 0x11);
}

TEST_F(StorageTest, SleepingServiceWakesForNothingButEvents) {
    world.add_disk(sectors);
    Driver driver(world, 0);
    driver.start();
    world.start();
    EXPECT_EQ(world.run(), 1U);
    for (u32 i = 0; i < 16; i++) {
        world.ring(i);
        EXPECT_EQ(world.run(), 1U); // a doorbell of a disk that is not there, or has nothing
    }
}

} // namespace
